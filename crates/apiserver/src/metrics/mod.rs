//! `/metrics`: what the server did, in Prometheus' text format under upstream's names, with the stability that upstream says in front of
//! what each means.
//!
//! The series are bounded: their labels are the catalog's rows, verbs and status codes, never what a client wrote.

mod access;
pub(crate) mod deprecated;
mod flow;
mod process;
mod reads;
mod requests;

use std::sync::Arc;

use ::metrics::Page;
use kinds::API_SERVICES;
use object::Object;
use schema::path;

use crate::authenticate::oidc;
use crate::shared::Shared;

pub(crate) use access::Access;
pub(crate) use process::{started, write_start};
pub(crate) use reads::{Listing, Reads};
pub(crate) use requests::{Open, Requests};

/// The group below which EKS tells the metrics of the components that are not the API server.
/// <https://docs.aws.amazon.com/eks/latest/userguide/view-raw-metrics.html>
pub(crate) const EKS_GROUP: &str = "metrics.eks.amazonaws.com";

/// What writes some metrics.
pub type WriteMetrics = Arc<dyn Fn(&mut Page) + Send + Sync>;

/// The metrics of what runs beside the API server.
pub struct ComponentMetrics {
    /// All of them, as they stand in this server's own `/metrics`.
    pub all: WriteMetrics,
    /// Those that EKS tells one by one: (`kcm` or `ksh`, what writes them).
    pub apart: Vec<(&'static str, WriteMetrics)>,
}

/// The whole page.
pub(crate) fn page(shared: &Shared) -> String {
    let mut page = Page::default();
    shared.requests.write(&mut page);
    shared.reads.write(&mut page);
    shared.access.write(&mut page);
    shared.authorizers.write_metrics(&mut page);
    oidc::write_metrics(&shared.providers, &mut page);
    shared.deprecated.write(&mut page);
    shared.gate.write_metrics(&mut page);
    flow::write(shared, &mut page);
    aggregator(shared, &mut page);
    audit(shared, &mut page);
    store(shared, &mut page);
    let name = "kubernetes_feature_enabled";
    page.head(
        name,
        "gauge",
        "[BETA] This metric records the data about the stage and enablement of a k8s feature.",
    );
    // The one that can be switched here.
    let feature = [("name", "CBORServingAndStorage"), ("stage", "ALPHA")];
    page.sample(name, &feature, u8::from(shared.config.cbor));
    if let Some(components) = &shared.config.components {
        (components.all)(&mut page);
    }
    common(shared, &mut page);
    page.into_text()
}

/// The page of one component that runs beside the API server; None: there is none of that name.
pub(crate) fn page_of(shared: &Shared, component: &str) -> Option<String> {
    let apart = &shared.config.components.as_ref()?.apart;
    let (_, write) = apart.iter().find(|(name, _)| *name == component)?;
    let mut page = Page::default();
    write(&mut page);
    common(shared, &mut page);
    Some(page.into_text())
}

/// What every process tells.
fn common(shared: &Shared, page: &mut Page) {
    process::write(page);
    let version = &shared.config.version;
    let name = "kubernetes_build_info";
    page.head(name, "gauge", "[BETA] A metric with a constant '1' value labeled by major, minor, git version, git commit, git tree state, build date, Go version, and compiler from which Kubernetes was built, and platform on which it is running.");
    let labels = [
        ("build_date", &*version.built),
        ("compiler", "rustc"),
        ("git_commit", &*version.commit),
        ("git_tree_state", "clean"),
        ("git_version", &*version.git),
        ("go_version", ""),
        ("major", &*version.major),
        ("minor", &*version.minor),
        ("platform", &*version.platform),
    ];
    page.sample(name, &labels, 1);
    let name = "version_info";
    page.head(name, "gauge", "[ALPHA] Provides the compatibility version info of the component. The component label is the name of the component, usually kube, but is relevant for aggregated-apiservers.");
    let binary = version.git.trim_start_matches('v').split(['-', '+']).next().unwrap_or_default();
    let (emulated, least) = (format!("{}.{}", version.major, version.minor), version.least_compatible());
    let labels = [
        ("binary", binary),
        ("component", "kube"),
        ("emulation", &*emulated),
        ("min_compat", &*format!("{}.{least}", version.major)),
    ];
    page.sample(name, &labels, 1);
}

fn aggregator(shared: &Shared, page: &mut Page) {
    let help = "[ALPHA] Counter of number of times discovery was aggregated";
    page.counter("aggregator_discovery_aggregation_count_total", help, &shared.documents.made);
    shared.distrust.write("kube_aggregator", page);
    let name = "aggregator_unavailable_apiservice";
    page.head(
        name,
        "gauge",
        "[ALPHA] Gauge of APIServices which are marked as unavailable broken down by APIService name.",
    );
    for object in shared.store().snapshot().list(API_SERVICES, "") {
        page.sample(name, &[("name", &object.key.name)], u8::from(!is_available(object)));
    }
    page.counters(
        "aggregator_unavailable_apiservice_total",
        "[ALPHA] Counter of APIServices which are marked as unavailable broken down by APIService name and reason.",
        ["name", "reason"],
        &shared.unavailable,
    );
}

fn is_available(service: &Object) -> bool {
    let Ok(value) = service.to_value() else { return false };
    let mut conditions = path::list(&value, "status.conditions").iter();
    conditions.any(|one| path::text(one, "type") == "Available" && path::text(one, "status") == "True")
}

fn audit(shared: &Shared, page: &mut Page) {
    let name = "apiserver_audit_event_total";
    page.head(name, "counter", "[ALPHA] Counter of audit events generated and sent to the audit backend.");
    page.sample(name, &[], shared.config.audit.as_ref().map_or(0, |audit| audit.told()));
    let Some(audit) = &shared.config.audit else { return };
    let name = "apiserver_audit_error_total";
    page.head(name, "counter", "[ALPHA] Counter of audit events that failed to be audited properly. Plugin identifies the plugin affected by the error.");
    for (plugin, lost) in audit.lost() {
        page.sample(name, &[("plugin", plugin)], lost);
    }
    let help = "[ALPHA] Counter of policy levels for audit events (1 per request).";
    page.counters("apiserver_audit_level_total", help, ["level"], audit.levels());
}

fn store(shared: &Shared, page: &mut Page) {
    let (store, catalog) = (shared.store(), shared.gate.catalog());
    if let Some(measures) = store.measures() {
        measures.write(page);
    }
    let snapshot = store.snapshot();
    // Only what is served is told.
    let served = |resource: &object::Resource| catalog.by_resource(*resource).is_some();
    let tables: Vec<_> = snapshot.tables().filter(|(resource, _)| served(resource)).collect();
    let name = "apiserver_resource_objects";
    page.head(name, "gauge", "[ALPHA] Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.");
    for (resource, table) in &tables {
        page.sample(name, &[("group", resource.group()), ("resource", resource.plural())], table.len());
    }
    let name = "apiserver_resource_size_estimate_bytes";
    page.head(name, "gauge", "[ALPHA] Estimated size of stored objects in database. Estimate is based on sum of last observed sizes of serialized objects. In case of a fetching error, the value will be -1.");
    for (resource, table) in &tables {
        page.sample(name, &[("group", resource.group()), ("resource", resource.plural())], table.bytes());
    }
    let name = "apiserver_storage_objects";
    page.head(name, "gauge", "[STABLE] (Deprecated since 1.34.0) [DEPRECATED, consider using apiserver_resource_objects instead] Number of stored objects at the time of last check split by kind. In case of a fetching error, the value will be -1.");
    for (resource, table) in &tables {
        page.sample(name, &[("resource", resource.as_str())], table.len());
    }
    let received = store.received();
    for (name, help) in [
        ("apiserver_storage_events_received_total", "[BETA] Number of etcd events received split by kind."),
        (
            "apiserver_watch_cache_events_dispatched_total",
            "[ALPHA] Counter of events dispatched in watch cache broken by resource type.",
        ),
        (
            "apiserver_watch_cache_events_received_total",
            "[ALPHA] Counter of events received in watch cache broken by resource type.",
        ),
    ] {
        page.head(name, "counter", help);
        for (resource, count) in received.iter().filter(|(resource, _)| served(resource)) {
            page.sample(name, &[("group", resource.group()), ("resource", resource.plural())], count);
        }
    }
    let name = "apiserver_watch_cache_resource_version";
    page.head(name, "gauge", "[ALPHA] Current resource version of watch cache broken by resource type. This is truncated to the 15 least significant digits.");
    for (resource, table) in &tables {
        let labels = [("group", resource.group()), ("resource", resource.plural())];
        page.sample(name, &labels, table.revision() % 1_000_000_000_000_000);
    }
    let usage = store.usage();
    let name = "apiserver_storage_size_bytes";
    page.head(name, "gauge", "[STABLE] Size of the storage database file physically allocated in bytes.");
    page.sample(name, &[("storage_cluster_id", "etcd-0")], usage.disk_bytes);
    page.gauge("ekso_store_live_bytes", "Bytes of the bodies of live objects.", usage.live_bytes);
    page.gauge("ekso_store_history_bytes", "Bytes that the watch window holds.", usage.history_bytes);
    page.gauge("ekso_store_revision", "The store's revision.", usage.revision);
}
