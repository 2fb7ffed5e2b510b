//! From the account's records to what routers should be.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use aws::ec2;
use aws::ec2::record::{
    self, Instance, InternetGateway, NatGateway, NetworkInterface, RouteTable, SecurityGroup, Subnet, Vpc,
};
use aws::eks::REQUESTER;
use aws::state::{self, Record};
use machines::{Interface, Peer, Place, Rule, Target, Traffic, VpcConfig};
use object::Snapshot;

/// Every VPC of the account.
pub fn wanted(account: &Snapshot) -> Vec<VpcConfig> {
    let all = Records::of(account);
    state::list::<Vpc>(account, "").iter().map(|vpc| all.vpc(account, &vpc.record)).collect()
}

/// One of them.
pub fn wanted_one(account: &Snapshot, id: &str) -> Option<VpcConfig> {
    let vpc = state::get::<Vpc>(account, "", id)?;
    Some(Records::of(account).vpc(account, &vpc.record))
}

/// What all VPCs look into.
struct Records {
    gateways: Vec<InternetGateway>,
    groups: Vec<SecurityGroup>,
    instances: BTreeMap<String, Instance>,
    interfaces: Vec<NetworkInterface>,
    nat_gateways: Vec<NatGateway>,
    subnets: Vec<Subnet>,
    tables: Vec<RouteTable>,
}

fn all<T: Record>(account: &Snapshot) -> Vec<T> {
    state::list::<T>(account, "").into_iter().map(|kept| kept.record).collect()
}

impl Records {
    fn of(account: &Snapshot) -> Self {
        let instances: Vec<Instance> = all(account);
        Self {
            gateways: all(account),
            groups: all(account),
            instances: instances.into_iter().map(|one| (one.instance_id.clone(), one)).collect(),
            interfaces: all(account),
            nat_gateways: all(account),
            subnets: all(account),
            tables: all(account),
        }
    }

    fn vpc(&self, account: &Snapshot, vpc: &Vpc) -> VpcConfig {
        let id = &vpc.vpc_id;
        let tables: Vec<&RouteTable> = self.tables.iter().filter(|one| one.vpc_id == *id).collect();
        let subnets = self.subnets.iter().filter(|one| one.vpc_id == *id);
        let interfaces = self.interfaces.iter().filter(|one| one.vpc_id == *id);
        let nat_gateways = self.nat_gateways.iter().filter(|one| one.vpc_id == *id && one.deleted.is_none());
        VpcConfig {
            id: id.clone(),
            cidrs: vpc.ranges().collect(),
            subnets: subnets.filter_map(|one| subnet(one, &tables)).collect(),
            route_tables: tables.iter().map(|one| self.route_table(one)).collect(),
            nat_gateways: nat_gateways.map(nat_gateway).collect(),
            groups: self.groups.iter().filter(|one| one.vpc_id == *id).map(group).collect(),
            interfaces: interfaces.filter_map(|one| self.interface(account, one)).collect(),
        }
    }

    fn route_table(&self, table: &RouteTable) -> machines::RouteTable {
        let is_attached = |id: &String| {
            let mut gateways = self.gateways.iter();
            gateways.any(|one| one.internet_gateway_id == *id && one.vpc_id.as_ref() == Some(&table.vpc_id))
        };
        let routes = table.routes.iter().map(|route| machines::Route {
            destination: route.destination,
            target: match &route.target {
                record::Target::InternetGateway(id) if is_attached(id) => Target::InternetGateway,
                record::Target::InternetGateway(_) => Target::Blackhole,
                record::Target::NatGateway(id) => Target::NatGateway(id.clone()),
            },
        });
        machines::RouteTable { id: table.route_table_id.clone(), routes: routes.collect() }
    }

    /// One that leads somewhere: to a machine, or to the server.
    fn interface(&self, account: &Snapshot, interface: &NetworkInterface) -> Option<Interface> {
        let attachment = interface.attachment.as_ref();
        let instance = attachment.and_then(|one| self.instances.get(one.instance_id.as_ref()?));
        let place = match (instance, attachment) {
            (Some(_), Some(attachment)) if attachment.device_index == 0 => Place::Machine,
            (Some(instance), _) => Place::Behind(self.primary_of(&instance.instance_id)?),
            // What the server itself listens at.
            _ if interface.requester.as_deref() == Some(REQUESTER) => Place::Router,
            _ => return None,
        };
        Some(Interface {
            id: interface.network_interface_id.clone(),
            subnet: interface.subnet_id.clone(),
            address: interface.private_ip,
            secondary: interface.secondary.clone(),
            ranges: interface.prefix.into_iter().collect(),
            public: ec2::public_of(account, interface),
            groups: interface.groups.clone(),
            place,
            metadata: instance.is_some_and(|instance| instance.metadata.is_enabled),
        })
    }

    fn primary_of(&self, instance: &str) -> Option<Ipv4Addr> {
        let is_first = |one: &&NetworkInterface| {
            let attachment = one.attachment.as_ref();
            attachment
                .is_some_and(|one| one.device_index == 0 && one.instance_id.as_deref() == Some(instance))
        };
        self.interfaces.iter().find(is_first).map(|one| one.private_ip)
    }
}

/// A subnet has its own table, or the VPC's main one.
fn subnet(subnet: &Subnet, tables: &[&RouteTable]) -> Option<machines::Subnet> {
    let is_its = |table: &&&RouteTable| {
        table.associations.iter().any(|one| one.subnet_id.as_ref() == Some(&subnet.subnet_id))
    };
    let table = tables.iter().find(is_its).or_else(|| tables.iter().find(|table| table.is_main()))?;
    Some(machines::Subnet {
        id: subnet.subnet_id.clone(),
        zone: subnet.availability_zone.clone(),
        cidr: subnet.cidr_block,
        route_table: table.route_table_id.clone(),
    })
}

fn nat_gateway(gateway: &NatGateway) -> machines::NatGateway {
    machines::NatGateway {
        id: gateway.nat_gateway_id.clone(),
        subnet: gateway.subnet_id.clone(),
        address: gateway.private_ip,
        public: gateway.public_ip,
    }
}

fn group(group: &SecurityGroup) -> machines::SecurityGroup {
    let rules = |is_egress: bool| {
        group.rules.iter().filter(|rule| rule.is_egress == is_egress).filter_map(rule).collect()
    };
    machines::SecurityGroup { id: group.group_id.clone(), ingress: rules(false), egress: rules(true) }
}

/// None of what says nothing about IPv4.
fn rule(rule: &record::GroupRule) -> Option<Rule> {
    let peer = match &rule.peer {
        record::Peer::Ipv4(range) => Peer::Range(*range),
        record::Peer::Group(id) => Peer::Group(id.clone()),
        record::Peer::Ipv6(_) => return None,
    };
    let port = |number: i32| u16::try_from(number).unwrap_or(u16::MAX);
    let traffic = match rule.protocol.as_str() {
        "-1" => Traffic::All,
        "tcp" => Traffic::Tcp(port(rule.from), port(rule.to)),
        "udp" => Traffic::Udp(port(rule.from), port(rule.to)),
        "icmp" => Traffic::Icmp(u8::try_from(rule.from).ok(), u8::try_from(rule.to).ok()),
        "icmpv6" => return None,
        number => Traffic::Protocol(number.parse().ok()?),
    };
    Some(Rule { traffic, peer })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use account::{Account, Identity};
    use serde_json::{Value, json};
    use store::Memory;

    use super::*;
    use crate::ec2::pool_of;

    async fn account() -> Arc<Account> {
        let identity = Identity { account: "111122223333".into(), region: "us-east-1".into() };
        let fill = |bytes: &mut [u8]| crate::pki::fill_random(bytes);
        let store = Arc::new(Memory::new());
        let account = Account::open(identity, store, Arc::new(crate::clock::now), Arc::new(fill)).await;
        let account = account.expect("an account");
        let pool = machines::Pool::choose("test", &[]).expect("a pool");
        let made = account.change(|context| ec2::genesis::default_vpc(context, pool_of(pool))).await;
        made.expect("a default VPC");
        account
    }

    async fn call(account: &Account, operation: &str, input: Value) -> Value {
        let called = account.call(&account.root(), "ec2", operation, &input).await;
        called.unwrap_or_else(|fault| panic!("{operation}: {}: {}", fault.code, fault.message))
    }

    #[tokio::test]
    async fn routers_are_what_the_account_says() {
        let account = account().await;
        let image = ec2::place::images()[0].id.clone();
        let run = json!({"ImageId": image, "MinCount": 1, "MaxCount": 1, "InstanceType": "t3.medium"});
        call(&account, "RunInstances", run).await;
        let [config] = wanted(&account.snapshot()).try_into().expect("one VPC");
        assert_eq!(config.subnets.len(), 6);
        assert_eq!(config.nat_gateways.len(), 1);
        // Public subnets have the main table, private ones the other.
        for subnet in &config.subnets {
            let table = config.route_tables.iter().find(|table| table.id == subnet.route_table);
            let target = &table.expect("a table").routes[0].target;
            let is_private = subnet.cidr.address().octets()[2] >= 128;
            assert_eq!(matches!(target, Target::NatGateway(_)), is_private, "{subnet:?}");
        }
        // The NAT gateway's interface is the router's own business.
        let [interface] = config.interfaces.as_slice() else { panic!("{:?}", config.interfaces) };
        assert_eq!(interface.place, Place::Machine);
        assert!(interface.metadata && interface.public.is_some());
        let [group] = config.groups.as_slice() else { panic!("{:?}", config.groups) };
        assert_eq!(group.ingress, [Rule::all(Peer::Group(group.id.clone()))]);
        assert_eq!(interface.groups, std::slice::from_ref(&group.id));
    }
}
