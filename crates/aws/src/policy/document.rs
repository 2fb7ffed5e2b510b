//! From a policy's JSON to its compiled statements, with AWS's words for what is wrong with it.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html>

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::condition::{BadCondition, Condition};
use super::pattern::{Pattern, Signs};
use super::principal::{Name, Principals};

/// What a policy hangs on, which decides which elements it must and must not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// On a user, group, role or session, or as a boundary.
    Identity,
    /// On a resource.
    Resource,
    /// On a role: who may assume it.
    Trust,
}

/// A policy, compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub(super) statements: Vec<Statement>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Statement {
    pub sid: Option<Box<str>>,
    pub allows: bool,
    /// None in a policy of an identity.
    pub principals: Option<Principals>,
    pub actions: Patterns,
    /// None in a trust policy: it is about its role.
    pub resources: Option<Patterns>,
    pub conditions: Vec<Condition>,
}

/// Action or NotAction, Resource or NotResource.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Patterns {
    pub negated: bool,
    pub list: Vec<Pattern>,
}

/// The message of a `MalformedPolicyDocument`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(pub String);

impl Malformed {
    fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    fn syntax() -> Self {
        Self::new("Syntax errors in policy.")
    }
}

const VERSIONS: &[&str] = &["2008-10-17", "2012-10-17"];
const ELEMENTS: &[&str] = &[
    "Action",
    "Condition",
    "Effect",
    "NotAction",
    "NotPrincipal",
    "NotResource",
    "Principal",
    "Resource",
    "Sid",
];

impl Document {
    pub fn parse(text: &str, policy_use: Use) -> Result<Self, Malformed> {
        // Of a member that is given twice, whoever reads the first and whoever reads the last would not read the same policy.
        let unique = schema::parse_json(text.as_bytes()).ok().filter(|(_, duplicates)| duplicates.is_empty());
        let Some((value, _)) = unique else {
            return Err(match policy_use {
                Use::Trust => Malformed::new("This policy contains invalid Json"),
                Use::Identity | Use::Resource => Malformed::syntax(),
            });
        };
        let Value::Object(members) = &value else { return Err(Malformed::syntax()) };
        if members.keys().any(|name| !["Version", "Id", "Statement"].contains(&name.as_str())) {
            return Err(Malformed::syntax());
        }
        let variables = version(members, policy_use)?;
        let statements = match members.get("Statement") {
            Some(Value::Array(list)) => list.iter().collect(),
            Some(one @ Value::Object(_)) => vec![one],
            _ => return Err(Malformed::syntax()),
        };
        if statements.is_empty() && policy_use != Use::Identity {
            return Err(Malformed::syntax());
        }
        let read = |value: &&Value| Statement::read(value, policy_use, variables);
        let statements: Vec<Statement> = statements.iter().map(read).collect::<Result<_, _>>()?;
        let mut sids = BTreeSet::new();
        if !statements.iter().filter_map(|one| one.sid.as_deref()).all(|sid| sids.insert(sid)) {
            return Err(Malformed::new("Statement IDs (SID) in a single policy must be unique."));
        }
        Ok(Self { statements })
    }

    /// The principals of this account (users, roles and sessions by ARN) that the policy names: IAM wants them to exist.
    pub fn named_arns(&self) -> impl Iterator<Item = &str> {
        let principals = self.statements.iter().filter_map(|statement| statement.principals.as_ref());
        principals.flat_map(|principals| &principals.names).filter_map(|name| match name {
            Name::Arn(arn) => Some(arn.as_str()),
            _ => None,
        })
    }

    /// The services of AWS that the policy lets do something, on whatever conditions.
    pub fn trusted_services(&self) -> impl Iterator<Item = &str> {
        let principals = self
            .statements
            .iter()
            .filter(|statement| statement.allows)
            .filter_map(|one| one.principals.as_ref());
        principals
            .filter(|principals| !principals.negated)
            .flat_map(|principals| &principals.names)
            .filter_map(|name| match name {
                Name::Service(service) => Some(service.as_str()),
                _ => None,
            })
    }
}

/// Does this version of the language have variables?
fn version(members: &Map<String, Value>, policy_use: Use) -> Result<bool, Malformed> {
    let version = match members.get("Version") {
        None => "2008-10-17",
        Some(Value::String(version)) if VERSIONS.contains(&version.as_str()) => version,
        Some(_) => return Err(Malformed::syntax()),
    };
    let is_current = version == "2012-10-17";
    if policy_use == Use::Identity && !is_current {
        return Err(Malformed::new("Policy document must be version 2012-10-17 or greater."));
    }
    Ok(is_current)
}

impl Statement {
    fn read(value: &Value, policy_use: Use, variables: bool) -> Result<Self, Malformed> {
        let Value::Object(members) = value else { return Err(Malformed::syntax()) };
        if members.keys().any(|name| !ELEMENTS.contains(&name.as_str())) {
            return Err(Malformed::syntax());
        }
        let allows = match members.get("Effect").and_then(Value::as_str) {
            Some("Allow") => true,
            Some("Deny") => false,
            _ => return Err(Malformed::syntax()),
        };
        Ok(Self {
            sid: sid(members.get("Sid"), policy_use)?,
            allows,
            principals: principals(members, policy_use)?,
            actions: actions(members, policy_use)?,
            resources: resources(members, policy_use, variables)?,
            conditions: conditions(members.get("Condition"), variables)?,
        })
    }
}

fn sid(value: Option<&Value>, policy_use: Use) -> Result<Option<Box<str>>, Malformed> {
    let sid = match value {
        None => return Ok(None),
        Some(Value::String(sid)) => sid.as_str(),
        Some(_) => return Err(Malformed::syntax()),
    };
    if policy_use != Use::Resource && !sid.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(Malformed::new(
            "Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression [0-9A-Za-z]*",
        ));
    }
    Ok((!sid.is_empty()).then(|| sid.into()))
}

/// One of two elements: `Action` or `NotAction`. The flag says that it is the second.
fn either<'a>(
    members: &'a Map<String, Value>,
    name: &str,
    negation: &str,
) -> Result<Option<(&'a Value, bool)>, Malformed> {
    match (members.get(name), members.get(negation)) {
        (Some(_), Some(_)) => Err(Malformed::syntax()),
        (Some(value), None) => Ok(Some((value, false))),
        (None, Some(value)) => Ok(Some((value, true))),
        (None, None) => Ok(None),
    }
}

/// A string or a list of strings.
fn strings(value: &Value) -> Result<Vec<&str>, Malformed> {
    match value {
        Value::String(one) => Ok(vec![one]),
        Value::Array(list) => {
            list.iter().map(|one| one.as_str()).collect::<Option<_>>().ok_or_else(Malformed::syntax)
        }
        _ => Err(Malformed::syntax()),
    }
}

fn actions(members: &Map<String, Value>, policy_use: Use) -> Result<Patterns, Malformed> {
    let Some((value, negated)) = either(members, "Action", "NotAction")? else {
        return Err(match policy_use {
            Use::Trust => Malformed::new("Missing required field Action"),
            Use::Identity | Use::Resource => Malformed::new("Policy statement must contain actions."),
        });
    };
    let names = strings(value)?;
    if names.is_empty() {
        return Err(Malformed::new("Policy statement must contain actions."));
    }
    for name in &names {
        check_action(name, policy_use)?;
    }
    let signs = Signs { wildcards: true, variables: false, any_case: true };
    Ok(Patterns { negated, list: names.iter().map(|name| Pattern::compile(name, signs)).collect() })
}

fn check_action(name: &str, policy_use: Use) -> Result<(), Malformed> {
    if policy_use == Use::Trust && !name.to_ascii_lowercase().starts_with("sts:") {
        return Err(Malformed::new("AssumeRole policy may only specify STS AssumeRole actions."));
    }
    if name == "*" {
        return Ok(());
    }
    let Some((vendor, action)) = name.split_once(':') else {
        return Err(Malformed::new(
            "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.",
        ));
    };
    if action.contains(':') {
        return Err(Malformed::new("Actions/Condition can contain only one colon."));
    }
    let is_vendor = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if vendor.is_empty() || !vendor.bytes().all(is_vendor) {
        return Err(Malformed::new(format!("Vendor {vendor} is not valid")));
    }
    let is_action = |byte: u8| byte.is_ascii_alphanumeric() || b"*?-_".contains(&byte);
    if action.is_empty() || !action.bytes().all(is_action) {
        return Err(Malformed::new("The policy failed legacy parsing"));
    }
    Ok(())
}

fn resources(
    members: &Map<String, Value>,
    policy_use: Use,
    variables: bool,
) -> Result<Option<Patterns>, Malformed> {
    let given = either(members, "Resource", "NotResource")?;
    if policy_use == Use::Trust {
        return match given {
            Some(_) => Err(Malformed::new("Has prohibited field Resource")),
            None => Ok(None),
        };
    }
    let missing = || Malformed::new("Policy statement must contain resources.");
    let (value, negated) = given.ok_or_else(missing)?;
    let names = strings(value)?;
    if names.is_empty() {
        return Err(missing());
    }
    for name in &names {
        check_resource(name)?;
    }
    let signs = Signs { wildcards: true, variables, any_case: false };
    let list = names.iter().map(|name| Pattern::compile(name, signs)).collect();
    Ok(Some(Patterns { negated, list }))
}

fn check_resource(name: &str) -> Result<(), Malformed> {
    if name == "*" {
        return Ok(());
    }
    let parts: Vec<&str> = name.splitn(6, ':').collect();
    if parts[0] != "arn" {
        return Err(Malformed::new(format!("Resource {name} must be in ARN format or \"*\".")));
    }
    let partition = parts.get(1).copied().unwrap_or_default();
    if !["aws", "aws-cn", "aws-us-gov", "*"].contains(&partition) {
        return Err(Malformed::new(format!(
            "Partition \"{partition}\" is not valid for resource \"{name}\"."
        )));
    }
    let vendor = parts.get(2).copied().unwrap_or_default();
    let is_open = |part: &str| part.contains(['*', '?']);
    // A wildcard at the end may stand for the components that are not there.
    if parts.len() < 6 && !parts.last().is_some_and(|last| last.ends_with('*')) {
        return Err(Malformed::new("The policy failed legacy parsing"));
    }
    if is_open(vendor) && vendor != "*" {
        return Err(Malformed::new("Resource vendor must be fully qualified and cannot contain regexes."));
    }
    let region = parts.get(3).copied().unwrap_or_default();
    if vendor == "iam" && !region.is_empty() && parts.len() == 6 && region != "*" {
        return Err(Malformed::new(format!("IAM resource {name} cannot contain region information.")));
    }
    Ok(())
}

fn conditions(value: Option<&Value>, variables: bool) -> Result<Vec<Condition>, Malformed> {
    let operators = match value {
        None => return Ok(Vec::new()),
        Some(Value::Object(operators)) => operators,
        Some(_) => return Err(Malformed::syntax()),
    };
    let mut conditions = Vec::new();
    for (operator, keys) in operators {
        let Value::Object(keys) = keys else { return Err(Malformed::syntax()) };
        for (key, values) in keys {
            if !key.contains(':') {
                return Err(Malformed::new(
                    "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.",
                ));
            }
            let values = scalars(values)?;
            let condition = Condition::compile(operator, key, &values, variables);
            conditions.push(condition.map_err(|bad| match bad {
                BadCondition::Operator => Malformed::syntax(),
                BadCondition::Value => Malformed::new("The policy failed legacy parsing"),
            })?);
        }
    }
    Ok(conditions)
}

/// A condition's values: one or a list, of strings, numbers and booleans.
fn scalars(value: &Value) -> Result<Vec<String>, Malformed> {
    let one = |value: &Value| match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(_) | Value::Bool(_) => Ok(value.to_string()),
        _ => Err(Malformed::syntax()),
    };
    match value {
        Value::Array(list) => list.iter().map(one).collect(),
        value => Ok(vec![one(value)?]),
    }
}

fn principals(members: &Map<String, Value>, policy_use: Use) -> Result<Option<Principals>, Malformed> {
    let given = either(members, "Principal", "NotPrincipal")?;
    if policy_use == Use::Identity {
        return match given {
            Some(_) => Err(Malformed::new("Policy document should not specify a principal.")),
            None => Ok(None),
        };
    }
    let Some((value, negated)) = given else {
        return Err(Malformed::new("Missing required field Principal"));
    };
    let mut names = Vec::new();
    match value {
        Value::String(text) if text == "*" => names.push(Name::Everyone),
        Value::Object(kinds) => {
            for (kind, values) in kinds {
                for value in strings(values)? {
                    names.push(name_of(kind, value)?);
                }
            }
        }
        _ => return Err(Malformed::syntax()),
    }
    if names.is_empty() {
        return Err(Malformed::new("Missing required field Principal cannot be empty!"));
    }
    Ok(Some(Principals { negated, names }))
}

fn name_of(kind: &str, value: &str) -> Result<Name, Malformed> {
    let shown = match kind {
        "Service" => "SERVICE",
        kind => kind,
    };
    let invalid = || Malformed::new(format!("Invalid principal in policy: \"{shown}\":\"{value}\""));
    match kind {
        "AWS" => account_name(value).ok_or_else(invalid),
        "Service" => {
            let is_service = value.ends_with(".amazonaws.com") || value.ends_with(".amazonaws.com.cn");
            if is_service { Ok(Name::Service(value.to_owned())) } else { Err(invalid()) }
        }
        "Federated" => {
            let is_provider = value.contains(":oidc-provider/") || value.contains(":saml-provider/");
            let is_domain = value.contains('.') && !value.contains(['/', ':', '*']);
            if (value.starts_with("arn:") && is_provider) || is_domain {
                return Ok(Name::Federated(value.to_owned()));
            }
            Err(Malformed::new("Federated principals must be valid domain names or SAML metadata ARNs"))
        }
        _ => Err(Malformed::syntax()),
    }
}

fn account_name(value: &str) -> Option<Name> {
    if value == "*" {
        return Some(Name::Everyone);
    }
    let is_account = |text: &str| text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_account(value) {
        return Some(Name::Account(value.to_owned()));
    }
    // The ids of users and roles, which stand in a policy in the place of one that was deleted.
    if value.len() >= 16 && (value.starts_with("AIDA") || value.starts_with("AROA")) {
        return Some(Name::Arn(value.to_owned()));
    }
    let parts: Vec<&str> = value.splitn(6, ':').collect();
    let ["arn", _, service, "", account, resource] = parts[..] else { return None };
    if !is_account(account) || resource.contains(['*', '?']) {
        return None;
    }
    if (service, resource) == ("iam", "root") {
        return Some(Name::Account(account.to_owned()));
    }
    let (kind, name) = resource.split_once('/')?;
    let is_kind =
        matches!((service, kind), ("iam", "user" | "role") | ("sts", "assumed-role" | "federated-user"));
    (is_kind && !name.is_empty()).then(|| Name::Arn(value.to_owned()))
}
