//! What a job must be, and what an update may change: little, for its pods are counted already.

use schema::{At, Violation, names, path};
use serde_json::{Value, json};

use crate::job::POD_LABELS;
use crate::spec::check::{self, Found, Seen};
use crate::spec::{label_selector, template};
use crate::{job_indexes, job_status};

const INDEXED_PARALLELISM_MAX: i64 = 100_000;
const PER_INDEX_MAX: i64 = 100_000;
const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
/// How many may run at once, or fail, of so many that not all can be noted.
const LARGE_MAX: i64 = 10_000;
const SUCCEEDED_INDEXES_MAX_BYTES: usize = 64 * 1024;
const INDEXED_ONLY: &str = "requires indexed completion mode";
const MANAGED_BY_MAX_BYTES: usize = 63;

pub fn validate(job: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let at = At::root("spec");
    if job["spec"] != old.map_or(Value::Null, |old| old["spec"].clone()) {
        generated(job, at, &mut found);
    }
    let before = found.len();
    spec(&job["spec"], at, &mut found);
    selected(&job["spec"], at, &mut found);
    let of_spec = found[before..].to_vec();
    pod_name(job, &mut found);
    match old {
        None => {}
        Some(old) => {
            // Upstream judges the spec of an update twice.
            found.extend(of_spec);
            changes(job, old, at, &mut found);
            if job["status"] != old["status"] {
                job_status::validate(job, old, &mut found);
            }
        }
    }
    found
}

fn pod_name(job: &Value, found: &mut Found) {
    let last = path::int(job, "spec.completions").unwrap_or_default() - 1;
    if last < 0 || path::text(job, "spec.completionMode") != "Indexed" {
        return;
    }
    let name = path::text(job, "metadata.name");
    let pod = format!("{name}-{last}");
    if !names::dns_label(&pod).is_empty() {
        let detail = format!("will not able to create pod with invalid DNS label: {pod}");
        found.push(Violation::invalid(At::root("metadata.name"), name, detail));
    }
}

/// The selector and the labels of the template were made for it unless the client asked otherwise.
fn generated(job: &Value, at: At<'_>, found: &mut Found) {
    let spec = &job["spec"];
    let Some(selector) = spec.get("selector").filter(|_| !path::bool(spec, "manualSelector")) else { return };
    let labels = path::get(spec, "template.metadata.labels").unwrap_or(&Value::Null);
    let labels_at = at.field("template.metadata.labels");
    let mut made = json!({});
    for (key, is_uid) in POD_LABELS {
        let wanted = path::text(job, if is_uid { "metadata.uid" } else { "metadata.name" });
        match labels.get(key).and_then(Value::as_str) {
            None => found.push(Violation::required(labels_at.key(key), format!("must be '{wanted}'"))),
            Some(held) if held != wanted => {
                found.push(Violation::invalid(labels_at.key(key), labels, format!("must be '{wanted}'")));
            }
            Some(_) => {}
        }
        made[key] = wanted.into();
    }
    // A client may have named some of these labels itself, or an older server others of them than the usual one.
    if is_readable(selector) && !label_selector::matches(selector, &made) {
        found.push(Violation::invalid(at.field("selector"), selector, "`selector` not auto-generated"));
    }
}

fn is_readable(selector: &Value) -> bool {
    let mut wrong = Vec::new();
    label_selector::validate(selector, At::root(""), &mut wrong);
    wrong.is_empty()
}

/// The selector must select the template's own pods.
fn selected(spec: &Value, at: At<'_>, found: &mut Found) {
    let labels = path::get(spec, "template.metadata.labels").unwrap_or(&Value::Null);
    let before = found.len();
    let selects = match spec.get("selector") {
        None => {
            found.push(Violation::required(at.field("selector"), ""));
            false
        }
        Some(selector) => {
            label_selector::validate(selector, at.field("selector"), found);
            found.len() > before || label_selector::matches(selector, labels)
        }
    };
    if !selects {
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
    if spec.get("maxFailedIndexes").is_some() && spec.get("backoffLimitPerIndex").is_none() {
        let detail = "when maxFailedIndexes is specified";
        found.push(Violation::required(at.field("backoffLimitPerIndex"), detail));
    }
    if let Some(by) = spec.get("managedBy").and_then(Value::as_str) {
        let at = at.field("managedBy");
        found.extend(Violation::all_invalid(at, by, names::domain_path(by)));
        if by.len() > MANAGED_BY_MAX_BYTES {
            found.push(Violation::too_long(at, MANAGED_BY_MAX_BYTES));
        }
    }
    check::one_of(spec, "completionMode", &["NonIndexed", "Indexed"], at, found);
    let is_indexed = path::text(spec, "completionMode") == "Indexed";
    match path::text(spec, "completionMode") {
        "Indexed" => indexed(spec, at, found),
        "" | "NonIndexed" => {
            for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
                if let Some(value) = spec.get(field) {
                    found.push(Violation::invalid(at.field(field), value, INDEXED_ONLY));
                }
            }
        }
        _ => {}
    }
    failure_policy(spec, at, found);
    match spec.get("successPolicy") {
        Some(policy) if is_indexed => success_policy(spec, policy, at.field("successPolicy"), found),
        Some(policy) => found.push(Violation::invalid(at.field("successPolicy"), policy, INDEXED_ONLY)),
        None => {}
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
        "OnFailure" if has_policy => {
            let detail = "only \"Never\" is supported when podFailurePolicy is specified";
            found.push(Violation::invalid(at, "OnFailure", detail));
        }
        "Never" | "OnFailure" => {}
        other => found.push(Violation::not_supported(at, other, &["OnFailure", "Never"])),
    }
}

fn indexed(spec: &Value, at: At<'_>, found: &mut Found) {
    let number = |field: &str| path::int(spec, field);
    let (completions, parallelism) = (number("completions"), number("parallelism"));
    if completions.is_none() {
        found.push(Violation::required(at.field("completions"), "when completion mode is Indexed"));
    }
    let parallelism_at = at.field("parallelism");
    if let Some(parallelism) = parallelism.filter(|&many| many > INDEXED_PARALLELISM_MAX) {
        let detail = format!(
            "must be less than or equal to {INDEXED_PARALLELISM_MAX} when completion mode is Indexed"
        );
        found.push(Violation::invalid(parallelism_at, parallelism, detail));
    }
    let (failed, failed_at) = (number("maxFailedIndexes"), at.field("maxFailedIndexes"));
    if let Some(failed) = failed {
        if completions.is_some_and(|completions| failed > completions) {
            found.push(Violation::invalid(failed_at, failed, "must be less than or equal to completions"));
        }
        if failed > PER_INDEX_MAX {
            let detail = format!("must be less than or equal to {PER_INDEX_MAX}");
            found.push(Violation::invalid(failed_at, failed, detail));
        }
    }
    let is_large = completions.is_some_and(|completions| completions > PER_INDEX_MAX);
    if !is_large || spec.get("backoffLimitPerIndex").is_none() {
        return;
    }
    // What is noted of each index must fit an object.
    let bounded = |most: i64| {
        format!(
            "must be less than or equal to {most} when completions are above {PER_INDEX_MAX} and used with backoff limit per index"
        )
    };
    if failed.is_none() {
        let detail = format!("must be specified when completions is above {PER_INDEX_MAX}");
        found.push(Violation::required(failed_at, detail));
    }
    if let Some(parallelism) = parallelism.filter(|&many| many > LARGE_MAX) {
        found.push(Violation::invalid(parallelism_at, parallelism, bounded(LARGE_MAX)));
    }
    if let Some(failed) = failed.filter(|&many| many > LARGE_MAX) {
        found.push(Violation::invalid(failed_at, failed, bounded(LARGE_MAX)));
    }
}

fn failure_policy(spec: &Value, at: At<'_>, found: &mut Found) {
    const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
    let rules = path::list(spec, "podFailurePolicy.rules");
    let list = at.field("podFailurePolicy.rules");
    if rules.len() > RULES_MAX {
        found.push(Violation::too_many(list, rules.len(), RULES_MAX));
    }
    for (index, rule) in rules.iter().enumerate() {
        let at = list.index(index);
        match path::text(rule, "action") {
            "" => found.push(Violation::required(at.field("action"), valid_values(&ACTIONS))),
            "FailIndex" if spec.get("backoffLimitPerIndex").is_none() => {
                let detail = "requires the backoffLimitPerIndex to be set";
                found.push(Violation::invalid(at.field("action"), "FailIndex", detail));
            }
            _ => check::one_of(rule, "action", &ACTIONS, at, found),
        }
        let (codes, conditions) = (rule.get("onExitCodes"), path::list(rule, "onPodConditions"));
        if let Some(codes) = codes {
            exit_codes(codes, &spec["template"], at.field("onExitCodes"), found);
        }
        pod_conditions(conditions, at.field("onPodConditions"), found);
        match (codes, conditions.is_empty()) {
            (Some(_), false) => {
                let detail = "specifying both OnExitCodes and OnPodConditions is not supported";
                found.push(Violation::wrong(at, detail));
            }
            (None, true) => {
                let detail = "specifying one of OnExitCodes and OnPodConditions is required";
                found.push(Violation::wrong(at, detail));
            }
            _ => {}
        }
    }
}

/// `valid values: ["In" "NotIn"]`, as Go prints a list.
fn valid_values(values: &[&str]) -> String {
    format!("valid values: [{}]", values.iter().map(|one| format!("{one:?}")).collect::<Vec<_>>().join(" "))
}

fn exit_codes(codes: &Value, template: &Value, at: At<'_>, found: &mut Found) {
    const OPERATORS: [&str; 2] = ["In", "NotIn"];
    match path::text(codes, "operator") {
        "" => found.push(Violation::required(at.field("operator"), valid_values(&OPERATORS))),
        _ => check::one_of(codes, "operator", &OPERATORS, at, found),
    }
    let container = path::text(codes, "containerName");
    let all = ["spec.containers", "spec.initContainers"].map(|list| path::list(template, list));
    let is_known = all.iter().copied().flatten().any(|one| path::text(one, "name") == container);
    if codes.get("containerName").is_some() && !is_known {
        let detail = "must be one of the container or initContainer names in the pod template";
        found.push(Violation::invalid(at.field("containerName"), container, detail));
    }
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
        const STATUSES: [&str; 3] = ["False", "True", "Unknown"];
        match path::text(condition, "status") {
            "" => found.push(Violation::required(at.field("status"), valid_values(&STATUSES))),
            _ => check::one_of(condition, "status", &STATUSES, at, found),
        }
    }
}

fn success_policy(spec: &Value, policy: &Value, at: At<'_>, found: &mut Found) {
    let rules = path::list(policy, "rules");
    let list = at.field("rules");
    if rules.is_empty() {
        let detail = "at least one rules must be specified when the successPolicy is specified";
        found.push(Violation::required(list, detail));
    } else if rules.len() > RULES_MAX {
        found.push(Violation::too_many(list, rules.len(), RULES_MAX));
    }
    let completions = path::int(spec, "completions").unwrap_or_default();
    for (index, rule) in rules.iter().enumerate() {
        success_rule(rule, completions, list.index(index), found);
    }
}

fn success_rule(rule: &Value, completions: i64, at: At<'_>, found: &mut Found) {
    let indexes = rule.get("succeededIndexes").and_then(Value::as_str);
    let count = path::int(rule, "succeededCount");
    if count.is_none() && indexes.is_none() {
        let detail = "at least one of succeededCount or succeededIndexes must be specified";
        found.push(Violation::required(at, detail));
    }
    let mut total = 0;
    if let Some(indexes) = indexes {
        let at = at.field("succeededIndexes");
        if indexes.len() > SUCCEEDED_INDEXES_MAX_BYTES {
            found.push(Violation::too_long(at, SUCCEEDED_INDEXES_MAX_BYTES));
        }
        match job_indexes::count(indexes, completions) {
            Ok(count) => total = count,
            Err(wrong) => {
                let detail = format!("error parsing succeededIndexes: {wrong}");
                found.push(Violation::invalid(at, indexes, detail));
            }
        }
    }
    let Some(count) = count else { return };
    check::not_negative(rule, "succeededCount", at, found);
    let at = at.field("succeededCount");
    if count > completions {
        let detail =
            format!("must be less than or equal to {completions} (the number of specified completions)");
        found.push(Violation::invalid(at, count, detail));
    }
    if indexes.is_some() && count > total {
        let detail = format!(
            "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
        );
        found.push(Violation::invalid(at, count, detail));
    }
}

fn changes(job: &Value, old: &Value, at: At<'_>, found: &mut Found) {
    let (spec, before) = (&job["spec"], &old["spec"]);
    if path::text(spec, "completionMode") != "Indexed" {
        check::immutable(spec, before, "completions", at, found);
    } else if spec.get("completions").is_some_and(|now| *now != before["completions"])
        && spec["completions"] != spec["parallelism"]
    {
        let detail = "can only be modified in tandem with spec.parallelism";
        found.push(Violation::invalid(at.field("completions"), &spec["completions"], detail));
    }
    check::immutable(spec, before, "selector", at, found);
    template_changes(&spec["template"], old, at, found);
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    {
        check::immutable(spec, before, field, at, found);
    }
}

/// A suspended job without pods may still be told where to run, and with how much; its template's labels and annotations may change too.
fn template_changes(template: &Value, old: &Value, at: At<'_>, found: &mut Found) {
    let mut allowed = old["spec"]["template"].clone();
    let is_suspended = path::bool(old, "spec.suspend")
        && job_status::is_true(old, "Suspended")
        && path::int(old, "status.active").unwrap_or_default() == 0;
    if !is_suspended {
        if allowed != *template {
            found.push(Violation::immutable(at.field("template"), template));
        }
        return;
    }
    for field in
        ["spec.affinity.nodeAffinity", "spec.nodeSelector", "spec.tolerations", "spec.schedulingGates"]
    {
        take(&mut allowed, template, field);
    }
    for list in ["containers", "initContainers"] {
        let new = path::list(template, &format!("spec.{list}")).to_vec();
        let Some(Value::Array(containers)) = allowed["spec"].get_mut(list) else { continue };
        if containers.len() != new.len() {
            continue;
        }
        for (container, new) in
            containers.iter_mut().zip(&new).filter(|(old, new)| old["name"] == new["name"])
        {
            take(container, new, "resources");
        }
    }
    if allowed["spec"] != template["spec"] {
        found.push(Violation::immutable(at.field("template.spec"), &template["spec"]));
    }
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
