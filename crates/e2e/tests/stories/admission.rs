//! What users add to admission: policies in CEL, and webhooks that run in a pod.

use anyhow::{Result, ensure};
use e2e::{Room, run, until};

use crate::guest;

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
    run(&mut room.command("apply -f -")?, MISTAKEN)?.ok()?;
    let warning = until("the policy's expression is looked at", || {
        let told = room.field("validatingadmissionpolicy/e2e-mistaken", "{.status.typeChecking}")?;
        Ok((!told.is_empty()).then_some(told))
    })?;
    let wanted = "apps/v1, Kind=Deployment: ERROR: \\u003cinput\\u003e:1:12: undefined field 'copies'";
    ensure!(warning.contains(wanted), "{warning}");
    run(&mut room.command("delete -f -")?, MISTAKEN)?.ok()?;
    room.kubectl("label deployment/small a=b").map(drop)
}

/// It asks for a field that no Deployment has; without a binding it judges nobody.
const MISTAKEN: &str = r#"
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: { name: e2e-mistaken }
spec:
  matchConstraints:
    resourceRules: [{ apiGroups: [apps], apiVersions: [v1], operations: [CREATE], resources: [deployments] }]
  validations: [{ expression: object.spec.copies <= 3 }]
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
  clientConfig: {{ service: {{ namespace: webhooks, name: guest, path: {path} }}, caBundle: {ca_bundle} }}
---"#
        )
    };
    webhook("ValidatingWebhookConfiguration", "e2e-check", "/no-latest", "Fail")
        + &webhook("MutatingWebhookConfiguration", "e2e-label", "/label", "Ignore")
}

pub fn webhooks(room: &Room) -> Result<()> {
    guest::start(room)?;
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
    room.kubectl("scale deployment/guest --replicas=0")?;
    room.wait("pod -l app=guest", "delete")?;
    let away = until("a call that reaches nobody", || {
        let answer = checked("late", "e2e:1")?;
        Ok(answer.stderr.contains("failed calling webhook").then_some(answer))
    })?;
    away.fails_with(
        "Internal error occurred: failed calling webhook \"e2e-check.example.com\": failed to call webhook: Post \"https://guest.webhooks.svc:443/no-latest?timeout=5s\":",
    )?;
    run(&mut room.command("delete -f -")?, &configurations)?.ok()?;
    room.kubectl("run late --image=e2e:1 --labels=checked=yes --image-pull-policy=Never")?;
    // Nobody waits for the grace of pods that do not hear when they are told to end.
    room.kubectl("delete pod --all --grace-period=1 --wait=false").map(drop)
}
