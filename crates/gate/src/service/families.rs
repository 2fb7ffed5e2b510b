//! Which families of addresses a Service has, and by what policy.
//!
//! The cluster has IPv4 only: who insists on more is told so, and who prefers more gets what there is.

use object::Status;
use schema::{At, Violation, path};
use serde_json::{Value, json};

use super::{has_address, kind, refused};

const OURS: &str = "IPv4";
const OTHER: &str = "IPv6";
const POLICY: &str = "spec.ipFamilyPolicy";
const FAMILIES: &str = "spec.ipFamilies";
const ADDRESSES: &str = "spec.clusterIPs";

/// Completes policy and families.
///
/// # Errors
/// 422: what a cluster of one family cannot do, and what contradicts itself.
pub(super) fn settle(new: &mut Value, old: Option<&Value>) -> Result<(), Status> {
    if !has_address(new) || old.is_some_and(|old| prefers_as_before(new, old)) {
        return Ok(());
    }
    let headless = path::text(new, "spec.clusterIP") == "None";
    // Nobody but its author knows what addresses its endpoints will have.
    let is_open = headless && path::members(new, "spec.selector").next().is_none();
    let before = old.and_then(|old| path::get(old, POLICY)).cloned();
    let usual = if is_open { "RequireDualStack" } else { "SingleStack" };
    path::set_default(new, POLICY, before.unwrap_or_else(|| usual.into()));
    refused(new, &kinds::service::validate_addresses(new, old))?;
    let is_single = path::text(new, POLICY) == "SingleStack";
    let mut wrong = Vec::new();
    if let Some(old) = old {
        if is_single {
            shrink(new, old);
        } else {
            wrong.extend(reduced(new, old));
        }
    }
    if is_single {
        for (field, what) in [(ADDRESSES, "cluster IPs"), (FAMILIES, "IP families")] {
            if path::list(new, field).len() == 2 {
                let detail = format!(
                    "must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
                );
                wrong.push(Violation::invalid(At::root(POLICY), "SingleStack", detail));
            }
        }
    }
    wrong.extend(infer(new));
    refused(new, &wrong)?;
    let mut families = path::list(new, FAMILIES).to_vec();
    if is_open {
        if families.is_empty() {
            families.push(OURS.into());
        }
        if families.len() < 2 && !is_single {
            families.push(if families[0] == OURS { OTHER.into() } else { OURS.into() });
        }
        path::set(new, FAMILIES, families.into());
        return Ok(());
    }
    if path::text(new, POLICY) == "RequireDualStack" {
        let detail = "this cluster is not configured for dual-stack services";
        wrong.push(Violation::invalid(At::root(POLICY), "RequireDualStack", detail));
    }
    let list = At::root(FAMILIES);
    for (index, family) in families.iter().enumerate().filter(|(_, family)| *family != OURS) {
        wrong.push(Violation::invalid(list.index(index), family, "not configured on this cluster"));
    }
    refused(new, &wrong)?;
    if families.is_empty() {
        path::set(new, FAMILIES, json!([OURS]));
    }
    Ok(())
}

/// Who prefers both families and changes nothing about addresses is neither given more nor less.
fn prefers_as_before(new: &Value, old: &Value) -> bool {
    let prefers = |service: &Value| path::text(service, POLICY) == "PreferDualStack";
    kind(new) == kind(old)
        && prefers(new)
        && prefers(old)
        && [ADDRESSES, FAMILIES].iter().all(|field| path::list(new, field) == path::list(old, field))
}

/// Whoever asks for one family, and leaves the lists as they were, means the first of each.
fn shrink(new: &mut Value, old: &Value) {
    for field in [ADDRESSES, FAMILIES] {
        let list = path::list(new, field);
        if let ([first, _, ..], true) = (list, list == path::list(old, field)) {
            path::set(new, field, json!([first.clone()]));
        }
    }
}

/// Only the policy gives something back.
fn reduced(new: &Value, old: &Value) -> Vec<Violation> {
    let count = |service: &Value, field: &str| path::list(service, field).len();
    let fields = [(ADDRESSES, "cluster IP"), (FAMILIES, "IP family")].into_iter();
    let reduced = fields.filter(|(field, _)| (1..count(old, field)).contains(&count(new, field)));
    let told = reduced.map(|(_, what)| {
        let detail = format!("must be 'SingleStack' to release the secondary {what}");
        Violation::invalid(At::root(POLICY), path::text(new, POLICY), detail)
    });
    told.collect()
}

/// Addresses that were asked for say their families, where those are not said.
fn infer(new: &mut Value) -> Vec<Violation> {
    let (ips, mut families) = (path::list(new, ADDRESSES).to_vec(), path::list(new, FAMILIES).to_vec());
    let (list, mut wrong) = (At::root(ADDRESSES), Vec::new());
    for (index, ip) in ips.iter().enumerate().take_while(|(_, ip)| *ip != "None") {
        if index < families.len() {
            continue;
        }
        if ip.as_str().is_some_and(|ip| ip.contains(':')) {
            let detail = format!("{OTHER} is not configured on this cluster");
            wrong.push(Violation::invalid(list.index(index), &ips, detail));
        } else {
            families.push(OURS.into());
        }
    }
    if !families.is_empty() {
        path::set(new, FAMILIES, families.into());
    }
    wrong
}
