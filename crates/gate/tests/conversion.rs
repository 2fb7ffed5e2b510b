//! Custom resources of a definition with a conversion webhook: every version reads and writes, one is stored.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::{World, stored};
use gate::{Answer, Asking, Change, DeleteOptions, Options, PatchKind, Preconditions, Request, Webhooks};
use object::{Object, Reason, Snapshot, Status};
use plan::Call;
use schema::Kind;
use serde_json::{Value, json};

const DEFINITIONS: &str = "customresourcedefinitions.apiextensions.k8s.io";
const NAME: &str = "addresses.example.com";

/// Makes `spec.hostPort` of version 1 `spec.host` and `spec.port` of version 2, and back.
#[derive(Default)]
struct Converter {
    calls: AtomicUsize,
    objects: AtomicUsize,
    /// What it says instead.
    fails: Mutex<Option<String>>,
}

fn convert(mut object: Value, api_version: &str) -> Value {
    if object["apiVersion"] == "example.com/v1" {
        let text = object["spec"]["hostPort"].as_str().unwrap_or(":").to_owned();
        let (host, port) = text.split_once(':').expect("a port");
        object["spec"] = json!({"host": host, "port": port});
    } else {
        let text = |field: &str| object["spec"][field].as_str().unwrap_or_default().to_owned();
        object["spec"] = json!({"hostPort": format!("{}:{}", text("host"), text("port"))});
    }
    object["apiVersion"] = api_version.into();
    object["metadata"]["labels"]["converted"] = api_version.rsplit('/').next().into();
    object
}

impl Webhooks for Converter {
    fn call<'a>(&'a self, _: &'a Snapshot, call: &'a Call) -> Asking<'a> {
        Box::pin(async move {
            if let Some(why) = self.fails.lock().expect("a lock").clone() {
                return Err(why);
            }
            let request = &call.body["request"];
            let objects = request["objects"].as_array().expect("objects").clone();
            self.calls.fetch_add(1, Ordering::Relaxed);
            self.objects.fetch_add(objects.len(), Ordering::Relaxed);
            let desired = request["desiredAPIVersion"].as_str().expect("a version");
            let converted: Vec<Value> = objects.into_iter().map(|object| convert(object, desired)).collect();
            Ok(json!({
                "apiVersion": call.body["apiVersion"], "kind": "ConversionReview",
                "response": {"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": converted},
            }))
        })
    }
}

fn definition(stored: &str) -> Value {
    let text = || json!({"type": "string"});
    let version = |name: &str, spec: Value| {
        json!({"name": name, "served": true, "storage": name == stored, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": spec}}}}})
    };
    json!({
        "metadata": {"name": NAME},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "addresses", "kind": "Address"},
            "versions": [
                version("v1", json!({"hostPort": text()})),
                version("v2", json!({"host": text(), "port": text(), "path": {"type": "string", "default": "/"}})),
            ],
            "conversion": {"strategy": "Webhook", "webhook": {
                "clientConfig": {"url": "https://10.0.0.1/convert"}, "conversionReviewVersions": ["v1"]}},
        },
    })
}

struct Setting {
    world: World,
    converter: Arc<Converter>,
}

impl Setting {
    async fn new() -> Self {
        let converter = Arc::new(Converter::default());
        let world = World::with_webhooks(converter.clone()).await;
        world.create(DEFINITIONS, definition("v1")).await.expect("a definition");
        let status = json!({"status": {
            "acceptedNames": {"plural": "addresses", "singular": "address", "kind": "Address", "listKind": "AddressList"},
            "conditions": [{"type": "Established", "status": "True"}],
        }});
        world.merge(DEFINITIONS, NAME, "status", status).await.expect("established");
        Self { world, converter }
    }

    fn row(&self, version: &str) -> Arc<Kind> {
        self.world.gate.catalog().served("example.com", version, "addresses").cloned().expect("served")
    }

    async fn create(&self, version: &str, name: &str, spec: Value) -> Result<Arc<Object>, Status> {
        let kind = self.row(version);
        let request = Request { kind: &kind, ..self.world.request("pods", "a", "", "") };
        stored(self.world.gate.create(&request, json!({"metadata": {"name": name}, "spec": spec})).await?)
    }

    async fn patch(&self, version: &str, name: &str, how: PatchKind, body: Value) -> Result<Value, Status> {
        let (kind, options) =
            (self.row(version), Options { field_manager: "me".into(), ..Options::default() });
        let request = Request { kind: &kind, options: &options, ..self.world.request("pods", "a", name, "") };
        let outcome =
            self.world.gate.update(&request, &Change::Patch(how, body), &Preconditions::default()).await?;
        let Answer::Object(object) = outcome.answer else { panic!("not stored") };
        Ok(self.read(version, &object).await?["spec"].take())
    }

    async fn read(&self, version: &str, object: &Arc<Object>) -> Result<Value, Status> {
        let read = self.world.gate.in_version(&self.row(version), vec![object.clone()]).await?;
        Ok(read[0].to_value().expect("JSON"))
    }

    async fn get(&self, version: &str, name: &str) -> Result<Value, Status> {
        self.read(version, &self.stored(name)).await
    }

    fn stored(&self, name: &str) -> Arc<Object> {
        let snapshot = self.world.gate.store().snapshot();
        snapshot.find(self.row("v1").resource, "a", name).cloned().expect("stored")
    }

    /// So many, stored in version 1.
    async fn many(&self, count: usize) -> Vec<Arc<Object>> {
        let mut made = Vec::new();
        for number in 0..count {
            let spec = json!({"hostPort": "a:1"});
            made.push(self.create("v1", &format!("a{number}"), spec).await.expect("created"));
        }
        made
    }

    /// Calls and objects since this was asked last.
    fn asked(&self) -> (usize, usize) {
        let Converter { calls, objects, .. } = &*self.converter;
        (calls.swap(0, Ordering::Relaxed), objects.swap(0, Ordering::Relaxed))
    }
}

#[tokio::test]
async fn every_version_reads_and_writes() {
    let setting = Setting::new().await;
    setting.create("v1", "one", json!({"hostPort": "a:1"})).await.expect("created");
    assert_eq!(setting.asked(), (0, 0), "within one version there is nothing to convert");
    let two = setting.get("v2", "one").await.expect("read");
    assert_eq!(two["spec"], json!({"host": "a", "port": "1", "path": "/"}), "converted and completed");
    assert_eq!(
        (&two["apiVersion"], &two["metadata"]["labels"]),
        (&json!("example.com/v2"), &json!({"converted": "v2"}))
    );
    assert_eq!(two["metadata"]["resourceVersion"], setting.stored("one").revision.to_string());
    assert_eq!(setting.asked(), (1, 1));
    setting.get("v2", "one").await.expect("read");
    assert_eq!(setting.asked(), (0, 0), "what was converted is remembered");

    setting.create("v2", "two", json!({"host": "b", "port": "2"})).await.expect("created");
    let kept = setting.stored("two").to_value().expect("JSON");
    assert_eq!((&kept["apiVersion"], &kept["spec"]), (&json!("example.com/v1"), &json!({"hostPort": "b:2"})));
    let patched = setting.patch("v2", "two", PatchKind::Merge, json!({"spec": {"port": "3"}})).await;
    assert_eq!(patched, Ok(json!({"host": "b", "port": "3", "path": "/"})));
    let applied = json!({"apiVersion": "example.com/v2", "kind": "Address", "metadata": {"name": "two"}, "spec": {"host": "c"}});
    let forced = setting.patch("v2", "two", PatchKind::Apply, applied).await;
    assert_eq!(forced.map_err(|status| status.reason), Err(Reason::Conflict), "another manager created it");
    assert_eq!(setting.get("v1", "two").await.expect("read")["spec"], json!({"hostPort": "b:3"}));
}

#[tokio::test]
async fn who_owns_a_field_owns_it_in_every_version() {
    let setting = Setting::new().await;
    let applied = |version: &str, spec: Value| json!({"apiVersion": format!("example.com/{version}"), "kind": "Address", "metadata": {"name": "one"}, "spec": spec});
    // Another manager than the one that applies below, and in the other version.
    setting.create("v1", "one", json!({"hostPort": "a:1"})).await.expect("created");
    let same = setting.patch("v2", "one", PatchKind::Apply, applied("v2", json!({"host": "a"}))).await;
    same.expect("the value is the one that there is");
    let other = setting.patch("v2", "one", PatchKind::Apply, applied("v2", json!({"host": "b"}))).await;
    let refused = other.expect_err("the field that it is made of belongs to somebody");
    assert!(refused.message.ends_with(": .spec.hostPort"), "{}", refused.message);
    assert!(refused.message.contains("using example.com/v1"), "{}", refused.message);
    // An update takes the field over, whatever it is called there.
    setting.patch("v2", "one", PatchKind::Merge, json!({"spec": {"port": "2"}})).await.expect("patched");
    let entries = setting.get("v1", "one").await.expect("read")["metadata"]["managedFields"].take();
    let owns = |entry: &&Value| entry.to_string().contains("f:hostPort");
    assert_eq!(entries.as_array().expect("entries").iter().filter(owns).count(), 0, "{entries}");
}

#[tokio::test]
async fn another_stored_version() {
    let setting = Setting::new().await;
    setting.create("v1", "old", json!({"hostPort": "a:1"})).await.expect("created");
    let stored_before =
        setting.world.get(DEFINITIONS, NAME).expect("there")["status"]["storedVersions"].take();
    setting
        .world
        .merge(DEFINITIONS, NAME, "", json!({"spec": definition("v2")["spec"]}))
        .await
        .expect("changed");
    let stored_after =
        setting.world.get(DEFINITIONS, NAME).expect("there")["status"]["storedVersions"].take();
    assert_eq!((stored_before, stored_after), (json!(["v1"]), json!(["v1", "v2"])));
    setting.create("v2", "new", json!({"host": "b", "port": "2"})).await.expect("created");
    setting.asked();
    // A list of both asks for those alone that are not what is wanted.
    let both = vec![setting.stored("new"), setting.stored("old")];
    let read = setting.world.gate.in_version(&setting.row("v2"), both).await.expect("read");
    let hosts: Vec<Value> =
        read.iter().map(|object| object.to_value().expect("JSON")["spec"]["host"].take()).collect();
    assert_eq!((hosts, setting.asked()), (vec![json!("b"), json!("a")], (1, 1)));
    // What is written again is stored as it is now.
    setting
        .patch("v1", "old", PatchKind::Merge, json!({"metadata": {"labels": {"x": "y"}}}))
        .await
        .expect("patched");
    let kept = setting.stored("old").to_value().expect("JSON");
    assert_eq!((&kept["apiVersion"], &kept["spec"]["host"]), (&json!("example.com/v2"), &json!("a")));
    // Then nothing is left of the old version, which may go once that is said.
    let without = json!({"spec": {"versions": [definition("v2")["spec"]["versions"][1]]}});
    let refused = setting.world.merge(DEFINITIONS, NAME, "", without).await.expect_err("it is still stored");
    assert!(refused.message.contains("v1 was previously a storage version"), "{}", refused.message);
    let migrated = json!({"status": {"storedVersions": ["v2"]}});
    setting.world.merge(DEFINITIONS, NAME, "status", migrated).await.expect("said");
}

#[tokio::test]
async fn many_readers_cost_one_call() {
    let setting = Setting::new().await;
    let all = setting.many(300).await;
    let row = setting.row("v2");
    let readers = (0..50).map(|_| setting.world.gate.in_version(&row, all.clone()));
    for read in futures_util::future::join_all(readers).await {
        let names: Vec<_> = read.expect("read").iter().map(|object| object.key.clone()).collect();
        assert_eq!(names, all.iter().map(|object| object.key.clone()).collect::<Vec<_>>(), "in their order");
    }
    assert_eq!(setting.asked(), (2, 300), "256 objects to a call");

    let setting = Setting::new().await;
    let all = setting.many(300).await;
    let row = setting.row("v2");
    *setting.converter.fails.lock().expect("a lock") = Some("connection refused".into());
    setting.world.gate.in_version(&row, all.clone()).await.expect_err("nobody converts");
    *setting.converter.fails.lock().expect("a lock") = None;
    setting.world.gate.in_version(&row, all).await.expect("no object of the failed call keeps its error");
    assert_eq!(setting.asked(), (2, 300), "all are asked for again");
}

#[tokio::test]
async fn a_webhook_that_is_away() {
    let setting = Setting::new().await;
    setting.create("v1", "one", json!({"hostPort": "a:1"})).await.expect("created");
    *setting.converter.fails.lock().expect("a lock") = Some("connection refused".into());
    let refused = setting.get("v2", "one").await.expect_err("nobody converts");
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (
            500,
            "conversion webhook for example.com/v1, Kind=Address failed: Post \"https://10.0.0.1/convert?timeout=30s\": connection refused"
        )
    );
    let refused =
        setting.create("v2", "two", json!({"host": "b", "port": "2"})).await.expect_err("nobody converts");
    assert!(refused.message.starts_with("conversion webhook for example.com/v2, Kind=Address failed: "));
    let kind = setting.row("v2");
    let request = Request { kind: &kind, ..setting.world.request("pods", "a", "one", "") };
    setting
        .world
        .gate
        .delete(&request, &DeleteOptions::default())
        .await
        .expect("what nobody looks at can go");
    *setting.converter.fails.lock().expect("a lock") = None;
    setting.create("v2", "two", json!({"host": "b", "port": "2"})).await.expect("it is there again");
}

#[tokio::test]
async fn a_definition_that_changes_during_a_write() {
    let setting = Setting::new().await;
    // The row that the request was routed by is no longer the one that is served.
    let old = setting.row("v2");
    setting
        .world
        .merge(DEFINITIONS, NAME, "", json!({"spec": definition("v2")["spec"]}))
        .await
        .expect("changed");
    let request = Request { kind: &old, ..setting.world.request("pods", "a", "", "") };
    let body = json!({"metadata": {"name": "late"}, "spec": {"host": "a", "port": "1"}});
    setting.world.gate.create(&request, body).await.expect("created");
    let kept = setting.stored("late").to_value().expect("JSON");
    assert_eq!(
        (&kept["apiVersion"], setting.asked()),
        (&json!("example.com/v2"), (0, 0)),
        "as it is stored now"
    );
}

/// A policy that is about version 2 changes what is written in version 1, in the words of version 2.
#[tokio::test]
async fn a_policy_mutates_in_its_own_version() {
    let setting = Setting::new().await;
    let rules = |version: &str| json!([{"apiGroups": ["example.com"], "apiVersions": [version], "operations": ["CREATE"], "resources": ["addresses"]}]);
    let policy = |name: &str, version: &str, policy: &str, expression: &str| {
        json!({"metadata": {"name": name}, "spec": {
            "matchConstraints": {"resourceRules": rules(version), "matchPolicy": policy}, "reinvocationPolicy": "Never",
            "failurePolicy": "Fail", "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}]}})
    };
    let policies = "mutatingadmissionpolicies.admissionregistration.k8s.io";
    let bindings = "mutatingadmissionpolicybindings.admissionregistration.k8s.io";
    for (name, version, equivalence, expression) in [
        ("a", "v2", "Equivalent", "Object{spec: Object.spec{port: object.spec.port + '0'}}"),
        ("b", "v2", "Exact", "Object{spec: Object.spec{host: 'other'}}"),
        ("c", "v1", "Exact", "Object{spec: Object.spec{hostPort: object.spec.hostPort + '1'}}"),
    ] {
        let world = &setting.world;
        world.create(policies, policy(name, version, equivalence, expression)).await.expect("a policy");
        let binding = json!({"metadata": {"name": name}, "spec": {"policyName": name}});
        world.create(bindings, binding).await.expect("a binding");
    }
    setting.create("v1", "x", json!({"hostPort": "h:8"})).await.expect("created");
    assert_eq!(setting.get("v1", "x").await.expect("read")["spec"], json!({"hostPort": "h:801"}));
}
