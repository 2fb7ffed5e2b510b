//! Worked cases, as files: `testdata/<kind>/<case>.input.json` is what a client creates, `<case>.output.json` what is stored of it (and, beside
//! it, the cells that kubectl shows); `<case>.invalid.json` is an object with what is wrong with it, and with `old` an update; `<case>.warns.json`
//! one that is accepted, with what its client is warned about.
//!
//! `UPDATE_GOLDEN=1 cargo test -p kinds` writes the outputs anew.

use std::fs;
use std::path::{Path, PathBuf};

use object::Time;
use schema::{FieldValidation, Kind};
use serde_json::{Value, json};

/// 2026-01-01T00:00:00Z
const NOW: Time = Time::from_secs(1_767_225_600);

fn cases(ending: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let folders = fs::read_dir(root).expect("testdata").map(|entry| entry.expect("an entry").path());
    let files = folders
        .flat_map(|folder| fs::read_dir(folder).expect("a folder"))
        .map(|entry| entry.expect("a file").path());
    let mut found: Vec<PathBuf> = files.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
    found.sort();
    assert!(!found.is_empty(), "no {ending}");
    found
}

fn read(path: &Path) -> Value {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn kind_of(object: &Value) -> &'static Kind {
    let api_version = object["apiVersion"].as_str().expect("apiVersion");
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    kinds::by_gvk(group, version, object["kind"].as_str().expect("kind")).expect("a kind")
}

fn decoded(object: &Value) -> Value {
    let kind = kind_of(object);
    let mut object = match kinds::decode(kind, object.to_string().as_bytes(), FieldValidation::Strict) {
        Ok(decoded) => decoded.value,
        Err(status) => panic!("{object}: {status}"),
    };
    kinds::default(kind, &mut object);
    object
}

fn messages(kind: &Kind, new: &Value, old: Option<&Value>) -> Vec<String> {
    kind.violations(new, old).iter().map(|one| format!("{}: {}", one.field, one.body())).collect()
}

#[test]
fn what_is_created_is_stored_complete() {
    for path in cases(".input.json") {
        let input = read(&path);
        let kind = kind_of(&input);
        let mut object = decoded(&input);
        object["metadata"]["uid"] = "11111111-1111-1111-1111-111111111111".into();
        object["metadata"]["creationTimestamp"] = "2025-12-31T23:00:00Z".into();
        if !kind.strategy.generation.is_empty() {
            object["metadata"]["generation"] = 1.into();
        }
        for field in kind.strategy.main_keeps {
            schema::path::remove(&mut object, field);
        }
        (kind.strategy.prepare)(&mut object, None);
        assert_eq!(messages(kind, &object, None), [""; 0], "{}", path.display());
        let mut again = object.clone();
        kinds::default(kind, &mut again);
        (kind.strategy.prepare)(&mut again, Some(&object));
        assert_eq!(
            messages(kind, &again, Some(&object)),
            [""; 0],
            "{}: an update that changes nothing",
            path.display()
        );
        let cells: Vec<Value> = kind.columns.iter().map(|column| column.cell(&object, NOW)).collect();
        let output = json!({"cells": cells, "object": object});
        let file = PathBuf::from(path.to_string_lossy().replace(".input.json", ".output.json"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&file, format!("{output:#}\n")).expect("written");
        }
        assert_eq!(output, read(&file), "{}", path.display());
    }
}

#[test]
fn what_is_wrong_is_told_in_upstreams_words() {
    for path in cases(".invalid.json") {
        let case = read(&path);
        let new = decoded(&case["object"]);
        let old = case.get("old").map(decoded);
        let told = messages(kind_of(&new), &new, old.as_ref());
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            let mut case = case.clone();
            case["violations"] = told.clone().into();
            fs::write(&path, format!("{case:#}\n")).expect("written");
        }
        let case = read(&path);
        let wanted: Vec<&str> =
            case["violations"].as_array().expect("violations").iter().filter_map(Value::as_str).collect();
        assert_eq!(told, wanted, "{}", path.display());
    }
}

#[test]
fn what_is_most_likely_not_meant_is_told() {
    for path in cases(".warns.json") {
        let case = read(&path);
        let mut new = decoded(&case["object"]);
        let kind = kind_of(&new);
        (kind.strategy.prepare)(&mut new, None);
        assert_eq!(messages(kind, &new, None), [""; 0], "{}: it is accepted", path.display());
        let old = case.get("old").map(decoded);
        let told = (kind.warn)(&new, old.as_ref());
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            let mut case = case.clone();
            case["warnings"] = told.clone().into();
            fs::write(&path, format!("{case:#}\n")).expect("written");
        }
        assert_eq!(json!(told), read(&path)["warnings"], "{}", path.display());
    }
}

#[test]
fn every_stored_kind_has_a_case() {
    let covered: Vec<&str> = cases(".input.json").iter().map(|path| kind_of(&read(path)).type_name).collect();
    for &kind in kinds::all().iter().filter(|kind| kind.verbs.contains(&"create") && kind.is_stored()) {
        assert!(
            kind.conversion.is_some() || covered.contains(&kind.type_name),
            "{} has no case",
            kind.type_name
        );
    }
}
