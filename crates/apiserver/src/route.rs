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
use object::{Reason, Status};
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
        return Ok(Route::Path(path.to_owned()));
    }
    if !catalog.has_version(&group, version) {
        return Err(Nowhere::Page);
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
    let kind = rest
        .first()
        .and_then(|plural| catalog.served(&group, version, plural))
        .ok_or_else(not_found)?
        .clone();
    let name = rest.get(1).map_or(Ok(String::new()), |name| decode(name))?;
    let subresource = rest.get(2).map_or(Ok(String::new()), |name| decode(name))?;
    let proxied = subresource == "proxy" && rest.len() > 3;
    if (rest.len() > 3 && !proxied) || (kind.namespaced && namespace.is_empty() && !name.is_empty()) {
        return Err(not_found());
    }
    if !kind.namespaced && !namespace.is_empty() {
        return Err(not_found());
    }
    if !subresource.is_empty() && kind.subresource(&subresource).is_none() {
        return Err(not_found());
    }
    let rest = if proxied { format!("/{}", rest[3..].join("/")) } else { String::new() };
    let target = Target { kind, verb: "", namespace, name, subresource, rest };
    Ok(Route::Resource(Target { verb: verb(&target, method, watch, query)?, ..target }))
}

fn verb(target: &Target, method: &Method, watch: bool, query: &Query) -> Result<&'static str, Nowhere> {
    let whole = target.subresource.is_empty();
    let watch = whole && (watch || query.flag("watch"));
    let verb = match (method.as_str(), target.name.is_empty()) {
        ("GET" | "HEAD", _) if watch => "watch",
        ("GET" | "HEAD", true) => "list",
        ("GET" | "HEAD" | "OPTIONS", false) => "get",
        ("POST", _) => "create",
        ("PUT", false) => "update",
        ("PATCH", false) => "patch",
        ("DELETE", false) => "delete",
        ("DELETE", true) => "deletecollection",
        _ => return Err(Nowhere::Status(not_allowed())),
    };
    let listed = if whole {
        target.kind.verbs
    } else {
        target.kind.subresource(&target.subresource).map_or(&[][..], |one| one.verbs)
    };
    // A name belongs to every verb but create, list and deletecollection; a subresource is created under one.
    let misplaced = verb == "create" && whole && !target.name.is_empty();
    if misplaced || !listed.contains(&verb) {
        return Err(Nowhere::Status(not_allowed()));
    }
    Ok(verb)
}

fn not_found() -> Nowhere {
    Nowhere::Status(Status::new(Reason::NotFound, "the server could not find the requested resource"))
}

fn not_allowed() -> Status {
    Status::new(Reason::MethodNotAllowed, "the server does not allow this method on the requested resource")
}

/// One segment of a path as text.
fn decode(segment: &str) -> Result<String, Nowhere> {
    let decoded = crate::query::percent_decode(segment, false);
    decoded
        .ok_or_else(|| Nowhere::Status(Status::bad_request(format!("invalid URL escape in \"{segment}\""))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, uri: &str, expected: &str) {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let query = Query::parse(query).expect("a query");
        let found = match route(&Catalog::built_in(), &method, path, &query) {
            Ok(Route::Path(path)) => format!("path {path}"),
            Ok(Route::Resource(target)) => {
                let Attributes { verb, group, resource, subresource, namespace, name, .. } =
                    target.attributes();
                format!("{verb} {group}:{resource}:{subresource} {namespace}/{name} {}", target.rest)
            }
            Err(Nowhere::Page) => "page".to_owned(),
            Err(Nowhere::Status(status)) => status.code.to_string(),
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
            ("GET", "/api/v2/pods", "page"),
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
