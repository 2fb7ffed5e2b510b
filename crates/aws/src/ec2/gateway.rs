//! Internet gateways.

use serde_json::{Value, json};

use super::noun::{in_use, named, show_tags, tags_for};
use super::record::{InternetGateway, NetworkInterface, Vpc};
use crate::state::{self, Changes};
use crate::{Answer, Context, Fault};

pub fn create(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let gateway = InternetGateway {
        internet_gateway_id: context.ids.resource("igw"),
        vpc_id: None,
        tags: tags_for(input, "internet-gateway", &[])?,
    };
    let mut changes = Changes::default();
    changes.create("", &gateway.internet_gateway_id, &gateway);
    Ok(Answer::write(json!({"InternetGateway": show(&gateway, context)}), changes))
}

pub fn show(gateway: &InternetGateway, context: &Context) -> Value {
    let attachments: Vec<Value> =
        gateway.vpc_id.iter().map(|vpc| json!({"VpcId": vpc, "State": "available"})).collect();
    json!({
        "InternetGatewayId": gateway.internet_gateway_id, "OwnerId": context.account, "Attachments": attachments,
        "Tags": show_tags(&gateway.tags),
    })
}

pub fn attach(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut gateway = named::<InternetGateway>(context, input, "InternetGatewayId")?;
    let vpc = named::<Vpc>(context, input, "VpcId")?;
    let (id, vpc_id) = (&gateway.record.internet_gateway_id, &vpc.record.vpc_id);
    if let Some(other) = &gateway.record.vpc_id {
        let message = format!("resource {id} is already attached to network {other}");
        return Err(Fault::new("Resource.AlreadyAssociated", message));
    }
    let all = state::list::<InternetGateway>(context.state, "");
    if all.iter().any(|one| one.record.vpc_id.as_ref() == Some(vpc_id)) {
        let message = format!("Network {vpc_id} already has an internet gateway attached");
        return Err(Fault::new("InvalidParameterValue", message));
    }
    gateway.record.vpc_id = Some(vpc_id.clone());
    let mut changes = Changes::default();
    changes.update(&gateway);
    changes.update(&vpc);
    Ok(Answer::done(changes))
}

pub fn detach(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut gateway = named::<InternetGateway>(context, input, "InternetGatewayId")?;
    let vpc = named::<Vpc>(context, input, "VpcId")?.record.vpc_id;
    if gateway.record.vpc_id.as_ref() != Some(&vpc) {
        let message =
            format!("resource {} is not attached to network {vpc}", gateway.record.internet_gateway_id);
        return Err(Fault::new("Gateway.NotAttached", message));
    }
    let interfaces = state::list::<NetworkInterface>(context.state, "");
    let in_vpc = interfaces.iter().filter(|one| one.record.vpc_id == vpc);
    if in_vpc.into_iter().any(|one| super::address::public_of(context.state, &one.record).is_some()) {
        let message = format!(
            "Network {vpc} has some mapped public address(es). Please unmap those public address(es) before detaching the gateway."
        );
        return Err(Fault::new("DependencyViolation", message));
    }
    gateway.record.vpc_id = None;
    let mut changes = Changes::default();
    changes.update(&gateway);
    Ok(Answer::done(changes))
}

pub fn delete(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let gateway = named::<InternetGateway>(context, input, "InternetGatewayId")?;
    if gateway.record.vpc_id.is_some() {
        return Err(in_use("internetGateway", &gateway.record.internet_gateway_id));
    }
    let mut changes = Changes::default();
    changes.delete(&gateway);
    Ok(Answer::done(changes))
}
