use super::*;
use crate::sigv4::tests::{account, now, sign};

fn ask(state: &Snapshot, request: &Request<Bytes>) -> (u16, String) {
    let world = World { account: "000000000000", region: "us-east-1", now: now(), state };
    let reply = answer(&world, &mut Ids::new([5; 32]), request);
    let status = reply.response.status().as_u16();
    (status, String::from_utf8(reply.response.into_body().to_vec()).expect("text"))
}

/// A request, signed: `headers` are lines, `kind: value`.
fn signed(service: &str, method: &str, uri: &str, headers: &[&str], body: &[u8]) -> Request<Bytes> {
    let mut request = Request::new(Bytes::copy_from_slice(body));
    *request.method_mut() = method.parse().expect("a method");
    *request.uri_mut() = uri.parse().expect("a URI");
    for header in headers {
        let (name, value) = header.split_once(": ").expect("a header");
        let name: http::HeaderName = name.parse().expect("a name");
        request.headers_mut().insert(name, value.parse().expect("a value"));
    }
    sign(&mut request, "us-east-1", service);
    request
}

fn form(service: &str, body: &str) -> Request<Bytes> {
    signed(service, "POST", "/", &["content-type: application/x-www-form-urlencoded"], body.as_bytes())
}

fn check(request: &Request<Bytes>, status: u16, parts: &[&str]) {
    let (answered, body) = ask(&account(), request);
    assert_eq!(answered, status, "{body}");
    for part in parts {
        assert!(body.contains(part), "{part} is not in {body}");
    }
}

const IDENTITY: &str = "Action=GetCallerIdentity&Version=2011-06-15";

#[test]
fn one_is_told_who_one_is() {
    check(
        &form("sts", IDENTITY),
        200,
        &[
            "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">",
            "<GetCallerIdentityResult>",
            "<Arn>arn:aws:iam::000000000000:user/admin</Arn>",
            "<UserId>AIDAADMIN</UserId>",
            "<Account>000000000000</Account>",
            "<ResponseMetadata><RequestId>",
        ],
    );
    let request = signed("sts", "GET", &format!("/?{IDENTITY}"), &["accept: application/json"], b"");
    check(
        &request,
        200,
        &["{\"GetCallerIdentityResponse\":{\"GetCallerIdentityResult\":{\"Account\":\"000000000000\""],
    );
}

#[test]
fn what_is_not_signed_is_refused() {
    let unsigned = |service: &str, method: &str, uri: &str, headers: &[&str], body: &str| {
        let mut request = signed(service, method, uri, headers, body.as_bytes());
        request.headers_mut().remove("authorization");
        request
    };
    let missing = "Missing Authentication Token";
    check(
        &unsigned("sts", "POST", "/", &[], IDENTITY),
        403,
        &["<Code>MissingAuthenticationToken</Code>", missing],
    );
    check(&unsigned("sts", "GET", "/", &[], ""), 403, &[missing]);
    check(
        &unsigned("eks", "GET", "/clusters", &[], ""),
        403,
        &["{\"message\":\"Missing Authentication Token\"}"],
    );
    check(
        &unsigned("x", "POST", "/", &["x-amz-target: X.Y"], "{}"),
        403,
        &["MissingAuthenticationTokenException"],
    );
    // What nobody signs is looked for by its action, and others do not pass by that door.
    check(&unsigned("sts", "POST", "/", &[], "Action=AssumeRole&Version=2011-06-15"), 403, &[missing]);
    check(
        &unsigned("iam", "POST", "/", &[], "Action=CreateUser&Version=2010-05-08&UserName=x"),
        403,
        &[missing],
    );
}

/// Malformed in every protocol: the service's own kind of error, and nothing of it is done.
#[test]
fn what_is_malformed_is_told_in_the_words_of_its_protocol() {
    let json = "content-type: application/json";
    for (request, status, parts) in [
        // awsQuery
        (form("sts", ""), 400, vec!["<Code>MissingAction</Code>"]),
        (
            form("sts", "Action=Nothing&Version=2011-06-15"),
            400,
            vec![
                "<Code>InvalidAction</Code>",
                "Could not find operation Nothing for version 2011-06-15",
                "<Type>Sender</Type>",
            ],
        ),
        (form("sts", "Action=GetCallerIdentity&Version=1999-01-01"), 400, vec!["InvalidAction"]),
        (form("sts", "Action=GetCallerIdentity&a=%zz"), 400, vec!["<Code>MalformedInput</Code>"]),
        (signed("sts", "POST", "/", &[], b"Action=\xff\xfe"), 400, vec!["MalformedInput"]),
        (
            form("sts", "Action=GetSessionToken&Version=2011-06-15&DurationSeconds=soon"),
            400,
            vec!["MalformedInput", "Expecting integer"],
        ),
        (
            form("sts", "Action=GetSessionToken&Version=2011-06-15&DurationSeconds=1"),
            400,
            vec![
                "<Code>ValidationError</Code>",
                "1 validation error detected: Value '1' at 'durationSeconds' failed to satisfy constraint: Member must have value greater than or equal to 900",
            ],
        ),
        (
            form("iam", &format!("Action=GetUser&Version=2010-05-08&{}=1", "a.".repeat(70))),
            400,
            vec!["nested too deeply"],
        ),
        // restJson
        (signed("eks", "POST", "/clusters", &[json], b"{"), 400, vec!["\"message\":"]),
        (signed("eks", "POST", "/clusters", &[json], b"[]"), 400, vec!["not an object"]),
        (
            signed("eks", "POST", "/clusters", &[json], b"{\"name\":7}"),
            400,
            vec!["NUMBER_VALUE can not be converted to a String"],
        ),
        (
            signed("eks", "POST", "/clusters", &[json], b"{\"resourcesVpcConfig\":{\"subnetIds\":\"x\"}}"),
            400,
            vec!["STRING_VALUE can not be converted to a list"],
        ),
        (signed("eks", "GET", "/nothing", &[], b""), 404, vec!["There is no GET /nothing"]),
        (signed("eks", "PATCH", "/clusters", &[], b""), 404, vec!["There is no PATCH"]),
        (signed("eks", "GET", "/clusters/%zz", &[], b""), 404, vec!["There is no"]),
        (
            signed("eks", "GET", "/clusters?maxResults=many", &[], b""),
            400,
            vec!["The value 'many' of maxResults"],
        ),
        // ec2Query
        (form("ec2", ""), 400, vec!["<Response><Errors><Error><Code>MissingAction</Code>"]),
        (
            form("ec2", "Action=Nothing&Version=2016-11-15"),
            400,
            vec!["The action Nothing is not valid for this web service."],
        ),
        (
            form("ec2", "Action=DescribeVpcs&Version=2016-11-15&Colour=red"),
            400,
            vec!["<Code>UnknownParameter</Code><Message>The parameter Colour is not recognized</Message>"],
        ),
        (
            form("ec2", "Action=DescribeVpcs&Version=2016-11-15&DryRun=perhaps"),
            400,
            vec!["InvalidParameterValue"],
        ),
    ] {
        let uri = request.uri().clone();
        let (answered, body) = ask(&account(), &request);
        assert_eq!(answered, status, "{uri} {body}");
        for part in parts {
            assert!(body.contains(part), "{uri}: {part} is not in {body}");
        }
    }
}

#[test]
fn a_deeply_nested_body_is_refused() {
    let body = format!("{{\"tags\":{}", "{\"a\":".repeat(100_000));
    check(&signed("eks", "POST", "/clusters", &[], body.as_bytes()), 400, &["recursion limit"]);
}

#[test]
fn what_ekso_has_not_is_refused_by_name() {
    check(
        &form("sts", "Action=GetFederationToken&Version=2011-06-15&Name=me"),
        400,
        &["<Code>UnsupportedOperation</Code>", "Ekso has no sts:GetFederationToken"],
    );
    check(&form("s3", ""), 400, &["Ekso has no service 's3'"]);
}

#[test]
fn a_session_of_ones_own_works_and_gets_no_other() {
    let world = World { account: "000000000000", region: "us-east-1", now: now(), state: &account() };
    let caller = Caller {
        arn: "arn:aws:iam::000000000000:user/admin".into(),
        user_id: "AIDA".into(),
        ..Caller::default()
    };
    let answer = call(&world, &mut Ids::new([1; 32]), &caller, "sts", "GetSessionToken", &json!({}))
        .expect("a session");
    let given = &answer.output["Credentials"];
    assert_eq!(given["Expiration"], "2015-08-31T00:36:00Z");
    let (id, token) = (given["AccessKeyId"].as_str().expect("an id"), given["SessionToken"].as_str());
    assert!(id.starts_with("ASIA") && id.len() == 20);
    let found = crate::credentials::find(world.state, id, token, now()).expect("known");
    assert_eq!(
        (found.caller.arn.as_str(), found.secret.as_str()),
        (caller.arn.as_str(), given["SecretAccessKey"].as_str().expect("a secret"))
    );
    let refused = call(&world, &mut Ids::new([2; 32]), &found.caller, "sts", "GetSessionToken", &json!({}))
        .expect_err("refused");
    assert_eq!(refused.code, "AccessDenied");
}

#[test]
fn every_row_has_a_model_and_they_are_in_order() {
    for service in SERVICES {
        let model = model::of(service.signing_name).expect("a model");
        for operation in service.operations {
            assert!(model.operation(operation.name).is_some(), "{} {}", service.signing_name, operation.name);
        }
        assert!(service.operations.is_sorted_by(|a, b| a.name < b.name), "{}", service.signing_name);
    }
    assert!(SERVICES.is_sorted_by(|a, b| a.signing_name < b.signing_name));
}
