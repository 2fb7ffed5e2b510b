//! Rules that every row must keep.

use object::Time;
use schema::{FieldValidation, Kind};
use serde_json::{Value, json};

const NOW: Time = Time::from_secs(1_767_225_600);

fn identity(kind: &Kind) -> (&str, &str, &str) {
    (kind.group, kind.version, kind.resource.plural())
}

#[test]
fn every_row_is_found_by_each_of_its_names() {
    for &kind in kinds::all() {
        let (group, version, plural) = identity(kind);
        let by_path = kinds::by_path(group, version, plural).expect("found by path");
        let by_gvk = kinds::by_gvk(group, version, kind.kind).expect("found by kind");
        assert!(
            std::ptr::eq(by_path, kind) && std::ptr::eq(by_gvk, kind),
            "{} is not unique",
            kind.type_name
        );
        let stored = kinds::of(kind.resource).expect("found by resource");
        assert!(stored.conversion.is_none(), "{}: the stored row comes first", kind.type_name);
        assert_eq!(stored.kind, kind.kind);
    }
}

#[test]
fn every_row_says_what_discovery_needs() {
    for &kind in kinds::all() {
        let name = kind.type_name;
        assert!(!kind.verbs.is_empty() && kind.verbs.is_sorted(), "{name}: verbs");
        assert_eq!(kind.singular, kind.kind.to_lowercase(), "{name}: singular");
        assert!(kind.subresources.is_sorted_by_key(|sub| sub.name), "{name}: subresources");
        assert!(kind.subresources.iter().all(|sub| sub.verbs.is_sorted()), "{name}: verbs of subresources");
        assert!(!kind.columns.is_empty(), "{name}: columns");
        assert!(kind.columns.iter().all(|column| !column.description.is_empty()), "{name}: docs of columns");
        let is_known = |verb: &str| kind.verbs.contains(&verb);
        assert_eq!(is_known("get"), kind.is_stored(), "{name}");
    }
}

#[test]
fn every_row_has_a_type() {
    let types = kinds::types();
    for &kind in kinds::all() {
        let own = types.get(kind.type_name).unwrap_or_else(|| panic!("no type {}", kind.type_name));
        for field in ["apiVersion", "kind", "metadata"] {
            assert!(
                own.field(field).is_some() || kind.type_name.ends_with("Binding"),
                "{}.{field}",
                kind.type_name
            );
        }
        for path in kind.strategy.generation.iter().chain(kind.strategy.main_keeps) {
            let first = path.split('.').next().unwrap_or_default();
            assert!(own.field(first).is_some(), "{}: no field {path}", kind.type_name);
        }
    }
}

#[test]
fn an_empty_object_is_shown_defaulted_and_refused_without_a_panic() {
    for &kind in kinds::all() {
        for object in [json!({}), json!({"metadata": {}, "spec": {}, "status": {}}), json!({"spec": null})] {
            let decoded = kinds::decode(kind, object.to_string().as_bytes(), FieldValidation::Ignore);
            let Ok(decoded) = decoded else { panic!("{} does not decode {object}", kind.type_name) };
            let mut object = decoded.value;
            for column in kind.columns {
                let cell = column.cell(&object, NOW);
                assert!(!cell.is_object() && !cell.is_array(), "{}: {}", kind.type_name, column.name);
            }
            kinds::default(kind, &mut object);
            let found = kind.violations(&object, None);
            assert!(!kind.is_stored() || !found.is_empty(), "{}: nothing is a valid object", kind.type_name);
            (kind.strategy.prepare)(&mut object, None);
        }
    }
}

#[test]
fn defaulting_is_a_fixed_point_and_decodes_again() {
    for &kind in kinds::all() {
        let mut object = json!({"metadata": {"name": "a"}, "spec": {}});
        object = kinds::decode(kind, object.to_string().as_bytes(), FieldValidation::Ignore)
            .expect("decodes")
            .value;
        kinds::default(kind, &mut object);
        let once = object.clone();
        kinds::default(kind, &mut object);
        assert_eq!(object, once, "{}: defaulting twice", kind.type_name);
        let again = kinds::decode(kind, once.to_string().as_bytes(), FieldValidation::Strict);
        let first = again.unwrap_or_else(|status| panic!("{}: {status}", kind.type_name)).value;
        let mut second = first.clone();
        kinds::default(kind, &mut second);
        let second = kinds::decode(kind, second.to_string().as_bytes(), FieldValidation::Strict)
            .expect("decodes")
            .value;
        assert_eq!(second, first, "{}: decoding what was defaulted", kind.type_name);
    }
}

#[test]
fn every_reference_of_the_openapi_documents_resolves() {
    for &kind in kinds::all() {
        let same =
            kinds::all().iter().copied().filter(|one| (one.group, one.version) == (kind.group, kind.version));
        let document = schema::openapi::v3(kinds::types(), &kinds::words(), same, "v1.36.2");
        let schemas = &document["components"]["schemas"];
        let mut queue = vec![&document];
        while let Some(value) = queue.pop() {
            match value {
                Value::Object(members) => {
                    if let Some(name) = members.get("$ref").and_then(Value::as_str) {
                        let name = name.strip_prefix("#/components/schemas/").expect("a schema");
                        assert!(schemas.get(name).is_some(), "{name} of {}", kind.type_name);
                    }
                    queue.extend(members.values());
                }
                Value::Array(items) => queue.extend(items),
                _ => {}
            }
        }
    }
}

/// kubectl asks the document of a kind's group whether the server validates fields, and how its lists are merged.
#[test]
fn kubectl_finds_what_it_looks_for_in_the_openapi_documents() {
    let apps = kinds::all().iter().copied().filter(|kind| kind.group == "apps");
    let document = schema::openapi::v3(kinds::types(), &kinds::words(), apps, "v1.36.2");
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    let gvk = json!({"group": "apps", "version": "v1", "kind": "Deployment"});
    assert_eq!(patch["x-kubernetes-group-version-kind"], gvk);
    let parameters = patch["parameters"].as_array().expect("parameters");
    assert!(parameters.iter().any(|one| one["name"] == "fieldValidation" && one["in"] == "query"));
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["io.k8s.api.apps.v1.Deployment"]["x-kubernetes-group-version-kind"], json!([gvk]));
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["items"]["$ref"], "#/components/schemas/io.k8s.api.core.v1.Container");
}

#[test]
fn field_selectors_compare_with_what_upstream_compares_with() {
    let value = |name: &str, object: Value, path: &str| {
        let kind = kinds::by_gvk("", "v1", name).or(kinds::by_gvk("batch", "v1", name)).expect("a kind");
        kind.selectable_value(&object, path).to_string()
    };
    assert_eq!(value("Node", json!({}), "spec.unschedulable"), "false");
    assert_eq!(value("Node", json!({"spec": {"unschedulable": true}}), "spec.unschedulable"), "true");
    assert_eq!(value("Pod", json!({}), "spec.hostNetwork"), "false");
    assert_eq!(value("Pod", json!({}), "spec.nodeName"), "");
    assert_eq!(value("Job", json!({"status": {"succeeded": 2}}), "status.successful"), "2");
    assert_eq!(value("Event", json!({"reportingComponent": "x"}), "source"), "x");
}

#[test]
fn every_type_and_every_field_is_described() {
    let (types, words) = (kinds::types(), kinds::words());
    for owner in types.all() {
        assert!(!words.of_type(owner.name).is_empty(), "{}", owner.name);
        for field in &owner.fields {
            let text = words.of_field(owner.name, field.name);
            assert!(text.ends_with('.') || text.ends_with('…'), "{} {}: {text:?}", owner.name, field.name);
        }
    }
    for (name, fields) in words.all() {
        let owner = types.get(name).unwrap_or_else(|| panic!("{name} is described and is no type"));
        for field in fields {
            assert!(owner.field(field).is_some(), "{name} has no {field}, which is described");
        }
    }
}
