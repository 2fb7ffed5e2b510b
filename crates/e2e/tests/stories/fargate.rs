//! Pods on Fargate with awscli, boto3 and kubectl.

use anyhow::{Context, Result};
use e2e::Site;

/// A profile, a pod that it matches and one that it does not; each kind that Fargate refuses, and who tries to get past its scheduler; every
/// process killed while pods come and go, and one that has ended keeps its machine; the profile deleted, and nothing of it is left.
pub fn tell() -> Result<()> {
    let site = Site::new()?;
    site.up("dev", "--nodes 1").with_context(|| site.logs())?;
    let act = |name: &str| site.act("fargate.py", &[name]);
    act("made")?;
    act("kinds")?;
    act("went_on")?;
    act("gone")?;
    site.delete("dev")
}
