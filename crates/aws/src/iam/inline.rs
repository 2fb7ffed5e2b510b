//! Policies that are a part of their user, group or role.

use serde_json::{Value, json};

use super::documents::{check, size};
use super::entity::{Holder, find, no_such_entity, percent_encoded, text};
use super::{is_free, listed};
use crate::state::Changes;
use crate::{Answer, Context, Fault};

pub fn put<T: Holder>(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut holder = find::<T>(context.state, input)?;
    is_free(&holder.record)?;
    let (name, document) = (text(input, "PolicyName"), text(input, "PolicyDocument"));
    check(document)?;
    let inline = &mut holder.record.permissions_mut().inline;
    inline.insert(name.to_owned(), document.to_owned());
    if inline.values().map(|document| size(document)).sum::<usize>() > T::INLINE_LIMIT {
        let (limit, noun, name) = (T::INLINE_LIMIT, T::NOUN, &holder.record.common().name);
        let message = format!("Maximum policy size of {limit} bytes exceeded for {noun} {name}");
        return Err(Fault::new("LimitExceeded", message));
    }
    let mut changes = Changes::default();
    changes.update(&holder);
    Ok(Answer::done(changes))
}

pub fn get<T: Holder>(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let holder = find::<T>(context.state, input)?;
    let name = text(input, "PolicyName");
    let document = holder.record.permissions().inline.get(name).ok_or_else(|| absent::<T>(name))?;
    let mut output = json!({"PolicyName": name, "PolicyDocument": percent_encoded(document)});
    output[T::MEMBER] = json!(holder.record.common().name);
    Ok(Answer::read(output))
}

pub fn delete<T: Holder>(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut holder = find::<T>(context.state, input)?;
    is_free(&holder.record)?;
    let name = text(input, "PolicyName");
    holder.record.permissions_mut().inline.remove(name).ok_or_else(|| absent::<T>(name))?;
    let mut changes = Changes::default();
    changes.update(&holder);
    Ok(Answer::done(changes))
}

pub fn list<T: Holder>(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let holder = find::<T>(context.state, input)?;
    let names = holder.record.permissions().inline.keys();
    listed("PolicyNames", names.map(|name| json!(name)))
}

fn absent<T: Holder>(name: &str) -> Fault {
    no_such_entity(format!("The {} policy with name {name} cannot be found.", T::NOUN))
}
