//! Replacing pods of an old template: either delete first (maxUnavailable) or add first (maxSurge).

use super::{HASH, Place, Run, Spec};
use crate::daemon_set::node_fit::Fit;
use crate::views::{IntOrPercent, Pod};

pub fn has_surge(spec: &Spec) -> bool {
    spec.update_strategy.kind != "OnDelete" && bounds(spec, 100).0 > 0
}

/// (maxSurge, maxUnavailable) in pods, of so many wanted ones. Without surge at least one may be unavailable.
fn bounds(spec: &Spec, wanted: i64) -> (i64, i64) {
    let rolling = spec.update_strategy.rolling_update.as_ref();
    let part = |field: Option<&IntOrPercent>, default| field.map_or(default, |field| field.of(wanted, true));
    let surge = part(rolling.and_then(|rolling| rolling.max_surge.as_ref()), 0);
    let unavailable = part(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), 1);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// The pods of a node, by template; those that ended do not count.
struct Versions<'a> {
    new: Option<&'a Pod>,
    old: Option<&'a Pod>,
}

fn versions<'a>(run: &Run, place: &'a Place) -> Versions<'a> {
    let is_new = |pod: &&Pod| pod.object.meta.label(HASH) == Some(&run.update.hash);
    let live = || place.pods.iter().filter(|pod| !pod.is_finished());
    Versions { new: live().find(is_new), old: live().find(|pod| !is_new(pod)) }
}

pub fn roll(run: &mut Run, places: &[Place]) {
    let wanted: Vec<&Place> = places.iter().filter(|place| place.fit == Fit::Run).collect();
    let count = i64::try_from(wanted.len()).unwrap_or(i64::MAX);
    let (surge, unavailable) = bounds(&run.spec, count);
    if surge == 0 { delete_first(run, &wanted, unavailable) } else { add_first(run, &wanted, surge) }
}

/// Old pods that are not available go at once; of the others as many as may be missing.
fn delete_first(run: &mut Run, places: &[&Place], max_unavailable: i64) {
    let available = |pod: &Pod| pod.is_available(run.spec.min_ready_seconds, run.now) && !pod.is_deleting();
    let mut missing = 0;
    let mut useless = Vec::new();
    let mut candidates = Vec::new();
    for place in places {
        match versions(run, place) {
            Versions { new: Some(new), old: None } => missing += i64::from(!available(new)),
            Versions { new: None, old: Some(old) } if old.is_deleting() => missing += 1,
            Versions { new: None, old: Some(old) } if !available(old) => useless.push(old.clone()),
            Versions { new: None, old: Some(old) } => candidates.push(old.clone()),
            _ => missing += 1,
        }
    }
    let spare = usize::try_from(max_unavailable - missing).unwrap_or(0);
    run.delete.extend(useless);
    run.delete.extend(candidates.into_iter().take(spare));
}

/// New pods beside old ones, at most so many nodes at a time. The old one goes when the new one is available (see `thin_out`).
fn add_first(run: &mut Run, places: &[&Place], max_surge: i64) {
    let available = |pod: &Pod| pod.is_available(run.spec.min_ready_seconds, run.now) && !pod.is_deleting();
    let mut surging = 0;
    let mut useless = Vec::new();
    let mut candidates = Vec::new();
    for place in places {
        match versions(run, place) {
            Versions { new: Some(_), old: Some(_) } => surging += 1,
            Versions { new: None, old: Some(old) } if !available(old) => useless.push(place.node.clone()),
            Versions { new: None, old: Some(_) } => candidates.push(place.node.clone()),
            _ => {}
        }
    }
    let spare = usize::try_from(max_surge - surging).unwrap_or(0);
    run.create.extend(useless);
    run.create.extend(candidates.into_iter().take(spare));
}
