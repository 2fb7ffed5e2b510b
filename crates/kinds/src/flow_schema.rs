use object::Resource;
use schema::{At, Kind, Strategy, Violation, names, path};
use serde_json::{Value, json};

use crate::column::{AGE, NAME, column, int, text, text_or};
use crate::spec::check::{self, Found};
use crate::{row, strategy, subresource};

pub const FLOW_SCHEMAS: Resource = Resource::new("flowschemas.flowcontrol.apiserver.k8s.io");

pub static KIND: Kind = Kind {
    resource: FLOW_SCHEMAS,
    group: "flowcontrol.apiserver.k8s.io",
    version: "v1",
    kind: "FlowSchema",
    singular: "flowschema",
    namespaced: false,
    subresources: &[subresource::STATUS],
    type_name: "flowcontrol.v1.FlowSchema",
    columns: &[
        NAME,
        column("PriorityLevel", "string", "The level that its requests are of.", |object, _| {
            text(object, "spec.priorityLevelConfiguration.name")
        }),
        column("MatchingPrecedence", "string", "Its place among the schemas.", |object, _| {
            int(object, "spec.matchingPrecedence")
        }),
        column("DistinguisherMethod", "string", "How its requests are told apart.", |object, _| {
            text_or(object, "spec.distinguisherMethod.type", "<none>")
        }),
        AGE,
        column("MissingPL", "string", "Whether its level is missing.", |object, _| {
            let dangling = path::list(object, "status.conditions")
                .iter()
                .find(|one| path::text(one, "type") == "Dangling");
            dangling.map_or("?", |one| path::text(one, "status")).into()
        }),
    ],
    strategy: Strategy { status_keeps_metadata: true, ..strategy::SPEC_AND_STATUS },
    validate,
    ..row::BASE
};

const PRECEDENCE_MAX: i64 = 10_000;

fn validate(schema: &Value, _old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&schema["spec"], At::root("spec"));
    let precedence = path::int(spec, "matchingPrecedence").unwrap_or_default();
    let precedence_at = at.field("matchingPrecedence");
    if precedence <= 0 {
        found.push(Violation::invalid(precedence_at, precedence, "must be a positive value"));
    } else if precedence > PRECEDENCE_MAX {
        let detail = format!("must not be greater than {PRECEDENCE_MAX}");
        found.push(Violation::invalid(precedence_at, precedence, detail));
    } else if precedence == 1 && path::text(schema, "metadata.name") != "exempt" {
        let detail = "only the schema named 'exempt' may have matchingPrecedence 1";
        found.push(Violation::invalid(precedence_at, precedence, detail));
    }
    if let Some(method) = spec.get("distinguisherMethod") {
        let known = ["ByNamespace", "ByUser"];
        if !known.contains(&path::text(method, "type")) {
            let told = json!({"Type": path::text(method, "type")});
            found.push(Violation::not_supported(at.field("distinguisherMethod.type"), told, &known));
        }
    }
    let (level, level_at) =
        (path::text(spec, "priorityLevelConfiguration.name"), at.field("priorityLevelConfiguration.name"));
    if level.is_empty() {
        found.push(Violation::required(level_at, "must reference a priority level"));
    } else {
        found.extend(Violation::all_invalid(level_at, level, names::dns_subdomain(level)));
    }
    for (index, rule) in path::list(spec, "rules").iter().enumerate() {
        let at = at.field("rules");
        one_rule(rule, at.index(index), &mut found);
    }
    found
}

fn one_rule(rule: &Value, at: At<'_>, found: &mut Found) {
    let (subjects, list) = (path::list(rule, "subjects"), at.field("subjects"));
    if subjects.is_empty() {
        found.push(Violation::required(list, "subjects must contain at least one value"));
    }
    subjects.iter().enumerate().for_each(|(index, one)| subject(one, list.index(index), found));
    let (resources, urls) = (path::list(rule, "resourceRules"), path::list(rule, "nonResourceRules"));
    if resources.is_empty() && urls.is_empty() {
        let detail = "at least one of resourceRules and nonResourceRules has to be non-empty";
        found.push(Violation::required(at, detail));
    }
    let list = at.field("resourceRules");
    resources.iter().enumerate().for_each(|(index, one)| resource_rule(one, list.index(index), found));
    let list = at.field("nonResourceRules");
    urls.iter().enumerate().for_each(|(index, one)| url_rule(one, list.index(index), found));
}

/// A subject has what its kind calls for, and nothing of the others.
fn subject(subject: &Value, at: At<'_>, found: &mut Found) {
    const KINDS: [(&str, &str); 3] =
        [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];
    let kind = path::text(subject, "kind");
    let Some((_, field)) = KINDS.iter().find(|(known, _)| *known == kind) else {
        found.push(Violation::not_supported(at.field("kind"), kind, &["Group", "ServiceAccount", "User"]));
        return;
    };
    let own_at = at.field(field);
    match subject.get(field) {
        None => {
            let detail = format!("{field} is required when subject kind is '{kind}'");
            found.push(Violation::required(own_at, detail));
        }
        Some(account) if kind == "ServiceAccount" => {
            if check::required(account, "name", own_at, found) && path::text(account, "name") != "*" {
                check::follows(account, "name", names::dns_subdomain, own_at, found);
            }
            check::follows(account, "namespace", names::dns_label, own_at, found);
            if path::text(account, "namespace").is_empty() {
                let detail = "must specify namespace for service account";
                found.push(Violation::required(own_at.field("namespace"), detail));
            }
        }
        Some(own) => drop(check::required(own, "name", own_at, found)),
    }
    for (other, field) in KINDS.iter().filter(|(other, field)| *other != kind && subject.get(field).is_some())
    {
        let detail = format!("{field} is forbidden when subject kind is not '{other}'");
        found.push(Violation::forbidden(at.field(field), detail));
    }
}

const VERBS: [&str; 9] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

fn verbs(rule: &Value, at: At<'_>, found: &mut Found) {
    let (verbs, at) = (path::list(rule, "verbs"), at.field("verbs"));
    if verbs.is_empty() {
        found.push(Violation::required(at, "verbs must contain at least one value"));
    } else if has_all(verbs) {
        alone(verbs, "verbs", at, found);
    } else if verbs.iter().any(|verb| !VERBS.contains(&verb.as_str().unwrap_or_default())) {
        found.push(Violation::not_supported(at, verbs, &VERBS));
    }
}

fn has_all(list: &[Value]) -> bool {
    list.iter().any(|one| one == "*")
}

/// What stands for all stands alone.
fn alone(list: &[Value], what: &str, at: At<'_>, found: &mut Found) {
    if list.len() > 1 {
        let detail = format!("if '*' is present, must not specify other {what}");
        found.push(Violation::invalid(at, list, detail));
    }
}

fn resource_rule(rule: &Value, at: At<'_>, found: &mut Found) {
    verbs(rule, at, found);
    for (field, one, what) in
        [("apiGroups", "api group", "api groups"), ("resources", "resource", "resources")]
    {
        let (list, at) = (path::list(rule, field), at.field(field));
        if list.is_empty() {
            found.push(Violation::required(at, format!("resource rules must supply at least one {one}")));
        } else if has_all(list) {
            alone(list, what, at, found);
        }
    }
    let (list, at) = (path::list(rule, "namespaces"), at.field("namespaces"));
    if list.is_empty() && !path::bool(rule, "clusterScope") {
        let detail = "resource rules that are not cluster scoped must supply at least one namespace";
        found.push(Violation::required(at, detail));
    } else if has_all(list) {
        alone(list, "namespaces", at, found);
    } else {
        for (index, namespace) in list.iter().enumerate() {
            let namespace = namespace.as_str().unwrap_or_default();
            for wrong in names::dns_label(namespace) {
                let detail = format!("each member of this list must be '*' or a DNS-1123 label; {wrong}");
                found.push(Violation::invalid(at.index(index), namespace, detail));
            }
        }
    }
}

fn url_rule(rule: &Value, at: At<'_>, found: &mut Found) {
    verbs(rule, at, found);
    let (urls, at) = (path::list(rule, "nonResourceURLs"), at.field("nonResourceURLs"));
    if urls.is_empty() {
        found.push(Violation::required(at, "nonResourceURLs must contain at least one value"));
    } else if has_all(urls) {
        alone(urls, "non-resource URLs", at, found);
    } else {
        for (index, url) in urls.iter().enumerate() {
            let url = url.as_str().unwrap_or_default();
            found.extend(url_wrong(url).map(|detail| Violation::invalid(at.index(index), url, detail)));
        }
    }
}

fn url_wrong(url: &str) -> Option<&'static str> {
    match url.matches('*').count() {
        _ if url.is_empty() => Some("must not be empty"),
        _ if url == "/" => None,
        _ if !url.starts_with('/') => Some("must start with slash"),
        _ if url.contains(' ') => Some("must not contain white-space"),
        _ if url.contains("//") => Some("must not contain double slash"),
        0 => None,
        1 if url.ends_with("/*") => None,
        _ => Some("wildcard can only do suffix matching"),
    }
}
