//! `AuthorizationConfiguration`, `apiserver.config.k8s.io/v1`: read, defaulted and checked as upstream does.

use std::collections::BTreeSet;

use schema::{At, Violation, names};
use serde::Deserialize;
use serde_json::Value;

use super::webhook::condition;
use super::{Authorizer, Webhook};
use crate::config_file::{content, go_duration_ms, told};

const KINDS: [&str; 5] = ["AlwaysAllow", "AlwaysDeny", "Node", "RBAC", "Webhook"];
const MOST_CONDITIONS: usize = 64;
const LONGEST_TIMEOUT_MS: u64 = 30_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(default)]
    authorizers: Vec<AuthorizerView>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[derive(Default)]
struct AuthorizerView {
    r#type: String,
    name: String,
    webhook: Option<WebhookView>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct WebhookView {
    #[serde(rename = "authorizedTTL")]
    authorized_ttl: String,
    cache_authorized_requests: bool,
    #[serde(rename = "unauthorizedTTL")]
    unauthorized_ttl: String,
    cache_unauthorized_requests: bool,
    timeout: String,
    subject_access_review_version: String,
    match_condition_subject_access_review_version: String,
    failure_policy: String,
    connection_info: Connection,
    match_conditions: Vec<Condition>,
}

impl Default for WebhookView {
    fn default() -> Self {
        Self {
            authorized_ttl: "5m".into(),
            cache_authorized_requests: true,
            unauthorized_ttl: "30s".into(),
            cache_unauthorized_requests: true,
            timeout: String::new(),
            subject_access_review_version: String::new(),
            match_condition_subject_access_review_version: String::new(),
            failure_policy: String::new(),
            connection_info: Connection::default(),
            match_conditions: Vec::new(),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Connection {
    r#type: String,
    kube_config_file: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Condition {
    expression: String,
}

/// The authorizers of a configuration file, in their order.
///
/// # Errors
/// What is wrong with the file, each with the field it is about, in upstream's words.
pub fn read(file: &Value) -> Result<Vec<Authorizer>, Vec<String>> {
    let File { authorizers } = content(file, "AuthorizationConfiguration").map_err(|why| vec![why])?;
    let (mut chain, mut found) = (Vec::new(), Vec::new());
    let list = At::root("authorizers");
    if authorizers.is_empty() {
        found.push(Violation::required(list, "at least one authorization mode must be defined"));
    }
    let (mut kinds, mut names) = (BTreeSet::new(), BTreeSet::new());
    for (index, view) in authorizers.iter().enumerate() {
        let at = list.index(index);
        if view.r#type != "Webhook" && !view.r#type.is_empty() && !kinds.insert(&view.r#type) {
            found.push(Violation::duplicate(at.field("type"), &view.r#type));
        }
        if view.name.is_empty() {
            found.push(Violation::required(at.field("name"), ""));
        } else if !names.insert(&view.name) {
            found.push(Violation::duplicate(at.field("name"), &view.name));
        } else if !names::dns_subdomain(&view.name).is_empty() {
            let why = format!("authorizer name is invalid: {}", names::dns_subdomain(&view.name).join(", "));
            found.push(Violation::invalid(at.field("name"), &view.name, why));
        }
        chain.extend(authorizer(view, at, &mut found));
    }
    if found.is_empty() { Ok(chain) } else { Err(told(&found)) }
}

fn authorizer(view: &AuthorizerView, at: At<'_>, found: &mut Vec<Violation>) -> Option<Authorizer> {
    if view.r#type != "Webhook" && view.webhook.is_some() {
        let why = "may only be specified when type=Webhook";
        found.push(Violation::invalid(at.field("webhook"), "non-null", why));
    }
    match (&*view.r#type, &view.webhook) {
        ("AlwaysAllow", _) => Some(Authorizer::AlwaysAllow),
        ("AlwaysDeny", _) => Some(Authorizer::AlwaysDeny),
        ("Node", _) => Some(Authorizer::Node),
        ("RBAC", _) => Some(Authorizer::Rbac),
        ("Webhook", Some(held)) => {
            Some(Authorizer::Webhook(webhook(&view.name, held, at.field("webhook"), found)))
        }
        ("Webhook", None) => {
            found.push(Violation::required(at.field("webhook"), "required when type=Webhook"));
            None
        }
        ("", _) => {
            found.push(Violation::required(at.field("type"), ""));
            None
        }
        (other, _) => {
            found.push(Violation::not_supported(at.field("type"), other, &KINDS));
            None
        }
    }
}

fn webhook(name: &str, view: &WebhookView, at: At<'_>, found: &mut Vec<Violation>) -> Webhook {
    let ttl = |text: &str, field: &'static str, found: &mut Vec<Violation>| match go_duration_ms(text) {
        Some(0) | None => {
            found.push(Violation::invalid(at.field(field), text, "must be > 0s"));
            0
        }
        Some(millis) => millis,
    };
    let authorized = ttl(&view.authorized_ttl, "authorizedTTL", found);
    let unauthorized = ttl(&view.unauthorized_ttl, "unauthorizedTTL", found);
    let timeout_ms = go_duration_ms(&view.timeout).unwrap_or_default();
    if view.timeout.is_empty() {
        found.push(Violation::required(at.field("timeout"), ""));
    } else if !(1..=LONGEST_TIMEOUT_MS).contains(&timeout_ms) {
        found.push(Violation::invalid(at.field("timeout"), &view.timeout, "must be > 0s and <= 30s"));
    }
    one_of(&view.subject_access_review_version, &["v1"], at.field("subjectAccessReviewVersion"), found);
    if !(view.match_conditions.is_empty() && view.match_condition_subject_access_review_version.is_empty()) {
        let at = at.field("matchConditionSubjectAccessReviewVersion");
        one_of(&view.match_condition_subject_access_review_version, &["v1"], at, found);
    }
    one_of(&view.failure_policy, &["Deny", "NoOpinion"], at.field("failurePolicy"), found);
    let kubeconfig = connection(&view.connection_info, at.field("connectionInfo"), found);
    Webhook {
        name: name.to_owned(),
        kubeconfig,
        timeout_ms,
        authorized_ttl_ms: view.cache_authorized_requests.then_some(authorized),
        unauthorized_ttl_ms: view.cache_unauthorized_requests.then_some(unauthorized),
        denies_on_failure: view.failure_policy == "Deny",
        conditions: conditions(&view.match_conditions, at.field("matchConditions"), found),
    }
}

fn one_of(value: &str, known: &[&str], at: At<'_>, found: &mut Vec<Violation>) {
    if value.is_empty() {
        found.push(Violation::required(at, ""));
    } else if !known.contains(&value) {
        found.push(Violation::not_supported(at, value, known));
    }
}

/// The kubeconfig's path. (A server here runs in no pod: it has no in-cluster configuration.)
fn connection(view: &Connection, at: At<'_>, found: &mut Vec<Violation>) -> String {
    one_of(&view.r#type, &["KubeConfigFile"], at.field("type"), found);
    let path = view.kube_config_file.clone().unwrap_or_default();
    let field = at.field("kubeConfigFile");
    if path.is_empty() {
        found.push(Violation::required(field, ""));
    } else if !path.starts_with('/') {
        found.push(Violation::invalid(field, &path, "must be an absolute path"));
    }
    path
}

fn conditions(views: &[Condition], at: At<'_>, found: &mut Vec<Violation>) -> Vec<(String, cel::Program)> {
    if views.len() > MOST_CONDITIONS {
        found.push(Violation::too_many(at, views.len(), MOST_CONDITIONS));
        return Vec::new();
    }
    let (mut seen, mut programs) = (BTreeSet::new(), Vec::new());
    for (index, Condition { expression }) in views.iter().enumerate() {
        let one = at.index(index);
        let at = one.field("expression");
        if expression.trim().is_empty() {
            found.push(Violation::required(at, ""));
        } else if !seen.insert(expression) {
            found.push(Violation::duplicate(at, expression));
        } else {
            match condition(expression) {
                Ok(program) => programs.push((expression.clone(), program)),
                Err(why) => found.push(Violation::invalid(at, expression, why)),
            }
        }
    }
    programs
}
