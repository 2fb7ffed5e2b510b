//! Groups and node groups over their whole lives, against an account in memory and a cluster whose nodes come and go as they are told.

use kinds::{CONFIG_MAPS, NODES, PODS};
use object::{Draft, Key, Snapshot, body};
use plan::Write;
use serde_json::{Value, json};

use super::{InCluster, group, node_group, site_nodes};
use crate::autoscaling::{Group, Lifecycle, members};
use crate::ec2;
use crate::ec2::record::{Instance, NetworkInterface, PublicPool, State, Wanted};
use crate::eks::{self, AccessEntry, ClusterRecord, NodeGroupRecord, UpdateRecord};
use crate::state::{Changes, Expect, Kept};
use crate::stories::{ACCOUNT, Account};
use crate::{Caller, Context, state};

mod rollouts;

const CLUSTER: &str = "shop";
const NG: &str = "ng";

/// An account, a cluster, and the machines behind them: each instance that is launched has a node at once.
struct World {
    account: Account,
    cluster: Snapshot,
    /// The most members that there were at once, and the fewest Ready nodes.
    most: usize,
    fewest: usize,
    /// Pods that a budget keeps from being evicted.
    held: Vec<Key>,
    /// Whether machines that start have no node.
    is_mute: bool,
}

fn put(state: &mut Snapshot, key: Key, object: &Value) {
    let field = object["spec"]["nodeName"].as_str().unwrap_or_default();
    let next = state.revision() + 1;
    let draft = Draft::read(key, [field.into()].into(), body::encode(object)).expect("an object");
    state.put(draft.at(next));
}

impl World {
    fn new(size: u32) -> Self {
        let mut world = Self::empty();
        world.make_group(size, &world.subnets());
        world
    }

    /// A cluster without nodes, in a default VPC.
    fn empty() -> Self {
        let mut account = Account::new();
        let pool = PublicPool { first: [198, 18, 0, 10].into(), last: [198, 18, 0, 99].into() };
        let changes = account.context(&Caller::default(), |context| ec2::genesis::default_vpc(context, pool));
        changes.apply(&mut account.state);
        let mut world = Self {
            account,
            cluster: Snapshot::default(),
            most: 0,
            fewest: usize::MAX,
            held: Vec::new(),
            is_mute: false,
        };
        let role = format!("arn:aws:iam::{ACCOUNT}:role/AmazonEKSClusterRole");
        let input =
            json!({"name": CLUSTER, "roleArn": role, "resourcesVpcConfig": {"subnetIds": world.subnets()}});
        world.call("CreateCluster", &input);
        let mut cluster = state::get::<ClusterRecord>(&world.account.state, "", CLUSTER).expect("a cluster");
        cluster.record.shown.status = "ACTIVE".into();
        world.account.change(|changes| changes.update(&cluster));
        world
    }

    /// The public subnet of each zone.
    fn subnets(&self) -> Vec<String> {
        let all = state::list::<ec2::record::Subnet>(&self.account.state, "").into_iter();
        let mut all: Vec<_> = all.map(|kept| kept.record).filter(|subnet| subnet.default_for_az).collect();
        all.sort_by(|a, b| a.availability_zone.cmp(&b.availability_zone));
        all.into_iter().map(|subnet| subnet.subnet_id).collect()
    }

    fn make_group(&mut self, size: u32, subnets: &[String]) {
        let role = format!("arn:aws:iam::{ACCOUNT}:role/AmazonEKSNodeRole");
        let input = json!({
            "clusterName": CLUSTER, "nodegroupName": NG, "subnets": subnets, "nodeRole": role, "version": "1.35",
            "scalingConfig": {"minSize": 1, "maxSize": 5, "desiredSize": size},
        });
        self.call("CreateNodegroup", &input);
    }

    fn call(&mut self, operation: &str, input: &Value) -> Value {
        let admin = self.account.caller("admin").expect("a caller");
        let called = self.account.call(operation, &admin, input);
        called.unwrap_or_else(|fault| panic!("{operation}: {fault:?}"))
    }

    /// The name of the node group's Auto Scaling group.
    fn name(&self) -> String {
        let record = state::get::<NodeGroupRecord>(&self.account.state, CLUSTER, NG).expect("a node group");
        record.record.group_name().to_owned()
    }

    fn group(&self) -> state::Kept<Group> {
        state::get(&self.account.state, "", &self.name()).expect("a group")
    }

    fn members(&self) -> Vec<state::Kept<crate::autoscaling::Member>> {
        let groups = state::list::<Group>(&self.account.state, "").into_iter();
        groups.flat_map(|group| members(&self.account.state, &group.record.name)).collect()
    }

    fn decide(&mut self, decide: impl FnOnce(&mut Context, &Snapshot) -> super::Plan) -> super::Plan {
        let cluster = self.cluster.clone();
        let mut plan = self.account.context(&Caller::default(), |context| decide(context, &cluster));
        self.commit(std::mem::take(&mut plan.changes));
        plan
    }

    /// One turn of everybody: the controllers, the machines, the cluster. Whether anything happened.
    fn turn(&mut self) -> bool {
        let before = (self.account.state.revision(), self.cluster.revision());
        let plan = self
            .decide(|context, nodes| node_group::reconcile(context, &|_| Some(nodes.clone()), CLUSTER, NG));
        for write in plan.in_cluster {
            self.write(write);
        }
        for group in state::list::<Group>(&self.account.state, "") {
            self.decide(|context, _| group::reconcile(context, &group.record.name));
        }
        for instance in state::list::<Instance>(&self.account.state, "") {
            self.machine(instance.record);
        }
        self.most = self.most.max(self.members().len());
        if self.shown()["status"] != "CREATING" {
            self.fewest = self.fewest.min(self.cluster.list(NODES, "").count());
        }
        before != (self.account.state.revision(), self.cluster.revision())
    }

    fn write(&mut self, write: InCluster) {
        match write {
            InCluster::Write(Write::Merge { key, patch, .. }) => {
                let mut object = self.cluster.get(&key).expect("a node").to_value().expect("JSON");
                merge(&mut object, &patch);
                put(&mut self.cluster, key, &object);
            }
            InCluster::Write(Write::Create { resource, object }) => {
                let text = |member: &str| object["metadata"][member].as_str().unwrap_or_default();
                put(&mut self.cluster, Key::new(resource, text("namespace"), text("name")), &object);
            }
            InCluster::Evict(pod) if self.held.contains(&pod) => {}
            InCluster::Evict(pod) => drop(self.cluster.remove(&pod, self.cluster.revision() + 1)),
            other => panic!("{other:?}"),
        }
    }

    /// What a host does for an instance.
    fn machine(&mut self, instance: Instance) {
        let (id, name) = (&instance.instance_id, instance.node_name().to_owned());
        let observed = match (instance.wanted, instance.state) {
            (Wanted::Running, State::Pending) => State::Running,
            (Wanted::Terminated, State::ShuttingDown) => State::Terminated,
            _ => return,
        };
        if observed == State::Running && self.is_mute {
        } else if observed == State::Running {
            let node = json!({"metadata": {"name": name, "labels": {}}, "spec": {},
                "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
            put(&mut self.cluster, Key::cluster(NODES, name), &node);
        } else {
            let next = self.cluster.revision() + 1;
            self.cluster.remove(&Key::cluster(NODES, name), next);
        }
        let changes = ec2::instance::observe(&self.account.state, self.account.now, id, observed, None);
        self.commit(changes);
    }

    /// Nothing that is written is no event.
    fn commit(&mut self, changes: state::Changes) {
        let mut keys: Vec<_> = changes.0.iter().map(|change| &change.key).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), changes.0.len(), "one transaction names a key once: {changes:?}");
        if !changes.is_empty() {
            changes.apply(&mut self.account.state);
        }
    }

    fn settle(&mut self) {
        for _ in 0..200 {
            if self.turn() {
                continue;
            }
            // Nodes that are to go stay for a moment.
            let now = self.account.now;
            let leaving =
                self.members().into_iter().filter(|one| one.record.lifecycle == Lifecycle::TerminatingWait);
            if leaving.into_iter().all(|member| now >= member.record.since.plus_secs(10)) {
                return;
            }
            self.later(10);
        }
        panic!("it never comes to rest: {}", self.shown());
    }

    fn shown(&self) -> Value {
        let record = state::get::<NodeGroupRecord>(&self.account.state, CLUSTER, NG);
        record.map_or(Value::Null, |kept| json!(kept.record.shown))
    }

    /// Asks for an update of the node group; its id.
    fn update(&mut self, operation: &str, members: &Value) -> String {
        let mut input = json!({"clusterName": CLUSTER, "nodegroupName": NG});
        ec2::launch_template::lay_over(&mut input, members);
        self.call(operation, &input)["update"]["id"].as_str().expect("an id").to_owned()
    }

    fn update_status(&self, id: &str) -> String {
        self.shown_update(id).status
    }

    fn shown_update(&self, id: &str) -> crate::eks::Update {
        let update = state::get::<UpdateRecord>(&self.account.state, CLUSTER, id);
        update.expect("an update").record.shown
    }

    /// A pod on the node of each member.
    fn put_pods(&mut self) {
        for member in self.members() {
            let name = format!("web-{}", member.record.instance_id);
            let pod = json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"nodeName": member.record.node_name}});
            put(&mut self.cluster, Key::new(PODS, "default", name), &pod);
        }
    }

    fn later(&mut self, secs: i64) {
        self.account.now = self.account.now.plus_secs(secs);
    }

    fn zones(&self) -> Vec<String> {
        let mut zones: Vec<String> = self.members().into_iter().map(|member| member.record.zone).collect();
        zones.sort();
        zones
    }
}

fn merge(object: &mut Value, patch: &Value) {
    match patch.as_object() {
        Some(members) => {
            for (name, value) in members {
                if value.is_null() {
                    object.as_object_mut().expect("an object").remove(name);
                } else {
                    merge(&mut object[name.as_str()], value);
                }
            }
        }
        None => *object = patch.clone(),
    }
}

#[test]
fn nodes_are_spread_over_zones_and_then_the_group_is_active() {
    let mut world = World::new(4);
    world.settle();
    assert_eq!(world.shown()["status"], "ACTIVE");
    assert_eq!(world.zones(), ["us-east-1a", "us-east-1a", "us-east-1b", "us-east-1c"]);
    assert!(!world.turn(), "at rest");
}

#[test]
fn a_group_that_is_asked_for_less_empties_nodes_before_they_go() {
    let mut world = World::new(3);
    world.settle();
    world.put_pods();
    let update = world.update("UpdateNodegroupConfig", &json!({"scalingConfig": {"desiredSize": 1}}));
    world.settle();
    assert_eq!(world.update_status(&update), "Successful");
    assert_eq!((world.zones().len(), world.cluster.list(NODES, "").count()), (1, 1));
    assert_eq!(world.cluster.list(PODS, "").count(), 1, "those of nodes that went were evicted");
}

#[test]
fn an_update_brings_new_nodes_before_it_takes_old_ones() {
    let mut world = World::new(3);
    world.settle();
    (world.most, world.fewest) = (0, usize::MAX);
    let update = world.update("UpdateNodegroupVersion", &json!({"version": "1.36"}));
    world.settle();
    assert_eq!(world.update_status(&update), "Successful");
    assert_eq!(world.shown()["status"], "ACTIVE");
    let all = world.members();
    assert!(all.iter().all(|member| member.record.template.version == "2"));
    // What is emptied is still there while what comes in its place starts.
    assert_eq!(
        (all.len(), world.most),
        (3, 7),
        "one more for each of the three zones, and one on its way out"
    );
    assert!(world.fewest >= 3, "{}", world.fewest);
    let group = world.group().record;
    assert_eq!((group.desired, group.max), (3, 5));
    let running = state::list::<Instance>(&world.account.state, "").into_iter().map(|kept| kept.record);
    let images: Vec<String> = running.filter(Instance::is_running).map(|one| one.image_id).collect();
    let newest = ec2::place::image_of_version("1.36").expect("an image").id;
    assert_eq!(images, [newest.clone(), newest.clone(), newest]);
}

#[test]
fn an_update_fails_where_a_budget_keeps_pods_and_the_group_is_what_it_was() {
    let mut world = World::new(3);
    world.settle();
    world.put_pods();
    world.held = world.cluster.list(PODS, "").map(|pod| pod.key.clone()).collect();
    let before = world.members();
    let update = world.update("UpdateNodegroupVersion", &json!({"version": "1.36"}));
    world.settle();
    assert_eq!(
        (world.update_status(&update), world.members().len()),
        ("InProgress".into(), 7),
        "one in the place of the one that is being emptied"
    );
    let leaving = world.members().into_iter().find(|one| one.record.lifecycle == Lifecycle::TerminatingWait);
    let leaving = leaving.expect("one is being emptied").record.node_name;
    world.later(15 * 60);
    world.settle();
    let shown = world.shown_update(&update);
    assert_eq!(shown.status, "Failed");
    assert_eq!(shown.errors[0].error_code, "PodEvictionFailure");
    assert_eq!(shown.errors[0].resource_ids, [leaving]);
    assert_eq!(world.shown()["status"], "ACTIVE");
    assert_eq!(world.shown()["version"], "1.35");
    let names = |members: &[state::Kept<crate::autoscaling::Member>]| -> Vec<String> {
        members.iter().map(|member| member.record.instance_id.clone()).collect()
    };
    assert_eq!(names(&world.members()), names(&before), "those with the pods are still there, and no others");
    assert_eq!(world.cluster.list(PODS, "").count(), 3);
    for node in world.cluster.list(NODES, "") {
        let node = node.to_value().expect("JSON");
        assert_eq!((&node["spec"], &node["metadata"]["labels"]), (&json!({}), &json!({})));
    }
    assert_eq!((world.group().record.desired, world.group().record.max), (3, 5));

    // With the budget out of the way, the same succeeds; and so it does in spite of it by force.
    world.held.pop();
    let update = world.update("UpdateNodegroupVersion", &json!({"version": "1.36", "force": true}));
    world.settle();
    assert_eq!(world.update_status(&update), "InProgress");
    for _ in 0..3 {
        world.later(15 * 60);
        world.settle();
    }
    assert_eq!(world.update_status(&update), "Successful");
    assert_eq!(world.shown()["version"], "1.36");
}

#[test]
fn an_update_whose_nodes_never_join_fails_and_takes_none_of_the_old() {
    let mut world = World::new(2);
    world.settle();
    let before = world.members();
    world.is_mute = true;
    let update = world.update("UpdateNodegroupVersion", &json!({"version": "1.36"}));
    world.settle();
    assert_eq!(world.update_status(&update), "InProgress");
    world.later(15 * 60);
    world.settle();
    let shown = world.shown_update(&update);
    assert_eq!(shown.status, "Failed");
    assert_eq!(shown.errors[0].error_code, "NodeCreationFailure");
    assert_eq!(shown.errors[0].resource_ids.len(), 3);
    let ids = |members: Vec<state::Kept<crate::autoscaling::Member>>| -> Vec<String> {
        members.into_iter().map(|member| member.record.instance_id).collect()
    };
    assert_eq!(ids(world.members()), ids(before));
    assert_eq!(world.shown()["status"], "ACTIVE");
}

#[test]
fn a_sick_instance_is_replaced() {
    let mut world = World::new(2);
    world.settle();
    let mut sick = world.members().remove(0);
    sick.record.is_unhealthy = true;
    let mut changes = state::Changes::default();
    changes.update(&sick);
    changes.apply(&mut world.account.state);
    world.settle();
    let now: Vec<String> = world.members().into_iter().map(|member| member.record.instance_id).collect();
    assert_eq!(now.len(), 2);
    assert!(!now.contains(&sick.record.instance_id));
    assert_eq!(world.shown()["status"], "ACTIVE");
}

#[test]
fn labels_and_taints_reach_the_nodes_there_are() {
    let mut world = World::new(1);
    world.settle();
    let taint = json!({"key": "k", "value": "v", "effect": "NO_SCHEDULE"});
    let members =
        json!({"labels": {"addOrUpdateLabels": {"tier": "web"}}, "taints": {"addOrUpdateTaints": [taint]}});
    world.update("UpdateNodegroupConfig", &members);
    world.settle();
    let node =
        |world: &World| world.cluster.list(NODES, "").next().expect("a node").to_value().expect("JSON");
    assert_eq!(node(&world)["metadata"]["labels"]["tier"], "web");
    assert_eq!(node(&world)["spec"]["taints"], json!([{"key": "k", "effect": "NoSchedule", "value": "v"}]));
    let gone = json!({"labels": {"removeLabels": ["tier"]}, "taints": {"removeTaints": [taint]}});
    world.update("UpdateNodegroupConfig", &gone);
    world.settle();
    assert_eq!(node(&world)["metadata"]["labels"], json!({}));
    assert_eq!(node(&world)["spec"]["taints"], json!([]));
    // Those to come are told by their template, and none of those there are is replaced for it.
    assert_eq!(world.members()[0].record.template.version, "1");
    assert_eq!(world.group().record.template.version, "3");
}

/// The roles that are mapped, each with its name, as the ConfigMap aws-auth has them.
fn mapped(world: &World) -> Vec<(String, String)> {
    let Some(object) = world.cluster.find(CONFIG_MAPS, "kube-system", "aws-auth") else { return Vec::new() };
    let roles = object.to_value().expect("JSON")["data"]["mapRoles"].as_str().expect("roles").to_owned();
    let roles: Vec<Value> = serde_saphyr::from_str(&roles).expect("a list");
    let text = |role: &Value, member: &str| role[member].as_str().unwrap_or_default().to_owned();
    roles.iter().map(|role| (text(role, "rolearn"), text(role, "username"))).collect()
}

/// Where the ConfigMap is read, the role is in it before the group is active and until the last group with it is gone; where entries
/// are read it has one.
#[test]
fn the_role_of_a_node_group_is_mapped_while_it_lasts() {
    let node = format!("arn:aws:iam::{ACCOUNT}:role/AmazonEKSNodeRole");
    let ours = (node.clone(), "system:node:{{EC2PrivateDNSName}}".to_owned());
    for (mode, is_in_map, is_entry) in
        [("CONFIG_MAP", true, false), ("API_AND_CONFIG_MAP", true, true), ("API", false, true)]
    {
        let mut world = World::empty();
        if mode != "CONFIG_MAP" {
            let input = json!({"name": CLUSTER, "accessConfig": {"authenticationMode": mode}});
            world.call("UpdateClusterConfig", &input);
        }
        world.make_group(1, &world.subnets());
        let mut map_before_active = false;
        for _ in 0..50 {
            map_before_active |= world.shown()["status"] == "CREATING" && !mapped(&world).is_empty();
            world.turn();
        }
        assert_eq!(world.shown()["status"], "ACTIVE", "{mode}");
        assert_eq!(map_before_active, is_in_map, "{mode}");
        let wanted = if is_in_map { vec![ours.clone()] } else { Vec::new() };
        assert_eq!(mapped(&world), wanted, "{mode}");
        let has_entry =
            |world: &World| state::get::<AccessEntry>(&world.account.state, CLUSTER, &node).is_some();
        assert_eq!(has_entry(&world), is_entry, "{mode}");

        let other = json!({"clusterName": CLUSTER, "nodegroupName": "other", "subnets": world.subnets(), "nodeRole": node});
        world.call("CreateNodegroup", &other);
        let delete = |world: &mut World, name: &str| {
            world.call("DeleteNodegroup", &json!({"clusterName": CLUSTER, "nodegroupName": name}));
        };
        delete(&mut world, NG);
        world.settle();
        assert_eq!((mapped(&world), has_entry(&world)), (wanted, is_entry), "{mode}: another group has it");
        world.call("CreateNodegroup", &json!({"clusterName": CLUSTER, "nodegroupName": NG, "subnets": world.subnets(), "nodeRole": node}));
        world.settle();
        let record = state::get::<NodeGroupRecord>(&world.account.state, CLUSTER, "other").expect("a group");
        world.account.change(|changes| changes.delete(&record));
        delete(&mut world, NG);
        world.settle();
        assert_eq!((mapped(&world), has_entry(&world)), (Vec::new(), false), "{mode}: nobody has it");
    }
}

#[test]
fn a_deleted_node_group_leaves_nothing() {
    let mut world = World::new(2);
    world.settle();
    world.call("DeleteNodegroup", &json!({"clusterName": CLUSTER, "nodegroupName": NG}));
    world.settle();
    assert_eq!(world.shown(), Value::Null);
    let account = &world.account.state;
    assert!(state::list::<Group>(account, "").is_empty() && world.members().is_empty());
    assert!(state::list::<ec2::record::LaunchTemplate>(account, "").is_empty());
    let profiles = state::list::<crate::iam::record::InstanceProfile>(account, "").into_iter();
    let names: Vec<String> = profiles.map(|kept| kept.record.common.name).collect();
    assert_eq!(names, ["AmazonEKSNodeRole"]);
    let attached = state::list::<NetworkInterface>(account, "").into_iter();
    assert_eq!(
        attached.filter(|one| one.record.interface_type == "interface").count(),
        2,
        "the control plane's"
    );
    assert_eq!(world.cluster.list(NODES, "").count(), 0);
}

#[test]
fn nodes_that_never_join_fail_the_group() {
    let mut world = World::new(1);
    world.turn();
    let node = world.cluster.list(NODES, "").next().expect("a node").clone();
    let mut value = node.to_value().expect("JSON");
    value["status"]["conditions"][0]["status"] = "False".into();
    put(&mut world.cluster, node.key.clone(), &value);
    world.settle();
    assert_eq!(world.shown()["status"], "CREATING");
    world.account.now = world.account.now.plus_secs(901);
    world.settle();
    assert_eq!(world.shown()["status"], "CREATE_FAILED");
    assert_eq!(world.shown()["health"]["issues"][0]["code"], "NodeCreationFailure");
}

#[test]
fn sizes_that_somebody_changes_during_an_update_stay_sizes() {
    let mut world = World::new(3);
    world.settle();
    world.update("UpdateNodegroupVersion", &json!({"version": "1.36"}));
    world.turn();
    let mut group = world.group();
    assert_eq!(group.record.desired, 6);
    (group.record.desired, group.record.max) = (1, 2);
    let mut changes = state::Changes::default();
    changes.update(&group);
    changes.apply(&mut world.account.state);
    world.account.now = world.account.now.plus_secs(3_600);
    for _ in 0..50 {
        world.turn();
    }
    let group = world.group().record;
    assert!(
        (1..=5).contains(&group.desired) && group.desired <= group.max,
        "{} {}",
        group.desired,
        group.max
    );
}

#[test]
fn nothing_goes_from_nodes_of_a_cluster_that_does_not_run_yet() {
    let mut world = World::new(2);
    world.settle();
    let mut group = world.group();
    group.record.desired = 1;
    let mut changes = state::Changes::default();
    changes.update(&group);
    changes.apply(&mut world.account.state);
    world.decide(|context, _| group::reconcile(context, &group.record.name));
    world.decide(|context, _| node_group::reconcile(context, &|_| None, CLUSTER, NG));
    let waiting = |world: &World| {
        let all = world.members();
        all.iter().filter(|member| member.record.lifecycle == Lifecycle::TerminatingWait).count()
    };
    assert_eq!(waiting(&world), 1);
    world.settle();
    assert_eq!((waiting(&world), world.members().len()), (0, 1));
}

#[test]
fn members_are_instances_that_say_whose_they_are() {
    let mut world = World::new(1);
    world.settle();
    let [member] = world.members().try_into().expect("one");
    let told = world.call("DescribeInstances", &json!({"InstanceIds": [member.record.instance_id]}));
    let told = &told["Reservations"][0]["Instances"][0];
    assert_eq!(told["PrivateDnsName"], member.record.node_name);
    let profile = told["IamInstanceProfile"]["Arn"].as_str().expect("a profile");
    assert!(profile.contains(":instance-profile/eks-"), "{profile}");
    let template = &member.record.template;
    for (key, value) in [
        ("aws:autoscaling:groupName", world.name().as_str()),
        ("aws:ec2launchtemplate:id", &template.id),
        ("aws:ec2launchtemplate:version", "1"),
        ("eks:cluster-name", CLUSTER),
        ("eks:nodegroup-name", NG),
        ("kubernetes.io/cluster/shop", "owned"),
    ] {
        let tags = told["Tags"].as_array().expect("tags");
        assert!(tags.contains(&json!({"Key": key, "Value": value})), "{key}: {tags:?}");
    }
    let versions = world.call("DescribeLaunchTemplateVersions", &json!({"LaunchTemplateId": template.id}));
    assert_eq!(versions["LaunchTemplateVersions"][0]["VersionNumber"], 1);
}

#[test]
fn an_instance_that_somebody_terminates_is_replaced() {
    let mut world = World::new(2);
    world.settle();
    let gone = world.members().remove(0).record.instance_id;
    world.call("TerminateInstances", &json!({"InstanceIds": [gone]}));
    world.settle();
    let now: Vec<String> = world.members().into_iter().map(|member| member.record.instance_id).collect();
    assert!(now.len() == 2 && !now.contains(&gone), "{now:?}");
    assert_eq!(world.cluster.list(NODES, "").count(), 2);
    assert_eq!(world.shown()["status"], "ACTIVE");
}

#[test]
fn where_there_is_no_room_another_zone_is_taken_and_without_any_the_group_says_so() {
    let mut world = World::empty();
    let vpc = world.call("DescribeVpcs", &json!({}))["Vpcs"][0]["VpcId"].clone();
    // For one node with its pods each.
    let tiny = ["172.31.240.0/27", "172.31.240.32/28"].map(|range| {
        let zone = if range.ends_with("27") { "us-east-1a" } else { "us-east-1b" };
        let input = json!({"VpcId": vpc, "CidrBlock": range, "AvailabilityZone": zone});
        world.call("CreateSubnet", &input)["Subnet"]["SubnetId"].as_str().expect("an id").to_owned()
    });
    world.make_group(2, &tiny);
    for _ in 0..20 {
        world.turn();
        world.account.now = world.account.now.plus_secs(1);
    }
    let issue = &world.shown()["health"]["issues"][0];
    assert_eq!(issue["code"], "AsgInstanceLaunchFailures", "{}", world.shown());
    assert!(issue["message"].as_str().expect("a text").contains("not have enough free addresses"), "{issue}");
}

#[test]
fn a_sites_own_nodes_are_instances_by_their_numbers() {
    let mut world = World::empty();
    let host = [198, 18, 0, 1].into();
    let bring = |world: &mut World, count: u16| {
        for _ in 0..10 {
            let changes = world.account.context(&Caller::default(), |context| {
                site_nodes::reconcile(context, CLUSTER, count, host).expect("room")
            });
            world.commit(changes);
            world.settle();
        }
        let all = site_nodes::of(&world.account.state, CLUSTER).into_iter();
        all.map(|(_, kept)| kept.record.node_name().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(bring(&mut world, 3), ["shop-1", "shop-2", "shop-3"]);
    assert_eq!(bring(&mut world, 1), ["shop-1"]);
    assert_eq!(bring(&mut world, 2), ["shop-1", "shop-2"]);
    let (_, mut first) = site_nodes::of(&world.account.state, CLUSTER).remove(0);
    first.record.wanted = Wanted::Stopped;
    first.record.state = State::Stopped;
    world.account.change(|changes| changes.update(&first));
    let changes = world.account.context(&Caller::default(), |context| site_nodes::revive(context, CLUSTER));
    world.commit(changes);
    world.settle();
    assert!(site_nodes::of(&world.account.state, CLUSTER).iter().all(|(_, kept)| kept.record.is_running()));
}

#[test]
fn a_node_that_is_not_ready_for_half_an_hour_is_replaced() {
    for (enabled, halted, is_replaced) in [(true, false, true), (false, false, false), (true, true, false)] {
        let mut world = World::new(3);
        world.settle();
        let mut group =
            state::get::<NodeGroupRecord>(&world.account.state, CLUSTER, NG).expect("a node group");
        let config = &mut group.record.shown.node_repair_config;
        config.enabled = enabled;
        config.max_unhealthy_node_threshold_count = halted.then_some(0);
        world.account.change(|changes| changes.update(&group));
        let names = |world: &World| -> Vec<String> {
            world.members().into_iter().map(|member| member.record.instance_id).collect()
        };
        let before = names(&world);
        let key = Key::cluster(NODES, world.members()[0].record.node_name.as_str());
        let mut node = world.cluster.get(&key).expect("a node").to_value().expect("JSON");
        node["status"]["conditions"] =
            json!([{"type": "Ready", "status": "Unknown", "lastTransitionTime": world.account.now}]);
        put(&mut world.cluster, key, &node);

        world.account.now = world.account.now.plus_secs(30 * 60 - 1);
        world.settle();
        assert_eq!(names(&world), before, "not yet");
        world.account.now = world.account.now.plus_secs(1);
        world.settle();
        let after = names(&world);
        assert_eq!((after.len(), !after.contains(&before[0])), (3, is_replaced), "{enabled} {halted}");
        assert!(before[1..].iter().all(|name| after.contains(name)), "only the broken one goes");
        assert_eq!(world.shown()["status"], "ACTIVE");
    }
}

/// A self-managed node.
fn joined(world: &mut World, cluster: &str) -> Kept<Instance> {
    let image = ec2::place::images()[0].id.clone();
    world.call(
        "RunInstances",
        &json!({"ImageId": image, "MinCount": 1, "MaxCount": 1, "InstanceType": "t3.medium"}),
    );
    let mut newest = state::list::<Instance>(&world.account.state, "");
    newest.retain(|one| one.record.joined.is_none() && one.record.site_node.is_none());
    let id = newest.remove(0).record.instance_id;
    ec2::instance::joins(&world.account.state, &id, Some(cluster)).apply(&mut world.account.state);
    state::get::<Instance>(&world.account.state, "", &id).expect("an instance")
}

#[test]
fn a_cluster_that_goes_leaves_no_node_to_the_next_of_its_name() {
    let mut world = World::empty();
    let mut own = joined(&mut world, CLUSTER);
    let id = own.record.instance_id.clone();
    assert_eq!(own.record.joined.as_deref(), Some(CLUSTER));
    let none = ec2::instance::joins(&world.account.state, &id, Some("elsewhere"));
    assert!(
        none.0[0].object.as_ref().expect("an object")["spec"]["joined"].is_null(),
        "there is no such cluster"
    );
    for step in [eks::begin_to_go, eks::end_nodes] {
        let changes = world.account.context(&Caller::default(), |context| step(context, CLUSTER));
        changes.apply(&mut world.account.state);
    }
    // Of one that is about to go nobody becomes a node, and nothing is started for it.
    let late = ec2::instance::joins(&world.account.state, &id, Some(CLUSTER));
    late.apply(&mut world.account.state);
    own = state::get(&world.account.state, "", &id).expect("it goes on");
    assert_eq!((own.record.joined.as_deref(), own.record.wanted), (None, Wanted::Running));
    own.record.joined = Some(CLUSTER.into());
    world.account.change(|changes| changes.update(&own));
    let changes = world.account.context(&Caller::default(), |context| eks::forget(context, CLUSTER));
    changes.apply(&mut world.account.state);
    assert!(state::get::<ClusterRecord>(&world.account.state, "", CLUSTER).is_none());
    own = state::get(&world.account.state, "", &id).expect("it goes on");
    assert_eq!((own.record.joined.as_deref(), own.record.wanted), (None, Wanted::Running));
}

#[test]
fn what_is_made_for_a_cluster_is_made_only_while_it_stays_as_it_was() {
    let mut world = World::empty();
    let cluster = state::get::<ClusterRecord>(&world.account.state, "", CLUSTER).expect("a cluster");
    let requires = |changes: &Changes, key: &Key| {
        changes.0.iter().any(|change| change.key == *key && matches!(change.expect, Expect::Unchanged(_)))
    };
    let host = [198, 18, 0, 1].into();
    let nodes = |context: &mut Context| site_nodes::reconcile(context, CLUSTER, 1, host).expect("nodes");
    let changes = world.account.context(&Caller::default(), nodes);
    assert!(requires(&changes, &cluster.key), "a node of a cluster that goes at the same moment is nobody's");
    let subnets = world.subnets();
    world.make_group(1, &subnets);
    let reconcile = |context: &mut Context| node_group::reconcile(context, &|_| None, CLUSTER, NG).changes;
    let changes = world.account.context(&Caller::default(), reconcile);
    changes.apply(&mut world.account.state);
    let group = state::list::<Group>(&world.account.state, "").remove(0);
    let launch = |context: &mut Context| super::group::reconcile(context, &group.record.name).changes;
    let changes = world.account.context(&Caller::default(), launch);
    assert!(
        requires(&changes, &group.key),
        "an instance of a group that goes at the same moment is nobody's"
    );
    let before = world.account.state.get(&group.key).map(|object| object.revision);
    changes.apply(&mut world.account.state);
    assert_eq!(
        world.account.state.get(&group.key).map(|object| object.revision),
        before,
        "it is left as it is"
    );
}
