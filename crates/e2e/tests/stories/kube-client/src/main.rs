//! What operators written with kube-rs do all day: an informer, server-side apply, a definition from a type, a controller
//! with its finalizer, exec.
//!
//! `kube-client KUBECONFIG CONTEXT NAMESPACE`

mod guestbook;

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{
    AttachParams, DeleteParams, EvictParams, ListParams, LogParams, Patch, PatchParams, PostParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::discovery::Discovery;
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt, reflector, watcher};
use kube::{Api, Client, Config, ResourceExt};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PATIENCE: Duration = Duration::from_secs(100);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    tokio::time::timeout(PATIENCE, told()).await.context("it took too long")?
}

async fn told() -> Result<()> {
    let [kubeconfig, context, namespace] =
        <[String; 3]>::try_from(std::env::args().skip(1).collect::<Vec<_>>())
            .map_err(|given| anyhow::anyhow!("KUBECONFIG CONTEXT NAMESPACE are wanted, not {given:?}"))?;
    let options = KubeConfigOptions { context: Some(context), ..KubeConfigOptions::default() };
    let config = Config::from_custom_kubeconfig(Kubeconfig::read_from(kubeconfig)?, &options).await?;
    let client = Client::try_from(config)?;
    discovery(&client).await.context("discovery")?;
    for (name, how) in
        [("listed", watcher::Config::default()), ("streamed", watcher::Config::default().streaming_lists())]
    {
        informer(&client, &namespace, name, how).await.with_context(|| format!("an informer, {name}"))?;
    }
    pages(&client, &namespace).await.context("pages")?;
    applied(&client, &namespace).await.context("server-side apply")?;
    pod(&client, &namespace).await.context("a pod")?;
    guestbook::told(&client, &namespace).await.context("a definition and its controller")
}

async fn discovery(client: &Client) -> Result<()> {
    let version = client.apiserver_version().await?;
    ensure!(version.major == "1", "{version:?}");
    let names = |found: &Discovery| {
        let groups = found.groups_alphabetical().into_iter();
        let all = groups.flat_map(|group| group.recommended_resources().into_iter().map(|(one, _)| one));
        let mut all: Vec<String> = all.map(|one| format!("{}/{}", one.api_version, one.plural)).collect();
        all.sort();
        all
    };
    let old = names(&Discovery::new(client.clone()).run().await?);
    let aggregated = names(&Discovery::new(client.clone()).run_aggregated().await?);
    ensure!(old == aggregated, "the ways to discover differ: {old:?} {aggregated:?}");
    ensure!(old.contains(&"apps/v1/deployments".to_owned()), "{old:?}");
    Ok(())
}

/// What is in the store follows what happens, by a watch that begins with a list or with the state as events.
async fn informer(client: &Client, namespace: &str, name: &str, how: watcher::Config) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let (first, second) = (format!("{name}-first"), format!("{name}-second"));
    let map = |name: &str| ConfigMap {
        metadata: kube::api::ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some([("informed".to_owned(), "yes".to_owned())].into()),
            ..Default::default()
        },
        ..Default::default()
    };
    maps.create(&PostParams::default(), &map(&first)).await?;
    let (store, writer) = reflector::store();
    let events = watcher(maps.clone(), how.labels("informed=yes")).reflect(writer).applied_objects();
    let mut events = std::pin::pin!(events);
    let began = events.try_next().await?.context("the first object")?;
    ensure!(began.name_any() == first, "{began:?}");
    maps.create(&PostParams::default(), &map(&second)).await?;
    let came = events.try_next().await?.context("the second object")?;
    ensure!(came.name_any() == second && store.len() == 2, "{came:?}, {} in the store", store.len());
    let change = Patch::Merge(json!({"data": {"k": "v"}}));
    maps.patch(&second, &PatchParams::default(), &change).await?;
    let changed = events.try_next().await?.context("the change")?;
    ensure!(changed.data == Some([("k".to_owned(), "v".to_owned())].into()), "{changed:?}");
    maps.delete(&first, &DeleteParams::default()).await?;
    // What leaves the selector is gone, too; only what is applied is an event here.
    maps.patch(&second, &PatchParams::default(), &Patch::Merge(json!({"metadata": {"labels": null}})))
        .await?;
    let third = map(&format!("{name}-third"));
    maps.create(&PostParams::default(), &third).await?;
    let came = events.try_next().await?.context("the third object")?;
    let held: Vec<String> = store.state().iter().map(|map| map.name_any()).collect();
    ensure!(held == [came.name_any()], "{held:?}");
    maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("informed=yes")).await?;
    maps.delete(&second, &DeleteParams::default()).await?;
    Ok(())
}

async fn pages(client: &Client, namespace: &str) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    for number in 0..5 {
        let map = json!({"metadata": {"generateName": "page-", "labels": {"page": number.to_string()}}});
        maps.create(&PostParams::default(), &serde_json::from_value(map)?).await?;
    }
    let (mut seen, mut asked) = (0, ListParams::default().labels("page").limit(2));
    loop {
        let page = maps.list(&asked).await?;
        ensure!(page.items.len() <= 2, "a page of {}", page.items.len());
        seen += page.items.len();
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => asked = asked.continue_token(&token),
            None => break,
        }
    }
    ensure!(seen == 5, "{seen} objects");
    maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("page")).await?;
    Ok(())
}

async fn applied(client: &Client, namespace: &str) -> Result<()> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let head = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}});
    let configuration = |data: serde_json::Value| {
        let mut configuration = head.clone();
        configuration["data"] = data;
        configuration
    };
    let mine = PatchParams::apply("kube-client");
    let both = configuration(json!({"a": "1", "b": "1"}));
    maps.patch("applied", &mine, &Patch::Apply(&both)).await?;
    let theirs = PatchParams::apply("somebody-else");
    let other = configuration(json!({"a": "2"}));
    match maps.patch("applied", &theirs, &Patch::Apply(&other)).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {
            ensure!(status.message.contains("conflict with \"kube-client\": .data.a"), "{}", status.message);
        }
        answer => bail!("a conflict is no conflict: {answer:?}"),
    }
    maps.patch("applied", &theirs.force(), &Patch::Apply(&other)).await?;
    let left = maps.patch("applied", &mine, &Patch::Apply(configuration(json!({})))).await?;
    ensure!(
        left.data == Some([("a".to_owned(), "2".to_owned())].into()),
        "only what is theirs stays: {left:?}"
    );
    let metadata = maps.get_metadata("applied").await?;
    ensure!(
        metadata.managed_fields().iter().any(|one| one.manager.as_deref() == Some("somebody-else")),
        "{metadata:?}"
    );
    maps.delete("applied", &DeleteParams::default()).await?;
    Ok(())
}

async fn pod(client: &Client, namespace: &str) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "runs"},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [
            {"name": "c", "image": "e2e:1", "command": ["sh", "-c", "echo began; exec sleep 100000"]},
        ]},
    }))?;
    let made = pods.create(&PostParams::default(), &pod).await?;
    await_condition(pods.clone(), "runs", conditions::is_pod_running()).await?;
    let lines = pods.log_stream("runs", &LogParams { follow: true, ..LogParams::default() }).await?;
    let first = futures::AsyncBufReadExt::lines(lines).next().await.context("a line")??;
    ensure!(first == "began", "{first:?}");
    let mut process = pods
        .exec("runs", ["sh", "-c", "echo out; cat; exit 3"], &AttachParams::default().stdin(true))
        .await?;
    let mut output = process.stdout().context("an output")?;
    process.stdin().context("an input")?.shutdown().await?;
    let mut said = String::new();
    output.read_to_string(&mut said).await?;
    let status = process.take_status().context("a status")?.await.context("its status")?;
    let code = status.details.and_then(|details| details.causes).unwrap_or_default();
    let code = code.iter().find_map(|cause| cause.message.clone());
    process.join().await.ok();
    ensure!((said.as_str(), code.as_deref()) == ("out\n", Some("3")), "{said:?} {code:?}");
    pods.evict("runs", &EvictParams::default()).await?;
    let uid = made.uid().context("an uid")?;
    await_condition(pods, "runs", conditions::is_deleted(&uid)).await?;
    Ok(())
}
