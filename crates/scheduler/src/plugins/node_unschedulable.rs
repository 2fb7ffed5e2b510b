use super::{Plugin, Round};
use crate::explain::Rejection;
use crate::node::Node;
use crate::pod::Taint;

/// `kubectl cordon`: only pods that tolerate the taint of that name.
pub fn check(round: &Round, node: &Node) -> Result<(), Rejection> {
    if !node.unschedulable {
        return Ok(());
    }
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        value: "".into(),
        effect: "NoSchedule".into(),
    };
    if taint.is_tolerated(&round.pod.tolerations) {
        return Ok(());
    }
    Err(Rejection::lasting(Plugin::NodeUnschedulable, "node(s) were unschedulable"))
}
