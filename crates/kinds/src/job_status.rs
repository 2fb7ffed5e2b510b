//! What a status of a job may say: since another controller than ours may tell it (`spec.managedBy`), it must fit what clients rely on.
//!
//! Most rules are asked only where what they are about has changed, so that a status which breaks one already can still be told.

use object::Time;
use schema::{At, Violation, path};
use serde_json::Value;

use crate::job_indexes;
use crate::spec::check::{self, Found, Seen};

/// What the rules are about, before and after.
struct Change<'a> {
    job: &'a Value,
    old: &'a Value,
}

/// Whether a condition of a job holds.
pub fn is_true(job: &Value, kind: &str) -> bool {
    let mut all = path::list(job, "status.conditions").iter();
    all.any(|one| path::text(one, "type") == kind && path::text(one, "status") == "True")
}

fn is_finished(job: &Value) -> bool {
    is_true(job, "Complete") || is_true(job, "Failed")
}

impl Change<'_> {
    fn is(&self, kind: &str) -> bool {
        is_true(self.job, kind)
    }

    fn turned(&self, kind: &str) -> bool {
        is_true(self.job, kind) != is_true(self.old, kind)
    }

    fn has_finished(&self) -> bool {
        is_finished(self.job) != is_finished(self.old)
    }

    fn differs(&self, field: &str) -> bool {
        self.job["status"].get(field) != self.old["status"].get(field)
    }

    fn count(&self, field: &str) -> i64 {
        path::int(&self.job["status"], field).unwrap_or_default()
    }

    fn time(&self, field: &str) -> Option<Time> {
        path::text(&self.job["status"], field).parse().ok()
    }

    fn indexes(&self, field: &str) -> Option<&str> {
        self.job["status"].get(field).and_then(Value::as_str)
    }
}

pub fn validate(job: &Value, old: &Value, found: &mut Found) {
    let change = Change { job, old };
    let (status, at) = (&job["status"], At::root("status"));
    for field in ["active", "succeeded", "failed", "ready", "terminating"] {
        check::not_negative(status, field, at, found);
    }
    uncounted(status, at, found);
    together(&change, at, found);
    times(&change, at, found);
    finished(&change, at, found);
    indexes(&change, at, found);
    if change.count("terminating") > 0
        && is_finished(job)
        && (change.has_finished() || change.differs("terminating"))
    {
        let detail = "terminating>0 is invalid for finished job";
        found.push(Violation::invalid(at.field("terminating"), change.count("terminating"), detail));
    }
    // Who does not say how many are ready does not say that none is.
    let says_ready = change.job["status"].get("ready").is_some();
    if says_ready
        && (change.differs("ready") || change.differs("active"))
        && change.count("ready") > change.count("active")
    {
        let detail = "cannot set more ready pods than active";
        found.push(Violation::invalid(at.field("ready"), change.count("ready"), detail));
    }
    criteria(&change, at, found);
    kept(&change, at, found);
}

fn uncounted(status: &Value, at: At<'_>, found: &mut Found) {
    let at = at.field("uncountedTerminatedPods");
    let mut seen = Seen::default();
    for list in ["succeeded", "failed"] {
        for (index, uid) in path::list(&status["uncountedTerminatedPods"], list).iter().enumerate() {
            let (at, uid) = (at.field(list), uid.as_str().unwrap_or_default());
            let at = at.index(index);
            if uid.is_empty() {
                found.push(Violation::invalid(at, uid, "must not be empty"));
            } else if seen.repeats(uid) {
                found.push(Violation::duplicate(at, uid));
            }
        }
    }
}

/// Conditions that do not hold at once.
fn together(change: &Change<'_>, at: At<'_>, found: &mut Found) {
    for (other, told) in [("Failed", "Failed"), ("FailureTarget", "FailureTarget")] {
        let has_turned = change.turned("Complete") || change.turned(other);
        if has_turned && change.is("Complete") && change.is(other) {
            let detail = format!("cannot set Complete=True and {told}=true conditions");
            found.push(Violation::wrong(at.field("conditions"), detail));
        }
    }
}

fn times(change: &Change<'_>, at: At<'_>, found: &mut Found) {
    let at_end = at.field("completionTime");
    let (start, end) = (change.time("startTime"), change.time("completionTime"));
    let shown = &change.job["status"]["completionTime"];
    if change.turned("Complete") || change.differs("completionTime") {
        if end.is_some() && !change.is("Complete") {
            let detail = "cannot set completionTime when there is no Complete=True condition";
            found.push(Violation::invalid(at_end, shown, detail));
        }
        if end.is_none() && change.is("Complete") {
            found.push(Violation::required(at_end, "completionTime is required for Complete jobs"));
        }
    }
    if (change.differs("startTime") || change.differs("completionTime"))
        && let (Some(start), Some(end)) = (start, end)
        && end < start
    {
        found.push(Violation::invalid(at_end, shown, "must be equal to or after `startTime`"));
    }
}

/// What a job that has ended says.
fn finished(change: &Change<'_>, at: At<'_>, found: &mut Found) {
    let conditions = at.field("conditions");
    if (change.turned("Failed") || change.differs("failedIndexes"))
        && change.is("Failed")
        && !change.is("FailureTarget")
    {
        let detail = "cannot set Failed=True condition without the FailureTarget=true condition";
        found.push(Violation::wrong(conditions, detail));
    }
    if (change.turned("Complete") || change.turned("SuccessCriteriaMet"))
        && change.is("Complete")
        && !change.is("SuccessCriteriaMet")
    {
        let detail = "cannot set Complete=True condition without the SuccessCriteriaMet=true condition";
        found.push(Violation::wrong(conditions, detail));
    }
    if !is_finished(change.job) {
        return;
    }
    let has_finished = change.has_finished();
    if change.count("active") > 0 && (has_finished || change.differs("active")) {
        let detail = "active>0 is invalid for finished job";
        found.push(Violation::invalid(at.field("active"), change.count("active"), detail));
    }
    let spec = &change.job["spec"];
    let never_ran = path::bool(spec, "suspend") && path::int(spec, "completions") == Some(0);
    if change.time("startTime").is_none() && (has_finished || change.differs("startTime")) && !never_ran {
        found.push(Violation::required(at.field("startTime"), "startTime is required for finished job"));
    }
    let uncounted = &change.job["status"]["uncountedTerminatedPods"];
    let has_any = ["succeeded", "failed"].iter().any(|list| !path::list(uncounted, list).is_empty());
    if has_any && (has_finished || change.differs("uncountedTerminatedPods")) {
        let detail = "must be empty for finished job";
        found.push(Violation::invalid(at.field("uncountedTerminatedPods"), uncounted, detail));
    }
}

fn indexes(change: &Change<'_>, at: At<'_>, found: &mut Found) {
    let spec = &change.job["spec"];
    let (at_completed, at_failed) = (at.field("completedIndexes"), at.field("failedIndexes"));
    let completed = change.indexes("completedIndexes").unwrap_or_default();
    let failed = change.indexes("failedIndexes");
    let changes = (change.differs("completedIndexes"), change.differs("failedIndexes"));
    let completions = path::int(spec, "completions");
    let has_limit = spec.get("backoffLimitPerIndex").is_some();
    let wrong = |text: &str| completions.and_then(|all| job_indexes::count(text, all).err());
    if let Some(wrong) = wrong(completed).filter(|_| changes.0) {
        let detail = format!("error parsing completedIndexes: {wrong}");
        found.push(Violation::invalid(at_completed, completed, detail));
    }
    if let Some(failed) = failed.filter(|_| changes.1 && has_limit)
        && let Some(wrong) = wrong(failed)
    {
        let detail = format!("error parsing failedIndexes: {wrong}");
        found.push(Violation::invalid(at_failed, failed, detail));
    }
    if changes.0 && !completed.is_empty() && path::text(spec, "completionMode") != "Indexed" {
        let detail = "cannot set non-empty completedIndexes when non-indexed completion mode";
        found.push(Violation::invalid(at_completed, completed, detail));
    }
    let Some(failed) = failed else { return };
    if changes.1 && !has_limit {
        let detail = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        found.push(Violation::invalid(at_failed, failed, detail));
    }
    if (changes.0 || changes.1)
        && let Some(index) = completions.and_then(|all| job_indexes::overlap(completed, failed, all))
    {
        let detail = format!("failedIndexes and completedIndexes overlap at index: {index}");
        found.push(Violation::invalid(at_failed, failed, detail));
    }
}

fn criteria(change: &Change<'_>, at: At<'_>, found: &mut Found) {
    let at = at.field("conditions");
    for other in ["Failed", "FailureTarget"] {
        if change.is("SuccessCriteriaMet") && change.is(other) {
            let detail = format!("cannot set SuccessCriteriaMet=True and {other}=true conditions");
            found.push(Violation::wrong(at, detail));
        }
    }
    let has_policy = path::get(change.job, "spec.successPolicy").is_some();
    if has_policy && !change.is("SuccessCriteriaMet") && change.is("Complete") {
        let detail = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
        found.push(Violation::wrong(at, detail));
    }
}

/// What is not taken back.
fn kept(change: &Change<'_>, at: At<'_>, found: &mut Found) {
    let (job, old, conditions) = (change.job, change.old, at.field("conditions"));
    for kind in ["Failed", "Complete", "FailureTarget"] {
        if is_true(old, kind) && !change.is(kind) {
            let detail = format!("cannot disable the terminal {kind}=True condition");
            found.push(Violation::wrong(conditions, detail));
        }
    }
    let spec = &job["spec"];
    // An indexed job whose completions are its parallelism may be made smaller.
    let shrinks =
        path::text(spec, "completionMode") == "Indexed" && spec["completions"] == spec["parallelism"];
    for (field, is_free) in [("failed", false), ("succeeded", shrinks)] {
        let before = path::int(&old["status"], field).unwrap_or_default();
        if change.count(field) < before && !is_free {
            let detail = format!("cannot decrease the {field} counter");
            found.push(Violation::invalid(at.field(field), change.count(field), detail));
        }
    }
    let (status, before) = (&job["status"], &old["status"]);
    let (end, old_end) = (status.get("completionTime"), before.get("completionTime"));
    if let (Some(end), Some(before)) = (end, old_end)
        && end != before
    {
        found.push(Violation::immutable(at.field("completionTime"), end));
    }
    let mut now = path::list(status, "conditions").iter();
    let is_resumed = is_true(old, "Suspended")
        && now.any(|one| path::text(one, "type") == "Suspended" && path::text(one, "status") == "False");
    if before.get("startTime").is_some()
        && change.differs("startTime")
        && !is_resumed
        && !path::bool(spec, "suspend")
    {
        let detail = "field is immutable for unsuspended job once set";
        let shown = status.get("startTime").unwrap_or(&Value::Null);
        found.push(Violation::invalid(at.field("startTime"), shown, detail));
    }
    if is_true(old, "SuccessCriteriaMet") && !change.is("SuccessCriteriaMet") {
        found.push(Violation::wrong(conditions, "cannot disable the SuccessCriteriaMet=True condition"));
    }
    if is_true(old, "Complete") && !is_true(old, "SuccessCriteriaMet") && change.is("SuccessCriteriaMet") {
        let detail = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
        found.push(Violation::wrong(conditions, detail));
    }
}
