//! Policies and webhooks: a cluster, a request, and what becomes of it.

use admission::extension::{Asked, Extensions, Served, refuse};
use admission::{Configuration, Operation, Request, Verdict};
use object::{Draft, Key, Resource, Snapshot, Time, body};
use plan::{Attributes, Decision, Target, User};
use schema::path;
use serde_json::{Value, json};

fn snapshot(values: &[Value]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for value in values {
        let (group, version) = path::text(value, "apiVersion").split_once('/').unwrap_or(("", "v1"));
        let kind = kinds::by_gvk(group, version, path::text(value, "kind")).expect("a known kind");
        let mut value = value.clone();
        kinds::default(kind, &mut value);
        let key = Key::new(
            kind.resource,
            path::text(&value, "metadata.namespace"),
            path::text(&value, "metadata.name"),
        );
        let fields = kind.selectable.iter().map(|at| path::text(&value, at).into()).collect();
        let revision = snapshot.revision() + 1;
        snapshot.put(Draft::read(key, fields, body::encode(&value)).expect("a draft").at(revision));
    }
    snapshot
}

fn resource_of(api_version: &str, kind: &str) -> Option<(Resource, bool)> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    kinds::by_gvk(group, version, kind).map(|kind| (kind.resource, kind.namespaced))
}

/// Asks about a write of a Deployment by alice, who may `create pods`.
fn ask<T>(
    operation: Operation,
    object: &Value,
    old: Option<&Value>,
    subresource: &str,
    dry_run: bool,
    ask: impl FnOnce(&Asked<'_>) -> T,
) -> T {
    let user = User::new("alice", &["devs"]);
    let key = Key::new(
        kinds::DEPLOYMENTS,
        path::text(object, "metadata.namespace"),
        path::text(object, "metadata.name"),
    );
    let authorize = |asked: &Attributes| Decision {
        allowed: asked.verb == "create" && asked.resource == "pods",
        reason: "because".into(),
        ..Decision::default()
    };
    let authorize_as = |user: &User, _: &Attributes| Decision {
        allowed: &*user.name == "system:serviceaccount:shop:robot",
        ..Decision::default()
    };
    let request = Request {
        user: &user,
        operation,
        kind: "Deployment",
        key: &key,
        namespaced: true,
        subresource,
        old,
        options: &Value::Null,
        dry_run,
        now: Time::from_secs(1_795_410_000),
        suffix: "x2z4v",
        configuration: &Configuration::default(),
        pod_identity: None,
        fargate: None,
        authorize: &authorize,
    };
    ask(&Asked {
        request: &request,
        served: SERVED,
        all: &[SERVED],
        gvk: ("apps", "v1", "Deployment"),
        uid: "5d1a",
        authorize_as: &authorize_as,
        resource_of: &resource_of,
        seen: &|_, object| Some(object.clone()),
        merge: &|_, object, configuration| {
            schema::merge_patch(object, configuration);
            Ok(())
        },
    })
}

const SERVED: Served<'static> = Served { group: "apps", version: "v1" };

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}},
        "spec": {"replicas": 7, "template": {"spec": {"containers": [{"name": "c", "image": "x"}]}}},
    })
}

fn namespace() -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"env": "prod"}}})
}

fn rules() -> Value {
    json!([{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["deployments"]}])
}

/// A policy with these members of its spec, and its binding.
fn policy(spec: Value) -> Vec<Value> {
    let mut policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "limits"}, "spec": {"matchConstraints": {"resourceRules": rules()}},
    });
    for (name, value) in spec.as_object().expect("an object") {
        policy["spec"][name] = value.clone();
    }
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "everywhere"}, "spec": {"policyName": "limits", "validationActions": ["Deny"]},
    });
    vec![policy, binding, namespace()]
}

fn judge(world: &[Value]) -> Result<Verdict, String> {
    let snapshot = snapshot(world);
    let extensions = Extensions::read(&snapshot, &Extensions::default());
    let object = deployment();
    let mut verdict = Verdict::default();
    ask(Operation::Create, &object, None, "", false, |asked| {
        extensions.validate(&snapshot, asked, Some(&object), &mut verdict, drop)
    })
    .map_err(|status| format!("{} {}", status.code, status.message))?;
    Ok(verdict)
}

#[test]
fn validating_policies() {
    const DENIED: &str = "deployments.apps \"web\" is forbidden: ValidatingAdmissionPolicy 'limits' with binding 'everywhere' denied request: ";
    for (spec, wanted) in [
        (json!({"validations": [{"expression": "object.spec.replicas <= 10"}]}), ""),
        (
            json!({"validations": [{"expression": "object.spec.replicas <= 5"}]}),
            "422 failed expression: object.spec.replicas <= 5",
        ),
        (
            json!({"validations": [{"expression": "object.spec.replicas <= 5", "message": "too many", "reason": "Forbidden"}]}),
            "403 too many",
        ),
        (
            json!({"validations": [{"expression": "false", "message": "m", "messageExpression": "'has ' + string(object.spec.replicas)"}]}),
            "422 has 7",
        ),
        (
            json!({"validations": [{"expression": "object.spec.missing == 1"}]}),
            "422 expression 'object.spec.missing == 1' resulted in error: no such key: missing",
        ),
        (json!({"failurePolicy": "Ignore", "validations": [{"expression": "object.spec.missing == 1"}]}), ""),
        (
            json!({"variables": [{"name": "many", "expression": "object.spec.replicas > 5"}, {"name": "both", "expression": "variables.many && true"}],
                   "validations": [{"expression": "!variables.both", "message": "many"}]}),
            "422 many",
        ),
        (
            json!({"variables": [{"name": "broken", "expression": "object.nothing"}], "validations": [{"expression": "true || variables.broken == 1"}]}),
            "",
        ),
        (
            json!({"matchConditions": [{"name": "not-alice", "expression": "request.userInfo.username != 'alice'"}],
                "validations": [{"expression": "false"}]}),
            "",
        ),
        (
            json!({"validations": [{"expression": "namespaceObject.metadata.labels.env != 'prod'", "message": "prod"}]}),
            "422 prod",
        ),
        (
            json!({"validations": [{"expression": "authorizer.group('').resource('pods').namespace('shop').check('create').allowed()"}]}),
            "",
        ),
        (
            json!({"validations": [{"expression": "authorizer.requestResource.check('custom').allowed()", "messageExpression": "authorizer.requestResource.check('custom').reason()"}]}),
            "422 because",
        ),
        (
            json!({"validations": [{"expression": "authorizer.serviceAccount('shop', 'robot').path('/x').check('get').allowed()"}]}),
            "",
        ),
        (
            json!({"validations": [{"expression": "request.operation == 'CREATE' && request.resource.resource == 'deployments' && oldObject == null"}]}),
            "",
        ),
        (
            json!({"matchConstraints": {"resourceRules": rules(), "objectSelector": {"matchLabels": {"app": "db"}}}, "validations": [{"expression": "false"}]}),
            "",
        ),
        (
            json!({"matchConstraints": {"resourceRules": rules(), "namespaceSelector": {"matchLabels": {"env": "dev"}}}, "validations": [{"expression": "false"}]}),
            "",
        ),
        (
            json!({"matchConstraints": {"resourceRules": rules(), "excludeResourceRules": rules()}, "validations": [{"expression": "false"}]}),
            "",
        ),
    ] {
        let found = judge(&policy(spec.clone()))
            .map_or_else(|refused| refused.replace(DENIED, ""), |_| String::new());
        assert_eq!(found, wanted, "{spec}");
    }
}

#[test]
fn what_follows_a_failure() {
    let mut world = policy(json!({
        "validations": [{"expression": "false", "message": "no"}],
        "auditAnnotations": [{"key": "replicas", "valueExpression": "'has ' + string(object.spec.replicas)"}],
    }));
    world[1]["spec"]["validationActions"] = json!(["Warn", "Audit"]);
    let verdict = judge(&world).expect("admitted");
    assert_eq!(
        verdict.warnings,
        ["Validation failed for ValidatingAdmissionPolicy 'limits' with binding 'everywhere': no"]
    );
    assert_eq!(verdict.audit[1], ("limits/replicas".into(), "has 7".into()));
    assert!(verdict.audit[0].1.contains("\"expressionIndex\":0"), "{:?}", verdict.audit);
}

#[test]
fn parameters() {
    let config = |name: &str, max: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "shop", "labels": {"limits": "yes"}}, "data": {"max": max}});
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "validations": [{"expression": "object.spec.replicas <= int(params.data.max)", "messageExpression": "'at most ' + params.data.max"}],
    });
    for (params, reference, wanted) in [
        (vec![config("limits", "9")], json!({"name": "limits", "parameterNotFoundAction": "Deny"}), ""),
        (
            vec![config("limits", "3")],
            json!({"name": "limits", "parameterNotFoundAction": "Deny"}),
            "at most 3",
        ),
        (vec![], json!({"name": "limits", "parameterNotFoundAction": "Allow"}), ""),
        (
            vec![],
            json!({"name": "limits", "parameterNotFoundAction": "Deny"}),
            "no params found for policy binding with `Deny` parameterNotFoundAction",
        ),
        (
            vec![config("a", "9"), config("b", "4")],
            json!({"selector": {"matchLabels": {"limits": "yes"}}, "parameterNotFoundAction": "Deny"}),
            "at most 4",
        ),
    ] {
        let mut world = policy(spec.clone());
        world[1]["spec"]["paramRef"] = reference.clone();
        world.extend(params);
        let found = judge(&world).map_or_else(|refused| refused, |_| String::new());
        assert!(
            if wanted.is_empty() { found.is_empty() } else { found.ends_with(wanted) },
            "{reference}: {found}"
        );
    }
}

#[test]
fn mutating_policies() {
    for (mutation, wanted) in [
        (
            json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{metadata: Object.metadata{labels: Object.metadata.labels{team: 'web'}}, spec: Object.spec{replicas: object.spec.replicas + 1}}"}}),
            Ok((8, "web")),
        ),
        (
            json!({"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('team'), value: 'db'}, JSONPatch{op: 'replace', path: '/spec/replicas', value: 1}]"}}),
            Ok((1, "db")),
        ),
        (
            json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{metadata: Object.metadata{name: 'other'}}"}}),
            Err("the applied configuration must not set metadata.name"),
        ),
    ] {
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "metadata": {"name": "labels"},
            "spec": {"matchConstraints": {"resourceRules": rules()}, "failurePolicy": "Fail", "reinvocationPolicy": "Never", "mutations": [mutation.clone()]},
        });
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": "b"}, "spec": {"policyName": "labels"},
        });
        let snapshot = snapshot(&[policy, binding, namespace()]);
        let extensions = Extensions::read(&snapshot, &Extensions::default());
        let original = deployment();
        let done = ask(Operation::Create, &original, None, "", false, |asked| {
            let (invocations, mut refusals) = extensions.invocations(&snapshot, asked, &original);
            let mut ran = extensions.mutate(&invocations[0], &snapshot, asked, &original, true);
            refusals.extend(ran.take_refusals());
            refuse(asked.request, Some(&original), refusals).map(|()| ran.object.expect("changed"))
        });
        let found = done.map(|object| {
            let team = path::text(&object, "metadata.labels.team").to_owned();
            (path::int(&object, "spec.replicas").unwrap_or(0), team)
        });
        match (found, wanted) {
            (Ok((replicas, team)), Ok(wanted)) => assert_eq!((replicas, &*team), wanted, "{mutation}"),
            (Err(status), Err(wanted)) => assert!(status.message.ends_with(wanted), "{}", status.message),
            (found, wanted) => panic!("{found:?} instead of {wanted:?}"),
        }
    }
}

fn webhook(changes: Value) -> Snapshot {
    let mut webhook = json!({
        "name": "check.example.com", "rules": rules(), "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"namespace": "hooks", "name": "check", "path": "/validate"}, "caBundle": "Y2E="},
    });
    for (name, value) in changes.as_object().expect("an object") {
        webhook[name] = value.clone();
    }
    let configuration = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration", "metadata": {"name": "c"}, "webhooks": [webhook],
    });
    snapshot(&[configuration, namespace()])
}

#[test]
fn whom_webhooks_are_asked_about() {
    let call = |changes: Value, operation: Operation, dry_run: bool| {
        let snapshot = webhook(changes);
        let extensions = Extensions::read(&snapshot, &Extensions::default());
        let object = deployment();
        ask(
            operation,
            &object,
            Some(&object).filter(|_| operation != Operation::Create),
            "",
            dry_run,
            |asked| {
                let webhook = &extensions.validating_webhooks()[0];
                let call =
                    webhook.call(&snapshot, asked, Some(&object).filter(|_| operation != Operation::Delete));
                call.map(|call| call.map(|(call, _)| call))
            },
        )
    };
    let made = call(json!({}), Operation::Create, false).expect("no error").expect("a call");
    let target = Target::Service {
        namespace: "hooks".into(),
        name: "check".into(),
        port: 443,
        path: "/validate".into(),
    };
    assert_eq!(
        (&made.target, made.timeout_ms, made.ca_bundle.as_deref()),
        (&target, 10_000, Some(&b"ca"[..]))
    );
    let request = &made.body["request"];
    assert_eq!(made.body["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(request["uid"], "5d1a");
    assert_eq!(request["kind"], json!({"group": "apps", "version": "v1", "kind": "Deployment"}));
    assert_eq!(request["resource"], json!({"group": "apps", "version": "v1", "resource": "deployments"}));
    assert_eq!(
        (&request["operation"], &request["name"], &request["namespace"]),
        (&json!("CREATE"), &json!("web"), &json!("shop"))
    );
    assert_eq!(request["userInfo"], json!({"username": "alice", "groups": ["devs"]}));
    assert_eq!((&request["object"], &request["oldObject"]), (&deployment(), &Value::Null));

    assert!(
        call(json!({}), Operation::Delete, false).expect("no error").is_none(),
        "its rules do not name DELETE"
    );
    assert!(
        call(
            json!({"matchConditions": [{"name": "n", "expression": "object.spec.replicas > 9"}]}),
            Operation::Create,
            false
        )
        .expect("no error")
        .is_none()
    );
    assert!(call(json!({"rules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"]}]}), Operation::Delete, false).expect("no error").is_some());
    assert!(call(json!({"rules": [{"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["*"], "resources": ["*"], "scope": "Cluster"}]}), Operation::Create, false).expect("no error").is_none());
    assert!(call(json!({}), Operation::Create, true).expect("no error").is_some());
    let refused = call(json!({"sideEffects": "Some"}), Operation::Create, true).expect_err("refused");
    assert_eq!(refused.message, "admission webhook \"check.example.com\" does not support dry run");
}

#[test]
fn what_answers_of_webhooks_mean() {
    let answer = |policy: &str, answer: Value| {
        let snapshot = webhook(json!({"failurePolicy": policy}));
        let extensions = Extensions::read(&snapshot, &Extensions::default());
        extensions.validating_webhooks()[0].answer("5d1a", &answer)
    };
    let review = |response: Value| json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": response});
    let admitted = answer(
        "Fail",
        review(json!({"uid": "5d1a", "allowed": true, "warnings": ["old"], "patchType": "JSONPatch", "patch": "W10=", "auditAnnotations": {"k": "v"}})),
    )
    .expect("admitted");
    assert_eq!((admitted.patch, admitted.warnings), (Some(json!([])), vec!["old".to_owned()]));
    assert_eq!(admitted.audit, [("check.example.com/k".to_owned(), "v".to_owned())]);
    for (response, code, message) in [
        (json!({"uid": "5d1a", "allowed": false}), 400, "denied the request without explanation"),
        (
            json!({"uid": "5d1a", "allowed": false, "status": {"message": "no", "code": 403, "reason": "Forbidden"}}),
            403,
            "denied the request: no",
        ),
        (
            json!({"uid": "5d1a", "allowed": false, "status": {"reason": "Expired", "code": 200}}),
            400,
            "denied the request: Expired",
        ),
    ] {
        let told = answer("Fail", review(response.clone())).expect("an answer");
        let refusal = told.refusal.expect("refused");
        assert_eq!(refusal.code, code, "{response}");
        assert!(refusal.message.ends_with(message), "{}", refusal.message);
    }
    let refused =
        json!({"uid": "5d1a", "allowed": false, "warnings": ["old"], "auditAnnotations": {"k": "v"}});
    let refused = answer("Fail", review(refused)).expect("an answer");
    assert_eq!((refused.patch, refused.warnings), (None, vec!["old".to_owned()]));
    assert_eq!(refused.audit, [("check.example.com/k".to_owned(), "v".to_owned())]);
    for (response, message) in [
        (json!({"uid": "other", "allowed": true}), "expected response.uid=\"5d1a\", got \"other\""),
        (
            json!({"uid": "5d1a", "allowed": true, "patch": "W10="}),
            "webhook returned response.patch but not response.patchType",
        ),
    ] {
        let none = answer("Fail", review(response.clone())).expect_err("no answer");
        assert_eq!(none.code, 500, "{response}");
        assert!(none.message.ends_with(message), "{}", none.message);
    }
    assert!(answer("Ignore", json!({"nonsense": true})).is_ok());
}

#[test]
fn a_change_of_one_compiles_that_one() {
    let named = |name: &str, resource: &str| {
        json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": name}, "webhooks": [{"name": resource}]})
    };
    let before = snapshot(&[named("a", "x"), named("b", "y")]);
    let known = Extensions::read(&before, &Extensions::default());
    let again = Extensions::read(&before, &known);
    let addresses = |extensions: &Extensions| -> Vec<*const _> {
        extensions.validating_webhooks().iter().map(std::sync::Arc::as_ptr).collect()
    };
    assert_eq!(addresses(&known).len(), 2);
    assert_eq!(addresses(&known), addresses(&again), "what has not changed is taken over");
    assert!(!known.is_older(&again));
}

#[test]
fn extensions_do_not_judge_themselves() {
    let snapshot = webhook(json!({}));
    let extensions = Extensions::read(&snapshot, &Extensions::default());
    assert!(extensions.is_current(&snapshot) && !extensions.is_current(&Snapshot::default()));
    let object = deployment();
    assert!(ask(Operation::Create, &object, None, "", false, |asked| extensions.concern(asked.request)));
    assert!(!ask(Operation::Create, &object, None, "", false, |asked| Extensions::default()
        .concern(asked.request)));
}
