//! `application/yaml` answers, in the style of upstream's: two blanks a level, lists as far left as their key.

use serde_json::Value;

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
                text(name, to);
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
                        block(other, indent, to);
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
        Value::String(words) => {
            text(words, to);
            to.push('\n');
        }
        // Numbers, truth values, null, {} and [] are the same in both.
        other => {
            to.push_str(&other.to_string());
            to.push('\n');
        }
    }
}

fn blanks(count: usize, to: &mut String) {
    to.extend(std::iter::repeat_n(' ', count));
}

/// Plain where nobody could read it as anything else; otherwise in quotes, as JSON has it.
fn text(words: &str, to: &mut String) {
    if is_plain(words) {
        to.push_str(words);
    } else {
        to.push_str(&Value::from(words).to_string());
    }
}

fn is_plain(words: &str) -> bool {
    const MEANT: &[&str] = &["false", "inf", "n", "nan", "no", "null", "off", "on", "true", "y", "yes"];
    let starts = words.starts_with(|first: char| first.is_ascii_alphabetic() || matches!(first, '/' | '_'));
    let inner = |c: char| c.is_ascii_alphanumeric() || "/_.-+@=:, ".contains(c);
    starts
        && words.chars().all(inner)
        && !words.contains(": ")
        && !words.ends_with([':', ' '])
        && !MEANT.contains(&words.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn documents_look_as_upstreams() {
        let value = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "labels": {"a/b": "true", "n": "1"}},
            "spec": {"containers": [{"args": ["-c", "a: b"], "image": "a:1"}, {}], "volumes": []}, "status": {}});
        let expected = "apiVersion: v1\nkind: Pod\nmetadata:\n  labels:\n    a/b: \"true\"\n    \"n\": \"1\"\n  name: a\nspec:\n  containers:\n  - args:\n    - \"-c\"\n    - \"a: b\"\n    image: a:1\n  - {}\n  volumes: []\nstatus: {}\n";
        assert_eq!(String::from_utf8_lossy(&encode(&value)), expected);
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let odd = [
            "",
            " ",
            "a\nb",
            "#",
            "- a",
            "é\u{1f600}",
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
        ];
        let value = json!({"texts": odd, "nested": [[1, [2.5, null]], [], [{"k": {"l": [true]}}]], "": -1, "yes": "no"});
        let text = encode(&value);
        let read: Value = serde_saphyr::from_str(std::str::from_utf8(&text).expect("UTF-8")).expect("YAML");
        assert_eq!(read, value, "{}", String::from_utf8_lossy(&text));
    }
}
