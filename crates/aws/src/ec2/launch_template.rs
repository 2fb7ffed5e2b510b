//! Launch templates and their versions. A version's data is kept as it was given, and checked when it is used.

use serde_json::{Value, json};

use super::noun::{Noun as _, find, invalid, lacking, show_tags, subject_of_new, tags_for, text, texts};
use super::record::{LaunchTemplate, LaunchTemplateVersion};
use crate::state::{self, Changes, Kept};
use crate::{Answer, Context, Fault, Subject};

/// Versions are kept in the order of their numbers.
pub fn version_key(version: u32) -> String {
    format!("{version:010}")
}

fn by_name(context: &Context, name: &str) -> Option<Kept<LaunchTemplate>> {
    state::list::<LaunchTemplate>(context.state, "")
        .into_iter()
        .find(|one| one.record.launch_template_name == name)
}

/// The template that an input names by id or name.
pub fn named(context: &Context, input: &Value) -> Result<Kept<LaunchTemplate>, Fault> {
    match (text(input, "LaunchTemplateId"), text(input, "LaunchTemplateName")) {
        ("", "") => Err(lacking("LaunchTemplateId")),
        ("", name) => by_name(context, name).ok_or_else(|| {
            let message =
                format!("The specified launch template, with template name {name}, does not exist.");
            Fault::new("InvalidLaunchTemplateName.NotFoundException", message)
        }),
        (_, name) if !name.is_empty() => {
            Err(invalid("Only one of the launch template ID and the launch template name may be given."))
        }
        (id, _) => find(context.state, id),
    }
}

/// The version that is asked for: a number, `$Latest`, or `$Default`, which is meant if nothing is said.
pub fn version_of(
    context: &Context,
    template: &LaunchTemplate,
    asked: &str,
) -> Result<Kept<LaunchTemplateVersion>, Fault> {
    let number = match asked {
        "" | "$Default" => Some(template.default_version),
        "$Latest" => Some(template.latest_version),
        number => number.parse().ok(),
    };
    let id = &template.launch_template_id;
    let found = number.and_then(|number| state::get(context.state, id, &version_key(number)));
    found.ok_or_else(|| {
        let message = format!("Could not find launch template version {asked} of launch template {id}.");
        Fault::new("InvalidLaunchTemplateId.VersionNotFound", message)
    })
}

pub fn create(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let name = text(input, "LaunchTemplateName");
    if by_name(context, name).is_some() {
        let message = "Launch template name already in use.";
        return Err(Fault::new("InvalidLaunchTemplateName.AlreadyExistsException", message));
    }
    let tags = tags_for(input, "launch-template", &[])?;
    let mut changes = Changes::default();
    let description = input["VersionDescription"].as_str().map(str::to_owned);
    let id = context.ids.resource("lt");
    let template = make(context, &mut changes, id, name, &input["LaunchTemplateData"], description, tags)?;
    Ok(Answer::write(json!({"LaunchTemplate": show(&template, context)}), changes))
}

/// A template's records, with its first version.
pub fn make(
    context: &mut Context,
    changes: &mut Changes,
    launch_template_id: String,
    name: &str,
    data: &Value,
    description: Option<String>,
    tags: super::record::Tags,
) -> Result<LaunchTemplate, Fault> {
    check(data)?;
    let template = LaunchTemplate {
        launch_template_id,
        launch_template_name: name.to_owned(),
        created: context.now,
        created_by: context.caller.arn.clone(),
        default_version: 1,
        latest_version: 1,
        tags,
    };
    let version = LaunchTemplateVersion {
        version: 1,
        description,
        created: context.now,
        created_by: context.caller.arn.clone(),
        data: data.clone(),
    };
    changes.create("", &template.launch_template_id, &template);
    changes.create(&template.launch_template_id, &version_key(1), &version);
    Ok(template)
}

/// What would be refused whenever it is used is refused at once.
fn check(data: &Value) -> Result<(), Fault> {
    if data.as_object().is_none_or(serde_json::Map::is_empty) {
        let message = "The request must contain the parameter launchTemplateData";
        return Err(Fault::new("MissingParameter", message));
    }
    super::launch::check_options(data)
}

pub fn show(template: &LaunchTemplate, _: &Context) -> Value {
    json!({
        "LaunchTemplateId": template.launch_template_id, "LaunchTemplateName": template.launch_template_name,
        "CreateTime": template.created, "CreatedBy": template.created_by, "Tags": show_tags(&template.tags),
        "DefaultVersionNumber": template.default_version, "LatestVersionNumber": template.latest_version,
    })
}

/// Templates can be asked for by name, too.
pub fn describe(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let names = texts(input, "LaunchTemplateNames");
    for name in &names {
        named(context, &json!({"LaunchTemplateName": name}))?;
    }
    let shown = super::noun::described::<LaunchTemplate>(context, input)?.into_iter();
    let shown = shown.filter(|one| names.is_empty() || names.contains(&text(one, "LaunchTemplateName")));
    Ok(Answer::read(json!({"LaunchTemplates": shown.collect::<Vec<_>>()})))
}

pub fn create_version(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut template = named(context, input)?;
    let mut data = match text(input, "SourceVersion") {
        "" => json!({}),
        source => version_of(context, &template.record, source)?.record.data,
    };
    lay_over(&mut data, &input["LaunchTemplateData"]);
    let mut changes = Changes::default();
    let description = input["VersionDescription"].as_str().map(str::to_owned);
    let version = add_version(context, &mut changes, &mut template, data, description)?;
    Ok(Answer::write(json!({"LaunchTemplateVersion": show_version(&template.record, &version)}), changes))
}

/// Gives a template its next version.
pub fn add_version(
    context: &Context,
    changes: &mut Changes,
    template: &mut Kept<LaunchTemplate>,
    data: Value,
    description: Option<String>,
) -> Result<LaunchTemplateVersion, Fault> {
    check(&data)?;
    template.record.latest_version += 1;
    let version = LaunchTemplateVersion {
        version: template.record.latest_version,
        description,
        created: context.now,
        created_by: context.caller.arn.clone(),
        data,
    };
    changes.create(&template.record.launch_template_id, &version_key(version.version), &version);
    changes.update(template);
    Ok(version)
}

/// The members of `upper` replace those of `lower`.
pub fn lay_over(lower: &mut Value, upper: &Value) {
    for (member, value) in upper.as_object().into_iter().flatten() {
        lower[member] = value.clone();
    }
}

fn show_version(template: &LaunchTemplate, version: &LaunchTemplateVersion) -> Value {
    let mut shown = json!({
        "LaunchTemplateId": template.launch_template_id, "LaunchTemplateName": template.launch_template_name,
        "VersionNumber": version.version, "DefaultVersion": version.version == template.default_version,
        "CreateTime": version.created, "CreatedBy": version.created_by, "LaunchTemplateData": version.data,
    });
    if let Some(description) = &version.description {
        shown["VersionDescription"] = json!(description);
    }
    shown
}

pub fn describe_versions(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let asked = texts(input, "Versions");
    if text(input, "LaunchTemplateId").is_empty() && text(input, "LaunchTemplateName").is_empty() {
        // Of all templates, only the one or the other version can be asked for.
        let mut shown = Vec::new();
        for template in state::list::<LaunchTemplate>(context.state, "") {
            for wanted in asked.iter().filter(|wanted| ["$Latest", "$Default"].contains(wanted)) {
                let version = version_of(context, &template.record, wanted)?;
                shown.push(show_version(&template.record, &version.record));
            }
        }
        return Ok(Answer::read(json!({"LaunchTemplateVersions": shown})));
    }
    let template = named(context, input)?.record;
    let all = state::list::<LaunchTemplateVersion>(context.state, &template.launch_template_id);
    let limit = |member: &str| text(input, member).parse::<u32>().ok();
    let (least, most) = (limit("MinVersion").unwrap_or(0), limit("MaxVersion").unwrap_or(u32::MAX));
    let mut wanted = Vec::new();
    for version in &asked {
        wanted.push(version_of(context, &template, version)?.record.version);
    }
    let is_wanted =
        |number: u32| (least..=most).contains(&number) && (asked.is_empty() || wanted.contains(&number));
    // The newest first.
    let shown = all.iter().rev().filter(|kept| is_wanted(kept.record.version));
    let shown: Vec<Value> = shown.map(|kept| show_version(&template, &kept.record)).collect();
    Ok(Answer::read(json!({"LaunchTemplateVersions": shown})))
}

pub fn modify(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut template = named(context, input)?;
    let asked = text(input, "DefaultVersion");
    if !asked.is_empty() {
        template.record.default_version = version_of(context, &template.record, asked)?.record.version;
    }
    let mut changes = Changes::default();
    changes.update(&template);
    Ok(Answer::write(json!({"LaunchTemplate": show(&template.record, context)}), changes))
}

pub fn delete(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let template = named(context, input)?;
    let mut changes = Changes::default();
    remove(context, &mut changes, &template);
    Ok(Answer::write(json!({"LaunchTemplate": show(&template.record, context)}), changes))
}

/// Removes a template with all its versions.
pub fn remove(context: &Context, changes: &mut Changes, template: &Kept<LaunchTemplate>) {
    let id = &template.record.launch_template_id;
    state::list::<LaunchTemplateVersion>(context.state, id).iter().for_each(|one| changes.delete(one));
    changes.delete(template);
}

pub fn delete_versions(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let template = named(context, input)?.record;
    let mut changes = Changes::default();
    let (mut gone, mut kept) = (Vec::new(), Vec::new());
    for asked in texts(input, "Versions") {
        let number = asked.parse::<u32>().ok();
        let told = json!({
            "LaunchTemplateId": template.launch_template_id, "LaunchTemplateName": template.launch_template_name,
            "VersionNumber": number,
        });
        let found = number.filter(|number| *number != template.default_version);
        let found = found.and_then(|number| {
            state::get::<LaunchTemplateVersion>(
                context.state,
                &template.launch_template_id,
                &version_key(number),
            )
        });
        match found {
            Some(version) => {
                changes.delete(&version);
                gone.push(told);
            }
            None => {
                let is_default = number == Some(template.default_version);
                let code = if is_default {
                    "launchTemplateVersionIsDefault"
                } else {
                    "launchTemplateVersionDoesNotExist"
                };
                let mut told = told;
                told["ResponseError"] =
                    json!({"Code": code, "Message": format!("Version {asked} cannot be deleted")});
                kept.push(told);
            }
        }
    }
    let output = json!({
        "SuccessfullyDeletedLaunchTemplateVersions": gone, "UnsuccessfullyDeletedLaunchTemplateVersions": kept,
    });
    Ok(Answer::write(output, changes))
}

pub fn subject(context: &Context, input: &Value) -> Subject {
    match named(context, input) {
        Ok(template) => {
            let ids = json!({"LaunchTemplateId": template.record.id()});
            super::noun::subject::<LaunchTemplate>(context, &ids, "LaunchTemplateId")
        }
        Err(_) => subject_of_new(context, input, "launch-template"),
    }
}
