//! The two ways from one template to the next.

use object::Snapshot;

use super::revision::{clean_up, create_new, write_size};
use super::{Run, Set, scale, status};
use crate::views::Pod;
use kinds::PODS;

/// Grows the new set as far as the surge allows, and shrinks old ones as far as availability allows.
pub fn rolling_update(run: &mut Run, snapshot: &Snapshot) {
    if run.new.is_none() {
        create_new(run, snapshot);
        return;
    }
    if !grow_new(run) && !shrink_old(run) && status::is_complete(run) {
        clean_up(run);
    }
    status::tell(run);
}

fn grow_new(run: &mut Run) -> bool {
    let Some(new) = run.new.clone() else { return false };
    let wanted = run.deployment.replicas();
    let size = if new.replicas > wanted { wanted } else { scale::size_of_new(run, new.replicas) };
    new.replicas != size && write_size(run, &new, size)
}

/// Old pods that are not available go first: they help nobody. Then as many available ones as may be spared.
fn shrink_old(run: &mut Run) -> bool {
    let Some(new) = &run.new else { return false };
    let total: i64 = run.all().map(|set| set.replicas).sum();
    let min_available = run.deployment.replicas() - run.deployment.max_unavailable();
    let missing_in_new = new.replicas - new.status.available_replicas;
    let spare = total - min_available - missing_in_new;
    if spare <= 0 || run.old.iter().all(|set| set.replicas == 0) {
        return false;
    }
    let mut sizes: Vec<i64> = run.old.iter().map(|set| set.replicas).collect();
    drop_unhealthy(&run.old, &mut sizes, spare);
    let available: i64 = run.all().map(|set| set.status.available_replicas).sum();
    take(&mut sizes, available - min_available);
    let sets = run.old.clone();
    let mut changed = false;
    for (set, size) in sets.iter().zip(sizes) {
        changed |= set.replicas != size && write_size(run, set, size);
    }
    changed
}

fn drop_unhealthy(sets: &[Set], sizes: &mut [i64], mut spare: i64) {
    for (set, size) in sets.iter().zip(sizes) {
        let unhealthy = (*size - set.status.available_replicas).clamp(0, spare);
        *size -= unhealthy;
        spare -= unhealthy;
    }
}

fn take(sizes: &mut [i64], mut spare: i64) {
    for size in sizes {
        let part = (*size).clamp(0, spare.max(0));
        *size -= part;
        spare -= part;
    }
}

/// All old pods go, and only when the last of them is gone do new ones come.
pub fn recreate(run: &mut Run, snapshot: &Snapshot) {
    let active: Vec<Set> = run.old.iter().filter(|set| set.replicas > 0).cloned().collect();
    if !active.is_empty() {
        for set in active {
            write_size(run, &set, 0);
        }
        status::tell(run);
        return;
    }
    if run.old.iter().any(|set| has_running_pods(snapshot, set)) {
        status::tell(run);
        return;
    }
    let Some(new) = run.new.clone() else {
        create_new(run, snapshot);
        return;
    };
    let wanted = run.deployment.replicas();
    if !(new.replicas != wanted && write_size(run, &new, wanted)) && status::is_complete(run) {
        clean_up(run);
    }
    status::tell(run);
}

fn has_running_pods(snapshot: &Snapshot, set: &Set) -> bool {
    let owned = snapshot.owned_by(&set.object.meta.uid).filter(|owned| owned.key.resource == PODS);
    owned.map(Pod::read).any(|pod| !pod.is_finished())
}
