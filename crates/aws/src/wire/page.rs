//! Pages of lists, once for all operations: a handler gives the whole list, and what was asked for is cut out of it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::Fault;
use crate::model::{Model, OperationModel, Page, Protocol};

/// How many a page has when nobody says.
fn usual(model: &Model) -> usize {
    match model.signing_name {
        "autoscaling" => 50,
        // EC2 gives all, unless told.
        _ if model.protocol == Protocol::Ec2 => usize::MAX,
        _ => 100,
    }
}

/// Cuts the page that `input` asks for out of the whole list in `output`, and adds the token of the next.
///
/// A token says how many were given and which was the last, so that what was added or removed before it meanwhile neither repeats nor skips
/// any. It belongs to its operation and to the rest of the input.
pub fn page(
    model: &Model,
    operation: &OperationModel,
    input: &Value,
    output: &mut Value,
) -> Result<(), Fault> {
    let Some(page) = operation.page else { return Ok(()) };
    let Some(list) = output[page.list].as_array_mut() else { return Ok(()) };
    let mut asked = input.clone();
    for name in [page.input_token, page.limit] {
        if let Some(members) = asked.as_object_mut() {
            members.remove(name);
        }
    }
    let of = fingerprint(&json!([operation.name, asked]));
    let start = match input[page.input_token].as_str() {
        Some(token) => {
            let (from, count, last) = read(token).ok_or_else(|| invalid(page, model))?;
            if from != of {
                return Err(invalid(page, model));
            }
            let after = list.iter().position(|item| fingerprint(item) == last).map(|place| place + 1);
            after.unwrap_or(count).min(list.len())
        }
        None => 0,
    };
    let limit = input[page.limit].as_u64().and_then(|limit| usize::try_from(limit).ok());
    let end = start.saturating_add(limit.unwrap_or_else(|| usual(model)).max(1)).min(list.len());
    let next = (end < list.len()).then(|| token(&of, end, &fingerprint(&list[end - 1])));
    list.truncate(end);
    list.drain(..start);
    if let Some(more) = page.more {
        output[more] = json!(next.is_some());
    }
    if let Some(next) = next {
        output[page.output_token] = json!(next);
    }
    Ok(())
}

fn invalid(page: Page, model: &Model) -> Fault {
    let name = page.input_token;
    if model.error("InvalidNextToken").is_some() {
        return Fault::new("InvalidNextToken", format!("The {name} is not valid."));
    }
    Fault::new(
        "InvalidPageToken",
        format!("The {name} is not one that this operation gave for this request."),
    )
}

fn fingerprint(value: &Value) -> String {
    let text = value.to_string();
    URL_SAFE_NO_PAD.encode(&digest(&SHA256, text.as_bytes()).as_ref()[..9])
}

fn token(of: &str, count: usize, last: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{of}.{count}.{last}"))
}

fn read(token: &str) -> Option<(String, usize, String)> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    let mut parts = text.split('.');
    let read = (parts.next()?.to_owned(), parts.next()?.parse().ok()?, parts.next()?.to_owned());
    parts.next().is_none().then_some(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model;

    fn names(range: std::ops::Range<usize>) -> Value {
        range.map(|number| json!(format!("c{number:03}"))).collect()
    }

    fn ask(input: &Value, whole: Value) -> Result<Value, Fault> {
        let model = model::of("eks").expect("a model");
        let mut output = json!({"clusters": whole});
        page(model, model.operation("ListClusters").expect("an operation"), input, &mut output)?;
        Ok(output)
    }

    #[test]
    fn pages_add_up_to_the_list() {
        let first = ask(&json!({}), names(0..250)).expect("a page");
        assert_eq!(first["clusters"], names(0..100));
        let mut seen = Vec::new();
        let mut input = json!({"maxResults": 7});
        loop {
            let page = ask(&input, names(0..30)).expect("a page");
            seen.extend(page["clusters"].as_array().expect("a list").clone());
            let Some(token) = page["nextToken"].as_str() else { break };
            input["nextToken"] = json!(token);
        }
        assert_eq!(Value::Array(seen), names(0..30));
    }

    #[test]
    fn what_changes_between_pages_neither_repeats_nor_skips() {
        let first = ask(&json!({"maxResults": 3}), names(0..9)).expect("a page");
        let rest = json!({"maxResults": 3, "nextToken": first["nextToken"]});
        // The first is gone: those after the last that was given follow all the same.
        assert_eq!(ask(&rest, names(1..9)).expect("a page")["clusters"], names(3..6));
    }

    #[test]
    fn a_token_of_elsewhere_is_refused() {
        let token = ask(&json!({"maxResults": 1}), names(0..9)).expect("a page")["nextToken"].clone();
        for token in [json!("x"), json!(""), json!("YS5iLmM"), token] {
            let input = json!({"nextToken": token, "include": ["all"]});
            assert_eq!(ask(&input, names(0..9)).expect_err("refused").code, "InvalidPageToken");
        }
    }

    #[test]
    fn iam_says_whether_there_is_more() {
        let model = model::of("iam").expect("a model");
        let mut output = json!({"Roles": [1, 2]});
        page(
            model,
            model.operation("ListRoles").expect("an operation"),
            &json!({"MaxItems": 1}),
            &mut output,
        )
        .expect("a page");
        assert_eq!((&output["Roles"], &output["IsTruncated"]), (&json!([1]), &json!(true)));
        assert!(output["Marker"].is_string());
    }
}
