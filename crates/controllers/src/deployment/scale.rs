//! Spreading a Deployment's size over its ReplicaSets when the size itself changes.

use std::collections::BTreeMap;

use super::revision::{DESIRED, MAX, write_size};
use super::{Deployment, Run, Set};

/// What every active set is told, so that a later change of the size can be shared out in proportion.
pub fn size_annotations(deployment: &Deployment) -> BTreeMap<String, String> {
    let replicas = deployment.replicas();
    let most = replicas + deployment.max_surge();
    BTreeMap::from([(DESIRED.into(), replicas.to_string()), (MAX.into(), most.to_string())])
}

/// Has the size changed since the active sets were last told?
pub fn is_due(run: &Run) -> bool {
    let wanted = run.deployment.replicas().to_string();
    let mut active = run.all().filter(|set| set.replicas > 0);
    active.any(|set| set.annotations.get(DESIRED).is_some_and(|desired| *desired != wanted))
}

/// How large the current set may be, now that it has `size` pods: as far as the surge allows.
pub fn size_of_new(run: &Run, size: i64) -> i64 {
    let wanted = run.deployment.replicas();
    if !run.deployment.is_rolling() {
        return wanted;
    }
    let room = wanted + run.deployment.max_surge() - run.all().map(|set| set.replicas).sum::<i64>();
    if room <= 0 { size } else { size + room.min(wanted - size) }
}

/// Brings the sets to the Deployment's size without moving pods between templates: one active set takes all; during a rollout each
/// takes its share.
pub fn scale(run: &mut Run) {
    let wanted = run.deployment.replicas();
    if let Some(set) = only_active(run) {
        if set.replicas != wanted || is_due(run) {
            write_size(run, &set, wanted);
        }
        return;
    }
    if run.new.as_ref().is_some_and(|new| is_saturated(run.deployment, new)) {
        let active: Vec<Set> = run.old.iter().filter(|set| set.replicas > 0).cloned().collect();
        for set in active {
            write_size(run, &set, 0);
        }
        return;
    }
    if run.deployment.is_rolling() {
        share_out(run);
    }
}

/// The one set with pods; without any, the current or the youngest one.
fn only_active(run: &Run) -> Option<Set> {
    let mut active = run.all().filter(|set| set.replicas > 0);
    match (active.next(), active.next()) {
        (Some(only), None) => Some(only.clone()),
        (Some(_), Some(_)) => None,
        (None, _) => run.new.clone().or_else(|| run.old.last().cloned()),
    }
}

fn is_saturated(deployment: &Deployment, new: &Set) -> bool {
    let wanted = deployment.replicas();
    new.replicas == wanted && new.number(DESIRED) == wanted && new.status.available_replicas == wanted
}

/// Each active set grows or shrinks by its share of the difference; what rounding leaves goes to the first.
fn share_out(run: &mut Run) {
    let deployment = run.deployment;
    let mut sets: Vec<Set> = run.all().filter(|set| set.replicas > 0).cloned().collect();
    let total: i64 = sets.iter().map(|set| set.replicas).sum();
    let allowed = if deployment.replicas() > 0 { deployment.replicas() + deployment.max_surge() } else { 0 };
    let to_add = allowed - total;
    // Largest first; among equals the newest grows first and the oldest shrinks first.
    sets.sort_by(|a, b| {
        let age = super::age_order(&a.object, &b.object);
        b.replicas.cmp(&a.replicas).then(if to_add > 0 { age.reverse() } else { age })
    });
    let mut added = 0;
    let mut sizes: Vec<i64> = Vec::with_capacity(sets.len());
    for set in &sets {
        let share = share(deployment, set, to_add, added);
        added += share;
        sizes.push(set.replicas + share);
    }
    if let Some(first) = sizes.first_mut() {
        *first = (*first + to_add - added).max(0);
    }
    for (set, size) in sets.iter().zip(sizes) {
        write_size(run, set, size);
    }
}

fn share(deployment: &Deployment, set: &Set, to_add: i64, added: i64) -> i64 {
    if set.replicas == 0 || to_add == added {
        return 0;
    }
    let left = to_add - added;
    let share = fraction(deployment, set);
    if to_add > 0 { share.min(left) } else { share.max(left) }
}

/// What the set would gain if it kept its part of the whole.
fn fraction(deployment: &Deployment, set: &Set) -> i64 {
    if deployment.replicas() == 0 {
        return -set.replicas;
    }
    let whole_after = deployment.replicas() + deployment.max_surge();
    let whole_before = match set.number(MAX) {
        0 => deployment.status.replicas.max(1),
        told => told,
    };
    // Rounded half up, in whole numbers.
    (2 * set.replicas * whole_after + whole_before).div_euclid(2 * whole_before) - set.replicas
}
