use object::Resource;
use schema::{At, Kind, Violation, names, path};
use serde_json::Value;

use crate::column::{AGE, NAME, column, text};
use crate::spec::check::{self, Found};
use crate::spec::{affinity, capacity, devices};
use crate::{row, strategy};

pub const RESOURCE_SLICES: Resource = Resource::new("resourceslices.resource.k8s.io");

pub static KIND: Kind = Kind {
    resource: RESOURCE_SLICES,
    group: "resource.k8s.io",
    version: "v1",
    kind: "ResourceSlice",
    singular: "resourceslice",
    namespaced: false,
    type_name: "resource.v1.ResourceSlice",
    columns: &[
        NAME,
        column("Node", "string", "The node that has the devices.", |object, _| text(object, "spec.nodeName")),
        column("Driver", "string", "The driver of the devices.", |object, _| text(object, "spec.driver")),
        column("Pool", "string", "The pool that the devices are of.", |object, _| {
            text(object, "spec.pool.name")
        }),
        AGE,
    ],
    selectable: &["spec.nodeName", "spec.driver"],
    strategy: strategy::SPEC,
    validate,
    ..row::BASE
};

const DEVICES_MAX: usize = 128;
/// Where devices have taints, use counters or have lists of attributes.
const RICH_DEVICES_MAX: usize = 64;
const ATTRIBUTES_AND_CAPACITIES_MAX: usize = 32;
const ATTRIBUTE_VALUES_MAX: usize = 48;
const VALUE_MAX_BYTES: usize = 64;
const TAINTS_MAX: usize = 16;
const COUNTER_SETS_MAX: usize = 8;
const CONSUMPTIONS_MAX: usize = 2;
const COUNTERS_MAX: usize = 32;

fn validate(slice: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&slice["spec"], At::root("spec"));
    devices::driver(path::text(spec, "driver"), at.field("driver"), &mut found);
    pool(&spec["pool"], at.field("pool"), &mut found);
    if let Some(old) = old {
        for field in ["pool.name", "driver", "nodeName"] {
            check::immutable(spec, &old["spec"], field, at, &mut found);
        }
    }
    nodes(spec, at, &mut found);
    if spec.get("sharedCounters").is_some() && spec.get("devices").is_some() {
        let detail = "only one of `sharedCounters` or `devices` is allowed";
        found.push(Violation::invalid(at, "", detail));
    }
    let all = path::list(spec, "devices");
    let most = if all.iter().any(is_rich) { RICH_DEVICES_MAX } else { DEVICES_MAX };
    let is_per_device = path::bool(spec, "perDeviceNodeSelection");
    devices::set(all, most, "name", at.field("devices"), &mut found, |one, at, found| {
        device(one, is_per_device, at, found);
    });
    let sets = path::list(spec, "sharedCounters");
    devices::set(sets, COUNTER_SETS_MAX, "name", at.field("sharedCounters"), &mut found, |one, at, found| {
        check::required_name(one, "name", names::dns_label, at, found);
        counters(one, at, found);
    });
    found
}

fn pool(pool: &Value, at: At<'_>, found: &mut Found) {
    devices::pool(path::text(pool, "name"), at.field("name"), found);
    let number = |field: &str| path::int(pool, field).unwrap_or_default();
    if number("resourceSliceCount") <= 0 {
        let count = number("resourceSliceCount");
        found.push(Violation::invalid(at.field("resourceSliceCount"), count, "must be greater than zero"));
    }
    if number("generation") < 0 {
        let detail = "must be greater than or equal to zero";
        found.push(Violation::invalid(at.field("generation"), number("generation"), detail));
    }
}

/// Which nodes have the devices is said in one way.
fn nodes(spec: &Value, at: At<'_>, found: &mut Found) {
    const WANTED: &str =
        "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    let mut said = Vec::new();
    if let Some(name) = spec.get("nodeName").and_then(Value::as_str) {
        if name.is_empty() {
            let detail = "must be either unset or set to a non-empty string";
            found.push(Violation::invalid(at.field("nodeName"), name, detail));
        } else {
            said.push("`nodeName`");
            found.extend(Violation::all_invalid(at.field("nodeName"), name, names::dns_subdomain(name)));
        }
    }
    if let Some(selector) = spec.get("nodeSelector") {
        said.push("`nodeSelector`");
        affinity::node_selector(selector, at.field("nodeSelector"), found);
        let terms = path::list(selector, "nodeSelectorTerms");
        if terms.len() != 1 {
            let at = at.field("nodeSelector.nodeSelectorTerms");
            found.push(Violation::invalid(at, terms, "must have exactly one node selector term"));
        }
    }
    for (field, shown) in [("allNodes", "`allNodes`"), ("perDeviceNodeSelection", "`perDeviceNodeSelection`")]
    {
        match spec.get(field).and_then(Value::as_bool) {
            Some(true) => said.push(shown),
            Some(false) => {
                let detail = "must be either unset or set to true";
                found.push(Violation::invalid(at.field(field), false, detail));
            }
            None => {}
        }
    }
    match said.len() {
        0 => found.push(Violation::required(at, WANTED)),
        1 => {}
        _ => {
            let shown = format!("{{{}}}", said.join(", "));
            let detail = format!("{WANTED}, but multiple fields are set");
            found.push(Violation::invalid(at, shown, detail));
        }
    }
}

fn is_rich(device: &Value) -> bool {
    let has_list = |(_, one): (&String, &Value)| LISTS.iter().any(|(list, _)| one.get(list).is_some());
    !path::list(device, "taints").is_empty()
        || !path::list(device, "consumesCounters").is_empty()
        || path::members(device, "attributes").any(has_list)
}

fn device(device: &Value, is_per_device: bool, at: At<'_>, found: &mut Found) {
    let name = path::text(device, "name");
    found.extend(Violation::all_invalid(at.field("name"), name, names::dns_label(name)));
    let count = path::members(device, "attributes").count() + path::members(device, "capacity").count();
    if count > ATTRIBUTES_AND_CAPACITIES_MAX {
        let detail = format!(
            "the total number of attributes and capacities must not exceed {ATTRIBUTES_AND_CAPACITIES_MAX}"
        );
        found.push(Violation::invalid(at, count, detail));
    }
    let in_lists = |one: &Value| LISTS.iter().map(|(list, _)| path::list(one, list).len()).sum::<usize>();
    let values: usize = path::members(device, "attributes").map(|(_, one)| in_lists(one).max(1)).sum();
    if values > ATTRIBUTE_VALUES_MAX {
        let detail = format!("the total number of attribute values must not exceed {ATTRIBUTE_VALUES_MAX}");
        found.push(Violation::invalid(at, values, detail));
    }
    for (key, one) in path::members(device, "attributes") {
        let at = at.field("attributes");
        devices::qualified(key, at, found);
        attribute(one, at.key(key), found);
    }
    let is_shared = path::bool(device, "allowMultipleAllocations");
    for (key, one) in path::members(device, "capacity") {
        let at = at.field("capacity");
        devices::qualified(key, at, found);
        if let Some(policy) = one.get("requestPolicy") {
            let at = at.key(key);
            capacity::policy(one, policy, is_shared, at.field("requestPolicy"), found);
        }
    }
    devices::slice(path::list(device, "taints"), TAINTS_MAX, at.field("taints"), found, devices::taint);
    let used = path::list(device, "consumesCounters");
    let list = at.field("consumesCounters");
    devices::set(used, CONSUMPTIONS_MAX, "counterSet", list, found, |one, at, found| {
        check::required_name(one, "counterSet", names::dns_label, at, found);
        counters(one, at, found);
    });
    own_nodes(device, is_per_device, at, found);
    devices::binding(device, at, found);
}

/// Which nodes have this one, where each device says it.
fn own_nodes(device: &Value, is_per_device: bool, at: At<'_>, found: &mut Found) {
    const WANTED: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    if !is_per_device {
        if ["nodeName", "nodeSelector", "allNodes"].iter().any(|field| device.get(field).is_some()) {
            let detail = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
            found.push(Violation::invalid(at, Value::Null, detail));
        }
        return;
    }
    let mut said = Vec::new();
    if let Some(name) = device.get("nodeName").and_then(Value::as_str) {
        if name.is_empty() {
            found.push(Violation::invalid(at.field("nodeName"), name, "must not be empty"));
        } else {
            said.push("`nodeName`");
            found.extend(Violation::all_invalid(at.field("nodeName"), name, names::dns_subdomain(name)));
        }
    }
    if let Some(selector) = device.get("nodeSelector") {
        said.push("`nodeSelector`");
        affinity::node_selector(selector, at.field("nodeSelector"), found);
    }
    match device.get("allNodes").and_then(Value::as_bool) {
        Some(true) => said.push("`allNodes`"),
        Some(false) => {
            let detail = "must be either unset or set to true";
            found.push(Violation::invalid(at.field("allNodes"), false, detail));
        }
        None => {}
    }
    match said.len() {
        0 => found.push(Violation::required(at, WANTED)),
        1 => {}
        _ => found.push(Violation::invalid(at, format!("{{{}}}", said.join(", ")), WANTED)),
    }
}

fn counters(holder: &Value, at: At<'_>, found: &mut Found) {
    let at = at.field("counters");
    let count = path::members(holder, "counters").count();
    if count == 0 {
        found.push(Violation::required(at, ""));
    } else if count > COUNTERS_MAX {
        found.push(Violation::too_many(at, count, COUNTERS_MAX));
    } else {
        for (key, _) in path::members(holder, "counters") {
            found.extend(Violation::all_invalid(at, key, names::dns_label(key)));
        }
    }
}

/// Lists of values of an attribute, and whether they are versions.
const LISTS: [(&str, bool); 4] = [("bools", false), ("ints", false), ("strings", false), ("versions", true)];

fn attribute(attribute: &Value, at: At<'_>, found: &mut Found) {
    let text = |field: &str| attribute.get(field).and_then(Value::as_str);
    if let Some(text) = text("string") {
        short(text, at.field("string"), found);
    }
    if let Some(text) = text("version") {
        version(text, at.field("version"), found);
    }
    for (list, is_version) in LISTS {
        let at = at.field(list);
        for (index, text) in path::list(attribute, list).iter().enumerate() {
            match text.as_str() {
                Some(text) if is_version => version(text, at.index(index), found),
                Some(text) => short(text, at.index(index), found),
                None => {}
            }
        }
    }
    let singles = ["bool", "int", "string", "version"];
    let said = singles.into_iter().chain(LISTS.map(|(list, _)| list));
    match said.filter(|field| attribute.get(field).is_some()).count() {
        0 => found.push(Violation::invalid(at, "", "exactly one value must be specified")),
        1 => {}
        _ => found.push(Violation::invalid(at, attribute, "exactly one value must be specified")),
    }
}

fn short(text: &str, at: At<'_>, found: &mut Found) {
    if text.len() > VALUE_MAX_BYTES {
        found.push(Violation::too_long(at, VALUE_MAX_BYTES));
    }
}

fn version(text: &str, at: At<'_>, found: &mut Found) {
    if !is_version(text) {
        let detail = "must be a string compatible with semver.org spec 2.0.0";
        found.push(Violation::invalid(at, text, detail));
    }
    short(text, at, found);
}

/// `1.2.3-alpha.1+build`, as semver.org has it.
fn is_version(text: &str) -> bool {
    let is_number = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    let is_word =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let is_pre = |part: &str| is_number(part) || is_word(part) && !part.bytes().all(|b| b.is_ascii_digit());
    let (rest, build) = match text.split_once('+') {
        Some((rest, build)) => (rest, Some(build)),
        None => (text, None),
    };
    let (numbers, pre) = match rest.split_once('-') {
        Some((numbers, pre)) => (numbers, Some(pre)),
        None => (rest, None),
    };
    numbers.split('.').count() == 3
        && numbers.split('.').all(is_number)
        && pre.is_none_or(|pre| pre.split('.').all(is_pre))
        && build.is_none_or(|build| build.split('.').all(is_word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_those_of_semver() {
        for (text, is_right) in [
            ("1.2.3", true),
            ("1.2.3-alpha.1+build.01", true),
            ("1.2", false),
            ("1", false),
            ("01.2.3", false),
            ("1.2.3-01", false),
            ("1.2.3-", false),
            ("1.2.3+", false),
        ] {
            assert_eq!(is_version(text), is_right, "{text}");
        }
    }
}
