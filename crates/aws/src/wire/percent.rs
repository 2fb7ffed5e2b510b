//! Percent-encoding, as signatures and paths have it.

/// Decodes `%41`, and `+` as a space where forms do. None if a percent sign is followed by something else, or the result is not UTF-8.
pub fn decode(text: &str, is_form: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => hex(rest.next()?)? << 4 | hex(rest.next()?)?,
            b'+' if is_form => b' ',
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Encodes everything but unreserved characters (RFC 3986) and those of `keep`.
pub fn encode(text: &str, keep: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) || keep.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// The pairs of a query or a form, decoded.
pub fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let parts = text.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            Some((decode(key, true)?, decode(value, true)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text in ".*") {
            prop_assert_eq!(decode(&encode(&text, b""), true), Some(text.clone()));
            prop_assert_eq!(decode(&encode(&text, b"/"), false), Some(text));
        }

        #[test]
        fn nothing_that_is_sent_ends_the_decoder(text in ".*") {
            let _ = pairs(&text);
        }
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for text in ["%", "%4", "%zz", "%ff", "a%c3"] {
            assert_eq!(decode(text, false), None, "{text}");
        }
        assert_eq!(pairs("a=1&b&&c=%20+").map(|all| all.len()), Some(3));
    }
}
