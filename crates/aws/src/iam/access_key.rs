use serde_json::{Value, json};

use super::entity::{find, no_such_entity, text};
use super::record::User;
use super::user;
use super::user::{keys, named_or_caller};
use crate::credentials::AccessKey;
use crate::state::{self, Changes, Kept};
use crate::{Answer, Context, Fault, Subject};

const KEYS_PER_USER: usize = 2;

/// Asking when a key was used is about its user.
pub fn subject_of_use(context: &Context, input: &Value) -> Subject {
    match state::get::<AccessKey>(context.state, "", text(input, "AccessKeyId")) {
        Some(key) => Subject::of(key.record.arn),
        None => Subject::any(),
    }
}

/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateAccessKey.html>
pub fn create(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let user = named_or_caller(context, input)?;
    let common = &user.record.common;
    if keys(context, &common.name).len() >= KEYS_PER_USER {
        let message = format!("Cannot exceed quota for AccessKeysPerUser: {KEYS_PER_USER}");
        return Err(Fault::new("LimitExceeded", message));
    }
    let key = AccessKey {
        user_name: common.name.clone(),
        arn: common.arn.clone(),
        user_id: common.id.clone(),
        secret: context.ids.secret(),
        is_active: true,
        created: context.now,
    };
    let id = context.ids.unique("AKIA");
    let shown = json!({
        "UserName": key.user_name, "AccessKeyId": id, "Status": "Active",
        "SecretAccessKey": key.secret, "CreateDate": key.created,
    });
    let mut changes = Changes::default();
    changes.create("", &id, &key);
    // The user is written too: of two that make the last key, the second is decided again; one who goes gets none.
    changes.update(&user);
    Ok(Answer::write(json!({"AccessKey": shown}), changes))
}

pub fn list(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let name = named_or_caller(context, input)?.record.common.name;
    let shown = |kept: Kept<AccessKey>| {
        let status = status(&kept.record);
        json!({
            "UserName": name, "AccessKeyId": &*kept.key.name, "Status": status,
            "CreateDate": kept.record.created,
        })
    };
    let keys: Vec<Value> = keys(context, &name).into_iter().map(shown).collect();
    Ok(Answer::read(json!({"AccessKeyMetadata": keys, "IsTruncated": false})))
}

pub fn update(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut key = key_of(context, input)?;
    key.record.is_active = text(input, "Status") == "Active";
    let mut changes = Changes::default();
    changes.update(&key);
    Ok(Answer::done(changes))
}

pub fn delete(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let key = key_of(context, input)?;
    let mut changes = Changes::default();
    changes.delete(&key);
    Ok(Answer::done(changes))
}

/// When a key was last used is not kept.
pub fn last_used(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let id = text(input, "AccessKeyId");
    let key = state::get::<AccessKey>(context.state, "", id)
        .ok_or_else(|| Fault::new("AccessDenied", format!("The Access Key with id {id} cannot be found")))?;
    let used = json!({"ServiceName": "N/A", "Region": "N/A"});
    Ok(Answer::read(json!({"UserName": key.record.user_name, "AccessKeyLastUsed": used})))
}

/// The key that an input names, of the user that it names or of the key's own.
fn key_of(context: &Context, input: &Value) -> Result<Kept<AccessKey>, Fault> {
    let id = text(input, "AccessKeyId");
    let name = match input.get("UserName") {
        Some(_) => find::<User>(context.state, input)?.record.common.name,
        None => user::named_or_caller(context, input)?.record.common.name,
    };
    state::get::<AccessKey>(context.state, "", id)
        .filter(|key| key.record.user_name == name)
        .ok_or_else(|| no_such_entity(format!("The Access Key with id {id} cannot be found.")))
}

fn status(key: &AccessKey) -> &'static str {
    if key.is_active { "Active" } else { "Inactive" }
}
