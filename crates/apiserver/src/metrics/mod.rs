//! `/metrics`: what the server did, in Prometheus' text format under upstream's names.
//!
//! The series are bounded: their labels are the catalog's rows, verbs and status codes, never what a client wrote.

pub(crate) mod deprecated;
mod flow;
mod process;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::route::Target;
use crate::shared::Shared;

/// Upper bounds of the buckets of request durations, in seconds.
const BUCKETS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    verb: &'static str,
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: String,
    scope: &'static str,
    /// `All`, or empty.
    dry_run: &'static str,
}

#[derive(Default)]
struct Series {
    by_code: BTreeMap<u16, u64>,
    buckets: [u64; BUCKETS.len()],
    count: u64,
    seconds: f64,
}

/// The counts of one server.
#[derive(Default)]
pub(crate) struct Requests {
    series: Mutex<BTreeMap<Labels, Series>>,
    /// Watches that are open.
    open: Mutex<BTreeMap<Labels, u64>>,
}

/// A watch counts as long as this lives.
pub(crate) struct Open {
    shared: Arc<Shared>,
    labels: Labels,
}

impl Open {
    pub(crate) fn new(shared: &Arc<Shared>, target: &Target) -> Self {
        let labels = labels(target, false);
        *lock(&shared.requests.open).entry(labels.clone()).or_default() += 1;
        Self { shared: shared.clone(), labels }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut open = lock(&self.shared.requests.open);
        if let Some(count) = open.get_mut(&self.labels) {
            *count = count.saturating_sub(1);
        }
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Requests {
    pub(crate) fn record(&self, target: &Target, is_dry: bool, code: u16, took: Duration) {
        let labels = labels(target, is_dry);
        let seconds = took.as_secs_f64();
        let mut all = lock(&self.series);
        let series = all.entry(labels).or_default();
        *series.by_code.entry(code).or_default() += 1;
        series.count += 1;
        series.seconds += seconds;
        for (bucket, bound) in series.buckets.iter_mut().zip(BUCKETS) {
            *bucket += u64::from(seconds <= bound);
        }
    }

    fn write(&self, text: &mut String) {
        let name = "apiserver_longrunning_requests";
        head(text, name, "gauge", "Watches that are open.");
        for (labels, count) in lock(&self.open).iter() {
            let _ = writeln!(text, "{name}{{{}}} {count}", labels.place());
        }
        let all = lock(&self.series);
        head(text, "apiserver_request_total", "counter", "Requests by verb, resource and HTTP code.");
        for (labels, series) in all.iter() {
            for (code, count) in &series.by_code {
                let _ =
                    writeln!(text, "apiserver_request_total{{{},code=\"{code}\"}} {count}", labels.text());
            }
        }
        let name = "apiserver_request_duration_seconds";
        head(text, name, "histogram", "How long answers took; of a watch, until it began.");
        for (labels, series) in all.iter() {
            series.write(name, &labels.text(), text);
        }
        // What upstream measures its objectives by, which says nothing of streams and trials.
        let name = "apiserver_request_sli_duration_seconds";
        head(text, name, "histogram", "How long answers took that a client waits for.");
        let counts =
            |labels: &Labels| labels.dry_run.is_empty() && !matches!(labels.verb, "CONNECT" | "WATCH");
        for (labels, series) in all.iter().filter(|(labels, _)| counts(labels)) {
            series.write(name, &labels.place(), text);
        }
    }
}

impl Series {
    fn write(&self, name: &str, labels: &str, text: &mut String) {
        for (count, bound) in self.buckets.iter().zip(BUCKETS) {
            let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
        }
        let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", self.count);
        let _ = writeln!(text, "{name}_sum{{{labels}}} {}", self.seconds);
        let _ = writeln!(text, "{name}_count{{{labels}}} {}", self.count);
    }
}

impl Labels {
    fn text(&self) -> String {
        let (component, rest) = ("component=\"apiserver\"", self.rest());
        format!("{component},dry_run=\"{}\",{rest}", self.dry_run)
    }

    /// Without whether it was a trial.
    fn place(&self) -> String {
        format!("component=\"apiserver\",{}", self.rest())
    }

    fn rest(&self) -> String {
        let Self { verb, group, version, resource, subresource, scope, .. } = self;
        format!(
            "group=\"{group}\",resource=\"{resource}\",scope=\"{scope}\",subresource=\"{subresource}\",verb=\"{verb}\",version=\"{version}\""
        )
    }
}

fn labels(target: &Target, is_dry: bool) -> Labels {
    let verb = match (target.verb, &*target.subresource) {
        (_, "attach" | "exec" | "log" | "portforward" | "proxy") => "CONNECT",
        ("create", _) => "POST",
        ("update", _) => "PUT",
        ("patch", _) => "PATCH",
        ("delete", _) => "DELETE",
        ("deletecollection", _) => "DELETECOLLECTION",
        ("list", _) => "LIST",
        ("watch", _) => "WATCH",
        _ => "GET",
    };
    let scope = match (target.name.is_empty(), target.namespace.is_empty()) {
        (false, _) => "resource",
        (true, false) => "namespace",
        (true, true) => "cluster",
    };
    Labels {
        verb,
        group: target.kind.group,
        version: target.kind.version,
        resource: target.kind.resource.plural(),
        subresource: target.subresource.clone(),
        scope,
        dry_run: if is_dry { "All" } else { "" },
    }
}

pub(crate) fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// The whole page.
pub(crate) fn page(shared: &Shared) -> String {
    let mut text = String::with_capacity(16 * 1024);
    shared.requests.write(&mut text);
    shared.deprecated.write(&mut text);
    head(
        &mut text,
        "apiserver_current_inflight_requests",
        "gauge",
        "Requests at work that are no watch and no stream.",
    );
    for (kind, busy) in ["mutating", "readOnly"].iter().zip(&shared.in_flight) {
        let busy = busy.load(Ordering::Relaxed);
        let _ = writeln!(text, "apiserver_current_inflight_requests{{request_kind=\"{kind}\"}} {busy}");
    }
    flow::write(shared, &mut text);
    if let Some(audit) = &shared.config.audit {
        head(&mut text, "apiserver_audit_event_total", "counter", "Events of the audit log.");
        let _ = writeln!(text, "apiserver_audit_event_total {}", audit.told());
        head(&mut text, "apiserver_audit_error_total", "counter", "Events that could not be written.");
        for (plugin, lost) in audit.lost() {
            let _ = writeln!(text, "apiserver_audit_error_total{{plugin=\"{plugin}\"}} {lost}");
        }
    }
    process::write(&mut text);
    head(&mut text, "apiserver_storage_objects", "gauge", "Objects in the store, by resource.");
    let snapshot = shared.store().snapshot();
    for (resource, table) in snapshot.tables() {
        // Only what is served is told.
        if shared.gate.catalog().by_resource(resource).is_some() {
            let _ = writeln!(text, "apiserver_storage_objects{{resource=\"{resource}\"}} {}", table.len());
        }
    }
    let usage = shared.store().usage();
    for (name, help, value) in [
        ("apiserver_storage_size_bytes", "Bytes that the store takes on disk.", usage.disk_bytes),
        ("ekso_store_live_bytes", "Bytes of the bodies of live objects.", usage.live_bytes),
        ("ekso_store_history_bytes", "Bytes that the watch window holds.", usage.history_bytes),
        ("ekso_store_revision", "The store's revision.", usage.revision),
    ] {
        head(&mut text, name, "gauge", help);
        let _ = writeln!(text, "{name} {value}");
    }
    head(&mut text, "kubernetes_build_info", "gauge", "The version, as labels of a one.");
    let version = &shared.config.version;
    let _ = writeln!(
        text,
        "kubernetes_build_info{{git_version=\"{}\",major=\"{}\",minor=\"{}\",platform=\"{}\"}} 1",
        version.git, version.major, version.minor, version.platform
    );
    text
}
