//! What a stricter level would say to the pods that a namespace already has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use object::{Object, Snapshot};

use super::settings::Settings;
use super::{Policy, findings};

/// So many pods are looked at: a warning is not worth more of a request's time.
const LIMIT: usize = 3000;

/// First what is wrong at all, then a line for each kind of wrong with the first pod's name.
pub(super) fn warnings(
    snapshot: &Snapshot,
    namespace: &str,
    policy: Policy,
    settings: &Settings,
) -> Vec<String> {
    let pods = by_worth(snapshot.list(kinds::PODS, namespace));
    let mut wrong: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for pod in pods.iter().take(LIMIT) {
        let Ok(value) = pod.to_value() else { continue };
        if settings.exempts_class(&value) {
            continue;
        }
        let reasons: Vec<&str> = findings(&value, policy).iter().map(|found| found.reason).collect();
        if !reasons.is_empty() {
            wrong.entry(reasons.join(", ")).or_default().push(&pod.key.name);
        }
    }
    let mut told = Vec::new();
    if pods.len() > LIMIT {
        let all = pods.len();
        told.push(format!(
            "new PodSecurity enforce level only checked against the first {LIMIT} of {all} existing pods"
        ));
    }
    if !wrong.is_empty() {
        told.push(format!(
            "existing pods in namespace \"{namespace}\" violate the new PodSecurity enforce level \"{policy}\""
        ));
    }
    let mut lines: Vec<String> = wrong
        .iter()
        .map(|(reasons, names)| {
            let first = names.iter().min().copied().unwrap_or_default();
            match names.len() {
                1 => format!("{first}: {reasons}"),
                2 => format!("{first} (and 1 other pod): {reasons}"),
                all => format!("{first} (and {} other pods): {reasons}", all - 1),
            }
        })
        .collect();
    lines.sort_unstable();
    told.extend(lines);
    told
}

/// One pod of each controller first: its others are most likely wrong in the same way.
fn by_worth<'a>(pods: impl Iterator<Item = &'a Arc<Object>>) -> Vec<&'a Object> {
    let mut seen = BTreeSet::new();
    let (mut first, mut more) = (Vec::new(), Vec::new());
    for pod in pods {
        match pod.meta.controller() {
            Some(owner) if !seen.insert(&owner.uid) => more.push(&**pod),
            _ => first.push(&**pod),
        }
    }
    first.append(&mut more);
    first
}
