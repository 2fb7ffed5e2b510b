//! The two servers: ours with nothing that works on the state behind the requests' backs, upstream's as much alike as its flags allow.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::servers::{Connection, Door, Identity, Upstream, brought, etcd, free_port, output};

/// One of them, as it is spoken to.
pub struct Side {
    /// By the administrator's certificate.
    pub administrator: Door,
    /// By whoever the request says.
    pub nobody: Door,
}

/// Both. They end with this value.
pub struct Both {
    pub ours: Side,
    pub upstream: Side,
    _processes: (Upstream, Ours),
}

impl Both {
    pub async fn start() -> Result<Self> {
        let own = Ours::start().await.context("ekso server")?;
        let administrator = own.administrator()?;
        let pki = own.cluster().join("pki");
        let at = |name: &str| pki.join(name).display().to_string();
        // The same authorities, so that a certificate, a token or an address is the same thing to both.
        let flags = [
            format!("--client-ca-file={}", at("ca.crt")),
            format!("--service-account-key-file={}", own.public_key()?.display()),
            format!("--service-account-signing-key-file={}", at("sa.key")),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
            "--service-cluster-ip-range=10.100.0.0/16".into(),
            format!("--requestheader-client-ca-file={}", at("front-proxy/ca.crt")),
            "--requestheader-allowed-names=front-proxy-client".into(),
            "--requestheader-username-headers=X-Remote-User".into(),
            "--requestheader-group-headers=X-Remote-Group".into(),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
            "--enable-admission-plugins=NodeRestriction".into(),
            "--enable-bootstrap-token-auth=true".into(),
            "--allow-privileged=true".into(),
            "--profiling=false".into(),
        ];
        let theirs = Upstream::start(&flags).await.context("kube-apiserver")?;
        let upstream = Side { administrator: theirs.door(Some(&administrator))?, nobody: theirs.door(None)? };
        let ours = Side { administrator: own.door(Some(&administrator))?, nobody: own.door(None)? };
        Ok(Self { ours, upstream, _processes: (theirs, own) })
    }
}

/// `ekso server`, which ends with this value. Its state is in an etcd where somebody else holds the Leases of the controllers and the
/// scheduler for long, so that none of them runs but those that belong to each API server.
struct Ours {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
    _etcd: etcd::Server,
}

impl Drop for Ours {
    fn drop(&mut self) {
        // Failing means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ours {
    async fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("ekso-compare-").tempdir().context("make a folder")?;
        let etcd = etcd::Server::start(&brought("etcd-of-kubernetes"), &folder.path().join("etcd"))?;
        let mut client = etcd.client().await?;
        for name in ["kube-controller-manager", "kube-scheduler"] {
            let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": name, "namespace": "kube-system", "uid": "00000000-0000-4000-8000-000000000000",
                    "creationTimestamp": "2020-01-01T00:00:00Z"},
                "spec": {"holderIdentity": "nobody", "leaseDurationSeconds": 1_000_000, "leaseTransitions": 0,
                    "acquireTime": "2020-01-01T00:00:00.000000Z", "renewTime": "2020-01-01T00:00:00.000000Z"}});
            client.put(format!("/registry/leases/kube-system/{name}"), lease.to_string().into()).await?;
        }
        let port = free_port()?;
        let mut server = Command::new(binary()?);
        server.args(["server", "--name", "compare", "--data-dir"]).arg(folder.path().join("data"));
        server.arg("--listen").arg(format!("127.0.0.1:{port}"));
        server.arg("--store").arg(format!("etcd://{}", etcd.address()));
        let log = std::fs::File::create(folder.path().join("log"))?;
        let child = server.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        let mut ours = Self { child: child.context("start it")?, folder, port, _etcd: etcd };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !ours.is_ready().await {
            let log = || std::fs::read_to_string(ours.folder.path().join("log")).unwrap_or_default();
            ensure!(ours.child.try_wait()?.is_none(), "it has ended: {}", log());
            ensure!(Instant::now() < deadline, "it is not ready: {}", log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(ours)
    }

    async fn is_ready(&self) -> bool {
        let Ok(door) = self.door(None) else { return false };
        let Ok(mut connection) = Connection::open(&door).await else { return false };
        let asked = connection.ask(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        asked.is_ok_and(|head| head.code == 200) && self.administrator().is_ok()
    }

    fn cluster(&self) -> PathBuf {
        self.folder.path().join("data/clusters/compare")
    }

    fn door(&self, identity: Option<&Identity>) -> Result<Door> {
        Door::new(&self.cluster().join("pki/ca.crt"), self.port, identity)
    }

    /// Upstream reads no public key out of a private one in this format.
    fn public_key(&self) -> Result<PathBuf> {
        let key = self.folder.path().join("sa.pub");
        let private = self.cluster().join("pki/sa.key");
        output(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(private).arg("-out").arg(&key))?;
        Ok(key)
    }

    fn administrator(&self) -> Result<Identity> {
        let path = self.cluster().join("admin.kubeconfig");
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let config: Value = serde_saphyr::from_str(&text)?;
        let user = &config["users"][0]["user"];
        let pem = |field: &str| {
            let encoded = user[field].as_str().with_context(|| format!("{field} of {}", path.display()))?;
            anyhow::Ok(String::from_utf8(STANDARD.decode(encoded)?)?)
        };
        Ok(Identity { certificate: pem("client-certificate-data")?, key: pem("client-key-data")? })
    }
}

/// The binary that was built beside this one, or the one that `EKSO_BINARY` names.
fn binary() -> Result<PathBuf> {
    let named = std::env::var_os("EKSO_BINARY").map(PathBuf::from);
    let beside = || Some(std::env::current_exe().ok()?.parent()?.join("ekso"));
    let path = named.or_else(beside).context("find the binary")?;
    ensure!(Path::new(&path).exists(), "{} is missing: cargo build -p main makes it", path.display());
    Ok(path)
}
