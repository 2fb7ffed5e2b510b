//! What admission and the allocation of addresses cost, counted under upstream's names.

use std::net::Ipv4Addr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use admission::{CHAIN, Operation, Plugin, PodSecurityNote, PodSecurityVersion, PolicyCheck, Step};
use kinds::{IP_ADDRESSES, PODS};
use metrics::{Counter, Family, Histogram, Page, SECONDS, exponential};
use object::{Resource, Snapshot, Status, Table};
use schema::custom::ConversionFault;

use crate::{ServiceRange, ServiceRanges, allocation, service};

static ADMISSION_SECONDS: [f64; 6] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
/// Those and others between a microsecond and a minute, each at most a tenth more than the one before: close enough for quantiles.
static STEP_SECONDS: [f64; STEP_FINE + ADMISSION_SECONDS.len()] = step_seconds();
const STEP_FINE: usize = 188;
static WEBHOOK_SECONDS: [f64; 8] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
static POLICY_SECONDS: [f64; 5] = [0.000_000_5, 0.001, 0.01, 0.1, 1.0];
static CONVERSION_SECONDS: [f64; 15] =
    [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0];
static RATCHETING_SECONDS: [f64; 10] = exponential(0.00001, 4.0);
static COMPARISON_SECONDS: [f64; 10] = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 5.0];
const STEP: &str = "apiserver_admission_step_admission_duration_seconds";
const CONTROLLER: &str = "apiserver_admission_controller_admission_duration_seconds";
/// The code that is told of a webhook that could not be called: upstream's.
const NOT_CALLED: u16 = 400;

const fn step_seconds() -> [f64; STEP_FINE + ADMISSION_SECONDS.len()] {
    let fine = exponential::<STEP_FINE>(1e-6, 1.1);
    let mut all = [0.0; STEP_FINE + ADMISSION_SECONDS.len()];
    let (mut at, mut from_fine, mut from_told) = (0, 0, 0);
    while at < all.len() {
        let is_told = from_fine == STEP_FINE
            || from_told < ADMISSION_SECONDS.len() && ADMISSION_SECONDS[from_told] <= fine[from_fine];
        all[at] = if is_told { ADMISSION_SECONDS[from_told] } else { fine[from_fine] };
        if is_told {
            from_told += 1;
        } else {
            from_fine += 1;
        }
        at += 1;
    }
    all
}

const OPERATIONS: [Operation; 4] =
    [Operation::Create, Operation::Update, Operation::Delete, Operation::Connect];
const PHASES: [Phase; 2] = [Phase::Admit, Phase::Validate];

/// What a plugin, or all of them, are asked: to complete an object, or to judge it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Admit,
    Validate,
}

impl Phase {
    fn word(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Validate => "validate",
        }
    }

    /// Of webhooks upstream has another word for the second.
    fn of_webhook(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Validate => "validating",
        }
    }
}

/// By operation, by phase, and by whether the request was refused: all there may be, each made when it is first needed. What every write
/// passes is not looked for by its labels.
type Steps = [[[OnceLock<Histogram>; 2]; PHASES.len()]; OPERATIONS.len()];

/// The counts of one way in.
pub struct Measures {
    steps: Steps,
    /// One for each plugin of the chain.
    plugins: Box<[(&'static str, Steps)]>,
    /// By name, phase, operation, and whether it refused.
    webhooks: Family<[Box<str>; 4], Histogram>,
    /// By code, and by name, phase, operation, and whether it refused.
    webhook_requests: Family<(u16, [Box<str>; 4]), Counter>,
    /// By code, and by name, phase, operation and error.
    webhook_rejections: Family<(u16, [Box<str>; 4]), Counter>,
    /// By name and phase.
    webhook_fail_open: Family<[Box<str>; 2], Counter>,
    /// By action, error, policy and binding.
    policy_checks: Family<[Box<str>; 4], Histogram>,
    pod_security: Family<PodSecurity, Counter>,
    /// By error, policy and binding.
    mutations: Family<[Box<str>; 3], Histogram>,
    /// By range, and whether the address was chosen (`static`) or not (`dynamic`).
    addresses: Family<(ServiceRange, &'static str), Counter>,
    address_errors: Family<(ServiceRange, &'static str), Counter>,
    address_seconds: Family<ServiceRange, Histogram>,
    node_ports: Family<[&'static str; 1], Counter>,
    node_port_errors: Family<[&'static str; 1], Counter>,
    /// By what was wrong, nothing if it went well, and the result.
    conversions: Family<[&'static str; 2], Histogram>,
    /// Of definitions: what compiling the rules of a schema took, asking those of an object, and asking them again about what an update
    /// leaves as it was.
    rules_compiled: Histogram,
    rules_asked: Histogram,
    ratcheting: Histogram,
    /// Whether an update changes anything: it does, or it does not.
    comparisons: [Histogram; 2],
}

impl Default for Measures {
    fn default() -> Self {
        let seconds = || Histogram::new(SECONDS);
        Self {
            steps: Steps::default(),
            plugins: names().map(|name| (name, Steps::default())).collect(),
            webhooks: Family::new(|| Histogram::new(&WEBHOOK_SECONDS)),
            webhook_requests: Family::default(),
            webhook_rejections: Family::default(),
            webhook_fail_open: Family::default(),
            policy_checks: Family::new(|| Histogram::new(&POLICY_SECONDS)),
            pod_security: pod_security(),
            mutations: Family::new(|| Histogram::new(&POLICY_SECONDS)),
            addresses: Family::default(),
            address_errors: Family::default(),
            address_seconds: Family::new(seconds),
            node_ports: Family::default(),
            node_port_errors: Family::default(),
            conversions: Family::new(|| Histogram::new(&CONVERSION_SECONDS)),
            rules_compiled: seconds(),
            rules_asked: seconds(),
            ratcheting: Histogram::new(&RATCHETING_SECONDS),
            comparisons: std::array::from_fn(|_| Histogram::new(&COMPARISON_SECONDS)),
        }
    }
}

/// All plugins, in the order of the chain.
fn names() -> impl Iterator<Item = &'static str> {
    CHAIN.iter().flat_map(|step| {
        let (plugins, charge): (&[Plugin], _) = match step {
            Step::Plugins(plugins) => (plugins, None),
            Step::Charge(name, _) => (&[], Some(*name)),
            _ => (&[], None),
        };
        plugins.iter().map(|plugin| plugin.name).chain(charge)
    })
}

/// A phase of admission on its way through the chain.
pub(crate) struct Stopwatch<'a> {
    measures: &'a Measures,
    operation: usize,
    phase: Phase,
    began: Instant,
}

/// Plugins that are asked one after another.
pub(crate) struct Plugins<'a> {
    measures: &'a [(&'static str, Steps)],
    operation: usize,
    phase: Phase,
    last: Instant,
}

impl Plugins<'_> {
    /// One of them, by its place, has had its say.
    pub(crate) fn had_its_say(&mut self, index: usize, refused: bool) {
        let now = Instant::now();
        if let Some((_, steps)) = self.measures.get(index) {
            observe(steps, &ADMISSION_SECONDS, self.operation, self.phase, refused, now - self.last);
        }
        self.last = now;
    }
}

impl<'a> Stopwatch<'a> {
    /// These plugins of the chain are asked next, one after another.
    pub(crate) fn of(&self, plugins: &[Plugin]) -> Plugins<'a> {
        self.beginning(plugins.first().map_or("", |plugin| plugin.name))
    }

    /// Those from the one of this name on are asked next.
    pub(crate) fn beginning(&self, first: &str) -> Plugins<'a> {
        let at = self.measures.plugins.iter().position(|(name, _)| *name == first).unwrap_or(0);
        let measures = &self.measures.plugins[at..];
        Plugins { measures, operation: self.operation, phase: self.phase, last: Instant::now() }
    }

    /// The whole phase is over.
    pub(crate) fn ended(self, refused: bool) {
        let Self { measures, operation, phase, began } = self;
        observe(&measures.steps, &STEP_SECONDS, operation, phase, refused, began.elapsed());
    }
}

fn observe(
    steps: &Steps,
    bounds: &'static [f64],
    operation: usize,
    phase: Phase,
    refused: bool,
    took: Duration,
) {
    let histogram = &steps[operation][phase as usize][usize::from(refused)];
    histogram.get_or_init(|| Histogram::new(bounds)).took(took);
}

/// What the Pod Security Standards were asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum PodSecurity {
    Evaluated {
        decision: &'static str,
        mode: &'static str,
        level: &'static str,
        version: PodSecurityVersion,
        asked: PodSecurityAsked,
    },
    Exempt(PodSecurityAsked),
    Unreadable(PodSecurityAsked),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct PodSecurityAsked {
    operation: &'static str,
    resource: &'static str,
    subresource: &'static str,
}

impl PodSecurityAsked {
    fn labels(&self) -> [(&'static str, &'static str); 3] {
        let Self { operation, resource, subresource } = *self;
        [("request_operation", operation), ("resource", resource), ("subresource", subresource)]
    }
}

/// With what upstream tells from the beginning.
fn pod_security() -> Family<PodSecurity, Counter> {
    let (family, version) = (Family::default(), PodSecurityVersion::Latest);
    for operation in ["create", "update"] {
        let asked = |resource| PodSecurityAsked { operation, resource, subresource: "" };
        let pods = asked("pod");
        let (decision, mode, level) = ("allow", "enforce", "privileged");
        let allowed = PodSecurity::Evaluated { decision, mode, level, version, asked: pods };
        for labels in [allowed, PodSecurity::Exempt(pods), PodSecurity::Exempt(asked("controller"))] {
            family.of(&labels);
        }
    }
    family
}

/// A webhook's part in a request.
pub(crate) struct Call<'a> {
    pub(crate) name: &'a str,
    pub(crate) phase: Phase,
    pub(crate) operation: Operation,
    /// Whether it answered.
    pub(crate) is_answered: bool,
    pub(crate) took: Duration,
}

impl Measures {
    pub(crate) fn stopwatch(&self, operation: Operation, phase: Phase) -> Stopwatch<'_> {
        let operation = OPERATIONS.iter().position(|one| *one == operation).unwrap_or(0);
        Stopwatch { measures: self, operation, phase, began: Instant::now() }
    }

    /// A webhook was called; `ended` is what that means for the request.
    pub(crate) fn called<T>(&self, call: &Call<'_>, ended: &Result<T, Status>) {
        let (name, phase, operation) = (call.name, call.phase.of_webhook(), call.operation.word());
        let refused = if ended.is_err() { "true" } else { "false" };
        let code = match ended {
            _ if !call.is_answered => NOT_CALLED,
            Err(status) => status.code.min(600),
            Ok(_) => 200,
        };
        self.webhooks.of(&[name, phase, operation, refused]).took(call.took);
        self.webhook_requests.of(&(code, [name, phase, operation, refused])).increase();
        if ended.is_err() {
            let error = if call.is_answered { "no_error" } else { "calling_webhook_error" };
            self.webhook_rejections.of(&(code, [name, phase, operation, error])).increase();
        } else if !call.is_answered {
            self.webhook_fail_open.of(&[name, phase]).increase();
        }
    }

    /// What a validating policy found, and how long that took.
    pub(crate) fn judged(&self, checks: Vec<PolicyCheck>, took: Duration) {
        for PolicyCheck { policy, binding, action, error } in checks {
            self.policy_checks.of(&[action, error, &*policy, &*binding]).took(took);
        }
    }

    /// The Pod Security Standards had to do with a write.
    pub(crate) fn pod_security(
        &self,
        note: PodSecurityNote,
        operation: &'static str,
        resource: Resource,
        subresource: &str,
    ) {
        let resource = if resource == PODS { "pod" } else { "controller" };
        let known = ["ephemeralcontainers", "resize"].into_iter().find(|known| *known == subresource);
        let asked = PodSecurityAsked { operation, resource, subresource: known.unwrap_or_default() };
        let labels = match note {
            PodSecurityNote::Evaluated { is_denied, mode, level, version } => {
                let decision = if is_denied { "deny" } else { "allow" };
                PodSecurity::Evaluated { decision, mode, level, version, asked }
            }
            PodSecurityNote::Exempt => PodSecurity::Exempt(asked),
            PodSecurityNote::Unreadable => PodSecurity::Unreadable(asked),
        };
        self.pod_security.of(&labels).increase();
    }

    /// A mutating policy was asked.
    pub(crate) fn mutated(&self, [policy, binding, error]: [String; 3], took: Duration) {
        self.mutations.of(&[&*error, &*policy, &*binding]).took(took);
    }

    /// An address was sought in a range; `scope`: `static` if somebody chose it, otherwise `dynamic`.
    pub(crate) fn allocated(&self, range: ServiceRange, scope: &'static str, is_found: bool, took: Duration) {
        let of = if is_found { &self.addresses } else { &self.address_errors };
        of.of(&(range, scope)).increase();
        if is_found {
            self.address_seconds.of(&range).took(took);
        }
    }

    /// A conversion webhook was called; `fault`: what was wrong with its answer, or None if there was none.
    pub(crate) fn converted(&self, fault: Option<Option<ConversionFault>>, took: Duration) {
        let labels = match fault {
            None => ["", "success"],
            Some(None) => ["conversion_webhook_call_failure", "failure"],
            Some(Some(ConversionFault::Malformed)) => {
                ["conversion_webhook_malformed_response_failure", "failure"]
            }
            Some(Some(ConversionFault::Partial)) => {
                ["conversion_webhook_partial_response_failure", "failure"]
            }
            Some(Some(ConversionFault::Invalid)) => {
                ["conversion_webhook_invalid_converted_object_failure", "failure"]
            }
        };
        self.conversions.of(&labels).took(took);
    }

    /// The rules of one schema of a definition were compiled.
    pub(crate) fn compiled_rules(&self, took: Duration) {
        self.rules_compiled.took(took);
    }

    /// An object was judged by the rules of its definition.
    pub(crate) fn asked_rules(&self, took: Duration) {
        self.rules_asked.took(took);
    }

    /// What an update of a custom resource leaves as it was has been looked at apart.
    pub(crate) fn ratcheted(&self, took: Duration) {
        self.ratcheting.took(took);
    }

    /// An update was compared with what is stored.
    pub(crate) fn compared(&self, is_same: bool, took: Duration) {
        self.comparisons[usize::from(is_same)].took(took);
    }

    pub(crate) fn node_port(&self, scope: &'static str, is_found: bool) {
        let of = if is_found { &self.node_ports } else { &self.node_port_errors };
        of.of(&[scope]).increase();
    }

    /// `snapshot`: how many addresses and ports are given out and how many are left, says the state itself.
    pub fn write(&self, snapshot: &Snapshot, services: ServiceRanges, page: &mut Page) {
        self.write_admission(page);
        self.write_custom(page);
        let ranges = allocation::ranges(snapshot, services.addresses);
        let taken =
            snapshot.list(IP_ADDRESSES, "").filter_map(|object| object.key.name.parse::<Ipv4Addr>().ok());
        let taken: Vec<Ipv4Addr> = taken.collect();
        let in_range = |range: &ServiceRange| taken.iter().filter(|ip| range.contains(**ip)).count() as u64;
        let counted: Vec<_> =
            ranges.iter().map(|range| (range.to_string(), range.size(), in_range(range))).collect();
        let name = "kube_apiserver_clusterip_allocator_allocated_ips";
        page.head(name, "gauge", "[ALPHA] Gauge measuring the number of allocated IPs for Services");
        for (cidr, _, taken) in &counted {
            page.sample(name, &[("cidr", cidr)], taken);
        }
        let name = "kube_apiserver_clusterip_allocator_available_ips";
        page.head(name, "gauge", "[ALPHA] Gauge measuring the number of available IPs for Services");
        for (cidr, size, taken) in &counted {
            page.sample(name, &[("cidr", cidr)], size.saturating_sub(*taken));
        }
        let (first, last) = services.node_ports;
        let all = usize::from(last.saturating_sub(first)) + 1;
        let taken = snapshot.table(service::NODE_PORTS).map_or(0, Table::len);
        let allocator = "kube_apiserver_nodeport_allocator";
        let help = "[ALPHA] Gauge measuring the number of allocated NodePorts for Services";
        page.gauge(&format!("{allocator}_allocated_ports"), help, taken);
        let help = "[ALPHA] Gauge measuring the number of available NodePorts for Services";
        page.gauge(&format!("{allocator}_available_ports"), help, all.saturating_sub(taken));
    }

    fn write_custom(&self, page: &mut Page) {
        let help = "[ALPHA] Time for comparison of old to new for the purposes of CRDValidationRatcheting during an UPDATE in seconds.";
        for (name, help, histogram) in [
            ("apiextensions_apiserver_validation_ratcheting_seconds", help, &self.ratcheting),
            (
                "apiserver_cel_compilation_duration_seconds",
                "[BETA] CEL compilation time in seconds.",
                &self.rules_compiled,
            ),
            (
                "apiserver_cel_evaluation_duration_seconds",
                "[BETA] CEL evaluation time in seconds.",
                &self.rules_asked,
            ),
        ] {
            page.head(name, "histogram", help);
            page.histogram(name, &[], histogram);
        }
        let labels = ["failure_type", "result"];
        let of = "apiserver_conversion_webhook";
        let help = "[ALPHA] Conversion webhook request latency";
        page.histograms(&format!("{of}_duration_seconds"), help, labels, &self.conversions);
        let conversions = self.conversions.sorted();
        if !conversions.is_empty() {
            let name = format!("{of}_request_total");
            page.head(
                &name,
                "counter",
                "[ALPHA] Counter for conversion webhook requests with success/failure and failure error type",
            );
            for ([fault, result], took) in conversions {
                page.sample(&name, &[("failure_type", fault), ("result", result)], took.count());
            }
        }
        let name = "apiserver_request_timestamp_comparison_time";
        let help = "[ALPHA] Time taken for comparison of old vs new objects in UPDATE or PATCH requests";
        page.head(name, "histogram", help);
        // Bytes are compared, which ends with the first that differs.
        let paths = ["unequalObjectsFast", "equalObjectsSlow"];
        for (path, took) in paths.iter().zip(&self.comparisons).filter(|(_, took)| took.count() > 0) {
            page.histogram(name, &[("code_path", path)], took);
        }
    }

    fn write_pod_security(&self, page: &mut Page) {
        let all = self.pod_security.sorted();
        let name = "pod_security_errors_total";
        page.head(name, "counter", "[ALPHA] Number of errors preventing normal evaluation. Non-fatal errors may result in the latest restricted profile being used for evaluation.");
        for (labels, count) in &all {
            if let PodSecurity::Unreadable(asked) = labels {
                let labels: Vec<_> = [("fatal", "false")].into_iter().chain(asked.labels()).collect();
                page.sample(name, &labels, count.get());
            }
        }
        let name = "pod_security_evaluations_total";
        page.head(
            name,
            "counter",
            "[ALPHA] Number of policy evaluations that occurred, not counting ignored or exempt requests.",
        );
        for (labels, count) in &all {
            if let PodSecurity::Evaluated { decision, mode, level, version, asked } = labels {
                let version = match version {
                    PodSecurityVersion::Latest => "latest".to_owned(),
                    PodSecurityVersion::Minor(minor) => format!("v1.{minor}"),
                    PodSecurityVersion::Future => "future".to_owned(),
                };
                let more = [
                    ("decision", *decision),
                    ("mode", mode),
                    ("policy_level", level),
                    ("policy_version", &version),
                ];
                let labels: Vec<_> = more.into_iter().chain(asked.labels()).collect();
                page.sample(name, &labels, count.get());
            }
        }
        let name = "pod_security_exemptions_total";
        page.head(
            name,
            "counter",
            "[ALPHA] Number of exempt requests, not counting ignored or out of scope requests.",
        );
        for (labels, count) in &all {
            if let PodSecurity::Exempt(asked) = labels {
                page.sample(name, &asked.labels(), count.get());
            }
        }
    }

    fn write_admission(&self, page: &mut Page) {
        let help = "[STABLE] Admission controller latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).";
        page.head(CONTROLLER, "histogram", help);
        for (name, steps) in &self.plugins {
            write_steps(Some(name), steps, |labels, histogram| page.histogram(CONTROLLER, labels, histogram));
        }
        let help = "[STABLE] Admission sub-step latency histogram in seconds, broken out for each operation and API resource and step type (validate or admit).";
        page.head(STEP, "histogram", help);
        write_steps(None, &self.steps, |labels, histogram| {
            page.coarse(STEP, labels, &ADMISSION_SECONDS, histogram);
        });
        let name = format!("{STEP}_summary");
        page.head(&name, "summary", "[ALPHA] Admission sub-step latency summary in seconds, broken out for each operation and API resource and step type (validate or admit).");
        write_steps(None, &self.steps, |labels, histogram| page.summary(&name, labels, histogram));
        page.histograms(
            "apiserver_admission_webhook_admission_duration_seconds",
            "[STABLE] Admission webhook latency histogram in seconds, identified by name and broken out for each operation and API resource and type (validate or admit).",
            ["name", "type", "operation", "rejected"],
            &self.webhooks,
        );
        page.counters(
            "apiserver_admission_webhook_fail_open_count",
            "[ALPHA] Admission webhook fail open count, identified by name and broken out for each admission type (validating or admit).",
            ["name", "type"],
            &self.webhook_fail_open,
        );
        for (name, help, [last, code_name], family) in [
            (
                "apiserver_admission_webhook_rejection_count",
                "[ALPHA] Admission webhook rejection count, identified by name and broken out for each admission type (validating or admit) and operation.",
                ["error_type", "rejection_code"],
                &self.webhook_rejections,
            ),
            (
                "apiserver_admission_webhook_request_total",
                "[ALPHA] Admission webhook request total, identified by name and broken out for each admission type (validating or admit) and operation.",
                ["rejected", "code"],
                &self.webhook_requests,
            ),
        ] {
            let all = family.sorted();
            if !all.is_empty() {
                page.head(name, "counter", help);
            }
            for ((code, values), count) in all {
                let code = code.to_string();
                let labels = ["name", "type", "operation", last].into_iter();
                let labels = labels.zip(values.iter().map(|value| &**value)).chain([(code_name, &*code)]);
                page.sample(name, &labels.collect::<Vec<_>>(), count.get());
            }
        }
        let of = "apiserver_validating_admission_policy_check";
        let labels = ["enforcement_action", "error_type", "policy", "policy_binding"];
        let help = "[BETA] Validation admission latency for individual validation expressions in seconds, labeled by policy and further including binding and enforcement action taken.";
        page.histograms(&format!("{of}_duration_seconds"), help, labels, &self.policy_checks);
        let name = format!("{of}_total");
        page.head(&name, "counter", "[BETA] Validation admission policy check total, labeled by policy and further identified by binding and enforcement action taken.");
        for (values, took) in self.policy_checks.sorted() {
            let labels: Vec<_> = labels.into_iter().zip(values.iter().map(|value| &**value)).collect();
            page.sample(&name, &labels, took.count());
        }
        self.write_pod_security(page);
        let (of, labels) =
            ("apiserver_mutating_admission_policy_check", ["error_type", "policy", "policy_binding"]);
        let help = "[ALPHA] Mutation admission latency for individual mutation expressions in seconds, labeled by policy and binding.";
        page.histograms(&format!("{of}_duration_seconds"), help, labels, &self.mutations);
        let name = format!("{of}_total");
        page.head(&name, "counter", "[ALPHA] Mutation admission policy check total, labeled by policy and further identified by binding.");
        for ([error, policy, binding], took) in self.mutations.sorted() {
            let labels = [("error_type", &*error), ("policy", &*policy), ("policy_binding", &*binding)];
            page.sample(&name, &labels, took.count());
        }
        let allocator = "kube_apiserver_clusterip_allocator_allocation";
        let seconds = self.address_seconds.sorted();
        let name = format!("{allocator}_duration_seconds");
        if !seconds.is_empty() {
            let help = "[ALPHA] Duration in seconds to allocate a Cluster IP by ServiceCIDR";
            page.head(&name, "histogram", help);
        }
        for (range, took) in seconds {
            page.histogram(&name, &[("cidr", &range.to_string())], &took);
        }
        for (name, help, family) in [
            ("errors_total", "[ALPHA] Number of errors trying to allocate Cluster IPs", &self.address_errors),
            ("total", "[ALPHA] Number of Cluster IPs allocations", &self.addresses),
        ] {
            let (name, all) = (format!("{allocator}_{name}"), family.sorted());
            if !all.is_empty() {
                page.head(&name, "counter", help);
            }
            for ((range, scope), count) in all {
                page.sample(&name, &[("cidr", &range.to_string()), ("scope", scope)], count.get());
            }
        }
        let allocator = "kube_apiserver_nodeport_allocator_allocation";
        let help = "[ALPHA] Number of errors trying to allocate NodePort";
        page.counters(&format!("{allocator}_errors_total"), help, ["scope"], &self.node_port_errors);
        let help = "[ALPHA] Number of NodePort allocations";
        page.counters(&format!("{allocator}_total"), help, ["scope"], &self.node_ports);
    }
}

fn write_steps(plugin: Option<&str>, steps: &Steps, mut write: impl FnMut(&[(&str, &str)], &Histogram)) {
    for (operation, by_phase) in OPERATIONS.iter().zip(steps) {
        for (phase, by_refusal) in PHASES.iter().zip(by_phase) {
            for (refused, histogram) in ["false", "true"].iter().zip(by_refusal) {
                let Some(histogram) = histogram.get() else { continue };
                let labels = plugin.map(|name| ("name", name));
                let more = [("operation", operation.word()), ("rejected", *refused), ("type", phase.word())];
                let labels: Vec<(&str, &str)> = labels.into_iter().chain(more).collect();
                write(&labels, histogram);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use object::Reason;

    use super::*;

    #[test]
    fn admission_tells_who_took_how_long_and_who_refused() {
        let measures = Measures::default();
        let Some(Step::Plugins(chain)) = CHAIN.first() else { panic!("the chain begins with plugins") };
        let watch = measures.stopwatch(Operation::Update, Phase::Validate);
        let mut plugins = watch.of(chain);
        plugins.had_its_say(0, false);
        plugins.had_its_say(1, true);
        watch.ended(true);
        let call = |is_answered| Call {
            name: "one.example.com",
            phase: Phase::Validate,
            operation: Operation::Create,
            is_answered,
            took: Duration::from_millis(3),
        };
        let refused: Result<(), Status> = Err(Status::new(Reason::Forbidden, "no"));
        measures.called(&call(true), &Ok(()));
        measures.called(&call(true), &refused);
        measures.called(&call(false), &refused);
        measures.called(&call(false), &Ok(()));
        let check =
            PolicyCheck { policy: "p".into(), binding: "b".into(), action: "deny", error: "invalid_error" };
        measures.judged(vec![check], Duration::from_millis(3));
        let version = PodSecurityVersion::Minor(30);
        let refused =
            PodSecurityNote::Evaluated { is_denied: true, mode: "enforce", level: "baseline", version };
        measures.pod_security(refused, "update", PODS, "resize");
        measures.pod_security(PodSecurityNote::Exempt, "create", kinds::JOBS, "");
        measures.mutated(["p", "b", "no_error"].map(str::to_owned), Duration::from_millis(3));
        for fault in [None, Some(None), Some(Some(ConversionFault::Invalid))] {
            measures.converted(fault, Duration::from_millis(7));
        }
        measures.compiled_rules(Duration::from_millis(7));
        measures.asked_rules(Duration::from_millis(7));
        measures.ratcheted(Duration::from_millis(7));
        for is_same in [true, false, true] {
            measures.compared(is_same, Duration::from_millis(7));
        }
        let mut page = Page::default();
        measures.write_admission(&mut page);
        measures.write_custom(&mut page);
        let text = page.into_text();
        let (one, validating) = ("name=\"one.example.com\"", "type=\"validating\"");
        for line in [
            format!(
                "{CONTROLLER}_count{{name=\"NamespaceLifecycle\",operation=\"UPDATE\",rejected=\"false\",type=\"validate\"}} 1"
            ),
            format!(
                "{CONTROLLER}_count{{name=\"LimitRanger\",operation=\"UPDATE\",rejected=\"true\",type=\"validate\"}} 1"
            ),
            format!("{STEP}_count{{operation=\"UPDATE\",rejected=\"true\",type=\"validate\"}} 1"),
            format!("{STEP}_bucket{{operation=\"UPDATE\",rejected=\"true\",type=\"validate\",le=\"2.5\"}} 1"),
            format!("{STEP}_summary_count{{operation=\"UPDATE\",rejected=\"true\",type=\"validate\"}} 1"),
            "apiserver_validating_admission_policy_check_duration_seconds_bucket{enforcement_action=\"deny\",error_type=\"invalid_error\",policy=\"p\",policy_binding=\"b\",le=\"0.01\"} 1".into(),
            "pod_security_evaluations_total{decision=\"deny\",mode=\"enforce\",policy_level=\"baseline\",policy_version=\"v1.30\",request_operation=\"update\",resource=\"pod\",subresource=\"resize\"} 1".into(),
            "apiserver_cel_compilation_duration_seconds_count 1".into(),
            "apiserver_cel_evaluation_duration_seconds_bucket{le=\"0.01\"} 1".into(),
            "apiextensions_apiserver_validation_ratcheting_seconds_bucket{le=\"0.01024\"} 1".into(),
            "apiserver_conversion_webhook_request_total{failure_type=\"\",result=\"success\"} 1".into(),
            "apiserver_conversion_webhook_request_total{failure_type=\"conversion_webhook_call_failure\",result=\"failure\"} 1".into(),
            "apiserver_conversion_webhook_duration_seconds_bucket{failure_type=\"conversion_webhook_invalid_converted_object_failure\",result=\"failure\",le=\"0.01\"} 1".into(),
            "apiserver_request_timestamp_comparison_time_count{code_path=\"equalObjectsSlow\"} 2".into(),
            "apiserver_request_timestamp_comparison_time_count{code_path=\"unequalObjectsFast\"} 1".into(),
            "pod_security_exemptions_total{request_operation=\"create\",resource=\"controller\",subresource=\"\"} 1".into(),
            format!(
                "apiserver_admission_webhook_request_total{{{one},{validating},operation=\"CREATE\",rejected=\"false\",code=\"200\"}} 1"
            ),
            format!(
                "apiserver_admission_webhook_rejection_count{{{one},{validating},operation=\"CREATE\",error_type=\"no_error\",rejection_code=\"403\"}} 1"
            ),
            format!(
                "apiserver_admission_webhook_rejection_count{{{one},{validating},operation=\"CREATE\",error_type=\"calling_webhook_error\",rejection_code=\"400\"}} 1"
            ),
            format!("apiserver_admission_webhook_fail_open_count{{{one},{validating}}} 1"),
            "apiserver_validating_admission_policy_check_total{enforcement_action=\"deny\",error_type=\"invalid_error\",policy=\"p\",policy_binding=\"b\"} 1".into(),
            "apiserver_mutating_admission_policy_check_total{error_type=\"no_error\",policy=\"p\",policy_binding=\"b\"} 1".into(),
            "apiserver_mutating_admission_policy_check_duration_seconds_bucket{error_type=\"no_error\",policy=\"p\",policy_binding=\"b\",le=\"0.01\"} 1".into(),
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in {text}");
        }
    }
}
