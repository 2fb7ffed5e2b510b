//! What EKS does to pods: whose keys they have, and which are Fargate's.

use super::*;

fn eks() -> PodIdentity {
    PodIdentity {
        region: "us-east-1".into(),
        environment: vec![("AWS_ENDPOINT_URL".into(), "http://169.254.170.24".into())],
        associations: [("a".to_owned(), "both".to_owned())].into(),
    }
}

/// Accounts with a role, with an association too, and with words about the token.
fn accounts() -> Vec<Value> {
    let account = |name: &str, annotations: Value| {
        let metadata = json!({"namespace": "a", "name": name, "annotations": annotations});
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata, "automountServiceAccountToken": false})
    };
    let role = json!({"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/r"});
    let mut words = role.clone();
    words["eks.amazonaws.com/audience"] = json!("vault");
    words["eks.amazonaws.com/token-expiration"] = json!("60");
    words["eks.amazonaws.com/sts-regional-endpoints"] = json!("false");
    world(&[account("role", role.clone()), account("both", role), account("words", words)])
}

/// `name=value` of a container's variables.
fn variables(container: &Value) -> Vec<String> {
    let text = |one: &Value| {
        format!("{}={}", one["name"].as_str().unwrap_or_default(), one["value"].as_str().unwrap_or_default())
    };
    container["env"].as_array().into_iter().flatten().map(text).collect()
}

#[test]
fn pods_of_eks_are_told_where_their_keys_are() {
    let (world, eks) = (accounts(), eks());
    let stored = |account: &str, metadata: Value, containers: Value| {
        let mut pod = pod(json!({"serviceAccountName": account, "containers": containers}));
        for (name, value) in metadata.as_object().into_iter().flatten() {
            pod["metadata"][name] = value.clone();
        }
        let case = Case { pod_identity: Some(&eks), ..Case::create(&world, pod) };
        case.stored()
    };
    let plain = || json!([{"name": "c", "image": "i"}]);
    let by_role = stored("role", json!({}), plain());
    let container = &by_role["spec"]["containers"][0];
    let wanted = [
        "AWS_STS_REGIONAL_ENDPOINTS=regional",
        "AWS_DEFAULT_REGION=us-east-1",
        "AWS_REGION=us-east-1",
        "AWS_ROLE_ARN=arn:aws:iam::1:role/r",
        "AWS_WEB_IDENTITY_TOKEN_FILE=/var/run/secrets/eks.amazonaws.com/serviceaccount/token",
        "AWS_ENDPOINT_URL=http://169.254.170.24",
    ];
    assert_eq!(variables(container), wanted);
    let mount = json!([{"name": "aws-iam-token", "mountPath": "/var/run/secrets/eks.amazonaws.com/serviceaccount", "readOnly": true}]);
    assert_eq!(container["volumeMounts"], mount);
    let token = json!({"audience": "sts.amazonaws.com", "expirationSeconds": 86400, "path": "token"});
    let volume =
        json!([{"name": "aws-iam-token", "projected": {"sources": [{"serviceAccountToken": token}]}}]);
    assert_eq!(by_role["spec"]["volumes"], volume);

    // An association wins over a role.
    let both = stored("both", json!({}), plain());
    let told = variables(&both["spec"]["containers"][0]);
    assert!(
        told.contains(&"AWS_CONTAINER_CREDENTIALS_FULL_URI=http://169.254.170.23/v1/credentials".to_owned())
    );
    assert!(!told.iter().any(|one| one.starts_with("AWS_ROLE_ARN")), "{told:?}");
    let source = &both["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"];
    assert_eq!(source["audience"], "pods.eks.amazonaws.com");

    let words = stored("words", json!({}), plain());
    let source = &words["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"];
    assert_eq!(source, &json!({"audience": "vault", "expirationSeconds": 600, "path": "token"}));
    assert!(!variables(&words["spec"]["containers"][0]).contains(&wanted[0].to_owned()));

    let annotations = json!({"annotations": {
        "eks.amazonaws.com/skip-containers": "proxy, other", "eks.amazonaws.com/token-expiration": "3600",
    }});
    let containers = json!([
        {"name": "proxy", "image": "i"},
        {"name": "own", "image": "i", "env": [{"name": "AWS_ROLE_ARN", "value": "x"}, {"name": "AWS_REGION", "value": "eu-west-1"}]},
    ]);
    let some = stored("role", annotations, containers);
    assert_eq!(variables(&some["spec"]["containers"][0]), [""; 0]);
    let own = ["AWS_ROLE_ARN=x", "AWS_REGION=eu-west-1", wanted[0], wanted[5]];
    assert_eq!(variables(&some["spec"]["containers"][1]), own);
    let source = &some["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"];
    assert_eq!(source["expirationSeconds"], 3600);

    for (account, metadata) in [
        ("default", json!({})),
        ("role", json!({"labels": {"eks.amazonaws.com/skip-pod-identity-webhook": "true"}})),
    ] {
        let pod = stored(account, metadata, plain());
        assert_eq!(variables(&pod["spec"]["containers"][0]), [""; 0], "{account}");
    }
}

/// One profile, `fp`, for pods with `on: fargate`; it lacks what is privileged.
struct Account;

impl Fargate for Account {
    fn profile_of(&self, namespace: &str, labels: &Value) -> Option<String> {
        (namespace == "a" && labels["on"] == "fargate").then(|| "fp".into())
    }

    fn lacking(&self, container: &Value) -> Option<String> {
        (container["securityContext"]["privileged"] == true).then(|| "Privileged".into())
    }
}

#[test]
fn pods_that_a_fargate_profile_matches_are_its_schedulers() {
    let label = "eks.amazonaws.com/fargate-profile";
    let daemon_set =
        json!([{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "u", "controller": true}]);
    let on = json!({"on": "fargate"});
    for (metadata, spec, is_chosen) in [
        (json!({}), json!({}), false),
        (json!({"labels": {"on": "nodes"}}), json!({}), false),
        (json!({"labels": on}), json!({}), true),
        (json!({"labels": on, "annotations": {"eks.amazonaws.com/compute-type": "ec2"}}), json!({}), false),
        (json!({"labels": on, "ownerReferences": daemon_set}), json!({}), false),
        (json!({"labels": on}), json!({"nodeName": "n"}), false),
        // Nobody else's scheduler is asked.
        (json!({"labels": on}), json!({"schedulerName": "mine"}), true),
    ] {
        let mut pod = pod(spec.clone());
        for (name, value) in metadata.as_object().into_iter().flatten() {
            pod["metadata"][name] = value.clone();
        }
        let world = world(&[]);
        let stored = Case { fargate: Some(&Account), ..Case::create(&world, pod) }.stored();
        assert_eq!(stored["spec"]["schedulerName"] == "fargate-scheduler", is_chosen, "{metadata} {spec}");
        assert_eq!(stored["metadata"]["labels"][label] == "fp", is_chosen, "{metadata} {spec}");
    }
}

#[test]
fn a_container_that_joins_a_pod_on_fargate_has_its_limits() {
    let refused = r#"pods "web" is forbidden: Pod not supported on Fargate: Privileged"#;
    for (scheduler, privileged, expected) in [
        ("fargate-scheduler", true, refused),
        ("fargate-scheduler", false, ""),
        ("default-scheduler", true, ""),
    ] {
        let old = pod(json!({"schedulerName": scheduler}));
        let mut new = old.clone();
        new["spec"]["ephemeralContainers"] =
            json!([{"name": "debug", "image": "i", "securityContext": {"privileged": privileged}}]);
        let world = world(&[]);
        let update = Case::update(&world, old, new);
        let case = Case { subresource: "ephemeralcontainers", fargate: Some(&Account), ..update };
        assert_eq!(case.refusal(), expected, "{scheduler} {privileged}");
    }
}
