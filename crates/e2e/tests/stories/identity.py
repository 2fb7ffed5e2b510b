"""Roles for pods as boto3 sees them, outside and inside of pods. One act a run; ends with an error at the first surprise."""

import base64
import glob
import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import sysconfig
import urllib.request

import boto3
import botocore.exceptions

from prelude import (ACCOUNT, ACT, AWS, CONFIG, EC2, EKS, IAM, KUBECTL, SCRATCH, SOON, WORDS, check, contains, killed_and_up, kubeconfig,
                     kubectl, logged_in, processes, run, until)

IRSA_TOKEN = "/var/run/secrets/eks.amazonaws.com/serviceaccount/token"
POD_TOKEN = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token"
AGENT = "http://169.254.170.23/v1/credentials"


def inside(pod, script, *args, cluster="shop"):
    """What a script prints in a pod, `namespace/name`."""
    namespace, name = pod.split("/")
    return run(KUBECTL, "--kubeconfig", kubeconfig(cluster), "-n", namespace, "exec", name, "--",
               "/bin/python", "-c", script, *args)


# What an application does: its SDK as it is, configured by nothing but what the pod was given.
CALLS = """
import json, sys
import boto3
told = []
for service, operation, members in json.loads(sys.argv[1]):
    try:
        answer = getattr(boto3.client(service), operation)(**members)
        answer.pop("ResponseMetadata")
        told.append(["OK", answer])
    except Exception as failure:
        error = getattr(failure, "response", {}).get("Error", {})
        told.append([error.get("Code", type(failure).__name__), error.get("Message", str(failure))])
print(json.dumps(told, default=str))
"""
WHO = ["sts", "get_caller_identity", {}]
VPCS = ["ec2", "describe_vpcs", {}]
CLUSTERS = ["eks", "list_clusters", {}]


def calls(pod, *wanted, cluster="shop"):
    return json.loads(inside(pod, CALLS, json.dumps(wanted), cluster=cluster))


def acts_as(pod, role):
    """The session of a pod that acts as its role, and may what its role may."""
    who, vpcs = calls(pod, WHO, VPCS)
    check(f"who {pod} is", who[0], "OK")
    contains(f"who {pod} is", who[1]["Arn"], f"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/")
    check(f"what {pod} may", (vpcs[0], len(vpcs[1].get("Vpcs", []))), ("OK", 1))
    return who[1]["Arn"]


def refused(what, pod, code, part, cluster="shop"):
    ((seen, message),) = calls(pod, WHO, cluster=cluster)
    check(what, seen, code)
    contains(what, message, part)


def packed():
    """A folder with this Python, its SDK and what the loader says that they need."""
    root = f"{SCRATCH}/sdk"
    stdlib = sysconfig.get_path("stdlib")
    skipped = shutil.ignore_patterns("test", "tests", "site-packages", "dist-packages", "idlelib", "tkinter", "ensurepip",
                                     "turtledemo", "lib2to3", "config-*", "__pycache__", "*.a")
    shutil.copytree(stdlib, root + stdlib, ignore=skipped)
    program = os.path.realpath(sys.executable)
    needed = {program}
    for part in [program, *glob.glob(f"{stdlib}/lib-dynload/*.so")]:
        found = subprocess.run(["ldd", part], capture_output=True, text=True).stdout
        needed.update(word for word in found.split() if word.startswith("/"))
    for file in needed:
        os.makedirs(os.path.dirname(root + file), exist_ok=True)
        shutil.copy(file, root + file)
    for folder in ("bin", "tmp", "etc"):
        os.makedirs(f"{root}/{folder}", exist_ok=True)
    shutil.copy(WORDS[0], f"{root}/bin/busybox")
    os.symlink(program, f"{root}/bin/python")
    sdk = os.path.dirname(os.path.dirname(boto3.__file__))
    site = f"{root}{stdlib}/site-packages"
    for package in ("boto3", "botocore", "dateutil", "jmespath", "s3transfer", "urllib3", "six.py"):
        source = f"{sdk}/{package}"
        if package.endswith(".py"):
            shutil.copy(source, site)
        else:
            shutil.copytree(source, f"{site}/{package}", ignore=shutil.ignore_patterns("data", "__pycache__"))
    # Of the many services, those that are asked.
    for package, services in (("boto3", ("ec2",)), ("botocore", ("ec2", "eks", "eks-auth", "sts", "sso", "sso-oidc", "iam"))):
        for name in os.listdir(f"{sdk}/{package}/data"):
            source, target = f"{sdk}/{package}/data/{name}", f"{site}/{package}/data/{name}"
            if name in services:
                shutil.copytree(source, target)
            elif os.path.isfile(source):
                os.makedirs(os.path.dirname(target), exist_ok=True)
                shutil.copy(source, target)


def subnets():
    found = EC2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"]
    return [one["SubnetId"] for one in found]


def role_arn(name):
    return f"arn:aws:iam::{ACCOUNT}:role/{name}"


def issuer(cluster):
    return EKS.describe_cluster(name=cluster)["cluster"]["identity"]["oidc"]["issuer"]


def document(url):
    """As whoever checks tokens fetches it: over TLS, by the authority that the profile names."""
    context = ssl.create_default_context(cafile=CONFIG["ca_bundle"])
    with urllib.request.urlopen(url, context=context, timeout=30) as answer:
        return json.load(answer)


def statement(effect="Allow", **members):
    return {"Version": "2012-10-17", "Statement": [{"Effect": effect, **members}]}


def role(name, trust, *allowed):
    IAM.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
    for number, policy in enumerate(allowed):
        IAM.put_role_policy(RoleName=name, PolicyName=f"p{number}", PolicyDocument=json.dumps(policy))


def by_irsa(name, *subjects):
    return statement(
        Principal={"Federated": f"arn:aws:iam::{ACCOUNT}:oidc-provider/{name}"}, Action="sts:AssumeRoleWithWebIdentity",
        Condition={"StringEquals": {f"{name}:sub": list(subjects), f"{name}:aud": "sts.amazonaws.com"}})


def by_association(actions=("sts:AssumeRole", "sts:TagSession"), **condition):
    return statement(Principal={"Service": "pods.eks.amazonaws.com"}, Action=list(actions), **condition)


SEES = statement(Action="ec2:DescribeVpcs", Resource="*")


def made():
    for cluster in ("dev", "shop"):
        if cluster == "shop":
            EKS.create_cluster(name="shop", roleArn=role_arn("AmazonEKSClusterRole"), resourcesVpcConfig={"subnetIds": subnets()})
        EKS.get_waiter("cluster_active").wait(name=cluster, WaiterConfig=SOON)
        logged_in(cluster)
    EKS.create_nodegroup(clusterName="shop", nodegroupName="ng", subnets=subnets(), nodeRole=role_arn("AmazonEKSNodeRole"),
                         scalingConfig={"minSize": 1, "maxSize": 1, "desiredSize": 1})
    # The issuer says what it is and with what it signs.
    url = issuer("shop")
    said = document(f"{url}/.well-known/openid-configuration")
    check("the issuer", (said["issuer"], said["jwks_uri"]), (url, f"{url}/keys"))
    keys = document(said["jwks_uri"])["keys"]
    token = kubectl("shop", "create token default --audience=sts.amazonaws.com").strip()
    header = json.loads(base64.urlsafe_b64decode(token.split(".")[0] + "=="))
    check("the key that a token names", [key["alg"] for key in keys if key["kid"] == header["kid"]], [header["alg"]])
    name = url.removeprefix("https://")
    made = IAM.create_open_id_connect_provider(Url=url, ClientIDList=["sts.amazonaws.com"], ThumbprintList=["0" * 40])
    host, path = name.split("/", 1)
    check("its ARN", made["OpenIDConnectProviderArn"],
          f"arn:aws:iam::{ACCOUNT}:oidc-provider/{host.split(':')[0]}/{path}")
    role("irsa", by_irsa(name, "system:serviceaccount:web:app", "system:serviceaccount:web:audience"), SEES)
    role("elsewhere", by_irsa(name, "system:serviceaccount:other:app"), SEES)
    role("pods", by_association(), statement(
        Action="ec2:DescribeVpcs", Resource="*",
        Condition={"StringEquals": {"aws:PrincipalTag/kubernetes-namespace": "web", "aws:PrincipalTag/eks-cluster-name": "shop",
                                    "aws:PrincipalTag/kubernetes-service-account": "pod"}}))
    role("others", by_association(), SEES)
    role("untagged", by_association(["sts:AssumeRole"]), SEES)
    for cluster in ("dev", "shop"):
        arn = EKS.describe_cluster(name=cluster)["cluster"]["arn"]
        source = {"ArnEquals": {"aws:SourceArn": arn}, "StringEquals": {"aws:SourceAccount": ACCOUNT}}
        role(f"of-{cluster}", by_association(Condition=source), SEES)


def account(name, role=None, **annotations):
    if role:
        annotations["role-arn"] = role_arn(role)
    annotations = {f"eks.amazonaws.com/{key}": value for key, value in annotations.items()}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "annotations": annotations}}


def pod(name):
    container = {"name": "sdk", "image": "sdk:1"}
    spec = {"serviceAccountName": name, "terminationGracePeriodSeconds": 0, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def put(cluster, namespace, *objects):
    kubectl(cluster, f"-n {namespace} apply -f -", json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))


def ready(cluster, namespace):
    kubectl(cluster, f"-n {namespace} wait pod --all --for=condition=Ready --timeout=100s")


def associate(namespace, account, role):
    made = EKS.create_pod_identity_association(clusterName="shop", namespace=namespace, serviceAccount=account, roleArn=role_arn(role))
    return made["association"]["associationId"]


def placed():
    EKS.get_waiter("nodegroup_active").wait(clusterName="shop", nodegroupName="ng", WaiterConfig=SOON)
    for namespace in ("web", "bank"):
        kubectl("shop", f"create namespace {namespace}")
    accounts = [account("app", "irsa"), account("stranger", "irsa"), account("trusted-not", "elsewhere"),
                account("audience", "irsa", audience="vault"), account("plain"), account("pod")]
    put("shop", "web", *accounts)
    put("shop", "bank", account("pod"))
    # The association is there before its pods, as on EKS.
    associate("web", "pod", "pods")
    associate("bank", "pod", "pods")
    put("shop", "web", *[pod(one["metadata"]["name"]) for one in accounts])
    put("shop", "bank", pod("pod"))
    put("dev", "default", account("app", "irsa"), pod("app"))
    for cluster, namespace in (("shop", "web"), ("shop", "bank"), ("dev", "default")):
        ready(cluster, namespace)
    told = json.loads(kubectl("shop", "-n web get pod app -o json"))["spec"]
    variables = {one["name"]: one["value"] for one in told["containers"][0]["env"]}
    check("what the pod was told", variables["AWS_WEB_IDENTITY_TOKEN_FILE"], IRSA_TOKEN)
    check("for whom its token is", [source["serviceAccountToken"]["audience"] for volume in told["volumes"]
                                    if volume["name"] == "aws-iam-token" for source in volume["projected"]["sources"]],
          ["sts.amazonaws.com"])


# The SDK's clock ahead, to where its keys are about to end: it reads the token anew and asks for others.
REFRESHED = """
import datetime
import boto3, botocore.credentials as credentials
session = boto3.Session()
held = session.get_credentials()
first = held.get_frozen_credentials().access_key
usual = credentials._local_now
ahead = held._expiry_time - usual() - datetime.timedelta(minutes=14)
credentials._local_now = held._time_fetcher = lambda: usual() + ahead
second = held.get_frozen_credentials().access_key
print(first != second, session.client("sts").get_caller_identity()["Arn"].split("/")[1])
"""


# Whoever checks tokens in a pod believes what every pod is given; at the issuers' address nothing else is to be had.
ISSUER = """
import json, ssl, sys, urllib.error, urllib.request
context = ssl.create_default_context(cafile="/var/run/secrets/kubernetes.io/serviceaccount/ca.crt")
def ask(url, body=None):
    try:
        with urllib.request.urlopen(url, body, context=context, timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, None
url = sys.argv[1]
root = "/".join(url.split("/")[:3]) + "/"
print(json.dumps([ask(url + "/.well-known/openid-configuration"), ask(url + "/keys"), ask(root, b"Action=GetCallerIdentity&Version=2011-06-15")]))
"""


def irsa():
    url = issuer("shop")
    said, keys, other = json.loads(inside("web/app", ISSUER, url))
    check("the issuer as a pod sees it", (said[0], said[1]["issuer"], said[1]["jwks_uri"]), (200, url, f"{url}/keys"))
    check("its keys as a pod sees them", keys, [200, document(f"{url}/keys")])
    check("what is no document of an issuer", other, [404, None])
    acts_as("web/app", "irsa")
    ((code, message),) = calls("web/app", CLUSTERS)
    check("what the role may not", code, "AccessDeniedException")
    contains("what the role may not", message, f"User: arn:aws:sts::{ACCOUNT}:assumed-role/irsa/")
    contains("what the role may not", message, "is not authorized to perform: eks:ListClusters on resource: ")
    contains("what the role may not", message, "because no identity-based policy allows the eks:ListClusters action")
    denied = "Not authorized to perform sts:AssumeRoleWithWebIdentity"
    refused("another service account", "web/stranger", "AccessDenied", denied)
    refused("a role that trusts another", "web/trusted-not", "AccessDenied", denied)
    refused("another audience", "web/audience", "InvalidIdentityToken", "Incorrect token audience")
    # Another cluster's token is of an issuer that nobody has vouched for.
    refused("another cluster", "dev/app".replace("dev", "default"), "InvalidIdentityToken",
            "No OpenIDConnect provider found in your account for " + issuer("dev"), cluster="dev")
    check("keys that ended", inside("web/app", REFRESHED).split(), ["True", "irsa"])
    # What is said of the role holds for the sessions that it has already.
    IAM.put_role_policy(RoleName="irsa", PolicyName="p0", PolicyDocument=json.dumps(statement("Deny", Action="*", Resource="*")))
    ((code, message),) = calls("web/app", VPCS)
    check("a policy that changed", code, "UnauthorizedOperation")
    contains("a policy that changed", message, "with an explicit deny in an identity-based policy")
    IAM.put_role_policy(RoleName="irsa", PolicyName="p0", PolicyDocument=json.dumps(SEES))


def asked(pod, path, *, header="", cluster="shop"):
    """The status and the text of an agent's answer to a token in a file."""
    script = f"""
import urllib.request, urllib.error
token = open({path!r}).read() if {path!r} else ''
request = urllib.request.Request({AGENT!r}, headers={{'Authorization': token, **{header or {}!r}}})
try:
    print(200, urllib.request.urlopen(request, timeout=5).read().decode())
except urllib.error.HTTPError as error:
    print(error.code, error.read().decode())
except Exception as failure:
    print(0, failure)
"""
    code, text = inside(pod, script, cluster=cluster).split(" ", 1)
    return int(code), text


def pod_identity():
    # On EKS there is no agent without the add-on.
    check("no add-on", asked("web/pod", POD_TOKEN)[0], 0)
    EKS.create_addon(clusterName="shop", addonName="eks-pod-identity-agent")
    EKS.get_waiter("addon_active").wait(clusterName="shop", addonName="eks-pod-identity-agent", WaiterConfig=SOON)
    arn = acts_as("web/pod", "pods")
    contains("its session", arn, "/pods/eks-shop-pod-")
    # The same role from another namespace: its tags are others.
    who, vpcs = calls("bank/pod", WHO, VPCS)
    check("another namespace", (who[0], vpcs[0]), ("OK", "UnauthorizedOperation"))
    check("keys that ended", inside("web/pod", REFRESHED).split(), ["True", "pods"])
    (known,) = EKS.list_pod_identity_associations(clusterName="shop", namespace="web")["associations"]
    of = {"clusterName": "shop", "associationId": known["associationId"]}
    for name, code, part in (
        ("others", 200, "AccessKeyId"),
        ("untagged", 400, "(AccessDeniedException): "),
        # A role for one cluster only, and this is the other.
        ("of-shop", 200, "AccessKeyId"),
        ("of-dev", 400, "(AccessDeniedException): "),
    ):
        EKS.update_pod_identity_association(**of, roleArn=role_arn(name))
        seen = asked("web/pod", POD_TOKEN)
        check(f"the role {name}", seen[0], code)
        contains(f"the role {name}", seen[1], part)
    EKS.update_pod_identity_association(**of, roleArn=role_arn("others"))
    acts_as("web/pod", "others")
    EKS.delete_pod_identity_association(**of)
    code, text = asked("web/pod", POD_TOKEN)
    check("an association that is gone", code, 404)
    contains("an association that is gone", text, "(ResourceNotFoundException): No association found for the service account web/pod")
    associate("web", "pod", "pods")
    acts_as("web/pod", "pods")
    # The node asks with its own role, which has to be allowed that.
    worker = "arn:aws:iam::aws:policy/AmazonEKSWorkerNodePolicy"
    IAM.detach_role_policy(RoleName="AmazonEKSNodeRole", PolicyArn=worker)
    code, text = asked("web/pod", POD_TOKEN)
    check("a node that may not ask", code, 400)
    contains("a node that may not ask", text, "is not authorized to perform: eks-auth:AssumeRoleForPodIdentity on resource: ")
    IAM.attach_role_policy(RoleName="AmazonEKSNodeRole", PolicyArn=worker)


# Whether a connection comes about, and what the first line of the answer to a request is.
DIALLED = """
import socket, sys
host, port, request = sys.argv[1], int(sys.argv[2]), sys.argv[3].replace("|", "\\r\\n")
try:
    with socket.create_connection((host, port), 2) as dialled:
        dialled.settimeout(2)
        dialled.sendall(request.encode())
        print(dialled.recv(200).decode(errors="replace").split("\\r\\n")[0] or "nothing")
except OSError as failure:
    print("nothing:", failure)
"""


def dialled(pod, host, port, request="GET / HTTP/1.0||", cluster="shop"):
    return inside(pod, DIALLED, host, str(port), request, cluster=cluster).strip()


def unanswered(what, *where, **more):
    contains(what, dialled(*where, **more).split(":")[0], "nothing")


# A call to STS with a token that is changed on the way.
FORGED = """
import base64, json, sys
import boto3
token = open(sys.argv[1]).read()
head, claims, signature = token.split(".")
decode = lambda part: json.loads(base64.urlsafe_b64decode(part + "=="))
encode = lambda value: base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")
none = encode({**decode(head), "alg": "none"})
other = encode({**decode(claims), "sub": "system:serviceaccount:web:app"})
long = encode({**decode(claims), "exp": decode(claims)["exp"] + 10**6})
swapped = signature[:-2] + ("AA" if signature[-2:] != "AA" else "BB")
sts = boto3.client("sts")
for forged in (f"{none}.{claims}.", f"{none}.{claims}.{signature}", f"{head}.{other}.{signature}", f"{head}.{long}.{signature}",
               f"{head}.{claims}.{swapped}", f"{head}.{claims}.", "a.b.c"):
    try:
        sts.assume_role_with_web_identity(RoleArn=sys.argv[2], RoleSessionName="forged", WebIdentityToken=forged)
        print("given")
    except sts.exceptions.InvalidIdentityTokenException:
        print("refused")
"""

# A presigned URL, by keys of a pod, opened after the quarter of an hour that STS gives it, before its time, and when one of its parts was changed.
PRESIGNED = """
import datetime, os, urllib.error, urllib.request
import boto3, botocore.auth
sts = boto3.client("sts")
usual = botocore.auth.get_current_datetime
def at(seconds):
    botocore.auth.get_current_datetime = lambda *args, **more: usual(*args, **more) + datetime.timedelta(seconds=seconds)
    return sts.generate_presigned_url("get_caller_identity", ExpiresIn=60, HttpMethod="GET")
def opened(url):
    try:
        return urllib.request.urlopen(url, timeout=5).status
    except urllib.error.HTTPError as error:
        return error.code
now = at(0)
print(opened(now), opened(at(-901)), opened(at(1200)), opened(now.replace("Expires=60", "Expires=3600")),
      opened(now.replace("GetCallerIdentity", "GetSessionToken")), opened(now[:-4] + "0000"))
"""


def attacks():
    check("the token of the app", inside("web/app", FORGED, IRSA_TOKEN, role_arn("irsa")).split(), ["refused"] * 7)
    check("presigned", inside("web/app", PRESIGNED).split(), ["200", "403", "403", "403", "403", "403"])
    # The agent takes no token of another cluster, purpose or making, under no other name, and for no pod without association.
    other = kubectl("dev", "create token default --audience=pods.eks.amazonaws.com").strip()
    for what, token, code, part in (
        ("another cluster's", other, 400, "(InvalidTokenException): The token is not of this cluster"),
        ("one for the API", kubectl("shop", "-n web create token pod").strip(), 400, "(InvalidTokenException): The token is for another audience"),
        ("one of no pod", kubectl("shop", "-n web create token pod --audience=pods.eks.amazonaws.com").strip(), 400, "(InvalidTokenException): The token is not bound to a pod"),
        ("none", "", 400, "Service account token cannot be empty"),
    ):
        script = f"import os\nopen('/tmp/token', 'w').write({token!r})"
        inside("web/pod", script)
        seen = asked("web/pod", "/tmp/token")
        check(what, seen[0], code)
        contains(what, seen[1], part)
    code, text = asked("web/pod", POD_TOKEN, header={"Host": "rebound.example"})
    check("a rebound name", code, 403)
    contains("a rebound name", text, "Called agent through invalid address")
    code, text = asked("web/app", IRSA_TOKEN)
    check("a token for STS", code, 400)
    contains("a token for STS", text, "(InvalidTokenException): The token is for another audience")
    # A token of this cluster from a node of the other, which has no add-on, and after it has.
    token = inside("web/pod", f"print(open({POD_TOKEN!r}).read())").strip()
    inside("default/app", f"open('/tmp/token', 'w').write({token!r})", cluster="dev")
    check("a node without the add-on", asked("default/app", "/tmp/token", cluster="dev")[0], 0)
    EKS.create_addon(clusterName="dev", addonName="eks-pod-identity-agent")
    code, text = asked("default/app", "/tmp/token", cluster="dev")
    check("a node of another cluster", code, 400)
    contains("a node of another cluster", text, "(InvalidTokenException): The token is not of this cluster")
    # The door for AWS: signed calls only, and under its own name.
    door = "169.254.169.250"
    contains("unsigned", dialled("web/plain", door, 80, f"GET /clusters HTTP/1.0|Host: {door}||"), " 403 ")
    contains("a foreign name", dialled("web/plain", door, 80, "GET /clusters HTTP/1.0|Host: evil.example||"), " 403 ")
    ((code, _),) = calls("web/plain", WHO)
    check("a pod without a role", code in ("NoRegionError", "NoCredentialsError"), True)
    # Metadata: none of the first version, and no token of the second beyond the node.
    seen = dialled("web/plain", "169.254.169.254", 80, "GET /latest/meta-data/ HTTP/1.0||")
    check("metadata of version 1", seen.startswith("nothing") or " 401 " in seen, True)
    put_token = "PUT /latest/api/token HTTP/1.0|X-aws-ec2-metadata-token-ttl-seconds: 60||"
    unanswered("metadata from a pod", "web/plain", "169.254.169.254", 80, request=put_token)
    # The host: its loopback address is the pod's own, and its end of the link is shut.
    port = CONFIG["endpoint_url"].rsplit(":", 1)[1]
    (node,) = json.loads(kubectl("dev", "get nodes -o json"))["items"]
    (public,) = [one["address"] for one in node["status"]["addresses"] if one["type"] == "ExternalIP"]
    for address in ("127.0.0.1", "169.254.1.1", public.rsplit(".", 1)[0] + ".1"):
        unanswered(f"the host at {address}", "web/plain", address, port)
    endpoints = json.loads(kubectl("dev", "get endpoints kubernetes -o json"))
    api = endpoints["subsets"][0]["addresses"][0]["ip"]
    unanswered("the API of another cluster", "web/plain", api, 443)
    # Its own is there, so that it is not the way that is shut.
    own = json.loads(kubectl("shop", "get endpoints kubernetes -o json"))["subsets"][0]["addresses"][0]["ip"]
    inside("web/plain", f"import socket\nsocket.create_connection(({own!r}, 443), 5)")
    # Another account's token is not for the asking.
    own = inside("web/app", "print(open('/var/run/secrets/kubernetes.io/serviceaccount/token').read())").strip()
    place = EKS.describe_cluster(name="shop")["cluster"]["endpoint"]
    as_pod = [KUBECTL, "--kubeconfig", "/dev/null", "--server", place, "--insecure-skip-tls-verify", f"--token={own}", "-n", "web"]
    contains("itself", run(*as_pod, "auth", "whoami", "-o", "json"), "system:serviceaccount:web:app")
    for words in ("create token pod --audience=pods.eks.amazonaws.com", "get secrets", "exec pod -- /bin/busybox id"):
        contains(words, run(*as_pod, *words.split(), fails=True), "orbidden")
    # A pod's keys open no cluster, not even its own: its role has no access entry.
    keys = json.loads(inside("web/app", "import boto3,json\nk=boto3.Session().get_credentials().get_frozen_credentials()\n"
                                        "print(json.dumps([k.access_key,k.secret_key,k.token]))"))
    variables = {**os.environ, "AWS_ACCESS_KEY_ID": keys[0], "AWS_SECRET_ACCESS_KEY": keys[1], "AWS_SESSION_TOKEN": keys[2],
                 "AWS_ENDPOINT_URL": CONFIG["endpoint_url"], "AWS_CA_BUNDLE": CONFIG["ca_bundle"], "AWS_DEFAULT_REGION": CONFIG["region"]}
    variables.pop("AWS_PROFILE")
    token = json.loads(subprocess.run([AWS, "eks", "get-token", "--cluster-name", "shop"], env=variables, capture_output=True,
                                      text=True, check=True).stdout)["status"]["token"]
    said = run(KUBECTL, "--kubeconfig", "/dev/null", "--server", place, "--insecure-skip-tls-verify", f"--token={token}",
               "get", "namespaces", fails=True)
    contains("a pod's keys at the API", said, "Unauthorized")
    # Keys of a role that is made again under the same name are another's.
    IAM.delete_role_policy(RoleName="irsa", PolicyName="p0")
    trust = IAM.get_role(RoleName="irsa")["Role"]["AssumeRolePolicyDocument"]
    IAM.delete_role(RoleName="irsa")
    role("irsa", trust, SEES)
    held = {"region_name": CONFIG["region"], "endpoint_url": CONFIG["endpoint_url"], "verify": CONFIG["ca_bundle"],
            "aws_access_key_id": keys[0], "aws_secret_access_key": keys[1], "aws_session_token": keys[2]}
    for service, operation, code in (("sts", "get_caller_identity", "InvalidClientTokenId"), ("ec2", "describe_vpcs", "AuthFailure"),
                                     ("eks", "list_clusters", "UnrecognizedClientException")):
        try:
            getattr(boto3.client(service, **held), operation)()
            sys.exit(f"keys of a role that is gone open {service} for its successor")
        except botocore.exceptions.ClientError as error:
            check("keys of a role that is gone", error.response["Error"]["Code"], code)
    acts_as("web/app", "irsa")


def node_process():
    """The process of the node's agent, which its machine starts anew."""
    name = json.loads(kubectl("shop", "get nodes -o json"))["items"][0]["metadata"]["name"]
    return next(processes("node", "--server", name))


def went_on():
    # What a pod got before, it gets after: nothing of it is remembered by the daemon.
    killed_and_up()
    EKS.get_waiter("cluster_active").wait(name="shop", WaiterConfig=SOON)
    acts_as("web/app", "irsa")
    acts_as("web/pod", "pods")
    # A node that starts anew asks for new tokens, and what was given for the old ones goes on.
    read = f"print(open({IRSA_TOKEN!r}).read())"
    old = inside("web/app", read)
    os.kill(node_process(), signal.SIGKILL)
    def rotated():
        done = subprocess.run([KUBECTL, "--kubeconfig", kubeconfig("shop"), "-n", "web", "exec", "app", "--", "/bin/python",
                               "-c", read], capture_output=True, text=True, timeout=60)
        return done.returncode == 0 and done.stdout != old
    until("a new token", rotated)
    acts_as("web/app", "irsa")
    acts_as("web/pod", "pods")


def gone():
    EKS.delete_nodegroup(clusterName="shop", nodegroupName="ng")
    EKS.get_waiter("nodegroup_deleted").wait(clusterName="shop", nodegroupName="ng", WaiterConfig=SOON)
    EKS.delete_cluster(name="shop")
    EKS.get_waiter("cluster_deleted").wait(name="shop", WaiterConfig=SOON)


globals()[ACT]()
