//! `/healthz`, `/livez`, `/readyz`, `/metrics`, `/metrics/slis`, `/version`, and what OpenID clients ask.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use object::Resource;
use serde_json::json;
use tracing::warn;

use crate::query::Query;
use crate::respond::{self, Answer};
use crate::route::not_allowed;
use crate::shared::Shared;
use crate::{metrics, negotiate};

/// A check by its name, with what is wrong if it fails; from outside of this crate.
pub type HealthCheck = (&'static str, Arc<dyn Fn() -> Result<(), String> + Send + Sync>);

/// A check by its name, with what is wrong if it fails.
type Check = (&'static str, fn(&Shared) -> Result<(), String>);

const ROOTS: [&str; 3] = ["healthz", "livez", "readyz"];

/// In the order in which they are told.
const CHECKS: &[Check] = &[
    ("ping", |_| Ok(())),
    ("log", |_| Ok(())),
    (
        "etcd",
        |shared| if shared.store().usage().revision > 0 { Ok(()) } else { Err("the store is empty".into()) },
    ),
    ("poststarthook/rbac/bootstrap-roles", |shared| is_there(shared, kinds::CLUSTER_ROLES, "cluster-admin")),
    ("poststarthook/scheduling/bootstrap-system-priority-classes", |shared| {
        is_there(shared, kinds::PRIORITY_CLASSES, "system-node-critical")
    }),
    ("poststarthook/priority-and-fairness-config-producer", |shared| {
        is_there(shared, kinds::PRIORITY_LEVEL_CONFIGURATIONS, "exempt")
    }),
];

/// Only readiness: a server that is about to stop is alive but not ready.
const READY: Check =
    ("shutdown", |shared| if shared.is_stopping() { Err("process is shutting down".into()) } else { Ok(()) });

fn is_there(shared: &Shared, resource: Resource, name: &str) -> Result<(), String> {
    match shared.store().snapshot().find(resource, "", name) {
        Some(_) => Ok(()),
        None => Err("not finished".into()),
    }
}

/// How often each check of each root was right, and was not; and how it was last.
#[derive(Default)]
pub(crate) struct Outcomes(Mutex<BTreeMap<(&'static str, &'static str), Outcome>>);

#[derive(Default)]
struct Outcome {
    passed: u64,
    failed: u64,
    is_well: bool,
}

impl Outcomes {
    fn note(&self, root: &'static str, name: &'static str, outcome: &Result<(), String>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let one = all.entry((root, name)).or_default();
        one.is_well = outcome.is_ok();
        if one.is_well { one.passed += 1 } else { one.failed += 1 }
    }

    /// `/metrics/slis`: KEP-3466.
    fn page(&self) -> String {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut text = String::new();
        metrics::head(
            &mut text,
            "kubernetes_healthcheck",
            "gauge",
            "Whether a check passed when it was last made.",
        );
        for ((root, name), one) in all.iter() {
            let _ = writeln!(
                text,
                "kubernetes_healthcheck{{name=\"{name}\",type=\"{root}\"}} {}",
                u8::from(one.is_well)
            );
        }
        metrics::head(&mut text, "kubernetes_healthchecks_total", "counter", "Checks by their outcome.");
        for ((root, name), one) in all.iter() {
            for (status, count) in [("error", one.failed), ("success", one.passed)] {
                if count > 0 {
                    let labels = format!("name=\"{name}\",status=\"{status}\",type=\"{root}\"");
                    let _ = writeln!(text, "kubernetes_healthchecks_total{{{labels}}} {count}");
                }
            }
        }
        text
    }
}

/// The names of a root's checks.
fn names(shared: &Shared, root: &str) -> Vec<&'static str> {
    let own = CHECKS.iter().map(|(name, _)| *name);
    let given = shared.config.checks.iter().map(|(name, _)| *name);
    let ready = (root == "readyz").then_some(READY.0);
    own.chain(given).chain(ready).collect()
}

fn check(shared: &Shared, root: &'static str, name: &'static str) -> Result<(), String> {
    let own = CHECKS.iter().chain([&READY]).find(|(known, _)| *known == name);
    let outcome = match own {
        Some((_, check)) => check(shared),
        None => {
            shared.config.checks.iter().find(|(known, _)| *known == name).map_or(Ok(()), |(_, check)| check())
        }
    };
    shared.outcomes.note(root, name, &outcome);
    outcome
}

/// Every path that is answered here, and those of OpenAPI.
pub(crate) fn paths(shared: &Shared) -> Vec<String> {
    let fixed = [
        "/.well-known/openid-configuration",
        "/metrics",
        "/metrics/slis",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/version",
    ];
    let mut paths: Vec<String> = fixed.iter().map(|&path| path.to_owned()).collect();
    for root in ROOTS {
        paths.push(format!("/{root}"));
        paths.extend(names(shared, root).into_iter().map(|name| format!("/{root}/{name}")));
    }
    paths
}

pub(crate) fn answer(
    shared: &Shared,
    path: &str,
    query: &Query,
    method: &Method,
    headers: &HeaderMap,
) -> Option<Answer> {
    let trimmed = path.trim_end_matches('/');
    match trimmed {
        "/metrics" => {
            let mut answer = respond::text(StatusCode::OK, metrics::page(shared));
            let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            answer.headers_mut().insert(header::CONTENT_TYPE, format);
            return Some(answer);
        }
        "/metrics/slis" => {
            for root in ROOTS {
                names(shared, root).into_iter().for_each(|name| drop(check(shared, root, name)));
            }
            let mut answer = respond::text(StatusCode::OK, shared.outcomes.page());
            let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            answer.headers_mut().insert(header::CONTENT_TYPE, format);
            return Some(answer);
        }
        "/version" => return Some(version(shared, method, headers)),
        "/.well-known/openid-configuration" => {
            return Some(respond::json(
                StatusCode::OK,
                &shared.tokens.openid_configuration(&shared.config.jwks_uri),
            ));
        }
        "/openid/v1/jwks" => {
            return Some(respond::bytes(
                StatusCode::OK,
                "application/jwk-set+json",
                shared.tokens.jwks().to_string(),
            ));
        }
        _ => {}
    }
    let (root, one) = match trimmed.strip_prefix('/')?.split_once('/') {
        Some((root, one)) => (root, Some(one)),
        None => (trimmed.strip_prefix('/')?, None),
    };
    let root = ROOTS.into_iter().find(|known| *known == root)?;
    let names = names(shared, root);
    match one {
        None => Some(all(shared, root, &names, query)),
        Some(one) => {
            let name = names.into_iter().find(|name| *name == one)?;
            Some(match check(shared, root, name) {
                Ok(()) => respond::text(StatusCode::OK, "ok"),
                Err(why) => respond::text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    format!("internal server error: {why}\n"),
                ),
            })
        }
    }
}

fn all(shared: &Shared, root: &'static str, names: &[&'static str], query: &Query) -> Answer {
    let mut told = String::new();
    let mut failed = Vec::new();
    for name in names {
        if query.all("exclude").any(|excluded| excluded == *name) {
            told.push_str(&format!("[+]{name} excluded: ok\n"));
            continue;
        }
        match check(shared, root, name) {
            Ok(()) => told.push_str(&format!("[+]{name} ok\n")),
            Err(why) => {
                failed.push(format!("{name}: {why}"));
                told.push_str(&format!("[-]{name} failed: reason withheld\n"));
            }
        }
    }
    let unknown: Vec<String> =
        query.all("exclude").filter(|name| !names.contains(name)).map(|name| format!("{name:?}")).collect();
    if !unknown.is_empty() {
        told.push_str(&format!(
            "warn: some health checks cannot be excluded: no matches for {}\n",
            unknown.join(",")
        ));
    }
    if !failed.is_empty() {
        // Who asks may be anybody: why it failed is for the log.
        warn!(root, failed = failed.join("; "), "not healthy");
        told.push_str(&format!("{root} check failed\n"));
        return respond::text(StatusCode::INTERNAL_SERVER_ERROR, told);
    }
    if query.has("verbose") {
        told.push_str(&format!("{root} check passed\n"));
        return respond::text(StatusCode::OK, told);
    }
    respond::text(StatusCode::OK, "ok")
}

fn version(shared: &Shared, method: &Method, headers: &HeaderMap) -> Answer {
    if method != Method::GET {
        return respond::failure(&not_allowed());
    }
    if let Err(status) = negotiate::check_json(headers) {
        return respond::failure(&status);
    }
    let version = &shared.config.version;
    let value = json!({
        "major": version.major,
        "minor": version.minor,
        "emulationMajor": version.major,
        "emulationMinor": version.minor,
        "minCompatibilityMajor": version.major,
        "minCompatibilityMinor": version.minor.parse::<u32>().map_or(version.minor.clone(), |minor| minor.saturating_sub(1).to_string()),
        "gitVersion": version.git,
        "gitCommit": version.commit,
        "gitTreeState": "clean",
        "buildDate": version.built,
        "goVersion": "",
        "compiler": "rustc",
        "platform": version.platform,
    });
    respond::raw(StatusCode::OK, &value)
}
