//! A definition of two versions with a conversion webhook in a pod: rows of the words, what goes in, what must come out.

use anyhow::{Result, ensure};
use e2e::{Room, run, until};

use crate::guest;

/// `$S` is the version that is stored.
const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: { name: endpoints.conversions.example.com }
spec:
  group: conversions.example.com
  scope: Namespaced
  names: { plural: endpoints, singular: endpoint, kind: Endpoint, listKind: EndpointList }
  conversion:
    strategy: Webhook
    webhook:
      conversionReviewVersions: [v1, v1beta1]
      clientConfig: { caBundle: $B, service: { namespace: $N, name: guest, path: /convert } }
  versions:
  - name: v1
    served: true
    storage: $1
    additionalPrinterColumns: [{ name: Address, type: string, jsonPath: .spec.hostPort }]
    schema:
      openAPIV3Schema:
        type: object
        properties: { spec: { type: object, properties: { hostPort: { type: string } } } }
  - name: v2
    served: true
    storage: $2
    selectableFields: [{ jsonPath: .spec.host }]
    additionalPrinterColumns: [{ name: Host, type: string, jsonPath: .spec.host }, { name: Port, type: string, jsonPath: .spec.port }]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: { type: object, properties: { host: { type: string }, port: { type: string }, path: { type: string, default: / } } }
"#;

const OLD: &str = "{apiVersion: conversions.example.com/v1, kind: Endpoint, metadata: {name: old}, spec: {hostPort: 'a:1'}}";
const NEW: &str = "{apiVersion: conversions.example.com/v2, kind: Endpoint, metadata: {name: new}, spec: {host: b, port: '2'}}";
const ONE: &str = "endpoints.v1.conversions.example.com";
const TWO: &str = "endpoints.v2.conversions.example.com";

/// In this order.
const ROWS: &[(&str, &str, &str)] = &[
    ("apply -f -", OLD, "endpoint.conversions.example.com/old created\n"),
    ("get $1 old -o jsonpath={.spec}", "", "{\"hostPort\":\"a:1\"}"),
    (
        "get $2 old -o jsonpath={.apiVersion}{.spec}",
        "",
        "conversions.example.com/v2{\"host\":\"a\",\"path\":\"/\",\"port\":\"1\"}",
    ),
    ("apply -f -", NEW, "endpoint.conversions.example.com/new created\n"),
    ("get $1 new -o jsonpath={.spec}", "", "{\"hostPort\":\"b:2\"}"),
    ("get $2", "", "NAME   HOST   PORT\nnew    b      2\nold    a      1\n"),
    ("get $1", "", "NAME   ADDRESS\nnew    b:2\nold    a:1\n"),
    ("get $2 --field-selector spec.host=b -o name", "", "endpoint.conversions.example.com/new\n"),
    ("get $1 --field-selector spec.host=b -o name", "", "field label not supported: spec.host"),
    (
        "patch $2 old --type=merge -p {\"spec\":{\"port\":\"8\"}}",
        "",
        "endpoint.conversions.example.com/old patched\n",
    ),
    ("get $1 old -o jsonpath={.spec.hostPort}{.metadata.generation}", "", "a:82"),
    (
        "apply --server-side --field-manager=x -f -",
        NEW,
        "endpoint.conversions.example.com/new serverside-applied\n",
    ),
];

pub fn tell(room: &Room) -> Result<()> {
    guest::start(room)?;
    let bundle = room.field("secret/tls", r"{.data.tls\.crt}")?;
    let definition = |first: bool| {
        let text = DEFINITION.replace("$B", &bundle).replace("$N", &room.namespace);
        text.replace("$1", &first.to_string()).replace("$2", &(!first).to_string())
    };
    room.apply(&definition(true))?;
    room.wait("crd/endpoints.conversions.example.com", "condition=Established")?;
    let mut wrong = Vec::new();
    for (words, input, expected) in ROWS {
        let answer = run(&mut room.command(&words.replace("$1", ONE).replace("$2", TWO))?, input)?;
        let said = answer.stdout + &answer.stderr;
        if !said.contains(expected) {
            wrong.push(format!("kubectl {words}\n  should say {expected:?}\n  and says   {said:?}"));
        }
    }
    ensure!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), ROWS.len(), wrong.join("\n"));

    // Stored as version 2 from now on: what is old stays as it is until it is written, and reads as ever.
    room.apply(&definition(false))?;
    let stored = room.field("crd/endpoints.conversions.example.com", "{.status.storedVersions}")?;
    ensure!(stored == r#"["v1","v2"]"#, "both may be stored: {stored}");
    room.apply(&NEW.replace("name: new", "name: newer"))?;
    let listed = room.field(TWO, "{.items[*].metadata.name},{.items[*].spec.host},{.items[*].spec.port}")?;
    ensure!(listed == "new newer old,b b a,2 2 8", "a list of both: {listed}");

    // A watch tells the objects of its version.
    let log = room.cluster.site.scratch().join("watch-of-endpoints");
    let path = format!("/apis/conversions.example.com/v1/namespaces/{}/endpoints", room.namespace);
    let mut watch = room.command(&format!("get --raw {path}?watch=1&timeoutSeconds=100"))?;
    let mut watching = watch.stdout(std::fs::File::create(&log)?).spawn()?;
    let told = |words: &str| {
        until(&format!("the watch tells {words}"), || {
            let seen = std::fs::read_to_string(&log).unwrap_or_default();
            Ok(seen.contains(words).then_some(()))
        })
    };
    told("a:8")?;
    room.kubectl(&format!("patch {TWO} newer --type=merge -p {{\"spec\":{{\"port\":\"9\"}}}}"))?;
    told("b:9")?;

    // Nobody converts: what is kept in the version that is asked for still reads.
    room.kubectl("scale deployment/guest --replicas=0")?;
    room.wait("pod -l app=guest", "delete")?;
    room.kubectl(&format!("patch {TWO} newer --type=merge -p {{\"spec\":{{\"port\":\"10\"}}}}"))?;
    let ended = watching.wait()?;
    ensure!(ended.success(), "a watch that cannot go on ends: {ended}");
    let away =
        "conversion webhook for conversions.example.com/v2, Kind=Endpoint failed: Post \"https://guest.";
    told(&away.replace('"', "\\\""))?;
    ensure!(room.field(&format!("{TWO}/newer"), "{.spec.port}")? == "10", "what needs no conversion");
    room.try_kubectl(&format!("get {ONE} newer"))?.fails_with(away)?;
    room.kubectl("scale deployment/guest --replicas=1")?;
    room.rolled_out("deployment/guest")?;
    until("the webhook is asked again", || {
        let answer = room.try_kubectl(&format!("get {ONE} newer -o jsonpath={{.spec.hostPort}}"))?;
        Ok((answer.stdout == "b:10").then_some(()))
    })?;
    room.kubectl("delete crd endpoints.conversions.example.com --timeout=60s").map(drop)
}
