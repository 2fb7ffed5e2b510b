use object::Resource;
use schema::{At, Kind, Strategy, Subresource, Violation, names, path};
use serde_json::{Value, json};

use crate::column::{AGE, NAME, column, text, text_or, wide};
use crate::spec::{
    check::{self, Found, Seen},
    resources,
};
use crate::{row, strategy, subresource};

pub const NODES: Resource = Resource::new("nodes");

pub static KIND: Kind = Kind {
    resource: NODES,
    group: "",
    version: "v1",
    kind: "Node",
    singular: "node",
    short_names: &["no"],
    namespaced: false,
    subresources: &[
        Subresource {
            name: "proxy",
            gvk: Some(("", "v1", "NodeProxyOptions")),
            verbs: subresource::PROXY_VERBS,
        },
        subresource::STATUS,
    ],
    type_name: "core.v1.Node",
    columns: &[
        NAME,
        column("Status", "string", "Whether it runs pods, and takes new ones.", |object, _| {
            status_text(object).into()
        }),
        column("Roles", "string", "What its labels say that it is for.", |object, _| roles(object)),
        AGE,
        column("Version", "string", "The version of its kubelet.", |object, _| {
            text(object, "status.nodeInfo.kubeletVersion")
        }),
        wide("Internal-IP", "string", "Its address within the cluster.", |object, _| {
            address(object, "InternalIP")
        }),
        wide("External-IP", "string", "Its address outside of the cluster.", |object, _| {
            address(object, "ExternalIP")
        }),
        wide("OS-Image", "string", "Its operating system.", |object, _| {
            text_or(object, "status.nodeInfo.osImage", "<unknown>")
        }),
        wide("Kernel-Version", "string", "Its kernel and architecture.", |object, _| kernel(object)),
        wide("Container-Runtime", "string", "What runs its containers.", |object, _| {
            text_or(object, "status.nodeInfo.containerRuntimeVersion", "<unknown>")
        }),
    ],
    selectable: &["spec.unschedulable"],
    selected: |node, path| row::absent_is("false", node, path),
    strategy: Strategy { prepare, unowned: &["status"], ..strategy::PLAIN },
    default,
    validate,
    warn,
    ..row::BASE
};

fn warn(new: &Value, _old: Option<&Value>) -> Vec<String> {
    let mut found = Vec::new();
    if path::get(new, "spec.configSource").is_some() {
        found.push("spec.configSource: the feature is no longer supported and will not be honored".into());
    }
    if !path::text(new, "spec.externalID").is_empty() {
        found.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".into());
    }
    found
}

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";

/// A new node may come with its status, as the kubelet sends it; later only the subresource writes it.
fn prepare(node: &mut Value, old: Option<&Value>) {
    if let Some(old) = old {
        match old.get("status") {
            Some(kept) => node["status"] = kept.clone(),
            None => {
                path::remove(node, "status");
            }
        }
    }
    path::remove(node, "spec.configSource");
}

/// What is allocatable is the capacity unless the kubelet says otherwise; `podCIDR` is the first of `podCIDRs`.
fn default(node: &mut Value) {
    if let Some(capacity) = path::get(node, "status.capacity").cloned() {
        path::set_default(node, "status.allocatable", capacity);
    }
    let first =
        path::list(node, "spec.podCIDRs").first().and_then(Value::as_str).unwrap_or_default().to_owned();
    let own = path::text(node, "spec.podCIDR").to_owned();
    if !own.is_empty() && own != first {
        path::set(node, "spec.podCIDRs", json!([own]));
    } else if own.is_empty() && !first.is_empty() {
        path::set(node, "spec.podCIDR", first.into());
    }
}

fn validate(node: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&node["spec"], At::root("spec"));
    avoided_pods(node, &mut found);
    taints(path::list(spec, "taints"), &mut found);
    for (index, cidr) in path::list(spec, "podCIDRs").iter().enumerate() {
        let cidr = cidr.as_str().unwrap_or_default();
        let at = at.field("podCIDRs");
        found.extend(Violation::all_invalid(at.index(index), cidr, names::cidr(cidr)));
    }
    let cidrs = path::list(spec, "podCIDRs");
    let of_family = |is_new: bool| {
        let of = |cidr: &&Value| cidr.as_str().is_some_and(|cidr| cidr.contains(':') == is_new);
        cidrs.iter().filter(of).count()
    };
    if of_family(false) > 1 || of_family(true) > 1 {
        let detail = "may specify no more than one CIDR for each IP family";
        found.push(Violation::invalid(at.field("podCIDRs"), cidrs, detail));
    }
    for list in ["capacity", "allocatable"] {
        let amounts = &node["status"][list];
        for (resource, _) in amounts.as_object().into_iter().flatten() {
            if let Some(amount) = resources::amount(amounts, resource) {
                let at = At::root("status");
                let at = at.field(list);
                resources::validate_amount(resource, amount, at.field(resource), &mut found);
            }
        }
    }
    let Some(old) = old else { return found };
    let fixed =
        |field: &str| spec[field] != old["spec"][field] && !path::text(&old["spec"], field).is_empty();
    if !path::list(old, "spec.podCIDRs").is_empty() && spec["podCIDRs"] != old["spec"]["podCIDRs"] {
        let detail = "node updates may not change podCIDR except from \"\" to valid";
        found.push(Violation::forbidden(at.field("podCIDRs"), detail));
    }
    if fixed("providerID") {
        let detail = "node updates may not change providerID except from \"\" to valid";
        found.push(Violation::forbidden(at.field("providerID"), detail));
    }
    if spec["externalID"] != old["spec"]["externalID"] {
        found.push(Violation::forbidden(at.field("externalID"), "may not be updated"));
    }
    found
}

/// An annotation of old, in JSON: which controllers' pods should rather go elsewhere.
fn avoided_pods(node: &Value, found: &mut Found) {
    const KEY: &str = "scheduler.alpha.kubernetes.io/preferAvoidPods";
    let said = path::get(node, "metadata.annotations").and_then(|all| all.get(KEY)?.as_str());
    let Some(text) = said.filter(|text| !text.is_empty()) else { return };
    let at = At::root("metadata.annotations");
    let avoided = match schema::parse_json(text.as_bytes()) {
        Ok((avoided, _)) => avoided,
        Err(error) => {
            let why = schema::go_words(&error, text.as_bytes());
            found.push(Violation::invalid(at.field("AvoidPods"), KEY, why));
            return;
        }
    };
    for (index, one) in path::list(&avoided, "preferAvoidPods").iter().enumerate() {
        let at = at.field(KEY);
        let at = at.index(index);
        let at = at.field("PodSignature");
        match path::get(one, "podSignature.podController") {
            None => found.push(Violation::required(at, "")),
            Some(owner) if !path::bool(owner, "controller") => {
                let at = at.field("PodController.Controller");
                found.push(Violation::invalid(at, false, "must point to a controller"));
            }
            Some(_) => {}
        }
    }
}

/// The messages say `metadata.taints`, as upstream's do.
fn taints(taints: &[Value], found: &mut Found) {
    let list = At::root("metadata.taints");
    let mut pairs = Seen::default();
    for (index, taint) in taints.iter().enumerate() {
        let at = list.index(index);
        let (key, value, effect) =
            (path::text(taint, "key"), path::text(taint, "value"), path::text(taint, "effect"));
        found.extend(Violation::all_invalid(at.field("key"), key, names::qualified_name(key)));
        found.extend(Violation::all_invalid(at.field("value"), value, names::label_value(value)));
        if effect.is_empty() {
            found.push(Violation::required(at.field("effect"), ""));
        } else {
            check::one_of(taint, "effect", &["NoSchedule", "PreferNoSchedule", "NoExecute"], at, found);
        }
        if pairs.repeats(format!("{key}\n{effect}")) {
            let mut violation = Violation::duplicate(at, taint);
            violation.detail = "taints must be unique by key and effect pair".into();
            found.push(violation);
        }
    }
}

fn status_text(node: &Value) -> String {
    let ready = path::list(node, "status.conditions").iter().find(|one| path::text(one, "type") == "Ready");
    let text = match ready.map(|one| path::text(one, "status")) {
        None => "Unknown",
        Some("True") => "Ready",
        Some(_) => "NotReady",
    };
    let closed = if path::bool(node, "spec.unschedulable") { ",SchedulingDisabled" } else { "" };
    format!("{text}{closed}")
}

fn roles(node: &Value) -> Value {
    let mut roles: Vec<&str> = path::members(node, "metadata.labels")
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_PREFIX) {
            Some(role) => Some(role),
            None if key == "kubernetes.io/role" => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { "<none>".into() } else { roles.join(",").into() }
}

fn address(node: &Value, kind: &str) -> Value {
    let of_kind = path::list(node, "status.addresses").iter().find(|one| path::text(one, "type") == kind);
    of_kind.map_or("<none>", |one| path::text(one, "address")).into()
}

fn kernel(node: &Value) -> Value {
    let kernel = match path::text(node, "status.nodeInfo.kernelVersion") {
        "" => "<unknown>",
        version => version,
    };
    match path::text(node, "status.nodeInfo.architecture") {
        "" => kernel.into(),
        architecture => format!("{kernel} ({architecture})").into(),
    }
}
