//! Making room for a pod of higher priority:
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/#preemption>.

use std::collections::BTreeMap;
use std::sync::Arc;

use object::{Key, Snapshot, Time};

use crate::cluster::Cluster;
use crate::explain::{Unschedulable, counted};
use crate::node::Node;
use crate::pick::fits;
use crate::plugins::Round;
use crate::pod::Pod;

/// At least so many nodes are looked at, a tenth of all in large clusters.
const LEAST_CANDIDATES: usize = 100;

/// A node that takes the pod once some of its pods are gone.
#[derive(Debug)]
pub struct Candidate {
    pub node: Arc<str>,
    /// Most important first.
    pub victims: Vec<Arc<Pod>>,
    violations: usize,
}

/// The node to clear, or what to tell.
pub fn preempt(
    cluster: &Cluster,
    snapshot: &Snapshot,
    pod: &Pod,
    why: &Unschedulable,
    start: usize,
) -> Result<Candidate, String> {
    if !pod.may_preempt {
        return Err("preemption: not eligible due to preemptionPolicy=Never.".to_owned());
    }
    let leaving = |other: &&Arc<Pod>| other.is_deleting && other.priority < pod.priority;
    if cluster.node(&pod.nominated).is_some_and(|node| node.pods.values().any(|other| leaving(&other))) {
        return Err("preemption: not eligible due to a terminating pod on the nominated node.".to_owned());
    }
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let hopeless = why.nodes - why.resolvable.len();
    if hopeless > 0 {
        reasons.insert("Preemption is not helpful for scheduling".to_owned(), hopeless);
    }
    let most = LEAST_CANDIDATES.max(why.nodes / 10);
    let mut found: Vec<Candidate> = Vec::new();
    let count = why.resolvable.len();
    for offset in 0..count {
        let node = &cluster.nodes()[why.resolvable[(start + offset) % count]];
        match victims(cluster, snapshot, pod, node) {
            Ok(candidate) => found.push(candidate),
            Err(texts) => texts.into_iter().for_each(|text| *reasons.entry(text).or_default() += 1),
        }
        if found.len() >= most {
            break;
        }
    }
    let told = || format!("preemption: 0/{} nodes are available: {}.", why.nodes, counted(&reasons));
    found.into_iter().min_by_key(Candidate::cost).ok_or_else(told)
}

/// Fewest broken budgets, then the lowest of the highest priorities, the lowest sum, the fewest victims, and the latest
/// start of the most important one.
type Cost = (usize, i64, i128, usize, std::cmp::Reverse<Option<Time>>);

impl Candidate {
    fn cost(&self) -> Cost {
        let highest = self.victims.first().map_or(i64::MIN, |pod| pod.priority);
        // Shifted up, so that many victims of negative priority do not look cheaper than few.
        let sum = self.victims.iter().map(|pod| i128::from(pod.priority) + (1 << 31)).sum();
        let oldest =
            self.victims.iter().filter(|pod| pod.priority == highest).filter_map(|pod| pod.started).min();
        (self.violations, highest, sum, self.victims.len(), std::cmp::Reverse(oldest))
    }
}

/// Takes every pod of lower priority off the node, and puts back as many as the new pod leaves room for.
fn victims(cluster: &Cluster, snapshot: &Snapshot, pod: &Pod, node: &Node) -> Result<Candidate, Vec<String>> {
    let mut lower: Vec<Arc<Pod>> =
        node.pods.values().filter(|other| other.priority < pod.priority).cloned().collect();
    if lower.is_empty() {
        return Err(vec!["No preemption victims found for incoming pod".to_owned()]);
    }
    let mut trial = node.clone();
    let mut gone: Vec<Key> = lower.iter().map(|other| other.key.clone()).collect();
    gone.iter().for_each(|key| drop(trial.take(key)));
    let fits = |trial: &Node, gone: &[Key]| match Round::new(cluster, snapshot, pod, gone) {
        Ok(round) => fits(&round, trial).map_err(|no| no.reasons.iter().map(ToString::to_string).collect()),
        Err(why) => Err(why.of_pod.into_iter().collect::<Vec<String>>()),
    };
    fits(&trial, &gone)?;
    // More important: of higher priority, or running longer.
    lower.sort_by_key(|other| (std::cmp::Reverse(other.priority), other.started, other.key.clone()));
    let (breaking, harmless) = by_budget(cluster, &lower);
    let mut victims: Vec<Arc<Pod>> = Vec::new();
    let mut violations = 0;
    for (other, breaks) in
        breaking.into_iter().map(|pod| (pod, true)).chain(harmless.into_iter().map(|pod| (pod, false)))
    {
        trial.add(other.clone());
        gone.retain(|key| *key != other.key);
        if fits(&trial, &gone).is_err() {
            trial.take(&other.key);
            gone.push(other.key.clone());
            violations += usize::from(breaks);
            victims.push(other);
        }
    }
    victims.sort_by_key(|other| (std::cmp::Reverse(other.priority), other.started, other.key.clone()));
    Ok(Candidate { node: node.name.clone(), victims, violations })
}

/// Pods whose going would break a disruption budget, and the others, both in the order given.
fn by_budget(cluster: &Cluster, pods: &[Arc<Pod>]) -> (Vec<Arc<Pod>>, Vec<Arc<Pod>>) {
    let mut left: BTreeMap<&Key, i64> = BTreeMap::new();
    let breaks = |pod: &&Arc<Pod>| {
        let mut breaks = false;
        for (key, budget) in cluster.budgets(&pod.key.namespace) {
            let Some(selector) = budget.selector.as_ref().filter(|selector| !selector.is_everything()) else {
                continue;
            };
            if pod.labels.is_empty() || !selector.matches(&pod.labels) {
                continue;
            }
            let allowed = left.entry(key).or_insert(budget.disruptions_allowed);
            *allowed -= 1;
            breaks |= *allowed < 0;
        }
        breaks
    };
    let mut breaks = breaks;
    pods.iter().cloned().partition(|pod| breaks(&pod))
}
