use serde_json::Value;

use super::record::Group;
use crate::{Context, Subject, state};

pub fn any(_: &Context, _: &Value) -> Subject {
    Subject::any()
}

pub fn group(context: &Context, input: &Value) -> Subject {
    let name = input["AutoScalingGroupName"].as_str().unwrap_or_default();
    let known = state::get::<Group>(context.state, "", name).map(|kept| kept.record.arn);
    Subject::of(known.unwrap_or_else(|| arn(context.region, context.account, "*", name)))
}

pub fn arn(region: &str, account: &str, uuid: &str, name: &str) -> String {
    format!("arn:aws:autoscaling:{region}:{account}:autoScalingGroup:{uuid}:autoScalingGroupName/{name}")
}
