//! A stock etcd of a test's own: on free ports of the loopback, in a folder that goes with it.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

pub struct EtcdServer {
    child: Child,
    folder: tempfile::TempDir,
    client: u16,
    peer: u16,
}

impl EtcdServer {
    /// Starts one and waits until it says that it serves.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder for etcd");
        let [client, peer] = free_ports();
        let child = spawn(folder.path(), client, peer, &[]);
        Self { child, folder, client, peer }
    }

    /// Starts one that speaks TLS and wants a certificate of its clients; PEM texts: authority, client certificate, client key.
    #[allow(dead_code)]
    pub fn start_secured() -> (Self, [String; 3]) {
        use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
        let key = || KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([]).expect("names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = key();
        let authority = params.self_signed(&authority_key).expect("an authority");
        let issuer = Issuer::new(params, authority_key);
        let [server, client] = [(); 2].map(|()| {
            let key = key();
            let params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("names");
            (params.signed_by(&key, &issuer).expect("a certificate").pem(), key.serialize_pem())
        });
        let folder = tempfile::tempdir().expect("a folder for etcd");
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("a file");
            path.display().to_string()
        };
        let authority = authority.pem();
        let secured = [
            format!("--trusted-ca-file={}", file("ca.pem", &authority)),
            format!("--cert-file={}", file("server.pem", &server.0)),
            format!("--key-file={}", file("server.key", &server.1)),
            "--client-cert-auth".to_owned(),
        ];
        let [port, peer] = free_ports();
        let child = spawn(&folder.path().join("data"), port, peer, &secured);
        (Self { child, folder, client: port, peer }, [authority, client.0, client.1])
    }

    pub fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.client)
    }

    /// As a crash and a restart of the machine it is on.
    #[allow(dead_code)]
    pub fn kill_and_restart(&mut self) {
        self.end();
        self.child = spawn(self.folder.path(), self.client, self.peer, &[]);
    }

    fn end(&mut self) {
        self.child.kill().expect("etcd can be killed");
        self.child.wait().expect("etcd has ended");
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        self.end();
    }
}

fn free_ports() -> [u16; 2] {
    // Both are held until both are known, so that they differ.
    let held = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    held.map(|listener| listener.local_addr().expect("its address").port())
}

fn spawn(folder: &std::path::Path, client: u16, peer: u16, secured: &[String]) -> Child {
    let scheme = if secured.is_empty() { "http" } else { "https" };
    let (client, peer) = (format!("{scheme}://127.0.0.1:{client}"), format!("http://127.0.0.1:{peer}"));
    let mut child = Command::new("etcd")
        .arg("--data-dir")
        .arg(folder)
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}"), "--logger", "zap"])
        .args(secured)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("etcd starts (Debian: apt-get install etcd-server)");
    let mut log = BufReader::new(child.stderr.take().expect("its log"));
    let mut line = String::new();
    // 3.4 says "serving insecure client requests" or "serving client requests"; later ones "serving client traffic …".
    while !["client requests", "client traffic"]
        .iter()
        .any(|what| line.contains("serving ") && line.contains(what))
    {
        line.clear();
        assert!(log.read_line(&mut line).expect("its log") > 0, "etcd ended before it served");
    }
    // Read on, so that etcd never waits for its log; ends with etcd.
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    child
}
