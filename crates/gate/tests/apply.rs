//! Server-side apply, scenario by scenario: who does what, and what the object and its owners are then.

mod common;

use common::World;
use gate::{Change, Options, PatchKind, Preconditions, Problems, Request};
use object::Status;
use schema::FieldValidation;
use serde_json::{Value, json};

enum How {
    Apply,
    Force,
    Update,
}

use How::{Apply, Force, Update};

/// Applies or merges a document as a manager; an absent object is created.
async fn act(
    world: &World,
    resource: &'static str,
    how: &How,
    manager: &str,
    document: Value,
) -> Result<(), Status> {
    let options =
        Options { field_manager: manager.into(), force: matches!(how, Force), ..Options::default() };
    let request = Request { options: &options, ..world.request(resource, "a", "o", "") };
    let change = match how {
        Update => Change::Patch(PatchKind::Merge, document),
        _ => {
            let mut whole = json!({"apiVersion": request.kind.api_version(), "kind": request.kind.kind, "metadata": {"name": "o"}});
            schema::merge_patch(&mut whole, &document);
            Change::Patch(PatchKind::Apply, whole)
        }
    };
    world.gate.update(&request, &change, &Preconditions::default()).await.map(|_| ())
}

/// The owners of an object: manager to fields.
fn owners(world: &World, resource: &'static str) -> Value {
    let object = world.get(resource, "o").expect("an object");
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    entries
        .iter()
        .map(|entry| (entry["manager"].as_str().expect("a name").to_owned(), entry["fieldsV1"].clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// One step: who, how, with what; the error's words if it fails, otherwise the data and the owners.
type Step = (&'static str, How, Value, Result<(Value, Value), &'static str>);

async fn check(name: &str, steps: Vec<Step>) {
    let world = World::new().await;
    for (index, (manager, how, document, expected)) in steps.into_iter().enumerate() {
        let done = act(&world, "configmaps", &how, manager, document).await;
        match (done, expected) {
            (Err(status), Err(words)) => assert!(status.message.contains(words), "{name} {index}: {status}"),
            (Ok(()), Ok((data, expected))) => {
                let object = world.get("configmaps", "o").expect("an object");
                assert_eq!(object.get("data").cloned().unwrap_or_default(), data, "{name} {index}");
                assert_eq!(owners(&world, "configmaps"), expected, "{name} {index}");
            }
            (done, expected) => panic!("{name} {index}: {done:?}, expected {expected:?}"),
        }
    }
}

fn data(value: Value) -> Value {
    json!({"data": value})
}

fn owns(fields: &[&str]) -> Value {
    let inner: serde_json::Map<String, Value> =
        fields.iter().map(|field| (format!("f:{field}"), json!({}))).collect();
    json!({"f:data": inner})
}

#[tokio::test]
async fn values_are_shared_contested_and_taken() {
    let (one, two) = (json!({"a": "1"}), json!({"a": "2"}));
    check(
        "shared",
        vec![
            ("A", Apply, data(one.clone()), Ok((one.clone(), json!({"A": owns(&["a"])})))),
            ("B", Apply, data(one.clone()), Ok((one.clone(), json!({"A": owns(&["a"]), "B": owns(&["a"])})))),
            (
                "A",
                Apply,
                data(two.clone()),
                Err("Apply failed with 1 conflict: conflict with \"B\": .data.a"),
            ),
            ("A", Force, data(two.clone()), Ok((two.clone(), json!({"A": owns(&["a"])})))),
            ("A", Apply, data(two.clone()), Ok((two, json!({"A": owns(&["a"])})))),
        ],
    )
    .await;
}

#[tokio::test]
async fn what_is_no_longer_applied_goes_unless_somebody_keeps_it() {
    let both = json!({"a": "1", "b": "1"});
    check(
        "dropped",
        vec![
            ("A", Apply, data(both.clone()), Ok((both.clone(), json!({"A": owns(&["a", "b"])})))),
            ("A", Apply, data(json!({"a": "1"})), Ok((json!({"a": "1"}), json!({"A": owns(&["a"])})))),
            ("A", Apply, data(both.clone()), Ok((both.clone(), json!({"A": owns(&["a", "b"])})))),
            (
                "C",
                Update,
                data(json!({"b": "9"})),
                Ok((json!({"a": "1", "b": "9"}), json!({"A": owns(&["a"]), "C": owns(&["b"])}))),
            ),
            ("A", Apply, data(both), Err("conflict with \"C\" using v1: .data.b")),
            (
                "A",
                Apply,
                data(json!({"a": "1"})),
                Ok((json!({"a": "1", "b": "9"}), json!({"A": owns(&["a"]), "C": owns(&["b"])}))),
            ),
            ("C", Update, data(json!({"b": null})), Ok((json!({"a": "1"}), json!({"A": owns(&["a"])})))),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_map_without_members_is_owned_as_a_whole() {
    let whole = || json!({"a": {"f:data": {}}});
    let steps = vec![
        ("a", Apply, data(json!({})), Ok((Value::Null, whole()))),
        ("a", Apply, data(json!({"k": "1"})), Ok((json!({"k": "1"}), json!({"a": owns(&["k"])})))),
        ("a", Apply, data(json!({})), Ok((Value::Null, whole()))),
    ];
    check("nothing", steps).await;
}

#[tokio::test]
async fn containers_go_with_their_last_owner() {
    let created = json!({"f:data": {".": {}, "f:u": {}}});
    check(
        "kept",
        vec![
            (
                "C",
                Apply,
                json!({"metadata": {"labels": {"x": "y"}}}),
                Ok((Value::Null, json!({"C": {"f:metadata": {"f:labels": {"f:x": {}}}}}))),
            ),
            (
                "U",
                Update,
                data(json!({"u": "1"})),
                Ok((
                    json!({"u": "1"}),
                    json!({"C": {"f:metadata": {"f:labels": {"f:x": {}}}}, "U": created}),
                )),
            ),
            (
                "A",
                Apply,
                data(json!({"a": "1"})),
                Ok((
                    json!({"u": "1", "a": "1"}),
                    json!({"C": {"f:metadata": {"f:labels": {"f:x": {}}}}, "U": created, "A": owns(&["a"])}),
                )),
            ),
            (
                "A",
                Apply,
                json!({}),
                Ok((
                    json!({"u": "1"}),
                    json!({"C": {"f:metadata": {"f:labels": {"f:x": {}}}}, "U": created}),
                )),
            ),
        ],
    )
    .await;
}

fn containers(list: Value) -> Value {
    json!({"spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": list}}}})
}

fn names(world: &World) -> Vec<String> {
    let object = world.get("deployments.apps", "o").expect("a deployment");
    schema::path::list(&object, "spec.template.spec.containers")
        .iter()
        .map(|one| one["name"].as_str().expect("a name").to_owned())
        .collect()
}

#[tokio::test]
async fn items_of_lists_are_told_apart_by_their_keys() {
    let world = World::new().await;
    let act = async |how: How, manager: &str, list: Value| {
        act(&world, "deployments.apps", &how, manager, containers(list)).await
    };
    act(Apply, "A", json!([{"name": "x", "image": "1"}, {"name": "z", "image": "1"}]))
        .await
        .expect("applied");
    act(Apply, "B", json!([{"name": "y", "image": "1"}])).await.expect("applied");
    assert_eq!(names(&world).len(), 3);
    let conflict = act(Apply, "B", json!([{"name": "x", "image": "2"}])).await.expect_err("a conflict");
    assert!(
        conflict.message.ends_with("conflict with \"A\": .spec.template.spec.containers[name=\"x\"].image"),
        "{conflict}"
    );
    assert_eq!(conflict.causes[0].reason, "FieldManagerConflict");
    act(Apply, "A", json!([{"name": "z", "image": "1"}])).await.expect("applied");
    assert_eq!(names(&world), ["z", "y"], "an item goes with its only owner");
    let twice = act(Apply, "A", json!([{"name": "z", "image": "1"}, {"name": "z", "image": "1"}]))
        .await
        .expect_err("twice");
    assert!(twice.message.contains("duplicate entries for key [name=\"z\"]"), "{twice}");
    let unknown = act(Apply, "A", json!([{"name": "z", "imagine": "1"}])).await.expect_err("unknown");
    assert_eq!(
        (
            unknown.code,
            unknown
                .message
                .starts_with("failed to create typed patch object (/o; apps/v1, Kind=Deployment): ")
        ),
        (500, true),
        "{unknown}"
    );
}

#[tokio::test]
async fn defaults_belong_to_nobody_and_generations_count_values_only() {
    let world = World::new().await;
    let document = containers(json!([{"name": "c", "image": "i"}]));
    act(&world, "deployments.apps", &Apply, "A", document.clone()).await.expect("applied");
    let first = world.get("deployments.apps", "o").expect("a deployment");
    assert_eq!(first["spec"]["replicas"], 1);
    assert!(first["metadata"]["managedFields"][0]["fieldsV1"]["f:spec"].get("f:replicas").is_none());
    act(&world, "deployments.apps", &Apply, "B", document.clone()).await.expect("applied");
    let second = world.get("deployments.apps", "o").expect("a deployment");
    assert_ne!(
        first["metadata"]["resourceVersion"], second["metadata"]["resourceVersion"],
        "a new owner is a change"
    );
    assert_eq!(first["metadata"]["generation"], second["metadata"]["generation"]);
    act(&world, "deployments.apps", &Apply, "B", document).await.expect("applied");
    let third = world.get("deployments.apps", "o").expect("a deployment");
    assert_eq!(
        second["metadata"]["resourceVersion"], third["metadata"]["resourceVersion"],
        "the same again is none"
    );
}

#[tokio::test]
async fn a_port_without_a_protocol_is_the_tcp_one() {
    let world = World::new().await;
    let ports = |list: Value| json!({"spec": {"type": "NodePort", "ports": list}});
    act(&world, "services", &Apply, "A", ports(json!([{"port": 80}]))).await.expect("applied");
    let before = world.get("services", "o").expect("a service");
    act(&world, "services", &Apply, "B", ports(json!([{"port": 80, "protocol": "TCP"}])))
        .await
        .expect("applied");
    let after = world.get("services", "o").expect("a service");
    assert_eq!(before["spec"]["ports"], after["spec"]["ports"], "the node port stays, and there is one port");
    let expected = json!({"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}});
    assert_eq!(owners(&world, "services")["A"]["f:spec"]["f:ports"], expected);
}

#[tokio::test]
async fn what_was_there_before_the_first_apply_is_contested() {
    let world = World::new().await;
    for index in 0..12 {
        let how = Update;
        if index == 0 {
            world
                .create("configmaps", json!({"metadata": {"name": "o"}, "data": {"k0": "0"}}))
                .await
                .expect("made");
        } else {
            act(&world, "configmaps", &how, &format!("m{index:02}"), data(json!({format!("k{index}"): "1"})))
                .await
                .expect("updated");
        }
        world.now.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
    let owners = owners(&world, "configmaps");
    assert_eq!(owners.as_object().map(|owners| owners.len()), Some(10), "the oldest updaters are joined");
    assert_eq!(owners["ancient-changes"], json!({"f:data": {".": {}, "f:k0": {}, "f:k1": {}, "f:k2": {}}}));
    let conflict =
        act(&world, "configmaps", &Apply, "A", data(json!({"k0": "9"}))).await.expect_err("a conflict");
    assert!(conflict.message.contains("conflict with \"ancient-changes\" using v1: .data.k0"), "{conflict}");
}

/// A key that is there twice: strictly it never comes here.
#[tokio::test]
async fn what_the_reader_found_is_told_or_ignored() {
    let world = World::new().await;
    for (field_validation, told) in [(FieldValidation::Warn, 1), (FieldValidation::Ignore, 0)] {
        for value in ["created", "updated"] {
            let options = Options {
                field_manager: "A".into(),
                field_validation,
                problems: Problems { told: vec!["key \"k\" already set in map".into()], text: None },
                ..Options::default()
            };
            let name = format!("o{told}");
            let request = Request { options: &options, ..world.request("configmaps", "a", &name, "") };
            let document = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": value}});
            let change = Change::Patch(PatchKind::Apply, document);
            let done = world.gate.update(&request, &change, &Preconditions::default()).await.expect(value);
            assert_eq!(done.warnings.len(), told, "{value} {:?}", done.warnings);
        }
    }
}

/// A Deployment as its creator writes it.
fn deployment(replicas: u32) -> Value {
    json!({"spec": {"replicas": replicas, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

async fn create_deployment(world: &World, manager: &str, annotations: Value) {
    let options = Options { field_manager: manager.into(), ..Options::default() };
    let request = Request { options: &options, ..world.request("deployments.apps", "a", "", "") };
    let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "o", "annotations": annotations}});
    schema::merge_patch(&mut object, &deployment(3));
    world.gate.create(&request, object).await.expect("a Deployment");
}

#[tokio::test]
async fn what_go_always_writes_is_nobodys_and_what_it_may_leave_out_is_owned_itself() {
    let world = World::new().await;
    create_deployment(&world, "maker", json!({})).await;
    let owned = &owners(&world, "deployments.apps")["maker"]["f:spec"];
    // A struct that is no pointer was there before anybody wrote it.
    assert_eq!(
        owned["f:strategy"],
        json!({"f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}}, "f:type": {}})
    );
    assert_eq!(owned["f:template"]["f:metadata"], json!({"f:labels": {".": {}, "f:a": {}}}));
}

const NOTE: &str = "kubectl.kubernetes.io/last-applied-configuration";

#[tokio::test]
async fn kubectl_takes_over_what_it_applied_before_by_itself() {
    let noted = |replicas: u32, image: &str| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "o"},
            "spec": {"replicas": replicas, "template": {"spec": {"containers": [{"image": image, "name": "c"}]}}}})
    };
    for (manager, live, conflicts) in [
        ("kubectl", noted(3, "i"), None),
        ("other", noted(3, "i"), Some(".spec.replicas")),
        // What has been changed since is not the client's any more.
        ("kubectl", noted(2, "i"), Some(".spec.replicas")),
    ] {
        let world = World::new().await;
        create_deployment(&world, "kubectl-client-side-apply", json!({NOTE: live.to_string()})).await;
        let done = act(&world, "deployments.apps", &Apply, manager, json!({"spec": {"replicas": 4}})).await;
        match conflicts {
            Some(field) => assert!(done.expect_err("a conflict").message.contains(field), "{manager}"),
            None => {
                done.expect("taken over");
                let object = world.get("deployments.apps", "o").expect("the Deployment");
                let note = object["metadata"]["annotations"][NOTE].as_str().expect("a note");
                let note: Value = serde_json::from_str(note).expect("JSON");
                assert_eq!(note["spec"], json!({"replicas": 4}));
            }
        }
    }
}

#[tokio::test]
async fn what_is_too_large_to_be_noted_is_applied_without_a_note() {
    let world = World::new().await;
    let object = json!({"metadata": {"name": "o", "annotations": {NOTE: "{}", "kept": "yes"}}});
    world.create("configmaps", object).await.expect("a ConfigMap");
    let large = data(json!({"large": "x".repeat(256 << 10)}));
    act(&world, "configmaps", &Apply, "kubectl", large).await.expect("applied");
    let object = world.get("configmaps", "o").expect("the ConfigMap");
    assert_eq!(object["metadata"]["annotations"], json!({"kept": "yes"}));
}

async fn apply_scale(
    world: &World,
    manager: &str,
    kind: &str,
    spec: Value,
    force: bool,
) -> Result<(), Status> {
    let options = Options { field_manager: manager.into(), force, ..Options::default() };
    let request = Request { options: &options, ..world.request("deployments.apps", "a", "o", "scale") };
    let scale =
        json!({"apiVersion": "autoscaling/v1", "kind": kind, "metadata": {"name": "o"}, "spec": spec});
    let change = Change::Patch(PatchKind::Apply, scale);
    world.gate.update(&request, &change, &Preconditions::default()).await.map(drop)
}

#[tokio::test]
async fn a_scale_that_says_no_number_leaves_it_to_its_owners() {
    let world = World::new().await;
    create_deployment(&world, "maker", json!({})).await;
    let is = |replicas: u32, owns: &[&str], step: &str| {
        let object = world.get("deployments.apps", "o").expect("the Deployment");
        assert_eq!(object["spec"]["replicas"], replicas, "{step}");
        for (manager, fields) in owners(&world, "deployments.apps").as_object().expect("owners") {
            let has = fields["f:spec"].get("f:replicas").is_some();
            assert_eq!(has, owns.contains(&manager.as_str()), "{step}: {manager}");
        }
    };
    let apply = async |spec: Value, force: bool| {
        apply_scale(&world, "A", "Scale", spec, force).await.expect("applied")
    };
    for force in [false, true] {
        apply(json!({}), force).await;
        is(3, &["maker"], "never its own");
    }
    apply(json!({"replicas": 3}), false).await;
    is(3, &["maker", "A"], "shared");
    apply(json!({}), false).await;
    is(3, &["maker"], "given up");
    apply(json!({"replicas": 5}), true).await;
    is(5, &["A"], "taken");
    apply(json!({}), false).await;
    is(0, &[], "gone with its only owner");
}

#[tokio::test]
async fn a_scale_is_applied() {
    let world = World::new().await;
    create_deployment(&world, "maker", json!({})).await;
    let apply = async |kind: &str, replicas: u32, force: bool| {
        apply_scale(&world, "A", kind, json!({"replicas": replicas}), force).await
    };
    let told = apply("Deployment", 5, false).await.expect_err("no Scale");
    assert_eq!(told.message, "invalid object type: autoscaling/v1, Kind=Deployment");
    let told = apply("Scale", 5, false).await.expect_err("a conflict");
    assert_eq!(
        told.message,
        "Apply failed with 1 conflict: conflict with \"maker\" using autoscaling/v1: .spec.replicas"
    );
    apply("Scale", 5, true).await.expect("forced");
    let object = world.get("deployments.apps", "o").expect("the Deployment");
    assert_eq!(object["spec"]["replicas"], 5);
    let owners = owners(&world, "deployments.apps");
    assert_eq!(owners["A"], json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(owners["maker"]["f:spec"].get("f:replicas"), None);
}
