use super::{Plugin, Round};
use crate::explain::Rejection;
use crate::node::Node;

/// A bound volume whose labels name a zone or region is reached from there only.
pub fn check(round: &Round, node: &Node) -> Result<(), Rejection> {
    if round.volumes.bound.iter().all(|volume| volume.is_in_zone_of(node)) {
        return Ok(());
    }
    Err(Rejection::lasting(Plugin::VolumeZone, "node(s) had no available volume zone"))
}
