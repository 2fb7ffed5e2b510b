//! Tokens of an issuer, each signed once and for all with keys that are gone: `testdata/oidc/tokens.json`, made at [`NOW`].

mod world;

use access::AccessError;
use access::authentication::{self, Configuration, KeySet, Refused};
use plan::User;
use serde_json::{Value, json};
use world::NOW;

fn data() -> Value {
    serde_json::from_str(include_str!("../testdata/oidc/tokens.json")).expect("JSON")
}

fn read(jwt: Value) -> Result<Configuration, Vec<String>> {
    let file = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": jwt,
    });
    authentication::read(&file, &["https://own.example"])
}

fn issuer(rest: &Value) -> Value {
    let mut one = json!({"issuer": {"url": "https://issuer.example", "audiences": ["web"]}});
    for (name, value) in rest.as_object().expect("an object") {
        one[name] = value.clone();
    }
    json!([one])
}

fn by_name() -> Value {
    json!({"claimMappings": {"username": {"claim": "name", "prefix": "oidc:"}, "groups": {"claim": "groups", "prefix": "g:"}}})
}

/// `name [group,group] uid {extra}`, or why not.
fn told(rest: &Value, token: &str) -> String {
    let data = data();
    let configuration = read(issuer(rest)).unwrap_or_else(|wrong| panic!("{rest}: {wrong:?}"));
    let keys = KeySet::read(data["jwks"].to_string().as_bytes()).expect("keys");
    let token = data["tokens"][token].as_str().unwrap_or_else(|| panic!("no token {token}"));
    let issuer = &configuration.issuers[0];
    match issuer.claims(&keys, token, NOW).and_then(|claims| issuer.user(claims).map_err(Refused::Because)) {
        Ok(User { name, uid, groups, extra }) => {
            format!("{name} [{}] {uid} {}", groups.join(","), json!(extra))
        }
        Err(Refused::Signature) => "signature".to_owned(),
        Err(Refused::Because(AccessError::Oidc(why))) => why,
        Err(Refused::Because(other)) => panic!("{other}"),
    }
}

#[test]
fn signatures_of_every_algorithm_are_checked() {
    let jane = "oidc:jane [g:devs,g:ops,system:authenticated]  {}";
    for token in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "no kid"] {
        assert_eq!(told(&by_name(), token), jane, "{token}");
    }
    for token in ["wrong kid", "unknown kid", "foreign key", "encryption key", "changed payload"] {
        assert_eq!(told(&by_name(), token), "signature", "{token}");
    }
    for (token, algorithm) in [("none", "none"), ("HS256 with the public key", "HS256"), ("ES512", "ES512")] {
        let why =
            format!("oidc: verify token: oidc: id token signed with unsupported algorithm {algorithm:?}");
        assert_eq!(told(&by_name(), token), why);
    }
    assert_eq!(told(&by_name(), "crit"), "oidc: malformed jwt");
}

#[test]
fn a_token_holds_for_its_time_its_audience_and_its_issuer() {
    let jane = "oidc:jane [g:devs,g:ops,system:authenticated]  {}";
    let verify = |why: &str| format!("oidc: verify token: {why}");
    for (token, expected) in [
        ("expired", verify("oidc: token is expired (Token Expiry: 2026-11-23T05:00:00Z)")),
        ("no exp", verify("oidc: token is expired: it has no exp")),
        ("soon", jane.to_owned()),
        (
            "not yet",
            verify(
                "oidc: current time 2026-11-23T05:00:00Z before the nbf (not before) time: 2026-11-23T05:05:01Z",
            ),
        ),
        ("other audience", verify(r#"oidc: expected audience in ["web"] got ["mail"]"#)),
        ("several audiences", jane.to_owned()),
        ("no audience", verify(r#"oidc: expected audience in ["web"] got []"#)),
        (
            "other issuer",
            verify(
                r#"oidc: id token issued by a different provider, expected "https://issuer.example" got "https://issuer.example/""#,
            ),
        ),
    ] {
        assert_eq!(told(&by_name(), token), expected, "{token}");
    }
}

#[test]
fn claims_become_a_user() {
    let by_email = json!({"claimMappings": {"username": {"claim": "email", "prefix": ""}}});
    let by_expression = json!({
        "claimMappings": {
            "username": {"expression": "claims.name + '@' + claims.tenant"},
            "groups": {"expression": "claims.roles.split(',')"},
            "uid": {"expression": "claims.sub"},
            "extra": [
                {"key": "example.com/tenant", "valueExpression": "claims.tenant"},
                {"key": "example.com/none", "valueExpression": "''"},
                {"key": "example.com/groups", "valueExpression": "has(claims.groups) ? claims.groups : null"},
            ],
        },
    });
    let uid =
        json!({"claimMappings": {"username": {"claim": "name", "prefix": ""}, "uid": {"claim": "sub"}}});
    let level = json!({"claimMappings": {"username": {"claim": "level", "prefix": ""}}});
    for (rest, token, expected) in [
        (&by_email, "ES256", "jane@example.com [system:authenticated]  {}"),
        (&by_email, "unverified", "oidc: email not verified"),
        (&by_email, "verified as text", "oidc: email not verified"),
        (&uid, "ES256", "jane [system:authenticated] 1234 {}"),
        (
            &by_expression,
            "ES256",
            r#"jane@a [admin,viewer,system:authenticated] 1234 {"example.com/groups":["devs","ops"],"example.com/tenant":["a"]}"#,
        ),
        (&by_name(), "no groups", "oidc:jane [system:authenticated]  {}"),
        (&by_name(), "one group", "oidc:jane [g:devs,system:authenticated]  {}"),
        (
            &by_name(),
            "odd groups",
            r#"oidc: error evaluating groups claim mapping: the claim "groups" holds what is no string"#,
        ),
        (&by_name(), "no name", r#"oidc: error evaluating username claim mapping: claim "name" not present"#),
        (&level, "ES256", r#"oidc: error evaluating username claim mapping: the claim "level" is no string"#),
        (&uid, "empty name", "oidc: username claim mapping: the name must not be empty"),
    ] {
        assert_eq!(told(rest, token), expected, "{rest} {token}");
    }
}

#[test]
fn rules_refuse() {
    let with = |claims: Value, users: Value| {
        json!({
            "claimMappings": {"username": {"claim": "name", "prefix": ""}},
            "claimValidationRules": claims, "userValidationRules": users,
        })
    };
    let jane = "jane [system:authenticated]  {}";
    let no_system =
        json!([{"expression": "!user.username.startsWith('system:')", "message": "no reserved names"}]);
    for (claims, users, token, expected) in [
        (json!([{"claim": "tenant", "requiredValue": "a"}]), json!([]), "ES256", jane),
        (
            json!([{"claim": "tenant", "requiredValue": "b"}]),
            json!([]),
            "ES256",
            "oidc: required claim tenant value does not match. Got = a, want = b",
        ),
        (
            json!([{"claim": "missing", "requiredValue": "b"}]),
            json!([]),
            "ES256",
            "oidc: required claim missing not present in ID token",
        ),
        (
            json!([{"expression": "claims.level > 2 && claims.exp - claims.iat <= 600"}]),
            json!([]),
            "ES256",
            jane,
        ),
        (
            json!([{"expression": "claims.level > 3", "message": "too low"}]),
            json!([]),
            "ES256",
            "oidc: error evaluating claim validation expression: validation expression 'claims.level > 3' failed: too low",
        ),
        (json!([]), no_system.clone(), "ES256", jane),
        (
            json!([]),
            no_system,
            "system name",
            "oidc: error evaluating user info validation rule: validation expression '!user.username.startsWith('system:')' failed: no reserved names",
        ),
    ] {
        assert_eq!(told(&with(claims.clone(), users), token), expected, "{claims} {token}");
    }
    let fails = told(&with(json!([{"expression": "claims.nothing == 1"}]), json!([])), "ES256");
    assert!(fails.contains("no such key: nothing"), "{fails}");
}

#[test]
fn a_configuration_is_checked() {
    let wrong = |jwt: Value, expected: &[&str]| {
        let found = read(jwt.clone()).err().unwrap_or_default();
        assert_eq!(found, expected, "{jwt}");
    };
    let named = json!({"username": {"claim": "sub", "prefix": ""}});
    let of = |issuer: Value| json!([{"issuer": issuer, "claimMappings": named}]);
    let mapped = |mappings: Value| issuer(&json!({"claimMappings": mappings}));
    wrong(of(json!({"url": "https://a", "audiences": ["x"]})), &[]);
    wrong(
        of(json!({"url": "http://a", "audiences": []})),
        &[
            r#"jwt[0].issuer.url: Invalid value: "http://a": URL scheme must be https"#,
            "jwt[0].issuer.audiences: Required value: at least one jwt[0].issuer.audiences is required",
        ],
    );
    wrong(
        of(json!({"url": "https://u:p@a?q#f", "audiences": ["x", "x"], "audienceMatchPolicy": "All"})),
        &[
            r#"jwt[0].issuer.url: Invalid value: "https://u:p@a?q#f": URL must not contain a username or password"#,
            r#"jwt[0].issuer.url: Invalid value: "https://u:p@a?q#f": URL must not contain a query"#,
            r#"jwt[0].issuer.url: Invalid value: "https://u:p@a?q#f": URL must not contain a fragment"#,
            r#"jwt[0].issuer.audiences[1]: Duplicate value: "x""#,
            r#"jwt[0].issuer.audienceMatchPolicy: Unsupported value: "All": supported values: "", "MatchAny""#,
        ],
    );
    wrong(
        of(
            json!({"url": "https://own.example", "audiences": ["x", "y"], "discoveryURL": "https://own.example/"}),
        ),
        &[
            r#"jwt[0].issuer.url: Invalid value: "https://own.example": URL must not overlap with disallowed issuers: [https://own.example]"#,
            r#"jwt[0].issuer.discoveryURL: Invalid value: "https://own.example/": discoveryURL must be different from URL"#,
            r#"jwt[0].issuer.audienceMatchPolicy: Invalid value: "": audienceMatchPolicy must be MatchAny for multiple audiences"#,
        ],
    );
    wrong(
        mapped(json!({})),
        &["jwt[0].claimMappings.username: Required value: claim or expression is required"],
    );
    wrong(
        mapped(json!({"username": {"claim": "sub"}})),
        &[
            "jwt[0].claimMappings.username.prefix: Required value: prefix is required when claim is set. It can be set to an empty string to disable prefixing",
        ],
    );
    wrong(
        mapped(json!({"username": {"expression": "claims.email"}})),
        &[
            r#"jwt[0].claimMappings.username.expression: Invalid value: "claims.email": claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression"#,
        ],
    );
    wrong(mapped(json!({"username": {"expression": "claims.email_verified ? claims.email : ''"}})), &[]);
    wrong(
        mapped(json!({"username": {"expression": "1"}})),
        &[r#"jwt[0].claimMappings.username.expression: Invalid value: "1": must evaluate to string"#],
    );
    wrong(
        mapped(json!({"username": {"claim": "sub", "prefix": ""}, "extra": [
            {"key": "Foo/x", "valueExpression": "claims.a"},
            {"key": "a.k8s.io/x", "valueExpression": ""},
            {"key": "plain", "valueExpression": "1"},
        ]})),
        &[
            r#"jwt[0].claimMappings.extra[0].key: Invalid value: "Foo/x": key must be lowercase"#,
            r#"jwt[0].claimMappings.extra[1].key: Invalid value: "a.k8s.io/x": k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use"#,
            "jwt[0].claimMappings.extra[1].valueExpression: Required value: valueExpression is required",
            r#"jwt[0].claimMappings.extra[2].key: Invalid value: "plain": must be a domain-prefixed path (such as "acme.io/foo")"#,
            r#"jwt[0].claimMappings.extra[2].valueExpression: Invalid value: "1": must evaluate to string or a list(string)"#,
        ],
    );
    let strict = authentication::read(
        &json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jtw": []}),
        &[],
    );
    assert!(strict.expect_err("a wrong field")[0].starts_with("strict decoding error: unknown field `jtw`"));
    let kind = authentication::read(&json!({"apiVersion": "v1", "kind": "AuthenticationConfiguration"}), &[]);
    assert!(kind.expect_err("another group")[0].starts_with("it is of apiVersion \"v1\""));
}

#[test]
fn who_may_come_without_credentials() {
    let anonymous = |value: Value| {
        let file = json!({
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "anonymous": value,
        });
        authentication::read(&file, &[]).map(|configuration| configuration.anonymous)
    };
    let paths = json!({"enabled": true, "conditions": [{"path": "/livez"}]});
    for (value, livez, pods) in [
        (Value::Null, true, true),
        (json!({"enabled": true}), true, true),
        (json!({"enabled": false}), false, false),
        (paths, true, false),
    ] {
        let found = anonymous(value.clone()).expect("read");
        assert_eq!((found.allows("/livez"), found.allows("/api/v1/pods")), (livez, pods), "{value}");
    }
    let wrong = anonymous(json!({"enabled": false, "conditions": [{"path": "/livez"}]})).expect_err("both");
    assert_eq!(
        wrong,
        [
            r#"anonymous.conditions: Invalid value: ["/livez"]: enabled should be set to true when conditions are defined"#
        ]
    );
}
