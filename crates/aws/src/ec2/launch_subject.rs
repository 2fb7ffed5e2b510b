//! What IAM decides about a launch: each thing that it takes or makes, by its own condition keys.
//! <https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonec2.html>, `RunInstances`

use serde_json::Value;

use super::noun::{Noun as _, arn, find, items, target, text, texts};
use super::record::{KeyPair, LaunchTemplate, NetworkInterface, SecurityGroup, Subnet, Tags};
use super::{key_pair, launch, launch_template, place};
use crate::iam::record::{InstanceProfile, Role, named};
use crate::service::Target;
use crate::state::{self, Kept};
use crate::{Context, Further, Subject};

type Keys = Vec<(String, Vec<String>)>;

/// Passing the role of its profile is a part of it, and so is tagging what it makes.
pub fn of_run(context: &Context, input: &Value) -> Subject {
    let spec = launch::with_template(context, input).unwrap_or_else(|_| input.clone());
    let look = Look::of(context, &spec);
    let mut subject = Subject::default();
    subject.resources.push(look.instance());
    subject.resources.push(look.image());
    subject.resources.extend(look.interface());
    subject.resources.extend(look.groups());
    subject.resources.extend(look.subnet());
    subject.resources.push(look.volume());
    subject.resources.extend(look.key_pair());
    subject.resources.extend(look.template(input));
    subject.keys = vec![("ec2:Region".into(), vec![context.region.into()])];
    subject.keys.extend(of_template(context, input));
    subject.also.extend(passed_role(context, &spec));
    subject.also.extend(tagged(context, &spec));
    subject
}

/// What a launch names, as far as it is there: what is not, the call itself tells.
struct Look<'a> {
    context: &'a Context<'a>,
    spec: &'a Value,
    interface: &'a Value,
    subnet: Option<Subnet>,
}

fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    }
}

/// The keys whose values are said.
fn keys<const N: usize>(pairs: [(&str, Option<String>); N]) -> Keys {
    pairs.into_iter().filter_map(|(key, value)| Some((format!("ec2:{key}"), vec![value?]))).collect()
}

impl<'a> Look<'a> {
    fn of(context: &'a Context, spec: &'a Value) -> Self {
        let interface = items(spec, "NetworkInterfaces").next().unwrap_or(&Value::Null);
        let existing =
            state::get::<NetworkInterface>(context.state, "", text(interface, "NetworkInterfaceId"));
        let named = [text(interface, "SubnetId"), text(spec, "SubnetId")].concat();
        let subnet = match (existing, named.as_str()) {
            (Some(existing), _) => find::<Subnet>(context.state, &existing.record.subnet_id),
            (None, "") => launch::default_subnet(context, text(&spec["Placement"], "AvailabilityZone")),
            (None, id) => find::<Subnet>(context.state, id),
        };
        Self { context, spec, interface, subnet: subnet.ok().map(|kept: Kept<Subnet>| kept.record) }
    }

    fn arn(&self, word: &str, id: &str) -> String {
        arn(self.context, word, id)
    }

    fn zone(&self) -> Option<String> {
        let asked = text_of(&self.spec["Placement"]["AvailabilityZone"]);
        self.subnet.as_ref().map(|subnet| subnet.availability_zone.clone()).or(asked)
    }

    fn subnet_arn(&self) -> Option<String> {
        self.subnet.as_ref().map(|subnet| self.arn("subnet", &subnet.subnet_id))
    }

    fn vpc_arn(&self) -> Option<String> {
        self.subnet.as_ref().map(|subnet| self.arn("vpc", &subnet.vpc_id))
    }

    /// Something that the launch makes, with the tags that it gives it.
    fn made(&self, word: &str, mut keys: Keys) -> Target {
        let tags = given_tags(self.spec, word);
        if !tags.is_empty() {
            keys.push(("aws:TagKeys".into(), tags.keys().cloned().collect()));
        }
        keys.extend(tags.into_iter().map(|(key, value)| (format!("aws:RequestTag/{key}"), vec![value])));
        Target { arn: self.arn(word, "*"), keys }
    }

    fn instance(&self) -> Target {
        let spec = self.spec;
        let metadata = &spec["MetadataOptions"];
        let profile = instance_profile(self.context, spec).map(|profile| profile.common.arn);
        let said = |value: Option<String>, usual: &str| value.or(Some(usual.to_owned()));
        self.made(
            "instance",
            keys([
                ("AvailabilityZone", self.zone()),
                ("EbsOptimized", said(text_of(&spec["EbsOptimized"]), "false")),
                (
                    "InstanceMarketType",
                    said(text_of(&spec["InstanceMarketOptions"]["MarketType"]), "on-demand"),
                ),
                ("InstanceProfile", profile),
                ("InstanceType", said(text_of(&spec["InstanceType"]), "m5.large")),
                ("MetadataHttpEndpoint", said(text_of(&metadata["HttpEndpoint"]), "enabled")),
                ("MetadataHttpPutResponseHopLimit", said(text_of(&metadata["HttpPutResponseHopLimit"]), "1")),
                ("MetadataHttpTokens", said(text_of(&metadata["HttpTokens"]), "required")),
                ("RootDeviceType", Some("ebs".to_owned())),
                ("Tenancy", said(text_of(&spec["Placement"]["Tenancy"]), "default")),
            ]),
        )
    }

    /// Images are nobody's: their ARNs have no account.
    fn image(&self) -> Target {
        let id = text(self.spec, "ImageId");
        let arn =
            format!("arn:aws:ec2:{}::image/{}", self.context.region, if id.is_empty() { "*" } else { id });
        let is_there = place::image(id).is_ok();
        let said = |value: &str| is_there.then(|| value.to_owned());
        let keys = keys([
            ("ImageID", text_of(&self.spec["ImageId"])),
            ("ImageType", said("machine")),
            ("Owner", said("amazon")),
            ("Public", said("true")),
            ("RootDeviceType", said("ebs")),
        ]);
        Target { arn, keys }
    }

    /// Interfaces that are made, or the one that is there.
    fn interface(&self) -> Option<Target> {
        let of = keys([
            ("AssociatePublicIpAddress", text_of(&self.interface["AssociatePublicIpAddress"])),
            ("AvailabilityZone", self.zone()),
            ("Subnet", self.subnet_arn()),
            ("Vpc", self.vpc_arn()),
        ]);
        match text(self.interface, "NetworkInterfaceId") {
            "" => Some(self.made("network-interface", of)),
            id => {
                let known = state::get::<NetworkInterface>(self.context.state, "", id)?;
                let mut found = target(self.arn("network-interface", id), Some(&known.record.tags));
                found.keys.extend(of);
                Some(found)
            }
        }
    }

    fn groups(&self) -> Vec<Target> {
        let mut ids: Vec<&str> = texts(self.spec, "SecurityGroupIds");
        ids.extend(texts(self.interface, "Groups"));
        let names = texts(self.spec, "SecurityGroups");
        let vpc = self.subnet.as_ref().map(|subnet| subnet.vpc_id.as_str());
        let all = state::list::<SecurityGroup>(self.context.state, "").into_iter().map(|kept| kept.record);
        let is_usual = ids.is_empty() && names.is_empty();
        let wanted = all.filter(|group| {
            let is_of_vpc = Some(group.vpc_id.as_str()) == vpc;
            let name = group.group_name.as_str();
            ids.contains(&group.group_id.as_str())
                || (is_of_vpc && (names.contains(&name) || (is_usual && name == "default")))
        });
        wanted
            .map(|group| {
                let mut found = target(self.arn("security-group", &group.group_id), Some(&group.tags));
                let vpc = Some(self.arn("vpc", &group.vpc_id));
                found.keys.extend(keys([("SecurityGroupID", Some(group.group_id)), ("Vpc", vpc)]));
                found
            })
            .collect()
    }

    fn subnet(&self) -> Option<Target> {
        let subnet = self.subnet.as_ref()?;
        let mut found = target(self.arn("subnet", &subnet.subnet_id), Some(&subnet.tags));
        found.keys.extend(keys([
            ("AvailabilityZone", self.zone()),
            ("SubnetID", Some(subnet.subnet_id.clone())),
            ("Vpc", self.vpc_arn()),
        ]));
        Some(found)
    }

    /// The root's.
    fn volume(&self) -> Target {
        let ebs = &items(self.spec, "BlockDeviceMappings").next().unwrap_or(&Value::Null)["Ebs"];
        self.made(
            "volume",
            keys([
                ("AvailabilityZone", self.zone()),
                ("Encrypted", text_of(&ebs["Encrypted"]).or(Some("false".to_owned()))),
                ("VolumeIops", text_of(&ebs["Iops"])),
                ("VolumeSize", text_of(&ebs["VolumeSize"])),
                ("VolumeThroughput", text_of(&ebs["Throughput"])),
                ("VolumeType", text_of(&ebs["VolumeType"])),
            ]),
        )
    }

    fn key_pair(&self) -> Option<Target> {
        let pair: Kept<KeyPair> = key_pair::by_name(self.context, text(self.spec, "KeyName"))?;
        let pair = pair.record;
        let mut found = target(self.arn("key-pair", &pair.key_name), Some(&pair.tags));
        found.keys.extend(keys([("KeyPairName", Some(pair.key_name)), ("KeyPairType", Some(pair.key_type))]));
        Some(found)
    }

    fn template(&self, input: &Value) -> Option<Target> {
        let template = template_of(self.context, input)?;
        Some(target(self.arn("launch-template", template.id()), Some(&template.tags)))
    }
}

fn template_of(context: &Context, input: &Value) -> Option<LaunchTemplate> {
    let named = &input["LaunchTemplate"];
    let is_named = named.is_object();
    is_named.then(|| launch_template::named(context, named).ok())?.map(|kept| kept.record)
}

/// Of every resource of the call: which template it is of, and whether it is what the template says.
fn of_template(context: &Context, input: &Value) -> Keys {
    let Some(template) = template_of(context, input) else { return Keys::new() };
    // Whoever names anything besides the template says something that is not the template's.
    let besides = ["LaunchTemplate", "MaxCount", "MinCount", "ClientToken", "DryRun"];
    let is_all = input.as_object().into_iter().flatten().all(|(name, _)| besides.contains(&name.as_str()));
    vec![
        ("ec2:IsLaunchTemplateResource".into(), vec![is_all.to_string()]),
        ("ec2:LaunchTemplate".into(), vec![arn(context, "launch-template", template.id())]),
    ]
}

/// The tags that a call gives to what it makes of a kind.
fn given_tags(spec: &Value, word: &str) -> Tags {
    let specifications = items(spec, "TagSpecifications").filter(|one| text(one, "ResourceType") == word);
    let tags = specifications.flat_map(|one| items(one, "Tags"));
    tags.map(|tag| (text(tag, "Key").to_owned(), text(tag, "Value").to_owned())).collect()
}

/// Tagging what a launch makes is an action of its own.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/supported-iam-actions-tagging.html>
fn tagged(context: &Context, spec: &Value) -> Vec<Further> {
    let words = ["instance", "network-interface", "volume"];
    let tagged =
        words.into_iter().map(|word| (word, given_tags(spec, word))).filter(|(_, tags)| !tags.is_empty());
    tagged
        .map(|(word, tags)| {
            let mut keys = vec![
                ("ec2:CreateAction".to_owned(), vec!["RunInstances".to_owned()]),
                ("aws:TagKeys".to_owned(), tags.keys().cloned().collect()),
            ];
            keys.extend(tags.into_iter().map(|(key, value)| (format!("aws:RequestTag/{key}"), vec![value])));
            Further { action: "ec2:CreateTags", resource: arn(context, word, "*"), keys }
        })
        .collect()
}

fn instance_profile(context: &Context, spec: &Value) -> Option<InstanceProfile> {
    let profile = &spec["IamInstanceProfile"];
    let name = match text(profile, "Name") {
        "" => text(profile, "Arn").rsplit('/').next().unwrap_or_default(),
        name => name,
    };
    Some(named::<InstanceProfile>(context.state, name)?.record)
}

fn passed_role(context: &Context, spec: &Value) -> Option<Further> {
    let role = named::<Role>(context.state, &instance_profile(context, spec)?.role?)?;
    Some(Further {
        action: "iam:PassRole",
        resource: role.record.common.arn,
        keys: vec![("iam:PassedToService".to_owned(), vec!["ec2.amazonaws.com".to_owned()])],
    })
}
