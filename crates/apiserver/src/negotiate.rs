//! What the client wants to read, and what it sends.

use http::{HeaderMap, header};
use object::{Reason, Status};

use crate::query::Query;

/// How objects are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// As they are stored.
    Whole,
    /// `meta.k8s.io/v1` `Table`.
    Table(IncludeObject),
    /// `PartialObjectMetadata`, or the list of it.
    Metadata,
}

/// What a table's rows carry besides their cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IncludeObject {
    None,
    Metadata,
    Object,
}

const READABLE: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// One clause of an Accept header: `application/json;as=Table;v=v1;g=meta.k8s.io;q=0.8`.
struct Clause<'a> {
    media: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl Clause<'_> {
    fn get(&self, name: &str) -> &str {
        self.parameters.iter().find(|(held, _)| *held == name).map_or("", |(_, value)| value)
    }

    fn is_json(&self) -> bool {
        // JSON text is YAML, so a client that only reads YAML can read it too.
        matches!(self.media, "application/json" | "application/yaml" | "application/*" | "*/*" | "*")
    }
}

/// The clauses by preference: the highest `q` first, otherwise in their order. `q=0` is a refusal.
fn clauses(headers: &HeaderMap) -> Vec<Clause<'_>> {
    let mut ranked: Vec<(i32, Clause<'_>)> = Vec::new();
    let texts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    for part in texts.flat_map(|text| text.split(',')) {
        let mut fields = part.split(';').map(str::trim);
        let media = fields.next().unwrap_or_default();
        let parameters: Vec<_> = fields
            .filter_map(|field| field.split_once('='))
            .map(|(key, value)| (key.trim(), value.trim().trim_matches('"')))
            .collect();
        let clause = Clause { media, parameters };
        let quality = clause.get("q").parse::<f32>().unwrap_or(1.0);
        if quality > 0.0 && !media.is_empty() {
            ranked.push(((quality * -1000.0) as i32, clause));
        }
    }
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, clause)| clause).collect()
}

/// The client's first choice, if it is one of these media types; anything else it prefers is JSON's to answer.
pub(crate) fn first_of(headers: &HeaderMap, media: &[&'static str]) -> Option<&'static str> {
    let clauses = clauses(headers);
    let first = clauses.iter().find(|clause| clause.is_json() || media.contains(&clause.media))?;
    media.iter().copied().find(|one| *one == first.media)
}

/// The shape for objects and lists; 406 if nothing that is asked for can be made.
pub(crate) fn shape(headers: &HeaderMap, query: &Query) -> Result<Shape, Status> {
    let clauses = clauses(headers);
    if clauses.is_empty() {
        return Ok(Shape::Whole);
    }
    for clause in clauses.iter().filter(|clause| clause.is_json()) {
        match (clause.get("as"), clause.get("g"), clause.get("v")) {
            ("", ..) => return Ok(Shape::Whole),
            ("Table", "meta.k8s.io", "v1") => return Ok(Shape::Table(include_object(query)?)),
            ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => {
                return Ok(Shape::Metadata);
            }
            _ => {}
        }
    }
    Err(not_acceptable())
}

pub(crate) fn not_acceptable() -> Status {
    Status::new(Reason::NotAcceptable, format!("only the following media types are accepted: {READABLE}"))
}

/// Whether plain JSON can be answered: for subresources, discovery and reviews.
pub(crate) fn reads_json(headers: &HeaderMap) -> bool {
    let clauses = clauses(headers);
    clauses.is_empty() || clauses.iter().any(Clause::is_json)
}

/// Whether the client reads the aggregated discovery document (KEP-3352).
pub(crate) fn reads_aggregated(headers: &HeaderMap) -> bool {
    clauses(headers).iter().find(|clause| clause.is_json()).is_some_and(|clause| {
        (clause.get("as"), clause.get("g"), clause.get("v"))
            == ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2")
    })
}

pub(crate) fn reads_gzip(headers: &HeaderMap) -> bool {
    let texts = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).any(|part| {
        let mut fields = part.split(';').map(str::trim);
        let named = fields.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        named && !fields.any(|field| matches!(field, "q=0" | "q=0.0"))
    })
}

fn include_object(query: &Query) -> Result<IncludeObject, Status> {
    match query.get("includeObject") {
        "" | "Metadata" => Ok(IncludeObject::Metadata),
        "None" => Ok(IncludeObject::None),
        "Object" => Ok(IncludeObject::Object),
        other => Err(Status::bad_request(format!("unrecognized includeObject value: {other:?}"))),
    }
}

/// The media type of a request's body, without its parameters.
pub(crate) fn content_type(headers: &HeaderMap) -> &str {
    let text = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accept: &str, expected: Option<Shape>) {
        let mut headers = HeaderMap::new();
        if !accept.is_empty() {
            headers.insert(header::ACCEPT, accept.parse().expect("a header"));
        }
        assert_eq!(shape(&headers, &Query::default()).ok(), expected, "{accept}");
    }

    #[test]
    fn the_first_shape_that_can_be_made_is_taken() {
        let table = Some(Shape::Table(IncludeObject::Metadata));
        check("", Some(Shape::Whole));
        check("*/*", Some(Shape::Whole));
        check("application/vnd.kubernetes.protobuf,application/json", Some(Shape::Whole));
        check("application/vnd.kubernetes.protobuf", None);
        check("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", table);
        check("application/json;as=Table;v=v1beta1;g=meta.k8s.io", None);
        check("application/json;q=0.5,application/json;as=Table;v=v1;g=meta.k8s.io;q=0.9", table);
        check("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", Some(Shape::Metadata));
        check("text/html", None);
    }
}
