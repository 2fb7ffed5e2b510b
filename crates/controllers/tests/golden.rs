//! Golden tests: a situation in YAML, and what a controller makes of it until nothing is left to do.
//!
//! `testdata/<controller>/<case>.input.yaml` holds `now`, `key` and `objects`; `<case>.output` beside it is what `check` prints.
//! `EKSO_UPDATE_GOLDEN=1 cargo test -p controllers` writes the outputs anew; read their diff.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object::{Draft, Key, Object, Resource, Snapshot, Status, Time, body};
use plan::{Expect, Plan, Propagation, Write};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use controllers::{ALL, Controller, Settings, Tokens};

/// A plan that is not empty after so many rounds never will be.
const MOST_ROUNDS: usize = 12;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    now: Time,
    /// `deployments.apps default/web`
    key: String,
    objects: Vec<Value>,
    /// Creations of this resource are refused with this message.
    #[serde(default)]
    refuse: Option<Refusal>,
    #[serde(default)]
    api_server_addresses: Vec<std::net::IpAddr>,
    #[serde(default)]
    pod_cidr: Option<String>,
    #[serde(default)]
    terminated_pod_threshold: Option<usize>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refusal {
    resource: String,
    message: String,
}

/// One controller's file name and its row.
fn folders() -> Vec<(PathBuf, &'static Controller)> {
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    ALL.iter().map(|controller| (testdata.join(controller.name), *controller)).collect()
}

/// Tokens that say what they are of.
#[derive(Debug)]
struct Named;

impl Tokens for Named {
    fn of_secret(&self, account: &Object, secret: &Object) -> Option<String> {
        Some(format!("token of {} for {}", account.key.path(), secret.key.path()))
    }
}

#[test]
fn every_case_ends_in_its_fixed_point() {
    let mut failures = String::new();
    for (folder, controller) in folders() {
        let mut cases: Vec<PathBuf> = std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}: a controller brings its tests", folder.display()))
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.to_string_lossy().ends_with(".input.yaml"))
            .collect();
        assert!(!cases.is_empty(), "{}: no case", folder.display());
        cases.sort();
        for case in cases {
            check(&case, controller, &mut failures);
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn the_list_is_sound() {
    for pair in ALL.windows(2) {
        assert!(pair[0].name < pair[1].name, "{} stands before {}", pair[0].name, pair[1].name);
    }
    for controller in ALL {
        assert!(!controller.watches.is_empty(), "{} is never woken", controller.name);
    }
}

fn check(input: &Path, controller: &Controller, failures: &mut String) {
    let text = std::fs::read_to_string(input).expect("a readable case");
    let case: Case =
        serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", input.display()));
    let got = play(controller, case);
    let output = input.to_string_lossy().replace(".input.yaml", ".output");
    if std::env::var_os("EKSO_UPDATE_GOLDEN").is_some() {
        std::fs::write(&output, got).expect("a writable output");
        return;
    }
    let wanted = std::fs::read_to_string(&output).unwrap_or_default();
    if got != wanted {
        let _ = writeln!(failures, "{output} differs:\n--- wanted\n{wanted}\n--- got\n{got}");
    }
}

/// Plans and applies until nothing changes.
fn play(controller: &Controller, case: Case) -> String {
    let default = Settings::default();
    let settings = Settings {
        ca_pem: "-----BEGIN CERTIFICATE-----\n".into(),
        api_server_addresses: case.api_server_addresses.clone(),
        pod_cidr: case.pod_cidr.clone().unwrap_or(default.pod_cidr),
        terminated_pod_threshold: case.terminated_pod_threshold.unwrap_or(default.terminated_pod_threshold),
        tokens: Some(Arc::new(Named)),
        ..Settings::default()
    };
    let (resource, path) = case.key.split_once(' ').unwrap_or((&case.key, ""));
    let (namespace, name) = path.split_once('/').unwrap_or(("", path));
    let key = Key::new(Resource::intern(resource), namespace, name);
    let mut cluster = Cluster { snapshot: Snapshot::default(), now: case.now };
    for object in case.objects {
        cluster.seed(object);
    }
    let mut out = String::new();
    for round in 1..=MOST_ROUNDS {
        let plan = (controller.reconcile)(&cluster.snapshot, &key, case.now, &settings);
        let before = cluster.snapshot.revision();
        let done = plan.writes.is_empty();
        if !done || !plan.events.is_empty() || round == 1 {
            let _ = writeln!(out, "# round {round}");
        }
        let mut is_refused = false;
        for write in &plan.writes {
            print_write(&mut out, write);
            if let Some(status) = refusal(case.refuse.as_ref(), write) {
                is_refused = true;
                let _ = writeln!(out, "refused: {}", status.message);
                let answer = controller
                    .refused
                    .map(|refused| refused(&cluster.snapshot, &key, case.now, write, &status));
                for write in answer.iter().flat_map(|answer| &answer.writes) {
                    print_write(&mut out, write);
                    cluster.apply(write);
                }
                answer.iter().for_each(|answer| print_events(&mut out, answer));
                break;
            }
            cluster.apply(write);
        }
        if !is_refused {
            print_events(&mut out, &plan);
        }
        if let Some(at) = plan.wake_at.filter(|_| done) {
            let _ = writeln!(out, "wake at {at}");
        }
        if done {
            assert!(plan.events.is_empty(), "events without a write repeat for ever:\n{out}");
            return out;
        }
        if cluster.snapshot.revision() == before {
            assert!(case.refuse.is_some(), "a plan changed nothing:\n{out}");
            return out;
        }
    }
    panic!("no fixed point:\n{out}");
}

fn refusal(refusal: Option<&Refusal>, write: &Write) -> Option<Status> {
    let Refusal { resource, message } = refusal?;
    let Write::Create { resource: asked, .. } = write else { return None };
    (asked.as_str() == resource).then(|| Status::new(object::Reason::Forbidden, message.clone()))
}

fn print_write(out: &mut String, write: &Write) {
    let (line, value) = describe(write);
    let _ = writeln!(out, "{}", line.trim_end());
    if !value.is_null() {
        let _ = writeln!(out, "{}", serde_json::to_string_pretty(&value).expect("JSON"));
    }
}

fn print_events(out: &mut String, plan: &Plan) {
    for event in &plan.events {
        let kind = if event.warning { "Warning" } else { "Normal" };
        let _ = writeln!(
            out,
            "event {} {}: {kind} {}: {}",
            event.kind,
            event.about.path(),
            event.reason,
            event.message
        );
    }
}

fn describe(write: &Write) -> (String, Value) {
    match write {
        Write::Create { resource, object } => (format!("create {resource}"), object.clone()),
        Write::Merge { key, subresource, patch, .. } => (format!("merge {key} {subresource}"), patch.clone()),
        Write::Replace { key, subresource, object, .. } => {
            (format!("replace {key} {subresource}"), object.clone())
        }
        Write::Delete { key, grace_seconds, propagation, .. } => {
            let grace = grace_seconds.map_or(String::new(), |seconds| format!(" grace {seconds}"));
            let propagation = propagation.map_or(String::new(), |how| format!(" {how:?}"));
            (format!("delete {key}{grace}{propagation}"), Value::Null)
        }
        Write::Bind { pod, node, .. } => (format!("bind {pod} to {node}"), Value::Null),
    }
}

/// A snapshot with just enough of an API server to apply plans to it.
struct Cluster {
    snapshot: Snapshot,
    now: Time,
}

impl Cluster {
    /// An object of the case as it stands; what every stored object has is filled in.
    fn seed(&mut self, mut object: Value) {
        let resource = resource_of(&object);
        let name = object["metadata"]["name"].as_str().expect("metadata.name").to_owned();
        let metadata = &mut object["metadata"];
        for (field, value) in [
            ("uid", json!(format!("{name}-uid"))),
            ("generation", json!(1)),
            ("creationTimestamp", json!(self.now.plus_secs(-3_600))),
        ] {
            if metadata[field].is_null() {
                metadata[field] = value;
            }
        }
        self.put(resource, object);
    }

    fn put(&mut self, resource: Resource, object: Value) {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let key = Key::new(resource, text("namespace"), text("name"));
        let selectable = kinds::of(resource).map_or(&[][..], |row| row.selectable);
        let at =
            |path: &&str| object.pointer(&format!("/{}", path.replace('.', "/"))).and_then(Value::as_str);
        let fields = selectable.iter().map(|path| at(path).unwrap_or_default().into()).collect();
        let draft = Draft::read(key, fields, body::encode(&object)).expect("an object");
        let next = self.snapshot.revision() + 1;
        self.snapshot.put(draft.at(next));
    }

    fn apply(&mut self, write: &Write) {
        match write {
            Write::Create { resource, object } => self.create(*resource, object.clone()),
            Write::Merge { key, expect, subresource, patch } => {
                self.change(key, expect, subresource, |object| merge(object, patch));
            }
            Write::Replace { key, expect, subresource, object: new } => {
                self.change(key, expect, subresource, |object| *object = new.clone());
            }
            Write::Delete { key, expect, grace_seconds, propagation } => {
                self.delete(key, expect, *grace_seconds, *propagation);
            }
            Write::Bind { .. } => panic!("controllers do not bind"),
        }
    }

    fn create(&mut self, resource: Resource, mut object: Value) {
        let name = object["metadata"]["name"].as_str().expect("controllers name what they make").to_owned();
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        let key = Key::new(resource, namespace, name.as_str());
        assert!(self.snapshot.get(&key).is_none(), "{key} exists");
        object["metadata"]["uid"] = format!("{name}-uid").into();
        object["metadata"]["generation"] = 1.into();
        object["metadata"]["creationTimestamp"] = json!(self.now);
        if resource.as_str() == "pods" {
            object["status"] = json!({"phase": "Pending"});
        }
        self.put(resource, object);
    }

    fn change(&mut self, key: &Key, expect: &Expect, subresource: &str, edit: impl FnOnce(&mut Value)) {
        let old = self.snapshot.get(key).unwrap_or_else(|| panic!("{key} is not there")).clone();
        assert!(expect.uid.as_ref().is_none_or(|uid| *uid == old.meta.uid), "{key} is another object");
        assert!(expect.revision.is_none_or(|revision| revision == old.revision), "{key} has changed since");
        let before = old.to_value().expect("JSON");
        let mut after = before.clone();
        edit(&mut after);
        if subresource == "status" {
            assert_eq!(before["spec"], after["spec"], "a status write touches the spec of {key}");
        }
        if before["spec"] != after["spec"] && subresource.is_empty() {
            after["metadata"]["generation"] = (old.meta.generation + 1).into();
        }
        if after == before {
            return;
        }
        let is_held =
            |field: &str| after.pointer(field).and_then(Value::as_array).is_some_and(|list| !list.is_empty());
        let graceful = old.meta.deletion_grace_period_seconds.is_some_and(|grace| grace > 0);
        if old.meta.is_deleting()
            && !graceful
            && !is_held("/metadata/finalizers")
            && !is_held("/spec/finalizers")
        {
            let next = self.snapshot.revision() + 1;
            self.snapshot.remove(key, next);
            return;
        }
        self.put(key.resource, after);
    }

    fn delete(&mut self, key: &Key, expect: &Expect, grace: Option<i64>, propagation: Option<Propagation>) {
        let old = self.snapshot.get(key).unwrap_or_else(|| panic!("{key} is not there")).clone();
        assert!(expect.uid.as_ref().is_none_or(|uid| *uid == old.meta.uid), "{key} is another object");
        assert!(expect.revision.is_none_or(|revision| revision == old.revision), "{key} has changed since");
        let mut object = old.to_value().expect("JSON");
        let bound = object.pointer("/spec/nodeName").is_some_and(|node| node != "");
        let grace = grace.unwrap_or(if bound && key.resource.as_str() == "pods" { 30 } else { 0 });
        let mut finalizers: Vec<Value> = old.meta.finalizers.iter().map(|name| json!(name)).collect();
        match propagation {
            Some(Propagation::Foreground) => finalizers.push("foregroundDeletion".into()),
            Some(Propagation::Orphan) => finalizers.push("orphan".into()),
            _ => {}
        }
        let holds_namespace = object.pointer("/spec/finalizers").is_some();
        if finalizers.is_empty() && grace == 0 && !holds_namespace {
            let next = self.snapshot.revision() + 1;
            self.snapshot.remove(key, next);
            return;
        }
        if !finalizers.is_empty() {
            object["metadata"]["finalizers"] = finalizers.into();
        }
        if !old.meta.is_deleting() {
            object["metadata"]["deletionTimestamp"] = json!(self.now.plus_secs(grace));
            object["metadata"]["deletionGracePeriodSeconds"] = grace.into();
        }
        self.put(key.resource, object);
    }
}

/// RFC 7396.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(members) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Map::new().into();
    }
    for (name, value) in members {
        if value.is_null() {
            target.as_object_mut().expect("an object").remove(name);
        } else {
            merge(&mut target[name], value);
        }
    }
}

/// `apps/v1` `ReplicaSet` → `replicasets.apps`.
fn resource_of(object: &Value) -> Resource {
    let text = |field: &str| object[field].as_str().unwrap_or_else(|| panic!("no {field}: {object}"));
    let kind = text("kind").to_lowercase();
    let plural = match kind.as_str() {
        "endpoints" => kind,
        _ if kind.ends_with('s') => format!("{kind}es"),
        _ if kind.ends_with('y') => format!("{}ies", kind.trim_end_matches('y')),
        _ => format!("{kind}s"),
    };
    match text("apiVersion").split_once('/') {
        Some((group, _)) => Resource::intern(&format!("{plural}.{group}")),
        None => Resource::intern(&plural),
    }
}
