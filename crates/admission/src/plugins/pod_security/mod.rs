//! The Pod Security Standards, as a namespace's labels ask for them:
//! <https://kubernetes.io/docs/concepts/security/pod-security-admission/>.

mod checks;

use object::{Key, Snapshot, Status};
use schema::{At, Violation, path};
use serde_json::Value;

use crate::{Operation, Plugin, Request, Verdict};
use checks::CHECKS;

pub const PLUGIN: Plugin = Plugin { name: "PodSecurity", mutate: None, validate: Some(validate) };

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

/// One mode's policy: a level, and the version as the label writes it. Every version is judged by the latest rules.
struct Policy {
    level: Level,
    version: String,
}

const MODES: [&str; 3] = ["audit", "enforce", "warn"];

fn validate(
    snapshot: &Snapshot,
    request: &Request,
    object: Option<&Value>,
    verdict: &mut Verdict,
) -> Result<(), Status> {
    let Some(object) = object else { return Ok(()) };
    if request.is(kinds::NAMESPACES, &[Operation::Create, Operation::Update]) {
        return check_labels(object, request.old);
    }
    let Some((pod, is_pod)) = pod_of(request, object) else { return Ok(()) };
    let Some(namespace) = snapshot.get(&Key::cluster(kinds::NAMESPACES, request.key.namespace.clone()))
    else {
        return Ok(());
    };
    let policy = |mode: &str| {
        let label = |name: String| namespace.meta.label(&name);
        Policy {
            level: label(format!("pod-security.kubernetes.io/{mode}"))
                .and_then(level)
                .unwrap_or(Level::Privileged),
            version: label(format!("pod-security.kubernetes.io/{mode}-version"))
                .unwrap_or("latest")
                .to_owned(),
        }
    };
    let enforce = policy("enforce");
    if let Some(found) = violations(pod, enforce.level).filter(|_| is_pod) {
        let why = format!("violates PodSecurity \"{}:{}\": {found}", enforce.level.name(), enforce.version);
        return Err(request.forbidden(Some(object), why));
    }
    let told = |policy: &Policy| {
        let found = violations(pod, policy.level)?;
        Some(format!("would violate PodSecurity \"{}:{}\": {found}", policy.level.name(), policy.version))
    };
    verdict.warnings.extend(told(&policy("warn")));
    if let Some(text) = told(&policy("audit")) {
        verdict.audit.push(("pod-security.kubernetes.io/audit-violations".to_owned(), text));
    }
    Ok(())
}

/// The pod, or the template of something that makes pods (which is warned about, but never refused).
fn pod_of<'a>(request: &Request, object: &'a Value) -> Option<(&'a Value, bool)> {
    let resource = request.key.resource;
    if resource == kinds::PODS {
        let judged = match (request.operation, request.subresource) {
            (Operation::Create, "") | (Operation::Update, "ephemeralcontainers") => true,
            (Operation::Update, "") => request.old.is_none_or(|old| images(old) != images(object)),
            _ => false,
        };
        return judged.then_some((object, true));
    }
    if !request.is(resource, &[Operation::Create, Operation::Update]) {
        return None;
    }
    let template = match resource {
        kinds::CRON_JOBS => &object["spec"]["jobTemplate"]["spec"]["template"],
        kinds::POD_TEMPLATES => &object["template"],
        kinds::DAEMON_SETS
        | kinds::DEPLOYMENTS
        | kinds::JOBS
        | kinds::REPLICA_SETS
        | kinds::REPLICATION_CONTROLLERS
        | kinds::STATEFUL_SETS => &object["spec"]["template"],
        _ => return None,
    };
    template.is_object().then_some((template, false))
}

fn images(pod: &Value) -> Vec<&Value> {
    crate::pod::containers(pod).map(|container| &container["image"]).collect()
}

fn violations(pod: &Value, level: Level) -> Option<String> {
    let found: Vec<String> = CHECKS
        .iter()
        .filter(|check| check.level <= level && (level != Level::Restricted || !check.is_replaced))
        .filter_map(|check| {
            let detail = (check.find)(pod)?;
            Some(format!("{} ({detail})", check.reason))
        })
        .collect();
    (!found.is_empty()).then(|| found.join(", "))
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

fn level(text: &str) -> Option<Level> {
    [Level::Privileged, Level::Baseline, Level::Restricted].into_iter().find(|level| level.name() == text)
}

/// Labels that are wrong are refused when they are set, not when a pod comes.
fn check_labels(namespace: &Value, old: Option<&Value>) -> Result<(), Status> {
    let labels = &namespace["metadata"]["labels"];
    let root = At::root("metadata.labels");
    let mut found = Vec::new();
    for mode in MODES {
        for (name, check, why) in [
            (
                format!("pod-security.kubernetes.io/{mode}"),
                (|text: &str| level(text).is_some()) as fn(&str) -> bool,
                "must be one of privileged, baseline, restricted",
            ),
            (
                format!("pod-security.kubernetes.io/{mode}-version"),
                is_version,
                "must be \"latest\" or \"v1.x\"",
            ),
        ] {
            let Some(value) = labels[&name].as_str() else { continue };
            let unchanged = old.is_some_and(|old| old["metadata"]["labels"][&name] == value);
            if !check(value) && !unchanged {
                found.push(Violation::invalid(root.key(&name), value, why));
            }
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    Err(Violation::to_status(&found, "", "Namespace", path::text(namespace, "metadata.name")))
}

fn is_version(text: &str) -> bool {
    let minor = text.strip_prefix("v1.").filter(|minor| !minor.is_empty());
    text == "latest" || minor.is_some_and(|minor| minor.bytes().all(|byte| byte.is_ascii_digit()))
}
