//! What a stock kubectl does, old and new, as rows: the words, what goes in, what must come out.

use anyhow::{Context, Result, ensure};
use e2e::{Room, kubectl_binary, run};

const APP: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: { name: app, labels: { tier: front } }
spec:
  replicas: 1
  selector: { matchLabels: { app: app } }
  template:
    metadata: { labels: { app: app } }
    spec: { terminationGracePeriodSeconds: 0, containers: [{ name: app, image: "e2e:1" }] }
---
apiVersion: v1
kind: ConfigMap
metadata: { name: settings }
data: { colour: blue }
"#;

/// In this order. `$N` is the namespace.
const ROWS: &[(&str, &str, &str)] = &[
    ("version", "", "Server Version: v1.36"),
    (
        "api-resources --api-group=apps",
        "",
        "deployments           deploy       apps/v1      true         Deployment\n",
    ),
    ("api-versions", "", "apps/v1\n"),
    ("explain deployment.spec.replicas", "", "FIELD: replicas <integer>"),
    ("explain deployment.spec.replicas", "", "How many pods; absent: 1."),
    ("apply -f -", APP, "deployment.apps/app created\nconfigmap/settings created\n"),
    ("rollout status deployment/app --timeout=120s", "", "deployment \"app\" successfully rolled out\n"),
    ("apply -f -", APP, "deployment.apps/app unchanged\nconfigmap/settings unchanged\n"),
    (
        "get deployments",
        "",
        "NAME   READY   UP-TO-DATE   AVAILABLE   AGE\napp    1/1     1            1           ",
    ),
    ("get deployments -o wide", "", "CONTAINERS   IMAGES   SELECTOR\n"),
    ("get deployment app -o name", "", "deployment.apps/app\n"),
    ("get deployment app -o yaml", "", "  replicas: 1\n"),
    ("get deployment app -o jsonpath={.spec.template.spec.containers[0].image}", "", "e2e:1"),
    ("get configmaps -o custom-columns=N:.metadata.name,C:.data.colour", "", "settings           blue\n"),
    ("get pods -l app=app --show-labels", "", "app=app,pod-template-hash="),
    ("get pods --field-selector status.phase=Running -o name", "", "pod/app-"),
    ("get all", "", "replicaset.apps/app-"),
    ("get nodes", "", "Ready "),
    ("describe deployment app", "", "1 desired | 1 updated | 1 total | 1 available | 0 unavailable"),
    ("describe pods -l app=app", "", "Successfully assigned $N/app-"),
    ("describe node", "", "Allocated resources:"),
    ("get events", "", "Scaled up replica set app-"),
    ("create configmap made --from-literal=a=1", "", "configmap/made created\n"),
    ("create configmap made --from-literal=a=1 --dry-run=server -o name", "", "already exists"),
    ("create secret generic hidden --from-literal=word=x", "", "secret/hidden created\n"),
    ("create deployment second --image=e2e:2 --replicas=0", "", "deployment.apps/second created\n"),
    ("expose deployment app --port 80 --target-port 8080", "", "service/app exposed\n"),
    ("get endpointslices -l kubernetes.io/service-name=app", "", "8080"),
    ("label configmap made colour=red", "", "configmap/made labeled\n"),
    ("label configmap made colour=green", "", "already has a value"),
    ("annotate configmap made note=hello", "", "configmap/made annotated\n"),
    ("patch configmap made --type=merge -p {\"data\":{\"b\":\"2\"}}", "", "configmap/made patched\n"),
    (
        "patch configmap made --type=json -p [{\"op\":\"remove\",\"path\":\"/data/a\"}]",
        "",
        "configmap/made patched\n",
    ),
    (
        "patch deployment app -p {\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"app\",\"env\":[{\"name\":\"A\",\"value\":\"1\"}]}]}}}}",
        "",
        "deployment.apps/app patched\n",
    ),
    ("rollout status deployment/app --timeout=120s", "", "successfully rolled out\n"),
    (
        "get deployment app -o jsonpath={.spec.template.spec.containers[0].env[0].value}{.spec.template.spec.containers[0].image}",
        "",
        "1e2e:1",
    ),
    ("get configmap made -o jsonpath={.data}", "", "{\"b\":\"2\"}"),
    ("edit configmap made", "", "configmap/made edited\n"),
    ("get configmap made -o jsonpath={.data.b}", "", "edited"),
    (
        "diff -f -",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: settings }\ndata: { colour: green }\n",
        "+  colour: green\n",
    ),
    (
        "replace -f -",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: settings }\ndata: { colour: green }\n",
        "configmap/settings replaced\n",
    ),
    (
        "apply --server-side -f -",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: applied }\ndata: { a: b }\n",
        "configmap/applied serverside-applied\n",
    ),
    ("scale deployment app --replicas 2", "", "deployment.apps/app scaled\n"),
    ("rollout status deployment/app --timeout=120s", "", "successfully rolled out\n"),
    ("rollout history deployment/app", "", "REVISION  CHANGE-CAUSE\n1         <none>\n2         <none>\n"),
    ("rollout restart deployment/app", "", "deployment.apps/app restarted\n"),
    ("rollout status deployment/app --timeout=120s", "", "successfully rolled out\n"),
    ("rollout undo deployment/app --to-revision=1", "", "deployment.apps/app rolled back\n"),
    ("rollout pause deployment/app", "", "deployment.apps/app paused\n"),
    ("rollout resume deployment/app", "", "deployment.apps/app resumed\n"),
    ("rollout status deployment/app --timeout=120s", "", "successfully rolled out\n"),
    ("exec deployment/app -- cat /www/version", "", "version 1\n"),
    ("logs deployment/app", "", ""),
    ("auth can-i create pods", "", "yes\n"),
    ("auth can-i create pods --as nobody", "", "no\n"),
    ("auth whoami", "", "kubernetes-admin"),
    ("create token default", "", "eyJ"),
    ("run once --image=e2e:1 --restart=Never --rm -i --command -- echo hello", "", "hello\n"),
    ("get pod absent", "", "Error from server (NotFound): pods \"absent\" not found\n"),
    ("get nothings", "", "error: the server doesn't have a resource type \"nothings\"\n"),
    ("delete configmap made applied", "", "configmap \"made\" deleted"),
    ("delete deployment --all --wait", "", "deployment.apps \"app\" deleted"),
    ("wait pods --for=delete -l app=app --timeout=120s", "", ""),
    ("get pods", "", "No resources found in $N namespace.\n"),
    ("cluster-info", "", "Kubernetes control plane is running at https://127.0.0.1:"),
    ("get --raw /readyz", "", "ok"),
    ("get namespaces", "", "kube-system"),
];

/// What the kubectl of Debian 12 does, which is sixteen releases older: it reads OpenAPI v2 as protobuf and discovery group by group.
const OLD_ROWS: &[(&str, &str, &str)] = &[
    ("version --short", "", "Server Version: v1.36"),
    (
        "api-resources --api-group=apps",
        "",
        "deployments           deploy       apps/v1      true         Deployment\n",
    ),
    ("explain deployment.spec.replicas", "", "FIELD:    replicas <integer>"),
    ("explain deployment.spec.replicas", "", "How many pods; absent: 1."),
    ("explain pods.spec.containers.livenessProbe", "", "RESOURCE: livenessProbe <Object>"),
    ("apply -f -", APP, "deployment.apps/app created\nconfigmap/settings created\n"),
    ("rollout status deployment/app --timeout=120s", "", "deployment \"app\" successfully rolled out\n"),
    ("apply -f -", APP, "deployment.apps/app unchanged\nconfigmap/settings unchanged\n"),
    (
        "apply -f -",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: wrong }\ndatas: {}\n",
        "unknown field \"datas\"",
    ),
    (
        "apply --server-side -f -",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: applied }\ndata: { a: b }\n",
        "configmap/applied serverside-applied\n",
    ),
    (
        "get deployments",
        "",
        "NAME   READY   UP-TO-DATE   AVAILABLE   AGE\napp    1/1     1            1           ",
    ),
    ("get all", "", "replicaset.apps/app-"),
    ("describe deployment app", "", "1 desired | 1 updated | 1 total | 1 available | 0 unavailable"),
    ("describe pods -l app=app", "", "Successfully assigned $N/app-"),
    ("exec deployment/app -- cat /www/version", "", "version 1\n"),
    ("logs deployment/app", "", ""),
    ("patch configmap settings --type=merge -p {\"data\":{\"b\":\"2\"}}", "", "configmap/settings patched\n"),
    ("edit configmap settings", "", "configmap/settings edited\n"),
    ("scale deployment app --replicas 2", "", "deployment.apps/app scaled\n"),
    ("autoscale deployment app --max 3", "", "horizontalpodautoscaler.autoscaling/app autoscaled\n"),
    ("get hpa", "", "Deployment/app"),
    ("rollout restart deployment/app", "", "deployment.apps/app restarted\n"),
    ("rollout status deployment/app --timeout=120s", "", "successfully rolled out\n"),
    ("auth can-i create pods --as nobody", "", "no\n"),
    ("get pod absent", "", "Error from server (NotFound): pods \"absent\" not found\n"),
    ("delete hpa app", "", "horizontalpodautoscaler.autoscaling \"app\" deleted"),
    ("delete deployment --all --wait", "", "deployment.apps \"app\" deleted"),
    ("wait pods --for=delete -l app=app --timeout=120s", "", ""),
    ("get pods", "", "No resources found in $N namespace.\n"),
];

pub fn minor_20(room: &Room) -> Result<()> {
    tell(room, 20, OLD_ROWS)
}

pub fn minor_32(room: &Room) -> Result<()> {
    tell(room, 32, ROWS)
}

pub fn minor_36(room: &Room) -> Result<()> {
    tell(room, 36, ROWS)
}

fn tell(room: &Room, minor: u32, rows: &[(&str, &str, &str)]) -> Result<()> {
    kubectl_binary(minor)?;
    // What `kubectl edit` opens.
    let editor = room.cluster.site.scratch().join(format!("editor-{minor}"));
    std::fs::write(&editor, "#!/bin/sh\nexec sed -i 's/b: \"2\"/b: edited/' \"$1\"\n")
        .context("write the editor")?;
    std::fs::set_permissions(&editor, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .context("allow the editor")?;
    let mut wrong = Vec::new();
    for (words, input, expected) in rows {
        let mut command = room.cluster.kubectl_command(minor, &format!("-n {} {words}", room.namespace))?;
        let answer = run(command.env("KUBE_EDITOR", &editor), input)?;
        let said = answer.stdout + &answer.stderr;
        let expected = expected.replace("$N", &room.namespace);
        if !said.contains(&expected) {
            wrong.push(format!("kubectl {words}\n  should say {expected:?}\n  and says   {said:?}"));
        }
    }
    ensure!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    Ok(())
}
