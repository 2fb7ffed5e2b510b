//! Real packets between real namespaces, through rules that we encoded ourselves; the `nft` tool reads them back.

#![allow(clippy::unwrap_used)] // a test program: what fails should stop it

mod lab;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};

use datapath::Proxy;
use lab::*;
use netlink::netns::{self, run_in};
use plan::net::{Cidr, HostPort, Protocol, Ruleset, ServicePort};

const TABLE: &str = "ekso-lab";

/// A lab whose pods say their names.
fn lab(pods: u8) -> Lab {
    let lab = Lab::new(pods);
    for pod in 1..=pods {
        serve_tcp(lab.pod(pod), pod_ip(pod), TARGET_PORT, &format!("pod{pod}"));
    }
    lab
}

fn apply(lab: &Lab, proxy: &mut Proxy, ruleset: &Ruleset) {
    run_in(&lab.node, || proxy.apply(ruleset)).unwrap().unwrap();
}

fn apply_first(lab: &Lab, services: Vec<ServicePort>) -> Proxy {
    let mut proxy = Proxy::new(TABLE);
    apply(lab, &mut proxy, &ruleset(services));
    proxy
}

/// Which pods answered so many questions, and under which addresses the client was seen.
fn answers(
    lab: &Lab,
    from: &netlink::NetNs,
    address: Ipv4Addr,
    port: u16,
) -> (BTreeSet<String>, BTreeSet<String>) {
    let _ = lab;
    let pairs = (0..40).map(|_| ask(from, address, port).unwrap());
    pairs.map(|answer| answer.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap()).unzip()
}

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn pods_reach_each_other_and_all_endpoints_of_a_cluster_ip() {
    if !is_root() {
        return;
    }
    let lab = lab(4);
    assert_eq!(ask(lab.pod(4), pod_ip(1), TARGET_PORT).unwrap(), format!("pod1 {}", pod_ip(4)));
    let _proxy = apply_first(&lab, vec![service(&[1, 2, 3])]);
    let (pods, clients) = answers(&lab, lab.pod(4), CLUSTER_IP, 80);
    assert_eq!(pods, set(&["pod1", "pod2", "pod3"]));
    assert_eq!(clients, set(&[&pod_ip(4).to_string()]), "pods keep their address");
    // The node itself, too.
    let (pods, clients) = answers(&lab, &lab.node, CLUSTER_IP, 80);
    assert_eq!((pods, clients), (set(&["pod1", "pod2", "pod3"]), set(&[&NODE.to_string()])));
    // A port that the Service does not have is refused, not dropped.
    assert_eq!(ask(lab.pod(4), CLUSTER_IP, 81), Err(ErrorKind::ConnectionRefused));
    assert_eq!(ask(&lab.node, CLUSTER_IP, 81), Err(ErrorKind::ConnectionRefused));
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    if !is_root() {
        return;
    }
    let lab = lab(1);
    let _proxy = apply_first(&lab, vec![service(&[1])]);
    let answer = ask(lab.pod(1), CLUSTER_IP, 80).unwrap();
    assert!(answer.starts_with("pod1 ") && !answer.ends_with(&pod_ip(1).to_string()), "{answer}");
}

#[test]
fn node_ports_under_both_policies() {
    if !is_root() {
        return;
    }
    let lab = lab(3);
    let mut proxy = apply_first(&lab, vec![service(&[1, 2])]);
    let (pods, clients) = answers(&lab, &lab.stranger, NODE, NODE_PORT);
    assert_eq!(pods, set(&["pod1", "pod2"]));
    assert!(!clients.contains(&STRANGER.to_string()), "{clients:?}");

    let local = ServicePort { external_local: true, local_endpoints: vec![endpoint(2)], ..service(&[1, 2]) };
    apply(&lab, &mut proxy, &ruleset(vec![local.clone()]));
    let (pods, clients) = answers(&lab, &lab.stranger, NODE, NODE_PORT);
    assert_eq!((pods, clients), (set(&["pod2"]), set(&[&STRANGER.to_string()])));
    // From inside, all endpoints.
    assert_eq!(answers(&lab, lab.pod(3), NODE, NODE_PORT).0, set(&["pod1", "pod2"]));
    assert_eq!(answers(&lab, &lab.node, NODE, NODE_PORT).0, set(&["pod1", "pod2"]));

    let nobody_here = ServicePort { local_endpoints: Vec::new(), ..local };
    apply(&lab, &mut proxy, &ruleset(vec![nobody_here]));
    assert_eq!(
        ask_in_vain(&lab.stranger, NODE, NODE_PORT),
        Err(ErrorKind::TimedOut),
        "dropped, so that a balancer looks on"
    );
    assert_eq!(answers(&lab, lab.pod(3), NODE, NODE_PORT).0, set(&["pod1", "pod2"]));
    assert_eq!(answers(&lab, &lab.node, NODE, NODE_PORT).0, set(&["pod1", "pod2"]));
}

#[test]
fn internal_policy_local_and_strangers_at_cluster_ips() {
    if !is_root() {
        return;
    }
    let lab = lab(2);
    let local = ServicePort { internal_local: true, local_endpoints: vec![endpoint(1)], ..service(&[1, 2]) };
    let mut proxy = apply_first(&lab, vec![local.clone()]);
    assert_eq!(answers(&lab, lab.pod(2), CLUSTER_IP, 80).0, set(&["pod1"]));
    apply(&lab, &mut proxy, &ruleset(vec![ServicePort { local_endpoints: Vec::new(), ..local }]));
    assert_eq!(ask_in_vain(lab.pod(2), CLUSTER_IP, 80), Err(ErrorKind::TimedOut));
}

#[test]
fn without_endpoints_connections_are_refused() {
    if !is_root() {
        return;
    }
    let lab = lab(1);
    let mut proxy = apply_first(&lab, vec![service(&[])]);
    for from in [lab.pod(1), &lab.node] {
        assert_eq!(ask(from, CLUSTER_IP, 80), Err(ErrorKind::ConnectionRefused));
        assert_eq!(ask(from, NODE, NODE_PORT), Err(ErrorKind::ConnectionRefused));
    }
    assert_eq!(ask(&lab.stranger, NODE, NODE_PORT), Err(ErrorKind::ConnectionRefused));
    apply(&lab, &mut proxy, &ruleset(vec![service(&[1])]));
    assert_eq!(ask(lab.pod(1), CLUSTER_IP, 80).unwrap().split(' ').next(), Some("pod1"));
}

#[test]
fn load_balancer_addresses_admit_their_source_ranges() {
    if !is_root() {
        return;
    }
    let lab = lab(1);
    let address = Ipv4Addr::new(203, 0, 113, 7);
    let via_node = |lab: &Lab| {
        run_in(&lab.stranger, || {
            let mut links = netlink::link::Links::open().unwrap();
            let link = links.get("eth0").unwrap().index;
            let route =
                netlink::link::Route { via: Some(NODE), ..netlink::link::Route::to(address, 32, link) };
            links.replace_route(&route).unwrap();
        })
        .unwrap();
    };
    via_node(&lab);
    let open = ServicePort { load_balancer_ips: vec![address], ..service(&[1]) };
    let mut proxy = apply_first(&lab, vec![open.clone()]);
    assert!(ask(&lab.stranger, address, 80).is_ok());
    let guarded = ServicePort { source_ranges: vec!["192.0.2.0/24".parse().unwrap()], ..open.clone() };
    apply(&lab, &mut proxy, &ruleset(vec![guarded]));
    assert_eq!(ask_in_vain(&lab.stranger, address, 80), Err(ErrorKind::TimedOut));
    let admitted = ServicePort { source_ranges: vec![Cidr::new(STRANGER, 24)], ..open };
    apply(&lab, &mut proxy, &ruleset(vec![admitted]));
    assert!(ask(&lab.stranger, address, 80).is_ok());
}

#[test]
fn a_client_stays_with_its_endpoint() {
    if !is_root() {
        return;
    }
    let lab = lab(4);
    let sticky = |pods: &[u8]| vec![ServicePort { affinity_seconds: Some(600), ..service(pods) }];
    let mut proxy = apply_first(&lab, sticky(&[1, 2, 3]));
    let (first, _) = answers(&lab, lab.pod(4), CLUSTER_IP, 80);
    assert_eq!(first.len(), 1, "{first:?}");
    let number: u8 = first.first().unwrap().trim_start_matches("pod").parse().unwrap();
    // Another program takes over: the memory is kept.
    let mut proxy_of_next_life = Proxy::new(TABLE);
    apply(&lab, &mut proxy_of_next_life, &ruleset(sticky(&[1, 2, 3])));
    assert_eq!(answers(&lab, lab.pod(4), CLUSTER_IP, 80).0, first);
    // Its endpoint goes: another, and then that one, also when the first comes back.
    let rest: Vec<u8> = [1, 2, 3].into_iter().filter(|pod| *pod != number).collect();
    apply(&lab, &mut proxy, &ruleset(sticky(&rest)));
    let (second, _) = answers(&lab, lab.pod(4), CLUSTER_IP, 80);
    assert_eq!(second.len(), 1, "{second:?}");
    assert_ne!(first, second);
    apply(&lab, &mut proxy, &ruleset(sticky(&[1, 2, 3])));
    assert_eq!(answers(&lab, lab.pod(4), CLUSTER_IP, 80).0, second);
}

#[test]
fn udp_flows_leave_an_endpoint_that_is_gone() {
    if !is_root() {
        return;
    }
    let lab = Lab::new(3);
    for pod in 1..=2 {
        serve_udp(lab.pod(pod), pod_ip(pod), TARGET_PORT, &format!("pod{pod}"));
    }
    let udp = |pods: &[u8]| {
        let mut service = service(pods);
        service.name.protocol = Protocol::Udp;
        ruleset(vec![service])
    };
    let client = netns::udp_socket(lab.pod(3), SocketAddr::from((pod_ip(3), 0))).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.connect((CLUSTER_IP, 80)).unwrap();
    let ask = || {
        let mut buffer = [0; 64];
        client.send(b"?").unwrap();
        let length = client.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).split(' ').next().unwrap().to_owned()
    };
    let mut proxy = Proxy::new(TABLE);
    apply(&lab, &mut proxy, &udp(&[1]));
    assert_eq!(ask(), "pod1");
    apply(&lab, &mut proxy, &udp(&[1, 2]));
    assert_eq!(ask(), "pod1", "a flow whose endpoint stays goes on");
    apply(&lab, &mut proxy, &udp(&[2]));
    assert_eq!(ask(), "pod2");
}

#[test]
fn a_cluster_ip_that_the_node_serves_itself() {
    if !is_root() {
        return;
    }
    let lab = lab(1);
    let dns = Ipv4Addr::new(10, 100, 0, 10);
    run_in(&lab.node, || datapath::node::prepare(&[dns])).unwrap().unwrap();
    serve_tcp(&lab.node, dns, 53, "dns");
    let _proxy = apply_first(&lab, vec![service(&[1])]);
    assert_eq!(ask(lab.pod(1), dns, 53).unwrap(), format!("dns {}", pod_ip(1)));
    assert!(ask(&lab.node, dns, 53).unwrap().starts_with("dns "));
}

#[test]
fn what_leaves_the_cluster_is_masqueraded() {
    if !is_root() {
        return;
    }
    let lab = lab(1);
    let _proxy = apply_first(&lab, Vec::new());
    serve_tcp(&lab.stranger, STRANGER, 7000, "stranger");
    assert_eq!(ask(lab.pod(1), STRANGER, 7000).unwrap(), format!("stranger {NODE}"));
}

#[test]
fn host_ports_lead_to_pods() {
    if !is_root() {
        return;
    }
    let lab = lab(2);
    let host_port = |address: Option<Ipv4Addr>, port, pod| HostPort {
        address,
        protocol: Protocol::Tcp,
        port,
        endpoint: endpoint(pod),
    };
    let localhost = Ipv4Addr::LOCALHOST;
    let wanted = Ruleset {
        host_ports: vec![
            host_port(Some(localhost), 5000, 1),
            host_port(Some(NODE), 5000, 2),
            host_port(None, 6000, 1),
        ],
        ..ruleset(Vec::new())
    };
    let mut proxy = Proxy::new(TABLE);
    apply(&lab, &mut proxy, &wanted);
    let who = |from: &netlink::NetNs, address, port| {
        ask(from, address, port).map(|answer| answer.split(' ').next().unwrap_or_default().to_owned())
    };
    assert_eq!(who(&lab.node, localhost, 5000).unwrap(), "pod1");
    assert_eq!(who(&lab.node, NODE, 5000).unwrap(), "pod2");
    for (from, address) in
        [(&lab.stranger, NODE), (&lab.node, NODE), (&lab.node, localhost), (lab.pod(1), NODE)]
    {
        assert_eq!(who(from, address, 6000).unwrap(), "pod1");
    }
    assert_eq!(
        ask(&lab.stranger, NODE, 6000).unwrap(),
        format!("pod1 {STRANGER}"),
        "clients keep their address"
    );
    apply(&lab, &mut proxy, &ruleset(Vec::new()));
    assert_eq!(ask(&lab.stranger, NODE, 6000), Err(ErrorKind::ConnectionRefused));
}

#[test]
fn a_table_that_others_changed_is_made_whole() {
    if !is_root() {
        return;
    }
    let lab = lab(2);
    let mut proxy = apply_first(&lab, vec![service(&[1])]);
    lab.nft(&["delete", "table", "ip", TABLE]);
    apply(&lab, &mut proxy, &ruleset(vec![service(&[1, 2])]));
    assert_eq!(answers(&lab, lab.pod(1), CLUSTER_IP, 80).0, set(&["pod1", "pod2"]));
    run_in(&lab.node, || proxy.remove()).unwrap().unwrap();
    assert_eq!(lab.nft(&["list", "ruleset"]), "");
}

/// Thousands of services are one transaction, of many messages; a change of one is a small one.
#[test]
fn many_services_fit() {
    if !is_root() {
        return;
    }
    let lab = lab(1);
    let many = |last: &[u8]| -> Vec<ServicePort> {
        let one = |number: u16| {
            let mut service = service(if number == 2999 { last } else { &[1, 2, 3] });
            service.name.service = format!("web{number}");
            service.cluster_ips =
                vec![Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 101, 0, 0)) + u32::from(number))];
            service.node_port = number.is_multiple_of(10).then_some(30_000 + number / 10);
            service
        };
        (0..3000).map(one).collect()
    };
    let mut proxy = apply_first(&lab, many(&[2]));
    apply(&lab, &mut proxy, &ruleset(many(&[1])));
    let last = Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 101, 0, 0)) + 2999);
    assert_eq!(ask(lab.pod(1), last, 80).unwrap().split(' ').next(), Some("pod1"));
}

#[test]
fn links_of_pods_are_completed_and_removed() {
    if !is_root() {
        return;
    }
    let lab = lab(2);
    run_in(&lab.node, || {
        let before = netlink::link::Links::open().unwrap().list().unwrap();
        datapath::pod::ensure(&lab.link(1)).unwrap();
        assert_eq!(
            netlink::link::Links::open().unwrap().list().unwrap(),
            before,
            "a second time changes nothing"
        );
        assert_eq!(datapath::pod::list().unwrap(), ["eni1", "eni2"]);
        datapath::pod::remove("eni1").unwrap();
        datapath::pod::remove("eni1").unwrap();
        assert_eq!(datapath::pod::list().unwrap(), ["eni2"]);
    })
    .unwrap();
    assert!(ask_in_vain(lab.pod(2), pod_ip(1), TARGET_PORT).is_err());
    run_in(&lab.node, || datapath::pod::ensure(&lab.link(1)).unwrap()).unwrap();
    assert!(ask(lab.pod(2), pod_ip(1), TARGET_PORT).is_ok());
}

#[test]
fn routes_to_other_nodes_are_exactly_those_wanted() {
    if !is_root() {
        return;
    }
    let lab = Lab::new(0);
    let route = |third: u8, via: u8| plan::net::Route {
        destination: Cidr::new(Ipv4Addr::new(10, 244, third, 0), 24),
        via: Ipv4Addr::new(172, 31, 0, via),
    };
    let present = || -> Vec<(u8, u8)> {
        let routes = netlink::link::Links::open().unwrap().routes().unwrap();
        let to_pods = routes.iter().filter(|route| route.destination.octets()[0] == 10);
        to_pods.map(|route| (route.destination.octets()[2], route.via.unwrap().octets()[3])).collect()
    };
    run_in(&lab.node, || {
        for wanted in [vec![(1, 11), (2, 12)], vec![(2, 13), (3, 14)], vec![]] {
            let routes: Vec<_> = wanted.iter().map(|(third, via)| route(*third, *via)).collect();
            datapath::node::set_routes(&routes).unwrap();
            assert_eq!(present(), wanted);
        }
    })
    .unwrap();
}

/// After any sequence of changes the table is the same as one made afresh: `nft` is the judge. (Of all but affinity,
/// which its older releases cannot print.)
#[test]
fn changes_lead_where_a_fresh_start_leads() {
    if !is_root() {
        return;
    }
    let lab = Lab::new(0);
    let mut proxy = Proxy::new(TABLE);
    let mut random = 42u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for round in 0..40 {
        let services = (0..next(8)).map(|number| random_service(number as u8, &mut next)).collect();
        let mut wanted = ruleset(services);
        if next(3) == 0 {
            wanted.masquerade_except.push(Cidr::new(Ipv4Addr::new(172, 31, next(4) as u8, 0), 24));
        }
        apply(&lab, &mut proxy, &wanted);
        let changed = listing(&lab);
        let mut fresh = Proxy::new(TABLE);
        fresh.distrust();
        apply(&lab, &mut fresh, &wanted);
        assert_eq!(changed, listing(&lab), "round {round}");
    }
}

fn random_service(number: u8, next: &mut impl FnMut(u64) -> u64) -> ServicePort {
    let pods: Vec<u8> = (1..=next(4) as u8).collect();
    let mut service = service(&pods);
    service.name.service = format!("web{number}");
    service.name.protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp][next(3) as usize];
    service.cluster_ips = vec![Ipv4Addr::new(10, 100, 1, number)];
    service.node_port = (next(2) == 0).then_some(30000 + u16::from(number));
    service.local_endpoints.truncate(next(3) as usize);
    service.internal_local = next(3) == 0;
    service.external_local = next(2) == 0;
    if next(3) == 0 {
        service.load_balancer_ips = vec![Ipv4Addr::new(203, 0, 113, number)];
    }
    if next(3) == 0 {
        service.source_ranges = vec![Cidr::new(Ipv4Addr::new(192, 0, 2, 0), 24)];
    }
    service
}

/// The table as `nft` prints it: blocks in order of their heads, elements of sets in order.
fn listing(lab: &Lab) -> Vec<String> {
    let text = lab.nft(&["list", "table", "ip", TABLE]);
    let mut blocks: Vec<String> = text
        .split("\n\n")
        .map(|block| {
            let mut words: Vec<&str> = block
                .split(|c: char| c == ',' || c.is_whitespace())
                .filter(|w| !matches!(*w, "" | "}"))
                .collect();
            if block.contains("elements = ") {
                words.sort_unstable();
            }
            words.join(" ")
        })
        .collect();
    blocks.sort();
    blocks
}
