//! What is served: `/api`, `/apis` and below, the old documents and the aggregated one (KEP-3352).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use bytes::Bytes;
use gate::Catalog;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use object::Status;
use ring::digest::{SHA256, SHA512, digest};
use schema::{Kind, Subresource};
use serde_json::{Value, json};

use crate::aggregate::{Known, Remote};
use crate::health;
use crate::negotiate::{self, Media};
use crate::respond::{self, Answer};
use crate::route::not_allowed;
use crate::shared::Shared;

/// What the content type of the aggregated document says besides its encoding.
const AGGREGATED: &str = ";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The order in which groups are told: clients that look a short name up take the first that has it.
const ORDER: &[&str] = &[
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
];

/// The documents of one catalog.
pub(crate) struct Documents {
    by_path: BTreeMap<String, Page>,
    /// `/api` and `/apis`
    aggregated: BTreeMap<&'static str, Aggregated>,
}

/// An aggregated document: megabytes of it, where many kinds are defined.
struct Aggregated {
    json: Bytes,
    etag: String,
    /// In the other encodings that somebody has asked for.
    encoded: Mutex<Vec<(Media, Bytes)>>,
}

impl Aggregated {
    fn of(value: &Value) -> Self {
        let json = value.to_string();
        let hash: String =
            digest(&SHA512, json.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        Self { json: json.into(), etag: format!("\"{hash}\""), encoded: Mutex::default() }
    }

    fn encoded(&self, media: Media) -> Result<Bytes, Status> {
        if media == Media::Json {
            return Ok(self.json.clone());
        }
        // Held while one is made, which others of its encoding want too.
        let mut encoded = self.encoded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = encoded.iter().find(|(known, _)| *known == media) {
            return Ok(known.clone());
        }
        let value: Value = serde_json::from_slice(&self.json).map_err(Status::internal)?;
        let made = Bytes::from(respond::encode(media, &value)?);
        encoded.push((media, made.clone()));
        Ok(made)
    }
}

/// One of the old documents.
struct Page {
    json: Bytes,
    /// Upstream's router leads to it, which knows methods; the others answer to any.
    is_routed: bool,
    /// What a version serves: `/api/v1`
    is_of_version: bool,
}

struct Group<'a> {
    name: &'static str,
    /// Preferred first.
    versions: Vec<(&'static str, Vec<&'a Kind>)>,
}

impl Documents {
    pub(crate) fn of<'a>(catalog: &'a Catalog, remotes: &Known) -> Self {
        let mut groups: Vec<Group<'_>> = catalog
            .groups()
            .iter()
            .map(|(name, versions)| {
                let kinds = |kinds: &'a BTreeMap<&'static str, Arc<Kind>>| {
                    kinds.values().map(|kind| &**kind).collect()
                };
                let mut versions: Vec<_> =
                    versions.iter().map(|(version, held)| (*version, kinds(held))).collect();
                versions.sort_by_key(|(version, _)| Reverse(schema::version_rank(version)));
                Group { name, versions }
            })
            .collect();
        groups.sort_by_key(|group| ORDER.iter().position(|name| *name == group.name).unwrap_or(ORDER.len()));
        let mut by_path = BTreeMap::new();
        let mut put = |path: String, value: Value, is_routed: bool| {
            let is_of_version = value["kind"] == "APIResourceList";
            by_path.insert(path, Page { json: value.to_string().into(), is_routed, is_of_version })
        };
        let extended = extended(catalog, remotes);
        let mut named: Vec<Value> =
            groups.iter().filter(|group| !group.name.is_empty()).map(api_group).collect();
        named.extend(extended.iter().map(|(name, versions)| extension_group(name, versions)));
        put("/apis".into(), json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": named}), false);
        for group in &groups {
            match group.name {
                "" => {
                    let versions: Vec<_> = group.versions.iter().map(|(version, _)| *version).collect();
                    put(
                        "/api".into(),
                        json!({"kind": "APIVersions", "versions": versions, "serverAddressByClientCIDRs": []}),
                        true,
                    );
                }
                name => {
                    let mut document = api_group(group);
                    document["kind"] = "APIGroup".into();
                    document["apiVersion"] = "v1".into();
                    put(format!("/apis/{name}"), document, false);
                }
            }
            for (version, kinds) in &group.versions {
                let path = if group.name.is_empty() {
                    format!("/api/{version}")
                } else {
                    format!("/apis/{}/{version}", group.name)
                };
                let is_routed = kinds.iter().all(|kind| kind.custom.is_none());
                put(path, resource_list(catalog, group.name, version, kinds), is_routed);
            }
        }
        for (name, versions) in &extended {
            let mut document = extension_group(name, versions);
            document["kind"] = "APIGroup".into();
            document["apiVersion"] = "v1".into();
            put(format!("/apis/{name}"), document, false);
        }
        let (core, rest): (Vec<_>, Vec<_>) = groups.iter().partition(|group| group.name.is_empty());
        let mut aggregated = [("/api", aggregated(&core)), ("/apis", aggregated(&rest))];
        if let Some(items) = aggregated[1].1["items"].as_array_mut() {
            items.extend(extended.iter().map(|(name, versions)| {
                let versions: Vec<Value> = versions.iter().map(|remote| remote.discovery()).collect();
                json!({"metadata": {"name": name}, "versions": versions})
            }));
        }
        let aggregated = aggregated.map(|(path, value)| (path, Aggregated::of(&value)));
        Self { by_path, aggregated: aggregated.into() }
    }
}

/// The groups that extension servers serve and this server does not, each with its versions, preferred first.
fn extended<'a>(catalog: &Catalog, remotes: &'a Known) -> BTreeMap<&'a str, Vec<&'a Remote>> {
    let mut groups: BTreeMap<&str, Vec<&Remote>> = BTreeMap::new();
    for remote in remotes.values().filter(|remote| !catalog.groups().contains_key(remote.group.as_str())) {
        groups.entry(&remote.group).or_default().push(remote);
    }
    for versions in groups.values_mut() {
        versions.sort_by_key(|remote| Reverse(schema::version_rank(&remote.version)));
    }
    groups
}

fn extension_group(name: &str, versions: &[&Remote]) -> Value {
    let version = |remote: &&Remote| json!({"groupVersion": group_version(name, &remote.version), "version": remote.version});
    let versions: Vec<Value> = versions.iter().map(version).collect();
    let preferred = versions.first().cloned().unwrap_or_default();
    json!({"name": name, "versions": versions, "preferredVersion": preferred})
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

fn api_group(group: &Group<'_>) -> Value {
    let version =
        |version: &str| json!({"groupVersion": group_version(group.name, version), "version": version});
    let versions: Vec<Value> = group.versions.iter().map(|(one, _)| version(one)).collect();
    let preferred = versions.first().cloned().unwrap_or_default();
    json!({"name": group.name, "versions": versions, "preferredVersion": preferred})
}

fn resource_list(catalog: &Catalog, group: &str, version: &str, kinds: &[&Kind]) -> Value {
    let mut resources = Vec::new();
    for kind in kinds {
        let plural = kind.resource.plural();
        let mut resource = json!({
            "name": plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": verbs(kind),
        });
        for (field, names) in [("shortNames", kind.short_names), ("categories", kind.categories)] {
            if !names.is_empty() {
                resource[field] = json!(names);
            }
        }
        if kind.is_stored() {
            let stored = catalog.by_resource(kind.resource).map_or(*kind, |stored| stored);
            resource["storageVersionHash"] = storage_version_hash(stored).into();
        }
        resources.push(resource);
        for one in kind.subresources {
            let mut resource = json!({
                "name": format!("{plural}/{}", one.name),
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": one.gvk.map_or(kind.kind, |(_, _, kind)| kind),
                "verbs": one.verbs,
            });
            if let Some((group, version, _)) =
                one.gvk.filter(|(group, version, _)| (*group, *version) != (kind.group, kind.version))
            {
                resource["group"] = group.into();
                resource["version"] = version.into();
            }
            resources.push(resource);
        }
    }
    let mut list = json!({
        "kind": "APIResourceList",
        "groupVersion": group_version(group, version),
        "resources": resources,
    });
    if !group.is_empty() {
        // Upstream writes none for the oldest clients' sake.
        list["apiVersion"] = "v1".into();
    }
    list
}

/// Tells clients when the stored form of a kind changes.
fn storage_version_hash(stored: &Kind) -> String {
    let text = format!("{}/{}/{}", stored.group, stored.version, stored.kind);
    base64::engine::general_purpose::STANDARD.encode(&digest(&SHA256, text.as_bytes()).as_ref()[..8])
}

fn aggregated(groups: &[&Group<'_>]) -> Value {
    let items: Vec<Value> = groups
        .iter()
        .map(|group| {
            let versions: Vec<Value> = group
                .versions
                .iter()
                .map(|(version, kinds)| {
                    let resources: Vec<Value> = kinds.iter().map(|kind| discovered(kind)).collect();
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = if group.name.is_empty() { json!({}) } else { json!({"name": group.name}) };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

/// What can be done with a kind, in upstream's order, which is another for custom resources.
fn verbs(kind: &Kind) -> Vec<&'static str> {
    let mut verbs = kind.verbs.to_vec();
    if kind.custom.is_some() {
        let order = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
        verbs.sort_by_key(|verb| order.iter().position(|one| one == verb));
    }
    verbs
}

fn discovered(kind: &Kind) -> Value {
    // Upstream leaves out what the document says already, of all but custom resources.
    let gvk = |group: &str, version: &str, name: &str| {
        let is_known = kind.custom.is_none() && (group, version) == (kind.group, kind.version);
        let (group, version) = if is_known { ("", "") } else { (group, version) };
        json!({"group": group, "version": version, "kind": name})
    };
    let mut resource = json!({
        "resource": kind.resource.plural(),
        "responseKind": gvk(kind.group, kind.version, kind.kind),
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": verbs(kind),
    });
    for (field, names) in [("shortNames", kind.short_names), ("categories", kind.categories)] {
        if !names.is_empty() {
            resource[field] = json!(names);
        }
    }
    if !kind.subresources.is_empty() {
        let subresource = |one: &Subresource| {
            let (group, version, kind) = one.gvk.unwrap_or((kind.group, kind.version, kind.kind));
            json!({"subresource": one.name, "responseKind": gvk(group, version, kind), "verbs": one.verbs})
        };
        resource["subresources"] = kind.subresources.iter().map(subresource).collect();
    }
    resource
}

pub(crate) fn answer(shared: &Shared, path: &str, request: &Request<Incoming>) -> Option<Answer> {
    let headers = request.headers();
    let path = if path == "/" { path } else { path.trim_end_matches('/') };
    let published = shared.published();
    let documents = &published.discovery;
    if path == "/" {
        let mut paths = health::paths(shared);
        paths.extend(documents.by_path.keys().cloned());
        paths.sort_unstable();
        return Some(respond::raw(StatusCode::OK, &json!({"paths": paths})));
    }
    let page = documents.by_path.get(path)?;
    if page.is_routed && request.method() != Method::GET {
        return Some(respond::failure(&not_allowed()));
    }
    let cbor = shared.config.cbor && page.is_of_version;
    if page.is_routed
        && let Err(status) = negotiate::check_route(headers, &[], false, cbor)
    {
        return Some(respond::failure(&status));
    }
    if let Some(document) = documents.aggregated.get(path)
        && let Some(media) = negotiate::aggregated(headers)
    {
        return Some(tagged(document, media, headers));
    }
    // Only the resources of a version are told in CBOR.
    let answer = negotiate::document(headers, cbor).and_then(|media| {
        let json = if path == "/api" { versions(request, &page.json)? } else { page.json.clone() };
        told(media, &json)
    });
    Some(answer.unwrap_or_else(|status| respond::failure(&status)))
}

/// A document in the encoding that was asked for; few ask for another than JSON.
fn told(media: Media, json: &Bytes) -> Result<Answer, Status> {
    if media == Media::Json {
        return Ok(respond::encoded(media, StatusCode::OK, json.clone()));
    }
    let value: Value = serde_json::from_slice(json).map_err(Status::internal)?;
    Ok(respond::document(media, StatusCode::OK, &value))
}

/// `/api`, which says where this server is: where who asks has found it.
fn versions(request: &Request<Incoming>, json: &Bytes) -> Result<Bytes, Status> {
    let mut value: Value = serde_json::from_slice(json).map_err(Status::internal)?;
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    if let Some(address) = request.uri().authority().map(Authority::as_str).or(host) {
        value["serverAddressByClientCIDRs"] = json!([{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]);
    }
    Ok(value.to_string().into())
}

/// The aggregated document, unless the client has it.
fn tagged(document: &Aggregated, media: Media, headers: &HeaderMap) -> Answer {
    let tag = &*document.etag;
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|given| given.as_bytes() == tag.as_bytes());
    let mut answer = if known {
        let mut answer = Answer::new(respond::full(Bytes::new()));
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
        answer
    } else {
        let mut answer = match document.encoded(media) {
            Ok(text) => respond::encoded(media, StatusCode::OK, text),
            Err(status) => return respond::failure(&status),
        };
        if let Ok(media) = HeaderValue::try_from(format!("{}{AGGREGATED}", media.name())) {
            answer.headers_mut().insert(header::CONTENT_TYPE, media);
        }
        answer
    };
    let headers = answer.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_long_document_is_encoded_once() {
        let documents = Documents::of(&Catalog::of_version(36), &Known::default());
        for (path, document) in &documents.aggregated {
            for media in [Media::Json, Media::Yaml, Media::Protobuf] {
                let first = document.encoded(media).expect(path);
                let again = document.encoded(media).expect(path);
                assert_eq!(first.as_ptr(), again.as_ptr(), "{path} {media:?}");
                let value: Value = serde_json::from_slice(&document.json).expect(path);
                assert_eq!(first, respond::encode(media, &value).expect(path), "{path} {media:?}");
            }
        }
    }

    #[test]
    fn the_storage_hash_is_upstreams() {
        let pods = kinds::by_path("", "v1", "pods").expect("pods");
        assert_eq!(storage_version_hash(pods), "xPOwRZ+Yhw8=");
    }
}
