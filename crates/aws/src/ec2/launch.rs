//! Launches: what `RunInstances` asks for, and what services start by themselves, becomes instances and their interfaces.

use serde_json::{Value, json};

use super::allocate::{Addresses, Public};
use super::instance_type::{self, InstanceType};
use super::noun::{find, invalid, items, lacking, tags_for, text, texts, unsupported};
use super::record::{
    Attachment, FargateTask, Instance, MetadataOptions, NetworkInterface, SiteNode, State, Subnet, Tags, Vpc,
    Wanted,
};
use super::{
    instance_show, interface, key_pair, launch_options, launch_template, place, pods, security_group,
    user_data,
};
use crate::iam::record::InstanceProfile;
use crate::state::{self, Changes, Kept};
use crate::{Answer, Context, Fault};

/// The most that one call starts.
const LIMIT: u64 = 100;
/// What tag specifications of a launch may speak of.
const TAGGED_WITH_INSTANCES: &[&str] =
    &["elastic-gpu", "instance", "network-interface", "spot-instances-request", "volume"];

pub fn run(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let spec = with_template(context, input)?;
    let token = text(input, "ClientToken");
    if !token.is_empty() {
        let known = state::list::<Instance>(context.state, "").into_iter();
        let known: Vec<_> = known.filter(|one| one.record.client_token == token).collect();
        if let Some(first) = known.first() {
            let id = first.record.reservation_id.clone();
            let instances = known.iter().map(|one| instance_show::show(&one.record, context)).collect();
            return Ok(Answer::read(instance_show::reservation(context, &id, instances)));
        }
    }
    let count = |member: &str| input[member].as_u64().unwrap_or(0);
    if count("MinCount") == 0 || count("MaxCount") < count("MinCount") || count("MaxCount") > LIMIT {
        return Err(invalid(format!(
            "MinCount and MaxCount must be between 1 and {LIMIT}, MinCount not above MaxCount"
        )));
    }
    let mut changes = Changes::default();
    let reservation = context.ids.resource("r");
    let launch = Launch::of(context, &spec, Given::default())?;
    let started = launch.start(context, &mut changes, &reservation, token, count("MaxCount"))?;
    let show = |(instance, interface): &(Instance, NetworkInterface)| {
        instance_show::show_with(instance, std::slice::from_ref(interface), context)
    };
    let shown = started.iter().map(show).collect();
    Ok(Answer::write(instance_show::reservation(context, &reservation, shown), changes))
}

/// What a service says of instances that it starts, and no call can.
#[derive(Default)]
pub struct Given {
    /// Also such whose keys begin with `aws:`.
    pub tags: Tags,
    /// The site's own nodes: one instance each.
    pub site_nodes: Vec<SiteNode>,
    /// One machine, of a pod.
    pub fargate: Option<FargateTask>,
}

/// Starts instances for a service, as `RunInstances` does with this input; into `subnet`, whatever a template says.
///
/// Free addresses are looked up in the state: one transaction is for one launch.
pub fn launch(
    context: &mut Context,
    changes: &mut Changes,
    input: &Value,
    subnet: &str,
    count: u64,
    given: Given,
) -> Result<Vec<Instance>, Fault> {
    let mut spec = with_template(context, input)?;
    match spec["NetworkInterfaces"].get_mut(0) {
        Some(first) => first["SubnetId"] = json!(subnet),
        None => spec["SubnetId"] = json!(subnet),
    }
    let reservation = context.ids.resource("r");
    let launch = Launch::of(context, &spec, given)?;
    let started = launch.start(context, changes, &reservation, "", count)?;
    Ok(started.into_iter().map(|(instance, _)| instance).collect())
}

/// The input over the data of the template that it names.
pub fn with_template(context: &Context, input: &Value) -> Result<Value, Fault> {
    let named = &input["LaunchTemplate"];
    if named.is_null() {
        return Ok(input.clone());
    }
    let template = launch_template::named(context, named)?.record;
    let version = launch_template::version_of(context, &template, text(named, "Version"))?.record;
    let mut spec = version.data;
    launch_template::lay_over(&mut spec, input);
    // What an instance tells about where it came from.
    spec["TemplateId"] = json!(template.launch_template_id);
    spec["TemplateVersion"] = json!(version.version);
    Ok(spec)
}

/// What an instance, or a template, may not ask for.
pub fn check_options(spec: &Value) -> Result<(), Fault> {
    let refused =
        [("EnclaveOptions", "Enabled", "enclaves"), ("HibernationOptions", "Configured", "hibernation")];
    for (member, part, what) in refused {
        if spec[member][part] == true {
            return Err(unsupported(what));
        }
    }
    let lists = [
        ("ElasticGpuSpecifications", "elastic GPUs"),
        ("ElasticInferenceAccelerators", "accelerators"),
        ("Ipv6Addresses", "IPv6 in subnets"),
        ("LicenseSpecifications", "licences"),
    ];
    for (member, what) in lists {
        if items(spec, member).next().is_some() {
            return Err(unsupported(what));
        }
    }
    if text(&spec["MetadataOptions"], "HttpTokens") == "optional" {
        return Err(unsupported("instance metadata of version 1: HttpTokens is required"));
    }
    if matches!(text(&spec["Placement"], "Tenancy"), "dedicated" | "host") {
        return Err(unsupported("dedicated hosts"));
    }
    if spec["InstanceRequirements"].is_object() {
        return Err(unsupported("a choice of instance types by requirements: name an InstanceType"));
    }
    launch_options::check(spec)
}

/// What instances are made of, once for all that one call starts.
struct Launch {
    image: place::Image,
    /// `t3.medium`
    kind: String,
    network: Network,
    /// The length of the range for its pods; none if it is no node.
    pod_prefix: Option<u8>,
    spec: Value,
    profile: Option<(String, String)>,
    tags: Tags,
    interface_tags: Tags,
    site_nodes: Vec<SiteNode>,
    fargate: Option<FargateTask>,
}

/// Where they are in the network, and how.
struct Network {
    subnet: Kept<Subnet>,
    groups: Vec<String>,
    /// An interface that is there already, instead of a new one.
    existing: Option<Kept<NetworkInterface>>,
    private_ip: String,
    secondary: u64,
    has_public_ip: bool,
    delete_interface: bool,
}

impl Network {
    fn of(context: &Context, spec: &Value) -> Result<Self, Fault> {
        let mut interfaces = items(spec, "NetworkInterfaces");
        let first = interfaces.next().cloned().unwrap_or_default();
        if interfaces.next().is_some() {
            return Err(unsupported(
                "several interfaces from the start: attach them (AttachNetworkInterface)",
            ));
        }
        let of_instance = ["SecurityGroupIds", "SecurityGroups"].map(|member| texts(spec, member));
        if first.is_object() && !(text(spec, "SubnetId").is_empty() && of_instance.concat().is_empty()) {
            let message = "Network interfaces and an instance-level subnet ID or security groups may not be specified on the same request";
            return Err(Fault::new("InvalidParameterCombination", message));
        }
        let existing = match text(&first, "NetworkInterfaceId") {
            "" => None,
            id => Some(find::<NetworkInterface>(context.state, id)?),
        };
        if let Some(used) = existing.as_ref().filter(|one| one.record.attachment.is_some()) {
            let message = format!("Interface: [{}] in use.", used.record.network_interface_id);
            return Err(Fault::new("InvalidNetworkInterface.InUse", message));
        }
        let subnet = match (&existing, text(&first, "SubnetId"), text(spec, "SubnetId")) {
            (Some(interface), ..) => find(context.state, &interface.record.subnet_id)?,
            (None, "", "") => default_subnet(context, text(&spec["Placement"], "AvailabilityZone"))?,
            (None, "", id) | (None, id, _) => find::<Subnet>(context.state, id)?,
        };
        let mut asked = texts(spec, "SecurityGroupIds");
        asked.extend(texts(&first, "Groups"));
        let names = texts(spec, "SecurityGroups");
        let named = security_group::ids_of_names(context, &subnet.record.vpc_id, &names)?;
        asked.extend(named.iter().map(String::as_str));
        let groups = match &existing {
            Some(interface) => interface.record.groups.clone(),
            None => interface::groups(context, &subnet.record.vpc_id, &asked)?,
        };
        let delete_interface = first["DeleteOnTermination"].as_bool().unwrap_or(existing.is_none());
        let has_public_ip = existing.is_none()
            && first["AssociatePublicIpAddress"].as_bool().unwrap_or(subnet.record.map_public_ip_on_launch);
        Ok(Self {
            private_ip: [text(&first, "PrivateIpAddress"), text(spec, "PrivateIpAddress")].concat(),
            secondary: first["SecondaryPrivateIpAddressCount"].as_u64().unwrap_or_default().min(50),
            subnet,
            groups,
            existing,
            has_public_ip,
            delete_interface,
        })
    }
}

/// Of what type; none for what is as large as it is, whatever its input says.
fn kind_of(spec: &Value, image: &place::Image, given: &Given) -> Result<Option<InstanceType>, Fault> {
    let is_of_no_type = !given.site_nodes.is_empty() || given.fargate.is_some();
    let kind = match spec["InstanceType"].as_str() {
        Some(_) if is_of_no_type => None,
        asked => Some(instance_type::asked(asked.unwrap_or("m5.large"))?),
    };
    if let Some(kind) = kind.as_ref().filter(|kind| kind.is_arm != image.is_arm) {
        return Err(invalid(format!(
            "The architecture '{}' of the specified instance type does not match the architecture '{}' of the specified AMI. Specify an instance type and an AMI that have matching architectures, and try again.",
            kind.architecture(),
            image.architecture()
        )));
    }
    Ok(kind)
}

impl Launch {
    fn of(context: &Context, spec: &Value, given: Given) -> Result<Self, Fault> {
        check_options(spec)?;
        let image = match text(spec, "ImageId") {
            "" => return Err(lacking("ImageId")),
            id => place::image(id)?,
        };
        let kind = kind_of(spec, &image, &given)?;
        if let Some(name) = spec["KeyName"].as_str().filter(|name| !name.is_empty()) {
            key_pair::check(context, name)?;
        }
        let network = Network::of(context, spec)?;
        let joins = spec["UserData"].as_str().and_then(user_data::read);
        let pods = match &kind {
            None if given.fargate.is_some() => Some(1),
            None => Some(pods::OF_SMALL),
            Some(kind) => joins.map(|joins| joins.max_pods.unwrap_or_else(|| pods::most(kind))),
        };
        let mut tags = tags_for(spec, "instance", TAGGED_WITH_INSTANCES)?;
        tags.extend(given.tags);
        Ok(Self {
            image,
            network,
            pod_prefix: pods.map(pods::prefix),
            profile: profile_of(context, &spec["IamInstanceProfile"])?,
            tags,
            interface_tags: tags_for(spec, "network-interface", TAGGED_WITH_INSTANCES)?,
            kind: kind.map_or_else(|| text(spec, "InstanceType").to_owned(), |kind| kind.name),
            site_nodes: given.site_nodes,
            fargate: given.fargate,
            spec: spec.clone(),
        })
    }

    fn start(
        mut self,
        context: &mut Context,
        changes: &mut Changes,
        reservation: &str,
        token: &str,
        count: u64,
    ) -> Result<Vec<(Instance, NetworkInterface)>, Fault> {
        if count > 1 && (self.network.existing.is_some() || !self.network.private_ip.is_empty()) {
            return Err(invalid("One interface or address is for one instance: MaxCount is 1"));
        }
        let mut addresses = Addresses::of(context.state, &self.network.subnet.record);
        let mut public = if self.network.has_public_ip { Some(Public::of(context.state)?) } else { None };
        let mut started = Vec::new();
        for index in 0..count {
            let id = context.ids.resource("i");
            let interface = self.interface(context, changes, &id, &mut addresses, public.as_mut())?;
            let instance = self.instance(context, id, &interface, reservation, token, index);
            changes.create("", &instance.instance_id, &instance);
            started.push((instance, interface));
        }
        if let Some(public) = public {
            public.commit(changes);
        }
        changes.update(&self.network.subnet);
        Ok(started)
    }

    fn interface(
        &mut self,
        context: &mut Context,
        changes: &mut Changes,
        instance: &str,
        addresses: &mut Addresses,
        public: Option<&mut Public>,
    ) -> Result<NetworkInterface, Fault> {
        let attachment = Some(Attachment {
            attachment_id: context.ids.resource("eni-attach"),
            instance_id: Some(instance.to_owned()),
            device_index: 0,
            delete_on_termination: self.network.delete_interface,
            attached: context.now,
        });
        if let Some(existing) = &mut self.network.existing {
            existing.record.attachment = attachment;
            changes.update(existing);
            return Ok(existing.record.clone());
        }
        let private_ip = interface::take(addresses, &self.network.private_ip)?;
        let mut interface = interface::bare(context, &self.network.subnet.record, private_ip);
        for _ in 0..self.network.secondary {
            interface.secondary.push(addresses.take()?);
        }
        interface.prefix = self.pod_prefix.map(|prefix| addresses.take_range(prefix)).transpose()?;
        interface.public_ip = public.map(Public::take).transpose()?;
        interface.groups.clone_from(&self.network.groups);
        interface.tags.clone_from(&self.interface_tags);
        interface.attachment = attachment;
        // A pod's on Fargate is for nobody to change.
        interface.requester = self.fargate.as_ref().map(|_| "amazon-aws".to_owned());
        changes.create("", &interface.network_interface_id, &interface);
        Ok(interface)
    }

    fn instance(
        &self,
        context: &Context,
        instance_id: String,
        interface: &NetworkInterface,
        reservation: &str,
        token: &str,
        index: u64,
    ) -> Instance {
        let spec = &self.spec;
        let metadata = &spec["MetadataOptions"];
        let mut tags = self.tags.clone();
        for (tag, member) in
            [("aws:ec2launchtemplate:id", "TemplateId"), ("aws:ec2launchtemplate:version", "TemplateVersion")]
        {
            if let Some(value) = spec.get(member) {
                let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                tags.insert(tag.to_owned(), value);
            }
        }
        let place = usize::try_from(index).unwrap_or(usize::MAX);
        let site_node = self.site_nodes.get(place).cloned();
        tags.extend(site_node.iter().map(|node| ("Name".to_owned(), node.name.clone())));
        Instance {
            instance_id,
            reservation_id: reservation.to_owned(),
            client_token: token.to_owned(),
            launch_index: u32::try_from(index).unwrap_or(u32::MAX),
            image_id: self.image.id.clone(),
            instance_type: self.kind.clone(),
            vpc_id: self.network.subnet.record.vpc_id.clone(),
            subnet_id: self.network.subnet.record.subnet_id.clone(),
            availability_zone: self.network.subnet.record.availability_zone.clone(),
            private_dns_name: match self.fargate {
                Some(_) => format!("fargate-{}", interface::private_name(context, interface.private_ip)),
                None => interface::private_name(context, interface.private_ip),
            },
            key_name: spec["KeyName"].as_str().filter(|name| !name.is_empty()).map(str::to_owned),
            profile: self.profile.clone(),
            user_data: spec["UserData"].as_str().map(str::to_owned),
            metadata: MetadataOptions {
                is_enabled: text(metadata, "HttpEndpoint") != "disabled",
                hop_limit: metadata["HttpPutResponseHopLimit"]
                    .as_u64()
                    .and_then(|hops| u8::try_from(hops.clamp(1, 64)).ok())
                    .unwrap_or(1),
                shows_tags: text(metadata, "InstanceMetadataTags") == "enabled",
            },
            is_spot: text(&spec["InstanceMarketOptions"], "MarketType") == "spot",
            disable_api_termination: spec["DisableApiTermination"] == true,
            ebs_optimized: spec["EbsOptimized"] == true,
            launched: context.now,
            wanted: Wanted::Running,
            reboots: 0,
            state: State::Pending,
            joined: None,
            site_node,
            fargate: self.fargate.clone(),
            reason: None,
            terminated: None,
            tags,
        }
    }
}

/// The default subnet of a zone, or of the first that has one.
pub fn default_subnet(context: &Context, zone: &str) -> Result<Kept<Subnet>, Fault> {
    let mut all = state::list::<Subnet>(context.state, "");
    all.retain(|one| one.record.default_for_az && (zone.is_empty() || one.record.availability_zone == zone));
    all.sort_by(|a, b| a.record.availability_zone.cmp(&b.record.availability_zone));
    all.into_iter().next().ok_or_else(|| {
        let default = state::list::<Vpc>(context.state, "").into_iter().any(|vpc| vpc.record.is_default);
        let message = if default {
            "No default subnet for this zone: name a SubnetId"
        } else {
            "No default VPC for this user: name a SubnetId"
        };
        Fault::new(if default { "MissingInput" } else { "VPCIdNotSpecified" }, message)
    })
}

/// ARN and id of the instance profile that is asked for by name or ARN.
fn profile_of(context: &Context, asked: &Value) -> Result<Option<(String, String)>, Fault> {
    let name = match (text(asked, "Name"), text(asked, "Arn")) {
        ("", "") => return Ok(None),
        ("", arn) => arn.rsplit('/').next().unwrap_or_default(),
        (name, _) => name,
    };
    let found = crate::iam::record::named::<InstanceProfile>(context.state, name);
    let found = found.ok_or_else(|| {
        invalid(format!("Value ({name}) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name"))
    })?;
    Ok(Some((found.record.common.arn, found.record.common.id)))
}
