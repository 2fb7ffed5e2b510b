"""What the Python client of Kubernetes does all day. Arguments: a kubeconfig, a context, a namespace."""

import datetime
import io
import json
import sys
import tarfile
import threading

from kubernetes import client, config, dynamic, watch
from kubernetes.client.rest import ApiException
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock
from kubernetes.stream import portforward, stream

kubeconfig, context, namespace = sys.argv[1:]
config.load_kube_config(kubeconfig, context=context)
core, apps, batch = client.CoreV1Api(), client.AppsV1Api(), client.BatchV1Api()
LIMIT = 120


def expect(seen, wanted, what):
    assert seen == wanted, f"{what}: {seen!r}, wanted {wanted!r}"


def refused(status, reason, call, *args, **more):
    try:
        call(*args, **more)
    except ApiException as error:
        expect(error.status, status, "the status")
        body = error.body if isinstance(error.body, str) else error.body.decode()
        assert reason in body, body
        return
    raise AssertionError(f"{call} was not refused with {status}")


def objects():
    """Create, read, replace, patch in three ways, list in pages, delete many."""
    made = core.create_namespaced_config_map(
        namespace, {"metadata": {"name": "one", "labels": {"set": "py"}}, "data": {"a": "1"}}
    )
    assert isinstance(made.metadata.creation_timestamp, datetime.datetime)
    refused(409, "AlreadyExists", core.create_namespaced_config_map, namespace, {"metadata": {"name": "one"}})
    made.data["b"] = "2"
    replaced = core.replace_namespaced_config_map("one", namespace, made)
    expect(replaced.data, {"a": "1", "b": "2"}, "replaced")
    refused(409, "Conflict", core.replace_namespaced_config_map, "one", namespace, made)
    merged = core.patch_namespaced_config_map("one", namespace, {"data": {"a": None}})
    expect(merged.data, {"b": "2"}, "merged")
    operations = [{"op": "add", "path": "/data/c", "value": "3"}, {"op": "test", "path": "/data/b", "value": "2"}]
    expect(core.patch_namespaced_config_map("one", namespace, operations).data, {"b": "2", "c": "3"}, "JSON patch")
    refused(422, "must be no more than 63", core.create_namespaced_service, namespace,
            {"metadata": {"name": "x" * 64}, "spec": {"ports": [{"port": 80}]}})
    for number in range(5):
        core.create_namespaced_secret(
            namespace, {"metadata": {"name": f"s{number}", "labels": {"set": "py"}}, "stringData": {"n": str(number)}}
        )
    names, token = [], None
    while token != "":
        page = core.list_namespaced_secret(namespace, label_selector="set=py", limit=2, _continue=token)
        names += [secret.metadata.name for secret in page.items]
        token = page.metadata._continue or ""
    expect(names, [f"s{number}" for number in range(5)], "the pages")
    expect(core.read_namespaced_secret("s3", namespace).data, {"n": "Mw=="}, "a secret")
    core.delete_collection_namespaced_secret(namespace, label_selector="set=py")
    expect(core.list_namespaced_secret(namespace, label_selector="set=py").items, [], "after deleting all")
    expect(core.delete_namespaced_config_map("one", namespace).status, "Success", "deleted")
    refused(404, "NotFound", core.read_namespaced_config_map, "one", namespace)


def watches():
    """A list, and from there each change once, in order."""
    first = core.list_namespaced_config_map(namespace, label_selector="set=watched")

    def change():
        body = {"metadata": {"name": "w", "labels": {"set": "watched"}}, "data": {"v": "0"}}
        core.create_namespaced_config_map(namespace, body)
        for version in "12":
            core.patch_namespaced_config_map("w", namespace, {"data": {"v": version}})
        core.patch_namespaced_config_map("w", namespace, {"metadata": {"labels": {"set": "other"}}})
        core.delete_namespaced_config_map("w", namespace)

    changer = threading.Thread(target=change)
    changer.start()
    seen, watching = [], watch.Watch()
    for event in watching.stream(
        core.list_namespaced_config_map, namespace, label_selector="set=watched",
        resource_version=first.metadata.resource_version, timeout_seconds=LIMIT,
    ):
        seen.append((event["type"], event["object"].data["v"]))
        if event["type"] == "DELETED":
            watching.stop()
    changer.join()
    expect(seen, [("ADDED", "0"), ("MODIFIED", "1"), ("MODIFIED", "2"), ("DELETED", "2")], "the events")
    ended = list(watch.Watch().stream(core.list_namespaced_config_map, namespace, timeout_seconds=1))
    assert all(event["type"] == "ADDED" for event in ended), ended


def pods():
    """Run one, read its log, talk to it in three ways, evict it."""
    core.create_namespaced_pod(namespace, {
        "metadata": {"name": "p", "labels": {"app": "p"}},
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
            "name": "c", "image": "e2e:1",
            "command": ["sh", "-c", "echo first; echo second; exec httpd -f -p 8080 -h /www"],
        }]},
    })
    watching = watch.Watch()
    for event in watching.stream(core.list_namespaced_pod, namespace, field_selector="metadata.name=p", timeout_seconds=LIMIT):
        if event["object"].status.phase == "Running":
            watching.stop()
    expect(core.read_namespaced_pod_log("p", namespace, tail_lines=1), "second\n", "the log")
    following = watch.Watch()
    for line in following.stream(core.read_namespaced_pod_log, "p", namespace, follow=True):
        if line == "second":
            following.stop()
    said = stream(core.connect_get_namespaced_pod_exec, "p", namespace, command=["sh", "-c", "echo out; echo err >&2"],
                  stdout=True, stderr=True)
    expect(sorted(said.split()), ["err", "out"], "exec")
    session = stream(core.connect_get_namespaced_pod_exec, "p", namespace, command=["sh", "-c", "read w; echo got $w; exit 3"],
                     stdin=True, stdout=True, stderr=True, _preload_content=False)
    session.write_stdin("word\n")
    session.run_forever(timeout=LIMIT)
    expect(session.read_stdout(), "got word\n", "what came back")
    expect(session.returncode, 3, "the exit code")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("carried")
        member.size = 5
        archive.addfile(member, io.BytesIO(b"cargo"))
    session = stream(core.connect_get_namespaced_pod_exec, "p", namespace, command=["sh", "-c", "head -c 10240 | tar -xf - -C /tmp && cat /tmp/carried"],
                     stdin=True, stdout=True, stderr=True, binary=True, _preload_content=False)
    session.write_stdin(packed.getvalue())
    session.run_forever(timeout=LIMIT)
    expect(session.read_stdout(), b"cargo", "what was carried")
    forward = portforward(core.connect_get_namespaced_pod_portforward, "p", namespace, ports="8080")
    socket = forward.socket(8080)
    socket.settimeout(LIMIT)
    socket.sendall(b"GET /version HTTP/1.0\r\n\r\n")
    answer = b""
    while part := socket.recv(4096):
        answer += part
    assert answer.endswith(b"version 1\n"), answer
    expect(forward.error(8080), None, "the forward's error")
    expect(core.connect_get_namespaced_pod_proxy_with_path("p:8080", namespace, "version"), "version 1\n", "the proxy")
    core.create_namespaced_pod_eviction("p", namespace, {"metadata": {"name": "p"}})


def scales():
    """A Deployment by its models, its scale and status."""
    apps.create_namespaced_deployment(namespace, client.V1Deployment(
        metadata=client.V1ObjectMeta(name="d"),
        spec=client.V1DeploymentSpec(
            replicas=0,
            selector=client.V1LabelSelector(match_labels={"app": "d"}),
            template=client.V1PodTemplateSpec(
                metadata=client.V1ObjectMeta(labels={"app": "d"}),
                spec=client.V1PodSpec(containers=[client.V1Container(name="c", image="e2e:1")]),
            ),
        ),
    ))
    scale = apps.read_namespaced_deployment_scale("d", namespace)
    expect((scale.spec.replicas, scale.status.selector), (None, "app=d"), "the scale")
    expect(apps.patch_namespaced_deployment_scale("d", namespace, {"spec": {"replicas": 1}}).spec.replicas, 1, "scaled")
    watching = watch.Watch()
    for event in watching.stream(apps.list_namespaced_deployment, namespace, timeout_seconds=LIMIT):
        if event["object"].status.ready_replicas == 1:
            watching.stop()
    apps.delete_namespaced_deployment("d", namespace, propagation_policy="Foreground")
    watching = watch.Watch()
    for event in watching.stream(apps.list_namespaced_deployment, namespace, timeout_seconds=LIMIT):
        if event["type"] == "DELETED":
            watching.stop()
    left = [pod.metadata.name for pod in core.list_namespaced_pod(namespace, label_selector="app=d").items]
    expect(left, [], "pods of a Deployment that was deleted in the foreground")
    batch.create_namespaced_cron_job(namespace, {
        "metadata": {"name": "never"},
        "spec": {"schedule": "0 0 31 2 *", "jobTemplate": {"spec": {"template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "e2e:1"}]}}}}},
    })
    expect(batch.read_namespaced_cron_job("never", namespace).spec.concurrency_policy, "Allow", "a default")


def custom():
    """A definition, its objects through the dynamic client, server-side apply with its conflict."""
    plural = f"pys.{namespace}.example.com"
    extensions = client.ApiextensionsV1Api()
    extensions.create_custom_resource_definition({
        "metadata": {"name": plural},
        "spec": {
            "group": f"{namespace}.example.com", "scope": "Namespaced",
            "names": {"plural": "pys", "singular": "py", "kind": "Py", "listKind": "PyList"},
            "versions": [{"name": "v1", "served": True, "storage": True, "subresources": {"status": {}}, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"size": {"type": "integer", "maximum": 9}, "colour": {"type": "string", "default": "blue"}}},
                    "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                }}}}],
        },
    })
    watching = watch.Watch()
    for event in watching.stream(extensions.list_custom_resource_definition, field_selector=f"metadata.name={plural}", timeout_seconds=LIMIT):
        conditions = {one.type: one.status for one in event["object"].status.conditions or []}
        if conditions.get("Established") == "True":
            watching.stop()
    dyn = dynamic.DynamicClient(client.ApiClient())
    kind = dyn.resources.get(api_version=f"{namespace}.example.com/v1", kind="Py")
    body = {"apiVersion": f"{namespace}.example.com/v1", "kind": "Py", "metadata": {"name": "x"}, "spec": {"size": 1}}
    expect(kind.create(body=body, namespace=namespace).spec.colour, "blue", "a default of the schema")
    refused(422, "should be less than or equal to 9", client.CustomObjectsApi().patch_namespaced_custom_object,
            f"{namespace}.example.com", "v1", namespace, "pys", "x", {"spec": {"size": 10}})
    body["spec"] = {"size": 5}
    refused(409, "conflict with \\\"OpenAPI-Generator\\\"", kind.server_side_apply, body=body, name="x", namespace=namespace, field_manager="py")
    applied = kind.server_side_apply(body=body, name="x", namespace=namespace, field_manager="py", force_conflicts=True)
    expect(applied.spec.to_dict(), {"size": 5, "colour": "blue"}, "applied")
    status = kind.status.patch(body={"status": {"seen": 5}}, name="x", namespace=namespace, content_type="application/merge-patch+json")
    expect(status.status.seen, 5, "the status")
    expect([one.metadata.name for one in kind.get(namespace=namespace).items], ["x"], "the list")
    extensions.delete_custom_resource_definition(plural)


def leaders():
    """The client's own leader election, and a lock that is renewed."""
    led = threading.Event()
    elected = electionconfig.Config(
        ConfigMapLock("lead", namespace, "candidate"), lease_duration=6, renew_deadline=4, retry_period=1,
        onstarted_leading=led.set, onstopped_leading=lambda: None,
    )
    threading.Thread(target=leaderelection.LeaderElection(elected).run, daemon=True).start()
    assert led.wait(LIMIT), "nobody leads"
    watching, times = watch.Watch(), []
    for event in watching.stream(core.list_namespaced_config_map, namespace, field_selector="metadata.name=lead", timeout_seconds=LIMIT):
        record = json.loads(event["object"].metadata.annotations["control-plane.alpha.kubernetes.io/leader"])
        expect(record["holderIdentity"], "candidate", "who leads")
        times.append(record["renewTime"])
        if len(times) == 3:
            watching.stop()
    expect(sorted(set(times)), times, "the renewals")


def rights():
    """A service account's token, and what it may."""
    core.create_namespaced_service_account(namespace, {"metadata": {"name": "reader"}})
    rbac = client.RbacAuthorizationV1Api()
    rbac.create_namespaced_role(namespace, {"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list"]}]})
    rbac.create_namespaced_role_binding(namespace, {
        "metadata": {"name": "r"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": namespace}],
    })
    token = core.create_namespaced_service_account_token("reader", namespace, {"spec": {"expirationSeconds": 600}})
    theirs = client.Configuration.get_default_copy()
    theirs.cert_file = theirs.key_file = None
    theirs.api_key = {"authorization": "Bearer " + token.status.token}
    reader = client.ApiClient(theirs)
    assert client.CoreV1Api(reader).list_namespaced_config_map(namespace).items
    refused(403, f'User \\"system:serviceaccount:{namespace}:reader\\" cannot list resource \\"secrets\\"',
            client.CoreV1Api(reader).list_namespaced_secret, namespace)
    review = client.AuthorizationV1Api(reader).create_self_subject_access_review(
        {"spec": {"resourceAttributes": {"verb": "list", "resource": "configmaps", "namespace": namespace}}})
    expect(review.status.allowed, True, "the review")
    who = client.AuthenticationV1Api(reader).create_self_subject_review({})
    expect(who.status.user_info.username, f"system:serviceaccount:{namespace}:reader", "who it is")


def found():
    """The version, the groups, OpenAPI."""
    expect((client.VersionApi().get_code().major, client.VersionApi().get_code().minor), ("1", "36"), "the version")
    groups = {group.name for group in client.ApisApi().get_api_versions().groups}
    assert {"apps", "batch", "rbac.authorization.k8s.io"} <= groups, groups
    assert len(client.OpenidApi().get_service_account_issuer_open_id_keyset()) > 0


for part in (found, objects, watches, scales, custom, rights, leaders, pods):
    part()
    print(part.__name__, flush=True)
