//! The matrix: principals, policies, conditions, actions and resources, with the verdicts that AWS documents. The cases are data in
//! `testdata/policy`, one line a case:
//!
//! ```text
//! [as PRINCIPAL] ACTION [RESOURCE] [KEY=VALUE,VALUE …] -> allow|deny|none KIND
//! ```
//!
//! `deny` is an explicit deny, `none` the lack of an allow; KIND is what made the verdict. PRINCIPAL is a user's name (`alice` if nobody is
//! named), `root`, a role and its session (`dev/one`), `service:NAME` or `oidc:ISSUER`.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::*;

const ACCOUNT: &str = "111122223333";

#[derive(Deserialize)]
struct Group {
    about: String,
    /// Of the resource's and the trust policy; an identity's are of 2012.
    version: Option<String>,
    identity: Value,
    boundary: Option<Value>,
    session: Option<Value>,
    resource: Option<Value>,
    trust: Option<Value>,
    cases: Vec<String>,
}

impl Group {
    fn set(&self, name: &str, statements: Option<&Value>, policy_use: Use) -> Option<Set> {
        let version = match policy_use {
            Use::Identity => "2012-10-17",
            Use::Resource | Use::Trust => self.version.as_deref().unwrap_or("2012-10-17"),
        };
        let text = json!({"Version": version, "Statement": statements?}).to_string();
        let document =
            Document::parse(&text, policy_use).unwrap_or_else(|bad| panic!("{}: {}", self.about, bad.0));
        Some(Set::of([(name.into(), Arc::new(document))]))
    }

    fn check(&self) -> usize {
        let identity = self.set("identity", Some(&self.identity), Use::Identity);
        let boundary = self.set("boundary", self.boundary.as_ref(), Use::Identity);
        let session = self.set("session", self.session.as_ref(), Use::Identity);
        let resource = self.set("resource", self.resource.as_ref(), Use::Resource);
        let trust = self.set("trust", self.trust.as_ref(), Use::Trust);
        let policies = Policies {
            identity: identity.as_ref(),
            boundary: boundary.as_ref(),
            session: session.as_ref(),
            resource: resource.as_ref(),
            trust: trust.as_ref(),
        };
        for case in &self.cases {
            assert_eq!(answer(case, &policies), wanted(case), "{}: {case}", self.about);
        }
        self.cases.len()
    }
}

fn wanted(case: &str) -> &str {
    case.split_once(" -> ").expect("a case has an arrow").1
}

fn answer(case: &str, policies: &Policies) -> String {
    let mut words: Vec<&str> = case.split(" -> ").next().expect("a first part").split(' ').collect();
    let mut principal = principal("alice");
    if words[0] == "as" {
        principal = self::principal(words[1]);
        words.drain(..2);
    }
    let mut keys = Keys::default();
    words.retain(|word| match word.split_once('=').filter(|(key, _)| !key.starts_with("arn:")) {
        Some((key, values)) => {
            keys.put(key, values.split(',').map(str::to_owned).collect());
            false
        }
        None => true,
    });
    let resource = words.get(1).copied().unwrap_or("*");
    let request = Request { principal: &principal, action: words[0], resource, keys: &keys };
    let (verdict, kind) = match decide(policies, &request) {
        Verdict::Allow(kind, _) => ("allow", kind),
        Verdict::ExplicitDeny(kind, _) => ("deny", kind),
        Verdict::ImplicitDeny(kind) => ("none", kind),
    };
    format!("{verdict} {}", format!("{kind:?}").to_lowercase())
}

fn principal(name: &str) -> Principal {
    if let Some(name) = name.strip_prefix("service:") {
        return Principal::service(name);
    }
    if let Some(issuer) = name.strip_prefix("oidc:") {
        return Principal::federated(&format!("arn:aws:iam::{ACCOUNT}:oidc-provider/{issuer}"));
    }
    let (arn, role) = match name.split_once('/') {
        Some((role, _)) => {
            (format!("sts::{ACCOUNT}:assumed-role/{name}"), format!("arn:aws:iam::{ACCOUNT}:role/{role}"))
        }
        None if name == "root" => (format!("iam::{ACCOUNT}:root"), String::new()),
        None => (format!("iam::{ACCOUNT}:user/{name}"), String::new()),
    };
    Principal::of_account(ACCOUNT, &format!("arn:aws:{arn}"), &role)
}

#[test]
fn the_matrix_has_the_verdicts_that_aws_documents() {
    let files = [
        include_str!("../../testdata/policy/actions.yaml"),
        include_str!("../../testdata/policy/conditions.yaml"),
        include_str!("../../testdata/policy/evaluation.yaml"),
        include_str!("../../testdata/policy/resources.yaml"),
        include_str!("../../testdata/policy/trust.yaml"),
    ];
    let mut cases = 0;
    for file in files {
        let groups: Vec<Group> = serde_saphyr::from_str(file).expect("a list of groups");
        cases += groups.iter().map(Group::check).sum::<usize>();
    }
    assert!(cases >= 200, "{cases} cases");
}

#[test]
fn what_is_no_policy_is_told_in_awss_words() {
    let text = include_str!("../../testdata/policy/malformed.yaml");
    let cases: Vec<(String, String, String)> = serde_saphyr::from_str(text).expect("a list of cases");
    for (policy_use, document, message) in cases {
        let policy_use = if policy_use == "trust" { Use::Trust } else { Use::Identity };
        assert_eq!(Document::parse(&document, policy_use), Err(Malformed(message)), "{document}");
    }
}

#[test]
fn a_denial_reads_as_awss() {
    let alice = principal("alice");
    let keys = Keys::default();
    let resource = "arn:aws:eks:us-east-1:111122223333:cluster/shop";
    let request = Request { principal: &alice, action: "eks:CreateCluster", resource, keys: &keys };
    let allow = json!({"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "eks:*", "Resource": "*"}});
    let deny = json!({"Version": "2012-10-17", "Statement": {"Sid": "No", "Effect": "Deny", "Action": "*", "Resource": "*"}});
    let set = |value: &Value| {
        let document = Document::parse(&value.to_string(), Use::Identity).expect("a policy");
        Set::of([("p".into(), Arc::new(document))])
    };
    let (allow, deny, none) = (set(&allow), set(&deny), Set::default());
    let subject = "User: arn:aws:iam::111122223333:user/alice is not authorized to perform: eks:CreateCluster on resource: arn:aws:eks:us-east-1:111122223333:cluster/shop";
    for (identity, boundary, message, why) in [
        (
            &none,
            None,
            "because no identity-based policy allows the eks:CreateCluster action",
            "denied: no identity-based policy allows it",
        ),
        (
            &deny,
            None,
            "with an explicit deny in an identity-based policy",
            "denied by an identity-based policy: p, statement 1 (No)",
        ),
        (
            &allow,
            Some(&none),
            "because no permissions boundary allows the eks:CreateCluster action",
            "denied: no permissions boundary allows it",
        ),
        (
            &allow,
            Some(&deny),
            "with an explicit deny in a permissions boundary",
            "denied by a permissions boundary: p, statement 1 (No)",
        ),
    ] {
        let policies = Policies { identity: Some(identity), boundary, ..Policies::default() };
        let verdict = decide(&policies, &request);
        assert_eq!(verdict.denial(&request), format!("{subject} {message}"));
        assert_eq!(verdict.to_string(), why);
    }
    let verdict = decide(&Policies { identity: Some(&allow), ..Policies::default() }, &request);
    assert_eq!(verdict.to_string(), "allowed by an identity-based policy: p, statement 1");
}
