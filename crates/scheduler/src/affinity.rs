//! Affinities as pods state them: of nodes by label, of other pods by topology.

use std::collections::BTreeMap;
use std::sync::Arc;

use object::LabelSelector;
use object::selector::{Operator, Requirement};
use serde::Deserialize;

use crate::node::Node;

pub type Labels = BTreeMap<Box<str>, Box<str>>;

/// One term of a node selector: all of its requirements hold. An empty one holds for no node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeTerm {
    labels: Vec<Requirement>,
    /// On `metadata.name`, the only field there is.
    names: Vec<Requirement>,
}

impl NodeTerm {
    pub fn matches(&self, node: &Node) -> bool {
        let empty = self.labels.is_empty() && self.names.is_empty();
        !empty
            && self.labels.iter().all(|held| held.matches(node.labels.get(&held.key).map(|value| &**value)))
            && self.names.iter().all(|held| held.matches(Some(&node.name)))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct NodeTermView {
    match_expressions: Vec<ExpressionView>,
    match_fields: Vec<ExpressionView>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ExpressionView {
    key: Box<str>,
    operator: Box<str>,
    values: Vec<Box<str>>,
}

impl ExpressionView {
    fn requirement(self) -> Requirement {
        let operator = match &*self.operator {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => Operator::Gt,
            "Lt" => Operator::Lt,
            _ => Operator::Exists,
        };
        Requirement::new(&self.key, operator, self.values)
    }
}

impl<'de> Deserialize<'de> for NodeTerm {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let view = NodeTermView::deserialize(deserializer)?;
        let list = |all: Vec<ExpressionView>| all.into_iter().map(ExpressionView::requirement).collect();
        Ok(Self { labels: list(view.match_expressions), names: list(view.match_fields) })
    }
}

/// `nodeSelectorTerms`: one of them must hold.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSelector {
    pub node_selector_terms: Vec<NodeTerm>,
}

impl NodeSelector {
    pub fn matches(&self, node: &Node) -> bool {
        self.node_selector_terms.iter().any(|term| term.matches(node))
    }

    /// The only nodes that can match, if every term names nodes (as those of daemon pods do).
    pub fn names(&self) -> Option<Vec<&str>> {
        let mut names = Vec::new();
        for term in &self.node_selector_terms {
            let listed = term.names.iter().find(|held| held.operator == Operator::In)?;
            names.extend(listed.values.iter().map(|name| &**name));
        }
        (!self.node_selector_terms.is_empty()).then_some(names)
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct PreferredNodes {
    pub weight: i64,
    pub preference: NodeTerm,
}

/// One term of pod (anti-)affinity: which pods, and how near.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodTerm {
    /// None matches no pod.
    label_selector: Option<LabelSelector>,
    namespaces: Vec<Box<str>>,
    namespace_selector: Option<LabelSelector>,
    pub topology_key: Box<str>,
    match_label_keys: Vec<Box<str>>,
    mismatch_label_keys: Vec<Box<str>>,
}

impl PodTerm {
    /// Fills in what the term leaves to the pod that states it: its namespace and the values of `matchLabelKeys`
    /// (which the API server has merged into the selector already, unless it is an old one).
    pub fn complete(&mut self, namespace: &str, labels: &Labels) {
        if self.namespaces.is_empty() && self.namespace_selector.is_none() {
            self.namespaces.push(namespace.into());
        }
        let Some(selector) = &mut self.label_selector else { return };
        for (keys, operator) in
            [(&self.match_label_keys, Operator::In), (&self.mismatch_label_keys, Operator::NotIn)]
        {
            for key in keys {
                let Some(value) = labels.get(key) else { continue };
                let requirement = Requirement::new(key, operator, [value.clone()]);
                if !selector.0.contains(&requirement) {
                    selector.0.push(requirement);
                }
            }
        }
    }

    /// Is a pod of this namespace (with these labels of its own) one of those the term is about?
    pub fn matches(&self, namespace: &str, namespace_labels: Option<&Labels>, labels: &Labels) -> bool {
        let Some(selector) = &self.label_selector else { return false };
        let named = self.namespaces.iter().any(|held| **held == *namespace);
        let selected = || {
            let empty = Labels::new();
            self.namespace_selector
                .as_ref()
                .is_some_and(|selector| selector.matches(namespace_labels.unwrap_or(&empty)))
        };
        (named || selected()) && selector.matches(labels)
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WeightedPodTerm {
    pub weight: i64,
    pub pod_affinity_term: PodTerm,
}

/// `podAffinity` or `podAntiAffinity`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PodTerms {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution")]
    pub required: Vec<PodTerm>,
    #[serde(rename = "preferredDuringSchedulingIgnoredDuringExecution")]
    pub preferred: Vec<WeightedPodTerm>,
}

impl PodTerms {
    pub fn is_empty(&self) -> bool {
        self.required.is_empty() && self.preferred.is_empty()
    }

    pub fn complete(&mut self, namespace: &str, labels: &Labels) {
        self.required.iter_mut().for_each(|term| term.complete(namespace, labels));
        self.preferred.iter_mut().for_each(|term| term.pod_affinity_term.complete(namespace, labels));
    }
}

/// All that a pod says about other pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Affinities {
    pub near: PodTerms,
    /// Anti-affinity.
    pub far: PodTerms,
}

impl Affinities {
    pub fn is_empty(&self) -> bool {
        self.near.is_empty() && self.far.is_empty()
    }
}

/// Affinities, each once, with how many pods state it: like pods share one, so that what it means for another pod is
/// worked out once.
#[derive(Clone, Debug, Default)]
pub struct Stated(Vec<(Arc<Affinities>, i64)>);

/// As far as tests of the fold care; the order is that of arrival.
impl PartialEq for Stated {
    fn eq(&self, other: &Self) -> bool {
        let total = |all: &Self| all.0.iter().map(|(_, count)| count).sum::<i64>();
        self.0.len() == other.0.len() && total(self) == total(other)
    }
}

impl Stated {
    pub fn iter(&self) -> impl Iterator<Item = &(Arc<Affinities>, i64)> {
        self.0.iter()
    }

    /// Counts one in; returns the one that is shared.
    pub fn add(&mut self, affinities: &Arc<Affinities>) -> Arc<Affinities> {
        if affinities.is_empty() {
            return affinities.clone();
        }
        match self.0.iter_mut().find(|(held, _)| is_same(held, affinities)) {
            Some((held, count)) => {
                *count += 1;
                held.clone()
            }
            None => {
                self.0.push((affinities.clone(), 1));
                affinities.clone()
            }
        }
    }

    pub fn remove(&mut self, affinities: &Arc<Affinities>) {
        if let Some((_, count)) = self.0.iter_mut().find(|(held, _)| is_same(held, affinities)) {
            *count -= 1;
        }
        self.0.retain(|(_, count)| *count > 0);
    }
}

fn is_same(a: &Arc<Affinities>, b: &Arc<Affinities>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}
