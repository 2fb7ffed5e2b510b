//! What listens at a link-local address of a VPC's router: who asks is known by the address, which nobody in a machine can forge.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

/// How long a client may take for the head of a request.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Connections to one listener at once.
const CONNECTIONS: usize = 256;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Holds a conversation on every connection, until dropped. `service` and `vpc` are for the log.
pub async fn each<F, C>(listener: TcpListener, service: &'static str, vpc: String, converse: F)
where
    F: Fn(TcpStream, SocketAddr) -> C,
    C: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let (socket, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(failure) => {
                warn!(service, vpc, %failure, "a connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let conversation = converse(socket, peer);
        tokio::spawn(async move {
            if let Err(failure) = conversation.await {
                debug!(service, %failure, "a connection ended");
            }
            drop(permit);
        });
    }
}
