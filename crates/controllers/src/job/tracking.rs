//! Counting pods that ended, each exactly once.

use kinds::PODS;
use object::{Key, Snapshot};
use plan::{Expect, Plan, Write};
use serde_json::json;

use super::{BURST, FINALIZER, KIND, Run, index_of, without_finalizer};
use crate::views::Pod;

/// Moves counted pods into the counters, notes newly ended ones, and returns those whose finalizer may go now.
pub fn count(run: &mut Run) -> Vec<Pod> {
    move_into_counters(run);
    let mut freed = Vec::new();
    let mut completed = run.completed();
    let mut failed_indexes = run.failed_indexes();
    for pod in run.pods.clone() {
        if freed.len() >= BURST {
            break;
        }
        if !pod.object.meta.has_finalizer(FINALIZER) || !has_ended(run, &pod) {
            continue;
        }
        let uid = &pod.object.meta.uid;
        let index = index_of(&pod).filter(|index| *index < run.spec.completions.unwrap_or(0));
        let uncounted = &mut run.new.uncounted_terminated_pods;
        let known = uncounted.succeeded.contains(uid) || uncounted.failed.contains(uid);
        match (pod.status.phase.as_str(), index) {
            _ if known => {}
            // An index is its own note: it counts once however often it is seen.
            ("Succeeded", Some(index)) if run.spec.completion_mode == "Indexed" => {
                completed.0.insert(index);
            }
            ("Succeeded", _) if run.spec.completion_mode != "Indexed" => {
                uncounted.succeeded.push(uid.clone())
            }
            ("Succeeded", _) => {}
            _ if super::end::is_ignored(&run.spec, &pod) => {}
            (_, index) => {
                uncounted.failed.push(uid.clone());
                if let Some(index) = index.filter(|_| super::end::exhausts_index(&run.spec, &pod)) {
                    failed_indexes.0.insert(index);
                }
            }
        }
        freed.push(pod);
    }
    if run.is_indexed() {
        run.new.completed_indexes = completed.to_string();
        run.new.succeeded = completed.len();
        if run.spec.backoff_limit_per_index.is_some() {
            run.new.failed_indexes = Some(failed_indexes.to_string());
        }
    }
    freed
}

/// Finished; or on its way out, which counts as a failure unless the Job waits for pods to fail for good before it replaces them.
fn has_ended(run: &Run, pod: &Pod) -> bool {
    let waits =
        run.spec.pod_replacement_policy.as_deref() == Some("Failed") || run.spec.pod_failure_policy.is_some();
    pod.is_finished() || pod.is_deleting() && !waits
}

fn move_into_counters(run: &mut Run) {
    let still_held = |uid: &str| {
        run.pods.iter().any(|pod| *pod.object.meta.uid == *uid && pod.object.meta.has_finalizer(FINALIZER))
    };
    let uncounted = &mut run.new.uncounted_terminated_pods;
    let before = (uncounted.succeeded.len(), uncounted.failed.len());
    uncounted.succeeded.retain(|uid| still_held(uid));
    uncounted.failed.retain(|uid| still_held(uid));
    let moved = |before: usize, after: usize| i64::try_from(before - after).unwrap_or(0);
    run.new.succeeded += moved(before.0, uncounted.succeeded.len());
    run.new.failed += moved(before.1, uncounted.failed.len());
}

/// After the status that notes them.
pub fn take_finalizers(run: &mut Run, freed: &[Pod]) {
    for pod in freed {
        run.plan.write(take_finalizer(pod));
    }
}

fn take_finalizer(pod: &Pod) -> Write {
    Write::Merge {
        key: pod.object.key.clone(),
        expect: Expect::unchanged(&pod.object),
        subresource: "",
        patch: json!({"metadata": {"finalizers": without_finalizer(pod)}}),
    }
}

/// Of a Job that ended or is going away nothing is counted any more.
pub fn release_all(run: &mut Run) {
    let held: Vec<Pod> =
        run.pods.iter().filter(|pod| pod.object.meta.has_finalizer(FINALIZER)).take(BURST).cloned().collect();
    take_finalizers(run, &held);
}

/// Pods that outlived their Job.
pub fn release_pods_without_job(snapshot: &Snapshot, job: &Key, plan: &mut Plan) {
    let was_of_job = |pod: &&std::sync::Arc<object::Object>| {
        pod.meta.has_finalizer(FINALIZER) && KIND.controller_key(pod).as_ref() == Some(job)
    };
    let pods = snapshot.list(PODS, &job.namespace).filter(was_of_job).map(Pod::read);
    plan.writes.extend(pods.take(BURST).map(|pod| take_finalizer(&pod)));
}
