//! A definition and its objects, as kubectl and helm meet them: rows of the words, what goes in, what must come out.

use anyhow::{Context, Result, ensure};
use e2e::{Room, kubectl_binary, run, until};

use crate::clients::{helm_says, write_chart};

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: { name: crontabs.stories.example.com }
spec:
  group: stories.example.com
  scope: Namespaced
  names: { plural: crontabs, singular: crontab, kind: CronTab, shortNames: [ct], categories: [stories] }
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale:
        specReplicasPath: .spec.replicas
        statusReplicasPath: .status.replicas
        labelSelectorPath: .status.selector
    selectableFields: [{ jsonPath: .spec.image }]
    additionalPrinterColumns:
    - { name: Schedule, type: string, jsonPath: .spec.cronSpec }
    - { name: Replicas, type: integer, jsonPath: .spec.replicas }
    - { name: Ready, type: string, jsonPath: '.status.conditions[?(@.type=="Ready")].status', priority: 1 }
    schema:
      openAPIV3Schema:
        type: object
        description: CronTab is what runs at times.
        properties:
          spec:
            type: object
            required: [cronSpec]
            x-kubernetes-validations:
            - { rule: self.image != 'forbidden', message: this image is forbidden }
            properties:
              cronSpec: { type: string, pattern: '^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$', description: When it runs. }
              image: { type: string, default: busybox }
              replicas: { type: integer, minimum: 1, maximum: 10, default: 1 }
              steps:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items:
                  type: object
                  required: [name]
                  properties: { name: { type: string }, value: { type: string } }
          status:
            type: object
            properties:
              replicas: { type: integer }
              selector: { type: string }
              conditions:
                type: array
                items: { type: object, properties: { type: { type: string }, status: { type: string } } }
  - name: v1beta1
    served: true
    storage: false
    deprecated: true
    schema: { openAPIV3Schema: { type: object, x-kubernetes-preserve-unknown-fields: true } }
"#;

const OBJECT: &str = r#"
apiVersion: stories.example.com/v1
kind: CronTab
metadata: { name: a }
spec: { cronSpec: "* * * * */5", steps: [{ name: one, value: "1" }] }
"#;
const NAME: &str = "crd/crontabs.stories.example.com";
const PATHS: &str = "/apis/stories.example.com/v1/namespaces/$N/crontabs";

/// In this order. `$N` is the namespace, `$P` where its objects are.
const ROWS: &[(&str, &str, &str)] = &[
    ("apply -f -", DEFINITION, "crontabs.stories.example.com created\n"),
    ("wait $D --for=condition=Established --timeout=60s", "", "condition met\n"),
    ("wait $D --for=condition=NamesAccepted --timeout=60s", "", "condition met\n"),
    (
        "api-resources --api-group=stories.example.com",
        "",
        "crontabs   ct           stories.example.com/v1   true         CronTab\n",
    ),
    (
        "get --raw /apis/stories.example.com",
        "",
        "\"preferredVersion\":{\"groupVersion\":\"stories.example.com/v1\"",
    ),
    ("wait apiservice/v1.stories.example.com --for=create --timeout=60s", "", "condition met\n"),
    ("get apiservices v1.stories.example.com --no-headers", "", "v1.stories.example.com   Local   True"),
    // What says of a group that it is served comes back.
    ("delete apiservices v1.stories.example.com", "", "deleted"),
    ("wait apiservice/v1.stories.example.com --for=create --timeout=60s", "", "condition met\n"),
    ("explain crontab", "", "CronTab is what runs at times."),
    ("explain crontab.spec.cronSpec", "", "When it runs."),
    ("apply -f -", OBJECT, "crontab.stories.example.com/a created\n"),
    ("apply -f -", OBJECT, "crontab.stories.example.com/a unchanged\n"),
    ("get ct", "", "NAME   SCHEDULE      REPLICAS\na      * * * * */5   1\n"),
    ("get stories -o wide", "", "NAME   SCHEDULE      REPLICAS   READY\n"),
    ("get ct a -o jsonpath={.spec.image}{.spec.replicas}{.metadata.generation}", "", "busybox11"),
    ("get ct --field-selector spec.image=busybox -o name", "", "crontab.stories.example.com/a\n"),
    ("get ct --field-selector spec.image=other", "", "No resources found in $N namespace.\n"),
    ("get ct --field-selector spec.cronSpec=x", "", "field label not supported: spec.cronSpec"),
    ("scale ct a --replicas=5", "", "crontab.stories.example.com/a scaled\n"),
    (
        "scale ct a --replicas=50",
        "",
        "The CronTab \"a\" is invalid: spec.replicas: Invalid value: 50: spec.replicas in body should be less than or equal to 10\n",
    ),
    ("get ct a -o jsonpath={.spec.replicas}{.metadata.generation}", "", "52"),
    (
        "patch ct a --type=merge -p {\"spec\":{\"cronSpec\":\"x\"}}",
        "",
        r#"The CronTab "a" is invalid: spec.cronSpec: Invalid value: "x": spec.cronSpec in body should match '^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$'"#,
    ),
    (
        "patch ct a --type=merge -p {\"spec\":{\"image\":\"forbidden\"}}",
        "",
        "The CronTab \"a\" is invalid: spec: Invalid value: this image is forbidden\n",
    ),
    (
        "patch ct a --type=strategic -p {\"spec\":{\"replicas\":2}}",
        "",
        "application/strategic-merge-patch+json is not supported by stories.example.com/v1, Kind=CronTab",
    ),
    (
        "patch ct a --subresource=status --type=merge -p {\"status\":{\"replicas\":3,\"selector\":\"a=b\"},\"spec\":{\"replicas\":9}}",
        "",
        "crontab.stories.example.com/a patched\n",
    ),
    (
        "get ct a --subresource=scale -o jsonpath={.spec.replicas}{.status.replicas}{.status.selector}",
        "",
        "53a=b",
    ),
    (
        "patch ct a --type=merge -p {\"status\":{\"replicas\":7}}",
        "",
        "crontab.stories.example.com/a patched (no change)\n",
    ),
    (
        "create -f -",
        "{apiVersion: stories.example.com/v1, kind: CronTab, metadata: {name: b}, spec: {cronSpec: '* * * * *', nonsense: 1}}",
        "strict decoding error: unknown field \"spec.nonsense\"",
    ),
    (
        "create --validate=warn -f -",
        "{apiVersion: stories.example.com/v1, kind: CronTab, metadata: {name: b}, spec: {cronSpec: '* * * * *', nonsense: 1}}",
        "Warning: unknown field \"spec.nonsense\"",
    ),
    ("get ct b -o jsonpath={.spec}", "", "{\"cronSpec\":\"* * * * *\",\"image\":\"busybox\",\"replicas\":1}"),
    (
        "create -f -",
        "{apiVersion: stories.example.com/v1, kind: CronTab, metadata: {name: c}, spec: {}}",
        "The CronTab \"c\" is invalid: \n* spec.cronSpec: Required value\n",
    ),
    (
        "apply --server-side --field-manager=other -f -",
        "{apiVersion: stories.example.com/v1, kind: CronTab, metadata: {name: b}, spec: {steps: [{name: two, value: x}]}}",
        "crontab.stories.example.com/b serverside-applied\n",
    ),
    (
        "apply --server-side --field-manager=third -f -",
        "{apiVersion: stories.example.com/v1, kind: CronTab, metadata: {name: b}, spec: {steps: [{name: two, value: z}]}}",
        "conflict with \"other\": .spec.steps[name=\"two\"].value",
    ),
    (
        "apply --server-side --field-manager=third -f -",
        "{apiVersion: stories.example.com/v1, kind: CronTab, metadata: {name: b}, spec: {steps: [{name: three}]}}",
        "crontab.stories.example.com/b serverside-applied\n",
    ),
    ("get ct b -o jsonpath={.spec.steps[*].name}", "", "two three"),
    (
        "get crontabs.v1beta1.stories.example.com a -o jsonpath={.apiVersion}",
        "",
        "Warning: stories.example.com/v1beta1 CronTab is deprecated; use stories.example.com/v1 CronTab",
    ),
    // What is kept is completed when the schema learns of a new default.
    (
        "patch $D --type=json -p [{\"op\":\"add\",\"path\":\"/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/late\",\"value\":{\"type\":\"string\",\"default\":\"later\"}}]",
        "",
        "crontabs.stories.example.com patched\n",
    ),
    ("get ct a -o jsonpath={.spec.late}", "", "later"),
    ("auth can-i list crontabs.stories.example.com --as nobody", "", "no\n"),
    (
        "create role reader --verb=list,get --resource=crontabs.stories.example.com",
        "",
        "role.rbac.authorization.k8s.io/reader created\n",
    ),
    ("create rolebinding reader --role=reader --user=nobody", "", "created\n"),
    ("get ct --as nobody -o name", "", "crontab.stories.example.com/a\n"),
    (
        "delete ct a --as nobody",
        "",
        "cannot delete resource \"crontabs\" in API group \"stories.example.com\"",
    ),
    (
        "patch $D --type=merge -p {\"spec\":{\"scope\":\"Cluster\"}}",
        "",
        "spec.scope: Invalid value: \"Cluster\": field is immutable",
    ),
    (
        "patch $D --type=json -p [{\"op\":\"remove\",\"path\":\"/spec/versions/0/schema/openAPIV3Schema/type\"}]",
        "",
        "type: Required value: must not be empty at the root",
    ),
    ("patch ct b --type=merge -p {\"metadata\":{\"finalizers\":[\"example.com/hold\"]}}", "", "patched\n"),
    ("delete $D --wait=false", "", "crontabs.stories.example.com\" deleted"),
    ("wait ct/a --for=delete --timeout=60s", "", ""),
    ("get $D -o jsonpath={.metadata.finalizers}", "", "[\"customresourcecleanup.apiextensions.k8s.io\"]"),
    ("wait $D --for=condition=Terminating --timeout=60s", "", "condition met\n"),
    ("create -f -", OBJECT, "create not allowed while custom resource definition is terminating"),
    ("patch ct b --type=merge -p {\"metadata\":{\"finalizers\":null}}", "", "patched\n"),
    ("wait $D --for=delete --timeout=60s", "", ""),
    ("get --raw $P", "", "NotFound"),
];

pub fn kubectl(room: &Room) -> Result<()> {
    kubectl_binary(36)?;
    let fill = |text: &str| {
        let text = text.replace("$P", PATHS).replace("$D", NAME);
        text.replace("$N", &room.namespace)
    };
    let mut wrong = Vec::new();
    for (words, input, expected) in ROWS {
        let answer = run(&mut room.command(&fill(words))?, input)?;
        let said = answer.stdout + &answer.stderr;
        if !said.contains(&fill(expected)) {
            wrong.push(format!("kubectl {words}\n  should say {expected:?}\n  and says   {said:?}"));
        }
    }
    ensure!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), ROWS.len(), wrong.join("\n"));
    Ok(())
}

const GADGETS: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: { name: gadgets.charts.example.com }
spec:
  group: charts.example.com
  scope: Namespaced
  names: { plural: gadgets, singular: gadget, kind: Gadget }
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties: { spec: { type: object, properties: { size: { type: integer, default: 3 } } } }
"#;
const GADGET: &str = "apiVersion: charts.example.com/v1\nkind: Gadget\nmetadata: { name: {{ .Release.Name }} }\n\
    spec: { size: {{ .Values.size }} }\n";

/// A chart that brings a definition in `crds/` and an object of it among its templates.
pub fn helm(room: &Room) -> Result<()> {
    let chart = room.cluster.site.scratch().join("gadgets");
    let files = [
        ("Chart.yaml", "apiVersion: v2\nname: gadgets\nversion: 0.1.0\n"),
        ("values.yaml", "size: 5\n"),
        ("crds/gadgets.yaml", GADGETS),
        ("templates/gadget.yaml", GADGET),
    ];
    write_chart(&chart, &files)?;
    let shown = chart.display();
    helm_says(room, &format!("install one {shown}"))?.ok()?;
    ensure!(room.field("gadget/one", "{.spec.size}")? == "5", "the chart's object");
    helm_says(room, &format!("upgrade one {shown} --set size=7"))?.ok()?;
    ensure!(room.field("gadget/one", "{.spec.size}")? == "7", "the upgraded object");
    // A watch lasts as long as the schema that it was begun with.
    let mut watch = room.command(&format!(
        "get --raw /apis/charts.example.com/v1/namespaces/{}/gadgets?watch=1&timeoutSeconds=100",
        room.namespace
    ))?;
    let log = room.cluster.site.scratch().join("watch-of-gadgets");
    let file = std::fs::File::create(&log).context("make a log")?;
    let mut watching = watch.stdout(file).spawn().context("start a watch")?;
    until("the watch tells what there is", || {
        let seen = std::fs::read_to_string(&log).unwrap_or_default();
        Ok(seen.contains("\"ADDED\"").then_some(()))
    })?;
    room.kubectl("patch crd gadgets.charts.example.com --type=json -p [{\"op\":\"add\",\"path\":\"/spec/versions/0/schema/openAPIV3Schema/properties/status\",\"value\":{\"type\":\"object\"}}]")?;
    let ended = watching.wait().context("the watch ends")?;
    ensure!(ended.success(), "the watch ended with {ended}");
    helm_says(room, "uninstall one")?.ok()?;
    room.kubectl("wait gadget/one --for=delete --timeout=60s")?;
    // Helm leaves definitions alone; the namespace takes its objects with it.
    room.apply("{apiVersion: charts.example.com/v1, kind: Gadget, metadata: {name: left}}")?;
    ensure!(room.field("gadget/left", "{.spec}")?.is_empty(), "nothing that was not asked for");
    let other = format!("{}-other", room.namespace);
    room.kubectl(&format!("create namespace {other}"))?;
    let left = "{apiVersion: charts.example.com/v1, kind: Gadget, metadata: {name: left}}";
    let mut apply = room.cluster.kubectl_command(36, &format!("-n {other} apply -f -"))?;
    run(&mut apply, left)?.ok()?;
    room.kubectl(&format!("delete namespace {other} --timeout=60s"))?;
    room.kubectl("delete crd gadgets.charts.example.com --timeout=60s").map(drop)
}
