//! Reviews: questions about access that are asked and answered as objects. Each function takes the object as it was
//! posted and returns it with its status; nothing is stored.
//! <https://kubernetes.io/docs/reference/access-authn-authz/authorization/#checking-api-access>

use std::collections::BTreeMap;

use object::{FieldSelector, Reason, Snapshot, Status, Time};
use plan::{Attributes, Decision, User};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::rbac::Rule;
use crate::service_account::Authority;
use crate::{View, authorize, authorize_list, bearer, groups};

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
    check_attributes("SubjectAccessReview", &spec)?;
    if spec.user.is_empty() && spec.groups.is_empty() {
        let why = "at least one of user or group must be specified";
        return Err(invalid("SubjectAccessReview", "spec.user", "Invalid value: \"\"", why));
    }
    Ok(answered(view, review, &spec, &subject_of(&spec)))
}

/// `LocalSubjectAccessReview`: the same within the namespace it was posted to.
pub fn local_subject_access(view: &View, namespace: &str, review: Value) -> Result<Value, Status> {
    let spec: AccessSpec = spec_of(&review)?;
    check_attributes("LocalSubjectAccessReview", &spec)?;
    let asked = spec.resource_attributes.as_ref().map_or("", |attributes| attributes.namespace.as_str());
    if spec.non_resource_attributes.is_some() {
        let why = "disallowed on this kind of request";
        let value = "Invalid value: null";
        return Err(invalid("LocalSubjectAccessReview", "spec.nonResourceAttributes", value, why));
    }
    if asked != namespace {
        return Err(Status::bad_request("spec.resourceAttributes.namespace must match namespace"));
    }
    if spec.user.is_empty() && spec.groups.is_empty() {
        let why = "at least one of user or group must be specified";
        return Err(invalid("LocalSubjectAccessReview", "spec.user", "Invalid value: \"\"", why));
    }
    Ok(answered(view, review, &spec, &subject_of(&spec)))
}

/// `SelfSubjectAccessReview`: may whoever asks do this?
pub fn self_subject_access(view: &View, user: &User, review: Value) -> Result<Value, Status> {
    let spec: AccessSpec = spec_of(&review)?;
    check_attributes("SelfSubjectAccessReview", &spec)?;
    Ok(answered(view, review, &spec, user))
}

/// `SelfSubjectRulesReview`: what may whoever asks do in a namespace?
pub fn self_subject_rules(view: &View, user: &User, mut review: Value) -> Result<Value, Status> {
    let namespace = review["spec"]["namespace"].as_str().unwrap_or_default().to_owned();
    if namespace.is_empty() {
        return Err(Status::bad_request("no namespace on request"));
    }
    let mut found = view.rbac.rules_for(user, &namespace);
    if user.is_in(groups::MASTERS) {
        let star = || vec!["*".into()];
        found
            .rules
            .insert(0, Rule { api_groups: star(), resources: star(), verbs: star(), ..Rule::default() });
        found.rules.insert(1, Rule { non_resource_urls: star(), verbs: star(), ..Rule::default() });
    }
    let (paths, resources): (Vec<Rule>, Vec<Rule>) =
        found.rules.into_iter().partition(|rule| !rule.non_resource_urls.is_empty());
    let mut errors = found.errors;
    // The node authorizer answers request by request: it cannot list what it would allow.
    let incomplete = !errors.is_empty() || user.is_in(groups::NODES);
    if user.is_in(groups::NODES) {
        errors.push("node authorizer does not support user rule resolution".to_owned());
    }
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

/// `TokenReview`: whose token is this, and for which of the audiences?
pub fn token(
    authority: &Authority,
    snapshot: &Snapshot,
    now: Time,
    mut review: Value,
) -> Result<Value, Status> {
    let token = review["spec"]["token"].as_str().unwrap_or_default().to_owned();
    if token.is_empty() {
        return Err(Status::bad_request("token is required for TokenReview in authentication"));
    }
    let audiences: Vec<String> =
        serde_json::from_value(review["spec"]["audiences"].clone()).unwrap_or_default();
    let asked: Vec<&str> = audiences.iter().map(String::as_str).collect();
    review["status"] = match bearer(authority, snapshot, &token, &asked, now) {
        Ok(found) => {
            let mut status = json!({"authenticated": true, "user": user_info(&found.user)});
            if !asked.is_empty() {
                status["audiences"] = json!(found.audiences);
            }
            status
        }
        Err(crate::AccessError::Unrecognized) => json!({"user": {}}),
        Err(error) => json!({"user": {}, "error": format!("[invalid bearer token, {error}]")}),
    };
    Ok(review)
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

fn check_attributes(kind: &str, spec: &AccessSpec) -> Result<(), Status> {
    match (&spec.resource_attributes, &spec.non_resource_attributes) {
        (Some(_), None) | (None, Some(_)) => Ok(()),
        (Some(_), Some(_)) => {
            let why = "cannot be specified in combination with resourceAttributes";
            Err(invalid(kind, "spec.nonResourceAttributes", "Invalid value: null", why))
        }
        (None, None) => {
            let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            Err(invalid(kind, "spec.resourceAttributes", "Invalid value: null", why))
        }
    }
}

fn invalid(kind: &str, field: &str, value: &str, why: &str) -> Status {
    let detail = format!("{value}: {why}");
    let message = format!("{kind}.authorization.k8s.io \"\" is invalid: {field}: {detail}");
    let mut status = Status::new(Reason::Invalid, message);
    status.group = "authorization.k8s.io".to_owned();
    status.kind = kind.to_owned();
    status.causes.push(object::Cause {
        reason: "FieldValueInvalid",
        message: detail,
        field: field.to_owned(),
    });
    status
}

fn subject_of(spec: &AccessSpec) -> User {
    let groups: Vec<&str> = spec.groups.iter().map(String::as_str).collect();
    let mut user = User::new(spec.user.as_str(), &groups);
    user.uid = spec.uid.as_str().into();
    user.extra = spec.extra.clone();
    user
}

fn answered(view: &View, mut review: Value, spec: &AccessSpec, user: &User) -> Value {
    let (decision, error) = decide(view, spec, user);
    let mut status = json!({"allowed": decision.allowed});
    if decision.denied {
        status["denied"] = true.into();
    }
    if !decision.reason.is_empty() {
        status["reason"] = decision.reason.into();
    }
    if let Some(error) = error {
        status["evaluationError"] = error.into();
    }
    review["status"] = status;
    review
}

fn decide(view: &View, spec: &AccessSpec, user: &User) -> (Decision, Option<String>) {
    let Some(asked) = &spec.resource_attributes else {
        let path = spec.non_resource_attributes.as_ref();
        let (path, verb) = path.map_or(("", ""), |asked| (&asked.path, &asked.verb));
        return (authorize(view, user, &Attributes { verb, path, ..Attributes::default() }), None);
    };
    let attributes = Attributes {
        verb: &asked.verb,
        group: &asked.group,
        version: &asked.version,
        resource: &asked.resource,
        subresource: &asked.subresource,
        namespace: &asked.namespace,
        name: &asked.name,
        path: "",
    };
    match asked.field_selector.as_ref().map(SelectorAttributes::selector) {
        None => (authorize(view, user, &attributes), None),
        Some(Ok(fields)) => (authorize_list(view, user, &attributes, &fields), None),
        // A selector that is not understood narrows nothing.
        Some(Err(error)) => (authorize(view, user, &attributes), Some(error)),
    }
}

impl SelectorAttributes {
    fn selector(&self) -> Result<FieldSelector, String> {
        if !self.raw_selector.is_empty() {
            return FieldSelector::parse(&self.raw_selector);
        }
        let terms: Vec<String> = self
            .requirements
            .iter()
            .filter_map(|term| match (term.operator.as_str(), term.values.as_slice()) {
                ("In", [value]) => Some(format!("{}={value}", term.key)),
                ("NotIn", [value]) => Some(format!("{}!={value}", term.key)),
                _ => None,
            })
            .collect();
        FieldSelector::parse(&terms.join(","))
    }
}
