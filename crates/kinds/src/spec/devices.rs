//! What claims of devices ask for. Limits and names are upstream's: <https://kubernetes.io/docs/reference/kubernetes-api/resource/>.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use cel::{Env, Field, ObjectType, Sizes, Type};
use schema::{At, Violation, names, path};
use serde_json::Value;

use super::check::{self, Found, Seen};
use crate::expressions::{Wanted, compile};

const REQUESTS_MAX: usize = 32;
const ALTERNATIVES_MAX: usize = 8;
const CONSTRAINTS_MAX: usize = 32;
const CONFIGS_MAX: usize = 32;
const SELECTORS_MAX: usize = 32;
const EXPRESSION_MAX_BYTES: usize = 10 * 1024;
const PARAMETERS_MAX_BYTES: usize = 10 * 1024;
const DRIVER_MAX_BYTES: usize = 63;
const POOL_MAX_BYTES: usize = 253;
const IDENTIFIER_MAX_BYTES: usize = 32;
const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];

/// A request that counts devices asks for one unless it says how many.
pub fn default(object: &mut Value, at: &str) {
    let Some(Value::Array(requests)) =
        path::get_mut(object, at).and_then(|devices| devices.get_mut("requests"))
    else {
        return;
    };
    for request in requests {
        if let Some(exactly) = request.get_mut("exactly") {
            count(exactly);
        }
        if let Some(Value::Array(alternatives)) = request.get_mut("firstAvailable") {
            alternatives.iter_mut().for_each(count);
        }
    }
}

fn count(request: &mut Value) {
    if path::text(request, "allocationMode") == "ExactCount"
        && path::int(request, "count").unwrap_or_default() == 0
    {
        request["count"] = 1.into();
    }
}

/// `DeviceClaim`
pub fn validate(devices: &Value, at: At<'_>, found: &mut Found) {
    let requests = path::list(devices, "requests");
    set(requests, REQUESTS_MAX, "name", at.field("requests"), found, |request, at, found| {
        one_request(request, at, found);
    });
    let known = Requests::of(requests);
    slice(
        path::list(devices, "constraints"),
        CONSTRAINTS_MAX,
        at.field("constraints"),
        found,
        |one, at, found| {
            constraint(one, &known, at, found);
        },
    );
    slice(path::list(devices, "config"), CONFIGS_MAX, at.field("config"), found, |one, at, found| {
        references(one, &known, at.field("requests"), found);
        configuration(one, at, found);
    });
}

/// The names of a claim's requests, each with those of its alternatives.
pub struct Requests<'a>(HashMap<&'a str, Vec<&'a str>>);

impl<'a> Requests<'a> {
    pub fn of(requests: &'a [Value]) -> Self {
        let names = |request: &'a Value| {
            let alternatives = path::list(request, "firstAvailable").iter();
            (path::text(request, "name"), alternatives.map(|one| path::text(one, "name")).collect())
        };
        Self(requests.iter().map(names).collect())
    }

    fn has(&self, name: &str) -> bool {
        match name.split_once('/') {
            None => self.0.contains_key(name),
            Some((request, one)) => self.0.get(request).is_some_and(|all| all.contains(&one)),
        }
    }
}

/// Each item of a list that is not too long; of one that is, only that.
pub fn slice<'a>(
    items: &'a [Value],
    most: usize,
    list: At<'_>,
    found: &mut Found,
    mut check: impl FnMut(&'a Value, At<'_>, &mut Found),
) -> bool {
    if items.len() > most {
        found.push(Violation::too_many(list, items.len(), most));
        return false;
    }
    for (index, item) in items.iter().enumerate() {
        check(item, list.index(index), found);
    }
    true
}

/// As a list whose items differ in a field; an empty field is the item itself.
pub fn set<'a>(
    items: &'a [Value],
    most: usize,
    field: &str,
    list: At<'_>,
    found: &mut Found,
    check: impl FnMut(&'a Value, At<'_>, &mut Found),
) {
    if !slice(items, most, list, found, check) {
        return;
    }
    let mut seen = Seen::default();
    for (index, item) in items.iter().enumerate() {
        let key = if field.is_empty() { item.as_str().unwrap_or_default() } else { path::text(item, field) };
        if seen.repeats(key) {
            found.push(Violation::duplicate(list.index(index), key));
        }
    }
}

fn one_request(request: &Value, at: At<'_>, found: &mut Found) {
    const WANTED: &str = "exactly one of `exactly` or `firstAvailable` is required";
    name(request, "name", at, found);
    let alternatives = path::list(request, "firstAvailable");
    match (request.get("exactly"), alternatives.is_empty()) {
        (None, true) => found.push(Violation::required(at, WANTED)),
        (Some(_), false) => {
            let detail = format!("{WANTED}, but multiple fields are set");
            found.push(Violation::invalid(at, Value::Null, detail));
        }
        (None, false) => {
            let list = at.field("firstAvailable");
            set(alternatives, ALTERNATIVES_MAX, "name", list, found, |one, at, found| {
                name(one, "name", at, found);
                wanted(one, at, found);
            });
        }
        (Some(exactly), true) => wanted(exactly, at.field("exactly"), found),
    }
}

fn name(holder: &Value, field: &str, at: At<'_>, found: &mut Found) {
    check::required_name(holder, field, names::dns_label, at, found);
}

fn wanted(request: &Value, at: At<'_>, found: &mut Found) {
    check::required_name(request, "deviceClassName", names::dns_subdomain, at, found);
    selectors(path::list(request, "selectors"), at.field("selectors"), found);
    let count = path::int(request, "count").unwrap_or_default();
    match path::text(request, "allocationMode") {
        "All" if count != 0 => {
            let detail = "must not be specified when allocationMode is 'All'";
            found.push(Violation::invalid(at.field("count"), count, detail));
        }
        "ExactCount" if count <= 0 => {
            found.push(Violation::invalid(at.field("count"), count, "must be greater than zero"));
        }
        "All" | "ExactCount" => {}
        other => {
            found.push(Violation::not_supported(at.field("allocationMode"), other, &["All", "ExactCount"]))
        }
    }
    for (index, one) in path::list(request, "tolerations").iter().enumerate() {
        let at = at.field("tolerations");
        toleration(one, at.index(index), found);
    }
}

fn toleration(toleration: &Value, at: At<'_>, found: &mut Found) {
    let (key, value) = (path::text(toleration, "key"), path::text(toleration, "value"));
    if !key.is_empty() {
        found.extend(Violation::all_invalid(at.field("key"), key, names::qualified_name(key)));
    }
    match path::text(toleration, "operator") {
        "Exists" if !value.is_empty() => {
            let detail = "must be empty for operator `Exists`";
            found.push(Violation::invalid(at.field("value"), value, detail));
        }
        "Exists" => {}
        "Equal" => found.extend(Violation::all_invalid(at.field("value"), value, names::label_value(value))),
        "" => found.push(Violation::required(at.field("operator"), "")),
        other => found.push(Violation::not_supported(at.field("operator"), other, &["Equal", "Exists"])),
    }
    let effect = path::text(toleration, "effect");
    if !effect.is_empty() && !EFFECTS.contains(&effect) {
        found.push(Violation::not_supported(at.field("effect"), effect, &EFFECTS));
    }
}

/// A taint of a device.
pub fn taint(taint: &Value, at: At<'_>, found: &mut Found) {
    let (key, value) = (path::text(taint, "key"), path::text(taint, "value"));
    found.extend(Violation::all_invalid(at.field("key"), key, names::qualified_name(key)));
    found.extend(Violation::all_invalid(at.field("value"), value, names::label_value(value)));
    check::required_one_of(taint, "effect", &EFFECTS, at, found);
}

/// `DeviceSelector`s: expressions about a device.
pub fn selectors(all: &[Value], list: At<'_>, found: &mut Found) {
    slice(all, SELECTORS_MAX, list, found, |one, at, found| {
        let Some(selector) = one.get("cel") else {
            found.push(Violation::required(at.field("cel"), ""));
            return;
        };
        let (text, at) = (path::text(selector, "expression"), at.field("cel.expression"));
        if text.len() > EXPRESSION_MAX_BYTES {
            found.push(Violation::too_long(at, EXPRESSION_MAX_BYTES));
        } else if let Err(why) = compiled(text) {
            found.push(Violation::invalid(at, text, why));
        }
    });
}

fn compiled(text: &str) -> Result<(), String> {
    static ENV: LazyLock<Env> = LazyLock::new(env);
    let program = compile(&ENV, text, Wanted::Anything)?;
    match program.result() {
        Type::Bool | Type::Dyn => Ok(()),
        other => Err(format!("must evaluate to bool or the unknown type, not {other}")),
    }
}

/// What an expression knows of a device: <https://kubernetes.io/docs/concepts/scheduling-eviction/dynamic-resource-allocation/>.
fn env() -> Env {
    let by_domain = |value: Type| Type::map(Type::String, Type::map(Type::String, value));
    let fields = [
        ("allowMultipleAllocations", Type::Bool),
        ("attributes", by_domain(Type::Dyn)),
        ("capacity", by_domain(Type::Opaque("kubernetes.Quantity"))),
        ("driver", Type::String),
    ];
    let field = |name: &str, r#type| Field { name: name.to_owned(), r#type, sizes: Sizes::default() };
    let fields: BTreeMap<String, Field> =
        fields.into_iter().map(|(name, r#type)| (name.to_owned(), field(name, r#type))).collect();
    let device = ObjectType { name: "kubernetes.DRADevice".into(), fields, open: false };
    Env::default().library(schema::expressions::LIBRARY).variable(
        "device",
        Type::Object(Arc::new(device)),
        Sizes::default(),
    )
}

fn constraint(constraint: &Value, known: &Requests<'_>, at: At<'_>, found: &mut Found) {
    references(constraint, known, at.field("requests"), found);
    let attribute = ["matchAttribute", "distinctAttribute"]
        .into_iter()
        .find_map(|field| Some((field, constraint.get(field)?.as_str()?)));
    match attribute {
        Some((field, name)) => {
            let at = at.field(field);
            qualified(name, at, found);
            if !name.contains('/') {
                let detail = "a fully qualified name must be a domain and a name separated by a slash";
                found.push(Violation::invalid(at, name, detail));
            }
        }
        None => {
            let detail = r#"exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set"#;
            found.push(Violation::required(at, detail));
        }
    }
}

/// `requests`: names of requests of the claim.
pub fn references(holder: &Value, known: &Requests<'_>, list: At<'_>, found: &mut Found) {
    set(path::list(holder, "requests"), REQUESTS_MAX, "", list, found, |one, at, found| {
        reference(one.as_str().unwrap_or_default(), known, at, found);
    });
}

/// The name of a request, or of one of its alternatives: `gpu`, `gpu/large`.
pub fn reference(name: &str, known: &Requests<'_>, at: At<'_>, found: &mut Found) {
    let parts: Vec<&str> = name.split('/').collect();
    if parts.len() <= 2 {
        for part in parts.iter().filter(|part| !part.is_empty()) {
            found.extend(Violation::all_invalid(at, *part, names::dns_label(part)));
        }
    }
    if parts.len() > 2 || !known.has(name) {
        let detail = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
        found.push(Violation::invalid(at, name, detail));
    }
}

/// `DeviceConfiguration`: what a driver is told.
pub fn configuration(config: &Value, at: At<'_>, found: &mut Found) {
    let Some(opaque) = config.get("opaque") else {
        found.push(Violation::required(at.field("opaque"), ""));
        return;
    };
    let at = at.field("opaque");
    driver(path::text(opaque, "driver"), at.field("driver"), found);
    let at = at.field("parameters");
    match opaque.get("parameters") {
        None | Some(Value::Null) => found.push(Violation::required(at, "")),
        Some(parameters) if parameters.to_string().len() > PARAMETERS_MAX_BYTES => {
            found.push(Violation::too_long(at, PARAMETERS_MAX_BYTES));
        }
        Some(Value::Object(_)) => {}
        Some(_) => found.push(Violation::invalid(at, "<value omitted>", "must be a valid JSON object")),
    }
}

/// `DeviceClassConfiguration`s
pub fn configurations(all: &[Value], list: At<'_>, found: &mut Found) {
    slice(all, CONFIGS_MAX, list, found, configuration);
}

pub fn driver(name: &str, at: At<'_>, found: &mut Found) {
    if name.is_empty() {
        found.push(Violation::required(at, ""));
        return;
    }
    if name.len() > DRIVER_MAX_BYTES {
        found.push(Violation::too_long(at, DRIVER_MAX_BYTES));
    }
    found.extend(Violation::all_invalid(at, name, names::dns_subdomain(&name.to_ascii_lowercase())));
}

pub fn pool(name: &str, at: At<'_>, found: &mut Found) {
    if name.is_empty() {
        found.push(Violation::required(at, ""));
        return;
    }
    if name.len() > POOL_MAX_BYTES {
        found.push(Violation::too_long(at, POOL_MAX_BYTES));
    }
    for part in name.split('/') {
        found.extend(Violation::all_invalid(at, part, names::dns_subdomain(part)));
    }
}

/// The name of an attribute or a capacity: `model`, `gpu.example.com/model`.
pub fn qualified(name: &str, at: At<'_>, found: &mut Found) {
    let parts: Vec<&str> = name.split('/').collect();
    let own = match parts[..] {
        [own] => own,
        [domain, own] => {
            if domain.is_empty() {
                found.push(Violation::invalid(at, "", "the domain must not be empty"));
            } else {
                driver(domain, at, found);
            }
            if own.is_empty() {
                found.push(Violation::invalid(at, "", "the name must not be empty"));
                return;
            }
            own
        }
        _ => return,
    };
    if own.len() > IDENTIFIER_MAX_BYTES {
        found.push(Violation::too_long(at, IDENTIFIER_MAX_BYTES));
    }
    let is_start = own.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !is_start || !own.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        let detail = "a valid C identifier must start with alphabetic character or '_', followed by a string of alphanumeric characters or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName', regex used for validation is '[A-Za-z_][A-Za-z0-9_]*')";
        found.push(Violation::invalid(at, own, detail));
    }
}

/// Conditions that binding waits for, and those at which it fails: both or none, and no two alike.
pub fn binding(device: &Value, at: At<'_>, found: &mut Found) {
    const MOST: usize = 4;
    let (ready, failed) = ("bindingConditions", "bindingFailureConditions");
    let texts = |field: &str| -> Vec<&str> {
        path::list(device, field).iter().map(|one| one.as_str().unwrap_or_default()).collect()
    };
    for field in [ready, failed] {
        slice(path::list(device, field), MOST, at.field(field), found, |one, at, found| {
            let kind = one.as_str().unwrap_or_default();
            found.extend(Violation::all_invalid(at, kind, names::qualified_name(kind)));
        });
    }
    for field in [ready, failed] {
        let mut seen = Seen::default();
        for (index, kind) in texts(field).into_iter().enumerate() {
            let at = at.field(field);
            if seen.repeats(kind) {
                found.push(Violation::duplicate(at.index(index), kind));
            }
            if field == failed && texts(ready).contains(&kind) {
                let detail = "bindingFailureConditions must not overlap with bindingConditions";
                found.push(Violation::invalid(at.index(index), kind, detail));
            }
        }
    }
    for (field, other) in [(ready, failed), (failed, ready)] {
        if texts(field).is_empty() && !texts(other).is_empty() {
            let detail = format!("{field} are required to use {other}");
            found.push(Violation::invalid(at.field(field), Value::Null, detail));
        }
    }
}

/// The metadata and the spec of the claims that a template makes.
pub fn template(spec: &Value, at: At<'_>, found: &mut Found) {
    let empty = Value::Null;
    super::volume::template_metadata(spec.get("metadata").unwrap_or(&empty), at.field("metadata"), found);
    validate(&spec["spec"]["devices"], at.field("spec.devices"), found);
}
