//! Security groups and their rules. What of it a VPC's router enforces is whoever's who follows the account.

use serde_json::{Value, json};

use super::noun::{Filters, arn, invalid, items, lacking, missing, named, show_tags, tags_for, text, texts};
use super::permission::{self, Asked};
use super::record::{GroupRule, NetworkInterface, Peer, SecurityGroup, Tags, Vpc};
use super::vpc::{named_or_default, of_vpc};
use crate::state::{self, Changes, Kept};
use crate::{Answer, Context, Fault, Subject};

/// The name of the group that comes with a VPC.
pub const DEFAULT: &str = "default";
/// <https://docs.aws.amazon.com/vpc/latest/userguide/amazon-vpc-limits.html>
const RULES: usize = 60;

/// The group that comes with a VPC: its members reach each other.
pub fn default_of(context: &mut Context, vpc: &str) -> SecurityGroup {
    let mut group = bare(context, DEFAULT, "default VPC security group", vpc);
    let own = Peer::Group(group.group_id.clone());
    group.rules.push(rule(context, false, own));
    group
}

/// A group that lets everything out and nothing in.
pub fn bare(context: &mut Context, name: &str, description: &str, vpc: &str) -> SecurityGroup {
    SecurityGroup {
        group_id: context.ids.resource("sg"),
        group_name: name.to_owned(),
        description: description.to_owned(),
        vpc_id: vpc.to_owned(),
        rules: vec![rule(context, true, Peer::Ipv4(plan::net::Cidr::new([0, 0, 0, 0].into(), 0)))],
        tags: Tags::new(),
    }
}

/// A rule about all traffic.
pub fn rule(context: &mut Context, is_egress: bool, peer: Peer) -> GroupRule {
    GroupRule {
        rule_id: context.ids.resource("sgr"),
        is_egress,
        protocol: permission::ALL.to_owned(),
        from: -1,
        to: -1,
        peer,
        description: None,
        tags: Tags::new(),
    }
}

pub fn create(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let vpc = named_or_default(context, text(input, "VpcId"))?;
    let (name, description) = (text(input, "GroupName"), text(input, "Description"));
    if name.is_empty() || name.chars().count() > 255 || name.starts_with("sg-") {
        return Err(invalid(format!(
            "Value ({name}) for parameter GroupName is invalid. Group names may not be in the format sg-*, and have 1 to 255 characters"
        )));
    }
    if name == DEFAULT {
        let message = "Cannot use reserved security group name: default";
        return Err(Fault::new("InvalidParameterValue", message));
    }
    let id = &vpc.record.vpc_id;
    let known = of_vpc::<SecurityGroup>(context.state, id, |one| &one.vpc_id);
    if known.iter().any(|one| one.record.group_name == name) {
        let message = format!("The security group '{name}' already exists for VPC '{id}'");
        return Err(Fault::new("InvalidGroup.Duplicate", message));
    }
    let group = SecurityGroup {
        tags: tags_for(input, "security-group", &[])?,
        ..bare(context, name, description, id)
    };
    let mut changes = Changes::default();
    changes.create("", &group.group_id, &group);
    changes.update(&vpc);
    let output = json!({
        "GroupId": group.group_id, "Tags": show_tags(&group.tags),
        "SecurityGroupArn": arn(context, "security-group", &group.group_id),
    });
    Ok(Answer::write(output, changes))
}

pub fn show(group: &SecurityGroup, context: &Context) -> Value {
    let permissions = |is_egress: bool| permission::show(group, is_egress, context.account);
    json!({
        "GroupId": group.group_id, "GroupName": group.group_name, "Description": group.description,
        "VpcId": group.vpc_id, "OwnerId": context.account, "IpPermissions": permissions(false),
        "IpPermissionsEgress": permissions(true), "Tags": show_tags(&group.tags),
        "SecurityGroupArn": arn(context, "security-group", &group.group_id),
    })
}

/// Groups can be asked for by name, too.
pub fn describe(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let names = texts(input, "GroupNames");
    let shown = super::noun::described::<SecurityGroup>(context, input)?;
    for name in &names {
        if !shown.iter().any(|group| group["GroupName"] == **name) {
            let message = format!("The security group '{name}' does not exist in default VPC");
            return Err(Fault::new("InvalidGroup.NotFound", message));
        }
    }
    let shown: Vec<Value> = shown
        .into_iter()
        .filter(|group| names.is_empty() || names.contains(&text(group, "GroupName")))
        .collect();
    Ok(Answer::read(json!({"SecurityGroups": shown})))
}

/// The ids of a VPC's groups by their names; one that is not there is a fault for all.
pub fn ids_of_names(context: &Context, vpc: &str, names: &[&str]) -> Result<Vec<String>, Fault> {
    let known = of_vpc::<SecurityGroup>(context.state, vpc, |one| &one.vpc_id);
    let id_of = |name: &&str| {
        let found = known.iter().find(|one| one.record.group_name == **name);
        found.map(|one| one.record.group_id.clone()).ok_or_else(|| {
            let message = format!("The security group '{name}' does not exist in VPC '{vpc}'");
            Fault::new("InvalidGroup.NotFound", message)
        })
    };
    names.iter().map(id_of).collect()
}

/// What the subnets' interfaces of a VPC can have.
pub fn for_vpc(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    const FILTERS: &[(&str, &str)] = &[
        ("description", "Description"),
        ("group-id", "GroupId"),
        ("group-name", "GroupName"),
        ("owner-id", "OwnerId"),
        ("primary-vpc-id", "PrimaryVpcId"),
    ];
    let vpc = named::<Vpc>(context, input, "VpcId")?.record.vpc_id;
    let filters = Filters::of(input, FILTERS)?;
    let groups = of_vpc::<SecurityGroup>(context.state, &vpc, |one| &one.vpc_id);
    let shown = groups.iter().map(|kept| {
        let group = &kept.record;
        json!({
            "GroupId": group.group_id, "GroupName": group.group_name, "Description": group.description,
            "OwnerId": context.account, "PrimaryVpcId": group.vpc_id, "Tags": show_tags(&group.tags),
        })
    });
    Ok(Answer::read(
        json!({"SecurityGroupForVpcs": shown.filter(|one| filters.admit(one)).collect::<Vec<_>>()}),
    ))
}

/// The group that an input names, by id or by name in the default VPC.
fn group_of(context: &Context, input: &Value) -> Result<Kept<SecurityGroup>, Fault> {
    if !text(input, "GroupId").is_empty() {
        return named::<SecurityGroup>(context, input, "GroupId");
    }
    let name = text(input, "GroupName");
    if name.is_empty() {
        return Err(lacking("GroupId"));
    }
    let vpc = named_or_default(context, "")?.record.vpc_id;
    let mut groups = of_vpc::<SecurityGroup>(context.state, &vpc, |one| &one.vpc_id).into_iter();
    groups.find(|group| group.record.group_name == name).ok_or_else(|| missing::<SecurityGroup>(name))
}

pub fn delete(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let group = group_of(context, input)?;
    let id = &group.record.group_id;
    if group.record.group_name == DEFAULT {
        let message = format!("the specified group: \"{id}\" name: \"default\" cannot be deleted by a user");
        return Err(Fault::new("CannotDelete", message));
    }
    let is_used =
        state::list::<NetworkInterface>(context.state, "").iter().any(|one| one.record.groups.contains(id));
    let others = state::list::<SecurityGroup>(context.state, "");
    let mut others = others.iter().filter(|one| one.record.group_id != *id);
    let is_referenced =
        others.any(|one| one.record.rules.iter().any(|rule| rule.peer == Peer::Group(id.clone())));
    if is_used || is_referenced {
        let message = format!("resource {id} has a dependent object");
        return Err(Fault::new("DependencyViolation", message));
    }
    let mut changes = Changes::default();
    changes.delete(&group);
    Ok(Answer::write(json!({"Return": true, "GroupId": id}), changes))
}

pub fn authorize_ingress(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    authorize(context, input, false)
}

pub fn authorize_egress(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    authorize(context, input, true)
}

fn authorize(context: &mut Context, input: &Value, is_egress: bool) -> Result<Answer, Fault> {
    let mut group = group_of(context, input)?;
    let tags = tags_for(input, "security-group-rule", &[])?;
    let mut made = Vec::new();
    for asked in permission::asked(context, input, &group.record, is_egress)? {
        let rule = GroupRule { rule_id: context.ids.resource("sgr"), tags: tags.clone(), ..asked.rule };
        if group.record.rules.iter().any(|known| known.says_the_same(&rule)) {
            let message =
                format!("the specified rule \"{}, ALLOW\" already exists", permission::words(&rule));
            return Err(Fault::new("InvalidPermission.Duplicate", message));
        }
        made.push(show_rule(context, &group.record.group_id, &rule));
        group.record.rules.push(rule);
    }
    if group.record.rules.iter().filter(|rule| rule.is_egress == is_egress).count() > RULES {
        let message = "The maximum number of rules per security group has been reached.";
        return Err(Fault::new("RulesPerSecurityGroupLimitExceeded", message));
    }
    let mut changes = Changes::default();
    changes.update(&group);
    Ok(Answer::write(json!({"Return": true, "SecurityGroupRules": made}), changes))
}

pub fn revoke_ingress(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    revoke(context, input, false)
}

pub fn revoke_egress(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    revoke(context, input, true)
}

fn revoke(context: &mut Context, input: &Value, is_egress: bool) -> Result<Answer, Fault> {
    let mut group = group_of(context, input)?;
    let ids = texts(input, "SecurityGroupRuleIds");
    let asked = if ids.is_empty() {
        permission::asked(context, input, &group.record, is_egress)?
    } else {
        Vec::new()
    };
    let mut gone = Vec::new();
    for id in &ids {
        let rules = &mut group.record.rules;
        let found = rules.iter().position(|rule| rule.rule_id == *id && rule.is_egress == is_egress);
        gone.push(rules.remove(found.ok_or_else(|| no_rule_id(id))?));
    }
    for Asked { rule } in asked {
        let rules = &mut group.record.rules;
        let found = rules.iter().position(|known| known.says_the_same(&rule));
        gone.push(rules.remove(found.ok_or_else(|| {
            let message = "The specified rule does not exist in this security group.";
            Fault::new("InvalidPermission.NotFound", message)
        })?));
    }
    let shown = gone.iter().map(|rule| {
        let mut shown = show_rule(context, &group.record.group_id, rule);
        if let Some(referenced) = shown["ReferencedGroupInfo"]["GroupId"].as_str() {
            shown["ReferencedGroupId"] = json!(referenced);
        }
        // Of a rule that is gone less is told.
        if let Some(members) = shown.as_object_mut() {
            for other in ["GroupOwnerId", "ReferencedGroupInfo", "SecurityGroupRuleArn", "Tags"] {
                members.remove(other);
            }
        }
        shown
    });
    let output = json!({"Return": true, "RevokedSecurityGroupRules": shown.collect::<Vec<_>>()});
    let mut changes = Changes::default();
    changes.update(&group);
    Ok(Answer::write(output, changes))
}

fn no_rule_id(id: &str) -> Fault {
    let message = format!("The security group rule ID '{id}' does not exist");
    Fault::new("InvalidSecurityGroupRuleId.NotFound", message)
}

fn show_rule(context: &Context, group: &str, rule: &GroupRule) -> Value {
    let mut shown = json!({
        "SecurityGroupRuleId": rule.rule_id, "GroupId": group, "GroupOwnerId": context.account,
        "IsEgress": rule.is_egress, "IpProtocol": rule.protocol, "FromPort": rule.from, "ToPort": rule.to,
        "Tags": show_tags(&rule.tags), "SecurityGroupRuleArn": arn(context, "security-group-rule", &rule.rule_id),
    });
    if let Some(description) = &rule.description {
        shown["Description"] = json!(description);
    }
    match &rule.peer {
        Peer::Ipv4(range) => shown["CidrIpv4"] = json!(range),
        Peer::Ipv6(range) => shown["CidrIpv6"] = json!(range),
        Peer::Group(id) => shown["ReferencedGroupInfo"] = json!({"GroupId": id, "UserId": context.account}),
    }
    shown
}

pub fn describe_rules(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    const FILTERS: &[(&str, &str)] =
        &[("group-id", "GroupId"), ("security-group-rule-id", "SecurityGroupRuleId")];
    let filters = Filters::of(input, FILTERS)?;
    let ids = texts(input, "SecurityGroupRuleIds");
    let groups = state::list::<SecurityGroup>(context.state, "");
    let rules = groups.iter().flat_map(|group| {
        group.record.rules.iter().map(|rule| show_rule(context, &group.record.group_id, rule))
    });
    let rules: Vec<Value> = rules.filter(|rule| filters.admit(rule)).collect();
    if let Some(id) = ids.iter().find(|id| !rules.iter().any(|rule| rule["SecurityGroupRuleId"] == ***id)) {
        return Err(no_rule_id(id));
    }
    let wanted =
        rules.into_iter().filter(|rule| ids.is_empty() || ids.contains(&text(rule, "SecurityGroupRuleId")));
    Ok(Answer::read(json!({"SecurityGroupRules": wanted.collect::<Vec<_>>()})))
}

pub fn describe_ingress_rules(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    update_descriptions(context, input, false)
}

pub fn describe_egress_rules(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    update_descriptions(context, input, true)
}

/// `UpdateSecurityGroupRuleDescriptions…`
fn update_descriptions(context: &mut Context, input: &Value, is_egress: bool) -> Result<Answer, Fault> {
    let mut group = group_of(context, input)?;
    for given in items(input, "SecurityGroupRuleDescriptions") {
        let id = text(given, "SecurityGroupRuleId");
        let rule = group.record.rules.iter_mut().find(|rule| rule.rule_id == id);
        rule.ok_or_else(|| no_rule_id(id))?.description = given["Description"].as_str().map(str::to_owned);
    }
    if !input["IpPermissions"].is_null() {
        for Asked { rule } in permission::asked(context, input, &group.record, is_egress)? {
            let known = group.record.rules.iter_mut().find(|known| known.says_the_same(&rule));
            let known = known.ok_or_else(|| {
                let message = "The specified rule does not exist in this security group.";
                Fault::new("InvalidPermission.NotFound", message)
            })?;
            known.description = rule.description;
        }
    }
    let mut changes = Changes::default();
    changes.update(&group);
    Ok(Answer::write(json!({"Return": true}), changes))
}

/// Replaces rules, each by its id.
pub fn modify_rules(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut group = named::<SecurityGroup>(context, input, "GroupId")?;
    for update in items(input, "SecurityGroupRules") {
        let id = text(update, "SecurityGroupRuleId");
        let found =
            group.record.rules.iter().position(|rule| rule.rule_id == id).ok_or_else(|| no_rule_id(id))?;
        let known = group.record.rules[found].clone();
        let asked =
            permission::of_request(context, &update["SecurityGroupRule"], &group.record, known.is_egress)?;
        group.record.rules[found] = GroupRule { rule_id: known.rule_id, tags: known.tags, ..asked };
    }
    let mut changes = Changes::default();
    changes.update(&group);
    Ok(Answer::write(json!({"Return": true}), changes))
}

pub fn subject(context: &Context, input: &Value) -> Subject {
    match group_of(context, input) {
        Ok(group) => {
            let mut about = super::noun::subject::<SecurityGroup>(
                context,
                &json!({"GroupId": group.record.group_id}),
                "GroupId",
            );
            about.keys.push(("ec2:Vpc".to_owned(), vec![arn(context, "vpc", &group.record.vpc_id)]));
            about
        }
        Err(_) => Subject::of(arn(context, "security-group", text(input, "GroupId"))),
    }
}

/// Tags on one rule; whose group it is is looked up.
pub fn tag_rule(
    context: &Context,
    changes: &mut Changes,
    id: &str,
    change: impl FnOnce(&mut Tags) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut groups = state::list::<SecurityGroup>(context.state, "").into_iter();
    let mut group = groups
        .find(|group| group.record.rules.iter().any(|rule| rule.rule_id == id))
        .ok_or_else(|| no_rule_id(id))?;
    if let Some(rule) = group.record.rules.iter_mut().find(|rule| rule.rule_id == id) {
        change(&mut rule.tags)?;
    }
    changes.update(&group);
    Ok(())
}
