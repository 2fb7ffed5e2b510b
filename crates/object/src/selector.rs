//! Label and field selectors: their text form, their `LabelSelector` form, and what they match.
//!
//! Grammar and meaning: <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors>.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

/// All of its requirements must hold; none of them means everything matches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector(pub Vec<Requirement>);

/// One requirement of a label selector; all must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: Box<str>,
    pub operator: Operator,
    /// Sorted, without duplicates.
    pub values: Vec<Box<str>>,
}

/// How a requirement compares. `Gt` and `Lt` compare whole numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Gt,
    Lt,
}

impl Requirement {
    pub fn new(key: &str, operator: Operator, values: impl IntoIterator<Item = impl Into<Box<str>>>) -> Self {
        let mut values: Vec<Box<str>> = values.into_iter().map(Into::into).collect();
        values.sort_unstable();
        values.dedup();
        Self { key: key.into(), operator, values }
    }

    pub fn matches(&self, value: Option<&str>) -> bool {
        let listed = |value: &str| self.values.binary_search_by(|held| (**held).cmp(value)).is_ok();
        match self.operator {
            Operator::In => value.is_some_and(listed),
            Operator::NotIn => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt => self.compare(value, |have, bound| have > bound),
            Operator::Lt => self.compare(value, |have, bound| have < bound),
        }
    }

    fn compare(&self, value: Option<&str>, holds: fn(i64, i64) -> bool) -> bool {
        let have = value.and_then(|value| value.parse().ok());
        let bound = self.values.first().and_then(|bound| bound.parse().ok());
        matches!((have, bound), (Some(have), Some(bound)) if holds(have, bound))
    }
}

impl LabelSelector {
    pub fn matches(&self, labels: &BTreeMap<Box<str>, Box<str>>) -> bool {
        self.0.iter().all(|one| one.matches(labels.get(&one.key).map(|value| &**value)))
    }

    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// A selector that asks for exactly these labels (a Service's, a ReplicationController's).
    pub fn of_labels<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(labels.into_iter().map(|(key, value)| Requirement::new(key, Operator::In, [value])).collect())
    }

    /// The text of a `labelSelector` query: `a=b,c!=d,e in (f,g),!h,i`. The error has upstream's words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut rest = text.trim();
        let mut requirements = Vec::new();
        while !rest.is_empty() {
            if matches!(token(rest), "," | "(" | ")" | "=" | "==" | "!=" | "<" | ">") {
                return Err(format!("found '{}', expected: !, identifier, or 'end of string'", token(rest)));
            }
            let (requirement, after) =
                requirement(rest).map_err(|why| format!("unable to parse requirement: {why}"))?;
            requirements.push(requirement);
            rest = after.trim_start();
            match rest.strip_prefix(',').map(str::trim_start) {
                Some(after) if after.is_empty() || after.starts_with([',', '(', ')', '=', '<', '>']) => {
                    return Err(format!("found '{}', expected: identifier after ','", token(after)));
                }
                Some(after) => rest = after,
                None if rest.is_empty() => {}
                None => return Err(format!("found '{}', expected: ',' or 'end of string'", token(rest))),
            }
        }
        Ok(Self(requirements))
    }
}

fn word(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| c.is_whitespace() || ",()=!<>".contains(c)).unwrap_or(text.len());
    text.split_at(end)
}

/// What a text begins with, as upstream's lexer sees it: a word or a sign; empty at its end.
fn token(text: &str) -> &str {
    let signs = ["!=", "==", "!", "=", "<", ">", ",", "(", ")"];
    signs.into_iter().find(|sign| text.starts_with(sign)).unwrap_or_else(|| word(text).0)
}

fn requirement(text: &str) -> Result<(Requirement, &str), String> {
    if let Some(rest) = text.strip_prefix('!') {
        let (key, rest) = label_key(rest.trim_start())?;
        return Ok((Requirement::new(key, Operator::DoesNotExist, [""; 0]), rest));
    }
    let (key, rest) = label_key(text)?;
    let rest = rest.trim_start();
    if rest.is_empty() || rest.starts_with(',') {
        return Ok((Requirement::new(key, Operator::Exists, [""; 0]), rest));
    }
    for (sign, operator) in [
        ("==", Operator::In),
        ("=", Operator::In),
        ("!=", Operator::NotIn),
        (">", Operator::Gt),
        ("<", Operator::Lt),
    ] {
        let Some(rest) = rest.strip_prefix(sign).map(str::trim_start) else { continue };
        let (value, rest) = word(rest);
        if value.is_empty() && !rest.is_empty() && !rest.starts_with(',') {
            return Err(format!("found '{}', expected: identifier", token(rest)));
        }
        if matches!(operator, Operator::Gt | Operator::Lt) && value.parse::<i64>().is_err() {
            return Err(format!(
                "values[0]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
            ));
        }
        return Ok((checked(Requirement::new(key, operator, [value]))?, rest));
    }
    let (operator, rest) = match word(rest) {
        ("in", rest) => (Operator::In, rest),
        ("notin", rest) => (Operator::NotIn, rest),
        _ => return Err(format!("found '{}', expected: in, notin, =, ==, !=, gt, lt", token(rest))),
    };
    let rest = rest.trim_start();
    let inner = rest.strip_prefix('(').ok_or_else(|| format!("found '{}' expected: '('", token(rest)))?;
    let (list, rest) = inner.split_once(')').ok_or_else(|| "found '', expected: ',' or ')'".to_owned())?;
    let values = list.split(',').map(str::trim);
    Ok((checked(Requirement::new(key, operator, values))?, rest))
}

fn label_key(text: &str) -> Result<(&str, &str), String> {
    let (key, rest) = word(text);
    if key.is_empty() {
        return Err(format!("found '{}', expected: identifier", token(text)));
    }
    let wrong = |rule: String| Err(format!("<nil>: Invalid value: \"{key}\": {rule}"));
    let (prefix, name) = match key.split('/').collect::<Vec<_>>()[..] {
        [name] => (None, name),
        [prefix, name] => (Some(prefix), name),
        _ => {
            return wrong(format!(
                "a valid label key {KEY_FORM} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            ));
        }
    };
    match prefix {
        Some("") => return wrong("prefix part must be non-empty".into()),
        Some(prefix) if !is_domain(prefix) => return wrong(format!("prefix part {DOMAIN_FORM}")),
        _ => {}
    }
    if name.is_empty() {
        return wrong(format!("name part must be non-empty; name part {KEY_FORM}"));
    }
    if name.len() > LONGEST_WORD {
        return wrong(format!("name part {TOO_LONG}"));
    }
    if !is_label_word(name) {
        return wrong(format!("name part {KEY_FORM}"));
    }
    Ok((key, rest))
}

/// A requirement whose values may be those of a label.
fn checked(requirement: Requirement) -> Result<Requirement, String> {
    let key = &requirement.key;
    for (at, value) in requirement.values.iter().enumerate() {
        let rule = match &**value {
            value if value.len() > LONGEST_WORD => TOO_LONG,
            value if !value.is_empty() && !is_label_word(value) => VALUE_RULE,
            _ => continue,
        };
        return Err(format!("values[{at}][{key}]: Invalid value: \"{value}\": {rule}"));
    }
    Ok(requirement)
}

const LONGEST_WORD: usize = 63;

fn is_label_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    ends.iter().all(|end| end.is_some_and(|byte| byte.is_ascii_alphanumeric()))
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
}

fn is_domain(text: &str) -> bool {
    let is_low = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_part = |part: &str| {
        let bytes = part.as_bytes();
        [bytes.first(), bytes.last()].iter().all(|end| end.is_some_and(is_low))
            && bytes.iter().all(|byte| is_low(byte) || *byte == b'-')
    };
    text.len() <= 253 && text.split('.').all(is_part)
}

const TOO_LONG: &str = "must be no more than 63 bytes";
const KEY_FORM: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE_RULE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const DOMAIN_FORM: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, one) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            let Requirement { key, values, .. } = one;
            match (one.operator, &values[..]) {
                (Operator::In, [value]) => write!(f, "{key}={value}")?,
                (Operator::NotIn, [value]) => write!(f, "{key}!={value}")?,
                (Operator::In, _) => write!(f, "{key} in ({})", values.join(","))?,
                (Operator::NotIn, _) => write!(f, "{key} notin ({})", values.join(","))?,
                (Operator::Exists, _) => write!(f, "{key}")?,
                (Operator::DoesNotExist, _) => write!(f, "!{key}")?,
                (Operator::Gt, _) => write!(f, "{key}>{}", values.join(","))?,
                (Operator::Lt, _) => write!(f, "{key}<{}", values.join(","))?,
            }
        }
        Ok(())
    }
}

/// `metav1.LabelSelector` as it stands in specs; an empty one matches everything.
impl<'de> Deserialize<'de> for LabelSelector {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Wire {
            #[serde(default)]
            match_labels: Option<BTreeMap<String, String>>,
            #[serde(default)]
            match_expressions: Option<Vec<Expression>>,
        }
        #[derive(Deserialize)]
        struct Expression {
            key: String,
            operator: String,
            #[serde(default)]
            values: Option<Vec<String>>,
        }
        let wire = Wire::deserialize(deserializer)?;
        let mut all: Vec<_> = wire
            .match_labels
            .unwrap_or_default()
            .into_iter()
            .map(|(key, value)| Requirement::new(&key, Operator::In, [value]))
            .collect();
        for Expression { key, operator, values } in wire.match_expressions.unwrap_or_default() {
            let operator = match operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                "Gt" => Operator::Gt,
                "Lt" => Operator::Lt,
                other => {
                    return Err(serde::de::Error::custom(format!(
                        "\"{other}\" is not a valid label selector operator"
                    )));
                }
            };
            all.push(Requirement::new(&key, operator, values.unwrap_or_default()));
        }
        Ok(Self(all))
    }
}

/// The terms of a `fieldSelector` query; all of them must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(pub Vec<FieldTerm>);

/// One term of a field selector: the field equals the value, or does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    /// `spec.nodeName`
    pub path: Box<str>,
    pub equal: bool,
    pub value: Box<str>,
}

impl FieldSelector {
    /// `spec.nodeName=a,status.phase!=Failed`; `\` escapes a comma, an equals sign and itself.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut terms = Vec::new();
        for term in split_unescaped(text).into_iter().filter(|term| !term.is_empty()) {
            terms.push(
                field_term(term)
                    .ok_or_else(|| format!("invalid selector: '{text}'; can't understand '{term}'"))?,
            );
        }
        Ok(Self(terms))
    }

    /// Whether every term holds, given the value of each path (absent values are empty).
    pub fn matches<'a>(&self, value_of: impl Fn(&str) -> &'a str) -> bool {
        self.0.iter().all(|term| (value_of(&term.path) == &*term.value) == term.equal)
    }

    /// The value that a path is required to have, if there is one.
    pub fn required(&self, path: &str) -> Option<&str> {
        self.0.iter().find(|term| term.equal && &*term.path == path).map(|term| &*term.value)
    }
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(&text[start..]);
    terms
}

fn field_term(term: &str) -> Option<FieldTerm> {
    let at = term.find(['=', '!'])?;
    let (path, rest) = term.split_at(at);
    let (equal, value) = [("!=", false), ("==", true), ("=", true)]
        .into_iter()
        .find_map(|(token, equal)| Some((equal, rest.strip_prefix(token)?)))?;
    let mut plain = String::new();
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        plain.push(match c {
            '\\' => chars.next().filter(|c| "\\,=".contains(*c))?,
            '=' => return None,
            other => other,
        });
    }
    Some(FieldTerm { path: path.into(), equal, value: plain.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_selectors_parse_print_and_match() {
        let labels: BTreeMap<Box<str>, Box<str>> =
            [("app".into(), "web".into()), ("tier".into(), "3".into())].into();
        for (text, printed, matches) in [
            ("", "", true),
            ("app=web", "app=web", true),
            ("app == web , tier", "app=web,tier", true),
            ("app!=web", "app!=web", false),
            ("missing!=x", "missing!=x", true),
            ("app in (db, web)", "app in (db,web)", true),
            ("app notin (db,web)", "app notin (db,web)", false),
            ("!app", "!app", false),
            ("tier>2,tier<4", "tier>2,tier<4", true),
            ("app in ()", "app=", false),
            ("example.com/x=", "example.com/x=", false),
        ] {
            let selector = LabelSelector::parse(text).expect(text);
            assert_eq!(selector.to_string(), printed);
            assert_eq!(selector.matches(&labels), matches, "{text}");
        }
        for text in ["app=web,", "=x", "app in (a", "app near b", "-a=b", "a=b c", "tier>x", ",a"] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_selector_is_told_in_upstreams_words() {
        for (text, words) in [
            (",", "found ',', expected: !, identifier, or 'end of string'"),
            ("app,", "found '', expected: identifier after ','"),
            (
                "app,\u{e9}",
                r#"unable to parse requirement: <nil>: Invalid value: "é": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"#,
            ),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("app===one", "unable to parse requirement: found '=', expected: identifier"),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            ("app in (one", "unable to parse requirement: found '', expected: ',' or ')'"),
            (
                "-bad=x",
                "unable to parse requirement: <nil>: Invalid value: \"-bad\": name part must consist of",
            ),
            ("a/b/c", "unable to parse requirement: <nil>: Invalid value: \"a/b/c\": a valid label key must"),
            (
                "A_/b",
                "unable to parse requirement: <nil>: Invalid value: \"A_/b\": prefix part a lowercase RFC 1123",
            ),
            (
                "app=-bad",
                "unable to parse requirement: values[0][app]: Invalid value: \"-bad\": a valid label must",
            ),
            (
                "app>x",
                "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators",
            ),
        ] {
            let told = LabelSelector::parse(text).expect_err(text);
            assert!(told.starts_with(words), "{text}: {told}");
        }
    }

    #[test]
    fn field_selectors_parse_and_match() {
        let value = |path: &str| match path {
            "spec.nodeName" => "a,b",
            _ => "",
        };
        for (text, matches) in [
            ("", true),
            (r"spec.nodeName=a\,b", true),
            ("spec.nodeName!=x", true),
            ("status.phase==Running", false),
        ] {
            assert_eq!(FieldSelector::parse(text).expect(text).matches(value), matches, "{text}");
        }
        assert!(FieldSelector::parse("spec.nodeName").is_err());
    }
}
