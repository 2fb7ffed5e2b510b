//! A structural schema as a tree: what a definition says of each value of its objects.
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema>

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::pattern::Pattern;
use super::rules::Rules;

/// One value's schema. Value validations (`allOf`, `not`, …) are nodes too, of which only the checks are used.
#[derive(Debug, Default)]
pub struct Node {
    /// None: any (`x-kubernetes-int-or-string`, unknown fields, value validations).
    pub r#type: Option<JsonType>,
    pub nullable: bool,
    pub int_or_string: bool,
    /// `x-kubernetes-preserve-unknown-fields`
    pub keeps_unknown: bool,
    /// `x-kubernetes-embedded-resource`
    pub is_embedded: bool,
    /// The root, or an embedded resource: apiVersion, kind and metadata are the system's own.
    pub is_resource: bool,
    pub properties: BTreeMap<Box<str>, Node>,
    pub additional: Option<Additional>,
    pub items: Option<Box<Node>>,
    pub default: Option<Value>,
    pub list: List,
    /// `x-kubernetes-map-type: atomic`
    pub is_atomic_map: bool,
    pub(super) checks: Checks,
    /// `x-kubernetes-validations`, compiled.
    pub rules: Option<Arc<dyn Rules>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonType {
    Array,
    Boolean,
    Integer,
    Number,
    Object,
    String,
}

impl JsonType {
    pub const NAMES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "array" => Self::Array,
            "boolean" => Self::Boolean,
            "integer" => Self::Integer,
            "number" => Self::Number,
            "object" => Self::Object,
            "string" => Self::String,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Array => "array",
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Object => "object",
            Self::String => "string",
        }
    }
}

/// `additionalProperties`
#[derive(Debug)]
pub enum Additional {
    /// `true`: anything goes, though nothing of it is specified.
    Any,
    /// `false`: nothing else, for value validations.
    None,
    Node(Box<Node>),
}

/// `x-kubernetes-list-type`; unset means atomic.
#[derive(Debug, Default, PartialEq, Eq)]
pub enum List {
    #[default]
    Atomic,
    Set,
    Map(Vec<Box<str>>),
}

/// What a value must be besides of its type.
#[derive(Debug, Default)]
pub(super) struct Checks {
    pub(super) format: Option<Box<str>>,
    pub(super) options: Option<Vec<Value>>,
    pub(super) pattern: Option<Pattern>,
    pub(super) max_length: Option<u64>,
    pub(super) min_length: Option<u64>,
    pub(super) max_items: Option<u64>,
    pub(super) min_items: Option<u64>,
    pub(super) max_properties: Option<u64>,
    pub(super) min_properties: Option<u64>,
    pub(super) unique_items: bool,
    /// (bound, exclusive)
    pub(super) maximum: Option<(f64, bool)>,
    pub(super) minimum: Option<(f64, bool)>,
    pub(super) multiple_of: Option<f64>,
    pub(super) required: Vec<Box<str>>,
    pub(super) all_of: Vec<Node>,
    pub(super) any_of: Vec<Node>,
    pub(super) one_of: Vec<Node>,
    pub(super) not: Option<Box<Node>>,
}

impl Node {
    /// Reads the schema of a whole object. What is no schema is left out: [`super::structural`] has said so when the definition was written.
    pub fn root(schema: &Value) -> Self {
        let mut root = Self::parse(schema);
        root.is_resource = true;
        root
    }

    /// Reads a schema within that of a whole object, with its rules.
    pub fn ruled(schema: &Value, is_resource: bool, compile: Compile<'_>) -> Self {
        let mut node = Self::parse(schema);
        node.is_resource = is_resource;
        node.attach_rules(schema, compile);
        node
    }

    pub(super) fn parse(schema: &Value) -> Self {
        let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or_default();
        let nodes = |name: &str| schema.get(name).and_then(Value::as_array).into_iter().flatten();
        let properties: BTreeMap<Box<str>, Self> = schema
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .map(|(name, inner)| (name.as_str().into(), Self::parse(inner)))
            .collect();
        let additional = match schema.get("additionalProperties") {
            Some(Value::Bool(true)) => Some(Additional::Any),
            Some(Value::Bool(false)) => Some(Additional::None),
            Some(inner @ Value::Object(_)) => Some(Additional::Node(Box::new(Self::parse(inner)))),
            _ => None,
        };
        let is_embedded = flag("x-kubernetes-embedded-resource");
        let mut node = Self {
            r#type: schema.get("type").and_then(Value::as_str).and_then(JsonType::parse),
            nullable: flag("nullable"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            keeps_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            is_embedded,
            is_resource: is_embedded,
            properties,
            additional,
            items: schema
                .get("items")
                .filter(|inner| inner.is_object())
                .map(|inner| Box::new(Self::parse(inner))),
            default: schema.get("default").cloned(),
            list: list(schema),
            is_atomic_map: schema.get("x-kubernetes-map-type").is_some_and(|one| one == "atomic"),
            checks: Checks::parse(schema),
            rules: None,
        };
        node.checks.all_of = nodes("allOf").map(Self::parse).collect();
        node.checks.any_of = nodes("anyOf").map(Self::parse).collect();
        node.checks.one_of = nodes("oneOf").map(Self::parse).collect();
        node.checks.not = schema.get("not").map(|inner| Box::new(Self::parse(inner)));
        node
    }

    /// The schema of a member, if the schema specifies it.
    pub fn member(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(match &self.additional {
            Some(Additional::Node(inner)) => Some(inner),
            _ => None,
        })
    }

    /// The schema at a path of member names, as `spec.replicas`.
    pub fn at(&self, path: &str) -> Option<&Self> {
        path.split('.').try_fold(self, |node, name| node.properties.get(name))
    }

    /// Whether a null stands for "not there".
    pub(super) fn prunes_null(&self) -> bool {
        !self.nullable
    }

    /// Attaches compiled rules, schema by schema.
    pub fn attach_rules(&mut self, schema: &Value, compile: Compile<'_>) {
        if schema.get("x-kubernetes-validations").is_some() {
            self.rules = compile(schema, self.is_resource);
        }
        for (name, node) in &mut self.properties {
            node.attach_rules(&schema["properties"][&**name], compile);
        }
        if let Some(Additional::Node(node)) = &mut self.additional {
            node.attach_rules(&schema["additionalProperties"], compile);
        }
        if let Some(node) = &mut self.items {
            node.attach_rules(&schema["items"], compile);
        }
    }
}

/// Makes the rules of a schema, as it was written; the flag says whether its values are resources.
pub type Compile<'a> = &'a dyn Fn(&Value, bool) -> Option<Arc<dyn Rules>>;

fn list(schema: &Value) -> List {
    match schema.get("x-kubernetes-list-type").and_then(Value::as_str) {
        Some("set") => List::Set,
        Some("map") => {
            let keys =
                schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array).into_iter().flatten();
            List::Map(keys.filter_map(Value::as_str).map(Into::into).collect())
        }
        _ => List::Atomic,
    }
}

impl Checks {
    /// Everything but the schemas within, which their node reads.
    fn parse(schema: &Value) -> Self {
        let count = |name: &str| schema.get(name).and_then(Value::as_u64);
        let number = |name: &str| schema.get(name).and_then(Value::as_f64);
        let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or_default();
        let text = |name: &str| schema.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        Self {
            format: text("format").map(Into::into),
            options: schema.get("enum").and_then(Value::as_array).filter(|all| !all.is_empty()).cloned(),
            pattern: text("pattern").and_then(|pattern| Pattern::new(pattern).ok()),
            max_length: count("maxLength"),
            min_length: count("minLength"),
            max_items: count("maxItems"),
            min_items: count("minItems"),
            max_properties: count("maxProperties"),
            min_properties: count("minProperties"),
            unique_items: flag("uniqueItems"),
            maximum: number("maximum").map(|bound| (bound, flag("exclusiveMaximum"))),
            minimum: number("minimum").map(|bound| (bound, flag("exclusiveMinimum"))),
            multiple_of: number("multipleOf").filter(|of| *of != 0.0),
            required: required.filter_map(Value::as_str).map(Into::into).collect(),
            ..Self::default()
        }
    }
}
