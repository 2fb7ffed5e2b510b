//! Roles, what they allow, and who is bound to them.

use schema::{At, Violation, names, path};
use serde_json::{Value, json};

use super::check::{self, Found};

const RBAC: &str = "rbac.authorization.k8s.io";

/// A Role, or a ClusterRole, which may also speak of paths that are no resources.
pub fn validate_role(role: &Value, is_cluster: bool) -> Vec<Violation> {
    let mut found = Vec::new();
    for (index, rule) in path::list(role, "rules").iter().enumerate() {
        let at = At::root("rules");
        one_rule(rule, is_cluster, at.index(index), &mut found);
    }
    if let Some(rule) = role.get("aggregationRule") {
        let at = At::root("aggregationRule.clusterRoleSelectors");
        let selectors = path::list(rule, "clusterRoleSelectors");
        if selectors.is_empty() {
            let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
            found.push(Violation::required(at, detail));
        }
        for (index, selector) in selectors.iter().enumerate() {
            let before = found.len();
            super::label_selector::validate(selector, at.index(index), &mut found);
            if found.len() > before {
                found.push(Violation::invalid(at.index(index), Value::Null, "invalid label selector."));
            }
        }
    }
    found
}

fn one_rule(rule: &Value, is_cluster: bool, at: At<'_>, found: &mut Found) {
    if path::list(rule, "verbs").is_empty() {
        found.push(Violation::required(at.field("verbs"), "verbs must contain at least one value"));
    }
    let urls = path::list(rule, "nonResourceURLs");
    if !urls.is_empty() {
        let at = at.field("nonResourceURLs");
        if !is_cluster {
            found.push(Violation::invalid(at, urls, "namespaced rules cannot apply to non-resource URLs"));
        }
        if ["apiGroups", "resources", "resourceNames"].iter().any(|list| !path::list(rule, list).is_empty()) {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            found.push(Violation::invalid(at, urls, detail));
        }
        return;
    }
    if path::list(rule, "apiGroups").is_empty() {
        let detail = "resource rules must supply at least one api group";
        found.push(Violation::required(at.field("apiGroups"), detail));
    }
    if path::list(rule, "resources").is_empty() {
        let detail = "resource rules must supply at least one resource";
        found.push(Violation::required(at.field("resources"), detail));
    }
}

/// Users and groups are of RBAC's group unless the binding says otherwise.
pub fn default_binding(binding: &mut Value) {
    if let Some(Value::Array(subjects)) = binding.get_mut("subjects") {
        for subject in subjects {
            if matches!(path::text(subject, "kind"), "Group" | "User")
                && path::text(subject, "apiGroup").is_empty()
            {
                subject["apiGroup"] = RBAC.into();
            }
        }
    }
}

/// A RoleBinding or a ClusterRoleBinding.
pub fn validate_binding(binding: &Value, old: Option<&Value>, is_cluster: bool) -> Vec<Violation> {
    let mut found = Vec::new();
    let (role, at) = (&binding["roleRef"], At::root("roleRef"));
    check::one_of(role, "apiGroup", &[RBAC], at, &mut found);
    let kinds: &[&str] = if is_cluster { &["ClusterRole"] } else { &["Role", "ClusterRole"] };
    if !kinds.contains(&path::text(role, "kind")) {
        found.push(Violation::not_supported(at.field("kind"), path::text(role, "kind"), kinds));
    }
    check::required_name(role, "name", names::path_segment, at, &mut found);
    for (index, subject) in path::list(binding, "subjects").iter().enumerate() {
        let at = At::root("subjects");
        one_subject(subject, is_cluster, at.index(index), &mut found);
    }
    if let Some(old) = old
        && *role != old["roleRef"]
    {
        // Upstream prints what it works with, whose members have the names of Go.
        let text = |field: &str| path::text(role, field);
        let told = json!({"APIGroup": text("apiGroup"), "Kind": text("kind"), "Name": text("name")});
        found.push(Violation::invalid(at, told, "cannot change roleRef"));
    }
    found
}

fn one_subject(subject: &Value, is_cluster: bool, at: At<'_>, found: &mut Found) {
    let name = path::text(subject, "name");
    if name.is_empty() {
        found.push(Violation::required(at.field("name"), ""));
    }
    match path::text(subject, "kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                found.extend(Violation::all_invalid(at.field("name"), name, names::dns_subdomain(name)));
            }
            if !path::text(subject, "apiGroup").is_empty() {
                found.push(Violation::not_supported(at.field("apiGroup"), &subject["apiGroup"], &[""]));
            }
            if is_cluster && path::text(subject, "namespace").is_empty() {
                found.push(Violation::required(at.field("namespace"), ""));
            }
        }
        "User" | "Group" => check::one_of(subject, "apiGroup", &[RBAC], at, found),
        other => {
            found.push(Violation::not_supported(
                at.field("kind"),
                other,
                &["ServiceAccount", "User", "Group"],
            ));
        }
    }
}

/// `ClusterRole/view`
pub fn role_text(binding: &Value) -> Value {
    format!("{}/{}", path::text(binding, "roleRef.kind"), path::text(binding, "roleRef.name")).into()
}

/// The subjects of one kind: `alice, bob`, `default/builder`.
pub fn subjects_text(binding: &Value, kind: &str) -> Value {
    let of_kind = path::list(binding, "subjects").iter().filter(|one| path::text(one, "kind") == kind);
    let names: Vec<String> = of_kind
        .map(|one| match kind {
            "ServiceAccount" => format!("{}/{}", path::text(one, "namespace"), path::text(one, "name")),
            _ => path::text(one, "name").to_owned(),
        })
        .collect();
    names.join(", ").into()
}
