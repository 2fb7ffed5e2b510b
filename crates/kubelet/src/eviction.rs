//! Pods that use more of the node's disk than they may: which are measured, and why one must go.
//!
//! Order and texts (with the space at their end): `pkg/kubelet/eviction/eviction_manager.go`, `localStorageEviction`.

use plan::pod::{DiskParts, DiskUse};
use schema::quantity::Quantity;

use crate::pod::{Container, Pod, Volume};

/// Between two measurements: upstream's monitoring interval.
pub const PERIOD_SECONDS: i64 = 10;
/// How long an evicted pod's containers have to end.
pub const GRACE_SECONDS: i64 = 1;

const RESOURCE: &str = "ephemeral-storage";

/// What of the pod's use of the disk must be known; none if nothing limits it.
pub fn wanted(pod: &Pod) -> Option<DiskParts> {
    let has_limit = pod.spec.containers.iter().any(|container| limit(container).is_some())
        || pod.spec.volumes.iter().any(|volume| size_limit(volume).is_some());
    // A volume in memory cannot outgrow the size that it is mounted with.
    let is_on_disk =
        |volume: &&Volume| volume.empty_dir.as_ref().is_some_and(|empty| empty.medium != "Memory");
    let volumes = pod.spec.volumes.iter().filter(is_on_disk).map(|volume| volume.name.clone());
    has_limit.then(|| DiskParts { volumes: volumes.collect() })
}

/// Why the pod must go, if it must: `status.message`.
pub fn exceeded(pod: &Pod, used: &DiskUse) -> Option<String> {
    let containers = &pod.spec.containers;
    for volume in &pod.spec.volumes {
        if let Some(limit) = size_limit(volume)
            && used.volumes.get(&volume.name).is_some_and(|used| exceeds(*used, limit))
        {
            return Some(format!(
                "Usage of EmptyDir volume \"{}\" exceeds the limit \"{limit}\". ",
                volume.name
            ));
        }
    }
    let total: u64 = used.containers.values().chain(used.volumes.values()).sum();
    let allowed = containers.iter().filter_map(limit).reduce(|one, other| one + other);
    if let Some(allowed) = allowed.filter(|allowed| exceeds(total, *allowed)) {
        return Some(format!(
            "Pod ephemeral local storage usage exceeds the total limit of containers {allowed}. "
        ));
    }
    containers.iter().find_map(|container| {
        let limit = limit(container)?;
        let name = &container.name;
        let is_over = used.containers.get(name).is_some_and(|used| exceeds(*used, limit));
        is_over.then(|| format!("Container {name} exceeded its local ephemeral storage limit \"{limit}\". "))
    })
}

fn exceeds(used_bytes: u64, limit: Quantity) -> bool {
    i64::try_from(used_bytes).unwrap_or(i64::MAX) > limit.units()
}

fn limit(container: &Container) -> Option<Quantity> {
    quantity(container.resources.limits.get(RESOURCE)?)
}

fn size_limit(volume: &Volume) -> Option<Quantity> {
    let empty = volume.empty_dir.as_ref().filter(|empty| empty.medium != "Memory")?;
    quantity(empty.size_limit.as_ref()?)
}

/// Zero limits nothing.
fn quantity(text: &str) -> Option<Quantity> {
    text.parse::<Quantity>().ok().filter(|quantity| quantity.units() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(spec: Value, volumes: &[(&str, u64)], containers: &[(&str, u64)], want: Option<&str>) {
        let pod: Pod = serde_json::from_value(json!({"spec": spec})).expect("a pod");
        let named =
            |list: &[(&str, u64)]| list.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect();
        let used = DiskUse { volumes: named(volumes), containers: named(containers), ..DiskUse::default() };
        assert_eq!(exceeded(&pod, &used).as_deref(), want, "{spec}");
        assert!(want.is_none() || wanted(&pod).is_some(), "{spec} is measured");
    }

    #[test]
    fn limits_of_the_disk() {
        let limited =
            |name: &str, limit: &str| json!({"name": name, "resources": {"limits": {RESOURCE: limit}}});
        let volume = json!([{"name": "v", "emptyDir": {"sizeLimit": "1Ki"}}]);
        let spec = json!({"containers": [{"name": "a"}], "volumes": volume});
        check(spec.clone(), &[("v", 1_024)], &[("a", 1 << 40)], None);
        check(spec, &[("v", 1_025)], &[], Some("Usage of EmptyDir volume \"v\" exceeds the limit \"1Ki\". "));
        let spec = json!({"containers": [limited("a", "1Ki"), limited("b", "9Ki")]});
        check(
            spec.clone(),
            &[],
            &[("a", 1_025), ("b", 1)],
            Some("Container a exceeded its local ephemeral storage limit \"1Ki\". "),
        );
        check(
            spec,
            &[("v", 9_216)],
            &[("a", 1_024), ("b", 1)],
            Some("Pod ephemeral local storage usage exceeds the total limit of containers 10Ki. "),
        );
        let in_memory = json!([{"name": "v", "emptyDir": {"sizeLimit": "1Ki", "medium": "Memory"}}]);
        check(json!({"containers": [{"name": "a"}], "volumes": in_memory}), &[("v", 9_999)], &[], None);
    }
}
