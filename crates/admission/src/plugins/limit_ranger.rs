//! Defaults and bounds of what containers, pods and claims ask for:
//! <https://kubernetes.io/docs/concepts/policy/limit-range/>.

use kinds::amounts::{Amounts, amounts, asked};
use object::{Snapshot, Status};
use schema::{Quantity, path};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::pod;
use crate::{Operation, Plugin, Request, Verdict};

pub const PLUGIN: Plugin = Plugin { name: "LimitRanger", mutate: Some(mutate), validate: Some(validate) };

#[derive(Default, Deserialize)]
#[serde(default)]
struct LimitRange {
    spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    limits: Vec<Limit>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Limit {
    r#type: String,
    max: Amounts,
    min: Amounts,
    default: Amounts,
    default_request: Amounts,
    max_limit_request_ratio: Amounts,
}

fn limits<'a>(snapshot: &'a Snapshot, request: &'a Request) -> impl Iterator<Item = Vec<Limit>> {
    let all = snapshot.list(kinds::LIMIT_RANGES, &request.key.namespace);
    all.map(|object| object.decode::<LimitRange>().unwrap_or_default().spec.limits)
}

fn concerns_pod(request: &Request, object: &Value) -> bool {
    let resize = request.operation == Operation::Update && request.subresource == "resize";
    request.key.resource == kinds::PODS
        && (request.is(kinds::PODS, &[Operation::Create]) || resize)
        && object["metadata"].get("deletionTimestamp").is_none()
}

fn mutate(
    snapshot: &Snapshot,
    request: &Request,
    object: &mut Value,
    _: &mut Vec<String>,
) -> Result<(), Status> {
    if !concerns_pod(request, object) {
        return Ok(());
    }
    for limits in limits(snapshot, request) {
        let mut notes = Vec::new();
        for limit in limits.iter().filter(|limit| limit.r#type == "Container") {
            pod::each_container(object, |container, is_init| complete(container, is_init, limit, &mut notes));
        }
        // The last range that set something is the one that is told of.
        if !notes.is_empty() {
            let note = format!("LimitRanger plugin set: {}", notes.join("; "));
            object["metadata"]["annotations"]["kubernetes.io/limit-ranger"] = note.into();
        }
    }
    Ok(())
}

fn complete(container: &mut Value, is_init: bool, limit: &Limit, notes: &mut Vec<String>) {
    let name = container["name"].as_str().unwrap_or_default().to_owned();
    let what = if is_init { "init container" } else { "container" };
    for (side, defaults, word) in
        [("requests", &limit.default_request, "request"), ("limits", &limit.default, "limit")]
    {
        let mut set = Vec::new();
        for (resource, amount) in defaults {
            if container["resources"][side].get(resource).is_none() {
                container["resources"][side][resource] = json!(amount);
                set.push(resource.as_str());
            }
        }
        if !set.is_empty() {
            notes.push(format!("{} {word} for {what} {name}", set.join(", ")));
        }
    }
}

fn validate(
    snapshot: &Snapshot,
    request: &Request,
    object: Option<&Value>,
    _: &mut Verdict,
) -> Result<(), Status> {
    let Some(object) = object else { return Ok(()) };
    let claim = request.is(kinds::PERSISTENT_VOLUME_CLAIMS, &[Operation::Create, Operation::Update])
        && object["metadata"].get("deletionTimestamp").is_none();
    let pod = concerns_pod(request, object);
    if !claim && !pod {
        return Ok(());
    }
    for limits in limits(snapshot, request) {
        let errors: Vec<String> = if pod {
            limits.iter().flat_map(|limit| pod_errors(object, limit)).collect()
        } else {
            limits.iter().flat_map(|limit| claim_errors(object, limit)).collect()
        };
        if !errors.is_empty() {
            return Err(request.forbidden(Some(object), pod::joined(&errors)));
        }
    }
    Ok(())
}

fn pod_errors(object: &Value, limit: &Limit) -> Vec<String> {
    let mut errors = Vec::new();
    match limit.r#type.as_str() {
        "Container" => {
            let containers =
                path::list(object, "spec.containers").iter().chain(path::list(object, "spec.initContainers"));
            for container in containers {
                let (requests, limits) = (amounts(container, "requests"), amounts(container, "limits"));
                bounds(limit, &requests, &limits, &mut errors);
            }
        }
        "Pod" => {
            let (requests, limits) = (asked(object, "requests"), asked(object, "limits"));
            bounds(limit, &requests, &limits, &mut errors);
        }
        _ => {}
    }
    errors
}

fn bounds(limit: &Limit, requests: &Amounts, limits: &Amounts, errors: &mut Vec<String>) {
    let kind = &limit.r#type;
    for (name, bound) in &limit.min {
        let base = format!("minimum {name} usage per {kind} is {bound}");
        errors.extend(match (requests.get(name), limits.get(name)) {
            (None, _) => Some(format!("{base}.  No request is specified")),
            (Some(asked), _) if asked < bound => Some(format!("{base}, but request is {asked}")),
            (_, Some(most)) if most < bound => Some(format!("{base}, but limit is {most}")),
            _ => None,
        });
    }
    for (name, bound) in &limit.max {
        let base = format!("maximum {name} usage per {kind} is {bound}");
        errors.extend(match (requests.get(name), limits.get(name)) {
            (_, None) => Some(format!("{base}.  No limit is specified")),
            (_, Some(most)) if most > bound => Some(format!("{base}, but limit is {most}")),
            (Some(asked), _) if asked > bound => Some(format!("{base}, but request is {asked}")),
            _ => None,
        });
    }
    for (name, bound) in &limit.max_limit_request_ratio {
        errors.extend(ratio(kind, name, *bound, requests.get(name), limits.get(name)));
    }
}

fn ratio(
    kind: &str,
    name: &str,
    bound: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let base = format!("{name} max limit to request ratio per {kind} is {bound}, but");
    let Some(request) = request.filter(|amount| !amount.is_zero()) else {
        return Some(format!("{base} no request is specified or request is 0"));
    };
    let Some(limit) = limit.filter(|amount| !amount.is_zero()) else {
        return Some(format!("{base} no limit is specified or limit is 0"));
    };
    let ratio = limit.as_f64() / request.as_f64();
    (ratio > bound.as_f64()).then(|| format!("{base} provided ratio is {ratio:.6}"))
}

fn claim_errors(object: &Value, limit: &Limit) -> Vec<String> {
    if limit.r#type != "PersistentVolumeClaim" {
        return Vec::new();
    }
    let requests = amounts(&object["spec"], "requests");
    let mut errors = Vec::new();
    for (word, bounds) in [("minimum", &limit.min), ("maximum", &limit.max)] {
        for (name, bound) in bounds {
            let base = format!("{word} {name} usage per {} is {bound}", limit.r#type);
            match requests.get(name) {
                None => errors.push(format!("{base}.  No request is specified")),
                Some(asked)
                    if (word == "minimum" && asked < bound) || (word == "maximum" && asked > bound) =>
                {
                    errors.push(format!("{base}, but request is {asked}"));
                }
                Some(_) => {}
            }
        }
    }
    errors
}
