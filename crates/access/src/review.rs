//! Reviews: questions about access that are asked and answered as objects. Each function takes the object as it was
//! posted, admitted and validated, and returns it with its status; nothing is stored.
//! <https://kubernetes.io/docs/reference/access-authn-authz/authorization/#checking-api-access>

use std::collections::BTreeMap;

use object::selector::{FieldTerm, Operator, Requirement};
use object::{FieldSelector, LabelSelector, Status, Time};
use plan::{Attributes, Decision, User};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::authorization::Authorizer;
use crate::rbac::{Rule, SubjectRules, in_brackets};
use crate::service_account::Identity;
use crate::{AccessError, View, authorize, groups};

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct AccessSpec {
    resource_attributes: Option<ResourceAttributes>,
    non_resource_attributes: Option<PathAttributes>,
    user: String,
    groups: Vec<String>,
    uid: String,
    extra: BTreeMap<Box<str>, Vec<Box<str>>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ResourceAttributes {
    namespace: String,
    verb: String,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    name: String,
    field_selector: Option<SelectorAttributes>,
    label_selector: Option<SelectorAttributes>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SelectorAttributes {
    raw_selector: String,
    requirements: Vec<SelectorTerm>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct SelectorTerm {
    key: String,
    operator: String,
    values: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PathAttributes {
    path: String,
    verb: String,
}

/// `SubjectAccessReview`: may the user of its spec do this?
pub fn subject_access(view: &View, review: Value) -> Result<Value, Status> {
    let spec: AccessSpec = spec_of(&review)?;
    Ok(answered(view, review, &spec, &subject_of(&spec)))
}

/// `LocalSubjectAccessReview`: the same within the namespace it was posted to.
pub fn local_subject_access(view: &View, namespace: &str, review: Value) -> Result<Value, Status> {
    let spec: AccessSpec = spec_of(&review)?;
    let asked = spec.resource_attributes.as_ref().map_or("", |attributes| attributes.namespace.as_str());
    if asked != namespace {
        let why = format!("spec.resourceAttributes.namespace must match namespace: {namespace}");
        return Err(Status::bad_request(why));
    }
    Ok(answered(view, review, &spec, &subject_of(&spec)))
}

/// `SelfSubjectAccessReview`: may whoever asks do this?
pub fn self_subject_access(view: &View, user: &User, review: Value) -> Result<Value, Status> {
    let spec: AccessSpec = spec_of(&review)?;
    Ok(answered(view, review, &spec, user))
}

/// `SelfSubjectRulesReview`: what may whoever asks do in a namespace?
pub fn self_subject_rules(view: &View, user: &User, mut review: Value) -> Result<Value, Status> {
    let namespace = review["spec"]["namespace"].as_str().unwrap_or_default().to_owned();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let asked = |wanted: fn(&Authorizer) -> bool| view.authorizers.iter().any(wanted);
    let mut found = if asked(|one| matches!(one, Authorizer::Rbac)) {
        view.rbac.rules_for(user, &namespace)
    } else {
        SubjectRules::default()
    };
    if user.is_in(groups::MASTERS) || asked(|one| matches!(one, Authorizer::AlwaysAllow)) {
        let star = || vec!["*".into()];
        found
            .rules
            .insert(0, Rule { api_groups: star(), resources: star(), verbs: star(), ..Rule::default() });
        found.rules.insert(1, Rule { non_resource_urls: star(), verbs: star(), ..Rule::default() });
    }
    let (paths, resources): (Vec<Rule>, Vec<Rule>) =
        found.rules.into_iter().partition(|rule| !rule.non_resource_urls.is_empty());
    let mut errors = found.errors;
    // These answer request by request: they cannot list what they would allow.
    for authorizer in view.authorizers {
        match authorizer {
            Authorizer::Node if user.is_in(groups::NODES) => {
                errors.push("node authorizer does not support user rule resolution".to_owned());
            }
            Authorizer::Webhook(_) => {
                errors.push("webhook authorizer does not support user rule resolution".to_owned());
            }
            _ => {}
        }
    }
    let incomplete = !errors.is_empty();
    // Upstream answers with the status alone.
    review["spec"] = json!({});
    review["status"] =
        json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": incomplete});
    if !errors.is_empty() {
        review["status"]["evaluationError"] = errors.join(", ").into();
    }
    Ok(review)
}

/// `SelfSubjectReview`: who am I?
pub fn self_subject(user: &User, now: Time, mut review: Value) -> Value {
    review["metadata"]["creationTimestamp"] = now.to_string().into();
    review["status"] = json!({"userInfo": user_info(user)});
    review
}

/// What a `TokenReview` asks: whose token is this, and for which of these audiences? (None: for this API server.)
pub fn token_of(review: &Value) -> Result<(String, Vec<String>), Status> {
    let token = review["spec"]["token"].as_str().unwrap_or_default().to_owned();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences = serde_json::from_value(review["spec"]["audiences"].clone()).unwrap_or_default();
    Ok((token, audiences))
}

/// A `TokenReview` with what was found out.
pub fn token(mut review: Value, found: Result<Identity, AccessError>) -> Value {
    review["status"] = match found {
        Ok(Identity { user, audiences, .. }) => {
            json!({"authenticated": true, "user": user_info(&user), "audiences": audiences})
        }
        Err(AccessError::Unrecognized) => json!({"user": {}, "error": "invalid bearer token"}),
        Err(error) => json!({"user": {}, "error": format!("[invalid bearer token, {error}]")}),
    };
    review
}

/// `authentication.k8s.io/v1` `UserInfo`.
pub fn user_info(user: &User) -> Value {
    let mut info = json!({"username": &*user.name});
    if !user.uid.is_empty() {
        info["uid"] = (*user.uid).into();
    }
    if !user.groups.is_empty() {
        info["groups"] = user.groups.iter().map(|group| Value::from(&**group)).collect();
    }
    if !user.extra.is_empty() {
        info["extra"] = json!(user.extra);
    }
    info
}

fn spec_of(review: &Value) -> Result<AccessSpec, Status> {
    serde_json::from_value(review["spec"].clone()).map_err(|error| Status::bad_request(error.to_string()))
}

fn subject_of(spec: &AccessSpec) -> User {
    let groups: Vec<&str> = spec.groups.iter().map(String::as_str).collect();
    let mut user = User::new(spec.user.as_str(), &groups);
    user.uid = spec.uid.as_str().into();
    user.extra = spec.extra.clone();
    user
}

fn answered(view: &View, mut review: Value, spec: &AccessSpec, user: &User) -> Value {
    let (decision, mut errors) = decide(view, spec, user);
    let mut status = json!({"allowed": decision.allowed});
    if decision.denied {
        status["denied"] = true.into();
    }
    if !decision.reason.is_empty() {
        status["reason"] = decision.reason.into();
    }
    if !decision.error.is_empty() {
        errors.insert(0, decision.error);
    }
    if !errors.is_empty() {
        status["evaluationError"] = in_brackets(errors).into();
    }
    review["status"] = status;
    review
}

/// The decision, and what of the selectors was left aside.
fn decide(view: &View, spec: &AccessSpec, user: &User) -> (Decision, Vec<String>) {
    let Some(asked) = &spec.resource_attributes else {
        let path = spec.non_resource_attributes.as_ref();
        let (path, verb) = path.map_or(("", ""), |asked| (&asked.path, &asked.verb));
        return (authorize(view, user, &Attributes { verb, path, ..Attributes::default() }), Vec::new());
    };
    let mut ignored = Vec::new();
    let fields = asked.field_selector.as_ref().map(|asked| asked.read(FieldSelector::parse, field_term));
    let labels = asked.label_selector.as_ref().map(|asked| asked.read(LabelSelector::parse, label_term));
    let fields = fields.map(|read| FieldSelector(read.told("fieldSelector", |all| all.0, &mut ignored)));
    let labels = labels.map(|read| LabelSelector(read.told("labelSelector", |all| all.0, &mut ignored)));
    let attributes = Attributes {
        verb: &asked.verb,
        group: &asked.group,
        version: &asked.version,
        resource: &asked.resource,
        subresource: &asked.subresource,
        namespace: &asked.namespace,
        name: &asked.name,
        path: "",
        fields: fields.as_ref().filter(|fields| !fields.0.is_empty()),
        labels: labels.as_ref().filter(|labels| !labels.0.is_empty()),
    };
    (authorize(view, user, &attributes), ignored)
}

/// What could be read of a selector: as a text whole or not at all, as requirements each by itself.
enum Read<Whole, Term> {
    Whole(Result<Whole, String>),
    Terms(Vec<Option<Term>>),
}

impl SelectorAttributes {
    fn read<Whole, Term>(
        &self,
        whole: fn(&str) -> Result<Whole, String>,
        term: fn(&SelectorTerm) -> Option<Term>,
    ) -> Read<Whole, Term> {
        if self.raw_selector.is_empty() {
            return Read::Terms(self.requirements.iter().map(term).collect());
        }
        Read::Whole(whole(&self.raw_selector))
    }
}

impl<Whole, Term> Read<Whole, Term> {
    /// The terms that were understood. One that was not narrows nothing, and is told.
    fn told(self, field: &str, terms: fn(Whole) -> Vec<Term>, ignored: &mut Vec<String>) -> Vec<Term> {
        let (found, complete) = match self {
            Self::Whole(Ok(whole)) => (terms(whole), true),
            Self::Whole(Err(_)) => (Vec::new(), false),
            Self::Terms(all) => {
                let complete = all.iter().all(Option::is_some);
                (all.into_iter().flatten().collect(), complete)
            }
        };
        if !complete {
            let partially = if found.is_empty() { "" } else { "partially " };
            ignored.push(format!("spec.resourceAttributes.{field} {partially}ignored due to parse error"));
        }
        found
    }
}

/// A field is compared with one value.
fn field_term(term: &SelectorTerm) -> Option<FieldTerm> {
    let equal = match &*term.operator {
        "In" => true,
        "NotIn" => false,
        _ => return None,
    };
    let [value] = term.values.as_slice() else { return None };
    Some(FieldTerm { path: term.key.as_str().into(), equal, value: value.as_str().into() })
}

fn label_term(term: &SelectorTerm) -> Option<Requirement> {
    let operator = match &*term.operator {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        _ => return None,
    };
    Some(Requirement::new(&term.key, operator, term.values.iter().map(String::as_str)))
}
