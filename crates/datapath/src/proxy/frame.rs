//! The part of the table that is the same for every ruleset: which chains packets enter, and which maps they meet.

use netlink::nft::{BaseChain, Cmp, Expr, Hook, Kind, Register, Target};

use super::compile::{
    CLUSTER_IPS, HAIRPIN, HOST_PORTS, HOST_PORTS_ANYWHERE, MASQUERADE_EXCEPT, MASQUERADE_FROM,
    NO_ENDPOINT_NODEPORTS, NO_ENDPOINTS, POD_CIDRS, REFUSE, SERVICE_IPS, SERVICE_NODEPORTS, SERVICES,
};
use super::packet::{
    DESTINATION, SOURCE, destination, in_set, invalid, is_marked, is_to_here, l4proto, loopback, mark,
    new_connection, not_from_here, not_in_by_lo, not_out_of_lo, port, source, to_here, unmark,
};

/// Chains that packets enter by themselves. Filters come after the translation of destinations (-100): what they see
/// with a service's address was not translated.
pub const BASE_CHAINS: &[(&str, BaseChain)] = &[
    ("prerouting", BaseChain { kind: Kind::Nat, hook: Hook::Prerouting, priority: -100 }),
    ("output", BaseChain { kind: Kind::Nat, hook: Hook::Output, priority: -100 }),
    ("postrouting", BaseChain { kind: Kind::Nat, hook: Hook::Postrouting, priority: 100 }),
    ("filter-input", BaseChain { kind: Kind::Filter, hook: Hook::Input, priority: -90 }),
    ("filter-forward", BaseChain { kind: Kind::Filter, hook: Hook::Forward, priority: -90 }),
    ("filter-output", BaseChain { kind: Kind::Filter, hook: Hook::Output, priority: -90 }),
];
/// Rules by chain, in their order.
pub fn rules() -> Vec<(&'static str, Vec<Expr>)> {
    let jump = |chain: &str| Expr::Verdict(Target::Jump(chain.to_owned()));
    let lookup = |set: &str| Expr::Lookup {
        set: set.to_owned(),
        id: None,
        key: 0,
        to: Some(Register::Verdict),
        invert: false,
    };
    let by_address = |map: &str| [destination(0), l4proto(1), port(2), vec![lookup(map)]].concat();
    let by_node_port = |map: &str| [to_here(), l4proto(0), port(1), vec![lookup(map)]].concat();
    let new = new_connection;
    let endpoint_of = |map: &str| {
        let to = Some(Register::Data(0));
        let lookup = Expr::Lookup { set: map.to_owned(), id: None, key: 0, to, invert: false };
        vec![lookup, Expr::Dnat { address: 0, port: Some(1) }]
    };
    vec![
        ("prerouting", vec![jump(SERVICES)]),
        ("output", vec![jump(SERVICES)]),
        // To a cluster IP from neither a pod nor this node: answers must come back through here.
        (
            SERVICES,
            [to_cluster_ip(), source(0), vec![in_set(POD_CIDRS, 0, true)], not_from_here(), mark()].concat(),
        ),
        (SERVICES, by_address(SERVICE_IPS)),
        (SERVICES, [destination(0), l4proto(1), port(2), endpoint_of(HOST_PORTS)].concat()),
        (SERVICES, [is_to_here(), l4proto(0), port(1), endpoint_of(HOST_PORTS_ANYWHERE)].concat()),
        (SERVICES, by_node_port(SERVICE_NODEPORTS)),
        ("postrouting", [is_marked(), unmark(), vec![Expr::Masquerade]].concat()),
        // A process of the node that called a host port at 127.0.0.1.
        ("postrouting", [loopback(SOURCE, Cmp::Eq), not_out_of_lo(), vec![Expr::Masquerade]].concat()),
        (
            "postrouting",
            [source(0), destination(1), vec![in_set(HAIRPIN, 0, false), Expr::Masquerade]].concat(),
        ),
        (
            "postrouting",
            [
                source(0),
                vec![in_set(MASQUERADE_FROM, 0, false)],
                destination(0),
                vec![in_set(MASQUERADE_EXCEPT, 0, true), Expr::Masquerade],
            ]
            .concat(),
        ),
        // After translation: what still has a service's address found no endpoint.
        // Answers to the calls above come in with loopback's address by other links; nothing else may (CVE-2020-8558).
        (
            "filter-input",
            [new(), not_in_by_lo(), loopback(DESTINATION, Cmp::Eq), vec![Expr::Verdict(Target::Drop)]]
                .concat(),
        ),
        ("filter-input", [new(), by_node_port(NO_ENDPOINT_NODEPORTS)].concat()),
        ("filter-forward", [invalid(), vec![Expr::Verdict(Target::Drop)]].concat()),
        ("filter-forward", [new(), by_address(NO_ENDPOINTS)].concat()),
        ("filter-forward", [new(), to_cluster_ip(), vec![jump(REFUSE)]].concat()),
        ("filter-output", [new(), by_address(NO_ENDPOINTS)].concat()),
        ("filter-output", [new(), by_node_port(NO_ENDPOINT_NODEPORTS)].concat()),
        ("filter-output", [new(), to_cluster_ip(), vec![jump(REFUSE)]].concat()),
        (REFUSE, vec![Expr::Reject]),
    ]
}

fn to_cluster_ip() -> Vec<Expr> {
    [destination(0), vec![in_set(CLUSTER_IPS, 0, false)]].concat()
}
