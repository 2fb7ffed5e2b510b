//! Identity providers that speak OpenID Connect: whose word AssumeRoleWithWebIdentity takes.

use serde_json::{Value, json};

use super::entity::{find, given_tags, strings, tag_list, text};
use super::record::{Common, OidcProvider, Tags, named};
use super::tags;
use crate::service::Target;
use crate::state::{self, Changes};
use crate::sts::jwt::key_of;
use crate::{Answer, Context, Fault, Subject};

const CLIENT_IDS: usize = 100;
const THUMBPRINTS: usize = 5;

pub fn subject_of_new(context: &Context, input: &Value) -> Subject {
    let url = text(input, "Url").strip_prefix("https://").unwrap_or_default();
    let resources = vec![Target::from(arn(context, url))];
    Subject { resources, keys: given_tags(input), ..Subject::default() }
}

/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateOpenIDConnectProvider.html>
pub fn create(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let url = text(input, "Url");
    let host_and_path = url.strip_prefix("https://").map(|rest| rest.trim_end_matches('/'));
    let is_valid =
        |rest: &&str| !rest.is_empty() && !rest.starts_with('/') && !rest.contains(['?', '#', ' ']);
    let Some(host_and_path) = host_and_path.filter(is_valid) else {
        return Err(Fault::new("ValidationError", "Invalid Open ID Connect Provider URL"));
    };
    if named::<OidcProvider>(context.state, &key_of(url)).is_some() {
        let message = format!("Provider with url {url} already exists.");
        return Err(Fault::new("EntityAlreadyExists", message));
    }
    let common = Common {
        name: host_and_path.to_owned(),
        path: "/".to_owned(),
        id: String::new(),
        arn: arn(context, host_and_path),
        created: context.now,
        tags: tags::of_new(input)?,
    };
    let thumbprints = thumbprints(input, host_and_path)?;
    let client_ids: Vec<String> = strings(input, "ClientIDList").map(str::to_owned).collect();
    limit_client_ids(client_ids.len())?;
    let provider = OidcProvider { common, client_ids, thumbprints };
    let mut output = json!({"OpenIDConnectProviderArn": provider.common.arn});
    add_tags(&mut output, &provider.common.tags);
    let mut changes = Changes::default();
    changes.create("", &key_of(url), &provider);
    Ok(Answer::write(output, changes))
}

pub fn get(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let provider = find::<OidcProvider>(context.state, input)?.record;
    let mut output = json!({
        "Url": provider.common.name, "ClientIDList": provider.client_ids,
        "ThumbprintList": provider.thumbprints, "CreateDate": provider.common.created,
    });
    add_tags(&mut output, &provider.common.tags);
    Ok(Answer::read(output))
}

pub fn list(context: &mut Context, _: &Value) -> Result<Answer, Fault> {
    let providers = state::list::<OidcProvider>(context.state, "").into_iter();
    let arns: Vec<Value> = providers.map(|kept| json!({"Arn": kept.record.common.arn})).collect();
    Ok(Answer::read(json!({"OpenIDConnectProviderList": arns})))
}

pub fn update_thumbprints(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut provider = find::<OidcProvider>(context.state, input)?;
    provider.record.thumbprints = thumbprints(input, &provider.record.common.name)?;
    let mut changes = Changes::default();
    changes.update(&provider);
    Ok(Answer::done(changes))
}

/// Adding what is there already is no error.
pub fn add_client_id(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut provider = find::<OidcProvider>(context.state, input)?;
    let client_id = text(input, "ClientID");
    let client_ids = &mut provider.record.client_ids;
    if !client_ids.iter().any(|known| known == client_id) {
        client_ids.push(client_id.to_owned());
        limit_client_ids(client_ids.len())?;
    }
    let mut changes = Changes::default();
    changes.update(&provider);
    Ok(Answer::done(changes))
}

/// And neither is removing what is not.
pub fn remove_client_id(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut provider = find::<OidcProvider>(context.state, input)?;
    let client_id = text(input, "ClientID");
    provider.record.client_ids.retain(|known| known != client_id);
    let mut changes = Changes::default();
    changes.update(&provider);
    Ok(Answer::done(changes))
}

pub fn delete(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let provider = find::<OidcProvider>(context.state, input)?;
    let mut changes = Changes::default();
    changes.delete(&provider);
    Ok(Answer::done(changes))
}

/// The given ones. If there are none, IAM looks for one itself; here, where nothing is dialled, it is the digest of the issuer's name.
/// Nothing checks it: tokens are verified with the issuer's own keys.
fn thumbprints(input: &Value, host_and_path: &str) -> Result<Vec<String>, Fault> {
    let given: Vec<String> = strings(input, "ThumbprintList").map(str::to_lowercase).collect();
    if given.len() > THUMBPRINTS {
        return Err(Fault::new("InvalidInput", "Thumbprint list must contain fewer than 5 entries."));
    }
    if !given.iter().flat_map(|one| one.bytes()).all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Fault::new("InvalidInput", "Thumbprint must be a hex-encoded SHA-1 hash."));
    }
    if !given.is_empty() {
        return Ok(given);
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, host_and_path.as_bytes());
    Ok(vec![digest.as_ref()[..20].iter().map(|byte| format!("{byte:02x}")).collect()])
}

fn limit_client_ids(count: usize) -> Result<(), Fault> {
    if count <= CLIENT_IDS {
        return Ok(());
    }
    let message = format!("Cannot exceed quota for ClientIdsPerOpenIdConnectProvider: {CLIENT_IDS}");
    Err(Fault::new("LimitExceeded", message))
}

/// Without the port, as AWS, which wants the usual one, has it.
fn arn(context: &Context, host_and_path: &str) -> String {
    let (host, path) =
        host_and_path.find('/').map_or((host_and_path, ""), |slash| host_and_path.split_at(slash));
    let host = host.split_once(':').map_or(host, |(host, _)| host);
    format!("arn:aws:iam::{}:oidc-provider/{host}{path}", context.account)
}

fn add_tags(output: &mut Value, tags: &Tags) {
    if !tags.is_empty() {
        output["Tags"] = tag_list(tags);
    }
}
