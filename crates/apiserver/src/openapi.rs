//! `/openapi/v3` and `/openapi/v2`: what clients validate and explain with. Each document is made when it is first asked for.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use gate::Catalog;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use object::Status;
use ring::digest::{SHA256, digest};
use schema::Kind;
use serde_json::{Value, json};

use crate::aggregate::Known;
use crate::query::Query;
use crate::respond::{self, Answer};
use crate::shared::Shared;
use crate::{compress, negotiate, openapi_protobuf};

/// How long a document that is asked for by its hash may be kept.
const A_YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The documents of one server.
pub(crate) struct Documents {
    /// `api/v1`, `apis/apps/v1`
    groups: BTreeMap<String, Group>,
    index: Document,
    /// Of the index, and so of all groups together.
    hash: String,
    /// The documents of extension servers.
    theirs: Vec<Value>,
    v2: Made,
}

struct Group {
    kinds: Vec<Arc<Kind>>,
    hash: String,
    /// Shared with the documents of the next catalog, if the group stays as it is.
    made: Arc<Made>,
}

/// A document in each encoding that somebody asked for.
#[derive(Default)]
struct Made {
    json: OnceLock<Document>,
    protobuf: OnceLock<Document>,
}

/// Kept as most clients read it; for the others it is unpacked when they ask.
struct Document {
    gzip: Bytes,
}

impl Document {
    fn of(value: &Value) -> Self {
        Self::text(value.to_string().into())
    }

    fn text(plain: Bytes) -> Self {
        // Compressing into memory cannot fail; an empty document would only mean that clients see it is none.
        Self { gzip: compress::bytes(&plain).unwrap_or_default() }
    }

    fn plain(&self) -> Result<Vec<u8>, Status> {
        compress::unpack(&self.gzip)
            .map_err(|error| Status::internal(format!("unpacking a document: {error}")))
    }
}

impl Made {
    fn encoded(
        &self,
        media: &str,
        version: &openapi_protobuf::Version,
        make: impl FnOnce() -> Value,
    ) -> Result<&Document, Status> {
        let json = self.json.get_or_init(|| Document::of(&make()));
        if media == respond::JSON {
            return Ok(json);
        }
        if let Some(made) = self.protobuf.get() {
            return Ok(made);
        }
        let value = serde_json::from_slice(&json.plain()?)
            .map_err(|error| Status::internal(format!("reading a document: {error}")))?;
        let encoded = openapi_protobuf::encode(version, &value);
        Ok(self.protobuf.get_or_init(|| Document::text(encoded.into())))
    }
}

impl Documents {
    pub(crate) fn of(catalog: &Catalog, remotes: &Known, version: &str, before: Option<&Self>) -> Self {
        let mut kinds: BTreeMap<String, Vec<Arc<Kind>>> = BTreeMap::new();
        for kind in catalog.all() {
            let path = match kind.group {
                "" => format!("api/{}", kind.version),
                group => format!("apis/{group}/{}", kind.version),
            };
            kinds.entry(path).or_default().push(kind.clone());
        }
        let group = |(path, kinds): (String, Vec<Arc<Kind>>)| {
            let known = before.and_then(|before| before.groups.get(&path)).filter(|known| {
                known.kinds.len() == kinds.len()
                    && known.kinds.iter().zip(&kinds).all(|(known, kind)| Arc::ptr_eq(known, kind))
            });
            let (hash, made) = match known {
                Some(known) => (known.hash.clone(), known.made.clone()),
                None => (hash(&identity(version, &path, &kinds)), Arc::default()),
            };
            (path, Group { kinds, hash, made })
        };
        let mut groups: BTreeMap<String, Group> = kinds.into_iter().map(group).collect();
        for remote in remotes.values() {
            let path = format!("apis/{}/{}", remote.group, remote.version);
            if let Some(theirs) = remote.openapi.as_ref().filter(|_| !groups.contains_key(&path)) {
                let made = Made { json: OnceLock::from(Document::of(theirs)), protobuf: OnceLock::new() };
                let group =
                    Group { kinds: Vec::new(), hash: hash(&theirs.to_string()), made: Arc::new(made) };
                groups.insert(path, group);
            }
        }
        let entry = |(path, group): (&String, &Group)| {
            let url = format!("/openapi/v3/{path}?hash={}", group.hash);
            (path.clone(), json!({"serverRelativeURL": url}))
        };
        let paths: serde_json::Map<String, Value> = groups.iter().map(entry).collect();
        let index = json!({"paths": paths}).to_string();
        let theirs = remotes.values().filter_map(|remote| remote.openapi.clone()).collect();
        Self { groups, hash: hash(&index), index: Document::text(index.into()), theirs, v2: Made::default() }
    }
}

/// What the document of a group is made of: compiled-in rows change with the program, which the version tells apart.
fn identity(version: &str, path: &str, kinds: &[Arc<Kind>]) -> String {
    let mut text = format!("{version} {path}");
    for kind in kinds {
        if let Some(custom) = &kind.custom {
            text.push_str(&format!(" {} {:x} {:?}", kind.type_name, custom.fingerprint(), kind.subresources));
        }
    }
    text
}

fn hash(text: &str) -> String {
    digest(&SHA256, text.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02X}")).collect()
}

pub(crate) fn answer(shared: &Shared, path: &str, query: &Query, headers: &HeaderMap) -> Option<Answer> {
    let published = shared.published();
    let documents = &published.openapi;
    let version = &shared.config.version.git;
    match path.trim_end_matches('/') {
        "/openapi/v2" => {
            let mut answer = match encoding(headers, &openapi_protobuf::V2) {
                None => not_acceptable(),
                Some(media) => {
                    let make = || swagger(documents, version);
                    let made = documents.v2.encoded(media, &openapi_protobuf::V2, make);
                    send(made, media, &documents.hash, headers)
                }
            };
            // Which of them are compressed is known beforehand here.
            answer.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
            answer.headers_mut().append(header::VARY, HeaderValue::from_static("Accept"));
            Some(answer)
        }
        "/openapi/v3" => Some(send(Ok(&documents.index), respond::JSON, &documents.hash, headers)),
        path => {
            let name = path.strip_prefix("/openapi/v3/")?;
            let Some(group) = documents.groups.get(name) else {
                return Some(empty(StatusCode::NOT_FOUND));
            };
            let Some(media) = encoding(headers, &openapi_protobuf::V3) else {
                return Some(not_acceptable());
            };
            let asked = query.get("hash");
            if !asked.is_empty() && asked != group.hash {
                let mut answer = empty(StatusCode::MOVED_PERMANENTLY);
                let place = format!("/openapi/v3/{name}?hash={}", group.hash);
                answer
                    .headers_mut()
                    .extend(HeaderValue::try_from(place).ok().map(|place| (header::LOCATION, place)));
                return Some(answer);
            }
            let kinds = group.kinds.iter().map(|kind| &**kind);
            let make = || schema::openapi::v3(kinds::types(), &kinds::words(), kinds, version);
            let made = group.made.encoded(media, &openapi_protobuf::V3, make);
            let mut answer = send(made, media, &group.hash, headers);
            // A path with the right hash never means anything else.
            if !asked.is_empty() {
                let in_a_year = httpdate::fmt_http_date(SystemTime::now() + A_YEAR);
                let headers = answer.headers_mut();
                headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
                headers.extend(HeaderValue::try_from(in_a_year).ok().map(|then| (header::EXPIRES, then)));
            }
            Some(answer)
        }
    }
}

/// The encoding of a document that its reader takes first, as the answer names it. None: it takes none of them.
fn encoding(headers: &HeaderMap, version: &openapi_protobuf::Version) -> Option<&'static str> {
    let [protobuf, old] = version.media_types;
    match negotiate::first_of(headers, &[respond::JSON, protobuf, old])? {
        respond::JSON => Some(respond::JSON),
        _ => Some(protobuf),
    }
}

fn empty(code: StatusCode) -> Answer {
    let mut answer = Answer::new(respond::full(Bytes::new()));
    *answer.status_mut() = code;
    answer
}

fn not_acceptable() -> Answer {
    let mut answer = empty(StatusCode::NOT_ACCEPTABLE);
    answer.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    answer
}

fn send(document: Result<&Document, Status>, media: &'static str, hash: &str, headers: &HeaderMap) -> Answer {
    let tag = format!("\"{hash}\"");
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|given| given.as_bytes() == tag.as_bytes());
    let gzip = negotiate::reads_gzip(headers);
    let made = document.and_then(|document| match (known, gzip) {
        (true, _) => Ok(empty(StatusCode::NOT_MODIFIED)),
        (false, true) => Ok(respond::bytes(StatusCode::OK, media, document.gzip.clone())),
        (false, false) => Ok(respond::bytes(StatusCode::OK, media, document.plain()?)),
    });
    let mut answer = match made {
        Ok(answer) => answer,
        Err(status) => return respond::failure(&status),
    };
    answer.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    if gzip && !known {
        compress::mark(answer.headers_mut());
    }
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        answer.headers_mut().insert(header::ETAG, tag);
    }
    answer
}

/// OpenAPI v2 from the v3 documents: the same schemas under `definitions`, with their references moved.
fn swagger(documents: &Documents, version: &str) -> Value {
    let mut definitions = serde_json::Map::new();
    let mut paths = serde_json::Map::new();
    let words = kinds::words();
    for group in documents.groups.values() {
        let mut document =
            schema::openapi::v3(kinds::types(), &words, group.kinds.iter().map(|kind| &**kind), version);
        if let Value::Object(schemas) = document["components"]["schemas"].take() {
            definitions.extend(schemas);
        }
        for kind in &group.kinds {
            for (path, method, action) in [("", "post", "post"), ("/{name}", "patch", "patch")] {
                let at = collection_path(kind) + path;
                let gvk = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
                let parameters = json!([{"name": "fieldValidation", "in": "query", "type": "string", "uniqueItems": true},
                    {"name": "dryRun", "in": "query", "type": "string", "uniqueItems": true}]);
                paths.entry(at).or_insert_with(|| json!({}))[method] = json!({
                    "x-kubernetes-action": action, "x-kubernetes-group-version-kind": gvk,
                    "parameters": parameters, "responses": {"200": {"description": "OK"}},
                });
            }
        }
    }
    for theirs in &documents.theirs {
        for (name, schema) in schema::path::members(theirs, "components.schemas") {
            definitions.entry(name.clone()).or_insert_with(|| schema.clone());
        }
    }
    for definition in definitions.values_mut() {
        open(definition);
        flatten(definition);
    }
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": version},
        "paths": paths,
        "definitions": definitions,
    })
}

/// Of a custom resource whose schema keeps whatever it is given, kubectl is told nothing that it could refuse by.
fn open(definition: &mut Value) {
    if definition.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) {
        let kinds = definition["x-kubernetes-group-version-kind"].take();
        *definition = json!({"type": "object", "x-kubernetes-group-version-kind": kinds});
    }
}

fn collection_path(kind: &Kind) -> String {
    let root = if kind.group.is_empty() {
        format!("/api/{}", kind.version)
    } else {
        format!("/apis/{}/{}", kind.group, kind.version)
    };
    let namespace = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
    format!("{root}{namespace}/{}", kind.resource.plural())
}

/// Version 2 has `$ref` into definitions and no `allOf` around it; a type of several kinds is none, and where unknown fields are kept it
/// says nothing, since clients that read it refuse what it does not list.
fn flatten(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if let Some(Value::Array(all)) = members.remove("allOf")
                && let Some(Value::Object(only)) = all.into_iter().next()
            {
                members.extend(only);
            }
            for name in ["anyOf", "not", "nullable", "oneOf"] {
                members.remove(name);
            }
            if members.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) {
                for name in ["items", "properties", "type"] {
                    members.remove(name);
                }
            }
            if let Some(Value::String(reference)) = members.get_mut("$ref") {
                *reference = reference.replace("#/components/schemas/", "#/definitions/");
            }
            for (name, inner) in members.iter_mut() {
                match (name.as_str(), inner) {
                    // Its members are names of fields, which may be any.
                    ("properties", Value::Object(fields)) => fields.values_mut().for_each(flatten),
                    // Values, not schemas.
                    ("default" | "enum" | "example", _) => {}
                    (_, inner) => flatten(inner),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(flatten),
        _ => {}
    }
}
