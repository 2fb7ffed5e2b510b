use object::Resource;
use schema::{At, Kind, Strategy, Violation, path};
use serde_json::Value;

use crate::column::{AGE, NAME, column, text};
use crate::spec::check;
use crate::{row, strategy, subresource};

pub const PRIORITY_LEVEL_CONFIGURATIONS: Resource =
    Resource::new("prioritylevelconfigurations.flowcontrol.apiserver.k8s.io");

pub static KIND: Kind =
    Kind {
        resource: PRIORITY_LEVEL_CONFIGURATIONS,
        group: "flowcontrol.apiserver.k8s.io",
        version: "v1",
        kind: "PriorityLevelConfiguration",
        singular: "prioritylevelconfiguration",
        namespaced: false,
        subresources: &[subresource::STATUS],
        type_name: "flowcontrol.v1.PriorityLevelConfiguration",
        columns: &[
            NAME,
            column("Type", "string", "Whether it is limited.", |object, _| text(object, "spec.type")),
            column("NominalConcurrencyShares", "string", "Its share of the concurrency.", |object, _| {
                match path::int(object, "spec.limited.nominalConcurrencyShares") {
                    None => "<none>".into(),
                    Some(number) => number.into(),
                }
            }),
            column("Queues", "string", "How many queues it has.", |object, _| {
                match path::int(object, "spec.limited.limitResponse.queuing.queues") {
                    None => "<none>".into(),
                    Some(number) => number.into(),
                }
            }),
            column("HandSize", "string", "How many queues a flow is dealt.", |object, _| {
                match path::int(object, "spec.limited.limitResponse.queuing.handSize") {
                    None => "<none>".into(),
                    Some(number) => number.into(),
                }
            }),
            column("QueueLengthLimit", "string", "How many requests a queue holds.", |object, _| {
                match path::int(object, "spec.limited.limitResponse.queuing.queueLengthLimit") {
                    None => "<none>".into(),
                    Some(number) => number.into(),
                }
            }),
            AGE,
        ],
        strategy: Strategy { status_keeps_metadata: true, ..strategy::SPEC_AND_STATUS },
        validate,
        ..row::BASE
    };

fn validate(level: &Value, _old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&level["spec"], At::root("spec"));
    check::one_of(spec, "type", &["Exempt", "Limited"], at, &mut found);
    let is_limited = path::text(spec, "type") == "Limited";
    if is_limited && spec.get("limited").is_none() {
        let detail = "must not be empty when type is Limited";
        found.push(Violation::required(at.field("limited"), detail));
    }
    if !is_limited && spec.get("limited").is_some() {
        found.push(Violation::forbidden(at.field("limited"), "must be nil if the type is not Limited"));
    }
    found
}
