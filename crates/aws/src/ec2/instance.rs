//! Instances. A call says what is wanted; whoever follows the account makes it so and writes the state.

use object::Time;
use serde_json::{Value, json};

use super::allocate::Public;
use super::noun::{Filters, find, invalid, items, lacking, missing, named, text, texts, unsupported};
use super::record::{Instance, State, Subnet, Wanted};
use super::{address, instance_show, instance_type, interface, launch, place};
use crate::eks::ClusterRecord;
use crate::state::{self, Changes, Kept};
use crate::{Answer, Context, Fault};

/// How long a terminated one is shown.
const SHOWN_SECONDS: i64 = 3_600;
/// How long one that was launched with a client token is remembered: so long a call that is sent again starts nothing.
/// <https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html>
const TOKEN_SECONDS: i64 = 24 * 3_600;

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
    launch::check_options(&json!({"MetadataOptions": input}))?;
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
