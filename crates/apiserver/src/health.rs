//! `/healthz`, `/livez`, `/readyz`, `/metrics`, `/version`, and what OpenID clients ask.

use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use crate::metrics;
use crate::query::Query;
use crate::respond::{self, Answer};
use crate::server::Shared;

/// A check by its name, with what is wrong if it fails.
type Check = (&'static str, fn(&Shared) -> Result<(), String>);

const CHECKS: &[Check] = &[
    ("ping", |_| Ok(())),
    ("log", |_| Ok(())),
    (
        "etcd",
        |shared| if shared.store().usage().revision > 0 { Ok(()) } else { Err("the store is empty".into()) },
    ),
];

/// Only readiness: a server that is about to stop is alive but not ready.
const READY: Check =
    ("shutdown", |shared| if shared.is_stopping() { Err("process is shutting down".into()) } else { Ok(()) });

pub(crate) fn answer(shared: &Shared, path: &str, query: &Query) -> Option<Answer> {
    let trimmed = path.trim_end_matches('/');
    match trimmed {
        "/metrics" => {
            let mut answer = respond::text(StatusCode::OK, metrics::page(shared));
            let format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            answer.headers_mut().insert(header::CONTENT_TYPE, format);
            return Some(answer);
        }
        "/version" => return Some(version(shared)),
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
    let checks: Vec<Check> = match root {
        "healthz" | "livez" => CHECKS.to_vec(),
        "readyz" => CHECKS.iter().copied().chain([READY]).collect(),
        _ => return None,
    };
    match one {
        None => Some(all(shared, root, &checks, query)),
        Some(one) => {
            let (_, check) = checks.iter().find(|(name, _)| *name == one)?;
            Some(match check(shared) {
                Ok(()) => respond::text(StatusCode::OK, "ok"),
                Err(why) => respond::text(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    format!("internal server error: {why}\n"),
                ),
            })
        }
    }
}

fn all(shared: &Shared, root: &str, checks: &[Check], query: &Query) -> Answer {
    let mut told = String::new();
    let mut failed = false;
    for (name, check) in checks {
        if query.all("exclude").any(|excluded| excluded == *name) {
            told.push_str(&format!("[+]{name} excluded: ok\n"));
            continue;
        }
        match check(shared) {
            Ok(()) => told.push_str(&format!("[+]{name} ok\n")),
            Err(_) => {
                failed = true;
                told.push_str(&format!("[-]{name} failed: reason withheld\n"));
            }
        }
    }
    if failed {
        told.push_str(&format!("{root} check failed\n"));
        return respond::text(StatusCode::INTERNAL_SERVER_ERROR, told);
    }
    if query.has("verbose") {
        told.push_str(&format!("{root} check passed\n"));
        return respond::text(StatusCode::OK, told);
    }
    respond::text(StatusCode::OK, "ok")
}

fn version(shared: &Shared) -> Answer {
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
    respond::json(StatusCode::OK, &value)
}
