//! Managed policies on users, groups and roles.

use serde_json::{Value, json};

use super::entity::{Holder, find, last_name, no_such_entity, subject as subject_of, text};
use super::{boundaries, is_free, listed, managed, policy};
use crate::state::Changes;
use crate::{Answer, Context, Fault, Subject};

/// How many managed policies one may have.
const PER_HOLDER: usize = 10;

/// Attaching and detaching tell the policy to IAM.
pub fn subject<T: Holder>(context: &Context, input: &Value) -> Subject {
    let mut subject = subject_of::<T>(context, input);
    subject.keys.push(("iam:PolicyARN".into(), vec![text(input, "PolicyArn").into()]));
    subject
}

/// Attaching what is attached changes nothing.
pub fn attach<T: Holder>(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut holder = find::<T>(context.state, input)?;
    is_free(&holder.record)?;
    let arn = text(input, "PolicyArn");
    if managed::find(arn).is_none() && policy::of_arn(context.state, arn).is_none() {
        return Err(no_such_entity(format!("Policy {arn} does not exist or is not attachable.")));
    }
    let attached = &mut holder.record.permissions_mut().attached;
    if attached.iter().any(|known| known == arn) {
        return Ok(Answer::done(Changes::default()));
    }
    if attached.len() >= PER_HOLDER {
        let message = format!("Cannot exceed quota for PoliciesPer{}: {PER_HOLDER}", T::TITLE);
        return Err(Fault::new("LimitExceeded", message));
    }
    attached.push(arn.to_owned());
    let mut changes = Changes::default();
    changes.update(&holder);
    boundaries::hold(context.state, &mut changes, Some(arn));
    Ok(Answer::done(changes))
}

pub fn detach<T: Holder>(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut holder = find::<T>(context.state, input)?;
    is_free(&holder.record)?;
    let arn = text(input, "PolicyArn");
    let attached = &mut holder.record.permissions_mut().attached;
    let Some(at) = attached.iter().position(|known| known == arn) else {
        return Err(no_such_entity(format!("Policy {arn} was not found.")));
    };
    attached.remove(at);
    let mut changes = Changes::default();
    changes.update(&holder);
    Ok(Answer::done(changes))
}

pub fn list<T: Holder>(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let holder = find::<T>(context.state, input)?;
    let prefix = input["PathPrefix"].as_str().unwrap_or("/");
    let attached = holder.record.permissions().attached.iter();
    let attached =
        attached.filter(|arn| arn.split_once(":policy").is_some_and(|(_, path)| path.starts_with(prefix)));
    let shown = |arn: &String| {
        let name = last_name(arn);
        (name.to_owned(), json!({"PolicyName": name, "PolicyArn": arn}))
    };
    let mut items: Vec<_> = attached.map(shown).collect();
    items.sort_by(|a, b| a.0.cmp(&b.0));
    listed("AttachedPolicies", items.into_iter().map(|(_, item)| item))
}
