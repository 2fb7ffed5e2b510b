//! The subresources of pods that are more than a copy of a field.

use admission::Operation;
use object::{Key, Reason, Resource, Status, Time};
use schema::{Kind, Violation, ViolationKind, path};
use serde_json::{Value, json};
use store::Precondition;

use crate::admit::{self, Review};
use crate::commit::{self, Failed};
use crate::request::{Outcome, Request};
use crate::subresource;
use crate::{Gate, metadata};

const ATTEMPTS: u32 = 64;

/// What an update of a pod's status cannot take back or take over.
pub(crate) fn status(kind: &Kind, given: Value, old: &Value, now: Time) -> Result<Value, Status> {
    let mut new = subresource::status(kind, given, old, now)?;
    subresource::copy_at(&mut new, old, "metadata.ownerReferences");
    if path::text(&new, "status.qosClass").is_empty() {
        subresource::copy_at(&mut new, old, "status.qosClass");
    }
    Ok(new)
}

/// What an update of ephemeral containers reaches; whether it may is the kind's to say.
pub(crate) fn ephemeral_containers(
    _kind: &Kind,
    given: Value,
    old: &Value,
    _now: Time,
) -> Result<Value, Status> {
    let mut new = old.clone();
    for at in ["spec.ephemeralContainers", "metadata.managedFields"] {
        subresource::copy_at(&mut new, &given, at);
    }
    Ok(new)
}

/// What an in-place resize reaches: the resources and resize policies of containers, and the pod's resources. Containers that come, go or
/// change their places are left for the kind to refuse.
pub(crate) fn resize(_kind: &Kind, given: Value, old: &Value, _now: Time) -> Result<Value, Status> {
    const LISTS: [&str; 2] = ["containers", "initContainers"];
    let mut new = old.clone();
    subresource::copy_at(&mut new, &given, "metadata.managedFields");
    let names = |pod: &Value, list: &str| -> Vec<String> {
        path::list(&pod["spec"], list).iter().map(|one| path::text(one, "name").to_owned()).collect()
    };
    if LISTS.iter().any(|list| names(&given, list) != names(old, list)) {
        subresource::copy(&mut new, &given, "spec");
        return Ok(new);
    }
    for list in LISTS {
        // Indexing would put a null where there is no list.
        let held = new.pointer_mut(&format!("/spec/{list}")).and_then(Value::as_array_mut);
        for (one, want) in held.into_iter().flatten().zip(path::list(&given["spec"], list)) {
            subresource::copy(one, want, "resources");
            subresource::copy(one, want, "resizePolicy");
        }
    }
    subresource::copy_at(&mut new, &given, "spec.resources");
    Ok(new)
}

impl Gate {
    /// `POST pods/{name}/binding`: assigns a pod to a node.
    pub(crate) async fn bind(&self, request: &Request<'_>, binding: Value) -> Result<Outcome, Status> {
        check_binding(&binding)?;
        let key = commit::key_of(request, request.name);
        let mut raced = 0;
        for _ in 0..ATTEMPTS {
            let snapshot = self.newest_of(&key, raced).await?;
            let stored = snapshot.get(&key).ok_or_else(|| Status::not_found(&key))?;
            let (uid, version) =
                (metadata::text(&binding, "uid"), metadata::text(&binding, "resourceVersion"));
            if !uid.is_empty() && *uid != *stored.meta.uid {
                return Err(metadata::other_uid(&key, uid, &stored.meta.uid));
            }
            if !version.is_empty() && version.parse() != Ok(stored.revision) {
                return Err(Status::stale(&key));
            }
            // What admission made of it for a pod that has changed since is not what the next try begins with.
            let mut binding = binding.clone();
            let now = self.now();
            let review =
                Review { gate: self, request, snapshot: &snapshot, operation: Operation::Create, now };
            let mut warnings = Vec::new();
            let judged = async {
                admit::mutate(&review, &key, &mut binding, None, &mut warnings).await?;
                let old = stored.to_value().map_err(Status::internal)?;
                let new = assigned(&key, old, &binding, now)?;
                admit::validate(&review, &key, Some(&binding), None, &mut warnings).await?;
                Ok(new)
            };
            let new = judged.await.map_err(|status: Status| status.warning_of(&warnings))?;
            if request.options.dry_run {
                return Ok(Outcome { created: true, warnings, ..Outcome::made(success()) });
            }
            let draft = commit::draft(request.kind, &key, &new)?;
            let ops = vec![commit::put(draft, Precondition::At(stored.revision))];
            match self.commit(&key, ops).await {
                Ok(_) => return Ok(Outcome { created: true, warnings, ..Outcome::made(success()) }),
                Err(Failed::Status(status)) => return Err(status),
                Err(Failed::Raced { revision, .. }) => raced = raced.max(revision).max(1),
            }
        }
        Err(Status::stale(&key))
    }
}

/// `Status` Success with 201, as upstream answers a binding and an eviction.
pub(crate) fn success() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})
}

fn check_binding(binding: &Value) -> Result<(), Status> {
    let kind = path::text(binding, "target.kind");
    let mut violations = Vec::new();
    if !matches!(kind, "" | "Node") {
        violations.push(Violation {
            kind: ViolationKind::NotSupported,
            field: "target.kind".into(),
            value: format!("\"{kind}\""),
            detail: "supported values: \"Node\", \"<empty>\"".into(),
        });
    }
    if path::text(binding, "target.name").is_empty() {
        violations.push(Violation {
            kind: ViolationKind::Required,
            field: "target.name".into(),
            value: String::new(),
            detail: String::new(),
        });
    }
    let texts: Vec<String> = violations.iter().map(|one| format!("{}: {}", one.field, one.body())).collect();
    // Upstream knows no better answer to these than an error of the server.
    match &texts[..] {
        [] => Ok(()),
        [one] => Err(Status::new(Reason::Unknown, one.clone())),
        many => Err(Status::new(Reason::Unknown, format!("[{}]", many.join(", ")))),
    }
}

/// The pod with its node, and the binding's labels and annotations: admission put the node's place in the topology there.
fn assigned(key: &Key, mut pod: Value, binding: &Value, now: Time) -> Result<Value, Status> {
    let node = path::text(binding, "target.name").to_owned();
    let refuse = |why: String| {
        let about = Key::new(Resource::new("pods/binding"), "", key.name.clone());
        Err(Status::conflict(&about, &why))
    };
    let name = &key.name;
    if pod["metadata"].get("deletionTimestamp").is_some() {
        return refuse(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let held = path::text(&pod, "spec.nodeName");
    if !held.is_empty() {
        return refuse(format!("pod {name} is already assigned to node \"{held}\""));
    }
    if !path::list(&pod, "spec.schedulingGates").is_empty() {
        return refuse(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    path::set(&mut pod, "spec.nodeName", node.into());
    for field in ["annotations", "labels"] {
        merge_strings(&mut pod, field, &binding["metadata"][field]);
    }
    set_condition(&mut pod, json!({"type": "PodScheduled", "status": "True"}), now);
    Ok(pod)
}

fn merge_strings(object: &mut Value, field: &str, from: &Value) {
    let Some(from) = from.as_object().filter(|from| !from.is_empty()) else { return };
    let metadata = metadata::metadata(object);
    let to = metadata.entry(field).or_insert_with(|| json!({}));
    if let Some(to) = to.as_object_mut() {
        to.extend(from.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
}

/// Puts a condition in place of the one of its type; the transition time moves only with the status.
pub(crate) fn set_condition(object: &mut Value, mut condition: Value, now: Time) {
    let mut conditions = path::list(object, "status.conditions").to_vec();
    let known = conditions.iter_mut().find(|one| one["type"] == condition["type"]);
    match known {
        Some(known) => {
            let same = known["status"] == condition["status"] && known.get("lastTransitionTime").is_some();
            let since = if same { known["lastTransitionTime"].clone() } else { now.to_string().into() };
            condition["lastTransitionTime"] = since;
            if let Some(probed) = known.get("lastProbeTime") {
                condition["lastProbeTime"] = probed.clone();
            }
            *known = condition;
        }
        None => {
            condition["lastTransitionTime"] = now.to_string().into();
            conditions.push(condition);
        }
    }
    path::set(object, "status.conditions", conditions.into());
}
