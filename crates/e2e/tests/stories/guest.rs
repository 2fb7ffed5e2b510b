//! Servers that users run in their clusters, and what the API server has to do with them.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::{Room, run, until};

const SERVER: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: { name: guest }
spec:
  selector: { matchLabels: { app: guest } }
  template:
    metadata: { labels: { app: guest } }
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: guest
        image: guest:1
        imagePullPolicy: Never
        readinessProbe: { tcpSocket: { port: 8443 }, periodSeconds: 1 }
        volumeMounts: [{ name: tls, mountPath: /tls }, { name: trust, mountPath: /trust }]
      volumes:
      - { name: tls, secret: { secretName: tls } }
      - { name: trust, configMap: { name: trust } }
---
apiVersion: v1
kind: Service
metadata: { name: guest }
spec: { selector: { app: guest }, ports: [{ port: 443, targetPort: 8443 }] }
"#;

/// Runs the program `guest` of these tests in a pod behind the Service `guest`, with a certificate for it in the Secret `tls`.
pub fn start(room: &Room) -> Result<()> {
    import(room)?;
    let scratch = room.cluster.site.scratch();
    let file = |name: &str| scratch.join(format!("{}-{name}", room.namespace));
    let tls = rcgen::generate_simple_self_signed([format!("guest.{}.svc", room.namespace)])?;
    let write = |name: &str, text: &str| {
        let path = file(name);
        std::fs::write(&path, text).map(|()| path.display().to_string())
    };
    let (certificate, key) =
        (write("crt", &tls.cert.pem())?, write("key", &tls.signing_key.serialize_pem())?);
    room.kubectl(&format!("create secret tls tls --cert={certificate} --key={key}"))?;
    let trust = room.cluster.kubectl(
        r"-n kube-system get configmap extension-apiserver-authentication -o jsonpath={.data.requestheader-client-ca-file}",
    )?;
    let trust = write("trust", &trust)?;
    room.kubectl(&format!("create configmap trust --from-file=requestheader-client-ca-file={trust}"))?;
    room.apply(SERVER)?;
    room.rolled_out("deployment/guest")
}

/// The image: the program, and the libraries that the loader says it needs.
fn import(room: &Room) -> Result<()> {
    let site = room.cluster.site;
    let program = env!("CARGO_BIN_EXE_guest");
    let rootfs = site.scratch().join(format!("rootfs-{}", room.namespace));
    let libraries = run(Command::new("ldd").arg(program), "")?.ok()?;
    let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    for file in libraries.chain([program]) {
        let inside =
            if file == program { Path::new("guest") } else { Path::new(file.trim_start_matches('/')) };
        let inside = rootfs.join(inside);
        std::fs::create_dir_all(inside.parent().context("a folder")?)?;
        std::fs::copy(file, &inside).with_context(|| format!("copy {file}"))?;
    }
    let mut import = site.command("image import --cmd /guest --rootfs")?;
    run(import.arg(&rootfs).arg("guest:1").args(["--name", &room.cluster.name]), "")?.ok().map(drop)
}

/// An API group that a pod serves: found, asked as whoever asks, and 503 when it is away.
pub fn extension(room: &Room) -> Result<()> {
    start(room)?;
    let bundle = room.field("secret/tls", r"{.data.tls\.crt}")?;
    let api_service = format!(
        r#"
apiVersion: apiregistration.k8s.io/v1
kind: APIService
metadata: {{ name: v1.guests.example.com }}
spec:
  group: guests.example.com
  version: v1
  groupPriorityMinimum: 1000
  versionPriority: 15
  caBundle: {bundle}
  service: {{ namespace: {}, name: guest }}
"#,
        room.namespace
    );
    room.apply(&api_service)?;
    room.wait("apiservice/v1.guests.example.com", "condition=Available")?;
    until("the group in discovery", || {
        let resources =
            room.kubectl("api-resources --api-group=guests.example.com --no-headers --cached=false")?;
        Ok(resources.contains("guests").then_some(()))
    })?;
    ensure!(room.field("gu/you", "{.metadata.labels.user}")? == "kubernetes-admin", "it is told who asks");
    let alice =
        room.field("guests/you --as=alice --as-group=system:masters", "{.metadata.labels.user}:{.groups}")?;
    ensure!(
        alice == r#"alice:["system:masters","system:authenticated"]"#,
        "it is told who is meant: {alice}"
    );
    room.try_kubectl("get guests --as=bob")?
        .fails_with("guests.guests.example.com is forbidden: User \"bob\" cannot list resource \"guests\" in API group \"guests.example.com\"")?;

    room.kubectl("scale deployment/guest --replicas=0")?;
    room.wait("apiservice/v1.guests.example.com", "condition=Available=false")?;
    let reason = room.field("apiservice/v1.guests.example.com", "{.status.conditions[0].reason}")?;
    ensure!(reason == "MissingEndpoints", "it says {reason}");
    room.try_kubectl("get --raw /apis/guests.example.com/v1/guests")?
        .fails_with("the server is currently unable to handle the request")?;
    room.kubectl("delete apiservice v1.guests.example.com")?;
    room.try_kubectl("get --raw /apis/guests.example.com/v1/guests")?
        .fails_with("the server could not find the requested resource")
}
