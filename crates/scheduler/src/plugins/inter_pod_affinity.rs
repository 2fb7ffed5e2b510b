//! Near some pods, away from others:
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#inter-pod-affinity-and-anti-affinity>.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use object::Key;

use super::{MAX_SCORE, Plugin, Round};
use crate::affinity::{Affinities, Labels, PodTerm, WeightedPodTerm};
use crate::cluster::Cluster;
use crate::explain::Rejection;
use crate::node::{Node, Picked};
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

/// What the affinities of a pod that is there mean for the new one.
type Meaning<'a> = Vec<(&'a str, i64)>;

fn about(cluster: &Cluster, term: &PodTerm, namespace: &str, labels: &Labels) -> bool {
    term.matches(namespace, cluster.namespace_labels(namespace), labels)
}

fn is_about(cluster: &Cluster, term: &PodTerm, pod: &Pod) -> bool {
    about(cluster, term, &pod.key.namespace, &pod.labels)
}

impl Required {
    pub fn of(cluster: &Cluster, pod: &Pod, without: &[Key]) -> Self {
        let (near, far) = (&pod.affinities.near.required, &pod.affinities.far.required);
        let mut found = Self {
            near: vec![Counts::new(); near.len()],
            far: vec![Counts::new(); far.len()],
            meets_itself: near.iter().all(|term| is_about(cluster, term, pod)),
            ..Self::default()
        };
        if cluster.has_affinity() {
            found.learn_forbidding(cluster, pod);
        }
        if !near.is_empty() {
            let all = |namespace: &Arc<str>, labels: &Labels| {
                near.iter().all(|term| about(cluster, term, namespace, labels))
            };
            let picked = cluster.pick_all(all);
            for (counts, term) in found.near.iter_mut().zip(near) {
                count(counts, cluster, term, &picked);
            }
        }
        for (counts, term) in found.far.iter_mut().zip(far) {
            let picked = cluster.pick_all(|namespace, labels| about(cluster, term, namespace, labels));
            count(counts, cluster, term, &picked);
        }
        for other in without.iter().filter_map(|key| cluster.pod(key)) {
            if let Some(node) = cluster.node(&other.node) {
                found.unlearn(cluster, pod, node, other);
            }
        }
        found
    }

    fn learn_forbidding(&mut self, cluster: &Cluster, pod: &Pod) {
        let mut meanings: HashMap<*const Affinities, Meaning> = HashMap::new();
        for node in cluster.nodes() {
            for (affinities, pods) in node.stated.iter() {
                let meaning = meanings.entry(Arc::as_ptr(affinities)).or_insert_with(|| {
                    let terms = affinities.far.required.iter().filter(|term| is_about(cluster, term, pod));
                    terms.map(|term| (&*term.topology_key, 1)).collect()
                });
                for (key, _) in meaning {
                    if let Some(value) = node.labels.get(*key) {
                        *self
                            .forbidding
                            .entry((*key).into())
                            .or_default()
                            .entry(value.clone())
                            .or_default() += pods;
                    }
                }
            }
        }
    }

    /// Takes out what one pod that is taken as gone stood for.
    fn unlearn(&mut self, cluster: &Cluster, pod: &Pod, node: &Node, other: &Pod) {
        let less = |counts: &mut Counts, term: &PodTerm| {
            let Some(value) = node.labels.get(&term.topology_key) else { return };
            if let Some(count) = counts.get_mut(value) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(value);
                }
            }
        };
        for term in other.affinities.far.required.iter().filter(|term| is_about(cluster, term, pod)) {
            if let Some(counts) = self.forbidding.get_mut(&term.topology_key) {
                less(counts, term);
            }
        }
        let near = &pod.affinities.near.required;
        if near.iter().all(|term| is_about(cluster, term, other)) {
            self.near.iter_mut().zip(near).for_each(|(counts, term)| less(counts, term));
        }
        for (counts, term) in self.far.iter_mut().zip(&pod.affinities.far.required) {
            if is_about(cluster, term, other) {
                less(counts, term);
            }
        }
    }
}

/// Adds up the pods picked by their nodes' values of the term's topology key.
fn count(counts: &mut Counts, cluster: &Cluster, term: &PodTerm, picked: &Picked) {
    for node in cluster.nodes() {
        let pods = node.count(picked).all;
        if let (Some(value), true) = (node.labels.get(&term.topology_key), pods > 0) {
            *counts.entry(value.clone()).or_default() += pods;
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
    let far = &pod.affinities.far.required;
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
    let near = &pod.affinities.near.required;
    if near.iter().any(|term| !node.labels.contains_key(&term.topology_key)) {
        return false;
    }
    let all = near.iter().zip(&found.near).all(|(term, counts)| at(counts, node, &term.topology_key) > 0);
    all || (found.meets_itself && found.near.iter().all(BTreeMap::is_empty))
}

/// Preferred terms of the pod, and those of the pods that are there about it, added up by topology.
pub fn score(round: &Round, nodes: &[&Node]) -> Option<Vec<i64>> {
    let (cluster, pod) = (round.cluster, round.pod);
    let mut weights: Weights = BTreeMap::new();
    for (terms, sign) in [(&pod.affinities.near.preferred, 1), (&pod.affinities.far.preferred, -1)] {
        for WeightedPodTerm { weight, pod_affinity_term: term } in terms {
            let picked = cluster.pick_all(|namespace, labels| about(cluster, term, namespace, labels));
            for node in cluster.nodes() {
                let pods = node.count(&picked).all;
                if pods > 0 {
                    weigh(&mut weights, node, &term.topology_key, sign * weight * pods);
                }
            }
        }
    }
    if cluster.has_affinity() {
        others(&mut weights, cluster, pod);
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

/// By topology key and value.
type Weights<'a> = BTreeMap<&'a str, BTreeMap<&'a str, i64>>;

fn weigh<'a>(weights: &mut Weights<'a>, node: &'a Node, key: &str, weight: i64) {
    if let Some((key, value)) = node.labels.get_key_value(key) {
        *weights.entry(key).or_default().entry(value).or_default() += weight;
    }
}

/// What the pods that are there would like of this one.
fn others<'a>(weights: &mut Weights<'a>, cluster: &'a Cluster, pod: &Pod) {
    let mut meanings: HashMap<*const Affinities, Meaning> = HashMap::new();
    for node in cluster.nodes() {
        for (affinities, pods) in node.stated.iter() {
            let meaning =
                meanings.entry(Arc::as_ptr(affinities)).or_insert_with(|| meaning(cluster, affinities, pod));
            for (key, weight) in meaning {
                weigh(weights, node, key, *weight * pods);
            }
        }
    }
}

fn meaning<'a>(cluster: &Cluster, affinities: &'a Affinities, pod: &Pod) -> Meaning<'a> {
    // Who must be near such pods would like this one near: `hardPodAffinityWeight` is 1.
    let required = affinities.near.required.iter().map(|term| (term, 1));
    let near = affinities.near.preferred.iter().map(|term| (&term.pod_affinity_term, term.weight));
    let far = affinities.far.preferred.iter().map(|term| (&term.pod_affinity_term, -term.weight));
    let all = required.chain(near).chain(far).filter(|(term, _)| is_about(cluster, term, pod));
    all.map(|(term, weight)| (&*term.topology_key, weight)).collect()
}
