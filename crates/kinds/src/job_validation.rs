//! What a job must be, and what an update may change: little, for its pods are counted already.

use schema::{At, Violation, metadata, names, path};
use serde_json::{Value, json};

use crate::job::POD_LABELS;
use crate::spec::check::{self, Found, Seen};
use crate::spec::{label_selector, template};

const INDEXED_PARALLELISM_MAX: i64 = 100_000;
const PER_INDEX_MAX: i64 = 100_000;
const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const MANAGED_BY_MAX_BYTES: usize = 63;

pub fn validate(job: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let at = At::root("spec");
    spec(&job["spec"], at, &mut found);
    let is_indexed = path::text(job, "spec.completionMode") == "Indexed";
    if metadata::is_new(job, old) && is_indexed {
        pod_name(job, &mut found);
    }
    selected(job, at, &mut found);
    if let Some(old) = old {
        changes(job, old, at, &mut found);
    }
    found
}

fn pod_name(job: &Value, found: &mut Found) {
    let last = path::int(job, "spec.completions").unwrap_or_default() - 1;
    if last < 0 {
        return;
    }
    let name = path::text(job, "metadata.name");
    let pod = format!("{name}-{last}");
    if !names::dns_label(&pod).is_empty() {
        let detail = format!("will not able to create pod with invalid DNS label: {pod}");
        found.push(Violation::invalid(At::root("metadata.name"), name, detail));
    }
}

/// The selector and the labels of the template, which were made for it unless the client asked otherwise.
fn selected(job: &Value, at: At<'_>, found: &mut Found) {
    let spec = &job["spec"];
    let labels = path::get(spec, "template.metadata.labels").unwrap_or(&Value::Null);
    let Some(selector) = spec.get("selector") else {
        found.push(Violation::required(at.field("selector"), ""));
        let detail = "`selector` does not match template `labels`";
        found.push(Violation::invalid(at.field("template.metadata.labels"), labels, detail));
        return;
    };
    label_selector::validate(selector, at.field("selector"), found);
    if !path::bool(spec, "manualSelector") {
        let mut made = json!({});
        let labels_at = at.field("template.metadata.labels");
        for (key, is_uid) in POD_LABELS {
            let wanted = path::text(job, if is_uid { "metadata.uid" } else { "metadata.name" });
            match labels.get(key).and_then(Value::as_str) {
                None => found.push(Violation::required(labels_at.key(key), format!("must be '{wanted}'"))),
                Some(held) if held != wanted => {
                    found.push(Violation::invalid(labels_at.key(key), held, format!("must be '{wanted}'")));
                }
                Some(_) => {}
            }
            made[key] = wanted.into();
        }
        // A client may have named some of these labels itself, or an older server others of them than the usual one.
        if !label_selector::matches(selector, &made) {
            found.push(Violation::invalid(at.field("selector"), selector, "`selector` not auto-generated"));
        }
    }
    if !label_selector::matches(selector, labels) {
        let detail = "`selector` does not match template `labels`";
        found.push(Violation::invalid(at.field("template.metadata.labels"), labels, detail));
    }
}

/// The spec of a job, or of a cron job's template.
pub fn spec(spec: &Value, at: At<'_>, found: &mut Found) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        check::not_negative(spec, field, at, found);
    }
    if let Some(by) = spec.get("managedBy").and_then(Value::as_str) {
        let at = at.field("managedBy");
        found.extend(Violation::all_invalid(at, by, names::domain_path(by)));
        if by.len() > MANAGED_BY_MAX_BYTES {
            found.push(Violation::too_long(at, MANAGED_BY_MAX_BYTES));
        }
    }
    check::one_of(spec, "completionMode", &["NonIndexed", "Indexed"], at, found);
    match path::text(spec, "completionMode") {
        "Indexed" => indexed(spec, at, found),
        _ => {
            for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
                if let Some(value) = spec.get(field) {
                    found.push(Violation::invalid(
                        at.field(field),
                        value,
                        "requires indexed completion mode",
                    ));
                }
            }
            if let Some(policy) = spec.get("successPolicy") {
                let detail = "requires indexed completion mode";
                found.push(Violation::invalid(at.field("successPolicy"), policy, detail));
            }
        }
    }
    failure_policy(spec, at, found);
    if let Some(policy) = spec.get("successPolicy") {
        success_policy(policy, at.field("successPolicy"), found);
    }
    let has_policy = spec.get("podFailurePolicy").is_some();
    let replacements: &[&str] = if has_policy { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    check::one_of(spec, "podReplacementPolicy", replacements, at, found);
    let template = &spec["template"];
    template::validate(template, at.field("template"), found);
    restart_policy(template, has_policy, at, found);
}

fn restart_policy(template: &Value, has_policy: bool, at: At<'_>, found: &mut Found) {
    let at = at.field("template.spec.restartPolicy");
    match path::text(template, "spec.restartPolicy") {
        "" | "Always" => found.push(Violation::required(at, "valid values: \"OnFailure\", \"Never\"")),
        "Never" => {}
        other if has_policy => {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            found.push(Violation::invalid(at, other, detail));
        }
        "OnFailure" => {}
        other => found.push(Violation::not_supported(at, other, &["OnFailure", "Never"])),
    }
}

fn indexed(spec: &Value, at: At<'_>, found: &mut Found) {
    let completions = path::int(spec, "completions");
    if completions.is_none() {
        found.push(Violation::required(at.field("completions"), "when completion mode is Indexed"));
    }
    if let Some(parallelism) = path::int(spec, "parallelism").filter(|&many| many > INDEXED_PARALLELISM_MAX) {
        let detail = format!(
            "must be less than or equal to {INDEXED_PARALLELISM_MAX} when completion mode is Indexed"
        );
        found.push(Violation::invalid(at.field("parallelism"), parallelism, detail));
    }
    let Some(failed) = path::int(spec, "maxFailedIndexes") else { return };
    let failed_at = at.field("maxFailedIndexes");
    if spec.get("backoffLimitPerIndex").is_none() {
        found.push(Violation::required(
            at.field("backoffLimitPerIndex"),
            "when maxFailedIndexes is specified",
        ));
    }
    if completions.is_some_and(|completions| failed > completions) {
        found.push(Violation::invalid(failed_at, failed, "must be less than or equal to completions"));
    }
    if failed > PER_INDEX_MAX {
        let detail = format!("must be less than or equal to {PER_INDEX_MAX}");
        found.push(Violation::invalid(failed_at, failed, detail));
    }
}

fn failure_policy(spec: &Value, at: At<'_>, found: &mut Found) {
    let rules = path::list(spec, "podFailurePolicy.rules");
    let list = at.field("podFailurePolicy.rules");
    if rules.len() > RULES_MAX {
        found.push(Violation::too_many(list, rules.len(), RULES_MAX));
    }
    for (index, rule) in rules.iter().enumerate() {
        let at = list.index(index);
        if path::text(rule, "action").is_empty() {
            found.push(Violation::required(at.field("action"), ""));
        } else {
            check::one_of(rule, "action", &["Count", "FailIndex", "FailJob", "Ignore"], at, found);
        }
        if path::text(rule, "action") == "FailIndex" && spec.get("backoffLimitPerIndex").is_none() {
            let detail = "requires the backoffLimitPerIndex to be set";
            found.push(Violation::invalid(at.field("action"), "FailIndex", detail));
        }
        let conditions = path::list(rule, "onPodConditions");
        match (rule.get("onExitCodes"), conditions.is_empty()) {
            (Some(_), false) => {
                let detail = "specifying both OnExitCodes and OnPodConditions is not supported";
                found.push(Violation::invalid(at, rule, detail));
            }
            (None, true) => {
                let detail = "specifying one of OnExitCodes and OnPodConditions is required";
                found.push(Violation::invalid(at, rule, detail));
            }
            (Some(codes), true) => exit_codes(codes, &spec["template"], at.field("onExitCodes"), found),
            (None, false) => pod_conditions(conditions, at.field("onPodConditions"), found),
        }
    }
}

fn exit_codes(codes: &Value, template: &Value, at: At<'_>, found: &mut Found) {
    let container = path::text(codes, "containerName");
    let all = ["spec.containers", "spec.initContainers"].map(|list| path::list(template, list));
    let is_known = all.iter().copied().flatten().any(|one| path::text(one, "name") == container);
    if codes.get("containerName").is_some() && !is_known {
        let detail = "must be one of the container or initContainer names in the pod template";
        found.push(Violation::invalid(at.field("containerName"), container, detail));
    }
    check::one_of(codes, "operator", &["In", "NotIn"], at, found);
    let values = path::list(codes, "values");
    let list = at.field("values");
    if values.is_empty() {
        found.push(Violation::invalid(list, values, "at least one value is required"));
    } else if values.len() > EXIT_CODES_MAX {
        found.push(Violation::too_many(list, values.len(), EXIT_CODES_MAX));
    }
    let numbers: Vec<i64> = values.iter().filter_map(Value::as_i64).collect();
    let mut seen = Seen::default();
    for (index, &number) in numbers.iter().enumerate() {
        if number == 0 && path::text(codes, "operator") == "In" {
            found.push(Violation::invalid(list.index(index), number, "must not be 0 for the In operator"));
        }
        if seen.repeats(number.to_string()) {
            found.push(Violation::duplicate(list.index(index), number));
        }
    }
    if !numbers.is_sorted() {
        found.push(Violation::invalid(list, values, "must be ordered"));
    }
}

fn pod_conditions(conditions: &[Value], list: At<'_>, found: &mut Found) {
    if conditions.len() > RULES_MAX {
        found.push(Violation::too_many(list, conditions.len(), RULES_MAX));
    }
    for (index, condition) in conditions.iter().enumerate() {
        let at = list.index(index);
        let kind = path::text(condition, "type");
        found.extend(Violation::all_invalid(at.field("type"), kind, names::qualified_name(kind)));
        check::one_of(condition, "status", &["False", "True", "Unknown"], at, found);
    }
}

fn success_policy(policy: &Value, at: At<'_>, found: &mut Found) {
    let rules = path::list(policy, "rules");
    let list = at.field("rules");
    if rules.is_empty() {
        let detail = "at least one rules must be specified when the successPolicy is specified";
        found.push(Violation::required(list, detail));
    } else if rules.len() > RULES_MAX {
        found.push(Violation::too_many(list, rules.len(), RULES_MAX));
    }
    for (index, rule) in rules.iter().enumerate() {
        let at = list.index(index);
        check::not_negative(rule, "succeededCount", at, found);
        if rule.get("succeededCount").is_none() && rule.get("succeededIndexes").is_none() {
            let detail = "at least one of succeededCount or succeededIndexes must be specified";
            found.push(Violation::required(at, detail));
        }
    }
}

fn changes(job: &Value, old: &Value, at: At<'_>, found: &mut Found) {
    let (spec, before) = (&job["spec"], &old["spec"]);
    let is_indexed = path::text(spec, "completionMode") == "Indexed";
    if is_indexed && spec["completions"] != before["completions"] {
        if spec["completions"] != spec["parallelism"] {
            let detail = "can only be modified in tandem with spec.parallelism";
            found.push(Violation::invalid(at.field("completions"), &spec["completions"], detail));
        }
    } else {
        check::immutable(spec, before, "completions", at, found);
    }
    for field in [
        "selector",
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        check::immutable(spec, before, field, at, found);
    }
    let mut allowed = before["template"].clone();
    if may_move(old) {
        for field in ["metadata.annotations", "metadata.labels"] {
            take(&mut allowed, &spec["template"], field);
        }
        for field in
            ["spec.affinity.nodeAffinity", "spec.nodeSelector", "spec.tolerations", "spec.schedulingGates"]
        {
            take(&mut allowed, &spec["template"], field);
        }
    }
    if allowed != spec["template"] {
        found.push(Violation::immutable(at.field("template"), &spec["template"]));
    }
}

/// A suspended job that has not started may still be told where to run.
fn may_move(job: &Value) -> bool {
    path::bool(job, "spec.suspend") && path::get(job, "status.startTime").is_none()
}

fn take(to: &mut Value, from: &Value, at: &str) {
    match path::get(from, at) {
        Some(value) => path::set(to, at, value.clone()),
        None => {
            path::remove(to, at);
        }
    }
}

/// An indexed Job so large that its failed indexes may not be told any more. `spec` is the Job's, `at` its path.
pub fn too_many(spec: &Value, at: &str) -> Option<String> {
    let is_large = path::text(spec, "completionMode") == "Indexed"
        && path::int(spec, "completions").unwrap_or_default() > 100_000
        && path::int(spec, "parallelism").unwrap_or_default() > 10_000;
    is_large.then(|| format!("{at}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail"))
}
