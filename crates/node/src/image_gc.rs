//! Looks at the disk from time to time, and removes images that nobody uses when it fills.
//!
//! The store is shared by all nodes of a site: what any of their containers holds is in use, and whoever looks first frees
//! the room for all.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kinds::NODES;
use kubelet::{Disk, Garbage, StoredImage};
use object::{Key, Time};
use plan::Occurrence;
use runtime::image::{Store, StoreError};
use tracing::{info, warn};

use crate::clock;
use crate::ops::{Tools, blocking};

/// Upstream's `ImageGCPeriod`.
const PERIOD: Duration = Duration::from_secs(300);

/// When each image was last seen in use, by its id; forgotten with the process, as upstream's kubelet does.
type LastUses = BTreeMap<String, Time>;

/// Until the task is dropped.
pub async fn run(tools: Arc<Tools>) {
    let mut ticks = tokio::time::interval(PERIOD);
    let mut last_uses = LastUses::new();
    // A disk that others fill stays so: once is enough.
    let mut is_told = false;
    loop {
        ticks.tick().await;
        let store = tools.images.clone();
        let before = last_uses.clone();
        match blocking(move || collect(&store, disk_of(&store), before, clock::now())).await {
            Ok((uses, failure)) => {
                last_uses = uses;
                let was_told = std::mem::replace(&mut is_told, failure.is_some());
                if let Some(message) = failure.filter(|_| !was_told) {
                    warn!(message, "the disk stays full");
                    tools.reports.tell(about_node(&tools.facts.name, message));
                }
            }
            Err(error) => warn!(error, "images could not be looked through"),
        }
    }
}

/// Removes what has to go. The new last uses, and what is to be told of the node.
fn collect(
    store: &Store,
    disk: Disk,
    before: LastUses,
    now: Time,
) -> Result<(LastUses, Option<String>), StoreError> {
    let images = store.list()?;
    let held: BTreeSet<_> = store.held_layers()?;
    let mut found: BTreeMap<String, StoredImage> = BTreeMap::new();
    for image in &images {
        let is_used =
            !image.layers.is_empty() && image.layers.iter().all(|layer| held.contains(&layer.chain_id));
        let id = image.id.to_string();
        let added_at =
            Time::from_micros(i64::try_from(image.added_ms).unwrap_or(i64::MAX).saturating_mul(1_000));
        let used_at = if is_used { now } else { before.get(&id).copied().unwrap_or(added_at) };
        let one = found.entry(id.clone()).or_insert(StoredImage {
            id,
            bytes: image.size_bytes,
            is_kept: false,
            added_at,
            used_at,
        });
        one.is_kept |= is_used || image.pinned;
        one.added_at = one.added_at.max(added_at);
    }
    let uses = found.iter().map(|(id, image)| (id.clone(), image.used_at)).collect();
    let Garbage { images, failure } = kubelet::garbage(disk, found.into_values().collect(), now);
    for id in &images {
        store.remove(id)?;
    }
    if !images.is_empty() {
        let freed = store.collect(&[])?;
        info!(
            images = images.len(),
            bytes = freed.bytes,
            "unused images were removed: the disk was nearly full"
        );
    }
    Ok((uses, failure))
}

fn disk_of(store: &Store) -> Disk {
    rustix::fs::statvfs(store.dir()).map_or(Disk { capacity_bytes: 0, available_bytes: 0 }, |stat| Disk {
        capacity_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        available_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
    })
}

fn about_node(name: &str, message: String) -> Occurrence {
    Occurrence {
        about: Key::cluster(NODES, name),
        api_version: "v1".into(),
        kind: "Node".into(),
        // As upstream's kubelet names its node in events.
        uid: name.into(),
        field_path: "".into(),
        warning: true,
        reason: "FreeDiskSpaceFailed",
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_or_pinned_stays_on_a_full_disk() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::open(dir.path().join("images")).expect("a store");
        let import = |name: &str| {
            let root = dir.path().join(name);
            std::fs::create_dir_all(&root).expect("made");
            std::fs::write(root.join("file"), name).expect("written");
            store.import_rootfs(&root, &[], &["/file".into()], &format!("{name}:1")).expect("imported")
        };
        let (held, pinned, unused) = (import("held"), import("pinned"), import("unused"));
        store.prepare(&held, "node-1/container").expect("handed out");
        store.set_pinned(&pinned, true).expect("pinned");
        let names =
            || -> Vec<String> { store.list().expect("a list").into_iter().map(|image| image.name).collect() };
        let full = Disk { capacity_bytes: 100 << 30, available_bytes: 10 << 30 };
        let (uses, failure) = collect(&store, full, LastUses::new(), clock::now()).expect("collected");
        assert_eq!((names().len(), failure.is_some()), (3, true), "all are young");
        let later = clock::now().plus_secs(3_600);
        collect(&store, Disk { available_bytes: 50 << 30, ..full }, uses.clone(), later).expect("collected");
        assert_eq!(names().len(), 3, "there is room");
        collect(&store, full, uses, later).expect("collected");
        assert_eq!(names(), [held.name, pinned.name]);
        assert!(store.get(&unused.name).expect("read").is_none());
    }
}
