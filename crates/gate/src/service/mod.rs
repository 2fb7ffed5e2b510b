//! Addresses and ports of Services, taken and given back in the same transaction as the Service itself.
//!
//! A cluster IP is taken by an `IPAddress` object of its name (KEP-1880), a node port by an object that only the store sees. Both are
//! written on condition that nothing is there, so two Services that want the same one cannot both be committed.

mod addresses;
mod families;
mod ports;
mod wishes;

use object::{Key, Object, Resource, Snapshot, Status};
use schema::{Violation, path};
use serde_json::Value;
use store::Op;

use crate::commit::Failed;
use crate::{Gate, allocation, commit, metadata};

/// Not served: one object for each node port that is taken.
pub(crate) const NODE_PORTS: Resource = Resource::new("nodeports.internal.ekso");

/// What a Service's addresses and ports are allocated with.
struct Allocation<'a> {
    gate: &'a Gate,
    snapshot: &'a Snapshot,
    key: &'a Key,
    /// Nothing is taken: what would be given is a stand-in, and neither an address that somebody has nor a port out of range is refused,
    /// as upstream.
    dry_run: bool,
}

/// Completes a Service's addresses and ports; the operations take what is new and give back what it no longer has.
/// Objects of other kinds are left alone.
pub(crate) fn allocate(
    gate: &Gate,
    snapshot: &Snapshot,
    key: &Key,
    new: &mut Value,
    old: Option<&Value>,
    dry_run: bool,
) -> Result<Vec<Op>, Status> {
    if key.resource != kinds::SERVICES {
        return Ok(Vec::new());
    }
    if let Some(old) = old {
        wishes::keep_allocated(new, old);
    }
    wishes::agree(new, old);
    families::settle(new, old)?;
    let allocation = Allocation { gate, snapshot, key, dry_run };
    let mut ops = addresses::settle(&allocation, new, old)?;
    ops.extend(ports::settle(&allocation, new, old)?);
    if let Some(old) = old {
        wishes::drop_inapplicable(new, old);
    }
    Ok(ops)
}

/// What a Service that goes away gives back.
pub(crate) fn release(snapshot: &Snapshot, service: &Object) -> Vec<Op> {
    let Ok(value) = service.to_value() else { return Vec::new() };
    let addresses = addresses::held(&value).into_iter().map(addresses::key);
    let taken = addresses.chain(ports::held(&value).into_iter().map(ports::key));
    taken.filter_map(|key| snapshot.get(&key).map(|held| commit::remove(held))).collect()
}

impl Gate {
    /// Takes the addresses and ports of Services that nothing says are taken: upstream keeps its node ports, and before 1.33 its cluster
    /// addresses, in a form of its own. To be called before anyone else is served.
    ///
    /// # Errors
    /// What the store failed at. An address that somebody has taken meanwhile is none.
    pub async fn adopt_services(&self) -> Result<(), Status> {
        let snapshot = self.store.snapshot();
        for service in snapshot.list(kinds::SERVICES, "") {
            let Ok(value) = service.to_value() else { continue };
            let mut ops = Vec::new();
            let ranges = allocation::ranges(&snapshot, self.services.addresses);
            for address in addresses::held(&value) {
                let is_ours = ranges.iter().any(|range| range.contains(address));
                if is_ours && snapshot.get(&addresses::key(address)).is_none() {
                    ops.push(addresses::take(self, &service.key, address)?);
                }
            }
            let free = |port: &i64| snapshot.get(&ports::key(*port)).is_none();
            ops.extend(
                ports::held(&value).into_iter().filter(free).map(|port| ports::take(&service.key, port)),
            );
            for op in ops {
                match self.commit(&service.key, vec![op]).await {
                    Err(Failed::Status(status)) => return Err(status),
                    Ok(_) | Err(Failed::Raced { .. }) => {}
                }
            }
        }
        Ok(())
    }
}

fn kind(service: &Value) -> &str {
    path::text(service, "spec.type")
}

/// Whether it is reached at an address, or stands for its endpoints, rather than being another name.
fn has_address(service: &Value) -> bool {
    kind(service) != "ExternalName"
}

fn is_balanced(service: &Value) -> bool {
    kind(service) == "LoadBalancer"
}

/// Whether it may be reached at ports of nodes.
fn is_on_nodes(service: &Value) -> bool {
    matches!(kind(service), "NodePort" | "LoadBalancer")
}

/// Whether each of its ports gets one on the nodes by itself.
fn wants_node_ports(service: &Value) -> bool {
    let refused = path::get(service, "spec.allocateLoadBalancerNodePorts") == Some(&Value::Bool(false));
    kind(service) == "NodePort" || (is_balanced(service) && !refused)
}

fn node_port(port: &Value) -> i64 {
    path::int(port, "nodePort").unwrap_or_default()
}

fn refused(service: &Value, violations: &[Violation]) -> Result<(), Status> {
    if violations.is_empty() {
        return Ok(());
    }
    Err(Violation::to_status(violations, "", "Service", metadata::text(service, "name")))
}
