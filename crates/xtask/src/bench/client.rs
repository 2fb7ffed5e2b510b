//! An API server as it is loaded: spoken to by hand, so that the client costs little of the cores that are shared.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Load, percentiles};
use crate::servers::{Connection, Door};

/// Where it is and how one shows oneself.
#[derive(Clone)]
pub struct Api {
    pub door: Door,
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
    pub fn new(door: Door, token: &str) -> Self {
        Self { door, token: token.into() }
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
        Ok(Client { api: self.clone(), connection: Connection::open(&self.door).await? })
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
    connection: Connection,
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
        let head = self.connection.ask(self.api.request(request).as_bytes()).await?;
        if (200..300).contains(&head.code) {
            return self.connection.body(&head, &mut enough).await;
        }
        let mut why = Vec::new();
        let all = |piece: &[u8]| {
            why.extend_from_slice(piece);
            false
        };
        self.connection.body(&head, all).await?;
        bail!("{} {}: {} {}", request.method, request.path, head.code, String::from_utf8_lossy(&why));
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
