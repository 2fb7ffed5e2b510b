//! Which endpoints count on which node.

#![allow(clippy::unwrap_used)] // a test program: what fails should stop it

mod cluster;

use cluster::{NODES, PODS, SERVICES, node, object, service, slice, snapshot};
use network::{Index, NodeNetwork, routes, ruleset};
use object::{Key, Snapshot};
use plan::net::{Ruleset, ServicePort};
use proptest::prelude::*;
use serde_json::{Value, json};

fn here(snapshot: &Snapshot) -> NodeNetwork {
    NodeNetwork::of(snapshot, "a", &["10.244.0.0/16".parse().unwrap()], &[[10, 100, 0, 10].into()])
}

fn rules(snapshot: &Snapshot) -> Ruleset {
    ruleset(&Index::of(snapshot), &here(snapshot))
}

/// The one port of a Service with these endpoints, on node a.
fn port(spec: Value, endpoints: Value) -> ServicePort {
    let http = json!([{"name": "http", "port": 8080, "protocol": "TCP"}]);
    let mut spec = spec;
    spec["clusterIP"] = json!("10.100.0.5");
    spec["ports"] = json!([{"name": "http", "port": 80, "nodePort": 30080}]);
    let nodes = [node("a", "172.31.0.10", "10.244.0.0/24"), node("b", "172.31.0.11", "10.244.1.0/24")];
    let objects = [service("web", spec), slice("web-1", "web", http, endpoints)];
    let mut services = rules(&snapshot(&[&nodes[..], &objects[..]].concat())).services;
    assert_eq!(services.len(), 1);
    services.remove(0)
}

fn on(node: &str, last: u8, conditions: Value) -> Value {
    json!({"addresses": [format!("10.244.0.{last}")], "nodeName": node, "conditions": conditions})
}

/// The last numbers of the addresses of the endpoints in the cluster, and here.
fn check(endpoints: Value, cluster: &[u8], local: &[u8]) {
    let port = port(json!({}), endpoints.clone());
    let last = |endpoints: &[plan::net::Endpoint]| -> Vec<u8> {
        endpoints.iter().map(|(ip, _)| ip.octets()[3]).collect()
    };
    assert_eq!(
        (&last(&port.endpoints)[..], &last(&port.local_endpoints)[..]),
        (cluster, local),
        "{endpoints}"
    );
}

#[test]
fn endpoints_that_count() {
    let ready = || json!({"ready": true});
    let leaving = || json!({"ready": false, "serving": true, "terminating": true});
    let dead = || json!({"ready": false, "serving": false, "terminating": true});
    check(json!([on("a", 1, ready()), on("b", 2, json!({}))]), &[1, 2], &[1]);
    check(json!([on("a", 1, leaving()), on("b", 2, ready())]), &[2], &[1]);
    check(json!([on("a", 1, leaving()), on("b", 2, dead())]), &[1], &[1]);
    check(json!([on("a", 1, json!({"ready": false})), on("b", 2, dead())]), &[], &[]);
    // A pod in two slices is one endpoint.
    check(json!([on("a", 1, ready()), on("a", 1, ready())]), &[1], &[1]);
}

#[test]
fn hints_are_followed_when_they_are_whole() {
    let hinted = |last: u8, node: &str| {
        let mut endpoint = on("b", last, json!({"ready": true}));
        endpoint["hints"] = json!({"forNodes": [{"name": node}]});
        endpoint
    };
    check(json!([hinted(1, "a"), hinted(2, "b")]), &[1], &[]);
    check(json!([hinted(1, "b"), hinted(2, "b")]), &[1, 2], &[]);
    check(json!([hinted(1, "a"), on("b", 2, json!({}))]), &[1, 2], &[]);
}

#[test]
fn what_a_service_asks_for() {
    let spec = json!({
        "type": "LoadBalancer", "externalIPs": ["203.0.113.9"], "sessionAffinity": "ClientIP",
        "internalTrafficPolicy": "Cluster", "externalTrafficPolicy": "Local",
        "loadBalancerSourceRanges": ["192.0.2.0/24"],
    });
    let port = port(spec, json!([]));
    assert_eq!(port.name.to_string(), "default/web/tcp/http");
    assert_eq!((port.port, port.node_port), (80, Some(30080)));
    assert_eq!(port.affinity_seconds, Some(10_800));
    assert_eq!(port.external_ips, [std::net::Ipv4Addr::new(203, 0, 113, 9)]);
    assert_eq!(port.source_ranges, ["192.0.2.0/24".parse().unwrap()]);
    assert!(port.external_local && !port.internal_local);
}

#[test]
fn services_that_are_not_proxied() {
    let ports = json!([{"port": 80}]);
    let other = json!({"service.kubernetes.io/service-proxy-name": "other"});
    let snapshot = snapshot(&[
        service("headless", json!({"clusterIP": "None", "ports": ports})),
        service("away", json!({"type": "ExternalName", "externalName": "example.com", "ports": ports})),
        service("kube-dns", json!({"clusterIP": "10.100.0.10", "ports": ports})),
        (
            SERVICES,
            json!({"metadata": {"name": "other", "namespace": "default", "labels": other}, "spec": {"clusterIP": "10.100.0.9", "ports": ports}}),
        ),
    ]);
    assert_eq!(rules(&snapshot).services, []);
}

#[test]
fn the_cluster_is_not_masqueraded() {
    let snapshot =
        snapshot(&[node("a", "172.31.0.10", "10.244.0.0/24"), node("b", "172.31.0.11", "10.244.1.0/24")]);
    let rules = rules(&snapshot);
    let texts =
        |cidrs: &[plan::net::Cidr]| -> Vec<String> { cidrs.iter().map(ToString::to_string).collect() };
    assert_eq!(texts(&rules.masquerade_from), ["10.244.0.0/24"]);
    assert_eq!(texts(&rules.masquerade_except), ["10.244.0.0/16", "172.31.0.10/32", "172.31.0.11/32"]);
}

#[test]
fn host_ports_of_this_nodes_pods() {
    let pod = |name: &str, node: &str, more: Value| {
        let ports = json!([
            {"containerPort": 80, "hostPort": 5000, "hostIP": "127.0.0.1"},
            {"containerPort": 53, "hostPort": 5000, "protocol": "UDP"},
            {"containerPort": 81},
        ]);
        let mut pod = json!({
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"nodeName": node, "containers": [{"ports": ports}]},
            "status": {"phase": "Running", "podIP": "10.244.0.7"},
        });
        for (field, value) in more.as_object().unwrap() {
            pod["status"][field] = value.clone();
        }
        let mut object = object(PODS, &pod, 1);
        object.fields = [node.into()].into();
        object
    };
    let mut snapshot = Snapshot::default();
    snapshot.put(pod("a", "a", json!({})));
    snapshot.put(pod("elsewhere", "b", json!({})));
    snapshot.put(pod("ended", "a", json!({"phase": "Failed"})));
    snapshot.put(pod("new", "a", json!({"podIP": ""})));
    let ports = rules(&snapshot).host_ports;
    let text = |port: &plan::net::HostPort| {
        format!("{:?} {:?} {} {:?}", port.address, port.protocol, port.port, port.endpoint)
    };
    let texts: Vec<String> = ports.iter().map(text).collect();
    assert_eq!(texts, ["None Udp 5000 (10.244.0.7, 53)", "Some(127.0.0.1) Tcp 5000 (10.244.0.7, 80)"]);
}

#[test]
fn routes_lead_to_all_others() {
    let joining = (NODES, json!({"metadata": {"name": "joining"}}));
    let snapshot = snapshot(&[
        node("a", "172.31.0.10", "10.244.0.0/24"),
        node("b", "172.31.0.11", "10.244.1.0/24"),
        joining,
    ]);
    let routes = routes(&snapshot, "a");
    let texts: Vec<String> =
        routes.iter().map(|route| format!("{} via {}", route.destination, route.via)).collect();
    assert_eq!(texts, ["10.244.1.0/24 via 172.31.0.11"]);
}

/// One step of a random history: the object of a number is put, or removed.
fn step(
    kind: u8,
    number: u8,
    ip: u8,
    remove: bool,
    snapshot: &mut Snapshot,
    index: &mut Index,
    revision: u64,
) {
    let (resource, body) = match kind {
        0 => service(
            &format!("s{number}"),
            json!({"clusterIP": format!("10.100.0.{ip}"), "ports": [{"port": 80}]}),
        ),
        _ => slice(
            &format!("e{number}"),
            &format!("s{}", ip % 3),
            json!([{"port": 80}]),
            json!([{"addresses": [format!("10.244.0.{}", ip % 4)], "nodeName": "a"}]),
        ),
    };
    let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let event = if remove {
        snapshot.remove(&Key::new(resource, "default", name), revision)
    } else {
        Some(snapshot.put(object(resource, &body, revision)))
    };
    if let Some(event) = event {
        assert!(index.apply(&event));
    }
}

proptest! {
    #[test]
    fn an_index_kept_up_to_date_is_one_made_afresh(steps in prop::collection::vec((0u8..2, 0u8..3, 1u8..6, prop::bool::weighted(0.3)), 0..30)) {
        let (mut snapshot, mut index) = (Snapshot::default(), Index::default());
        for (revision, (kind, number, ip, remove)) in steps.into_iter().enumerate() {
            step(kind, number, ip, remove, &mut snapshot, &mut index, revision as u64 + 1);
        }
        let fresh = Index::of(&snapshot);
        prop_assert_eq!(ruleset(&index, &here(&snapshot)), ruleset(&fresh, &here(&snapshot)));
        let zone = network::dns::Zone { domain: "cluster.local".into(), server: [10, 100, 0, 10].into(), serial: 0 };
        for last in 0..6 {
            for network in ["0.100.10", "0.244.10"] {
                let question = network::dns::wire::Question {
                    name: format!("{last}.{network}.in-addr.arpa"),
                    kind: network::dns::wire::Type::PTR,
                    class: 1,
                };
                let answer = |index: &Index| network::dns::answer(index, &zone, &question);
                prop_assert_eq!(answer(&index), answer(&fresh));
            }
        }
    }
}
