//! Rows of custom resources, made of what a CustomResourceDefinition says.
//!
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/>

use std::borrow::Cow;
use std::sync::Arc;

use object::{Object, Resource, Revision, intern, intern_list};
use schema::custom::publish::type_name;
use schema::custom::{Compile, ConversionWebhook, Custom, JsonPath, Node, PathCell, Scale};
use schema::{Cell, Column, Kind, Strategy, Subresource, WHOLE, path};
use serde::Deserialize;
use serde_json::Value;

use crate::column::{CUSTOM_AGE, NAME};
use crate::{row, strategy, subresource};

/// A definition's rows.
#[derive(Clone, Debug)]
pub struct Rows {
    /// The version that objects are kept in, be it served or not.
    pub stored: Arc<Kind>,
    pub served: Vec<Arc<Kind>>,
}

/// What decides whether a definition's rows must be made anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    uid: Box<str>,
    generation: i64,
    is_served: bool,
    /// As they were accepted, which comes after the change that asks for them.
    names: Names,
}

impl Identity {
    /// Of a stored definition; None: it cannot be read.
    pub fn of(definition: &Object) -> Option<Self> {
        let view: StatusView = definition.decode().ok()?;
        let is =
            |kind: &str| view.status.conditions.iter().any(|one| one.r#type == kind && one.status == "True");
        Some(Self {
            uid: definition.meta.uid.clone(),
            generation: definition.meta.generation,
            is_served: is("Established"),
            names: view.status.accepted_names,
        })
    }

    /// Whether the definition's resource is served: its names were accepted once.
    pub fn is_served(&self) -> bool {
        self.is_served
    }
}

#[derive(Deserialize)]
struct StatusView {
    #[serde(default)]
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    accepted_names: Names,
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
struct Condition {
    r#type: String,
    status: String,
}

#[derive(Deserialize)]
struct View {
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Spec {
    group: String,
    scope: String,
    names: Names,
    versions: Vec<Version>,
    #[serde(default)]
    conversion: Value,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Names {
    plural: String,
    singular: String,
    kind: String,
    list_kind: String,
    short_names: Vec<String>,
    categories: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    name: String,
    #[serde(default)]
    served: bool,
    #[serde(default)]
    storage: bool,
    #[serde(default)]
    deprecated: bool,
    deprecation_warning: Option<String>,
    #[serde(default)]
    schema: Schema,
    #[serde(default)]
    subresources: Value,
    #[serde(default)]
    additional_printer_columns: Vec<ColumnView>,
    #[serde(default)]
    selectable_fields: Vec<SelectableField>,
}

#[derive(Default, Deserialize)]
struct Schema {
    #[serde(default, rename = "openAPIV3Schema")]
    schema: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ColumnView {
    name: String,
    r#type: String,
    #[serde(default)]
    format: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    priority: i32,
    json_path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SelectableField {
    json_path: String,
}

const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// With a status of its own; without one every change of anything but metadata counts.
const WITH_STATUS: Strategy = Strategy {
    generation: WHOLE,
    main_keeps: &["status"],
    status_keeps_metadata: true,
    unconditional_update: false,
    ..strategy::PLAIN
};
const WITHOUT_STATUS: Strategy = Strategy { main_keeps: &[], ..WITH_STATUS };

pub use crate::definition_rules::compile;

/// The rows of a definition. `compile`: [`compile`], or what calls it and takes the time.
///
/// # Errors
/// Why it is none: a stored definition was checked when it was written, so this is about ones that came another way (etcd).
pub fn rows(definition: &Object, compile: Compile<'_>) -> Result<Rows, String> {
    let View { spec, status } = definition.decode().map_err(|error| error.to_string())?;
    let stored = spec.versions.iter().find(|one| one.storage).ok_or("it has no storage version")?;
    let kept = (api_version(&spec, stored), Arc::new(tree(&stored.schema.schema, compile)));
    // Names that clash with others' are not accepted; until then there are none.
    let accepted = Some(status.accepted_names).filter(|names| !names.kind.is_empty());
    let names = accepted.unwrap_or_else(|| spec.names.clone());
    let webhook = webhook(&spec.conversion);
    let make = |version: &Version| {
        let custom = Custom {
            webhook: webhook.clone(),
            ..custom(&spec, version, &kept, definition.revision, compile)?
        };
        Ok::<_, String>(Arc::new(row(definition, &spec, &names, version, custom)))
    };
    let stored = make(stored)?;
    let served = spec.versions.iter().filter(|version| version.served).map(|version| match version.storage {
        true => Ok(stored.clone()),
        false => make(version),
    });
    Ok(Rows { served: served.collect::<Result<_, _>>()?, stored })
}

/// What keeps a definition's schemas from being structural, in upstream's words; nothing for one that came in by the API.
pub fn structural_violations(definition: &Object) -> Vec<String> {
    let Ok(value) = definition.to_value() else { return Vec::new() };
    let found = crate::definition_validation::schemas(&value);
    found.iter().map(|one| format!("{}: {}", one.field, one.body())).collect()
}

fn api_version(spec: &Spec, version: &Version) -> Box<str> {
    format!("{}/{}", spec.group, version.name).into()
}

/// The schema as a tree, with its rules compiled.
fn tree(schema: &Value, compile: Compile<'_>) -> Node {
    Node::ruled(schema, true, compile)
}

fn custom(
    spec: &Spec,
    version: &Version,
    kept: &(Box<str>, Arc<Node>),
    since: Revision,
    compile: Compile<'_>,
) -> Result<Custom, String> {
    let schema =
        if version.storage { kept.1.clone() } else { Arc::new(tree(&version.schema.schema, compile)) };
    Ok(Custom {
        schema,
        source: Arc::new(version.schema.schema.clone()),
        columns: columns(&version.additional_printer_columns),
        scale: scale(&version.subresources["scale"]),
        deprecation: version.deprecated.then(|| deprecation(spec, version)),
        stored: kept.clone(),
        webhook: None,
        since,
    })
}

fn webhook(conversion: &Value) -> Option<Arc<ConversionWebhook>> {
    let versions = path::list(conversion, "webhook.conversionReviewVersions").iter();
    (path::text(conversion, "strategy") == "Webhook").then(|| {
        Arc::new(ConversionWebhook {
            client_config: path::get(conversion, "webhook.clientConfig").cloned().unwrap_or_default(),
            review_versions: versions.filter_map(|version| Some(version.as_str()?.into())).collect(),
        })
    })
}

fn row(definition: &Object, spec: &Spec, names: &Names, version: &Version, custom: Custom) -> Kind {
    // A definition is named as its resource: <plural>.<group>.
    let resource = Resource::intern(&definition.key.name);
    let kind = intern(&names.kind);
    let list = |names: &[String]| {
        let names: Vec<&'static str> = names.iter().map(|name| intern(name)).collect();
        intern_list(&names)
    };
    let selectable: Vec<&'static str> = version
        .selectable_fields
        .iter()
        .map(|field| intern(field.json_path.trim_start_matches('.')))
        .collect();
    let has_status = !version.subresources["status"].is_null();
    Kind {
        resource,
        group: intern(&spec.group),
        version: intern(&version.name),
        kind,
        singular: intern(&names.singular),
        short_names: list(&names.short_names),
        categories: list(&names.categories),
        namespaced: spec.scope == "Namespaced",
        verbs: VERBS,
        subresources: subresources(has_status, custom.scale.is_some()),
        type_name: intern(&type_name(resource, &version.name, kind)),
        selectable: intern_list(&selectable),
        strategy: if has_status { WITH_STATUS } else { WITHOUT_STATUS },
        custom: Some(Arc::new(custom)),
        ..row::BASE
    }
}

fn subresources(status: bool, scale: bool) -> &'static [Subresource] {
    match (status, scale) {
        (false, false) => &[],
        (false, true) => &[subresource::SCALE],
        (true, false) => &[subresource::STATUS],
        // In upstream's order.
        (true, true) => &[subresource::STATUS, subresource::SCALE],
    }
}

/// Name and the definition's own; without any, or if one of them cannot be read, also the age.
fn columns(views: &[ColumnView]) -> Vec<Column> {
    let own = if views.is_empty() { Vec::new() } else { own_columns(views).unwrap_or_default() };
    match own.is_empty() {
        true => vec![NAME, CUSTOM_AGE],
        false => std::iter::once(NAME).chain(own).collect(),
    }
}

fn own_columns(views: &[ColumnView]) -> Result<Vec<Column>, String> {
    let mut columns = Vec::new();
    for view in views {
        let path = JsonPath::parse(&view.json_path)
            .map_err(|why| format!("column {}: {}: {why}", view.name, view.json_path))?;
        let description = match &*view.description {
            "" => format!("Custom resource definition column (in JSONPath format): {}", view.json_path),
            text => text.to_owned(),
        };
        let r#type = intern(&view.r#type);
        columns.push(Column {
            name: Cow::Owned(view.name.clone()),
            r#type,
            format: intern(&view.format),
            description: Cow::Owned(description),
            priority: view.priority,
            cell: Cell::Path(PathCell { path, r#type }),
        });
    }
    Ok(columns)
}

fn scale(view: &Value) -> Option<Scale> {
    let at = |name: &str| Box::<str>::from(path::text(view, name).trim_start_matches('.'));
    view.is_object().then(|| Scale {
        spec_replicas: at("specReplicasPath"),
        status_replicas: at("statusReplicasPath"),
        selector: Some(at("labelSelectorPath")).filter(|at| !at.is_empty()),
    })
}

/// The warning of a deprecated version; by default it names the version to go to, the best one that is not deprecated.
fn deprecation(spec: &Spec, version: &Version) -> Box<str> {
    if let Some(own) = &version.deprecation_warning {
        return own.as_str().into();
    }
    let (group, kind) = (&spec.group, &spec.names.kind);
    let mut better: Vec<&str> =
        spec.versions.iter().filter(|one| one.served && !one.deprecated).map(|one| &*one.name).collect();
    better.sort_by_key(|name| std::cmp::Reverse(schema::version_rank(name)));
    let old = format!("{group}/{} {kind} is deprecated", version.name);
    match better.first().filter(|best| schema::version_rank(best) > schema::version_rank(&version.name)) {
        Some(best) => format!("{old}; use {group}/{best} {kind}").into(),
        None => old.into(),
    }
}
