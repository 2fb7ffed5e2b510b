//! Clusters and node groups of EKS with awscli, boto3, botocore's waiters and kubectl.

use anyhow::{Context, Result};
use e2e::{Site, aws_binary, kubectl_binary};
use rustix::process::{Pid, Signal, kill_process};

/// Two clusters at once: made, logged in to, given nodes, which are scaled, updated and killed; the daemon killed between; deleted, and
/// nothing is left.
pub fn tell() -> Result<()> {
    let site = Site::new()?;
    let cluster = site.up("dev", "--nodes 0").with_context(|| site.logs())?;
    let (kubectl, aws) = (kubectl_binary(36)?, aws_binary()?);
    let (scratch, data) = (site.scratch().display().to_string(), site.dir().display().to_string());
    let act = |name: &str| -> Result<()> {
        let (kubectl, aws) = (kubectl.display().to_string(), aws.display().to_string());
        let told = site.python(include_str!("eks.py"), &[name, &kubectl, &aws, &scratch, &data])?;
        told.ok().map(drop).with_context(|| format!("act {name}\n{}", site.logs()))
    };
    act("made")?;
    act("in_the_middle")?;
    // kill -9 while a node group is on its way, and on it goes.
    let pid = Pid::from_raw(cluster.daemon_pid()?).context("a process")?;
    kill_process(pid, Signal::KILL)?;
    site.ekso("up --name dev")?.ok().with_context(|| site.logs())?;
    act("went_on")?;
    act("changed")?;
    act("own_vpc")?;
    act("terraform")?;
    act("gone")?;
    site.delete("dev")
}
