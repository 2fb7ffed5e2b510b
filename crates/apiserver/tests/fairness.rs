//! Priority and fairness as clients meet it: the headers of every answer, and who is told to come again.

mod common;

use common::Cluster;
use common::client::{Client, Reply};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const GROUP: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// A seat is taken as soon as the server has read a request's head: until then others find it free.
const MOST_TRIES: usize = 10_000;

fn marks(reply: &Reply) -> (&str, &str) {
    (reply.header("x-kubernetes-pf-flowschema-uid"), reply.header("x-kubernetes-pf-prioritylevel-uid"))
}

async fn made(client: &Client, kind: &str, object: Value) -> String {
    let reply = client.post(&format!("{GROUP}/{kind}"), &object).await;
    assert_eq!(reply.code, 201, "{}", reply.text);
    reply.json()["metadata"]["uid"].as_str().expect("a uid").to_owned()
}

async fn uid(client: &Client, path: &str) -> String {
    client.get(&format!("{GROUP}/{path}")).await.json()["metadata"]["uid"].as_str().expect("a uid").to_owned()
}

#[tokio::test]
async fn answers_say_of_which_level_they_are() {
    let cluster = Cluster::start().await;
    let admin = Client::admin(&cluster);
    let exempt =
        (uid(&admin, "flowschemas/exempt").await, uid(&admin, "prioritylevelconfigurations/exempt").await);
    for path in ["/version", CONFIG_MAPS, "/api/v1/namespaces/default/configmaps/none"] {
        let reply = admin.get(path).await;
        assert_eq!(marks(&reply), (&*exempt.0, &*exempt.1), "{path}");
    }
    let jane = Client::of(&cluster, Some(cluster.identity("jane", &[])));
    let of_all = uid(&admin, "flowschemas/global-default").await;
    let refused = jane.get(CONFIG_MAPS).await;
    assert_eq!((refused.code, marks(&refused).0), (403, &*of_all));

    let level = json!({"metadata": {"name": "tests"}, "spec": {"type": "Limited", "limited": {
        "nominalConcurrencyShares": 4, "limitResponse": {"type": "Reject"}}}});
    let level = made(&admin, "prioritylevelconfigurations", level).await;
    let schema = json!({"metadata": {"name": "tests"}, "spec": {
        "matchingPrecedence": 1000, "priorityLevelConfiguration": {"name": "tests"}, "distinguisherMethod": {"type": "ByUser"},
        "rules": [{"subjects": [{"kind": "User", "user": {"name": "jane"}}],
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/version"]}]}]}});
    let schema = made(&admin, "flowschemas", schema).await;
    assert_eq!(marks(&jane.get("/version").await), (&*schema, &*level));
    assert_eq!(marks(&jane.get("/healthz").await).0, uid(&admin, "flowschemas/probes").await);
}

#[tokio::test]
async fn who_finds_no_seat_is_told_to_come_again() {
    let cluster = Cluster::start_with(|config| {
        (config.limits.reads_in_flight, config.limits.writes_in_flight) = (1, 0);
    })
    .await;
    let admin = Client::admin(&cluster);
    let binding = json!({"metadata": {"name": "jane"}, "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jane"}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}});
    admin.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await;
    let level = json!({"metadata": {"name": "one"}, "spec": {"type": "Limited", "limited": {
        "nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}}}});
    let level = made(&admin, "prioritylevelconfigurations", level).await;
    let schema = json!({"metadata": {"name": "one"}, "spec": {
        "matchingPrecedence": 500, "priorityLevelConfiguration": {"name": "one"},
        "rules": [{"subjects": [{"kind": "User", "user": {"name": "jane"}}], "resourceRules": [
            {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true}]}]}});
    made(&admin, "flowschemas", schema).await;

    let jane = Client::of(&cluster, Some(cluster.identity("jane", &[])));
    let body = json!({"metadata": {"name": "slow"}}).to_string();
    let head = format!(
        "POST {CONFIG_MAPS} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut slow = jane.connect().await;
    slow.write_all(head.as_bytes()).await.expect("sent");
    slow.flush().await.expect("sent");
    let mut refused = None;
    for _ in 0..MOST_TRIES {
        let reply = jane.get(CONFIG_MAPS).await;
        if reply.code == 429 {
            refused = Some(reply);
            break;
        }
    }
    let refused = refused.expect("the slow request has the only seat");
    assert_eq!(refused.text, "Too many requests, please try again later.\n");
    assert_eq!((refused.header("retry-after"), marks(&refused).1), ("1", &*level));
    assert_eq!(admin.get(CONFIG_MAPS).await.code, 200, "others have seats of their own");
    let metrics = admin.get("/metrics").await.text;
    let labels = "flow_schema=\"one\",priority_level=\"one\"";
    for line in [
        &*format!("apiserver_flowcontrol_rejected_requests_total{{{labels},reason=\"concurrency-limit\"}} 1"),
        &*format!("apiserver_flowcontrol_current_executing_requests{{{labels}}} 1"),
        &*format!("apiserver_flowcontrol_work_estimated_seats_count{{{labels}}} "),
        &*format!("apiserver_flowcontrol_watch_count_samples_bucket{{{labels},le=\"0\"}} 1"),
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"one\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    // It is told of the last whole second, so that the one in which the slow request came has to end first.
    let in_flight = "apiserver_current_inflight_requests{request_kind=\"mutating\"} 1";
    let mut is_told = false;
    for _ in 0..MOST_TRIES {
        is_told = admin.get("/metrics").await.text.contains(in_flight);
        if is_told {
            break;
        }
    }
    assert!(is_told, "the slow request is in flight");
    let dumps = "/debug/api_priority_and_fairness/dump";
    let told = admin.get(&format!("{dumps}_requests?includeRequestDetails=1")).await.text;
    let line = told.lines().find(|line| line.starts_with("one,")).expect("the slow request");
    let cells: Vec<&str> = line.split(',').map(str::trim).collect();
    assert_eq!(cells[1..5], ["one", "-1", "-1", ""], "{line}");
    assert_eq!(cells[10..], ["jane", "create", CONFIG_MAPS, "default", "", "v1", "configmaps", ""], "{line}");
    let level = admin.get(&format!("{dumps}_priority_levels")).await.text;
    let line = level.lines().find(|line| line.starts_with("one,")).expect("the level");
    let cells: Vec<&str> = line.split(',').map(str::trim).collect();
    assert_eq!((cells[2], cells[5], cells[7]), ("false", "1", "1"), "{line}");
    assert!(admin.get(&format!("{dumps}_queues")).await.text.starts_with("PriorityLevelName, Index,"));
    let stranger = Client::of(&cluster, Some(cluster.identity("joe", &[])));
    assert_eq!(stranger.get(&format!("{dumps}_requests")).await.code, 403);
    assert!(!admin.get("/").await.text.contains(dumps), "as upstream, nothing points to them");

    slow.write_all(body.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).await.expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 201"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(jane.get(CONFIG_MAPS).await.code, 200);
}

#[tokio::test]
async fn a_client_says_how_long_it_waits() {
    let cluster = Cluster::start().await;
    let client = Client::admin(&cluster);
    assert_eq!(client.get(&format!("{CONFIG_MAPS}?timeout=30s")).await.code, 200);
    let wrong = client.get(&format!("{CONFIG_MAPS}?timeout=soon")).await;
    assert_eq!(
        (wrong.code, wrong.text.contains("invalid timeout specified in the request URL")),
        (400, true)
    );
    let head = format!(
        "POST {CONFIG_MAPS}?timeout=1ms HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n"
    );
    let mut slow = client.connect().await;
    slow.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).await.expect("an answer");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    assert!(answer.contains("Timeout: request did not complete within the allotted timeout"), "{answer}");
}
