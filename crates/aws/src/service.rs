use serde_json::Value;

use crate::{Answer, Context, Fault};

/// A front door: one row of the table of services.
pub struct Service {
    /// The name in a signature's scope: `eks`, `iam`, `sts`, `ec2`, `autoscaling`.
    pub signing_name: &'static str,
    /// The prefix of its IAM actions: `eks`, `eks-auth`.
    pub action_prefix: &'static str,
    /// Its operations, in alphabetical order.
    pub operations: &'static [Operation],
}

/// One operation: a function and a row.
pub struct Operation {
    /// `CreateCluster`, as the model and the IAM action name it.
    pub name: &'static str,
    /// What IAM decides about: the resources and the condition keys of a call. `Subject::any` if the action has no resource.
    pub subject: fn(&Context, &Value) -> Subject,
    /// Decides the call. The input has passed the model's validation: required members are there, types and limits hold.
    pub run: fn(&mut Context, &Value) -> Result<Answer, Fault>,
}

/// What a call is about, for IAM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// What the caller must be allowed to act on, each for itself; none means `*`.
    pub resources: Vec<Target>,
    /// Condition keys of the call besides the global ones, the same for each resource: `("aws:RequestTag/team", ["web"])`, `("iam:PassedToService", [..])`.
    pub keys: Vec<(String, Vec<String>)>,
    /// Further actions that the call needs: passing a role.
    pub also: Vec<Further>,
    /// Nobody needs a permission for it, as for `sts:GetCallerIdentity`; or the call decides itself who may make it.
    pub is_exempt: bool,
}

/// One of the resources that a call is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    pub arn: String,
    /// Condition keys that are this resource's own, its tags: as [`Subject::keys`].
    pub keys: Vec<(String, Vec<String>)>,
}

impl From<String> for Target {
    fn from(arn: String) -> Self {
        Self { arn, keys: Vec::new() }
    }
}

/// An action that a call needs besides its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Further {
    /// `iam:PassRole`
    pub action: &'static str,
    /// An ARN.
    pub resource: String,
    /// As [`Subject::keys`].
    pub keys: Vec<(String, Vec<String>)>,
}

impl Subject {
    /// An action that has no resource of its own.
    pub fn any() -> Self {
        Self::default()
    }

    /// An action for which nobody needs a permission.
    pub fn exempt() -> Self {
        Self { is_exempt: true, ..Self::default() }
    }

    /// An action on one resource.
    pub fn of(arn: impl Into<String>) -> Self {
        Self { resources: vec![Target::from(arn.into())], ..Self::default() }
    }
}
