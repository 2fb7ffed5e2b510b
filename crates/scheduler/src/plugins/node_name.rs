use super::{Plugin, Round};
use crate::explain::Rejection;
use crate::node::Node;

/// A pod that already names its node.
pub fn check(round: &Round, node: &Node) -> Result<(), Rejection> {
    if round.pod.node.is_empty() || round.pod.node == node.name {
        return Ok(());
    }
    Err(Rejection::lasting(Plugin::NodeName, "node(s) didn't match the requested node name"))
}
