//! Nobody grants what they do not hold: writes of roles and bindings.
//! <https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping>

use std::collections::BTreeSet;

use object::{Key, Resource, Status};
use plan::{Attributes, User};
use serde_json::Value;

use super::index::RoleRef;
use super::rule::{Rule, quoted};
use crate::{View, authorize, groups};
use kinds::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES};

/// May this user write this role or binding? Other resources are always fine. `old` is absent on create. To be asked
/// after admission has mutated the object and before it is stored.
pub fn check_write(
    view: &View,
    user: &User,
    key: &Key,
    new: &Value,
    old: Option<&Value>,
) -> Result<(), Status> {
    let resource = key.resource;
    let role = resource == ROLES || resource == CLUSTER_ROLES;
    let binding = resource == ROLE_BINDINGS || resource == CLUSTER_ROLE_BINDINGS;
    if !(role || binding)
        || user.is_in(groups::MASTERS)
        || old.is_some_and(|old| same_but_for_owners(new, old))
    {
        return Ok(());
    }
    // Of a binding every change is a grant: upstream does not look at what changed.
    if role { check_role(view, user, key, new, old) } else { check_binding(view, user, key, new) }
}

/// Whatever is changed of a role, its rules must be held: a label alone can make them part of another role.
fn check_role(view: &View, user: &User, key: &Key, new: &Value, old: Option<&Value>) -> Result<(), Status> {
    if may(view, user, "escalate", key.resource, &key.namespace, &key.name) {
        return Ok(());
    }
    confirm(view, user, key, &rules_of(new)?)?;
    // It gathers anything, and keeps from being made less what it has gathered.
    let aggregates = [Some(new), old].into_iter().flatten().any(is_aggregated);
    if aggregates && confirm(view, user, key, &everything()).is_err() {
        return Err(Status::forbidden(key, "must have cluster-admin privileges to use the aggregationRule"));
    }
    Ok(())
}

fn is_aggregated(role: &Value) -> bool {
    role["aggregationRule"]["clusterRoleSelectors"].as_array().is_some_and(|selectors| !selectors.is_empty())
}

fn check_binding(view: &View, user: &User, key: &Key, new: &Value) -> Result<(), Status> {
    let role: RoleRef = new
        .get("roleRef")
        .and_then(|role| serde_json::from_value(role.clone()).ok())
        .ok_or_else(|| Status::bad_request("roleRef must be an object"))?;
    let (resource, namespace) =
        if &*role.kind == "Role" { (ROLES, &*key.namespace) } else { (CLUSTER_ROLES, "") };
    let asked_in = if resource == ROLES { namespace } else { &*key.namespace };
    if may(view, user, "bind", resource, asked_in, &role.name) {
        return Ok(());
    }
    // Upstream says it of the resource that is asked for.
    let missing = |_| Status::not_found(&Key::new(key.resource, "", &*role.name));
    let rules = view.rbac.role(&role, namespace).map_err(missing)?;
    confirm(view, user, key, rules)
}

fn may(view: &View, user: &User, verb: &str, resource: Resource, namespace: &str, name: &str) -> bool {
    let group = resource.group();
    let resource = resource.plural();
    let attributes =
        Attributes { verb, group, version: "v1", resource, namespace, name, ..Attributes::default() };
    authorize(view, user, &attributes).allowed
}

fn confirm(view: &View, user: &User, key: &Key, wanted: &[Rule]) -> Result<(), Status> {
    let held = view.rbac.rules_for(user, &key.namespace);
    let missing: Vec<Rule> = wanted
        .iter()
        .flat_map(Rule::atoms)
        .filter(|atom| !held.rules.iter().any(|rule| rule.covers(atom)))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let lines: BTreeSet<String> = compact(missing).iter().map(Rule::compact).collect();
    let lines: Vec<String> = lines.into_iter().collect();
    let mut why = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        &*user.name,
        quoted(&user.groups),
        lines.join("\n")
    );
    if !held.errors.is_empty() {
        why.push_str(&format!("; resolution errors: [{}]", held.errors.join(" ")));
    }
    Err(Status::forbidden(key, &why))
}

/// Joins the verbs of atoms that are the same otherwise.
fn compact(atoms: Vec<Rule>) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for atom in atoms {
        let same = |rule: &&mut Rule| {
            !atom.resources.is_empty()
                && rule.api_groups == atom.api_groups
                && rule.resources == atom.resources
                && rule.resource_names == atom.resource_names
        };
        match rules.iter_mut().find(same) {
            Some(rule) => rule
                .verbs
                .extend(atom.verbs.into_iter().filter(|verb| !rule.verbs.contains(verb)).collect::<Vec<_>>()),
            None => rules.push(atom),
        }
    }
    rules
}

/// Rules that cannot be read are none that could be held.
fn rules_of(role: &Value) -> Result<Vec<Rule>, Status> {
    let rules = role.get("rules").filter(|rules| !rules.is_null());
    let rules = rules.map(|rules| serde_json::from_value(rules.clone())).transpose();
    Ok(rules.map_err(|error| Status::bad_request(format!("rules: {error}")))?.unwrap_or_default())
}

fn everything() -> [Rule; 2] {
    let star = || vec!["*".into()];
    [
        Rule { api_groups: star(), resources: star(), verbs: star(), ..Rule::default() },
        Rule { non_resource_urls: star(), verbs: star(), ..Rule::default() },
    ]
}

/// The garbage collector takes owners and finalizers off objects that it could not have written.
fn same_but_for_owners(new: &Value, old: &Value) -> bool {
    let bare = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion"] {
                metadata.remove(field);
            }
        }
        object
    };
    bare(new) == bare(old)
}
