//! Which instances become nodes of a cluster. What their user data names is only a wish: anybody who starts instances writes it.

use object::Snapshot;

use super::aws_auth::AwsAuth;
use super::canonical;
use crate::autoscaling::{GROUP_TAG, Group, Member};
use crate::ec2::record::{Instance, State};
use crate::eks::{AccessEntry, ClusterRecord};
use crate::iam::record::{Common, InstanceProfile, Role, named};
use crate::state;

/// The group of nodes, in access entries and in the aws-auth ConfigMap.
const NODES: &str = "system:nodes";

/// Whether an instance becomes a node of a cluster; if not, why, with the mend.
///
/// It must be in the cluster's VPC, no other may have its node's name, and it must be the site's own, of one of the cluster's node groups,
/// or have a role that logs in as a node. `account` is the account's store, `objects` the cluster's own, for its aws-auth ConfigMap.
/// <https://docs.aws.amazon.com/eks/latest/userguide/create-node-role.html>
pub fn admit(
    account: &Snapshot,
    objects: &Snapshot,
    cluster: &ClusterRecord,
    instance: &Instance,
) -> Result<(), String> {
    let name = &cluster.shown.name;
    let vpc = &cluster.shown.resources_vpc_config.vpc_id;
    if instance.vpc_id != *vpc {
        return Err(format!(
            "cluster {name} is in {vpc}, the instance in {}: start it in a subnet of the cluster's VPC",
            instance.vpc_id
        ));
    }
    if let Some(other) = holder(account, name, instance) {
        return Err(format!("{other} is the node {} of cluster {name} already", instance.node_name()));
    }
    if is_own(account, name, instance) {
        return Ok(());
    }
    let role = role_of(account, instance).ok_or_else(|| {
        format!("its instance profile has no role: give it one that is mapped to nodes of cluster {name}")
    })?;
    if !is_node(account, objects, cluster, &role) {
        return Err(format!(
            "{} is not mapped to nodes of cluster {name}: create an access entry of type EC2_LINUX for it, or map it to {NODES} in the ConfigMap aws-auth",
            role.arn
        ));
    }
    Ok(())
}

/// Whether the cluster's owner, or EKS itself, has started it to be a node: no tag or user data says that.
fn is_own(account: &Snapshot, cluster: &str, instance: &Instance) -> bool {
    if let Some(node) = &instance.site_node {
        return node.cluster == cluster;
    }
    // Its scheduler has asked for the role of its profile.
    if let Some(task) = &instance.fargate {
        return task.cluster == cluster;
    }
    let group = instance.tags.get(GROUP_TAG).and_then(|group| state::get::<Group>(account, "", group));
    group.is_some_and(|group| {
        let id = &instance.instance_id;
        group.record.owner.cluster == cluster
            && state::get::<Member>(account, &group.record.name, id).is_some()
    })
}

/// The role in its instance profile.
fn role_of(account: &Snapshot, instance: &Instance) -> Option<Common> {
    let (arn, id) = instance.profile.as_ref()?;
    let profile = named::<InstanceProfile>(account, arn.rsplit('/').next()?)?.record;
    // One that was made again under the same name is another.
    let role = profile.role.filter(|_| profile.common.id == *id)?;
    Some(named::<Role>(account, &role)?.record.common)
}

/// Whether a role logs in as a node. An entry wins over the ConfigMap, as with every login.
pub(crate) fn is_node(
    account: &Snapshot,
    objects: &Snapshot,
    cluster: &ClusterRecord,
    role: &Common,
) -> bool {
    let mode = cluster.shown.access_config.authentication_mode;
    let is_of_nodes = |groups: &[String]| groups.iter().any(|group| group == NODES);
    if mode.reads_entries()
        && let Some(entry) = AccessEntry::of(account, &cluster.shown.name, &role.arn, &role.id)
    {
        return is_of_nodes(&entry.kubernetes_groups);
    }
    let owner = role.arn.split(':').nth(4).unwrap_or_default();
    mode.reads_config_map()
        && AwsAuth::of(objects)
            .find(&canonical(&role.arn), owner)
            .is_some_and(|found| is_of_nodes(&found.groups))
}

/// Which other instance is the node of that name.
fn holder(account: &Snapshot, cluster: &str, instance: &Instance) -> Option<String> {
    let mut instances = state::list::<Instance>(account, "").into_iter().map(|kept| kept.record);
    let holder = instances.find(|one| {
        one.instance_id != instance.instance_id
            && one.state != State::Terminated
            && one.joined.as_deref() == Some(cluster)
            && one.node_name() == instance.node_name()
    });
    holder.map(|one| one.instance_id)
}

#[cfg(test)]
mod tests {
    use object::{Draft, Key, Resource, body};
    use serde_json::json;

    use super::*;
    use crate::ec2::record::Wanted;
    use crate::eks::AuthenticationMode;
    use crate::stories::Account;

    const ROLE: &str = "arn:aws:iam::111122223333:role/AmazonEKSNodeRole";

    fn cluster(mode: AuthenticationMode) -> ClusterRecord {
        let text = include_str!("../../testdata/sts/cluster.json")
            .replace("NAME", "shop")
            .replace("ISSUER", "https://i");
        let mut record: ClusterRecord = serde_json::from_str(&text).expect("a cluster");
        record.shown.access_config.authentication_mode = mode;
        record.shown.resources_vpc_config.vpc_id = "vpc-1".into();
        record
    }

    fn objects(groups: &str) -> Snapshot {
        let roles = format!("- rolearn: {ROLE}\n  username: u\n  groups: [{groups}]\n");
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "aws-auth", "namespace": "kube-system"},
            "data": {"mapRoles": roles, "mapAccounts": "- \"111122223333\"\n"},
        });
        let key = Key::new(Resource::new("configmaps"), "kube-system", "aws-auth");
        let draft = Draft::read(key, Box::default(), body::encode(&object)).expect("a ConfigMap");
        let mut objects = Snapshot::default();
        objects.put(draft.at(1));
        objects
    }

    fn instance(account: &Account, id: &str) -> Instance {
        let profile =
            named::<InstanceProfile>(&account.state, "AmazonEKSNodeRole").expect("a profile").record;
        serde_json::from_value(json!({
            "instanceId": id, "reservationId": "r-1", "clientToken": "", "launchIndex": 0, "imageId": "ami-1",
            "instanceType": "t3.medium", "vpcId": "vpc-1", "subnetId": "subnet-1", "availabilityZone": "us-east-1a",
            "privateDnsName": "ip-10-0-0-1.ec2.internal", "profile": [profile.common.arn, profile.common.id],
            "metadata": {"isEnabled": true, "hopLimit": 1, "showsTags": false}, "isSpot": false,
            "disableApiTermination": false, "launched": account.now, "wanted": Wanted::Running, "state": State::Pending,
        }))
        .expect("an instance")
    }

    #[test]
    fn only_who_logs_in_as_a_node_becomes_one() {
        use AuthenticationMode::{Api, ApiAndConfigMap, ConfigMap};
        let nodes = "system:bootstrappers, system:nodes";
        let unmapped = "AmazonEKSNodeRole is not mapped to nodes of cluster shop";
        let other = |state: State, cluster: &str, name: &str| (state, cluster.to_owned(), name.to_owned());
        let name = "ip-10-0-0-1.ec2.internal";
        for (mode, entry, mapped, profile, vpc, held, refused) in [
            (Api, Some("EC2_LINUX"), "", true, "vpc-1", None, None),
            (ApiAndConfigMap, Some("EC2_LINUX"), "", true, "vpc-1", None, None),
            (ApiAndConfigMap, None, nodes, true, "vpc-1", None, None),
            (ConfigMap, None, nodes, true, "vpc-1", None, None),
            // What the mode does not read maps nobody.
            (Api, None, nodes, true, "vpc-1", None, Some(unmapped)),
            (ConfigMap, Some("EC2_LINUX"), "", true, "vpc-1", None, Some(unmapped)),
            // An entry of a person wins over the ConfigMap.
            (ApiAndConfigMap, Some("STANDARD"), nodes, true, "vpc-1", None, Some(unmapped)),
            (ApiAndConfigMap, None, "system:masters", true, "vpc-1", None, Some(unmapped)),
            (Api, Some("EC2_LINUX"), "", false, "vpc-1", None, Some("its instance profile has no role")),
            (
                Api,
                Some("EC2_LINUX"),
                "",
                true,
                "vpc-2",
                None,
                Some("cluster shop is in vpc-1, the instance in vpc-2"),
            ),
            (
                Api,
                Some("EC2_LINUX"),
                "",
                true,
                "vpc-1",
                Some(other(State::Running, "shop", name)),
                Some("i-2 is the node ip-10-0-0-1.ec2.internal of cluster shop already"),
            ),
            (Api, Some("EC2_LINUX"), "", true, "vpc-1", Some(other(State::Terminated, "shop", name)), None),
            (Api, Some("EC2_LINUX"), "", true, "vpc-1", Some(other(State::Running, "blog", name)), None),
            (
                Api,
                Some("EC2_LINUX"),
                "",
                true,
                "vpc-1",
                Some(other(State::Running, "shop", "ip-10-0-0-2")),
                None,
            ),
        ] {
            let about = format!("{mode:?} {entry:?} {mapped:?} {profile} {vpc} {held:?}");
            let mut account = Account::new();
            let cluster = cluster(mode);
            // The call that makes entries looks at the mode: it is told afterwards.
            let mut open = cluster.clone();
            open.shown.access_config.authentication_mode = ApiAndConfigMap;
            account.change(|changes| changes.create("", "shop", &open));
            if let Some(kind) = entry {
                let input = json!({"clusterName": "shop", "principalArn": ROLE, "type": kind});
                let admin = account.caller("admin").expect("a caller");
                account.call("CreateAccessEntry", &admin, &input).expect("an entry");
            }
            let mut joining = instance(&account, "i-1");
            joining.vpc_id = vpc.into();
            joining.profile = joining.profile.filter(|_| profile);
            if let Some((state, cluster, name)) = held {
                let mut other = instance(&account, "i-2");
                (other.state, other.joined, other.private_dns_name) = (state, Some(cluster), name);
                account.change(|changes| changes.create("", "i-2", &other));
            }
            let decided = admit(&account.state, &objects(mapped), &cluster, &joining);
            match refused {
                None => assert_eq!(decided, Ok(()), "{about}"),
                Some(why) => {
                    assert!(decided.as_ref().is_err_and(|told| told.contains(why)), "{about}: {decided:?}")
                }
            }
        }
    }
}
