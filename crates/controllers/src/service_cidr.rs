//! ServiceCIDRs: ready when they are there, protected while a Service has an address that is in no other one.
//!
//! <https://kubernetes.io/docs/tasks/network/extend-service-ip-ranges/>

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use kinds::{IP_ADDRESSES, SERVICE_CIDRS};
use object::{Change, Event, Key, Object, Snapshot, Time};
use plan::{Expect, Plan, Write};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::views::{Condition, condition};
use crate::writes::{drop_finalizer, merge};
use crate::{Controller, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "service-cidr-controller",
    user: "service-cidrs-controller",
    watches: &[
        Watch { resource: IP_ADDRESSES, keys: of_address },
        Watch { resource: SERVICE_CIDRS, keys: of_range },
    ],
    reconcile,
    refused: None,
    resync_secs: None,
};

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// A range that nobody uses stays so long before it goes: API servers may still be giving its addresses out.
const DELETION_GRACE_SECONDS: i64 = 10;
/// The label of an IPAddress that says who gives it out, and the one who does for Services.
pub(crate) const MANAGED_BY: &str = "ipaddress.kubernetes.io/managed-by";
pub(crate) const ALLOCATOR: &str = "ipallocator.k8s.io";

#[derive(Default, Deserialize)]
#[serde(default)]
struct View {
    spec: Spec,
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    cidrs: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Vec<Condition>,
}

/// `10.0.0.0/16`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Prefix {
    address: IpAddr,
    bits: u32,
}

impl FromStr for Prefix {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, bits) = text.split_once('/').ok_or(())?;
        let (address, bits) = (address.parse::<IpAddr>().map_err(drop)?, bits.parse().map_err(drop)?);
        let most = if address.is_ipv4() { 32 } else { 128 };
        if bits > most { Err(()) } else { Ok(Self { address, bits }) }
    }
}

impl Prefix {
    /// Whether the first so many bits of the two are the same.
    fn shares(self, other: IpAddr, bits: u32) -> bool {
        match (self.address, other) {
            (IpAddr::V4(one), IpAddr::V4(other)) => {
                (u32::from(one) ^ u32::from(other)).checked_shr(32 - bits).unwrap_or(0) == 0
            }
            (IpAddr::V6(one), IpAddr::V6(other)) => {
                (u128::from(one) ^ u128::from(other)).checked_shr(128 - bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }

    fn overlaps(self, other: Self) -> bool {
        self.shares(other.address, self.bits.min(other.bits))
    }

    fn contains(self, address: IpAddr) -> bool {
        self.shares(address, self.bits)
    }
}

fn view(range: &Object) -> View {
    range.decode().unwrap_or_default()
}

fn prefixes(range: &Object) -> Vec<Prefix> {
    view(range).spec.cidrs.iter().filter_map(|text| text.parse().ok()).collect()
}

/// The ranges that an address is in.
fn containing(snapshot: &Snapshot, address: IpAddr) -> impl Iterator<Item = &Arc<Object>> {
    let holds = move |range: &&Arc<Object>| prefixes(range).iter().any(|prefix| prefix.contains(address));
    snapshot.list(SERVICE_CIDRS, "").filter(holds)
}

/// Whether any range holds an address.
pub(crate) fn is_within(snapshot: &Snapshot, address: IpAddr) -> bool {
    containing(snapshot, address).next().is_some()
}

/// An address that comes or goes may decide whether its ranges may.
fn of_address(snapshot: &Snapshot, event: &Event) -> Vec<Key> {
    let is_ours = event.object.meta.label(MANAGED_BY) == Some(ALLOCATOR);
    let Some(address) = event.key().name.parse().ok().filter(|_| is_ours && event.change != Change::Updated)
    else {
        return Vec::new();
    };
    // Only those that wait to be deleted depend on it.
    let waiting = containing(snapshot, address).filter(|range| range.meta.is_deleting());
    waiting.map(|range| range.key.clone()).collect()
}

/// A new range may free another one that overlaps it.
fn of_range(snapshot: &Snapshot, event: &Event) -> Vec<Key> {
    let mut keys = vec![event.key().clone()];
    if event.change == Change::Created {
        let own = prefixes(&event.object);
        let overlaps = |range: &&Arc<Object>| {
            prefixes(range).iter().any(|other| own.iter().any(|one| one.overlaps(*other)))
        };
        keys.extend(snapshot.list(SERVICE_CIDRS, "").filter(overlaps).map(|range| range.key.clone()));
    }
    keys
}

fn reconcile(snapshot: &Snapshot, key: &Key, now: Time, _: &Settings) -> Plan {
    let mut plan = Plan::default();
    let Some(range) = snapshot.get(key) else { return plan };
    let Some(deleted) = range.meta.deletion_timestamp else {
        if !range.meta.has_finalizer(FINALIZER) {
            let kept = range.meta.finalizers.iter().map(|one| &**one);
            let all: Vec<&str> = kept.chain([FINALIZER]).collect();
            plan.write(merge(range, json!({"metadata": {"finalizers": all}})));
        }
        tell(range, Condition::new("Ready", "True", "", "Kubernetes Service CIDR is ready", now), &mut plan);
        return plan;
    };
    if !range.meta.has_finalizer(FINALIZER) {
        return plan;
    }
    if is_needed(snapshot, range) {
        let why = "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR";
        tell(range, Condition::new("Ready", "False", "Terminating", why, now), &mut plan);
        return plan;
    }
    let goes = deleted.plus_secs(DELETION_GRACE_SECONDS);
    if goes > now {
        plan.wake(goes);
    } else {
        plan.write(drop_finalizer(range, FINALIZER));
    }
    plan
}

/// Whether an address of the allocator is in this range and in no other one.
fn is_needed(snapshot: &Snapshot, range: &Object) -> bool {
    let own = prefixes(range);
    // The same range under another name holds all of them.
    let others = || snapshot.list(SERVICE_CIDRS, "").filter(|other| other.key != range.key);
    let covers = |prefix: &Prefix| {
        others()
            .flat_map(|other| prefixes(other))
            .any(|other| other.bits <= prefix.bits && other.contains(prefix.address))
    };
    if own.iter().all(covers) {
        return false;
    }
    let is_alone = |address: &Arc<Object>| {
        let Ok(ip) = address.key.name.parse::<IpAddr>() else { return false };
        address.meta.label(MANAGED_BY) == Some(ALLOCATOR)
            && own.iter().any(|prefix| prefix.contains(ip))
            && containing(snapshot, ip).count() == 1
    };
    snapshot.list(IP_ADDRESSES, "").any(is_alone)
}

/// A condition of a kind that says its reason even where there is none.
pub(crate) fn written(condition: &Condition) -> Value {
    let mut value = json!(condition);
    value["reason"] = condition.reason.as_str().into();
    value
}

fn tell(range: &Object, wanted: Condition, plan: &mut Plan) {
    let conditions = view(range).status.conditions;
    let known = condition(&conditions, "Ready");
    let says = |known: &Condition| {
        (&known.status, &known.reason, &known.message) == (&wanted.status, &wanted.reason, &wanted.message)
    };
    if known.is_some_and(says) {
        return;
    }
    let others = conditions.iter().filter(|one| one.kind != "Ready");
    let conditions: Vec<_> = others.chain([&wanted]).map(written).collect();
    plan.write(Write::Merge {
        key: range.key.clone(),
        expect: Expect::same(range),
        subresource: "status",
        patch: json!({"status": {"conditions": conditions}}),
    });
}
