//! Clusters and node groups of EKS with awscli, boto3, botocore's waiters and kubectl.

use anyhow::{Context, Result};
use e2e::Site;

/// Two clusters at once: made, logged in to, given nodes, which come and go and are killed; every process killed between; deleted, and
/// nothing is left.
pub fn tell() -> Result<()> {
    let site = Site::new()?;
    site.up("dev", "--nodes 0").with_context(|| site.logs())?;
    let act = |name: &str| site.act("eks.py", &[name]);
    act("made")?;
    act("in_the_middle")?;
    act("went_on")?;
    act("changed")?;
    act("own_vpc")?;
    act("terraform")?;
    act("eksctl")?;
    act("gone")?;
    site.delete("dev")
}
