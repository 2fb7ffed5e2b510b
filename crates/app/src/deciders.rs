//! What works on a cluster's state: the controllers, the scheduler, and the signer of certificates.
//!
//! With a store of this server's own they run here. Where servers share one, each runs on the server that holds its Lease; what it
//! writes there goes through a gate that takes writes for that term only. A few controllers belong to each API server and run on all.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use apiserver::ComponentMetrics;
use controllers::Settings;
use engine::{Election, Engine, Measures, Recorder, ServerLease};
use files::FileError;
use gate::{Clock, Gate};
use plan::User;
use rustix::fs::{FlockOperation, flock};
use store::Store;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::pki::{self, Pki};
use crate::signer;

/// The components, as upstream's processes name their Leases; what belongs to each API server is not elected.
const API_SERVER: &str = "kube-apiserver";
const CONTROLLERS: &str = "kube-controller-manager";
const SCHEDULER: &str = "kube-scheduler";

/// What they need to know.
pub struct Deciders {
    pub gate: Arc<Gate>,
    pub pki: Arc<Pki>,
    pub clock: Clock,
    pub settings: Arc<Settings>,
    pub measures: Arc<Measures>,
}

impl Deciders {
    /// Starts them until `stopped` turns true. `identity`: who this server is, if others share its store.
    pub fn start(self, identity: Option<String>, stopped: &watch::Receiver<bool>) -> [JoinHandle<()>; 4] {
        let this = Arc::new(self);
        let lease = this.lease(identity.as_deref());
        let mut stop = stopped.clone();
        let (controllers, of_every_server) = (this.clone(), this.clone());
        [
            tokio::spawn(lease.run(async move { drop(stop.wait_for(|stop| *stop).await) })),
            this.spawn(API_SERVER, None, stopped.clone(), move |gate| {
                let own = controllers::OF_EVERY_SERVER.iter().copied();
                of_every_server.engine(gate).run_controllers(own)
            }),
            this.spawn(CONTROLLERS, identity.clone(), stopped.clone(), move |gate| {
                let (engine, pki) = (controllers.engine(gate.clone()), controllers.pki.clone());
                async move {
                    let all = controllers::ALL.iter().copied();
                    let elected = all.filter(|controller| !controller.is_of_every_server());
                    tokio::join!(engine.run_controllers(elected), signer::run(&gate, &pki));
                }
            }),
            this.spawn(SCHEDULER, identity, stopped.clone(), {
                let this = this.clone();
                move |gate| this.engine(gate).run_scheduler()
            }),
        ]
    }

    /// That this server is there.
    fn lease(&self, identity: Option<&str>) -> ServerLease {
        let (hostname, id) = (hostname(), own_id(identity));
        let holder = format!("{id}_{}", self.gate.uid());
        ServerLease { id, hostname, holder, gate: self.gate.clone(), clock: self.clock.clone() }
    }

    fn spawn<W: Future<Output = ()> + Send + 'static>(
        &self,
        name: &'static str,
        identity: Option<String>,
        mut stopped: watch::Receiver<bool>,
        work: impl Fn(Arc<Gate>) -> W + Send + Sync + 'static,
    ) -> JoinHandle<()> {
        let (gate, clock) = (self.gate.clone(), self.clock.clone());
        tokio::spawn(async move {
            // A sender that is gone means the same as one that says stop.
            let stop = async { drop(stopped.wait_for(|stop| *stop).await) };
            let Some(identity) = identity else {
                tokio::select! {
                    () = work(gate) => {}
                    () = stop => {}
                }
                return;
            };
            let election = Election { name, identity, gate: gate.clone(), clock };
            election.run(|store: Arc<dyn Store>| work(Arc::new(gate.over(store))), stop).await;
        })
    }

    fn engine(&self, gate: Arc<Gate>) -> Arc<Engine> {
        Arc::new(Engine {
            store: gate.store().clone(),
            recorder: Recorder::start(gate.clone(), self.clock.clone(), event_user()),
            gate,
            clock: self.clock.clone(),
            settings: self.settings.clone(),
            measures: self.measures.clone(),
            seed: u64::from_le_bytes(pki::random()),
        })
    }
}

/// What they have done, as the API server tells it.
pub fn metrics(measures: &Arc<Measures>) -> ComponentMetrics {
    let [all, controllers, scheduler] = [measures.clone(), measures.clone(), measures.clone()];
    ComponentMetrics {
        all: Arc::new(move |page| {
            all.write_controllers(page);
            all.write_scheduler(page);
            all.write_requests(page);
        }),
        apart: vec![
            (
                "kcm",
                Arc::new(move |page| {
                    controllers.write_controllers(page);
                    controllers.write_requests_of_controllers(page);
                }),
            ),
            (
                "ksh",
                Arc::new(move |page| {
                    scheduler.write_scheduler(page);
                    scheduler.write_requests_of_scheduler(page);
                }),
            ),
        ],
    }
}

/// Events of the control plane are written with every right: they are about any namespace.
pub fn event_user() -> User {
    User::new("system:ekso", &["system:masters", "system:authenticated"])
}

/// This server's name among those that share a store. It is the same after a restart, so that the server need not wait for its own
/// Lease to run out; and held by one process at a time, so that no two have it.
pub struct Identity {
    pub name: String,
    _lock: File,
}

#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("another server runs with the keys in {}: each needs a data folder of its own", .0.display())]
    Taken(PathBuf),
}

impl Identity {
    /// `dir` is the cluster's folder on this host.
    pub fn take(dir: &Path) -> Result<Self, IdentityError> {
        let path = dir.join("identity");
        let failed = |operation| {
            let path = path.clone();
            move |error| FileError::new(operation, &path, error)
        };
        let options = File::options().read(true).append(true).create(true).mode(0o600).open(&path);
        let mut file = options.map_err(failed("open"))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| IdentityError::Taken(dir.to_owned()))?;
        let mut word = String::new();
        file.read_to_string(&mut word).map_err(failed("read"))?;
        if word.is_empty() {
            word = pki::random_word(16);
            file.write_all(word.as_bytes()).map_err(failed("write"))?;
        }
        // Host and a unique word, as upstream's processes call themselves.
        Ok(Self { name: format!("{}_{word}", hostname()), _lock: file })
    }
}

/// The id of this API server: made of the host's name, as upstream's; of the server's own, if there may be several on a host.
pub fn own_id(identity: Option<&str>) -> String {
    identity.map_or_else(|| server_id(&hostname()), server_id)
}

fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// As upstream tells API servers apart: `apiserver-` and the half of a digest of their host's and their own name, each with its length
/// before it, in base 32.
fn server_id(host: &str) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for part in [host, API_SERVER] {
        context.update(&(part.len() as u16).to_be_bytes());
        context.update(part.as_bytes());
    }
    let digest = context.finish();
    let bits = digest.as_ref()[..16].iter().flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1));
    let bits: Vec<u8> = bits.collect();
    let letters = bits.chunks(5).map(|five| {
        let value = (0..5).fold(0, |value, at| value << 1 | five.get(at).copied().unwrap_or(0));
        char::from(b"abcdefghijklmnopqrstuvwxyz234567"[usize::from(value)])
    });
    format!("apiserver-{}", letters.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What upstream's server of a host with this name was seen to call itself.
    #[test]
    fn a_server_is_called_as_upstreams() {
        assert_eq!(server_id("vm"), "apiserver-wlv32tlttr4jl3gtroqexyxapa");
    }

    #[test]
    fn an_identity_is_kept_and_nobody_has_it_twice() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = Identity::take(dir.path()).expect("an identity");
        assert!(matches!(Identity::take(dir.path()), Err(IdentityError::Taken(_))));
        let name = first.name.clone();
        drop(first);
        assert_eq!(Identity::take(dir.path()).expect("the same").name, name);
    }
}
