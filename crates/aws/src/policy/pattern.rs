//! What stands in an Action, a Resource or a condition's value: text with wildcards and variables, compiled once.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html>

use super::Keys;

/// Which signs of a text mean more than themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Signs {
    /// `*` and `?`
    pub wildcards: bool,
    /// `${aws:username}`; they came with version 2012-10-17 of the language.
    pub variables: bool,
    /// Letters match either case.
    pub any_case: bool,
}

/// A compiled text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pattern {
    units: Box<[Unit]>,
    variables: Box<[Variable]>,
    any_case: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Unit {
    Byte(u8),
    /// `?`: one character
    One,
    /// `*`: any number of them
    Any,
    /// The value of the variable with this index, taken literally.
    Variable(usize),
}

#[derive(Clone, Debug, PartialEq)]
struct Variable {
    key: Box<str>,
    /// `${key, 'this'}`
    default: Option<Box<str>>,
}

impl Pattern {
    /// A `${` without its end, and a variable without a name, stand for themselves.
    pub(super) fn compile(text: &str, signs: Signs) -> Self {
        let mut units = Vec::with_capacity(text.len());
        let mut variables = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            if let Some((inside, after)) = variable(rest).filter(|_| signs.variables) {
                match inside {
                    "*" | "?" | "$" => units.push(Unit::Byte(inside.as_bytes()[0])),
                    _ => {
                        units.push(Unit::Variable(variables.len()));
                        variables.push(Variable::read(inside));
                    }
                }
                rest = after;
                continue;
            }
            let byte = rest.as_bytes()[0];
            units.push(match byte {
                b'*' if signs.wildcards => Unit::Any,
                b'?' if signs.wildcards => Unit::One,
                _ if signs.any_case => Unit::Byte(byte.to_ascii_lowercase()),
                _ => Unit::Byte(byte),
            });
            // What follows may be the middle of a character: cut bytes, not text.
            let len = rest.chars().next().map_or(1, char::len_utf8);
            units.extend(rest.as_bytes()[1..len].iter().map(|byte| Unit::Byte(*byte)));
            rest = &rest[len..];
        }
        Self { units: units.into(), variables: variables.into(), any_case: signs.any_case }
    }

    /// Does the text match, with the variables' values out of `keys`? A variable without a value and without a default matches nothing.
    pub(super) fn matches(&self, text: &str, keys: &Keys) -> bool {
        if self.variables.is_empty() {
            return glob(&self.units, text.as_bytes(), self.any_case);
        }
        match self.filled(keys) {
            Some(units) => glob(&units, text.as_bytes(), self.any_case),
            None => false,
        }
    }

    /// As [`Self::matches`], component by component of an ARN: a wildcard does not reach across its first five colons.
    pub(super) fn matches_arn(&self, text: &str, keys: &Keys) -> bool {
        let filled = if self.variables.is_empty() { Some(self.units.to_vec()) } else { self.filled(keys) };
        let Some(units) = filled else { return false };
        let wanted: Vec<&[Unit]> = units.splitn(6, |unit| *unit == Unit::Byte(b':')).collect();
        let given: Vec<&[u8]> = text.as_bytes().splitn(6, |byte| *byte == b':').collect();
        wanted.len() == given.len()
            && wanted.iter().zip(given).all(|(units, text)| glob(units, text, self.any_case))
    }

    /// The same for every request: `*` alone.
    pub(super) fn is_everything(&self) -> bool {
        matches!(&*self.units, [Unit::Any])
    }

    /// The text before the first colon, if no sign stands in it.
    pub(super) fn vendor(&self) -> Option<String> {
        let end = self.units.iter().position(|unit| *unit == Unit::Byte(b':'))?;
        literal(&self.units[..end])
    }

    /// The text, if it has no signs.
    pub(super) fn exact(&self) -> Option<String> {
        literal(&self.units)
    }

    fn filled(&self, keys: &Keys) -> Option<Vec<Unit>> {
        let mut units = Vec::with_capacity(self.units.len() + 32);
        for unit in &self.units {
            let Unit::Variable(index) = unit else {
                units.push(*unit);
                continue;
            };
            let variable = &self.variables[*index];
            // A key with several values has no value that could stand here.
            let value = match keys.get(&variable.key) {
                Some([value]) => value,
                Some(_) => return None,
                None => variable.default.as_deref()?,
            };
            let lower = |byte: u8| if self.any_case { byte.to_ascii_lowercase() } else { byte };
            units.extend(value.bytes().map(|byte| Unit::Byte(lower(byte))));
        }
        Some(units)
    }
}

impl Variable {
    fn read(inside: &str) -> Self {
        let (key, default) = match inside.split_once(',') {
            Some((key, default)) => (key, Some(default.trim().trim_matches('\''))),
            None => (inside, None),
        };
        Self { key: key.trim().to_ascii_lowercase().into(), default: default.map(Box::from) }
    }
}

/// `${inside}after` at the start of a text.
fn variable(text: &str) -> Option<(&str, &str)> {
    let (inside, after) = text.strip_prefix("${")?.split_once('}')?;
    (!inside.trim().is_empty()).then_some((inside, after))
}

fn literal(units: &[Unit]) -> Option<String> {
    let byte = |unit: &Unit| match unit {
        Unit::Byte(byte) => Some(*byte),
        _ => None,
    };
    String::from_utf8(units.iter().map(byte).collect::<Option<_>>()?).ok()
}

/// Whether a pattern stands for a text: `*` for any characters, `?` for one, all else for itself.
pub(crate) fn like(pattern: &str, text: &str) -> bool {
    let signs = Signs { wildcards: true, variables: false, any_case: false };
    glob(&Pattern::compile(pattern, signs).units, text.as_bytes(), false)
}

/// Matches without recursion: on a mismatch the last `*` takes one more byte.
fn glob(units: &[Unit], text: &[u8], any_case: bool) -> bool {
    let (mut unit, mut at) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while at < text.len() {
        let step = match units.get(unit) {
            Some(Unit::Any) => {
                star = Some((unit, at));
                unit += 1;
                continue;
            }
            Some(Unit::One) => Some(character_len(&text[at..])),
            Some(Unit::Byte(byte)) if any_case => (*byte == text[at].to_ascii_lowercase()).then_some(1),
            Some(Unit::Byte(byte)) => (*byte == text[at]).then_some(1),
            Some(Unit::Variable(_)) | None => None,
        };
        match (step, star) {
            (Some(len), _) => {
                unit += 1;
                at += len;
            }
            (None, Some((any, from))) => {
                star = Some((any, from + 1));
                unit = any + 1;
                at = from + 1;
            }
            (None, None) => return false,
        }
    }
    units[unit..].iter().all(|unit| *unit == Unit::Any)
}

/// How many bytes the first character of a UTF-8 text has.
fn character_len(text: &[u8]) -> usize {
    let continued = text.iter().skip(1).take_while(|byte| **byte & 0xc0 == 0x80).count();
    1 + continued
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Signs = Signs { wildcards: true, variables: true, any_case: false };

    #[test]
    fn a_text_matches_what_it_says() {
        let mut keys = Keys::default();
        keys.set("aws:username", "jo*n");
        keys.put("aws:TagKeys", vec!["a".into(), "b".into()]);
        for (pattern, text, matches) in [
            ("", "", true),
            ("*", "", true),
            ("*", "anything: at/all", true),
            ("a*c", "abbbc", true),
            ("a*c", "abbbd", false),
            ("a*b*c", "a-b-b-c", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a?c", "aéc", true),
            ("a??", "ab", false),
            ("${aws:username}/*", "jo*n/x", true),
            ("${aws:username}/*", "john/x", false),
            ("${AWS:UserName}/*", "jo*n/x", true),
            ("${aws:TagKeys}", "a", false),
            ("${aws:absent}", "", false),
            ("${aws:absent, 'all'}", "all", true),
            ("${aws:username, 'all'}", "all", false),
            ("${*}", "*", true),
            ("${*}", "x", false),
            ("${$}{x}", "${x}", true),
            ("${", "${", true),
            ("${}", "${}", true),
        ] {
            assert_eq!(Pattern::compile(pattern, ALL).matches(text, &keys), matches, "{pattern} on {text}");
        }
    }

    #[test]
    fn many_wildcards_end_soon() {
        let pattern = Pattern::compile(&("a*".repeat(500) + "b"), ALL);
        assert!(!pattern.matches(&"a".repeat(5_000), &Keys::default()));
        assert!(pattern.matches(&("a".repeat(5_000) + "b"), &Keys::default()));
    }
}
