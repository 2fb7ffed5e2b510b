//! OpenAPI v3 documents from the table of types, one per group and version: what kubectl reads to validate, to merge and to explain.
//!
//! <https://kubernetes.io/docs/concepts/overview/kubernetes-api/#openapi-v3>

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::custom::publish;
use crate::types::{Expr, Field, ListType, MapType, Type, Types};
use crate::{Kind, Subresource, Words};

const REF: &str = "#/components/schemas/";
const JSON_PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// The document of the kinds of one group and version. `version` is the cluster's own: `v1.36.2`.
pub fn v3<'a>(
    types: &Types,
    words: &Words,
    kinds: impl IntoIterator<Item = &'a Kind>,
    version: &str,
) -> Value {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    let mut wanted: BTreeSet<usize> = BTreeSet::new();
    for kind in kinds {
        kind_paths(kind, &mut paths);
        if let Some(Expr::Struct(index)) = types.expr_of(kind.type_name) {
            wanted.insert(index);
        }
        if kind.is_stored() {
            schemas.insert(format!("{}List", schema_name(kind.type_name)), list_schema(words, kind));
        }
        let own = kind.type_name;
        if let Some(custom) = &kind.custom {
            let metadata = "meta.v1.ObjectMeta";
            schemas.insert(own.to_owned(), publish::schema(kind, custom, reference(metadata)));
            wanted.extend(types.expr_of(metadata).and_then(|expr| expr.innermost()));
        } else if let Some(owner) = types.get(own) {
            let mut schema = struct_schema(types, words, owner);
            schema["x-kubernetes-group-version-kind"] = json!([gvk(kind.group, kind.version, kind.kind)]);
            schemas.insert(schema_name(own), schema);
        }
    }
    if let Some(Expr::Struct(index)) = types.expr_of("meta.v1.ListMeta") {
        wanted.insert(index);
    }
    let mut queue: Vec<usize> = wanted.iter().copied().collect();
    while let Some(index) = queue.pop() {
        let owner = types.at(index);
        let name = schema_name(owner.name);
        if !schemas.contains_key(&name) {
            schemas.insert(name, struct_schema(types, words, owner));
        }
        for next in owner.fields.iter().filter_map(|field| field.expr.innermost()) {
            if wanted.insert(next) {
                queue.push(next);
            }
        }
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

/// `io.k8s.api.apps.v1.Deployment` of `apps.v1.Deployment`.
pub fn schema_name(type_name: &str) -> String {
    // Types of definitions are named by their group backwards: three parts at least before their own.
    if type_name.matches('.').count() > 2 {
        return type_name.to_owned();
    }
    let prefix = match type_name.split('.').next() {
        Some("meta") => "io.k8s.apimachinery.pkg.apis.",
        Some("apiextensions") => "io.k8s.apiextensions-apiserver.pkg.apis.",
        Some("apiregistration") => "io.k8s.kube-aggregator.pkg.apis.",
        _ => "io.k8s.api.",
    };
    format!("{prefix}{type_name}")
}

fn gvk(group: &str, version: &str, kind: &str) -> Value {
    json!({"group": group, "version": version, "kind": kind})
}

fn reference(type_name: &str) -> Value {
    json!({"$ref": format!("{REF}{}", schema_name(type_name))})
}

fn list_schema(words: &Words, kind: &Kind) -> Value {
    let said = |field: &str| words.of_field("", field);
    json!({
        "description": format!("A list of objects of the kind {}.", kind.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"description": said("apiVersion"), "type": "string"},
            "items": {"description": said("items"), "type": "array", "items": reference(kind.type_name)},
            "kind": {"description": said("kind"), "type": "string"},
            "metadata": {"description": words.of_type("meta.v1.ListMeta"), "allOf": [reference("meta.v1.ListMeta")]},
        },
        "x-kubernetes-group-version-kind": [gvk(kind.group, kind.version, &kind.list_kind())],
    })
}

fn struct_schema(types: &Types, words: &Words, owner: &Type) -> Value {
    let property = |field: &Field| {
        let said = words.of_field(owner.name, field.name);
        (field.name.to_owned(), field_schema(types, said, field))
    };
    let properties: Map<String, Value> = owner.fields.iter().map(property).collect();
    let required: Vec<&str> =
        owner.fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    let mut schema = json!({"type": "object", "properties": properties});
    let said = words.of_type(owner.name);
    if !said.is_empty() {
        schema["description"] = said.into();
    }
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn field_schema(types: &Types, said: &str, field: &Field) -> Value {
    let mut extensions = Map::new();
    if !said.is_empty() {
        extensions.insert("description".into(), said.into());
    }
    let strategies = [
        (field.patch.merge, "merge"),
        (field.patch.replace, "replace"),
        (field.patch.retain_keys, "retainKeys"),
    ];
    let strategies: Vec<&str> =
        strategies.into_iter().filter(|(is_set, _)| *is_set).map(|(_, name)| name).collect();
    if !strategies.is_empty() {
        extensions.insert("x-kubernetes-patch-strategy".into(), strategies.join(",").into());
    }
    if let Some(key) = field.merge_key {
        extensions.insert("x-kubernetes-patch-merge-key".into(), key.into());
    }
    let list = match &field.list {
        ListType::Unset => None,
        ListType::Atomic => Some("atomic"),
        ListType::Set => Some("set"),
        ListType::Map(keys) => {
            extensions.insert("x-kubernetes-list-map-keys".into(), json!(keys));
            Some("map")
        }
    };
    if let Some(list) = list {
        extensions.insert("x-kubernetes-list-type".into(), list.into());
    }
    let map = match field.map {
        MapType::Unset => None,
        MapType::Atomic => Some("atomic"),
        MapType::Granular => Some("granular"),
    };
    if let Some(map) = map {
        extensions.insert("x-kubernetes-map-type".into(), map.into());
    }
    if let Some(default) = &field.default {
        extensions.insert("default".into(), default.clone());
    }
    let mut schema = expr_schema(types, &field.expr);
    if schema.get("$ref").is_some() && !extensions.is_empty() {
        // Beside a reference nothing else may stand.
        schema = json!({"allOf": [schema]});
    }
    if let Value::Object(members) = &mut schema {
        members.extend(extensions);
    }
    schema
}

fn expr_schema(types: &Types, expr: &Expr) -> Value {
    match expr {
        Expr::Any => json!({}),
        Expr::Boolean => json!({"type": "boolean"}),
        Expr::Bytes => json!({"type": "string", "format": "byte"}),
        Expr::Double => json!({"type": "number", "format": "double"}),
        Expr::Int32 => json!({"type": "integer", "format": "int32"}),
        Expr::Int64 => json!({"type": "integer", "format": "int64"}),
        Expr::IntOrString => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        Expr::List(item) => json!({"type": "array", "items": expr_schema(types, item)}),
        Expr::Map(item) => json!({"type": "object", "additionalProperties": expr_schema(types, item)}),
        Expr::MicroTime | Expr::Time => json!({"type": "string", "format": "date-time"}),
        Expr::Object => json!({"type": "object"}),
        Expr::Quantity => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        Expr::ResourceList => {
            json!({"type": "object", "additionalProperties": expr_schema(types, &Expr::Quantity)})
        }
        Expr::String => json!({"type": "string"}),
        Expr::Struct(index) => reference(types.at(*index).name),
    }
}

/// The paths that serve a kind, each with its methods.
fn kind_paths(kind: &Kind, paths: &mut Map<String, Value>) {
    let group = if kind.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", kind.group) };
    let plural = kind.resource.plural();
    let root = format!("{group}/{}", kind.version);
    let space = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{root}{space}/{plural}");
    let item = format!("{collection}/{{name}}");
    if kind.namespaced && kind.verbs.contains(&"list") {
        add(paths, format!("{root}/{plural}"), kind, None, &["list"]);
    }
    add(paths, collection, kind, None, &["create", "deletecollection", "list"]);
    add(paths, item.clone(), kind, None, &["delete", "get", "patch", "update"]);
    for sub in kind.subresources {
        add(paths, format!("{item}/{}", sub.name), kind, Some(sub), sub.verbs);
    }
}

fn add(
    paths: &mut Map<String, Value>,
    path: String,
    kind: &Kind,
    sub: Option<&Subresource>,
    verbs: &[&'static str],
) {
    let served = sub.map_or(kind.verbs, |sub| sub.verbs);
    let methods: Map<String, Value> = verbs
        .iter()
        .filter(|verb| served.contains(verb))
        .map(|verb| (method(verb).to_owned(), operation(kind, sub, verb)))
        .collect();
    if methods.is_empty() {
        return;
    }
    let mut methods = methods;
    let mut parameters = Vec::new();
    for name in ["namespace", "name"] {
        if path.contains(&format!("{{{name}}}")) {
            parameters
                .push(json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
        }
    }
    methods.insert("parameters".into(), parameters.into());
    paths.insert(path, methods.into());
}

fn method(verb: &str) -> &'static str {
    match verb {
        "create" => "post",
        "delete" | "deletecollection" => "delete",
        "patch" => "patch",
        "update" => "put",
        _ => "get",
    }
}

fn operation(kind: &Kind, sub: Option<&Subresource>, verb: &str) -> Value {
    let (group, version, name) = sub.and_then(|sub| sub.gvk).unwrap_or((kind.group, kind.version, kind.kind));
    let action = match verb {
        "create" => "post",
        "update" => "put",
        other => other,
    };
    let body = reference(kind.type_name);
    let parameters: &[&str] = match verb {
        "create" | "update" => &["dryRun", "fieldManager", "fieldValidation"],
        "patch" => &["dryRun", "fieldManager", "fieldValidation", "force"],
        "delete" | "deletecollection" => {
            &["dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"]
        }
        _ => &["continue", "fieldSelector", "labelSelector", "limit", "resourceVersion", "watch"],
    };
    let parameters: Vec<Value> = parameters.iter().map(|name| query(name)).collect();
    let mut operation = json!({
        "operationId": format!("{verb}{}{}", kind.kind, sub.map_or("", |sub| sub.name)),
        "parameters": parameters,
        "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": body}}}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": gvk(group, version, name),
    });
    let content: Option<Map<String, Value>> = match verb {
        "create" | "update" => {
            Some([("application/json".to_owned(), json!({"schema": body}))].into_iter().collect())
        }
        "patch" => {
            let patches =
                JSON_PATCHES.iter().map(|kind| ((*kind).to_owned(), json!({"schema": {"type": "object"}})));
            Some(patches.collect())
        }
        _ => None,
    };
    if let Some(content) = content {
        operation["requestBody"] = json!({"content": content, "required": true});
    }
    operation
}

fn query(name: &str) -> Value {
    let kind = match name {
        "force" | "orphanDependents" | "watch" => "boolean",
        "gracePeriodSeconds" | "limit" => "integer",
        _ => "string",
    };
    json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}})
}
