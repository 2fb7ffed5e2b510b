//! `pattern`: regular expressions as Go (RE2) reads them.
//!
//! Both languages match in linear time and mostly agree. Where they do not, the pattern is rewritten: `\d`, `\s`, `\w` and `\b` are
//! ASCII in Go; inside brackets `[`, `&&`, `--` and `~~` are plain characters there; `\Q…\E` quotes.

use regex::Regex;
use regex_syntax::ast::ErrorKind;

/// A pattern, ready to be asked.
#[derive(Debug)]
pub(super) struct Pattern {
    /// As it was written, for messages.
    pub(super) text: Box<str>,
    regex: Regex,
}

impl Pattern {
    /// # Errors
    /// Why it is no regular expression, in Go's words.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let translated = translate(text);
        let regex = Regex::new(&translated).map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "error parsing regexp: expression too large".to_owned(),
            _ => format!("error parsing regexp: {}", refusal(text, &translated)),
        })?;
        Ok(Self { text: text.into(), regex })
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }
}

/// What Go says of an expression that is none: what is wrong, and the part that is.
fn refusal(text: &str, translated: &str) -> String {
    let error = match regex_syntax::Parser::new().parse(translated) {
        Err(regex_syntax::Error::Parse(error)) => error,
        // Of classes by their names, which come last.
        _ => return format!("invalid character class range: `{text}`"),
    };
    let span = error.span();
    let part = translated.get(span.start.offset..span.end.offset).unwrap_or_default();
    let rest = translated.get(span.start.offset..).unwrap_or_default();
    let (words, part) = match error.kind() {
        ErrorKind::GroupUnclosed => ("missing closing )", text),
        ErrorKind::GroupUnopened => ("unexpected )", text),
        ErrorKind::ClassUnclosed => ("missing closing ]", rest),
        ErrorKind::ClassRangeInvalid | ErrorKind::ClassRangeLiteral | ErrorKind::UnicodeClassInvalid => {
            ("invalid character class range", part)
        }
        ErrorKind::EscapeUnexpectedEof => ("trailing backslash at end of expression", ""),
        ErrorKind::RepetitionMissing => {
            let lazy = usize::from(rest[1.min(rest.len())..].starts_with('?'));
            ("missing argument to repetition operator", rest.get(..1 + lazy).unwrap_or(rest))
        }
        ErrorKind::RepetitionCountInvalid
        | ErrorKind::RepetitionCountDecimalEmpty
        | ErrorKind::DecimalInvalid => ("invalid repeat count", part),
        ErrorKind::NestLimitExceeded(_) => ("expression nests too deeply", text),
        ErrorKind::GroupNameInvalid
        | ErrorKind::GroupNameEmpty
        | ErrorKind::GroupNameDuplicate { .. }
        | ErrorKind::GroupNameUnexpectedEof => ("invalid named capture", rest),
        ErrorKind::UnsupportedLookAround
        | ErrorKind::FlagUnrecognized
        | ErrorKind::FlagUnexpectedEof
        | ErrorKind::FlagDanglingNegation => ("invalid or unsupported Perl syntax", part),
        _ => ("invalid escape sequence", part),
    };
    format!("{words}: `{part}`")
}

fn translate(go: &str) -> String {
    let mut out = String::with_capacity(go.len() + 8);
    let mut rest = go.chars().peekable();
    // In brackets: whether the next character would be the first, where `]` is a plain one.
    let mut class: Option<bool> = None;
    while let Some(next) = rest.next() {
        let first = class == Some(true);
        if class.is_some() {
            class = Some(false);
        }
        match (next, class) {
            ('\\', _) => match rest.next() {
                Some('Q') => quoted(&mut rest, &mut out),
                Some(escape) => out.push_str(&escaped(escape, class.is_some())),
                None => out.push('\\'),
            },
            ('[', None) => {
                class = Some(true);
                out.push('[');
                if rest.next_if_eq(&'^').is_some() {
                    out.push('^');
                }
            }
            ('[', Some(_)) if rest.peek() == Some(&':') => {
                // A named class, `[:alpha:]`, up to its end.
                out.push('[');
                for inner in rest.by_ref() {
                    out.push(inner);
                    if inner == ']' {
                        break;
                    }
                }
            }
            (']', Some(_)) if first => out.push_str("\\]"),
            (']', Some(_)) => {
                class = None;
                out.push(']');
            }
            ('[' | '&' | '~', Some(_)) => {
                out.push('\\');
                out.push(next);
            }
            ('-', Some(_)) if first || matches!(rest.peek(), Some(']' | '-')) => out.push_str("\\-"),
            (other, _) => out.push(other),
        }
    }
    out
}

fn quoted(rest: &mut std::iter::Peekable<std::str::Chars<'_>>, out: &mut String) {
    let mut text = String::new();
    while let Some(next) = rest.next() {
        if next == '\\' && rest.next_if_eq(&'E').is_some() {
            break;
        }
        text.push(next);
    }
    out.push_str(&regex::escape(&text));
}

fn escaped(escape: char, in_class: bool) -> String {
    let (open, close) = if in_class { ("", "") } else { ("[", "]") };
    match escape {
        'd' => format!("{open}0-9{close}"),
        's' => format!("{open}\\t\\n\\f\\r {close}"),
        'w' => format!("{open}0-9A-Za-z_{close}"),
        'D' => "[^0-9]".into(),
        'S' => "[^\\t\\n\\f\\r ]".into(),
        'W' => "[^0-9A-Za-z_]".into(),
        'b' => "(?-u:\\b)".into(),
        'B' => "(?-u:\\B)".into(),
        other => format!("\\{other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_in_go() {
        for (pattern, yes, no) in [
            (r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$", "* * * * */5", "* * * *"),
            (r"^\d$", "4", "٤"),
            (r"^[\d\w]+$", "a_4", "ä"),
            (r"^[[\]]$", "[", "a"),
            (r"^[]a]$", "]", "b"),
            (r"^[^]]$", "a", "]"),
            (r"^[a&&b]$", "&", "c"),
            (r"^[a-z0-9-]+$", "a-b", "A"),
            (r"^[-a]+$", "-a", "b"),
            (r"^[[:alpha:]]+$", "ab", "1"),
            (r"^\Qa.b\E$", "a.b", "axb"),
            (r"^https?:\/\/", "http://x", "ftp://x"),
            (r"^(?i)abc$", "ABC", "abd"),
            (r"^\bäb\b$", "never", "äb"),
        ] {
            let compiled = Pattern::new(pattern).unwrap_or_else(|why| panic!("{pattern}: {why}"));
            if yes != "never" {
                assert!(compiled.matches(yes), "{pattern} {yes}");
            }
            assert!(!compiled.matches(no), "{pattern} {no}");
        }
    }

    #[test]
    fn what_is_none_is_told_as_go_tells_it() {
        for (pattern, words) in [
            ("(", "missing closing ): `(`"),
            ("a)", "unexpected ): `a)`"),
            ("a[b", "missing closing ]: `[b`"),
            ("*a", "missing argument to repetition operator: `*`"),
            ("a\\", "trailing backslash at end of expression: ``"),
            ("[z-a]", "invalid character class range: `z-a`"),
            ("(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
            ("\\y", "invalid escape sequence: `\\y`"),
            ("a{3,2}", "invalid repeat count: `{3,2}`"),
        ] {
            let found = Pattern::new(pattern).map(|pattern| pattern.text);
            assert_eq!(found, Err(format!("error parsing regexp: {words}")), "{pattern}");
        }
    }
}
