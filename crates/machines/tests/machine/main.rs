//! Real machines on this host: two sites with the same VPC range, packets, restarts, deletion without a trace.
//!
//! This program is its own `machine-init` and its own node, as `ekso` is. It needs root, and says so if it has none.

#![allow(clippy::unwrap_used)] // a test program: what fails should stop it

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

mod fixture;
mod security;

use fixture::{Fixture, ask};
use machines::{Bind, Machine, NetNs, Site, netns};

const PORT: u16 = 30080;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("machine-init") => machines::init::main(&args[1..]),
        Some("node") if args[1] == "pod" => node_with_pod(),
        Some("node") => node(&args[1]),
        Some("start") => {
            let machine = Site::open(&args[1], &args[2]).unwrap().machine("node-1").unwrap();
            let spec = serde_json::from_str(&args[3]).unwrap();
            machine.start(&spec).unwrap();
            ExitCode::SUCCESS
        }
        _ if !rustix::process::geteuid().is_root() => {
            println!("skipped: machines need root");
            ExitCode::SUCCESS
        }
        wanted => {
            // A word of the names of those to be run; options of the test runner are none.
            let wanted = wanted.filter(|word| !word.starts_with('-')).unwrap_or_default();
            for (name, test) in TESTS.iter().filter(|(name, _)| name.contains(wanted)) {
                test();
                println!("test {name} ... ok");
            }
            ExitCode::SUCCESS
        }
    }
}

const TESTS: &[(&str, fn())] = &[
    ("two_sites_with_one_range", two_sites_with_one_range),
    ("the_command_is_kept_running", the_command_is_kept_running),
    ("a_machine_outlives_whoever_started_it", a_machine_outlives_whoever_started_it),
    ("a_start_that_crashed_is_cleared", a_start_that_crashed_is_cleared),
    ("a_start_killed_on_the_way_is_cleared", a_start_killed_on_the_way_is_cleared),
    ("a_start_that_fails_says_why", a_start_that_fails_says_why),
    ("machines_reach_the_vpc_and_not_the_host", machines_reach_the_vpc_and_not_the_host),
    (
        "machines_started_at_once_have_addresses_of_their_own",
        machines_started_at_once_have_addresses_of_their_own,
    ),
    ("a_node_port_leads_to_a_pod", a_node_port_leads_to_a_pod),
    ("a_machine_sees_its_own_root", a_machine_sees_its_own_root),
    ("links_in_a_root_lead_nowhere", links_in_a_root_lead_nowhere),
    ("the_hosts_hardware_is_out_of_reach", the_hosts_hardware_is_out_of_reach),
    ("groups_guard_machines_and_pods", security::groups_guard_machines_and_pods),
    ("a_machine_speaks_for_itself_only", security::a_machine_speaks_for_itself_only),
    ("vpcs_with_one_range_never_meet", security::vpcs_with_one_range_never_meet),
    ("routes_out_have_effect", security::routes_out_have_effect),
    ("link_local_services_are_the_only_ones", security::link_local_services_are_the_only_ones),
    ("a_vpc_changes_under_its_machines", security::a_vpc_changes_under_its_machines),
];

/// What runs in the machine: answers one request a connection.
fn node(greeting: &str) -> ExitCode {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).unwrap();
    for connection in listener.incoming() {
        let mut connection = connection.unwrap();
        let mut request = String::new();
        BufReader::new(&connection).read_line(&mut request).unwrap();
        let answer = match request.trim().split_once(' ') {
            Some(("dial", address)) => {
                let dialed =
                    TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_millis(500));
                dialed.map_or_else(|error| format!("no: {:?}", error.kind()), |_| "yes".into())
            }
            Some(("read", path)) => {
                fs::read_to_string(path).unwrap_or_else(|error| format!("no: {:?}", error.kind()))
            }
            Some(("list", path)) => {
                let mut names: Vec<_> = fs::read_dir(path)
                    .unwrap()
                    .map(|e| e.unwrap().file_name().into_string().unwrap())
                    .collect();
                names.sort();
                names.join(" ")
            }
            Some(("from", rest)) => dial_from(rest),
            Some(("write", path)) => {
                fs::write(path, "x").map_or_else(|error| format!("no: {:?}", error.kind()), |()| "yes".into())
            }
            Some(("open", device)) => open_device(device),
            _ => format!("{greeting} {} from {}", std::process::id(), connection.peer_addr().unwrap().ip()),
        };
        connection.write_all(answer.as_bytes()).unwrap();
    }
    ExitCode::SUCCESS
}

/// Takes an address that is not the machine's, as root in it can, and dials from it: `172.31.0.99 172.31.0.11:30080`.
fn dial_from(rest: &str) -> String {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
    let (source, to) = rest.split_once(' ').unwrap();
    let source: Ipv4Addr = source.parse().unwrap();
    let to: SocketAddr = to.parse().unwrap();
    let mut links = netlink::link::Links::open().unwrap();
    let link = links.get("eth0").unwrap().index;
    links.add_address(link, source, 32).unwrap();
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    // Longer than the second between two tries, of a SYN as of an ARP request: a first that found nobody is no answer.
    let patience = Some(Duration::from_millis(2500));
    rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Send, patience).unwrap();
    bind(&socket, &SocketAddr::from((source, 0))).unwrap();
    let dialed = connect(&socket, &to);
    links.delete_address(link, source, 32).unwrap();
    dialed.map_or_else(|error| format!("no: {error}"), |()| "yes".into())
}

/// Makes a device node, `b 254 0`, and opens it.
fn open_device(device: &str) -> String {
    use rustix::fs::{FileType, Mode};
    let [kind, major, minor] = device.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let kind = if kind == "b" { FileType::BlockDevice } else { FileType::CharacterDevice };
    let numbers = rustix::fs::makedev(major.parse().unwrap(), minor.parse().unwrap());
    let path = "/dev/tried";
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, Mode::RUSR, numbers).unwrap();
    let opened = fs::File::open(path);
    fs::remove_file(path).unwrap();
    opened.map_or_else(|error| format!("no: {:?}", error.kind()), |_| "yes".into())
}

/// A node with one pod behind a Service: the pod's namespace, its link and the rules are real, its server a thread.
fn node_with_pod() -> ExitCode {
    use plan::net::{PodLink, Protocol, Ruleset, ServicePort, ServicePortName};
    let pod_ip = fixture::POD;
    let pod = NetNs::ensure("/run/pod").unwrap();
    datapath::node::prepare(&[]).unwrap();
    datapath::pod::ensure(&PodLink { ip: pod_ip, host_link: "eni0".into(), netns: "/run/pod".into() })
        .unwrap();
    let endpoint = (pod_ip, 8080);
    let name = ServicePortName {
        namespace: "default".into(),
        service: "web".into(),
        port: String::new(),
        protocol: Protocol::Tcp,
    };
    let service = ServicePort {
        name,
        port: 80,
        cluster_ips: vec![Ipv4Addr::new(10, 100, 0, 5)],
        external_ips: Vec::new(),
        node_port: Some(PORT),
        source_ranges: Vec::new(),
        load_balancer_ips: Vec::new(),
        endpoints: vec![endpoint],
        local_endpoints: vec![endpoint],
        affinity_seconds: None,
        internal_local: false,
        external_local: true,
    };
    let pods = vec!["172.31.0.0/16".parse().unwrap()];
    let ruleset = Ruleset {
        services: vec![service],
        host_ports: Vec::new(),
        pod_cidrs: pods.clone(),
        masquerade_from: pods.clone(),
        masquerade_except: pods,
    };
    datapath::Proxy::new("ekso-test").apply(&ruleset).unwrap();
    let listener = netns::tcp_listener(&pod, SocketAddr::from((pod_ip, 8080))).unwrap();
    for connection in listener.incoming() {
        let mut connection = connection.unwrap();
        let mut request = String::new();
        BufReader::new(&connection).read_line(&mut request).unwrap();
        let answer = format!(
            "pod at {} from {}",
            connection.local_addr().unwrap(),
            connection.peer_addr().unwrap().ip()
        );
        connection.write_all(answer.as_bytes()).unwrap();
    }
    ExitCode::SUCCESS
}

fn two_sites_with_one_range() {
    let (a, b) = (Fixture::new("ta"), Fixture::new("tb"));
    let (in_a, in_b) = (a.start("node-1", "alpha"), b.start("node-1", "beta"));
    assert_eq!(in_a.spec().unwrap().unwrap().link.address, in_b.spec().unwrap().unwrap().link.address);
    assert!(ask(&in_a, "hello").starts_with("alpha "));
    assert!(ask(&in_b, "hello").starts_with("beta "));
    // The host's address is not hidden from the machine.
    let host = a.site.pool().unwrap().unwrap().host();
    assert!(ask(&in_a, "hello").ends_with(&format!("from {host}")));
    // A machine of one site does not reach the other's, nor does the host know the VPC.
    let other = fixture::public(&in_b);
    assert_eq!(ask(&in_a, &format!("dial {other}:{PORT}")), "no: TimedOut");
    let mut links = netlink::link::Links::open().unwrap();
    let vpc = Ipv4Addr::new(172, 31, 0, 0);
    let knows = links.routes().unwrap().iter().any(|route| route.prefix > 0 && route.destination == vpc);
    assert!(!knows, "the host has a route to the VPC");
    a.done();
    assert!(ask(&in_b, "hello").starts_with("beta "), "deleting one site harms the other");
    b.done();
}

fn the_command_is_kept_running() {
    let fixture = Fixture::new("tc");
    let machine = fixture.start("node-1", "gamma");
    let before = ask(&machine, "hello");
    let init = machine.running().unwrap();
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", init.pid)).unwrap();
    let child = rustix::process::Pid::from_raw(children.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
    let after = ask(&machine, "hello");
    assert_ne!(before, after, "the command has another process id now");
    assert_eq!(machine.running(), Some(init));
    // Nothing keeps its end from it.
    let status = ask(&machine, "read /proc/self/status");
    assert!(status.contains("SigBlk:\t0000000000000000\n"), "{status}");
    fixture.done();
}

fn a_machine_outlives_whoever_started_it() {
    let fixture = Fixture::new("td");
    let machine = fixture.start("node-1", "delta");
    let again = Site::open(fixture.site.id(), fixture.site.data()).unwrap();
    again.up().unwrap();
    let found = again.machines().unwrap();
    assert_eq!(found.iter().map(Machine::name).collect::<Vec<_>>(), ["node-1"]);
    assert_eq!(found[0].running(), machine.running());
    assert_eq!(found[0].start(&fixture.spec("node-1", "other")).unwrap(), machine.running().unwrap());
    assert!(ask(&machine, "hello").starts_with("delta"));
    found[0].stop().unwrap();
    assert_eq!(machine.running(), None);
    found[0].start(&fixture.spec("node-1", "epsilon")).unwrap();
    assert!(ask(&machine, "hello").starts_with("epsilon"));
    fixture.done();
}

fn a_start_that_crashed_is_cleared() {
    let fixture = Fixture::new("te");
    let machine = fixture.site.machine("node-1").unwrap();
    // A namespace without links, a process id that is someone else's by now, and a bare mount point.
    netns::NetNs::ensure(machine.netns_path()).unwrap();
    fs::create_dir_all(machine.root()).unwrap();
    let stale = format!("{{\"pid\":{},\"started_ticks\":1}}", std::process::id());
    fs::write(machine.root().with_file_name("pid.json"), stale).unwrap();
    assert_eq!(machine.running(), None);
    fixture.start("node-1", "zeta");
    assert!(ask(&machine, "hello").starts_with("zeta"));
    fixture.done();
}

/// Another process starts the machine and is killed as soon as this or that of it is there.
fn a_start_killed_on_the_way_is_cleared() {
    let fixture = Fixture::new("tk");
    let spec = fixture.spec("node-1", "eta");
    let machine = fixture.site.machine("node-1").unwrap();
    let dir = machine.root().parent().unwrap().to_owned();
    for sign in [
        dir.join("spec.json"),
        machine.netns_path(),
        dir.join("boot.json"),
        dir.join("pid.json"),
        machine.log(),
    ] {
        let mut starter = std::process::Command::new("/proc/self/exe")
            .args(["start", fixture.site.id(), fixture.site.data().to_str().unwrap()])
            .arg(serde_json::to_string(&spec).unwrap())
            .spawn()
            .unwrap();
        while !sign.exists() && starter.try_wait().unwrap().is_none() {
            std::hint::spin_loop();
        }
        starter.kill().unwrap();
        starter.wait().unwrap();
        machine.start(&spec).unwrap();
        assert!(ask(&machine, "hello").starts_with("eta"), "killed at {}", sign.display());
        let firsts =
            ask(&machine, "list /proc").split(' ').filter(|name| name.parse::<u32>().is_ok()).count();
        assert_eq!(firsts, 2, "killed at {}", sign.display());
        machine.delete().unwrap();
    }
    fixture.done();
}

fn a_start_that_fails_says_why() {
    let fixture = Fixture::new("tf");
    let machine = fixture.site.machine("node-1").unwrap();
    let mut spec = fixture.spec("node-1", "x");
    spec.command = vec!["/no/such/file".to_owned()];
    let error = machine.start(&spec).unwrap_err().to_string();
    assert!(error.contains("node-1") && error.contains("/no/such/file"), "{error}");
    assert_eq!(machine.running(), None);
    assert!(!netns::is_pinned(&machine.netns_path()));
    fixture.done();
}

fn machines_reach_the_vpc_and_not_the_host() {
    let fixture = Fixture::new("tg");
    let (one, two) = (fixture.start("node-1", "one"), fixture.start("node-2", "two"));
    let of = |machine: &Machine| machine.spec().unwrap().unwrap().link;
    let api = SocketAddr::from((fixture::ENDPOINT, 443));
    let router = fixture.site.vpc(fixture::VPC).unwrap();
    let listener = netns::tcp_listener(router.ns(), api).unwrap();
    assert_eq!(ask(&one, &format!("dial {api}")), "yes");
    let (_, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip(), of(&one).address);
    // Each other, by private and by public address.
    ask(&two, "hello");
    assert_eq!(ask(&one, &format!("dial {}:{PORT}", of(&two).address)), "yes");
    assert_eq!(ask(&one, &format!("dial {}:{PORT}", fixture::public(&two))), "yes");
    // The server dials machines in the VPC.
    let address = SocketAddr::from((of(&two).address, PORT));
    drop(netns::tcp_connect(router.ns(), address, fixture::PATIENCE).unwrap());
    // The host's services stay out of reach at every address.
    let host = fixture.site.pool().unwrap().unwrap().host();
    let service = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = service.local_addr().unwrap().port();
    assert_eq!(ask(&one, &format!("dial {host}:{port}")), "no: TimedOut");
    fixture.done();
}

fn machines_started_at_once_have_addresses_of_their_own() {
    let fixture = Fixture::new("ti");
    let names = ["node-1", "node-2", "node-3"];
    let specs = names.map(|name| fixture.spec(name, name));
    std::thread::scope(|scope| {
        for (name, spec) in names.iter().zip(&specs) {
            let site = &fixture.site;
            scope.spawn(move || site.machine(name).unwrap().start(spec).unwrap());
        }
    });
    for name in names {
        assert!(ask(&fixture.site.machine(name).unwrap(), "hello").starts_with(name));
    }
    fixture.done();
}

fn a_node_port_leads_to_a_pod() {
    let fixture = Fixture::new("tj");
    let machine = fixture.start("node-1", "pod");
    let host = fixture.site.pool().unwrap().unwrap().host();
    assert_eq!(ask(&machine, "hello"), format!("pod at {}:8080 from {host}", fixture::POD));
    fixture.done();
}

fn a_machine_sees_its_own_root() {
    let fixture = Fixture::new("th");
    let shared = tempfile::tempdir().unwrap();
    fs::write(shared.path().join("greeting"), "shared").unwrap();
    let mut spec = fixture.spec("node-1", "theta");
    spec.binds =
        vec![Bind { source: shared.path().into(), target: "/var/lib/ekso/images".into(), read_only: true }];
    let machine = fixture.site.machine("node-1").unwrap();
    machine.start(&spec).unwrap();
    assert_eq!(ask(&machine, "read /etc/hostname"), "node-1\n");
    assert_eq!(ask(&machine, "read /proc/sys/kernel/hostname"), "node-1\n");
    assert_eq!(ask(&machine, "read /etc/resolv.conf"), "nameserver 10.100.0.10\n");
    assert_eq!(ask(&machine, "read /var/lib/ekso/images/greeting"), "shared");
    assert_eq!(ask(&machine, "write /var/lib/ekso/images/greeting"), "no: ReadOnlyFilesystem");
    assert_eq!(ask(&machine, "write /usr/bin/ekso"), "no: ReadOnlyFilesystem");
    assert_eq!(ask(&machine, "write /var/lib/ekso/kept"), "yes");
    assert_eq!(fs::read_to_string(machine.root().join("var/lib/ekso/kept")).unwrap(), "x");
    let ids = ask(&machine, "list /proc");
    let ids: Vec<u32> = ids.split(' ').filter_map(|name| name.parse().ok()).collect();
    assert_eq!(ids.len(), 2, "process 1 and the node: {ids:?}");
    // Control groups begin at the machine's own, and are writable.
    let membership = ask(&machine, "read /proc/self/cgroup");
    assert!(membership.lines().all(|line| !line.contains("ekso-")), "{membership}");
    fixture.done();
}

/// What pods left in a machine's root is not followed on the host when the machine starts again.
fn links_in_a_root_lead_nowhere() {
    use std::os::unix::fs::symlink;
    let fixture = Fixture::new("tl");
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    let machine = fixture.start("node-1", "iota");
    assert!(ask(&machine, "hello").starts_with("iota"));
    machine.stop().unwrap();
    let root = machine.root();
    let link = |path: &str, target: &std::path::Path| {
        let path = root.join(path);
        match path.symlink_metadata().unwrap().is_dir() {
            true => fs::remove_dir_all(&path).unwrap(),
            false => fs::remove_file(&path).unwrap(),
        }
        symlink(target, &path).unwrap();
    };
    link("etc/hostname", &victim);
    link("etc/hosts", &outside.path().join("made"));
    link("var/log", outside.path());
    link("opt", outside.path());
    link("usr/bin", outside.path());
    machine.start(&fixture.spec("node-1", "kappa")).unwrap();
    assert!(ask(&machine, "hello").starts_with("kappa"));
    assert_eq!(ask(&machine, "read /etc/hostname"), "node-1\n");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    let names: Vec<_> =
        fs::read_dir(outside.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["victim"]);
    fixture.done();
}

fn the_hosts_hardware_is_out_of_reach() {
    let fixture = Fixture::new("tm");
    let machine = fixture.start("node-1", "lambda");
    assert_eq!(ask(&machine, "open c 1 3"), "yes");
    // A number that no driver has says so where it is not refused before.
    for disk in ["b 8 0", "b 200 0", "b 253 0", "b 259 0"] {
        assert_eq!(ask(&machine, &format!("open {disk}")), "no: PermissionDenied", "{disk}");
    }
    let status = ask(&machine, "read /proc/self/status");
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:\t")).unwrap();
    let bounding = u64::from_str_radix(bounding, 16).unwrap();
    // capability.h: SYS_MODULE 16, SYS_RAWIO 17, SYS_BOOT 22, SYS_TIME 25; and SYS_ADMIN 21, which machines have.
    for capability in [16, 17, 22, 25] {
        assert_eq!(bounding & 1 << capability, 0, "capability {capability}");
    }
    assert_ne!(bounding & 1 << 21, 0);
    // What the host trusts is copied: writable, and nobody else's.
    let bundle = "/etc/ssl/certs/ca-certificates.crt";
    if std::path::Path::new(bundle).exists() {
        let before = fs::read(bundle).unwrap();
        assert_eq!(ask(&machine, &format!("write {bundle}")), "yes");
        assert_eq!(ask(&machine, &format!("read {bundle}")), "x");
        assert_eq!(fs::read(bundle).unwrap(), before);
    }
    // Private keys of the host's services are beside its certificate authorities.
    let seen = ask(&machine, "list /etc/ssl");
    assert!(!seen.split(' ').any(|name| name == "private"), "{seen}");
    fixture.done();
}
