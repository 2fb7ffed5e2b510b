//! Which state a read sees: resourceVersion, resourceVersionMatch, limit and continue in their combinations.
//! <https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::Cluster;
use common::client::Client;
use serde_json::{Value, json};
use store::{Memory, Window};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

async fn make(client: &Client, name: &str) -> u64 {
    version(&client.post(CONFIG_MAPS, &json!({"metadata": {"name": name}})).await.json())
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).expect("a version")
}

fn names(list: &Value) -> Vec<&str> {
    let items = list["items"].as_array().expect("items");
    items.iter().map(|item| item["metadata"]["name"].as_str().expect("a name")).collect()
}

/// What is asked, then the code, and the names or the words that the answer has. `$OLD` is a version before the last change of
/// ConfigMaps, `$NOW` that change, `$LATER` a change of something else.
type Case = (&'static str, u16, &'static str);

const TOO_OLD: &str = "The resourceVersion for the provided list is too old.";
const UNKNOWN: &str = r#"Unsupported value: \"Newest\": supported values: \"Exact\", \"NotOlderThan\", \"\""#;

const LISTS: &[Case] = &[
    ("", 200, "a b c"),
    ("resourceVersion=0", 200, "a b c"),
    ("resourceVersion=0&limit=1", 200, "a b c"),
    ("resourceVersion=0&resourceVersionMatch=NotOlderThan", 200, "a b c"),
    ("resourceVersion=$OLD", 200, "a b c"),
    ("resourceVersion=$OLD&resourceVersionMatch=NotOlderThan", 200, "a b c"),
    ("resourceVersion=$OLD&resourceVersionMatch=NotOlderThan&limit=2", 200, "a b"),
    ("resourceVersion=$OLD&resourceVersionMatch=Exact", 200, "a"),
    ("resourceVersion=$OLD&limit=2", 200, "a"),
    ("resourceVersion=$NOW&resourceVersionMatch=Exact", 200, "a b c"),
    ("resourceVersion=$NOW&limit=2", 200, "a b"),
    ("resourceVersion=$LATER&resourceVersionMatch=Exact", 200, "a b c"),
    ("resourceVersion=0&resourceVersionMatch=Exact", 422, "is forbidden for resourceVersion"),
    ("resourceVersionMatch=Exact", 422, "is forbidden unless resourceVersion is provided"),
    ("resourceVersionMatch=NotOlderThan", 422, "is forbidden unless resourceVersion is provided"),
    ("resourceVersion=$NOW&resourceVersionMatch=Newest", 422, UNKNOWN),
    ("resourceVersionMatch=Newest&sendInitialEvents=true", 422, UNKNOWN),
    ("resourceVersionMatch=Newest&sendInitialEvents=true", 422, "sendInitialEvents is forbidden for list"),
    // The token is looked at first.
    ("resourceVersion=$NOW&continue=x", 400, "continue key is not valid"),
    (
        "resourceVersion=$NOW&resourceVersionMatch=Exact&continue=x",
        422,
        "is forbidden when continue is provided",
    ),
    ("resourceVersion=x", 400, "invalid resource version"),
    ("continue=x", 400, "continue key is not valid"),
    ("labelSelector=a%3D%3D%3D", 400, "unable to parse requirement"),
    ("fieldSelector=spec.x%3D1", 400, r#"\"spec.x\" is not a known field selector"#),
    ("fieldSelector=metadata.name%3Db", 200, "b"),
    ("fieldSelector=metadata.name!%3Db", 200, "a c"),
    ("limit=x", 400, "strconv.ParseInt"),
];

const WATCHES: &[Case] = &[
    ("resourceVersionMatch=NotOlderThan", 422, "is forbidden for watch unless sendInitialEvents is provided"),
    ("resourceVersionMatch=Exact", 422, r#"supported values: \"NotOlderThan\""#),
    (
        "sendInitialEvents=true",
        422,
        "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
    ),
    (
        "sendInitialEvents=false",
        422,
        "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
    ),
    (
        "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&continue=x",
        422,
        "is forbidden when continue is provided",
    ),
    ("continue=x", 422, "is forbidden when continue is provided"),
    // Upstream takes it for a fault of its own.
    ("resourceVersion=x", 500, "resourceVersion: Invalid value"),
];

#[tokio::test]
async fn which_state_a_list_sees() {
    let cluster = Cluster::start().await;
    let client = Client::admin(&cluster);
    let old = make(&client, "a").await;
    make(&client, "b").await;
    let now = make(&client, "c").await;
    let later = client.post(SECRETS, &json!({"metadata": {"name": "s"}})).await;
    let later = version(&later.json());
    let fill = |query: &str| {
        let values = [("$OLD", old), ("$NOW", now), ("$LATER", later)];
        values.iter().fold(query.to_owned(), |text, (name, value)| text.replace(name, &value.to_string()))
    };
    for (query, code, expected) in LISTS {
        let answer = client.get(&format!("{CONFIG_MAPS}?{}", fill(query))).await;
        assert_eq!(answer.code, *code, "{query}: {}", answer.text);
        if *code != 200 {
            assert!(answer.text.contains(expected), "{query}: {}", answer.text);
            continue;
        }
        assert_eq!(names(&answer.json()).join(" "), *expected, "{query}");
        let is_page = query.contains("limit=") && !query.contains("NotOlder") && !query.contains("=0&");
        if query.contains("Exact") || is_page {
            let asked = match query {
                query if query.contains("$LATER") => later,
                query if query.contains("$OLD") => old,
                _ => now,
            };
            assert_eq!(version(&answer.json()), asked, "{query}: exactly what was asked for");
        }
    }
    for (query, code, expected) in WATCHES {
        let answer = client.get(&format!("{CONFIG_MAPS}?watch=1&timeoutSeconds=1&{}", fill(query))).await;
        assert_eq!(answer.code, *code, "{query}: {}", answer.text);
        assert!(answer.text.contains(expected), "{query}: {}", answer.text);
    }
    let ahead = client.get(&format!("{CONFIG_MAPS}?resourceVersion={}", now + 1_000)).await;
    assert_eq!((ahead.code, ahead.header("retry-after")), (504, "1"));
    assert_eq!(ahead.json()["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
}

/// An exact list goes on in its own state, whatever has changed meanwhile.
#[tokio::test]
async fn pages_are_of_the_state_that_was_asked_for() {
    let cluster = Cluster::start().await;
    let client = Client::admin(&cluster);
    for name in ["a", "b"] {
        make(&client, name).await;
    }
    let now = make(&client, "c").await;
    client.post("/api/v1/namespaces/default/secrets", &json!({"metadata": {"name": "s"}})).await;
    let first = client.get(&format!("{CONFIG_MAPS}?resourceVersion={now}&limit=1")).await.json();
    assert_eq!((version(&first), &first["metadata"]["remainingItemCount"]), (now, &json!(2)));
    let token = first["metadata"]["continue"].as_str().expect("a token");
    client.delete(&format!("{CONFIG_MAPS}/b")).await;
    make(&client, "d").await;
    let second = client.get(&format!("{CONFIG_MAPS}?limit=1&continue={token}")).await.json();
    assert_eq!((version(&second), names(&second)), (now, vec!["b"]));
    let token = second["metadata"]["continue"].as_str().expect("a token");
    let last = client.get(&format!("{CONFIG_MAPS}?limit=1&continue={token}")).await.json();
    assert_eq!((names(&last), last["metadata"].get("continue")), (vec!["c"], None));
    // The state that is held of one resource says nothing of another: there is a secret in it that was made later.
    let secrets =
        client.get(&format!("{SECRETS}?resourceVersion={now}&resourceVersionMatch=Exact&limit=5")).await;
    assert_eq!((secrets.code, names(&secrets.json())), (200, vec![]));
    let selected = client.get(&format!("{CONFIG_MAPS}?limit=1&labelSelector=!x")).await.json();
    assert_eq!(selected["metadata"].get("remainingItemCount"), None, "nobody counts what a selector leaves");
}

/// What has changed since is taken back, as far as it is known.
#[tokio::test]
async fn an_exact_list_sees_what_was() {
    let cluster = Cluster::start().await;
    let client = Client::admin(&cluster);
    let label = |name: &str, value: &str| {
        let (path, patch) = (format!("{CONFIG_MAPS}/{name}"), json!({"metadata": {"labels": {"l": value}}}));
        let client = &client;
        async move { version(&client.patch(&path, "merge-patch+json", &patch).await.json()) }
    };
    make(&client, "a").await;
    make(&client, "b").await;
    let then = label("a", "old").await;
    label("a", "new").await;
    label("b", "old").await;
    client.delete(&format!("{CONFIG_MAPS}/b")).await;
    make(&client, "c").await;
    for (query, expected) in
        [("", vec!["a", "b"]), ("&labelSelector=l%3Dold", vec!["a"]), ("&limit=1", vec!["a"])]
    {
        let exact = format!("{CONFIG_MAPS}?resourceVersion={then}&resourceVersionMatch=Exact{query}");
        let answer = client.get(&exact).await.json();
        assert_eq!((version(&answer), names(&answer)), (then, expected), "{query}");
        assert_eq!(answer["items"][0]["metadata"]["labels"]["l"], "old", "{query}");
    }
    let newest = client.get(&format!("{CONFIG_MAPS}?labelSelector=l%3Dnew")).await.json();
    assert_eq!(names(&newest), ["a"], "nobody else sees it");

    let narrow = Window { bytes: 0, age: None, keep: 0 };
    let cluster = Cluster::start_in(Arc::new(Memory::with_window(narrow)), |_| {}).await;
    let client = Client::admin(&cluster);
    let gone = make(&client, "a").await;
    make(&client, "b").await;
    let answer =
        client.get(&format!("{CONFIG_MAPS}?resourceVersion={gone}&resourceVersionMatch=Exact")).await;
    assert_eq!((answer.code, &answer.json()["message"]), (410, &json!(TOO_OLD)));
}

/// So much time passes, and no real one.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// [sig-api-machinery] Servers with support for API chunking should support continue listing from the last key if the original version
/// has been compacted away, though the list is inconsistent. Upstream takes nine minutes for it.
#[tokio::test]
async fn a_list_goes_on_in_the_newest_state_when_its_own_is_five_minutes_old() {
    let cluster = Cluster::start().await;
    let client = Client::admin(&cluster);
    for name in ["a", "b", "c", "d", "e"] {
        make(&client, name).await;
    }
    let first = client.get(&format!("{CONFIG_MAPS}?limit=1")).await.json();
    let token = first["metadata"]["continue"].as_str().expect("a token");
    client.delete(&format!("{CONFIG_MAPS}/b")).await;
    pass(Duration::from_secs(299)).await;
    let second = client.get(&format!("{CONFIG_MAPS}?limit=1&continue={token}")).await.json();
    assert_eq!((version(&second), names(&second)), (version(&first), vec!["b"]), "the token is not over yet");

    pass(Duration::from_secs(1)).await;
    let over = client.get(&format!("{CONFIG_MAPS}?limit=1&continue={token}")).await;
    assert_eq!((over.code, &over.json()["reason"]), (410, &json!("Expired")));
    let status = over.json();
    let token = status["metadata"]["continue"].as_str().expect("a token that goes on");
    let second = client.get(&format!("{CONFIG_MAPS}?limit=1&continue={token}")).await.json();
    assert_ne!(version(&second), version(&first));
    assert_eq!((names(&second), &second["metadata"]["remainingItemCount"]), (vec!["c"], &json!(2)));
    let token = second["metadata"]["continue"].as_str().expect("a token");
    make(&client, "f").await;
    let rest = client.get(&format!("{CONFIG_MAPS}?limit=5&continue={token}")).await.json();
    assert_eq!((version(&rest), names(&rest)), (version(&second), vec!["d", "e"]), "this state is held anew");
    assert_eq!((rest["metadata"].get("continue"), rest["metadata"].get("remainingItemCount")), (None, None));
}
