//! `xtask tidy`: what a compiler does not check and a reviewer should not have to: the layers, the charters, the size of files.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Crates that decide: pure functions from what is true to what should be written.
const DECIDERS: &[&str] =
    &["access", "admission", "aws", "controllers", "events", "kubelet", "network", "scheduler"];
/// What deciders and doers have in common: data and its meaning.
const VOCABULARY: &[&str] = &["cel", "kinds", "object", "plan", "schema"];
/// Libraries with which a crate touches the world.
const WORLDLY: &[&str] =
    &["hyper", "hyper-util", "libc", "netlink", "rustix", "tempfile", "tokio", "tokio-rustls", "tonic"];
/// Words of a source file that touches the world.
const WORLDLY_WORDS: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "Timestamp::now",
    "Zoned::now",
    "std::env",
    "std::fs",
    "std::thread",
    "tokio::",
];
/// Files this long are lists of like things, or they are too long.
const LINES_LIMIT: usize = 900;
/// Which are such lists.
const LISTS: &[&str] = &["Cargo.lock"];
/// Written as sums, so that this file does not hold what it looks for.
const UNFINISHED: &[&str] =
    &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("X", "XX "), concat!("HA", "CK:")];

struct File {
    path: String,
    text: String,
}

pub fn run() -> Result<()> {
    let files = tracked_files()?;
    let packages = packages()?;
    let mut complaints = Vec::new();
    for (name, imports) in &packages {
        complaints.extend(layering(name, imports));
        complaints.extend(charter(name, &files));
    }
    for file in &files {
        complaints.extend(unfinished(file));
        complaints.extend(too_long(file));
        complaints.extend(impure(file));
    }
    complaints.extend(make_targets(&files));
    if complaints.is_empty() {
        return Ok(());
    }
    complaints.iter().for_each(|complaint| eprintln!("{complaint}"));
    bail!("{} things are untidy", complaints.len())
}

/// The text files that git knows, and new ones that it does not ignore.
fn tracked_files() -> Result<Vec<File>> {
    let mut git = Command::new("git");
    git.current_dir(crate::root()).args(["ls-files", "--cached", "--others", "--exclude-standard"]);
    let listed = git.output().context("list the files with git")?;
    let mut files = Vec::new();
    for path in String::from_utf8(listed.stdout)?.lines() {
        let whole = crate::root().join(path);
        // A file that was removed and not yet committed is no file; one that is not text has no lines.
        if let Some(text) = std::fs::read(&whole).ok().and_then(|content| String::from_utf8(content).ok()) {
            files.push(File { path: path.to_owned(), text });
        }
    }
    Ok(files)
}

/// The crates of the workspace, each with the crates it imports, those of its tests aside.
fn packages() -> Result<BTreeMap<String, Vec<String>>> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(crate::root()).args(["metadata", "--no-deps", "--format-version=1", "--locked"]);
    let output = cargo.output().context("ask cargo for the crates")?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("read cargo's answer")?;
    let mut packages = BTreeMap::new();
    for package in list(&metadata["packages"]) {
        let imports = list(&package["dependencies"]).filter(|one| one["kind"].is_null());
        let imports = imports.filter_map(|one| one["name"].as_str().map(str::to_owned)).collect();
        packages.insert(package["name"].as_str().unwrap_or_default().to_owned(), imports);
    }
    Ok(packages)
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Deciders and the vocabulary import neither doers nor what touches the world.
fn layering(name: &str, imports: &[String]) -> Vec<String> {
    if !DECIDERS.contains(&name) && !VOCABULARY.contains(&name) {
        return Vec::new();
    }
    let is_known = |import: &&str| DECIDERS.contains(import) || VOCABULARY.contains(import);
    let is_ours = |import: &&str| crate::root().join("crates").join(import).is_dir();
    let imports = imports.iter().map(String::as_str);
    let wrong = imports.filter(|import| WORLDLY.contains(import) || (is_ours(import) && !is_known(import)));
    wrong
        .map(|import| format!("crates/{name}/Cargo.toml: it is pure, and must not import {import}"))
        .collect()
}

/// The first line of a crate says in one sentence what it is for.
fn charter(name: &str, files: &[File]) -> Option<String> {
    let root =
        |file: &&File| ["lib", "main"].iter().any(|root| file.path == format!("crates/{name}/src/{root}.rs"));
    let Some(file) = files.iter().find(root) else {
        return Some(format!("crates/{name}: it has no root file"));
    };
    let first = file.text.lines().next().unwrap_or_default();
    let is_charter = first.starts_with("//! ") && first.ends_with('.');
    (!is_charter)
        .then(|| format!("{}:1: the first line should be the crate's charter: //! and a sentence", file.path))
}

fn unfinished(file: &File) -> Vec<String> {
    let lines = file.text.lines().enumerate();
    let marked = lines.filter(|(_, line)| UNFINISHED.iter().any(|mark| line.contains(mark)));
    marked
        .map(|(number, _)| format!("{}:{}: finish it, or say it in an issue", file.path, number + 1))
        .collect()
}

fn too_long(file: &File) -> Option<String> {
    let is_ours = file.path.ends_with(".rs") && !LISTS.contains(&file.path.as_str());
    let lines = file.text.lines().count();
    (is_ours && lines > LINES_LIMIT).then(|| {
        format!("{}: {lines} lines, more than {LINES_LIMIT}: divide it by what it is about", file.path)
    })
}

/// A decider's source, its tests aside, has no clock, no files, no threads.
fn impure(file: &File) -> Vec<String> {
    let parts: Vec<&str> = file.path.split('/').collect();
    let ["crates", name, "src", rest @ ..] = parts.as_slice() else { return Vec::new() };
    let is_test = rest.iter().any(|part| part.starts_with("test"));
    if !DECIDERS.contains(name) || is_test {
        return Vec::new();
    }
    let code = file.text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"));
    let worldly = lines.filter_map(|(number, line)| {
        Some((number, WORLDLY_WORDS.iter().find(|word| line.contains(**word))?))
    });
    worldly
        .map(|(number, word)| format!("{}:{}: a decider must not use {word}", file.path, number + 1))
        .collect()
}

/// `make` targets that the documents name are there.
fn make_targets(files: &[File]) -> Vec<String> {
    let Some(makefile) = files.iter().find(|file| file.path == "Makefile") else {
        return vec!["Makefile: missing".into()];
    };
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        for target in named_targets(&file.text) {
            if !makefile.text.lines().any(|line| line.starts_with(&format!("{target}:"))) {
                complaints.push(format!("{}: there is no `make {target}`", file.path));
            }
        }
    }
    complaints
}

/// The targets in `` `make x` `` and in lines of code blocks that are `make x`.
fn named_targets(text: &str) -> Vec<String> {
    let inline = text.split('`').skip(1).step_by(2);
    let blocks = text.lines().map(|line| line.trim_start().trim_start_matches("sudo "));
    let commands = inline.chain(blocks).filter_map(|command| command.strip_prefix("make "));
    let words = commands.filter_map(|rest| rest.split_whitespace().next());
    let targets = words.filter(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-'));
    targets.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.into(), text: text.into() }
    }

    #[test]
    fn what_is_untidy_is_found() {
        let mark = UNFINISHED[0];
        assert_eq!(unfinished(&file("a.rs", &format!("fn a() {{}}\n// {mark}: more"))).len(), 1);
        assert!(too_long(&file("a.rs", &"\n".repeat(LINES_LIMIT + 1))).is_some());
        assert!(too_long(&file("a.tsv", &"\n".repeat(LINES_LIMIT + 1))).is_none());
        let worldly = "// std::fs is not used\nlet now = SystemTime::now();\n#[cfg(test)]\nuse std::fs;";
        assert_eq!(
            impure(&file("crates/scheduler/src/lib.rs", worldly)),
            ["crates/scheduler/src/lib.rs:2: a decider must not use SystemTime::now"]
        );
        assert!(impure(&file("crates/node/src/lib.rs", worldly)).is_empty());
        assert_eq!(layering("scheduler", &["object".into(), "tokio".into(), "store".into()]).len(), 2);
        assert!(layering("node", &["tokio".into()]).is_empty());
        assert!(charter("x", &[file("crates/x/src/lib.rs", "//! Does x.\n")]).is_none());
        assert!(charter("x", &[file("crates/x/src/lib.rs", "use y;\n")]).is_some());
        assert_eq!(
            named_targets("Run `make up`, or:\n\n    sudo make test\n\nthey make sense"),
            ["up", "test"]
        );
    }
}
