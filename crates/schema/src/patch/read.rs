use serde_json::Value;

use super::PatchError;
use crate::{FieldValidation, go, json};

/// What the text of a patch is read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchForm {
    Json,
    Merge,
    Strategic,
}

/// The members of an operation of a JSON patch; all but the last are texts.
const MEMBERS: [&str; 4] = ["op", "path", "from", "value"];

/// Reads the text of a patch. Returns what is wrong with it that can be lived with, too: `duplicate field "spec.replicas"`.
///
/// # Errors
/// Upstream's words, which depend on whether anything is told about fields.
pub fn read(form: PatchForm, text: &[u8], mode: FieldValidation) -> Result<(Value, Vec<String>), PatchError> {
    let is_told = mode != FieldValidation::Ignore;
    let prefix = match form {
        PatchForm::Json | PatchForm::Merge if is_told => "error decoding patch: ",
        _ => "",
    };
    let (patch, repeats) = json::parse(text).map_err(|error| match form {
        PatchForm::Merge if !is_told => bad_merge_patch(),
        _ => PatchError::Document(format!("{prefix}{}", json::go_words(&error, text))),
    })?;
    let mut problems: Vec<String> =
        repeats.into_iter().map(|path| format!("duplicate field \"{path}\"")).collect();
    match form {
        PatchForm::Json if is_told => {
            check_operations(&patch)
                .map_err(|why| PatchError::Document(format!("{prefix}json: cannot unmarshal {why}")))?;
            problems.extend(unknown_members(&patch));
            problems.iter_mut().for_each(|problem| problem.insert_str(0, "json patch "));
        }
        PatchForm::Json => {}
        PatchForm::Merge if patch.is_null() => return Err(bad_merge_patch()),
        // A list takes the object's place, and is none.
        PatchForm::Merge if !is_told && patch.is_array() => {}
        PatchForm::Merge if !is_told && !patch.is_object() => return Err(bad_merge_patch()),
        PatchForm::Merge | PatchForm::Strategic => {
            if !patch.is_object() && !patch.is_null() {
                let noun = go::noun(&patch);
                let why =
                    format!("json: cannot unmarshal {noun} into Go value of type map[string]interface {{}}");
                return Err(PatchError::Document(format!("{prefix}{why}")));
            }
        }
    }
    Ok((patch, if is_told { problems } else { Vec::new() }))
}

fn bad_merge_patch() -> PatchError {
    PatchError::Document("Invalid JSON Patch".into())
}

/// A list of objects whose operations, paths and sources are texts.
fn check_operations(patch: &Value) -> Result<(), String> {
    let operations = match patch {
        Value::Null => return Ok(()),
        Value::Array(operations) => operations,
        other => return Err(format!("{} into Go value of type []handlers.jsonPatchOp", go::noun(other))),
    };
    for operation in operations.iter().filter(|operation| !operation.is_null()) {
        let Value::Object(members) = operation else {
            return Err(format!("{} into Go value of type handlers.jsonPatchOp", go::noun(operation)));
        };
        let wrong = members.iter().find(|(name, value)| {
            MEMBERS[..3].contains(&name.as_str()) && !value.is_string() && !value.is_null()
        });
        if let Some((name, value)) = wrong {
            let noun = go::noun(value);
            return Err(format!("{noun} into Go struct field jsonPatchOp.{name} of type string"));
        }
    }
    Ok(())
}

fn unknown_members(patch: &Value) -> Vec<String> {
    let operations = patch.as_array().into_iter().flatten().enumerate();
    let members = operations.flat_map(|(index, operation)| {
        operation.as_object().into_iter().flatten().map(move |(name, _)| (index, name))
    });
    let unknown = members.filter(|(_, name)| !MEMBERS.contains(&name.as_str()));
    unknown.map(|(index, name)| format!("unknown field \"[{index}].{name}\"")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_told_in_upstreams_words() {
        use FieldValidation::{Ignore, Warn};
        use PatchForm::{Json, Merge, Strategic};
        let map = "json: cannot unmarshal array into Go value of type map[string]interface {}";
        for (form, mode, text, words) in [
            (Merge, Warn, "{", "error decoding patch: unexpected end of JSON input"),
            (Merge, Ignore, "{", "Invalid JSON Patch"),
            (Merge, Warn, "null", "Invalid JSON Patch"),
            (Merge, Warn, "[]", &format!("error decoding patch: {map}")),
            (Strategic, Warn, "", "unexpected end of JSON input"),
            (Strategic, Ignore, "[]", map),
            (Json, Warn, "[", "error decoding patch: unexpected end of JSON input"),
            (
                Json,
                Warn,
                "{}",
                "error decoding patch: json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
            ),
            (
                Json,
                Warn,
                r#"[{"op": 5}]"#,
                "error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string",
            ),
        ] {
            let error = read(form, text.as_bytes(), mode).expect_err(text);
            assert_eq!(error, PatchError::Document(words.into()), "{form:?} {text}");
        }
        let text = br#"[{"op": "add", "path": "/a", "value": 1, "value": 2, "foo": 3}]"#;
        let (_, problems) = read(Json, text, Warn).expect("a patch");
        let told = ["json patch duplicate field \"[0].value\"", "json patch unknown field \"[0].foo\""];
        assert_eq!(problems, told);
        assert!(read(Json, text, Ignore).expect("a patch").1.is_empty());
    }
}
