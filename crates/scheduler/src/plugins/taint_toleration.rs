//! <https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/>

use super::{Plugin, Round, normalise};
use crate::explain::Rejection;
use crate::node::Node;
use crate::pod::Toleration;

pub fn check(round: &Round, node: &Node) -> Result<(), Rejection> {
    let mut hard = node.taints.iter().filter(|taint| taint.is_hard());
    if hard.all(|taint| taint.is_tolerated(&round.pod.tolerations)) {
        return Ok(());
    }
    Err(Rejection::lasting(Plugin::TaintToleration, "node(s) had untolerated taint(s)"))
}

/// The fewer `PreferNoSchedule` taints are not tolerated, the better.
pub fn score(round: &Round, nodes: &[&Node]) -> Option<Vec<i64>> {
    let soft = |node: &&&Node| node.taints.iter().any(|taint| &*taint.effect == "PreferNoSchedule");
    nodes.iter().find(soft)?;
    let prefers = |held: &&Toleration| matches!(&*held.effect, "" | "PreferNoSchedule");
    let tolerations: Vec<Toleration> = round.pod.tolerations.iter().filter(prefers).cloned().collect();
    let count = |node: &&Node| {
        let soft = node.taints.iter().filter(|taint| &*taint.effect == "PreferNoSchedule");
        soft.map(|taint| i64::from(!taint.is_tolerated(&tolerations))).sum()
    };
    Some(normalise(nodes.iter().map(count).collect(), true))
}
