//! What separates machines: groups, routes, VPCs. Every case is a connection that is made, or is not.

use std::net::{Ipv4Addr, SocketAddr};

use machines::{
    AWS_DOOR, AWS_DOOR_PORTS, METADATA, Machine, NetNs, Peer, Place, Rule, Target, Traffic, netns,
};

use crate::PORT;
use crate::fixture::{ENDPOINT, Fixture, VPC, ask_inside, interface, private, public};

/// Whether a machine reaches an address; what is dropped gives no answer at all.
fn reaches(from: &Machine, to: impl Into<SocketAddr>) -> bool {
    match ask_inside(from, &format!("dial {}", to.into())).as_str() {
        "yes" => true,
        other => {
            let reasons = ["TimedOut", "HostUnreachable", "NetworkUnreachable", "ConnectionRefused"];
            assert!(reasons.iter().any(|reason| other == format!("no: {reason}")), "{other}");
            false
        }
    }
}

fn node(machine: &Machine) -> SocketAddr {
    (private(machine), PORT).into()
}

pub fn groups_guard_machines_and_pods() {
    let fixture = Fixture::new("ua");
    let (one, two) = (
        fixture.start_in(VPC, "public", "one", &["other"]),
        fixture.start_in(VPC, "private", "two", &["other"]),
    );
    let open = fixture.start_in(VPC, "public", "open", &["all"]);
    for machine in [&one, &two, &open] {
        ask_inside(machine, "hello");
    }
    // Members of a group that knows itself reach each other, over subnets; others do not reach them.
    assert!(reaches(&one, node(&two)) && reaches(&two, node(&one)));
    assert!(!reaches(&open, node(&one)) && !reaches(&open, node(&two)));
    assert!(reaches(&one, node(&open)), "a member reaches others: it may go out, and the other is open");
    // Nor does the host, by the public address.
    let from_host = std::net::TcpStream::connect_timeout(
        &(public(&one), PORT).into(),
        std::time::Duration::from_millis(300),
    );
    assert!(from_host.is_err());
    // A pod of a member has its node's groups. Its answers come back, whatever its own rules for the way in are.
    let pod = fixture.site.vpc_config(VPC).unwrap().unwrap().interface("one").unwrap().ranges[0];
    let pod = Ipv4Addr::from(u32::from(pod.address()) + 5);
    assert_eq!(ask_inside(&one, &format!("from {pod} {}", node(&two))), "yes");
    // By port and range.
    let only = |traffic: Traffic, range: String| {
        fixture.change(|config| {
            let rules = vec![Rule { traffic: traffic.clone(), peer: Peer::Range(range.parse().unwrap()) }];
            config.groups.iter_mut().find(|group| group.id == "other").unwrap().ingress = rules;
        });
    };
    let open_range = format!("{}/32", private(&open));
    only(Traffic::Tcp(PORT, PORT), open_range.clone());
    assert!(reaches(&open, node(&two)) && !reaches(&one, node(&two)));
    only(Traffic::Tcp(PORT - 10, PORT + 10), open_range.clone());
    assert!(reaches(&open, node(&two)));
    only(Traffic::Tcp(PORT + 1, u16::MAX), open_range.clone());
    assert!(!reaches(&open, node(&two)));
    only(Traffic::Udp(0, u16::MAX), open_range.clone());
    assert!(!reaches(&open, node(&two)));
    only(Traffic::Protocol(6), open_range.clone());
    assert!(reaches(&open, node(&two)));
    only(Traffic::All, "10.0.0.0/8".into());
    assert!(!reaches(&open, node(&two)));
    // No rule for the way out.
    fixture.change(|config| {
        let other = config.groups.iter_mut().find(|group| group.id == "other").unwrap();
        other.egress = vec![Rule { traffic: Traffic::Tcp(PORT, PORT), peer: Peer::Group("all".into()) }];
        other.ingress = vec![Rule::all(Peer::Group("other".into()))];
    });
    assert!(reaches(&one, node(&open)) && !reaches(&one, node(&two)));
    fixture.done();
}

/// Root in a machine can give its link any address. The router lets nothing of that through.
pub fn a_machine_speaks_for_itself_only() {
    let fixture = Fixture::new("ub");
    let (one, two) =
        (fixture.start_in(VPC, "public", "one", &["all"]), fixture.start_in(VPC, "public", "two", &["all"]));
    ask_inside(&two, "hello");
    assert!(reaches(&one, node(&two)));
    let other_pods = fixture.site.vpc_config(VPC).unwrap().unwrap().interface("two").unwrap().ranges[0];
    let nobodys = Ipv4Addr::new(172, 31, 0, 99);
    let stranger = Ipv4Addr::new(8, 8, 8, 8);
    for source in [nobodys, other_pods.last(), stranger, Ipv4Addr::new(172, 31, 0, 1), ENDPOINT] {
        let said = ask_inside(&one, &format!("from {source} {}", node(&two)));
        assert!(said.starts_with("no: "), "{source}: {said}");
    }
    fixture.done();
}

pub fn vpcs_with_one_range_never_meet() {
    let fixture = Fixture::new("uc");
    fixture.add_vpc("vpc-second");
    let here = fixture.start_in(VPC, "public", "here", &["all"]);
    let peer = fixture.start_in(VPC, "public", "peer", &["all"]);
    let there = fixture.start_in("vpc-second", "public", "there", &["all"]);
    assert_eq!(private(&here), private(&there));
    ask_inside(&peer, "hello");
    ask_inside(&there, "hello");
    assert!(reaches(&here, node(&peer)));
    // The same address in the other VPC is nobody's.
    assert!(!reaches(&there, node(&peer)));
    // Each has its own endpoint at the same address.
    let api = SocketAddr::from((ENDPOINT, 443));
    let listen = |vpc: &str| netns::tcp_listener(fixture.site.vpc(vpc).unwrap().ns(), api).unwrap();
    let first = listen(VPC);
    assert!(reaches(&here, api) && !reaches(&there, api));
    first.accept().unwrap();
    let second = listen("vpc-second");
    assert!(reaches(&there, api));
    second.accept().unwrap();
    // By public addresses they meet, as over the internet.
    assert!(reaches(&there, (public(&peer), PORT)));
    fixture.site.delete_vpc("vpc-second").unwrap();
    assert!(!reaches(&there, api));
    assert!(reaches(&here, node(&peer)), "the first VPC is as it was");
    fixture.done();
}

pub fn routes_out_have_effect() {
    let fixture = Fixture::new("ud");
    fixture.add_vpc("vpc-outside");
    let outside = fixture.start_in("vpc-outside", "public", "outside", &["all"]);
    let outside_at = SocketAddr::from((public(&outside), PORT));
    let (open, hidden) = (
        fixture.start_in(VPC, "public", "open", &["all"]),
        fixture.start_in(VPC, "private", "hidden", &["all"]),
    );
    let hello = |from: &Machine| {
        let ns = NetNs::open(from.netns_path()).unwrap();
        let dialed = netns::tcp_connect(&ns, outside_at, std::time::Duration::from_millis(400)).ok()?;
        let answer = crate::fixture::talk_on(dialed, "hello").unwrap();
        Some(answer.rsplit(' ').next().unwrap().parse::<Ipv4Addr>().unwrap())
    };
    ask_inside(&outside, "hello");
    ask_inside(&hidden, "hello");
    // One goes out under its own public address, the other under the gateway's.
    let nat = fixture.site.vpc_config(VPC).unwrap().unwrap().nat_gateways[0].public;
    assert_eq!((hello(&open), hello(&hidden)), (Some(public(&open)), Some(nat)));
    // A gateway for the way out is none for the way in.
    assert!(!reaches(&outside, (nat, PORT)) && reaches(&outside, (public(&open), PORT)));
    // Without its internet gateway nobody comes in or goes out, the gateway in that subnet included.
    let route = |target: Target| {
        fixture.change(|config| config.route_tables[0].routes[0].target = target);
    };
    route(Target::Blackhole);
    assert_eq!((hello(&open), hello(&hidden)), (None, None));
    assert!(!reaches(&outside, (public(&open), PORT)));
    assert!(reaches(&open, node(&hidden)), "what is in the VPC stays in reach");
    route(Target::InternetGateway);
    assert_eq!((hello(&open), hello(&hidden)), (Some(public(&open)), Some(nat)));
    // An internet gateway is of no use to what has no public address.
    fixture.change(|config| config.route_tables[1].routes[0].target = Target::InternetGateway);
    assert_eq!(hello(&hidden), None);
    // The longest prefix decides.
    fixture.change(|config| {
        let host = machines::Cidr::from(public(&outside));
        config.route_tables[0].routes.push(machines::Route { destination: host, target: Target::Blackhole });
    });
    assert_eq!(hello(&open), None);
    fixture.done();
}

pub fn link_local_services_are_the_only_ones() {
    let fixture = Fixture::new("ue");
    let one = fixture.start_in(VPC, "public", "one", &["all"]);
    ask_inside(&one, "hello");
    let vpc = fixture.site.vpc(VPC).unwrap();
    let listen = |address: SocketAddr| netns::tcp_listener(vpc.ns(), address).unwrap();
    let door: Vec<_> = AWS_DOOR_PORTS.iter().map(|port| listen((AWS_DOOR, *port).into())).collect();
    let metadata = listen(METADATA.into());
    assert!(AWS_DOOR_PORTS.iter().all(|port| reaches(&one, (AWS_DOOR, *port))));
    assert!(reaches(&one, METADATA));
    let (_, asker) = metadata.accept().unwrap();
    assert_eq!(asker.ip(), private(&one), "whoever asks is known");
    drop(door);
    // Other ports of the same addresses, other listeners of the router, other link-local addresses.
    let others: Vec<SocketAddr> = vec![
        (AWS_DOOR, 8080).into(),
        (*METADATA.ip(), 8080).into(),
        (Ipv4Addr::new(172, 31, 0, 1), 8080).into(),
    ];
    let listening: Vec<_> = others.iter().map(|address| listen(*address)).collect();
    for address in others.into_iter().chain([(Ipv4Addr::new(169, 254, 1, 1), 80).into()]) {
        assert!(!reaches(&one, address), "{address}");
    }
    drop(listening);
    // A machine that is to have no metadata hears so at once.
    fixture.change(|config| {
        config.interfaces.iter_mut().find(|one| one.id == "one").unwrap().metadata = false;
    });
    assert_eq!(ask_inside(&one, &format!("dial {METADATA}")), "no: ConnectionRefused");
    fixture.done();
}

pub fn a_vpc_changes_under_its_machines() {
    let fixture = Fixture::new("uf");
    let (one, two) =
        (fixture.start_in(VPC, "public", "one", &["all"]), fixture.start_in(VPC, "public", "two", &["all"]));
    ask_inside(&two, "hello");
    // A second address, and a second interface behind the same machine with groups of its own.
    let (second, behind) = (Ipv4Addr::new(172, 31, 0, 50), Ipv4Addr::new(172, 31, 0, 51));
    let dial_from = |source: Ipv4Addr| ask_inside(&one, &format!("from {source} {}", node(&two)));
    assert!(reaches(&one, node(&two)));
    assert!(dial_from(second).starts_with("no: "));
    fixture.change(|config| {
        config.interfaces.iter_mut().find(|one| one.id == "one").unwrap().secondary = vec![second];
        let place = Place::Behind(private(&one));
        config.interfaces.push(interface("more", "public", behind, place, &["other"]));
    });
    assert_eq!((dial_from(second), dial_from(behind)), ("yes".into(), "yes".into()));
    fixture.change(|config| {
        config.interfaces.iter_mut().find(|one| one.id == "two").unwrap().groups = vec!["other".into()];
    });
    assert!(dial_from(second).starts_with("no: "));
    assert_eq!(dial_from(behind), "yes");
    // A restart of the server, then one of the host's namespaces, bring back the same.
    fixture.site.up().unwrap();
    assert_eq!(dial_from(behind), "yes");
    fixture.change(|config| {
        config.interfaces.retain(|one| one.id != "more");
        config.interfaces.iter_mut().find(|one| one.id == "one").unwrap().secondary.clear();
    });
    assert!(dial_from(behind).starts_with("no: "));
    // A machine without an interface is cut off, and cannot start again.
    fixture.change(|config| config.interfaces.retain(|one| one.id != "one"));
    assert!(!reaches(&one, node(&two)));
    let spec = one.spec().unwrap().unwrap();
    one.stop().unwrap();
    let error = one.start(&spec).unwrap_err().to_string();
    assert!(error.contains("no interface with the address"), "{error}");
    fixture.done();
}
