//! Two answers, and where they differ.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use regex::Regex;
use serde_json::{Value, json};

use super::cases::{Ignored, Known};
use super::playing::{Answer, Body};

/// Where two answers differ, and what each says there. `None`: nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// `code`, `header/warning`, `body/metadata/name`
    pub at: String,
    pub upstream: Option<Value>,
    pub ours: Option<Value>,
}

pub fn differences(upstream: &Answer, ours: &Answer) -> Vec<Difference> {
    let mut found = Vec::new();
    compare("code", Some(&json!(upstream.code)), Some(&json!(ours.code)), &mut found);
    let header = |answer: &Answer, name: &str| answer.headers.get(name).map(|values| json!(values));
    let names: BTreeSet<&String> = upstream.headers.keys().chain(ours.headers.keys()).collect();
    for name in names {
        let (upstream, ours) = (header(upstream, name), header(ours, name));
        compare(&format!("header/{name}"), upstream.as_ref(), ours.as_ref(), &mut found);
    }
    let (upstream, ours) = (told_once(value(&upstream.body)), told_once(value(&ours.body)));
    compare("body", Some(&upstream), Some(&ours), &mut found);
    found
}

/// Upstream makes many of its checks twice, in the frame of an update and in the kind's own, and lists the causes that often; its message
/// tells each once. So do we everywhere, and a cause that says the same again is not compared.
fn told_once(mut body: Value) -> Value {
    if let Some(causes) = body.pointer_mut("/details/causes").and_then(Value::as_array_mut) {
        let mut told: Vec<Value> = Vec::new();
        for cause in std::mem::take(causes) {
            if !told.contains(&cause) {
                told.push(cause);
            }
        }
        *causes = told;
    }
    body
}

fn value(body: &Body) -> Value {
    match body {
        Body::Json(value) => value.clone(),
        Body::Lines(lines) => Value::Array(lines.clone()),
        Body::Text(text) => Value::String(text.clone()),
    }
}

fn compare(at: &str, upstream: Option<&Value>, ours: Option<&Value>, found: &mut Vec<Difference>) {
    match (upstream, ours) {
        (Some(Value::Object(theirs)), Some(Value::Object(mine))) => {
            let names = theirs.keys().chain(mine.keys().filter(|name| !theirs.contains_key(*name)));
            for name in names {
                // As in a JSON pointer: a name may have slashes.
                let name_there = name.replace('~', "~0").replace('/', "~1");
                compare(&format!("{at}/{name_there}"), theirs.get(name), mine.get(name), found);
            }
        }
        (Some(Value::Array(theirs)), Some(Value::Array(mine))) => {
            for nth in 0..theirs.len().max(mine.len()) {
                compare(&format!("{at}/{nth}"), theirs.get(nth), mine.get(nth), found);
            }
        }
        _ if upstream == ours => {}
        // JSON within a text: upstream writes members in the order of its structs, which says nothing.
        (Some(Value::String(theirs)), Some(Value::String(mine))) if sorted(theirs) == sorted(mine) => {}
        // Go writes null for an empty list, map or time of a field that is not left out. It says nothing, and we do not store it.
        (Some(Value::Null), None) => {}
        _ => found.push(Difference { at: at.to_owned(), upstream: upstream.cloned(), ours: ours.cloned() }),
    }
}

/// A text whose objects in JSON have their members in the order of their names.
fn sorted(text: &str) -> String {
    let (mut rest, mut out) = (text, String::new());
    while let Some(start) = rest.find('{') {
        let (before, from) = rest.split_at(start);
        out.push_str(before);
        let mut values = serde_json::Deserializer::from_str(from).into_iter::<Value>();
        let taken = match values.next() {
            Some(Ok(value)) => {
                out.push_str(&value.to_string());
                values.byte_offset()
            }
            _ => {
                out.push('{');
                1
            }
        };
        rest = &from[taken..];
    }
    out + rest
}

impl Ignored {
    pub fn covers(&self, difference: &Difference) -> bool {
        reaches(&self.at, difference)
    }
}

/// `*` is any one part, `go_*` any that begins so; what lies below is meant too.
fn reaches(at: &str, difference: &Difference) -> bool {
    let mut there = difference.at.split('/');
    let is = |part: &str, found: &str| match part.strip_suffix('*') {
        Some(begin) => found.starts_with(begin),
        None => part == found,
    };
    at.split('/').all(|part| there.next().is_some_and(|found| is(part, found)))
}

/// What is known everywhere, ready to be looked for.
pub struct KnownEverywhere(Vec<(Known, Regex)>);

impl KnownEverywhere {
    pub fn new(known: Vec<Known>) -> Result<Self> {
        let ready = known.into_iter().map(|one| {
            let pattern = Regex::new(&one.upstream).with_context(|| format!("the pattern of {}", one.at))?;
            Ok((one, pattern))
        });
        Ok(Self(ready.collect::<Result<_>>()?))
    }

    /// Why this difference is known.
    pub fn reason(&self, difference: &Difference) -> Option<&str> {
        let text = match &difference.upstream {
            Some(Value::String(text)) => text.clone(),
            other => other.as_ref().map_or_else(String::new, Value::to_string),
        };
        let found =
            self.0.iter().find(|(one, pattern)| reaches(&one.at, difference) && pattern.is_match(&text));
        found.map(|(one, _)| &*one.because)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_members_within_a_text_says_nothing() {
        let text = |members: &str| format!("Invalid value: [{{{members}}}]: not {{so");
        let (theirs, mine) = (text(r#""b":1,"a":{"d":2,"c":3}"#), text(r#""a":{"c":3,"d":2},"b":1"#));
        assert_eq!(sorted(&theirs), sorted(&mine));
        assert_ne!(sorted(&theirs), sorted(&text(r#""a":{"c":3,"d":2},"b":2"#)));
    }

    #[test]
    fn differences_say_where_they_are_and_may_be_known() {
        let answer = |body: Value| Answer { code: 200, body: Body::Json(body), ..Answer::default() };
        let upstream = answer(json!({"items": [{"a": 1}, {"a": 2, "x/y": true}]}));
        let ours = answer(json!({"items": [{"a": 1}, {"a": 3}]}));
        let found = differences(&upstream, &ours);
        let at: Vec<&str> = found.iter().map(|difference| &*difference.at).collect();
        assert_eq!(at, ["body/items/1/a", "body/items/1/x~1y"]);
        let ignored = |at: &str| Ignored { at: at.into(), because: String::new() };
        assert!(ignored("body/items/*/a").covers(&found[0]) && ignored("body").covers(&found[1]));
        assert!(
            ignored("body/items/*/x~1*").covers(&found[1]) && !ignored("body/it*/1/b*").covers(&found[1])
        );
        assert!(
            !ignored("body/items/*/a").covers(&found[1]) && !ignored("body/items/1/a/b").covers(&found[0])
        );
    }
    #[test]
    fn a_cause_that_is_told_again_is_no_difference() {
        let answer = |causes: Value| {
            let body = Body::Json(json!({"details": {"causes": causes}}));
            Answer { code: 422, body, ..Answer::default() }
        };
        let (a, b) = (json!({"field": "a"}), json!({"field": "b"}));
        assert_eq!(differences(&answer(json!([a, b, a])), &answer(json!([a, b]))), []);
        assert_eq!(differences(&answer(json!([a, b])), &answer(json!([b, a]))).len(), 2);
    }
}
