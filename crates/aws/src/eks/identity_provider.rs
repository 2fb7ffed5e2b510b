//! The OpenID Connect provider of a cluster: whose users its API server believes.
//! <https://docs.aws.amazon.com/eks/latest/userguide/authenticate-oidc-identity-provider.html>

use std::collections::BTreeMap;

use object::{Resource, Snapshot};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::cluster::{self, read};
use super::request::Request;
use super::subject::arn;
use super::update::{self, Of, UpdateRecord, text};
use super::{fault, tags};
use crate::state::{self, Changes, Kept, Record};
use crate::{Answer, Context, Fault};

/// The one kind there is.
const KIND: &str = "oidc";
/// How the names that Kubernetes gives itself begin: no provider's prefix may.
const RESERVED: &str = "system:";

/// As `DescribeIdentityProviderConfig` shows it; it belongs to its cluster and is named by its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdentityProvider {
    pub identity_provider_config_name: String,
    pub identity_provider_config_arn: String,
    pub cluster_name: String,
    pub issuer_url: String,
    pub client_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username_claim: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username_prefix: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups_claim: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups_prefix: Option<String>,
    pub required_claims: BTreeMap<String, String>,
    pub tags: BTreeMap<String, String>,
    pub status: String,
    #[serde(default)]
    pub request: Request,
}

impl Record for IdentityProvider {
    const RESOURCE: Resource = Resource::new("identity-providers.eks");
}

impl IdentityProvider {
    fn shown(&self) -> Value {
        let mut shown = json!(self);
        if let Some(members) = shown.as_object_mut() {
            members.remove("request");
        }
        json!({"identityProviderConfig": {"oidc": shown}})
    }
}

/// The provider of a cluster as an `AuthenticationConfiguration` of its API server; none if it has no provider.
///
/// A user's name is `issuerUrl#name` unless it is an e-mail address or another prefix is given; `-` means none.
pub fn believed(state: &Snapshot, cluster: &str) -> Option<Value> {
    let provider = state::list::<IdentityProvider>(state, cluster).into_iter().next()?.record;
    let claim = provider.username_claim.as_deref().unwrap_or("sub");
    let usual = || if claim == "email" { String::new() } else { format!("{}#", provider.issuer_url) };
    let prefix = match provider.username_prefix.as_deref() {
        Some("-") => String::new(),
        Some(prefix) => prefix.to_owned(),
        None => usual(),
    };
    let mut mappings = json!({"username": {"claim": claim, "prefix": prefix}});
    if let Some(claim) = &provider.groups_claim {
        let prefix = provider.groups_prefix.as_deref().unwrap_or_default();
        mappings["groups"] = json!({"claim": claim, "prefix": prefix});
    }
    let rules: Vec<Value> = provider
        .required_claims
        .iter()
        .map(|(claim, value)| json!({"claim": claim, "requiredValue": value}))
        .collect();
    Some(json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AuthenticationConfiguration",
        "jwt": [{
            "issuer": {"url": provider.issuer_url, "audiences": [provider.client_id]},
            "claimMappings": mappings,
            "claimValidationRules": rules,
        }],
    }))
}

fn find(context: &Context, input: &Value) -> Result<Kept<IdentityProvider>, Fault> {
    let (cluster, asked) = (text(input, "clusterName"), &input["identityProviderConfig"]);
    cluster::find(context, cluster)?;
    let name = text(asked, "name");
    let about = |fault: Fault| fault.with("clusterName", cluster);
    if text(asked, "type") != KIND {
        return Err(about(fault::invalid("Identity provider config type must be oidc")));
    }
    state::get(context.state, cluster, name).ok_or_else(|| {
        about(fault::not_found(format!("No identity provider config found with name: {name}")))
    })
}

pub fn associate(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let (cluster, oidc) = (text(input, "clusterName"), &input["oidc"]);
    let about = |fault: Fault| fault.with("clusterName", cluster);
    let name = text(oidc, "identityProviderConfigName");
    if let Some(known) = state::list::<IdentityProvider>(context.state, cluster).first() {
        let update = repeated(context, cluster, &known.record, input);
        return match update {
            Some(update) => Ok(Answer::read(json!({"update": update.shown, "tags": known.record.tags}))),
            None => Err(about(fault::in_use("Identity provider config is already associated with cluster"))),
        };
    }
    let found = cluster::find_active(context, cluster)?;
    update::refuse_second(context, cluster, "associate an identity provider config")?;
    let issuer = text(oidc, "issuerUrl");
    let own = found.record.shown.identity.as_ref().map(|identity| identity.oidc.issuer.as_str());
    check(oidc, issuer, own).map_err(about)?;
    let tags = input.get("tags").map_or(Ok(BTreeMap::new()), read)?;
    tags::check(&tags).map_err(about)?;
    let uuid = context.ids.uuid();
    let given = |member: &str| oidc[member].as_str().map(str::to_owned);
    let record = IdentityProvider {
        identity_provider_config_name: name.into(),
        identity_provider_config_arn: arn(
            context,
            &format!("identityproviderconfig/{cluster}/{KIND}/{name}/{uuid}"),
        ),
        cluster_name: cluster.into(),
        issuer_url: issuer.into(),
        client_id: text(oidc, "clientId").into(),
        username_claim: given("usernameClaim"),
        username_prefix: given("usernamePrefix"),
        groups_claim: given("groupsClaim"),
        groups_prefix: given("groupsPrefix"),
        required_claims: oidc.get("requiredClaims").map_or(Ok(BTreeMap::new()), read)?,
        tags,
        status: "ACTIVE".into(),
        request: Request::of(input),
    };
    let mut changes = Changes::default();
    changes.create(cluster, name, &record);
    let done = updated(context, &mut changes, cluster, "AssociateIdentityProviderConfig", name);
    changes.require(&found);
    Ok(Answer::write(json!({"update": done.shown, "tags": record.tags}), changes))
}

/// The update of the call that is repeated, if it is.
fn repeated(
    context: &Context,
    cluster: &str,
    known: &IdentityProvider,
    input: &Value,
) -> Option<UpdateRecord> {
    if !known.request.is_repeated_by(input) {
        return None;
    }
    let all = state::list::<UpdateRecord>(context.state, cluster).into_iter().map(|kept| kept.record);
    all.filter(|one| one.shown.r#type == "AssociateIdentityProviderConfig")
        .max_by_key(|one| one.shown.created_at)
}

/// What an API server would not start with.
fn check(oidc: &Value, issuer: &str, own: Option<&str>) -> Result<(), Fault> {
    for member in ["clientId", "identityProviderConfigName"] {
        if text(oidc, member).is_empty() {
            return Err(fault::invalid(format!("{member} must not be empty")));
        }
    }
    let host = issuer.strip_prefix("https://").map(|rest| rest.split('/').next().unwrap_or_default());
    let is_url = host.is_some_and(|host| !host.is_empty() && !host.contains('@'));
    if !is_url || issuer.contains(['?', '#']) || issuer.contains(char::is_whitespace) {
        return Err(fault::invalid("issuerUrl must be an https URL without query, fragment and user"));
    }
    for member in ["usernamePrefix", "groupsPrefix"] {
        // Also a part of it would make Kubernetes' own names, with a claim that goes on where it ends.
        let prefix = text(oidc, member);
        if !prefix.is_empty() && (prefix.starts_with(RESERVED) || RESERVED.starts_with(prefix)) {
            return Err(fault::invalid(format!("{member} must not be {RESERVED} or any portion of it")));
        }
    }
    if own == Some(issuer) {
        return Err(fault::invalid("issuerUrl must not be the OIDC issuer of the cluster itself"));
    }
    Ok(())
}

/// The change is there as soon as it is written: the API server looks at each request.
fn updated(
    context: &mut Context,
    changes: &mut Changes,
    cluster: &str,
    kind: &str,
    name: &str,
) -> UpdateRecord {
    let params = vec![("IdentityProviderConfig", json!([{"type": KIND, "name": name}]).to_string())];
    update::done(context, changes, cluster, Of::Cluster, kind, params)
}

pub fn describe(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    Ok(Answer::read(find(context, input)?.record.shown()))
}

pub fn disassociate(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let found = find(context, input)?;
    let cluster = text(input, "clusterName");
    update::refuse_second(context, cluster, "disassociate an identity provider config")?;
    let mut changes = Changes::default();
    changes.delete(&found);
    let name = found.record.identity_provider_config_name;
    let done = updated(context, &mut changes, cluster, "DisassociateIdentityProviderConfig", &name);
    Ok(update::answer(&done, changes))
}

pub fn list(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let cluster = text(input, "clusterName");
    cluster::find(context, cluster)?;
    let all = state::list::<IdentityProvider>(context.state, cluster).into_iter();
    let all: Vec<Value> =
        all.map(|kept| json!({"type": KIND, "name": kept.record.identity_provider_config_name})).collect();
    Ok(Answer::read(json!({"identityProviderConfigs": all})))
}
