//! How Go prints what upstream's messages show: `%q` and `%v`.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

/// Letters, marks, numbers, punctuation and symbols of Unicode, and the blank: `unicode.IsPrint`.
static PRINTED: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^[\p{L}\p{M}\p{N}\p{P}\p{S} ]$").expect("a pattern of this file"));

/// Whether Go shows a character as it is.
pub fn is_print(character: char) -> bool {
    match character {
        ' '..='~' => true,
        _ if character.is_ascii() => false,
        _ => PRINTED.is_match(character.encode_utf8(&mut [0; 4])),
    }
}

/// A text in quotes, as `%q` has it: `"a\ab"`.
pub fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\t' => quoted.push_str("\\t"),
            '\n' => quoted.push_str("\\n"),
            '\u{b}' => quoted.push_str("\\v"),
            '\u{c}' => quoted.push_str("\\f"),
            '\r' => quoted.push_str("\\r"),
            _ if is_print(character) => quoted.push(character),
            _ => {
                let number = u32::from(character);
                quoted.push_str(&match number {
                    0..=0x7f => format!("\\x{number:02x}"),
                    0x80..=0xffff => format!("\\u{number:04x}"),
                    _ => format!("\\U{number:08x}"),
                });
            }
        }
    }
    quoted.push('"');
    quoted
}

/// A value as `%v` has it: `map[image:r ports:[80 81]]`.
pub fn printed(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(printed).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(members) => {
            let mut members: Vec<(&String, &Value)> = members.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            let members: Vec<String> =
                members.into_iter().map(|(name, value)| format!("{name}:{}", printed(value))).collect();
            format!("map[{}]", members.join(" "))
        }
        Value::Number(number) if number.is_f64() => float(number.as_f64().unwrap_or_default()),
        other => other.to_string(),
    }
}

/// A value as `%#v` has it: `map[string]interface {}{"a":5}`.
pub fn syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::String(text) => quoted(text),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(syntax).collect();
            format!("[]interface {{}}{{{}}}", items.join(", "))
        }
        Value::Object(members) => {
            let mut members: Vec<(&String, &Value)> = members.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            let members: Vec<String> = members
                .into_iter()
                .map(|(name, value)| format!("{}:{}", quoted(name), syntax(value)))
                .collect();
            format!("map[string]interface {{}}{{{}}}", members.join(", "))
        }
        other => other.to_string(),
    }
}

/// A number as Go's `%v` prints it: `10`, `0.5`, `2.147483647e+09`.
pub fn float(number: f64) -> String {
    let exponent = if number == 0.0 { 0 } else { number.abs().log10().floor() as i32 };
    if (-4..6).contains(&exponent) {
        return number.to_string();
    }
    let text = format!("{number:e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

/// What Go's decoder of JSON without a type makes of a value: `map[string]interface {}`.
pub fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// What Go's decoder of JSON calls a value in its errors: `array`.
pub fn noun(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_are_quoted_as_go_does() {
        for (text, expected) in [
            ("a\u{7}b", r#""a\ab""#),
            ("\"\\\n\t\u{b}", r#""\"\\\n\t\v""#),
            ("\u{1}\u{7f}\u{80}", r#""\x01\x7f\u0080""#),
            ("é 世\u{a0}\u{200b}\u{1F600}\u{e0001}", "\"é 世\\u00a0\\u200b\u{1F600}\\U000e0001\""),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }

    #[test]
    fn values_are_printed_as_go_does() {
        let value = json!({"b": [1, "x", null, 1.5], "a": {"c": true}});
        assert_eq!(printed(&value), "map[a:map[c:true] b:[1 x <nil> 1.5]]");
        assert_eq!([10.0, 0.5, 2_147_483_647.0].map(float), ["10", "0.5", "2.147483647e+09"]);
        assert_eq!(
            [json!(1), json!(1.5), json!([])].each_ref().map(type_of),
            ["int64", "float64", "[]interface {}"]
        );
    }
}
