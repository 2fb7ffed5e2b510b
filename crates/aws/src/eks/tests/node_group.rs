//! Node groups, and what in EC2 is made for them and for control planes.

use super::*;

#[test]
fn a_node_group_belongs_to_a_cluster() {
    let mut world = World::with_cluster(&[("accessConfig", json!({"authenticationMode": "API"}))]);
    let scaling = json!({"minSize": 1, "maxSize": 5, "desiredSize": 3});
    let input = group(&[("scalingConfig", scaling.clone()), ("clientRequestToken", json!("t"))]);
    let made = world.ok("CreateNodegroup", input.clone())["nodegroup"].clone();
    assert_eq!((&made["status"], &made["scalingConfig"]), (&json!("CREATING"), &scaling));
    assert_eq!(made["instanceTypes"], json!(["t3.medium"]));
    assert_eq!(made["updateConfig"], json!({"maxUnavailable": 1}));
    assert_eq!(world.ok("CreateNodegroup", input)["nodegroup"], made);
    let entry = world.ok("DescribeAccessEntry", json!({"clusterName": "shop", "principalArn": NODE_ROLE}));
    assert_eq!(entry["accessEntry"]["username"], "system:node:{{EC2PrivateDNSName}}");
    assert_eq!(
        world.refused("CreateNodegroup", group(&[])),
        "ResourceInUseException: NodeGroup already exists with name ng and cluster name shop"
    );
    assert_eq!(
        world.refused("DeleteCluster", json!({"name": "shop"})),
        "ResourceInUseException: Cluster has nodegroups attached"
    );
    let named =
        |members: &[(&str, Value)]| with(json!({"clusterName": "shop", "nodegroupName": "ng"}), members);
    let size = |min: u32, desired: u32| {
        named(&[("scalingConfig", json!({"minSize": min, "maxSize": 5, "desiredSize": desired}))])
    };
    assert_eq!(
        world.refused("UpdateNodegroupConfig", size(1, 2)),
        "ResourceInUseException: Nodegroup cannot be updated as it has status CREATING"
    );
    world.settle("nodegroups.eks");
    for (input, expected) in [
        (size(3, 2), "InvalidParameterException: Minimum capacity 3 can't be greater than desired size 2"),
        (size(1, 6), "InvalidParameterException: desired capacity 6 can't be greater than max size 5"),
        (
            named(&[("labels", json!({"addOrUpdateLabels": {"eks.amazonaws.com/x": "y"}}))]),
            "InvalidParameterException: Label cannot contain reserved prefixes [kubernetes.io/, k8s.io/, eks.amazonaws.com/]",
        ),
        (
            named(&[("updateConfig", json!({"maxUnavailable": 1, "maxUnavailablePercentage": 10}))]),
            "InvalidParameterException: Only one of maxUnavailable and maxUnavailablePercentage can be specified",
        ),
    ] {
        assert_eq!(world.refused("UpdateNodegroupConfig", input), expected);
    }
    let taint = |value: &str| json!({"key": "k", "value": value, "effect": "NO_SCHEDULE"});
    let taints = json!({"addOrUpdateTaints": [taint("1")], "removeTaints": [taint("0")]});
    let update = world.ok("UpdateNodegroupConfig", named(&[("taints", taints)]))["update"].clone();
    assert_eq!(update["status"], "InProgress");
    let shown = world.ok("DescribeNodegroup", named(&[]))["nodegroup"].clone();
    assert_eq!((&shown["taints"], &shown["status"]), (&json!([taint("1")]), &json!("UPDATING")));
    let of = |name: &str| json!({"name": "shop", "nodegroupName": name});
    assert_eq!(world.ok("ListUpdates", of("ng"))["updateIds"], json!([update["id"]]));
    assert_eq!(world.ok("ListUpdates", json!({"name": "shop"}))["updateIds"], json!([]));
    assert!(world.refused("DeleteNodegroup", named(&[])).starts_with("ResourceInUseException: "));
    world.settle("nodegroups.eks");
    assert_eq!(world.ok("DeleteNodegroup", named(&[]))["nodegroup"]["status"], "DELETING");
    assert_eq!(
        world.refused("DescribeNodegroup", json!({"clusterName": "shop", "nodegroupName": "x"})),
        "ResourceNotFoundException: No node group found for name: x."
    );
}

/// The groups, by subnet, of the interfaces of a control plane.
fn interfaces(world: &World) -> Vec<(String, Vec<String>)> {
    let all = crate::eks::control_plane_interfaces(&world.state, "shop").into_iter();
    all.map(|one| (one.record.subnet_id, one.record.groups)).collect()
}

#[test]
fn a_control_plane_has_an_interface_in_each_of_two_zones() {
    let subnets = json!(["subnet-2a", "subnet-2b"]);
    let mut world = World::with_cluster(&[("resourcesVpcConfig", json!({"subnetIds": subnets}))]);
    let vpc = world.ok("DescribeCluster", json!({"name": "shop"}))["cluster"]["resourcesVpcConfig"].clone();
    assert_eq!(vpc["vpcId"], "vpc-2");
    let own = vpc["clusterSecurityGroupId"].as_str().expect("a group").to_owned();
    let at = |groups: &[&str]| {
        let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        ["subnet-2a", "subnet-2b"].map(|subnet| (subnet.to_owned(), groups.clone())).to_vec()
    };
    assert_eq!(interfaces(&world), at(&[&own]));
    let more =
        json!({"groupId": "sg-1", "groupName": "more", "description": "", "vpcId": "vpc-2", "rules": []});
    world.put("security-groups.ec2", "sg-1", more);
    let update = |vpc: Value| json!({"name": "shop", "resourcesVpcConfig": vpc});
    world.ok("UpdateClusterConfig", update(json!({"securityGroupIds": ["sg-1"]})));
    assert_eq!(interfaces(&world), at(&[&own, "sg-1"]));
    assert_eq!(
        world.refused("UpdateClusterConfig", update(json!({"subnetIds": ["subnet-a", "subnet-b"]}))),
        "InvalidParameterException: Subnets specified must all belong to the same VPC"
    );
    let access = json!({"endpointPublicAccess": false, "endpointPrivateAccess": true});
    assert_eq!(world.ok("UpdateClusterConfig", update(access))["update"]["type"], "EndpointAccessUpdate");
}

fn templates(world: &World) -> Vec<Value> {
    let table = Resource::new("launch-template-versions.ec2");
    world
        .state
        .list(table, "")
        .map(|object| object.to_value().expect("JSON")["spec"]["data"].clone())
        .collect()
}

#[test]
fn a_node_groups_template_says_how_its_nodes_join() {
    let mut world = World::with_cluster(&[]);
    world.ok("CreateNodegroup", group(&[("labels", json!({"tier": "web"}))]));
    let [data] = templates(&world).try_into().expect("one version");
    let told = crate::ec2::user_data::read(data["UserData"].as_str().expect("user data")).expect("a cluster");
    assert_eq!((told.cluster.as_str(), told.labels["tier"].as_str()), ("shop", "web"));
    assert_eq!(told.labels["eks.amazonaws.com/nodegroup"], "ng");
    assert_eq!(told.labels["eks.amazonaws.com/nodegroup-image"], data["ImageId"]);
    world.settle("nodegroups.eks");
    let taint = json!({"key": "k", "value": "v", "effect": "NO_EXECUTE"});
    let input =
        json!({"clusterName": "shop", "nodegroupName": "ng", "taints": {"addOrUpdateTaints": [taint]}});
    world.ok("UpdateNodegroupConfig", input);
    let data = templates(&world).pop().expect("a second version");
    let told = crate::ec2::user_data::read(data["UserData"].as_str().expect("user data")).expect("a cluster");
    assert_eq!(told.taints, ["k=v:NoExecute"]);
    assert_eq!(told.labels["eks.amazonaws.com/sourceLaunchTemplateVersion"], "2");
}

#[test]
fn a_template_of_ones_own_is_laid_under() {
    let own = |data: Value| {
        let mut world = World::with_cluster(&[]);
        let template = json!({"launchTemplateId": "lt-own", "launchTemplateName": "own", "created": NOW, "createdBy": "me",
            "defaultVersion": 1, "latestVersion": 1});
        world.put("launch-templates.ec2", "lt-own", template);
        let version = json!({"version": 1, "created": NOW, "createdBy": "me", "data": data});
        let key = Key::new(Resource::new("launch-template-versions.ec2"), "lt-own", "0000000001");
        world
            .store(key, &json!({"metadata": {"name": "0000000001", "namespace": "lt-own"}, "spec": version}));
        world
    };
    let with_own = |members: &[(&str, Value)]| {
        with(group(members), &[("launchTemplate", json!({"name": "own", "version": "1"}))])
    };
    let mut world = own(json!({"InstanceType": "m5.large", "SecurityGroupIds": ["sg-own"]}));
    let shown = world.ok("CreateNodegroup", with_own(&[]))["nodegroup"].clone();
    assert_eq!(shown["launchTemplate"], json!({"id": "lt-own", "name": "own", "version": "1"}));
    assert_eq!((shown.get("instanceTypes"), shown.get("diskSize")), (None, None));
    let all = templates(&world);
    let made = all.iter().find(|data| data["UserData"].is_string()).expect("EKS' own");
    assert_eq!((&made["InstanceType"], &made["SecurityGroupIds"]), (&json!("m5.large"), &json!(["sg-own"])));
    for (data, members, expected) in [
        (
            json!({"SubnetId": "subnet-a"}),
            vec![],
            "The launch template can't include a subnet: subnets says where nodes are",
        ),
        (
            json!({"InstanceType": "m5.large"}),
            vec![("instanceTypes", json!(["t3.medium"]))],
            "Instance types cannot be specified both in the request and in the launch template",
        ),
        (
            json!({"UserData": "IyEvYmluL3NoCg=="}),
            vec![],
            "Ec2LaunchTemplateInvalidConfiguration: User data was not in the MIME multipart format",
        ),
        (
            json!({"KeyName": "k"}),
            vec![("diskSize", json!(9))],
            "Disk size must be specified within the launch template.",
        ),
    ] {
        let refused = own(data).refused("CreateNodegroup", with_own(&members));
        assert_eq!(refused, format!("InvalidParameterException: {expected}"));
    }
}

#[test]
fn what_a_node_group_cannot_be_is_refused() {
    for (change, expected) in [
        (("subnets", json!(["subnet-x"])), "The subnet ID 'subnet-x' does not exist"),
        (
            ("nodeRole", json!("arn:aws:iam::000000000000:role/none")),
            "The role with name none cannot be found.",
        ),
        (
            ("nodeRole", json!(ROLE)),
            "Following required service principals [ec2.amazonaws.com] were not found in the trust relationships of nodeRole arn:aws:iam::000000000000:role/eks",
        ),
        (
            ("scalingConfig", json!({"minSize": 3, "maxSize": 3, "desiredSize": 2})),
            "minSize can't be greater than desiredSize",
        ),
        (
            ("scalingConfig", json!({"minSize": 0, "maxSize": 1, "desiredSize": 2})),
            "desiredSize can't be greater than maxSize",
        ),
        (
            ("version", json!("1.37")),
            "Requested Nodegroup Kubernetes version 1.37 is not valid for cluster version 1.36",
        ),
        (
            ("releaseVersion", json!("1.36.0-20200101")),
            "Requested Nodegroup release version 1.36.0-20200101 is invalid. Allowed release version is 1.36.0-20260422",
        ),
        (
            ("remoteAccess", json!({"ec2SshKey": "k"})),
            "SSH access to nodes (remoteAccess) is not supported by Ekso",
        ),
        (
            ("amiType", json!("WINDOWS_CORE_2022_x86_64")),
            "The amiType WINDOWS_CORE_2022_x86_64 is not supported by Ekso",
        ),
    ] {
        let mut world = World::with_cluster(&[]);
        let expected = format!("InvalidParameterException: {expected}");
        assert_eq!(world.refused("CreateNodegroup", group(&[change])), expected);
    }
}
