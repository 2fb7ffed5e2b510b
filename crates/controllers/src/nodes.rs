//! What several controllers read of nodes.

use std::sync::Arc;

use object::{Object, Time};
use serde::Deserialize;

use crate::ownership::Kind;
use crate::views::{Annotated, Condition, Taint, condition};

pub const KIND: Kind = Kind { api_version: "v1", kind: "Node", resource: kinds::NODES };

pub struct Node {
    pub object: Arc<Object>,
    pub annotations: std::collections::BTreeMap<String, String>,
    pub spec: NodeSpec,
    pub status: NodeStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSpec {
    pub unschedulable: bool,
    pub taints: Vec<Taint>,
    #[serde(rename = "podCIDR")]
    pub pod_cidr: String,
    #[serde(rename = "podCIDRs")]
    pub pod_cidrs: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub struct NodeStatus {
    pub conditions: Vec<Condition>,
}

impl Node {
    pub fn read(object: &Arc<Object>) -> Option<Self> {
        #[derive(Deserialize)]
        #[serde(default)]
        #[derive(Default)]
        struct Wire {
            metadata: Annotated,
            spec: NodeSpec,
            status: NodeStatus,
        }
        let Wire { metadata, spec, status } = object.decode().ok()?;
        Some(Self {
            object: object.clone(),
            annotations: metadata.annotations.unwrap_or_default(),
            spec,
            status,
        })
    }

    pub fn name(&self) -> &str {
        &self.object.key.name
    }

    /// `True`, `False` or `Unknown`; None before the first report.
    pub fn readiness(&self) -> Option<&str> {
        condition(&self.status.conditions, "Ready").map(|ready| ready.status.as_str())
    }

    pub fn last_heartbeat(&self) -> Option<Time> {
        condition(&self.status.conditions, "Ready")?.last_heartbeat_time
    }
}
