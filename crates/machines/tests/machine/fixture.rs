//! A site of a folder of its own, with a VPC that has a public and a private subnet.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use machines::{
    Cidr, Interface, Limits, Link, Machine, MachineSpec, NatGateway, Peer, Place, Route, RouteTable, Rule,
    SecurityGroup, Site, Subnet, Target, VpcConfig,
};

use crate::PORT;

pub const PATIENCE: Duration = Duration::from_secs(20);
pub const VPC: &str = "vpc-test";
pub const PUBLIC: Cidr = Cidr::new(Ipv4Addr::new(172, 31, 0, 0), 20);
pub const PRIVATE: Cidr = Cidr::new(Ipv4Addr::new(172, 31, 16, 0), 20);
/// Where the server listens in the VPC.
pub const ENDPOINT: Ipv4Addr = Ipv4Addr::new(172, 31, 15, 254);
/// A pod of node-1.
pub const POD: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 130);
const ANYWHERE: Cidr = Cidr::new(Ipv4Addr::UNSPECIFIED, 0);

/// Deleted, and checked for what it leaves, when the test is done.
pub struct Fixture {
    pub site: Site,
    _data: tempfile::TempDir,
}

/// A VPC without machines, whose groups `all` and `other` let everything out; `all` lets everything in, `other` what
/// comes from its own members.
pub fn vpc(id: &str, nat: Ipv4Addr) -> VpcConfig {
    let subnet = |id: &str, cidr: Cidr, table: &str| Subnet {
        id: id.into(),
        zone: "us-east-1a".into(),
        cidr,
        route_table: table.into(),
    };
    let table = |id: &str, target: Target| RouteTable {
        id: id.into(),
        routes: vec![Route { destination: ANYWHERE, target }],
    };
    let group = |id: &str, peer: Peer| SecurityGroup {
        id: id.into(),
        ingress: vec![Rule::all(peer)],
        egress: vec![Rule::all(Peer::Range(ANYWHERE))],
    };
    VpcConfig {
        id: id.into(),
        cidrs: vec![Cidr::new(PUBLIC.address(), 16)],
        subnets: vec![subnet("public", PUBLIC, "out"), subnet("private", PRIVATE, "nat")],
        route_tables: vec![
            table("out", Target::InternetGateway),
            table("nat", Target::NatGateway("nat-1".into())),
        ],
        nat_gateways: vec![NatGateway {
            id: "nat-1".into(),
            subnet: "public".into(),
            address: Ipv4Addr::new(172, 31, 0, 9),
            public: nat,
        }],
        groups: vec![group("all", Peer::Range(ANYWHERE)), group("other", Peer::Group("other".into()))],
        interfaces: vec![interface("api", "public", ENDPOINT, Place::Router, &["all"])],
    }
}

pub fn interface(id: &str, subnet: &str, address: Ipv4Addr, place: Place, groups: &[&str]) -> Interface {
    Interface {
        id: id.into(),
        subnet: subnet.into(),
        address,
        secondary: Vec::new(),
        ranges: Vec::new(),
        public: None,
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        place,
        metadata: true,
    }
}

impl Fixture {
    pub fn new(name: &str) -> Self {
        let data = tempfile::tempdir().unwrap();
        let id = format!("{name}{:05x}", std::process::id() & 0xf_ffff);
        let site = Site::open(&id, data.path()).unwrap();
        site.up().unwrap();
        let fixture = Self { site, _data: data };
        fixture.add_vpc(VPC);
        fixture
    }

    pub fn add_vpc(&self, id: &str) {
        let nat = self.site.public_addresses().unwrap().free().unwrap();
        self.site.apply_vpc(&vpc(id, nat)).unwrap();
    }

    pub fn start(&self, name: &str, greeting: &str) -> Machine {
        let machine = self.site.machine(name).unwrap();
        machine.start(&self.spec(name, greeting)).unwrap();
        machine
    }

    /// Starts a machine that is its own greeting.
    pub fn start_in(&self, vpc: &str, subnet: &str, name: &str, groups: &[&str]) -> Machine {
        let machine = self.site.machine(name).unwrap();
        machine.start(&self.spec_in(vpc, subnet, name, name, groups)).unwrap();
        machine
    }

    pub fn spec(&self, name: &str, greeting: &str) -> MachineSpec {
        self.spec_in(VPC, "public", name, greeting, &["all"])
    }

    fn spec_in(&self, vpc: &str, subnet: &str, name: &str, greeting: &str, groups: &[&str]) -> MachineSpec {
        MachineSpec {
            link: self.place(vpc, subnet, name, groups),
            hostname: None,
            command: ["/usr/bin/ekso", "node", greeting].map(str::to_owned).to_vec(),
            env: Vec::new(),
            binds: Vec::new(),
            limits: Limits { memory_bytes: Some(256 << 20), cpu_millis: Some(1000) },
            nameservers: vec![Ipv4Addr::new(10, 100, 0, 10)],
            hosts: Vec::new(),
            stop_grace_ms: 2000,
        }
    }

    /// Gives a machine an interface with a block for pods; a public address too, in the public subnet.
    fn place(&self, vpc: &str, subnet: &str, name: &str, groups: &[&str]) -> Link {
        let place = |config: &mut VpcConfig, public: &machines::Addresses| {
            let cidr = config.subnet(subnet).unwrap().cidr;
            if config.interface(name).is_none() {
                let address = config.free_address(cidr).unwrap();
                let mut new = interface(name, subnet, address, Place::Machine, groups);
                new.ranges = vec![config.free_range(cidr, 25).unwrap()];
                if subnet == "public" {
                    new.public = Some(public.free()?);
                }
                config.interfaces.push(new);
            }
            let address = config.interface(name).unwrap().address;
            Ok(Link { vpc: vpc.into(), address, subnet: cidr })
        };
        self.site.change_vpc(vpc, || unreachable!("the VPC is there"), place).unwrap()
    }

    pub fn change(&self, change: impl FnOnce(&mut VpcConfig)) {
        let change = |config: &mut VpcConfig, _: &machines::Addresses| {
            change(config);
            Ok(())
        };
        self.site.change_vpc(VPC, || unreachable!("the VPC is there"), change).unwrap();
    }

    pub fn done(self) {
        self.site.delete().unwrap();
        assert_eq!(self.site.leftovers().unwrap(), Vec::<String>::new());
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // Of a test that failed; nothing is left otherwise.
        let _ = self.site.delete();
    }
}

pub fn private(machine: &Machine) -> Ipv4Addr {
    machine.spec().unwrap().unwrap().link.address
}

pub fn public(machine: &Machine) -> Ipv4Addr {
    let link = machine.spec().unwrap().unwrap().link;
    let config = machine.site().vpc_config(&link.vpc).unwrap().unwrap();
    config.interface_at(link.address).unwrap().public.unwrap()
}

/// Asks the machine's node from the host, at the machine's public address, until it listens.
pub fn ask(machine: &Machine, request: &str) -> String {
    let address = SocketAddr::from((public(machine), PORT));
    let deadline = Instant::now() + PATIENCE;
    loop {
        match talk(address, request) {
            Ok(answer) if !answer.is_empty() => return answer,
            other => {
                let log = std::fs::read_to_string(machine.log());
                assert!(Instant::now() < deadline, "{address} gives no answer: {other:?}; its log: {log:?}");
            }
        }
    }
}

/// Asks from inside the machine's own namespace, which its groups do not concern.
pub fn ask_inside(machine: &Machine, request: &str) -> String {
    let ns = machines::NetNs::open(machine.netns_path()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let connected = machines::netns::tcp_connect(
            &ns,
            SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)),
            Duration::from_secs(2),
        );
        match connected.map(|connection| talk_on(connection, request)) {
            Ok(Ok(answer)) if !answer.is_empty() => return answer,
            other => assert!(Instant::now() < deadline, "{} gives no answer: {other:?}", machine.name()),
        }
    }
}

pub fn talk(address: SocketAddr, request: &str) -> std::io::Result<String> {
    talk_on(TcpStream::connect_timeout(&address, Duration::from_secs(2))?, request)
}

pub fn talk_on(mut connection: TcpStream, request: &str) -> std::io::Result<String> {
    connection.set_read_timeout(Some(Duration::from_secs(5)))?;
    connection.write_all(format!("{request}\n").as_bytes())?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer)
}
