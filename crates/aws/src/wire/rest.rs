//! REST: an operation is a method and a path, and members stand in path, query, headers and body.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Request};
use serde_json::{Map, Value, json};

use super::{json, percent, query, time, xml};
use crate::Fault;
use crate::model::{Kind, Location, Member, Model, OperationModel, Protocol, Shape, TimestampFormat};

type Labels = Vec<(&'static str, String)>;

/// The operation of a method and a path, with what its labels hold. The one with the fewest labels wins.
pub fn find(
    model: &'static Model,
    request: &Request<Bytes>,
) -> Result<(&'static OperationModel, Labels), Fault> {
    let uri = request.uri();
    let mut best: Option<(&OperationModel, Labels)> = None;
    for operation in model.operations.iter().filter(|operation| operation.method == request.method().as_str())
    {
        let (path, fixed) = operation.uri.split_once('?').unwrap_or((operation.uri, ""));
        if !has_all(uri.query().unwrap_or_default(), fixed) {
            continue;
        }
        let Some(labels) = labels(path, uri.path()) else { continue };
        if best.as_ref().is_none_or(|(_, known)| labels.len() < known.len()) {
            best = Some((operation, labels));
        }
    }
    best.ok_or_else(|| {
        Fault::new("UnknownOperation", format!("There is no {} {}", request.method(), uri.path()))
    })
}

fn has_all(query: &str, fixed: &str) -> bool {
    fixed.split('&').filter(|part| !part.is_empty()).all(|part| query.split('&').any(|given| given == part))
}

/// What the labels of `/clusters/{name}/tags/{key+}` hold in a path; none if it is another path, or a label would be empty.
fn labels(template: &'static str, path: &str) -> Option<Labels> {
    let mut labels = Vec::new();
    let mut given = path.strip_prefix('/')?.split('/');
    for part in template.strip_prefix('/')?.split('/') {
        let Some(label) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) else {
            if given.next()? != part {
                return None;
            }
            continue;
        };
        let (label, text) = match label.strip_suffix('+') {
            Some(greedy) => (greedy, given.by_ref().collect::<Vec<_>>().join("/")),
            None => (label, given.next()?.to_owned()),
        };
        let text = percent::decode(&text, false).filter(|text| !text.is_empty())?;
        labels.push((label, text));
    }
    given.next().is_none().then_some(labels)
}

/// The members of an input, wherever they stand.
pub fn input(
    model: &Model,
    shape: &Shape,
    labels: &[(&'static str, String)],
    request: &Request<Bytes>,
) -> Result<Value, Fault> {
    let mut read = match body(model, shape, request)? {
        Value::Object(members) => members,
        _ => Map::new(),
    };
    let pairs = percent::pairs(request.uri().query().unwrap_or_default());
    let pairs = pairs.ok_or_else(|| Fault::new("Serialization", "the query is not percent-encoded UTF-8"))?;
    for member in shape.members() {
        let wire = member.wire.unwrap_or(member.name);
        let value = match member.location {
            Location::Uri => labels.iter().find(|(name, _)| *name == wire).map(|(_, text)| text.as_str()),
            Location::Header => request.headers().get(wire).and_then(|value| value.to_str().ok()),
            Location::Query => {
                if let Some(value) = from_query(model, member, wire, &pairs)? {
                    read.insert(member.name.to_owned(), value);
                }
                continue;
            }
            Location::Headers => {
                read.insert(member.name.to_owned(), prefixed(request.headers(), wire));
                continue;
            }
            Location::Body | Location::Status => continue,
        };
        if let Some(text) = value {
            read.insert(member.name.to_owned(), scalar(model, member, text)?);
        }
    }
    Ok(Value::Object(read))
}

fn body(model: &Model, shape: &Shape, request: &Request<Bytes>) -> Result<Value, Fault> {
    let bytes = request.body();
    let Kind::Structure { payload, .. } = &shape.kind else { return Ok(json!({})) };
    let Some(member) = payload.and_then(|payload| shape.member(payload)) else {
        // A GET's body means nothing.
        if !shape.members().iter().any(|member| member.location == Location::Body) {
            return Ok(json!({}));
        }
        return match model.protocol {
            Protocol::RestXml => xml::read_body(model, shape, bytes),
            _ => json::body(model, shape, bytes),
        };
    };
    if bytes.is_empty() {
        return Ok(json!({}));
    }
    let of = model.shape(member.of);
    let value = match (&of.kind, model.protocol) {
        (Kind::Blob, _) => json!(STANDARD.encode(bytes)),
        (Kind::String | Kind::Enum(_), _) => {
            let text = std::str::from_utf8(bytes)
                .map_err(|_| Fault::new("Serialization", "the body is not UTF-8"))?;
            json!(text)
        }
        (_, Protocol::RestXml) => xml::read_body(model, of, bytes)?,
        _ => json::read(model, of, &json::parse(bytes)?, 0)?,
    };
    Ok(json!({ member.name: value }))
}

fn prefixed(headers: &HeaderMap, prefix: &str) -> Value {
    let prefix = prefix.to_ascii_lowercase();
    let matching = headers.iter().filter_map(|(name, value)| {
        Some((name.as_str().strip_prefix(&prefix)?.to_owned(), json!(value.to_str().ok()?)))
    });
    Value::Object(matching.collect())
}

fn from_query(
    model: &Model,
    member: &Member,
    wire: &str,
    pairs: &[(String, String)],
) -> Result<Option<Value>, Fault> {
    let mut given = pairs.iter().filter(|(key, _)| key == wire).map(|(_, value)| value.as_str()).peekable();
    match &model.shape(member.of).kind {
        Kind::List { of, .. } if given.peek().is_some() => {
            let items =
                given.map(|text| query::scalar(model.shape(*of), text).ok_or_else(|| wrong(wire, text)));
            items.collect::<Result<_, _>>().map(Some)
        }
        // All other parameters, whatever they are called.
        Kind::Map { .. } => {
            Ok(Some(Value::Object(pairs.iter().map(|(key, value)| (key.clone(), json!(value))).collect())))
        }
        _ => given.next().map(|text| scalar(model, member, text)).transpose(),
    }
}

fn scalar(model: &Model, member: &Member, text: &str) -> Result<Value, Fault> {
    query::scalar(model.shape(member.of), text).ok_or_else(|| wrong(member.wire.unwrap_or(member.name), text))
}

fn wrong(name: &str, text: &str) -> Fault {
    Fault::new("Serialization", format!("The value '{text}' of {name} is not of its type"))
}

type Headers = Vec<(String, String)>;

/// Body and headers of a restJson answer.
pub fn output(model: &Model, shape: Option<&Shape>, output: &Value) -> (Vec<u8>, Headers) {
    let Some(shape) = shape else { return (b"{}".to_vec(), Vec::new()) };
    let body = match payload(model, shape, output) {
        Some(Payload::Raw(bytes)) => bytes,
        Some(Payload::Shape(of, value)) => json::text(model, Some(of), value),
        None => json::text(model, Some(shape), output),
    };
    (body, headers(model, shape, output))
}

/// Body and headers of a restXml answer.
pub fn output_xml(model: &Model, shape: Option<&Shape>, output: &Value) -> (Vec<u8>, Headers) {
    let Some(shape) = shape else { return (Vec::new(), Vec::new()) };
    let body = match payload(model, shape, output) {
        Some(Payload::Raw(bytes)) => bytes,
        Some(Payload::Shape(of, value)) => xml::document(model, of, value),
        None => xml::document(model, shape, output),
    };
    (body, headers(model, shape, output))
}

enum Payload<'a> {
    Raw(Vec<u8>),
    Shape(&'a Shape, &'a Value),
}

fn payload<'a>(model: &'a Model, shape: &'a Shape, output: &'a Value) -> Option<Payload<'a>> {
    let Kind::Structure { payload: Some(payload), .. } = &shape.kind else { return None };
    let member = shape.member(payload)?;
    let (of, value) = (model.shape(member.of), &output[*payload]);
    Some(match (&of.kind, value) {
        (Kind::Blob, value) => {
            Payload::Raw(STANDARD.decode(value.as_str().unwrap_or_default()).unwrap_or_default())
        }
        (Kind::String | Kind::Enum(_), value) => Payload::Raw(value.as_str().unwrap_or_default().into()),
        (_, value) => Payload::Shape(of, value),
    })
}

fn headers(model: &Model, shape: &Shape, output: &Value) -> Headers {
    let mut headers = Vec::new();
    for member in shape.members() {
        let wire = member.wire.unwrap_or(member.name);
        match (member.location, &output[member.name]) {
            (_, Value::Null) => {}
            (Location::Header, value) => {
                let value = match model.shape(member.of).kind {
                    Kind::Timestamp(format) => time::write(value, format.unwrap_or(TimestampFormat::Rfc822)),
                    _ => value.clone(),
                };
                headers.push((wire.to_owned(), plain(&value)));
            }
            (Location::Headers, Value::Object(map)) => {
                headers.extend(map.iter().map(|(key, value)| (format!("{wire}{key}"), plain(value))));
            }
            _ => {}
        }
    }
    headers
}

/// A scalar as it stands in a header or an element.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_matched_by_its_template() {
        for (template, path, expected) in [
            ("/clusters", "/clusters", Some(vec![])),
            ("/clusters", "/clusters/", None),
            ("/clusters/{name}", "/clusters/a%2Fb", Some(vec!["a/b"])),
            ("/clusters/{name}", "/clusters/", None),
            ("/clusters/{name}", "/clusters/a/b", None),
            ("/tags/{arn}", "/tags/arn%3Aaws%3Aeks", Some(vec!["arn:aws:eks"])),
            ("/{bucket}/{key+}", "/b/c/d", Some(vec!["b", "c/d"])),
            ("/{bucket}/{key+}", "/b", None),
            ("/x/{name}", "/x/%zz", None),
        ] {
            let found = labels(template, path);
            let found = found.as_ref().map(|all| all.iter().map(|(_, text)| text.as_str()).collect());
            assert_eq!(found, expected, "{template} {path}");
        }
    }
}
