//! kubectl's everyday verbs against a whole server. Skipped, and told so, where there is no kubectl.

mod common;

use std::path::Path;

use common::{Cluster, kubectl};

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: c, image: "nginx:1"}
"#;

struct Step {
    arguments: &'static [&'static str],
    input: &'static str,
    /// Every one of these is in what kubectl prints.
    says: &'static [&'static str],
}

const fn step(arguments: &'static [&'static str], says: &'static [&'static str]) -> Step {
    Step { arguments, input: "", says }
}

const STEPS: &[Step] = &[
    step(&["version"], &["Server Version: v1.36"]),
    step(&["get", "namespaces"], &["NAME", "default", "Active", "kube-system"]),
    step(&["create", "configmap", "a", "--from-literal=x=1"], &["configmap/a created"]),
    step(&["get", "configmap", "a", "-o", "jsonpath={.data.x}"], &["1"]),
    step(&["label", "configmap", "a", "color=blue"], &["configmap/a labeled"]),
    step(&["get", "configmap", "-l", "color=blue", "-o", "name"], &["configmap/a"]),
    step(&["patch", "configmap", "a", "-p", r#"{"data":{"y":"2"}}"#], &["configmap/a patched"]),
    Step { arguments: &["apply", "-f", "-"], input: DEPLOYMENT, says: &["deployment.apps/web created"] },
    Step { arguments: &["apply", "-f", "-"], input: DEPLOYMENT, says: &["deployment.apps/web unchanged"] },
    Step {
        arguments: &["apply", "--server-side", "--force-conflicts", "-f", "-"],
        input: DEPLOYMENT,
        says: &["deployment.apps/web serverside-applied"],
    },
    step(
        &[
            "get",
            "deployment",
            "web",
            "--show-managed-fields",
            "-o",
            "jsonpath={.metadata.managedFields[*].manager}",
        ],
        &["kubectl"],
    ),
    step(&["scale", "deployment", "web", "--replicas=3"], &["deployment.apps/web scaled"]),
    step(&["set", "image", "deployment/web", "c=nginx:2"], &["deployment.apps/web image updated"]),
    step(&["get", "deployment", "web", "-o", "wide"], &["READY", "0/3", "nginx:2", "app=web"]),
    // Of a Deployment a changed annotation counts: the server keeps kubectl's note of what was applied last.
    step(&["get", "deployment", "web", "-o", "jsonpath={.metadata.generation}"], &["4"]),
    step(&["expose", "deployment", "web", "--port=80", "--type=NodePort"], &["service/web exposed"]),
    step(&["get", "service", "web"], &["NodePort", "10.100.", "80:3"]),
    step(&["get", "ipaddresses"], &["10.100."]),
    step(&["delete", "service", "web"], &["service \"web\" deleted"]),
    step(&["get", "ipaddresses"], &["No resources found"]),
    step(&["run", "p", "--image=busybox"], &["pod/p created"]),
    step(&["get", "pods"], &["p", "0/1", "Pending"]),
    step(&["describe", "pod", "p"], &["Service Account:", "Image:", "busybox"]),
    step(&["delete", "pod", "p"], &["pod \"p\" deleted"]),
    step(&["create", "namespace", "x"], &["namespace/x created"]),
    step(&["delete", "namespace", "x", "--wait=false"], &["namespace \"x\" deleted"]),
    step(&["get", "namespace", "x"], &["Terminating"]),
    step(&["create", "token", "default"], &["eyJ"]),
    step(&["auth", "can-i", "create", "pods"], &["yes"]),
    step(&["auth", "can-i", "create", "pods", "--as=bob"], &["no"]),
    step(&["auth", "whoami"], &["Username", "admin", "system:masters"]),
    step(
        &["explain", "deployment.spec.replicas"],
        &["FIELD: replicas <integer>", "DESCRIPTION:", "How many pods; absent: 1."],
    ),
    step(
        &["explain", "pods"],
        &["VERSION:    v1", "smallest thing that is scheduled", "spec\t<PodSpec>", "What is wanted."],
    ),
    step(&["api-resources", "--api-group=apps"], &["deployments", "deploy", "apps/v1", "true", "Deployment"]),
    step(&["get", "all", "-A"], &["deployment.apps/web"]),
    step(&["delete", "deployment", "web"], &["deployment.apps \"web\" deleted"]),
    step(&["get", "configmap", "none"], &["Error from server (NotFound): configmaps \"none\" not found"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn everyday_verbs_work() {
    if !std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join("kubectl").exists()))
    {
        eprintln!("skipped: no kubectl in PATH");
        return;
    }
    let cluster = Cluster::start().await;
    let config = cluster.kubeconfig("admin", &["system:masters"]);
    tokio::task::spawn_blocking(move || STEPS.iter().for_each(|step| check(&config, step)))
        .await
        .expect("all steps");
}

fn check(config: &Path, step: &Step) {
    let output = kubectl(config, step.arguments, step.input);
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    for words in step.says {
        assert!(text.contains(words), "kubectl {:?} did not say {words:?}:\n{text}", step.arguments);
    }
}
