use plan::Attributes;
use serde::{Deserialize, Deserializer, Serialize};

/// `rbac.authorization.k8s.io/v1` `PolicyRule`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub api_groups: Vec<Box<str>>,
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<Box<str>>,
    #[serde(deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub resource_names: Vec<Box<str>>,
    #[serde(rename = "nonResourceURLs", deserialize_with = "list", skip_serializing_if = "Vec::is_empty")]
    pub non_resource_urls: Vec<Box<str>>,
    #[serde(deserialize_with = "list")]
    pub verbs: Vec<Box<str>>,
}

/// JSON writes an empty list as `null` at times.
pub(super) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn has(list: &[Box<str>], wanted: &str) -> bool {
    list.iter().any(|held| **held == *wanted)
}

fn has_or_star(list: &[Box<str>], wanted: &str) -> bool {
    list.iter().any(|held| **held == *wanted || &**held == "*")
}

impl Rule {
    /// Does the rule allow this request?
    pub fn allows(&self, request: &Attributes) -> bool {
        if !has_or_star(&self.verbs, request.verb) {
            return false;
        }
        if request.resource.is_empty() {
            return self.non_resource_urls.iter().any(|held| path_matches(held, request.path));
        }
        has_or_star(&self.api_groups, request.group)
            && self.names_resource(request.resource, request.subresource)
            && (self.resource_names.is_empty()
                || (!request.name.is_empty() && has(&self.resource_names, request.name)))
    }

    /// `pods`, `pods/log`, `*`, and `*/scale` (that subresource of everything).
    /// What is asked for is compared as `resource/subresource`, as upstream does: some ask in a review for a resource
    /// that is called `prometheuses/status`.
    fn names_resource(&self, resource: &str, subresource: &str) -> bool {
        let below = |held: &str, parent: &str| {
            held.strip_prefix(parent).and_then(|rest| rest.strip_prefix('/')) == Some(subresource)
        };
        self.resources.iter().any(|held| match subresource {
            "" => &**held == "*" || **held == *resource,
            _ => &**held == "*" || below(held, resource) || below(held, "*"),
        })
    }

    /// Does this rule alone allow all that a rule of single elements (see [`Rule::atoms`]) allows?
    pub(crate) fn covers(&self, atom: &Rule) -> bool {
        let verbs = has(&self.verbs, "*") || atom.verbs.iter().all(|verb| has(&self.verbs, verb));
        let groups =
            has(&self.api_groups, "*") || atom.api_groups.iter().all(|group| has(&self.api_groups, group));
        let resources = atom.resources.iter().all(|wanted| self.covers_resource(wanted));
        let paths = atom.non_resource_urls.iter().all(|wanted| {
            self.non_resource_urls
                .iter()
                .any(|held| **held == **wanted || (held.ends_with('*') && path_matches(held, wanted)))
        });
        let names = self.resource_names.is_empty()
            || (!atom.resource_names.is_empty()
                && atom.resource_names.iter().all(|name| has(&self.resource_names, name)));
        verbs && groups && resources && paths && names
    }

    fn covers_resource(&self, wanted: &str) -> bool {
        if has_or_star(&self.resources, wanted) {
            return true;
        }
        wanted.split_once('/').is_some_and(|(_, child)| {
            self.resources.iter().any(|held| held.strip_prefix("*/").is_some_and(|held| held == child))
        })
    }

    /// The rule as rules of one group, resource, verb and name (or one path and verb) each.
    pub(crate) fn atoms(&self) -> Vec<Rule> {
        let mut atoms = Vec::new();
        let one = |text: &str| vec![text.into()];
        for verb in &self.verbs {
            for group in &self.api_groups {
                for resource in &self.resources {
                    let atom = Rule {
                        api_groups: one(group),
                        resources: one(resource),
                        verbs: one(verb),
                        ..Rule::default()
                    };
                    if self.resource_names.is_empty() {
                        atoms.push(atom);
                        continue;
                    }
                    for name in &self.resource_names {
                        atoms.push(Rule { resource_names: one(name), ..atom.clone() });
                    }
                }
            }
            for path in &self.non_resource_urls {
                atoms.push(Rule { non_resource_urls: one(path), verbs: one(verb), ..Rule::default() });
            }
        }
        atoms
    }

    /// As upstream's messages print a rule: `{APIGroups:[""], Resources:["pods"], Verbs:["get"]}`.
    pub(super) fn compact(&self) -> String {
        let parts = [
            ("APIGroups", &self.api_groups),
            ("Resources", &self.resources),
            ("NonResourceURLs", &self.non_resource_urls),
            ("ResourceNames", &self.resource_names),
            ("Verbs", &self.verbs),
        ];
        let parts: Vec<String> = parts
            .into_iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(name, list)| format!("{name}:{}", quoted(list)))
            .collect();
        format!("{{{}}}", parts.join(", "))
    }
}

/// `["a" "b"]`, as Go prints a list of strings with %q.
pub(super) fn quoted<T: AsRef<str>>(list: &[T]) -> String {
    let items: Vec<String> = list.iter().map(|item| format!("{:?}", item.as_ref())).collect();
    format!("[{}]", items.join(" "))
}

/// `/healthz` itself, `/healthz/*` everything below it, `*` everything.
fn path_matches(held: &str, path: &str) -> bool {
    held == "*" || held == path || held.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}
