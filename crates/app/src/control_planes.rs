//! The control planes that run in this process.
//!
//! Starting or stopping one takes as long as its disk and its clients need, and waits for nobody but those who start or stop the same:
//! whoever does has the turn of its name. Whoever only looks never waits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::cluster::Cluster;
use crate::doors::Doors;
use crate::turns::{self, Turns};

/// By name.
#[derive(Default)]
pub struct ControlPlanes {
    state: Mutex<State>,
    turns: Turns,
    /// Counts those that were started.
    starts: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    running: BTreeMap<String, Arc<Cluster>>,
    /// The process ends: nothing is started any more.
    is_closed: bool,
}

/// Leave to start or stop the control plane of one name, and to change what is kept of it on disk.
pub struct Turn<'a> {
    planes: &'a ControlPlanes,
    turn: turns::Turn,
}

#[derive(Debug, thiserror::Error)]
#[error("the daemon is being stopped: start it again with `ekso up`")]
pub struct Closed;

impl ControlPlanes {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, name: &str) -> Option<Arc<Cluster>> {
        self.state().running.get(name).cloned()
    }

    /// Changes whenever one has started.
    pub fn starts(&self) -> watch::Receiver<u64> {
        self.starts.subscribe()
    }

    /// Whether none runs, once those who were starting or stopping one are done.
    pub async fn are_none(&self) -> bool {
        self.settled().await;
        self.state().running.is_empty()
    }

    async fn settled(&self) {
        for name in self.turns.taken() {
            drop(self.turns.take(&name).await);
        }
    }

    /// Waits for the turn of a name.
    ///
    /// # Errors
    /// Once [`Self::close`] was called.
    pub async fn turn(&self, name: &str) -> Result<Turn<'_>, Closed> {
        let turn = self.turns.take(name).await;
        self.check_open()?;
        Ok(Turn { planes: self, turn })
    }

    /// # Errors
    /// Once [`Self::close`] was called.
    pub fn check_open(&self) -> Result<(), Closed> {
        if self.state().is_closed { Err(Closed) } else { Ok(()) }
    }

    /// Lets nobody begin any more, waits for those who have begun, and hands out what runs.
    pub async fn close(&self) -> BTreeMap<String, Arc<Cluster>> {
        self.state().is_closed = true;
        self.settled().await;
        std::mem::take(&mut self.state().running)
    }
}

impl Turn<'_> {
    pub fn name(&self) -> &str {
        self.turn.name()
    }

    pub fn running(&self) -> Option<Arc<Cluster>> {
        self.planes.get(self.name())
    }

    /// It runs now.
    pub fn started(&self, cluster: Cluster) -> Arc<Cluster> {
        let cluster = Arc::new(cluster);
        self.planes.state().running.insert(self.name().to_owned(), cluster.clone());
        self.planes.starts.send_modify(|count| *count += 1);
        cluster
    }

    /// Stops it, if it runs, and gives its doors, at which clients wait for whoever comes next.
    pub async fn leave_open(&self) -> Doors {
        let gone = self.planes.state().running.remove(self.name());
        match gone {
            Some(cluster) => cluster.leave_open().await,
            None => Doors::default(),
        }
    }

    /// Stops it in order, if it runs; whether it did.
    pub async fn stop(&self) -> bool {
        // Nobody finds one that is on its way out.
        let gone = self.planes.state().running.remove(self.name());
        if let Some(cluster) = &gone {
            cluster.stop().await;
        }
        gone.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_ends_waits_for_who_has_begun_and_lets_nobody_begin() {
        let planes = ControlPlanes::default();
        let turn = planes.turn("a").await.expect("a turn");
        assert!(planes.get("a").is_none(), "who looks does not wait");
        assert!(planes.check_open().is_ok());
        let mut asking = pin!(planes.are_none());
        assert!((&mut asking).now_or_never().is_none(), "somebody may be starting one");
        let mut waiting = pin!(planes.turn("a"));
        assert!((&mut waiting).now_or_never().is_none());
        let mut closing = pin!(planes.close());
        assert!((&mut closing).now_or_never().is_none());
        drop(turn);
        // In the order of asking: whoever is not awaited keeps the turn that it was given.
        assert!(asking.await);
        assert!(waiting.await.is_err(), "it had not begun");
        assert!(closing.await.is_empty());
        assert!(planes.turn("b").await.is_err());
        assert!(planes.check_open().is_err());
    }
}
