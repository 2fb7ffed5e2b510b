use object::{Resource, Time};
use schema::{Kind, Strategy, names, path};
use serde_json::{Value, json};

use crate::column::{AGE, NAME, column, human_duration};
use crate::job_validation::validate;
use crate::spec::template;
use crate::spec::warnings;
use crate::{job_validation, row, strategy, subresource};

pub const JOBS: Resource = Resource::new("jobs.batch");

pub static KIND: Kind = Kind {
    resource: JOBS,
    group: "batch",
    version: "v1",
    kind: "Job",
    singular: "job",
    categories: &["all"],
    namespaced: true,
    subresources: &[subresource::STATUS],
    type_name: "batch.v1.Job",
    columns: &[
        NAME,
        column("Status", "string", "How far it is.", |object, _| status_text(object).into()),
        column("Completions", "string", "How many pods have succeeded, of how many.", |object, _| {
            completions(object).into()
        }),
        column("Duration", "string", "How long it took, or has taken so far.", |object, now| {
            duration(object, now)
        }),
        AGE,
        template::CONTAINERS,
        template::IMAGES,
        template::SELECTOR,
    ],
    selectable: &["status.successful"],
    selected: |job, _| Some(path::int(job, "status.succeeded").unwrap_or_default().to_string()),
    strategy: Strategy { orphans_by_default: true, prepare, ..strategy::SPEC_AND_STATUS },
    default,
    validate,
    warn,
    ..row::BASE
};

fn warn(new: &Value, old: Option<&Value>) -> Vec<String> {
    let mut found = job_validation::too_many(&new["spec"], "spec")
        .filter(|_| old.is_none())
        .into_iter()
        .collect::<Vec<_>>();
    found.extend(warnings::of_controller(new, old, "spec.template"));
    found
}

/// The labels by which a job knows its pods: (key, whether it holds the uid or else the name).
pub const POD_LABELS: [(&str, bool); 4] = [
    ("controller-uid", true),
    ("job-name", false),
    ("batch.kubernetes.io/controller-uid", true),
    ("batch.kubernetes.io/job-name", false),
];

fn prepare(job: &mut Value, old: Option<&Value>) {
    if old.is_some() {
        return;
    }
    job["status"] = json!({});
    if path::bool(job, "spec.manualSelector") {
        return;
    }
    let (uid, name) = (job["metadata"]["uid"].clone(), job["metadata"]["name"].clone());
    for (key, is_uid) in POD_LABELS {
        let label = &mut job["spec"]["template"]["metadata"]["labels"][key];
        if label.is_null() {
            *label = if is_uid { uid.clone() } else { name.clone() };
        }
    }
    let selected = &mut job["spec"]["selector"]["matchLabels"]["batch.kubernetes.io/controller-uid"];
    if selected.is_null() {
        *selected = uid;
    }
    // As its default has it once the template is complete; upstream judges it before.
    let is_label = names::label_value(path::text(job, "metadata.name")).is_empty();
    if path::members(job, "metadata.labels").next().is_none() && is_label {
        let labels = job["spec"]["template"]["metadata"]["labels"].clone();
        path::set(job, "metadata.labels", labels);
    }
}

fn default(job: &mut Value) {
    template::default(job, "spec.template");
    if path::members(job, "metadata.labels").next().is_none()
        && let Some(labels) = path::get(job, "spec.template.metadata.labels").cloned()
    {
        path::set(job, "metadata.labels", labels);
    }
    let Some(spec) = job.get_mut("spec").filter(|spec| spec.is_object()) else { return };
    if spec.get("parallelism").is_none() {
        path::set_default(spec, "completions", 1);
    }
    path::set_default(spec, "parallelism", 1);
    let limit = if spec.get("backoffLimitPerIndex").is_some() { i32::MAX } else { 6 };
    path::set_default(spec, "backoffLimit", limit);
    path::set_default(spec, "completionMode", "NonIndexed");
    path::set_default(spec, "suspend", false);
    path::set_default(spec, "manualSelector", false);
    let replacement = if spec.get("podFailurePolicy").is_some() { "Failed" } else { "TerminatingOrFailed" };
    path::set_default(spec, "podReplacementPolicy", replacement);
}

fn status_text(job: &Value) -> &'static str {
    let conditions = path::list(job, "status.conditions");
    let is_true = |kind: &str| {
        let first = conditions.iter().find(|one| path::text(one, "type") == kind);
        first.is_some_and(|one| path::text(one, "status") == "True")
    };
    let is_deleting = path::get(job, "metadata.deletionTimestamp").is_some();
    match () {
        () if is_true("Complete") => "Complete",
        () if is_true("Failed") => "Failed",
        () if is_deleting => "Terminating",
        () if is_true("Suspended") => "Suspended",
        () if is_true("FailureTarget") => "FailureTarget",
        () if is_true("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn completions(job: &Value) -> String {
    let succeeded = path::int(job, "status.succeeded").unwrap_or_default();
    match (path::int(job, "spec.completions"), path::int(job, "spec.parallelism").unwrap_or_default()) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        _ => format!("{succeeded}/1"),
    }
}

fn duration(job: &Value, now: Time) -> Value {
    let time = |at: &str| path::text(job, at).parse::<Time>().ok();
    match (time("status.startTime"), time("status.completionTime")) {
        (None, _) => "".into(),
        (Some(start), end) => human_duration(end.unwrap_or(now).secs_since(start)).into(),
    }
}
