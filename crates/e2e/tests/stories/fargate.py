"""Fargate as awscli, boto3 and kubectl see it. One act a run; ends with an error at the first surprise."""

import functools
import json

import prelude
from prelude import ACT, AWS, DATA, EC2, EKS, EKSO, SOON, check, contains, killed_and_up, logged_in, refused, role, run, until

ROLE = role("AmazonEKSFargatePodExecutionRole")
kubectl = functools.partial(prelude.kubectl, "dev")
get = functools.partial(prelude.get, "dev")


def subnets(is_public):
    found = EC2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": [str(is_public).lower()]}])["Subnets"]
    return [one["SubnetId"] for one in found]


def profile(name, namespace, **more):
    asked = {"clusterName": "dev", "fargateProfileName": name, "podExecutionRoleArn": ROLE,
             "subnets": subnets(False), "selectors": [{"namespace": namespace, "labels": {"on": "fargate"}}]}
    return EKS.create_fargate_profile(**asked | more)["fargateProfile"]


def pod(name, labels=None, spec=None, container=None):
    box = {"name": "box", "image": "e2e:1", "command": ["httpd", "-f", "-p", "8080", "-h", "/www"]}
    body = {"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "labels": {"on": "fargate"} if labels is None else labels},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [box | (container or {})]} | (spec or {})}
    kubectl("apply -f -", json.dumps(body))


def condition(name):
    conditions = get(f"pod {name}").get("status", {}).get("conditions", [])
    return [(one["reason"], one["message"]) for one in conditions if one["type"] == "PodScheduled" and one["status"] == "False"]


def runs(name):
    kubectl(f"wait pod/{name} --for=condition=Ready --timeout=60s")
    return get(f"pod {name}")


def on_fargate():
    nodes = get("nodes -l eks.amazonaws.com/compute-type=fargate")["items"]
    return sorted(node["metadata"]["name"] for node in nodes)


def made():
    EKS.get_waiter("cluster_active").wait(name="dev", WaiterConfig=SOON)
    logged_in("dev")
    refused("a public subnet", lambda: profile("fp", "default", subnets=subnets(True)[:1]),
            "InvalidParameterException", "is not a private subnet")
    refused("another's role", lambda: profile("fp", "default", podExecutionRoleArn=ROLE.replace("FargatePodExecution", "Node")),
            "InvalidParameterException", "Misconfigured PodExecutionRole Trust Policy")
    run(AWS, "eks", "create-fargate-profile", "--cluster-name", "dev", "--fargate-profile-name", "fp",
        "--pod-execution-role-arn", ROLE, "--subnets", *subnets(False), "--selectors", "namespace=def*,labels={on=fargate}")
    run(AWS, "eks", "wait", "fargate-profile-active", "--cluster-name", "dev", "--fargate-profile-name", "fp")
    check("all", EKS.list_fargate_profiles(clusterName="dev")["fargateProfileNames"], ["fp"])
    entry = EKS.describe_access_entry(clusterName="dev", principalArn=ROLE)["accessEntry"]
    check("its nodes log in", (entry["type"], entry["username"]), ("FARGATE_LINUX", "system:node:{{SessionName}}"))

    pod("web", container={"resources": {"requests": {"cpu": "300m", "memory": "800Mi"}}})
    pod("other", labels={"app": "other"})
    web, other = runs("web"), runs("other")
    name = web["spec"]["nodeName"]
    check("who placed them", (web["spec"]["schedulerName"], other["spec"]["schedulerName"]), ("fargate-scheduler", "default-scheduler"))
    check("whose it is", web["metadata"]["labels"]["eks.amazonaws.com/fargate-profile"], "fp")
    check("what it got", web["metadata"]["annotations"]["CapacityProvisioned"], "0.5vCPU 2GB")
    check("the name of its node", name.startswith("fargate-ip-172-31-") and name.endswith(".ec2.internal"), True)
    check("each on its own", other["spec"]["nodeName"], "dev-1")
    node = get(f"node {name}")
    check("the taint", [one for one in node["spec"]["taints"] if one["key"].startswith("eks")],
          [{"key": "eks.amazonaws.com/compute-type", "value": "fargate", "effect": "NoSchedule"}])
    check("its size", (node["status"]["capacity"]["cpu"], node["status"]["capacity"]["pods"]), ("500m", "1"))
    events = [(one["reason"], one["reportingComponent"]) for one in get("events --field-selector involvedObject.name=web")["items"]]
    check("it was told", ("Scheduled", "fargate-scheduler") in events, True)
    check("no instance is shown", EC2.describe_instances(Filters=[{"Name": "instance-type", "Values": ["fargate"]}])["Reservations"], [])
    # They reach each other, and the cluster's names.
    said = kubectl(f"exec other -- wget -q -O - http://{web['status']['podIP']}:8080/version")
    check("from a node to Fargate", said, "version 1\n")
    said = kubectl(f"exec web -- wget -q -O - http://{other['status']['podIP']}:8080/version")
    check("from Fargate to a node", said, "version 1\n")
    contains("names", kubectl("exec web -- nslookup kubernetes.default.svc.cluster.local"), "10.")
    bill = json.loads(run(EKSO, "cost", "--data-dir", DATA, "-o", "json"))
    lines = {(one["what"], one["detail"]): one["count"] for one in bill["lines"]}
    check("what it costs", lines.get(("Fargate pod", "0.5vCPU 2GB")), 1)
    contains("to people", run(EKSO, "cost", "--data-dir", DATA), "EKS control plane")


REFUSED = [
    ("privileged", {}, {"securityContext": {"privileged": True}}, "invalid SecurityContext fields: Privileged"),
    ("host-network", {"hostNetwork": True}, {}, "fields not supported: HostNetwork"),
    ("host-port", {}, {"ports": [{"containerPort": 8080, "hostPort": 8080}]}, "port contains HostIP or HostPort"),
    ("host-path", {"volumes": [{"name": "host", "hostPath": {"path": "/"}}]}, {}, "volumes not supported: host is of an unsupported volume Type"),
    ("gpu", {}, {"resources": {"limits": {"nvidia.com/gpu": "1"}}}, "resources not supported: nvidia.com/gpu"),
]
DAEMON_SET = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: NAME}
spec:
  selector: {matchLabels: {on: fargate, set: NAME}}
  template:
    metadata: {labels: {on: fargate, set: NAME}}
    spec:
      terminationGracePeriodSeconds: 1
      tolerations: TOLERATIONS
      containers: [{name: box, image: "e2e:1", command: [sleep, "3600"]}]
"""


def kinds():
    for name, spec, container, _ in REFUSED:
        pod(name, spec=spec, container=container)
    pod("huge", container={"resources": {"requests": {"cpu": "17"}}})
    for name, _, _, why in REFUSED:
        told = until(name, lambda: condition(name))
        check(name, told, [("POD_UNSUPPORTED_ON_FARGATE", f"Pod not supported on Fargate: {why}")])
    check("too big", until("huge", lambda: condition("huge")),
          [("POD_CPU_MEM_EXCEEDS_MAX_FARGATE_SIZE", "Your pod's cpu/memory requirements exceed the max Fargate configuration")])
    told = until("an event", lambda: [one for one in get("events --field-selector involvedObject.name=privileged")["items"]])
    check("in an event", {(one["type"], one["reason"]) for one in told}, {("Warning", "FailedScheduling")})
    for name, tolerations in (("tainted", "[]"), ("everywhere", "[{operator: Exists}]")):
        kubectl("apply -f -", DAEMON_SET.replace("NAME", name).replace("TOLERATIONS", tolerations))
    kubectl("rollout status daemonset/tainted --timeout=60s")
    held = get("pods -l set=tainted")["items"]
    check("a DaemonSet stays on nodes", [(one["spec"]["schedulerName"], one["spec"]["nodeName"]) for one in held], [("default-scheduler", "dev-1")])
    # What tolerates everything waits for ever beside the node's one pod, as users of EKS know it.
    told = until("a daemon that fits nowhere", lambda: [one for daemon in get("pods -l set=everywhere")["items"] for one in condition(daemon["metadata"]["name"])])
    check("why", [reason for reason, _ in told], ["Unschedulable"])
    contains("why", told[0][1], "Too many pods")
    # Nobody is asked who is put there by hand, or joins a pod that runs: the node and the API refuse it.
    web = get("pod web")
    pod("by-hand", labels={}, spec={"nodeName": web["spec"]["nodeName"]}, container={"securityContext": {"privileged": True}})
    kubectl("wait pod/by-hand --for=jsonpath={.status.phase}=Failed --timeout=60s")
    told = get("pod by-hand")["status"]
    check("by hand", (told["reason"], told["message"]),
          ("NodeReserved", f"Pod was rejected: Node runs the pod with UID {web['metadata']['uid']} alone"))
    contains("a privileged container that joins", kubectl("debug web --image=e2e:1 --profile=sysadmin --container=debugger -- sh", fails=True),
             'pods "web" is forbidden: Pod not supported on Fargate: invalid SecurityContext fields: Privileged')
    pod("forged", labels={"eks.amazonaws.com/fargate-profile": "fp"}, spec={"schedulerName": "fargate-scheduler"})
    check("labels of one's own", until("forged", lambda: condition("forged")),
          [("FARGATE_PROFILE_NOT_FOUND", "Pod does not match the selectors of Fargate profile fp")])
    kubectl("delete daemonset/tainted daemonset/everywhere pod/huge pod/by-hand pod/forged " + " ".join(f"pod/{name}" for name, *_ in REFUSED))
    check("no machine for what cannot run", len(on_fargate()), 1)
    pod("job", spec={"restartPolicy": "Never"}, container={"command": ["echo", "done"]})
    kubectl("wait pod/job --for=jsonpath={.status.phase}=Succeeded --timeout=60s")
    # All processes are killed while these are on their way.
    kubectl("delete pod/web --wait=false")
    for number in range(2):
        pod(f"late-{number}")


def went_on():
    # While pods come and go.
    killed_and_up()
    late = [runs(f"late-{number}") for number in range(2)] + [get("pod job")]
    names = [one["spec"]["nodeName"] for one in late]
    check("a machine each", len(set(names)), 3)
    until("those of pods that are gone go", lambda: on_fargate() == sorted(names))
    check("one that has ended has its logs, and its machine", kubectl("logs job"), "done\n")
    kubectl("delete pod/job")
    until("as long as it is there", lambda: on_fargate() == sorted(names[:2]))


def gone():
    refused("with a profile", lambda: EKS.delete_cluster(name="dev"), "ResourceInUseException", "Fargate profiles attached")
    run(AWS, "eks", "delete-fargate-profile", "--cluster-name", "dev", "--fargate-profile-name", "fp")
    refused("one at a time", lambda: profile("second", "default"), "ResourceInUseException",
            "currently has Fargate profile fp in status DELETING")
    EKS.get_waiter("fargate_profile_deleted").wait(clusterName="dev", fargateProfileName="fp", WaiterConfig=SOON)
    check("its pods went with it", [one["metadata"]["name"] for one in get("pods")["items"]], ["other"])
    check("and their machines", on_fargate(), [])
    entries = EKS.list_access_entries(clusterName="dev")["accessEntries"]
    check("and its role's entry", ROLE in entries, False)


globals()[ACT]()
