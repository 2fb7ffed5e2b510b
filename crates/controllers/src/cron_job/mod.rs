//! Makes Jobs on a schedule.
//!
//! <https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/>

mod schedule;

use std::sync::Arc;

use jiff::tz::TimeZone;
use kinds::{CRON_JOBS, JOBS};
use object::{Event, Key, Object, Snapshot, Status, Time};
use plan::{Expect, Plan, Propagation, Write};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::ownership::{Kind, own_key};
use crate::views::{Condition, Template, status_of};
use crate::writes::{event, without_empty, write_status};
use crate::{Controller, Settings, Watch};

use schedule::Schedule;

pub static CONTROLLER: Controller = Controller {
    name: "cronjob-controller",
    user: "cronjob-controller",
    watches: &[Watch { resource: CRON_JOBS, keys: own_key }, Watch { resource: JOBS, keys: of_job }],
    reconcile,
    refused: Some(refused),
    resync_secs: None,
};

const KIND: Kind = Kind { api_version: "batch/v1", kind: "CronJob", resource: CRON_JOBS };
/// More missed times than this are told, in case the clock is wrong.
const MANY_MISSED: usize = 100;

#[derive(Deserialize)]
struct View {
    spec: Spec,
    #[serde(default)]
    status: CronStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    schedule: String,
    time_zone: Option<String>,
    starting_deadline_seconds: Option<i64>,
    #[serde(default)]
    concurrency_policy: String,
    #[serde(default)]
    suspend: bool,
    job_template: Template,
    successful_jobs_history_limit: Option<i64>,
    failed_jobs_history_limit: Option<i64>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct CronStatus {
    active: Vec<Reference>,
    last_schedule_time: Option<Time>,
    last_successful_time: Option<Time>,
}

#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Reference {
    #[serde(skip_serializing_if = "String::is_empty")]
    api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    uid: String,
}

/// A Job of this CronJob.
struct Child {
    object: Arc<Object>,
    /// `Complete` or `Failed`, and when.
    end: Option<(String, Option<Time>)>,
    completion_time: Option<Time>,
}

struct Run<'a> {
    snapshot: &'a Snapshot,
    cron: &'a Arc<Object>,
    spec: Spec,
    status: CronStatus,
    now: Time,
    plan: Plan,
}

fn of_job(snapshot: &Snapshot, event: &Event) -> Vec<Key> {
    KIND.keys_of_dependent(snapshot, event).into_iter().take(1).collect()
}

fn reconcile(snapshot: &Snapshot, key: &Key, now: Time, _: &Settings) -> Plan {
    let Some(cron) = snapshot.get(key) else { return Plan::default() };
    let Ok(View { spec, status }) = cron.decode() else { return Plan::default() };
    let mut run = Run { snapshot, cron, spec, status, now, plan: Plan::default() };
    let owned = snapshot.owned_by(&cron.meta.uid).filter(|owned| owned.key.resource == JOBS);
    let children: Vec<Child> = owned.map(Child::read).collect();
    run.follow(&children);
    run.limit_history(&children);
    if !cron.meta.is_deleting() && !run.spec.suspend {
        run.start_if_due();
    }
    run.tell();
    run.plan
}

impl Child {
    fn read(object: &Arc<Object>) -> Self {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Wire {
            status: JobStatus,
        }
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct JobStatus {
            conditions: Vec<Condition>,
            completion_time: Option<Time>,
        }
        let Wire { status } = object.decode().unwrap_or_default();
        let is_end =
            |held: &&Condition| matches!(held.kind.as_str(), "Complete" | "Failed") && held.status == "True";
        let end = status.conditions.iter().find(is_end);
        Self {
            object: object.clone(),
            end: end.map(|end| (end.kind.clone(), end.last_transition_time)),
            completion_time: status.completion_time,
        }
    }

    fn has_ended_as(&self, kind: &str) -> bool {
        self.end.as_ref().is_some_and(|(end, _)| end == kind)
    }
}

impl Run<'_> {
    fn event(&mut self, warning: bool, reason: &'static str, message: impl Into<String>) {
        event(&mut self.plan, self.cron, &KIND, warning, reason, message);
    }

    /// Strikes Jobs that ended or vanished off the list of active ones.
    fn follow(&mut self, children: &[Child]) {
        for child in children {
            let name = &child.object.key.name;
            let is_listed = self.status.active.iter().any(|active| *active.uid == *child.object.meta.uid);
            match &child.end {
                None if !is_listed => {
                    // A Job of ours that is missing from the list: the status write after its creation was lost.
                    self.status.active.push(reference(&child.object));
                    continue;
                }
                Some((end, _)) if is_listed => {
                    self.event(
                        false,
                        "SawCompletedJob",
                        format!("Saw completed job: {name}, condition: {end}"),
                    );
                    self.status.active.retain(|active| *active.uid != *child.object.meta.uid);
                }
                _ => {}
            }
            if child.has_ended_as("Complete") {
                let done = child.completion_time.or(child.end.as_ref().and_then(|(_, at)| *at));
                self.status.last_successful_time = self.status.last_successful_time.max(done);
            }
        }
        let is_there =
            |active: &Reference| children.iter().any(|child| *child.object.meta.uid == *active.uid);
        let (kept, missing): (Vec<Reference>, Vec<Reference>) =
            self.status.active.drain(..).partition(is_there);
        self.status.active = kept;
        for active in missing {
            self.event(false, "MissingJob", format!("Active job went missing: {}", active.name));
        }
    }

    fn limit_history(&mut self, children: &[Child]) {
        let limits = [
            ("Complete", self.spec.successful_jobs_history_limit.unwrap_or(3)),
            ("Failed", self.spec.failed_jobs_history_limit.unwrap_or(1)),
        ];
        for (kind, limit) in limits {
            let mut ended: Vec<&Child> = children
                .iter()
                .filter(|child| child.has_ended_as(kind) && !child.object.meta.is_deleting())
                .collect();
            ended.sort_by_key(|child| (child.object.meta.creation_timestamp, child.object.key.clone()));
            let surplus = ended.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
            for child in ended.into_iter().take(surplus) {
                self.delete_job(&child.object);
            }
        }
    }

    fn delete_job(&mut self, job: &Object) {
        self.plan.write(Write::Delete {
            key: job.key.clone(),
            expect: Expect::same(job),
            grace_seconds: None,
            propagation: Some(Propagation::Background),
        });
        self.event(false, "SuccessfulDelete", format!("Deleted job {}", job.key.name));
    }

    fn start_if_due(&mut self) {
        let Some(schedule) = self.schedule() else { return };
        let since = self.earliest();
        let (due, missed) = schedule.last_between(since, self.now);
        if let Some(next) = schedule.next_after(self.now) {
            self.plan.wake(next);
        }
        let Some(due) = due else { return };
        if missed > MANY_MISSED {
            let message = format!(
                "too many missed start times: {missed}. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
            );
            self.event(true, "TooManyMissedTimes", message);
        }
        let is_too_late =
            self.spec.starting_deadline_seconds.is_some_and(|most| due.plus_secs(most) < self.now);
        if is_too_late {
            let message = format!("Missed scheduled time to start a job: {}", schedule.rfc1123(due));
            self.event(true, "MissSchedule", message);
            return;
        }
        self.start(&schedule, due);
    }

    /// The text and zone of the spec, understood; or the reason why not, as an event.
    fn schedule(&mut self) -> Option<Schedule> {
        let zone = match self.spec.time_zone.clone() {
            None => TimeZone::UTC,
            Some(name) => match TimeZone::get(&name) {
                Ok(zone) => zone,
                Err(error) => {
                    self.event(true, "UnknownTimeZone", format!("invalid timeZone: \"{name}\": {error}"));
                    return None;
                }
            },
        };
        match Schedule::parse(&self.spec.schedule, zone) {
            Ok(schedule) => Some(schedule),
            Err(error) => {
                let message = format!("unparseable schedule: \"{}\" : {error}", self.spec.schedule);
                self.event(true, "UnparseableSchedule", message);
                None
            }
        }
    }

    /// From when on a time counts as missed.
    fn earliest(&self) -> Time {
        let created = self.cron.meta.creation_timestamp.unwrap_or(self.now);
        let since = self.status.last_schedule_time.unwrap_or(created);
        let bound = self.spec.starting_deadline_seconds.map(|seconds| self.now.plus_secs(-seconds));
        bound.map_or(since, |bound| bound.max(since))
    }

    fn start(&mut self, schedule: &Schedule, due: Time) {
        let name = job_name(&self.cron.key.name, due);
        let is_started = self.status.active.iter().any(|active| active.name == name);
        if is_started || self.status.last_schedule_time.is_some_and(|last| last >= due) {
            return;
        }
        let key = Key::new(JOBS, self.cron.key.namespace.clone(), name.as_str());
        if let Some(known) = self.snapshot.get(&key) {
            // Made already; only the note of it is missing.
            if known.meta.controller().is_some_and(|owner| owner.uid == self.cron.meta.uid) {
                self.status.last_schedule_time = Some(due);
            }
            return;
        }
        if !self.status.active.is_empty() {
            match self.spec.concurrency_policy.as_str() {
                "Forbid" => {
                    let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
                    self.event(false, "JobAlreadyActive", message);
                    return;
                }
                "Replace" => self.replace(),
                _ => {}
            }
        }
        let object = self.job(schedule, &name, due);
        self.plan.write(Write::Create { resource: JOBS, object });
        self.event(false, "SuccessfulCreate", format!("Created job {name}"));
        self.status.last_schedule_time = Some(due);
    }

    fn replace(&mut self) {
        let active = std::mem::take(&mut self.status.active);
        for reference in active {
            if let Some(job) = self.snapshot.find(JOBS, &self.cron.key.namespace, &reference.name) {
                self.delete_job(job);
            }
        }
    }

    fn job(&self, schedule: &Schedule, name: &str, due: Time) -> Value {
        let template = &self.spec.job_template.0;
        let mut annotations = template.pointer("/metadata/annotations").cloned().unwrap_or_else(|| json!({}));
        annotations["batch.kubernetes.io/cronjob-scheduled-timestamp"] = schedule.rfc3339(due).into();
        let mut metadata = json!({
            "namespace": &*self.cron.key.namespace, "name": name, "annotations": annotations,
            "ownerReferences": [KIND.controller_ref(self.cron)],
        });
        if let Some(labels) = template.pointer("/metadata/labels") {
            metadata["labels"] = labels.clone();
        }
        let spec = template.get("spec").cloned().unwrap_or_default();
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec})
    }

    fn tell(&mut self) {
        let new = without_empty(
            json!({
                "active": self.status.active,
                "lastScheduleTime": self.status.last_schedule_time,
                "lastSuccessfulTime": self.status.last_successful_time,
            }),
            &[],
        );
        write_status(&mut self.plan, self.cron, &status_of(self.cron), new);
    }
}

/// Named after its minute, so that no time is served twice.
fn job_name(cron: &str, due: Time) -> String {
    format!("{cron}-{}", due.as_secs() / 60)
}

fn reference(job: &Object) -> Reference {
    Reference {
        api_version: "batch/v1".into(),
        kind: "Job".into(),
        name: job.key.name.to_string(),
        namespace: job.key.namespace.to_string(),
        uid: job.meta.uid.to_string(),
    }
}

fn refused(snapshot: &Snapshot, key: &Key, _: Time, write: &Write, refusal: &Status) -> Plan {
    let mut plan = Plan::default();
    let Some(cron) = snapshot.get(key) else { return plan };
    match write {
        Write::Create { .. } => {
            event(&mut plan, cron, &KIND, true, "FailedCreate", format!("Error creating job: {refusal}"));
        }
        Write::Delete { .. } => {
            event(&mut plan, cron, &KIND, true, "FailedDelete", format!("Deleted job: {refusal}"));
        }
        _ => {}
    }
    plan
}
