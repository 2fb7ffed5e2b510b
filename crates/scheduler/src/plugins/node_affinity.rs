//! <https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#node-affinity>

use super::{Plugin, Round, normalise};
use crate::explain::Rejection;
use crate::node::Node;

pub fn check(round: &Round, node: &Node) -> Result<(), Rejection> {
    if round.pod.selects(node) {
        return Ok(());
    }
    Err(Rejection::lasting(Plugin::NodeAffinity, "node(s) didn't match Pod's node affinity/selector"))
}

/// The sum of the weights of the preferences that a node meets.
pub fn score(round: &Round, nodes: &[&Node]) -> Option<Vec<i64>> {
    let preferred = &round.pod.preferred_nodes;
    if preferred.is_empty() {
        return None;
    }
    let sum = |node: &&Node| {
        preferred.iter().filter(|held| held.preference.matches(node)).map(|held| held.weight).sum()
    };
    Some(normalise(nodes.iter().map(sum).collect(), false))
}
