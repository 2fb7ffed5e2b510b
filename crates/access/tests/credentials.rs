//! Certificates, service account tokens and bootstrap tokens.

mod world;

use access::service_account::{Authority, SigningKey, TokenRequest};
use access::{AccessError, ClientCa, bearer, certificate};
use base64::Engine;
use object::{Key, Snapshot, Time};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use ring::rand::SystemRandom;
use serde_json::{Value, json};
use world::{NOW, put, snapshot};

struct Ca {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
}

fn authority(name: &str) -> Ca {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("params");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let der = params.self_signed(&key).expect("signed").der().to_vec();
    Ca { issuer: Issuer::new(params, key), der }
}

fn client(ca: &Ca, name: &str, group: &str, usage: ExtendedKeyUsagePurpose, last_year: i32) -> Vec<u8> {
    let mut params = CertificateParams::new(Vec::new()).expect("params");
    params.distinguished_name = rcgen::DistinguishedName::new();
    if !name.is_empty() {
        params.distinguished_name.push(DnType::CommonName, name);
    }
    params.distinguished_name.push(DnType::OrganizationName, group);
    params.extended_key_usages = vec![usage];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(last_year, 1, 1);
    params.signed_by(&KeyPair::generate().expect("a key"), &ca.issuer).expect("signed").der().to_vec()
}

#[test]
fn a_certificate_says_who_its_client_is() {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let (ca, other) = (authority("ca"), authority("other"));
    let trusted = ClientCa { certificates: vec![ca.der.clone()] };
    let check = |chain: &[Vec<u8>]| match certificate(chain, &trusted, NOW) {
        Ok(user) => {
            assert!(user.extra["authentication.kubernetes.io/credential-id"][0].starts_with("X509SHA256="));
            let groups: Vec<&str> = user.groups.iter().map(|group| &**group).collect();
            format!("{} {}", user.name, groups.join(","))
        }
        Err(error) => error.to_string(),
    };
    let good = client(&ca, "alice", "devs", ClientAuth, 2040);
    assert_eq!(check(std::slice::from_ref(&good)), "alice devs,system:authenticated");
    assert!(check(&[client(&ca, "alice", "devs", ServerAuth, 2040)]).contains("incompatible key usage"));
    assert!(check(&[client(&ca, "alice", "devs", ClientAuth, 2021)]).contains("expired"));
    assert!(check(&[client(&other, "alice", "devs", ClientAuth, 2040)]).contains("unknown authority"));
    assert!(check(&[client(&ca, "", "devs", ClientAuth, 2040)]).contains("no common name"));
    assert!(check(&[]).contains("1 to 8 certificates"));
    let mut broken = good;
    broken.pop();
    assert!(check(&[broken]).starts_with("client certificate: "));
}

#[test]
fn a_forged_authority_of_the_same_name_is_not_believed() {
    let (ca, forged) = (authority("ca"), authority("ca"));
    let leaf = client(&forged, "alice", "system:masters", ExtendedKeyUsagePurpose::ClientAuth, 2040);
    let trusted = ClientCa { certificates: vec![ca.der] };
    assert!(certificate(&[leaf, forged.der], &trusted, NOW).is_err());
}

#[test]
fn authorities_below_the_authority_are_believed_as_far_as_it_lets_them() {
    let root = authority("root");
    let trusted = ClientCa { certificates: vec![root.der.clone()] };
    let below = |constraint: BasicConstraints, name: &str, above: &Ca| {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("params");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(constraint);
        let der = params.signed_by(&key, &above.issuer).expect("signed").der().to_vec();
        Ca { issuer: Issuer::new(params, key), der }
    };
    let leaf = |ca: &Ca| client(ca, "alice", "devs", ExtendedKeyUsagePurpose::ClientAuth, 2040);
    let middle = below(BasicConstraints::Constrained(0), "middle", &root);
    assert!(certificate(&[leaf(&middle), middle.der.clone()], &trusted, NOW).is_ok());
    assert!(certificate(&[leaf(&middle)], &trusted, NOW).is_err(), "its authority is missing");
    let deeper = below(BasicConstraints::Unconstrained, "deeper", &middle);
    let chain = [leaf(&deeper), deeper.der, middle.der];
    assert!(certificate(&chain, &trusted, NOW).expect_err("too deep").to_string().contains("longer than"));
    let user = Ca {
        der: leaf(&root),
        issuer: Issuer::new(CertificateParams::default(), KeyPair::generate().expect("a key")),
    };
    assert!(certificate(&[leaf(&user), user.der], &trusted, NOW).is_err(), "a client is no authority");
}

fn issuer() -> Authority {
    let random = SystemRandom::new();
    let pkcs8 = SigningKey::generate(&random).expect("a key");
    Authority {
        issuer: "https://kubernetes.default.svc.cluster.local".to_owned(),
        accepted_issuers: Vec::new(),
        audiences: vec!["https://kubernetes.default.svc.cluster.local".to_owned()],
        signing: SigningKey::from_pkcs8(&pkcs8, &random).expect("the key"),
        verifying: Vec::new(),
    }
}

fn cluster() -> Snapshot {
    snapshot(&[
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": "a", "name": "build"}}),
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": "a", "name": "key"}}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "name": "web"},
            "spec": {"serviceAccountName": "build", "nodeName": "n1"}}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "name": "other"},
            "spec": {"serviceAccountName": "default"}}),
    ])
}

fn request(authority: &Authority, snapshot: &Snapshot, spec: Value) -> Result<Value, String> {
    let account = Key::new(kinds::SERVICE_ACCOUNTS, "a", "build");
    let body = json!({"spec": spec});
    let request = TokenRequest { account: &account, body: &body, id: "id-1", now: NOW };
    authority.issue(snapshot, &request, &SystemRandom::new()).map_err(|status| status.message)
}

fn token(answer: &Value) -> &str {
    answer["status"]["token"].as_str().expect("a token")
}

#[test]
fn a_token_holds_as_long_as_what_it_is_bound_to() {
    let authority = issuer();
    let mut now = cluster();
    let bound = json!({"kind": "Pod", "apiVersion": "v1", "name": "web", "uid": "uid-web"});
    let answer = request(&authority, &now, json!({"boundObjectRef": bound, "expirationSeconds": 600}))
        .expect("issued");
    assert_eq!(answer["status"]["expirationTimestamp"], NOW.plus_secs(600).to_string());
    assert_eq!(answer["spec"]["audiences"], json!(authority.audiences));
    let verify = |now: &Snapshot, at: Time, audiences: &[&str]| {
        bearer(&authority, now, token(&answer), audiences, at).map_err(|error| error.to_string())
    };
    let user = verify(&now, NOW, &[]).expect("accepted").user;
    assert_eq!(&*user.name, "system:serviceaccount:a:build");
    assert_eq!(&*user.uid, "uid-build");
    let groups: Vec<&str> = user.groups.iter().map(|group| &**group).collect();
    assert_eq!(groups, ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]);
    let extra: Vec<String> =
        user.extra.iter().map(|(name, values)| format!("{}={}", &name[29..], values[0])).collect();
    assert_eq!(
        extra,
        ["credential-id=JTI=id-1", "node-name=n1", "node-uid=uid-n1", "pod-name=web", "pod-uid=uid-web"]
    );
    assert!(verify(&now, NOW.plus_secs(600), &[]).expect_err("late").contains("has expired"));
    assert!(verify(&now, NOW.plus_secs(-1), &[]).expect_err("early").contains("not valid yet"));
    assert!(
        verify(&now, NOW, &["vault"]).expect_err("elsewhere").contains("is invalid for the target audiences")
    );

    let going = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "name": "web",
        "deletionTimestamp": NOW.to_string()}, "spec": {"serviceAccountName": "build"}});
    put(&mut now, &going);
    assert!(verify(&now, NOW.plus_secs(60), &[]).is_ok(), "a pod may still clean up");
    assert!(verify(&now, NOW.plus_secs(61), &[]).is_err());
    let again = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "a", "name": "web", "uid": "new"}});
    put(&mut now, &again);
    assert!(verify(&now, NOW, &[]).expect_err("another pod").contains("does not match claim"));
    let revision = now.revision() + 1;
    now.remove(&Key::new(kinds::SERVICE_ACCOUNTS, "a", "build"), revision);
    assert!(verify(&now, NOW, &[]).expect_err("no account").contains("has been deleted"));
}

#[test]
fn a_token_of_a_projected_volume_lives_longer_than_it_says() {
    let (authority, now) = (issuer(), cluster());
    let bound = json!({"kind": "Pod", "apiVersion": "v1", "name": "web", "uid": "uid-web"});
    let answer = request(&authority, &now, json!({"boundObjectRef": bound, "expirationSeconds": 3607}))
        .expect("issued");
    assert_eq!(answer["status"]["expirationTimestamp"], NOW.plus_secs(3607).to_string());
    assert!(bearer(&authority, &now, token(&answer), &[], NOW.plus_secs(300 * 24 * 3600)).is_ok());
    let payload = token(&answer).split('.').nth(1).expect("a payload");
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).expect("base64");
    let claims: Value = serde_json::from_slice(&payload).expect("JSON");
    assert_eq!(claims["kubernetes.io"]["warnafter"], NOW.as_secs() + 3607);
    assert_eq!(claims["sub"], "system:serviceaccount:a:build");
}

/// A Secret for the token of `build`, as the controller of such Secrets fills it.
fn filled(authority: &Authority, now: &mut Snapshot, labels: &Value) -> String {
    let kept = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
        "metadata": {"namespace": "a", "name": "robot", "labels": labels}});
    put(now, &kept);
    let key = |resource, name| Key::new(resource, "a", name);
    let account = now.get(&key(kinds::SERVICE_ACCOUNTS, "build")).expect("an account");
    let secret = now.get(&key(kinds::SECRETS, "robot")).expect("a secret");
    let token = authority.token_of_secret(account, secret, &SystemRandom::new()).expect("signed");
    let mut kept = kept;
    kept["data"] = json!({"token": base64::engine::general_purpose::STANDARD.encode(&token)});
    put(now, &kept);
    token
}

#[test]
fn a_token_of_a_secret_holds_as_long_as_the_secret_holds_it() {
    let authority = issuer();
    let mut now = cluster();
    let token = filled(&authority, &mut now, &json!({}));
    let verify = |now: &Snapshot, at: Time, audiences: &[&str]| {
        bearer(&authority, now, &token, audiences, at).map_err(|error| error.to_string())
    };
    let found = verify(&now, NOW.plus_secs(10 * 365 * 24 * 3600), &[]).expect("it has no end");
    assert_eq!((&*found.user.name, &*found.user.uid), ("system:serviceaccount:a:build", "uid-build"));
    let groups: Vec<&str> = found.user.groups.iter().map(|group| &**group).collect();
    assert_eq!(groups, ["system:serviceaccounts", "system:serviceaccounts:a", "system:authenticated"]);
    assert!(found.user.extra.is_empty());
    let used = found.secret.expect("of a secret");
    assert!(!used.is_generated && found.renewed_late_secs.is_none());
    assert!(verify(&now, NOW, &["vault"]).expect_err("elsewhere").contains("for the target audiences"));

    let change = |now: &Snapshot, value: Value| {
        let mut changed = now.clone();
        put(&mut changed, &value);
        verify(&changed, NOW, &[]).expect_err("refused")
    };
    let account =
        |metadata: Value| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata});
    let secret = |metadata: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata});
    let going = NOW.to_string();
    for (value, says) in [
        (secret(json!({"namespace": "a", "name": "robot"})), "Token does not match server's copy"),
        (
            secret(json!({"namespace": "a", "name": "robot", "deletionTimestamp": going})),
            "Token has been invalidated",
        ),
        (
            account(json!({"namespace": "a", "name": "build", "uid": "new"})),
            "ServiceAccount UID (new) does not match claim (uid-build)",
        ),
        (
            account(json!({"namespace": "a", "name": "build", "deletionTimestamp": going})),
            "ServiceAccount a/build has been deleted",
        ),
    ] {
        assert_eq!(change(&now, value), format!("service account token: {says}"));
    }
    let forged = filled(&issuer(), &mut now, &json!({}));
    let refused = bearer(&authority, &now, &forged, &[], NOW).expect_err("another key");
    assert_eq!(refused, AccessError::ServiceAccountToken("the signature is of none of the keys".to_owned()));
}

#[test]
fn the_day_of_a_secrets_last_use_is_noted_once() {
    let authority = issuer();
    for (noted, wanted) in [
        ("", Some("2026-11-23")),
        ("2026-11-22", Some("2026-11-23")),
        ("2026-11-23", None),
        ("2026-11-24", None),
    ] {
        let mut now = cluster();
        let token = filled(&authority, &mut now, &json!({"kubernetes.io/legacy-token-last-used": noted}));
        let used = bearer(&authority, &now, &token, &[], NOW).expect("accepted").secret.expect("of a secret");
        assert_eq!(used.note_day.as_deref(), wanted, "{noted}");
    }
    let mut now = cluster();
    let marked = json!({"kubernetes.io/legacy-token-invalid-since": "2026-01-01"});
    let token = filled(&authority, &mut now, &marked);
    let named = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": "a", "name": "build"},
        "secrets": [{"name": "robot"}]});
    put(&mut now, &named);
    let error = bearer(&authority, &now, &token, &[], NOW).expect_err("marked");
    let AccessError::InvalidatedToken(used) = &error else { panic!("{error}") };
    assert!(used.is_generated);
    assert!(
        error
            .to_string()
            .starts_with("the token in secret a/robot for service account a/build has been marked invalid. ")
    );
}

#[test]
fn keys_rotate() {
    let (old, now) = (issuer(), cluster());
    let held = request(&old, &now, json!({})).expect("issued");
    let mut new = issuer();
    let refused = bearer(&new, &now, token(&held), &[], NOW).expect_err("an unknown key");
    assert_eq!(refused, AccessError::ServiceAccountToken("the signature is of none of the keys".to_owned()));
    new.verifying.push(old.signing.public().clone());
    assert!(bearer(&new, &now, token(&held), &[], NOW).is_ok());
    let keys = new.jwks();
    assert_eq!(keys["keys"].as_array().map(Vec::len), Some(2));
    assert_eq!(keys["keys"][1]["kid"], old.signing.public().id.as_str());
    new.issuer = "https://elsewhere".to_owned();
    assert_eq!(bearer(&new, &now, token(&held), &[], NOW), Err(AccessError::Unrecognized));
    new.accepted_issuers.push(old.issuer.clone());
    assert!(bearer(&new, &now, token(&held), &[], NOW).is_ok());
}

#[test]
fn a_changed_token_is_refused() {
    let (authority, now) = (issuer(), cluster());
    let answer = request(&authority, &now, json!({})).expect("issued");
    let parts: Vec<&str> = token(&answer).split('.').collect();
    let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let none = engine.encode(r#"{"alg":"none"}"#);
    let payload = String::from_utf8(engine.decode(parts[1]).expect("base64")).expect("text");
    let grander = engine.encode(payload.replace("build", "admin"));
    for forged in [
        format!("{}.{}.{}", none, parts[1], parts[2]),
        format!("{}.{}.", none, parts[1]),
        format!("{}.{}.{}", parts[0], grander, parts[2]),
        format!("{}.{}", parts[0], parts[1]),
        "x".repeat(100_000),
    ] {
        assert!(bearer(&authority, &now, &forged, &[], NOW).is_err(), "{}", &forged[..20]);
    }
}

#[test]
fn token_requests_are_judged() {
    let (authority, now) = (issuer(), cluster());
    let bound = |kind: &str, name: &str, uid: &str| json!({"boundObjectRef": {"kind": kind, "apiVersion": "v1", "name": name, "uid": uid}});
    for (spec, expected) in [
        (
            json!({"expirationSeconds": 599}),
            "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes",
        ),
        (
            json!({"expirationSeconds": 4294967297_i64}),
            "TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 4294967297: may not specify a duration larger than 2^32 seconds",
        ),
        (bound("Deployment", "x", ""), "cannot bind token to object of type /v1, Kind=Deployment"),
        (bound("Pod", "none", ""), "pods \"none\" not found"),
        (
            bound("Pod", "web", "old"),
            "Operation cannot be fulfilled on Pod \"web\": the UID in the bound object reference (old) does not match the UID in record. The object might have been deleted and then recreated",
        ),
        (
            bound("Pod", "other", ""),
            "cannot bind token for serviceaccount \"build\" to pod running with different serviceaccount name.",
        ),
    ] {
        assert_eq!(request(&authority, &now, spec), Err(expected.to_owned()));
    }
    for spec in [bound("Secret", "key", "uid-key"), bound("Node", "n1", "")] {
        let answer = request(&authority, &now, spec).expect("issued");
        assert!(bearer(&authority, &now, token(&answer), &[], NOW).is_ok());
    }
}

#[test]
fn bootstrap_tokens_let_new_nodes_in() {
    let authority = issuer();
    let secret = |changes: &[(&str, &str)]| {
        let mut data = json!({"token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true"});
        for (name, value) in changes {
            data[*name] = (*value).into();
        }
        for value in data.as_object_mut().expect("a map").values_mut() {
            *value = base64::engine::general_purpose::STANDARD.encode(value.as_str().expect("text")).into();
        }
        snapshot(&[json!({"apiVersion": "v1", "kind": "Secret", "type": "bootstrap.kubernetes.io/token",
            "metadata": {"namespace": "kube-system", "name": "bootstrap-token-abcdef"}, "data": data})])
    };
    let good = "abcdef.0123456789abcdef";
    for (token, changes, expected) in [
        (good, &[][..], "system:bootstrap:abcdef system:bootstrappers,system:authenticated"),
        (
            good,
            &[("auth-extra-groups", "system:bootstrappers:ekso")],
            "system:bootstrap:abcdef system:bootstrappers,system:bootstrappers:ekso,system:authenticated",
        ),
        (
            good,
            &[("auth-extra-groups", "system:masters")],
            "bootstrap token abcdef: an extra group does not begin with system:bootstrappers:",
        ),
        (good, &[("expiration", "2026-11-23T05:00:00Z")], "bootstrap token abcdef: expired"),
        (
            good,
            &[("expiration", "2026-11-23T05:00:01Z")],
            "system:bootstrap:abcdef system:bootstrappers,system:authenticated",
        ),
        (
            good,
            &[("usage-bootstrap-authentication", "false")],
            "bootstrap token abcdef: not usable for authentication",
        ),
        ("abcdef.0123456789abcdee", &[], "bootstrap token abcdef: the secret part does not match"),
        ("ghijkl.0123456789abcdef", &[], "bootstrap token ghijkl: no such secret"),
        ("abcdef", &[], "not a credential of this kind"),
        ("ABCDEF.0123456789abcdef", &[], "not a credential of this kind"),
    ] {
        let answer = match bearer(&authority, &secret(changes), token, &[], NOW) {
            Ok(found) => {
                let groups: Vec<&str> = found.user.groups.iter().map(|group| &**group).collect();
                format!("{} {}", found.user.name, groups.join(","))
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(answer, expected, "{token} {changes:?}");
    }
}
