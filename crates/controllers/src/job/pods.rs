//! How many pods a Job should run now, and what they look like.

use std::collections::BTreeSet;

use kinds::PODS;
use plan::Write;
use serde_json::{Value, json};

use super::indexes::INDEX;
use super::{BURST, FINALIZER, KIND, Run, end, index_of};
use crate::naming::Names;
use crate::views::Pod;
use crate::writes;

pub fn manage(run: &mut Run) {
    let mut active = run.active();
    if run.is_indexed() {
        let surplus = surplus_of_indexes(run, &active);
        active.retain(|pod| !surplus.iter().any(|other| other.object.key == pod.object.key));
        delete(run, surplus);
    }
    let wanted = wanted_active(run, &active);
    let have = i64::try_from(active.len()).unwrap_or(i64::MAX);
    if have > wanted {
        // The least useful first: not bound, not running, not ready, young.
        active.sort_by_key(|pod| {
            (
                pod.node().is_some(),
                pod.status.phase == "Running",
                pod.is_ready(),
                std::cmp::Reverse(pod.object.meta.creation_timestamp),
            )
        });
        active.truncate(usize::try_from(have - wanted).unwrap_or(0));
        delete(run, active);
    } else {
        create(run, &active, wanted - have);
    }
}

fn wanted_active(run: &Run, active: &[Pod]) -> i64 {
    let noted = i64::try_from(run.new.uncounted_terminated_pods.succeeded.len()).unwrap_or(0);
    let succeeded = run.new.succeeded + noted;
    let active = i64::try_from(active.len()).unwrap_or(i64::MAX);
    match run.spec.completions {
        // One success ends a work queue: what runs may end, nothing new comes.
        None if succeeded > 0 => active.min(run.parallelism()),
        None => run.parallelism(),
        Some(completions) => {
            let failed =
                if run.spec.backoff_limit_per_index.is_some() { run.failed_indexes().len() } else { 0 };
            run.parallelism().min(completions - succeeded - failed).max(0)
        }
    }
}

/// Active pods of an index that is done, that another pod has, or that is none.
fn surplus_of_indexes(run: &Run, active: &[Pod]) -> Vec<Pod> {
    let (completed, failed) = (run.completed(), run.failed_indexes());
    let mut taken = BTreeSet::new();
    let is_surplus = |pod: &&Pod| match index_of(pod) {
        Some(index) if Some(index) < run.spec.completions && index >= 0 => {
            completed.contains(index) || failed.contains(index) || !taken.insert(index)
        }
        _ => true,
    };
    active.iter().filter(is_surplus).cloned().collect()
}

pub fn delete(run: &mut Run, pods: Vec<Pod>) {
    for pod in pods.iter().take(BURST) {
        run.plan.write(writes::delete(&pod.object));
        let message = format!("Deleted pod: {}", pod.name());
        run.event(false, "SuccessfulDelete", message);
    }
}

fn create(run: &mut Run, active: &[Pod], mut missing: i64) {
    if run.spec.pod_replacement_policy.as_deref() == Some("Failed") || run.spec.pod_failure_policy.is_some() {
        let going = run.pods.iter().filter(|pod| pod.is_deleting() && !pod.is_finished()).count();
        missing -= i64::try_from(going).unwrap_or(0);
    }
    let missing = usize::try_from(missing).unwrap_or(0).min(BURST);
    if missing == 0 {
        return;
    }
    let per_index = run.spec.backoff_limit_per_index.is_some();
    if !per_index && let Some(until) = end::backoff_until(run, None) {
        run.plan.wake(until);
        return;
    }
    let indexes: Vec<Option<i64>> =
        if run.is_indexed() { free_indexes(run, active, missing, per_index) } else { vec![None; missing] };
    let mut names = Names::new(run.snapshot, PODS, &run.job.key.namespace);
    for index in indexes {
        let prefix = match index {
            Some(index) => format!("{}-{index}-", run.job.key.name),
            None => format!("{}-", run.job.key.name),
        };
        let name = names.next(&prefix, &run.job.meta.uid);
        let object = pod(run, &name, &prefix, index);
        run.plan.write(Write::Create { resource: PODS, object });
        run.event(false, "SuccessfulCreate", format!("Created pod: {name}"));
    }
}

/// The lowest indexes that nothing has done or does.
fn free_indexes(run: &mut Run, active: &[Pod], count: usize, per_index: bool) -> Vec<Option<i64>> {
    let (completed, failed) = (run.completed(), run.failed_indexes());
    let busy: BTreeSet<i64> = active.iter().filter_map(index_of).collect();
    let mut free = Vec::new();
    for index in 0..run.spec.completions.unwrap_or(0) {
        if free.len() == count {
            break;
        }
        if completed.contains(index) || failed.contains(index) || busy.contains(&index) {
            continue;
        }
        match end::backoff_until(run, Some(index)).filter(|_| per_index) {
            Some(until) => run.plan.wake(until),
            None => free.push(Some(index)),
        }
    }
    free
}

fn pod(run: &Run, name: &str, prefix: &str, index: Option<i64>) -> Value {
    let mut pod =
        writes::pod_of(&run.spec.template, &run.job.key.namespace, name, KIND.controller_ref(run.job));
    pod["metadata"]["generateName"] = prefix.into();
    let mut finalizers = pod["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    if !finalizers.iter().any(|held| held == FINALIZER) {
        finalizers.push(FINALIZER.into());
    }
    pod["metadata"]["finalizers"] = finalizers.into();
    let Some(index) = index else { return pod };
    let text = index.to_string();
    pod["metadata"]["annotations"][INDEX] = text.as_str().into();
    pod["metadata"]["labels"][INDEX] = text.as_str().into();
    if run.spec.backoff_limit_per_index.is_some() {
        let failures = end::failure_count(run, index).to_string();
        pod["metadata"]["annotations"][end::FAILURE_COUNT] = failures.into();
    }
    // Without the dash and the random end: what other indexes can know.
    if pod["spec"]["hostname"].as_str().is_none_or(str::is_empty) {
        pod["spec"]["hostname"] = prefix.trim_end_matches('-').into();
    }
    for containers in ["initContainers", "containers"] {
        let list = pod["spec"].get_mut(containers).and_then(Value::as_array_mut);
        list.into_iter().flatten().for_each(tell_index);
    }
    pod
}

fn tell_index(container: &mut Value) {
    const NAME: &str = "JOB_COMPLETION_INDEX";
    let env = container.get("env").and_then(Value::as_array);
    if env.is_some_and(|env| env.iter().any(|one| one["name"] == NAME)) {
        return;
    }
    let mut env = env.cloned().unwrap_or_default();
    let path = format!("metadata.labels['{INDEX}']");
    env.push(json!({"name": NAME, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}));
    container["env"] = env.into();
}
