//! What upstream's conformance suite waits minutes for: that something does not happen, or happens late. Here an hour costs nothing, so
//! that each is waited for longer than there; a story bears the name of its text.

use kinds::{
    CERTIFICATE_SIGNING_REQUESTS, CONFIG_MAPS, CRON_JOBS, DEPLOYMENTS, EVENTS, JOBS, NODES, PODS,
    REPLICA_SETS, REPLICATION_CONTROLLERS, RESOURCE_QUOTAS, SECRETS, STATEFUL_SETS,
};
use object::{Object, Resource, Snapshot};
use plan::{Expect, Propagation, Write};
use serde_json::{Value, json};

use crate::hollow::{NEVER_READY, RUNS_FOR};
use crate::scenario::{Action, Scenario, deployment, job, same, template};
use crate::world::CA_PEM;

const HOUR: i64 = 3_600;

/// Every wait, by group and name.
pub static WAITS: &[Scenario] = &[
    Scenario {
        name: "sig-api-machinery: Garbage collector should keep the rc around until all its pods are deleted if the deleteOptions says so",
        nodes: 2,
        actions: &[
            (0, Action::Create(REPLICATION_CONTROLLERS, || replication_controller("rc", 6))),
            (
                60,
                Action::Always(|snapshot| {
                    let is_there = snapshot.find(REPLICATION_CONTROLLERS, "default", "rc").is_some();
                    let left = count(snapshot, PODS);
                    if is_there || left == 0 { Ok(()) } else { Err(format!("it went before {left} pods")) }
                }),
            ),
            (0, Action::Delete(REPLICATION_CONTROLLERS, "default", "rc", Some(Propagation::Foreground))),
        ],
        settle_secs: 120,
        end: |snapshot| same(count(snapshot, REPLICATION_CONTROLLERS), 0, "controllers"),
    },
    Scenario {
        name: "sig-api-machinery: Garbage collector should not be blocked by dependency circle",
        nodes: 2,
        actions: &[
            (0, Action::Create(PODS, || pod("pod1"))),
            (0, Action::Create(PODS, || pod("pod2"))),
            (0, Action::Create(PODS, || pod("pod3"))),
            (
                60,
                Action::Write(|snapshot| {
                    let circle = [("pod1", "pod3"), ("pod2", "pod1"), ("pod3", "pod2")];
                    circle.iter().filter_map(|(of, owner)| owned(snapshot, PODS, of, "Pod", owner)).collect()
                }),
            ),
            (60, Action::Delete(PODS, "default", "pod1", Some(Propagation::Foreground))),
        ],
        settle_secs: 90,
        end: |snapshot| same(count(snapshot, PODS), 0, "pods"),
    },
    Scenario {
        name: "sig-api-machinery: Garbage collector should not delete dependents that have both valid owner and owner that's waiting for dependents to be deleted",
        nodes: 2,
        actions: &[
            (0, Action::Create(REPLICATION_CONTROLLERS, || replication_controller("leaves", 6))),
            (0, Action::Create(REPLICATION_CONTROLLERS, || replication_controller("stays", 0))),
            (
                60,
                Action::Write(|snapshot| {
                    let half = snapshot.list(PODS, "default").step_by(2);
                    let kind = "ReplicationController";
                    half.filter_map(|pod| owned(snapshot, PODS, &pod.key.name, kind, "stays")).collect()
                }),
            ),
            (
                60,
                Action::Always(|snapshot| {
                    let kept = snapshot
                        .list(PODS, "")
                        .filter(|pod| !pod.meta.is_deleting() && has_owner(pod, "stays"));
                    same(kept.count(), 3, "pods of the one that stays")
                }),
            ),
            (0, Action::Delete(REPLICATION_CONTROLLERS, "default", "leaves", Some(Propagation::Foreground))),
        ],
        settle_secs: HOUR,
        end: |snapshot| {
            same(count(snapshot, REPLICATION_CONTROLLERS), 1, "controllers")?;
            same(count(snapshot, PODS), 3, "pods")
        },
    },
    Scenario {
        name: "sig-api-machinery: Garbage collector should orphan RS created by deployment when deleteOptions.PropagationPolicy is Orphan",
        nodes: 2,
        actions: &[
            (0, Action::Create(DEPLOYMENTS, deployment)),
            (
                60,
                Action::Always(|snapshot| {
                    same(count(snapshot, REPLICA_SETS), 1, "replica sets")?;
                    same(count(snapshot, PODS), 6, "pods")
                }),
            ),
            (0, Action::Delete(DEPLOYMENTS, "default", "web", Some(Propagation::Orphan))),
        ],
        settle_secs: HOUR,
        end: |snapshot| same(count(snapshot, DEPLOYMENTS), 0, "deployments"),
    },
    Scenario {
        name: "sig-api-machinery: Garbage collector should orphan pods created by rc if delete options say so",
        nodes: 2,
        actions: &[
            (0, Action::Create(REPLICATION_CONTROLLERS, || replication_controller("rc", 6))),
            (60, Action::Always(|snapshot| same(count(snapshot, PODS), 6, "pods"))),
            (0, Action::Delete(REPLICATION_CONTROLLERS, "default", "rc", Some(Propagation::Orphan))),
        ],
        settle_secs: HOUR,
        end: |snapshot| same(count(snapshot, REPLICATION_CONTROLLERS), 0, "controllers"),
    },
    Scenario {
        name: "sig-api-machinery: ResourceQuota should apply changes to a resourcequota status",
        nodes: 1,
        actions: &[
            (0, Action::Create(RESOURCE_QUOTAS, || quota(json!({"pods": "5"})))),
            (
                60,
                Action::Write(|snapshot| {
                    let quota = snapshot.find(RESOURCE_QUOTAS, "default", "quota");
                    let wrong = json!({"status": {"hard": {"pods": "50"}, "used": {"pods": "7"}}});
                    quota.map(|quota| merge(quota, "status", wrong)).into_iter().collect()
                }),
            ),
            (60, Action::Always(|snapshot| quota_says(snapshot, "5", "0"))),
        ],
        settle_secs: HOUR,
        end: |snapshot| quota_says(snapshot, "5", "0"),
    },
    Scenario {
        name: "sig-api-machinery: ResourceQuota should create a ResourceQuota and capture the life of a pod",
        nodes: 1,
        actions: &[
            (0, Action::Create(RESOURCE_QUOTAS, || quota(json!({"pods": "5"})))),
            (60, Action::Always(|snapshot| quota_says(snapshot, "5", "0"))),
            (HOUR, Action::Always(|_| Ok(()))),
            (0, Action::Create(PODS, || pod("pod1"))),
            (60, Action::Always(|snapshot| quota_says(snapshot, "5", "1"))),
            (HOUR, Action::Always(|_| Ok(()))),
            (0, Action::Delete(PODS, "default", "pod1", None)),
            (60, Action::Always(|snapshot| quota_says(snapshot, "5", "0"))),
        ],
        settle_secs: HOUR,
        end: |snapshot| same(count(snapshot, PODS), 0, "pods"),
    },
    Scenario {
        name: "sig-apps: CronJob should not schedule jobs when suspended",
        nodes: 1,
        actions: &[
            (0, Action::Create(CRON_JOBS, || cron_job("Allow", "5", true))),
            (0, Action::Always(|snapshot| same(count(snapshot, JOBS), 0, "jobs"))),
        ],
        settle_secs: HOUR,
        end: |snapshot| same(count(snapshot, CRON_JOBS), 1, "cron jobs"),
    },
    Scenario {
        name: "sig-apps: CronJob should not schedule new jobs when ForbidConcurrent",
        nodes: 1,
        actions: &[
            (0, Action::Create(CRON_JOBS, || cron_job("Forbid", "100000", false))),
            (90, Action::Always(|snapshot| same(count(snapshot, JOBS), 1, "jobs"))),
            (HOUR, Action::Merge(CRON_JOBS, "default", "tick", || json!({"spec": {"suspend": true}}))),
        ],
        settle_secs: HOUR,
        end: |snapshot| same(count(snapshot, PODS), 1, "pods"),
    },
    Scenario {
        name: "sig-apps: CronJob should replace jobs when ReplaceConcurrent",
        nodes: 1,
        actions: &[
            (0, Action::Create(CRON_JOBS, || cron_job("Replace", "100000", false))),
            (
                90,
                Action::Always(|snapshot| {
                    let alive = snapshot.list(JOBS, "").filter(|job| !job.meta.is_deleting()).count();
                    if alive <= 1 { Ok(()) } else { Err(format!("{alive} jobs at once")) }
                }),
            ),
            (HOUR, Action::Merge(CRON_JOBS, "default", "tick", || json!({"spec": {"suspend": true}}))),
        ],
        settle_secs: 120,
        end: |snapshot| same(count(snapshot, JOBS), 1, "jobs"),
    },
    Scenario {
        name: "sig-apps: StatefulSet Scaling should happen in predictable order and halt if any stateful pod is unhealthy",
        nodes: 2,
        actions: &[
            (0, Action::Create(STATEFUL_SETS, stateful_set)),
            (
                60,
                Action::Always(|snapshot| same(count(snapshot, PODS), 1, "pods, with the first never ready")),
            ),
        ],
        settle_secs: HOUR,
        end: |snapshot| same(usize::from(snapshot.find(PODS, "default", "db-0").is_some()), 1, "db-0"),
    },
    Scenario {
        name: "sig-auth: CertificateSigningRequests go an hour after they were decided",
        nodes: 0,
        actions: &[
            (0, Action::Create(CERTIFICATE_SIGNING_REQUESTS, signing_request)),
            (
                0,
                Action::Always(|snapshot| same(count(snapshot, CERTIFICATE_SIGNING_REQUESTS), 1, "requests")),
            ),
            (
                60,
                Action::Write(|snapshot| {
                    let request = snapshot.find(CERTIFICATE_SIGNING_REQUESTS, "", "waits");
                    let decided = json!([{"type": "Approved", "status": "True", "reason": "Tested"}]);
                    let patch = json!({"status": {"conditions": decided}});
                    request.map(|request| merge(request, "approval", patch)).into_iter().collect()
                }),
            ),
            (HOUR - 60, Action::Always(|_| Ok(()))),
        ],
        settle_secs: 120,
        end: |snapshot| same(count(snapshot, CERTIFICATE_SIGNING_REQUESTS), 0, "requests"),
    },
    Scenario {
        name: "sig-auth: CertificateSigningRequests go a day after they were made, undecided",
        nodes: 0,
        actions: &[
            (0, Action::Create(CERTIFICATE_SIGNING_REQUESTS, signing_request)),
            (
                0,
                Action::Always(|snapshot| same(count(snapshot, CERTIFICATE_SIGNING_REQUESTS), 1, "requests")),
            ),
            (24 * HOUR - 60, Action::Always(|_| Ok(()))),
        ],
        settle_secs: 120,
        end: |snapshot| same(count(snapshot, CERTIFICATE_SIGNING_REQUESTS), 0, "requests"),
    },
    Scenario {
        name: "sig-auth: ServiceAccounts no secret-based service account token should be auto-generated",
        nodes: 0,
        actions: &[(0, Action::Always(|snapshot| same(count(snapshot, SECRETS), 0, "secrets")))],
        settle_secs: HOUR,
        end: |snapshot| {
            let accounts = snapshot.list(kinds::SERVICE_ACCOUNTS, "default");
            let secrets = |account: &Value| account["secrets"].as_array().map_or(0, Vec::len);
            let named =
                accounts.filter_map(|account| account.to_value().ok()).map(|account| secrets(&account));
            same(named.sum(), 0, "secrets of accounts")
        },
    },
    Scenario {
        name: "sig-auth: ServiceAccounts should guarantee kube-root-ca.crt exist in any namespace",
        nodes: 0,
        actions: &[
            (30, Action::Delete(CONFIG_MAPS, "default", "kube-root-ca.crt", None)),
            (30, Action::Always(root_ca)),
            (HOUR, Action::Always(|_| Ok(()))),
            (
                0,
                Action::Merge(
                    CONFIG_MAPS,
                    "default",
                    "kube-root-ca.crt",
                    || json!({"data": {"ca.crt": "", "x": "y"}}),
                ),
            ),
            (30, Action::Always(root_ca)),
        ],
        settle_secs: HOUR,
        end: root_ca,
    },
    Scenario {
        name: "sig-instrumentation: Events live an hour after they were last told",
        nodes: 0,
        actions: &[
            (0, Action::Create(EVENTS, event)),
            (0, Action::Always(|snapshot| same(count(snapshot, EVENTS), 1, "events"))),
            (
                HOUR / 2,
                Action::Write(|snapshot| {
                    let event = snapshot.find(EVENTS, "default", "told");
                    // 00:30:30 is when this happens.
                    let again = json!({"count": 2, "lastTimestamp": "2026-01-01T00:30:30Z"});
                    event.map(|event| merge(event, "", again)).into_iter().collect()
                }),
            ),
            (HOUR - 60, Action::Always(|_| Ok(()))),
        ],
        settle_secs: 120,
        end: |snapshot| same(count(snapshot, EVENTS), 0, "events"),
    },
    Scenario {
        name: "sig-node: NoExecuteTaintManager Single Pod removing taint cancels eviction",
        nodes: 1,
        actions: &[
            (0, Action::Create(PODS, tolerant_pod)),
            (60, Action::Always(|snapshot| same(count(snapshot, PODS), 1, "pods"))),
            (0, Action::Merge(NODES, "", "n1", || json!({"spec": {"taints": [taint()]}}))),
            (75, Action::Merge(NODES, "", "n1", || json!({"spec": {"taints": null}}))),
        ],
        settle_secs: HOUR,
        end: |snapshot| {
            let staying = snapshot.list(PODS, "").filter(|pod| !pod.meta.is_deleting()).count();
            same(staying, 1, "pods that stay")
        },
    },
    Scenario {
        name: "sig-node: NoExecuteTaintManager evicts a pod when its toleration is over, and not before",
        nodes: 1,
        actions: &[
            (0, Action::Create(PODS, tolerant_pod)),
            (
                60,
                Action::Always(|snapshot| {
                    let staying = snapshot.list(PODS, "").filter(|pod| !pod.meta.is_deleting()).count();
                    same(staying, 1, "pods that stay")
                }),
            ),
            (0, Action::Merge(NODES, "", "n1", || json!({"spec": {"taints": [taint()]}}))),
            (149, Action::Always(|_| Ok(()))),
        ],
        settle_secs: 60,
        end: |snapshot| same(count(snapshot, PODS), 0, "pods"),
    },
];

fn count(snapshot: &Snapshot, resource: Resource) -> usize {
    snapshot.list(resource, "").count()
}

fn has_owner(pod: &Object, name: &str) -> bool {
    pod.meta.owner_references.iter().any(|owner| *owner.name == *name)
}

fn merge(object: &Object, subresource: &'static str, patch: Value) -> Write {
    Write::Merge { key: object.key.clone(), expect: Expect::unchanged(object), subresource, patch }
}

/// Gives an object of `default` another owner, which is none of its controllers.
fn owned(snapshot: &Snapshot, resource: Resource, name: &str, kind: &str, owner: &str) -> Option<Write> {
    let of = if kind == "Pod" { PODS } else { REPLICATION_CONTROLLERS };
    let owner = snapshot.find(of, "default", owner)?;
    let object = snapshot.find(resource, "default", name)?;
    let mut owners =
        object.to_value().ok()?["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
    owners.push(json!({"apiVersion": "v1", "kind": kind, "name": &*owner.key.name, "uid": &*owner.meta.uid}));
    Some(merge(object, "", json!({"metadata": {"ownerReferences": owners}})))
}

fn replication_controller(name: &str, replicas: usize) -> Value {
    let labels = json!({"app": name});
    json!({
        "apiVersion": "v1", "kind": "ReplicationController", "metadata": {"namespace": "default", "name": name},
        "spec": {"replicas": replicas, "selector": labels, "template": template(labels, "web:1")},
    })
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "default", "name": name},
        "spec": {"containers": [{"name": "c", "image": "web:1"}]},
    })
}

fn taint() -> Value {
    json!({"key": "kubernetes.io/e2e-evict-taint-key", "value": "evictTaintVal", "effect": "NoExecute"})
}

/// It stays for 150 seconds where [`taint`] is.
fn tolerant_pod() -> Value {
    let mut pod = pod("tolerant");
    let mut toleration = taint();
    toleration["operator"] = "Equal".into();
    toleration["tolerationSeconds"] = 150.into();
    pod["spec"]["tolerations"] = json!([toleration]);
    pod
}

fn quota(hard: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"namespace": "default", "name": "quota"},
        "spec": {"hard": hard},
    })
}

fn quota_says(snapshot: &Snapshot, hard: &str, used: &str) -> Result<(), String> {
    let quota = snapshot.find(RESOURCE_QUOTAS, "default", "quota").and_then(|quota| quota.to_value().ok());
    let status = quota.unwrap_or_default()["status"].clone();
    if status == json!({"hard": {"pods": hard}, "used": {"pods": used}}) {
        return Ok(());
    }
    Err(format!("not {used} of {hard}: {status}"))
}

fn cron_job(policy: &str, runs_for: &str, suspend: bool) -> Value {
    let template = job(json!({RUNS_FOR: runs_for}), json!({}))["spec"].clone();
    json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"namespace": "default", "name": "tick"},
        "spec": {
            "schedule": "* * * * *", "concurrencyPolicy": policy, "suspend": suspend, "jobTemplate": {"spec": template},
        },
    })
}

fn stateful_set() -> Value {
    let labels = json!({"app": "db"});
    let mut template = template(labels.clone(), "db:1");
    template["metadata"]["annotations"] = json!({NEVER_READY: "true"});
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"namespace": "default", "name": "db"},
        "spec": {"replicas": 3, "serviceName": "db", "selector": {"matchLabels": labels}, "template": template},
    })
}

/// Of a key that nobody kept.
const REQUEST: &str = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlISk1ISUNBUUF3RURFT01Bd0dBMVVFQXd3RmQyRnBkSE13V1RBVEJnY3Foa2pPUFFJQkJnZ3Foa2pPUFFNQgpCd05DQUFSbCtQNWh1aG1VMktTMGZEQVlVUmxPT1RHRFF1T0pSa0UreWdHSTE0cmwwMm56QldKWXlNV1d4Ny9ECldmNTVuRHRZaDRhMmg2NEJhbzVDQy8wZXc3cElvQUF3Q2dZSUtvWkl6ajBFQXdJRFJ3QXdSQUlnZlBwMFRodTgKRDFILzZCYit6ZVM0RlhWVTBLd3ljblNkeTlDeElqM29vOUFDSUJ0RFA3cEZuWmZ4bWcvMERGbmh6aTloNHhJeQo0aFhLZ0xzS2xMUFZiRTNnCi0tLS0tRU5EIENFUlRJRklDQVRFIFJFUVVFU1QtLS0tLQo=";

fn signing_request() -> Value {
    json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "waits"},
        "spec": {"request": REQUEST, "signerName": "example.com/waits", "usages": ["client auth"]},
    })
}

fn event() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Event", "metadata": {"namespace": "default", "name": "told"},
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}, "type": "Normal", "count": 1,
        "reason": "Told", "message": "once", "source": {"component": "tests"},
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:00Z",
    })
}

fn root_ca(snapshot: &Snapshot) -> Result<(), String> {
    let held =
        snapshot.find(CONFIG_MAPS, "default", "kube-root-ca.crt").and_then(|held| held.to_value().ok());
    let data = held.unwrap_or_default()["data"].clone();
    if data == json!({"ca.crt": CA_PEM}) { Ok(()) } else { Err(format!("kube-root-ca.crt holds {data}")) }
}
