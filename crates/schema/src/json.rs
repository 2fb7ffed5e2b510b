//! JSON text to a tree, with the duplicate keys that a plain parse would hide, and where in it something stands.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// So many repetitions are told; upstream stops at as many strict errors.
const MOST_DUPLICATES: usize = 100;

/// Reads one JSON document. Of a repeated key the last value counts, as in Go; what is repeated is told once, by its path
/// (`spec.ports[0].port`).
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

/// Puts what was found in a document (`unknown field "spec.a"`, `duplicate field "spec.b"`) into the order of its text, in which Go's decoder
/// tells it, and drops what is repeated in or as a field that is unknown: nobody looks there.
pub fn sort_findings(text: &[u8], found: &mut Vec<String>) {
    let mut places: Vec<Place> = found.iter().filter_map(|words| Place::read(words)).collect();
    if places.len() < found.len() {
        return;
    }
    let unknown: Vec<String> =
        places.iter().filter(|place| place.times == 1).map(|place| place.path.clone()).collect();
    let is_seen = |place: &Place| {
        place.times == 1 || !unknown.iter().any(|unknown| Rest(&place.path).behind(unknown).is_some())
    };
    places.retain(is_seen);
    let sought: Vec<(usize, Rest<'_>)> =
        places.iter().enumerate().map(|(index, place)| (index, Rest(&place.path))).collect();
    let (mut met, mut order) = (vec![0; places.len()], Vec::new());
    let walk = Walk { sought, places: &places, met: &mut met, order: &mut order };
    // The text has been read before. What is not met in it would be told last.
    let _ = walk.deserialize(&mut serde_json::Deserializer::from_slice(text));
    order.extend((0..places.len()).filter(|index| met[*index] < places[*index].times));
    *found = order.into_iter().map(|index| places[index].words.clone()).collect();
}

/// A finding, by where it is met: what is unknown at once, what is repeated when it is there again.
struct Place {
    words: String,
    path: String,
    times: u32,
}

impl Place {
    fn read(words: &str) -> Option<Self> {
        let unknown = words.strip_prefix("unknown field \"").map(|rest| (rest, 1));
        let repeated = words.strip_prefix("duplicate field \"").map(|rest| (rest, 2));
        let (rest, times) = unknown.or(repeated)?;
        Some(Self { words: words.to_owned(), path: rest.strip_suffix('"')?.to_owned(), times })
    }
}

/// What is left of a path below what has been gone through.
#[derive(Clone, Copy)]
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    /// What is left behind a name or an index, if the path goes there.
    fn behind(self, segment: &str) -> Option<Self> {
        let rest = self.0.strip_prefix(segment)?;
        match rest.strip_prefix('.') {
            Some(rest) => Some(Self(rest)),
            None => (rest.is_empty() || rest.starts_with('[')).then_some(Self(rest)),
        }
    }
}

/// Goes where something is sought, and nowhere else.
struct Walk<'a> {
    /// Indices of `places`.
    sought: Vec<(usize, Rest<'a>)>,
    places: &'a [Place],
    /// How often each place was met.
    met: &'a mut [u32],
    order: &'a mut Vec<usize>,
}

impl<'a> Walk<'a> {
    /// What is sought below a name or an index.
    fn below(&self, segment: &str) -> Vec<(usize, Rest<'a>)> {
        let behind = |(index, rest): &(usize, Rest<'a>)| Some((*index, rest.behind(segment)?));
        self.sought.iter().filter_map(behind).collect()
    }

    fn go(&mut self, sought: Vec<(usize, Rest<'a>)>) -> Walk<'_> {
        Walk { sought, places: self.places, met: self.met, order: self.order }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.sought.is_empty() {
            return IgnoredAny::deserialize(deserializer).map(drop);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        for index in 0.. {
            let sought = self.below(&format!("[{index}]"));
            if items.next_element_seed(self.go(sought))?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        while let Some(name) = members.next_key::<Cow<'_, str>>()? {
            let sought = self.below(&name);
            for (index, _) in sought.iter().filter(|(_, rest)| rest.0.is_empty()) {
                self.met[*index] += 1;
                if self.met[*index] == self.places[*index].times {
                    self.order.push(*index);
                }
            }
            members.next_value_seed(self.go(sought))?;
        }
        Ok(())
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
        let first = self.0.len();
        while let Some(name) = members.next_key::<String>()? {
            if map.contains_key(&name) && self.0.len() < MOST_DUPLICATES && !self.0[first..].contains(&name) {
                self.0.push(name.clone());
            }
            let known = self.0.len();
            let value = members.next_value_seed(Seed(self.0))?;
            for path in &mut self.0[known..] {
                *path =
                    if path.starts_with('[') { format!("{name}{path}") } else { format!("{name}.{path}") };
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
        let text = br#"{"a":1,"a":2,"b":[{"c":{"d":1,"d":2}}],"a":3,"b":[{"e":1,"e":2}]}"#;
        let (value, duplicates) = parse(text).expect("JSON");
        assert_eq!(value, serde_json::json!({"a": 3, "b": [{"e": 2}]}));
        assert_eq!(duplicates, ["a", "b[0].c.d", "b", "b[0].e"]);
    }

    #[test]
    fn findings_are_told_in_the_order_of_the_text() {
        let text = br#"{"z":1,"spec":{"b":1,"b":2,"a":[{},{"y":{"q":1,"q":2},"n":1,"n":2}],"x.y":1,"x.y":2},"c":1,"z":2}"#;
        let mut found: Vec<String> = [
            ("duplicate", "spec.b"),
            ("duplicate", "spec.a[1].y.q"),
            ("duplicate", "spec.a[1].n"),
            ("duplicate", "spec.x.y"),
            ("duplicate", "z"),
            ("unknown", "c"),
            ("unknown", "spec.a[1].y"),
            ("unknown", "z"),
        ]
        .map(|(what, path)| format!("{what} field \"{path}\""))
        .into();
        sort_findings(text, &mut found);
        let told = "unknown z, duplicate spec.b, unknown spec.a[1].y, duplicate spec.a[1].n, duplicate spec.x.y, unknown c";
        let told: Vec<String> =
            told.split(", ").map(|one| one.replacen(' ', " field \"", 1) + "\"").collect();
        assert_eq!(found, told);
        let mut others = vec!["key \"a\" already set".to_owned(), told[0].clone()];
        let kept = others.clone();
        sort_findings(text, &mut others);
        assert_eq!(others, kept, "what stands nowhere stays where it is");
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
