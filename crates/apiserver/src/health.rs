//! `/healthz`, `/livez`, `/readyz`, `/metrics`, `/metrics/slis`, the metrics of other components, `/version`, and what OpenID clients ask.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use ::metrics::Page;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use object::{Reason, Resource, Status};
use plan::Attributes;
use serde_json::json;
use tracing::warn;

use crate::query::Query;
use crate::respond::{self, Answer};
use crate::route::not_allowed;
use crate::shared::Shared;
use crate::{metrics, negotiate, zpages};

/// A check by its name, with what is wrong if it fails; from outside of this crate.
pub type HealthCheck = (&'static str, Arc<dyn Fn() -> Result<(), String> + Send + Sync>);

/// A check by its name, with what is wrong if it fails.
type Check = (&'static str, fn(&Shared) -> Result<(), String>);

const ROOTS: [&str; 3] = ["healthz", "livez", "readyz"];

/// In the order in which they are told, which is upstream's.
const CHECKS: &[Check] = &[
    ("ping", begun),
    ("log", begun),
    ("loopback-serving-certificate", begun),
    ("etcd", filled),
    ("etcd-readiness", filled),
    ("informer-sync", filled),
    ("poststarthook/start-apiserver-admission-initializer", begun),
    ("poststarthook/generic-apiserver-start-informers", begun),
    ("poststarthook/priority-and-fairness-config-consumer", begun),
    ("poststarthook/priority-and-fairness-filter", begun),
    ("poststarthook/storage-object-count-tracker-hook", begun),
    ("poststarthook/start-apiextensions-informers", begun),
    ("poststarthook/start-apiextensions-controllers", begun),
    ("poststarthook/crd-informer-synced", begun),
    ("poststarthook/start-system-namespaces-controller", |shared| {
        is_there(shared, kinds::NAMESPACES, "kube-system")
    }),
    ("poststarthook/peer-endpoint-reconciler-controller", begun),
    ("poststarthook/start-cluster-authentication-info-controller", begun),
    ("poststarthook/start-kube-apiserver-identity-lease-controller", begun),
    ("poststarthook/start-kube-apiserver-identity-lease-garbage-collector", begun),
    ("poststarthook/storage-readiness", filled),
    ("poststarthook/start-legacy-token-tracking-controller", begun),
    ("poststarthook/start-service-ip-repair-controllers", begun),
    ("poststarthook/rbac/bootstrap-roles", |shared| is_there(shared, kinds::CLUSTER_ROLES, "cluster-admin")),
    ("poststarthook/scheduling/bootstrap-system-priority-classes", |shared| {
        is_there(shared, kinds::PRIORITY_CLASSES, "system-node-critical")
    }),
    ("poststarthook/priority-and-fairness-config-producer", |shared| {
        is_there(shared, kinds::PRIORITY_LEVEL_CONFIGURATIONS, "exempt")
    }),
    ("poststarthook/bootstrap-controller", begun),
    ("poststarthook/start-kubernetes-service-cidr-controller", begun),
    ("poststarthook/start-kube-aggregator-informers", begun),
    ("poststarthook/apiservice-status-local-available-controller", begun),
    ("poststarthook/apiservice-status-remote-available-controller", begun),
    ("poststarthook/apiservice-registration-controller", begun),
    ("poststarthook/apiservice-discovery-controller", begun),
    ("poststarthook/kube-apiserver-autoregistration", begun),
    ("autoregister-completion", begun),
    ("poststarthook/apiservice-openapi-controller", begun),
    ("poststarthook/apiservice-openapiv3-controller", begun),
    ("shutdown", |shared| if shared.is_stopping() { Err("process is shutting down".into()) } else { Ok(()) }),
];

/// Which of them are about readiness alone: a server that is about to stop is alive but not ready.
const ONLY_READY: &[&str] = &["etcd-readiness", "informer-sync", "shutdown"];
/// And which are not about it.
const NEVER_READY: &[&str] = &["loopback-serving-certificate"];

/// What upstream begins behind its start is there before this server answers anybody.
fn begun(_: &Shared) -> Result<(), String> {
    Ok(())
}

fn filled(shared: &Shared) -> Result<(), String> {
    if shared.store().usage().revision > 0 { Ok(()) } else { Err("the store is empty".into()) }
}

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

    /// `/metrics/slis`: KEP-3466. What is looked at one by one is not counted, nor is this page a look at anything.
    fn page(&self) -> String {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut page = Page::default();
        page.head(
            "kubernetes_healthcheck",
            "gauge",
            "[STABLE] This metric records the result of a single healthcheck.",
        );
        for ((root, name), one) in all.iter() {
            page.sample("kubernetes_healthcheck", &[("name", name), ("type", root)], u8::from(one.is_well));
        }
        let name = "kubernetes_healthchecks_total";
        page.head(name, "counter", "[STABLE] This metric records the results of all healthcheck.");
        for ((root, check), one) in all.iter() {
            for (status, count) in [("error", one.failed), ("success", one.passed)] {
                if count > 0 {
                    page.sample(name, &[("name", check), ("status", status), ("type", root)], count);
                }
            }
        }
        metrics::write_start(&mut page);
        page.into_text()
    }
}

/// The names of a root's checks.
fn names(shared: &Shared, root: &str) -> Vec<&'static str> {
    let not = if root == "readyz" { NEVER_READY } else { ONLY_READY };
    let own = CHECKS.iter().map(|(name, _)| *name).filter(|name| !not.contains(name));
    own.chain(shared.config.checks.iter().map(|(name, _)| *name)).collect()
}

fn check(shared: &Shared, name: &str) -> Result<(), String> {
    if let Some((_, check)) = CHECKS.iter().find(|(known, _)| *known == name) {
        return check(shared);
    }
    shared.config.checks.iter().find(|(known, _)| *known == name).map_or(Ok(()), |(_, check)| check())
}

/// Every path that is answered here, and those of OpenAPI.
pub(crate) fn paths(shared: &Shared) -> Vec<String> {
    let fixed = [
        "/.well-known/openid-configuration",
        "/apis/",
        "/flagz",
        "/metrics",
        "/metrics/slis",
        "/openapi/v2",
        "/openapi/v3",
        "/openapi/v3/",
        "/openid/v1/jwks",
        "/statusz",
        "/version",
    ];
    let mut paths: Vec<String> = fixed.iter().map(|&path| path.to_owned()).collect();
    for root in ROOTS {
        paths.push(format!("/{root}"));
        paths.extend(names(shared, root).into_iter().map(|name| format!("/{root}/{name}")));
    }
    paths
}

/// The metrics of what runs beside the API server: `/apis/metrics.eks.amazonaws.com/v1/{kcm,ksh}/container/metrics`.
pub(crate) fn component(shared: &Shared, asked: Attributes<'_>) -> Answer {
    let is_asked = asked.verb == "get" && asked.name == "container" && asked.subresource == "metrics";
    match metrics::page_of(shared, asked.resource).filter(|_| is_asked) {
        Some(text) => metrics_page(text),
        None => respond::failure(&Status::new(
            Reason::NotFound,
            "the server could not find the requested resource",
        )),
    }
}

fn metrics_page(text: String) -> Answer {
    let mut answer = respond::text(StatusCode::OK, text);
    let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8; escaping=underscores");
    answer.headers_mut().insert(header::CONTENT_TYPE, format);
    answer
}

/// The page that requests for a path are counted by; None: they are not.
pub(crate) fn page_of(path: &str) -> Option<&'static str> {
    ["/healthz", "/livez", "/readyz"].into_iter().find(|page| *page == path)
}

pub(crate) fn answer(
    shared: &Shared,
    path: &str,
    query: &Query,
    method: &Method,
    headers: &HeaderMap,
) -> Option<Answer> {
    match path {
        "/metrics" => return Some(metrics_page(metrics::page(shared))),
        "/metrics/slis" => return Some(metrics_page(shared.outcomes.page())),
        "/flagz" | "/statusz" => return Some(zpages::answer(shared, path, headers)),
        "/version" | "/version/" => return Some(version(shared, method, headers)),
        "/.well-known/openid-configuration" | "/.well-known/openid-configuration/" => {
            return Some(respond::json(
                StatusCode::OK,
                &shared.tokens.openid_configuration(&shared.config.jwks_uri),
            ));
        }
        "/openid/v1/jwks" | "/openid/v1/jwks/" => {
            return Some(respond::bytes(
                StatusCode::OK,
                "application/jwk-set+json",
                shared.tokens.jwks().to_string(),
            ));
        }
        _ => {}
    }
    let rest = path.strip_prefix('/')?;
    let (root, one) = rest.split_once('/').map_or((rest, None), |(root, one)| (root, Some(one)));
    let root = ROOTS.into_iter().find(|known| *known == root)?;
    let names = names(shared, root);
    match one {
        None => Some(all(shared, root, &names, query)),
        Some(one) => {
            let name = names.into_iter().find(|name| *name == one)?;
            Some(match check(shared, name) {
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
        let outcome = check(shared, name);
        shared.outcomes.note(root, name, &outcome);
        match outcome {
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
    let mut answer = if query.has("verbose") {
        told.push_str(&format!("{root} check passed\n"));
        respond::text(StatusCode::OK, told)
    } else {
        respond::text(StatusCode::OK, "ok")
    };
    respond::forbid_sniffing(answer.headers_mut());
    answer
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
        "minCompatibilityMinor": version.least_compatible(),
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
