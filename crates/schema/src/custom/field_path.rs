//! Paths of members in a schema, as rules and selectable fields name them: `.spec.a`, `['a.b'].c`.
//!
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#field-path>

use serde_json::Value;

use super::structural::{has_properties, inner};

/// Where a path leads in a schema: how the place is told (`spec.a`, `spec.labels[x]`), and the schema there. Without `brackets` a member
/// in them is refused.
///
/// # Errors
/// Why it leads nowhere, in upstream's words.
pub fn follow<'a>(schema: &'a Value, text: &str, brackets: bool) -> Result<(String, &'a Value), String> {
    let mut tokens = Tokens(text);
    let (mut told, mut place) = (String::new(), schema);
    while let Some(token) = tokens.next() {
        let mut next = || tokens.next().ok_or("unexpected end of JSON path");
        let name = match token {
            "[" if !brackets => return Err("array notation is not allowed".into()),
            "[" => {
                let quoted = next()?;
                let inside = quoted.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
                let inside =
                    inside.ok_or_else(|| format!("expected single quoted string but got {quoted}"))?;
                unescaped(inside).map_err(|why| format!("invalid string literal: {why}"))?
            }
            "." => next()?.to_owned(),
            other => return Err(format!("expected [ or . but got: {other}")),
        };
        place = step(place, &name, &mut told).ok_or("does not refer to a valid field")?;
        if token == "[" {
            let end = next()?;
            if end != "]" {
                return Err(format!("expected ] but got {end}"));
            }
        }
    }
    Ok((told, place))
}

/// The schema of a member, whose name is put behind the path.
fn step<'a>(schema: &'a Value, name: &str, told: &mut String) -> Option<&'a Value> {
    if has_properties(schema) {
        if !told.is_empty() {
            told.push('.');
        }
        told.push_str(name);
        return schema["properties"].get(name);
    }
    *told = format!("{told}[{name}]");
    inner(schema, "additionalProperties")
}

/// Dots, brackets, and what stands between them; in quotes they are nothing special.
struct Tokens<'a>(&'a str);

impl<'a> Iterator for Tokens<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.0;
        let first = text.chars().next()?;
        let end = match first {
            '\'' => {
                let is_end = |(at, _): &(usize, &str)| *at > 0 && text.as_bytes().get(at - 1) != Some(&b'\\');
                text.match_indices('\'').find(is_end).map_or(text.len(), |(at, _)| at + 1)
            }
            '.' | '[' | ']' => 1,
            _ => text.find(['.', '[', ']']).unwrap_or(text.len()),
        };
        let (token, rest) = text.split_at(end);
        self.0 = rest;
        Some(token)
    }
}

fn unescaped(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        out.push(match next {
            '\\' => match rest.next() {
                Some('a') => '\u{7}',
                Some('b') => '\u{8}',
                Some('f') => '\u{c}',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('v') => '\u{b}',
                Some(plain @ ('\'' | '\\')) => plain,
                Some(other) => return Err(format!("invalid escape char \\{other}")),
                None => '\\',
            },
            other => other,
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_where_the_schema_has_something() {
        let schema = json!({"properties": {"spec": {"properties": {"a.b": {"type": "string"},
            "labels": {"additionalProperties": {"type": "string"}}}}}});
        for (path, brackets, wanted) in [
            (".spec", true, Ok("spec")),
            (".spec['a.b']", true, Ok("spec.a.b")),
            ("['spec'].labels['it\\'s']", true, Ok("spec.labels[it's]")),
            (".spec['a.b']", false, Err("array notation is not allowed")),
            ("spec", true, Err("expected [ or . but got: spec")),
            (".none", true, Err("does not refer to a valid field")),
            (".spec.", true, Err("unexpected end of JSON path")),
            (".spec[x]", true, Err("expected single quoted string but got x")),
            (".spec['\\z']", true, Err("invalid string literal: invalid escape char \\z")),
            ("", true, Ok("")),
        ] {
            let found = follow(&schema, path, brackets).map(|(told, _)| told);
            assert_eq!(found.as_deref().map_err(|why| why.as_str()), wanted, "{path}");
        }
    }
}
