//! Answers to questions about a small cluster, as `dig +short` would print them.

#![allow(clippy::unwrap_used)] // a test program: what fails should stop it

mod cluster;

use cluster::{SERVICES, service, slice, snapshot};
use network::Index;
use network::dns::wire::{self, Code, Parts, Query, Question, Type};
use network::dns::{Zone, answer};
use plan::net::{Answer, Record, RecordData};
use proptest::prelude::*;
use serde_json::json;

fn zone() -> Zone {
    Zone { domain: "cluster.local".into(), server: [10, 100, 0, 10].into(), serial: 7 }
}

fn index() -> Index {
    let http = json!([{"name": "http", "port": 8080}, {"name": "dns", "port": 5353, "protocol": "UDP"}]);
    Index::of(&snapshot(&[
        (
            SERVICES,
            json!({"metadata": {"name": "kubernetes", "namespace": "default"},
            "spec": {"clusterIP": "10.100.0.1", "ports": [{"name": "https", "port": 443}]}}),
        ),
        service(
            "web",
            json!({"clusterIP": "10.100.0.5", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]}),
        ),
        slice("web-1", "web", http.clone(), json!([{"addresses": ["10.244.0.9"]}])),
        service("db", json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80}]})),
        slice(
            "db-1",
            "db",
            http.clone(),
            json!([
                {"addresses": ["10.244.0.1"], "hostname": "db-0"},
                {"addresses": ["10.244.0.2"], "conditions": {"ready": true}},
                {"addresses": ["10.244.0.3"], "conditions": {"ready": false}},
            ]),
        ),
        service("empty", json!({"clusterIP": "None"})),
        service("away", json!({"type": "ExternalName", "externalName": "Example.com."})),
    ]))
}

/// One line a record; `NODATA`, `NXDOMAIN`, `elsewhere`, and `-> name` for a name that others know.
fn check(question: &str, expected: &[&str]) {
    let (kind, name) = question.split_once(' ').unwrap();
    let kinds = [
        ("A", Type::A),
        ("AAAA", Type::AAAA),
        ("SRV", Type::SRV),
        ("PTR", Type::PTR),
        ("TXT", Type::TXT),
        ("CNAME", Type::CNAME),
        ("NS", Type::NS),
        ("MX", Type(15)),
    ];
    let kind = kinds.iter().find(|(text, _)| *text == kind).unwrap().1;
    let question_asked = Question { name: name.into(), kind, class: 1 };
    let lines = match answer(&index(), &zone(), &question_asked) {
        Answer::Found { records, additional } => {
            assert!(records.iter().all(|record| record.name == name));
            let mut lines: Vec<String> = records.iter().map(line).collect();
            lines.extend(additional.iter().map(|record| format!("+ {} {}", record.name, line(record))));
            lines
        }
        Answer::NoData(_) => vec!["NODATA".into()],
        Answer::NoName(_) => vec!["NXDOMAIN".into()],
        Answer::Elsewhere => vec!["elsewhere".into()],
        Answer::Onwards { records, name } => records.iter().map(line).chain([format!("-> {name}")]).collect(),
    };
    assert_eq!(lines, expected, "{question}");
}

fn line(record: &Record) -> String {
    match &record.data {
        RecordData::A(ip) => ip.to_string(),
        RecordData::Aaaa(ip) => ip.to_string(),
        RecordData::Cname(name) | RecordData::Ns(name) | RecordData::Ptr(name) => name.clone(),
        RecordData::Soa { primary, .. } => primary.clone(),
        RecordData::Srv { priority, weight, port, target } => format!("{priority} {weight} {port} {target}"),
        RecordData::Txt(text) => text.clone(),
    }
}

#[test]
fn services_with_a_cluster_ip() {
    check("A kubernetes.default.svc.cluster.local", &["10.100.0.1"]);
    check("A web.default.svc.cluster.local", &["10.100.0.5"]);
    check("AAAA web.default.svc.cluster.local", &["NODATA"]);
    check("MX web.default.svc.cluster.local", &["NODATA"]);
    let srv = ["0 100 80 web.default.svc.cluster.local", "+ web.default.svc.cluster.local 10.100.0.5"];
    check("SRV _http._tcp.web.default.svc.cluster.local", &srv);
    check("SRV web.default.svc.cluster.local", &srv);
    check("A _http._tcp.web.default.svc.cluster.local", &["NODATA"]);
    check("SRV _http._udp.web.default.svc.cluster.local", &["NXDOMAIN"]);
    check("SRV _other._tcp.web.default.svc.cluster.local", &["NXDOMAIN"]);
    check("SRV http.tcp.web.default.svc.cluster.local", &["NXDOMAIN"]);
    check("A 10-244-0-9.web.default.svc.cluster.local", &["10.244.0.9"]);
}

#[test]
fn headless_services() {
    check("A db.default.svc.cluster.local", &["10.244.0.1", "10.244.0.2"]);
    check("A db-0.db.default.svc.cluster.local", &["10.244.0.1"]);
    check("A 10-244-0-2.db.default.svc.cluster.local", &["10.244.0.2"]);
    check("A 10-244-0-3.db.default.svc.cluster.local", &["NXDOMAIN"]);
    check("AAAA db-0.db.default.svc.cluster.local", &["NODATA"]);
    check(
        "SRV _http._tcp.db.default.svc.cluster.local",
        &[
            "0 50 8080 10-244-0-2.db.default.svc.cluster.local",
            "0 50 8080 db-0.db.default.svc.cluster.local",
            "+ 10-244-0-2.db.default.svc.cluster.local 10.244.0.2",
            "+ db-0.db.default.svc.cluster.local 10.244.0.1",
        ],
    );
    check("A empty.default.svc.cluster.local", &["NXDOMAIN"]);
}

#[test]
fn external_names() {
    check("A away.default.svc.cluster.local", &["example.com", "-> example.com"]);
    check("CNAME away.default.svc.cluster.local", &["example.com"]);
    check("A x.away.default.svc.cluster.local", &["NXDOMAIN"]);
}

#[test]
fn pods() {
    check("A 10-244-0-7.default.pod.cluster.local", &["10.244.0.7"]);
    check("AAAA 10-244-0-7.default.pod.cluster.local", &["NODATA"]);
    check("A 10-244-0.default.pod.cluster.local", &["NXDOMAIN"]);
    check("A 10-244-0-700.default.pod.cluster.local", &["NXDOMAIN"]);
}

#[test]
fn addresses_back_to_names() {
    check("PTR 5.0.100.10.in-addr.arpa", &["web.default.svc.cluster.local"]);
    check("PTR 1.0.244.10.in-addr.arpa", &["db-0.db.default.svc.cluster.local"]);
    check("PTR 9.0.244.10.in-addr.arpa", &["10-244-0-9.web.default.svc.cluster.local"]);
    check("PTR 3.0.244.10.in-addr.arpa", &["elsewhere"]);
    check("PTR 8.8.8.8.in-addr.arpa", &["elsewhere"]);
    check("PTR 8.8.in-addr.arpa", &["elsewhere"]);
}

#[test]
fn the_zone_itself_and_the_world() {
    check("TXT dns-version.cluster.local", &["1.1.0"]);
    check("NS cluster.local", &["ns.dns.cluster.local"]);
    check("A ns.dns.cluster.local", &["10.100.0.10"]);
    for empty in
        ["cluster.local", "svc.cluster.local", "default.svc.cluster.local", "default.pod.cluster.local"]
    {
        check(&format!("A {empty}"), &["NODATA"]);
    }
    check("A nothing.default.svc.cluster.local", &["NXDOMAIN"]);
    check("A example.com.default.svc.cluster.local", &["NXDOMAIN"]);
    check("A nothing.cluster.local", &["NXDOMAIN"]);
    check("A example.com", &["elsewhere"]);
    check("A notcluster.local", &["elsewhere"]);
}

/// A request as a resolver sends it.
fn request(name: &str, kind: Type, udp_size: Option<u16>) -> Vec<u8> {
    let mut bytes = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(udp_size.is_some())];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&[kind.0.to_be_bytes(), 1u16.to_be_bytes()].concat());
    if let Some(size) = udp_size {
        bytes.extend_from_slice(&[0, 0, 41]);
        bytes.extend_from_slice(&size.to_be_bytes());
        bytes.extend_from_slice(&[0; 6]);
    }
    bytes
}

#[test]
fn a_question_is_read_and_its_case_goes_back() {
    let query = Query::read(&request("WeB.Default.svc.cluster.local", Type::A, Some(4096))).unwrap();
    assert_eq!(query.question.name, "web.default.svc.cluster.local");
    assert_eq!(query.udp_size, wire::EDNS_UDP);
    let record = Record {
        name: query.question.name.clone(),
        ttl_seconds: 5,
        data: RecordData::A([10, 0, 0, 1].into()),
    };
    let bytes = query.answer(
        Code::Ok,
        &Parts { authoritative: true, answers: std::slice::from_ref(&record), ..Parts::default() },
        512,
    );
    assert_eq!(&bytes[..12], [0xab, 0xcd, 0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 1]);
    assert_eq!(&bytes[13..16], b"WeB");
    assert_eq!(wire::read_answers(&bytes, 0xabcd), Some((0, vec![record])));
}

#[test]
fn what_does_not_fit_is_cut_and_said_to_be() {
    let query = Query::read(&request("many.example", Type::A, None)).unwrap();
    let record = |n: u8| Record {
        name: "many.example".into(),
        ttl_seconds: 5,
        data: RecordData::A([10, 0, 0, n].into()),
    };
    let records: Vec<Record> = (0..200).map(record).collect();
    let bytes = query.answer(Code::Ok, &Parts { answers: &records, ..Parts::default() }, 512);
    assert!(bytes.len() <= 512 && bytes[2] & 2 != 0);
    let (_, read) = wire::read_answers(&bytes, 0xabcd).unwrap();
    assert_eq!(read[..], records[..read.len()]);
    assert!(read.len() > 20);
}

#[test]
fn what_is_no_question_is_refused() {
    let mut answer = request("a.b", Type::A, None);
    answer[2] |= 0x80;
    assert_eq!(Query::read(&answer), Err((None, Code::FormatError)));
    let mut update = request("a.b", Type::A, None);
    update[2] |= 0x28;
    assert_eq!(Query::read(&update), Err((Some(0xabcd), Code::NotImplemented)));
    // A name that points at itself.
    let mut looping = request("a.b", Type::A, None);
    looping[12..14].copy_from_slice(&[0xc0, 12]);
    assert_eq!(Query::read(&looping), Err((Some(0xabcd), Code::FormatError)));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Query::read(&bytes);
        let _ = wire::read_answers(&bytes, 0xabcd);
    }

    #[test]
    fn broken_questions_are_read_without_panic(at in 0usize..40, byte in any::<u8>(), cut in 0usize..60) {
        let mut bytes = request("web.default.svc.cluster.local", Type::A, Some(1232));
        let length = bytes.len();
        bytes[at % length] = byte;
        bytes.truncate(length - cut % length);
        let _ = Query::read(&bytes);
        let _ = wire::read_answers(&bytes, 0xabcd);
    }

    #[test]
    fn answers_are_read_back(labels in prop::collection::vec("[a-z0-9-]{1,20}", 1..6), ips in prop::collection::vec(any::<[u8; 4]>(), 0..20)) {
        let name = labels.join(".");
        let query = Query::read(&request(&name, Type::A, Some(1232))).unwrap();
        prop_assert_eq!(&query.question.name, &name);
        let mut records = vec![Record { name, ttl_seconds: 1, data: RecordData::Cname(labels[1..].join(".")) }];
        records.extend(ips.iter().map(|ip| Record { name: labels[1..].join("."), ttl_seconds: 2, data: RecordData::A((*ip).into()) }));
        let bytes = query.answer(Code::Ok, &Parts { answers: &records, ..Parts::default() }, 1232);
        prop_assert_eq!(wire::read_answers(&bytes, 0xabcd), Some((0, records)));
    }
}
