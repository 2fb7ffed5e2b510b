//! JSON text to a tree, with the duplicate keys that a plain parse would hide.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// So many repetitions are told; upstream stops at as many strict errors.
const MOST_DUPLICATES: usize = 100;

/// Reads one JSON document. Of a repeated key the last value counts, as in Go; each repetition is told by its path (`spec.ports[0].port`).
pub fn parse(text: &[u8]) -> Result<(Value, Vec<String>), serde_json::Error> {
    let mut duplicates = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Seed(&mut duplicates).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok((value, duplicates))
}

/// An error of a parse in the words of Go's decoder: `invalid character 'k' looking for beginning of value`.
pub fn go_words(error: &serde_json::Error, text: &[u8]) -> String {
    const PLACES: [(&str, &str); 7] = [
        ("expected value", "looking for beginning of value"),
        ("key must be a string", "looking for beginning of object key string"),
        ("expected `:`", "after object key"),
        ("expected `,` or `}`", "after object key:value pair"),
        ("expected `,` or `]`", "after array element"),
        ("trailing characters", "after top-level value"),
        ("control character", "in string literal"),
    ];
    if error.is_eof() {
        return "unexpected end of JSON input".into();
    }
    let words = error.to_string();
    let place = PLACES.iter().find(|(own, _)| words.starts_with(own));
    let line = text.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1));
    let character = line.and_then(|line| line.get(error.column().checked_sub(1)?));
    match (place, character) {
        (Some((_, place)), Some(&byte)) => format!("invalid character '{}' {place}", char::from(byte)),
        _ => words,
    }
}

struct Seed<'a>(&'a mut Vec<String>);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let known = self.0.len();
            let Some(item) = items.next_element_seed(Seed(self.0))? else {
                return Ok(list.into());
            };
            for path in &mut self.0[known..] {
                let dot = if path.starts_with('[') { "" } else { "." };
                *path = format!("[{}]{dot}{path}", list.len());
            }
            list.push(item);
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let known = self.0.len();
            let value = members.next_value_seed(Seed(self.0))?;
            for path in &mut self.0[known..] {
                *path =
                    if path.starts_with('[') { format!("{name}{path}") } else { format!("{name}.{path}") };
            }
            if map.contains_key(&name) && self.0.len() < MOST_DUPLICATES {
                self.0.push(name.clone());
            }
            map.insert(name, value);
        }
        Ok(map.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_keys_are_told_by_their_path() {
        let text = br#"{"a":1,"a":2,"b":[{"c":{"d":1,"d":2}}]}"#;
        let (value, duplicates) = parse(text).expect("JSON");
        assert_eq!(value, serde_json::json!({"a": 2, "b": [{"c": {"d": 2}}]}));
        assert_eq!(duplicates, ["a", "b[0].c.d"]);
    }

    #[test]
    fn errors_have_gos_words() {
        for (text, words) in [
            ("{\"a\":", "unexpected end of JSON input"),
            ("kind: Pod", "invalid character 'k' looking for beginning of value"),
            ("{a: 1}", "invalid character 'a' looking for beginning of object key string"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 \"b\":2}", "invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("{} x", "invalid character 'x' after top-level value"),
        ] {
            let error = parse(text.as_bytes()).expect_err(text);
            assert_eq!(go_words(&error, text.as_bytes()), words, "{text}: {error}");
        }
    }
}
