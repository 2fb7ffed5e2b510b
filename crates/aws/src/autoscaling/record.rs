//! What Auto Scaling keeps.

use object::{Resource, Snapshot, Time};
use serde::{Deserialize, Serialize};

use crate::eks::Template;
use crate::state::{self, Kept, Record};

/// A group of instances; its key is its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    pub name: String,
    pub arn: String,
    pub created: Time,
    pub min: u32,
    pub max: u32,
    pub desired: u32,
    /// What new instances are made of.
    pub template: Template,
    /// What they are of instead of what the template says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_type: Option<String>,
    /// Subnets and their zones; instances are spread over the zones.
    pub subnets: Vec<(String, String)>,
    /// Processes that do nothing for now: `Launch`, `Terminate`, `ReplaceUnhealthy`, …
    pub suspended: Vec<String>,
    pub tags: Vec<Tag>,
    pub protects_new: bool,
    pub is_deleting: bool,
    /// Who has made it and wants to be asked before an instance goes.
    pub owner: Owner,
    /// Why no instance could be launched the last time.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub problem: String,
}

/// The tag of an instance that says whose it is.
pub const GROUP_TAG: &str = "aws:autoscaling:groupName";

/// The node group behind a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    pub cluster: String,
    pub node_group: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tag {
    pub key: String,
    pub value: String,
    pub propagate_at_launch: bool,
}

impl Record for Group {
    const RESOURCE: Resource = Resource::new("groups.autoscaling");
}

impl Group {
    pub fn is_suspended(&self, process: &str) -> bool {
        self.suspended.iter().any(|one| one == process)
    }
}

/// An instance of a group. Its owner is the group, its key the instance's id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    pub instance_id: String,
    pub instance_type: String,
    pub subnet_id: String,
    pub zone: String,
    pub template: Template,
    pub lifecycle: Lifecycle,
    /// Since when it is in that part of its life.
    pub since: Time,
    pub is_unhealthy: bool,
    pub is_protected: bool,
    pub launched: Time,
    /// `ip-172-31-0-10.ec2.internal`: its private DNS name, and its node's name.
    #[serde(default)]
    pub node_name: String,
    /// Why its instance does not run, if there is a reason.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub problem: String,
}

impl Record for Member {
    const RESOURCE: Resource = Resource::new("members.autoscaling");
}

/// <https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-lifecycle.html>
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lifecycle {
    Pending,
    InService,
    /// Whoever owns the group empties it first.
    #[serde(rename = "Terminating:Wait")]
    TerminatingWait,
    #[serde(rename = "Terminating:Proceed")]
    TerminatingProceed,
}

impl Lifecycle {
    pub fn is_terminating(self) -> bool {
        matches!(self, Self::TerminatingWait | Self::TerminatingProceed)
    }

    pub fn told(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::InService => "InService",
            Self::TerminatingWait => "Terminating:Wait",
            Self::TerminatingProceed => "Terminating:Proceed",
        }
    }
}

/// The members of a group, oldest first.
pub fn members(state: &Snapshot, group: &str) -> Vec<Kept<Member>> {
    let mut all = state::list::<Member>(state, group);
    all.sort_by(|a, b| {
        (a.record.launched, &a.record.instance_id).cmp(&(b.record.launched, &b.record.instance_id))
    });
    all
}

/// The member of an instance's id, in whichever group.
pub fn member(state: &Snapshot, instance: &str) -> Option<Kept<Member>> {
    state::list::<Member>(state, "").into_iter().find(|kept| kept.record.instance_id == instance)
}

/// Something that a group did. Its owner is the group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Activity {
    pub id: String,
    pub description: String,
    pub cause: String,
    pub start: Time,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Time>,
    /// `InProgress`, `Successful`, `Failed`
    pub status: String,
    pub instance_id: String,
}

impl Record for Activity {
    const RESOURCE: Resource = Resource::new("activities.autoscaling");
}
