//! What EKS has and Ekso has nothing behind: refused with AWS's kinds of errors, and listed as empty. The README has the list.

use serde_json::{Value, json};

use super::cluster;
use super::fault::{invalid, not_found, unsupported};
use super::update::text;
use crate::{Answer, Context, Fault};

type Refused = Result<Answer, Fault>;

/// Refuses an operation on a cluster, which must exist: a wrong name is told first.
fn of_cluster(context: &Context, input: &Value, fault: Fault) -> Refused {
    let name = text(input, "clusterName");
    cluster::find(context, name)?;
    Err(fault.with("clusterName", name))
}

fn empty(context: &Context, input: &Value, member: &str) -> Refused {
    cluster::find(context, text(input, "clusterName"))?;
    Ok(Answer::read(json!({member: []})))
}

pub fn encryption(context: &mut Context, input: &Value) -> Refused {
    of_cluster(context, input, unsupported("Envelope encryption with KMS"))
}

pub fn capability(context: &mut Context, input: &Value) -> Refused {
    of_cluster(context, input, unsupported("EKS Capabilities"))
}

pub fn no_capability(context: &mut Context, input: &Value) -> Refused {
    let name = text(input, "capabilityName");
    of_cluster(context, input, not_found(format!("No capability found with name: {name}")))
}

pub fn no_capabilities(context: &mut Context, input: &Value) -> Refused {
    empty(context, input, "capabilities")
}

pub fn anywhere(_: &mut Context, _: &Value) -> Refused {
    Err(unsupported("EKS Anywhere"))
}

pub fn no_subscription(_: &mut Context, input: &Value) -> Refused {
    Err(not_found(format!("No subscription found for ID: {}", text(input, "id"))))
}

pub fn no_subscriptions(_: &mut Context, _: &Value) -> Refused {
    Ok(Answer::read(json!({"subscriptions": []})))
}

pub fn register(_: &mut Context, _: &Value) -> Refused {
    Err(unsupported("The EKS Connector"))
}

pub fn deregister(context: &mut Context, input: &Value) -> Refused {
    let name = text(input, "name");
    let found = cluster::find(context, name)?;
    let why = format!("Cluster {} was not registered with the EKS Connector", found.name());
    Err(invalid(why).with("clusterName", name))
}
