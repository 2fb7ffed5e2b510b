//! The definitions that operators bring along, as they are released: accepted, established, explained, and gone again.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use e2e::{Room, run};

/// What `kubectl apply` can keep of an object in its annotation.
const ANNOTATION_BYTES: usize = 256 * 1024;

/// A project, a resource of it, what is explained of that, and what that says.
const EXPLAINED: &[(&str, &str, &str)] = &[
    (
        "argo-cd",
        "applications.spec.syncPolicy.automated.prune",
        "Prune specifies whether to delete resources",
    ),
    ("cert-manager", "certificates.spec.secretName", "Name of the Secret resource"),
    (
        "gateway-api",
        "httproutes.spec.rules.matches.path.type",
        "ENUM:\n    Exact\n    PathPrefix\n    RegularExpression",
    ),
    ("karpenter", "nodepools.spec.disruption.budgets", "Budgets is a list of Budgets."),
];

/// An object that must be kept and one that must not, with the words for why not.
const OBJECTS: &[(&str, &str)] = &[
    (
        "{apiVersion: cert-manager.io/v1, kind: Certificate, metadata: {name: a}, spec: {secretName: a, issuerRef: {name: x}, dnsNames: [a.example.com]}}",
        "",
    ),
    (
        "{apiVersion: cert-manager.io/v1, kind: Certificate, metadata: {name: b}, spec: {dnsNames: [a.example.com]}}",
        "spec.issuerRef: Required value",
    ),
    (
        "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: a}, spec: {parentRefs: [{name: g}], rules: [{backendRefs: [{name: s, port: 80}]}]}}",
        "",
    ),
    (
        "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: b}, spec: {rules: [{matches: [{path: {type: PathPrefix, value: x}}]}]}}",
        "value must be an absolute path and start with '/' when type one of ['Exact', 'PathPrefix']",
    ),
    (
        "{apiVersion: karpenter.sh/v1, kind: NodePool, metadata: {name: a}, spec: {template: {spec: {requirements: [], nodeClassRef: {group: g.io, kind: K, name: x}}}}}",
        "",
    ),
];

pub fn tell(room: &Room) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.tmp/definitions");
    let files = files(&folder)?;
    ensure!(files.len() > 15, "{} definitions in {}", files.len(), folder.display());
    for (at, file) in files.iter().enumerate() {
        let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        // Both ways in, as far as the first can take it.
        let by_client = at % 2 == 0 && text.len() < ANNOTATION_BYTES;
        let how = if by_client { "apply -f -" } else { "apply --server-side -f -" };
        run(&mut room.command(how)?, &text)?.ok().with_context(|| file.display().to_string())?;
        run(&mut room.command(how)?, &text)?.ok().with_context(|| format!("{} again", file.display()))?;
    }
    let each = |words: &str| -> Result<()> {
        let mut command = room.command(words)?;
        for file in &files {
            command.arg("-f").arg(file);
        }
        run(&mut command, "")?.ok().map(drop)
    };
    each("wait --for=condition=Established --timeout=60s")?;
    for (project, path, words) in EXPLAINED {
        let said = room.kubectl(&format!("explain {path}"))?;
        ensure!(said.contains(words), "{project}: explain {path} should say {words:?} and says {said:?}");
    }
    for (object, refused) in OBJECTS {
        let answer = run(&mut room.command("apply -f -")?, object)?;
        match *refused {
            "" => answer.ok().map(drop)?,
            words => answer.fails_with(words)?,
        }
    }
    each("delete --timeout=60s")
}

/// The definitions of all projects, in order.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = |folder: &Path| -> Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(folder)
            .with_context(|| format!("{}: scripts/test fetches it", folder.display()))?;
        entries.map(|entry| Ok(entry?.path())).collect()
    };
    let mut files = Vec::new();
    for project in list(folder)? {
        files.extend(list(&project)?);
    }
    files.retain(|file| file.extension().is_some_and(|kind| kind == "yaml"));
    files.sort();
    Ok(files)
}
