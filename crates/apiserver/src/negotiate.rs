//! What the client wants to read, and what it sends: <https://kubernetes.io/docs/reference/using-api/api-concepts/#alternate-representations-of-resources>

use http::{HeaderMap, Request, header};
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
    /// A `Scale`, which is a document that has columns.
    Scale,
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

/// What is told before a list of what is accepted.
const ONLY: &str = "only the following media types are accepted: ";

fn not_acceptable(cbor: bool) -> Status {
    Status::new(Reason::NotAcceptable, format!("{ONLY}{}", listed(cbor)))
}

/// The media types of watches.
fn streamed(cbor: bool) -> Vec<&'static str> {
    let of_watch = |media: &Media| match media {
        Media::Json => Some("application/json;stream=watch"),
        other => other.of_watch(),
    };
    Media::served(cbor).iter().filter_map(of_watch).collect()
}

/// Upstream's router looks at what is accepted before anybody else does, by names alone: no parameters, and no `application/*`.
/// What it knows of are the built-in kinds and their discovery. `own` has what is served besides objects: the text of a log.
///
/// # Errors
/// 406, in the router's words.
pub(crate) fn check_route(
    headers: &HeaderMap,
    own: &[&'static str],
    with_streams: bool,
    cbor: bool,
) -> Result<(), Status> {
    let mut produced: Vec<&str> = own.to_vec();
    produced.extend(Media::served(cbor).iter().map(|media| media.name()));
    if with_streams {
        produced.extend(streamed(cbor));
    }
    check_produced(headers, &produced)
}

/// The same of what is only told in JSON.
///
/// # Errors
/// 406.
pub(crate) fn check_json(headers: &HeaderMap) -> Result<(), Status> {
    check_produced(headers, &["application/json"])
}

fn check_produced(headers: &HeaderMap, produced: &[&str]) -> Result<(), Status> {
    let Some(accept) = first_line(headers) else { return Ok(()) };
    let mut names = accept.split(',').map(|part| part.split(';').next().unwrap_or_default().trim());
    if names.any(|name| name == "*/*" || produced.contains(&name)) {
        return Ok(());
    }
    let words = format!("406: Not Acceptable\n\nAvailable representations: {}", produced.join(", "));
    Err(Status::of_no_resource(Reason::NotAcceptable, words))
}

/// What is accepted; of several lines, upstream reads the first. None: whatever there is.
fn first_line(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::ACCEPT)?.to_str().ok().filter(|accept| !accept.is_empty())
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
    for part in first_line(headers).into_iter().flat_map(|text| text.split(',')) {
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

/// The client's first choice among these media types, the first of them if it does not say. None: it wants none of them.
pub(crate) fn first_of(headers: &HeaderMap, media: &[&'static str]) -> Option<&'static str> {
    if first_line(headers).is_none() {
        return media.first().copied();
    }
    let clauses = clauses(headers);
    clauses.iter().find_map(|clause| media.iter().copied().find(|media| clause.takes(media)))
}

/// How a page of the server's own is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    Text,
    /// As the object of its kind, in this encoding.
    Object {
        media: &'static str,
        version: &'static str,
    },
}

/// How a page is told that is text, or an object if somebody asks for its kind in one of these versions.
///
/// # Errors
/// 406.
pub(crate) fn page(
    headers: &HeaderMap,
    group: &str,
    kind: &str,
    versions: &[&'static str],
) -> Result<Page, Status> {
    const TEXT: &str = "text/plain";
    const MEDIA: [&str; 3] = ["application/json", "application/yaml", TEXT];
    if first_line(headers).is_none() {
        return Ok(Page::Text);
    }
    for clause in clauses(headers) {
        for media in MEDIA.into_iter().filter(|media| clause.takes(media)) {
            let target = (clause.get("as"), clause.get("g"));
            if media == TEXT && target.0.is_empty() {
                return Ok(Page::Text);
            }
            let version = versions.iter().find(|version| **version == clause.get("v"));
            if let Some(version) = version.filter(|_| media != TEXT && target == (kind, group)) {
                return Ok(Page::Object { media, version });
            }
        }
    }
    Err(Status::new(Reason::NotAcceptable, format!("{ONLY}{}", MEDIA.join(", "))))
}

/// How a request is answered; 406 if nothing that is asked for can be made.
pub(crate) fn view(
    headers: &HeaderMap,
    query: &Query,
    kind: &Kind,
    asked: Asked,
    cbor: bool,
) -> Result<View, Status> {
    if first_line(headers).is_none() {
        return Ok(View { shape: Shape::Whole, media: Media::Json });
    }
    if kind.custom.is_none() {
        check_route(headers, &[], matches!(asked, Asked::List | Asked::Watch), cbor)?;
    }
    let clauses = clauses(headers);
    for clause in &clauses {
        for media in Media::served(cbor).iter().copied().filter(|media| clause.takes(media.name())) {
            if let Some(wanted) = shape_of(clause, media, kind, asked) {
                if asked == Asked::Watch && media.of_watch().is_none() {
                    let words = format!("{ONLY}{}", streamed(cbor).join(", "));
                    return Err(Status::new(Reason::NotAcceptable, words));
                }
                return Ok(View { shape: checked(wanted, query, kind, asked)?, media });
            }
        }
    }
    Err(not_acceptable(cbor))
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
    if !streams(clause, media) {
        return None;
    }
    let target = (clause.get("as"), clause.get("g"), clause.get("v"));
    if !matches!(clause.get("sv"), "" | "v1") {
        return None;
    }
    if target == ("", "", "") {
        // Custom resources have no protobuf of their own; their metadata has.
        let is_typed = matches!(asked, Asked::Document | Asked::Scale);
        let has_none = kind.custom.is_some() && media == Media::Protobuf && !is_typed;
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
        Wanted::MetadataList(_) if matches!(asked, Asked::Object | Asked::Scale) => {
            Err(mismatch("PartialObjectMetadataList", "not a list", ""))
        }
        Wanted::Metadata(meta) | Wanted::MetadataList(meta) => Ok(Shape::Metadata(meta)),
    }
}

/// The encoding of a document that is told as it is: discovery, a failure. None: nothing that is accepted can be made.
pub(crate) fn plain(headers: &HeaderMap, cbor: bool) -> Option<Media> {
    let clauses = clauses(headers);
    if clauses.is_empty() && first_line(headers).is_none() {
        return Some(Media::Json);
    }
    let is_plain = |clause: &&Clause<'_>, media: Media| {
        let has_none =
            ["as", "g", "v"].iter().all(|name| clause.parameters.iter().all(|(held, _)| held != name));
        has_none && clause.get("sv").is_empty() && streams(clause, media)
    };
    clauses.iter().find_map(|clause| {
        Media::served(cbor)
            .iter()
            .copied()
            .find(|media| clause.takes(media.name()) && is_plain(&clause, *media))
    })
}

/// The same of discovery.
///
/// # Errors
/// 406.
pub(crate) fn document(headers: &HeaderMap, cbor: bool) -> Result<Media, Status> {
    plain(headers, cbor).ok_or_else(|| not_acceptable(cbor))
}

/// The encoding in which a client reads the aggregated discovery document (KEP-3352): whoever takes it at all gets it, in front of what
/// else they take.
pub(crate) fn aggregated(headers: &HeaderMap) -> Option<Media> {
    let is_asked = |clause: &&Clause<'_>| {
        let target = (clause.get("as"), clause.get("g"), clause.get("v"));
        target == ("APIGroupDiscoveryList", "apidiscovery.k8s.io", "v2") && clause.get("sv").is_empty()
    };
    let clauses = clauses(headers);
    let mut asked = clauses.iter().filter(is_asked);
    asked.find_map(|clause| {
        let all = Media::served(false).iter().copied();
        all.into_iter().find(|media| clause.takes(media.name()) && streams(clause, *media))
    })
}

/// Whether what a clause says of streams can be had in this encoding.
fn streams(clause: &Clause<'_>, media: Media) -> bool {
    match clause.get("stream") {
        "" => true,
        "watch" => media.of_watch().is_some(),
        _ => false,
    }
}

/// How a client reads what it asks for best, whatever that is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wants {
    /// The encoding of a failure. None: nothing is accepted that is served.
    pub(crate) of_failure: Option<Media>,
    /// JSON in lines: for people, who ask with `?pretty=true` or with what they use.
    pub(crate) pretty: bool,
    pub(crate) gzip: bool,
}

impl Wants {
    pub(crate) fn of<B>(request: &Request<B>, cbor: bool) -> Self {
        let headers = request.headers();
        Self {
            of_failure: plain(headers, cbor),
            pretty: wants_pretty(headers, request.uri().query().unwrap_or_default()),
            gzip: reads_gzip(headers),
        }
    }
}

/// The programs with which people read.
const OF_PEOPLE: &[&str] = &["curl", "Wget", "Mozilla/5.0"];

fn wants_pretty(headers: &HeaderMap, query: &str) -> bool {
    if headers.contains_key(header::ACCEPT)
        && clauses(headers).iter().any(|clause| clause.get("pretty") == "1")
    {
        return true;
    }
    if query.contains("pretty") {
        let query = Query::parse(query);
        match query.get("pretty") {
            "" => {}
            text => return matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True"),
        }
    }
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    OF_PEOPLE.iter().any(|program| agent.starts_with(program))
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
        check("*/*, application/yaml", (Shape::Whole, Media::Yaml));
        check("application/json;sv=v1", json);
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
        let routed = "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf";
        for accept in ["text/html", "application/cbor", "application/*", "*"] {
            refused(accept, Asked::Object, routed);
        }
        refused("application/json;as=Table;v=v2;g=meta.k8s.io", Asked::List, all);
        refused("application/json;as=Table;v=v1;g=meta.k8s.io", Asked::Document, all);
        refused("application/json;stream=tail", Asked::Watch, all);
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
