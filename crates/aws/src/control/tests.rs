//! Groups and node groups over their whole lives, against an account in memory and a cluster whose nodes come and go as they are told.

use kinds::{NODES, PODS};
use object::{Draft, Key, Snapshot, Time, body};
use plan::Write;
use serde_json::{Value, json};

use super::{InCluster, group, node_group};
use crate::autoscaling::{Group, Lifecycle, Member, members};
use crate::eks::{ClusterRecord, NodeGroupRecord, UpdateRecord};
use crate::state;
use crate::{Caller, Context, Ids};

const CLUSTER: &str = "shop";
const NG: &str = "ng";

/// An account, a cluster, and the machines behind them: each instance that is launched has a node at once.
struct World {
    account: Snapshot,
    cluster: Snapshot,
    now: Time,
    draws: u8,
    /// The most members that there were at once, and the fewest Ready nodes.
    most: usize,
    fewest: usize,
}

fn put(state: &mut Snapshot, key: Key, object: &Value) {
    let field = object["spec"]["nodeName"].as_str().unwrap_or_default();
    let next = state.revision() + 1;
    let draft = Draft::read(key, [field.into()].into(), body::encode(object)).expect("an object");
    state.put(draft.at(next));
}

impl World {
    fn new(size: u32) -> Self {
        let mut world = Self {
            account: Snapshot::default(),
            cluster: Snapshot::default(),
            now: Time::from_secs(1_790_000_000),
            draws: 0,
            most: 0,
            fewest: usize::MAX,
        };
        for zone in ["a", "b", "c"] {
            let id = format!("subnet-{zone}");
            let spec =
                json!({"subnetId": id, "vpcId": "vpc-1", "availabilityZone": format!("us-east-1{zone}")});
            let key = Key::cluster(object::Resource::new("subnets.ec2"), id.as_str());
            put(&mut world.account, key, &json!({"metadata": {"name": id}, "spec": spec}));
        }
        let shown = json!({
            "nodegroupName": NG, "nodegroupArn": "arn", "clusterName": CLUSTER, "version": "1.35", "releaseVersion": "r",
            "createdAt": world.now, "modifiedAt": world.now, "status": "CREATING", "capacityType": "ON_DEMAND",
            "scalingConfig": {"minSize": 1, "maxSize": 5, "desiredSize": size}, "instanceTypes": ["t3.medium"],
            "subnets": ["subnet-a", "subnet-b", "subnet-c"], "amiType": "x", "nodeRole": "r", "labels": {}, "taints": [],
            "resources": {"autoScalingGroups": [{"name": "eks-ng"}]}, "health": {"issues": []},
            "updateConfig": {"maxUnavailable": 1}, "nodeRepairConfig": {}, "tags": {},
        });
        let record = json!({"shown": shown, "template": {"id": "lt-1", "name": "t", "version": "1"}});
        world.store::<NodeGroupRecord>(CLUSTER, NG, record);
        world
    }

    fn store<T: state::Record>(&mut self, owner: &str, name: &str, spec: Value) {
        let key = Key::new(T::RESOURCE, owner, name);
        put(&mut self.account, key, &json!({"metadata": {"name": name, "namespace": owner}, "spec": spec}));
    }

    fn decide(&mut self, decide: impl FnOnce(&mut Context, &Snapshot) -> super::Plan) -> super::Plan {
        self.draws = self.draws.wrapping_add(1);
        let (account, cluster, caller) = (self.account.clone(), self.cluster.clone(), Caller::default());
        let mut ids = Ids::new([self.draws; 32]);
        let mut context = Context {
            account: "000000000000",
            region: "us-east-1",
            now: self.now,
            caller: &caller,
            state: &account,
            ids: &mut ids,
        };
        let mut plan = decide(&mut context, &cluster);
        self.commit(std::mem::take(&mut plan.changes));
        plan
    }

    /// One turn of everybody: the controllers, the machines, the cluster. Whether anything happened.
    fn turn(&mut self) -> bool {
        let before = (self.account.revision(), self.cluster.revision());
        let plan = self
            .decide(|context, nodes| node_group::reconcile(context, &|_| Some(nodes.clone()), CLUSTER, NG));
        for write in plan.in_cluster {
            self.write(write);
        }
        self.decide(|context, _| group::reconcile(context, "eks-ng"));
        for member in members(&self.account, "eks-ng") {
            self.machine(member);
        }
        let all = members(&self.account, "eks-ng");
        self.most = self.most.max(all.len());
        if self.shown()["status"] != "CREATING" {
            self.fewest = self.fewest.min(self.cluster.list(NODES, "").count());
        }
        before != (self.account.revision(), self.cluster.revision())
    }

    fn write(&mut self, write: InCluster) {
        match write {
            InCluster::Write(Write::Merge { key, patch, .. }) => {
                let mut object = self.cluster.get(&key).expect("a node").to_value().expect("JSON");
                merge(&mut object, &patch);
                put(&mut self.cluster, key, &object);
            }
            InCluster::Evict(pod) => drop(self.cluster.remove(&pod, self.cluster.revision() + 1)),
            InCluster::Write(other) => panic!("{other:?}"),
        }
    }

    /// What a host does for an instance.
    fn machine(&mut self, mut member: state::Kept<Member>) {
        let id = member.record.instance_id.clone();
        let mut changes = state::Changes::default();
        match member.record.lifecycle {
            Lifecycle::Pending => {
                member.record.lifecycle = Lifecycle::InService;
                member.record.node_name = format!("node-{id}");
                changes.update(&member);
                let node = json!({"metadata": {"name": format!("node-{id}"), "labels": {}}, "spec": {},
                    "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
                put(&mut self.cluster, Key::cluster(NODES, format!("node-{id}")), &node);
            }
            Lifecycle::TerminatingProceed => {
                changes.delete(&member);
                let next = self.cluster.revision() + 1;
                self.cluster.remove(&Key::cluster(NODES, member.record.node_name), next);
            }
            _ => {}
        }
        self.commit(changes);
    }

    /// Nothing that is written is no event.
    fn commit(&mut self, changes: state::Changes) {
        if !changes.is_empty() {
            changes.apply(&mut self.account);
        }
    }

    fn settle(&mut self) {
        for _ in 0..200 {
            if !self.turn() {
                return;
            }
        }
        panic!("it never comes to rest: {}", self.shown());
    }

    fn shown(&self) -> Value {
        let record = state::get::<NodeGroupRecord>(&self.account, CLUSTER, NG);
        record.map_or(Value::Null, |kept| json!(kept.record.shown))
    }

    fn change_record(&mut self, change: impl FnOnce(&mut NodeGroupRecord)) {
        let mut record = state::get::<NodeGroupRecord>(&self.account, CLUSTER, NG).expect("a node group");
        change(&mut record.record);
        let mut changes = state::Changes::default();
        changes.update(&record);
        changes.apply(&mut self.account);
    }

    fn update(&mut self, kind: &str, params: Value, change: impl FnOnce(&mut NodeGroupRecord)) {
        let shown = json!({"id": "u", "status": "InProgress", "type": kind, "params": params, "createdAt": self.now, "errors": []});
        self.store::<UpdateRecord>(CLUSTER, "u", json!({"shown": shown, "nodegroupName": NG}));
        self.change_record(|record| {
            record.update_id = "u".into();
            record.shown.status = "UPDATING".into();
            change(record);
        });
    }

    fn update_status(&self) -> String {
        let update = state::get::<UpdateRecord>(&self.account, CLUSTER, "u");
        update.map(|update| update.record.shown.status).unwrap_or_default()
    }

    fn zones(&self) -> Vec<String> {
        let mut zones: Vec<String> =
            members(&self.account, "eks-ng").into_iter().map(|member| member.record.zone).collect();
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
    for member in members(&world.account, "eks-ng") {
        let name = format!("web-{}", member.record.instance_id);
        let pod = json!({"metadata": {"name": name, "namespace": "default"}, "spec": {"nodeName": member.record.node_name}});
        put(&mut world.cluster, Key::new(PODS, "default", name), &pod);
    }
    world.update("ConfigUpdate", json!([]), |record| record.shown.scaling_config.desired_size = 1);
    world.settle();
    assert_eq!(world.update_status(), "Successful");
    assert_eq!((world.zones().len(), world.cluster.list(NODES, "").count()), (1, 1));
    assert_eq!(world.cluster.list(PODS, "").count(), 1, "those of nodes that went were evicted");
}

#[test]
fn an_update_brings_new_nodes_before_it_takes_old_ones() {
    let mut world = World::new(3);
    world.settle();
    (world.most, world.fewest) = (0, usize::MAX);
    world.update("VersionUpdate", json!([]), |record| {
        record.shown.version = "1.36".into();
        record.template.version = "2".into();
    });
    world.settle();
    assert_eq!(world.update_status(), "Successful");
    assert_eq!(world.shown()["status"], "ACTIVE");
    let all = members(&world.account, "eks-ng");
    assert!(all.iter().all(|member| member.record.template.version == "2"));
    // What is emptied is still there while what comes in its place starts.
    assert_eq!(
        (all.len(), world.most),
        (3, 7),
        "one more for each of the three zones, and one on its way out"
    );
    assert!(world.fewest >= 3, "{}", world.fewest);
    let group = state::get::<Group>(&world.account, "", "eks-ng").expect("a group").record;
    assert_eq!((group.desired, group.max), (3, 5));
}

#[test]
fn a_sick_instance_is_replaced() {
    let mut world = World::new(2);
    world.settle();
    let mut sick = members(&world.account, "eks-ng").remove(0);
    sick.record.is_unhealthy = true;
    let mut changes = state::Changes::default();
    changes.update(&sick);
    changes.apply(&mut world.account);
    world.settle();
    let now: Vec<String> =
        members(&world.account, "eks-ng").into_iter().map(|member| member.record.instance_id).collect();
    assert_eq!(now.len(), 2);
    assert!(!now.contains(&sick.record.instance_id));
    assert_eq!(world.shown()["status"], "ACTIVE");
}

#[test]
fn labels_and_taints_reach_the_nodes_there_are() {
    let mut world = World::new(1);
    world.settle();
    world.update("ConfigUpdate", json!([{"type": "LabelsToAdd", "value": "{}"}]), |record| {
        record.shown.labels.insert("tier".into(), "web".into());
        record.shown.taints =
            serde_json::from_value(json!([{"key": "k", "value": "v", "effect": "NO_SCHEDULE"}]))
                .expect("taints");
    });
    world.settle();
    let node =
        |world: &World| world.cluster.list(NODES, "").next().expect("a node").to_value().expect("JSON");
    assert_eq!(node(&world)["metadata"]["labels"]["tier"], "web");
    assert_eq!(node(&world)["spec"]["taints"], json!([{"key": "k", "effect": "NoSchedule", "value": "v"}]));
    let gone = json!([{"type": "LabelsToRemove", "value": "[\"tier\"]"},
        {"type": "TaintsToRemove", "value": "[{\"key\":\"k\",\"effect\":\"NO_SCHEDULE\"}]"}]);
    world.update("ConfigUpdate", gone, |record| {
        record.shown.labels.clear();
        record.shown.taints.clear();
    });
    world.settle();
    assert_eq!(node(&world)["metadata"]["labels"], json!({}));
    assert_eq!(node(&world)["spec"]["taints"], json!([]));
}

#[test]
fn a_deleted_node_group_leaves_nothing() {
    let mut world = World::new(2);
    world.settle();
    world.change_record(|record| record.shown.status = "DELETING".into());
    world.settle();
    assert_eq!(world.shown(), Value::Null);
    assert!(
        state::list::<Group>(&world.account, "").is_empty() && members(&world.account, "eks-ng").is_empty()
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
    world.now = world.now.plus_secs(901);
    world.settle();
    assert_eq!(world.shown()["status"], "CREATE_FAILED");
    assert_eq!(world.shown()["health"]["issues"][0]["code"], "NodeCreationFailure");
}

#[test]
fn sizes_that_somebody_changes_during_an_update_stay_sizes() {
    let mut world = World::new(3);
    world.settle();
    world.update("VersionUpdate", json!([]), |record| {
        record.shown.version = "1.36".into();
        record.template.version = "2".into();
    });
    world.turn();
    let mut group = state::get::<Group>(&world.account, "", "eks-ng").expect("a group");
    assert_eq!(group.record.desired, 6);
    (group.record.desired, group.record.max) = (1, 2);
    let mut changes = state::Changes::default();
    changes.update(&group);
    changes.apply(&mut world.account);
    world.now = world.now.plus_secs(3_600);
    for _ in 0..50 {
        world.turn();
    }
    let group = state::get::<Group>(&world.account, "", "eks-ng").expect("a group").record;
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
    world.store::<ClusterRecord>("", CLUSTER, json!({"name": CLUSTER}));
    let mut group = state::get::<Group>(&world.account, "", "eks-ng").expect("a group");
    group.record.desired = 1;
    let mut changes = state::Changes::default();
    changes.update(&group);
    changes.apply(&mut world.account);
    world.decide(|context, _| group::reconcile(context, "eks-ng"));
    world.decide(|context, _| node_group::reconcile(context, &|_| None, CLUSTER, NG));
    let waiting = |world: &World| {
        let all = members(&world.account, "eks-ng");
        all.iter().filter(|member| member.record.lifecycle == Lifecycle::TerminatingWait).count()
    };
    assert_eq!(waiting(&world), 1);
    world.settle();
    assert_eq!((waiting(&world), members(&world.account, "eks-ng").len()), (0, 1));
}
