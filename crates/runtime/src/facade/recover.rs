//! Finds what ran before the node's process started.

use super::{ContainerEntry, Inner, Record, Runtime, SandboxEntry, blocking};
use crate::connection::Connection;
use crate::error::{RuntimeError, at};
use crate::layout;
use crate::protocol::Call;
use plan::node::{ContainerStatus, Sandbox, SandboxState};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use tokio::sync::watch;

impl Runtime {
    /// Reads what is on disk and connects to the monitors that are alive. Sandboxes without one are not ready, and
    /// their containers are dead. To be called once, before anything else.
    pub async fn recover(&self) -> Result<(), RuntimeError> {
        let inner = self.inner.clone();
        let found = blocking(move || inner.read_all()).await?;
        for (id, entry) in found {
            let ready = entry.sandbox.state == SandboxState::Ready;
            self.inner.entries().insert(id.clone(), entry);
            if ready {
                self.inner.reconnect(&id).await;
            }
        }
        Ok(())
    }
}

impl Inner {
    async fn reconnect(self: &Arc<Self>, id: &str) {
        let Ok(connection) = Connection::open(&self.run_dir(id)) else {
            self.sandbox_lost(id).await;
            return;
        };
        let kept = self.with_sandbox(id, |entry| entry.connection = Some(connection.clone()));
        if kept.is_err() {
            return;
        }
        self.listen(id.into(), connection.clone());
        // What it tells comes before its answer. If it dies now, the listener hears of it.
        let _ = connection.call(Call::Status, &[]).await;
    }

    fn read_all(&self) -> Result<Vec<(String, SandboxEntry)>, RuntimeError> {
        let root = self.options.root.join("sandboxes");
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&root).map_err(at("read", &root))?.flatten() {
            let name = entry.file_name();
            let Some(id) = name.to_str().filter(|id| layout::is_id(id)) else { continue };
            match read_sandbox(&entry.path()) {
                Ok(sandbox) => found.push((id.to_string(), sandbox)),
                // Killed before it was written: nothing ran in it yet.
                Err(error) => {
                    tracing::warn!(sandbox = id, %error, "an unfinished sandbox is removed");
                    self.release(id);
                    std::fs::remove_dir_all(entry.path()).map_err(at("remove", entry.path()))?;
                }
            }
        }
        Ok(found)
    }
}

fn read_sandbox(directory: &Path) -> std::io::Result<SandboxEntry> {
    let sandbox: Sandbox = layout::read_json(&directory.join(layout::SANDBOX))?;
    let mut containers = BTreeMap::new();
    for entry in std::fs::read_dir(layout::containers(directory))?.flatten() {
        let path = entry.path();
        let Ok(record) = layout::read_json::<Record>(&path.join(layout::CONTAINER)) else {
            // Killed while it was made.
            std::fs::remove_dir_all(&path)?;
            continue;
        };
        let status = layout::read_json::<ContainerStatus>(&path.join(layout::STATUS)).unwrap_or_default();
        let entry = ContainerEntry { status: watch::Sender::new(status), record };
        containers.insert(entry.record.container.id.clone(), entry);
    }
    Ok(SandboxEntry { sandbox, connection: None, containers, changing: Arc::default() })
}
