//! The engine for several servers: stock etcd v3 with upstream's keys.
//!
//! Reads and watches are served from the hub, which one watch of etcd feeds; only commits and linearizable reads go to etcd. A commit is one
//! etcd transaction that compares the modification revision of each key, and returns when the feed has brought it.

mod commit;
mod compact;
mod feed;
mod keys;
mod reseal;
#[cfg(test)]
mod tests;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use object::{Resource, Revision, Snapshot, body};
use tokio::task::JoinHandle;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::etcd::feed::Source;
use crate::etcd::keys::{Keys, ROOT};
use crate::etcd::wire::{Client, RangeRequest};
use crate::hub::{Hub, Window};
use crate::{
    Commit, CommitError, Pending, Sealing, Store, StoreError, Transaction, Usage, Watch, WatchError,
};

pub use keys::storage_prefix;

/// A value of etcd as this process keeps objects.
pub struct Imported {
    /// Canonical JSON without resourceVersion, as `object::body::encode` writes it.
    pub stored: Bytes,
    /// The values of the kind's selectable fields.
    pub fields: Box<[Box<str>]>,
}

/// Reads a value that some server, maybe upstream's, has written: JSON, or protobuf behind `k8s\0`. Errors say why it cannot be read.
pub type Import = Arc<dyn Fn(Resource, &Bytes) -> Result<Imported, String> + Send + Sync>;

/// How to reach etcd, and what to make of its values.
#[derive(Clone)]
pub struct EtcdOptions {
    /// `host:port` or `host` of each member.
    pub endpoints: Vec<String>,
    pub tls: Option<EtcdTls>,
    /// The resources that stand without their group; every other one is a custom resource.
    pub builtins: Vec<Resource>,
    pub import: Import,
    /// None: everything is written plain, and what is sealed cannot be read.
    pub sealing: Option<Arc<Sealing>>,
    pub window: Window,
    /// How often this server offers to compact etcd (upstream: 5 minutes); `None`: never.
    pub compact_every: Option<Duration>,
}

/// PEM texts.
#[derive(Clone)]
pub struct EtcdTls {
    pub authority: String,
    /// Certificate and key of this client, if etcd asks for one.
    pub identity: Option<(String, String)>,
}

/// Neither keys nor certificates are ever printed.
impl fmt::Debug for EtcdTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdTls").field("identity", &self.identity.is_some()).finish_non_exhaustive()
    }
}

/// Why an etcd could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum EtcdOpenError {
    #[error("{endpoint} is no address of an etcd: {message}")]
    Endpoint { endpoint: String, message: String },
    #[error("etcd at {endpoints} does not answer: {message}")]
    Unreachable { endpoints: String, message: String },
    /// Without them what belongs to them would look orphaned, and be deleted.
    #[error("etcd holds {count} objects that cannot be read here; the first, {key}: {why}")]
    Unreadable { count: usize, key: String, why: String },
}

/// One cluster's state in an etcd that any number of servers share.
pub struct Etcd {
    client: Client,
    keys: Arc<Keys>,
    hub: Arc<Hub>,
    sealing: Option<Arc<Sealing>>,
    /// Something was kept otherwise than it is written now, when it was opened.
    was_stale: bool,
    tasks: Vec<JoinHandle<()>>,
}

impl Etcd {
    /// Connects and reads everything.
    pub async fn open(options: EtcdOptions) -> Result<Self, EtcdOpenError> {
        let endpoints = options.endpoints.iter().map(|endpoint| address(endpoint, options.tls.as_ref()));
        let client =
            Client::new(Channel::balance_list(endpoints.collect::<Result<Vec<_>, _>>()?.into_iter()));
        let keys = Arc::new(Keys::new(&options.builtins));
        let sealing = options.sealing;
        let source = Source {
            client: client.clone(),
            keys: keys.clone(),
            import: options.import,
            sealing: sealing.clone(),
        };
        let listed = source.list().await.map_err(|status| EtcdOpenError::Unreachable {
            endpoints: options.endpoints.join(","),
            message: causes(&status),
        })?;
        let feed::Listed { state, unreadable, is_stale: was_stale } = listed;
        if let Some((key, why)) = unreadable.first() {
            let (key, why) = (key.to_string(), why.to_string());
            return Err(EtcdOpenError::Unreadable { count: unreadable.len(), key, why });
        }
        let hub = Hub::new(options.window, state);
        let mut tasks = vec![tokio::spawn(source.follow(hub.clone()))];
        if let Some(every) = options.compact_every {
            tasks.push(tokio::spawn(compact::run(client.clone(), every)));
        }
        Ok(Self { client, keys, hub, sealing, was_stale, tasks })
    }

    async fn linearizable(&self) -> Result<Snapshot, StoreError> {
        let request = RangeRequest { key: ROOT.into(), keys_only: true, limit: 1, ..RangeRequest::default() };
        let answer = self.client.range(request).await.map_err(|status| commit::store_error(&status))?;
        let revision = answer.header.map_or(0, |header| header.revision as u64);
        self.hub.reached(revision).await.ok_or(StoreError::Closed)
    }
}

/// What went wrong, down to why a certificate was not believed.
fn causes(status: &tonic::Status) -> String {
    let mut text = status.message().to_owned();
    let mut next = std::error::Error::source(status);
    while let Some(error) = next {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = error.source();
    }
    text
}

fn address(endpoint: &str, tls: Option<&EtcdTls>) -> Result<Endpoint, EtcdOpenError> {
    let failed = |message: String| EtcdOpenError::Endpoint { endpoint: endpoint.to_owned(), message };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let bare = endpoint.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let has_port = bare.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let port = if has_port { "" } else { ":2379" };
    let address = Endpoint::from_shared(format!("{scheme}://{bare}{port}"))
        .map_err(|error| failed(error.to_string()))?
        .connect_timeout(Duration::from_secs(2))
        .tcp_nodelay(true)
        // A member that vanished without a word is noticed while the watch waits.
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true);
    let Some(tls) = tls else { return Ok(address) };
    let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.authority));
    if let Some((certificate, key)) = &tls.identity {
        config = config.identity(Identity::from_pem(certificate, key));
    }
    address.tls_config(config).map_err(|error| failed(error.to_string()))
}

/// Reads a JSON value; for use in an [`Import`]. `fields` indexes the object.
pub fn import_json(
    value: &Bytes,
    fields: impl FnOnce(&serde_json::Value) -> Box<[Box<str>]>,
) -> Result<Imported, String> {
    let object: serde_json::Value = serde_json::from_slice(value).map_err(|error| error.to_string())?;
    if !object.is_object() {
        return Err("it is no object".to_owned());
    }
    Ok(Imported { stored: body::encode(&object), fields: fields(&object) })
}

impl Store for Etcd {
    fn snapshot(&self) -> Snapshot {
        self.hub.snapshot()
    }

    fn read(&self) -> Pending<'_, Result<Snapshot, StoreError>> {
        Box::pin(self.linearizable())
    }

    fn read_at_least(&self, revision: Revision) -> Pending<'_, Result<Snapshot, StoreError>> {
        Box::pin(async move { self.hub.reached(revision).await.ok_or(StoreError::Closed) })
    }

    fn commit(&self, transaction: Transaction) -> Pending<'_, Result<Commit, CommitError>> {
        Box::pin(self.transact(transaction))
    }

    fn watch(&self, resource: Option<Resource>, from: Revision) -> Result<Watch, WatchError> {
        self.hub.watch(resource, from)
    }

    fn compacted(&self) -> Revision {
        self.hub.compacted()
    }

    /// Nothing of etcd's is on this server's disk.
    fn usage(&self) -> Usage {
        self.hub.usage(0)
    }

    fn reseal(&self) -> Pending<'_, Result<(), StoreError>> {
        Box::pin(self.seal_anew())
    }

    fn was_stale(&self) -> bool {
        self.was_stale
    }

    fn received(&self) -> Vec<(Resource, u64)> {
        self.hub.received()
    }

    fn close(&self) -> Pending<'_, ()> {
        Box::pin(async {
            self.hub.close();
            for task in &self.tasks {
                task.abort();
            }
        })
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
