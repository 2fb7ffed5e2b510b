//! A kind of our own, and a controller that makes a ConfigMap for each of its objects.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::runtime::finalizer::{Event as Finalized, finalizer};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{Controller, watcher};
use kube::{Api, Client, CustomResource, CustomResourceExt, Resource, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

#[derive(Clone, CustomResource, Debug, Deserialize, JsonSchema, Serialize)]
#[kube(group = "kube-rs.ekso.test", version = "v1", kind = "Guestbook", namespaced, shortname = "gb")]
#[kube(
    status = "GuestbookStatus",
    scale(spec_replicas_path = ".spec.pages", status_replicas_path = ".status.pages")
)]
#[kube(printcolumn(name = "Pages", type_ = "integer", json_path = ".spec.pages"), selectable = ".spec.title")]
struct GuestbookSpec {
    title: String,
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 9))]
    pages: i32,
}

#[derive(Clone, Debug, Default, Deserialize, JsonSchema, Serialize)]
struct GuestbookStatus {
    pages: i32,
}

fn one() -> i32 {
    1
}

const NAME: &str = "guestbooks.kube-rs.ekso.test";
const FINALIZER: &str = "kube-rs.ekso.test/cleanup";

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Kube(#[from] kube::Error),
    #[error(transparent)]
    Finalizer(#[from] Box<kube::runtime::finalizer::Error<kube::Error>>),
}

pub async fn told(client: &Client, namespace: &str) -> Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let apply = PatchParams::apply("kube-client").force();
    definitions.patch(NAME, &apply, &Patch::Apply(Guestbook::crd())).await?;
    await_condition(definitions.clone(), NAME, conditions::is_crd_established()).await?;
    let books: Api<Guestbook> = Api::namespaced(client.clone(), namespace);
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let controller = Controller::new(books.clone(), watcher::Config::default())
        .owns(maps.clone(), watcher::Config::default())
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(200)), Arc::new(client.clone()))
        .for_each(|_| futures::future::ready(()));
    let story = asked(&books, &maps);
    let mut story = std::pin::pin!(story);
    let mut controller = std::pin::pin!(controller);
    let told = tokio::select! {
        told = &mut story => told,
        () = &mut controller => anyhow::bail!("the controller ended"),
    };
    told?;
    definitions.delete(NAME, &DeleteParams::default()).await?;
    Ok(())
}

async fn asked(books: &Api<Guestbook>, maps: &Api<ConfigMap>) -> Result<()> {
    let wrong = Guestbook::new("wrong", GuestbookSpec { title: "x".into(), pages: 10 });
    let refused = books.create(&PostParams::default(), &wrong).await.expect_err("too many pages").to_string();
    ensure!(refused.contains("spec.pages in body should be less than or equal to 9"), "{refused}");
    // Without what the definition has a default for.
    let book: Guestbook = serde_json::from_value(json!({
        "apiVersion": "kube-rs.ekso.test/v1", "kind": "Guestbook",
        "metadata": {"name": "one"}, "spec": {"title": "hello"},
    }))?;
    let book = books.create(&PostParams::default(), &book).await?;
    ensure!(book.spec.pages == 1, "the default: {book:?}");
    let has = |pages: i32| {
        move |book: Option<&Guestbook>| {
            book.and_then(|book| book.status.as_ref()).is_some_and(|status| status.pages == pages)
        }
    };
    await_condition(books.clone(), "one", has(1)).await?;
    books
        .patch_scale("one", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 3}})))
        .await?;
    await_condition(books.clone(), "one", has(3)).await?;
    let scale = books.get_scale("one").await?;
    ensure!(scale.status.is_some_and(|status| status.replicas == 3), "the scale's status");
    let found = books.list(&ListParams::default().fields("spec.title=hello")).await?;
    ensure!(found.items.len() == 1, "by a selectable field: {found:?}");
    // What the controller owns comes back when somebody takes it away.
    let before = maps.get("one").await?.uid().context("an uid")?;
    maps.delete("one", &DeleteParams::default()).await?;
    let is_new = |map: Option<&ConfigMap>| map.is_some_and(|map| map.uid().as_ref() != Some(&before));
    await_condition(maps.clone(), "one", is_new).await?;
    let map = maps.get("one").await?;
    books.delete("one", &DeleteParams::default()).await?;
    await_condition(books.clone(), "one", conditions::is_deleted(&book.uid().context("an uid")?)).await?;
    // The owner's end is the map's.
    await_condition(maps.clone(), "one", conditions::is_deleted(&map.uid().context("an uid")?)).await?;
    Ok(())
}

async fn reconcile(book: Arc<Guestbook>, client: Arc<Client>) -> Result<Action, Failed> {
    let namespace = book.namespace().unwrap_or_default();
    let books: Api<Guestbook> = Api::namespaced((*client).clone(), &namespace);
    let finalized = finalizer(&books, FINALIZER, book, |event| async {
        match event {
            Finalized::Apply(book) => keep(&book, &client, &namespace).await,
            Finalized::Cleanup(_) => Ok(Action::await_change()),
        }
    });
    finalized.await.map_err(|error| Failed::Finalizer(Box::new(error)))
}

async fn keep(book: &Guestbook, client: &Client, namespace: &str) -> Result<Action, kube::Error> {
    let apply = PatchParams::apply("guestbook-controller").force();
    let map = ConfigMap {
        metadata: ObjectMeta {
            name: Some(book.name_any()),
            owner_references: Some(book.controller_owner_ref(&()).into_iter().collect()),
            ..ObjectMeta::default()
        },
        data: Some([("title".to_owned(), book.spec.title.clone())].into()),
        ..ConfigMap::default()
    };
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    maps.patch(&book.name_any(), &apply, &Patch::Apply(&map)).await?;
    if book.status.as_ref().is_some_and(|status| status.pages == book.spec.pages) {
        return Ok(Action::await_change());
    }
    let status = json!({"status": {"pages": book.spec.pages}});
    let books: Api<Guestbook> = Api::namespaced(client.clone(), namespace);
    books.patch_status(&book.name_any(), &PatchParams::default(), &Patch::Merge(&status)).await?;
    let recorder = Recorder::new(client.clone(), Reporter::from("guestbook-controller"));
    let event = Event {
        type_: EventType::Normal,
        reason: "Written".to_owned(),
        note: Some(format!("{} pages", book.spec.pages)),
        action: "Write".to_owned(),
        secondary: None,
    };
    recorder.publish(&event, &book.object_ref(&())).await?;
    Ok(Action::await_change())
}
