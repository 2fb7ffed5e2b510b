//! What can be set of an add-on by its configuration values: only what Ekso's own part does, so that all else is refused by its name.
//!
//! A setting has a few values that are meant, and the schema that `DescribeAddonConfiguration` gives is made of the settings.

use serde_json::{Map, Value, json};

use super::addon_catalog::Row;
use super::{Addon, fault};
use crate::{Context, Fault, state};

/// One value that may be set.
pub struct Setting {
    /// The names of the members that lead to it.
    pub path: &'static [&'static str],
    /// The first is what holds if nothing is said.
    pub values: &'static [&'static str],
    pub description: &'static str,
}

/// Of kube-proxy: the rules of services are nftables'.
pub const KUBE_PROXY: &[Setting] =
    &[Setting { path: &["mode"], values: &["nftables"], description: "How the rules of services are made." }];

/// Of vpc-cni: whether nodes have addresses for as many pods as prefixes give.
pub const VPC_CNI: &[Setting] = &[
    Setting {
        path: &["enableNetworkPolicy"],
        values: &["false"],
        description: "Whether NetworkPolicies are enforced.",
    },
    Setting {
        path: &["env", PREFIX_DELEGATION],
        values: &["false", "true"],
        description: "Whether nodes of managed node groups take as many pods as the prefixes of their interfaces have addresses. It holds for nodes of the versions of a group's launch template that come later.",
    },
];

const PREFIX_DELEGATION: &str = "ENABLE_PREFIX_DELEGATION";

/// As JSON Schema has it.
pub fn schema(settings: &[Setting]) -> Value {
    let object = || json!({"type": "object", "properties": {}, "additionalProperties": false});
    let mut schema = object();
    schema["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    for setting in settings {
        let mut at = &mut schema;
        for (depth, name) in setting.path.iter().enumerate() {
            let is_last = depth + 1 == setting.path.len();
            let members = &mut at["properties"];
            if members[*name].is_null() {
                members[*name] = if is_last { leaf(setting) } else { object() };
            }
            at = &mut members[*name];
        }
    }
    schema
}

fn leaf(setting: &Setting) -> Value {
    json!({
        "type": "string", "enum": setting.values, "default": setting.values[0], "description": setting.description,
    })
}

/// Whether a text, in JSON or YAML, is one of values that may be set. What may not is told all at once, as AWS's validator tells it.
pub fn check(row: &Row, text: &str) -> Result<(), Fault> {
    let refuse = |why: String| {
        fault::invalid(format!("ConfigurationValue provided in request is not supported: {why}"))
    };
    let values = read(text).ok_or_else(|| refuse("it is no object in JSON or YAML".to_owned()))?;
    let mut wrong = Vec::new();
    compare(&schema(row.settings), &Value::Object(values), "$", &mut wrong);
    if wrong.is_empty() {
        return Ok(());
    }
    Err(refuse(format!("Json schema validation failed with error: [{}]", wrong.join(", "))))
}

fn read(text: &str) -> Option<Map<String, Value>> {
    match serde_saphyr::from_str(text).ok()? {
        Value::Object(members) => Some(members),
        Value::Null => Some(Map::new()),
        _ => None,
    }
}

fn compare(schema: &Value, value: &Value, at: &str, wrong: &mut Vec<String>) {
    if schema["type"] == "object" {
        let Some(members) = value.as_object() else {
            return wrong.push(format!("{at}: {} found, object expected", kind(value)));
        };
        for (name, value) in members {
            let at = format!("{at}.{name}");
            match schema["properties"].get(name) {
                Some(schema) => compare(schema, value, &at, wrong),
                None => wrong.push(format!(
                    "{at}: is not defined in the schema and the schema does not allow additional properties"
                )),
            }
        }
        return;
    }
    let Some(text) = value.as_str() else {
        return wrong.push(format!("{at}: {} found, string expected", kind(value)));
    };
    let values: Vec<&str> =
        schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !values.contains(&text) {
        wrong.push(format!("{at}: does not have a value in the enumeration [{}]", values.join(", ")));
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Whether nodes of a cluster are for as many pods as prefixes have addresses.
pub fn delegates_prefixes(context: &Context, cluster: &str) -> bool {
    let addon = state::get::<Addon>(context.state, cluster, "vpc-cni").map(|kept| kept.record);
    let values = addon.and_then(|addon| read(addon.configuration_values.as_deref()?));
    values.is_some_and(|values| Value::Object(values)["env"][PREFIX_DELEGATION] == "true")
}

#[cfg(test)]
mod tests {
    use super::super::addon_catalog::{ROWS, find};
    use super::*;

    #[test]
    fn only_what_is_in_the_schema_may_be_set() {
        let undefined = "is not defined in the schema and the schema does not allow additional properties";
        for (addon, text, wrong) in [
            ("coredns", "", ""),
            ("coredns", "{}", ""),
            ("coredns", r#"{"replicaCount": 3}"#, &*format!("$.replicaCount: {undefined}")),
            (
                "coredns",
                "corefile: x\nresources: {}\n",
                &*format!("$.corefile: {undefined}, $.resources: {undefined}"),
            ),
            ("kube-proxy", r#"{"mode": "nftables"}"#, ""),
            (
                "kube-proxy",
                r#"{"mode": "ipvs"}"#,
                "$.mode: does not have a value in the enumeration [nftables]",
            ),
            ("kube-proxy", r#"{"mode": 1}"#, "$.mode: integer found, string expected"),
            (
                "vpc-cni",
                r#"{"env": {"ENABLE_PREFIX_DELEGATION": "true"}, "enableNetworkPolicy": "false"}"#,
                "",
            ),
            ("vpc-cni", "env:\n  ENABLE_PREFIX_DELEGATION: 'true'\n", ""),
            (
                "vpc-cni",
                r#"{"env": {"ENABLE_PREFIX_DELEGATION": true}}"#,
                "$.env.ENABLE_PREFIX_DELEGATION: boolean found, string expected",
            ),
            (
                "vpc-cni",
                r#"{"env": {"WARM_IP_TARGET": "5"}}"#,
                &*format!("$.env.WARM_IP_TARGET: {undefined}"),
            ),
            ("vpc-cni", r#"{"env": []}"#, "$.env: array found, object expected"),
            (
                "vpc-cni",
                r#"{"enableNetworkPolicy": "true"}"#,
                "$.enableNetworkPolicy: does not have a value in the enumeration [false]",
            ),
        ] {
            let told = check(find(addon).expect("an add-on"), text).err().map(|fault| fault.message);
            let wanted = (!wrong.is_empty()).then(|| {
                format!("ConfigurationValue provided in request is not supported: Json schema validation failed with error: [{wrong}]")
            });
            assert_eq!(told, wanted, "{addon} {text}");
        }
        for text in ["[]", "3", "{", "\"a\""] {
            let told = check(&ROWS[0], text).expect_err("refused").message;
            assert!(told.ends_with("it is no object in JSON or YAML"), "{text}: {told}");
        }
    }

    #[test]
    fn a_schema_says_what_may_be_set() {
        let schema = schema(find("vpc-cni").expect("an add-on").settings);
        assert_eq!(schema["additionalProperties"], false);
        assert_eq!(
            schema["properties"]["env"]["properties"][PREFIX_DELEGATION]["enum"],
            json!(["false", "true"])
        );
        assert_eq!(schema["properties"]["env"]["additionalProperties"], false);
    }
}
