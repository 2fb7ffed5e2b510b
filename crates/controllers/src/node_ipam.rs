//! Gives every node its block of pod addresses.
//!
//! All nodes are one key: blocks are handed out by one run at a time, from a snapshot that holds every earlier one, so none is given twice.
//!
//! <https://kubernetes.io/docs/reference/command-line-tools-reference/kube-controller-manager/> `--allocate-node-cidrs`

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use kinds::NODES;
use object::{Event, Key, Snapshot, Time};
use plan::Plan;
use serde_json::json;

use crate::nodes::{KIND, Node};
use crate::writes::{event, merge};
use crate::{Controller, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "node-ipam-controller",
    user: "node-controller",
    watches: &[Watch { resource: NODES, keys: all_nodes }],
    reconcile,
    refused: None,
    resync_secs: None,
};

/// Only a node without a block, or one that leaves its block, is news.
fn all_nodes(_: &Snapshot, event: &Event) -> Vec<Key> {
    let has_block = Node::read(&event.object).is_some_and(|node| !node.spec.pod_cidr.is_empty());
    let is_gone = event.change == object::Change::Deleted;
    if has_block && !is_gone { Vec::new() } else { vec![Key::cluster(NODES, "")] }
}

fn reconcile(snapshot: &Snapshot, _: &Key, _: Time, settings: &Settings) -> Plan {
    let mut plan = Plan::default();
    let Some((first, count)) = blocks(&settings.pod_cidr, settings.node_cidr_mask) else { return plan };
    let nodes: Vec<Node> = snapshot.list(NODES, "").filter_map(Node::read).collect();
    let used: BTreeSet<&str> = nodes
        .iter()
        .flat_map(|node| node.spec.pod_cidrs.iter().chain([&node.spec.pod_cidr]))
        .map(String::as_str)
        .collect();
    let size = 1u32 << (32 - settings.node_cidr_mask);
    let all = (0..count).map(|index| {
        let start = Ipv4Addr::from(u32::from(first) + index * size);
        format!("{start}/{}", settings.node_cidr_mask)
    });
    let mut free = all.filter(|block| !used.contains(block.as_str()));
    for node in nodes.iter().filter(|node| node.spec.pod_cidr.is_empty() && !node.object.meta.is_deleting()) {
        match free.next() {
            Some(block) => {
                plan.write(merge(&node.object, json!({"spec": {"podCIDR": block, "podCIDRs": [block]}})));
            }
            None => {
                let message = format!("Node {} status is now: CIDRNotAvailable", node.name());
                event(&mut plan, &node.object, &KIND, false, "CIDRNotAvailable", message);
            }
        }
    }
    plan
}

/// (first address, number of blocks) of `10.244.0.0/16` in blocks of /24; None if that cannot be.
fn blocks(cidr: &str, mask: u8) -> Option<(Ipv4Addr, u32)> {
    let (address, prefix) = cidr.split_once('/')?;
    let address: Ipv4Addr = address.parse().ok()?;
    let prefix: u8 = prefix.parse().ok()?;
    let fits = (1..=mask).contains(&prefix) && (1..=32).contains(&mask);
    fits.then(|| (address, 1u32 << (mask - prefix)))
}
