use crate::{column, row, strategy, subresource};
use object::Resource;
use schema::path;
use schema::{Kind, Strategy, Subresource};
use serde_json::Value;

pub const PODS: Resource = Resource::new("pods");

pub static KIND: Kind = Kind {
    resource: PODS,
    group: "",
    version: "v1",
    kind: "Pod",
    singular: "pod",
    short_names: &["po"],
    categories: &["all"],
    namespaced: true,
    subresources: &[
        Subresource { name: "attach", gvk: Some(("", "v1", "PodAttachOptions")), verbs: &["create", "get"] },
        Subresource { name: "binding", gvk: Some(("", "v1", "Binding")), verbs: &["create"] },
        Subresource { name: "ephemeralcontainers", gvk: None, verbs: &["get", "patch", "update"] },
        Subresource { name: "eviction", gvk: Some(("policy", "v1", "Eviction")), verbs: &["create"] },
        Subresource { name: "exec", gvk: Some(("", "v1", "PodExecOptions")), verbs: &["create", "get"] },
        Subresource { name: "log", gvk: None, verbs: &["get"] },
        Subresource {
            name: "portforward",
            gvk: Some(("", "v1", "PodPortForwardOptions")),
            verbs: &["create", "get"],
        },
        Subresource {
            name: "proxy",
            gvk: Some(("", "v1", "PodProxyOptions")),
            verbs: subresource::PROXY_VERBS,
        },
        Subresource { name: "resize", gvk: None, verbs: &["get", "patch", "update"] },
        subresource::STATUS,
    ],
    type_name: "core.v1.Pod",
    columns: &[column::NAME, column::AGE],
    selectable: &[
        "spec.nodeName",
        "spec.hostNetwork",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "status.nominatedNodeName",
        "status.phase",
        "status.podIP",
    ],
    strategy: Strategy { grace_seconds: Some(grace_seconds), prepare, ..strategy::SPEC_AND_STATUS },
    ..row::BASE
};

fn grace_seconds(pod: &Value) -> i64 {
    let is_over = matches!(path::text(pod, "status.phase"), "Failed" | "Succeeded");
    if is_over || path::text(pod, "spec.nodeName").is_empty() {
        return 0;
    }
    path::int(pod, "spec.terminationGracePeriodSeconds").unwrap_or_default()
}

fn prepare(_pod: &mut Value, _old: Option<&Value>) {}
