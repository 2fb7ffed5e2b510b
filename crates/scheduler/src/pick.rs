//! One pod, one node: filter, score, choose.

use object::Snapshot;

use crate::cluster::Cluster;
use crate::explain::{Rejection, Unschedulable};
use crate::node::Node;
use crate::plugins::volume_binding::Needs;
use crate::plugins::{Plugin, Round, SCORES};
use crate::pod::Pod;

/// In clusters up to this size every node is looked at.
const FEW_NODES: usize = 100;

/// Where a pod goes.
#[derive(Debug)]
pub struct Fit<'a> {
    pub node: &'a Node,
    /// Nodes that were looked at: where the next pod begins.
    pub looked_at: usize,
    pub(crate) volumes: Needs,
}

/// The best node for a pod, or why there is none.
///
/// `tie` chooses among nodes of the same score. `start` is the place in the list of nodes to begin at: in large clusters
/// only as many nodes are looked at as give enough that fit (upstream's `percentageOfNodesToScore`), and each pod goes
/// on where the last one stopped.
pub fn schedule<'a>(
    cluster: &'a Cluster,
    snapshot: &Snapshot,
    pod: &Pod,
    tie: u64,
    start: usize,
) -> Result<Fit<'a>, Unschedulable> {
    if cluster.count() == 0 {
        return Err(Unschedulable::default());
    }
    let round = Round::new(cluster, snapshot, pod, &[])?;
    // A node that was cleared for this pod is taken if it still fits.
    let promised = cluster.node(&pod.nominated).filter(|node| fits(&round, node).is_ok());
    let (nodes, looked_at) = match promised {
        Some(node) => (vec![node], 0),
        None => feasible(cluster, &round, start)?,
    };
    let best = choose(&round, &nodes, tie);
    Ok(Fit { node: best, looked_at, volumes: round.volumes })
}

/// How many nodes that fit are enough to choose from.
fn enough(nodes: usize) -> usize {
    if nodes < FEW_NODES {
        return nodes;
    }
    let percentage = 50_usize.saturating_sub(nodes / 125).max(5);
    (nodes * percentage / 100).max(FEW_NODES)
}

fn feasible<'a>(
    cluster: &'a Cluster,
    round: &Round,
    start: usize,
) -> Result<(Vec<&'a Node>, usize), Unschedulable> {
    let all = cluster.nodes();
    let enough = enough(cluster.count());
    let names = round.pod.required_nodes.as_ref().and_then(|selector| selector.names());
    let mut found = Vec::with_capacity(enough.min(1024));
    let mut why = Unschedulable { nodes: cluster.count(), ..Unschedulable::default() };
    let mut looked_at = 0;
    for offset in 0..all.len() {
        let at = (start + offset) % all.len();
        let node = &all[at];
        looked_at += 1;
        if !node.exists {
            continue;
        }
        if names.as_ref().is_some_and(|names| !names.iter().any(|name| **name == *node.name)) {
            let text = "node(s) didn't satisfy plugin(s) [NodeAffinity]";
            why.count(at, Rejection::lasting(Plugin::NodeAffinity, text));
            continue;
        }
        match fits(round, node) {
            Ok(()) => found.push(node),
            Err(rejection) => why.count(at, rejection),
        }
        if found.len() >= enough {
            break;
        }
    }
    if found.is_empty() { Err(why) } else { Ok((found, looked_at)) }
}

/// Does the pod fit, also once the pods that were promised room there have come?
pub(crate) fn fits(round: &Round, node: &Node) -> Result<(), Rejection> {
    round.check(node)?;
    if !round.cluster.has_nominated() {
        return Ok(());
    }
    let pod = round.pod;
    let promised = |other: &&std::sync::Arc<Pod>| other.priority >= pod.priority && other.key != pod.key;
    let mut fuller: Option<Node> = None;
    for other in round.cluster.nominated_to(&node.name).filter(promised) {
        fuller.get_or_insert_with(|| node.clone()).add(other.clone());
    }
    fuller.map_or(Ok(()), |node| round.check(&node))
}

fn choose<'a>(round: &Round, nodes: &[&'a Node], tie: u64) -> &'a Node {
    if let [only] = nodes {
        return only;
    }
    let mut totals = vec![0_i64; nodes.len()];
    for score in SCORES {
        if let Some(scores) = (score.score)(round, nodes) {
            totals.iter_mut().zip(scores).for_each(|(total, one)| *total += one * score.weight);
        }
    }
    let most = totals.iter().copied().max().unwrap_or(0);
    let best: Vec<&&Node> =
        nodes.iter().zip(&totals).filter(|(_, total)| **total == most).map(|(node, _)| node).collect();
    // There is at least one: the list of nodes is not empty.
    let at = usize::try_from(mix(tie) % best.len() as u64).unwrap_or(0);
    best[at]
}

/// SplitMix64: near numbers come out far apart.
pub(crate) fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
