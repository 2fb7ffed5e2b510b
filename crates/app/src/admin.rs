//! What the command line and the daemon say to each other: one JSON line asked, JSON lines answered, over a Unix socket for root only.

use serde::{Deserialize, Serialize};

use crate::etcd::Place;
use crate::registries::Registries;
use crate::server_files::{Flag, ServerFiles};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Ask {
    Up(Box<UpRequest>),
    Down {
        name: String,
    },
    Delete {
        name: String,
    },
    /// Every cluster, and the account.
    DeleteAll,
    /// Of the AWS account.
    Account,
    /// Why somebody may do something in it, or may not.
    Why(aws::iam::Question),
    /// What all of it would cost on AWS.
    Cost,
    /// Of one cluster, or of all.
    Status {
        name: Option<String>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UpRequest {
    pub name: String,
    /// None leaves it as it was, or makes one.
    pub nodes: Option<u16>,
    pub api_port: Option<u16>,
    #[serde(flatten)]
    pub registries: Registries,
    #[serde(flatten)]
    pub place: Place,
    #[serde(default)]
    pub files: ServerFiles,
    /// What of the files that it has is taken off.
    #[serde(default)]
    pub without: Vec<Flag>,
    #[serde(default)]
    pub aws: AwsRequest,
}

/// What somebody wants of the account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AwsRequest {
    /// 0 takes a free one; none leaves it as it is.
    pub port: Option<u16>,
    pub region: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Told {
    /// Something is being done; it may be a while.
    Doing {
        what: String,
    },
    /// A step of the way is done, so many milliseconds after it began.
    Step {
        what: String,
        millis: u64,
    },
    /// What was asked for about the AWS account.
    Account(AccountStatus),
    Because(aws::iam::Explanation),
    Costs(aws::cost::Bill),
    /// The end, if it went well.
    Done {
        clusters: Vec<ClusterStatus>,
    },
    /// The end, if it did not.
    Failed {
        message: String,
        code: u8,
    },
}

impl ClusterStatus {
    /// Whether its API answers.
    pub fn is_running(&self) -> bool {
        self.state == "Running"
    }
}

/// The AWS account as `ekso aws -o json` prints it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AccountStatus {
    /// `https://127.0.0.1:4566`
    pub endpoint: String,
    pub account: String,
    pub region: String,
    /// The name of the profile, if one was written.
    pub profile: String,
    pub resources: Vec<AccountResource>,
}

/// Something in the account that one needs to name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AccountResource {
    /// `vpc`, `subnet`, `role`
    pub kind: String,
    /// `vpc-0…`, an ARN
    pub id: String,
    /// A name, or what tells it from others of its kind: `us-east-1a public`.
    pub detail: String,
}

/// A cluster as `ekso status -o json` prints it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterStatus {
    pub name: String,
    /// `Running`, `Stopped`
    pub state: String,
    /// `https://127.0.0.1:6443`
    pub endpoint: String,
    pub context: String,
    pub version: String,
    pub nodes: Vec<NodeStatus>,
    pub pods: usize,
    pub objects: usize,
    pub revision: u64,
    pub store_disk_bytes: u64,
    pub store_live_bytes: u64,
    /// Proportional set size of the daemon, the machines and all that runs in them.
    pub memory_bytes: u64,
    pub data_dir: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeStatus {
    pub name: String,
    pub ready: bool,
    pub internal_ip: String,
    /// Where the host reaches NodePorts.
    pub external_ip: String,
}
