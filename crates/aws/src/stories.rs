//! Stories of calls on an account, as data: a file of `testdata` is a list of steps, each a call with what it gives or how it fails.
//!
//! ```text
//! - {call: CreateRole, as: alice, with: {RoleName: r, …}, gives: {Role: {RoleId: AROA*}}}
//! - {call: GetRole, with: {RoleName: x}, fails: 'NoSuchEntity: The role with name x cannot be found.'}
//! ```
//!
//! `gives` tells members that must be there; a text that ends in `*` is the beginning of one. The caller is `as`: a user's name, or what
//! `keep` of an earlier step named; the administrator if nothing is said. `after` is how many seconds pass before the call.

use std::collections::{BTreeMap, BTreeSet};

use object::{Snapshot, Time};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::credentials;
use crate::ec2::record::State;
use crate::iam::record::{User, named};
use crate::iam::{Question, explain};
use crate::model::{self, Kind, Model, Shape};
use crate::state::Changes;
use crate::{Caller, Context, Fault, Ids, Origin, SERVICES, World, control, ec2, genesis};

pub const ACCOUNT: &str = "111122223333";
const REGION: &str = "us-east-1";

#[derive(Deserialize)]
struct Step {
    call: String,
    #[serde(default, rename = "as")]
    caller: Option<String>,
    #[serde(default)]
    with: Value,
    gives: Option<Value>,
    fails: Option<String>,
    /// The name under which the credentials of the answer can call.
    keep: Option<String>,
    #[serde(default)]
    after: i64,
    /// A word for a value of the answer, by its path (`Vpc.VpcId`, `Subnets.0.SubnetId`): `$word` stands for it in later steps.
    #[serde(default)]
    names: BTreeMap<String, String>,
}

/// An account on a clock of its own.
#[derive(Clone)]
pub struct Account {
    pub state: Snapshot,
    pub now: Time,
    drawn: u8,
    /// Name, key id, session token.
    kept: Vec<(String, String, String)>,
    /// What words of the story stand for.
    words: BTreeMap<String, String>,
    /// Operations that were done, and that were refused: `eks:CreateCluster`.
    pub done: BTreeSet<String>,
    pub refused: BTreeSet<String>,
}

impl Account {
    pub fn new() -> Self {
        let now = Time::from_secs(1_795_000_000);
        let mut account = Self {
            state: Snapshot::default(),
            now,
            drawn: 0,
            kept: Vec::new(),
            words: BTreeMap::new(),
            done: BTreeSet::new(),
            refused: BTreeSet::new(),
        };
        for step in genesis::STEPS {
            let changes = account.context(&Caller::default(), step);
            changes.apply(&mut account.state);
        }
        account
    }

    /// With the default VPC, and four public addresses.
    pub fn with_vpc() -> Self {
        let mut account = Self::new();
        let pool =
            crate::ec2::record::PublicPool { first: [198, 18, 0, 10].into(), last: [198, 18, 0, 13].into() };
        let changes =
            account.context(&Caller::default(), |context| crate::ec2::genesis::default_vpc(context, pool));
        changes.apply(&mut account.state);
        account
    }

    pub fn context<T>(&mut self, caller: &Caller, run: impl FnOnce(&mut Context) -> T) -> T {
        self.drawn += 1;
        let mut ids = Ids::new([self.drawn; 32]);
        let (state, now) = (self.state.clone(), self.now);
        let region = REGION;
        run(&mut Context { account: ACCOUNT, region, now, caller, state: &state, ids: &mut ids })
    }

    pub fn caller(&self, name: &str) -> Result<Caller, Fault> {
        if let Some((_, id, token)) = self.kept.iter().rev().find(|(known, ..)| known == name) {
            let found = credentials::find(&self.state, id, Some(token), self.now);
            return found.map(|one| one.caller).map_err(|why| Fault::new(format!("{why:?}"), "key"));
        }
        if name == "root" {
            let arn = format!("arn:aws:iam::{ACCOUNT}:root");
            return Ok(Caller { arn, user_id: ACCOUNT.to_owned(), ..Caller::default() });
        }
        let user = named::<User>(&self.state, name).expect("a user").record.common;
        Ok(Caller { arn: user.arn, user_id: user.id, ..Caller::default() })
    }

    /// Makes a call as the front door would: IAM decides, the handler runs, the changes are made. What is answered must be something that
    /// the model has: the rest would be lost on its way.
    pub fn call(&mut self, name: &str, caller: &Caller, input: &Value) -> Result<Value, Fault> {
        // Two services may have an operation of one name: then the story says whose it means, `ec2:DescribeTags`.
        let (prefix, name) = name.split_once(':').unwrap_or(("", name));
        let mut meant = SERVICES.iter().filter(|service| prefix.is_empty() || service.signing_name == prefix);
        let service = meant.find(|service| service.operations.iter().any(|one| one.name == name));
        let service = service.unwrap_or_else(|| panic!("no operation {name}")).signing_name;
        self.drawn += 1;
        let world = World { account: ACCOUNT, region: REGION, now: self.now, state: &self.state };
        let answer = crate::call(&world, &mut Ids::new([self.drawn; 32]), caller, service, name, input);
        let which = format!("{service}:{name}");
        let answer = match answer {
            Ok(answer) => answer,
            Err(fault) => {
                self.refused.insert(which);
                return Err(fault);
            }
        };
        let model = model::of(service).expect("a model");
        if let Some(output) = model.operation(name).expect("an operation").output {
            fits(model, model.shape(output), &answer.output, &which);
        }
        self.done.insert(which);
        answer.changes.apply(&mut self.state);
        Ok(answer.output)
    }

    /// Writes what no call writes.
    pub fn change(&mut self, change: impl FnOnce(&mut Changes)) {
        let mut changes = Changes::default();
        change(&mut changes);
        changes.apply(&mut self.state);
    }

    /// The credentials of an answer can call under this name from now on.
    pub fn keep(&mut self, name: &str, output: &Value) {
        let text = |member: &str| output["Credentials"][member].as_str().expect("credentials").to_owned();
        self.kept.push((name.to_owned(), text("AccessKeyId"), text("SessionToken")));
    }

    pub fn tell(&mut self, story: &str) {
        let steps: Vec<Step> = serde_saphyr::from_str(story).expect("a list of steps");
        for (number, step) in steps.iter().enumerate() {
            let about = format!("step {}: {} {}", number + 1, step.call, step.with);
            self.now = self.now.plus_secs(step.after);
            let input = if step.with.is_null() { json!({}) } else { self.spoken(&step.with) };
            let caller = self.caller(step.caller.as_deref().unwrap_or("admin"));
            match (caller.and_then(|caller| self.call(&step.call, &caller, &input)), &step.fails) {
                (Ok(output), None) => self.take(step, &output, &about),
                (Err(fault), Some(wanted)) => {
                    let told = json!(format!("{}: {}", fault.code, fault.message));
                    includes(&told, &self.spoken(&json!(wanted)), &about);
                }
                (Ok(output), Some(_)) => panic!("{about}: it gave {output}"),
                (Err(fault), None) => panic!("{about}: {}: {}", fault.code, fault.message),
            }
        }
    }

    /// From now on `$word` stands for a value.
    pub fn name(&mut self, word: &str, value: &str) {
        self.words.insert(format!("${word}"), value.to_owned());
    }

    /// A value with its words replaced by what they stand for; the longest word first.
    pub fn spoken(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => {
                let words = self.words.iter().rev();
                Value::String(words.fold(text.clone(), |text, (word, value)| text.replace(word, value)))
            }
            Value::Array(list) => list.iter().map(|item| self.spoken(item)).collect(),
            Value::Object(members) => {
                members.iter().map(|(name, value)| (name.clone(), self.spoken(value))).collect()
            }
            other => other.clone(),
        }
    }

    fn take(&mut self, step: &Step, output: &Value, about: &str) {
        if let Some(wanted) = &step.gives {
            includes(output, &self.spoken(wanted), about);
        }
        for (word, path) in &step.names {
            let pointer = format!("/{}", path.replace('.', "/"));
            let value = output.pointer(&pointer).and_then(Value::as_str);
            let value = value.unwrap_or_else(|| panic!("{about}: there is no {path} in {output}"));
            self.name(word, value);
        }
        if let Some(name) = &step.keep {
            self.keep(name, output);
        }
    }
}

/// Ends the test where an answer says something that its shape has no place for.
fn fits(model: &Model, shape: &Shape, value: &Value, at: &str) {
    let is_right = match (&shape.kind, value) {
        (_, Value::Null) => true,
        (Kind::Structure { members, .. }, Value::Object(all)) => {
            for (name, value) in all {
                let member = members.iter().find(|member| member.name == name);
                let member = member.unwrap_or_else(|| panic!("{at}: there is no {name} in {}", shape.name));
                fits(model, model.shape(member.of), value, &format!("{at}.{name}"));
            }
            true
        }
        (Kind::List { of, .. }, Value::Array(items)) => {
            items.iter().for_each(|item| fits(model, model.shape(*of), item, &format!("{at}[]")));
            true
        }
        (Kind::Map { value: of, .. }, Value::Object(all)) => {
            all.iter()
                .for_each(|(name, value)| fits(model, model.shape(*of), value, &format!("{at}.{name}")));
            true
        }
        // AWS itself answers words that its models do not list.
        (Kind::Enum(_), Value::String(_)) => true,
        (Kind::String | Kind::Blob, Value::String(_)) | (Kind::Boolean, Value::Bool(_)) => true,
        (Kind::Timestamp(_), value) => value.is_string() || value.is_number(),
        (Kind::Integer, value) => value.is_i64() || value.is_u64(),
        (Kind::Double, value) => value.is_number(),
        _ => false,
    };
    assert!(is_right, "{at}: {value} is no {}", shape.name);
}

/// Ends the test where something that is wanted is not given.
pub fn includes(given: &Value, wanted: &Value, about: &str) {
    match (given, wanted) {
        (Value::Object(given), Value::Object(wanted)) => {
            for (member, wanted) in wanted {
                let about = format!("{about}, {member}");
                includes(given.get(member).unwrap_or(&Value::Null), wanted, &about);
            }
        }
        (Value::Array(given), Value::Array(wanted)) => {
            assert_eq!(given.len(), wanted.len(), "{about}: {given:?}");
            given.iter().zip(wanted).for_each(|(given, wanted)| includes(given, wanted, about));
        }
        (Value::String(given), Value::String(wanted)) if wanted.ends_with('*') => {
            assert!(given.starts_with(wanted.trim_end_matches('*')), "{about}: {given}");
        }
        _ => assert_eq!(given, wanted, "{about}"),
    }
}

/// Stories of accounts without networks, and with the default VPC.
const WITHOUT_VPC: &[&str] = &[
    include_str!("../testdata/iam/access.yaml"),
    include_str!("../testdata/iam/policies.yaml"),
    include_str!("../testdata/iam/roles.yaml"),
    include_str!("../testdata/iam/users.yaml"),
    include_str!("../testdata/sts/assume_role.yaml"),
    include_str!("../testdata/whole/iam.yaml"),
    include_str!("../testdata/whole/ssm.yaml"),
];
const WITH_VPC: &[&str] = &[
    include_str!("../testdata/ec2/addresses.yaml"),
    include_str!("../testdata/ec2/first.yaml"),
    include_str!("../testdata/ec2/groups.yaml"),
    include_str!("../testdata/ec2/instances.yaml"),
    include_str!("../testdata/ec2/networks.yaml"),
    include_str!("../testdata/ec2/templates.yaml"),
];

/// What is refused whatever is said.
const REFUSED: &[&str] = &[
    "autoscaling:CreateAutoScalingGroup",
    "ec2:CreateKeyPair",
    "ec2:CreateNetworkAcl",
    "ec2:CreateNetworkAclEntry",
    "eks:AssociateEncryptionConfig",
    "eks:CreateCapability",
    "eks:CreateEksAnywhereSubscription",
    "eks:DeleteCapability",
    "eks:DeleteEksAnywhereSubscription",
    "eks:DeregisterCluster",
    "eks:DescribeCapability",
    "eks:DescribeEksAnywhereSubscription",
    "eks:RegisterCluster",
    "eks:UpdateCapability",
    "eks:UpdateEksAnywhereSubscription",
    "iam:DeleteLoginProfile",
    "iam:GetLoginProfile",
];
/// What needs tokens of a cluster: `sts::tests`.
const OF_PODS: &[&str] = &["eks-auth:AssumeRoleForPodIdentity", "sts:AssumeRoleWithWebIdentity"];

/// Each operation that is offered is done in a story, or refused if that is all there is to it.
#[test]
fn every_operation_is_told() {
    let mut accounts: Vec<Account> = Vec::new();
    for (begin, stories) in [(Account::new(), WITHOUT_VPC), (Account::with_vpc(), WITH_VPC)] {
        accounts.extend(stories.iter().map(|story| {
            let mut account = begin.clone();
            account.tell(story);
            account
        }));
    }
    accounts.push(machines_come_and_go());
    accounts.extend(clusters_and_groups());
    let done: BTreeSet<&String> = accounts.iter().flat_map(|account| &account.done).collect();
    let refused: BTreeSet<&String> = accounts.iter().flat_map(|account| &account.refused).collect();
    let names = SERVICES.iter().flat_map(|service| {
        service.operations.iter().map(|operation| format!("{}:{}", service.signing_name, operation.name))
    });
    let is_told = |name: &String| {
        if REFUSED.contains(&name.as_str()) {
            return refused.contains(name) && !done.contains(name);
        }
        done.contains(name) || OF_PODS.contains(&name.as_str())
    };
    let untold: Vec<String> = names.filter(|name| !is_told(name)).collect();
    assert!(untold.is_empty(), "no story tells of {untold:?}");
}

/// The rest of EC2, with a machine behind the instance.
fn machines_come_and_go() -> Account {
    let mut account = Account::with_vpc();
    account.tell(include_str!("../testdata/whole/ec2.yaml"));
    let id = account.spoken(&json!("$instance")).as_str().expect("an id").to_owned();
    let observed = |account: &mut Account, state: State| {
        let changes = ec2::instance::observe(&account.state, account.now, &id, state, None);
        changes.apply(&mut account.state);
    };
    observed(&mut account, State::Running);
    account.tell("- {call: RebootInstances, with: {InstanceIds: [$instance]}}\n- {call: StopInstances, with: {InstanceIds: [$instance]}}");
    observed(&mut account, State::Stopped);
    account.tell("- {call: StartInstances, with: {InstanceIds: [$instance]}, gives: {StartingInstances: [{CurrentState: {Name: pending}}]}}");
    account
}

/// EKS, and the Auto Scaling group of a node group.
fn clusters_and_groups() -> Vec<Account> {
    let begin = crate::eks::account_with_everything();
    let mut eks = begin.clone();
    eks.tell(include_str!("../testdata/whole/eks.yaml"));
    let mut alone = begin.clone();
    for group in crate::state::list::<crate::eks::NodeGroupRecord>(&alone.state, "") {
        alone.change(|changes| changes.delete(&group));
    }
    for profile in crate::state::list::<crate::eks::FargateProfileRecord>(&alone.state, "") {
        alone.change(|changes| changes.delete(&profile));
    }
    alone.tell("- {call: DeleteCluster, with: {name: shop}, gives: {cluster: {status: DELETING}}}");
    // What is being updated is left alone by others.
    let mut busy: Vec<Account> = Vec::new();
    for call in [
        "UpdateClusterConfig, with: {name: shop, deletionProtection: true}, gives: {update: {type: DeletionProtectionUpdate}}",
        "UpdateClusterVersion, with: {name: shop, version: '1.36'}, gives: {update: {type: VersionUpdate}}",
        "UpdateNodegroupConfig, with: {clusterName: shop, nodegroupName: ng, labels: {removeLabels: [a]}}, gives: {update: {type: ConfigUpdate}}",
        "UpdateNodegroupVersion, with: {clusterName: shop, nodegroupName: ng}, gives: {update: {type: VersionUpdate}}",
    ] {
        let mut account = begin.clone();
        account.tell(&format!("- {{call: {call}}}"));
        busy.push(account);
    }
    let mut scaling = begin;
    let nobody = Caller::default();
    let plan =
        scaling.context(&nobody, |context| control::node_group::reconcile(context, &|_| None, "shop", "ng"));
    plan.changes.apply(&mut scaling.state);
    let name = crate::state::list::<crate::autoscaling::Group>(&scaling.state, "")[0].record.name.clone();
    for _ in 0..2 {
        let plan = scaling.context(&nobody, |context| control::group::reconcile(context, &name));
        plan.changes.apply(&mut scaling.state);
    }
    scaling.tell(include_str!("../testdata/whole/autoscaling.yaml"));
    busy.extend([alone, eks, scaling]);
    busy
}

/// Of each operation that must be told something, nothing is told: refused before anything else is looked at.
#[test]
fn what_is_lacking_is_told_of_every_operation() {
    for service in SERVICES {
        let model = model::of(service.signing_name).expect("a model");
        for operation in service.operations {
            let input = model.operation(operation.name).and_then(|one| one.input);
            let lacks =
                input.is_some_and(|id| model.shape(id).members().iter().any(|member| member.is_required));
            if !lacks {
                continue;
            }
            let mut account = Account::new();
            let before = account.state.revision();
            let admin = account.caller("admin").expect("a caller");
            let which = format!("{}:{}", service.signing_name, operation.name);
            let fault = account.call(&which, &admin, &json!({})).expect_err(&which);
            // The name that its own family has for it is the wire's.
            assert!(
                ["Validation", "MissingParameter"].contains(&fault.code.as_str()),
                "{which}: {}: {}",
                fault.code,
                fault.message
            );
            assert_eq!(account.state.revision(), before, "{which}");
        }
    }
}

#[test]
fn iam() {
    for story in WITHOUT_VPC {
        Account::new().tell(story);
    }
}

#[test]
fn policies_ask_what_a_call_to_eks_says() {
    let mut account = Account::new();
    for name in ["bank", "shop"] {
        let text =
            include_str!("../testdata/sts/cluster.json").replace("NAME", name).replace("ISSUER", "https://i");
        let record: crate::eks::ClusterRecord = serde_json::from_str(&text).expect("a cluster");
        account.change(|changes| changes.create("", name, &record));
    }
    account.tell(include_str!("../testdata/eks/conditions.yaml"));
}

#[test]
fn networks_and_instances() {
    for story in WITH_VPC {
        Account::with_vpc().tell(story);
    }
}

#[test]
fn policies_see_from_where_a_call_comes() {
    let mut account = Account::new();
    account.tell(include_str!("../testdata/iam/origin.yaml"));
    let mut alice = account.caller("alice").expect("alice");
    for (address, is_encrypted, user_agent, may) in [
        (Some("127.0.0.1"), true, "aws-cli/1.45", true),
        (Some("127.0.0.1"), false, "aws-cli/1.45", false),
        (Some("10.0.0.1"), true, "aws-cli/1.45", false),
        (Some("127.0.0.1"), true, "curl/8", false),
        (None, false, "", false),
    ] {
        let address = address.map(|text: &str| text.parse().expect("an address"));
        alice.origin = Origin { address, is_encrypted, user_agent: user_agent.into() };
        assert_eq!(account.call("ListRoles", &alice, &json!({})).is_ok(), may, "{:?}", alice.origin);
    }
}

#[test]
fn a_decision_is_explained() {
    let mut account = Account::new();
    account.tell(include_str!("../testdata/iam/explained.yaml"));
    let cases: Vec<(String, String, String, String)> =
        serde_saphyr::from_str(include_str!("../testdata/iam/explanations.yaml")).expect("a list of cases");
    for (principal, action, resource, wanted) in cases {
        let question = Question { principal, action, resource, keys: Vec::new() };
        let world = World { account: ACCOUNT, region: REGION, now: account.now, state: &account.state };
        let told = explain(&world, &question).map(|told| told.why).unwrap_or_else(|why| why);
        assert_eq!(told, wanted, "{question:?}");
    }
}
