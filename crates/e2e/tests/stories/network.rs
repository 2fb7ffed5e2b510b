//! How pods, services and this host find each other.

use anyhow::{Result, ensure};
use e2e::{Room, get, until};

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  replicas: 3
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: web
        image: e2e:1
        command: [sh, -c, "hostname > /www/name; exec httpd -f -p 8080 -h /www"]
        readinessProbe: { httpGet: { path: /name, port: 8080 }, periodSeconds: 1 }
---
apiVersion: v1
kind: Service
metadata: { name: web }
spec: { type: NodePort, selector: { app: web }, ports: [{ name: http, port: 80, targetPort: 8080 }] }
---
apiVersion: v1
kind: Service
metadata: { name: each }
spec: { clusterIP: None, selector: { app: web }, ports: [{ name: http, port: 8080 }] }
---
apiVersion: v1
kind: Service
metadata: { name: elsewhere }
spec: { type: ExternalName, externalName: web.names.svc.cluster.local }
---
apiVersion: v1
kind: Pod
metadata: { name: client }
spec: { terminationGracePeriodSeconds: 0, containers: [{ name: client, image: "e2e:1" }] }
"#;

/// Every way of saying a name, asked from inside a pod.
pub fn names(room: &Room) -> Result<()> {
    room.apply(WEB)?;
    room.rolled_out("deployment/web")?;
    room.wait("pod/client", "condition=Ready")?;
    let service_ip = room.field("service/web", "{.spec.clusterIP}")?;
    let pod_ips = room.field("pods -l app=web", "{.items[*].status.podIP}")?;
    let pod_ips: Vec<&str> = pod_ips.split_whitespace().collect();
    let dashed = pod_ips[0].replace('.', "-");
    // busybox's nslookup knows no search list for names with dots, so it is given whole ones.
    let cases: &[(&str, &[&str])] = &[
        ("web", &[service_ip.as_str()]),
        ("web.names.svc.cluster.local", &[&service_ip]),
        ("each.names.svc.cluster.local", &pod_ips),
        ("elsewhere.names.svc.cluster.local", &[&service_ip]),
        ("kubernetes.default.svc.cluster.local", &["10.100.0.1"]),
        (&format!("{dashed}.names.pod.cluster.local"), &pod_ips[..1]),
    ];
    for (name, addresses) in cases {
        until(&format!("{name} is {addresses:?}"), || {
            let answer = room.sh("client", &format!("nslookup {name} 2>&1 || true"))?;
            Ok(addresses.iter().all(|address| answer.contains(&format!("Address: {address}"))).then_some(()))
        })?;
    }
    for place in [
        "web",
        "web.names",
        "web.names.svc",
        "web.names.svc.cluster.local",
        "elsewhere",
        "each:8080",
        "each.names:8080",
    ] {
        let answer = room.sh("client", &format!("wget -q -O - http://{place}/name"))?;
        ensure!(answer.starts_with("web-"), "http://{place}/name: {answer}");
    }
    for address in pod_ips {
        let answer = room.sh("client", &format!("wget -q -O - http://{address}:8080/name"))?;
        ensure!(answer.starts_with("web-"), "pod to pod, {address}: {answer}");
    }
    let answer = room.sh("client", "nslookup nothing.names.svc.cluster.local 2>&1 || true")?;
    ensure!(answer.contains("NXDOMAIN"), "a name that is not there: {answer}");
    Ok(())
}

/// From this host and from pods, on every node, to every pod.
pub fn node_ports(room: &Room) -> Result<()> {
    room.apply(WEB)?;
    room.rolled_out("deployment/web")?;
    room.wait("pod/client", "condition=Ready")?;
    let all = room.field("pods -l app=web", "{.items[*].metadata.name}")?;
    for door in room.node_ports("web")? {
        let mut missing: std::collections::BTreeSet<&str> = all.split_whitespace().collect();
        until(&format!("all of {all} answer at {door}"), || {
            // Until the news is everywhere, a port may refuse.
            if let Ok(name) = get(door, "/name") {
                missing.remove(name.trim());
            }
            Ok(missing.is_empty().then_some(()))
        })?;
    }
    let inside = room.field("nodes", "{.items[*].status.addresses[?(@.type==\"InternalIP\")].address}")?;
    let port = room.field("service/web", "{.spec.ports[0].nodePort}")?;
    for address in inside.split_whitespace() {
        let answer = room.sh("client", &format!("wget -q -O - http://{address}:{port}/name"))?;
        ensure!(answer.starts_with("web-"), "from a pod to {address}:{port}: {answer}");
    }
    Ok(())
}
