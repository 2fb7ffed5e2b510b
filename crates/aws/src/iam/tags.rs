//! Tags on users, roles, policies, instance profiles and identity providers.

use serde_json::{Value, json};

use super::entity::{Entity, find, strings, text};
use super::listed;
use super::record::Tags;
use crate::state::Changes;
use crate::{Answer, Context, Fault};

const LIMIT: usize = 50;

pub fn tag<T: Entity>(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut entity = find::<T>(context.state, input)?;
    for (key, value) in of_new(input)? {
        let tags = &mut entity.record.common_mut().tags;
        // A key in another case is the same key; the newer spelling stays.
        tags.retain(|known, _| !known.eq_ignore_ascii_case(&key));
        tags.insert(key, value);
    }
    if entity.record.common().tags.len() > LIMIT {
        let message =
            format!("The number of tags has reached the maximum limit of {LIMIT} tags per resource.");
        return Err(Fault::new("LimitExceeded", message));
    }
    let mut changes = Changes::default();
    changes.update(&entity);
    Ok(Answer::done(changes))
}

pub fn untag<T: Entity>(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut entity = find::<T>(context.state, input)?;
    for key in strings(input, "TagKeys") {
        entity.record.common_mut().tags.retain(|known, _| !known.eq_ignore_ascii_case(key));
    }
    let mut changes = Changes::default();
    changes.update(&entity);
    Ok(Answer::done(changes))
}

pub fn list<T: Entity>(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let entity = find::<T>(context.state, input)?;
    let tags = entity.record.common().tags.iter();
    listed("Tags", tags.map(|(key, value)| json!({"Key": key, "Value": value})))
}

/// The tags of an input, as a new entity has them.
pub(super) fn of_new(input: &Value) -> Result<Tags, Fault> {
    let mut tags = Tags::new();
    for tag in input["Tags"].as_array().into_iter().flatten() {
        let (key, value) = (text(tag, "Key"), text(tag, "Value"));
        if key.len() >= 4 && key.is_char_boundary(4) && key[..4].eq_ignore_ascii_case("aws:") {
            return Err(invalid("System tags cannot be added/updated by requester"));
        }
        if tags.keys().any(|known| known.eq_ignore_ascii_case(key)) {
            return Err(invalid("Duplicate tag keys found. Please note that Tag keys are case insensitive."));
        }
        tags.insert(key.to_owned(), value.to_owned());
    }
    Ok(tags)
}

fn invalid(message: &str) -> Fault {
    Fault::new("InvalidInput", message)
}
