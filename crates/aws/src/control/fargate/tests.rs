//! Pods on Fargate from their creation to their end, against an account in memory and a cluster that does as it is told.

use object::{Draft, body};

use super::*;
use crate::stories::{ACCOUNT, Account};
use crate::{Caller, Ids};

const CLUSTER: &str = "shop";

struct World {
    account: Account,
    objects: Snapshot,
    draws: u8,
    told: Vec<String>,
}

impl World {
    fn new() -> Self {
        let mut account = Account::with_vpc();
        let text = include_str!("../../../testdata/sts/cluster.json")
            .replace("NAME", CLUSTER)
            .replace("ISSUER", "https://i");
        let mut cluster: ClusterRecord = serde_json::from_str(&text).expect("a cluster");
        let subnets = state::list::<crate::ec2::record::Subnet>(&account.state, "");
        cluster.shown.status = "ACTIVE".into();
        let groups = state::list::<crate::ec2::record::SecurityGroup>(&account.state, "");
        let config = &mut cluster.shown.resources_vpc_config;
        config.cluster_security_group_id.clone_from(&groups[0].record.group_id);
        cluster.shown.resources_vpc_config.vpc_id = subnets[0].record.vpc_id.clone();
        cluster.shown.access_config.authentication_mode = crate::eks::AuthenticationMode::ApiAndConfigMap;
        account.change(|changes| changes.create("", CLUSTER, &cluster));
        Self { account, objects: Snapshot::default(), draws: 0, told: Vec::new() }
    }

    /// Private subnets of the default VPC.
    fn private(&self) -> Vec<String> {
        let subnets = state::list::<crate::ec2::record::Subnet>(&self.account.state, "");
        subnets
            .into_iter()
            .map(|kept| kept.record)
            .filter(|one| !one.map_public_ip_on_launch)
            .map(|one| one.subnet_id)
            .collect()
    }

    fn call(&mut self, name: &str, mut input: Value) -> Result<Value, String> {
        input["clusterName"] = CLUSTER.into();
        let admin = self.account.caller("admin").expect("a caller");
        self.account.call(name, &admin, &input).map_err(|fault| format!("{}: {}", fault.code, fault.message))
    }

    fn profile(&mut self, name: &str) -> Result<Value, String> {
        let input = json!({
            "fargateProfileName": name, "subnets": self.private(), "selectors": [{"namespace": "default"}],
            "podExecutionRoleArn": format!("arn:aws:iam::{ACCOUNT}:role/AmazonEKSFargatePodExecutionRole"),
        });
        self.call("CreateFargateProfile", input)
    }

    fn put(&mut self, key: Key, object: &Value) {
        let field = object["spec"]["nodeName"].as_str().unwrap_or_default();
        let next = self.objects.revision() + 1;
        let draft = Draft::read(key, [field.into()].into(), body::encode(object)).expect("an object");
        self.objects.put(draft.at(next));
    }

    fn pod(&mut self, name: &str, profile: &str, spec: Value) {
        let mut object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "uid": format!("uid-{name}"), "labels": {PROFILE_LABEL: profile}},
            "spec": {"schedulerName": SCHEDULER, "containers": [{"name": "c"}]}, "status": {"phase": "Pending"},
        });
        object["spec"].as_object_mut().expect("a spec").extend(spec.as_object().expect("members").clone());
        self.put(Key::new(PODS, "default", name), &object);
    }

    fn object(&self, name: &str) -> Value {
        let object = self.objects.find(PODS, "default", name);
        object.map_or(Value::Null, |object| object.to_value().expect("JSON"))
    }

    fn nodes(&self) -> Vec<FargateNode> {
        state::list::<FargateNode>(&self.account.state, CLUSTER).into_iter().map(|kept| kept.record).collect()
    }

    fn statuses(&self) -> Vec<String> {
        let all = state::list::<FargateProfileRecord>(&self.account.state, CLUSTER);
        all.into_iter().map(|kept| kept.record.shown.status).collect()
    }

    /// One turn of the scheduler. Whether it wanted anything.
    fn turn(&mut self) -> bool {
        self.draws += 1;
        let (state, objects) = (self.account.state.clone(), self.objects.clone());
        let caller = Caller::default();
        let mut context = Context {
            account: ACCOUNT,
            region: "us-east-1",
            now: self.account.now,
            caller: &caller,
            state: &state,
            ids: &mut Ids::new([self.draws; 32]),
        };
        let plan = reconcile(&mut context, &|_| Some(objects.clone()), CLUSTER);
        let is_idle = plan.changes.is_empty() && plan.in_cluster.is_empty();
        plan.changes.apply(&mut self.account.state);
        for step in plan.in_cluster {
            match step {
                InCluster::Write(write) => self.write(write),
                InCluster::Do(plan) => {
                    plan.writes.into_iter().for_each(|write| self.write(write));
                    let told = plan.events.into_iter();
                    self.told.extend(told.map(|one| format!("{} {}", one.reason, one.message)));
                }
                InCluster::Evict(pod) => panic!("{pod} is evicted"),
            }
        }
        !is_idle
    }

    fn settle(&mut self) {
        for _ in 0..50 {
            if !self.turn() {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    fn write(&mut self, write: Write) {
        match write {
            Write::Merge { key, patch, .. } => {
                let mut object = self.objects.get(&key).expect("an object").to_value().expect("JSON");
                merge(&mut object, patch);
                self.put(key, &object);
            }
            Write::Bind { pod, node, .. } => {
                let mut object = self.objects.get(&pod).expect("a pod").to_value().expect("JSON");
                object["spec"]["nodeName"] = (*node).into();
                self.put(pod, &object);
            }
            Write::Create { resource, object } => {
                let text = |member: &str| object["metadata"][member].as_str().expect("a name").to_owned();
                self.put(Key::new(resource, text("namespace"), text("name")), &object);
            }
            Write::Delete { key, .. } => drop(self.objects.remove(&key, self.objects.revision() + 1)),
            Write::Replace { .. } => panic!("{write:?}"),
        }
    }

    /// What the host does: machines that are wanted run and their nodes are Ready, those that are not wanted are gone.
    fn machines(&mut self) {
        for kept in state::list::<Instance>(&self.account.state, "") {
            let (instance, now) = (kept.record, self.account.now);
            let observed = match instance.wanted {
                Wanted::Running => State::Running,
                _ => State::Terminated,
            };
            let key = Key::cluster(NODES, instance.node_name());
            if observed == State::Running {
                let node = json!({
                    "metadata": {"name": instance.node_name()}, "spec": {"providerID": instance.provider_id()},
                    "status": {"conditions": [{"type": "Ready", "status": "True"}]},
                });
                self.put(key, &node);
            } else {
                self.objects.remove(&key, self.objects.revision() + 1);
            }
            let changes = crate::ec2::instance::observe(
                &self.account.state,
                now,
                &instance.instance_id,
                observed,
                None,
            );
            changes.apply(&mut self.account.state);
        }
    }
}

fn merge(object: &mut Value, patch: Value) {
    match patch {
        Value::Object(members) => {
            members.into_iter().for_each(|(name, value)| merge(&mut object[name.as_str()], value));
        }
        other => *object = other,
    }
}

#[test]
fn a_pod_has_a_machine_as_long_as_it_lives() {
    let mut world = World::new();
    assert_eq!(world.profile("fp").expect("a profile")["fargateProfile"]["status"], "CREATING");
    let second = world.profile("fp2").expect_err("one at a time");
    assert_eq!(
        second,
        "ResourceInUseException: Cannot create Fargate Profile fp2 because cluster shop currently has Fargate profile fp in status CREATING"
    );
    world.settle();
    assert_eq!(world.statuses(), ["ACTIVE"]);

    world.pod(
        "web",
        "fp",
        json!({"containers": [
            {"name": "a", "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}},
            {"name": "b", "resources": {"requests": {"cpu": "250m", "memory": "512Mi"}}},
        ]}),
    );
    world.settle();
    let [node] = &world.nodes()[..] else { panic!("one machine") };
    assert_eq!((node.cpu_milli, node.memory_mib, node.state), (1_000, 2_048, FargateState::Starting));
    assert!(world.private().contains(&node.subnet_id));
    assert!(world.object("web")["spec"]["nodeName"].is_null(), "not before its node is there");

    // Its interface is shown, as that of a service: nobody opens it to the world, or learns which instance it is.
    let shown = world.call("DescribeNetworkInterfaces", json!({})).expect("shown");
    let shown = shown["NetworkInterfaces"].as_array().into_iter().flatten();
    let interface = shown.clone().find(|one| one["RequesterManaged"] == true).expect("an interface");
    assert_eq!(interface["Attachment"]["InstanceId"], Value::Null);
    let id = &interface["NetworkInterfaceId"];
    let own = "OperationNotPermitted: You are not allowed to manage 'ela-attach' attachments or interfaces of services.";
    let address = world.call("AllocateAddress", json!({})).expect("an address")["AllocationId"].clone();
    for (name, input) in [
        ("AssociateAddress", json!({"AllocationId": address, "NetworkInterfaceId": id})),
        ("ModifyNetworkInterfaceAttribute", json!({"NetworkInterfaceId": id, "Groups": ["sg-1"]})),
        ("AssignPrivateIpAddresses", json!({"NetworkInterfaceId": id, "SecondaryPrivateIpAddressCount": 1})),
        ("DeleteNetworkInterface", json!({"NetworkInterfaceId": id})),
    ] {
        assert_eq!(world.call(name, input).expect_err("refused"), own, "{name}");
    }

    world.machines();
    world.settle();
    let name = &world.nodes()[0].node_name;
    assert_eq!(world.object("web")["spec"]["nodeName"], **name);
    assert_eq!(
        world.object("web")["metadata"]["annotations"],
        json!({"CapacityProvisioned": "1vCPU 2GB", "Logging": "LoggingDisabled: LOGGING_CONFIGMAP_NOT_FOUND"})
    );
    assert!(
        world.told.contains(&format!("Scheduled Successfully assigned default/web to {name}")),
        "{:?}",
        world.told
    );

    // A pod of the same name is another pod, with a machine of its own.
    world.pod("web", "fp", json!({}));
    let mut object = world.object("web");
    object["metadata"]["uid"] = "another".into();
    world.put(Key::new(PODS, "default", "web"), &object);
    world.settle();
    let states: Vec<FargateState> = world.nodes().into_iter().map(|node| node.state).collect();
    assert!(states.contains(&FargateState::Ending) && states.contains(&FargateState::Starting), "{states:?}");
    world.machines();
    world.settle();
    assert_eq!(world.nodes().len(), 1);

    let deleting = world.call("DeleteFargateProfile", json!({"fargateProfileName": "fp"})).expect("deleted");
    assert_eq!(deleting["fargateProfile"]["status"], "DELETING");
    world.settle();
    assert_eq!(world.object("web"), Value::Null);
    assert_eq!(world.statuses(), ["DELETING"], "its machine is still there");
    world.machines();
    world.settle();
    assert!(world.statuses().is_empty());
    assert_eq!(world.objects.list(NODES, "").count(), 0);
    let entries = state::list::<AccessEntry>(&world.account.state, CLUSTER);
    assert!(entries.iter().all(|entry| entry.record.r#type != "FARGATE_LINUX"));
}

#[test]
fn what_fargate_cannot_run_stays_pending_and_says_why() {
    let privileged = json!({"name": "c", "securityContext": {"privileged": true}});
    for (spec, reason, message) in [
        (json!({"hostNetwork": true}), "POD_UNSUPPORTED_ON_FARGATE", "fields not supported: HostNetwork"),
        (
            json!({"hostPID": true, "hostIPC": true}),
            "POD_UNSUPPORTED_ON_FARGATE",
            "fields not supported: HostPID, HostIPC",
        ),
        (
            json!({"containers": [privileged]}),
            "POD_UNSUPPORTED_ON_FARGATE",
            "invalid SecurityContext fields: Privileged",
        ),
        (
            json!({"containers": [{"name": "c", "securityContext": {"capabilities": {"add": ["NET_ADMIN", "CHOWN"]}}}]}),
            "POD_UNSUPPORTED_ON_FARGATE",
            "invalid SecurityContext fields: Capabilities added: NET_ADMIN",
        ),
        (
            json!({"initContainers": [privileged], "containers": [privileged]}),
            "POD_UNSUPPORTED_ON_FARGATE",
            "invalid SecurityContext fields: Privileged,Privileged",
        ),
        (
            json!({"nodeSelector": {"kubernetes.io/os": "linux", "disk": "ssd"}}),
            "POD_UNSUPPORTED_ON_FARGATE",
            "no node of profile fp has the label disk=ssd",
        ),
        (
            json!({"resourceClaims": [{"name": "gpu"}]}),
            "POD_UNSUPPORTED_ON_FARGATE",
            "fields not supported: ResourceClaims",
        ),
        (
            json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]}),
            "POD_UNSUPPORTED_ON_FARGATE",
            "port contains HostIP or HostPort",
        ),
        (
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "e", "emptyDir": {}}]}),
            "POD_UNSUPPORTED_ON_FARGATE",
            "volumes not supported: v is of an unsupported volume Type",
        ),
        (
            json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}),
            "POD_UNSUPPORTED_ON_FARGATE",
            "volumes not supported: v not supported because: PVC data not bound",
        ),
        (
            json!({"containers": [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]}),
            "POD_UNSUPPORTED_ON_FARGATE",
            "resources not supported: nvidia.com/gpu",
        ),
        (
            json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "17"}}}]}),
            "POD_CPU_MEM_EXCEEDS_MAX_FARGATE_SIZE",
            "Your pod's cpu/memory requirements exceed the max Fargate configuration",
        ),
        (
            json!({"resources": {"requests": {"memory": "121Gi"}}}),
            "POD_CPU_MEM_EXCEEDS_MAX_FARGATE_SIZE",
            "Your pod's cpu/memory requirements exceed the max Fargate configuration",
        ),
    ] {
        let mut world = World::new();
        world.profile("fp").expect("a profile");
        world.settle();
        world.pod("p", "fp", spec.clone());
        world.settle();
        assert!(world.nodes().is_empty(), "{spec}");
        let told = &world.object("p")["status"]["conditions"][0];
        assert_eq!(
            (&told["type"], &told["status"], &told["reason"]),
            (&json!("PodScheduled"), &json!("False"), &json!(reason))
        );
        assert!(told["message"].as_str().is_some_and(|told| told.ends_with(message)), "{spec}: {told}");
        // It is told once, however often it is looked at.
        assert_eq!(world.told.len(), 1, "{:?}", world.told);
    }
}

#[test]
fn a_pod_of_no_profile_and_one_whose_role_is_not_mapped_wait() {
    let mut world = World::new();
    world.pod("stray", "gone", json!({}));
    world.settle();
    assert_eq!(world.told, ["FailedScheduling Fargate profile gone not found"]);
    world.profile("fp").expect("a profile");
    world.settle();
    let role = format!("arn:aws:iam::{ACCOUNT}:role/AmazonEKSFargatePodExecutionRole");
    world.call("DeleteAccessEntry", json!({"principalArn": role})).expect("deleted");
    // The ConfigMap has the role too: both must go.
    if let Some(object) = world.objects.find(CONFIG_MAPS, "kube-system", "aws-auth").cloned() {
        world.objects.remove(&object.key, world.objects.revision() + 1);
    }
    world.pod("web", "fp", json!({}));
    world.settle();
    assert!(world.nodes().is_empty());
    assert!(
        world.told.last().is_some_and(|told| told.contains("Pod execution role is not found in auth config")),
        "{:?}",
        world.told
    );
}

#[test]
fn the_first_profile_by_its_name_that_matches_is_a_pods() {
    let profile = |name: &str, namespace: &str, labels: Value| -> FargateProfile {
        serde_json::from_value(json!({
            "fargateProfileName": name, "fargateProfileArn": "", "clusterName": CLUSTER, "createdAt": Time::from_secs(0),
            "podExecutionRoleArn": "", "subnets": [], "status": "ACTIVE", "tags": {}, "health": {"issues": []},
            "selectors": [{"namespace": "elsewhere"}, {"namespace": namespace, "labels": labels}],
        }))
        .expect("a profile")
    };
    let profiles = [
        profile("web", "a", json!({"app": "web-*"})),
        profile("all", "?", json!({"tier": "front", "app": "*"})),
        profile("other", "b*", json!({})),
    ];
    for (namespace, labels, expected) in [
        ("a", json!({}), None),
        ("a", json!({"app": "web-1"}), Some("web")),
        ("a", json!({"app": "db"}), None),
        // All labels of a selector must match.
        ("a", json!({"tier": "front"}), None),
        ("a", json!({"tier": "front", "app": "web-1"}), Some("all")),
        ("a", json!({"tier": "front", "app": "web-1", PROFILE_LABEL: "web"}), Some("web")),
        // One that is named must match too.
        ("a", json!({"app": "web-1", PROFILE_LABEL: "other"}), None),
        ("b", json!({}), Some("other")),
        ("b-1", json!({}), Some("other")),
        ("elsewhere", json!({}), Some("all")),
        ("aa", json!({"app": "web-1"}), None),
    ] {
        let label = |name: &str| labels[name].as_str().map(str::to_owned);
        let found = profile_of(&profiles, namespace, &label).map(|found| &*found.fargate_profile_name);
        assert_eq!(found, expected, "{namespace} {labels}");
    }
}

#[test]
fn a_profile_holds_when_its_role_logs_in_as_a_node() {
    use crate::eks::AuthenticationMode::{Api, ApiAndConfigMap, ConfigMap};
    let role = format!("arn:aws:iam::{ACCOUNT}:role/AmazonEKSFargatePodExecutionRole");
    let another = "- rolearn: arn:aws:iam::1:role/Node\n  groups: [system:nodes]";
    let person = format!("- rolearn: {role}\n  groups: [team]\n");
    for (mode, entry, map_roles, expected) in [
        (Api, None, None, "ACTIVE"),
        (ApiAndConfigMap, None, None, "CREATING, then ACTIVE"),
        // Another's entry of the same role wins over the ConfigMap.
        (ApiAndConfigMap, Some("STANDARD"), None, "CREATING, then CREATE_FAILED"),
        (Api, Some("STANDARD"), None, "CREATE_FAILED"),
        (Api, Some("EC2_LINUX"), None, "ACTIVE"),
        (ConfigMap, None, None, "CREATING, then ACTIVE"),
        (ConfigMap, None, Some("[]\n"), "CREATING, then ACTIVE"),
        (ConfigMap, None, Some(another), "CREATING, then ACTIVE"),
        (ConfigMap, None, Some("{no: list}"), "CREATE_FAILED"),
        (ConfigMap, None, Some(&person), "CREATE_FAILED"),
    ] {
        let about = format!("{mode:?} {entry:?} {map_roles:?}");
        let mut world = World::new();
        if let Some(kind) = entry {
            world.call("CreateAccessEntry", json!({"principalArn": role, "type": kind})).expect("an entry");
        }
        let mut cluster = state::get::<ClusterRecord>(&world.account.state, "", CLUSTER).expect("a cluster");
        cluster.record.shown.access_config.authentication_mode = mode;
        world.account.change(|changes| changes.update(&cluster));
        if let Some(text) = map_roles {
            let object = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": "aws-auth", "namespace": "kube-system"}, "data": {"mapRoles": text},
            });
            world.put(Key::new(CONFIG_MAPS, "kube-system", "aws-auth"), &object);
        }
        world.profile("fp").expect("a profile");
        world.turn();
        let first = world.statuses().join("");
        world.settle();
        let then = world.statuses().join("");
        let seen = if first == then { first } else { format!("{first}, then {then}") };
        assert_eq!(seen, expected, "{about}");
        let shown = world.call("DescribeFargateProfile", json!({"fargateProfileName": "fp"})).expect("shown");
        let issue = &shown["fargateProfile"]["health"]["issues"][0]["code"];
        let code = if entry.is_some() { "PodExecutionRoleAlreadyInUse" } else { "AccessDenied" };
        assert_eq!(issue == code, then == "CREATE_FAILED", "{about}: {shown}");
        // One that failed can be deleted, and another one made.
        let deleted =
            world.call("DeleteFargateProfile", json!({"fargateProfileName": "fp"})).expect("deleted");
        assert_eq!(deleted["fargateProfile"]["status"], "DELETING");
    }
}

#[test]
fn a_pod_that_has_ended_keeps_its_machine_until_it_is_deleted() {
    let mut world = World::new();
    world.profile("fp").expect("a profile");
    world.settle();
    world.pod("job", "fp", json!({}));
    world.settle();
    world.machines();
    world.settle();
    let mut object = world.object("job");
    object["status"]["phase"] = "Succeeded".into();
    world.put(Key::new(PODS, "default", "job"), &object);
    world.settle();
    assert_eq!(world.nodes()[0].state, FargateState::Running, "its logs are there");
    world.objects.remove(&Key::new(PODS, "default", "job"), world.objects.revision() + 1);
    world.settle();
    world.machines();
    world.settle();
    assert!(world.nodes().is_empty());
}

#[test]
fn what_is_edited_by_hand_gets_no_machine_and_keeps_none() {
    let mut world = World::new();
    world.profile("fp").expect("a profile");
    world.settle();
    // The scheduler's name and the label of a profile that does not match.
    world.pod("forged", "fp", json!({}));
    let mut object = world.object("forged");
    object["metadata"]["namespace"] = "elsewhere".into();
    world.objects.remove(&Key::new(PODS, "default", "forged"), world.objects.revision() + 1);
    world.put(Key::new(PODS, "elsewhere", "forged"), &object);
    // One that is held back.
    world.pod("gated", "fp", json!({"schedulingGates": [{"name": "quota"}]}));
    world.settle();
    assert_eq!(world.told, ["FailedScheduling Pod does not match the selectors of Fargate profile fp"]);
    assert!(world.nodes().is_empty());

    world.pod("web", "fp", json!({}));
    world.pod("moved", "fp", json!({}));
    world.settle();
    world.machines();
    world.settle();
    assert_eq!(world.nodes().len(), 2);
    // Bound elsewhere: its machine would wait for nothing.
    let mut object = world.object("moved");
    object["spec"]["nodeName"] = "dev-1".into();
    world.put(Key::new(PODS, "default", "moved"), &object);
    world.settle();
    world.machines();
    world.settle();
    assert_eq!(world.nodes().len(), 1);
    // Whose label is another's now goes with its profile all the same.
    let mut object = world.object("web");
    object["metadata"]["labels"][PROFILE_LABEL] = "another".into();
    world.put(Key::new(PODS, "default", "web"), &object);
    world.call("DeleteFargateProfile", json!({"fargateProfileName": "fp"})).expect("deleted");
    world.settle();
    world.machines();
    world.settle();
    assert!(world.statuses().is_empty(), "{:?}", world.statuses());
    assert_eq!(world.object("web"), Value::Null);
}

#[test]
fn there_are_as_many_machines_as_the_quota_allows() {
    let mut world = World::new();
    world.profile("fp").expect("a profile");
    world.settle();
    let large = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "16"}}}]});
    for number in 0..5 {
        world.pod(&format!("large-{number}"), "fp", large.clone());
    }
    world.settle();
    assert_eq!(world.nodes().len(), 4);
    let limit = "Your AWS account has reached the limit on the number of vCPUs of Fargate pods it can run concurrently: 64";
    assert_eq!(world.told, [format!("FailedScheduling {limit}")]);
    assert_eq!(world.object("large-4")["status"]["conditions"][0]["reason"], "FARGATE_VCPU_LIMIT_EXCEEDED");
    world.machines();
    world.settle();
    world.objects.remove(&Key::new(PODS, "default", "large-0"), world.objects.revision() + 1);
    world.settle();
    world.machines();
    world.settle();
    let held: Vec<String> = world.nodes().into_iter().map(|node| node.pod.name).collect();
    assert!(held.len() == 4 && held.contains(&"large-4".to_owned()), "{held:?}");
}

#[test]
fn a_machine_that_does_not_come_is_given_up_and_another_one_tried() {
    let mut world = World::new();
    world.profile("fp").expect("a profile");
    world.settle();
    world.pod("web", "fp", json!({}));
    world.settle();
    let first = world.nodes()[0].instance_id.clone();
    world.account.now = world.account.now.plus_secs(PATIENCE_SECS);
    world.settle();
    assert_eq!(world.told, ["FailedScheduling Pod provisioning timed out (will retry) for pod: default/web"]);
    world.machines();
    world.settle();
    let [second] = &world.nodes()[..] else { panic!("one machine") };
    assert_ne!(second.instance_id, first);
}

#[test]
fn the_pods_of_a_profile_are_spread_over_its_subnets() {
    let mut world = World::new();
    world.profile("fp").expect("a profile");
    world.settle();
    for number in 0..6 {
        world.pod(&format!("web-{number}"), "fp", json!({}));
    }
    world.settle();
    let mut served: BTreeMap<String, usize> = BTreeMap::new();
    world.nodes().into_iter().for_each(|node| *served.entry(node.subnet_id).or_default() += 1);
    assert_eq!(served.values().copied().collect::<Vec<_>>(), [2, 2, 2]);
    // One that asks for a zone is in that zone's.
    world.pod("zonal", "fp", json!({"nodeSelector": {"topology.kubernetes.io/zone": "us-east-1b"}}));
    world.settle();
    let zonal = world.nodes().into_iter().find(|node| node.pod.name == "zonal").expect("a machine");
    assert!(zonal.provider_id.starts_with("aws:///us-east-1b/"), "{}", zonal.provider_id);
}
