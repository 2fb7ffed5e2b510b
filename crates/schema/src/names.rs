//! What names may look like: RFC 1123 labels and subdomains, label keys and values, ports.
//!
//! Each check gives what is wrong, in upstream's words; an empty list means that nothing is.

use std::net::IpAddr;

/// A rule about a text: what is wrong with it.
pub type Check = fn(&str) -> Vec<String>;

const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;

const DNS_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const DNS_SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const DNS_UNDERSCORE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')";
const DNS_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const WILDCARD: &str = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const NAME_PART: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_KEY: &str = "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const ENV_NAME: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";
const HTTP_HEADER: &str = "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";

const fn is_lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Starts and ends as `edge` says, and is made of `edge` and `inner` only.
fn is_word(text: &str, edge: fn(u8) -> bool, inner: &[u8]) -> bool {
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    edge(first) && edge(last) && bytes.iter().all(|&byte| edge(byte) || inner.contains(&byte))
}

fn is_label_form(text: &str) -> bool {
    is_word(text, is_lower, b"-")
}

fn is_subdomain_form(text: &str) -> bool {
    text.split('.').all(is_label_form)
}

fn is_qualified_form(text: &str) -> bool {
    is_word(text, |byte| byte.is_ascii_alphanumeric(), b"-_.")
}

fn most_characters(most: usize) -> String {
    format!("must be no more than {most} characters")
}

/// `fmt:dns-label`
pub fn dns_label(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > LABEL_MAX {
        wrong.push(most_characters(LABEL_MAX));
    }
    if !is_label_form(text) {
        let is_dotted = text.contains('.') && is_subdomain_form(text);
        wrong.push(if is_dotted { "must not contain dots".into() } else { DNS_LABEL.into() });
    }
    wrong
}

/// `fmt:dns-subdomain`
pub fn dns_subdomain(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        wrong.push(most_characters(SUBDOMAIN_MAX));
    }
    if !is_subdomain_form(text) {
        wrong.push(DNS_SUBDOMAIN.into());
    }
    wrong
}

/// `fmt:dns-subdomain-underscore`: a search domain of a resolver.
pub fn dns_subdomain_with_underscores(text: &str) -> Vec<String> {
    let is_part = |part: &str| {
        let plain = part.strip_prefix('_').unwrap_or(part);
        is_word(plain, is_lower, b"-_")
    };
    let mut wrong = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        wrong.push(most_characters(SUBDOMAIN_MAX));
    }
    if !text.split('.').all(is_part) {
        wrong.push(DNS_UNDERSCORE.into());
    }
    wrong
}

/// `fmt:dns1035`
pub fn dns_1035_label(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > LABEL_MAX {
        wrong.push(most_characters(LABEL_MAX));
    }
    if !is_label_form(text) || !text.as_bytes()[0].is_ascii_lowercase() {
        wrong.push(DNS_1035.into());
    }
    wrong
}

/// `fmt:wildcard-dns`
pub fn wildcard_subdomain(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        wrong.push(most_characters(SUBDOMAIN_MAX));
    }
    if !text.strip_prefix("*.").is_some_and(is_subdomain_form) {
        wrong.push(WILDCARD.into());
    }
    wrong
}

/// `fmt:qualified-name`: a label's or annotation's key.
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut parts = text.split('/');
    let (first, second, third) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    if third.is_some() {
        return vec![LABEL_KEY.into()];
    }
    let name = second.unwrap_or(first);
    if second.is_some() {
        if first.is_empty() {
            wrong.push("prefix part must be non-empty".into());
        } else {
            wrong.extend(dns_subdomain(first).into_iter().map(|text| format!("prefix part {text}")));
        }
    }
    if name.is_empty() {
        wrong.push("name part must be non-empty".into());
    } else if name.len() > LABEL_MAX {
        wrong.push(format!("name part must be no more than {LABEL_MAX} bytes"));
    }
    if !is_qualified_form(name) {
        wrong.push(NAME_PART.into());
    }
    wrong
}

/// `fmt:label-value`
pub fn label_value(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > LABEL_MAX {
        wrong.push(format!("must be no more than {LABEL_MAX} bytes"));
    }
    if !text.is_empty() && !is_qualified_form(text) {
        wrong.push(LABEL_VALUE.into());
    }
    wrong
}

/// `fmt:path-segment`: the least that every name must be, for it stands in a URL.
pub fn path_segment(text: &str) -> Vec<String> {
    if text == "." || text == ".." {
        return vec![format!("may not be '{text}'")];
    }
    ['/', '%']
        .into_iter()
        .filter(|&one| text.contains(one))
        .map(|one| format!("may not contain '{one}'"))
        .collect()
}

/// `fmt:config-key`: a key of a ConfigMap or Secret.
pub fn config_key(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > SUBDOMAIN_MAX {
        wrong.push(most_characters(SUBDOMAIN_MAX));
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
        wrong.push(CONFIG_KEY.into());
    }
    match text {
        "." | ".." => wrong.push(format!("must not be '{text}'")),
        _ if text.starts_with("..") => wrong.push("must not start with '..'".into()),
        _ => {}
    }
    wrong
}

/// `fmt:env-name`
pub fn env_name(text: &str) -> Vec<String> {
    if text.is_empty() {
        return vec!["environment variable name must be non-empty".into()];
    }
    let is_plain = text.bytes().all(|byte| (b' '..=b'~').contains(&byte) && byte != b'=');
    if is_plain { Vec::new() } else { vec![ENV_NAME.into()] }
}

/// `fmt:port-name`
pub fn port_name(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    if text.len() > 15 {
        wrong.push(most_characters(15));
    }
    if !text.bytes().all(|byte| is_lower(byte) || byte == b'-') || text.is_empty() {
        wrong.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        wrong.push("must contain at least one letter (a-z)".into());
    }
    if text.contains("--") {
        wrong.push("must not contain consecutive hyphens".into());
    }
    if text.starts_with('-') || text.ends_with('-') {
        wrong.push("must not begin or end with a hyphen".into());
    }
    wrong
}

/// `fmt:port-number`
pub fn port_number(port: i64) -> Vec<String> {
    between(port, 1, 65535)
}

/// A range that includes its ends.
pub fn between(number: i64, least: i64, most: i64) -> Vec<String> {
    if (least..=most).contains(&number) {
        Vec::new()
    } else {
        vec![format!("must be between {least} and {most}, inclusive")]
    }
}

/// `fmt:domain-path`: `acme.io/foo`
pub fn domain_path(text: &str) -> Vec<String> {
    let Some((domain, path)) =
        text.split_once('/').filter(|(domain, path)| !domain.is_empty() && !path.is_empty())
    else {
        return vec!["must be a domain-prefixed path (such as \"acme.io/foo\")".into()];
    };
    let mut wrong = dns_subdomain(domain);
    if !path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&byte)) {
        wrong.push("Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')".into());
    }
    wrong
}

/// `fmt:percent`
pub fn percent(text: &str) -> Vec<String> {
    let digits = text.strip_suffix('%').unwrap_or_default();
    let holds = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if holds { Vec::new() } else { vec![PERCENT.into()] }
}

/// `fmt:http-header`
pub fn http_header(text: &str) -> Vec<String> {
    let holds = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if holds { Vec::new() } else { vec![HTTP_HEADER.into()] }
}

/// `fmt:ip`
pub fn ip(text: &str) -> Vec<String> {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            vec!["must not be an IPv4-mapped IPv6 address".into()]
        }
        Ok(_) => Vec::new(),
        Err(_) if has_leading_zeros(text) => vec!["must not have leading 0s".into()],
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()],
    }
}

/// An address as Go's older parser reads it: with zeros in front of its numbers, and IPv4 in the form of IPv6.
pub fn lenient_ip(text: &str) -> Option<IpAddr> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if !has_leading_zeros(text) {
        return None;
    }
    let octets: Vec<u8> = text.split('.').filter_map(|part| part.parse().ok()).collect();
    <[u8; 4]>::try_from(octets).ok().map(IpAddr::from)
}

/// Dotted decimal that would be an address but for zeros in front of a number.
fn has_leading_zeros(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    parts.len() == 4 && parts.iter().all(|part| part.len() <= 10 && part.parse::<u8>().is_ok())
}

/// `fmt:ip-canonical`
pub fn canonical_ip(text: &str) -> Vec<String> {
    let wrong = ip(text);
    match text.parse::<IpAddr>() {
        Ok(address) if wrong.is_empty() && address.to_string() != text => {
            vec![format!("must be in canonical form (\"{address}\")")]
        }
        _ => wrong,
    }
}

/// `fmt:cidr-canonical`
pub fn canonical_cidr(text: &str) -> Vec<String> {
    let wrong = cidr(text);
    if !wrong.is_empty() {
        return wrong;
    }
    let Some((Ok(address), length)) =
        text.split_once('/').map(|(front, rest)| (front.parse::<IpAddr>(), rest))
    else {
        return wrong;
    };
    let canonical = format!("{address}/{length}");
    if canonical == text { wrong } else { vec![format!("must be in canonical form (\"{canonical}\")")] }
}

/// `fmt:cidr`
pub fn cidr(text: &str) -> Vec<String> {
    let invalid = || vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()];
    let Some((address, length)) = text.split_once('/') else {
        return invalid();
    };
    if has_leading_zeros(address) && address.parse::<IpAddr>().is_err() {
        return vec!["must not have leading 0s in IP or prefix length".into()];
    }
    let (Ok(address), Ok(bits)) = (address.parse::<IpAddr>(), length.parse::<u32>()) else {
        return invalid();
    };
    if matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some()) {
        return vec!["must not have an IPv4-mapped IPv6 address".into()];
    }
    let host_bits = match address {
        IpAddr::V4(v4) if bits <= 32 => u128::from(u32::from(v4)) << 96 << bits.min(32),
        IpAddr::V6(v6) if bits < 128 => u128::from(v6) << bits,
        IpAddr::V6(_) if bits == 128 => 0,
        _ => return invalid(),
    };
    if length.len() > 1 && length.starts_with('0') {
        return vec!["must not have leading 0s in IP or prefix length".into()];
    }
    if host_bits != 0 { vec!["must not have bits set beyond the prefix length".into()] } else { Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: Check, good: &[&str], bad: &[(&str, &str)]) {
        for text in good {
            assert_eq!(rule(text), [""; 0], "{text}");
        }
        for (text, starts) in bad {
            let wrong = rule(text);
            assert!(wrong.iter().any(|one| one.starts_with(starts)), "{text}: {wrong:?}");
        }
    }

    #[test]
    fn names_follow_their_rfcs() {
        let long = "a".repeat(64);
        check(
            dns_label,
            &["a", "0-a"],
            &[
                ("", "a lowercase RFC 1123 label"),
                ("a.b", "must not contain dots"),
                (&long, "must be no more than 63"),
            ],
        );
        check(
            dns_subdomain,
            &["a", "a.b-c", &long],
            &[("A", "a lowercase RFC 1123 sub"), ("a..b", "a lower"), ("-a", "a lower")],
        );
        check(dns_1035_label, &["a1"], &[("1a", "a DNS-1035"), ("", "a DNS-1035")]);
        check(wildcard_subdomain, &["*.a.b"], &[("a.b", "a wildcard"), ("*.", "a wildcard")]);
    }

    #[test]
    fn label_keys_and_values() {
        check(
            qualified_name,
            &["a", "a.b/c_d", "Name"],
            &[
                ("", "name part must be non-empty"),
                ("/a", "prefix part must be"),
                ("a/b/c", "a valid label key"),
                ("A/b", "prefix part a lower"),
                ("a/-", "name part must consist"),
            ],
        );
        check(label_value, &["", "a_b"], &[("a/b", "a valid label must be")]);
        check(
            config_key,
            &["a.b", ".a"],
            &[("..", "must not be '..'"), ("..a", "must not start"), ("a/b", "a valid config")],
        );
    }

    #[test]
    fn addresses() {
        check(
            ip,
            &["10.0.0.1", "::1"],
            &[
                ("10.0.0.01", "must not have leading"),
                ("::ffff:1.2.3.4", "must not be an IPv4-mapped"),
                ("x", "must be a valid IP"),
            ],
        );
        check(
            canonical_ip,
            &["2001:db8::1"],
            &[("2001:DB8::1", "must be in canonical form (\"2001:db8::1\")")],
        );
        check(
            cidr,
            &["10.0.0.0/8", "0.0.0.0/0", "10.1.2.3/32", "fd00::/8"],
            &[
                ("10.0.0.1/8", "must not have bits"),
                ("10.0.0.0", "must be a valid CIDR"),
                ("10.0.0.0/33", "must be a valid"),
            ],
        );
    }
}
