//! A small network in namespaces of its own: a node, pods on it, and a stranger beyond its uplink.

#![allow(dead_code)] // each test program uses a part

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use netlink::NetNs;
use netlink::link::{Links, Route, Veth};
use netlink::netns::{self, run_in};
use plan::net::{Cidr, Endpoint, PodLink, Protocol, Ruleset, ServicePort, ServicePortName};

pub const NODE: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 10);
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 99);
pub const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 100, 0, 77);
pub const NODE_PORT: u16 = 30080;
/// Where servers of pods listen.
pub const TARGET_PORT: u16 = 8080;
/// For what must not come at all.
pub const SOON: Duration = Duration::from_millis(300);
pub const PATIENCE: Duration = Duration::from_secs(10);

pub struct Lab {
    dir: tempfile::TempDir,
    pub node: NetNs,
    pub stranger: NetNs,
    pods: Vec<NetNs>,
}

/// Whether the test can run; says so if not.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: namespaces need root");
    }
    root
}

impl Lab {
    pub fn new(pods: u8) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pin = |name: &str| NetNs::ensure(dir.path().join(name)).unwrap();
        let (node, stranger) = (pin("node"), pin("stranger"));
        run_in(&node, || {
            let mut links = Links::open().unwrap();
            let peer_ns = Some(stranger.as_fd());
            links.add_veth(&Veth { name: "eth0", mtu: 1400, peer_name: "eth0", peer_ns }).unwrap();
            up(NODE);
            let link = links.get("eth0").unwrap().index;
            links
                .replace_route(&Route { via: Some(STRANGER), ..Route::to(Ipv4Addr::UNSPECIFIED, 0, link) })
                .unwrap();
            datapath::node::prepare(&[]).unwrap();
        })
        .unwrap();
        run_in(&stranger, || up(STRANGER)).unwrap();
        let mut lab = Self { dir, node, stranger, pods: Vec::new() };
        for number in 1..=pods {
            let ns = NetNs::ensure(lab.dir.path().join(format!("pod{number}"))).unwrap();
            lab.pods.push(ns);
            run_in(&lab.node, || datapath::pod::ensure(&lab.link(number)).unwrap()).unwrap();
        }
        lab
    }

    pub fn link(&self, pod: u8) -> PodLink {
        PodLink { ip: pod_ip(pod), host_link: format!("eni{pod}"), netns: self.pin(pod) }
    }

    fn pin(&self, pod: u8) -> PathBuf {
        self.dir.path().join(format!("pod{pod}"))
    }

    pub fn pod(&self, number: u8) -> &NetNs {
        &self.pods[usize::from(number) - 1]
    }

    /// Runs an `nft` command in the node's namespace.
    pub fn nft(&self, args: &[&str]) -> String {
        let output = run_in(&self.node, || Command::new("nft").args(args).output()).unwrap().unwrap();
        assert!(output.status.success(), "nft {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for ns in self.pods.iter().chain([&self.node, &self.stranger]) {
            netns::remove(ns.path()).unwrap();
        }
    }
}

fn up(address: Ipv4Addr) {
    let mut links = Links::open().unwrap();
    for name in ["lo", "eth0"] {
        let link = links.get(name).unwrap().index;
        links.set_up(link).unwrap();
    }
    let link = links.get("eth0").unwrap().index;
    links.add_address(link, address, 20).unwrap();
}

pub fn pod_ip(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 244, 0, number)
}

pub fn endpoint(pod: u8) -> Endpoint {
    (pod_ip(pod), TARGET_PORT)
}

/// A Service with pods of the lab behind it, all local.
pub fn service(pods: &[u8]) -> ServicePort {
    let endpoints: Vec<Endpoint> = pods.iter().map(|pod| endpoint(*pod)).collect();
    ServicePort {
        name: ServicePortName {
            namespace: "default".into(),
            service: "web".into(),
            port: "http".into(),
            protocol: Protocol::Tcp,
        },
        port: 80,
        cluster_ips: vec![CLUSTER_IP],
        external_ips: Vec::new(),
        node_port: Some(NODE_PORT),
        source_ranges: Vec::new(),
        load_balancer_ips: Vec::new(),
        local_endpoints: endpoints.clone(),
        endpoints,
        affinity_seconds: None,
        internal_local: false,
        external_local: false,
    }
}

pub fn ruleset(services: Vec<ServicePort>) -> Ruleset {
    let pods: Cidr = "10.244.0.0/16".parse().unwrap();
    Ruleset {
        services,
        host_ports: Vec::new(),
        pod_cidrs: vec![pods],
        masquerade_from: vec!["10.244.0.0/24".parse().unwrap()],
        masquerade_except: vec![pods, Cidr::from(NODE)],
    }
}

/// Serves "<name> <client's address>" on TCP until the process ends.
pub fn serve_tcp(ns: &NetNs, address: Ipv4Addr, port: u16, name: &str) {
    let listener: TcpListener = netns::tcp_listener(ns, SocketAddr::from((address, port))).unwrap();
    let name = name.to_owned();
    std::thread::spawn(move || {
        for connection in listener.incoming().map_while(io::Result::ok) {
            let peer = connection.peer_addr().map(|peer| peer.ip().to_string()).unwrap_or_default();
            let _ = (&connection).write_all(format!("{name} {peer}").as_bytes());
        }
    });
}

/// Serves the same on UDP.
pub fn serve_udp(ns: &NetNs, address: Ipv4Addr, port: u16, name: &str) {
    let socket: UdpSocket = netns::udp_socket(ns, SocketAddr::from((address, port))).unwrap();
    let name = name.to_owned();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(format!("{name} {}", peer.ip()).as_bytes(), peer);
        }
    });
}

/// What a server says to a client in `ns`.
pub fn ask(ns: &NetNs, address: Ipv4Addr, port: u16) -> Result<String, io::ErrorKind> {
    ask_for(ns, address, port, PATIENCE)
}

/// Like [`ask`], for what is to be dropped.
pub fn ask_in_vain(ns: &NetNs, address: Ipv4Addr, port: u16) -> Result<String, io::ErrorKind> {
    ask_for(ns, address, port, SOON)
}

fn ask_for(ns: &NetNs, address: Ipv4Addr, port: u16, patience: Duration) -> Result<String, io::ErrorKind> {
    let to = SocketAddr::from((address, port));
    let connection: Result<TcpStream, netlink::Error> = netns::tcp_connect(ns, to, patience);
    let mut connection = match connection {
        Ok(connection) => connection,
        Err(netlink::Error::Namespace { source, .. }) => return Err(source.kind()),
        Err(other) => panic!("{other}"),
    };
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).map_err(|error| error.kind())?;
    Ok(answer)
}
