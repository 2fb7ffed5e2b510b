//! What extension servers say that they serve, remembered from the last time they were asked.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use serde_json::{Value, json};

/// One group and version of an extension.
#[derive(Debug, PartialEq)]
pub(crate) struct Remote {
    pub(crate) group: String,
    pub(crate) version: String,
    /// `APIResourceList.resources`
    pub(crate) resources: Vec<Value>,
    /// The OpenAPI v3 document, if it has one.
    pub(crate) openapi: Option<Value>,
}

/// By the names of their APIServices. The same pointer means that nothing has changed.
pub(crate) type Known = Arc<BTreeMap<String, Arc<Remote>>>;

#[derive(Debug, Default)]
pub(crate) struct Remotes(RwLock<Known>);

impl Remotes {
    pub(crate) fn all(&self) -> Known {
        self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Replaces everything that is known, if it is something else.
    pub(crate) fn set(&self, all: BTreeMap<String, Arc<Remote>>) {
        let mut held = self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        if **held != all {
            *held = Arc::new(all);
        }
    }
}

impl Remote {
    /// The entry of aggregated discovery: `APIVersionDiscovery`.
    pub(crate) fn discovery(&self) -> Value {
        let text = |resource: &Value, member: &str| resource[member].as_str().unwrap_or_default().to_owned();
        let kind = |resource: &Value| {
            let or = |member: &str, otherwise: &str| match text(resource, member) {
                given if given.is_empty() => otherwise.to_owned(),
                given => given,
            };
            json!({"group": or("group", &self.group), "version": or("version", &self.version), "kind": text(resource, "kind")})
        };
        let mut resources: Vec<Value> = Vec::new();
        let (parts, whole): (Vec<_>, Vec<_>) =
            self.resources.iter().partition(|one| text(one, "name").contains('/'));
        for resource in whole {
            let name = text(resource, "name");
            let mut entry = json!({
                "resource": name, "responseKind": kind(resource), "singularResource": text(resource, "singularName"),
                "scope": if resource["namespaced"] == true { "Namespaced" } else { "Cluster" }, "verbs": resource["verbs"],
            });
            for member in ["shortNames", "categories"] {
                if resource[member].is_array() {
                    entry[member] = resource[member].clone();
                }
            }
            let own: Vec<Value> = parts
                .iter()
                .filter_map(|part| {
                    let subresource = text(part, "name").strip_prefix(&format!("{name}/"))?.to_owned();
                    Some(json!({"subresource": subresource, "responseKind": kind(part), "verbs": part["verbs"]}))
                })
                .collect();
            if !own.is_empty() {
                entry["subresources"] = own.into();
            }
            resources.push(entry);
        }
        json!({"version": self.version, "resources": resources, "freshness": "Current"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_resources_as_discovery_tells_it() {
        let remote = Remote {
            group: "metrics.k8s.io".into(),
            version: "v1beta1".into(),
            resources: vec![
                json!({"name": "nodes", "singularName": "", "namespaced": false, "kind": "NodeMetrics", "verbs": ["get", "list"]}),
                json!({"name": "pods", "singularName": "pod", "namespaced": true, "kind": "PodMetrics", "verbs": ["get"], "shortNames": ["po"]}),
                json!({"name": "pods/status", "namespaced": true, "kind": "PodMetrics", "verbs": ["get"]}),
            ],
            openapi: None,
        };
        let entry = remote.discovery();
        assert_eq!(entry["resources"][0]["scope"], "Cluster");
        assert_eq!(entry["resources"][1]["shortNames"], json!(["po"]));
        assert_eq!(entry["resources"][1]["subresources"][0]["subresource"], "status");
        assert_eq!(
            entry["resources"][1]["responseKind"],
            json!({"group": "metrics.k8s.io", "version": "v1beta1", "kind": "PodMetrics"})
        );
        let remotes = Remotes::default();
        remotes.set([("x".to_owned(), Arc::new(remote))].into());
        assert_eq!(remotes.all().len(), 1);
    }
}
