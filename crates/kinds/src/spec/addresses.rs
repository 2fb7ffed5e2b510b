//! IPv6 addresses that are read and should be written in their one form (RFC 5952). What has other faults is refused.

use std::net::Ipv6Addr;

pub fn warn_of_ip(at: &str, text: &str) -> Option<String> {
    let canonical = text.parse::<Ipv6Addr>().ok()?.to_string();
    (canonical != text).then(|| {
        format!("{at}: IPv6 address \"{text}\" should be in RFC 5952 canonical format (\"{canonical}\")")
    })
}

pub fn warn_of_cidr(at: &str, text: &str) -> Option<String> {
    let (address, length) = text.split_once('/')?;
    let canonical = format!("{}/{length}", address.parse::<Ipv6Addr>().ok()?);
    (canonical != text).then(|| {
        format!("{at}: IPv6 CIDR value \"{text}\" should be in RFC 5952 canonical format (\"{canonical}\")")
    })
}
