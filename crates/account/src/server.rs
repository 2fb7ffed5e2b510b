//! The endpoint: one port for http and https, with limits on everything that a client can stretch.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aws::sts::discovery;
use aws::{Fault, Origin};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{Id, JoinSet};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, error, warn};

use crate::Account;
use crate::guard::{self, Names};

/// What a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of a request's body: the largest that a service here takes is a CloudFormation template of 51,200 bytes, and policies.
    pub body_bytes: usize,
    /// Of a request's line and headers together.
    pub head_bytes: usize,
    /// Of each listener: who fills one, a VPC's, keeps nobody from the others.
    pub connections: usize,
    /// Of each address among them; more are closed at once.
    pub connections_per_source: usize,
    /// For the handshake, for the head of a request, and for its body, each; and for a connection to have no request at work: before its
    /// first, and while the client takes in an answer or thinks of the next.
    pub patience: Duration,
    /// For requests at work when the server is told to stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 1 << 20,
            head_bytes: 64 << 10,
            connections: 1_024,
            connections_per_source: 1_024,
            patience: Duration::from_secs(20),
            drain: Duration::from_secs(3),
        }
    }
}

/// An endpoint of an account. Cheap to share; each listener is served by a call of [`serve`](Self::serve).
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
}

struct Shared {
    account: Arc<Account>,
    names: Names,
    limits: Limits,
    tls: TlsAcceptor,
    answers: Answers,
    stop: watch::Sender<bool>,
}

/// What an endpoint answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// Calls of every service, and what issuers say.
    Calls,
    /// Only what the site's issuers of tokens say of themselves and of their keys, over TLS.
    Issuers,
}

/// How long it waits when the host has nothing left to accept with.
const BREATH: Duration = Duration::from_millis(100);

/// The first byte of a TLS connection: the record of a handshake.
const HANDSHAKE: u8 = 0x16;

impl Server {
    pub fn new(
        account: Arc<Account>,
        names: Names,
        tls: Arc<rustls::ServerConfig>,
        limits: Limits,
        answers: Answers,
    ) -> Self {
        let (tls, stop) = (TlsAcceptor::from(tls), watch::Sender::new(false));
        Self { shared: Arc::new(Shared { account, names, limits, tls, answers, stop }) }
    }

    /// Ends every [`serve`](Self::serve); requests at work may finish.
    pub fn stop(&self) {
        self.shared.stop.send_replace(true);
    }

    /// Serves a listener until [`stop`](Self::stop); then for no longer than requests at work may take to finish.
    pub async fn serve(&self, listener: TcpListener) {
        let graceful = GracefulShutdown::new();
        let mut stopped = self.shared.stop.subscribe();
        let limits = self.shared.limits;
        // Dropped at the end, and with them who has not ended by then.
        let mut connections = JoinSet::new();
        let mut sources: HashMap<Id, IpAddr> = HashMap::new();
        loop {
            let accepted = tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => break,
                Some(ended) = connections.join_next_with_id() => {
                    sources.remove(&ended.map_or_else(|panic| panic.id(), |(id, ())| id));
                    continue;
                }
                accepted = listener.accept(), if connections.len() < limits.connections => accepted,
            };
            let (socket, source) = match accepted {
                Ok((socket, address)) => (socket, address.ip()),
                Err(failure) if is_one_connections(&failure) => continue,
                Err(failure) => {
                    // Of files, or of memory: others have to let go of some.
                    warn!(%failure, "the AWS endpoint cannot accept a connection");
                    tokio::time::sleep(BREATH).await;
                    continue;
                }
            };
            if sources.values().filter(|known| **known == source).count() >= limits.connections_per_source {
                debug!(%source, "a client of the AWS endpoint has too many connections");
                continue;
            }
            let (shared, watcher) = (self.shared.clone(), graceful.watcher());
            let connection = connections.spawn(async move {
                if let Err(failure) = accept(shared, watcher, socket).await {
                    debug!(%failure, "a connection of the AWS endpoint ended");
                }
            });
            sources.insert(connection.id(), source);
        }
        if tokio::time::timeout(limits.drain, graceful.shutdown()).await.is_err() {
            warn!("some AWS calls did not finish in time and were cut off");
        }
    }
}

type Watcher = hyper_util::server::graceful::Watcher;
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Finds out by its first byte what the client speaks.
async fn accept(shared: Arc<Shared>, watcher: Watcher, socket: TcpStream) -> Result<(), BoxError> {
    socket.set_nodelay(true)?;
    let patience = shared.limits.patience;
    let mut first = [0];
    if tokio::time::timeout(patience, socket.peek(&mut first)).await?? == 0 {
        return Ok(());
    }
    let address = Some(socket.peer_addr()?.ip());
    let is_encrypted = first[0] == HANDSHAKE;
    let origin = Origin { address, is_encrypted, ..Origin::default() };
    if !is_encrypted {
        if shared.answers == Answers::Issuers {
            // Keys that anybody on the way could have changed are of no use.
            return Ok(());
        }
        return converse(shared, watcher, origin, socket).await;
    }
    let stream = tokio::time::timeout(patience, shared.tls.accept(socket)).await??;
    converse(shared, watcher, origin, stream).await
}

async fn converse<S>(shared: Arc<Shared>, watcher: Watcher, origin: Origin, stream: S) -> Result<(), BoxError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let Limits { head_bytes, patience, .. } = shared.limits;
    let (at_work, watched) = watch::channel(0);
    let at_work = Arc::new(at_work);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (shared, at_work) = (shared.clone(), AtWork::begin(&at_work));
        request.extensions_mut().insert(origin.clone());
        async move {
            let answer = handle(&shared, request).await;
            drop(at_work);
            Ok::<_, Infallible>(answer.map(Full::new))
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(patience).max_buf_size(head_bytes);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .max_header_list_size(u32::try_from(head_bytes).unwrap_or(u32::MAX));
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        ended = watcher.watch(connection.into_owned()) => ended,
        // A request that crosses this is sent again, as with any server that closes what is not used.
        () = idle(watched, patience) => Ok(()),
    }
}

/// A request that is at work, among those of its connection.
struct AtWork(Arc<watch::Sender<usize>>);

impl AtWork {
    fn begin(count: &Arc<watch::Sender<usize>>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count.clone())
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

/// Ends when no request of a connection was at work for so long. HTTP's own limits begin with a request, and who answers pings has none.
async fn idle(mut at_work: watch::Receiver<usize>, limit: Duration) {
    loop {
        let is_busy = *at_work.borrow_and_update() > 0;
        // A request may begin and end between two looks: that is a change too.
        let changed = at_work.changed();
        let changed = if is_busy { Ok(changed.await) } else { tokio::time::timeout(limit, changed).await };
        if !matches!(changed, Ok(Ok(()))) {
            return;
        }
    }
}

async fn handle(shared: &Shared, request: Request<Incoming>) -> Response<Bytes> {
    if let Some(why) = guard::refuse(&shared.names, &request) {
        debug!(why, "a request to the AWS endpoint was refused");
        return plain(StatusCode::FORBIDDEN, why);
    }
    // Who checks a token of a cluster has no keys to sign with.
    if request.method() == Method::GET
        && let Some(document) = discovery::document(&shared.account.snapshot(), request.uri().path())
    {
        return json(&document);
    }
    if shared.answers == Answers::Issuers {
        return plain(StatusCode::NOT_FOUND, "there is no such document of an issuer of tokens");
    }
    let (head, body) = request.into_parts();
    let read = Limited::new(body, shared.limits.body_bytes).collect();
    let (body, refused) = match tokio::time::timeout(shared.limits.patience, read).await {
        Ok(Ok(body)) => (body.to_bytes(), None),
        Ok(Err(failure)) if failure.is::<http_body_util::LengthLimitError>() => {
            let text = format!("The request is larger than {} bytes.", shared.limits.body_bytes);
            (Bytes::new(), Some(Fault::new("RequestEntityTooLarge", text)))
        }
        Ok(Err(_)) => (Bytes::new(), Some(Fault::new("MalformedInput", "The request's body broke off."))),
        Err(_) => {
            (Bytes::new(), Some(Fault::new("MalformedInput", "The request's body did not come in time.")))
        }
    };
    let request = Request::from_parts(head, body);
    match refused {
        Some(fault) => shared.account.refuse(&request, &fault),
        None => answer(shared, request).await,
    }
}

/// A handler that panics is its own call's misfortune and nobody else's.
async fn answer(shared: &Shared, request: Request<Bytes>) -> Response<Bytes> {
    let account = shared.account.clone();
    let work = tokio::spawn(async move { account.answer(&request).await });
    work.await.unwrap_or_else(|panic| {
        error!(%panic, "an AWS call ended badly");
        plain(StatusCode::INTERNAL_SERVER_ERROR, "the call ended badly: the daemon's log says more")
    })
}

fn json(document: &serde_json::Value) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(document.to_string()));
    let kind = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(text.as_bytes()));
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

/// Errors of accept() that are about the connection it would have returned.
fn is_one_connections(failure: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(failure.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
