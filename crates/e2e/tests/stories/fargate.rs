//! Pods on Fargate with awscli, boto3 and kubectl.

use anyhow::{Context, Result};
use e2e::{Site, aws_binary, ekso_binary, kubectl_binary};
use rustix::process::{Pid, Signal, kill_process};

/// A profile, a pod that it matches and one that it does not; each kind that Fargate refuses; the daemon killed while pods come and go;
/// the profile deleted, and nothing of it is left.
pub fn tell() -> Result<()> {
    let site = Site::new()?;
    let cluster = site.up("dev", "--nodes 1").with_context(|| site.logs())?;
    let (kubectl, aws, ekso) = (kubectl_binary(36)?, aws_binary()?, ekso_binary()?);
    let (scratch, data) = (site.scratch().display().to_string(), site.dir().display().to_string());
    let act = |name: &str| -> Result<()> {
        let words = [&kubectl, &aws].map(|path| path.display().to_string());
        let ekso = ekso.display().to_string();
        let told =
            site.python(include_str!("fargate.py"), &[name, &words[0], &words[1], &scratch, &ekso, &data])?;
        told.ok().map(drop).with_context(|| format!("act {name}\n{}", site.logs()))
    };
    act("made")?;
    act("kinds")?;
    let pid = Pid::from_raw(cluster.daemon_pid()?).context("a process")?;
    kill_process(pid, Signal::KILL)?;
    site.ekso("up --name dev")?.ok().with_context(|| site.logs())?;
    act("went_on")?;
    act("gone")?;
    site.delete("dev")
}
