//! Other clients than kubectl, each with what its users do all day: Python, JavaScript, kube-rs, helm.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::{Answer, Room, brought_folder, run, tool};

pub fn python(room: &Room) -> Result<()> {
    let python = brought_folder().join("python-kubernetes");
    ensure!(python.exists(), "{} is missing: `make test` fetches it", python.display());
    told(room, Command::new(python).arg("-"), include_str!("clients.py"))
}

pub fn javascript(room: &Room) -> Result<()> {
    let modules = brought_folder().with_file_name("javascript").join("node_modules");
    ensure!(modules.exists(), "{} is missing: `make test` fetches it", modules.display());
    let mut node = Command::new(tool("node")?);
    told(room, node.args(["--input-type=module", "-"]).arg(modules), include_str!("clients.mjs"))
}

/// kube-rs, which types its objects: informers, apply, a definition made of a type and its controller, exec.
pub fn kube(room: &Room) -> Result<()> {
    let program = brought_folder().with_file_name("kube-client").join("debug/kube-client");
    ensure!(program.exists(), "{} is missing: `make test` builds it", program.display());
    told(room, &mut Command::new(program), "")
}

/// Runs a script with the arguments that each of them takes last: a kubeconfig, a context, a namespace.
fn told(room: &Room, program: &mut Command, script: &str) -> Result<()> {
    let context = format!("ekso-{}", room.cluster.name);
    program.arg(room.cluster.site.kubeconfig()).arg(context).arg(&room.namespace);
    // A proxy of this machine is not meant for loopback.
    run(program.env("NO_PROXY", "127.0.0.1"), script)?.ok().map(drop)
}

/// An application with a part of its own, jobs before and after it comes and goes, and a test.
const CHART: &[(&str, &str)] = &[
    (
        "Chart.yaml",
        "apiVersion: v2\nname: shop\nversion: 0.1.0\nappVersion: '1'\n\
         dependencies: [{name: cache, version: 0.2.0, condition: cache.enabled, alias: store}]\n",
    ),
    ("values.yaml", "colour: blue\nimage: 'e2e:1'\nfails: false\ncache: {enabled: true}\nstore: {size: 3}\n"),
    ("charts/cache/Chart.yaml", "apiVersion: v2\nname: cache\nversion: 0.2.0\n"),
    ("charts/cache/values.yaml", "size: 1\n"),
    (
        "charts/cache/templates/settings.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}-{{ .Chart.Name }}'}\n\
         data: {size: '{{ .Values.size }}'}\n",
    ),
    (
        "templates/settings.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}-settings'}\n\
         data: {colour: '{{ .Values.colour }}', revision: '{{ .Release.Revision }}'}\n",
    ),
    (
        "templates/app.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: '{{ .Release.Name }}'}\n\
         spec:\n  replicas: 1\n  selector: {matchLabels: {app: '{{ .Release.Name }}'}}\n  template:\n    \
         metadata:\n      labels: {app: '{{ .Release.Name }}'}\n      \
         annotations: {settings: '{{ include (print $.Template.BasePath \"/settings.yaml\") . | sha256sum }}'}\n    \
         spec: {terminationGracePeriodSeconds: 0, containers: [{name: app, image: '{{ .Values.image }}', \
         readinessProbe: {httpGet: {path: /version, port: 8080}, periodSeconds: 1}}]}\n\
         ---\napiVersion: v1\nkind: Service\nmetadata: {name: '{{ .Release.Name }}'}\n\
         spec: {selector: {app: '{{ .Release.Name }}'}, ports: [{port: 80, targetPort: 8080}]}\n",
    ),
    (
        "templates/hooks.yaml",
        "{{- range $hook := list \"pre-install\" \"post-install\" \"pre-upgrade\" \"post-upgrade\" \"pre-rollback\" \"pre-delete\" }}\n\
         ---\napiVersion: batch/v1\nkind: Job\nmetadata:\n  name: '{{ $.Release.Name }}-{{ $hook }}'\n  \
         annotations: {helm.sh/hook: {{ $hook }}, helm.sh/hook-delete-policy: 'before-hook-creation'}\n\
         spec:\n  backoffLimit: 0\n  template:\n    spec:\n      restartPolicy: Never\n      terminationGracePeriodSeconds: 0\n      \
         containers: [{name: c, image: 'e2e:1', command: [sh, -c, 'echo {{ $hook }} {{ $.Values.colour }}; \
         {{ if and $.Values.fails (eq $hook \"pre-upgrade\") }}exit 1{{ end }}']}]\n{{- end }}\n",
    ),
    (
        "templates/tests/answers.yaml",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: '{{ .Release.Name }}-answers', annotations: {helm.sh/hook: test}}\n\
         spec: {restartPolicy: Never, terminationGracePeriodSeconds: 0, containers: [{name: c, image: 'e2e:1', \
         command: [wget, -q, -O, '-', 'http://{{ .Release.Name }}/version']}]}\n",
    ),
    ("templates/NOTES.txt", "{{ .Release.Name }} is {{ .Values.colour }}.\n"),
];

/// What helm is told, and what it answers or what comes of it: `kubectl:` asks the cluster.
const ROWS: &[(&str, &str)] = &[
    ("install one $CHART --wait --wait-for-jobs --timeout 120s", "STATUS: deployed\nREVISION: 1"),
    ("kubectl: logs job/one-pre-install", "pre-install blue\n"),
    ("kubectl: logs job/one-post-install", "post-install blue\n"),
    ("kubectl: get configmap one-store -o jsonpath={.data.size}", "3"),
    ("kubectl: get deployment one -o jsonpath={.status.readyReplicas}", "1"),
    ("test one --logs --timeout 120s", "version 1\n"),
    ("status one -o json", "\"status\":\"deployed\""),
    ("upgrade one $CHART --set colour=red,image=e2e:2 --wait --timeout 120s", "REVISION: 2"),
    ("kubectl: logs job/one-pre-upgrade", "pre-upgrade red\n"),
    ("kubectl: get configmap one-settings -o jsonpath={.data}", r#"{"colour":"red","revision":"2"}"#),
    ("test one --logs --timeout 120s", "version 2\n"),
    ("upgrade one $CHART --set fails=true --wait --timeout 120s", "! pre-upgrade hooks failed"),
    ("kubectl: get configmap one-settings -o jsonpath={.data.colour}", "red"),
    ("history one", "failed"),
    ("rollback one 1 --wait --timeout 120s", "Rollback was a success"),
    ("kubectl: logs job/one-pre-rollback", "pre-rollback blue\n"),
    ("kubectl: get configmap one-settings -o jsonpath={.data}", r#"{"colour":"blue","revision":"1"}"#),
    ("kubectl: get deployment one -o jsonpath={.spec.template.spec.containers[0].image}", "e2e:1"),
    ("upgrade one $CHART --set cache.enabled=false --wait --timeout 120s", "REVISION: 5"),
    ("kubectl: get configmap one-store", "! \"one-store\" not found"),
    ("get values one", "enabled: false"),
    ("list", "shop-0.1.0"),
    ("install one $CHART", "! cannot re-use a name that is still in use"),
    ("upgrade --install two $CHART --dry-run=server --set store.size=9", "size: '9'"),
    ("kubectl: get configmap two-settings", "! not found"),
    ("uninstall one --wait --timeout 120s", "release \"one\" uninstalled"),
    ("kubectl: logs job/one-pre-delete", "pre-delete blue\n"),
    ("kubectl: get deployments,services,configmaps -l app.kubernetes.io/managed-by=Helm", ""),
    ("kubectl: get deployment one", "! not found"),
];

pub fn helm(room: &Room) -> Result<()> {
    let chart = room.cluster.site.scratch().join("shop");
    write_chart(&chart, CHART)?;
    for &(words, wanted) in ROWS {
        let words = words.replace("$CHART", &chart.display().to_string());
        let answer = match words.strip_prefix("kubectl: ") {
            Some(words) => room.try_kubectl(words)?,
            None => helm_says(room, &words)?,
        };
        match wanted.strip_prefix("! ") {
            Some(refusal) => answer.fails_with(refusal)?,
            None => {
                let said = answer.ok()?;
                ensure!(said.contains(wanted), "{words} should say {wanted:?}, and says {said:?}");
            }
        }
    }
    Ok(())
}

/// Makes a chart of its files.
pub fn write_chart(chart: &Path, files: &[(&str, &str)]) -> Result<()> {
    for (file, text) in files {
        let path = chart.join(file);
        std::fs::create_dir_all(path.parent().unwrap_or(chart)).context("make the chart's folders")?;
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

/// helm with these words.
pub fn helm_says(room: &Room, words: &str) -> Result<Answer> {
    let fetched = brought_folder().join("helm");
    let mut helm = Command::new(if fetched.is_file() { fetched } else { tool("helm")? });
    helm.env("KUBECONFIG", room.cluster.site.kubeconfig()).env("HOME", room.cluster.site.scratch());
    helm.args(words.split_whitespace());
    helm.args(["--namespace", &room.namespace, "--kube-context", &format!("ekso-{}", room.cluster.name)]);
    run(&mut helm, "")
}
