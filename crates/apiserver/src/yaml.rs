//! `application/yaml` answers, written as upstream's library for Go writes them: two blanks a level, lists as far left as their key, texts
//! plain where that reads back as the same text, lines folded behind the eightieth column.

use serde_json::Value;

/// Lines go on in the next one at the first blank behind this column.
const WIDTH: usize = 80;

/// A document as YAML.
pub(crate) fn encode(value: &Value) -> Vec<u8> {
    let mut text = String::new();
    block(value, 0, &mut text);
    text.into_bytes()
}

/// A value that begins at the current place of the line; everything of it ends with a line break.
fn block(value: &Value, indent: usize, to: &mut String) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (at, (name, value)) in members.iter().enumerate() {
                if at > 0 {
                    blanks(indent, to);
                }
                key(name, to);
                to.push(':');
                match value {
                    Value::Object(inner) if !inner.is_empty() => {
                        to.push('\n');
                        blanks(indent + 2, to);
                        block(value, indent + 2, to);
                    }
                    Value::Array(items) if !items.is_empty() => {
                        to.push('\n');
                        blanks(indent, to);
                        block(value, indent, to);
                    }
                    other => {
                        to.push(' ');
                        scalar(other, indent + 2, to);
                    }
                }
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    blanks(indent, to);
                }
                to.push_str("- ");
                block(item, indent + 2, to);
            }
        }
        other => scalar(other, indent, to),
    }
}

/// What has no parts; a text that goes on in further lines does so at this indent.
fn scalar(value: &Value, indent: usize, to: &mut String) {
    match value {
        Value::String(words) => text(words, indent, to),
        Value::Number(number) if number.is_f64() => {
            to.push_str(&schema::go::float(number.as_f64().unwrap_or_default()));
            to.push('\n');
        }
        // Whole numbers, truth values, null, {} and [] are the same in both.
        other => {
            to.push_str(&other.to_string());
            to.push('\n');
        }
    }
}

fn blanks(count: usize, to: &mut String) {
    to.extend(std::iter::repeat_n(' ', count));
}

/// How a text is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    /// In `'`, which stands for itself when it is doubled.
    Single,
    /// As JSON has it.
    Double,
    /// Line by line behind `|`.
    Literal,
}

fn style(words: &str) -> Style {
    if words.chars().any(|c| c != '\n' && is_odd(c)) || is_meant(words) {
        return Style::Double;
    }
    if words.contains('\n') {
        let has_blank_ends = words.ends_with(' ') || words.contains(" \n");
        return if has_blank_ends { Style::Double } else { Style::Literal };
    }
    let next_is_blank = words.chars().nth(1).is_none_or(|c| c == ' ');
    let begins = match words.chars().next() {
        Some(
            '#' | ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`'
            | ' ',
        ) => true,
        Some('-' | '?' | ':') => next_is_blank,
        _ => false,
    };
    let is_marked = begins
        || ["---", "..."].iter().any(|mark| words.starts_with(mark))
        || words.ends_with([' ', ':'])
        || words.contains(": ")
        || words.contains(" #");
    if is_marked { Style::Single } else { Style::Plain }
}

/// A name, which stays on its line.
fn key(words: &str, to: &mut String) {
    match style(words) {
        Style::Plain => to.push_str(words),
        Style::Single => to.push_str(&quoted(words)),
        Style::Double | Style::Literal => double(words, to),
    }
}

/// What YAML lets stand in a text only as an escape.
fn is_odd(c: char) -> bool {
    c.is_control() || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}' | '\u{fffe}' | '\u{ffff}')
}

/// As JSON writes it, with escapes for what YAML does not take as it is and JSON does.
fn double(words: &str, to: &mut String) {
    for c in Value::from(words).to_string().chars() {
        match c {
            c if is_odd(c) => to.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => to.push(c),
        }
    }
}

fn quoted(words: &str) -> String {
    format!("'{}'", words.replace('\'', "''"))
}

fn text(words: &str, indent: usize, to: &mut String) {
    match style(words) {
        Style::Plain => folded(words, indent, to),
        Style::Single => folded(&quoted(words), indent, to),
        Style::Double => double(words, to),
        Style::Literal => return literal(words, indent, to),
    }
    to.push('\n');
}

/// A text that goes on in the next line where a single blank stands behind the last column.
fn folded(words: &str, indent: usize, to: &mut String) {
    let mut column = to.len() - to.rfind('\n').map_or(0, |at| at + 1);
    let mut rest = words.chars().peekable();
    let mut last = '\n';
    while let Some(c) = rest.next() {
        let is_single = c == ' ' && last != ' ' && rest.peek().is_some_and(|next| *next != ' ');
        if is_single && column > WIDTH {
            to.push('\n');
            blanks(indent, to);
            column = indent;
        } else {
            to.push(c);
            column += 1;
        }
        last = c;
    }
}

fn literal(words: &str, indent: usize, to: &mut String) {
    to.push('|');
    if words.starts_with([' ', '\n']) {
        to.push('2');
    }
    let body = match words.strip_suffix('\n') {
        None => {
            to.push('-');
            words
        }
        Some(body) if body.is_empty() || body.ends_with('\n') => {
            to.push('+');
            body
        }
        Some(body) => body,
    };
    to.push('\n');
    for line in body.split('\n') {
        if !line.is_empty() {
            blanks(indent, to);
        }
        to.push_str(line);
        to.push('\n');
    }
}

/// Whether a plain text would be read as something else: nothing, a truth value, a number, a time.
fn is_meant(words: &str) -> bool {
    const MEANT: &[&str] = &[
        "", "<<", "=", "false", "n", "no", "null", "off", "on", "true", "y", "yes", "~", ".inf", "+.inf",
        "-.inf", ".nan",
    ];
    if words.len() <= 5 && MEANT.contains(&words.to_ascii_lowercase().as_str()) {
        return true;
    }
    let begins = words.starts_with(|first: char| first.is_ascii_digit() || matches!(first, '+' | '-' | '.'));
    begins && (is_number(words) || is_date(words))
}

/// Of any base, with `_` and, as of old, with `:` between digits to the base of sixty.
fn is_number(words: &str) -> bool {
    let digits = words.replace('_', "");
    let digits = digits.strip_prefix(['+', '-']).unwrap_or(&digits);
    let of_base = |prefix: &str, base: u32| {
        let rest = digits.strip_prefix(prefix).filter(|rest| !rest.is_empty());
        rest.is_some_and(|rest| rest.chars().all(|c| c.is_digit(base)))
    };
    let is_decimal =
        digits.parse::<f64>().is_ok() && digits.chars().all(|c| c.is_ascii_digit() || ".eE+-".contains(c));
    let mut sixties = digits.split(':');
    let is_sixties = digits.contains(':')
        && sixties.next().is_some_and(|first| !first.is_empty() && first.chars().all(|c| c.is_ascii_digit()))
        && sixties.all(|part| part.parse::<f64>().is_ok_and(|part| (0.0..60.0).contains(&part)));
    is_decimal || is_sixties || of_base("0x", 16) || of_base("0b", 2) || of_base("0o", 8)
}

/// `2026-11-23`, alone or before a time of the day.
fn is_date(words: &str) -> bool {
    let (date, time) = words.split_at(words.find(['T', 't', ' ']).unwrap_or(words.len()));
    let parts: Vec<&str> = date.split('-').collect();
    let is_part = |part: &&str, most: usize| {
        (1..=most).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    let is_day = matches!(&parts[..], [year, month, day] if year.len() == 4 && is_part(year, 4) && is_part(month, 2) && is_part(day, 2));
    is_day && (time.is_empty() || time.contains(':'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents_look_as_upstreams() {
        let value = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"a/b": "true", "n": "1"}},
            "spec": {"containers": [{"args": ["-c", "a: b"], "image": "a:1"}, {}], "volumes": []}, "status": {}});
        let expected = "apiVersion: v1\nkind: Pod\nmetadata:\n  labels:\n    a/b: \"true\"\n    \"n\": \"1\"\n  name: a\nspec:\n  containers:\n  - args:\n    - -c\n    - 'a: b'\n    image: a:1\n  - {}\n  volumes: []\nstatus: {}\n";
        assert_eq!(String::from_utf8_lossy(&encode(&value)), expected);
    }

    #[test]
    fn numbers_look_as_gos() {
        for (value, wanted) in [
            (json!(1), "1"),
            (json!(1.0), "1"),
            (json!(0.5), "0.5"),
            (json!(-2.5e-7), "-2.5e-07"),
            (json!(1e21), "1e+21"),
            (json!(123_456_789.5), "1.234567895e+08"),
            (json!(9_007_199_254_740_993_u64), "9007199254740993"),
        ] {
            assert_eq!(String::from_utf8_lossy(&encode(&value)), format!("{wanted}\n"));
        }
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let odd = vec![
            "",
            " ",
            "a\nb",
            "#",
            "- a",
            "é\u{1f600}",
            "a\u{7f}b\u{85}c\u{9f}",
            "\u{2028}\u{2029}\u{feff}\u{fffe}\u{ffff}",
            "0x1",
            "1e3",
            "~",
            "No",
            "2026-01-01",
            "\"",
            "\\",
            "a #b",
            "{",
            "\u{7}",
            "*a",
            "a:",
            "=",
            "<<",
            "!x",
            "- ",
            "?",
            "a: ",
            "it's",
            "'",
            "1:20",
            "2001-1-1 1:2:3",
            "0b1",
            "+1_000",
            ".5",
            "...",
            "a\n",
            "\n",
            "\na",
            " a\nb",
            "a\n\n",
            "a \nb",
            "a\nb ",
            "\ta\nb",
            "%",
            "@a",
            ",",
        ];
        let long = "words and words: ".repeat(20) + "  two  blanks";
        let value = json!({"texts": odd, "long": long, "in": [{"it": long}], "nested": [[1, [2.5, null]], [], [{"k": {"l": [true]}}]], "": -1, "yes": "no"});
        let text = encode(&value);
        let read: Value = serde_saphyr::from_str(std::str::from_utf8(&text).expect("UTF-8")).expect("YAML");
        assert_eq!(read, value, "{}", String::from_utf8_lossy(&text));
    }
}
