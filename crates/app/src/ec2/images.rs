//! The images of a cluster: a folder that its nodes' machines share.

use std::path::{Path, PathBuf};

use runtime::image::Store;

use super::Ec2Error;
use crate::site::Site;

/// The folder of a cluster's images, with everything that was imported.
pub async fn folder(site: &Site, cluster: &str) -> Result<PathBuf, Ec2Error> {
    let (imported, own) = (site.images(), site.cluster_images(cluster));
    let path = own.clone();
    let taken = tokio::task::spawn_blocking(move || {
        let store = Store::open(&own)?;
        if imported.exists() { store.take_over(&Store::open(&imported)?).map(drop) } else { Ok(()) }
    });
    taken.await??;
    Ok(path)
}

/// Layers that the node's containers held are nobody's now.
pub fn release(folder: &Path, node: &str) -> Result<(), Ec2Error> {
    if folder.exists() {
        Store::open(folder)?.release_all(&format!("{node}/"))?;
    }
    Ok(())
}
