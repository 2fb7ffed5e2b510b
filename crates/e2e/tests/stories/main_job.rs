//! The main job: an application on three nodes, from `kubectl apply` to `kubectl delete`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, ensure};
use e2e::{Room, get, until};

const WEB: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: { name: web }
data:
  index.cgi: |
    #!/bin/sh
    printf 'Content-Type: text/plain\r\n\r\n'
    echo "$(cat /www/version), $GREETING, $(cat /secret/word), $(hostname)"
  greeting: good day
---
apiVersion: v1
kind: Secret
metadata: { name: web }
stringData: { word: sesame }
---
apiVersion: v1
kind: Service
metadata: { name: web }
spec:
  type: NodePort
  selector: { app: web }
  ports: [{ port: 80, targetPort: 8080 }]
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  replicas: 3
  selector: { matchLabels: { app: web } }
  strategy: { rollingUpdate: { maxUnavailable: 0 } }
  template:
    metadata: { labels: { app: web } }
    spec:
      terminationGracePeriodSeconds: 10
      containers:
      - name: web
        image: e2e:1
        env:
        - { name: GREETING, valueFrom: { configMapKeyRef: { name: web, key: greeting } } }
        readinessProbe: { httpGet: { path: /, port: 8080 }, periodSeconds: 1 }
        lifecycle: { preStop: { sleep: { seconds: 3 } } }
        resources: { requests: { cpu: 5m, memory: 8Mi } }
        volumeMounts:
        - { name: page, mountPath: /www/cgi-bin }
        - { name: secret, mountPath: /secret, readOnly: true }
      volumes:
      - name: page
        configMap: { name: web, defaultMode: 0755, items: [{ key: index.cgi, path: index.cgi }] }
      - name: secret
        secret: { secretName: web }
"#;

pub fn tell(room: &Room) -> Result<()> {
    room.apply(WEB)?;
    room.rolled_out("deployment/web")?;
    let nodes = room.field("pods", "{.items[*].spec.nodeName}")?;
    let nodes: BTreeSet<&str> = nodes.split_whitespace().collect();
    ensure!(nodes.len() == 3, "three pods should be on three nodes, and are on {nodes:?}");

    let doors = room.node_ports("web")?;
    for door in &doors {
        answers(*door, "version 1, good day, sesame, web-")?;
    }
    rolls_without_a_failed_request(room, doors[0])?;
    rolls_back(room, doors[0])?;
    scales(room)?;
    goes_without_a_trace(room)
}

/// A node's port may lag behind the rollout by the time that news takes.
fn answers(door: SocketAddr, text: &str) -> Result<()> {
    until(&format!("http://{door} says {text}"), || match get(door, "/") {
        Ok(body) if body.contains(text) => Ok(Some(())),
        Ok(_) | Err(_) => Ok(None),
    })
}

fn rolls_without_a_failed_request(room: &Room, door: SocketAddr) -> Result<()> {
    let is_over = AtomicBool::new(false);
    let (count, failures) = std::thread::scope(|scope| -> Result<_> {
        let client = scope.spawn(|| {
            let (mut count, mut failures) = (0, Vec::new());
            while !is_over.load(Ordering::Relaxed) {
                count += 1;
                failures.extend(get(door, "/").err().map(|failure| format!("request {count}: {failure:#}")));
            }
            (count, failures)
        });
        let rolled = room
            .kubectl("set image deployment/web web=e2e:2")
            .and_then(|_| room.rolled_out("deployment/web"));
        is_over.store(true, Ordering::Relaxed);
        let seen = client.join().map_err(|_| anyhow::anyhow!("the client panicked"))?;
        rolled.map(|()| seen)
    })?;
    ensure!(failures.is_empty(), "{} of {count} requests failed: {}", failures.len(), failures.join("; "));
    ensure!(count > 20, "only {count} requests were made while it rolled");
    answers(door, "version 2")
}

fn rolls_back(room: &Room, door: SocketAddr) -> Result<()> {
    let history = room.kubectl("rollout history deployment/web")?;
    ensure!(
        history.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).count() == 2,
        "{history}"
    );
    room.kubectl("rollout undo deployment/web")?;
    room.rolled_out("deployment/web")?;
    answers(door, "version 1")
}

fn scales(room: &Room) -> Result<()> {
    room.kubectl("scale deployment/web --replicas 30")?;
    room.rolled_out("deployment/web")?;
    until("30 endpoints are ready", || {
        let ready =
            room.field("endpointslices", "{.items[*].endpoints[?(@.conditions.ready==true)].addresses[0]}")?;
        Ok((ready.split_whitespace().collect::<BTreeSet<_>>().len() == 30).then_some(()))
    })?;
    room.kubectl("scale deployment/web --replicas 2")?;
    room.rolled_out("deployment/web")
}

fn goes_without_a_trace(room: &Room) -> Result<()> {
    room.kubectl("delete deployment/web service/web configmap/web secret/web")?;
    room.wait("pods --all", "delete")?;
    for kind in ["pods", "replicasets", "endpointslices", "endpoints"] {
        until(&format!("no {kind} are left"), || {
            let names = room.kubectl(&format!("get {kind} -o name"))?;
            Ok(names.is_empty().then_some(()))
        })?;
    }
    Ok(())
}
