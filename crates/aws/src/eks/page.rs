//! Lists in pages: `maxResults`, `nextToken`.

use serde_json::{Value, json};

use super::fault;
use crate::Fault;

/// What a page holds if nobody says.
const DEFAULT: usize = 100;

/// The page that is asked for of `items`, which are in the order of their names, and the token of the next one.
///
/// A token is the last name of its page, so that a list that changes meanwhile neither repeats nor loses what stays in it.
pub fn of<T>(
    items: impl IntoIterator<Item = T>,
    name: impl Fn(&T) -> &str,
    input: &Value,
) -> Result<(Vec<T>, Option<String>), Fault> {
    let limit = input["maxResults"].as_u64().and_then(|limit| usize::try_from(limit).ok()).unwrap_or(DEFAULT);
    let after = match input["nextToken"].as_str().filter(|token| !token.is_empty()) {
        Some(token) => Some(read(token).ok_or_else(|| fault::invalid("Invalid nextToken"))?),
        None => None,
    };
    let mut rest = items.into_iter().filter(|item| after.as_deref().is_none_or(|after| name(item) > after));
    let page: Vec<T> = rest.by_ref().take(limit).collect();
    let next = rest.next().and_then(|_| page.last()).map(|last| token(name(last)));
    Ok((page, next))
}

/// An output of one list.
pub fn answer(member: &str, items: Value, next: Option<String>) -> Value {
    let mut output = json!({member: items});
    if let Some(next) = next {
        output["nextToken"] = next.into();
    }
    output
}

fn token(name: &str) -> String {
    name.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn read(token: &str) -> Option<String> {
    let digits = token.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    String::from_utf8(digits.chunks(2).map(byte).collect::<Option<_>>()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_whatever_is_removed_between() {
        let names = ["a", "b", "c", "ü"];
        let page = |names: &[&'static str], token: Option<&str>| {
            let input = json!({"maxResults": 2, "nextToken": token});
            of(names.to_vec(), |name| name, &input)
        };
        let (first, next) = page(&names, None).expect("a page");
        assert_eq!(first, ["a", "b"]);
        let (second, end) = page(&["a", "c", "ü"], next.as_deref()).expect("a page");
        assert_eq!((second, end), (vec!["c", "ü"], None));
        for wrong in ["x", "zz", "ff"] {
            assert_eq!(page(&names, Some(wrong)).expect_err("refused").code, "InvalidParameterException");
        }
    }
}
