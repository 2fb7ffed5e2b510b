//! An API server as it is loaded: spoken to by hand, so that the client costs little of the cores that are shared.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Load, percentiles};

/// Where it is and how one shows oneself.
#[derive(Clone)]
pub struct Api {
    tls: TlsConnector,
    port: u16,
    token: Arc<str>,
}

/// One of a load's requests.
pub struct Request {
    pub method: &'static str,
    pub path: String,
    /// Empty: no body.
    pub content_type: &'static str,
    pub body: String,
}

impl Request {
    pub fn get(path: &str) -> Self {
        Self { method: "GET", path: path.to_owned(), content_type: "", body: String::new() }
    }
}

impl Api {
    /// `authorities`: PEM of those that its certificate is believed by.
    pub fn new(authorities: &Path, port: u16, token: &str) -> Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        for authority in CertificateDer::pem_file_iter(authorities).context("read the authority")? {
            roots.add(authority?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), port, token: token.into() })
    }

    pub async fn connect(&self) -> Result<TlsStream<TcpStream>> {
        let address = Ipv4Addr::LOCALHOST;
        let socket = TcpStream::connect((address, self.port)).await?;
        socket.set_nodelay(true)?;
        Ok(self.tls.connect(ServerName::IpAddress(address.into()), socket).await?)
    }

    pub fn request(&self, request: &Request) -> String {
        let Request { method, path, content_type, body } = request;
        let kind =
            if content_type.is_empty() { String::new() } else { format!("Content-Type: {content_type}\r\n") };
        let length = body.len();
        format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nAccept: application/json\r\n{kind}Content-Length: {length}\r\n\r\n{body}",
            self.token
        )
    }

    /// A connection that asks one thing after another.
    pub async fn client(&self) -> Result<Client> {
        let stream = BufReader::with_capacity(64 * 1024, self.connect().await?);
        Ok(Client { api: self.clone(), stream })
    }

    /// So many requests by so many clients at once, each with a connection of its own; how long each waited.
    pub async fn load(
        &self,
        clients: u32,
        count: u32,
        request: impl Fn(u32) -> Request + Send + Sync + 'static,
    ) -> Result<Load> {
        let mut connected = Vec::new();
        for _ in 0..clients {
            connected.push(self.client().await?);
        }
        let request = Arc::new(request);
        let since = Instant::now();
        let tasks: Vec<_> = connected
            .into_iter()
            .zip(0..clients)
            .map(|(mut client, first)| {
                let request = request.clone();
                tokio::spawn(async move {
                    let mut times = Vec::new();
                    for nth in (first..count).step_by(clients as usize) {
                        let since = Instant::now();
                        client.ask(&request(nth)).await?;
                        times.push(since.elapsed());
                    }
                    anyhow::Ok(times)
                })
            })
            .collect();
        let mut times = Vec::new();
        for task in tasks {
            times.extend(task.await??);
        }
        let took = since.elapsed();
        Ok(Load { a_second: f64::from(count) / took.as_secs_f64(), p99: percentiles(times).1 })
    }
}

/// One connection.
pub struct Client {
    api: Api,
    stream: BufReader<TlsStream<TcpStream>>,
}

impl Client {
    /// The bytes of a successful answer's body.
    pub async fn ask(&mut self, request: &Request) -> Result<usize> {
        let mut bytes = 0;
        self.read(request, |piece| {
            bytes += piece.len();
            false
        })
        .await?;
        Ok(bytes)
    }

    /// A successful answer, piece by piece, until it ends or enough was seen of it.
    pub async fn read(&mut self, request: &Request, mut enough: impl FnMut(&[u8]) -> bool) -> Result<()> {
        self.stream.get_mut().write_all(self.api.request(request).as_bytes()).await?;
        let mut line = String::new();
        self.line(&mut line).await?;
        let code: u16 = line.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no HTTP")?;
        let (mut length, mut chunked) = (0, false);
        while !line.is_empty() {
            self.line(&mut line).await?;
            let Some((name, value)) = line.split_once(':') else { continue };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse()?;
            }
            chunked |= name.eq_ignore_ascii_case("transfer-encoding");
        }
        if !(200..300).contains(&code) {
            let mut why = vec![0; length];
            self.stream.read_exact(&mut why).await?;
            bail!("{} {}: {code} {}", request.method, request.path, String::from_utf8_lossy(&why));
        }
        if !chunked {
            self.pieces(length, &mut enough).await?;
            return Ok(());
        }
        loop {
            self.line(&mut line).await?;
            let size = usize::from_str_radix(&line, 16).with_context(|| format!("a chunk of {line:?}"))?;
            if self.pieces(size, &mut enough).await? {
                return Ok(());
            }
            self.line(&mut line).await?;
            if size == 0 {
                return Ok(());
            }
        }
    }

    async fn line(&mut self, line: &mut String) -> Result<()> {
        line.clear();
        ensure!(self.stream.read_line(line).await? > 0, "the connection ended within an answer");
        line.truncate(line.trim_end().len());
        Ok(())
    }

    /// So many bytes. True: enough was seen.
    async fn pieces(&mut self, mut rest: usize, enough: &mut impl FnMut(&[u8]) -> bool) -> Result<bool> {
        while rest > 0 {
            let piece = self.stream.fill_buf().await?;
            ensure!(!piece.is_empty(), "the connection ended within an answer");
            let used = piece.len().min(rest);
            let is_enough = enough(&piece[..used]);
            self.stream.consume(used);
            rest -= used;
            if is_enough {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// How long one request takes, the middle of as many as two seconds have room for; how many were made.
    pub async fn repeat(&mut self, request: &Request) -> Result<(Duration, u32)> {
        let began = Instant::now();
        let mut times = Vec::new();
        while times.len() < 20 || (times.len() < 5_000 && began.elapsed() < Duration::from_secs(2)) {
            let since = Instant::now();
            self.ask(request).await?;
            times.push(since.elapsed());
        }
        let count = u32::try_from(times.len())?;
        Ok((percentiles(times).0, count))
    }
}

/// Each client is a socket, here and in the daemon, which inherits the limit.
pub fn allow_sockets(clients: u32) -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    let wanted = u64::from(clients) * 2;
    ensure!(
        limit.maximum.is_none_or(|most| most >= wanted),
        "at most {:?} files may be open here",
        limit.maximum
    );
    if limit.current.is_some_and(|now| now < wanted) {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
            .context("allow more files")?;
    }
    Ok(())
}
