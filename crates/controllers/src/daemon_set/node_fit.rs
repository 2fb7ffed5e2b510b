//! Which nodes a DaemonSet's pods belong on, and how a pod is tied to its node.

use object::Object;
use object::selector::{Operator, Requirement};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::nodes::Node;
use crate::views::{Labels, Taint, Template, Toleration};

/// Whether a node should have a pod of the set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    Run,
    /// No new pod, but one that is there may stay: a NoSchedule taint came later.
    Stay,
    No,
}

/// What the template asks of a node.
pub struct Requirements {
    spec: PodSpec,
    tolerations: Vec<Toleration>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    node_name: String,
    node_selector: Option<Labels>,
    affinity: Option<Affinity>,
    host_network: bool,
    tolerations: Vec<Toleration>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Affinity {
    node_affinity: Option<NodeAffinity>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeAffinity {
    required_during_scheduling_ignored_during_execution: Option<NodeSelector>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeSelector {
    node_selector_terms: Vec<Term>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Term {
    match_expressions: Vec<Expression>,
    match_fields: Vec<Expression>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Expression {
    key: String,
    operator: String,
    values: Vec<String>,
}

impl Requirements {
    pub fn read(template: &Template) -> Self {
        let spec = template.0.get("spec").cloned().unwrap_or_default();
        let spec: PodSpec = serde_json::from_value(spec).unwrap_or_default();
        let mut tolerations = spec.tolerations.clone();
        tolerations.extend(added_tolerations(spec.host_network));
        Self { spec, tolerations }
    }

    pub fn fit(&self, node: &Node) -> Fit {
        if !self.matches(node) {
            return Fit::No;
        }
        let hurts = |effect: &str| {
            let mut taints = node.spec.taints.iter().filter(|taint| taint.effect == effect);
            taints.any(|taint| !self.tolerates(taint))
        };
        if hurts("NoExecute") {
            Fit::No
        } else if hurts("NoSchedule") {
            Fit::Stay
        } else {
            Fit::Run
        }
    }

    fn tolerates(&self, taint: &Taint) -> bool {
        self.tolerations.iter().any(|toleration| toleration.tolerates(taint))
    }

    fn matches(&self, node: &Node) -> bool {
        let labels = &node.object.meta.labels;
        let named = self.spec.node_name.is_empty() || self.spec.node_name == node.name();
        let selected =
            self.spec.node_selector.iter().flatten().all(|(name, value)| labels.get(name) == Some(value));
        let affinity = self.spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required =
            affinity.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
        named
            && selected
            && required
                .is_none_or(|selector| selector.node_selector_terms.iter().any(|term| term.matches(node)))
    }
}

impl Term {
    /// A term without requirements matches nothing.
    fn matches(&self, node: &Node) -> bool {
        let labels = &node.object.meta.labels;
        let label = |one: &Expression| one.holds(labels.get(one.key.as_str()).map(|value| &**value));
        let field = |one: &Expression| one.key == "metadata.name" && one.holds(Some(node.name()));
        !(self.match_expressions.is_empty() && self.match_fields.is_empty())
            && self.match_expressions.iter().all(label)
            && self.match_fields.iter().all(field)
    }
}

impl Expression {
    fn holds(&self, value: Option<&str>) -> bool {
        let operator = match self.operator.as_str() {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => Operator::Gt,
            "Lt" => Operator::Lt,
            _ => return false,
        };
        Requirement::new(&self.key, operator, self.values.iter().map(String::as_str)).matches(value)
    }
}

/// What daemons tolerate without saying so:
/// <https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/#taints-and-tolerations>.
fn added_tolerations(host_network: bool) -> Vec<Toleration> {
    let exists = |key: &str, effect: &str| Toleration {
        key: format!("node.kubernetes.io/{key}"),
        operator: "Exists".into(),
        effect: effect.into(),
        ..Toleration::default()
    };
    let mut added = vec![
        exists("not-ready", "NoExecute"),
        exists("unreachable", "NoExecute"),
        exists("disk-pressure", "NoSchedule"),
        exists("memory-pressure", "NoSchedule"),
        exists("pid-pressure", "NoSchedule"),
        exists("unschedulable", "NoSchedule"),
    ];
    if host_network {
        added.push(exists("network-unavailable", "NoSchedule"));
    }
    added
}

pub fn tolerate(spec: &mut Value) {
    let mut tolerations = spec["tolerations"].as_array().cloned().unwrap_or_default();
    for toleration in added_tolerations(spec["hostNetwork"] == true) {
        let toleration = json!(toleration);
        if !tolerations.contains(&toleration) {
            tolerations.push(toleration);
        }
    }
    spec["tolerations"] = tolerations.into();
}

/// Ties the pod to one node by its name, in every term, so that the scheduler still decides whether it fits.
pub fn pin(spec: &mut Value, node: &str) {
    let field = json!([{"key": "metadata.name", "operator": "In", "values": [node]}]);
    let required = &mut spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    match required["nodeSelectorTerms"].as_array_mut().filter(|terms| !terms.is_empty()) {
        Some(terms) => terms.iter_mut().for_each(|term| term["matchFields"] = field.clone()),
        None => required["nodeSelectorTerms"] = json!([{"matchFields": field}]),
    }
}

/// The node that a pod is tied to, before the scheduler has bound it.
pub fn pinned_node(pod: &Object) -> Option<String> {
    #[derive(Deserialize)]
    struct Wire {
        spec: PodSpec,
    }
    let affinity = pod.decode::<Wire>().ok()?.spec.affinity?.node_affinity?;
    let terms = affinity.required_during_scheduling_ignored_during_execution?.node_selector_terms;
    let fields = terms.into_iter().flat_map(|term| term.match_fields);
    fields.filter(|one| one.key == "metadata.name" && one.operator == "In").flat_map(|one| one.values).next()
}
