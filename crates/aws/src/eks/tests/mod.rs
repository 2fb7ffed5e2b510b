//! Calls in a row against a store in memory: each sees what the ones before it have changed.

pub mod members;
mod node_group;

use object::{Draft, Key, Resource, Snapshot, Time, body};
use serde_json::{Value, json};

use super::{SERVICE, observed};
use crate::state::Expect;
use crate::{Caller, Context, Fault, Ids};

const NOW: Time = Time::from_secs(1_790_000_000);
const ROLE: &str = "arn:aws:iam::000000000000:role/eks";
const NODE_ROLE: &str = "arn:aws:iam::000000000000:role/node";

struct World {
    state: Snapshot,
    calls: u8,
}

impl World {
    /// A VPC with a subnet in each of two zones, and the usual roles.
    fn new() -> Self {
        let mut world = Self { state: Snapshot::default(), calls: 0 };
        for (id, range) in [("vpc-1", "10.0.0.0/16"), ("vpc-2", "10.1.0.0/16")] {
            world.put(
                "vpcs.ec2",
                id,
                json!({"vpcId": id, "cidrBlock": range, "cidrAssociationId": "a", "isDefault": id == "vpc-1",
                    "enableDnsSupport": true, "enableDnsHostnames": true, "networkAclId": "acl-1"}),
            );
        }
        for (id, vpc, zone, range) in [
            ("subnet-2a", "vpc-2", "us-east-1a", "10.1.0.0/24"),
            ("subnet-2b", "vpc-2", "us-east-1b", "10.1.1.0/24"),
            ("subnet-a", "vpc-1", "us-east-1a", "10.0.0.0/24"),
            ("subnet-b", "vpc-1", "us-east-1b", "10.0.1.0/24"),
            ("subnet-a2", "vpc-1", "us-east-1a", "10.0.2.0/24"),
        ] {
            world.put(
                "subnets.ec2",
                id,
                json!({"subnetId": id, "vpcId": vpc, "availabilityZone": zone, "cidrBlock": range,
                    "mapPublicIpOnLaunch": false, "defaultForAz": false}),
            );
        }
        world.role("eks", "eks.amazonaws.com");
        world.role("node", "ec2.amazonaws.com");
        world
    }

    /// A role that a service may assume.
    fn role(&mut self, name: &str, service: &str) {
        let trust = json!({"Version": "2012-10-17", "Statement": [
            {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"},
        ]});
        let common = json!({
            "name": name, "path": "/", "id": "AROA", "arn": format!("arn:aws:iam::000000000000:role/{name}"),
            "created": "2026-11-23T00:00:00Z",
        });
        let role = json!({"common": common, "trust": trust.to_string(), "maxSessionSeconds": 3600});
        self.put("roles.iam", name, role);
    }

    fn put(&mut self, resource: &'static str, name: &str, spec: Value) {
        self.store(
            Key::cluster(Resource::new(resource), name),
            &json!({"metadata": {"name": name}, "spec": spec}),
        );
    }

    fn store(&mut self, key: Key, object: &Value) {
        let next = self.state.revision() + 1;
        let draft = Draft::read(key, Box::default(), body::encode(object)).expect("an object");
        self.state.put(draft.at(next));
    }

    fn call(&mut self, operation: &str, input: Value) -> Result<Value, Fault> {
        let row = SERVICE.operations.iter().find(|row| row.name == operation).expect("an operation");
        self.calls += 1;
        let mut ids = Ids::new([self.calls; 32]);
        let caller = Caller { arn: "arn:aws:iam::000000000000:user/admin".into(), ..Caller::default() };
        let state = self.state.clone();
        let mut context = Context {
            account: "000000000000",
            region: "us-east-1",
            now: NOW.plus_secs(i64::from(self.calls)),
            caller: &caller,
            state: &state,
            ids: &mut ids,
        };
        (row.subject)(&context, &input);
        let answer = (row.run)(&mut context, &input)?;
        for change in answer.changes.0 {
            match change.expect {
                Expect::Absent => {
                    assert!(state.get(&change.key).is_none(), "{operation}: {} is there", change.key)
                }
                Expect::At(revision) | Expect::Unchanged(revision) => {
                    assert_eq!(
                        state.get(&change.key).map(|held| held.revision),
                        Some(revision),
                        "{operation}"
                    );
                }
            }
            match change.object {
                _ if matches!(change.expect, Expect::Unchanged(_)) => {}
                Some(object) => self.store(change.key, &object),
                None => drop(self.state.remove(&change.key, self.state.revision() + 1)),
            }
        }
        Ok(answer.output)
    }

    fn ok(&mut self, operation: &str, input: Value) -> Value {
        self.call(operation, input).unwrap_or_else(|fault| panic!("{operation}: {fault:?}"))
    }

    /// `Code: message`
    fn refused(&mut self, operation: &str, input: Value) -> String {
        match self.call(operation, input) {
            Ok(output) => panic!("{operation} was not refused: {output}"),
            Err(fault) => format!("{}: {}", fault.code, fault.message),
        }
    }

    /// What the host does once a control plane answers, or a node group's nodes are there.
    fn settle(&mut self, resource: &'static str) {
        let all: Vec<_> = self.state.list(Resource::new(resource), "").cloned().collect();
        for object in all {
            let mut value = object.to_value().expect("JSON");
            value["spec"]["shown"]["status"] = "ACTIVE".into();
            value["spec"]["updateId"] = "".into();
            self.store(object.key.clone(), &value);
        }
    }

    fn with_cluster(input: &[(&str, Value)]) -> Self {
        let mut world = Self::new();
        world.ok("CreateCluster", cluster(input));
        world.settle("clusters.eks");
        world
    }
}

fn with(mut base: Value, members: &[(&str, Value)]) -> Value {
    for (name, value) in members {
        base[*name] = value.clone();
    }
    base
}

fn cluster(members: &[(&str, Value)]) -> Value {
    let base = json!({
        "name": "shop", "roleArn": ROLE, "resourcesVpcConfig": {"subnetIds": ["subnet-a", "subnet-b"]},
    });
    with(base, members)
}

fn group(members: &[(&str, Value)]) -> Value {
    let base = json!({
        "clusterName": "shop", "nodegroupName": "ng", "subnets": ["subnet-a", "subnet-b"], "nodeRole": NODE_ROLE,
    });
    with(base, members)
}

#[test]
fn the_table_is_in_order_and_whole() {
    let names: Vec<&str> = SERVICE.operations.iter().map(|row| row.name).collect();
    assert!(names.is_sorted(), "{names:?}");
    assert_eq!(names.len(), 64);
}

#[test]
fn a_cluster_is_made_once_and_shows_what_it_was_made_with() {
    let mut world = World::new();
    let input = cluster(&[("clientRequestToken", json!("t")), ("tags", json!({"team": "web"}))]);
    let made = world.ok("CreateCluster", input.clone())["cluster"].clone();
    assert_eq!(made["status"], "CREATING");
    assert_eq!(made["arn"], "arn:aws:eks:us-east-1:000000000000:cluster/shop");
    assert_eq!(made["version"], "1.36");
    assert_eq!(made["kubernetesNetworkConfig"]["serviceIpv4Cidr"], "10.100.0.0/16");
    assert_eq!(made["resourcesVpcConfig"]["vpcId"], "vpc-1");
    assert_eq!(made["accessConfig"]["authenticationMode"], "CONFIG_MAP");
    assert_eq!(made.get("endpoint"), None);
    assert_eq!(world.ok("CreateCluster", input)["cluster"], made);
    let other = cluster(&[("clientRequestToken", json!("t")), ("version", json!("1.35"))]);
    for input in [other, cluster(&[])] {
        assert_eq!(
            world.refused("CreateCluster", input),
            "ResourceInUseException: Cluster already exists with name: shop"
        );
    }
    assert_eq!(world.ok("DescribeCluster", json!({"name": "shop"}))["cluster"], made);
    assert_eq!(world.ok("ListClusters", json!({}))["clusters"], json!(["shop"]));
    assert_eq!(
        world.refused("DeleteCluster", json!({"name": "shop"})),
        "ResourceInUseException: Cannot delete because cluster shop currently has creation in progress"
    );
    world.settle("clusters.eks");
    assert_eq!(world.ok("DeleteCluster", json!({"name": "shop"}))["cluster"]["status"], "DELETING");
    assert_eq!(world.ok("DeleteCluster", json!({"name": "shop"}))["cluster"]["status"], "DELETING");
}

#[test]
fn what_a_cluster_cannot_be_is_refused_and_changes_nothing() {
    let vpc = |members: Value| ("resourcesVpcConfig", members);
    let subnets = json!(["subnet-a", "subnet-b"]);
    for (change, expected) in [
        (("version", json!("1.19")), "InvalidParameterException: unsupported Kubernetes version"),
        (
            ("roleArn", json!("arn:aws:iam::000000000000:role/none")),
            "InvalidParameterException: Role with arn: arn:aws:iam::000000000000:role/none, could not be assumed because it does not exist or the trusted entity is not correct",
        ),
        (
            vpc(json!({"subnetIds": ["subnet-a", "subnet-a2"]})),
            "InvalidParameterException: Subnets specified must be in at least two different AZs",
        ),
        (
            vpc(json!({"subnetIds": ["subnet-a", "subnet-2b"]})),
            "InvalidParameterException: Subnets specified must all belong to the same VPC",
        ),
        (
            vpc(json!({"subnetIds": ["subnet-a", "subnet-x"]})),
            "InvalidParameterException: The subnet ID 'subnet-x' does not exist",
        ),
        (
            vpc(json!({"subnetIds": subnets, "securityGroupIds": ["sg-x"]})),
            "InvalidParameterException: The security group ID 'sg-x' does not exist",
        ),
        (
            vpc(json!({"subnetIds": subnets, "endpointPublicAccess": false})),
            "InvalidParameterException: Private and public endpoint access cannot be false",
        ),
        (
            vpc(json!({"subnetIds": subnets, "publicAccessCidrs": ["203.0.113.0/24"]})),
            "InvalidParameterException: publicAccessCidrs [203.0.113.0/24] would let nobody in: the public endpoint of Ekso is on this host, and whoever calls it is 127.0.0.1: add 127.0.0.1/32, or leave publicAccessCidrs out",
        ),
        (
            vpc(json!({"subnetIds": subnets, "publicAccessCidrs": ["everybody"]})),
            "InvalidParameterException: The following CIDRs are invalid in publicAccessCidrs: [everybody]",
        ),
        (
            ("kubernetesNetworkConfig", json!({"serviceIpv4Cidr": "10.0.128.0/20"})),
            "InvalidParameterException: The specified service CIDR block 10.0.128.0/20 overlaps with the CIDR block of the VPC",
        ),
        (
            ("kubernetesNetworkConfig", json!({"serviceIpv4Cidr": "8.8.0.0/16"})),
            "InvalidParameterException: The specified service CIDR block 8.8.0.0/16 must be within 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16",
        ),
        (
            ("kubernetesNetworkConfig", json!({"serviceIpv4Cidr": "172.20.0.0/26"})),
            "InvalidParameterException: The specified service CIDR block 172.20.0.0/26 must be between /24 and /12",
        ),
        (
            ("logging", json!({"clusterLogging": [{"types": ["api"], "enabled": true}]})),
            "InvalidParameterException: Control plane logging to CloudWatch (clusterLogging) is not supported by Ekso",
        ),
        (
            ("computeConfig", json!({"enabled": true})),
            "InvalidParameterException: EKS Auto Mode (computeConfig) is not supported by Ekso",
        ),
        (
            ("accessConfig", json!({"bootstrapClusterCreatorAdminPermissions": false})),
            "InvalidParameterException: bootstrapClusterCreatorAdminPermissions must be true if cluster authentication mode is set to CONFIG_MAP",
        ),
        (
            ("tags", json!({"aws:mine": "x"})),
            "InvalidParameterException: Caller is an end user and not allowed to mutate system tags",
        ),
    ] {
        let mut world = World::new();
        let before = world.state.revision();
        assert_eq!(world.refused("CreateCluster", cluster(&[change])), expected);
        assert_eq!(world.state.revision(), before);
    }
}

#[test]
fn what_cannot_be_created_fails_and_can_be_deleted() {
    for (after, status) in [(10, "CREATING"), (200, "FAILED")] {
        let mut world = World::new();
        world.ok("CreateCluster", cluster(&[]));
        let told = super::failed(&world.state, NOW.plus_secs(after), "shop", "no room");
        for change in told.0 {
            world.store(change.key, &change.object.expect("an update"));
        }
        // The same again is no news: whoever follows the account would try at once, and for ever.
        assert_eq!(super::failed(&world.state, NOW.plus_secs(after), "shop", "still no room").0.len(), 0);
        let shown = world.ok("DescribeCluster", json!({"name": "shop"}))["cluster"].clone();
        assert_eq!(shown["status"], status);
        assert_eq!(
            shown["health"]["issues"],
            json!([{"code": "InternalFailure", "message": "no room", "resourceIds": ["shop"]}])
        );
        assert_eq!(world.ok("DeleteCluster", json!({"name": "shop"}))["cluster"]["status"], "DELETING");
    }
}

#[test]
fn off_is_what_logging_and_auto_mode_may_be() {
    World::with_cluster(&[
        ("logging", json!({"clusterLogging": [{"types": ["api"], "enabled": false}]})),
        ("computeConfig", json!({"enabled": false})),
        ("encryptionConfig", json!([])),
        ("bootstrapSelfManagedAddons", json!(false)),
    ]);
}

/// Nodes that come after vpc-cni was told to delegate prefixes take as many pods as these have addresses.
#[test]
fn prefixes_make_room_for_pods() {
    let mut world = World::with_cluster(&[]);
    let of =
        |values: &str| json!({"clusterName": "shop", "addonName": "vpc-cni", "configurationValues": values});
    world.ok("CreateAddon", of(r#"{"env": {"ENABLE_PREFIX_DELEGATION": "true"}}"#));
    let pods = |world: &World| {
        let versions = world.state.list(Resource::new("launch-template-versions.ec2"), "");
        let newest = versions.last().expect("a version").to_value().expect("JSON");
        let data = newest["spec"]["data"]["UserData"].as_str().expect("user data").to_owned();
        crate::ec2::user_data::read(&data).expect("a node").max_pods
    };
    world.ok("CreateNodegroup", group(&[("instanceTypes", json!(["t3.medium"]))]));
    assert_eq!(pods(&world), Some(110));
    world.settle("nodegroups.eks");
    let update = world.ok("UpdateAddon", of(""))["update"].clone();
    assert_eq!(update["params"], json!([{"type": "ConfigurationValues", "value": ""}]));
    let labels = json!({"addOrUpdateLabels": {"a": "b"}});
    world
        .ok("UpdateNodegroupConfig", json!({"clusterName": "shop", "nodegroupName": "ng", "labels": labels}));
    assert_eq!(pods(&world), None);
}

#[test]
fn a_configuration_changes_one_kind_at_a_time() {
    let mut world = World::with_cluster(&[]);
    let update = |member: &str, value: Value| json!({"name": "shop", member: value});
    let mode = |mode: &str| update("accessConfig", json!({"authenticationMode": mode}));
    assert_eq!(
        world.refused("UpdateClusterConfig", json!({"name": "shop"})),
        "InvalidParameterException: The type for cluster update was not provided."
    );
    let two = with(mode("API"), &[("deletionProtection", json!(true))]);
    assert_eq!(
        world.refused("UpdateClusterConfig", two),
        "InvalidParameterException: Only one type of update can be allowed."
    );
    let done = world.ok("UpdateClusterConfig", mode("API_AND_CONFIG_MAP"))["update"].clone();
    assert_eq!((&done["status"], &done["type"]), (&json!("Successful"), &json!("AccessConfigUpdate")));
    let id = &done["id"];
    assert_eq!(world.ok("DescribeUpdate", json!({"name": "shop", "updateId": id}))["update"], done);
    assert_eq!(world.ok("ListUpdates", json!({"name": "shop"}))["updateIds"], json!([id]));
    assert_eq!(
        world.refused("UpdateClusterConfig", mode("CONFIG_MAP")),
        "InvalidRequestException: Unsupported authentication mode update from API_AND_CONFIG_MAP to CONFIG_MAP"
    );
    let vpc = update("resourcesVpcConfig", json!({"endpointPublicAccess": true}));
    assert_eq!(
        world.refused("UpdateClusterConfig", vpc),
        "InvalidParameterException: Cluster is already at the desired configuration with endpointPrivateAccess: false , endpointPublicAccess: true, and Public Endpoint Restrictions: [0.0.0.0/0]"
    );
    world.ok("UpdateClusterConfig", update("deletionProtection", json!(true)));
    assert!(
        world
            .refused("DeleteCluster", json!({"name": "shop"}))
            .starts_with("InvalidRequestException: Cannot delete")
    );
}

#[test]
fn versions_go_up_by_one() {
    let mut world = World::with_cluster(&[("version", json!("1.34"))]);
    let to = |version: &str| json!({"name": "shop", "version": version});
    assert_eq!(
        world.refused("UpdateClusterVersion", to("1.36")),
        "InvalidParameterException: Unsupported Kubernetes minor version update from 1.34 to 1.36"
    );
    let update = world.ok("UpdateClusterVersion", to("1.35"))["update"].clone();
    assert_eq!((&update["status"], &update["type"]), (&json!("InProgress"), &json!("VersionUpdate")));
    assert_eq!(world.ok("DescribeCluster", json!({"name": "shop"}))["cluster"]["status"], "UPDATING");
    let busy = world.refused("UpdateClusterVersion", to("1.35"));
    assert!(
        busy.starts_with(
            "ResourceInUseException: Cannot VersionUpdate because cluster shop currently has update"
        ),
        "{busy}"
    );
    let all = world.ok("DescribeClusterVersions", json!({}))["clusterVersions"].clone();
    let names: Vec<&Value> =
        all.as_array().expect("a list").iter().map(|one| &one["clusterVersion"]).collect();
    assert_eq!(names, ["1.36", "1.35", "1.34"]);
    let default =
        world.ok("DescribeClusterVersions", json!({"defaultOnly": true}))["clusterVersions"].clone();
    assert_eq!(default[0]["defaultVersion"], true);
    assert_eq!(default.as_array().map(Vec::len), Some(1));
}

#[test]
fn entries_are_read_only_where_the_mode_says_so() {
    let of = |principal: &str| json!({"clusterName": "shop", "principalArn": format!("arn:aws:iam::000000000000:{principal}")});
    let mut world = World::with_cluster(&[]);
    assert_eq!(
        world.refused("CreateAccessEntry", of("user/bob")),
        "InvalidRequestException: The cluster's authentication mode must be set to one of [API, API_AND_CONFIG_MAP] to perform this operation."
    );
    let mut world = World::with_cluster(&[("accessConfig", json!({"authenticationMode": "API"}))]);
    world.role("dev", "ec2.amazonaws.com");
    let creators = world.ok("ListAssociatedAccessPolicies", of("user/admin"));
    let admin = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy";
    assert_eq!(creators["associatedAccessPolicies"][0]["policyArn"], admin);
    let made = world.ok("CreateAccessEntry", with(of("role/dev"), &[("kubernetesGroups", json!(["devs"]))]));
    assert_eq!(made["accessEntry"]["username"], "arn:aws:sts::000000000000:assumed-role/dev/{{SessionName}}");
    for (input, expected) in [
        (
            of("role/dev"),
            "ResourceInUseException: The specified access entry resource is already in use on this cluster.",
        ),
        (
            of("group/x"),
            "InvalidParameterException: The specified principalArn is invalid: invalid principal.",
        ),
        (
            with(of("role/eks"), &[("username", json!("system:admin"))]),
            "InvalidParameterException: The username system:admin is invalid, it cannot start with system:, eks:, aws:, amazon:, iam:",
        ),
        (
            with(of("role/eks"), &[("type", json!("EC2_LINUX")), ("kubernetesGroups", json!(["x"]))]),
            "InvalidRequestException: The kubernetesGroups and username of an access entry of type EC2_LINUX cannot be set",
        ),
    ] {
        assert_eq!(world.refused("CreateAccessEntry", input), expected);
    }
    let view = json!("arn:aws:eks::aws:cluster-access-policy/AmazonEKSViewPolicy");
    let associate =
        |scope: Value| with(of("role/dev"), &[("policyArn", view.clone()), ("accessScope", scope)]);
    let namespaced = json!({"type": "namespace", "namespaces": ["dev-*"]});
    world.ok("AssociateAccessPolicy", associate(json!({"type": "cluster"})));
    world.ok("AssociateAccessPolicy", associate(namespaced.clone()));
    let policies =
        world.ok("ListAssociatedAccessPolicies", of("role/dev"))["associatedAccessPolicies"].clone();
    assert_eq!(policies.as_array().map(Vec::len), Some(1));
    assert_eq!(policies[0]["accessScope"], namespaced);
    assert!(
        world
            .refused("AssociateAccessPolicy", associate(json!({"type": "namespace"})))
            .contains("must be set")
    );
    world.ok("DisassociateAccessPolicy", with(of("role/dev"), &[("policyArn", view)]));
    world.ok("DeleteAccessEntry", of("role/dev"));
    assert!(world.refused("DescribeAccessEntry", of("role/dev")).starts_with("ResourceNotFoundException: "));
}

#[test]
fn add_ons_are_what_is_built_in() {
    let mut world = World::with_cluster(&[]);
    let of = |name: &str| json!({"clusterName": "shop", "addonName": name});
    assert_eq!(world.ok("CreateAddon", of("coredns"))["addon"]["status"], "CREATING");
    assert_eq!(world.ok("DescribeAddon", of("coredns"))["addon"]["status"], "ACTIVE");
    for (input, expected) in [
        (of("coredns"), "ResourceInUseException: Addon already exists."),
        (
            of("aws-ebs-csi-driver"),
            "InvalidParameterException: Addon aws-ebs-csi-driver specified is not supported in 1.36 kubernetes version",
        ),
        (
            with(of("vpc-cni"), &[("addonVersion", json!("v1.0.0"))]),
            "InvalidParameterException: Addon version specified is not supported",
        ),
        (
            with(of("vpc-cni"), &[("configurationValues", json!("{\"x\":{}}"))]),
            "InvalidParameterException: ConfigurationValue provided in request is not supported: Json schema validation failed with error: [$.x: is not defined in the schema and the schema does not allow additional properties]",
        ),
    ] {
        assert_eq!(world.refused("CreateAddon", input), expected);
    }
    let versions =
        world.ok("DescribeAddonVersions", json!({"addonName": "vpc-cni", "kubernetesVersion": "1.36"}));
    let version = &versions["addons"][0]["addonVersions"][0];
    assert_eq!(version["compatibilities"][0]["defaultVersion"], true);
    let input = json!({"addonName": "vpc-cni", "addonVersion": version["addonVersion"]});
    let schema = world.ok("DescribeAddonConfiguration", input)["configurationSchema"].clone();
    let schema: Value = serde_json::from_str(schema.as_str().expect("a text")).expect("JSON");
    assert!(schema["properties"]["env"]["properties"]["ENABLE_PREFIX_DELEGATION"].is_object());
    let update =
        world.ok("UpdateAddon", with(of("coredns"), &[("resolveConflicts", json!("OVERWRITE"))]))["update"]
            .clone();
    let input = json!({"name": "shop", "addonName": "coredns", "updateId": update["id"]});
    assert_eq!(world.ok("DescribeUpdate", input)["update"]["status"], "Successful");
    world.ok("DeleteAddon", of("coredns"));
    assert_eq!(
        world.refused("DescribeAddon", of("coredns")),
        "ResourceNotFoundException: No addon: coredns found in cluster: shop"
    );
}

#[test]
fn tags_follow_the_arn() {
    let mut world = World::with_cluster(&[("tags", json!({"a": "1"}))]);
    let arn = json!("arn:aws:eks:us-east-1:000000000000:cluster/shop");
    world.ok("TagResource", json!({"resourceArn": arn, "tags": {"b": "2"}}));
    world.ok("UntagResource", json!({"resourceArn": arn, "tagKeys": ["a"]}));
    assert_eq!(world.ok("ListTagsForResource", json!({"resourceArn": arn}))["tags"], json!({"b": "2"}));
    for (arn, code) in [
        ("arn:aws:eks:us-east-1:000000000000:cluster/none", "NotFoundException"),
        ("arn:aws:s3:::bucket", "BadRequestException"),
    ] {
        assert!(world.refused("ListTagsForResource", json!({"resourceArn": arn})).starts_with(code));
    }
}

#[test]
fn every_operation_on_a_cluster_wants_one_and_what_is_not_there_is_not_active() {
    let mut world = World::new();
    let none = json!({"name": "none", "clusterName": "none", "nodegroupName": "x", "principalArn": "x", "addonName": "x", "updateId": "x",
        "associationId": "x", "id": "x", "version": "1.36", "capabilityName": "x", "fargateProfileName": "x"});
    for row in SERVICE
        .operations
        .iter()
        .filter(|row| row.name.starts_with("Describe") || row.name.starts_with("List"))
    {
        let of_no_cluster = [
            "Subscription",
            "Clusters",
            "ListAccessPolicies",
            "AddonVersions",
            "ClusterVersions",
            "AddonConfiguration",
            "Tags",
        ];
        if !of_no_cluster.iter().any(|part| row.name.contains(part)) {
            assert_eq!(
                world.refused(row.name, none.clone()),
                "ResourceNotFoundException: No cluster found for name: none.",
                "{}",
                row.name
            );
        }
    }
    let mut world = World::with_cluster(&[]);
    let of = json!({"clusterName": "shop", "name": "shop", "fargateProfileName": "f"});
    assert_eq!(world.ok("ListFargateProfiles", of.clone())["fargateProfileNames"], json!([]));
    assert_eq!(
        world.refused("DescribeFargateProfile", of),
        "ResourceNotFoundException: No Fargate Profile found with name: f."
    );
}

#[test]
fn a_fargate_profile_is_refused_what_fargate_has_not() {
    let mut world = World::with_cluster(&[]);
    world.role("pods", "eks-fargate-pods.amazonaws.com");
    let table = |id: &str, subnet: &str, target: Value| {
        let association = json!([{"id": "a", "subnetId": subnet}]);
        let route = json!([{"destination": "0.0.0.0/0", "target": target}]);
        json!({"routeTableId": id, "vpcId": "vpc-1", "routes": route, "associations": association})
    };
    world.put("route-tables.ec2", "rtb-a", table("rtb-a", "subnet-a", json!({"internetGateway": "igw-1"})));
    world.put("route-tables.ec2", "rtb-b", table("rtb-b", "subnet-b", json!({"natGateway": "nat-1"})));
    let asked = |change: Value| {
        let mut input = json!({
            "clusterName": "shop", "fargateProfileName": "fp", "podExecutionRoleArn": "arn:aws:iam::000000000000:role/pods",
            "subnets": ["subnet-b"], "selectors": [{"namespace": "prod-*", "labels": {"app": "web?"}}],
        });
        input.as_object_mut().expect("members").extend(change.as_object().expect("members").clone());
        input
    };
    let labels: serde_json::Map<String, Value> = (0..6).map(|n| (format!("l{n}"), json!("v"))).collect();
    for (change, why) in [
        (
            json!({"subnets": ["subnet-a"]}),
            "Subnet subnet-a provided in Fargate Profile is not a private subnet",
        ),
        (json!({"subnets": ["subnet-2a"]}), "Subnet subnet-2a does not belong to the VPC of the cluster"),
        (json!({"subnets": ["subnet-x"]}), "The subnet ID 'subnet-x' does not exist"),
        (
            json!({"podExecutionRoleArn": NODE_ROLE}),
            "Misconfigured PodExecutionRole Trust Policy; Please add the eks-fargate-pods.amazonaws.com Service Principal",
        ),
        (
            json!({"podExecutionRoleArn": "arn:aws:iam::000000000000:role/none"}),
            "The pod execution role arn:aws:iam::000000000000:role/none does not exist in this account",
        ),
        (
            json!({"fargateProfileName": "eks-fp"}),
            "The fargate profile name starts with the reserved prefix: 'eks-'.",
        ),
        (
            json!({"fargateProfileName": "f.p"}),
            "The fargate profile name f.p must be letters, digits, '-' and '_', start with a letter or digit, and have at most 100 characters",
        ),
        (
            json!({"selectors": []}),
            "Fargate Profile must have at least one selector with at least one namespace value.",
        ),
        (
            json!({"selectors": [{"labels": {"a": "b"}}]}),
            "Fargate Profile must have at least one selector with at least one namespace value.",
        ),
        (json!({"selectors": vec![json!({"namespace": "a"}); 6]}), "Request contains more than 5 Selectors"),
        (
            json!({"selectors": [{"namespace": "a", "labels": labels}]}),
            "Request contains Selector with more than 5 Label pairs",
        ),
    ] {
        assert_eq!(
            world.refused("CreateFargateProfile", asked(change)),
            format!("InvalidParameterException: {why}")
        );
    }

    let made = world.ok("CreateFargateProfile", asked(json!({"clientRequestToken": "t"})));
    let made = &made["fargateProfile"];
    assert_eq!((&made["status"], &made["subnets"]), (&json!("CREATING"), &json!(["subnet-b"])));
    assert_eq!(
        world.ok("CreateFargateProfile", asked(json!({"clientRequestToken": "t"})))["fargateProfile"],
        *made
    );
    assert_eq!(
        world.refused("CreateFargateProfile", asked(json!({}))),
        "ResourceInUseException: A Fargate Profile already exists with this name in this cluster."
    );
    let busy = "because cluster shop currently has Fargate profile fp in status CREATING";
    assert_eq!(
        world.refused("CreateFargateProfile", asked(json!({"fargateProfileName": "two"}))),
        format!("ResourceInUseException: Cannot create Fargate Profile two {busy}")
    );
    let of = json!({"clusterName": "shop", "fargateProfileName": "fp", "name": "shop"});
    assert_eq!(
        world.refused("DeleteFargateProfile", of.clone()),
        format!("ResourceInUseException: Cannot delete Fargate Profile fp {busy}")
    );
    assert_eq!(world.ok("ListFargateProfiles", of.clone())["fargateProfileNames"], json!(["fp"]));
    assert_eq!(world.ok("DescribeFargateProfile", of.clone())["fargateProfile"], *made);
    assert_eq!(
        world.refused("DeleteCluster", of),
        "ResourceInUseException: Cluster has Fargate profiles attached"
    );
    let arn = json!({"resourceArn": made["fargateProfileArn"], "tags": {"team": "web"}});
    world.ok("TagResource", arn.clone());
    assert_eq!(world.ok("ListTagsForResource", arn)["tags"], json!({"team": "web"}));
}

#[test]
fn insights_tell_what_stands_in_the_way_of_the_next_version() {
    let mut world = World::with_cluster(&[("version", json!("1.35"))]);
    let of = json!({"clusterName": "shop"});
    let statuses = |world: &mut World| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let all = world.ok("ListInsights", json!({"clusterName": "shop"}))["insights"].clone();
        let all = all.as_array().cloned().unwrap_or_default();
        all.iter().map(|one| (text(&one["name"]), text(&one["insightStatus"]["status"]))).collect()
    };
    let named = |name: &str, status: &str| (name.to_owned(), status.to_owned());
    assert_eq!(
        statuses(&mut world),
        [
            named("Cluster health issues", "PASSING"),
            named("Deprecated APIs removed in Kubernetes v1.36", "UNKNOWN"),
            named("EKS add-on version compatibility", "PASSING"),
            named("Kubelet version skew", "UNKNOWN"),
        ]
    );
    world.ok("CreateAddon", json!({"clusterName": "shop", "addonName": "kube-proxy"}));
    assert_eq!(statuses(&mut world)[2], named("EKS add-on version compatibility", "WARNING"));
    let wanted = json!({"clusterName": "shop", "filter": {"statuses": ["WARNING"]}});
    let listed = world.ok("ListInsights", wanted)["insights"].clone();
    let id = listed[0]["id"].clone();
    let told = world.ok("DescribeInsight", json!({"clusterName": "shop", "id": id}))["insight"].clone();
    assert_eq!(
        told["categorySpecificSummary"]["addonCompatibilityDetails"],
        json!([{"name": "kube-proxy", "compatibleVersions": ["v1.36.0-eksbuild.2"]}])
    );
    assert_eq!(told["resources"].as_array().map(Vec::len), Some(1));
    // The newest version has no next one.
    let mut world = World::with_cluster(&[]);
    assert_eq!(world.ok("ListInsights", of)["insights"], json!([]));
}

/// Looks into a cluster as the host does.
fn look_into(world: &mut World, seen: Option<observed::Seen>) {
    let mut ids = Ids::new([9; 32]);
    let (caller, state) = (Caller::default(), world.state.clone());
    let (account, region) = ("000000000000", "us-east-1");
    let context = Context { account, region, now: NOW, caller: &caller, state: &state, ids: &mut ids };
    for change in observed::observe(&context, "shop", seen).0 {
        world.store(change.key, &change.object.expect("a record"));
    }
}

#[test]
fn what_the_next_version_serves_no_more_blocks_the_upgrade() {
    let cases: [(u8, i64, &str, &str, bool); 4] = [
        (36, -60, "v1.35.0", "ERROR", true),
        (37, -60, "v1.35.0", "WARNING", false),
        // Nobody has asked for a month.
        (36, -31 * 86_400, "v1.35.0", "PASSING", false),
        // The kubelet's own check speaks.
        (38, -31 * 86_400, "v1.32.9", "PASSING", true),
    ];
    for (removed, last, kubelet, status, is_blocked) in cases {
        let about = format!("{removed} {last} {kubelet}");
        let mut world = World::with_cluster(&[("version", json!("1.35"))]);
        let of = json!({"clusterName": "shop"});
        assert!(
            world.refused("DescribeInsightsRefresh", of.clone()).starts_with("ResourceNotFoundException")
        );
        assert!(observed::due(&world.state, "shop").is_some_and(|due| due <= NOW.plus_secs(9)));
        assert_eq!(world.ok("StartInsightsRefresh", of.clone())["status"], "IN_PROGRESS");
        assert_eq!(world.ok("DescribeInsightsRefresh", of.clone())["status"], "IN_PROGRESS");
        let client = observed::Client { user_agent: "helm/3".into(), requests: 7, last: NOW.plus_secs(last) };
        let used = observed::DeprecatedUse {
            group: "flow.example".into(),
            version: "v1beta3".into(),
            resource: "things".into(),
            removed: Some(removed),
            instead: Some("flow.example/v1".into()),
            clients: vec![client],
        };
        let nobody_said = observed::DeprecatedUse { removed: None, ..used.clone() };
        let seen = observed::Seen {
            at: NOW,
            kubelets: vec![("n1".into(), kubelet.into())],
            deprecated: vec![used, nobody_said],
        };
        look_into(&mut world, Some(seen));
        let refresh = world.ok("DescribeInsightsRefresh", of.clone());
        assert_eq!((&refresh["status"], refresh["endedAt"].is_null()), (&json!("COMPLETED"), false));
        assert!(observed::due(&world.state, "shop") >= Some(NOW.plus_secs(86_400)));
        let listed = world.ok("ListInsights", of.clone())["insights"].clone();
        assert_eq!(listed[1]["insightStatus"]["status"], status, "{about}");
        assert_eq!(
            listed[3]["insightStatus"]["status"],
            if kubelet == "v1.32.9" { "ERROR" } else { "PASSING" }
        );
        let told =
            world.ok("DescribeInsight", with(of, &[("id", listed[1]["id"].clone())]))["insight"].clone();
        let details = &told["categorySpecificSummary"]["deprecationDetails"];
        if status == "PASSING" {
            assert_eq!((&told["resources"], details.is_null()), (&json!([]), true), "{about}");
        } else {
            let wanted = json!([{
                "usage": "/apis/flow.example/v1beta3/things", "replacedWith": "/apis/flow.example/v1/things",
                "stopServingVersion": format!("1.{removed}"),
                "clientStats": [{"userAgent": "helm/3", "numberOfRequestsLast30Days": 7, "lastRequestTime": NOW.plus_secs(last)}],
            }]);
            assert_eq!(*details, wanted, "{about}");
            assert_eq!(told["resources"][0]["kubernetesResourceUri"], "/apis/flow.example/v1beta3/things");
        }
        let upgrade = json!({"name": "shop", "version": "1.36"});
        if is_blocked {
            let told = world.refused("UpdateClusterVersion", upgrade.clone());
            assert!(
                told.starts_with("InvalidStateException: Amazon EKS detected upgrade readiness issues."),
                "{told}"
            );
        }
        let forced = with(upgrade, &[("force", json!(is_blocked))]);
        assert_eq!(world.ok("UpdateClusterVersion", forced)["update"]["status"], "InProgress", "{about}");
    }
}

#[test]
fn a_cluster_that_does_not_run_tells_that_it_was_not_looked_at() {
    let mut world = World::with_cluster(&[("version", json!("1.35"))]);
    look_into(&mut world, None);
    let of = json!({"clusterName": "shop"});
    assert_eq!(world.ok("DescribeInsightsRefresh", of.clone())["status"], "FAILED");
    assert_eq!(world.ok("ListInsights", of)["insights"][1]["insightStatus"]["status"], "UNKNOWN");
}

#[test]
fn a_cluster_believes_one_provider() {
    let mut world = World::with_cluster(&[]);
    let of = |rest: Value| {
        let mut input = json!({"clusterName": "shop"});
        input.as_object_mut().expect("an object").extend(rest.as_object().expect("an object").clone());
        input
    };
    let named = |name: &str| of(json!({"identityProviderConfig": {"type": "oidc", "name": name}}));
    let oidc = json!({"identityProviderConfigName": "sso", "issuerUrl": "https://issuer.example", "clientId": "web"});
    let issuer = |url: &str| {
        let mut changed = oidc.clone();
        changed["issuerUrl"] = url.into();
        of(json!({"oidc": changed}))
    };
    for url in ["http://issuer.example", "https://", "https://u@issuer.example", "https://issuer.example?x"] {
        let refused = world.refused("AssociateIdentityProviderConfig", issuer(url));
        assert!(refused.starts_with("InvalidParameterException: issuerUrl must be"), "{url}: {refused}");
    }
    for (member, prefix) in
        [("groupsPrefix", "system:"), ("groupsPrefix", "sys"), ("usernamePrefix", "system:node:")]
    {
        let mut changed = oidc.clone();
        changed[member] = prefix.into();
        let refused = world.refused("AssociateIdentityProviderConfig", of(json!({"oidc": changed})));
        let wanted = format!("InvalidParameterException: {member} must not be system: or any portion of it");
        assert_eq!(refused, wanted, "{prefix}");
    }
    assert_eq!(super::believed(&world.state, "shop"), None);
    let asked = of(json!({"oidc": oidc, "tags": {"a": "1"}, "clientRequestToken": "t"}));
    let update = world.ok("AssociateIdentityProviderConfig", asked.clone())["update"].clone();
    assert_eq!(
        (&update["type"], &update["status"]),
        (&json!("AssociateIdentityProviderConfig"), &json!("Successful"))
    );
    assert_eq!(world.ok("AssociateIdentityProviderConfig", asked)["update"]["id"], update["id"], "once more");
    assert_eq!(
        world.refused("AssociateIdentityProviderConfig", issuer("https://other.example")),
        "ResourceInUseException: Identity provider config is already associated with cluster"
    );
    let shown =
        world.ok("DescribeIdentityProviderConfig", named("sso"))["identityProviderConfig"]["oidc"].clone();
    assert_eq!((&shown["status"], &shown["tags"]), (&json!("ACTIVE"), &json!({"a": "1"})));
    let tags = world.ok("ListTagsForResource", json!({"resourceArn": shown["identityProviderConfigArn"]}));
    assert_eq!(tags["tags"], json!({"a": "1"}));
    assert_eq!(
        world.ok("ListIdentityProviderConfigs", of(json!({})))["identityProviderConfigs"],
        json!([{"type": "oidc", "name": "sso"}])
    );
    let mappings = |world: &World| super::believed(&world.state, "shop").expect("one")["jwt"][0].clone();
    assert_eq!(
        mappings(&world)["claimMappings"],
        json!({"username": {"claim": "sub", "prefix": "https://issuer.example#"}})
    );
    assert_eq!(
        world.refused("DisassociateIdentityProviderConfig", named("other")),
        "ResourceNotFoundException: No identity provider config found with name: other"
    );
    world.ok("DisassociateIdentityProviderConfig", named("sso"));
    let full = json!({"identityProviderConfigName": "sso", "issuerUrl": "https://issuer.example", "clientId": "web",
        "usernameClaim": "email", "groupsClaim": "groups", "groupsPrefix": "g:", "requiredClaims": {"hd": "example"}});
    world.ok("AssociateIdentityProviderConfig", of(json!({"oidc": full})));
    assert_eq!(
        mappings(&world),
        json!({
            "issuer": {"url": "https://issuer.example", "audiences": ["web"]},
            "claimMappings": {"username": {"claim": "email", "prefix": ""}, "groups": {"claim": "groups", "prefix": "g:"}},
            "claimValidationRules": [{"claim": "hd", "requiredValue": "example"}],
        })
    );
}

#[test]
fn a_change_that_is_sent_again_is_made_once() {
    let mut world = World::with_cluster(&[]);
    let change = |token: &str, on: bool| json!({"name": "shop", "clientRequestToken": token, "deletionProtection": on});
    let first = world.ok("UpdateClusterConfig", change("t1", true));
    assert_eq!(world.ok("UpdateClusterConfig", change("t1", true)), first);
    let refused = world.refused("UpdateClusterConfig", change("t1", false));
    assert_eq!(
        refused,
        "InvalidRequestException: The clientRequestToken was used by a request with other parameters"
    );
    let second = world.ok("UpdateClusterConfig", change("t2", false));
    assert_ne!(second["update"]["id"], first["update"]["id"]);
    let updates = world.ok("ListUpdates", json!({"name": "shop"}));
    assert_eq!(updates["updateIds"].as_array().map(Vec::len), Some(2));
}
