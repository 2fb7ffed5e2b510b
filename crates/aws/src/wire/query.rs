//! awsQuery and ec2Query: an input is a form whose keys are paths, `Tags.member.1.Key=team`.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Method, Request};
use serde_json::{Map, Value, json};

use super::{DEPTH_LIMIT, json, percent, time};
use crate::Fault;
use crate::model::{Kind, Member, Model, OperationModel, Protocol, Shape, TimestampFormat};

/// How many parameters a call may have.
const PARAMS_LIMIT: usize = 10_000;

/// Parameters that are about the call and not of it.
const OF_THE_CALL: &[&str] = &["Action", "Version"];
const OF_THE_SIGNATURE: &str = "X-Amz-";

/// The parameters of a form, or of a query if the form is empty. Those of a presigned signature are not among them.
pub fn params(request: &Request<Bytes>) -> Result<Vec<(String, String)>, Fault> {
    let malformed = |why: &str| Fault::new("MalformedInput", why);
    let body = std::str::from_utf8(request.body()).map_err(|_| malformed("the body is not UTF-8"))?;
    let in_query = request.uri().query().unwrap_or_default();
    let text = if request.method() == Method::GET || body.is_empty() { in_query } else { body };
    let pairs = percent::pairs(text).ok_or_else(|| malformed("a parameter is not percent-encoded UTF-8"))?;
    if pairs.len() > PARAMS_LIMIT {
        return Err(malformed("there are too many parameters"));
    }
    Ok(pairs.into_iter().filter(|(key, _)| !key.starts_with(OF_THE_SIGNATURE)).collect())
}

/// The value of a parameter.
pub fn param<'a>(params: &'a [(String, String)], name: &str) -> Option<&'a str> {
    params.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// The operation that `Action` names.
pub fn find(model: &'static Model, params: &[(String, String)]) -> Result<&'static OperationModel, Fault> {
    let is_ec2 = model.protocol == Protocol::Ec2;
    let Some(action) = param(params, "Action").filter(|action| !action.is_empty()) else {
        let message = if is_ec2 { "No action specified" } else { "The request must contain an action" };
        return Err(Fault::new("MissingAction", message));
    };
    let version = param(params, "Version").unwrap_or(model.api_version);
    // Older versions of EC2's API are a part of the newest.
    let known = model.operation(action).filter(|_| is_ec2 || version == model.api_version);
    known.ok_or_else(|| {
        let message = if is_ec2 {
            format!("The action {action} is not valid for this web service.")
        } else {
            format!("Could not find operation {action} for version {version}")
        };
        Fault::new("InvalidAction", message)
    })
}

/// Parameters as the tree that their keys describe.
#[derive(Default)]
struct Node {
    value: Option<String>,
    children: BTreeMap<String, Node>,
}

impl Node {
    fn of(params: &[(String, String)]) -> Result<Self, Fault> {
        let mut root = Self::default();
        for (key, value) in params.iter().filter(|(key, _)| !OF_THE_CALL.contains(&key.as_str())) {
            if key.split('.').count() > DEPTH_LIMIT {
                return Err(Fault::new("MalformedInput", "a parameter is nested too deeply"));
            }
            let node = key
                .split('.')
                .fold(&mut root, |node, part| node.children.entry(part.to_owned()).or_default());
            node.value = Some(value.clone());
        }
        Ok(root)
    }

    /// The children with numbers for names, in the order of the numbers.
    fn numbered(&self) -> Vec<&Self> {
        let mut items: Vec<(u32, &Self)> =
            self.children.iter().filter_map(|(name, node)| Some((name.parse().ok()?, node))).collect();
        items.sort_by_key(|(number, _)| *number);
        items.into_iter().map(|(_, node)| node).collect()
    }
}

pub fn input(model: &Model, shape: &Shape, params: &[(String, String)]) -> Result<Value, Fault> {
    structure(model, shape, &Node::of(params)?, "")
}

fn structure(model: &Model, shape: &Shape, node: &Node, path: &str) -> Result<Value, Fault> {
    let mut read = Map::new();
    let mut known = Vec::new();
    for member in shape.members() {
        let of = model.shape(member.of);
        let name = name_of(model, member, of);
        if let Some(child) = node.children.get(&name) {
            let path = join(path, &name);
            read.insert(member.name.to_owned(), value(model, of, member.is_flat, child, &path)?);
        }
        known.push(name);
    }
    // Only EC2 minds what it does not know.
    let stranger = node.children.keys().find(|name| !known.contains(name));
    match stranger.filter(|_| model.protocol == Protocol::Ec2) {
        Some(name) => {
            let message = format!("The parameter {} is not recognized", join(path, name));
            Err(Fault::new("UnknownParameter", message))
        }
        None => Ok(Value::Object(read)),
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn name_of(model: &Model, member: &Member, of: &Shape) -> String {
    if model.protocol == Protocol::Ec2 {
        return member.query.map_or_else(|| capital(member.wire.unwrap_or(member.name)), str::to_owned);
    }
    match of.kind {
        // The items of a flat list give it their name.
        Kind::List { wire: Some(wire), is_flat, .. } if is_flat || member.is_flat => wire.to_owned(),
        _ => member.wire.unwrap_or(member.name).to_owned(),
    }
}

fn capital(name: &str) -> String {
    let mut rest = name.chars();
    rest.next().map(|first| first.to_ascii_uppercase().to_string() + rest.as_str()).unwrap_or_default()
}

fn value(model: &Model, shape: &Shape, is_flat: bool, node: &Node, path: &str) -> Result<Value, Fault> {
    let is_ec2 = model.protocol == Protocol::Ec2;
    match &shape.kind {
        Kind::Structure { .. } => structure(model, shape, node, path),
        Kind::List { of, wire, is_flat: always } => {
            let of = model.shape(*of);
            let holder = match is_flat || *always || is_ec2 {
                true => Some(node),
                false => node.children.get(wire.unwrap_or("member")),
            };
            let items = holder.map(Node::numbered).unwrap_or_default().into_iter();
            let items = (1..)
                .zip(items)
                .map(|(number, item)| value(model, of, false, item, &format!("{path}.{number}")));
            items.collect()
        }
        Kind::Map { key, value: of, key_wire, value_wire, is_flat: always } => {
            let holder = if is_flat || *always { Some(node) } else { node.children.get("entry") };
            let mut read = Map::new();
            for entry in holder.map(Node::numbered).unwrap_or_default() {
                let part = |name: &str| entry.children.get(name).unwrap_or(&EMPTY);
                let key = value(model, model.shape(*key), false, part(key_wire.unwrap_or("key")), path)?;
                let value = value(model, model.shape(*of), false, part(value_wire.unwrap_or("value")), path)?;
                read.insert(key.as_str().unwrap_or_default().to_owned(), value);
            }
            Ok(Value::Object(read))
        }
        _ => {
            let text = node.value.as_deref().filter(|_| node.children.is_empty()).unwrap_or_default();
            scalar(shape, text).ok_or_else(|| {
                let message =
                    format!("Value ({text}) for parameter {path} is invalid. Expecting {}", wanted(shape));
                Fault::new("MalformedInput", message)
            })
        }
    }
}

static EMPTY: Node = Node { value: None, children: BTreeMap::new() };

fn wanted(shape: &Shape) -> &'static str {
    match shape.kind {
        Kind::Integer => "integer.",
        Kind::Double => "a number.",
        Kind::Boolean => "true or false.",
        Kind::Timestamp(_) => "a timestamp.",
        _ => "another type.",
    }
}

/// What a text means where a scalar is wanted; none if it cannot mean anything there.
pub fn scalar(shape: &Shape, text: &str) -> Option<Value> {
    match shape.kind {
        Kind::String | Kind::Enum(_) | Kind::Blob => Some(json!(text)),
        Kind::Integer => text.parse::<i64>().ok().map(|number| json!(number)),
        Kind::Double => {
            text.parse::<f64>().ok().filter(|number| number.is_finite()).map(|number| json!(number))
        }
        Kind::Boolean => match text {
            "true" | "True" | "TRUE" => Some(json!(true)),
            "false" | "False" | "FALSE" => Some(json!(false)),
            _ => None,
        },
        Kind::Timestamp(_) => time::read(&json!(text)).map(Value::String),
        Kind::Structure { .. } | Kind::List { .. } | Kind::Map { .. } => None,
    }
}

/// An awsQuery answer as JSON, for those who ask for it: the XML's elements without its lists' wrappers, times in epoch seconds.
pub fn output_json(
    model: &Model,
    operation: &OperationModel,
    shape: Option<&Shape>,
    output: &Value,
    request_id: &str,
) -> Vec<u8> {
    let mut answer = json!({"ResponseMetadata": {"RequestId": request_id}});
    if let (Some(shape), Some(wrapper)) = (shape, operation.wrapper) {
        answer[wrapper] = json::write(model, shape, output, TimestampFormat::Unix);
    }
    serde_json::to_vec(&json!({ format!("{}Response", operation.name): answer })).unwrap_or_default()
}
