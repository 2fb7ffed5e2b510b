//! A stock etcd on the loopback address, plain or with TLS and client certificates.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::clients::{Running, run, start, tool};
use crate::cluster::{free_port, until};

/// etcd, with its data and its certificates in a folder of the story's.
pub struct Etcd {
    port: u16,
    folder: PathBuf,
    is_secured: bool,
    _server: Running,
}

impl Etcd {
    pub fn start(scratch: &Path) -> Result<Self> {
        Self::open(scratch, false)
    }

    /// One that speaks TLS only, and only to who shows a certificate: `ca.crt`, `client.crt` and `client.key` in its folder.
    pub fn start_secured(scratch: &Path) -> Result<Self> {
        Self::open(scratch, true)
    }

    fn open(scratch: &Path, is_secured: bool) -> Result<Self> {
        let folder = scratch.join("etcd");
        std::fs::create_dir_all(&folder)?;
        let (port, peer) = (free_port()?, free_port()?);
        let scheme = if is_secured { "https" } else { "http" };
        let (client, peer) = (format!("{scheme}://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
        let mut etcd = Command::new(tool("etcd")?);
        etcd.arg("--data-dir").arg(folder.join("data"));
        etcd.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        etcd.args(["--listen-peer-urls", &peer]);
        if is_secured {
            make_certificates(&folder)?;
            etcd.arg("--client-cert-auth").arg("--trusted-ca-file").arg(folder.join("ca.crt"));
            etcd.arg("--cert-file").arg(folder.join("server.crt"));
            etcd.arg("--key-file").arg(folder.join("server.key"));
        }
        let server = start(&mut etcd, &scratch.join("etcd.log"))?;
        let etcd = Self { port, folder, is_secured, _server: server };
        until("etcd answers", || Ok(etcd.ask("range", &serde_json::json!({"key": "YQ=="})).ok()))?;
        Ok(etcd)
    }

    /// For `--store`.
    pub fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", if self.is_secured { "etcds" } else { "etcd" }, self.port)
    }

    /// Its certificates, and the keys of its clients.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn put(&self, key: &str, value: &[u8]) -> Result<()> {
        self.ask("put", &serde_json::json!({"key": base64(key.as_bytes())?, "value": base64(value)?}))
            .map(drop)
    }

    pub fn delete(&self, key: &str) -> Result<()> {
        self.ask("deleterange", &serde_json::json!({"key": base64(key.as_bytes())?})).map(drop)
    }

    /// How many keys there are of this name.
    pub fn count(&self, key: &str) -> Result<u64> {
        let answer =
            self.ask("range", &serde_json::json!({"key": base64(key.as_bytes())?, "count_only": true}))?;
        Ok(answer["count"].as_str().unwrap_or("0").parse()?)
    }

    /// Its JSON gateway: <https://etcd.io/docs/v3.5/dev-guide/api_grpc_gateway/>.
    fn ask(&self, what: &str, request: &Value) -> Result<Value> {
        let mut curl = Command::new(tool("curl")?);
        let scheme = if self.is_secured { "https" } else { "http" };
        curl.args(["--silent", "--show-error", "--fail", "-d", "@-"]);
        curl.arg(format!("{scheme}://127.0.0.1:{}/v3/kv/{what}", self.port));
        if self.is_secured {
            for (option, file) in [("--cacert", "ca.crt"), ("--cert", "client.crt"), ("--key", "client.key")]
            {
                curl.arg(option).arg(self.folder.join(file));
            }
        }
        serde_json::from_str(&run(&mut curl, &request.to_string())?.ok()?).context("etcd's answer")
    }
}

fn base64(bytes: &[u8]) -> Result<String> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(bytes)?;
    run(Command::new("base64").arg("-w0").arg(file.path()), "")?.ok()
}

/// An authority, and a certificate of it for the server and one for its clients.
fn make_certificates(folder: &Path) -> Result<()> {
    let openssl = |words: &str| -> Result<()> {
        let mut command = Command::new(tool("openssl")?);
        run(command.args(words.split(' ')).current_dir(folder), "")?.ok().map(drop)
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.crt -subj /CN=etcd-ca"))?;
    std::fs::write(folder.join("names"), "subjectAltName=IP:127.0.0.1\n")?;
    for name in ["server", "client"] {
        openssl(&format!("req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}"))?;
        openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out {name}.crt -days 2 -extfile names"
        ))?;
    }
    Ok(())
}
