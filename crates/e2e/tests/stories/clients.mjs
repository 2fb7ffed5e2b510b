// What the JavaScript client of Kubernetes does all day. Arguments: its folder, a kubeconfig, a context, a namespace.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { PassThrough } from "node:stream";
import net from "node:net";

const [modules, kubeconfig, context, namespace] = process.argv.slice(2);
const k8s = createRequire(`${modules}/`)("@kubernetes/client-node");

const config = new k8s.KubeConfig();
config.loadFromFile(kubeconfig);
config.setCurrentContext(context);
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);
const LIMIT = 120_000;

const within = (promise, what) => {
  let timer;
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error(`${what} did not come`)), LIMIT)));
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};

const refused = (code, reason, promise) =>
  assert.rejects(promise, (error) => {
    assert.equal(error.code, code);
    assert.match(typeof error.body === "string" ? error.body : JSON.stringify(error.body), reason);
    return true;
  });

/** Create, read, replace, patch, list in pages, delete many. */
async function objects() {
  const made = await core.createNamespacedConfigMap({ namespace, body: { metadata: { name: "one" }, data: { a: "1" } } });
  assert.ok(made.metadata.creationTimestamp instanceof Date);
  await refused(409, /AlreadyExists/, core.createNamespacedConfigMap({ namespace, body: { metadata: { name: "one" } } }));
  const replaced = await core.replaceNamespacedConfigMap({ namespace, name: "one", body: { ...made, data: { b: "2" } } });
  assert.deepEqual(replaced.data, { b: "2" });
  await refused(409, /Conflict/, core.replaceNamespacedConfigMap({ namespace, name: "one", body: made }));
  const merge = k8s.setHeaderOptions("Content-Type", k8s.PatchStrategy.MergePatch);
  const merged = await core.patchNamespacedConfigMap({ namespace, name: "one", body: { data: { b: null, c: "3" } } }, merge);
  assert.deepEqual(merged.data, { c: "3" });
  const operations = await core.patchNamespacedConfigMap({ namespace, name: "one", body: [{ op: "move", from: "/data/c", path: "/data/d" }] });
  assert.deepEqual(operations.data, { d: "3" });
  for (let number = 0; number < 5; number++) {
    await core.createNamespacedSecret({ namespace, body: { metadata: { name: `s${number}`, labels: { set: "js" } } } });
  }
  const names = [];
  let token;
  do {
    const page = await core.listNamespacedSecret({ namespace, labelSelector: "set=js", limit: 2, _continue: token });
    names.push(...page.items.map((secret) => secret.metadata.name));
    token = page.metadata._continue;
  } while (token);
  assert.deepEqual(names, ["s0", "s1", "s2", "s3", "s4"]);
  await core.deleteCollectionNamespacedSecret({ namespace, labelSelector: "set=js" });
  assert.equal((await core.listNamespacedSecret({ namespace, labelSelector: "set=js" })).items.length, 0);
  await core.deleteNamespacedConfigMap({ namespace, name: "one" });
  await refused(404, /NotFound/, core.readNamespacedConfigMap({ namespace, name: "one" }));
}

/** An informer: what is there, what comes, what changes, what goes. */
async function informers() {
  const body = (name, value) => ({ metadata: { name, labels: { set: "informed" } }, data: { value } });
  await core.createNamespacedConfigMap({ namespace, body: body("before", "0") });
  const list = () => core.listNamespacedConfigMap({ namespace, labelSelector: "set=informed" });
  const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/configmaps`, list, "set=informed");
  const seen = [];
  let heard = () => {};
  for (const verb of ["add", "update", "delete"]) {
    informer.on(verb, (object) => {
      seen.push(`${verb} ${object.metadata.name} ${object.data.value}`);
      heard();
    });
  }
  const failed = new Promise((_, reject) => informer.on("error", reject));
  const reached = (count) =>
    within(Promise.race([failed, new Promise((resolve) => {
      heard = () => seen.length >= count && resolve();
      heard();
    })]), `event ${count}`);
  await informer.start();
  await reached(1);
  await core.createNamespacedConfigMap({ namespace, body: body("after", "1") });
  await core.replaceNamespacedConfigMap({ namespace, name: "after", body: body("after", "2") });
  await core.deleteNamespacedConfigMap({ namespace, name: "before" });
  await reached(4);
  assert.deepEqual(seen, ["add before 0", "add after 1", "update after 2", "delete before 0"]);
  assert.equal(informer.get("after", namespace).data.value, "2");
  failed.catch(() => {});
  await informer.stop();
}

/** A watch of its own until an object says what is wanted. */
async function until(path, query, wanted) {
  const watch = new k8s.Watch(config);
  let controller;
  await within(new Promise((resolve, reject) => {
    watch.watch(path, query, (type, object) => wanted(type, object) && resolve(), (error) => error && reject(error))
      .then((started) => (controller = started), reject);
  }), `${path} ${JSON.stringify(query)}`);
  controller?.abort();
}

/** A Deployment, scaled; a pod's log, exec with an exit code, port-forward. */
async function pods() {
  const labels = { app: "js" };
  const container = { name: "c", image: "e2e:1", command: ["sh", "-c", "echo first; echo second; exec httpd -f -p 8080 -h /www"] };
  await apps.createNamespacedDeployment({
    namespace,
    body: {
      metadata: { name: "d" },
      spec: {
        replicas: 0,
        selector: { matchLabels: labels },
        template: { metadata: { labels }, spec: { terminationGracePeriodSeconds: 0, containers: [container] } },
      },
    },
  });
  const scale = await apps.readNamespacedDeploymentScale({ namespace, name: "d" });
  scale.spec.replicas = 1;
  // Whatever its status is by now.
  delete scale.metadata.resourceVersion;
  await apps.replaceNamespacedDeploymentScale({ namespace, name: "d", body: scale });
  const deployments = `/apis/apps/v1/namespaces/${namespace}/deployments`;
  await until(deployments, { fieldSelector: "metadata.name=d" }, (_, object) => object.status.readyReplicas === 1);
  const [pod] = (await core.listNamespacedPod({ namespace, labelSelector: "app=js" })).items.map((one) => one.metadata.name);
  assert.equal(await core.readNamespacedPodLog({ namespace, name: pod }), "first\nsecond\n");
  const out = new PassThrough();
  const told = within(new Promise((resolve) => {
    let text = "";
    out.on("data", (part) => (text += part) && text.includes("second\n") && resolve(text));
  }), "the log");
  const following = await new k8s.Log(config).log(namespace, pod, "c", out, { follow: true });
  assert.equal(await told, "first\nsecond\n");
  following.abort();
  const [stdin, stdout, stderr] = [new PassThrough(), new PassThrough(), new PassThrough()];
  const said = { out: "", err: "" };
  stdout.on("data", (part) => (said.out += part));
  stderr.on("data", (part) => (said.err += part));
  const status = new Promise((resolve, reject) => {
    new k8s.Exec(config)
      .exec(namespace, pod, "c", ["sh", "-c", "read word; echo got $word; echo bad >&2; exit 3"], stdout, stderr, stdin, false, resolve)
      .catch(reject);
  });
  stdin.write("it\n");
  const ended = await within(status, "exec's end");
  assert.equal(ended.status, "Failure");
  assert.deepEqual(ended.details.causes, [{ reason: "ExitCode", message: "3" }]);
  assert.deepEqual(said, { out: "got it\n", err: "bad\n" });
  const forward = new k8s.PortForward(config);
  const server = net.createServer((socket) => forward.portForward(namespace, pod, [8080], socket, null, socket));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const answer = new Promise((resolve, reject) => {
    const socket = net.connect(server.address().port, "127.0.0.1", () => socket.write("GET /version HTTP/1.0\r\n\r\n"));
    let text = "";
    socket.on("data", (part) => {
      text += part;
      if (text.endsWith("version 1\n")) {
        socket.destroy();
        resolve();
      }
    });
    socket.on("error", reject);
  });
  await within(answer, "the forwarded answer");
  server.close();
  await apps.deleteNamespacedDeployment({ namespace, name: "d", propagationPolicy: "Background" });
}

/** A definition and its objects, server-side apply and what it refuses. */
async function custom() {
  const group = `${namespace}.example.com`;
  const api = k8s.KubernetesObjectApi.makeApiClient(config);
  // The models of the client write `default`, a word of the language, as `_default`.
  const schema = {
    type: "object",
    properties: { spec: { type: "object", properties: { size: { type: "integer" }, colour: { type: "string", _default: "blue" } } } },
  };
  await api.create({
    apiVersion: "apiextensions.k8s.io/v1",
    kind: "CustomResourceDefinition",
    metadata: { name: `jses.${group}` },
    spec: {
      group,
      scope: "Namespaced",
      names: { plural: "jses", kind: "Js" },
      versions: [{ name: "v1", served: true, storage: true, schema: { openAPIV3Schema: schema } }],
    },
  });
  const established = (_, one) => one.status?.conditions?.some(({ type, status }) => type === "Established" && status === "True");
  await until("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", { fieldSelector: `metadata.name=jses.${group}` }, established);
  const spec = { apiVersion: `${group}/v1`, kind: "Js", metadata: { name: "x", namespace } };
  const apply = (size, manager, force) =>
    api.patch({ ...spec, spec: { size } }, undefined, undefined, manager, force, k8s.PatchStrategy.ServerSideApply);
  const made = await apply(1, "first", false);
  assert.deepEqual(made.spec, { size: 1, colour: "blue" });
  await refused(409, /conflict with \\*"first\\*"/, apply(2, "second", false));
  const forced = await apply(2, "second", true);
  assert.deepEqual(forced.metadata.managedFields.map(({ manager, operation }) => [manager, operation]), [["second", "Apply"]]);
  const listed = await config.makeApiClient(k8s.CustomObjectsApi).listNamespacedCustomObject({ group, version: "v1", namespace, plural: "jses" });
  assert.equal(listed.items[0].spec.size, 2);
  await api.delete({ apiVersion: "apiextensions.k8s.io/v1", kind: "CustomResourceDefinition", metadata: { name: `jses.${group}` } });
}

for (const part of [objects, informers, custom, pods]) {
  await part();
  console.log(part.name);
}
process.exit(0);
