//! VPCs and instances of EC2 with boto3, from outside and from inside a machine.

use anyhow::{Context, Result};
use e2e::Site;
use rustix::process::{Pid, Signal, kill_process};

/// Two VPCs with the range of the default one: instances that reach each other, the metadata and the account as their groups and routes
/// say, and nothing else; the daemon killed between; deleted, and nothing is left.
pub fn tell() -> Result<()> {
    let site = Site::new()?;
    let cluster = site.up("dev", "--nodes 0").with_context(|| site.logs())?;
    let (scratch, data) = (site.scratch().display().to_string(), site.dir().display().to_string());
    let act = |name: &str| -> Result<()> {
        let told = site.python(include_str!("ec2.py"), &[name, &scratch, &data])?;
        told.ok().map(drop).with_context(|| format!("act {name}\n{}", site.logs()))
    };
    act("made")?;
    act("inside")?;
    act("in_the_middle")?;
    // kill -9 while instances come and go, and on it goes.
    let pid = Pid::from_raw(cluster.daemon_pid()?).context("a process")?;
    kill_process(pid, Signal::KILL)?;
    site.ekso("up --name dev")?.ok().with_context(|| site.logs())?;
    act("went_on")?;
    act("gone")?;
    site.delete("dev")
}
