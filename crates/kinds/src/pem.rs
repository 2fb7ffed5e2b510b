//! Blocks of PEM, RFC 7468, as Go's `encoding/pem` finds them: whatever stands between them is passed over.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// One block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// `CERTIFICATE REQUEST`
    pub label: String,
    /// Whether lines like `Proc-Type: 4,ENCRYPTED` stand before the content.
    pub has_headers: bool,
    pub content: Vec<u8>,
}

/// All blocks of a text, in their order. One that is not whole is none.
pub fn blocks(text: &[u8]) -> Vec<Block> {
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let (mut found, mut rest) = (Vec::new(), &lines[..]);
    while let Some(begin) = rest.iter().position(|line| label(line, "-----BEGIN ").is_some()) {
        let wanted = label(rest[begin], "-----BEGIN ").unwrap_or_default();
        rest = &rest[begin + 1..];
        // The next line that begins with dashes must be the end.
        let Some(end) = rest.iter().position(|line| line.starts_with("-----")) else { break };
        if label(rest[end], "-----END ") != Some(wanted) {
            continue;
        }
        let headers = rest[..end].iter().take_while(|line| line.contains(':')).count();
        let content: String = rest[headers..end].iter().flat_map(|line| line.split_whitespace()).collect();
        rest = &rest[end + 1..];
        if let Ok(content) = STANDARD.decode(content) {
            found.push(Block { label: wanted.to_owned(), has_headers: headers > 0, content });
        }
    }
    found
}

fn label<'a>(line: &'a str, begin: &str) -> Option<&'a str> {
    line.strip_prefix(begin)?.strip_suffix("-----")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_among_other_text() {
        let block = |label: &str, content: &str| {
            format!("-----BEGIN {label}-----\n{content}\n-----END {label}-----\n")
        };
        let (a, b) = (block("A", "YQ=="), block("B", "Yg=="));
        for (text, expected) in [
            (a.clone(), vec![("A", false, "a")]),
            (format!("before\n{a}between{b}\n{b}after"), vec![("A", false, "a"), ("B", false, "b")]),
            (block("A", "X-Y: z\n\nYQ\n=="), vec![("A", true, "a")]),
            (format!("{}{b}", block("A", "!")), vec![("B", false, "b")]),
            (format!("-----BEGIN A-----\nYQ==\n-----END B-----\n{b}"), vec![("B", false, "b")]),
            (format!("-----BEGIN A-----\n{b}"), vec![("B", false, "b")]),
            ("-----BEGIN A-----\nYQ==".to_owned(), vec![]),
            (String::new(), vec![]),
        ] {
            let found = blocks(text.as_bytes());
            let expected = expected.into_iter().map(|(label, has_headers, content)| Block {
                label: label.to_owned(),
                has_headers,
                content: content.into(),
            });
            assert_eq!(found, expected.collect::<Vec<_>>(), "{text}");
        }
    }
}
