//! Does it fit, and how does the node look afterwards?

use super::{MAX_SCORE, Plugin, Round};
use crate::explain::{Reason, Rejection};
use crate::node::Node;

/// Names everything that is short. If the node could never hold the pod, no preemption helps.
pub fn check(round: &Round, node: &Node) -> Result<(), Rejection> {
    let (wanted, held, has) = (&round.pod.requests, &node.requested, &node.allocatable);
    let mut reasons = Vec::new();
    let mut is_resolvable = true;
    if i64::try_from(node.pods.len()).unwrap_or(i64::MAX) >= node.allowed_pods {
        reasons.push(Reason::Text("Too many pods"));
    }
    let mut compare = |name: &str, wanted: i64, held: i64, has: i64| {
        if wanted > 0 && wanted > has - held {
            reasons.push(Reason::Insufficient(name.into()));
            is_resolvable &= wanted <= has;
        }
    };
    compare("cpu", wanted.cpu_millis, held.cpu_millis, has.cpu_millis);
    compare("memory", wanted.memory_bytes, held.memory_bytes, has.memory_bytes);
    compare("ephemeral-storage", wanted.ephemeral_bytes, held.ephemeral_bytes, has.ephemeral_bytes);
    for (name, amount) in &wanted.others {
        compare(name, *amount, held.other(name), has.other(name));
    }
    if reasons.is_empty() {
        return Ok(());
    }
    Err(Rejection { plugin: Plugin::NodeResourcesFit, reasons, is_resolvable })
}

/// The more is left of CPU and memory, the better (`LeastAllocated`).
pub fn least_allocated(round: &Round, nodes: &[&Node]) -> Option<Vec<i64>> {
    let (cpu, memory) = round.pod.scored;
    let left = |has: i64, held: i64| if has <= 0 || held > has { 0 } else { (has - held) * MAX_SCORE / has };
    let score = |node: &&Node| {
        let of_cpu = left(node.allocatable.cpu_millis, node.scored.0 + cpu);
        // Bytes times a hundred stay far below 2^63 up to 80 PiB.
        let of_memory = left(node.allocatable.memory_bytes, node.scored.1 + memory);
        (of_cpu + of_memory) / 2
    };
    Some(nodes.iter().map(score).collect())
}

/// The more alike the used shares of CPU and memory, the better. A pod that asks for nothing changes none.
pub fn balanced(round: &Round, nodes: &[&Node]) -> Option<Vec<i64>> {
    let wanted = &round.pod.requests;
    if wanted.cpu_millis == 0 && wanted.memory_bytes == 0 {
        return None;
    }
    let share = |has: i64, held: i64| if has <= 0 { 0.0 } else { (held as f64 / has as f64).min(1.0) };
    let score = |node: &&Node| {
        let cpu = share(node.allocatable.cpu_millis, node.requested.cpu_millis + wanted.cpu_millis);
        let memory = share(node.allocatable.memory_bytes, node.requested.memory_bytes + wanted.memory_bytes);
        // The standard deviation of two values is half their distance.
        ((1.0 - (cpu - memory).abs() / 2.0) * MAX_SCORE as f64) as i64
    };
    Some(nodes.iter().map(score).collect())
}
