//! Resolves `priorityClassName`:
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/>.

use object::{Key, Snapshot, Status};
use serde::Deserialize;
use serde_json::Value;

use crate::{Operation, Plugin, Request, Verdict};

pub const PLUGIN: Plugin = Plugin { name: "Priority", mutate: Some(mutate), validate: Some(validate) };

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Class {
    value: i64,
    global_default: bool,
    preemption_policy: Option<String>,
}

fn mutate(
    snapshot: &Snapshot,
    request: &Request,
    object: &mut Value,
    _: &mut Vec<String>,
) -> Result<(), Status> {
    if request.is(kinds::PODS, &[Operation::Create]) {
        return resolve(snapshot, request, object);
    }
    // Clients of old write back pods without these fields; they are what they were.
    if let (true, Some(old)) = (request.is(kinds::PODS, &[Operation::Update]), request.old) {
        for field in ["priority", "preemptionPolicy"] {
            let held = old["spec"].get(field);
            if let (Some(held), None) = (held, object["spec"].get(field)) {
                object["spec"][field] = held.clone();
            }
        }
    }
    Ok(())
}

fn resolve(snapshot: &Snapshot, request: &Request, pod: &mut Value) -> Result<(), Status> {
    let named = pod["spec"]["priorityClassName"].as_str().unwrap_or_default().to_owned();
    let class = if named.is_empty() {
        let (name, class) = global_default(snapshot);
        if let Some(name) = name {
            pod["spec"]["priorityClassName"] = name.into();
        }
        class
    } else {
        let found = snapshot.get(&Key::cluster(kinds::PRIORITY_CLASSES, named.as_str()));
        let Some(found) = found else {
            return Err(request.forbidden(Some(pod), format!("no PriorityClass with name {named} was found")));
        };
        found.decode().map_err(Status::internal)?
    };
    let (value, policy) =
        (class.value, class.preemption_policy.unwrap_or_else(|| "PreemptLowerPriority".to_owned()));
    if let Some(given) = pod["spec"]["priority"].as_i64().filter(|given| *given != value) {
        let why = format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
        );
        return Err(request.forbidden(Some(pod), why));
    }
    if let Some(given) = pod["spec"]["preemptionPolicy"].as_str().filter(|given| *given != policy) {
        let why = format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {policy} from the given PriorityClass name"
        );
        return Err(request.forbidden(Some(pod), why));
    }
    pod["spec"]["priority"] = value.into();
    pod["spec"]["preemptionPolicy"] = policy.into();
    Ok(())
}

/// The default class of the lowest value, should there be several; else no class, priority 0.
fn global_default(snapshot: &Snapshot) -> (Option<String>, Class) {
    let classes = snapshot.list(kinds::PRIORITY_CLASSES, "").filter_map(|object| {
        let class: Class = object.decode().ok()?;
        class.global_default.then(|| (object.key.name.to_string(), class))
    });
    match classes.min_by_key(|(_, class)| class.value) {
        Some((name, class)) => (Some(name), class),
        None => (None, Class::default()),
    }
}

fn validate(
    snapshot: &Snapshot,
    request: &Request,
    object: Option<&Value>,
    _: &mut Verdict,
) -> Result<(), Status> {
    let is_class = request.is(kinds::PRIORITY_CLASSES, &[Operation::Create, Operation::Update]);
    let Some(object) = object.filter(|object| is_class && object["globalDefault"] == true) else {
        return Ok(());
    };
    let (Some(held), _) = global_default(snapshot) else { return Ok(()) };
    if object["metadata"]["name"] == *held {
        return Ok(());
    }
    let why = format!("PriorityClass {held} is already marked as default. Only one default can exist");
    Err(request.forbidden(Some(object), why))
}
