//! What the client wants to read, and what it sends: <https://kubernetes.io/docs/reference/using-api/api-concepts/#alternate-representations-of-resources>

use http::{HeaderMap, header};
use object::{Reason, Status};
use schema::Kind;

use crate::query::Query;

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Media {
    /// Behind its switch (KEP-4222).
    Cbor,
    Json,
    Protobuf,
    Yaml,
}

/// How objects are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Shape {
    /// As they are stored.
    Whole,
    /// `Table`.
    Table(IncludeObject, Meta),
    /// `PartialObjectMetadata`, or the list of it.
    Metadata(Meta),
}

/// The version of `meta.k8s.io` that a shape is told in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Meta {
    V1,
    V1Beta1,
}

impl Meta {
    pub(crate) const fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// What a table's rows carry besides their cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum IncludeObject {
    None,
    Metadata,
    Object,
}

/// What a request is answered with: which shape, in which encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct View {
    pub(crate) shape: Shape,
    pub(crate) media: Media,
}

/// What is asked for: not everything can be told of everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Something that is only told as it is: reviews, tokens, a Status.
    Document,
    List,
    Object,
    Watch,
}

impl Media {
    /// In upstream's order, which is the order in which a wildcard takes them.
    const ALL: [Self; 4] = [Self::Json, Self::Yaml, Self::Protobuf, Self::Cbor];

    /// What can be read and written; CBOR only where it is switched on.
    fn served(cbor: bool) -> &'static [Self] {
        if cbor { &Self::ALL } else { &Self::ALL[..3] }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Cbor => "application/cbor",
            Self::Json => "application/json",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
            Self::Yaml => "application/yaml",
        }
    }

    /// The content type of a watch; None: it cannot be one.
    pub(crate) const fn of_watch(self) -> Option<&'static str> {
        match self {
            Self::Cbor => Some("application/cbor-seq"),
            Self::Json => Some("application/json"),
            Self::Protobuf => Some("application/vnd.kubernetes.protobuf;stream=watch"),
            Self::Yaml => None,
        }
    }
}

/// The media types that objects are read and written in: upstream's words of 406 and 415.
pub(crate) fn listed(cbor: bool) -> String {
    let names: Vec<&str> = Media::served(cbor).iter().map(|media| media.name()).collect();
    names.join(", ")
}

fn not_acceptable(asked: Asked, cbor: bool) -> Status {
    let accepted = if asked == Asked::Watch {
        let streamed = Media::served(cbor).iter().filter_map(|media| match media {
            Media::Json => Some("application/json;stream=watch"),
            other => other.of_watch(),
        });
        streamed.collect::<Vec<_>>().join(", ")
    } else {
        listed(cbor)
    };
    Status::new(Reason::NotAcceptable, format!("only the following media types are accepted: {accepted}"))
}

/// One clause of an Accept header: `application/json;as=Table;v=v1;g=meta.k8s.io;q=0.8`.
struct Clause<'a> {
    media: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl Clause<'_> {
    fn get(&self, name: &str) -> &str {
        self.parameters.iter().find(|(held, _)| *held == name).map_or("", |(_, value)| value)
    }

    fn takes(&self, media: &str) -> bool {
        matches!(self.media, "*/*" | "*" | "application/*") || self.media == media
    }

    fn is_json(&self) -> bool {
        self.takes("application/json")
    }

    /// How specific it is: `*/*` after `application/*` after `application/json`.
    fn rank(&self) -> u8 {
        match self.media {
            "*/*" | "*" => 2,
            "application/*" => 1,
            _ => 0,
        }
    }
}

/// The clauses by preference: the highest `q` first, then the most specific, otherwise in their order. `q=0` is a refusal.
fn clauses(headers: &HeaderMap) -> Vec<Clause<'_>> {
    let mut ranked: Vec<((i32, u8), Clause<'_>)> = Vec::new();
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
            ranked.push((((quality * -1000.0) as i32, clause.rank()), clause));
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

/// How a request is answered; 406 if nothing that is asked for can be made.
pub(crate) fn view(
    headers: &HeaderMap,
    query: &Query,
    kind: &Kind,
    asked: Asked,
    cbor: bool,
) -> Result<View, Status> {
    let clauses = clauses(headers);
    if clauses.is_empty() {
        return Ok(View { shape: Shape::Whole, media: Media::Json });
    }
    for clause in &clauses {
        for media in Media::served(cbor).iter().copied().filter(|media| clause.takes(media.name())) {
            if let Some(wanted) = shape_of(clause, media, kind, asked) {
                if asked == Asked::Watch && media.of_watch().is_none() {
                    return Err(not_acceptable(asked, cbor));
                }
                return Ok(View { shape: checked(wanted, query, kind, asked)?, media });
            }
        }
    }
    Err(not_acceptable(asked, cbor))
}

/// What a clause asks for.
#[derive(Clone, Copy)]
enum Wanted {
    Whole,
    Table(Meta),
    Metadata(Meta),
    MetadataList(Meta),
}

/// The shape in which a clause wants its answer, if it can be made in this encoding.
fn shape_of(clause: &Clause<'_>, media: Media, kind: &Kind, asked: Asked) -> Option<Wanted> {
    if !matches!(clause.get("stream"), "" | "watch")
        || (clause.get("stream") == "watch" && media == Media::Yaml)
    {
        return None;
    }
    let target = (clause.get("as"), clause.get("g"), clause.get("v"));
    if target == ("", "", "") {
        // Custom resources have no protobuf of their own; their metadata has.
        let has_none = kind.custom.is_some() && media == Media::Protobuf && asked != Asked::Document;
        return (!has_none).then_some(Wanted::Whole);
    }
    let (name, "meta.k8s.io", version) = target else { return None };
    let meta = match version {
        "v1" => Meta::V1,
        "v1beta1" => Meta::V1Beta1,
        _ => return None,
    };
    match name {
        _ if asked == Asked::Document => None,
        "Table" => matches!(media, Media::Json | Media::Yaml).then_some(Wanted::Table(meta)),
        "PartialObjectMetadata" => Some(Wanted::Metadata(meta)),
        "PartialObjectMetadataList" => Some(Wanted::MetadataList(meta)),
        _ => None,
    }
}

/// Whether what is wanted fits what is asked for.
fn checked(wanted: Wanted, query: &Query, kind: &Kind, asked: Asked) -> Result<Shape, Status> {
    let mismatch = |name: &str, is: &str, list: &str| {
        let go_type = match &kind.custom {
            Some(_) => format!("*unstructured.Unstructured{list}"),
            None => format!(
                "*{}.{}{list}",
                if kind.group.is_empty() { "core" } else { kind.group.split('.').next().unwrap_or_default() },
                kind.kind
            ),
        };
        Status::new(
            Reason::NotAcceptable,
            format!("you requested {name}, but the requested object is {is} ({go_type})"),
        )
    };
    match wanted {
        Wanted::Whole => Ok(Shape::Whole),
        Wanted::Table(meta) => Ok(Shape::Table(include_object(query)?, meta)),
        Wanted::Metadata(_) if asked == Asked::List => {
            Err(mismatch("PartialObjectMetadata", "a list", "List"))
        }
        Wanted::MetadataList(_) if asked == Asked::Object => {
            Err(mismatch("PartialObjectMetadataList", "not a list", ""))
        }
        Wanted::Metadata(meta) | Wanted::MetadataList(meta) => Ok(Shape::Metadata(meta)),
    }
}

/// The encoding of a failure: what the client reads best, JSON if nothing.
pub(crate) fn media_of_failure(headers: &HeaderMap, cbor: bool) -> Media {
    let clauses = clauses(headers);
    let plain = clauses.iter().filter(|clause| clause.get("as").is_empty());
    plain
        .filter_map(|clause| Media::served(cbor).iter().copied().find(|media| clause.takes(media.name())))
        .next()
        .unwrap_or(Media::Json)
}

/// Whether the client reads the aggregated discovery document (KEP-3352).
pub(crate) fn reads_aggregated(headers: &HeaderMap) -> bool {
    // Clients also ask for older versions of it, which are passed over.
    let target = |clause: &Clause<'_>| {
        (clause.get("as").to_owned(), clause.get("g").to_owned(), clause.get("v").to_owned())
    };
    let clauses = clauses(headers);
    let known = clauses
        .iter()
        .filter(|clause| clause.is_json())
        .map(target)
        .find(|target| target.0.is_empty() || (target.0 == "APIGroupDiscoveryList" && target.2 == "v2"));
    known.is_some_and(|(_, group, _)| group == "apidiscovery.k8s.io")
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
        other => Err(Status::bad_request(format!(
            "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', 'Object', 'None', or empty"
        ))),
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

    fn seen(accept: &str, asked: Asked, cbor: bool) -> Result<View, String> {
        let mut headers = HeaderMap::new();
        if !accept.is_empty() {
            headers.insert(header::ACCEPT, accept.parse().expect("a header"));
        }
        let pods = kinds::by_path("", "v1", "pods").expect("pods");
        view(&headers, &Query::default(), pods, asked, cbor).map_err(|status| status.message)
    }

    fn check(accept: &str, expected: (Shape, Media)) {
        let (shape, media) = expected;
        assert_eq!(seen(accept, Asked::List, false), Ok(View { shape, media }), "{accept}");
    }

    fn refused(accept: &str, asked: Asked, words: &str) {
        let told = seen(accept, asked, false).expect_err(accept);
        assert!(told.contains(words), "{accept}: {told}");
    }

    #[test]
    fn the_first_shape_that_can_be_made_is_taken() {
        let table = (Shape::Table(IncludeObject::Metadata, Meta::V1), Media::Json);
        let json = (Shape::Whole, Media::Json);
        check("", json);
        check("*/*", json);
        check("application/*", json);
        check("*/*, application/yaml", (Shape::Whole, Media::Yaml));
        check("application/vnd.kubernetes.protobuf,application/json", (Shape::Whole, Media::Protobuf));
        check("application/cbor, application/json", json);
        check("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", table);
        check("application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json", json);
        check("application/json;q=0.5,application/json;as=Table;v=v1;g=meta.k8s.io;q=0.9", table);
        check(
            "application/json;as=Table;v=v1beta1;g=meta.k8s.io",
            (Shape::Table(IncludeObject::Metadata, Meta::V1Beta1), Media::Json),
        );
        check(
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
            (Shape::Metadata(Meta::V1), Media::Protobuf),
        );
        assert_eq!(seen("application/cbor", Asked::Object, true).map(|view| view.media), Ok(Media::Cbor));
    }

    #[test]
    fn what_cannot_be_made_is_told() {
        let all = "only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf";
        refused("text/html", Asked::Object, all);
        refused("application/cbor", Asked::Object, all);
        refused("application/json;as=Table;v=v2;g=meta.k8s.io", Asked::List, all);
        refused("application/json;as=Table;v=v1;g=meta.k8s.io", Asked::Document, all);
        refused(
            "application/json;stream=tail",
            Asked::Watch,
            "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch",
        );
        refused("application/yaml", Asked::Watch, "accepted: application/json;stream=watch");
        refused(
            "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
            Asked::List,
            "you requested PartialObjectMetadata, but the requested object is a list (*core.PodList)",
        );
        refused(
            "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
            Asked::Object,
            "you requested PartialObjectMetadataList, but the requested object is not a list (*core.Pod)",
        );
    }
}
