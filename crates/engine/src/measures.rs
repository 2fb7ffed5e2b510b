//! What the deciders do, counted: the metrics of upstream's controller manager and scheduler, under their names.
//!
//! They are those of one server. What runs elsewhere because its Lease is held there is counted there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::{Counter, Family, Histogram, Page, exponential};
use object::{Key, Status, Time};
use plan::Write;
use scheduler::{Attempt, Scheduler};
use tokio::time::Instant;

/// What upstream calls the queues of its controllers, where that is another word than ours without `-controller`.
const QUEUES: &[(&str, &str)] = &[
    ("autoregister-controller", "autoregister"),
    ("clusterrole-aggregation-controller", "ClusterRoleAggregator"),
    ("crd-controller", "crd_naming_condition_controller"),
    ("endpoint-slice-controller", "endpoint_slice"),
    ("endpoint-slice-mirroring-controller", "endpoint_slice_mirroring"),
    ("flow-control-controller", "priority_and_fairness_config_queue"),
    ("garbage-collector-controller", "garbage_collector_attempt_to_delete"),
    ("legacy-token-tracking-controller", "legacy_token_tracking_controller"),
    ("node-controller", "node_lifecycle_controller"),
    ("persistentvolume-controller", "claims"),
    ("persistentvolume-protection-controller", "pvprotection"),
    ("persistentvolumeclaim-protection-controller", "pvcprotection"),
    ("replication-controller", "replicationmanager"),
    ("resourcequota-controller", "resourcequota_primary"),
    ("root-ca-certificate-publisher-controller", "root_ca_cert_publisher"),
    ("service-cidr-controller", "ipaddresses"),
    ("serviceaccount-token-controller", "serviceaccount_tokens_service"),
    ("taint-eviction-controller", "noexec_taint_pod"),
    ("token-cleaner", "token_cleaner"),
    ("ttl-after-finished-controller", "ttl_jobs_to_delete"),
    ("validatingadmissionpolicy-status-controller", "validatingadmissionpolicy-status"),
    ("volumeattributesclass-protection-controller", "vacprotection"),
];

static QUEUE_SECONDS: [f64; 10] = exponential(10e-9, 10.0);
static REQUEST_SECONDS: [f64; 12] = [0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];
static SCHEDULING_SECONDS: [f64; 15] = exponential(0.001, 2.0);
static SLI_SECONDS: [f64; 20] = exponential(0.01, 2.0);
static ATTEMPTS: [f64; 5] = exponential(1.0, 2.0);
static VICTIMS: [f64; 7] = exponential(1.0, 2.0);

/// What one server's controllers and its scheduler have done since it began.
pub struct Measures {
    /// Where their writes go, as it is told of upstream's clients: `10.0.0.1:443`.
    host: String,
    queues: Family<[&'static str; 1], QueueMeasures>,
    controllers: Requests,
    scheduler: Scheduling,
}

/// The queue of one controller.
pub(crate) struct QueueMeasures {
    adds: Counter,
    retries: Counter,
    depth: AtomicU64,
    waited: Histogram,
    worked: Histogram,
    /// Keys at work, each since when.
    running: Mutex<HashMap<Key, Instant>>,
}

/// The writes of one component.
struct Requests {
    /// By code and method.
    total: Family<(u16, &'static str), Counter>,
    /// By method.
    took: Family<[&'static str; 1], Histogram>,
}

struct Scheduling {
    requests: Requests,
    /// By result.
    attempts: Family<[&'static str; 1], Histogram>,
    algorithm: Histogram,
    /// By how many attempts it took.
    sli: Family<[&'static str; 1], Histogram>,
    attempts_of_pod: Histogram,
    preemptions: Counter,
    victims: Histogram,
    /// Pods that wait: active, backoff, gated, unschedulable.
    pending: [AtomicU64; 4],
    /// Assumed pods, nodes, pods.
    cache: [AtomicU64; 3],
}

impl Default for QueueMeasures {
    fn default() -> Self {
        Self {
            adds: Counter::default(),
            retries: Counter::default(),
            depth: AtomicU64::default(),
            waited: Histogram::new(&QUEUE_SECONDS),
            worked: Histogram::new(&QUEUE_SECONDS),
            running: Mutex::default(),
        }
    }
}

impl Default for Requests {
    fn default() -> Self {
        Self { total: Family::default(), took: Family::new(|| Histogram::new(&REQUEST_SECONDS)) }
    }
}

impl Default for Scheduling {
    fn default() -> Self {
        let scheduling = || Histogram::new(&SCHEDULING_SECONDS);
        Self {
            requests: Requests::default(),
            attempts: Family::new(scheduling),
            algorithm: scheduling(),
            sli: Family::new(|| Histogram::new(&SLI_SECONDS)),
            attempts_of_pod: Histogram::new(&ATTEMPTS),
            preemptions: Counter::default(),
            victims: Histogram::new(&VICTIMS),
            pending: Default::default(),
            cache: Default::default(),
        }
    }
}

impl QueueMeasures {
    pub(crate) fn added(&self) {
        self.adds.increase();
    }

    /// Nothing of what was there before a restart from a snapshot is at work or waits.
    pub(crate) fn holds(&self, depth: usize) {
        self.depth.store(depth as u64, Ordering::Relaxed);
    }

    pub(crate) fn began(&self, key: &Key, waited: Duration) {
        self.waited.took(waited);
        self.running().insert(key.clone(), Instant::now());
    }

    pub(crate) fn ended(&self, key: &Key, is_retried: bool) {
        let began = self.running().remove(key);
        if let Some(began) = began {
            self.worked.took(began.elapsed());
        }
        if is_retried {
            self.retries.increase();
        }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Key, Instant>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Seconds that all keys at work have been so, and the longest of them.
    fn unfinished(&self) -> (f64, f64) {
        let running = self.running();
        let seconds = running.values().map(|began| began.elapsed().as_secs_f64());
        seconds.fold((0.0, 0.0), |(sum, longest), one| (sum + one, f64::max(longest, one)))
    }
}

impl Requests {
    fn made(&self, write: &Write, code: Option<u16>, took: Duration) {
        let (method, done) = match write {
            Write::Bind { .. } | Write::Create { .. } => ("POST", 201),
            Write::Delete { .. } => ("DELETE", 200),
            Write::Merge { .. } => ("PATCH", 200),
            Write::Replace { .. } => ("PUT", 200),
        };
        self.total.of(&(code.unwrap_or(done), method)).increase();
        self.took.of(&[method]).took(took);
    }

    fn absorb(&self, other: &Self) {
        for (labels, count) in other.total.sorted() {
            self.total.of(&labels).add(count.get());
        }
        for (labels, took) in other.took.sorted() {
            self.took.of(&labels).absorb(&took);
        }
    }

    fn write(&self, host: &str, page: &mut Page) {
        let name = "rest_client_request_duration_seconds";
        page.head(name, "histogram", "[ALPHA] Request latency in seconds. Broken down by verb, and host.");
        for ([verb], took) in self.took.sorted() {
            page.histogram(name, &[("host", host), ("verb", verb)], &took);
        }
        let name = "rest_client_requests_total";
        let help = "[ALPHA] Number of HTTP requests, partitioned by status code, method, and host.";
        page.head(name, "counter", help);
        for ((code, method), count) in self.total.sorted() {
            page.sample(
                name,
                &[("code", &code.to_string()), ("host", host), ("method", method)],
                count.get(),
            );
        }
    }
}

impl Measures {
    /// `host`: where the writes go, `10.0.0.1:443`.
    pub fn new(host: String) -> Self {
        let (queues, controllers, scheduler) = Default::default();
        Self { host, queues, controllers, scheduler }
    }

    pub(crate) fn queue(&self, controller: &'static str) -> Arc<QueueMeasures> {
        let known = QUEUES.iter().find(|(own, _)| *own == controller);
        let own = controller.strip_suffix("-controller").unwrap_or(controller);
        self.queues.of(&[known.map_or(own, |(_, upstream)| upstream)])
    }

    /// A write of a plan, and how it ended.
    pub(crate) fn wrote(
        &self,
        is_scheduler: bool,
        write: &Write,
        ended: Result<(), &Status>,
        took: Duration,
    ) {
        let of = if is_scheduler { &self.scheduler.requests } else { &self.controllers };
        of.made(write, ended.err().map(|status| status.code), took);
    }

    /// What one call of the scheduler came to.
    pub(crate) fn tried(&self, attempts: &[Attempt], took: Duration) {
        let each = took / u32::try_from(attempts.len()).unwrap_or(1).max(1);
        for attempt in attempts {
            self.scheduler.algorithm.took(each);
            if !attempt.placed {
                self.scheduler.attempts.of(&["unschedulable"]).took(each);
            }
            if let Some(victims) = attempt.preempted {
                self.scheduler.preemptions.increase();
                if victims > 0 {
                    self.scheduler.victims.observe(victims as f64);
                }
            }
        }
    }

    /// A pod for which a node was found is bound there, or could not be.
    pub(crate) fn bound(&self, attempt: &Attempt, is_bound: bool, took: Duration, now: Time) {
        let result = if is_bound { "scheduled" } else { "error" };
        self.scheduler.attempts.of(&[result]).took(took);
        if !is_bound {
            return;
        }
        self.scheduler.attempts_of_pod.observe(attempt.number.into());
        let micros = now.as_micros().saturating_sub(attempt.since.as_micros()).max(0);
        self.scheduler
            .sli
            .of(&[attempts_label(attempt.number)])
            .took(Duration::from_micros(micros.unsigned_abs()));
    }

    pub(crate) fn sees(&self, scheduler: &Scheduler) {
        let pending = scheduler.queue().pending();
        let waiting = [pending.active, pending.back_off, pending.gated, pending.unschedulable];
        let cluster = scheduler.cluster();
        let cache = [scheduler.assumed(), cluster.nodes().len(), cluster.placed()];
        let set = |gauge: &AtomicU64, value: usize| gauge.store(value as u64, Ordering::Relaxed);
        self.scheduler.pending.iter().zip(waiting).for_each(|(gauge, value)| set(gauge, value));
        self.scheduler.cache.iter().zip(cache).for_each(|(gauge, value)| set(gauge, value));
    }

    /// What upstream's controller manager tells, but for what every client tells ([`Self::write_requests`]).
    pub fn write_controllers(&self, page: &mut Page) {
        let queues = self.queues.sorted();
        let labels = |name: &'static str| [("name", name)];
        let name = "workqueue_adds_total";
        page.head(name, "counter", "[BETA] Total number of adds handled by workqueue");
        for ([queue], one) in &queues {
            page.sample(name, &labels(queue), one.adds.get());
        }
        let name = "workqueue_depth";
        page.head(name, "gauge", "[BETA] Current depth of workqueue");
        for ([queue], one) in &queues {
            page.sample(name, &labels(queue), one.depth.load(Ordering::Relaxed));
        }
        let name = "workqueue_longest_running_processor_seconds";
        let help = "[BETA] How many seconds has the longest running processor for workqueue been running.";
        page.head(name, "gauge", help);
        for ([queue], one) in &queues {
            page.sample(name, &labels(queue), one.unfinished().1);
        }
        let name = "workqueue_queue_duration_seconds";
        let help = "[BETA] How long in seconds an item stays in workqueue before being requested.";
        page.head(name, "histogram", help);
        for ([queue], one) in &queues {
            page.histogram(name, &labels(queue), &one.waited);
        }
        let name = "workqueue_retries_total";
        page.head(name, "counter", "[BETA] Total number of retries handled by workqueue");
        for ([queue], one) in &queues {
            page.sample(name, &labels(queue), one.retries.get());
        }
        let name = "workqueue_unfinished_work_seconds";
        page.head(name, "gauge", "[BETA] How many seconds of work has done that is in progress and hasn't been observed by work_duration. Large values indicate stuck threads. One can deduce the number of stuck threads by observing the rate at which this increases.");
        for ([queue], one) in &queues {
            page.sample(name, &labels(queue), one.unfinished().0);
        }
        let name = "workqueue_work_duration_seconds";
        page.head(name, "histogram", "[BETA] How long in seconds processing an item from workqueue takes.");
        for ([queue], one) in &queues {
            page.histogram(name, &labels(queue), &one.worked);
        }
    }

    /// What upstream's scheduler tells, but for what every client tells.
    pub fn write_scheduler(&self, page: &mut Page) {
        let Scheduling {
            attempts,
            algorithm,
            sli,
            attempts_of_pod,
            preemptions,
            victims,
            pending,
            cache,
            ..
        } = &self.scheduler;
        let name = "scheduler_cache_size";
        page.head(
            name,
            "gauge",
            "[ALPHA] Number of nodes, pods, and assumed (bound) pods in the scheduler cache.",
        );
        for (kind, count) in ["assumed_pods", "nodes", "pods"].iter().zip(cache) {
            page.sample(name, &[("type", kind)], count.load(Ordering::Relaxed));
        }
        let name = "scheduler_pending_pods";
        page.head(name, "gauge", "[STABLE] Number of pending pods, by the queue type.");
        for (queue, count) in ["active", "backoff", "gated", "unschedulable"].iter().zip(pending) {
            page.sample(name, &[("queue", queue)], count.load(Ordering::Relaxed));
        }
        let name = "scheduler_pod_scheduling_attempts";
        page.head(name, "histogram", "[STABLE] Number of attempts to successfully schedule a pod.");
        page.histogram(name, &[], attempts_of_pod);
        let help = "[BETA] E2e latency for a pod being scheduled, from the time the pod enters the scheduling queue.";
        page.histograms("scheduler_pod_scheduling_sli_duration_seconds", help, ["attempts"], sli);
        let help = "[STABLE] Total preemption attempts in the cluster till now";
        page.counter("scheduler_preemption_attempts_total", help, preemptions);
        let name = "scheduler_preemption_victims";
        page.head(name, "histogram", "[STABLE] Number of selected preemption victims");
        page.histogram(name, &[], victims);
        let all = attempts.sorted();
        let labels = |result| [("profile", scheduler_name()), ("result", result)];
        let name = "scheduler_schedule_attempts_total";
        page.head(name, "counter", "[STABLE] Number of attempts to schedule pods, by the result.");
        for ([result], one) in &all {
            page.sample(name, &labels(result), one.count());
        }
        let name = "scheduler_scheduling_algorithm_duration_seconds";
        page.head(name, "histogram", "[ALPHA] Scheduling algorithm latency in seconds");
        page.histogram(name, &[], algorithm);
        let name = "scheduler_scheduling_attempt_duration_seconds";
        let help = "[STABLE] Scheduling attempt latency in seconds (scheduling algorithm + binding)";
        page.head(name, "histogram", help);
        for ([result], one) in &all {
            page.histogram(name, &labels(result), one);
        }
    }

    /// The writes of the controllers.
    pub fn write_requests_of_controllers(&self, page: &mut Page) {
        self.controllers.write(&self.host, page);
    }

    /// The writes of the scheduler.
    pub fn write_requests_of_scheduler(&self, page: &mut Page) {
        self.scheduler.requests.write(&self.host, page);
    }

    /// The writes of both, as of one client.
    pub fn write_requests(&self, page: &mut Page) {
        let both = Requests::default();
        both.absorb(&self.controllers);
        both.absorb(&self.scheduler.requests);
        both.write(&self.host, page);
    }
}

fn scheduler_name() -> &'static str {
    crate::scheduling::COMPONENT
}

/// Upstream's label: many attempts are one.
fn attempts_label(number: u32) -> &'static str {
    const LABELS: [&str; 15] =
        ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15+"];
    let index = usize::try_from(number).unwrap_or(usize::MAX).saturating_sub(1);
    LABELS[index.min(LABELS.len() - 1)]
}

#[cfg(test)]
mod tests {
    use kinds::{NODES, PODS};
    use object::{Draft, Reason, Resource, Snapshot, body};
    use serde_json::json;

    use super::*;

    fn key() -> Key {
        Key::new(Resource::new("pods"), "default", "a")
    }

    #[test]
    fn a_queue_tells_what_became_of_its_keys() {
        let measures = Measures::new("10.0.0.1:443".into());
        let queue = measures.queue("replication-controller");
        queue.added();
        queue.holds(1);
        queue.began(&key(), Duration::from_millis(5));
        queue.holds(0);
        assert!(queue.unfinished().0 > 0.0);
        queue.ended(&key(), true);
        assert_eq!(queue.unfinished(), (0.0, 0.0));
        let create = Write::Create { resource: Resource::new("pods"), object: json!({}) };
        measures.wrote(false, &create, Ok(()), Duration::from_millis(1));
        let refused = Status::new(Reason::Forbidden, "no");
        measures.wrote(true, &create, Err(&refused), Duration::from_millis(1));
        let mut page = Page::default();
        measures.write_controllers(&mut page);
        measures.write_requests(&mut page);
        let text = page.into_text();
        for line in [
            "workqueue_adds_total{name=\"replicationmanager\"} 1",
            "workqueue_depth{name=\"replicationmanager\"} 0",
            "workqueue_retries_total{name=\"replicationmanager\"} 1",
            "workqueue_queue_duration_seconds_bucket{name=\"replicationmanager\",le=\"0.001\"} 0",
            "workqueue_queue_duration_seconds_bucket{name=\"replicationmanager\",le=\"0.01\"} 1",
            "workqueue_work_duration_seconds_count{name=\"replicationmanager\"} 1",
            "rest_client_requests_total{code=\"201\",host=\"10.0.0.1:443\",method=\"POST\"} 1",
            "rest_client_requests_total{code=\"403\",host=\"10.0.0.1:443\",method=\"POST\"} 1",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in {text}");
        }
    }

    #[test]
    fn the_scheduler_tells_what_it_holds() {
        let mut state = Snapshot::default();
        let mut put = |resource, namespace: &str, object: serde_json::Value| {
            let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
            let draft = Draft::read(Key::new(resource, namespace, name), [].into(), body::encode(&object));
            state.put(draft.expect("a draft").at(1));
        };
        put(NODES, "", json!({"metadata": {"name": "one"}}));
        for (name, node) in [("a", "one"), ("b", "one"), ("c", "one"), ("waits", "")] {
            let metadata = json!({"name": name, "namespace": "default", "uid": name});
            let spec = json!({"nodeName": node, "schedulerName": "default-scheduler", "containers": []});
            put(PODS, "default", json!({"metadata": metadata, "spec": spec}));
        }
        let measures = Measures::new(String::new());
        measures.sees(&Scheduler::new(&state, 0, Time::from_secs(100)));
        let mut page = Page::default();
        measures.write_scheduler(&mut page);
        let text = page.into_text();
        for line in [
            "scheduler_cache_size{type=\"assumed_pods\"} 0",
            "scheduler_cache_size{type=\"nodes\"} 1",
            "scheduler_cache_size{type=\"pods\"} 3",
            "scheduler_pending_pods{queue=\"active\"} 1",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in {text}");
        }
    }

    #[test]
    fn the_scheduler_tells_how_long_pods_waited() {
        let measures = Measures::new(String::new());
        let since = Time::from_secs(100);
        let tried = |placed, number, preempted| Attempt { pod: key(), placed, number, since, preempted };
        measures.tried(&[tried(false, 1, Some(2)), tried(false, 2, Some(0))], Duration::from_millis(4));
        measures.tried(&[tried(true, 3, None)], Duration::from_millis(4));
        measures.bound(&tried(true, 3, None), true, Duration::from_millis(4), Time::from_secs(101));
        measures.bound(&tried(true, 77, None), false, Duration::from_millis(4), Time::from_secs(101));
        let mut page = Page::default();
        measures.write_scheduler(&mut page);
        let text = page.into_text();
        for line in [
            "scheduler_schedule_attempts_total{profile=\"default-scheduler\",result=\"unschedulable\"} 2",
            "scheduler_schedule_attempts_total{profile=\"default-scheduler\",result=\"scheduled\"} 1",
            "scheduler_schedule_attempts_total{profile=\"default-scheduler\",result=\"error\"} 1",
            "scheduler_preemption_attempts_total 2",
            "scheduler_preemption_victims_sum 2",
            "scheduler_pod_scheduling_sli_duration_seconds_sum{attempts=\"3\"} 1",
            "scheduler_scheduling_algorithm_duration_seconds_count 3",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in {text}");
        }
        assert_eq!((attempts_label(1), attempts_label(14), attempts_label(99)), ("1", "14", "15+"));
    }
}
