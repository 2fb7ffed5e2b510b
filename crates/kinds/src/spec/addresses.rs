//! Addresses as clients write them. Of IPv6 there is one form that they should have (RFC 5952); what has other faults is refused.

use std::net::Ipv6Addr;

use schema::{At, Violation, names, path};
use serde_json::Value;

use super::check::{self, Found};

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

/// Where a balancer is reached: `held` are the entries before, whose addresses may stay whatever they look like. `modes`: each entry says
/// what its address is.
pub fn balanced(given: &[Value], held: &[Value], modes: bool, list: At<'_>, found: &mut Found) {
    for (index, one) in given.iter().enumerate() {
        let at = list.index(index);
        if held.iter().all(|old| old["ip"] != one["ip"]) {
            check::follows(one, "ip", names::ip, at, found);
        }
        if modes {
            mode(one, at, found);
        }
        check::follows(one, "hostname", names::dns_subdomain, at, found);
        let name = path::text(one, "hostname");
        if names::lenient_ip(name).is_some() {
            let detail = "must be a DNS name, not an IP address";
            found.push(Violation::invalid(at.field("hostname"), name, detail));
        }
    }
}

fn mode(one: &Value, at: At<'_>, found: &mut Found) {
    match (path::text(one, "ip").is_empty(), one.get("ipMode")) {
        (false, None) => {
            found.push(Violation::required(at.field("ipMode"), "must be specified when `ip` is set"));
        }
        (true, Some(_)) => {
            let detail = "may not be specified when `ip` is not set";
            found.push(Violation::forbidden(at.field("ipMode"), detail));
        }
        _ => check::one_of(one, "ipMode", &["Proxy", "VIP"], at, found),
    }
}
