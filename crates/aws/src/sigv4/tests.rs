use bytes::Bytes;
use http::Request;

use super::*;
use crate::credentials::{AccessKey, SEAL, SealingKey, Session, seal};
use crate::state::Changes;
use crate::{Caller, Ids};

const KEY: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
pub const MOMENT: &str = "20150830T123600Z";

/// An account with one user, `admin`, who holds [`KEY`].
pub fn account() -> Snapshot {
    let mut all = Changes::default();
    all.create("", SEAL, &SealingKey { key: "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=".into() });
    let key = AccessKey {
        user_name: "admin".into(),
        arn: "arn:aws:iam::000000000000:user/admin".into(),
        user_id: "AIDAADMIN".into(),
        secret: SECRET.into(),
        is_active: true,
        created: Time::default(),
    };
    all.create("", KEY, &key);
    let mut state = Snapshot::default();
    all.apply(&mut state);
    state
}

pub fn now() -> Time {
    "2015-08-30T12:36:00Z".parse().expect("a time")
}

/// Signs a request in its headers as a client would, at [`MOMENT`].
pub fn sign(request: &mut Request<Bytes>, region: &str, service: &str) {
    if !request.headers().contains_key("host") {
        request.headers_mut().insert("host", "127.0.0.1:4566".parse().expect("a value"));
    }
    let key = Key { id: KEY, secret: SECRET, token: None };
    super::sign(request, &key, region, service, now()).expect("signed");
}

fn claim(region: &str, service: &str, signed_headers: Vec<String>) -> Signature {
    Signature {
        access_key_id: KEY.into(),
        date: MOMENT[..8].into(),
        region: region.into(),
        service: service.into(),
        terminator: TERMINATOR.into(),
        signed_headers,
        signature: String::new(),
        time_text: MOMENT.into(),
        time: now(),
        expires: None,
        token: None,
    }
}

fn signature_of(message: &Message, claim: &Signature, secret: &str) -> String {
    super::sign::hex(signature(secret, message, claim).expect("canonical").as_ref())
}

/// The shapes of AWS's published test suite and some more; the signatures are botocore's.
#[test]
fn signatures_are_those_of_other_implementations() {
    let form = ("content-type", "application/x-www-form-urlencoded; charset=utf8");
    for (name, method, uri, header, body, signature) in [
        ("vanilla", "GET", "/", None, "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"),
        (
            "query",
            "GET",
            "/?Param2=value2&Param1=value1",
            None,
            "",
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        ),
        (
            "encoded query",
            "GET",
            "/?a=%20b%2Fc&A=&a=1",
            None,
            "",
            "8bfe858937457ebebc960c0029e41d93b3ff8670d0c4131419dbc2e7f6ec2ca5",
        ),
        (
            "utf-8",
            "GET",
            "/%E1%88%B4",
            None,
            "",
            "697b34846207a3f72246f99d74ae1ee4fe54f44bb06730c58a0d339eb079596d",
        ),
        (
            "encoded path",
            "GET",
            "/clusters/a%2Fb%3Ac/x",
            None,
            "",
            "8e549153fb6b947636a31d33628b81b96ffb97324b921f0955d2d979ed67dd8f",
        ),
        (
            "dots",
            "GET",
            "/a/./b//../c/",
            None,
            "",
            "03815191a982245f233767bed9d5022ca4cf6dc96e4c7598525bfdbc1932b50c",
        ),
        (
            "spaces",
            "GET",
            "/",
            Some(("my-header", "  a   b  c ")),
            "",
            "efcae4a27642128c674b31b4530b285feb2975418c4ec6d7fc14fc6fa00907ad",
        ),
        (
            "form",
            "POST",
            "/",
            Some(form),
            "Param1=value1",
            "1a72ec8f64bd914b0e42e42607c7fbce7fb2c7465f63e3092b3b0d39fa77a6fe",
        ),
        (
            "token",
            "GET",
            "/",
            Some(("x-amz-security-token", "TOKEN+/=")),
            "",
            "5d5af61b0dee847407acb854509a36e139fc2d686a6c0f9123d00d9e76df5158",
        ),
    ] {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let mut headers = vec![("host", "example.amazonaws.com"), ("x-amz-date", MOMENT)];
        headers.extend(header);
        let headers: Vec<_> =
            headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let mut names: Vec<String> = headers.iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        let message = Message { method, path, query, headers, body: body.as_bytes() };
        let claim = Signature { signature: signature.into(), ..claim("us-east-1", "service", names) };
        assert!(is_signed_with(SECRET, &message, &claim).expect("canonical"), "{name}");
        assert!(!is_signed_with("another", &message, &claim).expect("canonical"), "{name}");
    }
}

#[test]
fn presigned_urls_are_those_of_other_implementations() {
    const QUERY: &str = "Action=X&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20150830%2Fus-east-1%2Fservice%2Faws4_request&X-Amz-Date=20150830T123600Z&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature=484c40d5d7ffefd853365c9442d231b468e4f73eae9fcc1d14c508e9432b6735";
    let state = account();
    let check = |query: &str, seconds: i64| {
        let headers = vec![("host".to_owned(), "example.amazonaws.com".to_owned())];
        let message = Message { method: "GET", path: "/", query, headers, body: b"" };
        let signature = Signature::of(&message).expect("complete").expect("signed");
        let scope = Scope { service: "service", regions: &["us-east-1"] };
        verify(&state, now().plus_secs(seconds), &scope, &message, &signature).map(|caller| caller.user_id)
    };
    assert_eq!(check(QUERY, 60), Ok("AIDAADMIN".into()));
    assert_eq!(check(QUERY, 61).expect_err("refused").code, "SignatureExpired");
    assert_eq!(check(QUERY, -301).expect_err("refused").code, "SignatureExpired");
    for (from, to) in
        [("Action=X", "Action=Y"), ("Expires=60", "Expires=61"), ("Signature=48", "Signature=49")]
    {
        assert_eq!(
            check(&QUERY.replace(from, to), 0).expect_err("refused").code,
            "SignatureDoesNotMatch",
            "{to}"
        );
    }
}

fn asked() -> Request<Bytes> {
    let mut request = Request::new(Bytes::from_static(b"Action=GetCallerIdentity&Version=2011-06-15"));
    *request.method_mut() = http::Method::POST;
    sign(&mut request, "us-east-1", "sts");
    request
}

fn judged(request: &Request<Bytes>, seconds: i64) -> Result<String, (String, String)> {
    let message = Message::of(request);
    let scope = Scope { service: "sts", regions: &["us-east-1"] };
    let told = |fault: Fault| (fault.code, fault.message);
    let signature = Signature::of(&message).map_err(told)?.ok_or(("none".to_owned(), String::new()))?;
    verify(&account(), now().plus_secs(seconds), &scope, &message, &signature)
        .map(|caller| caller.arn)
        .map_err(told)
}

#[test]
fn a_signed_call_is_the_users_within_five_minutes() {
    for seconds in [-300, 0, 300] {
        assert_eq!(judged(&asked(), seconds), Ok("arn:aws:iam::000000000000:user/admin".into()));
    }
    let late = judged(&asked(), 301).expect_err("refused");
    assert_eq!(
        late.1,
        "Signature expired: 20150830T123600Z is now earlier than 20150830T123601Z (20150830T124101Z - 5 min.)"
    );
    let early = judged(&asked(), -301).expect_err("refused");
    assert_eq!(
        early.1,
        "Signature not yet current: 20150830T123600Z is still later than 20150830T123559Z (20150830T123059Z + 5 min.)"
    );
}

#[test]
fn what_is_forged_is_refused() {
    let altered = |change: fn(&mut Request<Bytes>)| {
        let mut request = asked();
        change(&mut request);
        judged(&request, 0).expect_err("refused").0
    };
    fn swap(request: &mut Request<Bytes>, from: &str, to: &str) {
        let header = request.headers()["authorization"].to_str().expect("text").replace(from, to);
        request.headers_mut().insert("authorization", header.parse().expect("a value"));
    }
    let mismatch = "SignatureDoesNotMatch";
    assert_eq!(altered(|request| *request.body_mut() = Bytes::from_static(b"Action=Other")), mismatch);
    assert_eq!(altered(|request| *request.method_mut() = http::Method::PUT), mismatch);
    assert_eq!(altered(|request| *request.uri_mut() = "/?x=1".parse().expect("a URI")), mismatch);
    assert_eq!(altered(|request| *request.uri_mut() = "/other".parse().expect("a URI")), mismatch);
    assert_eq!(
        altered(|request| drop(request.headers_mut().insert("host", "other:1".parse().expect("a value")))),
        mismatch
    );
    assert_eq!(
        altered(|request| drop(
            request.headers_mut().insert("x-amz-target", "X.Y".parse().expect("a value"))
        )),
        mismatch
    );
    assert_eq!(altered(|request| swap(request, "SignedHeaders=host;", "SignedHeaders=")), mismatch);
    assert_eq!(altered(|request| swap(request, "/us-east-1/", "/eu-west-1/")), mismatch);
    assert_eq!(altered(|request| swap(request, "/sts/", "/iam/")), mismatch);
    assert_eq!(altered(|request| swap(request, "aws4_request", "aws4")), mismatch);
    assert_eq!(altered(|request| swap(request, "/20150830/", "/20150831/")), mismatch);
    assert_eq!(altered(|request| swap(request, "Signature=", "Signature=0")), mismatch);
    assert_eq!(altered(|request| swap(request, KEY, "AKIDOTHER")), "InvalidClientTokenId");
    assert_eq!(
        altered(|request| drop(
            request.headers_mut().insert("x-amz-security-token", "T".parse().expect("a value"))
        )),
        mismatch
    );
}

#[test]
fn a_body_that_is_not_signed_is_no_body() {
    let mut request = asked();
    request.headers_mut().remove("authorization");
    request.headers_mut().insert("x-amz-content-sha256", "UNSIGNED-PAYLOAD".parse().expect("a value"));
    sign(&mut request, "us-east-1", "sts");
    assert!(judged(&request, 0).is_ok(), "the header itself does no harm");
    // Signed as a client of S3 may: with the word in place of the digest.
    let message = Message::of(&request);
    let claim = Signature::of(&message).expect("whole").expect("signed");
    let canonical = canonical::request(&message, &claim).expect("canonical");
    let (head, _) = canonical.rsplit_once('\n').expect("lines");
    let digest = canonical::sha256(format!("{head}\nUNSIGNED-PAYLOAD").as_bytes());
    let text = format!("{ALGORITHM}\n{MOMENT}\n{}/us-east-1/sts/{TERMINATOR}\n{digest}", &MOMENT[..8]);
    let key = signing_key(SECRET, &MOMENT[..8], "us-east-1", "sts");
    let unsigned = super::sign::hex(hmac::sign(&key, text.as_bytes()).as_ref());
    let header = request.headers()["authorization"].to_str().expect("text");
    let header = header.replace(&claim.signature, &unsigned).parse().expect("a value");
    request.headers_mut().insert("authorization", header);
    assert_eq!(judged(&request, 0).expect_err("refused").0, "SignatureDoesNotMatch");
}

#[test]
fn what_is_incomplete_is_told() {
    for (header, part) in [
        ("AWS4-HMAC-SHA256", "requires 'Credential' parameter. Authorization header requires 'Signature'"),
        ("AWS4-HMAC-SHA256 Credential=a/b/c, SignedHeaders=host, Signature=x", "exactly 5 slash-delimited"),
        ("AWS4-HMAC-SHA256 Credential=, SignedHeaders=host, Signature=x", "requires 'Credential'"),
        ("Bearer abc", "Unsupported AWS 'algorithm': 'Bearer'"),
        ("", "Unsupported AWS 'algorithm'"),
    ] {
        let mut request = asked();
        request.headers_mut().insert("authorization", header.parse().expect("a value"));
        let (code, message) = judged(&request, 0).expect_err("refused");
        assert_eq!(code, "IncompleteSignature");
        assert!(message.contains(part), "{message}");
    }
    for date in ["", "20150830", "2015-08-30T12:36:00Z", "20159930T123600Z", "20150830T1236ööZ"] {
        let mut request = asked();
        request
            .headers_mut()
            .insert("x-amz-date", http::HeaderValue::from_bytes(date.as_bytes()).expect("a value"));
        assert_eq!(judged(&request, 0).expect_err("refused").0, "IncompleteSignature", "{date}");
    }
}

/// A token as `aws eks get-token` makes it, for a cluster named `shop`.
fn login(cluster: &str, query: &str, credentials: Option<&Session>) -> String {
    use base64::Engine as _;
    let state = account();
    let token = credentials.map(|session| seal(&state, session, &mut Ids::new([3; 32])).expect("sealed"));
    let (id, secret) = credentials.map_or((KEY, SECRET), |one| (&one.access_key_id, &one.secret));
    let mut query = format!(
        "{query}&X-Amz-Algorithm={ALGORITHM}&X-Amz-Credential={id}%2F20150830%2Fus-east-1%2Fsts%2Faws4_request&X-Amz-Date={MOMENT}&X-Amz-Expires=60&X-Amz-SignedHeaders=host%3Bx-k8s-aws-id"
    );
    if let Some(token) = token {
        query += &format!("&X-Amz-Security-Token={}", crate::wire::percent::encode(&token, b""));
    }
    let headers = vec![
        ("host".to_owned(), "sts.us-east-1.amazonaws.com".to_owned()),
        ("x-k8s-aws-id".to_owned(), cluster.to_owned()),
    ];
    let message = Message { method: "GET", path: "/", query: &query, headers, body: b"" };
    let mut claim = claim("us-east-1", "sts", vec!["host".into(), "x-k8s-aws-id".into()]);
    claim.access_key_id = id.to_owned();
    let signature = signature_of(&message, &claim, secret);
    let url = format!("https://sts.us-east-1.amazonaws.com/?{query}&X-Amz-Signature={signature}");
    format!("k8s-aws-v1.{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(url))
}

const IDENTITY: &str = "Action=GetCallerIdentity&Version=2011-06-15";

fn admitted(token: &str, cluster: &str, seconds: i64) -> Result<Caller, TokenError> {
    cluster_token(&account(), now().plus_secs(seconds), &["us-east-1"], cluster, token)
}

#[test]
fn a_login_token_opens_its_own_cluster_for_a_quarter_of_an_hour() {
    let token = login("shop", IDENTITY, None);
    assert_eq!(admitted(&token, "shop", 900).map(|caller| caller.user_id), Ok("AIDAADMIN".into()));
    assert!(
        matches!(admitted(&token, "shop", 901), Err(TokenError::Refused(why)) if why.starts_with("Signature expired"))
    );
    assert!(matches!(admitted(&token, "other", 0), Err(TokenError::Refused(_))));
    assert_eq!(admitted("eyJhbGciOi", "shop", 0), Err(TokenError::NotOurs));
    let session = Session {
        access_key_id: "ASIAX".into(),
        secret: "s".into(),
        arn: "arn:aws:sts::000000000000:assumed-role/dev/me".into(),
        expires: now().plus_secs(60),
        ..Session::default()
    };
    let token = login("shop", IDENTITY, Some(&session));
    assert_eq!(admitted(&token, "shop", 0).map(|caller| caller.arn), Ok(session.arn.clone()));
    assert!(admitted(&token, "shop", 61).is_err());
}

#[test]
fn a_login_token_that_is_not_whole_is_refused() {
    for query in [
        "Action=AssumeRole&Version=2011-06-15",
        "Version=2011-06-15",
        "Action=GetCallerIdentity&Other=1",
        "Action=GetCallerIdentity&action=GetCallerIdentity",
    ] {
        assert!(
            matches!(admitted(&login("shop", query, None), "shop", 0), Err(TokenError::Refused(_))),
            "{query}"
        );
    }
    for token in [
        "k8s-aws-v1.",
        "k8s-aws-v1.!!",
        "k8s-aws-v1.aHR0cHM6Ly9h",
        &format!("k8s-aws-v1.{}", "A".repeat(5_000)),
    ] {
        assert!(matches!(admitted(token, "shop", 0), Err(TokenError::Refused(_))), "{token}");
    }
}
