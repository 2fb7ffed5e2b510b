//! From a method, a path and a query to what is asked for. Everything about resources comes from the catalog's rows.
//!
//! ```text
//! /api/v1/namespaces/{namespace}/{plural}/{name}/{subresource}/{rest…}
//! /apis/{group}/{version}/{plural}/{name}
//! /apis/{group}/{version}/watch/{plural}          the old way to ask for a watch
//! ```

use std::sync::Arc;

use gate::Catalog;
use http::Method;
use object::{Key, Reason, Status};
use plan::Attributes;
use schema::Kind;

use crate::query::Query;

/// What a request is about.
#[derive(Debug)]
pub(crate) enum Route {
    Resource(Target),
    /// A path that is no resource: discovery, health, metrics.
    Path(String),
}

/// An object, a collection or a subresource.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) kind: Arc<Kind>,
    pub(crate) verb: &'static str,
    /// Empty at cluster scope and for "in all namespaces".
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) subresource: String,
    /// What follows a `proxy` subresource, with its leading slash; empty if nothing does.
    pub(crate) rest: String,
}

impl Target {
    /// As authorization sees it. A request for a namespace is one in that namespace.
    pub(crate) fn attributes(&self) -> Attributes<'_> {
        let of_namespace = self.kind.resource.as_str() == "namespaces";
        Attributes {
            verb: self.verb,
            group: self.kind.group,
            version: self.kind.version,
            resource: self.kind.resource.plural(),
            subresource: &self.subresource,
            namespace: if of_namespace { &self.name } else { &self.namespace },
            name: &self.name,
            ..Attributes::default()
        }
    }

    /// Watches and connections that stay open: no timeout and no place in the count of requests in flight.
    pub(crate) fn is_long_running(&self, query: &Query) -> bool {
        self.verb == "watch"
            || matches!(&*self.subresource, "attach" | "exec" | "portforward" | "proxy")
            || (self.subresource == "log" && query.flag("follow"))
    }
}

/// Why a path leads nowhere.
#[derive(Debug)]
pub(crate) enum Nowhere {
    /// Unknown group or version: `404 page not found`, as plain text.
    Page,
    Status(Status),
    /// Of a version that clients are warned of.
    Deprecated(Status, String),
}

pub(crate) fn route(catalog: &Catalog, method: &Method, path: &str, query: &Query) -> Result<Route, Nowhere> {
    let trimmed = path.strip_prefix('/').unwrap_or(path);
    let raw: Vec<&str> = trimmed.split('/').collect();
    let (group, version, rest) = match raw[..] {
        ["api", version, ref rest @ ..] if !version.is_empty() => (String::new(), version, rest),
        ["apis", group, version, ref rest @ ..] if !version.is_empty() => (decode(group)?, version, rest),
        _ => return Ok(Route::Path(path.to_owned())),
    };
    if rest.iter().all(|part| part.is_empty()) {
        let is_nowhere = !catalog.has_version(&group, version) && !is_custom(catalog, &group);
        return if is_nowhere { Err(not_found()) } else { Ok(Route::Path(path.to_owned())) };
    }
    if !catalog.has_version(&group, version) {
        return Err(if is_custom(catalog, &group) { Nowhere::Page } else { not_found() });
    }
    let (watch, rest) = match rest {
        ["watch", rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let (namespace, rest) = match rest {
        // `namespaces/{name}/status` and `/finalize` are parts of the namespace itself.
        ["namespaces", _] | ["namespaces", _, "status" | "finalize", ..] => (String::new(), rest),
        ["namespaces", namespace, rest @ ..] if rest.iter().any(|part| !part.is_empty()) => {
            (decode(namespace)?, rest)
        }
        rest => (String::new(), rest),
    };
    let kind = rest.first().and_then(|plural| catalog.served(&group, version, plural));
    let Some(kind) = kind.cloned() else {
        return Err(if is_custom(catalog, &group) { Nowhere::Page } else { not_found() });
    };
    let name = rest.get(1).map_or(Ok(String::new()), |name| decode(name))?;
    check_name(&name)?;
    let subresource = rest.get(2).map_or(Ok(String::new()), |name| decode(name))?;
    let proxied = subresource == "proxy" && rest.len() > 3;
    if kind.namespaced == namespace.is_empty() {
        let (lists, is_read) =
            (kind.namespaced && name.is_empty(), matches!(*method, Method::GET | Method::HEAD));
        match (&kind.custom, lists) {
            // In all namespaces one can only look.
            (Some(_), true) if is_read => {}
            (Some(_), _) => return Err(Nowhere::Page),
            (None, true) if *method == Method::GET => {}
            (None, true) => return Err(Nowhere::Status(not_allowed())),
            (None, false) => return Err(not_found()),
        }
    }
    if !subresource.is_empty() && kind.subresource(&subresource).is_none() {
        return Err(match kind.custom {
            Some(_) => {
                let status = Status::not_found(&Key::new(kind.resource, &*namespace, &*name));
                match kind.deprecation() {
                    Some(text) => Nowhere::Deprecated(status, text.into_owned()),
                    None => Nowhere::Status(status),
                }
            }
            None => not_found(),
        });
    }
    if rest.len() > 3 && !proxied {
        return Err(not_found());
    }
    let rest = if proxied { format!("/{}", rest[3..].join("/")) } else { String::new() };
    let target = Target { kind, verb: "", namespace, name, subresource, rest };
    Ok(Route::Resource(Target { verb: verb(&target, method, watch, query)?, ..target }))
}

/// Whether a group is none, or consists of custom resources: its paths are somebody else's to upstream's router, which has pages where
/// nothing is.
fn is_custom(catalog: &Catalog, group: &str) -> bool {
    let versions = catalog.groups().get(group);
    versions.is_none_or(|versions| {
        versions.values().flat_map(|kinds| kinds.values()).all(|kind| kind.custom.is_some())
    })
}

/// What cannot be part of a path cannot be a name.
fn check_name(name: &str) -> Result<(), Nowhere> {
    if name.contains('/') {
        // To upstream the escaped slash is one.
        return Err(not_found());
    }
    let why = match name {
        "." => "may not be '.'",
        ".." => "may not be '..'",
        name if name.contains('%') => "may not contain '%'",
        _ => return Ok(()),
    };
    Err(Nowhere::Status(Status::bad_request(format!("Name parameter invalid: {name:?}: {why}"))))
}

fn verb(target: &Target, method: &Method, watch: bool, query: &Query) -> Result<&'static str, Nowhere> {
    let whole = target.subresource.is_empty();
    // Of one object, `?watch=true` means nothing.
    let watch = whole && (watch || (target.name.is_empty() && query.flag("watch")));
    let is_custom = target.kind.custom.is_some();
    let verb = match (method.as_str(), target.name.is_empty()) {
        ("GET", _) if watch => "watch",
        ("GET", true) => "list",
        ("GET", false) => "get",
        // Upstream's router knows no HEAD of what it serves itself.
        ("HEAD", true) if is_custom => "list",
        ("HEAD", false) if is_custom || target.subresource == "proxy" => "get",
        // Upstream has no verb for it: only who may do everything may ask a pod for its options.
        ("OPTIONS", false) if target.subresource == "proxy" => return Ok(""),
        ("POST", _) => "create",
        ("PUT" | "PATCH", true) if is_custom => {
            return Err(Nowhere::Status(Status::bad_request("name must be provided")));
        }
        ("PUT", false) => "update",
        ("PATCH", false) => "patch",
        ("DELETE", false) => "delete",
        ("DELETE", true) => "deletecollection",
        _ => return Err(Nowhere::Status(unsupported(target, ""))),
    };
    let listed = if whole {
        target.kind.verbs
    } else {
        target.kind.subresource(&target.subresource).map_or(&[][..], |one| one.verbs)
    };
    // A name belongs to every verb but create, list and deletecollection; a subresource is created under one.
    let misplaced = verb == "create" && whole && !target.name.is_empty();
    if misplaced || !listed.contains(&verb) {
        return Err(Nowhere::Status(unsupported(target, verb)));
    }
    Ok(verb)
}

/// 405. Of custom resources upstream says what they do not support.
fn unsupported(target: &Target, verb: &str) -> Status {
    if target.kind.custom.is_none() {
        return not_allowed();
    }
    let words = format!("{verb} is not supported on resources of kind \"{}\"", target.kind.resource);
    let key = Key::new(target.kind.resource, "", "");
    Status::new(Reason::MethodNotAllowed, words).about(&key)
}

fn not_found() -> Nowhere {
    let words = "the server could not find the requested resource";
    Nowhere::Status(Status::of_no_resource(Reason::NotFound, words))
}

pub(crate) fn not_allowed() -> Status {
    let words = "the server does not allow this method on the requested resource";
    Status::of_no_resource(Reason::MethodNotAllowed, words)
}

/// One segment of a path as text.
fn decode(segment: &str) -> Result<String, Nowhere> {
    let decoded = crate::query::percent_decode(segment);
    decoded
        .ok_or_else(|| Nowhere::Status(Status::bad_request(format!("invalid URL escape in \"{segment}\""))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, uri: &str, expected: &str) {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let query = Query::parse(query);
        let found = match route(&Catalog::built_in(), &method, path, &query) {
            Ok(Route::Path(path)) => format!("path {path}"),
            Ok(Route::Resource(target)) => {
                let Attributes { verb, group, resource, subresource, namespace, name, .. } =
                    target.attributes();
                format!("{verb} {group}:{resource}:{subresource} {namespace}/{name} {}", target.rest)
            }
            Err(Nowhere::Page) => "page".to_owned(),
            Err(Nowhere::Status(status) | Nowhere::Deprecated(status, _)) => status.code.to_string(),
        };
        assert_eq!(found.trim_end(), expected, "{method} {uri}");
    }

    #[test]
    fn paths_lead_to_resources() {
        for (method, uri, expected) in [
            ("GET", "/api", "path /api"),
            ("GET", "/api/v1/", "path /api/v1/"),
            ("GET", "/apis/apps/v1", "path /apis/apps/v1"),
            ("GET", "/api/v1/pods", "list :pods: /"),
            ("GET", "/api/v1/pods?watch=1", "watch :pods: /"),
            ("GET", "/api/v1/watch/namespaces/a/pods", "watch :pods: a/"),
            ("GET", "/api/v1/namespaces/a", "get :namespaces: a/a"),
            ("PUT", "/api/v1/namespaces/a/finalize", "update :namespaces:finalize a/a"),
            ("GET", "/api/v1/namespaces/a/pods/b/log", "get :pods:log a/b"),
            ("POST", "/apis/apps/v1/namespaces/a/deployments", "create apps:deployments: a/"),
            ("DELETE", "/apis/apps/v1/namespaces/a/deployments", "deletecollection apps:deployments: a/"),
            (
                "GET",
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
                "get rbac.authorization.k8s.io:clusterroles: /system:node",
            ),
            ("GET", "/api/v1/namespaces/a/services/b:80/proxy/x/y", "get :services:proxy a/b:80 /x/y"),
            ("GET", "/api/v2/pods", "404"),
            ("GET", "/apis/apps/v9/deployments", "404"),
            ("GET", "/apis/apps/v9", "404"),
            ("GET", "/apis/nope.io/v9", "path /apis/nope.io/v9"),
            ("GET", "/api/v1/namespaces/a/pods/b?watch=1", "get :pods: a/b"),
            ("GET", "/api/v1/watch/namespaces/a/pods/b", "watch :pods: a/b"),
            ("HEAD", "/api/v1/namespaces/a/pods/b", "405"),
            ("OPTIONS", "/api/v1/namespaces/a/pods/b", "405"),
            ("HEAD", "/api/v1/namespaces/a/pods/b/proxy/x", "get :pods:proxy a/b /x"),
            ("OPTIONS", "/api/v1/namespaces/a/pods/b/proxy/x", " :pods:proxy a/b /x"),
            ("OPTIONS", "/api/v1/namespaces/a/pods/b/exec", "405"),
            ("POST", "/api/v1/pods", "405"),
            ("DELETE", "/api/v1/pods", "405"),
            ("GET", "/api/v1/namespaces/a/pods/%2e%2e", "400"),
            ("GET", "/api/v1/namespaces/a/pods/a%2fb", "404"),
            ("GET", "/apis/nope.io/v1/things", "page"),
            ("GET", "/api/v1/nonsense", "404"),
            ("GET", "/api/v1/pods/a", "404"),
            ("GET", "/api/v1/namespaces/a/nodes", "404"),
            ("GET", "/api/v1/namespaces/a/pods/b/nonsense", "404"),
            ("DELETE", "/api/v1/namespaces", "405"),
            ("POST", "/api/v1/namespaces/a/pods/b", "405"),
            ("PUT", "/api/v1/namespaces/a/pods", "405"),
            ("GET", "/api/v1/nodes/%zz", "400"),
        ] {
            check(method, uri, expected);
        }
    }
}
