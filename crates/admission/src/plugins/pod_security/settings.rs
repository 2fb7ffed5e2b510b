//! `PodSecurityConfiguration`: what holds where a namespace says nothing, and who is exempt.
//! <https://kubernetes.io/docs/tasks/configure-pod-container/enforce-standards-admission-controller/>

use std::collections::BTreeSet;

use schema::{At, Violation, names, path};
use serde::Deserialize;
use serde_json::Value;

use super::{LEVELS, Level, Modes, PREFIX, Policy, VERSIONS, level, version};

#[derive(Debug)]
pub struct Settings {
    pub(super) defaults: Modes,
    exemptions: Exemptions,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Exemptions {
    usernames: Vec<String>,
    namespaces: Vec<String>,
    runtime_classes: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    defaults: Defaults,
    exemptions: Exemptions,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Defaults {
    enforce: String,
    enforce_version: String,
    audit: String,
    audit_version: String,
    warn: String,
    warn_version: String,
}

impl Default for Settings {
    fn default() -> Self {
        let [enforce, audit, warn] = [Policy::PRIVILEGED; 3];
        Self { defaults: Modes { enforce, audit, warn }, exemptions: Exemptions::default() }
    }
}

impl Settings {
    /// Reads what stands below the head of the file.
    ///
    /// # Errors
    /// Everything that is wrong with it, in upstream's words.
    pub fn read(content: Value) -> Result<Self, Vec<String>> {
        let File { defaults, exemptions } = serde_json::from_value(content)
            .map_err(|error| vec![format!("strict decoding error: {error}")])?;
        let mut wrong = Vec::new();
        let root = At::root("defaults");
        let mut mode = |name: &str, told: &str, told_version: &str| {
            let mut policy = Policy::PRIVILEGED;
            match level(told) {
                Some(level) => policy.level = level,
                None if told.is_empty() => {}
                None => wrong.push(Violation::invalid(root.field(name), told, LEVELS)),
            }
            match version(told_version) {
                Some(minor) => policy.minor = minor,
                None if told_version.is_empty() => {}
                None => {
                    let name = format!("{name}-version");
                    wrong.push(Violation::invalid(root.field(&name), told_version, VERSIONS));
                }
            }
            policy
        };
        let enforce = mode("enforce", &defaults.enforce, &defaults.enforce_version);
        let warn = mode("warn", &defaults.warn, &defaults.warn_version);
        let audit = mode("audit", &defaults.audit, &defaults.audit_version);
        exemptions.check(&mut wrong);
        if !wrong.is_empty() {
            return Err(wrong.iter().map(|one| format!("{}: {}", one.field, one.body())).collect());
        }
        Ok(Self { defaults: Modes { enforce, audit, warn }, exemptions })
    }

    /// Why a request is not looked at, if it is not: `namespace` or `user`.
    pub(super) fn exempts(&self, namespace: &str, user: &str) -> Option<&'static str> {
        if self.exempts_namespace(namespace) {
            return Some("namespace");
        }
        self.exemptions.usernames.iter().any(|name| name == user).then_some("user")
    }

    pub(super) fn exempts_namespace(&self, namespace: &str) -> bool {
        self.exemptions.namespaces.iter().any(|name| name == namespace)
    }

    pub(super) fn exempts_class(&self, pod: &Value) -> bool {
        let class = path::text(pod, "spec.runtimeClassName");
        self.exemptions.runtime_classes.iter().any(|name| name == class)
    }

    /// What whoever labels a namespace that is exempt should know. `has` says which labels it has.
    pub(super) fn exempt_warning(
        &self,
        namespace: &str,
        asked: &Modes,
        has: impl Fn(&str) -> bool,
    ) -> Option<String> {
        let Modes { enforce, audit, warn } = *asked;
        let modes = [
            ("enforce", enforce, self.defaults.enforce),
            ("audit", audit, self.defaults.audit),
            ("warn", warn, self.defaults.warn),
        ];
        let is_privileged = modes.iter().all(|(_, asked, _)| asked.level == Level::Privileged);
        if is_privileged || modes.iter().all(|(_, asked, default)| asked.is_as(*default)) {
            return None;
        }
        let is_told =
            |name: &str| has(&format!("{PREFIX}/{name}")) || has(&format!("{PREFIX}/{name}-version"));
        let told: Vec<String> = modes
            .iter()
            .filter(|(name, asked, _)| asked.level != Level::Privileged && is_told(name))
            .map(|(name, asked, _)| format!("{name}={asked}"))
            .collect();
        Some(format!(
            "namespace {namespace:?} is exempt from Pod Security, and the policy ({}) will be ignored",
            told.join(", ")
        ))
    }
}

impl Exemptions {
    fn check(&self, wrong: &mut Vec<Violation>) {
        let username = |name: &str| match name {
            "" => vec!["username must not be empty".to_owned()],
            _ => Vec::new(),
        };
        type Rule<'a> = &'a dyn Fn(&str) -> Vec<String>;
        let lists: [(&str, &[String], Rule); 3] = [
            ("namespaces", &self.namespaces, &names::dns_label),
            ("runtimeClasses", &self.runtime_classes, &names::dns_subdomain),
            ("usernames", &self.usernames, &username),
        ];
        let root = At::root("exemptions");
        for (field, list, rule) in lists {
            let mut seen = BTreeSet::new();
            let list_at = root.field(field);
            for (index, name) in list.iter().enumerate() {
                let at = list_at.index(index);
                let why = rule(name);
                if !why.is_empty() {
                    wrong.push(Violation::invalid(at, name, why.join(", ")));
                } else if !seen.insert(name) {
                    wrong.push(Violation::duplicate(at, name));
                }
            }
        }
    }
}
