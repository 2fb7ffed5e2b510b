//! XML: the answers of awsQuery, ec2Query and restXml, and the bodies that restXml is sent.

use serde_json::{Map, Value, json};

use super::{DEPTH_LIMIT, query, rest, time};
use crate::Fault;
use crate::model::{Kind, Location, Model, OperationModel, Protocol, Shape, TimestampFormat};

const HEAD: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

/// An awsQuery answer.
pub fn query(
    model: &Model,
    operation: &OperationModel,
    shape: Option<&Shape>,
    output: &Value,
    request_id: &str,
) -> Vec<u8> {
    let mut text = format!("<{}Response xmlns=\"{}\">\n", operation.name, model.namespace);
    if let (Some(shape), Some(wrapper)) = (shape, operation.wrapper) {
        open(&mut text, wrapper);
        members(model, shape, output, &mut text);
        close(&mut text, wrapper);
    }
    text += &format!("<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata>\n");
    close(&mut text, &format!("{}Response", operation.name));
    text.into_bytes()
}

/// An ec2Query answer. One without members says that it is one.
pub fn ec2(
    model: &Model,
    operation: &OperationModel,
    shape: Option<&Shape>,
    output: &Value,
    request_id: &str,
) -> Vec<u8> {
    let mut text = format!("{HEAD}<{}Response xmlns=\"{}/\">\n", operation.name, model.namespace);
    text += &format!("<requestId>{request_id}</requestId>");
    match shape {
        Some(shape) => members(model, shape, output, &mut text),
        None => text += "<return>true</return>",
    }
    close(&mut text, &format!("{}Response", operation.name));
    text.into_bytes()
}

/// A restXml body.
pub fn document(model: &Model, shape: &Shape, value: &Value) -> Vec<u8> {
    let mut text = format!("{HEAD}<{} xmlns=\"{}\">", shape.name, model.namespace);
    members(model, shape, value, &mut text);
    close(&mut text, shape.name);
    text.into_bytes()
}

fn open(text: &mut String, name: &str) {
    text.push('<');
    text.push_str(name);
    text.push('>');
}

fn close(text: &mut String, name: &str) {
    text.push_str("</");
    text.push_str(name);
    text.push('>');
}

fn members(model: &Model, shape: &Shape, value: &Value, text: &mut String) {
    for member in shape.members().iter().filter(|member| member.location == Location::Body) {
        let value = &value[member.name];
        if !value.is_null() {
            element(
                model,
                model.shape(member.of),
                member.wire.unwrap_or(member.name),
                member.is_flat,
                value,
                text,
            );
        }
    }
}

fn element(model: &Model, shape: &Shape, name: &str, is_flat: bool, value: &Value, text: &mut String) {
    match (&shape.kind, value) {
        (Kind::List { of, wire, is_flat: always }, Value::Array(items)) => {
            let is_flat = is_flat || *always;
            let usual = if model.protocol == Protocol::Ec2 { "item" } else { "member" };
            let item_name = if is_flat { wire.unwrap_or(name) } else { wire.unwrap_or(usual) };
            let mut inner = String::new();
            for item in items {
                element(model, model.shape(*of), item_name, false, item, &mut inner);
            }
            wrap(text, name, &inner, is_flat);
        }
        (Kind::Map { key, value: of, key_wire, value_wire, is_flat: always }, Value::Object(map)) => {
            let is_flat = is_flat || *always;
            let mut inner = String::new();
            for (entry, value) in map {
                open(&mut inner, if is_flat { name } else { "entry" });
                element(
                    model,
                    model.shape(*key),
                    key_wire.unwrap_or("key"),
                    false,
                    &json!(entry),
                    &mut inner,
                );
                element(model, model.shape(*of), value_wire.unwrap_or("value"), false, value, &mut inner);
                close(&mut inner, if is_flat { name } else { "entry" });
            }
            wrap(text, name, &inner, is_flat);
        }
        (Kind::Structure { .. }, value) => {
            open(text, name);
            members(model, shape, value, text);
            close(text, name);
        }
        (Kind::Timestamp(format), value) => {
            let value = time::write(value, format.unwrap_or(TimestampFormat::Iso8601));
            leaf(text, name, &rest::plain(&value));
        }
        (_, value) => leaf(text, name, &rest::plain(value)),
    }
}

fn wrap(text: &mut String, name: &str, inner: &str, is_flat: bool) {
    if is_flat {
        text.push_str(inner);
        return;
    }
    open(text, name);
    text.push_str(inner);
    close(text, name);
}

pub fn leaf(text: &mut String, name: &str, value: &str) {
    open(text, name);
    escape(text, value);
    close(text, name);
}

/// Characters that XML cannot say at all become the one that stands for such.
fn escape(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '"' => text.push_str("&quot;"),
            '\r' => text.push_str("&#xD;"),
            '\n' | '\t' => text.push(character),
            '\u{0}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => text.push('\u{fffd}'),
            other => text.push(other),
        }
    }
}

/// An element of a body: no more of XML than AWS's clients send. Attributes are skipped; there are no entities but the five.
#[derive(Debug, Default, PartialEq)]
struct Element {
    name: String,
    text: String,
    children: Vec<Element>,
}

/// The members of a restXml body.
pub fn read_body(model: &Model, shape: &Shape, body: &[u8]) -> Result<Value, Fault> {
    let malformed = || Fault::new("Serialization", "the body is not well-formed XML");
    if body.trim_ascii().is_empty() {
        return Ok(json!({}));
    }
    let text = std::str::from_utf8(body).map_err(|_| malformed())?;
    let root = parse(text).ok_or_else(malformed)?;
    read(model, shape, &root)
}

fn read(model: &Model, shape: &Shape, element: &Element) -> Result<Value, Fault> {
    match &shape.kind {
        Kind::Structure { members, .. } => {
            let mut found = Map::new();
            for member in members.iter().filter(|member| member.location == Location::Body) {
                let of = model.shape(member.of);
                let wire = member.wire.unwrap_or(member.name);
                let value = match &of.kind {
                    Kind::List { of: item, wire: item_wire, is_flat } if *is_flat || member.is_flat => {
                        let name = item_wire.unwrap_or(wire);
                        let items: Vec<_> =
                            element.children.iter().filter(|child| child.name == name).collect();
                        match items.is_empty() {
                            true => continue,
                            false => items
                                .into_iter()
                                .map(|child| read(model, model.shape(*item), child))
                                .collect::<Result<Value, Fault>>()?,
                        }
                    }
                    _ => match element.children.iter().find(|child| child.name == wire) {
                        Some(child) => read(model, of, child)?,
                        None => continue,
                    },
                };
                found.insert(member.name.to_owned(), value);
            }
            Ok(Value::Object(found))
        }
        Kind::List { of, wire, .. } => {
            let name = wire.unwrap_or("member");
            let items = element.children.iter().filter(|child| child.name == name);
            items.map(|child| read(model, model.shape(*of), child)).collect()
        }
        Kind::Map { value, key_wire, value_wire, .. } => {
            let mut found = Map::new();
            for entry in element.children.iter().filter(|child| child.name == "entry") {
                let part = |name: &str| entry.children.iter().find(|child| child.name == name);
                let (Some(key), Some(of)) =
                    (part(key_wire.unwrap_or("key")), part(value_wire.unwrap_or("value")))
                else {
                    continue;
                };
                found.insert(key.text.clone(), read(model, model.shape(*value), of)?);
            }
            Ok(Value::Object(found))
        }
        _ => query::scalar(shape, element.text.trim()).ok_or_else(|| {
            Fault::new(
                "Serialization",
                format!("The value '{}' of {} is not of its type", element.text, element.name),
            )
        }),
    }
}

/// The root element of a document; none if it is not well-formed, declares a type, or is nested too deeply.
fn parse(text: &str) -> Option<Element> {
    let mut open: Vec<Element> = Vec::new();
    let mut rest = text.trim();
    loop {
        let (before, tag_on) = rest.split_once('<')?;
        match open.last_mut() {
            Some(element) => element.text += &unescape(before)?,
            None if before.trim().is_empty() => {}
            None => return None,
        }
        if let Some(comment) = tag_on.strip_prefix("!--") {
            rest = comment.split_once("-->")?.1;
            continue;
        }
        let (tag, after) = tag_on.split_once('>')?;
        rest = after;
        if tag.starts_with('?') {
            continue;
        }
        if tag.starts_with('!') || open.len() > DEPTH_LIMIT {
            return None;
        }
        let done = if let Some(name) = tag.strip_prefix('/') {
            let element = open.pop()?;
            if element.name != local(name.trim()) {
                return None;
            }
            element
        } else {
            let is_empty = tag.ends_with('/');
            let name = local(tag.trim_end_matches('/').split_whitespace().next()?).to_owned();
            let element = Element { name, ..Element::default() };
            if !is_empty {
                open.push(element);
                continue;
            }
            element
        };
        match open.last_mut() {
            Some(parent) => parent.children.push(done),
            None => return rest.trim().is_empty().then_some(done),
        }
    }
}

/// Whether a text is a document at all.
#[cfg(test)]
pub fn is_well_formed(text: &[u8]) -> bool {
    std::str::from_utf8(text).is_ok_and(|text| parse(text).is_some())
}

/// A name without its namespace's prefix.
fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}

fn unescape(text: &str) -> Option<String> {
    let mut parts = text.split('&');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        let (entity, after) = part.split_once(';')?;
        plain.push(match entity {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            number => {
                let code = match number.strip_prefix("#x") {
                    Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                    None => number.strip_prefix('#')?.parse().ok()?,
                };
                char::from_u32(code)?
            }
        });
        plain += after;
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_document_is_parsed() {
        let text =
            "<?xml version=\"1.0\"?>\n<!-- c --><a xmlns=\"x\"><b>1 &lt; &#50;</b><n:c/><b k='v'>3</b></a>\n";
        let root = parse(text).expect("well-formed");
        let seen: Vec<_> = root.children.iter().map(|one| (one.name.as_str(), one.text.as_str())).collect();
        assert_eq!((root.name.as_str(), seen), ("a", vec![("b", "1 < 2"), ("c", ""), ("b", "3")]));
    }

    #[test]
    fn what_is_not_well_formed_is_refused() {
        let deep = "<a>".repeat(DEPTH_LIMIT + 2) + &"</a>".repeat(DEPTH_LIMIT + 2);
        for text in [
            "",
            "a",
            "<a>",
            "<a></b>",
            "<a/><b/>",
            "</a>",
            "<a>&nbsp;</a>",
            "<a>&lt</a>",
            "<a",
            "<a></a>x",
            "< >",
            "<!DOCTYPE a [<!ENTITY x \"y\">]><a>&x;</a>",
            "<!-- ",
            deep.as_str(),
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_survives_an_element(value in "[^\u{0}-\u{1f}\u{fffe}\u{ffff}]*") {
            let mut text = String::new();
            leaf(&mut text, "a", &value);
            prop_assert_eq!(parse(&text).map(|element| element.text), Some(value));
        }

        #[test]
        fn nothing_that_is_sent_ends_the_parser(text in "[<>/&;a# !\\-]*") {
            let _ = parse(&text);
        }
    }
}
