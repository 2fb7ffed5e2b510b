//! How pods, services and this host find each other.

use anyhow::{Result, ensure};
use e2e::{Room, get, until};

/// Three pods that say their names behind Services of every kind, and one to ask from.
pub const WEB: &str = r#"
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

/// Addresses of a further range are given out, and lead to pods from wherever those of the first one do; the range stays as long as one of
/// its addresses is held.
pub fn service_ranges(room: &Room) -> Result<()> {
    // The names order the ranges: nobody else's Service takes an address of this one.
    const RANGE: &str = "servicecidr/zz-further";
    room.apply(WEB)?;
    room.apply(FURTHER)?;
    room.wait(RANGE, "condition=Ready")?;
    let held = "create service clusterip further --clusterip=10.77.0.9 --tcp=80:8080";
    room.kubectl(held)?;
    room.kubectl("set selector service/further app=web")?;
    room.rolled_out("deployment/web")?;
    room.kubectl("wait pod/client pod/on-its-node --for=condition=Ready --timeout=120s")?;
    for (client, place) in [("client", "10.77.0.9"), ("client", "further"), ("on-its-node", "10.77.0.9")] {
        let answer = until(&format!("{client} reaches {place}"), || {
            // Until its node has heard of it.
            let answer = room.sh(client, &format!("wget -q -O - http://{place}/name || true"))?;
            Ok((!answer.is_empty()).then_some(answer))
        })?;
        ensure!(answer.starts_with("web-"), "{client} to {place}: {answer}");
    }
    // As the API server dials it, for webhooks too.
    let proxied = format!("get --raw /api/v1/namespaces/{}/services/further:80/proxy/name", room.namespace);
    ensure!(room.kubectl(&proxied)?.starts_with("web-"), "through the API server");
    room.kubectl(&format!("delete {RANGE} --wait=false"))?;
    let why = "{.status.conditions[?(@.type==\"Ready\")].message}";
    until("the range says why it stays", || {
        let told = room.field(RANGE, why)?;
        Ok(told.starts_with("There are still IPAddresses referencing the ServiceCIDR").then_some(()))
    })?;
    ensure!(room.sh("client", "wget -q -O - http://10.77.0.9/name")?.starts_with("web-"), "while it goes");
    room.kubectl("delete service further")?;
    room.wait(RANGE, "delete")?;
    room.try_kubectl(held)?.fails_with("failed to allocate IP 10.77.0.9")
}

const FURTHER: &str = r#"
apiVersion: networking.k8s.io/v1
kind: ServiceCIDR
metadata: { name: zz-further }
spec: { cidrs: [10.77.0.0/28] }
---
apiVersion: v1
kind: Pod
metadata: { name: on-its-node }
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 0
  containers: [{ name: client, image: "e2e:1", command: [sleep, "100000"] }]
"#;
