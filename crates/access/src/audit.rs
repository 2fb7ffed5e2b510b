//! The audit policy: which requests are written down, at which stages, and how much of each.
//!
//! <https://kubernetes.io/docs/reference/config-api/apiserver-audit.v1/#audit-k8s-io-v1-Policy>

use plan::{Attributes, User};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// How much of a request is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

impl Level {
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Stage {
    RequestReceived,
    /// Of requests that stay: the head of the answer is out.
    ResponseStarted,
    ResponseComplete,
    Panic,
}

impl Stage {
    pub fn word(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }
}

/// What is to be written down of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    pub level: Level,
    pub omit_stages: Vec<Stage>,
    pub omit_managed_fields: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    #[serde(rename = "apiVersion")]
    version: String,
    kind: String,
    #[serde(default, rename = "metadata")]
    _metadata: Value,
    #[serde(default, deserialize_with = "or_empty")]
    rules: Vec<Rule>,
    #[serde(default, deserialize_with = "or_empty")]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default, deserialize_with = "or_empty")]
    users: Vec<String>,
    #[serde(default, deserialize_with = "or_empty")]
    user_groups: Vec<String>,
    #[serde(default, deserialize_with = "or_empty")]
    verbs: Vec<String>,
    #[serde(default, deserialize_with = "or_empty")]
    resources: Vec<GroupResources>,
    #[serde(default, deserialize_with = "or_empty")]
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs", default, deserialize_with = "or_empty")]
    urls: Vec<String>,
    #[serde(default, deserialize_with = "or_empty")]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct GroupResources {
    #[serde(default)]
    group: String,
    #[serde(default, deserialize_with = "or_empty")]
    resources: Vec<String>,
    #[serde(default, deserialize_with = "or_empty")]
    resource_names: Vec<String>,
}

fn or_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

fn has(list: &[String], word: &str) -> bool {
    list.iter().any(|held| held == word)
}

impl Policy {
    /// Reads a `Policy` of `audit.k8s.io/v1`.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(text: Value) -> Result<Self, String> {
        let policy: Self = serde_json::from_value(text).map_err(|error| error.to_string())?;
        if (&*policy.version, &*policy.kind) != ("audit.k8s.io/v1", "Policy") {
            return Err(format!("it is a {} {}, not an audit.k8s.io/v1 Policy", policy.version, policy.kind));
        }
        if policy.rules.is_empty() {
            return Err("rules: at least one is required, or nothing is ever written down".to_owned());
        }
        for (index, rule) in policy.rules.iter().enumerate() {
            rule.check().map_err(|why| format!("rules[{index}]{why}"))?;
        }
        Ok(policy)
    }

    /// What the first rule that matches says; None: nothing. `user`: who was authenticated, not who is impersonated.
    pub fn scope(&self, user: Option<&User>, attributes: &Attributes<'_>) -> Option<Scope> {
        let rule = self.rules.iter().find(|rule| rule.matches(user, attributes))?;
        if rule.level == Level::None {
            return None;
        }
        Some(Scope {
            level: rule.level,
            omit_stages: self.omit_stages.iter().chain(&rule.omit_stages).copied().collect(),
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        })
    }
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        let is_of_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        if !self.urls.is_empty() && is_of_resources {
            return Err(
                ".nonResourceURLs: rules cannot apply to both regular resources and non-resource URLs".into(),
            );
        }
        for (index, url) in self.urls.iter().enumerate() {
            if url != "*" && !url.starts_with('/') {
                return Err(format!(
                    ".nonResourceURLs[{index}]: {url:?}: non-resource URL rules must begin with a '/' character"
                ));
            }
            if url.strip_suffix('*').unwrap_or(url).contains('*') {
                return Err(format!(
                    ".nonResourceURLs[{index}]: {url:?}: non-resource URL wildcards '*' must be the final character of the rule"
                ));
            }
        }
        for (index, group) in self.resources.iter().enumerate() {
            if group.group.contains('/') {
                return Err(format!(".resources[{index}].group: {:?}: a group has no version", group.group));
            }
            if !group.resource_names.is_empty() && group.resources.is_empty() {
                return Err(format!(
                    ".resources[{index}].resourceNames: using resourceNames requires at least one resource"
                ));
            }
        }
        Ok(())
    }

    fn matches(&self, user: Option<&User>, asked: &Attributes<'_>) -> bool {
        if !self.users.is_empty() && !user.is_some_and(|user| has(&self.users, &user.name)) {
            return false;
        }
        let in_group = |user: &User| user.groups.iter().any(|group| has(&self.user_groups, group));
        if !self.user_groups.is_empty() && !user.is_some_and(in_group) {
            return false;
        }
        if !self.verbs.is_empty() && !has(&self.verbs, asked.verb) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return asked.path.is_empty()
                && (self.namespaces.is_empty() || has(&self.namespaces, asked.namespace))
                && (self.resources.is_empty() || self.resources.iter().any(|group| group.matches(asked)));
        }
        self.urls.is_empty()
            || (!asked.path.is_empty() && self.urls.iter().any(|url| is_path(url, asked.path)))
    }
}

fn is_path(url: &str, path: &str) -> bool {
    match url.strip_suffix('*') {
        Some(start) => path.starts_with(start),
        None => url == path,
    }
}

impl GroupResources {
    fn matches(&self, asked: &Attributes<'_>) -> bool {
        if self.group != asked.group {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !self.resource_names.is_empty() && !has(&self.resource_names, asked.name) {
            return false;
        }
        self.resources.iter().any(|wanted| match wanted.split_once('/') {
            None => wanted == "*" || (wanted == asked.resource && asked.subresource.is_empty()),
            Some(("*", part)) => part == asked.subresource,
            Some((resource, "*")) => resource == asked.resource,
            Some((resource, part)) => resource == asked.resource && part == asked.subresource,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn policy(rules: Value) -> Result<Policy, String> {
        Policy::parse(
            json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": rules}),
        )
    }

    #[test]
    fn the_first_rule_that_matches_says_how_much() {
        let policy = policy(json!([
            {"level": "None", "users": ["system:kube-proxy"], "verbs": ["watch"], "resources": [{"group": "", "resources": ["endpoints", "services"]}]},
            {"level": "None", "userGroups": ["system:authenticated"], "nonResourceURLs": ["/healthz*", "/version"]},
            {"level": "Metadata", "resources": [{"group": "", "resources": ["pods/log", "*/status"]}]},
            {"level": "Request", "resources": [{"group": "", "resources": ["configmaps"], "resourceNames": ["one"]}], "namespaces": ["kube-system"]},
            {"level": "Metadata", "resources": [{"group": "", "resources": ["secrets/*"]}], "omitManagedFields": true},
            {"level": "RequestResponse", "resources": [{"group": "apps"}], "omitStages": ["ResponseStarted"]},
            {"level": "Request", "verbs": ["create"]},
        ]))
        .expect("a policy");
        let jane = User::new("jane", &["system:authenticated"]);
        let proxy = User::new("system:kube-proxy", &["system:authenticated"]);
        let core =
            |verb, resource, subresource| Attributes { verb, resource, subresource, ..Attributes::default() };
        let path = |path| Attributes { verb: "get", path, ..Attributes::default() };
        for (user, asked, expected) in [
            (&proxy, core("watch", "services", ""), None),
            (&jane, core("watch", "services", ""), None),
            (&jane, path("/healthz/ping"), None),
            (&jane, path("/metrics"), None),
            (&jane, core("get", "pods", "log"), Some(Level::Metadata)),
            (&jane, core("get", "pods", ""), None),
            (&jane, core("patch", "nodes", "status"), Some(Level::Metadata)),
            (
                &jane,
                Attributes { name: "one", namespace: "kube-system", ..core("get", "configmaps", "") },
                Some(Level::Request),
            ),
            (&jane, Attributes { name: "one", namespace: "default", ..core("get", "configmaps", "") }, None),
            (&jane, core("get", "secrets", ""), Some(Level::Metadata)),
            (
                &jane,
                Attributes { group: "apps", ..core("get", "deployments", "scale") },
                Some(Level::RequestResponse),
            ),
            (&jane, core("create", "pods", ""), Some(Level::Request)),
        ] {
            let found = policy.scope(Some(user), &asked);
            assert_eq!(found.map(|scope| scope.level), expected, "{} {asked:?}", user.name);
        }
        let scope = policy
            .scope(None, &Attributes { group: "apps", ..core("get", "deployments", "") })
            .expect("a scope");
        assert_eq!(scope.omit_stages, [Stage::RequestReceived, Stage::ResponseStarted]);
        assert!(policy.scope(Some(&jane), &core("get", "secrets", "")).expect("a scope").omit_managed_fields);
    }

    #[test]
    fn a_policy_says_what_can_be() {
        for (rules, words) in [
            (json!([]), "at least one is required"),
            (json!([{"level": "Everything"}]), "unknown variant `Everything`"),
            (json!([{"level": "Metadata", "user": ["a"]}]), "unknown field `user`"),
            (json!([{"level": "Metadata", "nonResourceURLs": ["healthz"]}]), "must begin with a '/'"),
            (json!([{"level": "Metadata", "nonResourceURLs": ["/a*b"]}]), "must be the final character"),
            (
                json!([{"level": "Metadata", "nonResourceURLs": ["/a"], "namespaces": ["b"]}]),
                "cannot apply to both",
            ),
            (json!([{"level": "Metadata", "resources": [{"group": "apps/v1"}]}]), "a group has no version"),
            (
                json!([{"level": "Metadata", "resources": [{"resourceNames": ["a"]}]}]),
                "requires at least one resource",
            ),
        ] {
            let why = policy(rules.clone()).map(drop).expect_err("refused");
            assert!(why.contains(words), "{why} for {rules}");
        }
    }
}
