use std::borrow::Cow;
use std::collections::BTreeSet;

use object::Resource;
use schema::{At, Kind, Strategy, Violation, metadata, names, path};
use serde_json::{Value, json};

use crate::column::{AGE, NAME, column};
use crate::spec::{
    check::{self, Found},
    template, warnings,
};
use crate::{row, strategy, subresource};

pub const STATEFUL_SETS: Resource = Resource::new("statefulsets.apps");

pub static KIND: Kind = Kind {
    resource: STATEFUL_SETS,
    group: "apps",
    version: "v1",
    kind: "StatefulSet",
    singular: "statefulset",
    short_names: &["sts"],
    categories: &["all"],
    namespaced: true,
    subresources: &[subresource::SCALE, subresource::STATUS],
    type_name: "apps.v1.StatefulSet",
    name,
    columns: &[
        NAME,
        column("Ready", "string", "How many pods are ready, of how many.", |object, _| {
            let ready = path::int(object, "status.readyReplicas").unwrap_or_default();
            format!("{ready}/{}", path::int(object, "spec.replicas").unwrap_or_default()).into()
        }),
        AGE,
        template::CONTAINERS,
        template::IMAGES,
    ],
    strategy: Strategy { prepare, ..strategy::SPEC_AND_STATUS },
    default,
    validate,
    warn,
    ..row::BASE
};

fn warn(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut found = warnings::of_controller(new, old, "spec.template");
    if path::int(new, "spec.revisionHistoryLimit").is_some_and(|limit| limit < 0) {
        found.push("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".into());
    }
    found
}

const MUTABLE: [&str; 7] = [
    "minReadySeconds",
    "ordinals",
    "persistentVolumeClaimRetentionPolicy",
    "replicas",
    "revisionHistoryLimit",
    "template",
    "updateStrategy",
];

/// Its pods have it as their host name's first part.
fn name(name: &str) -> Vec<String> {
    if name.contains('.') { vec!["must not contain dots".into()] } else { names::dns_label(name) }
}

/// Upstream drops `maxUnavailable` unless it is told to know it, or has known it already.
fn prepare(set: &mut Value, old: Option<&Value>) {
    const UNAVAILABLE: &str = "spec.updateStrategy.rollingUpdate.maxUnavailable";
    if old.is_none_or(|old| path::get(old, UNAVAILABLE).is_none()) {
        path::remove(set, UNAVAILABLE);
    }
    if old.is_none() {
        set["status"] = json!({"availableReplicas": 0, "replicas": 0});
    }
}

fn default(set: &mut Value) {
    template::default(set, "spec.template");
    if let Some(spec) = set.get_mut("spec").filter(|spec| spec.is_object()) {
        // Only a strategy that names no type gets the block; a named one keeps what it says.
        if path::text(spec, "updateStrategy.type").is_empty() {
            path::set(spec, "updateStrategy.type", "RollingUpdate".into());
            path::set_default(spec, "updateStrategy.rollingUpdate", json!({}));
        }
        let is_rolling = path::text(spec, "updateStrategy.type") == "RollingUpdate";
        if is_rolling && path::get(spec, "updateStrategy.rollingUpdate").is_some() {
            path::set_default(spec, "updateStrategy.rollingUpdate.partition", 0);
        }
        if let Some(Value::Array(claims)) = spec.get_mut("volumeClaimTemplates") {
            claims.iter_mut().for_each(claim);
        }
    }
}

fn claim(claim: &mut Value) {
    claim["apiVersion"] = "v1".into();
    claim["kind"] = "PersistentVolumeClaim".into();
    path::set_default(claim, "status.phase", "Pending");
}

fn validate(set: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&set["spec"], At::root("spec"));
    match path::text(spec, "podManagementPolicy") {
        "" => found.push(Violation::required(at.field("podManagementPolicy"), "")),
        "OrderedReady" | "Parallel" => {}
        other => {
            let detail = "must be 'OrderedReady' or 'Parallel'";
            found.push(Violation::invalid(at.field("podManagementPolicy"), other, detail));
        }
    }
    update_strategy(&spec["updateStrategy"], at.field("updateStrategy"), &mut found);
    for field in ["whenDeleted", "whenScaled"] {
        let at = at.field("persistentVolumeClaimRetentionPolicy");
        check::one_of(
            &spec["persistentVolumeClaimRetentionPolicy"],
            field,
            &["Retain", "Delete"],
            at,
            &mut found,
        );
    }
    if metadata::is_new(set, old) {
        for (index, claim) in path::list(spec, "volumeClaimTemplates").iter().enumerate() {
            let at = at.field("volumeClaimTemplates");
            let at = at.index(index);
            crate::persistent_volume_claim::validate_spec(&claim["spec"], at.field("spec"), &mut found);
        }
    }
    for field in ["replicas", "minReadySeconds"] {
        check::not_negative(spec, field, at, &mut found);
    }
    check::not_negative(&spec["ordinals"], "start", at.field("ordinals"), &mut found);
    if metadata::is_new(set, old) {
        check::follows(spec, "serviceName", names::dns_label, at, &mut found);
    }
    selected(spec, at, &mut found);
    status(set, &mut found);
    if let Some(old) = old {
        changes(spec, &old["spec"], at, &mut found);
    }
    found
}

/// The selector, and the template as the controller completes it: with a volume for each claim, whose names are names of volumes then.
fn selected(spec: &Value, at: At<'_>, found: &mut Found) {
    let (selector, template_at) = (&spec["selector"], at.field("template"));
    if template::validate_selector(selector, "statefulset", "", at.field("selector"), found) {
        let template = completed(spec);
        template::validate_selected(selector, &template, template_at, found);
        template::validate(&template, template_at, found);
    }
    template::goes_on(&spec["template"], "StatefulSet", template_at, found);
}

fn completed(spec: &Value) -> Cow<'_, Value> {
    let template = &spec["template"];
    let claims = path::list(spec, "volumeClaimTemplates");
    let named = ["spec.hostname", "spec.subdomain"];
    if claims.is_empty() && named.iter().all(|field| path::get(template, field).is_none()) {
        return Cow::Borrowed(template);
    }
    let mut template = template.clone();
    for field in named {
        path::remove(&mut template, field);
    }
    let made: BTreeSet<&str> = claims.iter().map(|claim| path::text(claim, "metadata.name")).collect();
    let own = path::list(&template, "spec.volumes").iter();
    let own: Vec<Value> = own.filter(|one| !made.contains(path::text(one, "name"))).cloned().collect();
    let made =
        made.into_iter().map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
    path::set(&mut template, "spec.volumes", made.chain(own).collect());
    Cow::Owned(template)
}

fn update_strategy(strategy: &Value, at: At<'_>, found: &mut Found) {
    let rolling = strategy.get("rollingUpdate");
    match path::text(strategy, "type") {
        "" => found.push(Violation::required(at, "")),
        "OnDelete" => {
            if let Some(rolling) = rolling {
                let detail = "only allowed for updateStrategy 'RollingUpdate'";
                found.push(Violation::invalid(at.field("rollingUpdate"), rolling, detail));
            }
        }
        "RollingUpdate" => {
            let Some(rolling) = rolling else { return };
            let at = at.field("rollingUpdate");
            check::not_negative(rolling, "partition", at, found);
            if let Some(unavailable) = rolling.get("maxUnavailable") {
                check::share(rolling, "maxUnavailable", at, found);
                if check::is_zero(unavailable) {
                    found.push(Violation::invalid(at.field("maxUnavailable"), unavailable, "cannot be 0"));
                }
                check::at_most_all(rolling, "maxUnavailable", at, found);
            }
        }
        _ => found.push(Violation::invalid(at, strategy, "must be 'RollingUpdate' or 'OnDelete'")),
    }
}

fn status(set: &Value, found: &mut Found) {
    let (status, at) = (&set["status"], At::root("status"));
    let count = |field: &str| path::int(status, field).unwrap_or_default();
    check::not_negative(status, "replicas", at, found);
    for field in ["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"] {
        check::not_negative(status, field, at, found);
        if count(field) > count("replicas") {
            let detail = "cannot be greater than status.replicas";
            found.push(Violation::invalid(at.field(field), count(field), detail));
        }
    }
    if count("availableReplicas") > count("readyReplicas") {
        let detail = "cannot be greater than status.readyReplicas";
        found.push(Violation::invalid(at.field("availableReplicas"), count("availableReplicas"), detail));
    }
}

fn changes(spec: &Value, before: &Value, at: At<'_>, found: &mut Found) {
    let fixed = |spec: &Value| -> Vec<(String, Value)> {
        let members = spec.as_object().into_iter().flatten();
        members
            .filter(|(field, _)| !MUTABLE.contains(&field.as_str()))
            .map(|(field, value)| (field.clone(), value.clone()))
            .collect()
    };
    if fixed(spec) != fixed(before) {
        let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden";
        found.push(Violation::forbidden(at, detail));
    }
}
