//! Ways into a pod that stay open, as each generation of clients asks for them.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Stdio};

use anyhow::{Context, Result, ensure};
use e2e::{Room, fetch, get, run, until};

/// What makes a kubectl speak as those before 1.31 did: SPDY without a WebSocket around it.
const OLD_WAYS: [(&str, &str); 2] =
    [("KUBECTL_PORT_FORWARD_WEBSOCKETS", "false"), ("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "false")];

/// A kubectl that forwards a port until it is dropped.
struct Forward {
    kubectl: Child,
    /// Held: it writes a line for each connection, and would die of a closed pipe.
    _output: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Forward {
    fn start(room: &Room, minor: u32, old: bool, target: &str, port: u16) -> Result<Self> {
        let words = format!("-n {} port-forward {target} :{port}", room.namespace);
        let mut command = room.cluster.kubectl_command(minor, &words)?;
        if old {
            command.envs(OLD_WAYS);
        }
        let mut kubectl = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let mut output = BufReader::new(kubectl.stdout.take().context("its output is piped")?);
        output.read_line(&mut line)?;
        // "Forwarding from 127.0.0.1:40641 -> 8080"
        let address = line.split_whitespace().nth(2).and_then(|word| word.parse().ok());
        Ok(Self {
            kubectl,
            _output: output,
            address: address.with_context(|| format!("{words} says {line:?}"))?,
        })
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

pub fn port_forward(room: &Room) -> Result<()> {
    room.apply(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: { name: web }
spec:
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{ name: web, image: "e2e:1", readinessProbe: { httpGet: { port: 8080, path: /version }, periodSeconds: 1 } }]
---
apiVersion: v1
kind: Service
metadata: { name: web }
spec: { selector: { app: web }, ports: [{ port: 80, targetPort: 8080 }] }
"#,
    )?;
    room.rolled_out("deployment/web")?;
    for (minor, old, target, port) in [
        (36, false, "svc/web", 80),
        (32, false, "deployment/web", 8080),
        (36, true, "svc/web", 80),
        (32, true, "deployment/web", 8080),
    ] {
        let what = format!("kubectl 1.{minor} {target}, SPDY alone: {old}");
        let forward = Forward::start(room, minor, old, target, port)?;
        for _ in 0..3 {
            let got = get(forward.address, "/version").context(what.clone())?;
            ensure!(got == "version 1\n", "{what}: {got:?}");
        }
    }
    let mut refused = Forward::start(room, 36, false, "deployment/web", 81)?;
    ensure!(fetch(refused.address, "/").is_err(), "nobody listens on port 81");
    let mut said = String::new();
    // kubectl ends after an error, and says why.
    refused.kubectl.stderr.take().context("its errors are piped")?.read_to_string(&mut said)?;
    for part in ["error forwarding port 81 to pod", "connect: connection refused", "lost connection to pod"] {
        ensure!(said.contains(part), "a refused port should say {part:?}, and says {said:?}");
    }
    Ok(())
}

/// exec and attach by SPDY.
pub fn old_streams(room: &Room) -> Result<()> {
    room.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: { name: listens }
spec:
  restartPolicy: Never
  containers: [{ name: c, image: "e2e:1", stdin: true, stdinOnce: true, command: [sh, -c, "cat; echo end"] }]
"#,
    )?;
    room.wait("pod/listens", "condition=Ready")?;
    let failed =
        run(room.command("exec listens -- sh -c")?.arg("echo out; echo no >&2; exit 7").envs(OLD_WAYS), "")?;
    ensure!(failed.code == 7 && failed.stdout == "out\n" && failed.stderr.contains("no\n"), "{failed:?}");
    let big: String = (0..50_000).map(|number| format!("{number}\n")).collect();
    let echoed = run(room.command("exec -i listens -- cat")?.envs(OLD_WAYS), &big)?.ok()?;
    ensure!(echoed == big, "input comes back whole: {} of {} bytes", echoed.len(), big.len());
    let attached = run(room.command("attach -i listens")?.envs(OLD_WAYS), "typed\n")?.ok()?;
    ensure!(attached.contains("typed\n") && attached.contains("end\n"), "{attached:?}");
    Ok(())
}

/// Pods, services and nodes behind the API server's proxy.
pub fn proxied(room: &Room) -> Result<()> {
    room.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: { name: web, labels: { app: proxied } }
spec: { terminationGracePeriodSeconds: 0, containers: [{ name: web, image: "e2e:1" }] }
---
apiVersion: v1
kind: Service
metadata: { name: web }
spec: { selector: { app: proxied }, ports: [{ name: http, port: 80, targetPort: 8080 }] }
"#,
    )?;
    room.wait("pod/web", "condition=Ready")?;
    let in_namespace = format!("/api/v1/namespaces/{}", room.namespace);
    for part in ["pods/web:8080", "services/web:80", "services/web:http", "services/web"] {
        let got = until("the proxy answers", || {
            // The EndpointSlice may be on its way.
            let answer = room.try_kubectl(&format!("get --raw {in_namespace}/{part}/proxy/version"))?;
            Ok((answer.code == 0).then_some(answer.stdout))
        })?;
        ensure!(got == "version 1\n", "{part}: {got:?}");
    }
    let node = room.field("pod/web", "{.spec.nodeName}")?;
    let healthz = room.kubectl(&format!("get --raw /api/v1/nodes/{node}/proxy/healthz"))?;
    ensure!(healthz == "ok", "{healthz:?}");
    room.try_kubectl(&format!("get --raw {in_namespace}/pods/none/proxy/"))?.fails_with("not found")
}
