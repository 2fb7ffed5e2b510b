//! What policies that validate and policies that mutate have in common: bindings and parameters.

use std::collections::BTreeMap;

use object::{LabelSelector, Resource, Snapshot};
use schema::path;
use serde::Deserialize;
use serde_json::Value;

use super::matching::Matcher;
use super::{Asked, Kept, Served};

/// A policy with one of its bindings: a policy without any does nothing.
#[derive(Debug)]
pub struct Bound<P> {
    pub policy: std::sync::Arc<P>,
    pub binding: String,
    pub matcher: Option<Matcher>,
    params: Option<ParamRef>,
    /// `Deny`, `Warn`, `Audit`
    pub actions: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ParamRef {
    name: String,
    namespace: String,
    selector: Option<LabelSelector>,
    parameter_not_found_action: String,
}

/// What a policy of either sort says of itself.
#[derive(Debug)]
pub struct Head {
    pub name: String,
    pub matcher: Matcher,
    /// A failure to evaluate refuses the request.
    pub fails: bool,
    /// apiVersion and kind.
    pub param_kind: Option<(String, String)>,
}

impl Head {
    pub fn read(policy: &Value) -> Self {
        let spec = &policy["spec"];
        let kind = path::get(spec, "paramKind").filter(|kind| !kind.is_null());
        Self {
            name: path::text(policy, "metadata.name").to_owned(),
            matcher: Matcher::deserialize(&spec["matchConstraints"]).unwrap_or_default(),
            fails: path::text(spec, "failurePolicy") != "Ignore",
            param_kind: kind
                .map(|kind| (path::text(kind, "apiVersion").to_owned(), path::text(kind, "kind").to_owned())),
        }
    }
}

/// Every binding of every policy.
pub fn bound<P>(snapshot: &Snapshot, policies: &Kept<P>, bindings: Resource) -> Vec<Bound<P>> {
    let mut of_policy: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for binding in super::objects(snapshot, bindings) {
        let policy = path::text(&binding, "spec.policyName").to_owned();
        of_policy.entry(policy).or_default().push(binding);
    }
    let mut all = Vec::new();
    for (name, (_, policy)) in policies {
        let own = of_policy.remove(&**name).unwrap_or_default();
        all.extend(own.into_iter().map(|binding| {
            let spec = &binding["spec"];
            let actions = path::list(spec, "validationActions").iter();
            Bound {
                policy: policy.clone(),
                binding: path::text(&binding, "metadata.name").to_owned(),
                matcher: spec.get("matchResources").and_then(|one| Matcher::deserialize(one).ok()),
                params: spec.get("paramRef").and_then(|one| ParamRef::deserialize(one).ok()),
                actions: actions.filter_map(|action| action.as_str().map(str::to_owned)).collect(),
            }
        }));
    }
    all
}

impl<P> Bound<P> {
    /// In which version the policy sees the request; none if policy or binding are not about it.
    pub fn version<'a>(
        &self,
        head: &Head,
        snapshot: &Snapshot,
        asked: &Asked<'a>,
        object: Option<&Value>,
    ) -> Option<Served<'a>> {
        let served = head.matcher.version(snapshot, asked, object)?;
        let allowed = self.matcher.as_ref().is_none_or(|matcher| matcher.allows(snapshot, asked, object));
        allowed.then_some(served)
    }

    /// The parameters to evaluate with, each in turn; one `None` if the policy takes none.
    ///
    /// # Errors
    /// Why there are none, in upstream's words.
    pub fn params(
        &self,
        head: &Head,
        snapshot: &Snapshot,
        asked: &Asked,
    ) -> Result<Vec<Option<Value>>, Wrong> {
        let (Some((api_version, kind)), Some(wanted)) = (&head.param_kind, &self.params) else {
            return Ok(vec![None]);
        };
        let Some((resource, namespaced)) = (asked.resource_of)(api_version, kind) else {
            return Err(Wrong::Policy(format!(
                "failed to find resource referenced by paramKind: '{}'",
                gvk(api_version, kind)
            )));
        };
        let wrong = |why: &str| Err(Wrong::Binding(why.to_owned()));
        let namespace = match (namespaced, wanted.namespace.as_str()) {
            (false, "") => "",
            (false, _) => {
                return wrong("paramRef.namespace must not be provided for a cluster-scoped `paramKind`");
            }
            (true, "") if asked.request.key.namespace.is_empty() => {
                return wrong(
                    "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources",
                );
            }
            (true, "") => &asked.request.key.namespace,
            (true, namespace) => namespace,
        };
        let found: Vec<_> = match &wanted.selector {
            None => snapshot.find(resource, namespace, &wanted.name).cloned().into_iter().collect(),
            Some(selector) => {
                let table = snapshot.table(resource).into_iter();
                let all = table.flat_map(|table| table.range(namespace, None));
                all.filter(|object| selector.matches(&object.meta.labels)).cloned().collect()
            }
        };
        if found.is_empty() && wanted.parameter_not_found_action == "Deny" {
            return wrong("no params found for policy binding with `Deny` parameterNotFoundAction");
        }
        Ok(found.iter().map(|object| object.to_value().ok()).collect())
    }
}

/// What keeps a policy from being applied, and whose fault it is.
#[derive(Debug)]
pub enum Wrong {
    Policy(String),
    Binding(String),
}

impl Wrong {
    /// The name of the binding, if it is the one that is wrong, and what to say.
    pub fn told(self, binding: &str) -> (Option<String>, String) {
        match self {
            Self::Policy(why) => (None, format!("failed to configure policy: {why}")),
            Self::Binding(why) => (Some(binding.to_owned()), format!("failed to configure binding: {why}")),
        }
    }
}

/// `apps/v1, Kind=Deployment`, as Go prints it.
fn gvk(api_version: &str, kind: &str) -> String {
    let slash = if api_version.contains('/') { "" } else { "/" };
    format!("{slash}{api_version}, Kind={kind}")
}
