//! Stories as data: what the user does and what breaks, when, and what must have come of it.

use kinds::{
    CRON_JOBS, DAEMON_SETS, DEPLOYMENTS, ENDPOINT_SLICES, JOBS, NAMESPACES, NODES, PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES, PODS, SERVICES, STATEFUL_SETS, STORAGE_CLASSES,
};
use object::{Key, Resource, Snapshot};
use plan::{Expect, Propagation, Write};
use serde_json::{Value, json};

use crate::hollow::{EXIT_CODE, NEVER_READY, RUNS_FOR};
use crate::invariants::{self, Bounds, Violation};
use crate::world::{Faults, World};

/// What must be true, or why it is not.
pub type Promise = fn(&Snapshot) -> Result<(), String>;

/// What happens at a moment.
#[derive(Clone, Copy)]
pub enum Action {
    /// From now on this holds after every step, in the place of what held so far.
    Always(Promise),
    Create(Resource, fn() -> Value),
    /// (resource, namespace, name, merge patch)
    Merge(Resource, &'static str, &'static str, fn() -> Value),
    Delete(Resource, &'static str, &'static str, Option<Propagation>),
    LoseNode(&'static str),
    RestartKubelet(&'static str),
    RestartControllers,
    SetBounds(Option<Bounds>),
    /// What the user writes because of what there is.
    Write(fn(&Snapshot) -> Vec<Write>),
}

/// A story.
#[derive(Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    pub nodes: usize,
    /// In order: (seconds since the one before, what happens).
    pub actions: &'static [(i64, Action)],
    /// How long after the last action everything must be at rest.
    pub settle_secs: i64,
    /// What must be true then.
    pub end: Promise,
}

/// At rest means: nothing is written for so long.
const QUIET_SECS: i64 = 120;
const FAULTS: Faults = Faults { conflicts: 30, lost_answers: 10, restarts: 2 };

impl Scenario {
    /// Plays the story with a seed and gives the world as it is at the end.
    ///
    /// # Errors
    /// The first promise that was broken.
    pub fn play(&self, seed: u64) -> Result<World, Violation> {
        let mut world = World::new(seed, self.nodes, FAULTS, None);
        world.run_for(30)?;
        for (after, action) in self.actions {
            world.run_for(*after)?;
            act(&mut world, *action);
        }
        world.run_for(self.settle_secs)?;
        world.set_faults(Faults::default());
        world.run_for(QUIET_SECS)?;
        let writes = world.writes();
        world.run_for(QUIET_SECS)?;
        if world.writes() != writes {
            let last = world.log().iter().rev().take(5).cloned().collect::<Vec<_>>().join("\n");
            return Err(Violation(format!("still writing:\n{last}")));
        }
        invariants::check_end(&world.snapshot())?;
        (self.end)(&world.snapshot()).map_err(Violation)?;
        Ok(world)
    }
}

fn act(world: &mut World, action: Action) {
    match action {
        Action::Always(promise) => world.set_promise(promise),
        Action::Create(resource, object) => world.do_as_admin(Write::Create { resource, object: object() }),
        Action::Merge(resource, namespace, name, patch) => world.do_as_admin(Write::Merge {
            key: Key::new(resource, namespace, name),
            expect: Expect::default(),
            subresource: "",
            patch: patch(),
        }),
        Action::Delete(resource, namespace, name, propagation) => world.do_as_admin(Write::Delete {
            key: Key::new(resource, namespace, name),
            expect: Expect::default(),
            grace_seconds: None,
            propagation,
        }),
        Action::LoseNode(node) => world.lose_node(node),
        Action::RestartKubelet(node) => world.restart_kubelet(node),
        Action::RestartControllers => world.restart_controllers(),
        Action::SetBounds(bounds) => world.set_bounds(bounds),
        Action::Write(writes) => {
            writes(&world.snapshot()).into_iter().for_each(|write| world.do_as_admin(write))
        }
    }
}

pub(crate) fn template(labels: Value, image: &str) -> Value {
    json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": image}]}})
}

pub(crate) fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": "default", "name": "web"},
        "spec": {
            "replicas": 6, "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 2, "maxUnavailable": 1}},
            "template": template(json!({"app": "web"}), "web:1"),
        },
    })
}

fn image(image: &str) -> Value {
    json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": image}]}}}})
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "default", "name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
    })
}

pub(crate) fn job(annotations: Value, spec: Value) -> Value {
    let mut template = template(json!({}), "job:1");
    template["metadata"]["annotations"] = annotations;
    template["spec"]["restartPolicy"] = "Never".into();
    let mut job = json!({
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"namespace": "default", "name": "job"}, "spec": spec,
    });
    job["spec"]["template"] = template;
    job
}

fn volume(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {
            "storageClassName": "standard", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": format!("/disks/{name}")},
        },
    })
}

fn stateful_set_with_claims() -> Value {
    let claim = json!({
        "metadata": {"name": "data"},
        "spec": {
            "storageClassName": "standard", "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    });
    json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"namespace": "default", "name": "db"},
        "spec": {
            "replicas": 3, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
            "template": template(json!({"app": "db"}), "db:1"), "volumeClaimTemplates": [claim],
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Delete"},
        },
    })
}

/// While six replicas are rolled out with maxSurge 2 and maxUnavailable 1.
const SIX: Bounds = Bounds { most: 8, reached: 6, least: 5 };

/// Every story, in alphabetical order.
pub static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "a cron job keeps its history short",
        nodes: 2,
        actions: &[
            (
                0,
                Action::Create(CRON_JOBS, || {
                    let template = job(json!({RUNS_FOR: "5"}), json!({}))["spec"].clone();
                    json!({
                        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"namespace": "default", "name": "tick"},
                        "spec": {"schedule": "* * * * *", "successfulJobsHistoryLimit": 2, "jobTemplate": {"spec": template}},
                    })
                }),
            ),
            (400, Action::Merge(CRON_JOBS, "default", "tick", || json!({"spec": {"suspend": true}}))),
        ],
        settle_secs: 300,
        end: |snapshot| same(snapshot.list(JOBS, "default").count(), 2, "jobs"),
    },
    Scenario {
        name: "a daemon set follows its nodes",
        nodes: 3,
        actions: &[
            (
                0,
                Action::Create(DAEMON_SETS, || {
                    json!({
                        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"namespace": "default", "name": "agent"},
                        "spec": {"selector": {"matchLabels": {"app": "agent"}}, "template": template(json!({"app": "agent"}), "agent:1")},
                    })
                }),
            ),
            (60, Action::Merge(DAEMON_SETS, "default", "agent", || image("agent:2"))),
            (60, Action::LoseNode("n2")),
            (30, Action::Delete(NODES, "", "n2", None)),
        ],
        settle_secs: 300,
        end: |snapshot| same(pods_with(snapshot, "agent:2"), 2, "pods of the new template"),
    },
    Scenario {
        name: "a deployment is deleted in the foreground",
        nodes: 2,
        actions: &[
            (0, Action::Create(DEPLOYMENTS, deployment)),
            (0, Action::Create(SERVICES, service)),
            (60, Action::Delete(DEPLOYMENTS, "default", "web", Some(Propagation::Foreground))),
        ],
        settle_secs: 120,
        end: |snapshot| same(snapshot.list(PODS, "").count(), 0, "pods"),
    },
    Scenario {
        name: "a deployment runs on hollow nodes",
        nodes: 3,
        actions: &[
            (0, Action::SetBounds(Some(SIX))),
            (0, Action::Create(SERVICES, service)),
            (0, Action::Create(DEPLOYMENTS, deployment)),
        ],
        settle_secs: 120,
        end: |snapshot| {
            same(invariants::ready_pods(snapshot), 6, "ready pods")?;
            same(endpoints(snapshot), 6, "endpoints")?;
            available(snapshot, 6)
        },
    },
    Scenario {
        name: "a failing job gives up",
        nodes: 1,
        actions: &[(
            0,
            Action::Create(JOBS, || job(json!({RUNS_FOR: "1", EXIT_CODE: "1"}), json!({"backoffLimit": 2}))),
        )],
        settle_secs: 600,
        end: |snapshot| job_condition(snapshot, "Failed", "BackoffLimitExceeded"),
    },
    Scenario {
        name: "a lost node's pods move",
        nodes: 3,
        actions: &[
            (0, Action::Create(DEPLOYMENTS, deployment)),
            (60, Action::LoseNode("n1")),
            (60, Action::RestartControllers),
            // Five minutes of toleration, and then the node is given up for good.
            (400, Action::Delete(NODES, "", "n1", None)),
        ],
        settle_secs: 300,
        end: |snapshot| available(snapshot, 6),
    },
    Scenario {
        name: "a namespace is emptied",
        nodes: 2,
        actions: &[
            (
                0,
                Action::Create(
                    NAMESPACES,
                    || json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gone"}}),
                ),
            ),
            (
                10,
                Action::Create(DEPLOYMENTS, || {
                    let mut object = deployment();
                    object["metadata"]["namespace"] = "gone".into();
                    object
                }),
            ),
            (30, Action::Delete(NAMESPACES, "", "gone", None)),
        ],
        settle_secs: 120,
        end: |snapshot| {
            let left = snapshot.tables().flat_map(|(_, table)| table.range("gone", None)).count();
            same(left, 0, "objects in the namespace")?;
            same(snapshot.list(NAMESPACES, "").count(), 3, "namespaces")
        },
    },
    Scenario {
        name: "a rollout keeps its bounds",
        nodes: 3,
        actions: &[
            (0, Action::Create(DEPLOYMENTS, deployment)),
            (60, Action::SetBounds(Some(SIX))),
            (0, Action::Merge(DEPLOYMENTS, "default", "web", || image("web:2"))),
            (40, Action::RestartKubelet("n2")),
            (60, Action::Merge(DEPLOYMENTS, "default", "web", || image("web:3"))),
        ],
        settle_secs: 300,
        end: |snapshot| {
            same(pods_with(snapshot, "web:3"), 6, "pods of the last template")?;
            available(snapshot, 6)
        },
    },
    Scenario {
        name: "a rollout that cannot work is taken back",
        nodes: 3,
        actions: &[
            (0, Action::Create(DEPLOYMENTS, deployment)),
            (60, Action::SetBounds(Some(SIX))),
            (
                0,
                Action::Merge(DEPLOYMENTS, "default", "web", || {
                    let mut patch = image("web:broken");
                    patch["spec"]["template"]["metadata"] = json!({"annotations": {NEVER_READY: "true"}});
                    patch
                }),
            ),
            (
                120,
                Action::Merge(DEPLOYMENTS, "default", "web", || {
                    let mut patch = image("web:1");
                    patch["spec"]["template"]["metadata"] = json!({"annotations": null});
                    patch
                }),
            ),
        ],
        settle_secs: 200,
        end: |snapshot| {
            same(pods_with(snapshot, "web:1"), 6, "pods of the first template")?;
            available(snapshot, 6)
        },
    },
    Scenario {
        name: "a stateful set's claims follow their policy",
        nodes: 2,
        actions: &[
            (
                0,
                Action::Create(STORAGE_CLASSES, || {
                    json!({
                        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "standard"},
                        "provisioner": "kubernetes.io/no-provisioner", "volumeBindingMode": "WaitForFirstConsumer",
                    })
                }),
            ),
            (0, Action::Create(PERSISTENT_VOLUMES, || volume("disk-0"))),
            (0, Action::Create(PERSISTENT_VOLUMES, || volume("disk-1"))),
            (0, Action::Create(PERSISTENT_VOLUMES, || volume("disk-2"))),
            (0, Action::Create(STATEFUL_SETS, stateful_set_with_claims)),
            (120, Action::Merge(STATEFUL_SETS, "default", "db", || json!({"spec": {"replicas": 1}}))),
        ],
        settle_secs: 120,
        end: |snapshot| {
            same(snapshot.list(PODS, "").count(), 1, "pods")?;
            same(snapshot.list(PERSISTENT_VOLUME_CLAIMS, "").count(), 1, "claims")?;
            for (phase, count) in [("Bound", 1), ("Released", 2)] {
                let is_in = |volume: &Value| volume["status"]["phase"] == phase;
                let volumes =
                    snapshot.list(PERSISTENT_VOLUMES, "").filter_map(|volume| volume.to_value().ok());
                same(volumes.filter(is_in).count(), count, phase)?;
            }
            Ok(())
        },
    },
    Scenario {
        name: "a stateful set updates from the end",
        nodes: 2,
        actions: &[
            (
                0,
                Action::Create(STATEFUL_SETS, || {
                    json!({
                        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"namespace": "default", "name": "db"},
                        "spec": {
                            "replicas": 3, "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
                            "template": template(json!({"app": "db"}), "db:1"),
                        },
                    })
                }),
            ),
            (90, Action::Merge(STATEFUL_SETS, "default", "db", || image("db:2"))),
            (90, Action::Merge(STATEFUL_SETS, "default", "db", || json!({"spec": {"replicas": 2}}))),
        ],
        settle_secs: 200,
        end: |snapshot| same(pods_with(snapshot, "db:2"), 2, "pods of the new template"),
    },
    Scenario {
        name: "an indexed job completes every index",
        nodes: 2,
        actions: &[(
            0,
            Action::Create(JOBS, || {
                job(
                    json!({RUNS_FOR: "3"}),
                    json!({"completionMode": "Indexed", "completions": 7, "parallelism": 3}),
                )
            }),
        )],
        settle_secs: 300,
        end: |snapshot| job_condition(snapshot, "Complete", "CompletionsReached"),
    },
];

pub(crate) fn same(found: usize, wanted: usize, what: &str) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{found} {what}, not {wanted}")) }
}

fn pods_with(snapshot: &Snapshot, image: &str) -> usize {
    let has = |value: &Value| value["spec"]["containers"][0]["image"] == image;
    snapshot.list(PODS, "").filter_map(|pod| pod.to_value().ok()).filter(has).count()
}

/// Ready endpoints in all slices of the Service `web`.
fn endpoints(snapshot: &Snapshot) -> usize {
    let slices = snapshot
        .list(ENDPOINT_SLICES, "default")
        .filter(|slice| slice.meta.label("kubernetes.io/service-name") == Some("web"));
    let lists = slices.filter_map(|slice| slice.to_value().ok()?["endpoints"].as_array().cloned());
    lists.flatten().filter(|endpoint| endpoint["conditions"]["ready"] == true).count()
}

fn available(snapshot: &Snapshot, wanted: i64) -> Result<(), String> {
    let deployment = snapshot.find(DEPLOYMENTS, "default", "web").and_then(|found| found.to_value().ok());
    let status = deployment.map(|value| value["status"].clone()).unwrap_or_default();
    if status["availableReplicas"] == wanted
        && status["updatedReplicas"] == wanted
        && status["replicas"] == wanted
    {
        return Ok(());
    }
    Err(format!("not available: {status}"))
}

fn job_condition(snapshot: &Snapshot, kind: &str, reason: &str) -> Result<(), String> {
    let job =
        snapshot.find(JOBS, "default", "job").and_then(|found| found.to_value().ok()).unwrap_or_default();
    let conditions = job["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let holds = |held: &Value| held["type"] == kind && held["status"] == "True" && held["reason"] == reason;
    if conditions.iter().any(holds) { Ok(()) } else { Err(format!("no {kind}: {}", job["status"])) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::waits::WAITS;

    /// More with `EKSO_SIM_SEEDS=100`.
    fn seeds() -> std::ops::Range<u64> {
        let count = std::env::var("EKSO_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3);
        0..count
    }

    fn check(scenario: &Scenario, seed: u64) -> Result<(), String> {
        let told = |Violation(what)| format!("{} (seed {seed}): {what}", scenario.name);
        scenario.play(seed).map(drop).map_err(told)
    }

    #[test]
    fn every_story_ends_well() {
        let only = std::env::var("EKSO_SIM_ONLY").unwrap_or_default();
        let stories = SCENARIOS.iter().chain(WAITS).filter(|scenario| scenario.name.contains(&only));
        let failures: Vec<String> =
            stories.flat_map(|scenario| seeds().filter_map(|seed| check(scenario, seed).err())).collect();
        assert!(failures.is_empty(), "{}", failures.join("\n"));
    }

    #[test]
    fn a_seed_replays_exactly() {
        let Some(scenario) = SCENARIOS.iter().find(|scenario| scenario.name == "a rollout keeps its bounds")
        else {
            panic!("the story was renamed");
        };
        let log = |seed| {
            scenario
                .play(seed)
                .map(|world| world.log().to_vec())
                .unwrap_or_else(|Violation(what)| panic!("{what}"))
        };
        let first = log(7);
        assert!(first.len() > 100, "only {} things happened", first.len());
        assert_eq!(first, log(7));
        assert_ne!(first, log(8));
    }
}
