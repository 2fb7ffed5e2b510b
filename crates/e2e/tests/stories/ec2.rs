//! VPCs and instances of EC2 with boto3, from outside and from inside a machine.

use anyhow::{Context, Result};
use e2e::Site;

/// Two VPCs with the range of the default one: instances that reach each other, the metadata and the account as their groups and routes
/// say, and nothing else; every process killed between; deleted, and nothing is left.
pub fn tell() -> Result<()> {
    let site = Site::new()?;
    site.up("dev", "--nodes 0").with_context(|| site.logs())?;
    let act = |name: &str| site.act("ec2.py", &[name]);
    act("made")?;
    act("inside")?;
    act("in_the_middle")?;
    act("went_on")?;
    act("gone")?;
    site.delete("dev")
}
