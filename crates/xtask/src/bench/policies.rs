//! Decisions of the policy engine, without a server around it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use aws::policy::{Document, Keys, Policies, Principal, Request, Set, Use, decide};
use serde_json::json;

use super::{Row, micros};

const POLICIES: usize = 1_000;
const FOR: Duration = Duration::from_secs(2);
/// How many are decided between two looks at the clock.
const BATCH: u32 = 1_000;

/// A principal with a thousand policies, each with a statement on its own resources and one on tags; the request is decided by the last of
/// them, by none, or by a deny.
pub fn run() -> Result<Vec<Row>> {
    let read = |number: usize| {
        let text = json!({"Version": "2012-10-17", "Statement": [
            {
                "Effect": "Allow",
                "Action": ["eks:Describe*", "eks:ListNodegroups", "s3:GetObject"],
                "Resource": [format!("arn:aws:eks:*:111122223333:cluster/team-{number}-*"), format!("arn:aws:s3:::team-{number}/*")],
            },
            {
                "Effect": if number.is_multiple_of(10) { "Deny" } else { "Allow" },
                "Action": "eks:Delete*",
                "Resource": "*",
                "Condition": {"StringEquals": {"aws:ResourceTag/team": format!("team-{number}")}},
            },
        ]});
        let document = Document::parse(&text.to_string(), Use::Identity);
        document.map(|document| (format!("policy-{number}").into(), document.into()))
    };
    let read: Result<Vec<_>, _> = (0..POLICIES).map(read).collect();
    let Ok(policies) = read else { anyhow::bail!("a policy of the benchmark is none") };
    let set = Set::of(policies);
    let last = format!("arn:aws:eks:us-east-1:111122223333:cluster/team-{}-shop", POLICIES - 1);
    let other = "arn:aws:eks:us-east-1:111122223333:cluster/shop";
    let mut tagged = Keys::default();
    tagged.set("aws:ResourceTag/team", "team-990");
    let none = Keys::default();
    [
        ("allowed by the last", "eks:DescribeCluster", &*last, &none, true),
        ("allowed by none", "eks:DescribeCluster", other, &none, false),
        ("denied by a tag", "eks:DeleteCluster", other, &tagged, false),
        ("an action that none names", "ec2:RunInstances", "*", &none, false),
    ]
    .map(|(name, action, resource, keys, expected)| row(&set, name, action, resource, keys, expected))
    .into_iter()
    .collect()
}

fn row(set: &Set, name: &str, action: &str, resource: &str, keys: &Keys, expected: bool) -> Result<Row> {
    let principal = Principal::of_account("111122223333", "arn:aws:iam::111122223333:user/alice", "");
    let policies = Policies { identity: Some(set), ..Policies::default() };
    let request = Request { principal: &principal, action, resource, keys };
    let since = Instant::now();
    let mut count = 0;
    while since.elapsed() < FOR {
        for _ in 0..BATCH {
            let is_allowed =
                std::hint::black_box(decide(&policies, std::hint::black_box(&request))).is_allowed();
            ensure!(is_allowed == expected, "{name}: the engine decided otherwise");
        }
        count += BATCH;
    }
    let each = since.elapsed() / count;
    Ok(Row {
        figure: format!("policy decisions, one core, {POLICIES} policies: {name}"),
        value: format!("{:.0} a second", 1.0 / each.as_secs_f64()),
        cpu: micros(each),
        peer: String::new(),
        reach: "",
    })
}
