//! `apiserver_request_*`: requests by what they ask for, how long they took and how much they were answered with.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::metrics::{Counter, Family, Histogram, Page, exponential};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use crate::respond::{Answer, Body};
use crate::route::Target;

const COMPONENT: (&str, &str) = ("component", "apiserver");

/// Upper bounds of request durations, in seconds.
static DURATION_SECONDS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];
/// Of those that objectives are measured by.
static SLI_SECONDS: [f64; 21] = [
    0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0,
    45.0, 60.0,
];
static WATCH_LIST_SECONDS: [f64; 17] =
    [0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0];
static ANSWER_BYTES: [f64; 7] = exponential(1000.0, 10.0);
/// Of what writes bring: upstream's, up to its limit.
static BODY_BYTES: [f64; 31] = {
    let mut bounds = [50_000.0; 31];
    let mut index = 1;
    while index < bounds.len() {
        bounds[index] = bounds[index - 1] + 100_000.0;
        index += 1;
    }
    bounds
};
static EVENT_BYTES: [f64; 8] = exponential(1024.0, 2.0);

/// What a request asks for. Nothing of it is a client's own word.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Labels {
    group: &'static str,
    resource: &'static str,
    scope: &'static str,
    subresource: &'static str,
    verb: &'static str,
    version: &'static str,
    /// `All`, or empty.
    dry_run: &'static str,
}

struct Series {
    by_code: Mutex<BTreeMap<u16, u64>>,
    took: Histogram,
    sli: Histogram,
    answer_bytes: Histogram,
    /// Requests that stay, and are open.
    open: AtomicU64,
}

impl Default for Series {
    fn default() -> Self {
        Self {
            by_code: Mutex::default(),
            took: Histogram::new(&DURATION_SECONDS),
            sli: Histogram::new(&SLI_SECONDS),
            answer_bytes: Histogram::new(&ANSWER_BYTES),
            open: AtomicU64::new(0),
        }
    }
}

/// What writes may ask for; the last stands for all else.
const VALIDATIONS: [&str; 5] = ["", "Ignore", "Strict", "Warn", "invalid"];

/// The counts of one server.
pub(crate) struct Requests {
    series: Family<Labels, Series>,
    /// By group, resource and version.
    watch_events: Family<[&'static str; 3], Histogram>,
    /// By group, resource, scope and version.
    watch_lists: Family<[&'static str; 4], Histogram>,
    /// By group, resource and verb.
    bodies: Family<[&'static str; 3], Histogram>,
    /// Writes, by how their fields are validated: in the order of [`VALIDATIONS`].
    validations: [Histogram; VALIDATIONS.len()],
    /// By labels and code: those that were ended because they took too long.
    ended: Family<(Labels, u16), Counter>,
    /// Streams that were passed on to a kubelet, by subresource.
    streams: Family<[&'static str; 1], Counter>,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            series: Family::default(),
            watch_events: Family::new(|| Histogram::new(&EVENT_BYTES)),
            watch_lists: Family::new(|| Histogram::new(&WATCH_LIST_SECONDS)),
            bodies: Family::new(|| Histogram::new(&BODY_BYTES)),
            validations: std::array::from_fn(|_| Histogram::new(&SLI_SECONDS)),
            ended: Family::default(),
            streams: Family::default(),
        }
    }
}

/// A request that stays counts as long as this lives.
pub(crate) struct Open(Arc<Series>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Requests {
    pub(crate) fn open(&self, target: &Target) -> Open {
        let series = self.series.of(&labels(target, false));
        series.open.fetch_add(1, Ordering::Relaxed);
        Open(series)
    }

    /// A request was answered. `waits`: its client waits for the answer, which is no stream.
    pub(crate) fn record(&self, target: &Target, is_dry: bool, answer: Answer, took: Duration) -> Answer {
        let labels = labels(target, is_dry);
        let series = self.series.of(&labels);
        let code = answer.status().as_u16();
        *series.by_code.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1;
        series.took.took(took);
        if labels.dry_run.is_empty() && !matches!(labels.verb, "CONNECT" | "WATCH") {
            series.sli.took(took);
        }
        if !matches!(labels.verb, "GET" | "LIST") {
            return answer;
        }
        if let Some(length) = answer.body().size_hint().exact() {
            series.answer_bytes.observe(length as f64);
            return answer;
        }
        answer.map(|body| Body::new(Sized { body, bytes: 0, series }))
    }

    /// A write was answered; `asked`: its `fieldValidation`.
    pub(crate) fn validated(&self, asked: &str, took: Duration) {
        let place = VALIDATIONS.iter().position(|known| *known == asked);
        self.validations[place.unwrap_or(VALIDATIONS.len() - 1)].took(took);
    }

    /// A write's body was read.
    pub(crate) fn body(&self, target: &Target, bytes: usize) {
        let verb = if target.verb == "deletecollection" { "delete_collection" } else { target.verb };
        self.bodies.of(&[target.kind.group, target.kind.resource.plural(), verb]).observe(bytes as f64);
    }

    /// A page that is no resource: one of those that are there.
    pub(crate) fn record_page(&self, path: &'static str, verb: &'static str, code: u16, took: Duration) {
        let labels =
            Labels { group: "", resource: "", scope: "", subresource: path, verb, version: "", dry_run: "" };
        let series = self.series.of(&labels);
        *series.by_code.lock().unwrap_or_else(PoisonError::into_inner).entry(code).or_default() += 1;
        series.took.took(took);
        series.sli.took(took);
    }

    /// A request took too long, and its client was told so.
    pub(crate) fn ended(&self, target: &Target, code: u16) {
        self.ended.of(&(labels(target, false), code)).increase();
    }

    /// `exec`, `attach` or `portforward` goes on to a kubelet.
    pub(crate) fn streamed(&self, target: &Target) {
        let subresource = target.kind.subresource(&target.subresource).map_or("", |one| one.name);
        self.streams.of(&[subresource]).increase();
    }

    /// Where a watch counts what it sends.
    pub(crate) fn watch_events(&self, kind: &schema::Kind) -> Arc<Histogram> {
        self.watch_events.of(&[kind.group, kind.resource.plural(), kind.version])
    }

    /// The initial state of a watch has been sent.
    pub(crate) fn watch_began(&self, kind: &schema::Kind, is_of_namespace: bool, took: Duration) {
        let scope = if is_of_namespace { "namespace" } else { "cluster" };
        self.watch_lists.of(&[kind.group, kind.resource.plural(), scope, kind.version]).took(took);
    }

    pub(super) fn write(&self, page: &mut Page) {
        let all = self.series.sorted();
        let name = "apiserver_longrunning_requests";
        page.head(name, "gauge", "[STABLE] Gauge of all active long-running apiserver requests broken out by verb, group, version, resource, scope and component. Not all requests are tracked this way.");
        for (labels, series) in all.iter().filter(|(labels, _)| matches!(labels.verb, "CONNECT" | "WATCH")) {
            page.sample(name, &labels.place(), series.open.load(Ordering::Relaxed));
        }
        let name = "apiserver_request_duration_seconds";
        page.head(name, "histogram", "[STABLE] Response latency distribution in seconds for each verb, dry run value, group, version, resource, subresource, scope and component.");
        for (labels, series) in all.iter().filter(|(_, series)| series.took.count() > 0) {
            page.histogram(name, &labels.whole(), &series.took);
        }
        let name = "apiserver_request_sli_duration_seconds";
        page.head(name, "histogram", "[ALPHA] Response latency distribution (not counting webhook duration and priority & fairness queue wait times) in seconds for each verb, group, version, resource, subresource, scope and component.");
        for (labels, series) in all.iter().filter(|(_, series)| series.sli.count() > 0) {
            page.histogram(name, &labels.place(), &series.sli);
        }
        let help = "[ALPHA] Apiserver request body size in bytes broken out by resource and verb.";
        let labels = ["group", "resource", "verb"];
        page.histograms("apiserver_request_body_size_bytes", help, labels, &self.bodies);
        let name = "field_validation_request_duration_seconds";
        let help = "[ALPHA] Response latency distribution in seconds for each field validation value";
        page.head(name, "histogram", help);
        for (value, took) in VALIDATIONS.iter().zip(&self.validations).filter(|(_, took)| took.count() > 0) {
            page.histogram(name, &[("field_validation", value)], took);
        }
        let ended = self.ended.sorted();
        let name = "apiserver_request_terminations_total";
        page.head(name, "counter", "[ALPHA] Number of requests which apiserver terminated in self-defense.");
        for ((labels, code), count) in &ended {
            let (code, place) = (code.to_string(), labels.place());
            let all: Vec<_> = [("code", &*code)].into_iter().chain(place).collect();
            page.sample(name, &all, count.get());
        }
        let name = "apiserver_request_total";
        page.head(name, "counter", "[STABLE] Counter of apiserver requests broken out for each verb, dry run value, group, version, resource, scope, component, and HTTP response code.");
        for (labels, series) in &all {
            let codes = series.by_code.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for (code, count) in codes {
                let code = code.to_string();
                let all: Vec<_> = [("code", &*code)].into_iter().chain(labels.whole()).collect();
                page.sample(name, &all, count);
            }
        }
        let name = "apiserver_response_sizes";
        page.head(name, "histogram", "[STABLE] Response size distribution in bytes for each group, version, verb, resource, subresource, scope and component.");
        for (labels, series) in all.iter().filter(|(_, series)| series.answer_bytes.count() > 0) {
            page.histogram(name, &labels.place(), &series.answer_bytes);
        }
        let streams = self.streams.sorted();
        if !streams.is_empty() {
            let name = "apiserver_websocket_streaming_requests_total";
            page.head(name, "counter", "[ALPHA] Total number of WebSocket streaming requests (exec/attach/portforward) routed by the API server, labeled by subresource and proxy_type.");
            // Kubelets speak WebSocket themselves: nothing is translated on the way.
            for ([subresource], count) in streams {
                let labels = [("proxy_type", "proxied_to_kubelet"), ("subresource", subresource)];
                page.sample(name, &labels, count.get());
            }
        }
        let help = "[ALPHA] Watch event size distribution in bytes";
        let labels = ["group", "resource", "version"];
        page.histograms("apiserver_watch_events_sizes", help, labels, &self.watch_events);
        let name = "apiserver_watch_events_total";
        page.head(name, "counter", "[ALPHA] Number of events sent in watch clients");
        for ([group, resource, version], events) in self.watch_events.sorted() {
            let labels = [("group", group), ("resource", resource), ("version", version)];
            page.sample(name, &labels, events.count());
        }
        page.histograms(
            "apiserver_watch_list_duration_seconds",
            "[BETA] Response latency distribution in seconds for watch list requests broken by group, version, resource and scope.",
            ["group", "resource", "scope", "version"],
            &self.watch_lists,
        );
    }
}

impl Labels {
    fn whole(&self) -> [(&'static str, &'static str); 8] {
        let [component, rest @ ..] = self.place();
        let [group, resource, scope, subresource, verb, version] = rest;
        [component, ("dry_run", self.dry_run), group, resource, scope, subresource, verb, version]
    }

    /// Without whether it was a trial.
    fn place(&self) -> [(&'static str, &'static str); 7] {
        let Self { group, resource, scope, subresource, verb, version, .. } = *self;
        // As upstream: pages are of no component.
        let component = if resource.is_empty() { ("component", "") } else { COMPONENT };
        [
            component,
            ("group", group),
            ("resource", resource),
            ("scope", scope),
            ("subresource", subresource),
            ("verb", verb),
            ("version", version),
        ]
    }
}

fn labels(target: &Target, is_dry: bool) -> Labels {
    let subresource = target.kind.subresource(&target.subresource).map_or("", |one| one.name);
    let verb = match (target.verb, subresource) {
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
    let scope = match (target.name.is_empty() && target.verb != "create", target.namespace.is_empty()) {
        (false, _) => "resource",
        (true, false) => "namespace",
        (true, true) => "cluster",
    };
    Labels {
        group: target.kind.group,
        resource: target.kind.resource.plural(),
        scope,
        subresource,
        verb,
        version: target.kind.version,
        dry_run: if is_dry { "All" } else { "" },
    }
}

/// A body whose length is known when it is sent.
struct Sized {
    body: Body,
    bytes: u64,
    series: Arc<Series>,
}

impl Drop for Sized {
    fn drop(&mut self) {
        self.series.answer_bytes.observe(self.bytes as f64);
    }
}

impl http_body::Body for Sized {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
