"""A Deployment under load while its nodes and its cluster change. One act a run; ends with an error at the first surprise."""

import base64
import datetime
import json
import ssl
import sys
import threading
import time
import urllib.request

from prelude import ACT, AWS, EC2, EKS, KUBECTL, SCALING, SOON, check, get, killed_and_up, kubeconfig, kubectl, logged_in, role, run, until

# As somebody writes it who means to lose nothing: Ready is asked, who is told to end first stays a while for those who do not know yet, and
# ends in time; no more than one goes at once.
WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  strategy: {rollingUpdate: {maxUnavailable: 0}}
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      nodeSelector: {eks.amazonaws.com/nodegroup: ng}
      terminationGracePeriodSeconds: 15
      containers:
      - name: web
        image: e2e:1
        command:
        - sh
        - -c
        - |
          printf '#!/bin/sh\\nprintf "Content-Type: text/plain\\\\r\\\\n\\\\r\\\\n"; sleep 1; cat /www/version' >/www/cgi-bin/slow
          chmod +x /www/cgi-bin/slow
          trap 'exit 0' TERM
          httpd -f -p 8080 -h /www & wait
        readinessProbe: {httpGet: {port: 8080, path: /version}, periodSeconds: 1, timeoutSeconds: 5}
        lifecycle: {preStop: {sleep: {seconds: 3}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {maxUnavailable: 1, selector: {matchLabels: {app: web}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: caller}
spec:
  selector: {matchLabels: {app: caller}}
  strategy: {type: Recreate}
  template:
    metadata: {labels: {app: caller}}
    spec:
      nodeSelector: {eks.amazonaws.com/nodegroup: callers}
      terminationGracePeriodSeconds: 0
      containers:
      - name: caller
        image: e2e:1
        command:
        - sh
        - -c
        - |
          ask() {
            until [ -e /tmp/over ]; do
              if wget -q -O - http://$2 >/tmp/$1 2>&1 && grep -q '^version 1$' /tmp/$1; then echo >>/tmp/answered
              else echo "$(date) $2: $(cat /tmp/$1)" >>/tmp/lost; fi
              sleep 0.02
            done
          }
          ask one web/version & ask two $WEB_SERVICE_HOST/version & ask three $WEB_SERVICE_HOST/cgi-bin/slow &
          wait; touch /tmp/ended; sleep 3600
"""
NODE_PORTS = {"IpProtocol": "tcp", "FromPort": 30000, "ToPort": 32767, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}


def of(group="ng"):
    return {"clusterName": "shop", "nodegroupName": group}


def subnets():
    found = EC2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"]
    return [one["SubnetId"] for one in found]


def node_group(name, cluster="shop", zones=3, **scaling):
    EKS.create_nodegroup(clusterName=cluster, nodegroupName=name, nodeRole=role("AmazonEKSNodeRole"), subnets=subnets()[:zones],
                         scalingConfig=scaling)


def members(group="ng", cluster="shop"):
    """The instances of a node group that are not on their way out."""
    filters = [{"Name": "tag:eks:cluster-name", "Values": [cluster]}, {"Name": "tag:eks:nodegroup-name", "Values": [group]},
               {"Name": "instance-state-name", "Values": ["pending", "running"]}]
    found = EC2.describe_instances(Filters=filters)["Reservations"]
    return [one for reservation in found for one in reservation["Instances"]]


class Load:
    """People outside of the cluster who ask again and again, and count what is answered and what is lost."""

    def __init__(self, is_all=True):
        """Without all of them, those are left out who need a process of Ekso's: the API server, and the names that a node serves."""
        self.is_all = is_all
        self.answered, self.lost, self.is_over = 0, [], threading.Event()
        port = get("shop", "service web")["spec"]["ports"][0]["nodePort"]
        node = f"http://{members('callers')[0]['PublicIpAddress']}:{port}"
        askers = [(node + "/version", {}, None), (node + "/cgi-bin/slow", {}, None)]
        if is_all:
            seen = EKS.describe_cluster(name="shop")["cluster"]
            trusted = ssl.create_default_context(cadata=base64.b64decode(seen["certificateAuthority"]["data"]).decode())
            token = json.loads(run(AWS, "eks", "get-token", "--cluster-name", "shop"))["status"]["token"]
            proxy = seen["endpoint"] + "/api/v1/namespaces/default/services/web:80/proxy"
            askers += [(f"{proxy}/{path}", {"Authorization": f"Bearer {token}"}, trusted) for path in ("version", "cgi-bin/slow")]
        self.threads = [threading.Thread(target=self.ask, args=asker) for asker in askers]
        self.inside = count("answered")

    def ask(self, url, headers, trusted):
        while not self.is_over.is_set():
            since = datetime.datetime.now(datetime.UTC)
            try:
                request = urllib.request.Request(url, headers=headers)
                with urllib.request.urlopen(request, context=trusted, timeout=30) as answer:
                    said = answer.read()
                check(url, said, b"version 1\n")
                self.answered += 1
            except (Exception, SystemExit) as failure:  # Whatever it is, a request is lost.
                body = failure.read() if isinstance(failure, urllib.error.HTTPError) else b""
                self.lost.append(f"{since:%H:%M:%S.%f} {url}: {failure!r} {body!r}")
            time.sleep(0.01)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, failed, *_):
        self.is_over.set()
        for thread in self.threads:
            thread.join()
        if failed is None:
            inside_lost = [line for line in inside("cat /tmp/lost 2>/dev/null || true").splitlines()
                           if self.is_all or "bad address" not in line]
            check("requests that were lost", self.lost + inside_lost, [])
            check("somebody asked", self.answered > 100 and count("answered") > self.inside + 100, True)


def inside(script):
    """What a shell prints beside the caller."""
    return run(KUBECTL, "--kubeconfig", kubeconfig("shop"), "exec", "deploy/caller", "--", "sh", "-c", script)


def count(file):
    return int(inside(f"cat /tmp/{file} 2>/dev/null | wc -l"))


def finished(update, **group):
    def look():
        seen = EKS.describe_update(name="shop", updateId=update["id"], **group)["update"]
        if seen["status"] == "Failed":
            sys.exit(f"the update failed: {seen}")
        return seen["status"] == "Successful"
    until(f"{update['type']} {group}", look)


def resized(size):
    config = {"minSize": 1, "maxSize": 5, "desiredSize": size}
    return EKS.update_nodegroup_config(**of(), scalingConfig=config)["update"]


def sized(size):
    finished(resized(size), nodegroupName="ng")
    check("instances", len(members()), size)


def made():
    EKS.create_cluster(name="shop", version="1.34", roleArn=role("AmazonEKSClusterRole"), resourcesVpcConfig={"subnetIds": subnets()})
    EKS.get_waiter("cluster_active").wait(name="shop", WaiterConfig=SOON)
    logged_in("shop")
    node_group("ng", minSize=1, maxSize=5, desiredSize=3)
    node_group("callers", zones=1, minSize=1, maxSize=1, desiredSize=1)
    group = EKS.describe_cluster(name="shop")["cluster"]["resourcesVpcConfig"]["clusterSecurityGroupId"]
    EC2.authorize_security_group_ingress(GroupId=group, IpPermissions=[NODE_PORTS])
    for name in ("ng", "callers"):
        EKS.get_waiter("nodegroup_active").wait(**of(name), WaiterConfig=SOON)
    kubectl("shop", "apply -f -", WEB)
    kubectl("shop", "rollout status deployment/web --timeout=90s")
    called()


def called():
    """Waits until the pod asks and is answered."""
    kubectl("shop", "rollout status deployment/caller --timeout=90s")
    until("somebody asks", lambda: count("answered") > 10)
    inside("rm -f /tmp/lost")


def scaled():
    with Load():
        sized(5)
        kubectl("shop", "scale deployment/web --replicas=8")
        kubectl("shop", "rollout status deployment/web --timeout=90s")
        kubectl("shop", "scale deployment/web --replicas=4")
        sized(1)
    check("all are there", get("shop", "deployment web")["status"]["readyReplicas"], 4)


def updated():
    with Load():
        finished(EKS.update_cluster_version(name="shop", version="1.35")["update"])
        check("the version", json.loads(kubectl("shop", "version -o json"))["serverVersion"]["minor"], "35")
        old = {one["InstanceId"] for one in members()}
        finished(EKS.update_nodegroup_version(**of())["update"], nodegroupName="ng")
        check("nodes were replaced", [one["InstanceId"] in old for one in members()], [False])
    node = get("shop", "nodes -l eks.amazonaws.com/nodegroup=ng")["items"][0]
    check("their version", node["status"]["nodeInfo"]["kubeletVersion"].startswith("v1.35"), True)


def budget(allowed):
    kubectl("shop", f'patch poddisruptionbudget web --type=merge -p {{"spec":{{"maxUnavailable":{allowed}}}}}')


def leaving():
    """The instances of the node group that are being emptied."""
    name = EKS.describe_nodegroup(**of())["nodegroup"]["resources"]["autoScalingGroups"][0]["name"]
    group = SCALING.describe_auto_scaling_groups(AutoScalingGroupNames=[name])["AutoScalingGroups"][0]
    return [one["InstanceId"] for one in group["Instances"] if one["LifecycleState"] == "Terminating:Wait"]


def killed():
    """kill -9 of every process of Ekso's but machines and pods, in the middle of each thing that one asks for."""
    # A cluster is only updated when all of its nodes are.
    finished(EKS.update_nodegroup_version(**of("callers"))["update"], nodegroupName="callers")
    called()
    with Load(is_all=False):
        EKS.create_cluster(name="bank", version="1.36", roleArn=role("AmazonEKSClusterRole"), resourcesVpcConfig={"subnetIds": subnets()})
        killed_and_up()
        EKS.get_waiter("cluster_active").wait(name="bank", WaiterConfig=SOON)
        node_group("ng", "bank", zones=1, minSize=1, maxSize=1, desiredSize=1)
        until("its instance", lambda: members("ng", "bank"))
        killed_and_up()
        EKS.get_waiter("nodegroup_active").wait(clusterName="bank", nodegroupName="ng", WaiterConfig=SOON)
        logged_in("bank")
        kubectl("bank", "wait nodes --all --for=condition=Ready --timeout=60s")

        update = resized(3)
        until("new instances", lambda: len(members()) > 1)
        killed_and_up()
        finished(update, nodegroupName="ng")
        update = resized(1)
        until("nodes that go", leaving)
        killed_and_up()
        finished(update, nodegroupName="ng")
        check("instances", len(members()), 1)

        update = EKS.update_cluster_version(name="shop", version="1.36")["update"]
        killed_and_up()
        finished(update)
        check("the version", json.loads(kubectl("shop", "version -o json"))["serverVersion"]["minor"], "36")
        # A budget that allows nothing keeps the update of the nodes from going on; on AWS, and here, for a quarter of an hour.
        budget(0)
        update = EKS.update_nodegroup_version(**of())["update"]
        until("a node is being emptied", leaving)
        killed_and_up()
        pods = get("shop", "pods -l app=web")["items"]
        check("pods that may not be evicted", [one["metadata"].get("deletionTimestamp") for one in pods], [None] * 4)
        check("and the update", EKS.describe_update(name="shop", nodegroupName="ng", updateId=update["id"])["update"]["status"], "InProgress")
        budget(1)
        finished(update, nodegroupName="ng")

        EKS.delete_nodegroup(clusterName="bank", nodegroupName="ng")
        killed_and_up()
        EKS.get_waiter("nodegroup_deleted").wait(clusterName="bank", nodegroupName="ng", WaiterConfig=SOON)
        EKS.delete_cluster(name="bank")
        killed_and_up()
        EKS.get_waiter("cluster_deleted").wait(name="bank", WaiterConfig=SOON)
    check("restarts", {one["restartCount"] for pod in get("shop", "pods")["items"] for one in pod["status"]["containerStatuses"]}, {0})


def gone():
    inside("touch /tmp/over")
    until("the last answers", lambda: inside("ls /tmp/ended 2>/dev/null || true"))
    kubectl("shop", "delete poddisruptionbudget web")
    for name in ("ng", "callers"):
        EKS.delete_nodegroup(**of(name))
    for name in ("ng", "callers"):
        EKS.get_waiter("nodegroup_deleted").wait(**of(name), WaiterConfig=SOON)
    EKS.delete_cluster(name="shop")
    EKS.get_waiter("cluster_deleted").wait(name="shop", WaiterConfig=SOON)
    check("clusters", EKS.list_clusters()["clusters"], ["dev"])
    left = [one["Description"] for one in EC2.describe_network_interfaces()["NetworkInterfaces"]]
    check("interfaces", [one for one in left if "shop" in one or "bank" in one], [])
    check("instances", [one["InstanceId"] for each in EC2.describe_instances(Filters=[
        {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "shutting-down"]}])["Reservations"]
        for one in each["Instances"]], [])
    check("groups", [one["GroupName"] for one in EC2.describe_security_groups()["SecurityGroups"] if "shop" in one["GroupName"]], [])
    check("templates", EC2.describe_launch_templates()["LaunchTemplates"], [])


globals()[ACT]()
