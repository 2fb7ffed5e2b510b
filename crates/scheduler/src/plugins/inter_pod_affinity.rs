//! Near some pods, away from others:
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#inter-pod-affinity-and-anti-affinity>.

use std::collections::BTreeMap;

use object::Key;

use super::{MAX_SCORE, Plugin, Round};
use crate::affinity::PodTerm;
use crate::cluster::Cluster;
use crate::explain::Rejection;
use crate::node::Node;
use crate::pod::Pod;

/// Pods by value of a topology key.
type Counts = BTreeMap<Box<str>, i64>;

/// How many pods there are, by topology, that the required terms are about.
#[derive(Debug, Default)]
pub struct Required {
    /// By topology key: pods that are there and want the new one kept away.
    forbidding: BTreeMap<Box<str>, Counts>,
    /// For each affinity term: pods that meet all of them.
    near: Vec<Counts>,
    /// For each anti-affinity term: pods that it is about.
    far: Vec<Counts>,
    /// The pod would be one of those that it wants to be near: the first of its group may start it.
    meets_itself: bool,
}

fn about(cluster: &Cluster, term: &PodTerm, other: &Pod) -> bool {
    let namespace = &other.key.namespace;
    term.matches(namespace, cluster.namespace_labels(namespace), &other.labels)
}

impl Required {
    pub fn of(cluster: &Cluster, pod: &Pod, without: &[Key]) -> Self {
        let (near, far) = (&pod.affinity.required, &pod.anti_affinity.required);
        let mut found = Self {
            near: vec![Counts::new(); near.len()],
            far: vec![Counts::new(); far.len()],
            meets_itself: near.iter().all(|term| about(cluster, term, pod)),
            ..Self::default()
        };
        let asks = !near.is_empty() || !far.is_empty();
        if !asks && !cluster.has_affinity() {
            return found;
        }
        for node in cluster.nodes() {
            if !asks && node.with_affinity == 0 {
                continue;
            }
            for other in node.pods.values().filter(|other| !without.contains(&other.key)) {
                found.learn(cluster, pod, node, other);
            }
        }
        found
    }

    fn learn(&mut self, cluster: &Cluster, pod: &Pod, node: &Node, other: &Pod) {
        let count = |counts: &mut Counts, term: &PodTerm| {
            if let Some(value) = node.labels.get(&term.topology_key) {
                *counts.entry(value.clone()).or_default() += 1;
            }
        };
        for term in other.anti_affinity.required.iter().filter(|term| about(cluster, term, pod)) {
            count(self.forbidding.entry(term.topology_key.clone()).or_default(), term);
        }
        let near = &pod.affinity.required;
        if !near.is_empty() && near.iter().all(|term| about(cluster, term, other)) {
            self.near.iter_mut().zip(near).for_each(|(counts, term)| count(counts, term));
        }
        for (counts, term) in self.far.iter_mut().zip(&pod.anti_affinity.required) {
            if about(cluster, term, other) {
                count(counts, term);
            }
        }
    }
}

fn at(counts: &Counts, node: &Node, key: &str) -> i64 {
    node.labels.get(key).and_then(|value| counts.get(value)).copied().unwrap_or(0)
}

pub fn check(round: &Round, node: &Node) -> Result<(), Rejection> {
    let (pod, found) = (round.pod, &round.affinity);
    if !is_near(pod, found, node) {
        let text = "node(s) didn't match pod affinity rules";
        return Err(Rejection::lasting(Plugin::InterPodAffinity, text));
    }
    let far = &pod.anti_affinity.required;
    if far.iter().zip(&found.far).any(|(term, counts)| at(counts, node, &term.topology_key) > 0) {
        let text = "node(s) didn't match pod anti-affinity rules";
        return Err(Rejection::resolvable(Plugin::InterPodAffinity, text));
    }
    if found.forbidding.iter().any(|(key, counts)| at(counts, node, key) > 0) {
        let text = "node(s) didn't satisfy existing pods anti-affinity rules";
        return Err(Rejection::resolvable(Plugin::InterPodAffinity, text));
    }
    Ok(())
}

fn is_near(pod: &Pod, found: &Required, node: &Node) -> bool {
    let near = &pod.affinity.required;
    if near.iter().any(|term| !node.labels.contains_key(&term.topology_key)) {
        return false;
    }
    let all = near.iter().zip(&found.near).all(|(term, counts)| at(counts, node, &term.topology_key) > 0);
    all || (found.meets_itself && found.near.iter().all(BTreeMap::is_empty))
}

/// Preferred terms of the pod, and those of the pods that are there about it, added up by topology.
pub fn score(round: &Round, nodes: &[&Node]) -> Option<Vec<i64>> {
    let (cluster, pod) = (round.cluster, round.pod);
    let asks = !pod.affinity.preferred.is_empty() || !pod.anti_affinity.preferred.is_empty();
    if !asks && !cluster.has_affinity() {
        return None;
    }
    let mut weights: BTreeMap<&str, BTreeMap<&str, i64>> = BTreeMap::new();
    for node in cluster.nodes() {
        if !asks && node.with_affinity == 0 {
            continue;
        }
        for other in node.pods.values() {
            let mut add = |term: &'_ PodTerm, weight: i64| {
                if let Some((key, value)) = node.labels.get_key_value(&term.topology_key) {
                    *weights.entry(key).or_default().entry(value).or_default() += weight;
                }
            };
            for term in
                pod.affinity.preferred.iter().filter(|term| about(cluster, &term.pod_affinity_term, other))
            {
                add(&term.pod_affinity_term, term.weight);
            }
            for term in pod
                .anti_affinity
                .preferred
                .iter()
                .filter(|term| about(cluster, &term.pod_affinity_term, other))
            {
                add(&term.pod_affinity_term, -term.weight);
            }
            // Who must be near such pods would like this one near: `hardPodAffinityWeight` is 1.
            for term in other.affinity.required.iter().filter(|term| about(cluster, term, pod)) {
                add(term, 1);
            }
            for term in
                other.affinity.preferred.iter().filter(|term| about(cluster, &term.pod_affinity_term, pod))
            {
                add(&term.pod_affinity_term, term.weight);
            }
            for term in other
                .anti_affinity
                .preferred
                .iter()
                .filter(|term| about(cluster, &term.pod_affinity_term, pod))
            {
                add(&term.pod_affinity_term, -term.weight);
            }
        }
    }
    if weights.is_empty() {
        return None;
    }
    let sum = |node: &&Node| -> i64 {
        let of = |(key, values): (&&str, &BTreeMap<&str, i64>)| {
            node.labels.get(*key).and_then(|value| values.get(&**value)).copied().unwrap_or(0)
        };
        weights.iter().map(of).sum()
    };
    let sums: Vec<i64> = nodes.iter().map(sum).collect();
    let (least, most) = (sums.iter().min().copied()?, sums.iter().max().copied()?);
    let range = most - least;
    Some(sums.into_iter().map(|sum| if range == 0 { 0 } else { MAX_SCORE * (sum - least) / range }).collect())
}
