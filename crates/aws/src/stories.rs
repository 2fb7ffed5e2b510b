//! Stories of calls on an account, as data: a file of `testdata` is a list of steps, each a call with what it gives or how it fails.
//!
//! ```text
//! - {call: CreateRole, as: alice, with: {RoleName: r, …}, gives: {Role: {RoleId: AROA*}}}
//! - {call: GetRole, with: {RoleName: x}, fails: 'NoSuchEntity: The role with name x cannot be found.'}
//! ```
//!
//! `gives` tells members that must be there; a text that ends in `*` is the beginning of one. The caller is `as`: a user's name, or what
//! `keep` of an earlier step named; the administrator if nothing is said. `after` is how many seconds pass before the call.

use std::collections::BTreeMap;

use object::{Snapshot, Time};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::credentials;
use crate::iam::record::{User, named};
use crate::iam::{Question, explain};
use crate::state::Changes;
use crate::{Caller, Context, Fault, Ids, Origin, SERVICES, World, genesis};

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
}

impl Account {
    pub fn new() -> Self {
        let now = Time::from_secs(1_795_000_000);
        let mut account =
            Self { state: Snapshot::default(), now, drawn: 0, kept: Vec::new(), words: BTreeMap::new() };
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

    /// Makes a call as the front door would: IAM decides, the handler runs, the changes are made.
    pub fn call(&mut self, name: &str, caller: &Caller, input: &Value) -> Result<Value, Fault> {
        // Two services may have an operation of one name: then the story says whose it means, `ec2:DescribeTags`.
        let (prefix, name) = name.split_once(':').unwrap_or(("", name));
        let mut meant = SERVICES.iter().filter(|service| prefix.is_empty() || service.signing_name == prefix);
        let service = meant.find(|service| service.operations.iter().any(|one| one.name == name));
        let service = service.unwrap_or_else(|| panic!("no operation {name}")).signing_name;
        self.drawn += 1;
        let world = World { account: ACCOUNT, region: REGION, now: self.now, state: &self.state };
        let answer = crate::call(&world, &mut Ids::new([self.drawn; 32]), caller, service, name, input)?;
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
                    let wanted = self.spoken(&json!(wanted));
                    assert_eq!(format!("{}: {}", fault.code, fault.message), wanted, "{about}");
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

#[test]
fn iam() {
    for story in [
        include_str!("../testdata/iam/access.yaml"),
        include_str!("../testdata/iam/policies.yaml"),
        include_str!("../testdata/iam/roles.yaml"),
        include_str!("../testdata/iam/users.yaml"),
    ] {
        Account::new().tell(story);
    }
}

#[test]
fn roles_are_assumed() {
    Account::new().tell(include_str!("../testdata/sts/assume_role.yaml"));
}

/// A story of EC2.
fn ec2(story: &str) {
    Account::with_vpc().tell(story);
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
fn ec2_begins_with_a_vpc() {
    ec2(include_str!("../testdata/ec2/first.yaml"));
}

#[test]
fn ec2_addresses() {
    ec2(include_str!("../testdata/ec2/addresses.yaml"));
}

#[test]
fn ec2_groups() {
    ec2(include_str!("../testdata/ec2/groups.yaml"));
}

#[test]
fn ec2_instances() {
    ec2(include_str!("../testdata/ec2/instances.yaml"));
}

#[test]
fn ec2_networks() {
    ec2(include_str!("../testdata/ec2/networks.yaml"));
}

#[test]
fn ec2_templates() {
    ec2(include_str!("../testdata/ec2/templates.yaml"));
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
