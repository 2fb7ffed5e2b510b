//! `xtask import models`: AWS's service models, reduced to what the wire needs.
//!
//! The source is the Python package botocore (Apache-2.0). Of a model remain the operations that `operations.txt` names and the shapes
//! they reach: names, places, limits, errors, paging; no documentation. The format is described where it is read, `aws/src/model`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use serde_json::Value;

/// The release whose models are committed.
const BOTOCORE: &str = "1.43.11";

/// `source` is a wheel of botocore; without one, it is fetched.
pub fn models(source: Option<&str>) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let wheel = match source {
        Some(path) => PathBuf::from(path),
        None => fetch(dir.path())?,
    };
    let unpack =
        Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(dir.path()).status()?;
    ensure!(unpack.success(), "unpack {}", wheel.display());
    let to = crate::root().join("crates/aws/data");
    let wanted = std::fs::read_to_string(to.join("operations.txt")).context("read operations.txt")?;
    for (service, operations) in wanted_operations(&wanted) {
        let folder = newest(&dir.path().join("botocore/data").join(&service))?;
        let model = read_gzip(&folder.join("service-2.json.gz"))?;
        let pages = std::fs::read(folder.join("paginators-1.json")).ok();
        let pages = pages.map(|text| serde_json::from_slice(&text)).transpose()?.unwrap_or_default();
        let text =
            reduce(&model, &pages, &operations).with_context(|| format!("reduce the model of {service}"))?;
        std::fs::write(to.join("models").join(format!("{service}.txt")), text)?;
    }
    Ok(())
}

fn fetch(dir: &Path) -> Result<PathBuf> {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"]).arg(dir);
    let status = pip.arg(format!("botocore=={BOTOCORE}")).status()?;
    ensure!(status.success(), "fetch botocore {BOTOCORE} with pip");
    Ok(dir.join(format!("botocore-{BOTOCORE}-py3-none-any.whl")))
}

/// Service and operations; none means all.
fn wanted_operations(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut wanted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        let Some(service) = words.next() else { continue };
        let names = words.filter(|name| *name != "*").map(str::to_owned);
        wanted.entry(service.to_owned()).or_default().extend(names);
    }
    wanted
}

/// A service's newest API version.
fn newest(folder: &Path) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let versions: BTreeSet<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    versions.into_iter().next_back().with_context(|| format!("{} is empty", folder.display()))
}

fn read_gzip(path: &Path) -> Result<Value> {
    let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
    let mut text = Vec::new();
    GzDecoder::new(file).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

fn reduce(model: &Value, pages: &Value, wanted: &BTreeSet<String>) -> Result<String> {
    let meta = &model["metadata"];
    let word = |name: &str| meta[name].as_str().unwrap_or_default().to_owned();
    let mut text = format!(
        "# Of botocore {BOTOCORE} (Apache-2.0, Copyright 2012-2022 Amazon.com, Inc. or its affiliates), reduced by\n# `cargo run -p xtask -- import models`: change operations.txt and run it again.\n"
    );
    let signing = if meta["signingName"].is_string() { word("signingName") } else { word("endpointPrefix") };
    write!(text, "service {signing} {} {}", word("apiVersion"), word("protocol"))?;
    for (name, key) in [("namespace", "xmlNamespace"), ("target", "targetPrefix"), ("json", "jsonVersion")] {
        // A JSON version says nothing where there is no such protocol.
        if meta[key].is_string() && (name != "json" || word("protocol") == "json") {
            write!(text, " {name}={}", word(key))?;
        }
    }
    text.push('\n');
    let mut reached = BTreeSet::new();
    let operations = model["operations"].as_object().context("it has operations")?;
    for name in wanted {
        ensure!(operations.contains_key(name), "there is no operation {name}");
    }
    for (name, operation) in operations.iter().filter(|(name, _)| wanted.is_empty() || wanted.contains(*name))
    {
        operation_line(&mut text, name, operation, &pages["pagination"][name])?;
        let errors = operation["errors"].as_array().into_iter().flatten();
        for shape in [&operation["input"], &operation["output"]].into_iter().chain(errors) {
            reach(model, shape, &mut reached);
        }
    }
    for name in reached {
        shape_lines(&mut text, &name, &model["shapes"][&name])?;
    }
    Ok(text)
}

fn operation_line(text: &mut String, name: &str, operation: &Value, page: &Value) -> Result<()> {
    let http = &operation["http"];
    write!(text, "operation {name} {} {}", string(&http["method"]), string(&http["requestUri"]))?;
    for (word, shape) in [("in", &operation["input"]), ("out", &operation["output"])] {
        if let Some(shape) = shape["shape"].as_str() {
            write!(text, " {word}={shape}")?;
        }
    }
    if let Some(code) = http["responseCode"].as_u64().filter(|code| *code != 200) {
        write!(text, " status={code}")?;
    }
    if let Some(wrapper) = operation["output"]["resultWrapper"].as_str() {
        write!(text, " wrapper={wrapper}")?;
    }
    if operation["authtype"] == "none" {
        write!(text, " unsigned")?;
    }
    // More than one list, or one that is deeper than a member, is not paged here.
    let parts = ["input_token", "output_token", "limit_key", "result_key"].map(|key| string(&page[key]));
    if parts.iter().all(|part| !part.is_empty() && !part.contains(['.', '|', '['])) {
        write!(text, " page={}", parts.join(","))?;
        if let Some(more) = page["more_results"].as_str() {
            write!(text, ",{more}")?;
        }
    }
    text.push('\n');
    Ok(())
}

fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn reach(model: &Value, reference: &Value, reached: &mut BTreeSet<String>) {
    let Some(name) = reference["shape"].as_str() else { return };
    if !reached.insert(name.to_owned()) {
        return;
    }
    let shape = &model["shapes"][name];
    for part in ["member", "key", "value"] {
        reach(model, &shape[part], reached);
    }
    for member in shape["members"].as_object().into_iter().flat_map(|members| members.values()) {
        reach(model, member, reached);
    }
}

fn shape_lines(text: &mut String, name: &str, shape: &Value) -> Result<()> {
    let kind = string(&shape["type"]);
    let values: Vec<&str> = shape["enum"].as_array().into_iter().flatten().map(string).collect();
    if !values.is_empty() {
        writeln!(text, "enum {name} {}", values.join("|"))?;
        return Ok(());
    }
    write!(text, "{kind} {name}")?;
    for part in ["member", "key", "value"] {
        if let Some(of) = shape[part]["shape"].as_str() {
            write!(text, " {of}")?;
        }
    }
    for (word, part) in [("as", "member"), ("key", "key"), ("value", "value")] {
        if let Some(wire) = shape[part]["locationName"].as_str() {
            write!(text, " {word}={wire}")?;
        }
    }
    for (word, key) in [("min", "min"), ("max", "max"), ("format", "timestampFormat"), ("payload", "payload")]
    {
        match &shape[key] {
            Value::Null => {}
            Value::String(value) => write!(text, " {word}={value}")?,
            value => write!(text, " {word}={value}")?,
        }
    }
    for (word, key) in [("flat", "flattened"), ("sensitive", "sensitive")] {
        if shape[key] == true {
            write!(text, " {word}")?;
        }
    }
    if shape["exception"] == true {
        let status = shape["error"]["httpStatusCode"].as_u64();
        let status = status.unwrap_or(if shape["fault"] == true { 500 } else { 400 });
        write!(text, " error={status}")?;
        if let Some(code) = shape["error"]["code"].as_str() {
            write!(text, " code={code}")?;
        }
    }
    // Last, since it may have spaces.
    if let Some(pattern) = shape["pattern"].as_str() {
        write!(text, " pattern={pattern}")?;
    }
    text.push('\n');
    let required: Vec<&str> = shape["required"].as_array().into_iter().flatten().map(string).collect();
    for (member, of) in shape["members"].as_object().into_iter().flatten() {
        let mark = if required.contains(&member.as_str()) { "!" } else { "" };
        write!(text, " {member}{mark} {}", string(&of["shape"]))?;
        let words = [("in", "location"), ("as", "locationName"), ("query", "queryName")];
        for (word, value) in words.into_iter().filter_map(|(word, key)| Some((word, of[key].as_str()?))) {
            write!(text, " {word}={value}")?;
        }
        if of["flattened"] == true {
            write!(text, " flat")?;
        }
        text.push('\n');
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_model_is_reduced_to_what_is_reached() {
        let model = json!({
            "metadata": {"endpointPrefix": "x", "apiVersion": "1", "protocol": "query", "jsonVersion": "1.1"},
            "operations": {
                "List": {"http": {"method": "POST", "requestUri": "/"}, "input": {"shape": "In"}, "errors": [{"shape": "Bad"}]},
                "Other": {"http": {"method": "POST", "requestUri": "/"}, "input": {"shape": "Elsewhere"}},
            },
            "shapes": {
                "In": {"type": "structure", "required": ["Names"], "members": {
                    "Names": {"shape": "Names", "locationName": "Name"}, "Kind": {"shape": "Kind"}}},
                "Names": {"type": "list", "member": {"shape": "Name", "locationName": "item"}, "max": 9, "flattened": true},
                "Name": {"type": "string", "min": 1, "pattern": "[a b]+", "documentation": "long"},
                "Kind": {"type": "string", "enum": ["one", "two words"]},
                "Bad": {"type": "structure", "exception": true, "members": {}, "error": {"code": "Worse", "httpStatusCode": 409}},
                "Elsewhere": {"type": "structure", "members": {}},
            },
        });
        let pages = json!({"pagination": {"List": {"input_token": "M", "output_token": "M", "limit_key": "N", "result_key": "R"}}});
        let text = reduce(&model, &pages, &["List".to_owned()].into()).expect("reduced");
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "service x 1 query",
                "operation List POST / in=In page=M,M,N,R",
                "structure Bad error=409 code=Worse",
                "structure In",
                " Kind Kind",
                " Names! Names as=Name",
                "enum Kind one|two words",
                "string Name min=1 pattern=[a b]+",
                "list Names Name as=item max=9 flat",
            ]
        );
        assert!(reduce(&model, &pages, &["None".to_owned()].into()).is_err());
    }
}
