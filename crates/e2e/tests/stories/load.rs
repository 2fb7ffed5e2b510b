//! A Deployment that is asked all the time, while its nodes and its cluster change under it.

use anyhow::{Context, Result};
use e2e::Site;

/// A node group scaled up and down, cluster and nodes brought to the next versions, every process killed in the middle of each change: not one request
/// is lost, neither through the Service, nor at a node's port, nor through the API server but while that itself is killed.
pub fn tell() -> Result<()> {
    let site = Site::new()?;
    site.up("dev", "--nodes 0").with_context(|| site.logs())?;
    for act in ["made", "scaled", "updated", "killed", "gone"] {
        site.act("load.py", &[act])?;
    }
    site.delete("dev")
}
