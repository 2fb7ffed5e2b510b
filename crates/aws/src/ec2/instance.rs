//! Instances. A call says what is wanted; whoever follows the account makes it so and writes the state.

use object::Time;
use serde_json::{Value, json};

use super::allocate::{Addresses, Public};
use super::noun::{
    Filters, find, invalid, items, lacking, missing, named, tags_for, text, texts, unsupported,
};
use super::record::{
    Attachment, FargateTask, Instance, MetadataOptions, NetworkInterface, SiteNode, State, Subnet, Tags, Vpc,
    Wanted,
};
use super::{
    address, instance_show, instance_type, interface, key_pair, launch_options, launch_template, place,
    security_group, user_data,
};
use crate::eks::ClusterRecord;
use crate::iam::record::InstanceProfile;
use crate::state::{self, Changes, Kept};
use crate::{Answer, Context, Fault};

/// The most that one call starts.
const LIMIT: u64 = 100;
/// What tag specifications of a launch may speak of.
const TAGGED_WITH_INSTANCES: &[&str] =
    &["elastic-gpu", "instance", "network-interface", "spot-instances-request", "volume"];
/// How long a terminated one is shown.
const SHOWN_SECONDS: i64 = 3_600;
/// How long one that was launched with a client token is remembered: so long a call that is sent again starts nothing.
/// <https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html>
const TOKEN_SECONDS: i64 = 24 * 3_600;
/// The most pods of a small and of a large node. <https://docs.aws.amazon.com/eks/latest/userguide/choosing-instance-type.html>
const PODS_OF_SMALL: u32 = 110;
const PODS_OF_LARGE: u32 = 250;
const LARGE_CPUS: u32 = 30;

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
    subnet: Kept<Subnet>,
    groups: Vec<String>,
    /// An interface that is there already, instead of a new one.
    existing: Option<Kept<NetworkInterface>>,
    private_ip: String,
    secondary: u64,
    has_public_ip: bool,
    /// The length of the range for its pods; none if it is no node.
    pod_prefix: Option<u8>,
    delete_interface: bool,
    spec: Value,
    profile: Option<(String, String)>,
    tags: Tags,
    interface_tags: Tags,
    site_nodes: Vec<SiteNode>,
    fargate: Option<FargateTask>,
}

impl Launch {
    fn of(context: &Context, spec: &Value, given: Given) -> Result<Self, Fault> {
        check_options(spec)?;
        let image = match text(spec, "ImageId") {
            "" => return Err(lacking("ImageId")),
            id => place::image(id)?,
        };
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
        if let Some(name) = spec["KeyName"].as_str().filter(|name| !name.is_empty()) {
            key_pair::check(context, name)?;
        }
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
        let has_public_ip =
            first["AssociatePublicIpAddress"].as_bool().unwrap_or(subnet.record.map_public_ip_on_launch);
        let joins = spec["UserData"].as_str().and_then(user_data::read);
        let pods = match &kind {
            None if given.fargate.is_some() => Some(1),
            None => Some(PODS_OF_SMALL),
            Some(kind) => joins.map(|joins| joins.max_pods.unwrap_or_else(|| max_pods(kind))),
        };
        let pod_prefix = pods.map(pod_prefix);
        let mut tags = tags_for(spec, "instance", TAGGED_WITH_INSTANCES)?;
        tags.extend(given.tags);
        Ok(Self {
            image,
            has_public_ip: has_public_ip && existing.is_none(),
            pod_prefix: pod_prefix.filter(|_| existing.is_none()),
            delete_interface: first["DeleteOnTermination"].as_bool().unwrap_or(existing.is_none()),
            private_ip: [text(&first, "PrivateIpAddress"), text(spec, "PrivateIpAddress")].concat(),
            secondary: first["SecondaryPrivateIpAddressCount"].as_u64().unwrap_or_default().min(50),
            profile: profile_of(context, &spec["IamInstanceProfile"])?,
            tags,
            interface_tags: tags_for(spec, "network-interface", TAGGED_WITH_INSTANCES)?,
            kind: kind.map_or_else(|| text(spec, "InstanceType").to_owned(), |kind| kind.name),
            site_nodes: given.site_nodes,
            fargate: given.fargate,
            subnet,
            groups,
            existing,
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
        if count > 1 && (self.existing.is_some() || !self.private_ip.is_empty()) {
            return Err(invalid("One interface or address is for one instance: MaxCount is 1"));
        }
        let mut addresses = Addresses::of(context.state, &self.subnet.record);
        let mut public = if self.has_public_ip { Some(Public::of(context.state)?) } else { None };
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
        changes.update(&self.subnet);
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
            delete_on_termination: self.delete_interface,
            attached: context.now,
        });
        if let Some(existing) = &mut self.existing {
            existing.record.attachment = attachment;
            changes.update(existing);
            return Ok(existing.record.clone());
        }
        let private_ip = interface::take(addresses, &self.private_ip)?;
        let mut interface = interface::bare(context, &self.subnet.record, private_ip);
        for _ in 0..self.secondary {
            interface.secondary.push(addresses.take()?);
        }
        interface.prefix = self.pod_prefix.map(|prefix| addresses.take_range(prefix)).transpose()?;
        interface.public_ip = public.map(Public::take).transpose()?;
        interface.groups.clone_from(&self.groups);
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
            vpc_id: self.subnet.record.vpc_id.clone(),
            subnet_id: self.subnet.record.subnet_id.clone(),
            availability_zone: self.subnet.record.availability_zone.clone(),
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

/// How many pods a node of a type takes unless its user data says otherwise.
pub fn max_pods(kind: &instance_type::InstanceType) -> u32 {
    kind.max_pods().min(most_pods(kind))
}

/// How many it takes if each of its addresses were a prefix.
pub fn max_pods_of_prefixes(kind: &instance_type::InstanceType) -> u32 {
    kind.max_pods_of_prefixes().min(most_pods(kind))
}

fn most_pods(kind: &instance_type::InstanceType) -> u32 {
    if kind.cpus > LARGE_CPUS { PODS_OF_LARGE } else { PODS_OF_SMALL }
}

/// The length of a range that has an address for each pod. The network's and the broadcast's are for none.
fn pod_prefix(pods: u32) -> u8 {
    let bits =
        u8::try_from((pods.clamp(1, PODS_OF_LARGE) + 2).next_power_of_two().trailing_zeros()).unwrap_or(8);
    // Delegated prefixes have 16 addresses.
    32 - bits.max(4)
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

pub fn describe(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut reservations: Vec<(String, Vec<Value>)> = Vec::new();
    for instance in shown(context, input)? {
        let id = text(&instance, "ReservationId").to_owned();
        match reservations.iter_mut().find(|(known, _)| *known == id) {
            Some((_, instances)) => instances.push(instance),
            None => reservations.push((id, vec![instance])),
        }
    }
    let shown: Vec<Value> = reservations
        .into_iter()
        .map(|(id, instances)| instance_show::reservation(context, &id, instances))
        .collect();
    Ok(Answer::read(json!({"Reservations": shown})))
}

/// Those that are asked for, but for what was terminated long ago.
fn shown(context: &Context, input: &Value) -> Result<Vec<Value>, Fault> {
    let is_shown = |item: &Value| {
        let instance = state::get::<Instance>(context.state, "", text(item, "InstanceId"));
        instance.is_some_and(|Kept { record, .. }| !is_past(&record, context.now) && record.fargate.is_none())
    };
    let all = super::noun::described::<Instance>(context, input)?;
    Ok(all.into_iter().filter(is_shown).collect())
}

/// Whether it was terminated so long ago that nobody is told of it.
fn is_past(instance: &Instance, now: Time) -> bool {
    instance.terminated.is_some_and(|at| now.secs_since(at) > SHOWN_SECONDS)
}

/// When the record of one that is terminated is of no more use; none of one that is not.
pub fn forgotten_at(instance: &Instance) -> Option<Time> {
    let seconds = if instance.client_token.is_empty() { SHOWN_SECONDS } else { TOKEN_SECONDS };
    Some(instance.terminated?.plus_secs(seconds))
}

pub fn describe_status(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    const FILTERS: &[(&str, &str)] = &[
        ("availability-zone", "AvailabilityZone"),
        ("instance-state-code", "InstanceState.Code"),
        ("instance-state-name", "InstanceState.Name"),
    ];
    let filters = Filters::of(input, FILTERS)?;
    for id in texts(input, "InstanceIds") {
        find::<Instance>(context.state, id)?;
    }
    let ids = texts(input, "InstanceIds");
    let all = state::list::<Instance>(context.state, "").into_iter().map(|kept| kept.record);
    let all = all.filter(|one| one.fargate.is_none() && !is_past(one, context.now));
    let wanted = all.filter(|one| ids.is_empty() || ids.contains(&one.instance_id.as_str()));
    let wanted = wanted.filter(|one| input["IncludeAllInstances"] == true || one.state == State::Running);
    let shown = wanted.map(|one| instance_show::status(&one)).filter(|item| filters.admit(item));
    Ok(Answer::read(json!({"InstanceStatuses": shown.collect::<Vec<_>>()})))
}

/// The instances of an input; one that is missing is a fault for all.
fn asked(context: &Context, input: &Value) -> Result<Vec<Kept<Instance>>, Fault> {
    let ids = texts(input, "InstanceIds");
    if ids.is_empty() {
        return Err(lacking("InstanceIds"));
    }
    let found = |id: &str| {
        let found: Kept<Instance> = find(context.state, id)?;
        let is_hidden = found.record.fargate.is_some() || is_past(&found.record, context.now);
        if is_hidden { Err(missing::<Instance>(id)) } else { Ok(found) }
    };
    ids.into_iter().map(found).collect()
}

fn change(instance: &Instance, before: State) -> Value {
    let told = |state: State| {
        let (code, name) = state.told();
        json!({"Code": code, "Name": name})
    };
    json!({"InstanceId": instance.instance_id, "PreviousState": told(before), "CurrentState": told(instance.state)})
}

fn wrong_state(id: &str, to: &str) -> Fault {
    let message = format!("The instance '{id}' is not in a state from which it can be {to}.");
    Fault::new("IncorrectInstanceState", message)
}

pub fn start(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    turn(context, input, "StartingInstances", |instance, _| {
        match instance.state {
            State::Stopped => instance.state = State::Pending,
            State::Pending | State::Running => {}
            _ => return Err(wrong_state(&instance.instance_id, "started")),
        }
        instance.wanted = Wanted::Running;
        instance.reason = None;
        Ok(())
    })
}

pub fn stop(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    if input["Hibernate"] == true {
        return Err(unsupported("hibernation"));
    }
    turn(context, input, "StoppingInstances", |instance, _| {
        match instance.state {
            State::Running | State::Pending => instance.state = State::Stopping,
            State::Stopping | State::Stopped => {}
            _ => return Err(wrong_state(&instance.instance_id, "stopped")),
        }
        instance.wanted = Wanted::Stopped;
        instance.reason = Some(by_user());
        Ok(())
    })
}

fn by_user() -> (String, String) {
    (
        "Client.UserInitiatedShutdown".to_owned(),
        "Client.UserInitiatedShutdown: User initiated shutdown".to_owned(),
    )
}

pub fn terminate(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    turn(context, input, "TerminatingInstances", |instance, _| {
        if instance.disable_api_termination {
            let message = format!(
                "The instance '{}' may not be terminated. Modify its 'disableApiTermination' instance attribute and try again.",
                instance.instance_id
            );
            return Err(Fault::new("OperationNotPermitted", message));
        }
        if instance.state != State::Terminated {
            instance.state = State::ShuttingDown;
        }
        instance.wanted = Wanted::Terminated;
        instance.reason = Some(by_user());
        Ok(())
    })
}

/// Changes each of the instances, or none.
fn turn(
    context: &mut Context,
    input: &Value,
    list: &str,
    turn: fn(&mut Instance, &Context) -> Result<(), Fault>,
) -> Result<Answer, Fault> {
    let mut changes = Changes::default();
    let mut shown = Vec::new();
    for mut instance in asked(context, input)? {
        let before = instance.record.state;
        turn(&mut instance.record, context)?;
        shown.push(change(&instance.record, before));
        changes.update(&instance);
    }
    Ok(Answer::write(json!({(list): shown}), changes))
}

pub fn reboot(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut changes = Changes::default();
    for mut instance in asked(context, input)? {
        if instance.record.state != State::Running {
            return Err(wrong_state(&instance.record.instance_id, "rebooted"));
        }
        instance.record.reboots += 1;
        changes.update(&instance);
    }
    Ok(Answer::done(changes))
}

/// What became of an instance, written by whoever follows the account. `Terminated` frees its interfaces and addresses.
pub fn observe(
    state: &object::Snapshot,
    now: object::Time,
    id: &str,
    observed: State,
    reason: Option<(String, String)>,
) -> Changes {
    let mut changes = Changes::default();
    let Some(mut instance) = state::get::<Instance>(state, "", id) else { return changes };
    let record = &mut instance.record;
    if record.state == observed && (reason.is_none() || record.reason == reason) {
        return changes;
    }
    record.state = observed;
    // What runs has got over whatever kept it from running.
    record.reason = reason.or(record.reason.take().filter(|_| observed != State::Running));
    if matches!(observed, State::Terminated | State::Stopped) {
        for mut interface in interface::of_instance(state, id) {
            let goes = observed == State::Terminated;
            if goes && interface.record.attachment.as_ref().is_some_and(|one| one.delete_on_termination) {
                interface::remove(state, &mut changes, &interface);
                continue;
            }
            if goes {
                interface.record.attachment = None;
            }
            // Given for as long as the instance runs.
            interface.record.public_ip = None;
            changes.update(&interface);
        }
    }
    match observed {
        State::Terminated => record.terminated = Some(now),
        // One that went down by itself stays down.
        State::Stopped if record.wanted == Wanted::Running => record.wanted = Wanted::Stopped,
        _ => {}
    }
    changes.update(&instance);
    changes
}

/// An instance starts as a node of a cluster, or as none: written before it is one, so that whatever ends it knows whom to tell. Of a
/// cluster that is gone, or about to go, nobody becomes a node.
pub fn joins(state: &object::Snapshot, id: &str, cluster: Option<&str>) -> Changes {
    let mut changes = Changes::default();
    let Some(mut instance) = state::get::<Instance>(state, "", id) else { return changes };
    let cluster = cluster.and_then(|name| state::get::<ClusterRecord>(state, "", name));
    let cluster = cluster.filter(|cluster| cluster.record.shown.status != "DELETING");
    let before = instance.record.clone();
    instance.record.joined = cluster.as_ref().map(|cluster| cluster.name().to_owned());
    if instance.record != before {
        changes.update(&instance);
        cluster.iter().for_each(|cluster| changes.require(cluster));
    }
    changes
}

/// Gives an instance that starts again a public address, if its subnet's do.
pub fn readdress(context: &Context, id: &str) -> Changes {
    let mut changes = Changes::default();
    let Some(mut first) = interface::primary_of(context.state, id) else { return changes };
    let subnet = state::get::<Subnet>(context.state, "", &first.record.subnet_id);
    let wants_one = subnet.is_some_and(|subnet| subnet.record.map_public_ip_on_launch);
    if !wants_one || address::public_of(context.state, &first.record).is_some() {
        return changes;
    }
    if let Ok(mut public) = Public::of(context.state)
        && let Ok(given) = public.take()
    {
        first.record.public_ip = Some(given);
        public.commit(&mut changes);
        changes.update(&first);
    }
    changes
}

pub fn modify(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut instance = named::<Instance>(context, input, "InstanceId")?;
    let record = &mut instance.record;
    let mut changes = Changes::default();
    if let Some(value) = input["DisableApiTermination"]["Value"].as_bool() {
        record.disable_api_termination = value;
    } else if items(input, "Groups").next().is_some() {
        if let Some(mut first) = interface::primary_of(context.state, &record.instance_id) {
            first.record.groups = interface::groups(context, &record.vpc_id, &texts(input, "Groups"))?;
            changes.update(&first);
        }
    } else if let Some(kind) = input["InstanceType"]["Value"].as_str() {
        if record.state != State::Stopped {
            return Err(wrong_state(&record.instance_id, "changed"));
        }
        record.instance_type = instance_type::asked(kind)?.name;
    } else if let Some(data) = input["UserData"]["Value"].as_str() {
        if record.state != State::Stopped {
            return Err(wrong_state(&record.instance_id, "changed"));
        }
        record.user_data = Some(data.to_owned());
    } else if input["SourceDestCheck"]["Value"] == false {
        return Err(unsupported(
            "instances that route for others: a VPC's router takes packets of an interface's own addresses only",
        ));
    } else if input["SourceDestCheck"]["Value"] != true {
        return Err(unsupported("a change of this attribute"));
    }
    changes.update(&instance);
    Ok(Answer::done(changes))
}

pub fn describe_attribute(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let instance = named::<Instance>(context, input, "InstanceId")?.record;
    let value = |value: Value| json!({"Value": value});
    let (member, shown) = match text(input, "Attribute") {
        "disableApiStop" => ("DisableApiStop", value(json!(false))),
        "disableApiTermination" => ("DisableApiTermination", value(json!(instance.disable_api_termination))),
        "ebsOptimized" => ("EbsOptimized", value(json!(instance.ebs_optimized))),
        "enaSupport" => ("EnaSupport", value(json!(true))),
        "groupSet" => {
            let groups =
                interface::primary_of(context.state, &instance.instance_id).map(|one| one.record.groups);
            ("Groups", interface::group_list(context, &groups.unwrap_or_default()).into())
        }
        "instanceInitiatedShutdownBehavior" => ("InstanceInitiatedShutdownBehavior", value(json!("stop"))),
        "instanceType" => ("InstanceType", value(json!(instance.instance_type))),
        "rootDeviceName" => ("RootDeviceName", value(json!(place::ROOT_DEVICE))),
        "sourceDestCheck" => ("SourceDestCheck", value(json!(true))),
        "userData" => ("UserData", instance.user_data.map_or_else(|| json!({}), |data| value(json!(data)))),
        other => return Err(invalid(format!("Value ({other}) for parameter attribute is invalid."))),
    };
    Ok(Answer::read(json!({"InstanceId": instance.instance_id, (member): shown})))
}

pub fn modify_metadata(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut instance = named::<Instance>(context, input, "InstanceId")?;
    check_options(&json!({"MetadataOptions": input}))?;
    let metadata = &mut instance.record.metadata;
    match text(input, "HttpEndpoint") {
        "" => {}
        endpoint => metadata.is_enabled = endpoint == "enabled",
    }
    match text(input, "InstanceMetadataTags") {
        "" => {}
        tags => metadata.shows_tags = tags == "enabled",
    }
    if let Some(hops) = input["HttpPutResponseHopLimit"].as_u64() {
        metadata.hop_limit = u8::try_from(hops.clamp(1, 64)).unwrap_or(1);
    }
    let shown = instance_show::metadata(&instance.record.metadata);
    let mut changes = Changes::default();
    changes.update(&instance);
    let output = json!({"InstanceId": instance.record.instance_id, "InstanceMetadataOptions": shown});
    Ok(Answer::write(output, changes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stories::Account;

    #[test]
    fn a_launch_that_is_sent_again_starts_nothing_though_its_instance_is_long_gone() {
        let mut account = Account::with_vpc();
        let root = account.caller("root").expect("a caller");
        let image = place::images()[0].id.clone();
        let input = json!({
            "ImageId": image, "MinCount": 1, "MaxCount": 1, "InstanceType": "t3.medium", "ClientToken": "once",
        });
        let first = account.call("RunInstances", &root, &input).expect("it runs");
        let id = first["Instances"][0]["InstanceId"].clone();
        let mut instance = state::list::<Instance>(&account.state, "").remove(0);
        let ended = account.now;
        (instance.record.wanted, instance.record.state) = (Wanted::Terminated, State::Terminated);
        instance.record.terminated = Some(ended);
        let mut changes = Changes::default();
        changes.update(&instance);
        changes.apply(&mut account.state);

        account.now = ended.plus_secs(2 * SHOWN_SECONDS);
        let again = account.call("RunInstances", &root, &input).expect("the same again");
        assert_eq!(
            (&again["Instances"][0]["InstanceId"], again["Instances"].as_array().map(Vec::len)),
            (&id, Some(1))
        );
        assert_eq!(state::list::<Instance>(&account.state, "").len(), 1);
        // Nobody else hears of it any more.
        for operation in ["DescribeInstances", "DescribeInstanceStatus"] {
            let input = if operation == "DescribeInstances" {
                json!({})
            } else {
                json!({"IncludeAllInstances": true})
            };
            let shown = account.call(operation, &root, &input).expect("a list");
            assert!(!shown.to_string().contains("i-"), "{operation}: {shown}");
        }
        let refused = account.call("TerminateInstances", &root, &json!({"InstanceIds": [id]}));
        assert_eq!(refused.expect_err("it is gone").code, "InvalidInstanceID.NotFound");
        assert_eq!(forgotten_at(&instance.record), Some(ended.plus_secs(TOKEN_SECONDS)));
        instance.record.client_token.clear();
        assert_eq!(forgotten_at(&instance.record), Some(ended.plus_secs(SHOWN_SECONDS)));
        instance.record.terminated = None;
        assert_eq!(forgotten_at(&instance.record), None);
    }
}
