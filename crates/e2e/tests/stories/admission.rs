//! What users add to admission: policies in CEL, and webhooks that run in a pod.

use anyhow::{Context, Result, ensure};
use e2e::{Room, run, until};

const POLICIES: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: { name: replica-limit }
spec:
  failurePolicy: Fail
  matchConstraints:
    namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: policies } }
    resourceRules:
    - { apiGroups: [apps], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [deployments] }
  variables:
  - { name: replicas, expression: "object.spec.replicas" }
  validations:
  - expression: "variables.replicas <= 3"
    messageExpression: "'at most 3 replicas, not ' + string(variables.replicas)"
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: { name: replica-limit }
spec: { policyName: replica-limit, validationActions: [Deny] }
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: { name: team }
spec:
  failurePolicy: Fail
  reinvocationPolicy: Never
  matchConstraints:
    namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: policies } }
    resourceRules:
    - { apiGroups: [apps], apiVersions: [v1], operations: [CREATE], resources: [deployments] }
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration: { expression: "Object{metadata: Object.metadata{labels: Object.metadata.labels{team: 'web'}}}" }
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: { name: team }
spec: { policyName: team }
"#;

pub fn policies(room: &Room) -> Result<()> {
    room.apply(POLICIES)?;
    let refused = room.try_kubectl("create deployment big --image=e2e:1 --replicas=5")?;
    refused.fails_with("ValidatingAdmissionPolicy 'replica-limit' with binding 'replica-limit' denied request: at most 3 replicas, not 5")?;
    room.kubectl("create deployment small --image=e2e:1 --replicas=2")?;
    ensure!(room.field("deployment/small", "{.metadata.labels.team}")? == "web", "the policy sets a label");
    // A part of an object is not the object: the policy is about deployments, not about their scale.
    room.kubectl("scale deployment/small --replicas=4")?;
    room.try_kubectl("label deployment/small a=b")?.fails_with("at most 3 replicas, not 4")?;
    let broken = POLICIES.replace("variables.replicas <= 3", "variables.missing <= 3");
    run(&mut room.command("apply -f -")?, &broken)?
        .fails_with("spec.validations[0].expression: Invalid value: \"variables.missing <= 3\": compilation failed: ERROR: <input>:1:10: undefined field 'missing'")?;
    run(&mut room.command("delete -f -")?, POLICIES)?.ok()?;
    room.kubectl("label deployment/small a=b").map(drop)
}

const WEBHOOK: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: { name: hook }
spec:
  selector: { matchLabels: { app: hook } }
  template:
    metadata: { labels: { app: hook } }
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: hook
        image: webhook:1
        imagePullPolicy: Never
        readinessProbe: { tcpSocket: { port: 8443 }, periodSeconds: 1 }
        volumeMounts: [{ name: tls, mountPath: /tls }]
      volumes: [{ name: tls, secret: { secretName: tls } }]
---
apiVersion: v1
kind: Service
metadata: { name: hook }
spec: { selector: { app: hook }, ports: [{ port: 443, targetPort: 8443 }] }
"#;

/// Configurations for pods of the namespace that ask for it.
fn configurations(ca_bundle: &str) -> String {
    let webhook = |kind: &str, name: &str, path: &str, policy: &str| {
        format!(
            r#"
apiVersion: admissionregistration.k8s.io/v1
kind: {kind}
metadata: {{ name: {name} }}
webhooks:
- name: {name}.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: {policy}
  timeoutSeconds: 5
  objectSelector: {{ matchLabels: {{ checked: "yes" }} }}
  rules: [{{ apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods] }}]
  clientConfig: {{ service: {{ namespace: webhooks, name: hook, path: {path} }}, caBundle: {ca_bundle} }}
---"#
        )
    };
    webhook("ValidatingWebhookConfiguration", "e2e-check", "/no-latest", "Fail")
        + &webhook("MutatingWebhookConfiguration", "e2e-label", "/label", "Ignore")
}

pub fn webhooks(room: &Room) -> Result<()> {
    import(room)?;
    let tls = rcgen::generate_simple_self_signed(["hook.webhooks.svc".to_owned()])?;
    let (certificate, key) =
        (room.cluster.site.scratch().join("hook.crt"), room.cluster.site.scratch().join("hook.key"));
    std::fs::write(&certificate, tls.cert.pem())?;
    std::fs::write(&key, tls.signing_key.serialize_pem())?;
    let secret = format!("create secret tls tls --cert={} --key={}", certificate.display(), key.display());
    room.kubectl(&secret)?;
    room.apply(WEBHOOK)?;
    room.rolled_out("deployment/hook")?;
    let bundle = room.field("secret/tls", r"{.data.tls\.crt}")?;
    let configurations = configurations(&bundle);
    room.apply(&configurations)?;

    let checked = |name: &str, image: &str| {
        room.try_kubectl(&format!(
            "run {name} --image={image} --labels=checked=yes --image-pull-policy=Never"
        ))
    };
    checked("bad", "e2e")?.fails_with(
        "admission webhook \"e2e-check.example.com\" denied the request: the image e2e has no version",
    )?;
    let good = checked("good", "e2e:1")?;
    ensure!(good.stderr.contains("Warning: somebody looked at the images"), "no warning: {}", good.stderr);
    ensure!(room.field("pod/good", "{.metadata.labels.seen}")? == "yes", "the webhook's patch is applied");
    room.kubectl("run other --image=e2e --image-pull-policy=Never")?;

    // What must be asked and cannot be is a refusal; what need not be is passed by.
    room.kubectl("scale deployment/hook --replicas=0")?;
    room.wait("pod -l app=hook", "delete")?;
    let away = until("a call that reaches nobody", || {
        let answer = checked("late", "e2e:1")?;
        Ok(answer.stderr.contains("failed calling webhook").then_some(answer))
    })?;
    away.fails_with(
        "Internal error occurred: failed calling webhook \"e2e-check.example.com\": failed to call webhook: Post \"https://hook.webhooks.svc:443/no-latest?timeout=5s\":",
    )?;
    run(&mut room.command("delete -f -")?, &configurations)?.ok()?;
    room.kubectl("run late --image=e2e:1 --labels=checked=yes --image-pull-policy=Never").map(drop)
}

/// The image of the webhook: its program, and the libraries that the loader says it needs.
fn import(room: &Room) -> Result<()> {
    let site = room.cluster.site;
    let program = env!("CARGO_BIN_EXE_webhook");
    let rootfs = site.scratch().join("rootfs-webhook");
    let libraries = run(std::process::Command::new("ldd").arg(program), "")?.ok()?;
    let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    for file in libraries.chain([program]) {
        let inside = rootfs.join(if file == program { "webhook" } else { file.trim_start_matches('/') });
        std::fs::create_dir_all(inside.parent().context("a folder")?)?;
        std::fs::copy(file, &inside).with_context(|| format!("copy {file}"))?;
    }
    let mut import = site.command("image import --cmd /webhook --rootfs")?;
    run(import.arg(&rootfs).arg("webhook:1").args(["--name", &room.cluster.name]), "")?.ok().map(drop)
}
