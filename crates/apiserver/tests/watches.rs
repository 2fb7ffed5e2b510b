//! Watches: what a client sees of the log through its selectors.

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::Cluster;
use common::client::Client;
use futures_util::StreamExt;
use hyper_util::rt::TokioIo;
use object::{Draft, Key, Meta};
use serde_json::{Value, json};
use store::{Memory, Op, Transaction, Window};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn make(client: &Client, name: &str, label: &str) -> Value {
    client.post(CONFIG_MAPS, &json!({"metadata": {"name": name, "labels": {"a": label}}})).await.json()
}

async fn label(client: &Client, name: &str, label: &str) {
    client
        .patch(
            &format!("{CONFIG_MAPS}/{name}"),
            "merge-patch+json",
            &json!({"metadata": {"labels": {"a": label}}}),
        )
        .await;
}

#[tokio::test]
async fn a_selector_makes_its_own_story() {
    let cluster = Cluster::start().await;
    let client = Client::admin(&cluster);
    make(&client, "one", "x").await;
    let mut events =
        client.watch(&format!("{CONFIG_MAPS}?watch=1&labelSelector=a%3Dx&timeoutSeconds=60")).await;
    assert_eq!(events.told().await, "ADDED one");
    make(&client, "two", "y").await;
    label(&client, "two", "x").await;
    assert_eq!(events.told().await, "ADDED two");
    label(&client, "one", "z").await;
    let left = events.next().await.expect("an event");
    assert_eq!(
        (&left["type"], &left["object"]["metadata"]["labels"]["a"]),
        (&json!("DELETED"), &json!("x")),
        "its last state in the set"
    );
    client.patch(&format!("{CONFIG_MAPS}/two"), "merge-patch+json", &json!({"data": {"k": "v"}})).await;
    assert_eq!(events.told().await, "MODIFIED two");
    client.delete(&format!("{CONFIG_MAPS}/two")).await;
    let gone = events.next().await.expect("an event");
    let version = |event: &Value| {
        event["object"]["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse::<u64>().ok())
    };
    assert_eq!(gone["type"], "DELETED");
    assert!(version(&gone) > version(&left), "a deletion has a revision of its own");
}

#[tokio::test]
async fn a_watch_goes_on_where_a_list_ended() {
    let cluster = Cluster::start().await;
    let client = Client::admin(&cluster);
    make(&client, "one", "x").await;
    let list = client.get(CONFIG_MAPS).await.json();
    let version = list["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    make(&client, "two", "x").await;
    let mut events = client.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={version}")).await;
    assert_eq!(events.told().await, "ADDED two");
    let mut one =
        client.watch("/api/v1/watch/namespaces/default/configmaps?fieldSelector=metadata.name%3Done").await;
    assert_eq!(one.told().await, "ADDED one");
    let mut ended = client
        .watch(&format!(
            "{CONFIG_MAPS}?watch=1&resourceVersion={version}&timeoutSeconds=1&allowWatchBookmarks=true"
        ))
        .await;
    let told = [ended.told().await, ended.told().await];
    assert_eq!(told, ["ADDED two", "BOOKMARK"]);
    assert!(ended.next().await.is_none());
}

#[tokio::test]
async fn the_initial_state_ends_with_a_bookmark() {
    let cluster =
        Cluster::start_with(|config| config.limits.bookmark_every = Duration::from_millis(50)).await;
    let client = Client::admin(&cluster);
    make(&client, "one", "x").await;
    let path = format!(
        "{CONFIG_MAPS}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let mut events = client.watch(&path).await;
    assert_eq!(events.told().await, "ADDED one");
    let end = events.next().await.expect("an event");
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let later = events.next().await.expect("an event");
    assert_eq!((&later["type"], later["object"]["metadata"].get("annotations")), (&json!("BOOKMARK"), None));
}

#[tokio::test]
async fn a_log_that_is_gone_is_told_as_an_event() {
    let narrow = Window { bytes: 0, age: None, keep: 0 };
    let cluster = Cluster::start_in(Arc::new(Memory::with_window(narrow)), |_| {}).await;
    let client = Client::admin(&cluster);
    make(&client, "one", "x").await;
    make(&client, "two", "x").await;
    let gone = cluster.gate.store().compacted() - 1;
    let mut events = client.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={gone}")).await;
    let error = events.next().await.expect("an event");
    assert_eq!((&error["type"], &error["object"]["reason"]), (&json!("ERROR"), &json!("Expired")));
    assert!(events.next().await.is_none());
}

/// Clients take whatever comes for progress: behind what could not be told them, they would have missed it.
#[tokio::test]
async fn nothing_comes_behind_what_cannot_be_told() {
    let cluster = Cluster::start_with(|config| config.cbor = true).await;
    let client = Client::admin(&cluster);
    let begun = cluster.gate.store().snapshot().revision();
    let op = |name: &str, data: &str| {
        let stored = format!(
            "{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{{\"name\":\"{name}\"}},\"data\":{data}}}"
        );
        let key = Key::new(kinds::CONFIG_MAPS, "default", name);
        Op::create(Draft { key, meta: Meta::default(), fields: [].into(), stored: stored.into() })
    };
    let ops = vec![op("before", "{}"), op("odd", "<no JSON>"), op("behind", "{}")];
    cluster.gate.store().commit(Transaction { ops }).await.expect("committed");
    for media in ["application/vnd.kubernetes.protobuf;stream=watch", "application/cbor"] {
        let path = format!("{CONFIG_MAPS}?watch=1&resourceVersion={begun}");
        let text = client.send("GET", &path, &[("accept", media)], "").await.text;
        let told = |what: &str| text.matches(what).count();
        assert_eq!((told("ERROR"), told("ADDED")), (1, 1), "{media}: {text}");
        assert!(text.contains("before") && !text.contains("behind"), "{media}: {text}");
    }
}

/// Bytes in, bytes out: what is no JSON goes the whole way, which it could not if anybody decoded it.
#[tokio::test]
async fn no_body_is_decoded_on_its_way_to_a_reader() {
    let cluster = Cluster::start().await;
    let client = Client::admin(&cluster);
    // More than one buffer of a list, so that they are joined too.
    let odd = format!("\"data\":<no JSON{}>", "x".repeat(1_000));
    for number in 0..300 {
        let name = format!("odd-{number}");
        let stored = format!(
            "{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{{\"name\":\"{name}\"}},{odd}}}"
        );
        let key = Key::new(kinds::CONFIG_MAPS, "default", name);
        let draft = Draft { key, meta: Meta::default(), fields: [].into(), stored: stored.into() };
        cluster.gate.store().commit(Op::create(draft).into()).await.expect("committed");
    }
    let list = client.get(CONFIG_MAPS).await.text;
    assert_eq!(list.matches(&odd).count(), 300);
    assert_eq!(list.matches(">},{\"metadata\"").count(), 299, "a comma between each two");
    assert!(list.ends_with("}]}\n"));
    for text in [
        client.get(&format!("{CONFIG_MAPS}/odd-7")).await.text,
        client.get(&format!("{CONFIG_MAPS}?fieldSelector=metadata.name%3Dodd-7")).await.text,
        client
            .get(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Dodd-7"))
            .await
            .text,
    ] {
        assert_eq!(text.matches(&odd).count(), 1, "{text}");
    }
}

#[tokio::test]
async fn a_table_describes_its_columns_once() {
    let cluster = Cluster::start().await;
    let client = Client::admin(&cluster);
    make(&client, "one", "x").await;
    make(&client, "two", "x").await;
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let path = format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1");
    let look = || client.send("GET", &path, &accept, "");
    // Whoever looks second is told what was written for the first.
    for answer in <[_; 2]>::from(tokio::join!(look(), look())) {
        let tables: Vec<Value> = answer.text.lines().map(|line| common::value(line.as_bytes())).collect();
        let columns: Vec<_> = tables
            .iter()
            .map(|table| table["object"]["columnDefinitions"].as_array().map_or(0, Vec::len) > 0)
            .collect();
        assert_eq!(columns, [true, false]);
        assert_eq!(tables[1]["object"]["rows"][0]["cells"][0], "two");
    }
}

/// More than goes out at once, and more than is gone through for a label: what a watch begins with is what a list has, each once and in
/// order, however it is looked for; and what lists page by page.
#[tokio::test]
async fn a_long_state_comes_whole_however_it_is_looked_for() {
    let cluster = Cluster::start().await;
    let client = Client::admin(&cluster);
    let long = "x".repeat(400);
    for nth in 0..300 {
        let labels = json!({"every": "x", "tens": (nth / 10).to_string()});
        let object =
            json!({"metadata": {"name": format!("map-{nth:03}"), "labels": labels}, "data": {"v": long}});
        client.post(CONFIG_MAPS, &object).await;
    }
    for (selector, expected) in [
        ("", 300),
        ("every", 300),
        ("every=x", 300),
        ("tens=7", 10),
        ("tens in (29,3)", 20),
        ("every=x,tens>27", 20),
        ("tens!=7,every", 290),
        ("none", 0),
    ] {
        let query =
            format!("labelSelector={}", selector.replace(' ', "%20").replace('=', "%3D").replace('>', "%3E"));
        let list = client.get(&format!("{CONFIG_MAPS}?{query}")).await.json();
        let name = |object: &Value| object["metadata"]["name"].as_str().expect("a name").to_owned();
        let names =
            |list: &Value| list["items"].as_array().expect("items").iter().map(name).collect::<Vec<_>>();
        let all = names(&list);
        assert_eq!(all.len(), expected, "{selector}");
        assert!(all.is_sorted(), "{selector}");

        let (mut paged, mut token) = (Vec::new(), String::new());
        loop {
            let page = client.get(&format!("{CONFIG_MAPS}?{query}&limit=7&continue={token}")).await.json();
            paged.extend(names(&page));
            match page["metadata"]["continue"].as_str() {
                Some(next) if !next.is_empty() => token = next.to_owned(),
                _ => break,
            }
        }
        assert_eq!(paged, all, "{selector}, page by page");

        let state =
            "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
        let mut events = client.watch(&format!("{CONFIG_MAPS}?{state}&{query}")).await;
        for expected in &all {
            assert_eq!(events.told().await, format!("ADDED {expected}"), "{selector}");
        }
        let end = events.next().await.expect("the end of the state");
        assert_eq!(
            end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true",
            "{selector}"
        );
    }
}

/// A message for each event; its text is JSON, and in protobuf it has no length of its own in front.
#[tokio::test]
async fn a_watch_is_told_over_a_websocket() {
    let cluster = Cluster::start().await;
    let client = Client::admin(&cluster);
    make(&client, "one", "x").await;
    make(&client, "two", "x").await;
    let path = format!("{CONFIG_MAPS}?watch=1&labelSelector=a%3Dx&timeoutSeconds=1");
    let upgrade = |accept: &'static str, protocol: &'static str| {
        vec![
            ("accept", accept),
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
            ("origin", "https://console.example"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", protocol),
        ]
    };
    let protobuf = "application/vnd.kubernetes.protobuf";
    for (accept, protocol) in [("application/json", "base64.binary.k8s.io"), (protobuf, "mine")] {
        let answer = client.open("GET", &path, &upgrade(accept, protocol), "").await;
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["sec-websocket-protocol"]),
            (101, &protocol.parse().expect("a value"))
        );
        let connection = TokioIo::new(hyper::upgrade::on(answer).await.expect("an upgrade"));
        let socket = WebSocketStream::from_raw_socket(connection, Role::Client, None).await;
        let said: Vec<Message> = socket.map(|message| message.expect("a message")).collect().await;
        let told = |message: &Message| match message {
            Message::Text(text) => {
                let event: Value = serde_json::from_str(text).expect("an event");
                format!("{} {}", event["type"], event["object"]["metadata"]["name"])
            }
            Message::Binary(bytes) => String::from_utf8_lossy(&bytes[..7]).into_owned(),
            other => format!("{other:?}"),
        };
        let wanted = match accept == protobuf {
            true => ["\n\u{5}ADDED"; 2],
            false => [r#""ADDED" "one""#, r#""ADDED" "two""#],
        };
        assert_eq!(said[..2].iter().map(told).collect::<Vec<_>>(), wanted, "{accept}");
        let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        assert_eq!(said[2..], [Message::Close(Some(normal))], "{accept}");
    }
    let with = |name: &'static str, value: &'static str| {
        let others = upgrade("", "mine").into_iter().filter(move |(other, _)| *other != name);
        others.chain((!value.is_empty()).then_some((name, value))).collect::<Vec<_>>()
    };
    for (headers, code) in [
        (upgrade("", "one, another"), 400),
        (with("sec-websocket-version", "8"), 400),
        (with("sec-websocket-version", ""), 400),
        (with("sec-websocket-key", ""), 400),
        (with("origin", ""), 403),
        (with("origin", "null"), 403),
    ] {
        assert_eq!(client.send("GET", &path, &headers, "").await.code, code, "{headers:?}");
    }
}
