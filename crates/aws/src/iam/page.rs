//! A part of a list, and where the next part begins.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::{Answer, Fault};

/// How many items IAM gives unless told.
const ITEMS: usize = 100;

/// Answers with a part of `items`, which come with their names and in the order of them. `member` is the list's name in the output.
pub(super) fn answer(items: Vec<(String, Value)>, member: &str, input: &Value) -> Result<Answer, Fault> {
    Ok(Answer::read(part(items, member, input)?))
}

/// As [`answer`], for an output with further members.
pub(super) fn part(mut items: Vec<(String, Value)>, member: &str, input: &Value) -> Result<Value, Fault> {
    if let Some(marker) = input["Marker"].as_str() {
        let after = read(marker).ok_or_else(|| Fault::new("ValidationError", "Invalid Marker."))?;
        items.retain(|(name, _)| *name > after);
    }
    let limit = input["MaxItems"].as_u64().and_then(|limit| usize::try_from(limit).ok()).unwrap_or(ITEMS);
    let mut output = json!({"IsTruncated": items.len() > limit});
    items.truncate(limit);
    if output["IsTruncated"] == true
        && let Some((last, _)) = items.last()
    {
        output["Marker"] = json!(URL_SAFE_NO_PAD.encode(last));
    }
    output[member] = items.into_iter().map(|(_, item)| item).collect();
    Ok(output)
}

fn read(marker: &str) -> Option<String> {
    String::from_utf8(URL_SAFE_NO_PAD.decode(marker).ok()?).ok()
}
