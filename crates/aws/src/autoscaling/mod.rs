//! EC2 Auto Scaling: groups of instances of a size that holds. <https://docs.aws.amazon.com/autoscaling/ec2/APIReference/>
//!
//! What a call asks for is recorded; [`crate::control`] decides from it which instances come and go.
//! The groups are those of EKS' node groups; one of a launch template of a user's own is refused so far.

mod activity;
mod capacity;
mod group;
mod process;
mod record;
mod subject;
mod tags;

pub use activity::{begin as begin_activity, finish as finish_activity};
pub use record::{Activity, GROUP_TAG, Group, Lifecycle, Member, Owner, Tag, member, members};
pub use subject::arn;

use crate::{Operation, Service, Subject};

pub static SERVICE: Service =
    Service { signing_name: "autoscaling", action_prefix: "autoscaling", operations: OPERATIONS };

type Run = fn(&mut crate::Context, &serde_json::Value) -> Result<crate::Answer, crate::Fault>;
type About = fn(&crate::Context, &serde_json::Value) -> Subject;

const fn row(name: &'static str, subject: About, run: Run) -> Operation {
    Operation { name, subject, run }
}

const OPERATIONS: &[Operation] = &[
    row("CreateAutoScalingGroup", subject::group, group::create),
    row("CreateOrUpdateTags", subject::any, tags::put),
    row("DeleteAutoScalingGroup", subject::group, group::delete),
    row("DeleteTags", subject::any, tags::delete),
    row("DescribeAutoScalingGroups", subject::any, group::describe),
    row("DescribeAutoScalingInstances", subject::any, capacity::describe_instances),
    row("DescribeLaunchConfigurations", subject::any, group::no_launch_configurations),
    row("DescribeLifecycleHooks", subject::any, group::hooks),
    row("DescribeScalingActivities", subject::any, activity::describe),
    row("DescribeTags", subject::any, tags::describe),
    row("ResumeProcesses", subject::group, process::resume),
    row("SetDesiredCapacity", subject::group, capacity::set_desired),
    row("SetInstanceHealth", subject::any, capacity::set_health),
    row("SetInstanceProtection", subject::group, capacity::set_protection),
    row("SuspendProcesses", subject::group, process::suspend),
    row("TerminateInstanceInAutoScalingGroup", subject::any, capacity::terminate),
    row("UpdateAutoScalingGroup", subject::group, group::update),
];
