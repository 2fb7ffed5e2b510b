//! What runs pods: each controller's everyday behaviour.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use e2e::{Room, until};

pub fn stateful_set(room: &Room) -> Result<()> {
    room.apply(
        r#"
apiVersion: v1
kind: Service
metadata: { name: db }
spec: { clusterIP: None, selector: { app: db }, ports: [{ port: 8080 }] }
---
apiVersion: apps/v1
kind: StatefulSet
metadata: { name: db }
spec:
  serviceName: db
  replicas: 3
  selector: { matchLabels: { app: db } }
  template:
    metadata: { labels: { app: db } }
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - { name: db, image: "e2e:1", readinessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1 } }
"#,
    )?;
    room.rolled_out("statefulset/db")?;
    let stamps =
        room.field("pods", "{range.items[*]}{.metadata.name}={.metadata.creationTimestamp},{end}")?;
    let stamps: Vec<(&str, &str)> = stamps.split(',').filter_map(|pair| pair.split_once('=')).collect();
    ensure!(
        stamps.iter().map(|(name, _)| *name).collect::<Vec<_>>() == ["db-0", "db-1", "db-2"],
        "{stamps:?}"
    );
    ensure!(stamps.is_sorted_by_key(|(_, stamp)| *stamp), "they should come one after another: {stamps:?}");
    let answer = room.sh("db-2", "wget -q -O - http://db-0.db:8080/version")?;
    ensure!(answer == "version 1\n", "{answer}");
    room.kubectl("set image statefulset/db db=e2e:2")?;
    room.rolled_out("statefulset/db")?;
    let answer = room.sh("db-0", "cat /www/version")?;
    ensure!(answer == "version 2\n", "{answer}");
    room.kubectl("scale statefulset/db --replicas 1")?;
    room.wait("pod/db-2 pod/db-1", "delete")?;
    room.wait("pod/db-0", "condition=Ready")
}

pub fn daemon_set(room: &Room) -> Result<()> {
    room.apply(
        r#"
apiVersion: apps/v1
kind: DaemonSet
metadata: { name: agent }
spec:
  selector: { matchLabels: { app: agent } }
  template:
    metadata: { labels: { app: agent } }
    spec: { terminationGracePeriodSeconds: 0, containers: [{ name: agent, image: "e2e:1" }] }
"#,
    )?;
    room.rolled_out("daemonset/agent")?;
    let nodes = room.field("pods", "{.items[*].spec.nodeName}")?;
    ensure!(nodes.split_whitespace().collect::<BTreeSet<_>>().len() == 3, "one on each node: {nodes}");
    room.kubectl("set image daemonset/agent agent=e2e:2")?;
    room.rolled_out("daemonset/agent")?;
    let images = room.field("pods", "{.items[*].spec.containers[0].image}")?;
    ensure!(images.split_whitespace().all(|image| image == "e2e:2"), "{images}");
    Ok(())
}

pub fn job(room: &Room) -> Result<()> {
    room.apply(
        r#"
apiVersion: batch/v1
kind: Job
metadata: { name: sum }
spec:
  completions: 4
  parallelism: 2
  completionMode: Indexed
  template:
    spec:
      restartPolicy: Never
      containers: [{ name: sum, image: "e2e:1", command: [sh, -c, "echo part $JOB_COMPLETION_INDEX"] }]
---
apiVersion: batch/v1
kind: Job
metadata: { name: broken }
spec:
  backoffLimit: 0
  template: { spec: { restartPolicy: Never, containers: [{ name: broken, image: "e2e:1", command: ["false"] }] } }
"#,
    )?;
    room.wait("job/sum", "condition=Complete")?;
    let said = room.kubectl("logs -l job-name=sum --tail=-1")?;
    let said: BTreeSet<&str> = said.lines().collect();
    ensure!(said == BTreeSet::from(["part 0", "part 1", "part 2", "part 3"]), "{said:?}");
    room.wait("job/broken", "condition=Failed")?;
    let reason = room.field("job/broken", "{.status.conditions[?(@.type==\"Failed\")].reason}")?;
    ensure!(reason == "BackoffLimitExceeded", "{reason}");
    room.kubectl("delete job/sum")?;
    room.wait("pods -l job-name=sum", "delete")
}

pub fn cron_job(room: &Room) -> Result<()> {
    room.apply(
        r#"
apiVersion: batch/v1
kind: CronJob
metadata: { name: tick }
spec:
  schedule: "* * * * *"
  jobTemplate:
    spec:
      template: { spec: { restartPolicy: OnFailure, containers: [{ name: tick, image: "e2e:1", command: [echo, tick] }] } }
"#,
    )?;
    let job = until("the next minute brings a job", || {
        let jobs = room.kubectl("get jobs -o name")?;
        Ok(jobs.lines().next().map(str::to_owned))
    })?;
    room.wait(&job, "condition=Complete")?;
    ensure!(room.kubectl(&format!("logs {job}"))? == "tick\n", "the job's log");
    room.kubectl("create job by-hand --from=cronjob/tick")?;
    room.wait("job/by-hand", "condition=Complete")?;
    room.kubectl("delete cronjob/tick")?;
    room.wait(&job, "delete")
}

/// A pod that fits nowhere says why, one that may go to one node only goes there.
pub fn scheduling(room: &Room) -> Result<()> {
    let pod = |name: &str, spec: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{ name: {name} }}\nspec: {{ terminationGracePeriodSeconds: 0, {spec}, containers: [{{ name: c, image: \"e2e:1\" }}] }}\n---\n"
        )
    };
    let nodes = room.field("nodes", "{.items[*].metadata.name}")?;
    let last = nodes.split_whitespace().last().unwrap_or_default().to_owned();
    let cases = [
        ("chosen", format!("nodeSelector: {{ kubernetes.io/hostname: {last} }}"), None),
        (
            "nowhere",
            "nodeSelector: { disk: tape }".to_owned(),
            Some("0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."),
        ),
        (
            "too-big",
            "resources: { requests: { cpu: \"1000\" } }".to_owned(),
            Some("0/3 nodes are available: 3 Insufficient cpu."),
        ),
    ];
    for (name, spec, _) in &cases {
        room.apply(&pod(name, spec))?;
    }
    for (name, _, reason) in &cases {
        let Some(reason) = reason else {
            room.wait(&format!("pod/{name}"), "condition=Ready")?;
            ensure!(
                room.field(&format!("pod/{name}"), "{.spec.nodeName}")? == last,
                "{name} should be on {last}"
            );
            continue;
        };
        until(&format!("{name} says {reason}"), || {
            let events = room.kubectl(&format!("get events --field-selector involvedObject.name={name},reason=FailedScheduling -o jsonpath={{.items[*].message}}"))?;
            Ok(events.starts_with(reason).then_some(()))
        })?;
    }
    room.kubectl(&format!("taint node {last} quiet=yes:NoSchedule"))?;
    room.apply(&pod("shut-out", &format!("nodeSelector: {{ kubernetes.io/hostname: {last} }}")))?;
    until("the taint keeps it out", || {
        let message = room.field("pod/shut-out", "{.status.conditions[0].message}")?;
        Ok(message.contains("1 node(s) had untolerated taint").then_some(()))
    })?;
    room.kubectl(&format!("taint node {last} quiet-"))?;
    room.wait("pod/shut-out", "condition=Ready")
}
