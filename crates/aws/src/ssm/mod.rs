//! AWS Systems Manager, of which there are the public parameters that tell the newest images for nodes; nobody can keep parameters of
//! their own. <https://docs.aws.amazon.com/eks/latest/userguide/retrieve-ami-id.html>

use serde_json::{Value, json};

use crate::ec2::place::{self, Image};
use crate::eks;
use crate::service::{Operation, Service, Subject};
use crate::{Answer, Context, Fault};

pub const SERVICE: Service = Service {
    signing_name: "ssm",
    action_prefix: "ssm",
    operations: &[
        Operation { name: "GetParameter", subject: |c, i| subject(c, &[text(&i["Name"])]), run: get },
        Operation { name: "GetParameters", subject: |c, i| subject(c, &texts(&i["Names"])), run: get_all },
        Operation {
            name: "GetParametersByPath",
            subject: |c, i| subject(c, &[text(&i["Path"])]),
            run: get_by_path,
        },
    ],
};

const ROOT: &str = "/aws/service/eks/optimized-ami";

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Public parameters belong to no account.
fn arn(context: &Context, name: &str) -> String {
    format!("arn:aws:ssm:{}::parameter{name}", context.region)
}

fn subject(context: &Context, names: &[&str]) -> Subject {
    let resources = names.iter().map(|name| arn(context, path(name)).into()).collect();
    Subject { resources, ..Subject::default() }
}

/// A name, which may be given as an ARN, and with the only version there is.
fn path(name: &str) -> &str {
    let name =
        name.split_once(":parameter").filter(|_| name.starts_with("arn:")).map_or(name, |(_, path)| path);
    name.strip_suffix(":1").unwrap_or(name)
}

/// Every parameter, with its value.
fn all() -> Vec<(String, String)> {
    place::images().iter().flat_map(of_image).collect()
}

fn of_image(image: &Image) -> Vec<(String, String)> {
    let version = image.version;
    let (name, release) = (image.name(), eks::newest_release(version).unwrap_or_default());
    let whole = json!({
        "schema_version": "2.0", "image_id": image.id, "image_name": name, "release_version": release,
    });
    let recommended =
        format!("{ROOT}/{version}/amazon-linux-2023/{}/standard/recommended", image.architecture());
    let mut told = vec![(recommended.clone(), whole.to_string())];
    for (member, value) in
        [("image_id", image.id.clone()), ("image_name", name), ("release_version", release)]
    {
        told.push((format!("{recommended}/{member}"), value));
    }
    told
}

fn shown(context: &Context, name: &str, value: &str) -> Value {
    json!({
        "Name": name, "Type": "String", "Value": value, "Version": 1, "DataType": "text",
        "LastModifiedDate": place::IMAGES_MADE, "ARN": arn(context, name),
    })
}

fn find(context: &Context, name: &str) -> Option<Value> {
    let all = all();
    let (name, value) = all.iter().find(|(known, _)| known == path(name))?;
    Some(shown(context, name, value))
}

fn get(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let name = text(&input["Name"]);
    let found = find(context, name);
    let none = || Fault::new("ParameterNotFound", format!("Parameter {name} not found."));
    Ok(Answer::read(json!({"Parameter": found.ok_or_else(none)?})))
}

fn get_all(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let (mut found, mut unknown) = (Vec::new(), Vec::new());
    for name in texts(&input["Names"]) {
        match find(context, name) {
            Some(parameter) => found.push(parameter),
            None => unknown.push(name),
        }
    }
    Ok(Answer::read(json!({"Parameters": found, "InvalidParameters": unknown})))
}

fn get_by_path(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    if input["ParameterFilters"].as_array().is_some_and(|filters| !filters.is_empty()) {
        return Err(Fault::new("InvalidFilterKey", "Ekso has no filters of parameters (ParameterFilters)"));
    }
    let under = format!("{}/", path(text(&input["Path"])).trim_end_matches('/'));
    let is_wanted = |name: &str| {
        let rest = name.strip_prefix(&under);
        rest.is_some_and(|rest| input["Recursive"] == true || !rest.contains('/'))
    };
    let all = all();
    let found = all.iter().filter(|(name, _)| is_wanted(name));
    let found: Vec<Value> = found.map(|(name, value)| shown(context, name, value)).collect();
    Ok(Answer::read(json!({"Parameters": found})))
}
