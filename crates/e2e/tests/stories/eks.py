"""EKS as boto3, awscli and kubectl see it. One act a run; ends with an error at the first surprise."""

import glob
import json
import os
import signal
import socket
import subprocess
import sys

from prelude import (ACT, AWS, DATA, EC2, EKS, IAM, KUBECTL, SCALING, SOON, STS, check, contains, get, killed_and_up, kubectl, logged_in,
                     refused, role, run, until)


def subnets():
    found = EC2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"]
    return [one["SubnetId"] for one in found]


def create(cluster, **more):
    return EKS.create_cluster(name=cluster, roleArn=role("AmazonEKSClusterRole"),
                              resourcesVpcConfig={"subnetIds": subnets()}, **more)["cluster"]


def node_group(cluster, size, **more):
    return EKS.create_nodegroup(
        clusterName=cluster, nodegroupName="ng", subnets=subnets(), nodeRole=role("AmazonEKSNodeRole"),
        scalingConfig={"minSize": 1, "maxSize": 5, "desiredSize": size}, **more)["nodegroup"]


def ng(cluster):
    return {"clusterName": cluster, "nodegroupName": "ng"}


def updated(cluster, update, **of):
    def look():
        seen = EKS.describe_update(name=cluster, updateId=update["id"], **of)["update"]
        if seen["status"] == "Failed":
            sys.exit(f"the update failed: {seen}")
        return seen["status"] == "Successful"
    until(f"{update['type']} of {cluster}", look)


def ready(cluster):
    nodes = get(cluster, "nodes")["items"]
    return [node["metadata"]["name"] for node in nodes
            if any(one["type"] == "Ready" and one["status"] == "True" for one in node["status"]["conditions"])]


WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: e2e:1
        command: [httpd, -f, -p, "8080", -h, /www]
        readinessProbe: {httpGet: {port: 8080, path: /version}, periodSeconds: 1, failureThreshold: 30}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
"""
BUDGET = """
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {maxUnavailable: 1, selector: {matchLabels: {app: web}}}
"""


def made():
    check("what ekso up made", EKS.list_clusters()["clusters"], ["dev"])
    EKS.get_waiter("cluster_active").wait(name="dev", WaiterConfig=SOON)
    check("while it is made", create("shop")["status"], "CREATING")
    create("bank", version="1.35", accessConfig={"authenticationMode": "API"})
    refused("a second", lambda: create("shop"), "ResourceInUseException", "Cluster already exists with name: shop")
    for cluster in ("shop", "bank"):
        EKS.get_waiter("cluster_active").wait(name=cluster, WaiterConfig=SOON)
        logged_in(cluster)
        contains("namespaces", kubectl(cluster, "get namespaces -o name"), "namespace/kube-system")
        contains("the issuer", EKS.describe_cluster(name=cluster)["cluster"]["identity"]["oidc"]["issuer"], "https://")
    check("all", EKS.list_clusters()["clusters"], ["bank", "dev", "shop"])
    pages = EKS.get_paginator("list_clusters").paginate(PaginationConfig={"PageSize": 1})
    check("in pages", [name for page in pages for name in page["clusters"]], ["bank", "dev", "shop"])
    for cluster, minor, is_there in (("shop", "36", True), ("bank", "35", False)):
        check("a version", json.loads(kubectl(cluster, "version -o json"))["serverVersion"]["minor"], minor)
        kinds = kubectl(cluster, "api-resources --no-headers")
        check(f"what 1.{minor} serves", "mutatingadmissionpolicies" in kinds, is_there)
    # A token for one cluster opens no other.
    token = json.loads(run(AWS, "eks", "get-token", "--cluster-name", "shop"))["status"]["token"]
    for cluster, fails in (("shop", False), ("bank", True)):
        place = EKS.describe_cluster(name=cluster)["cluster"]["endpoint"]
        run(KUBECTL, "--kubeconfig", "/dev/null", "--server", place, "--insecure-skip-tls-verify",
            f"--token={token}", "get", "namespaces", fails=fails)


def mapped(cluster):
    """The roles that EKS itself, or anybody, has written into aws-auth."""
    return get(cluster, "--namespace kube-system configmap aws-auth")["data"]["mapRoles"]


def in_the_middle():
    node_group("shop", 2, labels={"tier": "web"}, taints=[])
    EKS.get_waiter("nodegroup_active").wait(**ng("shop"), WaiterConfig=SOON)
    nodes = get("shop", "nodes")["items"]
    check("how many", len(nodes), 2)
    for node in nodes:
        name, labels = node["metadata"]["name"], node["metadata"]["labels"]
        check("a name", name.startswith("ip-172-31-") and name.endswith(".ec2.internal"), True)
        contains("how the cloud names it", node["spec"]["providerID"], f"aws:///{labels['topology.kubernetes.io/zone']}/i-")
        for key, value in (("eks.amazonaws.com/nodegroup", "ng"), ("eks.amazonaws.com/capacityType", "ON_DEMAND"),
                           ("node.kubernetes.io/instance-type", "t3.medium"), ("tier", "web"),
                           ("topology.kubernetes.io/region", "us-east-1")):
            check(key, labels.get(key), value)
        check("pods of a t3.medium", node["status"]["capacity"]["pods"], "17")
        check("processors of a t3.medium", node["status"]["capacity"]["cpu"], "2")
    check("zones", len({node["metadata"]["labels"]["topology.kubernetes.io/zone"] for node in nodes}), 2)
    contains("their role", mapped("shop"), f"rolearn: {role('AmazonEKSNodeRole')}\n")
    kubectl("shop", "apply -f -", WEB)
    kubectl("shop", "rollout status deployment/web --timeout=90s")
    for component, counted in (("kcm", 'workqueue_adds_total{name="deployment"} '),
                               ("ksh", 'scheduler_schedule_attempts_total{profile="default-scheduler",result="scheduled"} ')):
        page = kubectl("shop", f"get --raw /apis/metrics.eks.amazonaws.com/v1/{component}/container/metrics")
        check(f"what {component} counted", any(float(line.split()[-1]) > 0 for line in page.splitlines() if line.startswith(counted)), True)
    refused("with nodes", lambda: EKS.delete_cluster(name="shop"), "ResourceInUseException", "nodegroups attached")
    # All processes are killed while this one is on its way.
    node_group("bank", 1)


def went_on():
    # While a node group is on its way.
    killed_and_up()
    for cluster in ("shop", "bank"):
        EKS.get_waiter("cluster_active").wait(name=cluster, WaiterConfig=SOON)
        EKS.get_waiter("nodegroup_active").wait(**ng(cluster), WaiterConfig=SOON)
    check("nodes that were there", len(ready("shop")), 2)
    check("and those on their way", len(ready("bank")), 1)
    kubectl("shop", "rollout status deployment/web --timeout=90s")
    kubectl("bank", "apply -f -", WEB)
    kubectl("bank", "rollout status deployment/web --timeout=90s")
    addresses = {cluster: [pod["status"]["podIP"] for pod in get(cluster, "pods -l app=web")["items"]]
                 for cluster in ("shop", "bank")}
    inside = kubectl("shop", f"exec deploy/web -- wget -q -O - http://{addresses['shop'][1]}:8080/version")
    check("pods of one cluster talk", inside, "version 1\n")
    across = f"exec deploy/web -- busybox timeout 3 busybox wget -q -O - http://{addresses['bank'][0]}:8080/version"
    contains("those of two do not", kubectl("shop", across, fails=True), "exit code 143")


def sized(cluster, size):
    update = EKS.update_nodegroup_config(**ng(cluster), scalingConfig={"minSize": 1, "maxSize": 5, "desiredSize": size})["update"]
    updated(cluster, update, nodegroupName="ng")
    check("nodes", len(ready(cluster)), size)
    group = SCALING.describe_auto_scaling_groups()["AutoScalingGroups"]
    group = [one for one in group if any(tag["Value"] == cluster for tag in one["Tags"])][0]
    check("instances", (group["DesiredCapacity"], len(group["Instances"])), (size, size))
    return group


def changed():
    kubectl("shop", "apply -f -", BUDGET)
    group = sized("shop", 1)
    kubectl("shop", "rollout status deployment/web --timeout=90s")
    check("the budget held", get("shop", "deployment web")["status"]["readyReplicas"], 2)
    refused("over one", lambda: EKS.update_cluster_version(name="bank", version="1.37"), "InvalidParameterException")
    # A machine that is killed is replaced.
    instance = group["Instances"][0]["InstanceId"]
    for path in glob.glob(f"{DATA}/**/machines/{instance}/pid.json", recursive=True):
        with open(path) as file:
            os.kill(json.load(file)["pid"], signal.SIGKILL)

    def replaced():
        seen = SCALING.describe_auto_scaling_groups(AutoScalingGroupNames=[group["AutoScalingGroupName"]])
        seen = seen["AutoScalingGroups"][0]["Instances"]
        is_new = [one["InstanceId"] for one in seen if one["LifecycleState"] == "InService"] not in ([], [instance])
        return is_new and len(seen) == 1 and len(ready("shop")) == 1
    until("a machine that was killed is replaced", replaced)
    kubectl("shop", "rollout status deployment/web --timeout=90s")


def aws(*words):
    """The stock CLI; its answer."""
    told = run(AWS, *words, "--output", "json")
    return json.loads(told) if told.strip() else None


TALKERS = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: talker}
spec:
  selector: {matchLabels: {app: talker}}
  template:
    metadata: {labels: {app: talker}}
    spec:
      containers:
      - name: web
        image: e2e:1
        command: [httpd, -f, -p, "8080", -h, /www]
        readinessProbe: {httpGet: {port: 8080, path: /version}, periodSeconds: 1, failureThreshold: 30}
"""


def members(cluster):
    """The running instances of its node group, by id."""
    filters = [{"Name": "tag:eks:cluster-name", "Values": [cluster]}, {"Name": "instance-state-name", "Values": ["running"]}]
    found = EC2.describe_instances(Filters=filters)["Reservations"]
    return {one["InstanceId"]: one for reservation in found for one in reservation["Instances"]}


def own_vpc():
    """A cluster in a VPC of one's own, as the user guide makes it with the CLI."""
    vpc = aws("ec2", "create-vpc", "--cidr-block", "192.168.0.0/16")["Vpc"]["VpcId"]
    aws("ec2", "modify-vpc-attribute", "--vpc-id", vpc, "--enable-dns-hostnames")
    gateway = aws("ec2", "create-internet-gateway")["InternetGateway"]["InternetGatewayId"]
    aws("ec2", "attach-internet-gateway", "--internet-gateway-id", gateway, "--vpc-id", vpc)
    routes = aws("ec2", "create-route-table", "--vpc-id", vpc)["RouteTable"]["RouteTableId"]
    aws("ec2", "create-route", "--route-table-id", routes, "--destination-cidr-block", "0.0.0.0/0", "--gateway-id", gateway)
    places = []
    for zone, block in (("us-east-1a", "192.168.0.0/19"), ("us-east-1b", "192.168.32.0/19")):
        subnet = aws("ec2", "create-subnet", "--vpc-id", vpc, "--cidr-block", block, "--availability-zone", zone)["Subnet"]["SubnetId"]
        aws("ec2", "modify-subnet-attribute", "--subnet-id", subnet, "--map-public-ip-on-launch")
        aws("ec2", "associate-route-table", "--route-table-id", routes, "--subnet-id", subnet)
        places.append(subnet)
    aws("eks", "create-cluster", "--name", "farm", "--role-arn", role("AmazonEKSClusterRole"),
        "--resources-vpc-config", f"subnetIds={','.join(places)},endpointPrivateAccess=true")
    aws("eks", "wait", "cluster-active", "--name", "farm")
    config = EKS.describe_cluster(name="farm")["cluster"]["resourcesVpcConfig"]
    check("its VPC", config["vpcId"], vpc)
    ours = [{"Name": "description", "Values": ["Amazon EKS farm"]}]
    doors = EC2.describe_network_interfaces(Filters=ours)["NetworkInterfaces"]
    check("a door in each zone", sorted(door["SubnetId"] for door in doors), sorted(places))
    check("whose they are", {(door["RequesterManaged"], door["Groups"][0]["GroupId"]) for door in doors},
          {(True, config["clusterSecurityGroupId"])})
    refused("a door of the service", lambda: EC2.delete_network_interface(NetworkInterfaceId=doors[0]["NetworkInterfaceId"]), "OperationNotPermitted")
    aws("eks", "create-nodegroup", "--cluster-name", "farm", "--nodegroup-name", "ng", "--subnets", *places,
        "--node-role", role("AmazonEKSNodeRole"), "--scaling-config", "minSize=2,maxSize=3,desiredSize=2")
    until("the node group", lambda: EKS.describe_nodegroup(**ng("farm"))["nodegroup"]["status"] == "ACTIVE")
    logged_in("farm")
    held = members("farm")
    check("nodes are instances", sorted(ready("farm")), sorted(one["PrivateDnsName"] for one in held.values()))
    check("of the VPC", {(one["VpcId"], one["PrivateIpAddress"].startswith("192.168.")) for one in held.values()}, {(vpc, True)})
    addresses = {door["PrivateIpAddress"] for door in doors}
    inside = get("farm", "endpoints kubernetes")["subsets"][0]["addresses"]
    check("the API from inside", {one["ip"] for one in inside}, addresses)
    kubectl("farm", "apply -f -", TALKERS)
    kubectl("farm", "rollout status daemonset/talker --timeout=90s")
    one, two = get("farm", "pods -l app=talker")["items"]
    check("a pod's address is of its subnet", one["status"]["podIP"].startswith("192.168."), True)
    for speaker, hearer in ((one, two), (two, one)):
        words = f"exec {speaker['metadata']['name']} -- wget -q -O - http://{hearer['status']['podIP']}:8080/version"
        check("pods on two nodes talk", kubectl("farm", words), "version 1\n")
    # The group's rules hold: without its own rule nobody in it reaches anybody.
    own = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": config["clusterSecurityGroupId"]}]}]
    EC2.revoke_security_group_ingress(GroupId=config["clusterSecurityGroupId"], IpPermissions=own)
    host = one["status"]["hostIP"]
    node = [each["InstanceId"] for each in held.values() if each["PrivateIpAddress"] == host][0]
    site = json.load(open(f"{DATA}/site.json"))["id"]
    dial = ["nsenter", f"--net=/run/ekso/{site}/netns/{node}", sys.executable, "-c",
            f"import socket; socket.create_connection(('{sorted(addresses)[0]}', 443), 1)"]

    def reaches():
        return subprocess.run(dial, capture_output=True, timeout=30).returncode == 0
    until("no rule, no way", lambda: not reaches())
    EC2.authorize_security_group_ingress(GroupId=config["clusterSecurityGroupId"], IpPermissions=own)
    until("a rule, a way", reaches)
    # Who terminates an instance takes its node along; the group brings another.
    victim = sorted(held)[0]
    EC2.terminate_instances(InstanceIds=[victim])

    def replaced():
        now = members("farm")
        names = sorted(one["PrivateDnsName"] for one in now.values())
        return len(now) == 2 and victim not in now and sorted(ready("farm")) == names
    until("an instance that was terminated is replaced", replaced)
    check("no node of the old one", len(get("farm", "nodes")["items"]), 2)
    # The public endpoint shuts and opens.
    place = EKS.describe_cluster(name="farm")["cluster"]["endpoint"]

    def answers():
        host, port = place.removeprefix("https://").split(":")
        try:
            socket.create_connection((host, int(port)), 5).close()
        except ConnectionRefusedError:
            return False
        return True
    check("public", answers(), True)
    aws("eks", "update-cluster-config", "--name", "farm", "--resources-vpc-config", "endpointPublicAccess=false")
    until("private", lambda: not answers())
    aws("eks", "update-cluster-config", "--name", "farm", "--resources-vpc-config", "endpointPublicAccess=true")
    until("public again", answers)
    refused("a VPC in use", lambda: EC2.delete_subnet(SubnetId=places[0]), "DependencyViolation")
    aws("eks", "delete-nodegroup", "--cluster-name", "farm", "--nodegroup-name", "ng")
    EKS.get_waiter("nodegroup_deleted").wait(**ng("farm"), WaiterConfig=SOON)
    aws("eks", "delete-cluster", "--name", "farm")
    EKS.get_waiter("cluster_deleted").wait(name="farm", WaiterConfig=SOON)
    for subnet in places:
        aws("ec2", "delete-subnet", "--subnet-id", subnet)
    aws("ec2", "delete-route-table", "--route-table-id", routes)
    aws("ec2", "detach-internet-gateway", "--internet-gateway-id", gateway, "--vpc-id", vpc)
    aws("ec2", "delete-internet-gateway", "--internet-gateway-id", gateway)
    aws("ec2", "delete-vpc", "--vpc-id", vpc)
    check("doors", EC2.describe_network_interfaces(Filters=ours)["NetworkInterfaces"], [])
    check("templates", [one["Tags"] for one in EC2.describe_launch_templates()["LaunchTemplates"]
                        if {"Key": "eks:cluster-name", "Value": "farm"} in one["Tags"]], [])


def tagged(kind, name):
    return [{"ResourceType": kind, "Tags": [{"Key": "Name", "Value": name}]}]


def by(name, *values):
    return [{"Name": name, "Values": list(values)}]


def terraform_role(name, service, *policies):
    """aws_iam_role and aws_iam_role_policy_attachment."""
    trust = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}]}
    arn = IAM.create_role(RoleName=name, Path="/", AssumeRolePolicyDocument=json.dumps(trust), MaxSessionDuration=3600)["Role"]["Arn"]
    check("the trust", IAM.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"], trust)
    check("policies of its own", IAM.list_role_policies(RoleName=name)["PolicyNames"], [])
    for policy in policies:
        IAM.attach_role_policy(RoleName=name, PolicyArn=f"arn:aws:iam::aws:policy/{policy}")
    attached = IAM.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
    check("attached", sorted(one["PolicyName"] for one in attached), sorted(policies))
    return arn


def terraform_role_gone(name):
    for policy in IAM.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
        IAM.detach_role_policy(RoleName=name, PolicyArn=policy["PolicyArn"])
    check("profiles of it", IAM.list_instance_profiles_for_role(RoleName=name)["InstanceProfiles"], [])
    IAM.delete_role(RoleName=name)


def terraform():
    """The calls of the Terraform AWS provider for a VPC with private subnets, a cluster, and a node group with a launch template: create,
    read, update, delete. The provider itself is not run."""
    STS.get_caller_identity()
    check("zones", len(EC2.describe_availability_zones(Filters=by("opt-in-status", "opt-in-not-required"))["AvailabilityZones"]), 3)
    vpc = EC2.create_vpc(CidrBlock="10.0.0.0/16", InstanceTenancy="default", TagSpecifications=tagged("vpc", "tf"))["Vpc"]["VpcId"]
    EC2.get_waiter("vpc_available").wait(VpcIds=[vpc])
    EC2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": True})
    for name, member in (("enableDnsHostnames", "EnableDnsHostnames"), ("enableDnsSupport", "EnableDnsSupport"),
                         ("enableNetworkAddressUsageMetrics", "EnableNetworkAddressUsageMetrics")):
        seen = EC2.describe_vpc_attribute(VpcId=vpc, Attribute=name)[member]["Value"]
        check(name, seen, name != "enableNetworkAddressUsageMetrics")
    its = by("vpc-id", vpc)
    check("its ACL", len(EC2.describe_network_acls(Filters=its + by("default", "true"))["NetworkAcls"]), 1)
    check("its table", len(EC2.describe_route_tables(Filters=its + by("association.main", "true"))["RouteTables"]), 1)
    check("its group", len(EC2.describe_security_groups(Filters=its + by("group-name", "default"))["SecurityGroups"]), 1)
    gateway = EC2.create_internet_gateway(TagSpecifications=tagged("internet-gateway", "tf"))["InternetGateway"]["InternetGatewayId"]
    EC2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    places = {}
    for name, zone, block in (("public", "us-east-1a", "10.0.48.0/24"), ("private-a", "us-east-1a", "10.0.0.0/20"),
                              ("private-b", "us-east-1b", "10.0.16.0/20")):
        made = EC2.create_subnet(VpcId=vpc, CidrBlock=block, AvailabilityZone=zone, TagSpecifications=tagged("subnet", name))["Subnet"]
        EC2.get_waiter("subnet_available").wait(SubnetIds=[made["SubnetId"]])
        places[name] = made["SubnetId"]
    EC2.modify_subnet_attribute(SubnetId=places["public"], MapPublicIpOnLaunch={"Value": True})
    address = EC2.allocate_address(Domain="vpc", TagSpecifications=tagged("elastic-ip", "tf"))["AllocationId"]
    EC2.describe_addresses(AllocationIds=[address])
    EC2.describe_addresses_attribute(AllocationIds=[address], Attribute="domain-name")
    nat = EC2.create_nat_gateway(SubnetId=places["public"], AllocationId=address, ClientToken="tf",
                                 TagSpecifications=tagged("natgateway", "tf"))["NatGateway"]["NatGatewayId"]
    EC2.get_waiter("nat_gateway_available").wait(NatGatewayIds=[nat], WaiterConfig=SOON)
    tables = []
    for target, subnets in (({"GatewayId": gateway}, ["public"]), ({"NatGatewayId": nat}, ["private-a", "private-b"])):
        table = EC2.create_route_table(VpcId=vpc, TagSpecifications=tagged("route-table", "tf"))["RouteTable"]["RouteTableId"]
        EC2.create_route(RouteTableId=table, DestinationCidrBlock="0.0.0.0/0", **target)
        links = [EC2.associate_route_table(RouteTableId=table, SubnetId=places[name])["AssociationId"] for name in subnets]
        EC2.describe_route_tables(RouteTableIds=[table])
        tables.append((table, links))
    group = EC2.create_security_group(GroupName="tf-node", Description="nodes", VpcId=vpc,
                                      TagSpecifications=tagged("security-group", "tf-node"))["GroupId"]
    everything = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    EC2.revoke_security_group_egress(GroupId=group, IpPermissions=[everything])
    refused("no rule of IPv6", lambda: EC2.revoke_security_group_egress(
        GroupId=group, IpPermissions=[{"IpProtocol": "-1", "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}]), "InvalidPermission.NotFound")
    EC2.authorize_security_group_egress(GroupId=group, IpPermissions=[everything])
    EC2.authorize_security_group_ingress(GroupId=group, IpPermissions=[{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}])
    check("rules", len(EC2.describe_security_group_rules(Filters=by("group-id", group))["SecurityGroupRules"]), 2)
    masters = terraform_role("tf-cluster", "eks.amazonaws.com", "AmazonEKSClusterPolicy")
    workers = terraform_role("tf-node", "ec2.amazonaws.com", "AmazonEKSWorkerNodePolicy", "AmazonEKS_CNI_Policy", "AmazonEC2ContainerRegistryReadOnly")
    private = [places["private-a"], places["private-b"]]
    EKS.create_cluster(
        name="tf", roleArn=masters, version="1.35", clientRequestToken="tf", bootstrapSelfManagedAddons=False, tags={"by": "terraform"},
        resourcesVpcConfig={"subnetIds": private, "securityGroupIds": [group], "endpointPrivateAccess": True, "endpointPublicAccess": True},
        accessConfig={"authenticationMode": "API_AND_CONFIG_MAP", "bootstrapClusterCreatorAdminPermissions": True})
    EKS.get_waiter("cluster_active").wait(name="tf", WaiterConfig=SOON)
    seen = EKS.describe_cluster(name="tf")["cluster"]
    own = seen["resourcesVpcConfig"]["clusterSecurityGroupId"]
    # The nodes' group lets the control plane in, and the other way round.
    for one, other in ((group, own), (own, group)):
        EC2.authorize_security_group_ingress(GroupId=one, IpPermissions=[{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": other}]}])
    EKS.list_tags_for_resource(resourceArn=seen["arn"])
    issuer = seen["identity"]["oidc"]["issuer"]
    provider = IAM.create_open_id_connect_provider(Url=issuer, ClientIDList=["sts.amazonaws.com"], ThumbprintList=[])["OpenIDConnectProviderArn"]
    check("its clients", IAM.get_open_id_connect_provider(OpenIDConnectProviderArn=provider)["ClientIDList"], ["sts.amazonaws.com"])
    template = EC2.create_launch_template(
        LaunchTemplateName="tf-nodes", ClientToken="tf-nodes", TagSpecifications=tagged("launch-template", "tf"),
        LaunchTemplateData={"InstanceType": "t3.large", "SecurityGroupIds": [group],
                            "MetadataOptions": {"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1},
                            "TagSpecifications": tagged("instance", "tf-node")})["LaunchTemplate"]
    EC2.describe_launch_templates(LaunchTemplateIds=[template["LaunchTemplateId"]])
    EC2.describe_launch_template_versions(LaunchTemplateId=template["LaunchTemplateId"], Versions=["$Latest"])
    EKS.create_nodegroup(
        clusterName="tf", nodegroupName="ng", clientRequestToken="tf", nodeRole=workers, subnets=private, capacityType="ON_DEMAND",
        scalingConfig={"minSize": 1, "maxSize": 3, "desiredSize": 2}, updateConfig={"maxUnavailablePercentage": 33}, labels={"tier": "web"},
        launchTemplate={"id": template["LaunchTemplateId"], "version": str(template["LatestVersionNumber"])})
    EKS.get_waiter("nodegroup_active").wait(**ng("tf"), WaiterConfig=SOON)
    shown = EKS.describe_nodegroup(**ng("tf"))["nodegroup"]
    check("its template", shown["launchTemplate"]["version"], "1")
    nodes = members("tf").values()
    check("its instances", {(one["InstanceType"], one["SecurityGroups"][0]["GroupId"], one.get("PublicIpAddress")) for one in nodes},
          {("t3.large", group, None)})
    check("tags of the template", all({"Key": "Name", "Value": "tf-node"} in one["Tags"] for one in nodes), True)
    for addon in ("vpc-cni", "kube-proxy", "coredns"):
        version = EKS.describe_addon_versions(addonName=addon, kubernetesVersion="1.35")["addons"][0]["addonVersions"][0]["addonVersion"]
        EKS.create_addon(clusterName="tf", addonName=addon, addonVersion=version, clientRequestToken=addon)
        EKS.get_waiter("addon_active").wait(clusterName="tf", addonName=addon, WaiterConfig=SOON)
    entry = {"clusterName": "tf", "principalArn": masters}
    EKS.create_access_entry(**entry, type="STANDARD")
    view = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSViewPolicy"
    EKS.associate_access_policy(**entry, policyArn=view, accessScope={"type": "cluster"})
    check("policies", len(EKS.list_associated_access_policies(**entry)["associatedAccessPolicies"]), 1)
    # terraform apply, again: one kind of change a call, each followed to its end.
    updated("tf", EKS.update_cluster_version(name="tf", version="1.36", clientRequestToken="tf2")["update"])
    updated("tf", EKS.update_nodegroup_config(**ng("tf"), scalingConfig={"minSize": 1, "maxSize": 3, "desiredSize": 1},
                                              labels={"addOrUpdateLabels": {"tier": "back"}})["update"], nodegroupName="ng")
    EC2.create_launch_template_version(LaunchTemplateId=template["LaunchTemplateId"],
                                       LaunchTemplateData={"InstanceType": "t3.medium", "SecurityGroupIds": [group]})
    EC2.modify_launch_template(LaunchTemplateId=template["LaunchTemplateId"], DefaultVersion="2")
    updated("tf", EKS.update_nodegroup_version(**ng("tf"), version="1.36", launchTemplate={
        "id": template["LaunchTemplateId"], "version": "2"})["update"], nodegroupName="ng")
    check("of the new template", {one["InstanceType"] for one in members("tf").values()}, {"t3.medium"})
    # terraform destroy.
    EKS.disassociate_access_policy(**entry, policyArn=view)
    EKS.delete_access_entry(**entry)
    for addon in ("vpc-cni", "kube-proxy", "coredns"):
        EKS.delete_addon(clusterName="tf", addonName=addon)
        EKS.get_waiter("addon_deleted").wait(clusterName="tf", addonName=addon, WaiterConfig=SOON)
    EKS.delete_nodegroup(**ng("tf"))
    EKS.get_waiter("nodegroup_deleted").wait(**ng("tf"), WaiterConfig=SOON)
    EC2.delete_launch_template(LaunchTemplateId=template["LaunchTemplateId"])
    IAM.delete_open_id_connect_provider(OpenIDConnectProviderArn=provider)
    EC2.revoke_security_group_ingress(GroupId=own, IpPermissions=[{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}])
    EC2.revoke_security_group_ingress(GroupId=group, IpPermissions=[{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": own}]}])
    EKS.delete_cluster(name="tf")
    EKS.get_waiter("cluster_deleted").wait(name="tf", WaiterConfig=SOON)
    for name in ("tf-cluster", "tf-node"):
        terraform_role_gone(name)
    EC2.delete_security_group(GroupId=group)
    for table, links in tables:
        for link in links:
            EC2.disassociate_route_table(AssociationId=link)
        EC2.delete_route_table(RouteTableId=table)
    EC2.delete_nat_gateway(NatGatewayId=nat)
    EC2.get_waiter("nat_gateway_deleted").wait(NatGatewayIds=[nat], WaiterConfig=SOON)
    EC2.release_address(AllocationId=address)
    for subnet in places.values():
        check("nothing lingers", EC2.describe_network_interfaces(Filters=by("subnet-id", subnet))["NetworkInterfaces"], [])
        EC2.delete_subnet(SubnetId=subnet)
    EC2.detach_internet_gateway(InternetGatewayId=gateway, VpcId=vpc)
    EC2.delete_internet_gateway(InternetGatewayId=gateway)
    EC2.delete_vpc(VpcId=vpc)


def insights(cluster):
    return {one["name"]: one["insightStatus"]["status"] for one in EKS.list_insights(clusterName=cluster)["insights"]}


def eksctl():
    """What eksctl calls besides CloudFormation, for a cluster and a node group that its stacks would have made: create, update, delete. It
    is not run itself."""
    region, cluster = STS.meta.region_name, {"clusterName": "bank"}
    STS.get_caller_identity()
    versions = EKS.describe_cluster_versions()["clusterVersions"]
    check("a version that is supported", {one["versionStatus"] for one in versions} - {"UNSUPPORTED"} != set(), True)
    check("all clusters", "bank" in EKS.list_clusters(include=["all"])["clusters"], True)
    seen = EKS.describe_cluster(name="bank")["cluster"]
    zones = EC2.describe_availability_zones(
        Filters=by("region-name", region) + by("state", "available") + by("zone-type", "availability-zone"))["AvailabilityZones"]
    pages = EC2.get_paginator("describe_instance_type_offerings").paginate(
        LocationType="availability-zone", Filters=by("instance-type", "m5.large"))
    check("m5.large in every zone", len([one for page in pages for one in page["InstanceTypeOfferings"]]), len(zones))
    EC2.describe_regions()
    network = seen["resourcesVpcConfig"]
    check("its subnets", len(EC2.describe_subnets(SubnetIds=network["subnetIds"])["Subnets"]), 3)
    EC2.describe_vpcs(VpcIds=[network["vpcId"]])
    EC2.describe_route_tables(Filters=by("vpc-id", network["vpcId"]))
    # Add-ons come before nodes, and nobody waits for them but for vpc-cni.
    for addon in ("vpc-cni", "kube-proxy", "coredns"):
        refused(addon, lambda: EKS.describe_addon(**cluster, addonName=addon), "ResourceNotFoundException", status=404)
        found = EKS.describe_addon_versions(addonName=addon, kubernetesVersion=seen["version"])["addons"][0]["addonVersions"]
        version = [one for one in found if one["compatibilities"][0]["defaultVersion"]][0]
        check("needs no role", version["requiresIamPermissions"], False)
        EKS.describe_addon_configuration(addonName=addon, addonVersion=version["addonVersion"])
        made = EKS.create_addon(**cluster, addonName=addon, addonVersion=version["addonVersion"], resolveConflicts="OVERWRITE")
        check("on its way", made["addon"]["status"], "CREATING")
    EKS.get_waiter("addon_active").wait(**cluster, addonName="vpc-cni", WaiterConfig=SOON)
    EKS.update_addon(**cluster, addonName="vpc-cni", resolveConflicts="OVERWRITE", configurationValues="env:\n  ENABLE_PREFIX_DELEGATION: 'true'\n")
    refused("a setting that does nothing", lambda: EKS.update_addon(**cluster, addonName="coredns", configurationValues='{"replicaCount": 3}'),
            "InvalidParameterException", "$.replicaCount: is not defined in the schema", status=400)
    refused("metrics-server", lambda: EKS.describe_addon_versions(addonName="metrics-server"), "InvalidParameterException")
    kubectl("bank", "get --raw /version")
    # withOIDC, and a role for a service account.
    issuer = seen["identity"]["oidc"]["issuer"]
    provider = IAM.create_open_id_connect_provider(
        Url=issuer, ClientIDList=["sts.amazonaws.com"], ThumbprintList=["0" * 40], Tags=[{"Key": "alpha.eksctl.io/cluster-name", "Value": "bank"}])
    provider = provider["OpenIDConnectProviderArn"]
    IAM.get_open_id_connect_provider(OpenIDConnectProviderArn=provider)
    # create podidentityassociation
    pods = terraform_role("eksctl-pods", "pods.eks.amazonaws.com")
    made = EKS.create_pod_identity_association(**cluster, namespace="default", serviceAccount="web", roleArn=pods)["association"]
    check("associations", len(EKS.list_pod_identity_associations(**cluster, namespace="default")["associations"]), 1)
    EKS.delete_pod_identity_association(**cluster, associationId=made["associationId"])
    # create nodegroup: the tags of its Auto Scaling group.
    check("node groups", EKS.list_nodegroups(**cluster)["nodegroups"], ["ng"])
    group = EKS.describe_nodegroup(**ng("bank"))["nodegroup"]["resources"]["autoScalingGroups"][0]["name"]
    tag = {"ResourceId": group, "ResourceType": "auto-scaling-group", "Key": "k8s.io/cluster-autoscaler/node-template/label/a",
           "Value": "b", "PropagateAtLaunch": False}
    SCALING.create_or_update_tags(Tags=[tag])
    check("tags", SCALING.describe_tags(Filters=[{"Name": "key", "Values": [tag["Key"]]}])["Tags"][0]["Value"], "b")
    # create accessentry
    entry = {"clusterName": "bank", "principalArn": pods}
    EKS.create_access_entry(**entry, kubernetesGroups=["viewers"])
    check("entries", pods in EKS.list_access_entries(**cluster)["accessEntries"], True)
    EKS.delete_access_entry(**entry)
    # create fargateprofile
    private = EC2.describe_subnets(Filters=by("tag:kubernetes.io/role/internal-elb", "1") + by("vpc-id", network["vpcId"]))["Subnets"]
    check("profiles", EKS.list_fargate_profiles(**cluster)["fargateProfileNames"], [])
    EKS.create_fargate_profile(**cluster, fargateProfileName="fp", podExecutionRoleArn=role("AmazonEKSFargatePodExecutionRole"),
                               subnets=[one["SubnetId"] for one in private], selectors=[{"namespace": "away"}])
    EKS.get_waiter("fargate_profile_active").wait(**cluster, fargateProfileName="fp", WaiterConfig=SOON)
    # What the cluster itself sees before an upgrade: nothing in its way, though somebody asks for Endpoints, which nobody removes.
    get("bank", "endpoints")
    contains("who asks for what goes", kubectl("bank", "get --raw /metrics"), 'apiserver_requested_deprecated_apis{group="",removed_release="",resource="endpoints"')
    check("a refresh", EKS.start_insights_refresh(**cluster)["status"], "IN_PROGRESS")
    until("a refresh", lambda: EKS.describe_insights_refresh(**cluster)["status"] == "COMPLETED")
    check("insights", insights("bank"), dict.fromkeys((
        "Cluster health issues", "Deprecated APIs removed in Kubernetes v1.36", "EKS add-on version compatibility", "Kubelet version skew"),
        "PASSING") | {"EKS add-on version compatibility": "WARNING"})
    updated("bank", EKS.update_cluster_version(name="bank", version="1.36")["update"])
    # delete cluster
    EKS.delete_fargate_profile(**cluster, fargateProfileName="fp")
    EKS.get_waiter("fargate_profile_deleted").wait(**cluster, fargateProfileName="fp", WaiterConfig=SOON)
    for addon in ("vpc-cni", "kube-proxy", "coredns"):
        EKS.delete_addon(**cluster, addonName=addon)
    EC2.describe_key_pairs()
    EC2.describe_security_groups(Filters=by("tag-key", "kubernetes.io/cluster/bank"))
    EC2.describe_network_interfaces(Filters=by("vpc-id", network["vpcId"]))
    IAM.delete_open_id_connect_provider(OpenIDConnectProviderArn=provider)
    terraform_role_gone("eksctl-pods")


def gone():
    # With its last node gone, the budget would hold the last pod for as long as AWS lets it.
    kubectl("shop", "delete poddisruptionbudget web")
    for cluster in ("shop", "bank"):
        EKS.delete_nodegroup(**ng(cluster))
    for cluster in ("shop", "bank"):
        EKS.get_waiter("nodegroup_deleted").wait(**ng(cluster), WaiterConfig=SOON)
        if cluster == "shop":
            check("its role is nobody's", mapped(cluster), "[]\n")
        EKS.delete_cluster(name=cluster)
    for cluster in ("shop", "bank"):
        EKS.get_waiter("cluster_deleted").wait(name=cluster, WaiterConfig=SOON)
    check("what is left", EKS.list_clusters()["clusters"], ["dev"])
    check("groups", SCALING.describe_auto_scaling_groups()["AutoScalingGroups"], [])
    check("templates", EC2.describe_launch_templates()["LaunchTemplates"], [])
    check("profiles", [one["InstanceProfileName"] for one in IAM.list_instance_profiles()["InstanceProfiles"]],
          ["AmazonEKSNodeRole"])


globals()[ACT]()
