//! What requests and limits become: quality of service, cgroups, OOM scores.

use std::collections::BTreeMap;

use plan::node::Resources;
use schema::quantity::Quantity;

use crate::node_status::NodeFacts;
use crate::pod::{Container, Pod, Requirements};

/// <https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QosClass {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl QosClass {
    pub const fn name(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

const PERIOD_US: u64 = 100_000;

pub fn qos_class(pod: &Pod) -> QosClass {
    let mut guaranteed = true;
    let mut any = false;
    for container in pod.spec.containers.iter().chain(&pod.spec.init_containers) {
        for resource in ["cpu", "memory"] {
            let request = amount(&container.resources.requests, resource);
            let limit = amount(&container.resources.limits, resource);
            any |= request > 0 || limit > 0;
            guaranteed &= limit > 0 && request == limit;
        }
    }
    match (any, guaranteed) {
        (false, _) => QosClass::BestEffort,
        (true, true) => QosClass::Guaranteed,
        (true, false) => QosClass::Burstable,
    }
}

/// The cgroup of a pod below the runtime's root.
pub fn cgroup_parent(pod: &Pod) -> String {
    let uid = &pod.metadata.uid;
    match qos_class(pod) {
        QosClass::Guaranteed => format!("kubepods/pod{uid}"),
        QosClass::Burstable => format!("kubepods/burstable/pod{uid}"),
        QosClass::BestEffort => format!("kubepods/besteffort/pod{uid}"),
    }
}

/// Limits of the pod as a whole: set only where every container has one.
pub fn pod_resources(pod: &Pod) -> Resources {
    let all = || pod.spec.containers.iter();
    let total = |name: &str, of: fn(&Container) -> &BTreeMap<String, String>| -> i64 {
        all().map(|container| amount(of(container), name)).sum()
    };
    let every_has = |name: &str| all().all(|container| amount(&container.resources.limits, name) > 0);
    let limits = |container: &Container| -> Requirements { container.resources.clone() };
    let init = |name: &str| {
        pod.spec.init_containers.iter().map(|one| amount(&limits(one).limits, name)).max().unwrap_or(0)
    };
    let requests: fn(&Container) -> &BTreeMap<String, String> = |container| &container.resources.requests;
    let limit: fn(&Container) -> &BTreeMap<String, String> = |container| &container.resources.limits;
    let mut resources = Resources { cpu_shares: shares(total("cpu", requests)), ..Resources::default() };
    if every_has("cpu") {
        resources.cpu_period_us = PERIOD_US;
        resources.cpu_quota_us = quota(total("cpu", limit).max(init("cpu")));
    }
    if every_has("memory") {
        resources.memory_limit_bytes = total("memory", limit).max(init("memory")) / 1_000;
    }
    resources
}

pub fn container_resources(pod: &Pod, container: &Container, node: &NodeFacts) -> Resources {
    let Requirements { requests, limits } = &container.resources;
    let cpu_limit = amount(limits, "cpu");
    let cpu = if requests.contains_key("cpu") { amount(requests, "cpu") } else { cpu_limit };
    Resources {
        cpu_shares: shares(cpu),
        cpu_period_us: if cpu_limit > 0 { PERIOD_US } else { 0 },
        cpu_quota_us: if cpu_limit > 0 { quota(cpu_limit) } else { 0 },
        memory_limit_bytes: amount(limits, "memory") / 1_000,
        pids_limit: 0,
        oom_score_adj: Some(oom_score_adj(pod, container, node.memory_bytes)),
    }
}

/// Guaranteed −997, BestEffort 1000, between them by how much of the node's memory is asked for.
fn oom_score_adj(pod: &Pod, container: &Container, node_memory_bytes: u64) -> i32 {
    match qos_class(pod) {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let asked = amount(&container.resources.requests, "memory") / 1_000;
            let share =
                asked.saturating_mul(1_000) / i64::try_from(node_memory_bytes.max(1)).unwrap_or(i64::MAX);
            i32::try_from((1_000 - share).clamp(3, 999)).unwrap_or(999)
        }
    }
}

/// 1024 shares for a CPU, at least 2.
fn shares(milli_cpu: i64) -> u64 {
    u64::try_from(milli_cpu * 1_024 / 1_000).unwrap_or(0).clamp(2, 262_144)
}

/// Microseconds of each period, at least one millisecond.
fn quota(milli_cpu: i64) -> i64 {
    (milli_cpu.saturating_mul(PERIOD_US as i64) / 1_000).max(1_000)
}

/// A resource of a list in thousandths; 0 if it is absent.
pub fn amount(list: &BTreeMap<String, String>, name: &str) -> i64 {
    list.get(name).and_then(|text| text.parse::<Quantity>().ok()).map_or(0, |quantity| quantity.millis())
}
