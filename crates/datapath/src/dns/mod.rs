//! The cluster's DNS server of one node: UDP and TCP, the cluster's names by [`network::dns`], all others by asking
//! the node's resolvers.
//!
//! Each node serves the cluster IP of kube-dns itself: the address is on its `lo` (see [`crate::node::prepare`]), as
//! with NodeLocal DNSCache. A question never leaves the node unless it is for the world, and there is no connection
//! tracking on the way, whose races lose packets.

mod forward;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use network::dns::wire::{self, Code, Parts, Query, Question, Type};
use plan::net::{Answer, Record};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub use forward::Upstreams;

/// Questions that wait for others at one time; more are answered with SERVFAIL at once.
const IN_FLIGHT: usize = 1000;
/// TCP connections at one time; more wait to be accepted.
const CONNECTIONS: usize = 256;
/// How long a TCP client may be silent (RFC 7766 suggests seconds).
const IDLE: Duration = Duration::from_secs(10);
/// A question with EDNS options is far smaller.
const LARGEST_QUERY: usize = 4096;
/// Aliases of aliases.
const CHAIN: usize = 8;
const CLASS_IN: u16 = 1;

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {address} for DNS: {source}")]
pub struct Error {
    operation: &'static str,
    address: SocketAddr,
    source: io::Error,
}

/// What knows the cluster: usually [`network::dns::answer`] on an index that events keep up to date.
pub type Answers = Arc<dyn Fn(&Question) -> Answer + Send + Sync>;

/// Bound sockets.
pub struct Server {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
}

/// What the tasks of one server share.
struct Shared {
    answers: Answers,
    upstreams: Upstreams,
    in_flight: Arc<Semaphore>,
}

impl Server {
    /// Binds UDP and TCP at each address, in the calling thread's network namespace.
    pub async fn bind(addresses: &[SocketAddr]) -> Result<Self, Error> {
        let mut server = Self { udp: Vec::new(), tcp: Vec::new() };
        for &address in addresses {
            let fail = |operation| move |source| Error { operation, address, source };
            let tcp = TcpListener::bind(address).await.map_err(fail("listen on"))?;
            // A port of 0 is chosen once, for both.
            let address = tcp.local_addr().map_err(fail("listen on"))?;
            server.udp.push(UdpSocket::bind(address).await.map_err(fail("bind"))?);
            server.tcp.push(tcp);
        }
        Ok(server)
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.tcp.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Answers until told to stop; what is in flight then is dropped.
    pub async fn run(self, answers: Answers, upstreams: Upstreams, until: impl Future<Output = ()>) {
        let upstreams = upstreams.without(&self.addresses());
        let shared = Arc::new(Shared { answers, upstreams, in_flight: Arc::new(Semaphore::new(IN_FLIGHT)) });
        let mut tasks = JoinSet::new();
        for socket in self.udp {
            tasks.spawn(serve_udp(Arc::new(socket), shared.clone()));
        }
        for listener in self.tcp {
            tasks.spawn(serve_tcp(listener, shared.clone()));
        }
        until.await;
        tasks.shutdown().await;
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, shared: Arc<Shared>) {
    let mut buffer = vec![0; LARGEST_QUERY];
    let mut waiting = JoinSet::new();
    loop {
        while waiting.try_join_next().is_some() {}
        let (length, client) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An ICMP error about an earlier answer: the client has gone.
            Err(_) => {
                tokio::task::yield_now().await;
                continue;
            }
        };
        let bytes = &buffer[..length];
        // Nobody hears how sending an answer ends: a client that gets none asks again, as of any datagram that is lost.
        let query = match Query::read(bytes) {
            Ok(query) => query,
            Err((Some(id), code)) => {
                let _ = socket.send_to(&wire::refusal(id, code), client).await;
                continue;
            }
            Err((None, _)) => continue,
        };
        let limit = usize::from(query.udp_size);
        match shared.decide(&query) {
            Decided::Answer(decided) => {
                let _ = socket.send_to(&decided.encode(&query, limit), client).await;
            }
            Decided::Ask(ask) => {
                let Ok(permit) = shared.in_flight.clone().try_acquire_owned() else {
                    let _ = socket.send_to(&failure(&query), client).await;
                    continue;
                };
                let (socket, shared, bytes) = (socket.clone(), shared.clone(), bytes.to_vec());
                waiting.spawn(async move {
                    let answer = shared.ask(&query, &ask, &bytes, Transport::Udp(limit)).await;
                    let _ = socket.send_to(&answer, client).await;
                    drop(permit);
                });
            }
        }
    }
}

async fn serve_tcp(listener: TcpListener, shared: Arc<Shared>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = shared.clone();
                tasks.spawn(async move {
                    // The client has gone, or says nothing: either way it hears nothing more.
                    let _ = converse(stream, &shared).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of descriptors: accepting at once again would spin.
                tracing::warn!(%error, "DNS over TCP cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Questions and answers on one connection, in order.
async fn converse(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    loop {
        let length = tokio::time::timeout(IDLE, stream.read_u16()).await??;
        let mut bytes = vec![0; usize::from(length)];
        tokio::time::timeout(IDLE, stream.read_exact(&mut bytes)).await??;
        let answer = match Query::read(&bytes) {
            Ok(query) => match shared.decide(&query) {
                Decided::Answer(decided) => decided.encode(&query, usize::from(u16::MAX)),
                Decided::Ask(ask) => match shared.in_flight.try_acquire() {
                    Ok(_permit) => shared.ask(&query, &ask, &bytes, Transport::Tcp).await,
                    Err(_) => failure(&query),
                },
            },
            Err((Some(id), code)) => wire::refusal(id, code),
            Err((None, _)) => return Ok(()),
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes()[..], &answer].concat();
        tokio::time::timeout(IDLE, stream.write_all(&framed)).await??;
    }
}

/// How the client asked, and so how others are asked.
#[derive(Clone, Copy)]
enum Transport {
    /// With the size of the largest answer.
    Udp(usize),
    Tcp,
}

/// An answer of ours.
struct Reply {
    code: Code,
    answers: Vec<Record>,
    authority: Vec<Record>,
    additional: Vec<Record>,
}

impl Reply {
    fn encode(&self, query: &Query, limit: usize) -> Vec<u8> {
        let (answers, authority, additional) = (&self.answers[..], &self.authority[..], &self.additional[..]);
        query.answer(self.code, &Parts { authoritative: true, answers, authority, additional }, limit)
    }
}

enum Decided {
    Answer(Reply),
    Ask(Ask),
}

/// What others are to be asked.
enum Ask {
    /// The question as it came.
    Same,
    /// The name that an alias of ours leads to.
    Alias { records: Vec<Record>, name: String },
}

fn failure(query: &Query) -> Vec<u8> {
    query.answer(Code::ServerFailure, &Parts::default(), usize::from(query.udp_size))
}

impl Shared {
    fn decide(&self, query: &Query) -> Decided {
        let reply = |code, answers, authority, additional| {
            Decided::Answer(Reply { code, answers, authority, additional })
        };
        if query.question.class != CLASS_IN {
            return reply(Code::Refused, Vec::new(), Vec::new(), Vec::new());
        }
        let mut question = query.question.clone();
        let mut aliases = Vec::new();
        for _ in 0..CHAIN {
            match (self.answers)(&question) {
                Answer::Found { records, additional } => {
                    aliases.extend(records);
                    return reply(Code::Ok, aliases, Vec::new(), additional);
                }
                Answer::NoData(soa) => return reply(Code::Ok, aliases, vec![soa], Vec::new()),
                Answer::NoName(soa) => return reply(Code::NoName, aliases, vec![soa], Vec::new()),
                Answer::Elsewhere if aliases.is_empty() => return Decided::Ask(Ask::Same),
                Answer::Elsewhere => {
                    return Decided::Ask(Ask::Alias { records: aliases, name: question.name });
                }
                Answer::Onwards { records, name } => {
                    aliases.extend(records);
                    question.name = name;
                }
            }
        }
        reply(Code::ServerFailure, Vec::new(), Vec::new(), Vec::new())
    }

    async fn ask(&self, query: &Query, ask: &Ask, bytes: &[u8], transport: Transport) -> Vec<u8> {
        let answer = match ask {
            Ask::Same => self.upstreams.ask(bytes, matches!(transport, Transport::Tcp)).await,
            Ask::Alias { records, name } => self.follow(query, records, name, transport).await,
        };
        answer.unwrap_or_else(|| failure(query))
    }

    /// Asks for an alias's target, and answers with both.
    async fn follow(
        &self,
        query: &Query,
        records: &[Record],
        name: &str,
        transport: Transport,
    ) -> Option<Vec<u8>> {
        let limit = match transport {
            Transport::Udp(limit) => limit,
            Transport::Tcp => usize::from(u16::MAX),
        };
        // A stub resolver that asks for any type would get but the alias.
        if query.question.kind == Type::ANY {
            let parts = Parts { authoritative: true, answers: records, ..Parts::default() };
            return Some(query.answer(Code::Ok, &parts, limit));
        }
        let request = query.onwards(query.id, name)?;
        let mut answer = self.upstreams.ask(&request, false).await?;
        if forward::is_truncated(&answer) {
            answer = self.upstreams.ask(&request, true).await?;
        }
        let (code, found) = wire::read_answers(&answer, query.id)?;
        let code = match code {
            0 => Code::Ok,
            3 => Code::NoName,
            _ => return None,
        };
        let all = [records, &found].concat();
        Some(query.answer(code, &Parts { answers: &all, ..Parts::default() }, limit))
    }
}
