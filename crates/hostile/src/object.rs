//! Objects and changes to them, through the same steps as in the API server.

use std::sync::{Arc, LazyLock};

use gate::{Authority, Change, Gate, Options, PatchKind, Preconditions, Request, ServiceRanges};
use object::{Draft, Key, Resource, Snapshot, Status, Time, body};
use plan::{Attributes, Decision, User};
use schema::custom::ConversionWebhook;
use schema::{FieldValidation, Kind};
use serde_json::{Value, json};
use store::{Memory, Op, Store};
use tokio::runtime::Runtime;

// The first byte says which kind.
pub const EXAMPLES: &[&[u8]] = &[
    br#"{{"metadata":{"name":"a","labels":{"x":"y"},"finalizers":["a/b"]},"data":{"k":"v"}}"#,
    br#"X{"metadata":{"name":"a"},"spec":{"containers":[{"name":"c","image":"i","resources":{"limits":{"cpu":"1"}},"ports":[{"containerPort":80}]}],"tolerations":[{"key":"k","operator":"Exists"}]}}"#,
    br#"!{"metadata":{"name":"a"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}},"strategy":{"rollingUpdate":{"maxSurge":"25%"}}}}"#,
];

// The first byte says how it is meant.
pub const PATCHES: &[&[u8]] = &[
    br#"0[{"op":"test","path":"/spec/replicas","value":1},{"op":"add","path":"/metadata/labels/x","value":"y"},{"op":"move","from":"/metadata/labels","path":"/spec/selector"}]"#,
    br#"1{"spec":{"template":{"spec":{"containers":null}},"replicas":7}}"#,
    br#"2{"spec":{"template":{"spec":{"containers":[{"name":"c","$patch":"delete"},{"name":"d","image":"j"}],"$setElementOrder/containers":[{"name":"d"}]}}},"metadata":{"$retainKeys":["name"]}}"#,
    br#"3{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"},"spec":{"template":{"spec":{"containers":[{"name":"c","env":[{"name":"A","value":"b"}]}]}}}}"#,
];

/// What a conversion webhook answers: whatever it is, the object stays whose it was.
pub fn conversion_review(bytes: &[u8]) {
    let Ok(answer) = serde_json::from_slice(bytes) else { return };
    let webhook = ConversionWebhook { client_config: Value::Null, review_versions: vec!["v1".into()] };
    let asked = [json!({"apiVersion": "g.io/v1", "kind": "K", "metadata": {"name": "a"}})];
    if let Ok(converted) = webhook.read(answer, "u", "g.io/v2", &asked) {
        assert_eq!((converted.len(), &converted[0]["metadata"]["name"]), (1, &asked[0]["metadata"]["name"]));
    }
}

fn kind_of(first: u8) -> &'static Kind {
    let all = kinds::all();
    all[usize::from(first) % all.len()]
}

/// What follows when a body has been read.
fn take(kind: &Kind, mut object: Value) {
    kinds::default(kind, &mut object);
    if let Some(conversion) = kind.conversion {
        object = (conversion.from_stored)((conversion.to_stored)(object));
    }
    let _ = kind.violations(&object, None);
    let _ = kind.violations(&object, Some(&object));
    let fields = gate::selectable_values(kind, &object);
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let _ = Draft::read(Key::new(kind.resource, "n", name), fields, body::encode(&object));
}

fn conform(kind: &Kind, object: &Value) {
    // As bytes: the schema has the last word on every type.
    if let Ok(decoded) = kinds::decode(kind, object.to_string().as_bytes(), FieldValidation::Warn) {
        take(kind, decoded.value);
    }
}

pub fn json(bytes: &[u8]) {
    let Some((&first, text)) = bytes.split_first() else { return };
    let kind = kind_of(first);
    let repeats = schema::parse_json(text).map(|(_, repeats)| repeats).unwrap_or_default();
    if let Ok(mut decoded) = kinds::decode(kind, text, FieldValidation::Warn) {
        decoded.warnings.extend(repeats.iter().map(|path| format!("duplicate field \"{path}\"")));
        schema::sort_findings(text, &mut decoded.warnings);
        take(kind, decoded.value);
    }
}

pub fn yaml(bytes: &[u8]) {
    let Some((&first, text)) = bytes.split_first() else { return };
    if let Ok(object) = apiserver::decode_yaml(text) {
        conform(kind_of(first), &object);
    }
}

pub fn cbor(bytes: &[u8]) {
    let Some((&first, text)) = bytes.split_first() else { return };
    if let Ok(object) = apiserver::decode_cbor(text) {
        conform(kind_of(first), &object);
    }
}

pub fn protobuf(bytes: &[u8]) {
    let Some((&first, text)) = bytes.split_first() else { return };
    let kind = kind_of(first);
    let _ = apiserver::protobuf_identity(text);
    if let Ok(object) = apiserver::decode_protobuf(kind.type_name, text) {
        conform(kind, &object);
    }
}

struct Anyone;

impl Authority for Anyone {
    fn authorize(&self, _: &Snapshot, _: &User, _: &Attributes<'_>) -> Decision {
        Decision { allowed: true, ..Decision::default() }
    }

    fn may_grant(&self, _: &Snapshot, _: &User, _: &Key, _: &Value, _: Option<&Value>) -> Result<(), Status> {
        Ok(())
    }
}

/// A gate over a Deployment, and what waits for it.
static GROUND: LazyLock<Option<(Gate, Runtime)>> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread().build().ok()?;
    let store = Memory::new();
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "default", "uid": "u", "labels": {"a": "b"}},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i", "env": [{"name": "A", "value": "b"}]}]}}},
    });
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}});
    for (resource, object) in [(kinds::NAMESPACES, namespace), (DEPLOYMENTS, deployment)] {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let key = Key::new(resource, text("namespace"), text("name"));
        let draft = Draft::read(key, [].into(), body::encode(&object)).ok()?;
        runtime.block_on(store.commit(Op::create(draft).into())).ok()?;
    }
    let clock = Arc::new(|| Time::from_secs(1_700_000_000));
    let gate = Gate::new(
        Arc::new(store),
        Arc::new(Anyone),
        clock,
        Arc::new(|bytes| bytes.fill(7)),
        ServiceRanges::default(),
    );
    Some((gate, runtime))
});

const DEPLOYMENTS: Resource = Resource::new("deployments.apps");

/// Any change of a Deployment, short of writing it.
pub fn patch(bytes: &[u8]) {
    assert!(GROUND.is_some(), "there is a Deployment to change");
    let (Some((&first, text)), Some((gate, runtime))) = (bytes.split_first(), &*GROUND) else { return };
    let Ok(document) = serde_json::from_slice::<Value>(text) else { return };
    let change = match first % 5 {
        0 => Change::Patch(PatchKind::Json, document),
        1 => Change::Patch(PatchKind::Merge, document),
        2 => Change::Patch(PatchKind::Strategic, document),
        3 => Change::Patch(PatchKind::Apply, document),
        _ => Change::Replace(document),
    };
    let Some(kind) = kinds::of(DEPLOYMENTS) else { return };
    let options =
        Options { dry_run: true, field_manager: "hostile".into(), force: true, ..Options::default() };
    let user = User::new("somebody", &["system:authenticated"]);
    for subresource in ["", "status", "scale"] {
        let request =
            Request { user: &user, kind, namespace: "default", name: "d", subresource, options: &options };
        let _ = runtime.block_on(gate.update(&request, &change, &Preconditions::default()));
    }
}
