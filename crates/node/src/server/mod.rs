//! The node's own server, port 10250: logs, exec, attach, port-forward and numbers for the API server.
//!
//! HTTP/1.1 over TLS. Only the API server is answered ([`access`]); it passes on what it has authorized, and splices
//! upgraded connections through. Paths, parameters and texts are those of upstream's kubelet.

mod access;
mod channels;
mod log_files;
mod port_forward;
mod query;
mod remote_command;
mod reply;
mod spdy_streams;
mod stats;
mod target;
mod tunnel;
mod upgrade;
pub mod websocket;

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use crate::api::Api;
use crate::join::Identity;
use crate::ops::Tools;
use access::Caller;
use query::Query;
use reply::{Reply, refuse};

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections at one time, streams among them.
const CONNECTION_LIMIT: usize = 1_024;
const RETRY: Duration = Duration::from_secs(1);

/// What requests are answered from.
pub struct Server {
    tools: Arc<Tools>,
    rates: stats::Rates,
}

/// Where the server is found, and under which addresses.
pub struct Place {
    pub listen: SocketAddr,
    /// Those of the Node.
    pub addresses: Vec<IpAddr>,
}

/// Asks for the serving certificate once the Node is there, and serves until the task is dropped.
pub async fn run(tools: Arc<Tools>, identity: Identity, place: Place, mut registered: watch::Receiver<bool>) {
    // The sender is gone only when the node stops.
    if registered.wait_for(|registered| *registered).await.is_err() {
        return;
    }
    let api: Arc<Api> = tools.api.clone();
    let serving = loop {
        match identity.serving(&api, &place.addresses).await {
            Ok(serving) => break serving,
            Err(error) => {
                warn!(%error, "no certificate yet for the node's server: no logs, exec or attach; trying again")
            }
        }
        tokio::time::sleep(RETRY).await;
    };
    let listener = loop {
        match TcpListener::bind(place.listen).await {
            Ok(listener) => break listener,
            Err(error) => {
                warn!(address = %place.listen, %error, "the node's server cannot listen; trying again")
            }
        }
        tokio::time::sleep(RETRY).await;
    };
    info!(address = %place.listen, "the node's server listens");
    let server = Arc::new(Server { tools, rates: stats::Rates::default() });
    tokio::join!(
        serve(listener, serving.tls.clone(), server),
        identity.renew(&api, &serving, &place.addresses)
    );
}

async fn serve(listener: TcpListener, tls: Arc<ServerConfig>, server: Arc<Server>) {
    let acceptor = TlsAcceptor::from(tls);
    let limit = Arc::new(Semaphore::new(CONNECTION_LIMIT));
    // Streams end with the server.
    let mut connections = tokio::task::JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = limit.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, or a client that has left already.
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        connections.spawn(connection(stream, acceptor.clone(), server.clone(), permit));
    }
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    server: Arc<Server>,
    permit: OwnedSemaphorePermit,
) {
    if let Err(error) = stream.set_nodelay(true).and_then(|()| keep_alive(&stream)) {
        debug!(%error, "a connection without its options");
    }
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return debug!(%error, "a TLS handshake failed"),
        Err(_) => return debug!("a TLS handshake took too long"),
    };
    let caller = stream.get_ref().1.peer_certificates().and_then(|chain| Caller::of(chain.first()?));
    let caller = Arc::new(caller);
    // An upgraded connection outlives its HTTP part, and holds its place until it ends.
    let permit = Arc::new(permit);
    let service = service_fn(|request| {
        let (server, caller, permit) = (server.clone(), caller.clone(), permit.clone());
        async move { Ok::<_, Infallible>(answer(&server, (*caller).as_ref(), request, permit).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        debug!(%error, "a connection ended");
    }
}

/// A client whose machine has gone without a word is found out by the kernel.
fn keep_alive(stream: &TcpStream) -> std::io::Result<()> {
    rustix::net::sockopt::set_socket_keepalive(stream, true)?;
    rustix::net::sockopt::set_tcp_keepidle(stream, Duration::from_secs(30))?;
    Ok(rustix::net::sockopt::set_tcp_keepintvl(stream, Duration::from_secs(30))?)
}

async fn answer(
    server: &Arc<Server>,
    caller: Option<&Caller>,
    request: Request<Incoming>,
    permit: Arc<OwnedSemaphorePermit>,
) -> http::Response<Reply> {
    let path = request.uri().path().to_owned();
    let result = match access::check(caller, request.method(), &path) {
        Ok(()) => route(server, request, &path, permit).await,
        Err(refusal) => Err(refusal),
    };
    result.unwrap_or_else(reply::Refusal::into_response)
}

async fn route(
    server: &Arc<Server>,
    request: Request<Incoming>,
    path: &str,
    permit: Arc<OwnedSemaphorePermit>,
) -> Result<http::Response<Reply>, reply::Refusal> {
    let query = Query::parse(request.uri().query().unwrap_or_default());
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let is_get = request.method() == Method::GET;
    let may_stream = is_get || request.method() == Method::POST;
    match parts[..] {
        ["healthz"] if is_get => Ok(reply::text("ok")),
        ["pods"] if is_get => Ok(reply::json(stats::pods(&server.tools))),
        ["stats", "summary"] if is_get => Ok(reply::json(stats::summary(server).await.to_string())),
        ["metrics"] if is_get => Ok(reply::metrics(stats::own_metrics(server))),
        ["metrics", "resource"] if is_get => Ok(reply::metrics(stats::resource_metrics(server).await)),
        ["containerLogs", namespace, pod, container] if is_get => {
            log_files::answer(server, target::Target { namespace, pod, container }, &query).await
        }
        // With the pod's uid in the path, as upstream has it too.
        ["exec", namespace, pod, container] | ["exec", namespace, pod, _, container] if may_stream => {
            remote_command::exec(
                server,
                target::Target { namespace, pod, container },
                &query,
                request,
                permit,
            )
        }
        ["attach", namespace, pod, container] | ["attach", namespace, pod, _, container] if may_stream => {
            remote_command::attach(
                server,
                target::Target { namespace, pod, container },
                &query,
                request,
                permit,
            )
        }
        ["portForward", namespace, pod] | ["portForward", namespace, pod, _] if may_stream => {
            port_forward::answer(server, namespace, pod, &query, request, permit)
        }
        _ => Err(refuse(StatusCode::NOT_FOUND, "404 page not found")),
    }
}
