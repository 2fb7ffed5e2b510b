//! Asking others.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// How long one server may take. Clients give up after five seconds, so a second one gets its chance before.
const PATIENCE: Duration = Duration::from_secs(2);
/// The largest UDP answer that is read; a larger one is asked for again over TCP.
const LARGEST_ANSWER: usize = 4096;

/// The servers that know the world, in the order to ask them.
#[derive(Debug, Default)]
pub struct Upstreams {
    servers: Vec<SocketAddr>,
    /// Which of them answered last: the dead are not waited for again and again.
    preferred: AtomicUsize,
}

impl Upstreams {
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers, preferred: AtomicUsize::new(0) }
    }

    /// Without ourselves, which would be asked for ever.
    pub(super) fn without(mut self, own: &[SocketAddr]) -> Self {
        self.servers.retain(|server| !own.contains(server));
        self
    }

    /// The first answer to a request, as it came; none if nobody answers in time.
    pub(super) async fn ask(&self, request: &[u8], over_tcp: bool) -> Option<Vec<u8>> {
        let first = self.preferred.load(Ordering::Relaxed);
        for offset in 0..self.servers.len() {
            let index = (first + offset) % self.servers.len();
            let server = self.servers[index];
            let asked = async {
                if over_tcp {
                    return ask_tcp(server, request).await;
                }
                let answer = ask_udp(server, request).await?;
                if answer.len() < LARGEST_ANSWER { Ok(answer) } else { ask_tcp(server, request).await }
            };
            match timeout(PATIENCE, asked).await {
                Ok(Ok(answer)) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Some(answer);
                }
                Ok(Err(error)) => tracing::debug!(%server, %error, "a DNS server does not answer"),
                Err(_) => tracing::debug!(%server, "a DNS server does not answer in time"),
            }
        }
        None
    }
}

/// A socket for each request: its random port is half of what keeps forged answers out, the id the other half.
async fn ask_udp(server: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect(server).await?;
    socket.send(request).await?;
    let mut buffer = vec![0; LARGEST_ANSWER];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if is_answer(&buffer[..length], request) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn ask_tcp(server: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(request.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], request].concat()).await?;
    let length = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(length)];
    stream.read_exact(&mut answer).await?;
    if is_answer(&answer, request) {
        Ok(answer)
    } else {
        Err(io::Error::other("the answer is to another question"))
    }
}

/// The same id, and marked as an answer.
fn is_answer(answer: &[u8], request: &[u8]) -> bool {
    answer.len() >= 12 && answer[..2] == request[..2] && answer[2] & 0x80 != 0
}

pub(super) fn is_truncated(answer: &[u8]) -> bool {
    answer.get(2).is_some_and(|flags| flags & 0x02 != 0)
}
