//! Pods' tokens become roles' keys, and every other token does not.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};

use super::jwt::{Issuer, key_of};
use crate::ec2::record::{Instance, SiteNode, State, Wanted};
use crate::eks::{ClusterRecord, PodIdentityAssociation};
use crate::eks_auth::agent::{Asked, Node, Told, answer};
use crate::iam::record::{InstanceProfile, named};
use crate::state::{Changes, Record};
use crate::stories::{ACCOUNT, Account};
use crate::{Caller, Fault, Ids, World};

const ISSUER: &str = "https://oidc.test:9443/id/A1B2";

struct Signer {
    pair: EcdsaKeyPair,
    random: SystemRandom,
}

impl Signer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).expect("its pair");
        Self { pair, random }
    }

    fn jwks(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        json!({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "k", "use": "sig", "x": x, "y": y}]})
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", encode(header), encode(claims));
        let signature = self.pair.sign(&self.random, text.as_bytes()).expect("a signature");
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// An account with a cluster's issuer, the provider for it, and a role for one service account.
struct Site {
    account: Account,
    signer: Signer,
}

impl Site {
    fn new() -> Self {
        let mut account = Account::new();
        let signer = Signer::new();
        let issuer = Issuer { url: ISSUER.to_owned(), jwks: signer.jwks() };
        account.change(|changes| changes.create("", &key_of(ISSUER), &issuer));
        account.tell(include_str!("../../testdata/sts/web_identity.yaml"));
        Self { account, signer }
    }

    /// A pod's token, with what `but` says otherwise.
    fn token(&self, but: Value) -> String {
        let mut claims = json!({
            "iss": ISSUER, "sub": "system:serviceaccount:web:shop", "aud": ["sts.amazonaws.com"],
            "exp": self.account.now.as_secs() + 3_600, "nbf": self.account.now.as_secs(),
            "kubernetes.io": {
                "namespace": "web",
                "serviceaccount": {"name": "shop", "uid": "u1"},
                "pod": {"name": "shop-0", "uid": "u2"},
            },
        });
        for (name, value) in but.as_object().into_iter().flatten() {
            claims[name] = value.clone();
        }
        self.signer.sign(&json!({"alg": "ES256", "kid": "k"}), &claims)
    }

    fn assume(&mut self, role: &str, token: &str) -> Result<Value, String> {
        let arn = format!("arn:aws:iam::{ACCOUNT}:role/{role}");
        let input = json!({"RoleArn": arn, "RoleSessionName": "pod", "WebIdentityToken": token});
        let caller = Caller::default();
        self.account.call("AssumeRoleWithWebIdentity", &caller, &input).map_err(|fault| told(&fault))
    }
}

fn told(fault: &Fault) -> String {
    format!("{}: {}", fault.code, fault.message)
}

#[test]
fn a_pods_token_is_worth_its_role() {
    let mut site = Site::new();
    let token = site.token(json!({}));
    for role in ["shop", "shop-with-port"] {
        let output = site.assume(role, &token).expect("keys");
        assert_eq!(output["SubjectFromWebIdentityToken"], "system:serviceaccount:web:shop");
        assert_eq!(output["Audience"], "sts.amazonaws.com");
        assert_eq!(output["Provider"], format!("arn:aws:iam::{ACCOUNT}:oidc-provider/oidc.test/id/A1B2"));
        site.account.keep("pod", &output);
        let pod = site.account.caller("pod").expect("a caller");
        let identity = site.account.call("GetCallerIdentity", &pod, &json!({})).expect("who it is");
        assert_eq!(identity["Arn"], format!("arn:aws:sts::{ACCOUNT}:assumed-role/{role}/pod"));
    }
}

#[test]
fn every_other_token_is_worth_nothing() {
    let mut site = Site::new();
    let now = site.account.now.as_secs();
    let denied = "AccessDenied: Not authorized to perform sts:AssumeRoleWithWebIdentity";
    for (but, role, wanted) in [
        (json!({}), "none", denied),
        (json!({}), "AmazonEKSNodeRole", denied),
        (json!({"sub": "system:serviceaccount:web:other"}), "shop", denied),
        (json!({"aud": "vault"}), "shop", "InvalidIdentityToken: Incorrect token audience"),
        (json!({"aud": ["other.example"]}), "shop", denied),
        (
            json!({"iss": "https://elsewhere.example"}),
            "shop",
            "InvalidIdentityToken: No OpenIDConnect provider found in your account for https://elsewhere.example",
        ),
        (
            json!({"iss": "https://known.example/x"}),
            "shop",
            "IDPCommunicationError: Ekso knows the keys of its own clusters only, and https://known.example/x is none of them",
        ),
        (json!({"nbf": now + 60}), "shop", "InvalidIdentityToken: The token is not valid yet"),
    ] {
        let token = site.token(but);
        assert_eq!(site.assume(role, &token).expect_err("refused"), wanted);
    }
    let expired = site.token(json!({"exp": now}));
    let wanted = format!(
        "ExpiredTokenException: Token expired: current date/time {now} must be before the expiration date/time {now}"
    );
    assert_eq!(site.assume("shop", &expired).expect_err("refused"), wanted);
    let not_jwt = "InvalidIdentityToken: The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)";
    assert_eq!(site.assume("shop", "an.access.token").expect_err("refused"), not_jwt);
}

#[test]
fn a_token_is_signed_by_the_issuers_key_and_no_other_way() {
    let mut site = Site::new();
    let claims = json!({
        "iss": ISSUER, "sub": "system:serviceaccount:web:shop", "aud": "sts.amazonaws.com",
        "exp": site.account.now.as_secs() + 60,
    });
    let forged = "InvalidIdentityToken: The signature of the token is invalid";
    let unknown = "InvalidIdentityToken: Couldn't retrieve verification key from your identity provider,  please reference AssumeRoleWithWebIdentity documentation for requirements";
    for (header, wanted) in [
        (json!({"alg": "ES256", "kid": "k"}), forged),
        (json!({"alg": "none", "kid": "k"}), forged),
        (json!({"alg": "HS256", "kid": "k"}), forged),
        (json!({"alg": "RS256", "kid": "k"}), forged),
        (json!({"alg": "ES256", "kid": "other"}), unknown),
        (json!({"alg": "ES256"}), unknown),
    ] {
        let token = Signer::new().sign(&header, &claims);
        assert_eq!(site.assume("shop", &token).expect_err("refused"), wanted, "{header}");
    }
}

/// A record of a cluster, as far as pod identity reads it.
fn cluster(name: &str) -> Value {
    let text =
        include_str!("../../testdata/sts/cluster.json").replace("NAME", name).replace("ISSUER", ISSUER);
    serde_json::from_str(&text).expect("a cluster")
}

#[test]
fn a_pod_gets_the_keys_of_its_association() {
    let mut site = Site::new();
    let record: ClusterRecord = serde_json::from_value(cluster("shop")).expect("a record");
    let association: PodIdentityAssociation = serde_json::from_value(json!({
        "clusterName": "shop", "namespace": "web", "serviceAccount": "shop",
        "roleArn": format!("arn:aws:iam::{ACCOUNT}:role/pods"), "associationArn": "arn:a", "associationId": "a-1",
        "tags": {}, "createdAt": "2026-11-23T00:00:00Z", "modifiedAt": "2026-11-23T00:00:00Z",
        "disableSessionTags": false,
    }))
    .expect("an association");
    site.account.change(|changes: &mut Changes| {
        changes.create("", "shop", &record);
        changes.create("shop", "a-1", &association);
    });
    assert_eq!(PodIdentityAssociation::RESOURCE.as_str(), "pod-identity-associations.eks");
    let node = site.account.caller("node").expect("the node's session");
    let ask = |account: &mut Account, token: String| {
        let input = json!({"clusterName": "shop", "token": token});
        account.call("AssumeRoleForPodIdentity", &node, &input).map_err(|fault| told(&fault))
    };
    let audience = json!({"aud": ["pods.eks.amazonaws.com"]});
    let token = site.token(audience);
    let output = ask(&mut site.account, token.clone()).expect("keys");
    assert_eq!(output["subject"], json!({"namespace": "web", "serviceAccount": "shop"}));
    let arn = output["assumedRoleUser"]["arn"].as_str().expect("an ARN");
    assert!(arn.starts_with(&format!("arn:aws:sts::{ACCOUNT}:assumed-role/pods/eks-shop-shop-0-")), "{arn}");
    for (but, wanted) in [
        (json!({}), "InvalidTokenException: The token is for another audience"),
        (
            json!({"aud": "pods.eks.amazonaws.com", "iss": "https://known.example/x"}),
            "InvalidTokenException: The token is not of this cluster",
        ),
        (json!({"aud": "pods.eks.amazonaws.com", "exp": 1}), "ExpiredTokenException: The token has expired"),
        (
            json!({"aud": "pods.eks.amazonaws.com", "kubernetes.io": {"namespace": "web", "serviceaccount": {"name": "shop"}}}),
            "InvalidTokenException: The token is not bound to a pod",
        ),
        (
            json!({"aud": "pods.eks.amazonaws.com", "kubernetes.io": {"namespace": "x", "serviceaccount": {"name": "shop"}, "pod": {"name": "p"}}}),
            "ResourceNotFoundException: No association found for the service account x/shop in the cluster shop",
        ),
    ] {
        let token = site.token(but);
        assert_eq!(ask(&mut site.account, token).expect_err("refused"), wanted);
    }
    agents(&mut site, &token);
    // The role must trust the service, tags and all.
    site.account.tell(
        r#"
- {call: UpdateAssumeRolePolicy, with: {RoleName: pods, PolicyDocument: '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"pods.eks.amazonaws.com"},"Action":"sts:AssumeRole"}]}'}}
"#,
    );
    let refused = ask(&mut site.account, token).expect_err("refused");
    assert!(
        refused.starts_with("AccessDeniedException: Role arn:aws:iam::111122223333:role/pods"),
        "{refused}"
    );
}

/// An instance that runs with the role of nodes, and is none yet.
fn instance(account: &Account, id: &str) -> Instance {
    let profile = named::<InstanceProfile>(&account.state, "AmazonEKSNodeRole").expect("a profile").record;
    serde_json::from_value(json!({
        "instanceId": id, "reservationId": "r-1", "clientToken": "", "launchIndex": 0, "imageId": "ami-1",
        "instanceType": "t3.medium", "vpcId": "vpc-1", "subnetId": "subnet-1", "availabilityZone": "us-east-1a",
        "privateDnsName": "ip-10-0-0-1.ec2.internal", "profile": [profile.common.arn, profile.common.id],
        "metadata": {"isEnabled": true, "hopLimit": 1, "showsTags": false}, "isSpot": false,
        "disableApiTermination": false, "launched": account.now, "wanted": Wanted::Running, "state": State::Running,
    }))
    .expect("an instance")
}

/// The agent gives the same, in the words of an SDK, and says what is wrong in its own.
fn agents(site: &mut Site, token: &str) {
    let mut node = instance(&site.account, "i-0");
    node.site_node = Some(SiteNode { cluster: "shop".to_owned(), name: "shop-1".to_owned() });
    site.account.change(|changes| changes.create("", "i-0", &node));
    let mut drawn = 100;
    let mut ask = |site: &Site, cluster: &str, path: &str, host: &str, authorization: &str| {
        drawn += 1;
        let Account { state, now, .. } = &site.account;
        let world = World { account: ACCOUNT, region: "us-east-1", now: *now, state };
        // A node of the site's own: Ekso itself asks for it.
        let node = Node { cluster: cluster.to_owned(), machine: "i-0".to_owned() };
        let asked = Asked { path, host, authorization };
        answer(&world, &mut Ids::new([drawn; 32]), &node, &asked)
    };
    let (path, host) = ("/v1/credentials", "169.254.170.23");
    for host in [host, "169.254.170.23:80"] {
        let told = ask(site, "shop", path, host, token);
        let given: Value = serde_json::from_str(&told.body).expect("JSON");
        assert_eq!((told.status, told.is_json, &given["AccountId"]), (200, true, &json!(ACCOUNT)));
        assert!(given["AccessKeyId"].as_str().is_some_and(|id| id.starts_with("ASIA")), "a key");
        assert!(
            given["Expiration"].is_string()
                && given["Token"].is_string()
                && given["SecretAccessKey"].is_string()
        );
    }
    let now = site.account.now.as_secs();
    let audience = "pods.eks.amazonaws.com";
    let ended = site.token(json!({"aud": audience, "exp": now}));
    let early = site.token(json!({"aud": audience, "nbf": now + 9}));
    let meant_for_sts = site.token(json!({}));
    let stranger = site.token(json!({"aud": audience, "iss": "https://elsewhere.example"}));
    let (sound, claims) = (token, "Service account token failed basic claim validations: token is");
    for (cluster, path, host, token, status, wanted) in [
        ("shop", "/", host, sound, 404, "404 page not found\n".to_owned()),
        (
            "shop",
            path,
            "rebound.example",
            sound,
            403,
            "Access Denied. Called agent through invalid address, please use either [169.254.170.23 fd00:ec2::23] address not rebound.example\n".to_owned(),
        ),
        ("shop", path, host, "", 400, "Service account token cannot be empty\n".to_owned()),
        ("shop", path, host, "x", 400, "Service account token cannot be parsed: token is malformed\n".to_owned()),
        ("shop", path, host, &ended, 400, format!("{claims} expired\n")),
        ("shop", path, host, &early, 400, format!("{claims} not valid yet\n")),
        ("shop", path, host, &meant_for_sts, 400, "(InvalidTokenException): The token is for another audience, fault: client\n".to_owned()),
        ("shop", path, host, &stranger, 400, "(InvalidTokenException): The token is not of this cluster, fault: client\n".to_owned()),
        // On a node of another cluster it is worth nothing.
        ("blog", path, host, sound, 404, "(ResourceNotFoundException): No cluster found for name: blog., fault: client\n".to_owned()),
    ] {
        let Told { status: told, is_json, body } = ask(site, cluster, path, host, token);
        assert!(told == status && !is_json && body.ends_with(&wanted), "{told} {body:?} instead of {wanted:?}");
    }
}

#[test]
fn an_agent_asks_with_the_keys_of_its_node() {
    let mut site = Site::new();
    let record: ClusterRecord = serde_json::from_value(cluster("shop")).expect("a record");
    site.account.change(|changes| changes.create("", "shop", &record));
    let mut instance = instance(&site.account, "i-1");
    assert_eq!(Node::of(&instance), None);
    instance.joined = Some("shop".to_owned());
    let node = Node::of(&instance).expect("a node");
    assert!(!node.has_agent(&site.account.state), "no add-on, no agent");
    let add = json!({"clusterName": "shop", "addonName": "eks-pod-identity-agent"});
    let admin = site.account.caller("admin").expect("a caller");
    site.account.call("CreateAddon", &admin, &add).expect("the add-on");
    assert!(node.has_agent(&site.account.state));
    site.account.change(|changes| changes.create("", "i-1", &instance));
    let token = site.token(json!({"aud": "pods.eks.amazonaws.com"}));
    let ask = |site: &Site| {
        let Account { state, now, .. } = &site.account;
        let world = World { account: ACCOUNT, region: "us-east-1", now: *now, state };
        let asked = Asked { path: "/v1/credentials", host: "169.254.170.23", authorization: &token };
        answer(&world, &mut Ids::new([9; 32]), &node, &asked).body
    };
    let body = ask(&site);
    assert!(body.contains("(ResourceNotFoundException): No association found"), "{body}");
    site.account.tell(
        r#"
- {call: DetachRolePolicy, with: {RoleName: AmazonEKSNodeRole, PolicyArn: 'arn:aws:iam::aws:policy/AmazonEKSWorkerNodePolicy'}}
"#,
    );
    let body = ask(&site);
    let wanted = "(AccessDeniedException): User: arn:aws:sts::111122223333:assumed-role/AmazonEKSNodeRole/i-1 is not authorized to perform: eks-auth:AssumeRoleForPodIdentity on resource: ";
    assert!(body.contains(wanted), "{body}");
}
