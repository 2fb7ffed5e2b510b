//! What runs for a pod on Fargate: a machine of its own, as long as the pod is there.

use object::{Resource, Time};
use serde::{Deserialize, Serialize};

use crate::state::Record;

/// The machine of one pod, in the account store. It belongs to its cluster and is named by its instance's id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FargateNode {
    /// The instance behind it, which no call of EC2 shows.
    pub instance_id: String,
    pub profile: String,
    pub pod: PodRef,
    pub subnet_id: String,
    /// What is paid for.
    pub cpu_milli: u32,
    pub memory_mib: u32,
    pub created: Time,
    pub state: FargateState,
    /// `fargate-ip-10-0-0-1.ec2.internal`
    pub node_name: String,
    /// `aws:///us-east-1a/0123456789-…/fargate-ip-10-0-0-1.ec2.internal`
    pub provider_id: String,
}

impl Record for FargateNode {
    const RESOURCE: Resource = Resource::new("fargate-nodes.eks");
}

/// A pod, and no other of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodRef {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FargateState {
    /// Its machine is wanted.
    Starting,
    /// Its machine runs.
    Running,
    /// Its machine is on its way out, and the record goes with it.
    Ending,
}
