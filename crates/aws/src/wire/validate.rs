//! What the models demand of an input: required members, lengths, ranges, patterns, enumerations.

use serde_json::Value;

use super::error::{Family, family_of};
use crate::Fault;
use crate::model::{Kind, Model, Shape};

/// How many complaints one answer lists.
const COMPLAINTS_LIMIT: usize = 10;

/// Checks an input against its shape. The answer is worded as the service's front would word it.
pub fn validate(model: &Model, shape: &Shape, input: &Value) -> Result<(), Fault> {
    let family = family_of(model.protocol);
    let mut found = Vec::new();
    look(model, shape, input, &mut String::new(), &mut found);
    found.truncate(COMPLAINTS_LIMIT);
    let Some(first) = found.first() else { return Ok(()) };
    if family == Family::Ec2 {
        return Err(first.of_ec2());
    }
    let count = found.len();
    let plural = if count == 1 { "" } else { "s" };
    let all: Vec<String> = found.iter().map(Complaint::text).collect();
    Err(Fault::new("Validation", format!("{count} validation error{plural} detected: {}", all.join("; "))))
}

struct Complaint {
    /// `taints.1.member.key`
    path: String,
    /// As it is shown; none if it may not be.
    value: Option<String>,
    rule: Rule,
}

enum Rule {
    Required,
    MinLength(f64),
    MaxLength(f64),
    Min(f64),
    Max(f64),
    Pattern(&'static str),
    Enum(&'static str),
}

impl Complaint {
    fn text(&self) -> String {
        let value = match (&self.rule, &self.value) {
            (Rule::Required, _) => "Value null".to_owned(),
            (_, Some(value)) => format!("Value '{value}'"),
            (_, None) => "Value".to_owned(),
        };
        let rule = match self.rule {
            Rule::Required => "not be null".to_owned(),
            Rule::MinLength(min) => format!("have length greater than or equal to {min}"),
            Rule::MaxLength(max) => format!("have length less than or equal to {max}"),
            Rule::Min(min) => format!("have value greater than or equal to {min}"),
            Rule::Max(max) => format!("have value less than or equal to {max}"),
            Rule::Pattern(pattern) => format!("satisfy regular expression pattern: {pattern}"),
            Rule::Enum(values) => format!("satisfy enum value set: [{}]", values.replace('|', ", ")),
        };
        format!("{value} at '{}' failed to satisfy constraint: Member must {rule}", self.path)
    }

    fn of_ec2(&self) -> Fault {
        let path = &self.path;
        let value = self.value.as_deref().unwrap_or_default();
        let invalid = |more: String| {
            Fault::new(
                "InvalidParameterValue",
                format!("Value ({value}) for parameter {path} is invalid.{more}"),
            )
        };
        match self.rule {
            Rule::Required => {
                Fault::new("MissingParameter", format!("The request must contain the parameter {path}"))
            }
            Rule::Min(min) => invalid(format!(" Expecting a value greater than or equal to {min}.")),
            Rule::Max(max) => invalid(format!(" Expecting a value less than or equal to {max}.")),
            Rule::MinLength(min) => invalid(format!(" Expecting at least {min}.")),
            Rule::MaxLength(max) => invalid(format!(" Expecting at most {max}.")),
            Rule::Pattern(pattern) => invalid(format!(" It must match {pattern}.")),
            Rule::Enum(_) => invalid(String::new()),
        }
    }
}

fn look(model: &Model, shape: &Shape, value: &Value, path: &mut String, found: &mut Vec<Complaint>) {
    let len = path.len();
    match (&shape.kind, value) {
        (Kind::Structure { members, .. }, value) => {
            for member in members {
                step(path, &name_in(model, member.name));
                match &value[member.name] {
                    Value::Null if member.is_required => complain(path, None, Rule::Required, found),
                    Value::Null => {}
                    value => look(model, model.shape(member.of), value, path, found),
                }
                path.truncate(len);
            }
        }
        (Kind::List { of, .. }, Value::Array(items)) => {
            length(shape, items.len(), value, path, found);
            for (number, item) in (1..).zip(items) {
                step(path, &number_in(model, number));
                look(model, model.shape(*of), item, path, found);
                path.truncate(len);
            }
        }
        (Kind::Map { key, value: of, .. }, Value::Object(map)) => {
            length(shape, map.len(), value, path, found);
            for (name, value) in map {
                look(model, model.shape(*key), &Value::String(name.clone()), path, found);
                step(path, &format!("{name}.member"));
                look(model, model.shape(*of), value, path, found);
                path.truncate(len);
            }
        }
        (Kind::Enum(values), Value::String(text)) if !values.split('|').any(|known| known == text) => {
            complain(path, shown(shape, value), Rule::Enum(values), found);
        }
        (Kind::String, Value::String(text)) => {
            length(shape, text.chars().count(), value, path, found);
            if let Some(pattern) = shape.pattern.filter(|_| !shape.matches(text)) {
                complain(path, shown(shape, value), Rule::Pattern(pattern), found);
            }
        }
        // Base64: three bytes in four characters.
        (Kind::Blob, Value::String(text)) => {
            let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
            length(shape, (text.len() / 4 * 3).saturating_sub(padding), value, path, found);
        }
        (Kind::Integer | Kind::Double, Value::Number(number)) => {
            let number = number.as_f64().unwrap_or_default();
            if let Some(min) = shape.min.filter(|min| number < *min) {
                complain(path, shown(shape, value), Rule::Min(min), found);
            }
            if let Some(max) = shape.max.filter(|max| number > *max) {
                complain(path, shown(shape, value), Rule::Max(max), found);
            }
        }
        _ => {}
    }
}

fn length(shape: &Shape, length: usize, value: &Value, path: &str, found: &mut Vec<Complaint>) {
    let length = length as f64;
    if let Some(min) = shape.min.filter(|min| length < *min) {
        complain(path, shown(shape, value), Rule::MinLength(min), found);
    }
    if let Some(max) = shape.max.filter(|max| length > *max) {
        complain(path, shown(shape, value), Rule::MaxLength(max), found);
    }
}

fn complain(path: &str, value: Option<String>, rule: Rule, found: &mut Vec<Complaint>) {
    found.push(Complaint { path: path.to_owned(), value, rule });
}

/// Secrets are not repeated.
fn shown(shape: &Shape, value: &Value) -> Option<String> {
    if shape.is_sensitive {
        return None;
    }
    Some(match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}

fn step(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

/// EC2 names parameters as they are sent; the others by the member's name in lower camel case, whatever the model says.
fn name_in(model: &Model, name: &str) -> String {
    let mut rest = name.chars();
    match rest.next() {
        Some(first) if family_of(model.protocol) != Family::Ec2 => {
            first.to_ascii_lowercase().to_string() + rest.as_str()
        }
        _ => name.to_owned(),
    }
}

fn number_in(model: &Model, number: usize) -> String {
    if family_of(model.protocol) == Family::Ec2 { number.to_string() } else { format!("{number}.member") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model;

    fn check(service: &str, operation: &str, input: Value, code: &str, message: &str) {
        let model = model::of(service).expect("a model");
        let input_shape = model.operation(operation).and_then(|operation| operation.input).expect("an input");
        let fault = validate(model, model.shape(input_shape), &input).expect_err("refused");
        assert_eq!((fault.code.as_str(), fault.message.as_str()), (code, message));
    }

    #[test]
    fn every_rule_is_told_as_its_service_tells_it() {
        check(
            "iam",
            "CreateRole",
            json!({"RoleName": "a/b", "Path": "x"}),
            "Validation",
            "3 validation errors detected: Value null at 'assumeRolePolicyDocument' failed to satisfy constraint: Member must not be null; Value 'x' at 'path' failed to satisfy constraint: Member must satisfy regular expression pattern: (\\u002F)|(\\u002F[\\u0021-\\u007E]+\\u002F); Value 'a/b' at 'roleName' failed to satisfy constraint: Member must satisfy regular expression pattern: [\\w+=,.@-]+",
        );
        check(
            "eks",
            "CreateCluster",
            json!({"name": "x".repeat(101), "roleArn": "r", "resourcesVpcConfig": {}, "tags": {"k": "v".repeat(257)}}),
            "Validation",
            &format!(
                "2 validation errors detected: Value '{}' at 'name' failed to satisfy constraint: Member must have length less than or equal to 100; Value '{}' at 'tags.k.member' failed to satisfy constraint: Member must have length less than or equal to 256",
                "x".repeat(101),
                "v".repeat(257)
            ),
        );
        check(
            "eks",
            "CreateNodegroup",
            json!({"clusterName": "c", "nodegroupName": "n", "subnets": [], "nodeRole": "r", "capacityType": "CHEAP",
                "taints": [{"key": ""}]}),
            "Validation",
            "2 validation errors detected: Value 'CHEAP' at 'capacityType' failed to satisfy constraint: Member must satisfy enum value set: [ON_DEMAND, SPOT, CAPACITY_BLOCK]; Value '' at 'taints.1.member.key' failed to satisfy constraint: Member must have length greater than or equal to 1",
        );
        check(
            "ec2",
            "CreateSubnet",
            json!({"CidrBlock": "10.0.0.0/24"}),
            "MissingParameter",
            "The request must contain the parameter VpcId",
        );
        check(
            "ec2",
            "DescribeVpcs",
            json!({"Filters": [], "MaxResults": 1}),
            "InvalidParameterValue",
            "Value (1) for parameter MaxResults is invalid. Expecting a value greater than or equal to 5.",
        );
    }

    #[test]
    fn secrets_are_not_repeated() {
        let model = model::of("iam").expect("a model");
        let shape =
            model.operation("CreateLoginProfile").and_then(|operation| operation.input).expect("an input");
        let fault = validate(model, model.shape(shape), &json!({"Password": "p\u{1}"})).expect_err("refused");
        assert!(
            fault.message.starts_with("1 validation error detected: Value at 'password'"),
            "{}",
            fault.message
        );
    }

    #[test]
    fn what_is_right_passes() {
        let model = model::of("sts").expect("a model");
        let shape =
            model.operation("GetSessionToken").and_then(|operation| operation.input).expect("an input");
        assert_eq!(validate(model, model.shape(shape), &json!({"DurationSeconds": 900})), Ok(()));
    }
}
