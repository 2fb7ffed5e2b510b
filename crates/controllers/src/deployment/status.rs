//! What a Deployment reports: counts, and the conditions Available, Progressing and ReplicaFailure.

use object::Time;
use serde_json::json;

use super::{Deployment, DeploymentStatus, Run};
use crate::views::{self, Condition, set_condition, whole_second};
use crate::writes::{wake_if_later, without_empty, write_status};

pub fn condition(kind: &str, status: &str, reason: &str, message: String, now: Time) -> Condition {
    Condition {
        last_update_time: Some(whole_second(now)),
        ..Condition::new(kind, status, reason, message, now)
    }
}

pub fn progressing(deployment: &Deployment) -> Option<&Condition> {
    views::condition(&deployment.status.conditions, "Progressing")
}

/// Everything is on the new template and available.
pub fn is_complete(run: &Run) -> bool {
    complete(run.deployment, &count(run))
}

fn complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = deployment.replicas();
    status.updated_replicas == wanted && status.replicas == wanted && status.available_replicas == wanted
}

fn count(run: &Run) -> DeploymentStatus {
    DeploymentStatus {
        replicas: run.all().map(|set| set.status.replicas).sum(),
        updated_replicas: run.new.as_ref().map_or(0, |new| new.status.replicas),
        ready_replicas: run.all().map(|set| set.status.ready_replicas).sum(),
        available_replicas: run.all().map(|set| set.status.available_replicas).sum(),
        collision_count: run.deployment.status.collision_count,
        conditions: run.deployment.status.conditions.clone(),
    }
}

/// Writes the status, if it is another than before, and asks to be woken when a deadline may pass.
pub fn tell(run: &mut Run) {
    let deployment = run.deployment;
    let mut status = count(run);
    tell_available(run, &mut status);
    tell_progress(run, &mut status);
    tell_failure(run, &mut status);
    wake_for_deadline(run, &status);
    let specified: i64 = run.all().map(|set| set.replicas).sum();
    let terminating: i64 = run.all().filter_map(|set| set.status.terminating_replicas).sum();
    let mut new = without_empty(
        json!({
            "observedGeneration": deployment.object.meta.generation,
            "replicas": status.replicas,
            "updatedReplicas": status.updated_replicas,
            "readyReplicas": status.ready_replicas,
            "availableReplicas": status.available_replicas,
            "unavailableReplicas": (specified - status.available_replicas).max(0),
            "conditions": status.conditions,
        }),
        &[],
    );
    new["terminatingReplicas"] = terminating.into();
    if let Some(count) = status.collision_count {
        new["collisionCount"] = count.into();
    }
    write_status(&mut run.plan, &deployment.object, &deployment.old_status, new);
}

/// A condition that says the same as before stays as it is, with its times.
fn put(conditions: &mut Vec<Condition>, new: Condition) {
    let same = |old: &Condition| old.status == new.status && old.reason == new.reason;
    if !views::condition(conditions, &new.kind).is_some_and(same) {
        set_condition(conditions, new);
    }
}

fn tell_available(run: &Run, status: &mut DeploymentStatus) {
    let needed = run.deployment.replicas() - run.deployment.max_unavailable();
    let (state, reason, message) = if status.available_replicas >= needed {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    put(&mut status.conditions, condition("Available", state, reason, message.into(), run.now));
}

fn tell_progress(run: &Run, status: &mut DeploymentStatus) {
    let deployment = run.deployment;
    if !deployment.has_progress_deadline() {
        status.conditions.retain(|held| held.kind != "Progressing");
        return;
    }
    let held = progressing(deployment).cloned();
    if held.is_none()
        && let Some(new) = &run.new
    {
        let message = format!("Found new replica set \"{}\"", new.name());
        put(&mut status.conditions, condition("Progressing", "True", "FoundNewReplicaSet", message, run.now));
    }
    let was_complete = held.as_ref().is_some_and(|held| held.reason == "NewReplicaSetAvailable");
    if deployment.spec.paused || was_complete && status.replicas == status.updated_replicas {
        return;
    }
    let subject = match &run.new {
        Some(new) => format!("ReplicaSet \"{}\"", new.name()),
        None => format!("Deployment \"{}\"", deployment.name()),
    };
    let told = |state, reason, rest: &str| {
        condition("Progressing", state, reason, format!("{subject} {rest}"), run.now)
    };
    if complete(deployment, status) {
        let new = told("True", "NewReplicaSetAvailable", "has successfully progressed.");
        put(&mut status.conditions, new);
    } else if has_progressed(&deployment.status, status) {
        set_condition(&mut status.conditions, told("True", "ReplicaSetUpdated", "is progressing."));
    } else if has_timed_out(deployment, run.now) {
        let new = told("False", "ProgressDeadlineExceeded", "has timed out progressing.");
        put(&mut status.conditions, new);
    }
}

fn has_progressed(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    new.updated_replicas > old.updated_replicas
        || new.replicas - new.updated_replicas < old.replicas - old.updated_replicas
        || new.ready_replicas > old.ready_replicas
        || new.available_replicas > old.available_replicas
}

fn has_timed_out(deployment: &Deployment, now: Time) -> bool {
    match progressing(deployment) {
        None => false,
        Some(held) if held.reason == "NewReplicaSetAvailable" => false,
        Some(held) if held.reason == "ProgressDeadlineExceeded" => true,
        Some(held) => deadline(deployment, held).is_some_and(|at| at < now),
    }
}

fn deadline(deployment: &Deployment, held: &Condition) -> Option<Time> {
    Some(held.last_update_time?.plus_secs(deployment.spec.progress_deadline_seconds?))
}

fn wake_for_deadline(run: &mut Run, status: &DeploymentStatus) {
    if !run.deployment.has_progress_deadline() || complete(run.deployment, status) {
        return;
    }
    let held = views::condition(&status.conditions, "Progressing");
    let waiting = held.filter(|held| {
        !matches!(
            held.reason.as_str(),
            "NewReplicaSetAvailable" | "ProgressDeadlineExceeded" | "DeploymentPaused"
        )
    });
    if let Some(at) = waiting.and_then(|held| deadline(run.deployment, held)) {
        wake_if_later(&mut run.plan, at.plus_secs(1), run.now);
    }
}

/// The current set's failure to make or delete pods, else that of an older one.
fn tell_failure(run: &Run, status: &mut DeploymentStatus) {
    let failure = |set: &super::Set| views::condition(&set.status.conditions, "ReplicaFailure").cloned();
    match run.new.iter().chain(&run.old).find_map(failure) {
        Some(failure) => {
            let new = condition("ReplicaFailure", &failure.status, &failure.reason, failure.message, run.now);
            put(&mut status.conditions, new);
        }
        None => status.conditions.retain(|held| held.kind != "ReplicaFailure"),
    }
}
