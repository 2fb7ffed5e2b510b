//! Probes and lifecycle hooks.

use schema::{At, Violation, names, path};
use serde_json::Value;

use super::check::{Found, not_negative, one_of, port, required};

const PROBE_HANDLERS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "grpc"];
const HOOK_HANDLERS: [&str; 4] = ["exec", "httpGet", "tcpSocket", "sleep"];

/// The hooks and probes of a container that may have them.
pub fn validate(container: &Value, grace_seconds: i64, at: At<'_>, found: &mut Found) {
    if let Some(lifecycle) = container.get("lifecycle") {
        for name in ["postStart", "preStop"] {
            if let Some(hook) = lifecycle.get(name) {
                let at = at.field("lifecycle");
                handler(hook, &HOOK_HANDLERS, grace_seconds, at.field(name), found);
            }
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get(name) {
            one_probe(probe, name, at.field(name), found);
        }
    }
}

fn one_probe(probe: &Value, name: &str, at: At<'_>, found: &mut Found) {
    handler(probe, &PROBE_HANDLERS, 0, at, found);
    for field in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        not_negative(probe, field, at, found);
    }
    if let Some(grace) = path::int(probe, "terminationGracePeriodSeconds") {
        let at = at.field("terminationGracePeriodSeconds");
        if grace <= 0 {
            found.push(Violation::invalid(at, grace, "must be greater than 0"));
        }
        if name == "readinessProbe" {
            found.push(Violation::invalid(at, grace, "must not be set for readinessProbes"));
        }
    }
    if name != "readinessProbe"
        && let Some(threshold) = path::int(probe, "successThreshold").filter(|&threshold| threshold != 1)
    {
        found.push(Violation::invalid(at.field("successThreshold"), threshold, "must be 1"));
    }
}

fn handler(holder: &Value, kinds: &[&str], grace_seconds: i64, at: At<'_>, found: &mut Found) {
    let mut has_one = false;
    for &kind in kinds {
        let Some(handler) = holder.get(kind) else { continue };
        let at = at.field(kind);
        if has_one {
            found.push(Violation::forbidden(at, "may not specify more than 1 handler type"));
            continue;
        }
        has_one = true;
        match kind {
            "exec" if path::list(handler, "command").is_empty() => {
                found.push(Violation::required(at.field("command"), ""));
            }
            "httpGet" => http_get(handler, at, found),
            "tcpSocket" => port(handler, "port", at, found),
            "grpc" => {
                let number = path::int(handler, "port").unwrap_or_default();
                found.extend(Violation::all_invalid(at.field("port"), number, names::port_number(number)));
            }
            "sleep" => sleep(handler, grace_seconds, at, found),
            _ => {}
        }
    }
    if !has_one {
        found.push(Violation::required(at, "must specify a handler type"));
    }
}

fn http_get(handler: &Value, at: At<'_>, found: &mut Found) {
    required(handler, "path", at, found);
    port(handler, "port", at, found);
    one_of(handler, "scheme", &["HTTP", "HTTPS"], at, found);
    for header in path::list(handler, "httpHeaders") {
        let name = path::text(header, "name");
        found.extend(Violation::all_invalid(at.field("httpHeaders"), name, names::http_header(name)));
    }
}

fn sleep(handler: &Value, grace_seconds: i64, at: At<'_>, found: &mut Found) {
    let seconds = path::int(handler, "seconds").unwrap_or_default();
    if !(0..=grace_seconds).contains(&seconds) {
        let detail =
            format!("must be non-negative and less than terminationGracePeriodSeconds ({grace_seconds})");
        found.push(Violation::invalid(at, seconds, detail));
    }
}
