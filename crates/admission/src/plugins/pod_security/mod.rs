//! The Pod Security Standards, as a namespace's labels ask for them:
//! <https://kubernetes.io/docs/concepts/security/pod-security-admission/>.

mod checks;
mod existing;
pub(crate) mod settings;

use std::fmt;

use object::{Key, Snapshot, Status};
use schema::{At, Violation, path};
use serde_json::Value;

use crate::{Operation, Plugin, PodSecurityNote, PodSecurityVersion, Request, Verdict};
use checks::{CHECKS, Finding, NEWEST};

pub const PLUGIN: Plugin = Plugin { name: "PodSecurity", mutate: None, validate: Some(validate) };

const PREFIX: &str = "pod-security.kubernetes.io";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

const LEVELS: &str = "must be one of privileged, baseline, restricted";
const VERSIONS: &str = "must be \"latest\" or \"v1.x\"";

/// What one mode asks for; printed as upstream does: `baseline:v1.30`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Policy {
    level: Level,
    /// The minor version; none means the latest.
    minor: Option<u32>,
}

impl Policy {
    const PRIVILEGED: Self = Self { level: Level::Privileged, minor: None };

    fn is_as(self, other: Self) -> bool {
        self == other || self.level == Level::Privileged && other.level == Level::Privileged
    }

    /// A pod was judged by it.
    fn counted(self, mode: &'static str, is_denied: bool) -> PodSecurityNote {
        let version = match self.minor {
            // What allows everything never changes.
            _ if self.level == Level::Privileged => PodSecurityVersion::Latest,
            None => PodSecurityVersion::Latest,
            Some(minor) if minor > NEWEST => PodSecurityVersion::Future,
            Some(minor) => PodSecurityVersion::Minor(minor),
        };
        PodSecurityNote::Evaluated { is_denied, mode, level: self.level.name(), version }
    }
}

/// What is asked for of the pods of a namespace.
#[derive(Clone, Copy, Debug)]
struct Modes {
    enforce: Policy,
    audit: Policy,
    warn: Policy,
}

/// What a namespace asks for, and which of its labels cannot be read.
struct Policies {
    modes: Modes,
    wrong: Vec<Violation>,
}

fn validate(
    snapshot: &Snapshot,
    request: &Request,
    object: Option<&Value>,
    verdict: &mut Verdict,
) -> Result<(), Status> {
    let Some(object) = object else { return Ok(()) };
    if request.is(kinds::NAMESPACES, &[Operation::Create, Operation::Update]) {
        return namespace(snapshot, request, object, verdict);
    }
    let Some((pod, is_pod)) = pod_of(request, object) else { return Ok(()) };
    let settings = &request.configuration.pod_security;
    let Verdict { audit, pod_security: counted, warnings, .. } = verdict;
    let mut note = |what: &str, text: String| audit.push((format!("{PREFIX}/{what}"), text));
    if let Some(why) = settings.exempts(&request.key.namespace, &request.user.name) {
        note("exempt", why.to_owned());
        counted.push(PodSecurityNote::Exempt);
        return Ok(());
    }
    let Some(namespace) = snapshot.get(&Key::cluster(kinds::NAMESPACES, request.key.namespace.clone()))
    else {
        return Ok(());
    };
    let Policies { modes, wrong } = Policies::read(&settings.defaults, |label| namespace.meta.label(label));
    let is_told = [modes.audit, modes.warn].iter().any(|mode| mode.level != Level::Privileged);
    if wrong.is_empty() && !is_told && (!is_pod || modes.enforce.level == Level::Privileged) {
        if is_pod {
            note("enforce-policy", Policy::PRIVILEGED.to_string());
            counted.push(modes.enforce.counted("enforce", false));
        }
        return Ok(());
    }
    if request.operation == Operation::Update && is_pod && !is_significant(request.old, object) {
        return Ok(());
    }
    if settings.exempts_class(pod) {
        note("exempt", "runtimeClass".to_owned());
        counted.push(PodSecurityNote::Exempt);
        return Ok(());
    }
    if !wrong.is_empty() {
        note("error", format!("Failed to parse policy: {}", listed(&wrong)));
        counted.push(PodSecurityNote::Unreadable);
    }
    if let Some(found) = told(pod, modes.audit) {
        note("audit-violations", format!("would violate {found}"));
        counted.push(modes.audit.counted("audit", true));
    }
    if is_pod {
        note("enforce-policy", modes.enforce.to_string());
        let found = told(pod, modes.enforce);
        counted.push(modes.enforce.counted("enforce", found.is_some()));
        if let Some(found) = found {
            return Err(request.forbidden(Some(object), format!("violates {found}")));
        }
    }
    if let Some(found) = told(pod, modes.warn) {
        warnings.push(format!("would violate {found}"));
        counted.push(modes.warn.counted("warn", true));
    }
    Ok(())
}

/// The pod, or the template of something that makes pods (which is warned about, but never refused).
fn pod_of<'a>(request: &Request, object: &'a Value) -> Option<(&'a Value, bool)> {
    let resource = request.key.resource;
    if resource == kinds::PODS {
        let judged = match request.operation {
            Operation::Create => request.subresource.is_empty(),
            Operation::Update => matches!(request.subresource, "" | "ephemeralcontainers" | "resize"),
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

/// Does the update bring an image? Nothing else that may change matters to a policy.
fn is_significant(old: Option<&Value>, new: &Value) -> bool {
    let images = |pod: &Value| -> Vec<Value> {
        crate::pod::containers(pod).map(|container| container["image"].clone()).collect()
    };
    let Some(old) = old else { return true };
    let debuggers = |pod: &Value| -> Vec<(Value, Value)> {
        let all = path::list(pod, "spec.ephemeralContainers").iter();
        all.map(|container| (container["name"].clone(), container["image"].clone())).collect()
    };
    let before = debuggers(old);
    images(old) != images(new) || debuggers(new).iter().any(|held| !before.contains(held))
}

fn findings(pod: &Value, policy: Policy) -> Vec<Finding> {
    let minor = policy.minor.unwrap_or(NEWEST).min(NEWEST);
    let holds = |check: &&checks::Check| {
        let is_replaced = policy.level == Level::Restricted && minor >= check.replaced_since;
        check.level <= policy.level && minor >= check.since && !is_replaced
    };
    CHECKS.iter().filter(holds).filter_map(|check| (check.find)(pod, minor)).collect()
}

/// `PodSecurity "baseline:latest": privileged (…), hostPort (…)`
fn told(pod: &Value, policy: Policy) -> Option<String> {
    let found = findings(pod, policy);
    let found: Vec<String> =
        found.iter().map(|found| format!("{} ({})", found.reason, found.detail)).collect();
    (!found.is_empty()).then(|| format!("PodSecurity \"{policy}\": {}", found.join(", ")))
}

impl Policies {
    /// A label that cannot be read is as strict as can be where it is enforced, and says nothing where it only tells. Who enforces more than
    /// is warned of by default is warned of as much.
    fn read<'a>(defaults: &Modes, label: impl Fn(&str) -> Option<&'a str>) -> Self {
        let mut wrong = Vec::new();
        let root = At::root("metadata.labels");
        let mut mode = |mode: &str, default: Policy, unread: Level| {
            let mut policy = default;
            let name = format!("{PREFIX}/{mode}");
            let told = label(&name);
            let read = told.and_then(level);
            if let Some(text) = told {
                policy.level = read.unwrap_or_else(|| {
                    wrong.push(Violation::invalid(root.key(&name), text, LEVELS));
                    unread
                });
            }
            let name = format!("{name}-version");
            let told_version = label(&name);
            if let Some(text) = told_version {
                policy.minor = version(text).unwrap_or_else(|| {
                    wrong.push(Violation::invalid(root.key(&name), text, VERSIONS));
                    None
                });
            }
            (policy, told.is_some(), read.is_some(), told_version.is_some())
        };
        let (enforce, _, is_enforced, _) = mode("enforce", defaults.enforce, Level::Restricted);
        let (audit, ..) = mode("audit", defaults.audit, Level::Privileged);
        let (mut warn, is_warned, _, has_version) = mode("warn", defaults.warn, Level::Privileged);
        if !is_warned && is_enforced && enforce.level > warn.level {
            warn.level = enforce.level;
            if !has_version {
                warn.minor = enforce.minor;
            }
        }
        Self { modes: Modes { enforce, audit, warn }, wrong }
    }
}

/// Labels that are wrong are refused when they are set, not when a pod comes; and pods that a stricter level would refuse
/// are told of.
fn namespace(
    snapshot: &Snapshot,
    request: &Request,
    namespace: &Value,
    verdict: &mut Verdict,
) -> Result<(), Status> {
    let settings = &request.configuration.pod_security;
    let of = |namespace: &Value| {
        let labels = &namespace["metadata"]["labels"];
        Policies::read(&settings.defaults, |label| labels[label].as_str())
    };
    let name = path::text(namespace, "metadata.name");
    let new = of(namespace);
    let old = request.old.filter(|_| request.operation == Operation::Update).map(of);
    let is_old_mistake = old.as_ref().is_some_and(|old| listed(&old.wrong) == listed(&new.wrong));
    if !new.wrong.is_empty() && !is_old_mistake {
        return Err(Violation::to_status(&new.wrong, "", "Namespace", name));
    }
    let (new, is_new) = (new.modes, old.is_none());
    if let Some(old) = old.map(|old| old.modes.enforce) {
        let is_relaxed = new.enforce.minor == old.minor && new.enforce.level <= old.level;
        if new.enforce.level == Level::Privileged || is_relaxed {
            return Ok(());
        }
    }
    if settings.exempts_namespace(name) {
        verdict.warnings.extend(
            settings.exempt_warning(name, &new, |label| namespace["metadata"]["labels"].get(label).is_some()),
        );
    } else if !is_new {
        verdict.warnings.extend(existing::warnings(snapshot, name, new.enforce, settings));
    }
    Ok(())
}

/// As upstream prints several errors at once.
fn listed(wrong: &[Violation]) -> String {
    let texts: Vec<String> = wrong.iter().map(|one| format!("{}: {}", one.field, one.body())).collect();
    crate::pod::joined(&texts)
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

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.minor {
            None => write!(f, "{}:latest", self.level.name()),
            Some(minor) => write!(f, "{}:v1.{minor}", self.level.name()),
        }
    }
}

fn level(text: &str) -> Option<Level> {
    [Level::Privileged, Level::Baseline, Level::Restricted].into_iter().find(|level| level.name() == text)
}

/// `latest` (no minor version) or `v1.30`.
fn version(text: &str) -> Option<Option<u32>> {
    if text == "latest" {
        return Some(None);
    }
    let minor = text.strip_prefix("v1.")?;
    let is_plain = minor == "0" || !minor.starts_with(['0', '+']);
    minor.parse().ok().filter(|_| is_plain).map(Some)
}
