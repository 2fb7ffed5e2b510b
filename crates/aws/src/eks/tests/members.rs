//! No member of an input is taken and forgotten: each line of `testdata/eks/members.yaml` is a call that says some, and what comes of it.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::ec2::place::HOST_IS_ARM;
use crate::ec2::record::Subnet;
use crate::eks::{ClusterRecord, FargateProfileRecord, NodeGroupRecord};
use crate::model::{self, Kind, Model, Shape};
use crate::state;
use crate::stories::{ACCOUNT, Account, includes};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    call: String,
    with: Value,
    /// The member of the description that shows what was given, but for what names the thing.
    shown: Option<String>,
    gives: Option<Value>,
    refused: Option<String>,
    so: Option<String>,
}

/// For each call: what it says besides a line's members, and what describes the thing that it is about.
fn usual(call: &str) -> (Value, &'static str, Value) {
    let shop = json!({"clusterName": "shop"});
    let with = |members: Value| {
        let mut all = shop.clone();
        crate::ec2::launch_template::lay_over(&mut all, &members);
        all
    };
    let ng = with(json!({"nodegroupName": "ng"}));
    match call {
        "AssociateAccessPolicy" => {
            (shop.clone(), "ListAssociatedAccessPolicies", with(json!({"principalArn": "$user"})))
        }
        "AssociateIdentityProviderConfig" => (
            with(
                json!({"oidc": {"identityProviderConfigName": "corp", "issuerUrl": "https://id.example", "clientId": "c"}}),
            ),
            "DescribeIdentityProviderConfig",
            with(json!({"identityProviderConfig": {"type": "oidc", "name": "corp"}})),
        ),
        "CreateAccessEntry" => (with(json!({"principalArn": "$role"})), "DescribeAccessEntry", shop.clone()),
        "CreateAddon" => {
            (with(json!({"addonName": "vpc-cni"})), "DescribeAddon", with(json!({"addonName": "vpc-cni"})))
        }
        "CreateCluster" => (
            json!({"name": "bank", "roleArn": "$role", "resourcesVpcConfig": {"subnetIds": ["$subnet-a", "$subnet-b"]}}),
            "DescribeCluster",
            json!({"name": "bank"}),
        ),
        "CreateFargateProfile" => (
            with(
                json!({"fargateProfileName": "fp", "podExecutionRoleArn": "$fargate-role", "selectors": [{"namespace": "a"}]}),
            ),
            "DescribeFargateProfile",
            with(json!({"fargateProfileName": "fp"})),
        ),
        "CreateNodegroup" => (
            with(json!({"nodegroupName": "other", "nodeRole": "$node-role", "subnets": ["$subnet-a"]})),
            "DescribeNodegroup",
            with(json!({"nodegroupName": "other"})),
        ),
        "CreatePodIdentityAssociation" => (
            with(json!({"namespace": "a", "serviceAccount": "b", "roleArn": "$pod-role"})),
            "DescribePodIdentityAssociation",
            shop.clone(),
        ),
        "UpdateAccessEntry" => {
            let user = with(json!({"principalArn": "$user"}));
            (user.clone(), "DescribeAccessEntry", user)
        }
        "UpdateAddon" => {
            let addon = with(json!({"addonName": "kube-proxy"}));
            (addon.clone(), "DescribeAddon", addon)
        }
        "UpdateClusterConfig" | "UpdateClusterVersion" => {
            (json!({"name": "shop"}), "DescribeCluster", json!({"name": "shop"}))
        }
        "UpdateNodegroupConfig" | "UpdateNodegroupVersion" => (ng.clone(), "DescribeNodegroup", ng),
        "UpdatePodIdentityAssociation" => {
            let one = with(json!({"associationId": "$association"}));
            (one.clone(), "DescribePodIdentityAssociation", one)
        }
        other => panic!("what does {other} say?"),
    }
}

/// An account with a cluster and one thing of each kind that belongs to it.
pub fn account() -> Account {
    let mut account = Account::with_vpc();
    let role = |name: &str| format!("arn:aws:iam::{ACCOUNT}:role/{name}");
    let all: Vec<Subnet> =
        state::list::<Subnet>(&account.state, "").into_iter().map(|kept| kept.record).collect();
    let subnet = |zone: &str, is_public: bool| {
        let found =
            all.iter().find(|one| one.default_for_az == is_public && one.availability_zone.ends_with(zone));
        found.expect("a subnet").subnet_id.clone()
    };
    let (image, foreign) = ("AL2023_x86_64_STANDARD", "AL2023_ARM_64_STANDARD");
    let (kind, foreign_kind) = ("m5.large", "m6g.large");
    let of_host = |here, there| if HOST_IS_ARM { there } else { here };
    for (word, value) in [
        ("fargate-role", role("AmazonEKSFargatePodExecutionRole")),
        ("foreign-image-kind", of_host(foreign, image).to_owned()),
        ("foreign-type", of_host(foreign_kind, kind).to_owned()),
        ("image-kind", of_host(image, foreign).to_owned()),
        ("node-role", role("AmazonEKSNodeRole")),
        ("pod-role", role("pods")),
        ("private", subnet("a", false)),
        ("role", role("AmazonEKSClusterRole")),
        ("subnet-a", subnet("a", true)),
        ("subnet-b", subnet("b", true)),
        ("type", of_host(kind, foreign_kind).to_owned()),
        ("user", format!("arn:aws:iam::{ACCOUNT}:user/jo")),
    ] {
        account.name(word, &value);
    }
    account.tell(include_str!("../../../testdata/eks/members_begin.yaml"));
    settle(&mut account);
    account.tell(include_str!("../../../testdata/eks/members_groups.yaml"));
    settle(&mut account);
    account
}

/// What the host does once a control plane answers and nodes are there.
fn settle(account: &mut Account) {
    for mut kept in state::list::<ClusterRecord>(&account.state, "") {
        kept.record.shown.status = "ACTIVE".into();
        account.change(|changes| changes.update(&kept));
    }
    for mut kept in state::list::<NodeGroupRecord>(&account.state, "") {
        kept.record.shown.status = "ACTIVE".into();
        account.change(|changes| changes.update(&kept));
    }
    for mut kept in state::list::<FargateProfileRecord>(&account.state, "") {
        kept.record.shown.status = "ACTIVE".into();
        account.change(|changes| changes.update(&kept));
    }
}

/// The members of an input, each as the way to it: `a.b`, `list[].c`.
fn members(model: &Model, shape: &Shape, at: &str, into: &mut BTreeSet<String>) {
    match &shape.kind {
        Kind::Structure { members: all, .. } => {
            for member in all {
                let at = if at.is_empty() { member.name.to_owned() } else { format!("{at}.{}", member.name) };
                members(model, model.shape(member.of), &at, into);
            }
        }
        Kind::List { of, .. } if matches!(model.shape(*of).kind, Kind::Structure { .. }) => {
            members(model, model.shape(*of), &format!("{at}[]"), into);
        }
        _ => drop(into.insert(at.to_owned())),
    }
}

/// Takes those away that a value says.
fn strike(value: &Value, at: &str, left: &mut BTreeSet<String>) {
    if left.remove(at) {
        return;
    }
    match value {
        Value::Object(all) => {
            for (name, value) in all {
                strike(value, &if at.is_empty() { name.clone() } else { format!("{at}.{name}") }, left);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| strike(item, &format!("{at}[]"), left)),
        _ => {}
    }
}

#[test]
fn no_member_is_taken_and_forgotten() {
    let lines: Vec<Line> =
        serde_saphyr::from_str(include_str!("../../../testdata/eks/members.yaml")).expect("lines");
    let begin = account();
    let model = model::of("eks").expect("a model");
    let mut left: BTreeSet<(String, String)> = BTreeSet::new();
    for operation in model.operations.iter().filter(|one| lines.iter().any(|line| line.call == one.name)) {
        let mut all = BTreeSet::new();
        members(model, model.shape(operation.input.expect("an input")), "", &mut all);
        for line in lines.iter().filter(|line| line.call == operation.name) {
            strike(&line.with, "", &mut all);
        }
        left.extend(all.into_iter().map(|member| (operation.name.to_owned(), member)));
    }
    assert!(left.is_empty(), "nobody says what comes of {left:?}");
    for line in &lines {
        check(line, &begin);
    }
}

fn check(line: &Line, begin: &Account) {
    let about = format!("{} {}", line.call, line.with);
    let mut account = begin.clone();
    let (mut input, describe, of) = usual(&line.call);
    crate::ec2::launch_template::lay_over(&mut input, &line.with);
    let input = account.spoken(&input);
    let admin = account.caller("admin").expect("a caller");
    let before = account.state.revision();
    let answered = account.call(&line.call, &admin, &input);
    if let Some(wanted) = &line.refused {
        let wanted = account.spoken(&json!(wanted));
        let fault = answered.expect_err(&about);
        assert!(fault.message.ends_with(wanted.as_str().expect("a text")), "{about}: {}", fault.message);
        assert_eq!(account.state.revision(), before, "{about}");
        return;
    }
    let answer = answered.unwrap_or_else(|fault| panic!("{about}: {fault:?}"));
    let mut of = account.spoken(&of);
    for (name, value) in [
        ("associationId", &answer["association"]["associationId"]),
        ("principalArn", &answer["accessEntry"]["principalArn"]),
        ("addonName", &input["addonName"]),
    ] {
        let is_missing = of.get(name).is_none() && !value.is_null();
        if is_missing && (name != "addonName" || describe == "DescribeAddon") {
            of[name] = value.clone();
        }
    }
    let described = account.call(describe, &admin, &of).expect(&about);
    let wanted = match (&line.shown, &line.gives, &line.so) {
        (Some(member), None, None) => json!({member: shown(&input)}),
        (None, Some(wanted), None) => account.spoken(wanted),
        (None, None, Some(_)) => return,
        _ => panic!("{about}: what comes of it?"),
    };
    includes(&described, &wanted, &about);
}

/// What an input says in the words of a description.
fn shown(input: &Value) -> Value {
    let mut shown = input.clone();
    if let Some(members) = shown.as_object_mut() {
        members.remove("clientRequestToken");
    }
    shown
}
