//! `AuthenticationConfiguration`, `apiserver.config.k8s.io/v1`: read and checked as upstream does.

use std::collections::BTreeSet;

use cel::Type;
use schema::{At, Violation};
use serde::Deserialize;
use serde_json::Value;

use super::mapping::About;
use super::{Anonymous, ClaimRule, Configuration, Expression, Extra, Issuer, Mapping, UserRule};
use crate::config_file::{content, told};

const MOST_ISSUERS: usize = 64;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(default)]
    jwt: Vec<Jwt>,
    #[serde(default)]
    anonymous: Option<AnonymousView>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AnonymousView {
    enabled: bool,
    #[serde(default)]
    conditions: Vec<PathCondition>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PathCondition {
    path: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Jwt {
    issuer: IssuerView,
    claim_validation_rules: Vec<ClaimRuleView>,
    claim_mappings: Mappings,
    user_validation_rules: Vec<UserRuleView>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct IssuerView {
    url: String,
    #[serde(rename = "discoveryURL")]
    discovery_url: Option<String>,
    certificate_authority: String,
    audiences: Vec<String>,
    audience_match_policy: String,
    egress_selector_type: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ClaimRuleView {
    claim: String,
    required_value: String,
    expression: String,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct UserRuleView {
    expression: String,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Mappings {
    username: Prefixed,
    groups: Prefixed,
    uid: ClaimOrExpression,
    extra: Vec<ExtraView>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Prefixed {
    claim: String,
    prefix: Option<String>,
    expression: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ClaimOrExpression {
    claim: String,
    expression: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ExtraView {
    key: String,
    value_expression: String,
}

/// What a configuration file says. `own_issuers` sign the tokens of service accounts: nobody else may be them.
///
/// # Errors
/// What is wrong with the file, each with the field it is about, in upstream's words.
pub fn read(file: &Value, own_issuers: &[&str]) -> Result<Configuration, Vec<String>> {
    let File { jwt, anonymous } = content(file, "AuthenticationConfiguration").map_err(|why| vec![why])?;
    let mut found = Vec::new();
    let list = At::root("jwt");
    if jwt.len() > MOST_ISSUERS {
        found.push(Violation::too_many(list, jwt.len(), MOST_ISSUERS));
        return Err(told(&found));
    }
    let (mut urls, mut discoveries) = (BTreeSet::new(), BTreeSet::new());
    let mut issuers = Vec::new();
    for (index, view) in jwt.into_iter().enumerate() {
        let at = list.index(index);
        let of = at.field("issuer");
        if !urls.insert(view.issuer.url.clone()) {
            found.push(Violation::duplicate(of.field("url"), &view.issuer.url));
        }
        if let Some(url) = &view.issuer.discovery_url
            && !discoveries.insert(url.clone())
        {
            found.push(Violation::duplicate(of.field("discoveryURL"), url));
        }
        issuers.extend(issuer(view, own_issuers, at, &mut found));
    }
    let anonymous = anonymous.map(|view| read_anonymous(view, &mut found)).unwrap_or_default();
    if found.is_empty() { Ok(Configuration { issuers, anonymous }) } else { Err(told(&found)) }
}

fn read_anonymous(view: AnonymousView, found: &mut Vec<Violation>) -> Anonymous {
    let at = At::root("anonymous.conditions");
    let paths: Vec<String> = view.conditions.into_iter().map(|condition| condition.path).collect();
    if !view.enabled && !paths.is_empty() {
        let why = "enabled should be set to true when conditions are defined";
        found.push(Violation::invalid(at, &paths, why));
    }
    for (index, path) in paths.iter().enumerate().filter(|(_, path)| !path.starts_with('/')) {
        let at = at.index(index);
        found.push(Violation::invalid(at.field("path"), path, "must begin with a slash"));
    }
    match (view.enabled, paths.is_empty()) {
        (false, _) => Anonymous::None,
        (true, true) => Anonymous::All,
        (true, false) => Anonymous::Paths(paths),
    }
}

/// One issuer; none if something is wrong with what it is made of.
fn issuer(view: Jwt, own: &[&str], at: At<'_>, found: &mut Vec<Violation>) -> Option<Issuer> {
    let before = found.len();
    check_issuer(&view.issuer, own, at.field("issuer"), found);
    let rules = at.field("claimValidationRules");
    let (claim_rules, mut seen) = claim_rules(&view.claim_validation_rules, rules, found);
    let mappings = at.field("claimMappings");
    let username = username(&view.claim_mappings.username, mappings.field("username"), found);
    let groups = prefixed(&view.claim_mappings.groups, mappings.field("groups"), found);
    let uid = uid(&view.claim_mappings.uid, mappings.field("uid"), found);
    let extra = extra(&view.claim_mappings.extra, mappings.field("extra"), found);
    let user_rules = user_rules(&view.user_validation_rules, at.field("userValidationRules"), found);
    let by_expression = &view.claim_mappings.username.expression;
    seen.push(by_expression);
    seen.extend(view.claim_mappings.extra.iter().map(|extra| extra.value_expression.as_str()));
    if uses_claim(by_expression, "email") && !seen.iter().any(|text| uses_claim(text, "email_verified")) {
        let why = "claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression";
        let at = mappings.field("username");
        found.push(Violation::invalid(at.field("expression"), by_expression, why));
    }
    if found.len() > before {
        return None;
    }
    let IssuerView { url, discovery_url, certificate_authority, audiences, .. } = view.issuer;
    Some(Issuer {
        url,
        discovery_url,
        certificate_authority: Some(certificate_authority).filter(|pem| !pem.is_empty()),
        audiences,
        username: username?,
        groups,
        uid,
        extra,
        claim_rules,
        user_rules,
    })
}

fn check_issuer(view: &IssuerView, own: &[&str], at: At<'_>, found: &mut Vec<Violation>) {
    check_url(&view.url, at.field("url"), found);
    if own.contains(&view.url.as_str()) {
        let why = format!("URL must not overlap with disallowed issuers: [{}]", own.join(" "));
        found.push(Violation::invalid(at.field("url"), &view.url, why));
    }
    if let Some(url) = &view.discovery_url {
        let at = at.field("discoveryURL");
        check_url(url, at, found);
        if url.trim_end_matches('/') == view.url.trim_end_matches('/') {
            found.push(Violation::invalid(at, url, "discoveryURL must be different from URL"));
        }
    }
    let audiences = at.field("audiences");
    if view.audiences.is_empty() {
        found.push(Violation::required(audiences, format!("at least one {audiences} is required")));
    }
    let mut seen = BTreeSet::new();
    for (index, audience) in view.audiences.iter().enumerate() {
        if audience.is_empty() {
            found.push(Violation::required(audiences.index(index), "audience can't be empty"));
        }
        if !seen.insert(audience) {
            found.push(Violation::duplicate(audiences.index(index), audience));
        }
    }
    let policy = at.field("audienceMatchPolicy");
    match &*view.audience_match_policy {
        "MatchAny" => {}
        "" if view.audiences.len() <= 1 => {}
        "" => {
            let why = "audienceMatchPolicy must be MatchAny for multiple audiences";
            found.push(Violation::invalid(policy, "", why));
        }
        other => found.push(Violation::not_supported(policy, other, &["", "MatchAny"])),
    }
    if !view.egress_selector_type.is_empty() {
        let why = "there are no egress selectors here: issuers are dialed from the host";
        found.push(Violation::invalid(at.field("egressSelectorType"), &view.egress_selector_type, why));
    }
    let pem = &view.certificate_authority;
    if !pem.is_empty() && !is_certificate(pem) {
        found.push(Violation::invalid(
            at.field("certificateAuthority"),
            "<omitted>",
            "data does not contain any valid RSA or ECDSA certificates",
        ));
    }
}

fn is_certificate(pem: &str) -> bool {
    let mut all = x509_parser::pem::Pem::iter_from_buffer(pem.as_bytes());
    all.any(|one| one.is_ok_and(|one| one.parse_x509().is_ok()))
}

fn check_url(url: &str, at: At<'_>, found: &mut Vec<Violation>) {
    if url.is_empty() {
        found.push(Violation::required(at, "URL is required"));
        return;
    }
    let Some(rest) = url.strip_prefix("https://") else {
        found.push(Violation::invalid(at, url, "URL scheme must be https"));
        return;
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    for (wrong, why) in [
        (host.is_empty(), "URL must have a host"),
        (host.contains('@'), "URL must not contain a username or password"),
        (rest.contains('?'), "URL must not contain a query"),
        (rest.contains('#'), "URL must not contain a fragment"),
    ] {
        if wrong {
            found.push(Violation::invalid(at, url, why));
        }
    }
}

/// Compiles an expression, or says what is wrong with it.
fn expression(
    text: &str,
    about: About,
    wanted: &[Type],
    at: At<'_>,
    found: &mut Vec<Violation>,
) -> Option<Expression> {
    match Expression::compile(text, about, wanted) {
        Ok(expression) => Some(expression),
        Err(why) => {
            found.push(Violation::invalid(at, text, why));
            None
        }
    }
}

/// The rules, and the texts of their expressions.
fn claim_rules<'a>(
    views: &'a [ClaimRuleView],
    list: At<'_>,
    found: &mut Vec<Violation>,
) -> (Vec<ClaimRule>, Vec<&'a str>) {
    let (mut rules, mut expressions, mut claims) = (Vec::new(), Vec::new(), BTreeSet::new());
    for (index, view) in views.iter().enumerate() {
        let at = list.index(index);
        match (&*view.claim, &*view.expression) {
            ("", "") => found.push(Violation::required(at, "claim or expression is required")),
            (claim, "") => {
                if !view.message.is_empty() {
                    let why = "message can't be set when claim is set";
                    found.push(Violation::invalid(at.field("message"), &view.message, why));
                }
                if !claims.insert(claim) {
                    found.push(Violation::duplicate(at.field("claim"), claim));
                }
                rules.push(ClaimRule::Value { claim: claim.into(), required: view.required_value.clone() });
            }
            ("", text) => {
                if !view.required_value.is_empty() {
                    let why = "requiredValue can't be set when expression is set";
                    found.push(Violation::invalid(at.field("requiredValue"), &view.required_value, why));
                }
                if expressions.contains(&text) {
                    found.push(Violation::duplicate(at.field("expression"), text));
                }
                expressions.push(text);
                let compiled = expression(text, About::Claims, &[Type::Bool], at.field("expression"), found);
                let message = view.message.clone();
                rules.extend(compiled.map(|expression| ClaimRule::Expression { expression, message }));
            }
            (claim, _) => {
                found.push(Violation::invalid(at, claim, "claim and expression can't both be set"));
            }
        }
    }
    (rules, expressions)
}

fn username(view: &Prefixed, at: At<'_>, found: &mut Vec<Violation>) -> Option<Mapping> {
    if view.claim.is_empty() && view.expression.is_empty() {
        found.push(Violation::required(at, "claim or expression is required"));
        return None;
    }
    mapping(view, &[Type::String], at, found)
}

fn prefixed(view: &Prefixed, at: At<'_>, found: &mut Vec<Violation>) -> Option<Mapping> {
    mapping(view, &[Type::String, Type::list(Type::String)], at, found)
}

/// A claim with its prefix, or an expression; none of both is no mapping.
fn mapping(view: &Prefixed, wanted: &[Type], at: At<'_>, found: &mut Vec<Violation>) -> Option<Mapping> {
    match (&*view.claim, &*view.expression) {
        ("", "") if view.prefix.is_some() => {
            found.push(Violation::required(
                at.field("claim"),
                "non-empty claim name is required when prefix is set",
            ));
            None
        }
        ("", "") => None,
        (claim, "") => {
            let Some(prefix) = view.prefix.clone() else {
                let why = "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
                found.push(Violation::required(at.field("prefix"), why));
                return None;
            };
            Some(Mapping::Claim { name: claim.into(), prefix })
        }
        ("", text) => {
            if let Some(prefix) = &view.prefix {
                let why = "prefix can't be set when expression is set";
                found.push(Violation::invalid(at.field("prefix"), prefix, why));
            }
            expression(text, About::Claims, wanted, at.field("expression"), found).map(Mapping::Expression)
        }
        _ => {
            found.push(Violation::invalid(at, "", "claim and expression can't both be set"));
            None
        }
    }
}

fn uid(view: &ClaimOrExpression, at: At<'_>, found: &mut Vec<Violation>) -> Option<Mapping> {
    match (&*view.claim, &*view.expression) {
        ("", "") => None,
        (claim, "") => Some(Mapping::Claim { name: claim.into(), prefix: String::new() }),
        ("", text) => {
            let compiled = expression(text, About::Claims, &[Type::String], at.field("expression"), found);
            compiled.map(Mapping::Expression)
        }
        _ => {
            found.push(Violation::invalid(at, "", "claim and expression can't both be set"));
            None
        }
    }
}

fn extra(views: &[ExtraView], list: At<'_>, found: &mut Vec<Violation>) -> Vec<Extra> {
    let (mut all, mut seen) = (Vec::new(), BTreeSet::new());
    for (index, ExtraView { key, value_expression }) in views.iter().enumerate() {
        let at = list.index(index);
        let domain = key.split('/').next().unwrap_or_default();
        let reserved = ["kubernetes.io", "k8s.io"]
            .iter()
            .any(|own| domain.strip_suffix(own).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')));
        if key.is_empty() {
            found.push(Violation::required(at.field("key"), ""));
        } else if !key.contains('/') {
            found.push(Violation::invalid(
                at.field("key"),
                key,
                "must be a domain-prefixed path (such as \"acme.io/foo\")",
            ));
        } else if *key != key.to_lowercase() {
            found.push(Violation::invalid(at.field("key"), key, "key must be lowercase"));
        } else if reserved {
            let why = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
            found.push(Violation::invalid(at.field("key"), key, why));
        } else if !seen.insert(key) {
            found.push(Violation::duplicate(at.field("key"), key));
        }
        if value_expression.is_empty() {
            found.push(Violation::required(at.field("valueExpression"), "valueExpression is required"));
            continue;
        }
        let wanted = [Type::String, Type::list(Type::String)];
        let value = expression(value_expression, About::Claims, &wanted, at.field("valueExpression"), found);
        all.extend(value.map(|value| Extra { key: key.clone(), value }));
    }
    all
}

fn user_rules(views: &[UserRuleView], list: At<'_>, found: &mut Vec<Violation>) -> Vec<UserRule> {
    let (mut rules, mut seen) = (Vec::new(), BTreeSet::new());
    for (index, UserRuleView { expression: text, message }) in views.iter().enumerate() {
        let at = list.index(index);
        if text.is_empty() {
            found.push(Violation::required(at.field("expression"), "expression is required"));
            continue;
        }
        if !seen.insert(text) {
            found.push(Violation::duplicate(at.field("expression"), text));
        }
        let compiled = expression(text, About::User, &[Type::Bool], at.field("expression"), found);
        rules.extend(compiled.map(|expression| UserRule { expression, message: message.clone() }));
    }
    rules
}

/// Does an expression mention `claims.<name>`, and no longer name that begins so?
fn uses_claim(expression: &str, name: &str) -> bool {
    let by_field = format!("claims.{name}");
    let is_whole = |end: usize| {
        let next = expression[end..].chars().next();
        next.is_none_or(|next| !next.is_ascii_alphanumeric() && next != '_')
    };
    let fields = expression.match_indices(&by_field).any(|(start, found)| is_whole(start + found.len()));
    let keys = [format!("claims[\"{name}\"]"), format!("claims['{name}']"), format!("claims.?{name}")];
    fields || keys.iter().any(|key| expression.contains(key.as_str()))
}
