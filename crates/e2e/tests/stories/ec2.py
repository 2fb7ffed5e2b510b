"""EC2 as boto3 sees it, and as an instance sees it. One act a run; ends with an error at the first surprise."""

import json
import subprocess
import sys

from prelude import ACT, DATA, EC2, SCRATCH, SOON, check, killed_and_up, refused, until

NOTES = f"{SCRATCH}/ec2.json"
SITE = json.load(open(f"{DATA}/site.json"))["id"]
METADATA = "http://169.254.169.254/latest"
DOOR = "http://169.254.169.250"


def inside(instance, *words, fails=False):
    """Runs a program in the network of a machine."""
    done = subprocess.run(
        ["nsenter", f"--net=/run/ekso/{SITE}/netns/{instance}", *words], capture_output=True, text=True, timeout=60
    )
    if (done.returncode != 0) != fails:
        sys.exit(f"{' '.join(words)} in {instance}: {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout


def reaches(source, target):
    """Whether one machine's packets come to another: by a listener that is there for this one connection."""
    listen = "import socket,sys\nl=socket.create_server(('0.0.0.0',8080))\nprint('up',flush=True)\nl.settimeout(4)\nl.accept()"
    words = ["nsenter", f"--net=/run/ekso/{SITE}/netns/{target['InstanceId']}", sys.executable, "-c", listen]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        server.stdout.readline()
        dial = f"import socket\nsocket.create_connection(('{target['PrivateIpAddress']}',8080),1)"
        words = ["nsenter", f"--net=/run/ekso/{SITE}/netns/{source['InstanceId']}", sys.executable, "-c", dial]
        done = subprocess.run(words, capture_output=True, timeout=30)
        server.kill()
        return done.returncode == 0


def instances(ids):
    found = EC2.describe_instances(InstanceIds=ids)["Reservations"]
    return {one["InstanceId"]: one for reservation in found for one in reservation["Instances"]}


def run(subnet, group, **more):
    image = EC2.describe_images(Owners=["amazon"])["Images"][-1]["ImageId"]
    ran = EC2.run_instances(
        ImageId=image,
        InstanceType="t3.medium",
        MinCount=1,
        MaxCount=1,
        SubnetId=subnet,
        SecurityGroupIds=[group],
        IamInstanceProfile={"Name": "AmazonEKSNodeRole"},
        **more,
    )
    return ran["Instances"][0]["InstanceId"]


def made():
    default = EC2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    check("default VPCs", [vpc["CidrBlock"] for vpc in default], ["172.31.0.0/16"])
    notes = {"vpcs": [], "instances": []}
    for _ in range(2):
        vpc = EC2.create_vpc(CidrBlock="172.31.0.0/16")["Vpc"]["VpcId"]
        subnet = EC2.create_subnet(VpcId=vpc, CidrBlock="172.31.0.0/24")["Subnet"]["SubnetId"]
        web = EC2.create_security_group(GroupName="web", Description="web", VpcId=vpc)["GroupId"]
        shut = EC2.create_security_group(GroupName="shut", Description="shut", VpcId=vpc)["GroupId"]
        own = [{"IpProtocol": "tcp", "FromPort": 8080, "ToPort": 8080, "UserIdGroupPairs": [{"GroupId": web}]}]
        EC2.authorize_security_group_ingress(GroupId=web, IpPermissions=own)
        notes["vpcs"].append({"vpc": vpc, "subnet": subnet, "web": web, "shut": shut})
    first, second = notes["vpcs"]
    data = "Content-Type: text/plain\n\nhello"
    notes["instances"] = [
        run(first["subnet"], first["web"], UserData=data),
        run(first["subnet"], first["web"]),
        run(first["subnet"], first["shut"]),
        run(second["subnet"], second["web"]),
    ]
    EC2.get_waiter("instance_running").wait(InstanceIds=notes["instances"], WaiterConfig=SOON)
    json.dump(notes, open(NOTES, "w"))


def inside_act():
    notes = json.load(open(NOTES))
    found = instances(notes["instances"])
    one, two, shut, far = (found[name] for name in notes["instances"])
    check("the same address in two VPCs", far["PrivateIpAddress"], one["PrivateIpAddress"])
    check("members of a group", (reaches(one, two), reaches(two, one)), (True, True))
    check("who is none", (reaches(shut, one), reaches(one, shut)), (False, False))
    check("the other VPC", reaches(far, two), False)
    # A rule more, a rule less.
    web = notes["vpcs"][0]["web"]
    rule = [{"IpProtocol": "tcp", "FromPort": 8080, "ToPort": 8080, "IpRanges": [{"CidrIp": f"{shut['PrivateIpAddress']}/32"}]}]
    EC2.authorize_security_group_ingress(GroupId=web, IpPermissions=rule)
    until("a rule lets in", lambda: reaches(shut, one))
    EC2.revoke_security_group_ingress(GroupId=web, IpPermissions=rule)
    until("a rule that is gone", lambda: not reaches(shut, one))
    # Metadata, version 2 only.
    name = one["InstanceId"]
    ask = ["curl", "--silent", "--max-time", "5"]
    code = inside(name, *ask, "--output", "/dev/null", "--write-out", "%{http_code}", f"{METADATA}/meta-data/")
    check("version 1", code, "401")
    ttl = "X-aws-ec2-metadata-token-ttl-seconds: 60"
    token = inside(name, *ask, "--request", "PUT", "--header", ttl, f"{METADATA}/api/token")
    look = [*ask, "--header", f"X-aws-ec2-metadata-token: {token}"]
    check("its id", inside(name, *look, f"{METADATA}/meta-data/instance-id"), name)
    check("its zone", inside(name, *look, f"{METADATA}/meta-data/placement/availability-zone"), "us-east-1a")
    check("its user data", inside(name, *look, f"{METADATA}/user-data").endswith("hello"), True)
    document = json.loads(inside(name, *look, f"{METADATA}/dynamic/instance-identity/document"))
    check("its identity", document["privateIp"], one["PrivateIpAddress"])
    # Another machine's token is worth nothing here.
    code = inside(two["InstanceId"], *look, "--output", "/dev/null", "--write-out", "%{http_code}", f"{METADATA}/user-data")
    check("another's token", code, "401")
    # An unchanged boto3 is the instance's role.
    who = (
        "import boto3\n"
        f"s=boto3.client('sts',region_name='us-east-1',endpoint_url='{DOOR}')\n"
        "print(s.get_caller_identity()['Arn'])"
    )
    clean = ["env", "-i", "PATH=/usr/bin:/bin", "AWS_CONFIG_FILE=/dev/null", f"PYTHONPATH={':'.join(sys.path)}"]
    arn = inside(name, *clean, sys.executable, "-c", who).strip()
    check("who it is", arn.split(":", 5)[5], f"assumed-role/AmazonEKSNodeRole/{name}")
    # The door is known by its address alone, and unsigned calls are refused.
    code = inside(name, *ask, "--output", "/dev/null", "--write-out", "%{http_code}", "--header", "Host: evil.example", DOOR)
    check("a foreign name", code, "403")
    inside(name, *ask, "http://169.254.1.1/", fails=True)


def in_the_middle():
    notes = json.load(open(NOTES))
    EC2.stop_instances(InstanceIds=notes["instances"][1:2])
    EC2.terminate_instances(InstanceIds=notes["instances"][2:3])
    notes["instances"].append(run(notes["vpcs"][1]["subnet"], notes["vpcs"][1]["web"]))
    json.dump(notes, open(NOTES, "w"))


def went_on():
    # While instances come and go.
    killed_and_up()
    notes = json.load(open(NOTES))
    one, two, shut, far, late = notes["instances"]
    EC2.get_waiter("instance_stopped").wait(InstanceIds=[two], WaiterConfig=SOON)
    EC2.get_waiter("instance_terminated").wait(InstanceIds=[shut], WaiterConfig=SOON)
    EC2.get_waiter("instance_running").wait(InstanceIds=[one, far, late], WaiterConfig=SOON)
    found = instances(notes["instances"])
    check("the second VPC", reaches(found[late], found[far]), True)
    EC2.start_instances(InstanceIds=[two])
    EC2.get_waiter("instance_running").wait(InstanceIds=[two], WaiterConfig=SOON)
    check("back again", reaches(found[one], instances([two])[two]), True)


def gone():
    notes = json.load(open(NOTES))
    refused("a VPC in use", lambda: EC2.delete_vpc(VpcId=notes["vpcs"][0]["vpc"]), "DependencyViolation")
    EC2.terminate_instances(InstanceIds=notes["instances"])
    EC2.get_waiter("instance_terminated").wait(InstanceIds=notes["instances"], WaiterConfig=SOON)
    for one in notes["vpcs"]:
        for group in ["web", "shut"]:
            EC2.delete_security_group(GroupId=one[group])
        EC2.delete_subnet(SubnetId=one["subnet"])
        EC2.delete_vpc(VpcId=one["vpc"])
    check("VPCs", len(EC2.describe_vpcs()["Vpcs"]), 1)


{"made": made, "inside": inside_act, "in_the_middle": in_the_middle, "went_on": went_on, "gone": gone}[ACT]()
