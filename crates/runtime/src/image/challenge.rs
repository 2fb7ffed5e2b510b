//! How a registry asks for authorization: the values of `WWW-Authenticate` (RFC 9110, 11.6.1).

use std::collections::BTreeMap;

/// The first challenge in a value.
pub(super) struct Challenge {
    /// In lower case.
    pub(super) scheme: String,
    parameters: BTreeMap<String, String>,
}

impl Challenge {
    pub(super) fn parse(value: &str) -> Option<Challenge> {
        let (scheme, mut rest) = value.trim().split_once(' ').unwrap_or((value.trim(), ""));
        let mut parameters = BTreeMap::new();
        while let Some((key, after)) = rest.trim_start_matches([' ', ',']).split_once('=') {
            let text;
            (text, rest) = match after.strip_prefix('"') {
                Some(quoted) => unquote(quoted)?,
                None => {
                    let end = after.find(',').unwrap_or(after.len());
                    (after[..end].trim().to_string(), &after[end..])
                }
            };
            parameters.entry(key.trim().to_ascii_lowercase()).or_insert(text);
        }
        Some(Challenge { scheme: scheme.to_ascii_lowercase(), parameters })
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.parameters.get(key).map(String::as_str)
    }
}

/// The text up to the closing quote, and what follows it.
fn unquote(quoted: &str) -> Option<(String, &str)> {
    let mut text = String::new();
    let mut escaped = false;
    for (index, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                text.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return Some((text, &quoted[index + 1..])),
            c => text.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read() {
        let challenge = Challenge::parse(
            r#"Bearer realm="https://auth.docker.io/token",service=registry.docker.io,scope="repository:a/b:pull,push",error="a \"b\"""#,
        )
        .unwrap();
        assert_eq!(challenge.scheme, "bearer");
        assert_eq!(challenge.get("realm"), Some("https://auth.docker.io/token"));
        assert_eq!(challenge.get("service"), Some("registry.docker.io"));
        assert_eq!(challenge.get("scope"), Some("repository:a/b:pull,push"));
        assert_eq!(challenge.get("error"), Some(r#"a "b""#));
        assert_eq!(Challenge::parse("Basic").unwrap().scheme, "basic");
        assert!(Challenge::parse(r#"Bearer realm="https://unclosed"#).is_none());
    }
}
