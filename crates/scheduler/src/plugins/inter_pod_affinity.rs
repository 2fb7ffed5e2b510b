//! Near some pods, away from others:
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#inter-pod-affinity-and-anti-affinity>.

use std::collections::BTreeMap;
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

/// What the affinities of a pod that is there mean for the new one: a weight for each topology key.
type Meaning<'a> = Vec<(&'a str, i64)>;

/// What the affinities of all pods that are there mean for the new one: by their address, for like pods share one.
/// Those that do not mean it are left out, which are most.
struct Said<'a>(Vec<(*const Affinities, Meaning<'a>)>);

impl<'a> Said<'a> {
    fn by_all(cluster: &'a Cluster, meaning: impl Fn(&'a Affinities) -> Meaning<'a>) -> Self {
        if !cluster.has_affinity() {
            return Self(Vec::new());
        }
        let all = cluster.stated().map(|affinities| (Arc::as_ptr(affinities), meaning(affinities)));
        let mut said: Vec<_> = all.filter(|(_, meaning)| !meaning.is_empty()).collect();
        said.sort_unstable_by_key(|(address, _)| *address);
        Self(said)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells of each topology key what the pods of one node make it weigh.
    fn on(&self, node: &Node, mut tell: impl FnMut(&'a str, i64)) {
        for (affinities, pods) in node.stated.iter() {
            let address = Arc::as_ptr(affinities);
            if let Ok(at) = self.0.binary_search_by_key(&address, |(held, _)| *held) {
                self.0[at].1.iter().for_each(|(key, weight)| tell(key, weight * pods));
            }
        }
    }
}

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
        found.learn_forbidding(cluster, pod);
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
        let said = Said::by_all(cluster, |affinities| {
            let terms = affinities.far.required.iter().filter(|term| is_about(cluster, term, pod));
            terms.map(|term| (&*term.topology_key, 1)).collect()
        });
        if said.is_empty() {
            return;
        }
        for node in cluster.nodes() {
            said.on(node, |key, pods| {
                if let Some(value) = node.labels.get(key) {
                    *self.forbidding.entry(key.into()).or_default().entry(value.clone()).or_default() += pods;
                }
            });
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
///
/// A topology in which every node is alone (`kubernetes.io/hostname`, nearly always) needs no adding up: what the pods of
/// a node say concerns that node only, and only the nodes to choose from are looked at.
pub fn score(round: &Round, nodes: &[&Node]) -> Option<Vec<i64>> {
    let (cluster, pod) = (round.cluster, round.pod);
    let alone = Wishes::of(cluster, pod, |key| cluster.is_alone(key));
    let shared = Wishes::of(cluster, pod, |key| !cluster.is_alone(key));
    if alone.is_empty() && shared.is_empty() {
        return None;
    }
    let mut weights: Weights = BTreeMap::new();
    if !shared.is_empty() {
        for node in cluster.nodes() {
            shared.on(node, |key, weight| weigh(&mut weights, node, key, weight));
        }
    }
    let sum = |node: &&Node| -> i64 {
        let of = |(key, values): (&&str, &BTreeMap<&str, i64>)| {
            node.labels.get(*key).and_then(|value| values.get(&**value)).copied().unwrap_or(0)
        };
        let mut sum = weights.iter().map(of).sum();
        alone.on(node, |key, weight| sum += if node.labels.contains_key(key) { weight } else { 0 });
        sum
    };
    let sums: Vec<i64> = nodes.iter().map(sum).collect();
    let (least, most) = (sums.iter().min().copied()?, sums.iter().max().copied()?);
    let range = most - least;
    Some(sums.into_iter().map(|sum| if range == 0 { 0 } else { MAX_SCORE * (sum - least) / range }).collect())
}

/// By topology key and value.
type Weights<'a> = BTreeMap<&'a str, BTreeMap<&'a str, i64>>;

fn weigh<'a>(weights: &mut Weights<'a>, node: &'a Node, key: &'a str, weight: i64) {
    if let Some(value) = node.labels.get(key) {
        *weights.entry(key).or_default().entry(value).or_default() += weight;
    }
}

/// What is preferred of some topology keys: by the pod about those that are there, and by them about it.
struct Wishes<'a> {
    /// (topology key, weight of each pod, which pods)
    own: Vec<(&'a str, i64, Picked)>,
    others: Said<'a>,
}

impl<'a> Wishes<'a> {
    fn of(cluster: &'a Cluster, pod: &'a Pod, concerns: impl Fn(&str) -> bool) -> Self {
        let mut own = Vec::new();
        for (terms, sign) in [(&pod.affinities.near.preferred, 1), (&pod.affinities.far.preferred, -1)] {
            for WeightedPodTerm { weight, pod_affinity_term: term } in terms {
                if concerns(&term.topology_key) {
                    let picked =
                        cluster.pick_all(|namespace, labels| about(cluster, term, namespace, labels));
                    own.push((&*term.topology_key, sign * weight, picked));
                }
            }
        }
        let others = Said::by_all(cluster, |affinities| {
            let mut meaning = meaning(cluster, affinities, pod);
            meaning.retain(|(key, _)| concerns(key));
            meaning
        });
        Self { own, others }
    }

    fn is_empty(&self) -> bool {
        self.own.is_empty() && self.others.is_empty()
    }

    /// Tells of each topology key what the pods of one node make it weigh.
    fn on(&self, node: &Node, mut tell: impl FnMut(&'a str, i64)) {
        for (key, weight, picked) in &self.own {
            let pods = node.count(picked).all;
            if pods > 0 {
                tell(key, weight * pods);
            }
        }
        self.others.on(node, tell);
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
