//! Runs pods until enough of them have succeeded.
//!
//! Every pod of a Job carries a finalizer, so that none vanishes uncounted. A finished pod goes through three runs: its uid is noted in
//! `status.uncountedTerminatedPods` and then its finalizer is taken off (one plan, in this order); when the finalizer is gone, it moves
//! from the note into the counters. A crash between any two writes loses or doubles nothing.
//!
//! <https://kubernetes.io/docs/concepts/workloads/controllers/job/>, KEP-2307

mod end;
mod indexes;
mod pods;
mod tracking;

use std::sync::Arc;

use kinds::{JOBS, PODS};
use object::{Event, Key, Object, Snapshot, Status, Time};
use plan::{Plan, Write};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::ownership::{Kind, own_key, selector_of};
use crate::views::{Condition, Pod, Template, condition, set_condition, status_of, whole_second};
use crate::writes::{event, without_empty, write_status};
use crate::{Controller, Settings, Watch};

use indexes::Indexes;

pub static CONTROLLER: Controller = Controller {
    name: "job-controller",
    user: "job-controller",
    watches: &[Watch { resource: JOBS, keys: own_key }, Watch { resource: PODS, keys: of_pod }],
    reconcile,
    refused: Some(refused),
    resync_secs: None,
};

const KIND: Kind = Kind { api_version: "batch/v1", kind: "Job", resource: JOBS };
const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// Pods made, deleted or counted by one plan.
const BURST: usize = 500;

#[derive(Deserialize)]
struct View {
    spec: Spec,
    #[serde(default)]
    status: JobStatus,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    parallelism: Option<i64>,
    completions: Option<i64>,
    backoff_limit: Option<i64>,
    backoff_limit_per_index: Option<i64>,
    max_failed_indexes: Option<i64>,
    active_deadline_seconds: Option<i64>,
    #[serde(default)]
    completion_mode: String,
    #[serde(default)]
    suspend: bool,
    #[serde(default)]
    managed_by: Option<String>,
    #[serde(default)]
    pod_replacement_policy: Option<String>,
    #[serde(default)]
    pod_failure_policy: Option<end::FailurePolicy>,
    #[serde(default)]
    success_policy: Option<end::SuccessPolicy>,
    #[serde(default)]
    template: Template,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct JobStatus {
    conditions: Vec<Condition>,
    start_time: Option<Time>,
    completion_time: Option<Time>,
    succeeded: i64,
    failed: i64,
    completed_indexes: String,
    failed_indexes: Option<String>,
    uncounted_terminated_pods: Uncounted,
}

/// Uids of pods that ended and may still have their finalizer.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Uncounted {
    succeeded: Vec<Box<str>>,
    failed: Vec<Box<str>>,
}

/// What one run works with.
struct Run<'a> {
    snapshot: &'a Snapshot,
    job: &'a Arc<Object>,
    spec: Spec,
    old: JobStatus,
    /// The status that is going to be.
    new: JobStatus,
    pods: Vec<Pod>,
    now: Time,
    plan: Plan,
}

fn of_pod(snapshot: &Snapshot, event: &Event) -> Vec<Key> {
    KIND.keys_of_dependent(snapshot, event)
}

fn reconcile(snapshot: &Snapshot, key: &Key, now: Time, _: &Settings) -> Plan {
    let mut plan = Plan::default();
    let Some(job) = snapshot.get(key) else {
        tracking::release_pods_without_job(snapshot, key, &mut plan);
        return plan;
    };
    let Ok(View { spec, status }) = job.decode() else { return plan };
    if spec.managed_by.as_deref().is_some_and(|manager| manager != "kubernetes.io/job-controller") {
        return plan;
    }
    let Some(selector) = selector_of(job) else { return plan };
    let claimed = KIND.claim(snapshot, job, &selector, PODS, |pod| !pod.meta.is_deleting(), &mut plan);
    let pods = claimed.iter().map(Pod::read).collect();
    let mut run = Run { snapshot, job, spec, new: status.clone(), old: status, pods, now, plan };
    if run.is_finished() || job.meta.is_deleting() {
        tracking::release_all(&mut run);
    } else {
        run.work();
    }
    run.plan
}

impl Run<'_> {
    fn is_finished(&self) -> bool {
        let ended = |kind| condition(&self.old.conditions, kind).is_some_and(|held| held.status == "True");
        ended("Complete") || ended("Failed")
    }

    fn is_indexed(&self) -> bool {
        self.spec.completion_mode == "Indexed"
    }

    fn has(&self, kind: &str) -> bool {
        condition(&self.new.conditions, kind).is_some_and(|held| held.status == "True")
    }

    fn parallelism(&self) -> i64 {
        self.spec.parallelism.unwrap_or(1)
    }

    fn completed(&self) -> Indexes {
        Indexes::parse(&self.new.completed_indexes, self.spec.completions)
    }

    fn failed_indexes(&self) -> Indexes {
        Indexes::parse(self.new.failed_indexes.as_deref().unwrap_or_default(), self.spec.completions)
    }

    fn active(&self) -> Vec<Pod> {
        self.pods.iter().filter(|pod| pod.is_active()).cloned().collect()
    }

    fn event(&mut self, warning: bool, reason: &'static str, message: impl Into<String>) {
        event(&mut self.plan, self.job, &KIND, warning, reason, message);
    }

    fn set(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let mut new = Condition::new(kind, status, reason, message, self.now);
        new.last_probe_time = Some(whole_second(self.now));
        set_condition(&mut self.new.conditions, new);
    }

    /// One step of a Job that has not ended: count what ended, say what follows, then make or delete pods.
    fn work(&mut self) {
        if self.new.start_time.is_none() && !self.spec.suspend {
            self.new.start_time = Some(whole_second(self.now));
        }
        let freed = tracking::count(self);
        end::decide(self);
        let ending = self.has("FailureTarget") || self.has("SuccessCriteriaMet");
        if !ending {
            self.suspend_or_resume();
        }
        let waiting = self.pods.iter().any(|pod| !pod.is_finished());
        if ending && !waiting && freed.is_empty() && self.is_all_counted() {
            end::conclude(self);
        }
        self.tell();
        tracking::take_finalizers(self, &freed);
        if ending || self.spec.suspend {
            pods::delete(self, self.active());
        } else {
            pods::manage(self);
        }
    }

    fn is_all_counted(&self) -> bool {
        let uncounted = &self.new.uncounted_terminated_pods;
        uncounted.succeeded.is_empty() && uncounted.failed.is_empty()
    }

    fn suspend_or_resume(&mut self) {
        let is_told = self.has("Suspended");
        if self.spec.suspend && !is_told {
            self.set("Suspended", "True", "JobSuspended", "Job suspended");
            self.event(false, "Suspended", "Job suspended");
            self.new.start_time = None;
        } else if !self.spec.suspend && is_told {
            self.set("Suspended", "False", "JobResumed", "Job resumed");
            self.event(false, "Resumed", "Job resumed");
            // The deadline counts anew.
            self.new.start_time = Some(whole_second(self.now));
        }
    }

    fn tell(&mut self) {
        let count = |is: fn(&Pod) -> bool| self.pods.iter().filter(|pod| is(pod)).count();
        let uncounted = &self.new.uncounted_terminated_pods;
        let uncounted =
            without_empty(json!({"succeeded": uncounted.succeeded, "failed": uncounted.failed}), &[]);
        let mut new = without_empty(
            json!({
                "conditions": self.new.conditions,
                "startTime": self.new.start_time,
                "completionTime": self.new.completion_time,
                "active": count(Pod::is_active),
                "succeeded": self.new.succeeded,
                "failed": self.new.failed,
                "completedIndexes": self.new.completed_indexes,
            }),
            &[],
        );
        new["terminating"] = count(|pod| pod.is_deleting() && !pod.is_finished()).into();
        new["ready"] = count(|pod| pod.is_active() && pod.is_ready()).into();
        new["uncountedTerminatedPods"] = uncounted;
        if let Some(failed) = &self.new.failed_indexes {
            new["failedIndexes"] = failed.as_str().into();
        }
        write_status(&mut self.plan, self.job, &status_of(self.job), new);
    }
}

fn refused(snapshot: &Snapshot, key: &Key, _: Time, write: &Write, refusal: &Status) -> Plan {
    let mut plan = Plan::default();
    let Some(job) = snapshot.get(key) else { return plan };
    match write {
        Write::Create { resource: PODS, .. } => {
            event(&mut plan, job, &KIND, true, "FailedCreate", format!("Error creating: {refusal}"));
        }
        Write::Delete { .. } => {
            event(&mut plan, job, &KIND, true, "FailedDelete", format!("Error deleting: {refusal}"));
        }
        _ => {}
    }
    plan
}

/// The index of a pod of an Indexed Job.
fn index_of(pod: &Pod) -> Option<i64> {
    pod.annotations.get(indexes::INDEX)?.parse().ok()
}

/// A finalizer list without ours, for a merge patch.
fn without_finalizer(pod: &Pod) -> Value {
    let held = pod.object.meta.finalizers.iter().map(|name| &**name);
    let kept: Vec<&str> = held.filter(|name| *name != FINALIZER).collect();
    if kept.is_empty() { Value::Null } else { json!(kept) }
}
