use object::Resource;
use schema::{At, Kind, Strategy, Violation, path};
use serde_json::{Value, json};

use crate::column::{AGE, NAME, column, int, text, text_or};
use crate::spec::check::Found;
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
    if path::text(spec, "priorityLevelConfiguration.name").is_empty() {
        let at = at.field("priorityLevelConfiguration.name");
        found.push(Violation::required(at, "must reference a priority level"));
    }
    for (index, rule) in path::list(spec, "rules").iter().enumerate() {
        let at = at.field("rules");
        one_rule(rule, at.index(index), &mut found);
    }
    found
}

fn one_rule(rule: &Value, at: At<'_>, found: &mut Found) {
    if path::list(rule, "subjects").is_empty() {
        found.push(Violation::required(at.field("subjects"), "subjects must contain at least one value"));
    }
    let (resources, urls) = (path::list(rule, "resourceRules"), path::list(rule, "nonResourceRules"));
    if resources.is_empty() && urls.is_empty() {
        let detail = "at least one of resourceRules and nonResourceRules has to be non-empty";
        found.push(Violation::required(at, detail));
    }
    for (list, rules) in [("resourceRules", resources), ("nonResourceRules", urls)] {
        for (index, one) in rules.iter().enumerate() {
            if path::list(one, "verbs").is_empty() {
                let at = at.field(list);
                let at = at.index(index);
                found.push(Violation::required(at.field("verbs"), "verbs must contain at least one value"));
            }
        }
    }
}
