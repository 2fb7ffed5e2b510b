//! Permissions boundaries of users and roles.

use object::Snapshot;
use serde_json::Value;

use super::entity::{Holder, find, no_such_entity, subject as subject_of, text};
use super::{is_free, managed, policy};
use crate::state::Changes;
use crate::{Answer, Context, Fault, Subject};

pub fn subject<T: Holder>(context: &Context, input: &Value) -> Subject {
    let mut subject = subject_of::<T>(context, input);
    if let Some(boundary) = input["PermissionsBoundary"].as_str() {
        subject.keys.push(("iam:PermissionsBoundary".into(), vec![boundary.into()]));
    }
    subject
}

pub fn put<T: Holder>(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut holder = find::<T>(context.state, input)?;
    is_free(&holder.record)?;
    holder.record.permissions_mut().boundary = given(context.state, input)?;
    let mut changes = Changes::default();
    changes.update(&holder);
    hold(context.state, &mut changes, Some(text(input, "PermissionsBoundary")));
    Ok(Answer::done(changes))
}

pub fn delete<T: Holder>(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut holder = find::<T>(context.state, input)?;
    is_free(&holder.record)?;
    if holder.record.permissions_mut().boundary.take().is_none() {
        let message =
            format!("{} {} does not have a permissions boundary.", T::TITLE, holder.record.common().name);
        return Err(no_such_entity(message));
    }
    let mut changes = Changes::default();
    changes.update(&holder);
    Ok(Answer::done(changes))
}

/// The boundary that an input gives, if it gives one.
pub(super) fn given(state: &Snapshot, input: &Value) -> Result<Option<String>, Fault> {
    let Some(arn) = input["PermissionsBoundary"].as_str() else { return Ok(None) };
    if managed::find(arn).is_none() && policy::of_arn(state, arn).is_none() {
        return Err(no_such_entity(format!("Scope ARN: {arn} does not exist or is not attachable.")));
    }
    Ok(Some(arn.to_owned()))
}

/// Writes a policy of the account as it is, so that one that is deleted at the same moment is not attached: the one who comes second is
/// decided again.
pub(super) fn hold(state: &Snapshot, changes: &mut Changes, arn: Option<&str>) {
    if let Some(policy) = arn.and_then(|arn| policy::of_arn(state, arn)) {
        changes.update(&policy);
    }
}
