//! Evenly over zones and nodes:
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/>.

use std::collections::{BTreeMap, BTreeSet};

use object::Key;

use super::{MAX_SCORE, Plugin, Round};
use crate::cluster::Cluster;
use crate::explain::Rejection;
use crate::node::{HOSTNAME, Node, Picked, ZONE};
use crate::pod::{Pod, Spread, Taint};

/// What the cluster does for every pod of a Service or workload: (topology key, skew that is fine).
const DEFAULTS: [(&str, i64); 2] = [(HOSTNAME, 3), (ZONE, 5)];

/// For each hard constraint, in the pod's order: matching pods by domain, domains without any included.
#[derive(Debug, Default)]
pub struct Required {
    constraints: Vec<Domains>,
}

#[derive(Debug, Default)]
struct Domains {
    counts: BTreeMap<Box<str>, i64>,
    least: i64,
    /// The pod counts itself.
    own: i64,
}

fn hard(pod: &Pod) -> impl Iterator<Item = &Spread> {
    pod.spread.iter().filter(|spread| spread.is_hard)
}

/// How many pods of the node are picked, but for those that are taken as gone.
fn matching(node: &Node, pod: &Pod, spread: &Spread, picked: &Picked, without: &[Key]) -> i64 {
    let gone = without.iter().filter_map(|key| node.pods.get(key)).filter(|other| {
        other.key.namespace == pod.key.namespace
            && !other.is_deleting
            && spread.selector.matches(&other.labels)
    });
    node.count(picked).staying - i64::try_from(gone.count()).unwrap_or(0)
}

/// Is the node one of those over which the pod is spread?
fn counts_in(spread: &Spread, pod: &Pod, node: &Node) -> bool {
    let tolerated = |taint: &Taint| !taint.is_hard() || taint.is_tolerated(&pod.tolerations);
    node.exists
        && (!spread.honors_affinity || pod.selects(node))
        && (!spread.honors_taints || node.taints.iter().all(tolerated))
}

impl Required {
    pub fn of(cluster: &Cluster, pod: &Pod, without: &[Key]) -> Self {
        let keys: Vec<&str> = hard(pod).map(|spread| &*spread.topology_key).collect();
        if keys.is_empty() {
            return Self::default();
        }
        let mut constraints: Vec<Domains> = hard(pod)
            .map(|spread| Domains {
                own: i64::from(spread.selector.matches(&pod.labels)),
                ..Domains::default()
            })
            .collect();
        let picked: Vec<Picked> =
            hard(pod).map(|spread| cluster.pick(&pod.key.namespace, &spread.selector)).collect();
        for node in cluster.nodes() {
            if keys.iter().any(|key| !node.labels.contains_key(*key)) {
                continue;
            }
            for ((domains, spread), picked) in constraints.iter_mut().zip(hard(pod)).zip(&picked) {
                if let (true, Some(value)) =
                    (counts_in(spread, pod, node), node.labels.get(&spread.topology_key))
                {
                    *domains.counts.entry(value.clone()).or_default() +=
                        matching(node, pod, spread, picked, without);
                }
            }
        }
        for (domains, spread) in constraints.iter_mut().zip(hard(pod)) {
            let enough = i64::try_from(domains.counts.len()).unwrap_or(i64::MAX) >= spread.min_domains;
            domains.least = if enough { domains.counts.values().copied().min().unwrap_or(0) } else { 0 };
        }
        Self { constraints }
    }
}

pub fn check(round: &Round, node: &Node) -> Result<(), Rejection> {
    for (spread, domains) in hard(round.pod).zip(&round.spread.constraints) {
        let Some(value) = node.labels.get(&spread.topology_key) else {
            let text = "node(s) didn't match pod topology spread constraints (missing required label)";
            return Err(Rejection::lasting(Plugin::PodTopologySpread, text));
        };
        let held = domains.counts.get(value).copied().unwrap_or(0);
        if held + domains.own - domains.least > spread.max_skew {
            let text = "node(s) didn't match pod topology spread constraints";
            return Err(Rejection::resolvable(Plugin::PodTopologySpread, text));
        }
    }
    Ok(())
}

/// The fewer matching pods a node's domains hold, the better; domains of a key with many values weigh more.
pub fn score(round: &Round, nodes: &[&Node]) -> Option<Vec<i64>> {
    let (cluster, pod) = (round.cluster, round.pod);
    let own: Vec<Spread> = pod.spread.iter().filter(|spread| !spread.is_hard).cloned().collect();
    let by_default = pod.spread.is_empty();
    let constraints = if by_default { defaults(cluster, pod)? } else { own };
    if constraints.is_empty() {
        return None;
    }
    // Nodes outside of a topology that the pod names itself are not spread over; by default a missing label is no matter.
    let within =
        |node: &Node| by_default || constraints.iter().all(|one| node.labels.contains_key(&one.topology_key));
    let inside: Vec<&Node> = nodes.iter().copied().filter(|node| within(node)).collect();
    let mut costs = vec![0.0; nodes.len()];
    for spread in &constraints {
        if &*spread.topology_key == HOSTNAME {
            let picked = cluster.pick(&pod.key.namespace, &spread.selector);
            let cost = |node: &Node| Some(node.count(&picked).staying);
            add(&mut costs, nodes, spread, inside.len(), cost);
        } else {
            let values: BTreeSet<&str> = domains(&inside, &spread.topology_key);
            let held = by_domain(cluster, pod, spread, &values);
            let count = |value: &str| held.get(value).copied().unwrap_or(0);
            let cost = |node: &Node| node.labels.get(&spread.topology_key).map(|value| count(value));
            add(&mut costs, nodes, spread, values.len(), cost);
        }
    }
    let costs: Vec<Option<i64>> =
        nodes.iter().zip(costs).map(|(node, cost)| within(node).then_some(cost.round() as i64)).collect();
    let known = || costs.iter().flatten().copied();
    let (least, most) = (known().min()?, known().max()?);
    let score = |cost: &Option<i64>| match cost {
        None => 0,
        Some(_) if most == 0 => MAX_SCORE,
        Some(cost) => MAX_SCORE * (most + least - cost) / most,
    };
    Some(costs.iter().map(score).collect())
}

/// Adds one constraint's costs: matching pods, weighed by how many domains there are.
fn add(
    costs: &mut [f64],
    nodes: &[&Node],
    spread: &Spread,
    domains: usize,
    count: impl Fn(&Node) -> Option<i64>,
) {
    let weight = (domains as f64 + 2.0).ln();
    for (cost, node) in costs.iter_mut().zip(nodes) {
        if let Some(count) = count(node) {
            *cost += count as f64 * weight + (spread.max_skew - 1) as f64;
        }
    }
}

fn domains<'a>(nodes: &[&'a Node], key: &str) -> BTreeSet<&'a str> {
    let mut values = BTreeSet::new();
    for value in nodes.iter().filter_map(|node| node.labels.get(key)) {
        // Few values, many nodes: mostly it is there.
        if !values.contains(&**value) {
            values.insert(&**value);
        }
    }
    values
}

fn by_domain<'a>(
    cluster: &'a Cluster,
    pod: &Pod,
    spread: &Spread,
    values: &BTreeSet<&'a str>,
) -> BTreeMap<&'a str, i64> {
    let mut held = BTreeMap::new();
    if values.is_empty() {
        return held;
    }
    let wants_any = pod.node_selector.is_empty() && pod.required_nodes.is_none();
    if &*spread.topology_key == ZONE && (wants_any || !spread.honors_affinity) && !spread.honors_taints {
        return cluster.by_zone(&pod.key.namespace, &spread.selector);
    }
    let picked = cluster.pick(&pod.key.namespace, &spread.selector);
    for node in cluster.nodes().iter().filter(|node| !node.pods.is_empty()) {
        let Some(value) = node.labels.get(&spread.topology_key).filter(|value| values.contains(&***value))
        else {
            continue;
        };
        if counts_in(spread, pod, node) {
            *held.entry(&**value).or_default() += node.count(&picked).staying;
        }
    }
    held
}

fn defaults(cluster: &Cluster, pod: &Pod) -> Option<Vec<Spread>> {
    let selector = cluster.spread_selector(pod)?;
    let constraint = |(key, max_skew): (&str, i64)| Spread {
        max_skew,
        topology_key: key.into(),
        is_hard: false,
        selector: selector.clone(),
        min_domains: 1,
        honors_affinity: true,
        honors_taints: false,
    };
    Some(DEFAULTS.into_iter().map(constraint).collect())
}
