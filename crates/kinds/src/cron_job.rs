use object::Resource;
use schema::{At, Kind, Violation, names, path};
use serde_json::Value;

use crate::column::{AGE, NAME, column, since, text, text_or, wide};
use crate::spec::{
    check::{self, Found},
    template, warnings,
};
use crate::{job_validation, row, strategy, subresource};

pub const CRON_JOBS: Resource = Resource::new("cronjobs.batch");

pub static KIND: Kind = Kind {
    resource: CRON_JOBS,
    group: "batch",
    version: "v1",
    kind: "CronJob",
    singular: "cronjob",
    short_names: &["cj"],
    categories: &["all"],
    namespaced: true,
    subresources: &[subresource::STATUS],
    type_name: "batch.v1.CronJob",
    columns: &[
        NAME,
        column("Schedule", "string", "When it makes jobs, in the form of cron.", |object, _| {
            text(object, "spec.schedule")
        }),
        column("Timezone", "string", "The time zone of its schedule.", |object, _| {
            text_or(object, "spec.timeZone", "<none>")
        }),
        column("Suspend", "boolean", "Whether it makes no jobs for now.", |object, _| {
            match path::get(object, "spec.suspend").and_then(Value::as_bool) {
                None => "<unset>".into(),
                Some(true) => "True".into(),
                Some(false) => "False".into(),
            }
        }),
        column("Active", "integer", "How many of its jobs run.", |object, _| {
            path::list(object, "status.active").len().into()
        }),
        column("Last Schedule", "string", "When it made its last job.", |object, now| {
            since(object, "status.lastScheduleTime", now).unwrap_or_else(|| "<none>".into())
        }),
        AGE,
        wide("Containers", "string", "The names of the containers in its template.", |object, _| {
            template::container_names(path::get(object, "spec.jobTemplate.spec.template"))
        }),
        wide("Images", "string", "The images of the containers in its template.", |object, _| {
            template::images(path::get(object, "spec.jobTemplate.spec.template"))
        }),
        wide("Selector", "string", "Which pods its jobs count as theirs.", |object, _| {
            template::selector_text(path::get(object, "spec.jobTemplate.spec.selector"))
        }),
    ],
    strategy: strategy::SPEC_AND_STATUS,
    name,
    default: |job| template::default(job, "spec.jobTemplate.spec.template"),
    validate,
    warn,
    ..row::BASE
};

fn warn(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut found = warnings::of_controller(new, old, "spec.jobTemplate.spec.template");
    found.extend(
        job_validation::too_many(&new["spec"]["jobTemplate"]["spec"], "spec.jobTemplate.spec")
            .filter(|_| old.is_none()),
    );
    if path::text(new, "spec.schedule").contains("TZ") {
        found.push("cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details".into());
    }
    found
}

/// A job's name is its cron job's and eleven characters more, and must fit a label.
const NAME_MAX: usize = 52;

fn name(text: &str) -> Vec<String> {
    let mut wrong = names::dns_subdomain(text);
    if text.len() > NAME_MAX {
        wrong.push(format!("must be no more than {NAME_MAX} characters"));
    }
    wrong
}

fn validate(cron: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let (spec, at) = (&cron["spec"], At::root("spec"));
    let schedule = path::text(spec, "schedule");
    if schedule.is_empty() {
        found.push(Violation::required(at.field("schedule"), ""));
    } else if let Some(wrong) = crate::spec::schedule::wrong(schedule) {
        found.push(Violation::invalid(at.field("schedule"), schedule, wrong));
    } else if schedule.contains("TZ=") && old.is_none_or(|old| path::text(old, "spec.schedule") != schedule) {
        let detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        found.push(Violation::invalid(at.field("schedule"), schedule, detail));
    }
    time_zone(spec, at.field("timeZone"), &mut found);
    check::one_of(spec, "concurrencyPolicy", &["Allow", "Forbid", "Replace"], at, &mut found);
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        check::not_negative(spec, field, at, &mut found);
    }
    let (job, at) = (&spec["jobTemplate"]["spec"], At::root("spec.jobTemplate.spec"));
    if job.get("selector").is_some() {
        let detail = "`selector` will be auto-generated";
        found.push(Violation::invalid(at.field("selector"), &job["selector"], detail));
    }
    if path::bool(job, "manualSelector") {
        found.push(Violation::not_supported(at.field("manualSelector"), true, &["nil", "false"]));
    }
    crate::job_validation::spec(job, at, &mut found);
    found
}

/// A name in the very letters of the database.
fn is_known(zone: &str) -> bool {
    jiff::tz::TimeZone::get(zone).is_ok_and(|found| found.iana_name() == Some(zone))
}

fn time_zone(spec: &Value, at: At<'_>, found: &mut Found) {
    let Some(zone) = spec.get("timeZone").and_then(Value::as_str) else { return };
    if zone.is_empty() {
        found.push(Violation::invalid(at, zone, "timeZone must be nil or non-empty string"));
    } else if zone.eq_ignore_ascii_case("local") {
        let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        found.push(Violation::invalid(at, zone, detail));
    } else if !is_known(zone) {
        found.push(Violation::invalid(at, zone, format!("unknown time zone {zone}")));
    }
}
