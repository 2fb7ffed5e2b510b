use schema::{At, Violation, names, path};
use serde_json::Value;

use super::check::{Found, Seen, always_one_of};

const REASON_MAX_BYTES: usize = 1024;
const MESSAGE_MAX_BYTES: usize = 32 * 1024;
const REASON: &str = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";

/// Conditions as `metav1.Condition` has them: each type once, and every field said.
pub fn validate(conditions: &[Value], list: At<'_>, found: &mut Found) {
    let mut seen = Seen::default();
    for (index, condition) in conditions.iter().enumerate() {
        let at = list.index(index);
        let kind = path::text(condition, "type");
        if seen.repeats(kind) {
            found.push(Violation::duplicate(at.field("type"), kind));
        }
        found.extend(Violation::all_invalid(at.field("type"), kind, names::qualified_name(kind)));
        always_one_of(condition, "status", &["False", "True", "Unknown"], at, found);
        if let Some(generation) = path::int(condition, "observedGeneration").filter(|one| *one < 0) {
            let detail = "must be greater than or equal to zero";
            found.push(Violation::invalid(at.field("observedGeneration"), generation, detail));
        }
        if path::text(condition, "lastTransitionTime").is_empty() {
            found.push(Violation::required(at.field("lastTransitionTime"), ""));
        }
        reason(path::text(condition, "reason"), at.field("reason"), found);
        if path::text(condition, "message").len() > MESSAGE_MAX_BYTES {
            found.push(Violation::too_long(at.field("message"), MESSAGE_MAX_BYTES));
        }
    }
}

fn reason(reason: &str, at: At<'_>, found: &mut Found) {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = reason.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        found.push(Violation::required(at, ""));
        return;
    };
    let is_formed = first.is_ascii_alphabetic()
        && is_word(*last)
        && bytes.iter().all(|byte| is_word(*byte) || b",:".contains(byte));
    if !is_formed {
        found.push(Violation::invalid(at, reason, REASON));
    }
    if reason.len() > REASON_MAX_BYTES {
        found.push(Violation::too_long(at, REASON_MAX_BYTES));
    }
}
