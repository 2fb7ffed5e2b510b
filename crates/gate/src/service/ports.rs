//! The ports that a Service has on every node.

use std::collections::{BTreeMap, BTreeSet};

use object::{Key, Reason, Status};
use schema::{At, Violation, path};
use serde_json::{Value, json};
use store::{Op, Precondition};

use super::{Allocation, NODE_PORTS, is_on_nodes, node_port, refused, wants_node_ports};
use crate::commit;

const HEALTH: &str = "spec.healthCheckNodePort";
/// In front of the first stand-in that a dry run gives, as upstream: the last port that may be given is below it.
const BEFORE_STAND_INS: i64 = 32_768;

/// Every node port that a Service holds.
pub(super) fn held(service: &Value) -> BTreeSet<i64> {
    let listed = path::list(service, "spec.ports").iter().filter(|_| is_on_nodes(service)).map(node_port);
    listed.chain(health_port(service)).filter(|port| *port != 0).collect()
}

/// The port of its health check, if it has one; zero: it wants one.
fn health_port(service: &Value) -> Option<i64> {
    kinds::service::needs_health_port(&service["spec"])
        .then(|| path::int(service, HEALTH).unwrap_or_default())
}

/// The ports that a write takes.
struct Ports<'a, 'b> {
    allocation: &'a Allocation<'b>,
    taken: BTreeSet<i64>,
}

/// Completes the ports.
///
/// # Errors
/// 422: a port that cannot be had. 500: one for health checks, as upstream, and when there is none left.
pub(super) fn settle(
    allocation: &Allocation<'_>,
    new: &mut Value,
    old: Option<&Value>,
) -> Result<Vec<Op>, Status> {
    let mut ports = Ports { allocation, taken: BTreeSet::new() };
    if is_on_nodes(new) {
        match old {
            None => ports.of_new(new)?,
            Some(old) => ports.of_changed(new, old)?,
        }
    }
    if let (Some(asked), None) = (health_port(new), old.and_then(health_port)) {
        let port = ports.for_health(asked)?;
        path::set(new, HEALTH, port.into());
    }
    if allocation.dry_run {
        return Ok(Vec::new());
    }
    let (before, now) = (old.map(held).unwrap_or_default(), held(new));
    let mut ops: Vec<Op> = ports.taken.into_iter().map(|port| take(allocation.key, port)).collect();
    let gone = before.difference(&now).filter_map(|port| allocation.snapshot.get(&key(*port)));
    ops.extend(gone.map(|held| commit::remove(held)));
    Ok(ops)
}

impl Ports<'_, '_> {
    /// Two protocols of one port number share their node port.
    fn of_new(&mut self, new: &mut Value) -> Result<(), Status> {
        let assigns = wants_node_ports(new);
        let mut by_number: BTreeMap<i64, i64> = BTreeMap::new();
        for index in 0..path::list(new, "spec.ports").len() {
            let ports = path::list(new, "spec.ports");
            let number = |port: &Value| path::int(port, "port").unwrap_or_default();
            let (own, asked) = (number(&ports[index]), node_port(&ports[index]));
            if asked == 0 && !assigns {
                continue;
            }
            let given = match by_number.get(&own) {
                None => {
                    let same = |port: &&Value| number(port) == own && node_port(port) != 0;
                    let given = match ports.iter().find(same).map(node_port) {
                        Some(wished) => self.choose(new, index, wished)?,
                        None => self.next()?,
                    };
                    by_number.insert(own, given);
                    given
                }
                Some(&given) if asked == 0 || asked == given => given,
                Some(_) => self.choose(new, index, asked)?,
            };
            new["spec"]["ports"][index]["nodePort"] = given.into();
        }
        Ok(())
    }

    fn of_changed(&mut self, new: &mut Value, old: &Value) -> Result<(), Status> {
        let assigns = wants_node_ports(new);
        let before: BTreeSet<i64> = path::list(old, "spec.ports").iter().map(node_port).collect();
        let mut pairs = BTreeSet::new();
        for index in 0..path::list(new, "spec.ports").len() {
            let port = &path::list(new, "spec.ports")[index];
            let (protocol, asked) = (path::text(port, "protocol").to_owned(), node_port(port));
            if asked == 0 && !assigns {
                continue;
            }
            let given = match asked {
                0 => self.next()?,
                _ if before.contains(&asked) || self.taken.contains(&asked) => asked,
                _ => self.choose(new, index, asked)?,
            };
            new["spec"]["ports"][index]["nodePort"] = given.into();
            if !pairs.insert((protocol.clone(), given)) {
                return Err(Status::new(
                    Reason::Unknown,
                    format!("duplicate nodePort: {{{protocol} {given}}}"),
                ));
            }
        }
        Ok(())
    }

    fn choose(&mut self, service: &Value, index: usize, port: i64) -> Result<i64, Status> {
        if let Err(why) = self.allocate(port) {
            let list = At::root("spec.ports");
            let at = list.index(index);
            refused(service, &[Violation::invalid(at.field("nodePort"), port, why)])?;
        }
        Ok(port)
    }

    fn for_health(&mut self, asked: i64) -> Result<i64, Status> {
        if asked == 0 {
            return self.free().ok_or_else(|| {
                Status::internal("failed to allocate a HealthCheck NodePort 0: range is full")
            });
        }
        self.allocate(asked).map(|()| asked).map_err(|why| {
            Status::internal(format!("failed to allocate requested HealthCheck NodePort {asked}: {why}"))
        })
    }

    /// Takes a port that a client asks for.
    fn allocate(&mut self, port: i64) -> Result<(), String> {
        let Allocation { gate, snapshot, dry_run, .. } = *self.allocation;
        let (first, last) = gate.services.node_ports;
        let is_ours = dry_run || (i64::from(first)..=i64::from(last)).contains(&port);
        let is_free = snapshot.get(&key(port)).is_none() && !self.taken.contains(&port);
        if !dry_run {
            gate.measures.node_port("static", is_ours && is_free);
        }
        if !is_ours {
            return Err(format!(
                "provided port is not in the valid range. The range of valid ports is {first}-{last}"
            ));
        }
        if !is_free {
            return Err("provided port is already allocated".into());
        }
        self.taken.insert(port);
        Ok(())
    }

    fn next(&mut self) -> Result<i64, Status> {
        self.free().ok_or_else(|| Status::internal("failed to allocate a nodePort: range is full"))
    }

    /// A free node port. The lowest part of the range is left for those who choose theirs, as long as there are others (KEP-3668).
    fn free(&mut self) -> Option<i64> {
        let Allocation { gate, snapshot, dry_run, .. } = *self.allocation;
        if dry_run {
            let stand_in = self.taken.last().unwrap_or(&BEFORE_STAND_INS) + 1;
            self.taken.insert(stand_in);
            return Some(stand_in);
        }
        let (first, last) = gate.services.node_ports;
        let size = u64::from(last.saturating_sub(first)) + 1;
        let low = (size / 32).clamp(16, 128).min(size / 2);
        let start = gate.below(size - low);
        let upper = (0..size - low).map(|step| low + (start + step) % (size - low));
        let is_free = |port: &i64| !self.taken.contains(port) && snapshot.get(&key(*port)).is_none();
        let found = upper.chain(0..low).map(|offset| i64::from(first) + offset as i64).find(is_free);
        gate.measures.node_port("dynamic", found.is_some());
        self.taken.extend(found);
        found
    }
}

pub(super) fn key(port: i64) -> Key {
    Key::cluster(NODE_PORTS, port.to_string())
}

pub(super) fn take(service: &Key, port: i64) -> Op {
    let key = key(port);
    let object = json!({
        "apiVersion": "internal.ekso/v1",
        "kind": "NodePort",
        "metadata": {"name": &*key.name},
        "service": {"namespace": &*service.namespace, "name": &*service.name},
    });
    commit::put(commit::bare(&key, &object), Precondition::Absent)
}
