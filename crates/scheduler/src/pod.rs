//! A pod as scheduling sees it, read once from its JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use object::selector::{Operator, Requirement};
use object::{Key, LabelSelector, Object, Time};
use schema::Quantity;
use serde::Deserialize;

use crate::affinity::{Affinities, Labels, NodeSelector, PodTerms, PreferredNodes};
use crate::amounts::Amounts;

/// A container that asks for no CPU or memory counts for this much when nodes are compared.
const DEFAULT_CPU_MILLIS: i64 = 100;
const DEFAULT_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

/// Everything about a pod that decides where it can go.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    pub key: Key,
    pub uid: Box<str>,
    /// Shared by all placed pods of a namespace that have the same.
    pub labels: Arc<Labels>,
    /// Empty: not placed yet.
    pub node: Arc<str>,
    /// Where a preemption is making room for it; mostly empty.
    pub nominated: Arc<str>,
    pub scheduler_name: Box<str>,
    pub priority: i64,
    /// `preemptionPolicy: Never` is false.
    pub may_preempt: bool,
    pub requests: Amounts,
    /// (CPU in thousandths, bytes of memory) with stand-ins for containers that state none.
    pub scored: (i64, i64),
    pub node_selector: Vec<(Box<str>, Box<str>)>,
    pub required_nodes: Option<NodeSelector>,
    pub preferred_nodes: Vec<PreferredNodes>,
    /// Shared by placed pods that say the same.
    pub affinities: Arc<Affinities>,
    pub spread: Vec<Spread>,
    pub tolerations: Vec<Toleration>,
    pub host_ports: Vec<HostPort>,
    pub images: Vec<Box<str>>,
    pub containers: usize,
    /// The claims it mounts, ephemeral ones by the name they will have.
    pub claims: Vec<Claim>,
    pub gates: Vec<Box<str>>,
    pub is_deleting: bool,
    /// Succeeded or Failed: it takes no room any more.
    pub is_over: bool,
    /// Its status says already that it fits nowhere.
    pub is_told: bool,
    /// (kind, name) of its controller.
    pub owner: Option<(Box<str>, Box<str>)>,
    pub started: Option<Time>,
    pub created: Option<Time>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    pub name: Box<str>,
    /// Made by the ephemeral volume controller; must be owned by the pod.
    pub is_ephemeral: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Toleration {
    pub key: Box<str>,
    pub operator: Box<str>,
    pub value: Box<str>,
    pub effect: Box<str>,
}

impl Toleration {
    pub fn tolerates(&self, taint: &Taint) -> bool {
        if !self.effect.is_empty() && self.effect != taint.effect {
            return false;
        }
        if !self.key.is_empty() && self.key != taint.key {
            return false;
        }
        match &*self.operator {
            "Exists" => true,
            "Gt" | "Lt" => match (taint.value.parse::<i64>(), self.value.parse::<i64>()) {
                (Ok(taint), Ok(bound)) => (taint > bound) == (&*self.operator == "Gt") && taint != bound,
                _ => false,
            },
            _ => self.value == taint.value,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Taint {
    pub key: Box<str>,
    pub value: Box<str>,
    pub effect: Box<str>,
}

impl Taint {
    pub fn is_tolerated(&self, tolerations: &[Toleration]) -> bool {
        tolerations.iter().any(|toleration| toleration.tolerates(self))
    }

    /// Keeps pods away (`PreferNoSchedule` only discourages).
    pub fn is_hard(&self) -> bool {
        matches!(&*self.effect, "NoSchedule" | "NoExecute")
    }
}

/// A port of the node that a container takes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// `0.0.0.0` for all addresses.
    pub ip: Box<str>,
    pub protocol: Box<str>,
    pub port: u16,
}

impl HostPort {
    pub fn conflicts(&self, other: &Self) -> bool {
        let all = |ip: &str| ip == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || all(&self.ip) || all(&other.ip))
    }
}

/// One topology spread constraint: <https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/>.
#[derive(Clone, Debug, PartialEq)]
pub struct Spread {
    pub max_skew: i64,
    pub topology_key: Box<str>,
    /// `DoNotSchedule`; otherwise `ScheduleAnyway`.
    pub is_hard: bool,
    pub selector: LabelSelector,
    pub min_domains: i64,
    pub honors_affinity: bool,
    pub honors_taints: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodView {
    spec: SpecView,
    status: StatusView,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StatusView {
    phase: Box<str>,
    nominated_node_name: Box<str>,
    start_time: Option<Time>,
    conditions: Vec<ConditionView>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ConditionView {
    r#type: Box<str>,
    reason: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SpecView {
    node_name: Box<str>,
    scheduler_name: Box<str>,
    priority: i64,
    preemption_policy: Box<str>,
    host_network: bool,
    node_selector: Option<BTreeMap<Box<str>, Box<str>>>,
    affinity: Option<AffinityView>,
    tolerations: Vec<Toleration>,
    topology_spread_constraints: Vec<SpreadView>,
    scheduling_gates: Vec<Named>,
    containers: Vec<ContainerView>,
    init_containers: Vec<ContainerView>,
    overhead: BTreeMap<Box<str>, Quantity>,
    resources: Option<ResourcesView>,
    volumes: Vec<VolumeView>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Named {
    name: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AffinityView {
    node_affinity: Option<NodeAffinityView>,
    pod_affinity: Option<PodTerms>,
    pod_anti_affinity: Option<PodTerms>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeAffinityView {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    required: Option<NodeSelector>,
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    preferred: Vec<PreferredNodes>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SpreadView {
    max_skew: i64,
    topology_key: Box<str>,
    when_unsatisfiable: Box<str>,
    label_selector: Option<LabelSelector>,
    min_domains: Option<i64>,
    node_affinity_policy: Box<str>,
    node_taints_policy: Box<str>,
    match_label_keys: Vec<Box<str>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerView {
    image: Box<str>,
    restart_policy: Box<str>,
    resources: ResourcesView,
    ports: Vec<PortView>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResourcesView {
    requests: BTreeMap<Box<str>, Quantity>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PortView {
    container_port: u16,
    host_port: u16,
    #[serde(rename = "hostIP")]
    host_ip: Box<str>,
    protocol: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct VolumeView {
    name: Box<str>,
    persistent_volume_claim: Option<ClaimView>,
    ephemeral: Option<serde::de::IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClaimView {
    claim_name: Box<str>,
}

impl ConditionView {
    fn says_unschedulable(&self) -> bool {
        &*self.r#type == "PodScheduled" && &*self.reason == "Unschedulable"
    }
}

impl Pod {
    pub fn read(object: &Object) -> Result<Self, serde_json::Error> {
        let PodView { spec, status } = object.decode()?;
        let labels = object.meta.labels.clone();
        let namespace = &object.key.namespace;
        let affinity = spec.affinity.unwrap_or_default();
        let nodes = affinity.node_affinity.unwrap_or_default();
        let mut near = affinity.pod_affinity.unwrap_or_default();
        let mut far = affinity.pod_anti_affinity.unwrap_or_default();
        near.complete(namespace, &labels);
        far.complete(namespace, &labels);
        let (requests, scored) = requests(
            &spec.containers,
            &spec.init_containers,
            spec.resources.as_ref(),
            &Amounts::of(&spec.overhead),
        );
        let owner = object.meta.controller().map(|owner| (owner.kind.clone(), owner.name.clone()));
        Ok(Self {
            key: object.key.clone(),
            uid: object.meta.uid.clone(),
            node: spec.node_name.as_ref().into(),
            nominated: status.nominated_node_name.as_ref().into(),
            scheduler_name: spec.scheduler_name,
            priority: spec.priority,
            may_preempt: &*spec.preemption_policy != "Never",
            requests,
            scored,
            node_selector: spec.node_selector.unwrap_or_default().into_iter().collect(),
            required_nodes: nodes.required,
            preferred_nodes: nodes.preferred,
            affinities: Arc::new(Affinities { near, far }),
            spread: spec.topology_spread_constraints.into_iter().map(|view| view.spread(&labels)).collect(),
            tolerations: spec.tolerations,
            host_ports: host_ports(&spec.containers, &spec.init_containers, spec.host_network),
            images: spec
                .containers
                .iter()
                .chain(&spec.init_containers)
                .map(|held| held.image.clone())
                .collect(),
            containers: spec.containers.len() + spec.init_containers.len(),
            claims: claims(&object.key.name, &spec.volumes),
            gates: spec.scheduling_gates.into_iter().map(|gate| gate.name).collect(),
            is_deleting: object.meta.is_deleting(),
            is_over: matches!(&*status.phase, "Succeeded" | "Failed"),
            is_told: status.conditions.iter().any(ConditionView::says_unschedulable),
            owner,
            started: status.start_time,
            created: object.meta.creation_timestamp,
            labels: Arc::new(labels),
        })
    }

    /// Does the pod want this node, as far as its node selector and required node affinity go?
    pub fn selects(&self, node: &crate::Node) -> bool {
        self.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value))
            && self.required_nodes.as_ref().is_none_or(|selector| selector.matches(node))
    }
}

/// Containers and sidecars add up; an init container counts if it needs more, beside the sidecars before it.
/// <https://kubernetes.io/docs/concepts/workloads/pods/init-containers/#resource-sharing-within-containers>
fn requests(
    containers: &[ContainerView],
    init: &[ContainerView],
    of_pod: Option<&ResourcesView>,
    overhead: &Amounts,
) -> (Amounts, (i64, i64)) {
    let sum = |with: &dyn Fn(&ContainerView) -> Amounts| {
        let mut total = Amounts::default();
        containers.iter().for_each(|container| total.add(&with(container)));
        let (mut sidecars, mut most) = (Amounts::default(), Amounts::default());
        for container in init {
            let own = with(container);
            if &*container.restart_policy == "Always" {
                total.add(&own);
                sidecars.add(&own);
                most.raise(&sidecars);
            } else {
                let mut needed = sidecars.clone();
                needed.add(&own);
                most.raise(&needed);
            }
        }
        total.raise(&most);
        if let Some(of_pod) = of_pod {
            total.overrule(&Amounts::of(&of_pod.requests));
        }
        total.add(overhead);
        total
    };
    let stated = sum(&|container| Amounts::of(&container.resources.requests));
    let scored = sum(&|container| {
        let mut amounts = Amounts::of(&container.resources.requests);
        if !container.resources.requests.contains_key("cpu") {
            amounts.cpu_millis = DEFAULT_CPU_MILLIS;
        }
        if !container.resources.requests.contains_key("memory") {
            amounts.memory_bytes = DEFAULT_MEMORY_BYTES;
        }
        amounts
    });
    (stated, (scored.cpu_millis, scored.memory_bytes))
}

fn host_ports(containers: &[ContainerView], init: &[ContainerView], host_network: bool) -> Vec<HostPort> {
    let sidecars = init.iter().filter(|container| &*container.restart_policy == "Always");
    let ports = containers.iter().chain(sidecars).flat_map(|container| &container.ports);
    ports
        .filter_map(|port| {
            let number =
                if port.host_port == 0 && host_network { port.container_port } else { port.host_port };
            let or = |text: &str, default: &str| if text.is_empty() { default.into() } else { text.into() };
            (number != 0).then(|| HostPort {
                ip: or(&port.host_ip, "0.0.0.0"),
                protocol: or(&port.protocol, "TCP"),
                port: number,
            })
        })
        .collect()
}

fn claims(pod: &str, volumes: &[VolumeView]) -> Vec<Claim> {
    let claims =
        volumes.iter().filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
            (Some(claim), _) => Some(Claim { name: claim.claim_name.clone(), is_ephemeral: false }),
            (None, Some(_)) => {
                Some(Claim { name: format!("{pod}-{}", volume.name).into(), is_ephemeral: true })
            }
            (None, None) => None,
        });
    claims.collect()
}

impl SpreadView {
    fn spread(self, labels: &Labels) -> Spread {
        // No selector matches no pod: a requirement that nothing can meet.
        let nothing = || LabelSelector(vec![Requirement::new("", Operator::In, [""; 0])]);
        let mut selector = self.label_selector.unwrap_or_else(nothing);
        for key in &self.match_label_keys {
            if let Some(value) = labels.get(key) {
                let requirement = Requirement::new(key, Operator::In, [value.clone()]);
                if !selector.0.contains(&requirement) {
                    selector.0.push(requirement);
                }
            }
        }
        Spread {
            max_skew: self.max_skew,
            topology_key: self.topology_key,
            is_hard: &*self.when_unsatisfiable != "ScheduleAnyway",
            selector,
            min_domains: self.min_domains.unwrap_or(1),
            honors_affinity: &*self.node_affinity_policy != "Ignore",
            honors_taints: &*self.node_taints_policy == "Honor",
        }
    }
}
