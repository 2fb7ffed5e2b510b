//! The VPC that an account has from its first moment: three zones, each with a public and a private subnet, so that a tutorial's commands
//! need nothing else.

use std::net::Ipv4Addr;

use plan::net::Cidr;

use super::record::{
    Address, Association, InternetGateway, POOL, PublicPool, Route, RouteTable, Subnet, Tags, Target,
};
use super::{nat_gateway, place, vpc};
use crate::Context;
use crate::state::{self, Changes};

const RANGE: Cidr = Cidr::new(Ipv4Addr::new(172, 31, 0, 0), 16);
const NAT_GATEWAY: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 9);
const ANYWHERE: Cidr = Cidr::new(Ipv4Addr::UNSPECIFIED, 0);

/// Says which public addresses there are, and makes the default VPC the first time that it is said.
pub fn default_vpc(context: &mut Context, pool: PublicPool) -> Changes {
    let mut changes = Changes::default();
    if let Some(mut known) = state::get::<PublicPool>(context.state, "", POOL) {
        if known.record != pool {
            known.record = pool;
            changes.update(&known);
        }
        return changes;
    }
    let mut made = vpc::Made::new(context, RANGE, true, named("default"));
    let vpc = made.vpc.vpc_id.clone();
    let gateway = InternetGateway {
        internet_gateway_id: context.ids.resource("igw"),
        vpc_id: Some(vpc.clone()),
        tags: named("default"),
    };
    let route = |target| vec![Route { destination: ANYWHERE, target }];
    made.main.routes = route(Target::InternetGateway(gateway.internet_gateway_id.clone()));
    made.main.tags = named("public");
    let mut subnets = Vec::new();
    for (index, zone) in (0..).zip(place::zones(context.region)) {
        subnets.push(subnet(context, &vpc, &zone, 16 * index, true));
        subnets.push(subnet(context, &vpc, &zone, 128 + 16 * index, false));
    }
    let mut elastic = Address {
        allocation_id: context.ids.resource("eipalloc"),
        public_ip: pool.first,
        association: None,
        tags: named("default"),
    };
    let (nat, interface) =
        nat_gateway::make(context, &subnets[0], &mut elastic, NAT_GATEWAY, named("default"));
    let associations = subnets.iter().filter(|subnet| !subnet.default_for_az).map(|subnet| Association {
        id: context.ids.resource("rtbassoc"),
        subnet_id: Some(subnet.subnet_id.clone()),
    });
    let associations = associations.collect();
    let private = RouteTable {
        route_table_id: context.ids.resource("rtb"),
        vpc_id: vpc,
        routes: route(Target::NatGateway(nat.nat_gateway_id.clone())),
        associations,
        tags: named("private"),
    };
    made.write(&mut changes);
    changes.create("", &gateway.internet_gateway_id, &gateway);
    subnets.iter().for_each(|subnet| changes.create("", &subnet.subnet_id, subnet));
    changes.create("", &elastic.allocation_id, &elastic);
    changes.create("", &interface.network_interface_id, &interface);
    changes.create("", &nat.nat_gateway_id, &nat);
    changes.create("", &private.route_table_id, &private);
    changes.create("", POOL, &pool);
    changes
}

/// Tagged as load balancers look for them.
fn subnet(context: &mut Context, vpc: &str, zone: &str, third: u8, is_public: bool) -> Subnet {
    let (kind, role) = if is_public {
        ("public", "kubernetes.io/role/elb")
    } else {
        ("private", "kubernetes.io/role/internal-elb")
    };
    let mut tags = named(&format!("{kind} {zone}"));
    tags.insert(role.to_owned(), "1".to_owned());
    Subnet {
        subnet_id: context.ids.resource("subnet"),
        vpc_id: vpc.to_owned(),
        cidr_block: Cidr::new(Ipv4Addr::new(172, 31, third, 0), 20),
        availability_zone: zone.to_owned(),
        map_public_ip_on_launch: is_public,
        default_for_az: is_public,
        tags,
    }
}

fn named(name: &str) -> Tags {
    [("Name".to_owned(), name.to_owned())].into()
}
