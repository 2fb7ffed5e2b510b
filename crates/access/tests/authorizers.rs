//! The chain of authorizers, with webhooks in it, and the reviews that go through all of it.

mod world;

use std::cell::RefCell;

use access::authorization::{self, AskWebhook, Authorizer, Webhook};
use access::rbac::Index;
use access::{View, authorize, review};
use object::{FieldSelector, LabelSelector, Snapshot};
use plan::{Attributes, Decision};
use serde_json::{Value, json};
use world::{attributes, user};

fn webhook(name: &str, rest: Value) -> Value {
    let mut webhook = json!({
        "timeout": "3s", "subjectAccessReviewVersion": "v1", "failurePolicy": "Deny",
        "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": "/hook.kubeconfig"},
    });
    for (name, value) in rest.as_object().expect("an object") {
        webhook[name] = value.clone();
    }
    json!({"type": "Webhook", "name": name, "webhook": webhook})
}

fn read(authorizers: &[Value]) -> Result<Vec<Authorizer>, Vec<String>> {
    authorization::read(&json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration", "authorizers": authorizers,
    }))
}

/// Answers by the user's name, and remembers what it was asked.
#[derive(Default)]
struct Hook(RefCell<Vec<Value>>);

impl AskWebhook for Hook {
    fn ask(&self, webhook: &Webhook, review: &Value) -> Result<Decision, String> {
        self.0.borrow_mut().push(review["spec"].clone());
        match review["spec"]["user"].as_str().expect("a user") {
            "broken" => Err("no route to host".to_owned()),
            "both" => webhook.answer(&json!({"status": {"allowed": true, "denied": true}})),
            name => webhook.answer(&json!({"status": {
                "allowed": name == "friend", "denied": name == "foe", "reason": format!("{name} is known"),
            }})),
        }
    }
}

#[test]
fn the_first_with_an_opinion_decides() {
    let (snapshot, index) = (Snapshot::default(), Index::default());
    let hooked = |name: &str, rest: Value| {
        read(&[webhook("hook", rest), json!({"type": "AlwaysAllow", "name": "last"})])
            .map(|chain| {
                let hook = Hook::default();
                let view = View { authorizers: &chain, webhooks: &hook, ..View::new(&snapshot, &index) };
                let decision = authorize(&view, &user(name), &attributes("get pods a/b"));
                let told = if decision.allowed {
                    "yes"
                } else if decision.denied {
                    "no"
                } else {
                    "-"
                };
                format!("{told} {}{}", decision.reason, decision.error)
            })
            .expect("a configuration")
    };
    let open = || json!({"failurePolicy": "NoOpinion"});
    let only = |expression: &str| json!({"matchConditionSubjectAccessReviewVersion": "v1", "matchConditions": [{"expression": expression}]});
    for (name, rest, expected) in [
        ("friend", json!({}), "yes friend is known"),
        ("foe", json!({}), "no foe is known"),
        ("other", json!({}), "yes "),
        ("root|system:masters", json!({}), "yes "),
        ("broken", json!({}), "no no route to host"),
        ("broken", open(), "yes "),
        ("both", json!({}), "no webhook subject access review returned both allow and deny response"),
        ("foe", only("request.resourceAttributes.namespace == 'a'"), "no foe is known"),
        ("foe", only("request.resourceAttributes.namespace == 'b'"), "yes "),
        ("foe", only("has(request.nonResourceAttributes)"), "yes "),
        ("foe", only("request.user == 'foe' && !('devs' in request.groups)"), "no cel evaluation failed"),
        ("foe|ops", only("request.user == 'foe' && !('devs' in request.groups)"), "no foe is known"),
    ] {
        let found = hooked(name, rest.clone());
        assert!(
            found.starts_with(expected) && (expected.ends_with("failed") || found == expected),
            "{name} {rest}: {found}"
        );
    }
}

#[test]
fn reasons_and_errors_of_all_are_told() {
    let (snapshot, index) = (Snapshot::default(), Index::default());
    let chain = read(&[
        json!({"type": "Node", "name": "node"}),
        webhook("hook", json!({"failurePolicy": "NoOpinion"})),
        json!({"type": "RBAC", "name": "rbac"}),
    ])
    .expect("a configuration");
    let hook = Hook::default();
    let view = View { authorizers: &chain, webhooks: &hook, ..View::new(&snapshot, &index) };
    let spec = |name: &str| json!({"spec": {"user": name, "resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let status = |name: &str| review::subject_access(&view, spec(name)).expect("answered")["status"].clone();
    assert_eq!(status("stranger"), json!({"allowed": false, "reason": "stranger is known"}));
    assert_eq!(status("foe"), json!({"allowed": false, "denied": true, "reason": "foe is known"}));
    assert_eq!(status("broken"), json!({"allowed": false, "evaluationError": "no route to host"}));
    let rules = review::self_subject_rules(&view, &user("x"), json!({"spec": {"namespace": "a"}}));
    assert_eq!(
        rules.expect("answered")["status"],
        json!({
            "resourceRules": [], "nonResourceRules": [], "incomplete": true,
            "evaluationError": "webhook authorizer does not support user rule resolution",
        })
    );
}

#[test]
fn selectors_are_passed_on() {
    let (snapshot, index) = (Snapshot::default(), Index::default());
    let chain = read(&[webhook("hook", json!({}))]).expect("a configuration");
    let hook = Hook::default();
    let view = View { authorizers: &chain, webhooks: &hook, ..View::new(&snapshot, &index) };
    let fields = FieldSelector::parse("spec.nodeName=n1,status.phase!=Failed").expect("a selector");
    let labels = LabelSelector::parse("a=b,c notin (d,e),f,!g,h>1").expect("a selector");
    let asked = Attributes { fields: Some(&fields), labels: Some(&labels), ..attributes("list pods ns/") };
    authorize(&view, &user("x|devs"), &asked);
    let wanted = json!({
        "user": "x", "groups": ["devs"],
        "resourceAttributes": {
            "verb": "list", "version": "v1", "resource": "pods", "namespace": "ns",
            "fieldSelector": {"requirements": [
                {"key": "spec.nodeName", "operator": "In", "values": ["n1"]},
                {"key": "status.phase", "operator": "NotIn", "values": ["Failed"]},
            ]},
            "labelSelector": {"requirements": [
                {"key": "a", "operator": "In", "values": ["b"]},
                {"key": "c", "operator": "NotIn", "values": ["d", "e"]},
                {"key": "f", "operator": "Exists"},
                {"key": "g", "operator": "DoesNotExist"},
            ]},
        },
    });
    assert_eq!(hook.0.take(), [wanted]);
    let spec = json!({"spec": {"user": "x", "resourceAttributes": {
        "verb": "list", "resource": "pods",
        "fieldSelector": {"requirements": [
            {"key": "a", "operator": "In", "values": ["1"]}, {"key": "a", "operator": "In", "values": ["1", "2"]},
        ]},
        "labelSelector": {"rawSelector": "a in (b"},
    }}});
    let answered = review::subject_access(&view, spec).expect("answered");
    assert_eq!(
        answered["status"]["evaluationError"],
        "[spec.resourceAttributes.fieldSelector partially ignored due to parse error, spec.resourceAttributes.labelSelector ignored due to parse error]"
    );
    let passed = &hook.0.take()[0]["resourceAttributes"];
    assert_eq!(passed["fieldSelector"]["requirements"].as_array().map(Vec::len), Some(1));
    assert!(passed.get("labelSelector").is_none());
}

#[test]
fn a_configuration_is_checked() {
    let wrong = |authorizers: &[Value], expected: &[&str]| {
        assert_eq!(read(authorizers).err().unwrap_or_default(), expected, "{authorizers:?}");
    };
    let rbac = json!({"type": "RBAC", "name": "rbac"});
    wrong(
        &[
            rbac.clone(),
            json!({"type": "Node", "name": "node"}),
            webhook("a", json!({})),
            webhook("b", json!({})),
        ],
        &[],
    );
    wrong(&[], &["authorizers: Required value: at least one authorization mode must be defined"]);
    wrong(
        &[rbac.clone(), rbac.clone()],
        &[
            r#"authorizers[1].type: Duplicate value: "RBAC""#,
            r#"authorizers[1].name: Duplicate value: "rbac""#,
        ],
    );
    wrong(
        &[json!({"type": "ABAC", "name": "abac"}), json!({"type": "Webhook"}), json!({"name": "x"})],
        &[
            r#"authorizers[0].type: Unsupported value: "ABAC": supported values: "AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook""#,
            "authorizers[1].name: Required value",
            "authorizers[1].webhook: Required value: required when type=Webhook",
            "authorizers[2].type: Required value",
        ],
    );
    wrong(
        &[webhook(
            "hook",
            json!({
                "timeout": "31s", "authorizedTTL": "0s", "failurePolicy": "Maybe", "subjectAccessReviewVersion": "v1beta1",
                "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": "hook"},
                "matchConditions": [{"expression": "request.nobody == ''"}, {"expression": ""}],
            }),
        )],
        &[
            r#"authorizers[0].webhook.authorizedTTL: Invalid value: "0s": must be > 0s"#,
            r#"authorizers[0].webhook.timeout: Invalid value: "31s": must be > 0s and <= 30s"#,
            r#"authorizers[0].webhook.subjectAccessReviewVersion: Unsupported value: "v1beta1": supported values: "v1""#,
            "authorizers[0].webhook.matchConditionSubjectAccessReviewVersion: Required value",
            r#"authorizers[0].webhook.failurePolicy: Unsupported value: "Maybe": supported values: "Deny", "NoOpinion""#,
            r#"authorizers[0].webhook.connectionInfo.kubeConfigFile: Invalid value: "hook": must be an absolute path"#,
            "authorizers[0].webhook.matchConditions[0].expression: Invalid value: \"request.nobody == ''\": compilation failed: ERROR: <input>:1:8: undefined field 'nobody'\n | request.nobody == ''\n | .......^",
            "authorizers[0].webhook.matchConditions[1].expression: Required value",
        ],
    );
}
