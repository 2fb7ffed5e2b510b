//! Marks the pods of a cluster of EKS that run on Fargate: those that a profile matches when they are created. Whether Fargate can run
//! such a pod is its scheduler's to say.
//! <https://docs.aws.amazon.com/eks/latest/userguide/fargate-profile.html>

use object::{Snapshot, Status};
use schema::path;
use serde_json::{Value, json};

use crate::{Operation, Plugin, Request, pod};

pub const PLUGIN: Plugin = Plugin { name: "Fargate", mutate: Some(mutate), validate: None };

/// A profile of the cluster that holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FargateProfile {
    pub name: String,
    pub selectors: Vec<FargateSelector>,
}

/// `*` and `?` stand for any characters and for one, in the namespace and in the labels' values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FargateSelector {
    pub namespace: String,
    /// All of them must be there.
    pub labels: Vec<(String, String)>,
}

const SCHEDULER: &str = "fargate-scheduler";
/// On a pod: which of several profiles is meant. It must match all the same.
const PROFILE: &str = "eks.amazonaws.com/fargate-profile";
/// `ec2` keeps a pod from Fargate, as with the CoreDNS that EKS itself brings.
const COMPUTE_TYPE: &str = "eks.amazonaws.com/compute-type";

fn mutate(_: &Snapshot, request: &Request, object: &mut Value, _: &mut Vec<String>) -> Result<(), Status> {
    let profiles = request.fargate_profiles;
    if profiles.is_empty() || !request.is(kinds::PODS, &[Operation::Create]) || pod::is_mirror(object) {
        return Ok(());
    }
    // A pod of a DaemonSet is meant for a node that is there.
    let owners = path::list(object, "metadata.ownerReferences");
    let is_of_daemon_set = owners.iter().any(|owner| owner["kind"] == "DaemonSet");
    let is_placed = object["spec"]["nodeName"].as_str().is_some_and(|node| !node.is_empty());
    if is_of_daemon_set || is_placed || object["metadata"]["annotations"][COMPUTE_TYPE] == "ec2" {
        return Ok(());
    }
    let labels = &object["metadata"]["labels"];
    let matching = |profile: &&FargateProfile| {
        profile.selectors.iter().any(|selector| selector.matches(&request.key.namespace, labels))
    };
    let wanted = labels[PROFILE].as_str();
    // The first by its name, unless the pod says which.
    let found = profiles
        .iter()
        .filter(|profile| wanted.is_none_or(|wanted| wanted == profile.name))
        .filter(matching)
        .min_by(|one, other| one.name.cmp(&other.name));
    let Some(profile) = found else { return Ok(()) };
    if !object["metadata"]["labels"].is_object() {
        object["metadata"]["labels"] = json!({});
    }
    object["metadata"]["labels"][PROFILE] = profile.name.as_str().into();
    object["spec"]["schedulerName"] = SCHEDULER.into();
    Ok(())
}

impl FargateSelector {
    fn matches(&self, namespace: &str, labels: &Value) -> bool {
        let has = |(key, pattern): &(String, String)| {
            labels[key].as_str().is_some_and(|value| glob(pattern, value))
        };
        glob(&self.namespace, namespace) && self.labels.iter().all(has)
    }
}

/// Goes back to the last `*` only: it takes one more character, and what stands before it has matched.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut read) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while read < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(sign) if *sign == b'?' || *sign == text[read] => {
                at += 1;
                read += 1;
            }
            _ => {
                let Some((place, taken)) = star else { return false };
                star = Some((place, taken + 1));
                at = place + 1;
                read = taken + 1;
            }
        }
    }
    pattern[at..].iter().all(|sign| *sign == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_any_characters_and_for_one() {
        for (pattern, text, matches) in [
            ("prod", "prod", true),
            ("prod", "prod-1", false),
            ("prod*", "prod", true),
            ("prod*", "prod-1", true),
            ("*prod*", "a-prod-b", true),
            ("p?od", "pxod", true),
            ("p?od", "pod", false),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
            ("", "x", false),
        ] {
            assert_eq!(glob(pattern, text), matches, "{pattern} {text}");
        }
    }
}
