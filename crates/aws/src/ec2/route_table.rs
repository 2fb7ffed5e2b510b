//! Route tables: where what leaves the VPC from a subnet goes. A subnet without a table of its own has the VPC's main one.

use plan::net::Cidr;
use serde_json::{Value, json};

use super::noun::{find, in_use, invalid, lacking, missing, named, show_tags, tags_for, text, unsupported};
use super::record::{Association, InternetGateway, NatGateway, Route, RouteTable, Subnet, Target, Vpc};
use crate::state::{self, Changes, Kept};
use crate::{Answer, Context, Fault};

pub fn create(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let vpc = named::<Vpc>(context, input, "VpcId")?;
    let table = RouteTable {
        route_table_id: context.ids.resource("rtb"),
        vpc_id: vpc.record.vpc_id.clone(),
        routes: Vec::new(),
        associations: Vec::new(),
        tags: tags_for(input, "route-table", &[])?,
    };
    let mut changes = Changes::default();
    changes.create("", &table.route_table_id, &table);
    changes.update(&vpc);
    Ok(Answer::write(json!({"RouteTable": show(&table, context)}), changes))
}

pub fn show(table: &RouteTable, context: &Context) -> Value {
    let associations = table.associations.iter().map(|association| {
        let mut shown = json!({
            "RouteTableAssociationId": association.id, "RouteTableId": table.route_table_id,
            "Main": association.subnet_id.is_none(), "AssociationState": {"State": "associated"},
        });
        if let Some(subnet) = &association.subnet_id {
            shown["SubnetId"] = json!(subnet);
        }
        shown
    });
    let vpc = state::get::<Vpc>(context.state, "", &table.vpc_id);
    // A VPC that is only being made has its first range in the answer to whoever made it.
    let local = vpc.iter().flat_map(|vpc| vpc.record.ranges());
    let local = local.map(|range| {
        json!({"DestinationCidrBlock": range, "GatewayId": "local", "Origin": "CreateRouteTable", "State": "active"})
    });
    let routes = table.routes.iter().map(|route| show_route(context, route));
    json!({
        "RouteTableId": table.route_table_id, "VpcId": table.vpc_id, "OwnerId": context.account,
        "Associations": associations.collect::<Vec<_>>(), "Routes": local.chain(routes).collect::<Vec<_>>(),
        "PropagatingVgws": [], "Tags": show_tags(&table.tags),
    })
}

fn show_route(context: &Context, route: &Route) -> Value {
    let (member, id) = match &route.target {
        Target::InternetGateway(id) => ("GatewayId", id),
        Target::NatGateway(id) => ("NatGatewayId", id),
    };
    let state = if leads_on(context, &route.target) { "active" } else { "blackhole" };
    json!({"DestinationCidrBlock": route.destination, (member): id, "Origin": "CreateRoute", "State": state})
}

/// Whether the target of a route is there still.
pub fn leads_on(context: &Context, target: &Target) -> bool {
    match target {
        Target::InternetGateway(id) => {
            let gateway = state::get::<InternetGateway>(context.state, "", id);
            gateway.is_some_and(|gateway| gateway.record.vpc_id.is_some())
        }
        Target::NatGateway(id) => {
            let gateway = state::get::<NatGateway>(context.state, "", id);
            gateway.is_some_and(|gateway| gateway.record.deleted.is_none())
        }
    }
}

pub fn delete(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let table = named::<RouteTable>(context, input, "RouteTableId")?;
    if !table.record.associations.is_empty() {
        return Err(in_use("routeTable", &table.record.route_table_id));
    }
    let mut changes = Changes::default();
    changes.delete(&table);
    Ok(Answer::done(changes))
}

/// The route that an input speaks of.
fn asked(context: &Context, input: &Value, table: &RouteTable) -> Result<Route, Fault> {
    let destination = destination(input)?;
    let vpc = find::<Vpc>(context.state, &table.vpc_id)?;
    if vpc.record.ranges().any(|range| range == destination) {
        let message = format!("The route identified by {destination} already exists.");
        return Err(Fault::new("RouteAlreadyExists", message));
    }
    if vpc
        .record
        .ranges()
        .any(|range| range.contains(destination.address()) && destination.prefix() > range.prefix())
    {
        return Err(unsupported("routes that are more specific than the VPC's own"));
    }
    let target = match (text(input, "GatewayId"), text(input, "NatGatewayId")) {
        ("", "") => {
            let given = input.as_object().into_iter().flat_map(|members| members.keys());
            let other = given.into_iter().find(|name| name.ends_with("Id") && *name != "RouteTableId");
            return match other {
                Some(other) => Err(unsupported(&format!("routes to what {other} names"))),
                None => Err(lacking("GatewayId")),
            };
        }
        (id, "") => {
            let gateway = find::<InternetGateway>(context.state, id)?;
            if gateway.record.vpc_id.as_ref() != Some(&table.vpc_id) {
                let message = format!(
                    "route table {} and network gateway {id} belong to different networks",
                    table.route_table_id
                );
                return Err(invalid(message));
            }
            Target::InternetGateway(id.to_owned())
        }
        (_, id) => {
            let gateway = find::<NatGateway>(context.state, id).map_err(|_| {
                let message = format!("The natGateway ID '{id}' does not exist");
                Fault::new("InvalidNatGatewayID.NotFound", message)
            })?;
            if gateway.record.vpc_id != table.vpc_id {
                let message = format!(
                    "route table {} and nat gateway {id} belong to different networks",
                    table.route_table_id
                );
                return Err(invalid(message));
            }
            Target::NatGateway(id.to_owned())
        }
    };
    Ok(Route { destination, target })
}

fn destination(input: &Value) -> Result<Cidr, Fault> {
    let given = text(input, "DestinationCidrBlock");
    if given.is_empty() {
        let other = text(input, "DestinationIpv6CidrBlock").is_empty();
        return Err(if other { lacking("DestinationCidrBlock") } else { unsupported("IPv6 in VPCs") });
    }
    given.parse().map_err(|_| {
        invalid(format!(
            "Value ({given}) for parameter destinationCidrBlock is invalid. This is not a valid CIDR block."
        ))
    })
}

pub fn create_route(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut table = named::<RouteTable>(context, input, "RouteTableId")?;
    let route = asked(context, input, &table.record)?;
    if let Some(known) = table.record.routes.iter().find(|known| known.destination == route.destination) {
        if known.target != route.target {
            let message = format!("The route identified by {} already exists.", route.destination);
            return Err(Fault::new("RouteAlreadyExists", message));
        }
        return Ok(Answer::read(json!({"Return": true})));
    }
    table.record.routes.push(route);
    let mut changes = Changes::default();
    changes.update(&table);
    Ok(Answer::write(json!({"Return": true}), changes))
}

pub fn replace_route(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut table = named::<RouteTable>(context, input, "RouteTableId")?;
    let route = asked(context, input, &table.record)?;
    let id = table.record.route_table_id.clone();
    let destination = route.destination;
    let known = table.record.routes.iter_mut().find(|known| known.destination == destination);
    *known.ok_or_else(|| no_route(&id, destination))? = route;
    let mut changes = Changes::default();
    changes.update(&table);
    Ok(Answer::done(changes))
}

pub fn delete_route(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let mut table = named::<RouteTable>(context, input, "RouteTableId")?;
    let destination = destination(input)?;
    let before = table.record.routes.len();
    table.record.routes.retain(|route| route.destination != destination);
    if table.record.routes.len() == before {
        return Err(no_route(&table.record.route_table_id, destination));
    }
    let mut changes = Changes::default();
    changes.update(&table);
    Ok(Answer::done(changes))
}

fn no_route(table: &str, destination: Cidr) -> Fault {
    let message = format!("no route with destination-cidr-block {destination} in route table {table}");
    Fault::new("InvalidRoute.NotFound", message)
}

pub fn associate(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    if !text(input, "GatewayId").is_empty() {
        return Err(unsupported("route tables of gateways"));
    }
    let mut table = named::<RouteTable>(context, input, "RouteTableId")?;
    let subnet = named::<Subnet>(context, input, "SubnetId")?;
    let id = &subnet.record.subnet_id;
    if subnet.record.vpc_id != table.record.vpc_id {
        let message = format!(
            "Route table {} and subnet {id} belong to different networks",
            table.record.route_table_id
        );
        return Err(invalid(message));
    }
    if let Some((other, known)) = association_of(context, |one| one.subnet_id.as_ref() == Some(id)) {
        if other.record.route_table_id != table.record.route_table_id {
            let message = format!(
                "the specified association for route table {} conflicts with an existing association",
                table.record.route_table_id
            );
            return Err(Fault::new("Resource.AlreadyAssociated", message));
        }
        return Ok(Answer::read(associated(&known.id)));
    }
    let association = Association {
        id: context.ids.resource("rtbassoc"),
        subnet_id: Some(subnet.record.subnet_id.clone()),
    };
    let output = associated(&association.id);
    table.record.associations.push(association);
    let mut changes = Changes::default();
    changes.update(&table);
    // Written, so that a subnet has one table only.
    changes.update(&subnet);
    Ok(Answer::write(output, changes))
}

fn associated(id: &str) -> Value {
    json!({"AssociationId": id, "AssociationState": {"State": "associated"}})
}

fn association_of(
    context: &Context,
    is_it: impl Fn(&Association) -> bool,
) -> Option<(Kept<RouteTable>, Association)> {
    let mut tables = state::list::<RouteTable>(context.state, "").into_iter();
    tables.find_map(|table| {
        let found = table.record.associations.iter().find(|one| is_it(one)).cloned()?;
        Some((table, found))
    })
}

fn no_association(id: &str) -> Fault {
    Fault::new("InvalidAssociationID.NotFound", format!("The association ID '{id}' does not exist"))
}

pub fn disassociate(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let id = text(input, "AssociationId");
    let (mut table, known) = association_of(context, |one| one.id == id).ok_or_else(|| no_association(id))?;
    if known.subnet_id.is_none() {
        return Err(invalid(format!("cannot disassociate the main route table association {id}")));
    }
    table.record.associations.retain(|association| association.id != id);
    let mut changes = Changes::default();
    changes.update(&table);
    Ok(Answer::done(changes))
}

/// Gives a subnet, or the VPC, another table.
pub fn replace_association(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let id = text(input, "AssociationId");
    let (mut old, known) = association_of(context, |one| one.id == id).ok_or_else(|| no_association(id))?;
    let mut new = named::<RouteTable>(context, input, "RouteTableId")?;
    if new.record.vpc_id != old.record.vpc_id {
        return Err(missing::<RouteTable>(&new.record.route_table_id));
    }
    let association = Association { id: context.ids.resource("rtbassoc"), subnet_id: known.subnet_id };
    let output = json!({"NewAssociationId": association.id, "AssociationState": {"State": "associated"}});
    let mut changes = Changes::default();
    if old.record.route_table_id == new.record.route_table_id {
        new.record.associations.retain(|one| one.id != id);
    } else {
        old.record.associations.retain(|one| one.id != id);
        changes.update(&old);
    }
    new.record.associations.push(association);
    changes.update(&new);
    Ok(Answer::write(output, changes))
}
