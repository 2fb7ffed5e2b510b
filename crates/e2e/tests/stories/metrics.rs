//! What components tell of themselves, under the names that dashboards and alerts for Kubernetes ask for.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use e2e::{Room, run};

use crate::network;

/// A page of it, and what it must have counted when a Deployment has been made: the beginnings of lines.
const PAGES: &[(&str, &[&str])] = &[
    (
        "/metrics",
        &[
            "apiserver_admission_step_admission_duration_seconds_count{",
            "apiserver_flowcontrol_dispatched_requests_total{",
            "apiserver_request_duration_seconds_count{",
            "apiserver_request_total{",
            "apiserver_storage_objects{resource=\"deployments.apps\"}",
            "apiserver_watch_events_total{",
            "authentication_attempts{result=\"success\"}",
            "authorization_attempts_total{result=\"allowed\"}",
            "etcd_request_duration_seconds_count{group=\"apps\",operation=\"create\",resource=\"deployments\"}",
            "etcd_requests_total{group=\"apps\",operation=\"create\",resource=\"deployments\"}",
            "kube_apiserver_clusterip_allocator_allocated_ips{",
            "process_cpu_seconds_total ",
        ],
    ),
    (
        "/apis/metrics.eks.amazonaws.com/v1/kcm/container/metrics",
        &[
            "rest_client_request_duration_seconds_count{",
            "rest_client_requests_total{",
            "workqueue_adds_total{name=\"deployment\"}",
            "workqueue_queue_duration_seconds_count{name=\"replicaset\"}",
            "workqueue_work_duration_seconds_count{name=\"deployment\"}",
        ],
    ),
    (
        "/apis/metrics.eks.amazonaws.com/v1/ksh/container/metrics",
        &[
            "rest_client_requests_total{",
            "scheduler_cache_size{type=\"nodes\"}",
            "scheduler_pod_scheduling_attempts_count ",
            "scheduler_schedule_attempts_total{profile=\"default-scheduler\",result=\"scheduled\"}",
            "scheduler_scheduling_attempt_duration_seconds_count{",
        ],
    ),
];

/// As Amazon's documentation has it: <https://docs.aws.amazon.com/eks/latest/userguide/view-raw-metrics.html>
const SCRAPER: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: { name: e2e-metrics }
rules: [{ apiGroups: [metrics.eks.amazonaws.com], resources: [kcm/metrics, ksh/metrics], verbs: [get] }]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: e2e-metrics }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: e2e-metrics }
subjects: [{ apiGroup: rbac.authorization.k8s.io, kind: User, name: scraper }]
"#;

pub fn tell(room: &Room) -> Result<()> {
    room.apply(network::WEB)?;
    room.rolled_out("deployment/web")?;
    room.apply(SCRAPER)?;
    for (path, wanted) in PAGES {
        let text = room.kubectl(&format!("get --raw {path}"))?;
        is_page(&text).context(*path)?;
        for beginning in *wanted {
            ensure!(counted(&text, beginning), "{path}: nothing above zero begins with {beginning}");
        }
        let is_of_component = path.starts_with("/apis/");
        let answer = room.try_kubectl(&format!("--as=scraper get --raw {path}"))?;
        if is_of_component {
            answer.ok()?;
            room.try_kubectl(&format!("--as=stranger get --raw {path}"))?.fails_with("is forbidden")?;
        } else {
            answer.fails_with("cannot get path \"/metrics\"")?;
        }
    }
    run(&mut room.command("delete -f -")?, SCRAPER)?.ok().map(drop)
}

/// Whether a sample that is not zero begins so.
fn counted(text: &str, beginning: &str) -> bool {
    text.lines().filter(|line| line.starts_with(beginning)).any(|line| {
        let value = line.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok());
        value.is_some_and(|value| value > 0.0)
    })
}

/// Prometheus' text format: every sample is of a family whose type was told before it, and is a number.
fn is_page(text: &str) -> Result<()> {
    let mut families = BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            families.insert(rest.split(' ').next().unwrap_or_default());
        }
        if line.starts_with('#') {
            continue;
        }
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let of_histogram = ["_bucket", "_count", "_sum"].iter().find_map(|end| name.strip_suffix(end));
        let is_known = families.contains(name) || of_histogram.is_some_and(|name| families.contains(name));
        ensure!(is_known, "of no family: {line}");
        let value = line.rsplit(' ').next().unwrap_or_default();
        ensure!(value.parse::<f64>().is_ok(), "no number: {line}");
    }
    ensure!(families.len() > 5, "no page of metrics: {text}");
    Ok(())
}
