//! The DNS server over real sockets on loopback, with resolvers of our own behind it.

#![allow(clippy::unwrap_used)] // a test program: what fails should stop it

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use datapath::dns::{Answers, Server, Upstreams};
use network::dns::wire::{self, Code, Parts, Query, Type};
use plan::net::{Answer, Record, RecordData};

const LOCAL: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Knows `here.cluster.local`, `big.…` with many addresses, and `alias.…` for www.example.com.
fn answers() -> Answers {
    Arc::new(|question| {
        let record = |data| Record { name: question.name.clone(), ttl_seconds: 5, data };
        let a = |last| record(RecordData::A(Ipv4Addr::new(10, 0, 0, last)));
        match question.name.as_str() {
            "here.cluster.local" => Answer::Found { records: vec![a(1)], additional: Vec::new() },
            "big.cluster.local" => {
                Answer::Found { records: (0..100).map(a).collect(), additional: Vec::new() }
            }
            "alias.cluster.local" => {
                let name = "www.example.com".to_owned();
                Answer::Onwards { records: vec![record(RecordData::Cname(name.clone()))], name }
            }
            "loop.cluster.local" => Answer::Onwards { records: Vec::new(), name: question.name.clone() },
            "gone.cluster.local" => Answer::NoName(record(RecordData::Ns("x".into()))),
            _ => Answer::Elsewhere,
        }
    })
}

/// Answers every question with 192.0.2.1 on UDP and TCP; over UDP it says that `large.example` is cut.
async fn upstream() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind(LOCAL).await.unwrap();
    let address = listener.local_addr().unwrap();
    let socket = tokio::net::UdpSocket::bind(address).await.unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
            let query = Query::read(&buffer[..length]).unwrap();
            let mut answer = world(&query);
            if query.question.name == "large.example" {
                answer[2] |= 2;
            }
            socket.send_to(&answer, client).await.unwrap();
        }
    });
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut stream, _)) = listener.accept().await {
            let length = stream.read_u16().await.unwrap();
            let mut bytes = vec![0; usize::from(length)];
            stream.read_exact(&mut bytes).await.unwrap();
            let answer = world(&Query::read(&bytes).unwrap());
            stream.write_u16(answer.len() as u16).await.unwrap();
            stream.write_all(&answer).await.unwrap();
        }
    });
    address
}

fn world(query: &Query) -> Vec<u8> {
    let data = RecordData::A(Ipv4Addr::new(192, 0, 2, 1));
    let record = Record { name: query.question.name.clone(), ttl_seconds: 60, data };
    query.answer(Code::Ok, &Parts { answers: &[record], ..Parts::default() }, 512)
}

/// Starts a server and asks it from a thread that blocks, as clients do.
fn with_server(upstreams: usize, dead_first: bool, ask: impl FnOnce(SocketAddr) + Send + 'static) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut servers = Vec::new();
        if dead_first {
            // Bound, so that nobody else answers there; closed at once, so that it refuses.
            servers.push(UdpSocket::bind(LOCAL).unwrap().local_addr().unwrap());
        }
        for _ in 0..upstreams {
            servers.push(upstream().await);
        }
        let server = Server::bind(&[LOCAL]).await.unwrap();
        let address = server.addresses()[0];
        let asked = tokio::task::spawn_blocking(move || ask(address));
        server.run(answers(), Upstreams::new(servers), async { asked.await.unwrap() }).await;
    });
}

fn request(name: &str) -> Vec<u8> {
    let mut bytes = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, Type::A.0 as u8, 0, 1]);
    bytes
}

fn udp(server: SocketAddr, name: &str) -> Vec<u8> {
    let socket = UdpSocket::bind(LOCAL).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket.send_to(&request(name), server).unwrap();
    let mut buffer = vec![0; 2048];
    let length = socket.recv(&mut buffer).unwrap();
    buffer.truncate(length);
    buffer
}

fn tcp(stream: &mut TcpStream, name: &str) -> Vec<u8> {
    let request = request(name);
    stream.write_all(&[&(request.len() as u16).to_be_bytes()[..], &request].concat()).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).unwrap();
    answer
}

/// The code and the addresses.
fn read(answer: &[u8]) -> (u8, Vec<String>) {
    let (code, records) = wire::read_answers(answer, 0xabcd).unwrap();
    let text = |record: Record| match record.data {
        RecordData::A(ip) => ip.to_string(),
        RecordData::Cname(name) => name,
        other => format!("{other:?}"),
    };
    (code, records.into_iter().map(text).collect())
}

fn found(addresses: &[&str]) -> (u8, Vec<String>) {
    (0, addresses.iter().map(|address| (*address).to_owned()).collect())
}

#[test]
fn the_cluster_and_the_world() {
    with_server(1, false, |server| {
        assert_eq!(read(&udp(server, "here.cluster.local")), found(&["10.0.0.1"]));
        assert_eq!(read(&udp(server, "www.example.com")), found(&["192.0.2.1"]));
        assert_eq!(read(&udp(server, "alias.cluster.local")), found(&["www.example.com", "192.0.2.1"]));
        assert_eq!(read(&udp(server, "gone.cluster.local")), (3, Vec::new()));
        assert_eq!(read(&udp(server, "loop.cluster.local")), (2, Vec::new()));
    });
}

#[test]
fn what_is_cut_over_udp_is_whole_over_tcp() {
    with_server(1, false, |server| {
        let cut = udp(server, "big.cluster.local");
        assert!(cut.len() <= 512 && cut[2] & 2 != 0);
        assert_ne!(udp(server, "large.example")[2] & 2, 0, "the client is told to come again");
        let mut stream = TcpStream::connect(server).unwrap();
        assert_eq!(read(&tcp(&mut stream, "big.cluster.local")).1.len(), 100);
        let answer = tcp(&mut stream, "large.example");
        assert_eq!((answer[2] & 2, read(&answer)), (0, found(&["192.0.2.1"])));
    });
}

#[test]
fn a_dead_resolver_is_passed_over() {
    with_server(1, true, |server| {
        assert_eq!(read(&udp(server, "www.example.com")), found(&["192.0.2.1"]));
    });
}

#[test]
fn without_resolvers_the_world_fails_and_the_cluster_does_not() {
    with_server(0, false, |server| {
        assert_eq!(read(&udp(server, "www.example.com")), (2, Vec::new()));
        assert_eq!(read(&udp(server, "alias.cluster.local")), (2, Vec::new()));
        assert_eq!(read(&udp(server, "here.cluster.local")), found(&["10.0.0.1"]));
    });
}
