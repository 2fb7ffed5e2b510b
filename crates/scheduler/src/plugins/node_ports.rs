use super::{Plugin, Round};
use crate::explain::Rejection;
use crate::node::Node;

/// A port of the node belongs to one pod.
pub fn check(round: &Round, node: &Node) -> Result<(), Rejection> {
    let taken = |port: &crate::pod::HostPort| node.host_ports.iter().any(|held| held.conflicts(port));
    if !round.pod.host_ports.iter().any(taken) {
        return Ok(());
    }
    Err(Rejection::resolvable(
        Plugin::NodePorts,
        "node(s) didn't have free ports for the requested pod ports",
    ))
}
