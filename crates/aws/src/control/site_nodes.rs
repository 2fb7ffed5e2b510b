//! The nodes that the owner of a site asks for by their number, as instances in the subnets of the cluster.

use std::net::Ipv4Addr;

use serde_json::json;

use crate::ec2::launch::{Given, launch};
use crate::ec2::record::{Instance, Peer, SecurityGroup, SiteNode, State, Subnet, Wanted};
use crate::ec2::{place, security_group};
use crate::eks::{ClusterRecord, VpcConfig};
use crate::iam::genesis::NODE_ROLE;
use crate::iam::record::{InstanceProfile, named};
use crate::state::{self, Changes, Kept};
use crate::{Context, Fault};

/// What such an instance is said to be: as large as the host, and of no type that could be bought.
pub const TYPE: &str = "ekso.host";

/// The instances of such nodes that are not terminated, by their numbers.
pub fn of(state: &object::Snapshot, cluster: &str) -> Vec<(u16, Kept<Instance>)> {
    let number = |instance: &Instance| -> Option<u16> {
        let node = instance.site_node.as_ref().filter(|node| node.cluster == cluster)?;
        node.name.strip_prefix(cluster)?.strip_prefix('-')?.parse().ok()
    };
    let all = state::list::<Instance>(state, "").into_iter();
    let all = all.filter(|kept| kept.record.state != State::Terminated);
    let mut all: Vec<_> = all.filter_map(|kept| Some((number(&kept.record)?, kept))).collect();
    all.sort_by_key(|(number, _)| *number);
    all
}

/// Whether one of them is on its way out.
pub fn is_one_ending(state: &object::Snapshot, cluster: &str) -> bool {
    of(state, cluster).iter().any(|(_, kept)| kept.record.wanted == Wanted::Terminated)
}

/// Has those started again that went down or could not be started.
pub fn revive(context: &Context, cluster: &str) -> Changes {
    let mut changes = Changes::default();
    for (_, mut kept) in of(context.state, cluster) {
        let instance = &mut kept.record;
        let is_down = instance.wanted == Wanted::Stopped || instance.reason.is_some();
        if is_down && instance.wanted != Wanted::Terminated && instance.state != State::Running {
            (instance.wanted, instance.state, instance.reason) = (Wanted::Running, State::Pending, None);
            changes.update(&kept);
        }
    }
    changes
}

/// The next step towards so many nodes; what is wanted is there when nothing changes any more. `host` is the address under which the host
/// comes to the nodes: their group lets it in. None may be on its way out: its number is taken until it is gone.
pub fn reconcile(context: &mut Context, cluster: &str, count: u16, host: Ipv4Addr) -> Result<Changes, Fault> {
    let mut changes = Changes::default();
    let none = || Fault::new("ResourceNotFoundException", format!("No cluster found for name: {cluster}."));
    let kept = state::get::<ClusterRecord>(context.state, "", cluster).ok_or_else(none)?;
    let record = &kept.record;
    let known = of(context.state, cluster);
    for (number, kept) in &known {
        if *number > count && kept.record.wanted != Wanted::Terminated {
            let mut kept = kept.clone();
            (kept.record.wanted, kept.record.state) = (Wanted::Terminated, State::ShuttingDown);
            changes.update(&kept);
        }
    }
    let vpc = &record.shown.resources_vpc_config;
    let missing: Vec<SiteNode> = (1..=count)
        .filter(|number| !known.iter().any(|(known, _)| known == number))
        .map(|number| SiteNode { cluster: cluster.to_owned(), name: format!("{cluster}-{number}") })
        .collect();
    if !missing.is_empty() {
        let_in(context, &mut changes, &vpc.cluster_security_group_id, host);
        start(context, &mut changes, record, vpc, missing)?;
        changes.require(&kept);
    }
    Ok(changes)
}

/// All of them in the first subnet that has room for them, else one in the first that has room for one: the next step goes on.
fn start(
    context: &mut Context,
    changes: &mut Changes,
    cluster: &ClusterRecord,
    vpc: &VpcConfig,
    missing: Vec<SiteNode>,
) -> Result<(), Fault> {
    let image = place::image_of_version(&cluster.shown.version).map(|image| image.id);
    let mut input = json!({
        "ImageId": image, "InstanceType": TYPE, "SecurityGroupIds": [vpc.cluster_security_group_id],
    });
    if named::<InstanceProfile>(context.state, NODE_ROLE).is_some() {
        input["IamInstanceProfile"] = json!({"Name": NODE_ROLE});
    }
    let subnets = vpc.subnet_ids.iter().filter_map(|id| state::get::<Subnet>(context.state, "", id));
    let mut subnets: Vec<Subnet> = subnets.map(|kept| kept.record).collect();
    subnets.sort_by(|a, b| a.availability_zone.cmp(&b.availability_zone));
    let one = missing.iter().take(1).cloned().collect::<Vec<_>>();
    let mut failure = Fault::new("InvalidSubnetID.NotFound", "the cluster has no subnets");
    for nodes in [missing, one] {
        for subnet in &subnets {
            let (mut made, count) = (Changes::default(), nodes.len() as u64);
            let tags = [(format!("kubernetes.io/cluster/{}", cluster.shown.name), "owned".to_owned())].into();
            let given = Given { tags, site_nodes: nodes.clone(), ..Given::default() };
            match launch(context, &mut made, &input, &subnet.subnet_id, count, given) {
                Ok(_) => {
                    changes.0.extend(made.0);
                    return Ok(());
                }
                Err(fault) => failure = fault,
            }
        }
    }
    Err(failure)
}

/// Whoever is on the host reaches the node ports.
fn let_in(context: &mut Context, changes: &mut Changes, group: &str, host: Ipv4Addr) {
    let Some(mut group) = state::get::<SecurityGroup>(context.state, "", group) else { return };
    let mut rule = security_group::rule(context, false, Peer::Ipv4(host.into()));
    rule.description = Some("this host".to_owned());
    if !group.record.rules.iter().any(|known| known.says_the_same(&rule)) {
        group.record.rules.push(rule);
        changes.update(&group);
    }
}
