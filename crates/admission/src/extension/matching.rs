//! Which requests an extension is about.

use std::collections::BTreeMap;

use object::{LabelSelector, Snapshot};
use serde::Deserialize;
use serde_json::Value;

use super::{Asked, Served};

/// `MatchResources` of policies, and the same members of webhooks.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Matcher {
    #[serde(alias = "rules")]
    resource_rules: Vec<Rule>,
    exclude_resource_rules: Vec<Rule>,
    namespace_selector: LabelSelector,
    object_selector: LabelSelector,
    match_policy: Option<Box<str>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Rule {
    operations: Vec<Box<str>>,
    api_groups: Vec<Box<str>>,
    api_versions: Vec<Box<str>>,
    resources: Vec<Box<str>>,
    resource_names: Vec<Box<str>>,
    scope: Option<Box<str>>,
}

type Labels = BTreeMap<Box<str>, Box<str>>;

impl Matcher {
    /// The version in which the extension wants to see the request's objects; none if it is not about the request.
    pub fn version<'a>(
        &self,
        snapshot: &Snapshot,
        asked: &Asked<'a>,
        object: Option<&Value>,
    ) -> Option<Served<'a>> {
        let served = self.rules_match(asked, object)?;
        let fits = self.fits_namespace(snapshot, asked, object) && self.fits_object(asked, object);
        fits.then_some(served)
    }

    /// As [`Matcher::version`], for a binding: without rules of its own it is about all that its policy is about.
    pub fn allows(&self, snapshot: &Snapshot, asked: &Asked, object: Option<&Value>) -> bool {
        let excluded = self.any(&self.exclude_resource_rules, asked, asked.served, object);
        let ruled = self.resource_rules.is_empty() || self.rules_match(asked, object).is_some();
        ruled && !excluded && self.fits_namespace(snapshot, asked, object) && self.fits_object(asked, object)
    }

    fn rules_match<'a>(&self, asked: &Asked<'a>, object: Option<&Value>) -> Option<Served<'a>> {
        if self.any(&self.exclude_resource_rules, asked, asked.served, object) {
            return None;
        }
        if self.any(&self.resource_rules, asked, asked.served, object) {
            return Some(asked.served);
        }
        if self.match_policy.as_deref() == Some("Exact") {
            return None;
        }
        let mut others = asked.all.iter().copied().filter(|other| *other != asked.served);
        others.find(|other| self.any(&self.resource_rules, asked, *other, object))
    }

    fn any(&self, rules: &[Rule], asked: &Asked, served: Served<'_>, object: Option<&Value>) -> bool {
        rules.iter().any(|rule| rule.fits(asked, served, object))
    }

    /// Objects outside of namespaces are not held to the selector; a namespace is by its own labels.
    fn fits_namespace(&self, snapshot: &Snapshot, asked: &Asked, object: Option<&Value>) -> bool {
        if self.namespace_selector.is_everything() {
            return true;
        }
        let key = asked.request.key;
        if key.resource == kinds::NAMESPACES {
            let own = object.or(asked.request.old).map(labels).unwrap_or_default();
            return self.namespace_selector.matches(&own);
        }
        if !asked.request.namespaced {
            return true;
        }
        let namespace = snapshot.find(kinds::NAMESPACES, "", &key.namespace);
        namespace.is_some_and(|namespace| self.namespace_selector.matches(&namespace.meta.labels))
    }

    /// The object as it would be or as it was: either is enough.
    fn fits_object(&self, asked: &Asked, object: Option<&Value>) -> bool {
        if self.object_selector.is_everything() {
            return true;
        }
        let candidates = object.into_iter().chain(asked.request.old);
        candidates
            .filter(|one| one.get("metadata").is_some())
            .any(|one| self.object_selector.matches(&labels(one)))
    }
}

impl Rule {
    fn fits(&self, asked: &Asked, served: Served<'_>, object: Option<&Value>) -> bool {
        let request = asked.request;
        let resource = request.key.resource;
        let names = || super::name_of(request, object);
        holds(&self.operations, request.operation.word())
            && holds(&self.api_groups, served.group)
            && holds(&self.api_versions, served.version)
            && self.resources.iter().any(|wanted| is_resource(wanted, resource.plural(), request.subresource))
            && self.fits_scope(request.namespaced)
            && (self.resource_names.is_empty() || self.resource_names.iter().any(|name| **name == *names()))
    }

    fn fits_scope(&self, namespaced: bool) -> bool {
        match self.scope.as_deref() {
            Some("Namespaced") => namespaced,
            Some("Cluster") => !namespaced,
            _ => true,
        }
    }
}

fn holds(list: &[Box<str>], what: &str) -> bool {
    list.iter().any(|one| **one == *"*" || **one == *what)
}

/// `pods`, `pods/log`, `*`, `pods/*`, `*/scale`, `*/*`
fn is_resource(wanted: &str, plural: &str, subresource: &str) -> bool {
    let (resource, wanted_sub) = wanted.split_once('/').unwrap_or((wanted, ""));
    let sub_fits = wanted_sub == subresource || wanted_sub == "*";
    (resource == "*" || resource == plural) && sub_fits
}

fn labels(object: &Value) -> Labels {
    let members = schema::path::members(object, "metadata.labels");
    members.filter_map(|(key, value)| Some((key.as_str().into(), value.as_str()?.into()))).collect()
}
