use object::Resource;
use schema::{At, Kind, Strategy, Violation, path};
use serde_json::Value;

use crate::column::{AGE, NAME, column, text};
use crate::spec::check::{self, Found};
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

/// Most of what a level may say is bounded so that shuffle sharding stays cheap and means something.
const QUEUES_MAX: i64 = 10_000_000;
/// A hand is dealt from so many bits of a flow's hash at most.
const DEAL_BITS: f64 = 60.0;

fn validate(level: &Value, _old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&level["spec"], At::root("spec"));
    let (name, kind) = (path::text(level, "metadata.name"), path::text(spec, "type"));
    if (name == "exempt") != (kind == "Exempt") {
        let detail = "must be 'Exempt' if and only if `name` is 'exempt'";
        found.push(Violation::invalid(at.field("type"), kind, detail));
    }
    let (own_exempt, own_limited) = (spec.get("exempt"), spec.get("limited"));
    match kind {
        "Exempt" => {
            if own_limited.is_some() {
                let detail = "must be nil if the type is not Limited";
                found.push(Violation::forbidden(at.field("limited"), detail));
            }
            if let Some(exempt) = own_exempt {
                shares(exempt, at.field("exempt"), &mut found);
                lent(exempt, at.field("exempt"), &mut found);
            }
        }
        "Limited" => {
            if own_exempt.is_some() {
                found.push(Violation::forbidden(at.field("exempt"), "must be nil if the type is Limited"));
            }
            let at = at.field("limited");
            match own_limited {
                None => found.push(Violation::required(at, "must not be empty when type is Limited")),
                Some(own) => limited(own, at, &mut found),
            }
        }
        _ => found.push(Violation::not_supported(at.field("type"), kind, &["Exempt", "Limited"])),
    }
    fixed(name, spec, at, &mut found);
    found
}

/// The two that every server depends on are what they are; of the exempt one only what it lends may be changed, and of that one everything
/// else is said above.
fn fixed(name: &str, spec: &Value, at: At<'_>, found: &mut Found) {
    let limited = &spec["limited"];
    let is_fixed = path::int(limited, "nominalConcurrencyShares") == Some(5)
        && path::int(limited, "lendablePercent").unwrap_or(0) == 0
        && path::get(limited, "borrowingLimitPercent").is_none_or(Value::is_null)
        && path::text(limited, "limitResponse.type") == "Reject";
    if name == "catch-all" && !is_fixed {
        found.push(Violation::invalid(at, spec, "spec of 'catch-all' must equal the fixed value"));
    }
}

fn limited(limited: &Value, at: At<'_>, found: &mut Found) {
    shares(limited, at, found);
    response(&limited["limitResponse"], at.field("limitResponse"), found);
    lent(limited, at, found);
    if let Some(percent) = path::int(limited, "borrowingLimitPercent").filter(|percent| *percent < 0) {
        let detail = "if specified, must be a non-negative integer";
        found.push(Violation::invalid(at.field("borrowingLimitPercent"), percent, detail));
    }
}

/// Upstream's words speak of Limited where they mean Queue.
fn response(response: &Value, at: At<'_>, found: &mut Found) {
    let (kind, queuing_at) = (path::text(response, "type"), at.field("queuing"));
    match (kind, response.get("queuing").filter(|queuing| !queuing.is_null())) {
        ("Reject", Some(_)) => {
            let detail = "must be nil if limited.limitResponse.type is not Limited";
            found.push(Violation::forbidden(queuing_at, detail));
        }
        ("Queue", None) => {
            let detail = "must not be empty if limited.limitResponse.type is Limited";
            found.push(Violation::required(queuing_at, detail));
        }
        ("Queue", Some(one)) => queuing(one, queuing_at, found),
        ("Reject", None) => {}
        _ => found.push(Violation::not_supported(at.field("type"), kind, &["Queue", "Reject"])),
    }
}

fn shares(share: &Value, at: At<'_>, found: &mut Found) {
    if let Some(shares) = path::int(share, "nominalConcurrencyShares").filter(|shares| *shares < 0) {
        let detail = "must be a non-negative integer";
        found.push(Violation::invalid(at.field("nominalConcurrencyShares"), shares, detail));
    }
}

fn lent(share: &Value, at: At<'_>, found: &mut Found) {
    check::between(share, "lendablePercent", 0, 100, at, found);
}

fn queuing(queuing: &Value, at: At<'_>, found: &mut Found) {
    let number = |name| path::int(queuing, name).unwrap_or_default();
    let (queues, hand) = (number("queues"), number("handSize"));
    if number("queueLengthLimit") <= 0 {
        let detail = "must be positive";
        found.push(Violation::invalid(at.field("queueLengthLimit"), number("queueLengthLimit"), detail));
    }
    if queues <= 0 {
        found.push(Violation::invalid(at.field("queues"), queues, "must be positive"));
    } else if queues > QUEUES_MAX {
        let detail = format!("must not be greater than {QUEUES_MAX}");
        found.push(Violation::invalid(at.field("queues"), queues, detail));
    }
    if hand <= 0 {
        found.push(Violation::invalid(at.field("handSize"), hand, "must be positive"));
    } else if hand > queues {
        let detail = format!("should not be greater than queues ({queues})");
        found.push(Violation::invalid(at.field("handSize"), hand, detail));
    } else {
        let cards = (0..hand).map(|dealt| ((queues - dealt) as f64).log2());
        let bits = cards.sum::<f64>();
        if bits > DEAL_BITS {
            let detail = format!(
                "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than 60"
            );
            found.push(Violation::invalid(at.field("handSize"), hand, detail));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(name: &str, spec: Value, expected: &[&str]) {
        let level = json!({"metadata": {"name": name}, "spec": spec});
        let found: Vec<String> = validate(&level, None).into_iter().map(|one| one.field).collect();
        assert_eq!(found, expected, "{spec}");
    }

    #[test]
    fn a_level_says_what_can_be() {
        let queuing = |queues: i64, hand: i64, length: i64| {
            json!({"type": "Limited", "limited": {"nominalConcurrencyShares": 10, "limitResponse": {
                "type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": length}}}})
        };
        let response = "spec.limited.limitResponse";
        let at = |field: &str| format!("{response}.queuing.{field}");
        check("a", queuing(64, 8, 50), &[]);
        check("a", queuing(0, 8, 0), &[&at("queueLengthLimit"), &at("queues"), &at("handSize")]);
        check("a", queuing(4, 8, 1), &[&at("handSize")]);
        check("a", queuing(10_000_000, 5, 1), &[&at("handSize")]);
        check("a", queuing(10_000_001, 2, 1), &[&at("queues")]);
        let reject = json!({"nominalConcurrencyShares": 5, "limitResponse": {"type": "Reject"}});
        check("a", json!({"type": "Limited", "limited": reject}), &[]);
        check("catch-all", json!({"type": "Limited", "limited": reject}), &[]);
        check("catch-all", queuing(64, 8, 50), &["spec"]);
        check("exempt", json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 3}}), &[]);
        check("exempt", json!({"type": "Limited", "limited": reject}), &["spec.type"]);
        check("a", json!({"type": "Exempt"}), &["spec.type"]);
        check("a", json!({"type": "Limited"}), &["spec.limited"]);
        check("a", json!({"type": "Limited", "exempt": {}, "limited": reject}), &["spec.exempt"]);
        let lent = json!({"nominalConcurrencyShares": 0, "lendablePercent": 101, "borrowingLimitPercent": -1, "limitResponse": {"type": "x"}});
        let at = |field: &str| format!("spec.limited.{field}");
        check(
            "a",
            json!({"type": "Limited", "limited": lent}),
            &[&format!("{response}.type"), &at("lendablePercent"), &at("borrowingLimitPercent")],
        );
    }
}
