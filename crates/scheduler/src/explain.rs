//! Why a pod fits nowhere, in upstream's words.

use std::collections::BTreeMap;
use std::fmt;

use crate::plugins::{Plugin, Plugins};

/// One reason against one node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// `Insufficient cpu`
    Insufficient(Box<str>),
    Text(&'static str),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Insufficient(resource) => write!(f, "Insufficient {resource}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// A filter's no to one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub plugin: Plugin,
    pub reasons: Vec<Reason>,
    /// Would it be different if some pods left the node?
    pub is_resolvable: bool,
}

impl Rejection {
    /// For want of what other pods hold.
    pub fn resolvable(plugin: Plugin, text: &'static str) -> Self {
        Self { plugin, reasons: vec![Reason::Text(text)], is_resolvable: true }
    }

    /// For what the node is.
    pub fn lasting(plugin: Plugin, text: &'static str) -> Self {
        Self { plugin, reasons: vec![Reason::Text(text)], is_resolvable: false }
    }
}

/// Why no node takes a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unschedulable {
    /// Nodes that there are.
    pub nodes: usize,
    /// Said of the pod itself, before any node was looked at: `persistentvolumeclaim "x" not found`.
    pub of_pod: Option<String>,
    /// How many nodes there are to each reason.
    pub reasons: BTreeMap<Reason, usize>,
    /// Who said no: what has to change before another try is worth it.
    pub plugins: Plugins,
    /// Places (in `Cluster::nodes`) where preemption might help.
    pub resolvable: Vec<usize>,
    /// What preemption had to say.
    pub preemption: Option<String>,
}

impl Unschedulable {
    pub fn of_pod(nodes: usize, plugin: Plugin, why: impl Into<String>) -> Self {
        let plugins = Plugins::default().with(plugin);
        Self { nodes, of_pod: Some(why.into()), plugins, ..Self::default() }
    }

    pub fn count(&mut self, at: usize, rejection: Rejection) {
        self.plugins = self.plugins.with(rejection.plugin);
        for reason in rejection.reasons {
            *self.reasons.entry(reason).or_default() += 1;
        }
        if rejection.is_resolvable {
            self.resolvable.push(at);
        }
    }
}

/// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s). preemption: …`
impl fmt::Display for Unschedulable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return f.write_str("no nodes available to schedule pods");
        }
        write!(f, "0/{} nodes are available:", self.nodes)?;
        match &self.of_pod {
            Some(why) => write!(f, " {why}.")?,
            None => write!(f, " {}.", counted(&self.reasons))?,
        }
        match &self.preemption {
            Some(text) => write!(f, " {text}"),
            None => Ok(()),
        }
    }
}

/// `1 Insufficient cpu, 2 Too many pods`: sorted as texts, numbers included.
pub(crate) fn counted<R: fmt::Display>(reasons: &BTreeMap<R, usize>) -> String {
    let mut texts: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    texts.sort_unstable();
    texts.join(", ")
}
