use serde_json::{Value, json};

use super::group::wrong;
use super::record::{Group, Tag};
use crate::state::{self, Changes, Kept};
use crate::{Answer, Context, Fault};

/// Of a group.
const MOST: usize = 50;

pub fn shown(group: &str, tag: &Tag) -> Value {
    json!({
        "ResourceId": group, "ResourceType": "auto-scaling-group", "Key": tag.key, "Value": tag.value,
        "PropagateAtLaunch": tag.propagate_at_launch,
    })
}

/// Changes the tags of the groups that the input names, each group once.
fn change(context: &Context, input: &Value, apply: impl Fn(&mut Vec<Tag>, &Value)) -> Result<Answer, Fault> {
    let mut groups: Vec<Kept<Group>> = Vec::new();
    for tag in input["Tags"].as_array().into_iter().flatten() {
        let name = tag["ResourceId"].as_str().unwrap_or_default();
        if tag["Key"].as_str().is_some_and(|key| key.starts_with("aws:")) {
            return Err(wrong("Tags with the prefix aws: are reserved for system use."));
        }
        let place = match groups.iter().position(|kept| kept.record.name == name) {
            Some(place) => place,
            None => {
                let none = || {
                    wrong(format!("AutoScalingGroup name not found - AutoScalingGroup '{name}' not found"))
                };
                groups.push(state::get(context.state, "", name).ok_or_else(none)?);
                groups.len() - 1
            }
        };
        apply(&mut groups[place].record.tags, tag);
    }
    if groups.iter().any(|group| group.record.tags.len() > MOST) {
        return Err(Fault::new("LimitExceeded", format!("A group can have at most {MOST} tags.")));
    }
    let mut changes = Changes::default();
    groups.iter().for_each(|group| changes.update(group));
    Ok(Answer::done(changes))
}

pub fn put(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    change(context, input, |tags, new| {
        let key = new["Key"].as_str().unwrap_or_default();
        tags.retain(|tag| tag.key != key);
        tags.push(Tag {
            key: key.into(),
            value: new["Value"].as_str().unwrap_or_default().into(),
            propagate_at_launch: new["PropagateAtLaunch"] == true,
        });
    })
}

pub fn delete(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    change(context, input, |tags, gone| tags.retain(|tag| gone["Key"] != tag.key))
}

pub fn describe(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let filters = input["Filters"].as_array().cloned().unwrap_or_default();
    let mut all = Vec::new();
    for group in state::list::<Group>(context.state, "") {
        for tag in &group.record.tags {
            let is_wanted = filters.iter().all(|filter| {
                let wanted = |text: &str| {
                    filter["Values"].as_array().is_some_and(|values| values.contains(&json!(text)))
                };
                match filter["Name"].as_str() {
                    Some("auto-scaling-group") => wanted(&group.record.name),
                    Some("key") => wanted(&tag.key),
                    Some("value") => wanted(&tag.value),
                    Some("propagate-at-launch") => {
                        wanted(if tag.propagate_at_launch { "true" } else { "false" })
                    }
                    _ => false,
                }
            });
            if is_wanted {
                all.push(shown(&group.record.name, tag));
            }
        }
    }
    Ok(Answer::read(json!({"Tags": all})))
}
