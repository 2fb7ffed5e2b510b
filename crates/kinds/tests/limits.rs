//! Objects as large as the API takes them are checked in time that grows with their size, not with its square.

use std::time::{Duration, Instant};

use schema::FieldValidation;
use serde_json::{Value, json};

/// Far above what a linear check takes, far below what a quadratic one does.
const LIMIT: Duration = Duration::from_secs(20);
const MANY: usize = 20_000;

fn check(what: &str, object: Value) {
    let group =
        object["apiVersion"].as_str().and_then(|text| text.split_once('/')).map_or("", |(group, _)| group);
    let kind = kinds::by_gvk(group, "v1", object["kind"].as_str().expect("kind")).expect("a kind");
    let text = object.to_string();
    let started = Instant::now();
    let mut object = kinds::decode(kind, text.as_bytes(), FieldValidation::Warn).expect("decodes").value;
    kinds::default(kind, &mut object);
    kind.violations(&object, Some(&object));
    let mut patched = object.clone();
    kinds::types().strategic_merge(kind.type_name, &mut patched, &object).expect("it merges");
    assert_eq!(patched, object, "{what}: merged with itself");
    assert!(started.elapsed() < LIMIT, "{what}: {:?}", started.elapsed());
}

fn pod(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "b"}, "spec": spec})
}

#[test]
fn many_parts_take_no_more_than_their_number() {
    let many = |one: &dyn Fn(usize) -> Value| -> Value { (0..MANY).map(one).collect() };
    check(
        "ports",
        pod(
            json!({"containers": [{"name": "a", "image": "b", "ports": many(&|n| json!({"containerPort": n, "name": format!("p{n}"), "hostPort": n}))}]}),
        ),
    );
    check(
        "mounts",
        pod(json!({
            "containers": [{"name": "a", "image": "b", "volumeMounts": many(&|n| json!({"name": format!("v{n}"), "mountPath": format!("/{n}")}))}],
            "volumes": many(&|n| json!({"name": format!("v{n}"), "emptyDir": {}})),
        })),
    );
    check(
        "containers",
        pod(json!({"containers": many(&|n| json!({"name": format!("c{n}"), "image": "b"}))})),
    );
    check(
        "tolerations",
        pod(
            json!({"containers": [{"name": "a", "image": "b"}], "tolerations": many(&|n| json!({"key": format!("k{n}"), "operator": "Exists"}))}),
        ),
    );
    check(
        "finalizers",
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "b", "deletionTimestamp": "2026-01-01T00:00:00Z",
            "finalizers": many(&|n| json!(format!("example.com/{n}")))}}),
    );
    check(
        "owners",
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "b", "ownerReferences":
            many(&|n| json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": format!("u{n}"), "controller": true}))}}),
    );
    check(
        "service ports",
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": "b"},
            "spec": {"ports": many(&|n| json!({"port": n, "name": format!("p{n}")}))}}),
    );
}
