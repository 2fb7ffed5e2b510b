//! Custom resources through the row that their definition makes: what is kept of an object, what was dropped, what is wrong with it, how it
//! is shown. The words are upstream's.

use object::{Draft, Key, Object, Time, body};
use schema::{FieldValidation, Kind};
use serde_json::{Value, json};

/// 2026-01-01T00:00:00Z
const NOW: Time = Time::from_secs(1_767_225_600);

fn definition(versions: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.example.com", "uid": "u", "generation": 1},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "things", "kind": "Thing", "shortNames": ["th"], "categories": ["all"]},
            "versions": versions,
        },
    })
}

/// One version, whose objects have a `spec` of this schema.
fn of_spec(spec: Value) -> Value {
    let schema = json!({"type": "object", "properties": {"spec": spec}});
    json!([{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}])
}

fn complete(mut definition: Value) -> Value {
    kinds::default(crd(), &mut definition);
    (crd().strategy.prepare)(&mut definition, None);
    definition
}

fn crd() -> &'static Kind {
    kinds::of(kinds::CUSTOM_RESOURCE_DEFINITIONS).expect("the row of definitions")
}

fn stored(definition: &Value) -> Object {
    let name = definition["metadata"]["name"].as_str().expect("a name");
    let key = Key::cluster(kinds::CUSTOM_RESOURCE_DEFINITIONS, name);
    Draft::read(key, Box::default(), body::encode(definition)).expect("an object").at(7)
}

fn told(violations: &[schema::Violation]) -> Vec<String> {
    violations.iter().map(|one| format!("{}: {}", one.field, one.body())).collect()
}

fn row(versions: Value) -> kinds::custom::Rows {
    let definition = complete(definition(versions));
    assert_eq!(told(&crd().violations(&definition, None)), [""; 0], "{definition}");
    kinds::custom::rows(&stored(&definition), &kinds::custom::compile).expect("rows")
}

fn thing(spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a", "namespace": "b"}, "spec": spec})
}

/// A `spec` as it is sent to a kind with this schema, as it is kept, and what is said about it: fields that were dropped, then violations.
fn check(schema: Value, sent: Value, kept: Value, words: &[&str]) {
    let kind = row(of_spec(schema)).stored;
    let decoded = kinds::conform(&kind, thing(sent.clone()), FieldValidation::Warn).expect("an object");
    let mut object = decoded.value;
    kinds::default(&kind, &mut object);
    let mut said = decoded.warnings;
    said.extend(told(&kind.violations(&object, None)));
    assert_eq!(said, words, "{sent}");
    assert_eq!(object["spec"], kept, "{sent}");
    let once = object.clone();
    kinds::default(&kind, &mut object);
    assert_eq!(object, once, "{sent}: defaulting is a fixed point");
}

/// The same, of what is kept as it is sent.
fn wrong(schema: Value, sent: Value, words: &[&str]) {
    check(schema, sent.clone(), sent, words);
}

fn object_of(properties: Value) -> Value {
    json!({"type": "object", "properties": properties})
}

#[test]
fn what_the_schema_does_not_specify_is_dropped() {
    let schema = || {
        object_of(json!({
            "a": {"type": "string"},
            "list": {"type": "array", "items": object_of(json!({"b": {"type": "integer"}}))},
            "map": {"type": "object", "additionalProperties": {"type": "string"}},
            "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"c": object_of(json!({"d": {"type": "string"}}))}},
        }))
    };
    check(
        schema(),
        json!({"a": "x", "z": 1, "list": [{"b": 1, "y": 2}], "map": {"k": "v"}}),
        json!({"a": "x", "list": [{"b": 1}], "map": {"k": "v"}}),
        &["unknown field \"spec.list[0].y\"", "unknown field \"spec.z\""],
    );
    check(
        schema(),
        json!({"open": {"x": {"y": [1]}, "c": {"d": "s", "e": 1}}}),
        json!({"open": {"x": {"y": [1]}, "c": {"d": "s"}}}),
        &["unknown field \"spec.open.c.e\""],
    );
}

#[test]
fn nulls_and_absent_values_are_defaulted() {
    let schema = || {
        object_of(json!({
            "a": {"type": "string", "default": "x"},
            "b": {"type": "string", "nullable": true, "default": "y"},
            "c": {"type": "string"},
            "deep": {"type": "object", "default": {}, "properties": {"n": {"type": "integer", "default": 3}}},
            "list": {"type": "array", "items": object_of(json!({"m": {"type": "boolean", "default": true}}))},
        }))
    };
    check(schema(), json!({}), json!({"a": "x", "b": "y", "deep": {"n": 3}}), &[]);
    check(
        schema(),
        json!({"a": null, "b": null, "c": null, "list": [{}, {"m": false}]}),
        json!({"a": "x", "b": null, "deep": {"n": 3}, "list": [{"m": true}, {"m": false}]}),
        &[],
    );
}

#[test]
fn values_are_held_against_the_schema() {
    let one = |schema: Value| object_of(json!({"x": schema}));
    wrong(
        one(json!({"type": "string"})),
        json!({"x": 1}),
        &["spec.x: Invalid value: \"integer\": spec.x in body must be of type string: \"integer\""],
    );
    wrong(
        one(json!({"type": "integer"})),
        json!({"x": 1.5}),
        &[
            "spec.x: Invalid value: \"number\": spec.x in body must be of type integer: \"number\"",
            "<nil>: Invalid value: \"\": Checked value must be of type integer (default format) in spec.x",
        ],
    );
    wrong(
        one(json!({"x-kubernetes-int-or-string": true})),
        json!({"x": true}),
        &["spec.x: Invalid value: \"boolean\": spec.x in body must be of type integer,string: \"boolean\""],
    );
    wrong(
        one(json!({"type": "integer", "minimum": 1, "maximum": 10})),
        json!({"x": 11}),
        &["spec.x: Invalid value: 11: spec.x in body should be less than or equal to 10"],
    );
    wrong(
        one(json!({"type": "number", "minimum": 1, "exclusiveMinimum": true})),
        json!({"x": 1}),
        &["spec.x: Invalid value: 1: spec.x in body should be greater than 1"],
    );
    wrong(
        one(json!({"type": "integer", "maximum": 2_147_483_647})),
        json!({"x": 2_147_483_648_i64}),
        &[
            "spec.x: Invalid value: 2147483648: spec.x in body should be less than or equal to 2.147483647e+09",
        ],
    );
    wrong(
        one(json!({"type": "integer", "multipleOf": 5})),
        json!({"x": 7}),
        &["spec.x: Invalid value: 7: spec.x in body should be a multiple of 5"],
    );
    wrong(
        one(json!({"type": "string", "pattern": "^a+$"})),
        json!({"x": "b"}),
        &["spec.x: Invalid value: \"b\": spec.x in body should match '^a+$'"],
    );
    wrong(
        one(json!({"type": "string", "minLength": 2})),
        json!({"x": "ä"}),
        &["spec.x: Invalid value: \"ä\": spec.x in body should be at least 2 chars long"],
    );
    wrong(
        one(json!({"type": "string", "maxLength": 1})),
        json!({"x": "ab"}),
        &["spec.x: Too long: may not be more than 1 byte"],
    );
    wrong(
        one(json!({"type": "string", "enum": ["a", "b"]})),
        json!({"x": "c"}),
        &["spec.x: Unsupported value: \"c\": supported values: \"a\", \"b\""],
    );
    wrong(
        one(json!({"type": "string", "format": "date-time"})),
        json!({"x": "soon"}),
        &["spec.x: Invalid value: \"soon\": spec.x in body must be of type date-time: \"soon\""],
    );
    wrong(
        one(json!({"type": "array", "maxItems": 1, "items": {"type": "integer"}})),
        json!({"x": [1, 2]}),
        &["spec.x: Too many: 2: must have at most 1 item"],
    );
    wrong(
        one(json!({"type": "array", "minItems": 1, "items": {"type": "integer"}})),
        json!({"x": []}),
        &["spec.x: Invalid value: 0: spec.x in body should have at least 1 items"],
    );
    wrong(
        json!({"type": "object", "required": ["x"], "properties": {"x": {"type": "string"}}}),
        json!({}),
        &["spec.x: Required value"],
    );
}

#[test]
fn schemas_are_combined() {
    let schema = |junctor: &str| {
        let mut schema = object_of(json!({"a": {"type": "integer"}, "b": {"type": "integer"}}));
        schema[junctor] = json!([{"required": ["a"]}, {"required": ["b"]}]);
        schema
    };
    wrong(schema("oneOf"), json!({"a": 1}), &[]);
    wrong(
        schema("oneOf"),
        json!({"a": 1, "b": 1}),
        &[
            "<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
        ],
    );
    wrong(
        schema("anyOf"),
        json!({}),
        &[
            "<nil>: Invalid value: \"\": \"spec\" must validate at least one schema (anyOf)",
            "spec.a: Required value",
        ],
    );
    wrong(
        schema("allOf"),
        json!({"b": 1}),
        &[
            "spec.a: Required value",
            "<nil>: Invalid value: \"\": \"spec\" must validate all the schemas (allOf)",
        ],
    );
    let mut not = object_of(json!({"a": {"type": "integer"}}));
    not["not"] = json!({"required": ["a"]});
    wrong(not, json!({"a": 1}), &["<nil>: Invalid value: \"\": \"spec\" must not validate the schema (not)"]);
}

/// An alternative is chosen by a field that an update leaves alone: it does not hold because the field did not change.
#[test]
fn alternatives_are_judged_as_if_the_object_were_new() {
    let mut schema = object_of(json!({"type": {"type": "string"}, "a": {"type": "integer"}}));
    let of = |name: &str| json!({"properties": {"type": {"enum": [name]}}, "required": ["type"]});
    for (junctor, alternatives) in [
        ("oneOf", json!([of("A"), of("B")])),
        ("anyOf", json!([{"properties": {"type": {"enum": ["B"]}, "a": {"maximum": 2}}}, of("A")])),
        ("allOf", json!([of("A")])),
    ] {
        schema.as_object_mut().expect("a schema").retain(|name, _| !name.ends_with("Of"));
        schema[junctor] = alternatives;
        let rows = row(of_spec(schema.clone()));
        let update = |r#type: &str| {
            let old = thing(json!({"type": r#type, "a": 1}));
            let new = thing(json!({"type": r#type, "a": 2}));
            told(&rows.stored.violations(&new, Some(&old)))
        };
        assert_eq!(update("A"), [""; 0], "{junctor}");
        assert_ne!(update("C"), [""; 0], "{junctor}: what is wrong under it is not ratcheted");
    }
}

#[test]
fn lists_hold_each_key_once() {
    let item = object_of(json!({"k": {"type": "string"}, "v": {"type": "string"}}));
    let mut item = item;
    item["required"] = json!(["k"]);
    let map = object_of(json!({"l": {
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": item}}));
    wrong(map, json!({"l": [{"k": "a"}, {"k": "a"}]}), &["spec.l[1]: Duplicate value: {\"k\":\"a\"}"]);
    let set = object_of(
        json!({"l": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "integer"}}}),
    );
    wrong(set, json!({"l": [1, 2, 1]}), &["spec.l[2]: Duplicate value: 1"]);
}

#[test]
fn embedded_resources_are_objects() {
    let schema = || {
        object_of(json!({"t": {
            "type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}))
    };
    check(
        schema(),
        json!({"t": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "nonsense": 1}, "spec": {}}}),
        json!({"t": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {}}}),
        &["unknown field \"spec.t.metadata.nonsense\""],
    );
    wrong(schema(), json!({"t": {"kind": "Pod"}}), &["spec.t.apiVersion: Required value"]);
}

#[test]
fn what_an_update_leaves_as_it_was_is_not_held_against_it() {
    let item = json!({"type": "object", "required": ["k"], "properties": {"k": {"type": "string"}, "v": {"type": "integer", "maximum": 1}}});
    let kind = row(of_spec(object_of(json!({
        "x": {"type": "integer", "maximum": 1},
        "y": {"type": "integer", "maximum": 1},
        "l": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": item},
    }))))
    .stored;
    let old = thing(json!({"x": 5, "y": 5, "l": [{"k": "a", "v": 5}]}));
    let new = thing(json!({"x": 5, "y": 6, "l": [{"k": "b", "v": 7}, {"k": "a", "v": 5}]}));
    assert_eq!(
        told(&kind.violations(&new, Some(&old))),
        [
            "spec.l[0].v: Invalid value: 7: spec.l[0].v in body should be less than or equal to 1",
            "spec.y: Invalid value: 6: spec.y in body should be less than or equal to 1",
        ]
    );
}

/// The violations of a definition with this schema at the root.
fn refused(schema: Value, words: &[&str]) {
    let versions =
        json!([{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]);
    let definition = complete(definition(versions));
    let prefix = "spec.validation.openAPIV3Schema";
    let said: Vec<String> = told(&crd().violations(&definition, None))
        .into_iter()
        .map(|one| one.strip_prefix(prefix).map(str::to_owned).unwrap_or(one))
        .collect();
    assert_eq!(said, words, "{schema}");
}

#[test]
fn schemas_must_be_structural() {
    refused(json!({}), &[".type: Required value: must not be empty at the root"]);
    refused(json!({"type": "string"}), &[".type: Invalid value: \"string\": must be object at the root"]);
    for (property, words) in [
        (json!({}), &[".type: Required value: must not be empty for specified object fields"][..]),
        (
            json!({"type": "float"}),
            &[
                ".type: Unsupported value: \"float\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
            ],
        ),
        (json!({"type": "array"}), &[".items: Required value: must be specified"]),
        (
            json!({"type": "array", "items": {}}),
            &[".items.type: Required value: must not be empty for specified array items"],
        ),
        (json!({"type": "object", "$ref": "#/x"}), &[".$ref: Forbidden: $ref is not supported"]),
        (
            json!({"type": "array", "uniqueItems": true, "items": {"type": "string"}}),
            &[
                ".uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            ],
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": {"type": "string"}}),
            &[".additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"],
        ),
        (
            json!({"type": "string", "anyOf": [{"type": "string"}]}),
            &[".anyOf[0].type: Forbidden: must be empty to be structural"],
        ),
        (
            json!({"type": "integer", "default": "x"}),
            &[".default: Invalid value: \"string\":  in body must be of type integer: \"string\""],
        ),
        (
            json!({"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object"}}),
            &[
                ".x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
            ],
        ),
        (
            json!({"type": "object", "x-kubernetes-embedded-resource": true}),
            &[
                ".properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
            ],
        ),
        (
            json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
            &[],
        ),
        (json!({"x-kubernetes-preserve-unknown-fields": true}), &[]),
    ] {
        let at = ".properties[a]";
        let words: Vec<String> = words.iter().map(|one| format!("{at}{one}")).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        refused(json!({"type": "object", "properties": {"a": property}}), &words);
    }
    refused(
        json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
        &[
            ".properties[metadata]: Forbidden: must not specify anything other than name and generateName, but metadata is implicitly specified",
        ],
    );
}

#[test]
fn versions_are_rows_of_one_resource() {
    let schema = |name: &str| json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": object_of(json!({name: {"type": "string", "default": name}}))}}});
    let rows = row(json!([
        {"name": "v1beta1", "served": true, "storage": false, "deprecated": true, "schema": schema("old"),
         "subresources": {"status": {}}},
        {"name": "v1", "served": true, "storage": true, "schema": schema("new"),
         "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.n", "statusReplicasPath": ".status.n"}}},
    ]));
    let names: Vec<&str> = rows.served.iter().map(|kind| kind.version).collect();
    assert_eq!((names, rows.stored.version), (vec!["v1beta1", "v1"], "v1"));
    let old = &rows.served[0];
    let custom = old.custom.as_ref().expect("of a definition");
    assert_eq!(
        custom.deprecation.as_deref(),
        Some("example.com/v1beta1 Thing is deprecated; use example.com/v1 Thing")
    );
    let subresources = |kind: &Kind| kind.subresources.iter().map(|one| one.name).collect::<Vec<_>>();
    assert_eq!((subresources(old), subresources(&rows.stored)), (vec!["status"], vec!["status", "scale"]));
    assert_eq!((rows.stored.short_names, rows.stored.categories), (&["th"][..], &["all"][..]));
    let kept = old.to_stored(json!({"apiVersion": "example.com/v1beta1", "spec": {"old": "x"}}));
    assert_eq!(kept, json!({"apiVersion": "example.com/v1", "spec": {"new": "new"}}));
    assert_eq!(old.read_stored(kept), json!({"apiVersion": "example.com/v1beta1", "spec": {"old": "old"}}));
    // What was written after the definition reads as it is kept, what was written before is completed.
    let at = |revision| {
        let key = Key::new(old.resource, "b", "a");
        Draft::read(key, Box::default(), body::encode(&thing(json!({})))).expect("an object").at(revision)
    };
    assert!(rows.stored.reads_as_stored(&at(8)) && !rows.stored.reads_as_stored(&at(6)));
    assert!(!old.reads_as_stored(&at(8)));
    assert_eq!(rows.stored.read_stored(thing(json!({})))["spec"], json!({"new": "new"}));
}

#[test]
fn columns_show_what_their_paths_find() {
    let mut versions = of_spec(object_of(json!({"n": {"type": "integer"}})));
    versions[0]["schema"]["openAPIV3Schema"]["x-kubernetes-preserve-unknown-fields"] = true.into();
    let shown = |kind: &Kind, object: &Value| -> Vec<(String, Value)> {
        kind.columns().iter().map(|column| (column.name.to_string(), column.cell(object, NOW))).collect()
    };
    let mut object = thing(json!({"n": 3, "list": ["a", "b"]}));
    object["metadata"]["creationTimestamp"] = "2025-12-31T23:58:30Z".into();
    object["status"] = json!({"conditions": [{"type": "Ready", "status": "True"}]});
    let plain = shown(&row(versions.clone()).stored, &object);
    assert_eq!(plain, [("Name".into(), json!("a")), ("Age".into(), json!("90s"))]);
    versions[0]["additionalPrinterColumns"] = json!([
        {"name": "N", "type": "integer", "jsonPath": ".spec.n"},
        {"name": "Text", "type": "string", "jsonPath": ".spec.n"},
        {"name": "List", "type": "string", "jsonPath": ".spec.list", "priority": 1},
        {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"},
        {"name": "Absent", "type": "string", "jsonPath": ".status.nothing"},
        {"name": "Since", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ]);
    let kind = row(versions).stored;
    let cells: Vec<Value> = shown(&kind, &object).into_iter().map(|(_, cell)| cell).collect();
    assert_eq!(
        cells,
        [json!("a"), json!(3), json!("3"), json!("[\"a\",\"b\"]"), json!("True"), json!(null), json!("90s")]
    );
    assert_eq!(
        kind.columns()[1].description,
        "Custom resource definition column (in JSONPath format): .spec.n"
    );
    assert_eq!(kind.columns()[3].priority, 1);
}

/// What a rule beside a `spec` of this schema says of `new`, where it was `old`.
fn ruled(mut schema: Value, rule: Value, old: Option<Value>, new: Value, words: &[&str]) {
    schema["x-kubernetes-validations"] = json!([rule]);
    let kind = row(of_spec(schema)).stored;
    let (new, old) = (thing(new), old.map(thing));
    assert_eq!(told(&kind.violations(&new, old.as_ref())), words, "{rule}");
}

#[test]
fn rules_are_asked() {
    let schema = || {
        object_of(json!({
            "min": {"type": "integer"}, "max": {"type": "integer"}, "name": {"type": "string", "maxLength": 10},
            "list": {"type": "array", "maxItems": 5, "items": {"type": "string", "maxLength": 5}},
            "any": {"x-kubernetes-int-or-string": true},
        }))
    };
    let failed = "spec: Invalid value: failed rule: self.min <= self.max";
    ruled(schema(), json!({"rule": "self.min <= self.max"}), None, json!({"min": 1, "max": 2}), &[]);
    ruled(schema(), json!({"rule": "self.min <= self.max"}), None, json!({"min": 3, "max": 2}), &[failed]);
    ruled(
        schema(),
        json!({"rule": "self.min <= self.max", "messageExpression": "'larger than ' + (self.max == 2 ? 'two' : 'most')", "fieldPath": ".min", "reason": "FieldValueForbidden"}),
        None,
        json!({"min": 3, "max": 2}),
        &["spec.min: Forbidden: larger than two"],
    );
    ruled(
        schema(),
        json!({"rule": "self.min <= self.max"}),
        None,
        json!({"min": 3}),
        &["spec: Invalid value: \"object\": no such key: max evaluating rule: self.min <= self.max"],
    );
    // A rule about a change is not asked without one; what did not change is not asked about.
    let fixed = || json!({"rule": "self.name == oldSelf.name", "message": "name is immutable"});
    ruled(schema(), fixed(), None, json!({"name": "a"}), &[]);
    ruled(
        schema(),
        fixed(),
        Some(json!({"name": "a"})),
        json!({"name": "b"}),
        &["spec: Invalid value: name is immutable"],
    );
    let optional = json!({"rule": "oldSelf.hasValue() || self.name == 'new'", "optionalOldSelf": true});
    ruled(
        schema(),
        optional,
        None,
        json!({"name": "x"}),
        &["spec: Invalid value: failed rule: oldSelf.hasValue() || self.name == 'new'"],
    );
    ruled(
        schema(),
        json!({"rule": "self.list.all(x, x.startsWith('a'))"}),
        None,
        json!({"list": ["ab", "b"]}),
        &["spec: Invalid value: failed rule: self.list.all(x, x.startsWith('a'))"],
    );
    ruled(
        schema(),
        json!({"rule": "has(self.any) ? self.any == '1%' : true"}),
        None,
        json!({"any": "1%"}),
        &[],
    );
    ruled(
        schema(),
        json!({"rule": "self.min <= self.max"}),
        None,
        json!({"min": "x", "max": 1}),
        &[
            "spec.min: Invalid value: \"string\": spec.min in body must be of type integer: \"string\"",
            "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; correct the existing errors to complete validation",
        ],
    );
}

/// What is said of an update that leaves a value as it was: a rule about the value alone only warns, one that compares is asked.
#[test]
fn what_rules_say_of_what_stays() {
    let schema = object_of(json!({"n": {"type": "integer", "x-kubernetes-validations": [
        {"rule": "self < 5", "message": "too large"}, {"rule": "self > oldSelf", "message": "it must grow"}]}}));
    let kind = row(of_spec(schema)).stored;
    for (old, new, violations, warnings) in [
        (6, 6, &["spec.n: Invalid value: 6: it must grow"][..], &["spec.n: Invalid value: 6: too large"][..]),
        (6, 7, &["spec.n: Invalid value: 7: too large"], &[]),
        (3, 4, &[], &[]),
    ] {
        let (old, new) = (thing(json!({"n": old})), thing(json!({"n": new})));
        let found = kind.violations(&new, Some(&old));
        assert_eq!(told(&found), violations, "{new}");
        assert_eq!(kind.ratcheted(&new, &old, &found), warnings, "{new}");
    }
}

#[test]
fn finalizers_without_a_path_are_told() {
    let kind = row(of_spec(object_of(json!({})))).stored;
    let mut object = thing(json!({}));
    object["metadata"]["finalizers"] = json!(["mine", "example.com/mine", "orphan", "mine.example.com"]);
    let words = "to avoid accidental conflicts with other finalizer writers";
    assert_eq!(
        kind.warnings(&object, None),
        [
            format!("metadata.finalizers: \"mine\": prefer a domain-qualified finalizer name {words}"),
            format!(
                "metadata.finalizers: \"mine.example.com\": prefer a domain-qualified finalizer name including a path (/) {words}"
            ),
        ]
    );
    assert_eq!(kind.warnings(&object, Some(&object)), [""; 0]);
}

#[test]
fn rules_must_compile_and_be_cheap() {
    let with = |inner: Value, rule: Value| {
        let mut schema = json!({"type": "object", "properties": {"a": inner}});
        schema["properties"]["a"]["x-kubernetes-validations"] = json!([rule]);
        schema
    };
    let at = ".properties[a].x-kubernetes-validations[0]";
    let text = json!({"type": "string", "maxLength": 10});
    refused(
        with(text.clone(), json!({"rule": ""})),
        &[&format!("{at}.rule: Required value: rule is not specified")],
    );
    refused(
        with(text.clone(), json!({"rule": "self == 'a'", "reason": "Because"})),
        &[&format!(
            "{at}.reason: Unsupported value: \"Because\": supported values: \"FieldValueDuplicate\", \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\""
        )],
    );
    refused(
        with(text.clone(), json!({"rule": "self.size()"})),
        &[&format!(
            "{at}.rule: Invalid value: {{\"rule\":\"self.size()\"}}: cel expression must evaluate to a bool"
        )],
    );
    refused(
        with(text, json!({"rule": "self == 'a'", "optionalOldSelf": true})),
        &[&format!(
            "{at}.optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule"
        )],
    );
    let open = json!({"type": "array", "items": {"type": "string"}});
    refused(
        with(open, json!({"rule": "self.all(x, self.all(y, x == y))"})),
        &[
            &format!(
                "{at}.rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
            ),
            &format!(
                "{at}.rule: Forbidden: contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"
            ),
            ": Forbidden: x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)",
        ],
    );
    let list = json!({"type": "object", "properties": {"a": {"type": "array", "maxItems": 3, "items": {
        "type": "string", "maxLength": 5, "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}}}});
    refused(
        list,
        &[
            ".properties[a].items.x-kubernetes-validations[0].rule: Invalid value: \"self == oldSelf\": oldSelf cannot be used on the uncorrelatable portion of the schema within spec.validation.openAPIV3Schema.properties[a]",
        ],
    );
}
