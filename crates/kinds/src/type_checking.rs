//! What the expressions of a ValidatingAdmissionPolicy say that no object of the types that it is about has.
//!
//! Types are only looked for where the policy names groups, versions and resources without wildcards, and the warnings are no refusal: a
//! policy may be there before what it is about.
//! <https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/#type-checking>

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cel::{Env, Field, ObjectType, Sizes, Type, escape};
use object::Snapshot;
use schema::{Expr, path};
use serde_json::{Value, json};

use crate::definition_types::declared;
use crate::expressions::{self, Given};
use crate::{CUSTOM_RESOURCE_DEFINITIONS, types};

/// Of so many types, as upstream.
const MOST_TYPES: usize = 10;

/// A type by its group, version and kind, as messages name it: `apps/v1, Kind=Deployment`.
type Named = (String, Type);

/// `status.typeChecking.expressionWarnings`
pub fn warnings(snapshot: &Snapshot, policy: &Value) -> Vec<Value> {
    let spec = &policy["spec"];
    let objects = objects(snapshot, spec);
    if objects.is_empty() {
        return Vec::new();
    }
    let params = path::get(spec, "paramKind").filter(|kind| !kind.is_null());
    let params = params.map(|kind| {
        let (group, version) = group_version(path::text(kind, "apiVersion"));
        let named = kind_of(snapshot, group, version, &|_, name| name == path::text(kind, "kind"));
        named.map_or(Type::Dyn, |(_, found)| found)
    });
    let envs: Vec<(String, Env)> =
        objects.into_iter().map(|(name, object)| (name, env(spec, object, params.as_ref()))).collect();
    let mut found = Vec::new();
    for (index, validation) in path::list(spec, "validations").iter().enumerate() {
        for member in ["expression", "messageExpression"] {
            let told = check(&envs, path::text(validation, member));
            if !told.is_empty() {
                found.push(
                    json!({"fieldRef": format!("spec.validations[{index}].{member}"), "warning": told}),
                );
            }
        }
    }
    found
}

/// What is wrong with an expression for each of the types that it does not fit.
fn check(envs: &[(String, Env)], text: &str) -> String {
    if text.trim().is_empty() {
        return String::new();
    }
    let wrong = envs.iter().filter_map(|(name, env)| {
        let issues = env.compile(text).err()?;
        Some(format!("{name}: {}", cel::render(&issues, text)))
    });
    wrong.collect::<Vec<_>>().join("\n")
}

/// What an expression sees, with what a type says of the request's objects.
fn env(spec: &Value, object: Type, params: Option<&Type>) -> Env {
    let mut env = expressions::env(&Given { params: params.is_some(), authorizer: true })
        .variable("object", object.clone(), Sizes::default())
        .variable("oldObject", object, Sizes::default());
    if let Some(params) = params {
        env = env.variable("params", params.clone(), Sizes::default());
    }
    for variable in path::list(spec, "variables") {
        let compiled = env.compile(path::text(variable, "expression"));
        let found = compiled.map_or(Type::Dyn, |program| program.result().clone());
        expressions::declare(&mut env, path::text(variable, "name"), found);
    }
    env
}

/// The types of what the policy's rules name, sorted by their names.
fn objects(snapshot: &Snapshot, spec: &Value) -> Vec<Named> {
    let mut wanted = BTreeSet::new();
    for rule in path::list(spec, "matchConstraints.resourceRules") {
        let plain = |field: &str, wild: &[char]| -> Vec<String> {
            let all = path::list(rule, field).iter().filter_map(Value::as_str);
            all.filter(|text| !text.contains(wild)).map(str::to_owned).collect()
        };
        for group in plain("apiGroups", &['*']) {
            for version in plain("apiVersions", &['*']) {
                for resource in plain("resources", &['*', '/']) {
                    wanted.insert((group.clone(), version.clone(), resource));
                }
            }
        }
    }
    let mut found = BTreeMap::new();
    for (group, version, resource) in wanted {
        if found.len() == MOST_TYPES {
            break;
        }
        found.extend(kind_of(snapshot, &group, &version, &|plural, _| plural == resource));
    }
    found.into_iter().collect()
}

fn group_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// The type of the first resource of a group and version that is wanted by its plural and kind.
fn kind_of(
    snapshot: &Snapshot,
    group: &str,
    version: &str,
    is_wanted: &dyn Fn(&str, &str) -> bool,
) -> Option<Named> {
    let name = |kind: &str| format!("{group}/{version}, Kind={kind}");
    let mut built_in = crate::all().iter().filter(|kind| kind.group == group && kind.version == version);
    if let Some(kind) = built_in.find(|kind| is_wanted(kind.resource.plural(), kind.kind)) {
        return Some((name(kind.kind), struct_type(types().index(kind.type_name)?, &mut Vec::new())));
    }
    let of_group =
        |object: &&Arc<object::Object>| object.key.name.split_once('.').is_some_and(|(_, own)| own == group);
    snapshot.list(CUSTOM_RESOURCE_DEFINITIONS, "").filter(of_group).find_map(|definition| {
        let definition = definition.to_value().ok()?;
        let (plural, kind) =
            (path::text(&definition, "spec.names.plural"), path::text(&definition, "spec.names.kind"));
        if !is_wanted(plural, kind) {
            return None;
        }
        let mut versions = path::list(&definition, "spec.versions").iter();
        let own = versions.find(|one| path::text(one, "name") == version && path::bool(one, "served"))?;
        Some((name(kind), custom_type(path::get(own, "schema.openAPIV3Schema")?)))
    })
}

/// A definition's schema, with all of its metadata.
fn custom_type(schema: &Value) -> Type {
    let Some(Type::Object(object)) = declared(schema, true, "").map(|declared| declared.r#type) else {
        return Type::Dyn;
    };
    let mut object = (*object).clone();
    let metadata = types().index("meta.v1.ObjectMeta").map(|index| struct_type(index, &mut Vec::new()));
    object.fields.extend(metadata.map(|found| ("metadata".to_owned(), field("metadata", found))));
    object.open = path::bool(schema, "x-kubernetes-preserve-unknown-fields");
    Type::Object(Arc::new(object))
}

fn field(name: &str, r#type: Type) -> Field {
    Field { name: name.to_owned(), r#type, sizes: Sizes::default() }
}

/// A type of the table; `within` are those that it is a part of: one that has itself as a part is anything there.
fn struct_type(index: usize, within: &mut Vec<usize>) -> Type {
    let Some(found) = types().all().get(index).filter(|_| !within.contains(&index)) else { return Type::Dyn };
    within.push(index);
    let fields = found.fields.iter().map(|one| {
        let own = field(one.name, expr_type(&one.expr, within));
        (escape(one.name), own)
    });
    let object = ObjectType { name: found.name.to_owned(), fields: fields.collect(), open: false };
    within.pop();
    Type::Object(Arc::new(object))
}

fn expr_type(expr: &Expr, within: &mut Vec<usize>) -> Type {
    match expr {
        Expr::Boolean => Type::Bool,
        Expr::Bytes => Type::Bytes,
        Expr::Double => Type::Double,
        Expr::Int32 | Expr::Int64 => Type::Int,
        Expr::List(element) => Type::list(expr_type(element, within)),
        Expr::Map(value) => Type::map(Type::String, expr_type(value, within)),
        Expr::MicroTime | Expr::Time => Type::Timestamp,
        Expr::ResourceList => Type::map(Type::String, Type::Dyn),
        Expr::String => Type::String,
        Expr::Struct(index) => struct_type(*index, within),
        Expr::Any | Expr::IntOrString | Expr::Object | Expr::Quantity => Type::Dyn,
    }
}

#[cfg(test)]
mod tests {
    use object::{Draft, Key, body};

    use super::*;

    fn snapshot() -> Snapshot {
        let definition = json!({
            "metadata": {"name": "things.example.com"},
            "spec": {"group": "example.com", "names": {"plural": "things", "kind": "Thing"}, "versions": [
                {"name": "v1", "served": true, "schema": {"openAPIV3Schema": {"type": "object", "properties":
                    {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}}}},
            ]},
        });
        let key = Key::cluster(CUSTOM_RESOURCE_DEFINITIONS, "things.example.com");
        let mut snapshot = Snapshot::default();
        snapshot.put(Draft::read(key, [].into(), body::encode(&definition)).expect("a draft").at(1));
        snapshot
    }

    /// The warnings about the one expression of a policy for these groups and resources of version 1.
    fn check(groups: &[&str], resources: &[&str], expression: &str, expected: &[&str]) {
        let policy = json!({"spec": {
            "matchConstraints": {"resourceRules": [{"apiGroups": groups, "apiVersions": ["v1"], "resources": resources}]},
            "variables": [{"name": "first", "expression": "object.metadata.name"}],
            "validations": [{"expression": expression}],
        }});
        let found = warnings(&snapshot(), &policy);
        let told: Vec<&str> = found.iter().flat_map(|one| path::text(one, "warning").lines()).collect();
        assert_eq!(told, expected, "{expression}");
        for one in &found {
            assert_eq!(one["fieldRef"], "spec.validations[0].expression");
        }
    }

    #[test]
    fn expressions_are_held_against_the_types_that_rules_name() {
        let deployments = (&["apps"][..], &["deployments"][..]);
        check(deployments.0, deployments.1, "object.spec.replicas < 5", &[]);
        check(deployments.0, deployments.1, "object.metadata.labels['a'] == variables.first", &[]);
        check(
            deployments.0,
            deployments.1,
            "object.spec.template.spec.containers.all(c, has(c.resources.limits))",
            &[],
        );
        check(
            deployments.0,
            deployments.1,
            "object.spec.foo < 5",
            &[
                "apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'foo'",
                " | object.spec.foo < 5",
                " | ...........^",
            ],
        );
        check(
            &["apps"],
            &["deployments", "replicasets"],
            "object.spec.strategy.type == ''",
            &[
                "apps/v1, Kind=ReplicaSet: ERROR: <input>:1:12: undefined field 'strategy'",
                " | object.spec.strategy.type == ''",
                " | ...........^",
            ],
        );
        check(&["apps", "*"], &["*", "deployments/scale"], "object.spec.foo < 5", &[]);
        check(&["example.com"], &["things"], "object.spec.size < 5 && object.metadata.generation > 0", &[]);
        check(
            &["example.com"],
            &["things"],
            "object.spec.weight < 5",
            &[
                "example.com/v1, Kind=Thing: ERROR: <input>:1:12: undefined field 'weight'",
                " | object.spec.weight < 5",
                " | ...........^",
            ],
        );
        check(&["absent.example.com"], &["things"], "object.spec.weight < 5", &[]);
    }
}
