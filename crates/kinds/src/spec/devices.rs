//! What claims of devices ask for.

use schema::{At, Violation, names, path};
use serde_json::Value;

use super::check::{self, Found, Seen};

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

pub fn validate(devices: &Value, at: At<'_>, found: &mut Found) {
    let requests = path::list(devices, "requests");
    let mut seen = Seen::default();
    for (index, request) in requests.iter().enumerate() {
        let at = at.field("requests");
        let at = at.index(index);
        check::required_name(request, "name", names::dns_label, at, found);
        if seen.repeats(request["name"].to_string()) {
            found.push(Violation::duplicate(at.field("name"), &request["name"]));
        }
        let alternatives = path::list(request, "firstAvailable");
        match (request.get("exactly"), alternatives.is_empty()) {
            (Some(_), false) => {
                let detail =
                    "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
                found.push(Violation::invalid(at, request, detail));
            }
            (None, true) => {
                found.push(Violation::required(
                    at,
                    "exactly one of `exactly` or `firstAvailable` is required",
                ));
            }
            (Some(exactly), true) => one(exactly, at.field("exactly"), found),
            (None, false) => {
                for (index, alternative) in alternatives.iter().enumerate() {
                    let at = at.field("firstAvailable");
                    let at = at.index(index);
                    check::required_name(alternative, "name", names::dns_label, at, found);
                    one(alternative, at, found);
                }
            }
        }
    }
}

fn one(request: &Value, at: At<'_>, found: &mut Found) {
    check::required_name(request, "deviceClassName", names::dns_subdomain, at, found);
    check::one_of(request, "allocationMode", &["All", "ExactCount"], at, found);
    let count = path::int(request, "count").unwrap_or_default();
    if path::text(request, "allocationMode") == "ExactCount" && count <= 0 {
        found.push(Violation::invalid(at.field("count"), count, "must be greater than zero"));
    }
}
