//! Rules as EC2's clients say and see them: permissions, each of which may speak of several peers.

use serde_json::{Value, json};

use super::noun::{find, invalid, items, text, unsupported};
use super::record::{GroupRule, Peer, SecurityGroup, Tags};
use super::vpc::of_vpc;
use crate::{Context, Fault};

/// All protocols.
pub const ALL: &str = "-1";

/// A rule that an input speaks of, without an id.
pub struct Asked {
    pub rule: GroupRule,
}

/// The rules of an input: of its list of permissions, or of its own members, as older clients say it.
pub fn asked(
    context: &Context,
    input: &Value,
    group: &SecurityGroup,
    is_egress: bool,
) -> Result<Vec<Asked>, Fault> {
    let mut rules = Vec::new();
    for permission in items(input, "IpPermissions") {
        of_permission(context, permission, group, is_egress, &mut rules)?;
    }
    if rules.is_empty() && !text(input, "IpProtocol").is_empty() {
        let source = text(input, "SourceSecurityGroupName");
        let mut permission = json!({
            "IpProtocol": input["IpProtocol"], "FromPort": input["FromPort"], "ToPort": input["ToPort"],
        });
        if source.is_empty() {
            permission["IpRanges"] = json!([{"CidrIp": input["CidrIp"]}]);
        } else {
            permission["UserIdGroupPairs"] = json!([{"GroupName": source}]);
        }
        of_permission(context, &permission, group, is_egress, &mut rules)?;
    }
    if rules.is_empty() {
        return Err(Fault::new(
            "MissingParameter",
            "Either 'ipPermissions' or 'securityGroupRuleIds' should be provided.",
        ));
    }
    Ok(rules)
}

fn of_permission(
    context: &Context,
    permission: &Value,
    group: &SecurityGroup,
    is_egress: bool,
    rules: &mut Vec<Asked>,
) -> Result<(), Fault> {
    let (protocol, from, to) = traffic(permission)?;
    if items(permission, "PrefixListIds").next().is_some() {
        return Err(unsupported("prefix lists"));
    }
    let mut add = |peer: Peer, of: &Value| {
        let description = of["Description"].as_str().map(str::to_owned);
        let rule = GroupRule {
            rule_id: String::new(),
            is_egress,
            protocol: protocol.clone(),
            from,
            to,
            peer,
            description,
            tags: Tags::new(),
        };
        rules.push(Asked { rule });
    };
    for range in items(permission, "IpRanges") {
        add(Peer::Ipv4(ipv4(text(range, "CidrIp"))?), range);
    }
    for range in items(permission, "Ipv6Ranges") {
        add(Peer::Ipv6(ipv6(text(range, "CidrIpv6"))?), range);
    }
    for pair in items(permission, "UserIdGroupPairs") {
        add(Peer::Group(referenced(context, pair, group)?), pair);
    }
    Ok(())
}

/// A rule as `ModifySecurityGroupRules` has it.
pub fn of_request(
    context: &Context,
    request: &Value,
    group: &SecurityGroup,
    is_egress: bool,
) -> Result<GroupRule, Fault> {
    let (protocol, from, to) = traffic(request)?;
    let peer =
        match (text(request, "CidrIpv4"), text(request, "CidrIpv6"), text(request, "ReferencedGroupId")) {
            ("", "", "") => {
                return Err(Fault::new("MissingParameter", "A rule needs a source or destination"));
            }
            ("", "", id) => Peer::Group(referenced(context, &json!({"GroupId": id}), group)?),
            ("", range, _) => Peer::Ipv6(ipv6(range)?),
            (range, ..) => Peer::Ipv4(ipv4(range)?),
        };
    let description = request["Description"].as_str().map(str::to_owned);
    let tags = Tags::new();
    Ok(GroupRule { rule_id: String::new(), is_egress, protocol, from, to, peer, description, tags })
}

fn ipv4(text: &str) -> Result<plan::net::Cidr, Fault> {
    text.parse().map_err(|_| invalid(format!("CIDR block {text} is malformed")))
}

fn ipv6(text: &str) -> Result<String, Fault> {
    let parts = text.split_once('/').and_then(|(address, prefix)| {
        let address: std::net::Ipv6Addr = address.parse().ok()?;
        let prefix: u8 = prefix.parse().ok().filter(|prefix| *prefix <= 128)?;
        Some(format!("{address}/{prefix}"))
    });
    parts.ok_or_else(|| invalid(format!("CIDR block {text} is malformed")))
}

/// The group that a pair names, in the VPC of the group whose rule it is.
fn referenced(context: &Context, pair: &Value, group: &SecurityGroup) -> Result<String, Fault> {
    let owner = text(pair, "UserId");
    if !owner.is_empty() && owner != context.account {
        return Err(unsupported("groups of other accounts"));
    }
    let id = text(pair, "GroupId");
    if id == group.group_id {
        return Ok(id.to_owned());
    }
    let name = text(pair, "GroupName");
    let other = if id.is_empty() {
        let groups = of_vpc::<SecurityGroup>(context.state, &group.vpc_id, |one| &one.vpc_id);
        groups.into_iter().find(|one| one.record.group_name == name)
    } else {
        find::<SecurityGroup>(context.state, id).ok().filter(|one| one.record.vpc_id == group.vpc_id)
    };
    other.map(|one| one.record.group_id).ok_or_else(|| {
        let named = if id.is_empty() { name } else { id };
        let message = format!("The security group '{named}' does not exist");
        Fault::new("InvalidGroup.NotFound", message)
    })
}

/// Protocol, first and last port (or ICMP's type and code).
fn traffic(permission: &Value) -> Result<(String, i32, i32), Fault> {
    let protocol = match text(permission, "IpProtocol").to_ascii_lowercase().as_str() {
        "" => return Err(super::noun::lacking("IpProtocol")),
        "-1" | "all" => return Ok((ALL.to_owned(), -1, -1)),
        "1" | "icmp" => "icmp".to_owned(),
        "6" | "tcp" => "tcp".to_owned(),
        "17" | "udp" => "udp".to_owned(),
        "58" | "icmpv6" => "icmpv6".to_owned(),
        number if number.parse::<u8>().is_ok() => number.to_owned(),
        other => return Err(invalid(format!("Invalid value '{other}' for IP protocol. Unknown protocol."))),
    };
    let port = |member: &str| permission[member].as_i64().and_then(|port| i32::try_from(port).ok());
    let (from, to) = (port("FromPort"), port("ToPort"));
    match protocol.as_str() {
        "tcp" | "udp" => {
            let (Some(from), Some(to)) = (from, to) else {
                let message = format!(
                    "Invalid value 'Must specify both from and to ports with TCP/UDP.' for portRange. {protocol}"
                );
                return Err(invalid(message));
            };
            // AWS takes -1 for both ports as all of them.
            if (from, to) == (-1, -1) {
                return Ok((protocol, 0, 65_535));
            }
            let is_port = |port: i32| (0..=65_535).contains(&port);
            if !is_port(from) || !is_port(to) || from > to {
                return Err(invalid(format!("Invalid TCP/UDP port range ({from}:{to})")));
            }
            Ok((protocol, from, to))
        }
        "icmp" | "icmpv6" => Ok((protocol, from.unwrap_or(-1), to.unwrap_or(-1))),
        _ => Ok((protocol, -1, -1)),
    }
}

/// A rule in the words of AWS's faults.
pub fn words(rule: &GroupRule) -> String {
    let peer = match &rule.peer {
        Peer::Ipv4(range) => range.to_string(),
        Peer::Ipv6(range) | Peer::Group(range) => range.clone(),
    };
    match rule.protocol.as_str() {
        ALL => format!("peer: {peer}, ALL"),
        protocol => {
            let protocol = protocol.to_uppercase();
            format!("peer: {peer}, {protocol}, from port: {}, to port: {}", rule.from, rule.to)
        }
    }
}

/// Rules of one direction, those about the same traffic together.
pub fn show(group: &SecurityGroup, is_egress: bool, account: &str) -> Vec<Value> {
    let mut shown: Vec<(&str, i32, i32, Value)> = Vec::new();
    for rule in group.rules.iter().filter(|rule| rule.is_egress == is_egress) {
        let key = (rule.protocol.as_str(), rule.from, rule.to);
        let place = shown.iter().position(|(protocol, from, to, _)| (*protocol, *from, *to) == key);
        let place = place.unwrap_or_else(|| {
            let mut permission = json!({
                "IpProtocol": rule.protocol, "IpRanges": [], "Ipv6Ranges": [], "PrefixListIds": [],
                "UserIdGroupPairs": [],
            });
            if rule.protocol != ALL {
                permission["FromPort"] = json!(rule.from);
                permission["ToPort"] = json!(rule.to);
            }
            shown.push((key.0, key.1, key.2, permission));
            shown.len() - 1
        });
        let (member, mut peer) = match &rule.peer {
            Peer::Ipv4(range) => ("IpRanges", json!({"CidrIp": range})),
            Peer::Ipv6(range) => ("Ipv6Ranges", json!({"CidrIpv6": range})),
            Peer::Group(id) => ("UserIdGroupPairs", json!({"GroupId": id, "UserId": account})),
        };
        if let Some(description) = &rule.description {
            peer["Description"] = json!(description);
        }
        if let Some(list) = shown[place].3[member].as_array_mut() {
            list.push(peer);
        }
    }
    shown.into_iter().map(|(.., permission)| permission).collect()
}
