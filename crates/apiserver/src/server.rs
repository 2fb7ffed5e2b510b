//! Connections: accepted, encrypted, limited, ended in order.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use rustix::io::Errno;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use crate::gather::Gathered;
use crate::metrics::deprecated::DeprecatedUse;
use crate::shared::{Peer, Shared};
use crate::{Config, Deps, aggregate, handle};

/// How long requests may take to finish once the server is told to stop.
const DRAIN: Duration = Duration::from_secs(5);

/// How long a connection that has asked nothing yet may take to: who connected before the server was told to stop means to.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// Until accept() is tried again when the process can hold no more connections.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("accept on {address}: {error}")]
    Accept { address: String, error: io::Error },
}

/// An API server of one cluster. Cheap to share.
#[derive(Clone)]
pub struct Server {
    shared: Arc<Shared>,
    connections: Arc<Semaphore>,
    sources: Sources,
    /// Whether it is followed which extension servers answer: from the first listener on.
    follows_extensions: Arc<AtomicBool>,
}

impl Server {
    /// # Errors
    /// When TLS cannot be set up.
    pub fn new(config: Config, deps: Deps) -> Result<Self, rustls::Error> {
        let connections = Arc::new(Semaphore::new(config.limits.connections));
        Ok(Self {
            shared: Arc::new(Shared::new(config, deps)?),
            connections,
            sources: Sources::default(),
            follows_extensions: Arc::default(),
        })
    }

    /// Who has asked for versions of kinds that clients should leave, since the server began.
    pub fn deprecated_uses(&self) -> Vec<DeprecatedUse> {
        self.shared.deprecated.all()
    }

    /// Ends every watch and every [`serve`](Self::serve), letting requests at work finish.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// Serves one listener until [`stop`](Self::stop). Without TLS only for tests and benches.
    ///
    /// # Errors
    /// When the listener itself fails; a connection that fails concerns nobody else.
    pub async fn serve(
        &self,
        listener: TcpListener,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Result<(), ServeError> {
        if !self.follows_extensions.swap(true, Ordering::Relaxed) {
            tokio::spawn(aggregate::run(self.shared.clone()));
        }
        let acceptor = tls.map(TlsAcceptor::from);
        let graceful = GracefulShutdown::new();
        loop {
            let Ok(permit) = self.connections.clone().acquire_owned().await else { return Ok(()) };
            let accepted = tokio::select! {
                () = self.shared.stopping() => break,
                accepted = listener.accept() => accepted,
            };
            let (socket, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if is_one_connections(&error) => continue,
                Err(error) if is_shortage(&error) => {
                    warn!(%error, "no connection can be accepted until others end");
                    tokio::time::sleep(SHORTAGE_PAUSE).await;
                    continue;
                }
                Err(error) => {
                    let address =
                        listener.local_addr().map(|address| address.to_string()).unwrap_or_default();
                    return Err(ServeError::Accept { address, error });
                }
            };
            let most = (self.shared.config.limits.connections * 9).div_ceil(10);
            let Some(source) = Source::enter(&self.sources, address.ip(), most) else {
                debug!(%address, "a connection too many of one source is closed");
                continue;
            };
            prepare(&socket, self.shared.config.limits.unread_timeout);
            let (shared, acceptor, watcher) = (self.shared.clone(), acceptor.clone(), graceful.watcher());
            tokio::spawn(async move {
                match acceptor {
                    None => converse(shared, watcher, socket, Peer::default(), address).await,
                    Some(acceptor) => {
                        let timeout = shared.config.limits.head_timeout;
                        match tokio::time::timeout(timeout, acceptor.accept(socket)).await {
                            Ok(Ok(stream)) => {
                                let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
                                let certificates = shown.iter().map(|one| one.to_vec()).collect();
                                converse(
                                    shared,
                                    watcher,
                                    stream,
                                    Peer { certificates, ..Peer::default() },
                                    address,
                                )
                                .await;
                            }
                            Ok(Err(error)) => {
                                shared.access.handshake_errors.increase();
                                debug!(%address, %error, "TLS handshake failed");
                            }
                            Err(_) => debug!(%address, "TLS handshake took too long"),
                        }
                    }
                }
                drop((permit, source));
            });
        }
        // Nobody is let in any more who would not be answered.
        drop(listener);
        if tokio::time::timeout(DRAIN, graceful.shutdown()).await.is_err() {
            warn!("some requests did not finish in time and were cut off");
        }
        Ok(())
    }
}

/// How many connections come from where.
type Sources = Arc<Mutex<HashMap<IpAddr, usize>>>;

/// One connection of a source. A source never has all that there may be: others still get in when it opens more and more.
struct Source {
    sources: Sources,
    address: IpAddr,
}

impl Source {
    fn enter(sources: &Sources, address: IpAddr, most: usize) -> Option<Self> {
        let mut held = sources.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(address).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Self { sources: sources.clone(), address })
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        let mut held = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.address);
            }
        }
    }
}

/// Small answers go out at once; a peer that is gone, or that reads nothing, is found out by the kernel.
fn prepare(socket: &TcpStream, unread_timeout: Duration) {
    let millis = u32::try_from(unread_timeout.as_millis()).unwrap_or(u32::MAX);
    let set = socket
        .set_nodelay(true)
        .and_then(|()| Ok(sockopt::set_socket_keepalive(socket, true)?))
        .and_then(|()| Ok(sockopt::set_tcp_user_timeout(socket, millis)?));
    if let Err(error) = set {
        debug!(%error, "a socket option was refused");
    }
}

/// Serves one connection to its end.
async fn converse<S>(
    shared: Arc<Shared>,
    watcher: hyper_util::server::graceful::Watcher,
    stream: S,
    peer: Peer,
    address: SocketAddr,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let head_timeout = shared.config.limits.head_timeout;
    let peer = Peer { address: Some(address.ip()), ..peer };
    let asked = Arc::new(Notify::new());
    let service = service_fn(|request| {
        asked.notify_one();
        let (shared, peer) = (shared.clone(), peer.clone());
        async move { Ok::<_, Infallible>(handle::handle(shared, peer, request).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(head_timeout);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(250)
        .keep_alive_interval(Some(Duration::from_secs(30)))
        .keep_alive_timeout(Duration::from_secs(15))
        .max_header_list_size(64 * 1024);
    let stream = Gathered::new(stream);
    let served = async {
        let mut connection =
            pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream.clone()), service));
        let told = async {
            shared.stopping().await;
            // Asked or not: it has had its time.
            let _ = tokio::time::timeout(FIRST_REQUEST, asked.notified()).await;
        };
        tokio::select! {
            ended = connection.as_mut() => return ended,
            () = told => {}
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    };
    if let Err(error) = stream.clone().run(served).await {
        debug!(%address, %error, "connection ended");
    }
    // Until now the server waited for it.
    drop(watcher);
}

/// Errors of accept() that pass when others give back what they hold: files, memory.
fn is_shortage(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

/// Errors of accept() that are about the connection it would have returned.
fn is_one_connections(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_source_does_not_take_the_place_of_all() {
        let sources = Sources::default();
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().expect("an address"));
        let first = Source::enter(&sources, one, 2);
        let second = Source::enter(&sources, one, 2);
        assert!(first.is_some() && second.is_some());
        assert!(Source::enter(&sources, one, 2).is_none());
        assert!(Source::enter(&sources, other, 2).is_some());
        drop(first);
        assert!(Source::enter(&sources, one, 2).is_some());
        drop(second);
        assert!(sources.lock().expect("no panic").is_empty());
    }
}
