//! Tags on anything of EC2's, by its id.

use serde_json::{Value, json};

use super::noun::{
    Filters, Noun, add_tags, arn, find, items, lacking, refuse_reserved, request_tags, target, text, texts,
};
use super::record::{
    Address, Instance, InternetGateway, KeyPair, LaunchTemplate, NatGateway, NetworkInterface, RouteTable,
    SecurityGroup, Subnet, Tags, Vpc,
};
use super::security_group;
use crate::state::{self, Changes};
use crate::{Answer, Context, Fault, Subject};

type ChangeTags<'a> = &'a dyn Fn(&mut Tags) -> Result<(), Fault>;

/// A kind of what can have tags: what its ids begin with, its word, and how the tags of one are changed and read, and
/// those of all.
struct Tagged {
    prefix: &'static str,
    word: &'static str,
    change: fn(&Context, &mut Changes, &str, ChangeTags) -> Result<(), Fault>,
    all: fn(&Context) -> Vec<(String, Tags)>,
    tags: fn(&Context, &str) -> Option<Tags>,
}

fn change<T: Noun>(
    context: &Context,
    changes: &mut Changes,
    id: &str,
    change: ChangeTags,
) -> Result<(), Fault> {
    let mut kept = find::<T>(context.state, id)?;
    change(kept.record.tags_mut())?;
    changes.update(&kept);
    Ok(())
}

fn all<T: Noun>(context: &Context) -> Vec<(String, Tags)> {
    let all = state::list::<T>(context.state, "").into_iter().map(|kept| kept.record);
    all.map(|one| (one.id().to_owned(), one.tags().clone())).collect()
}

fn tags<T: Noun>(context: &Context, id: &str) -> Option<Tags> {
    Some(state::get::<T>(context.state, "", id)?.record.tags().clone())
}

const fn tagged<T: Noun>(prefix: &'static str) -> Tagged {
    Tagged { prefix, word: T::WORD, change: change::<T>, all: all::<T>, tags: tags::<T> }
}

const TAGGED: &[Tagged] = &[
    tagged::<Address>("eipalloc-"),
    tagged::<Instance>("i-"),
    tagged::<InternetGateway>("igw-"),
    tagged::<KeyPair>("key-"),
    tagged::<LaunchTemplate>("lt-"),
    tagged::<NatGateway>("nat-"),
    tagged::<NetworkInterface>("eni-"),
    tagged::<RouteTable>("rtb-"),
    tagged::<SecurityGroup>("sg-"),
    tagged::<Subnet>("subnet-"),
    tagged::<Vpc>("vpc-"),
];

fn kind_of(id: &str) -> Option<&'static Tagged> {
    TAGGED.iter().find(|kind| id.starts_with(kind.prefix))
}

fn each(context: &Context, input: &Value, change: ChangeTags) -> Result<Answer, Fault> {
    let mut changes = Changes::default();
    let ids = texts(input, "Resources");
    if ids.is_empty() {
        return Err(lacking("ResourceIds"));
    }
    for id in ids {
        if id.starts_with("sgr-") {
            security_group::tag_rule(context, &mut changes, id, change)?;
            continue;
        }
        let kind =
            kind_of(id).ok_or_else(|| Fault::new("InvalidID", format!("The ID '{id}' is not valid")))?;
        (kind.change)(context, &mut changes, id, change)?;
    }
    Ok(Answer::done(changes))
}

pub fn create(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    each(context, input, &|tags| add_tags(tags, items(input, "Tags")))
}

/// A tag without a value is deleted whatever its value; without any tags, all of the users' are.
pub fn delete(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    each(context, input, &|tags| {
        let mut asked = items(input, "Tags").peekable();
        if asked.peek().is_none() {
            tags.retain(|key, _| key.starts_with("aws:"));
        }
        for tag in asked {
            refuse_reserved(text(tag, "Key"))?;
            let value = tag["Value"].as_str();
            tags.retain(|key, known| key != text(tag, "Key") || value.is_some_and(|value| value != known));
        }
        Ok(())
    })
}

pub fn describe(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    const FILTERS: &[(&str, &str)] = &[
        ("key", "Key"),
        ("resource-id", "ResourceId"),
        ("resource-type", "ResourceType"),
        ("value", "Value"),
    ];
    // Here `tag:…` speaks of the tag itself.
    let mut asked = input.clone();
    for filter in asked["Filters"].as_array_mut().into_iter().flatten() {
        if let Some(key) = text(filter, "Name").strip_prefix("tag:").map(str::to_owned) {
            let values: Vec<String> =
                texts(filter, "Values").into_iter().map(|value| format!("{key}={value}")).collect();
            *filter = json!({"Name": "pair", "Values": values});
        }
    }
    let known: Vec<(&str, &str)> = FILTERS.iter().copied().chain([("pair", "Pair")]).collect();
    let filters = Filters::of(&asked, &known)?;
    let mut shown = Vec::new();
    for kind in TAGGED {
        for (id, tags) in (kind.all)(context) {
            for (key, value) in tags {
                let item = json!({
                    "ResourceId": id, "ResourceType": kind.word, "Key": key, "Value": value, "Pair": format!("{key}={value}"),
                });
                shown.extend(Some(item).filter(|item| filters.admit(item)));
            }
        }
    }
    for item in shown.iter_mut().filter_map(Value::as_object_mut) {
        item.remove("Pair");
    }
    Ok(Answer::read(json!({"Tags": shown})))
}

pub fn subject(context: &Context, input: &Value) -> Subject {
    let mut subject = Subject::default();
    for id in texts(input, "Resources") {
        let kind = kind_of(id);
        let tags = kind.and_then(|kind| (kind.tags)(context, id));
        let arn = arn(context, kind.map_or("*", |kind| kind.word), id);
        subject.resources.push(target(arn, tags.as_ref()));
    }
    request_tags(&mut subject, input);
    subject
}
