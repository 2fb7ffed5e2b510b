//! Roles for pods: IRSA and EKS Pod Identity, with an unchanged boto3 in real pods, and what they are not for.

use anyhow::{Context, Result};
use e2e::{Site, aws_binary, kubectl_binary, run, tool};
use rustix::process::{Pid, Signal, kill_process};

/// Pods that act as their roles and are refused what the roles may not; keys and tokens that end and are made anew; then those who should
/// get nothing: the wrong account, audience, role, cluster, node and network.
pub fn tell() -> Result<()> {
    let site = Site::new()?;
    let cluster = site.up("dev", "--nodes 1").with_context(|| site.logs())?;
    let (kubectl, aws) = (kubectl_binary(36)?, aws_binary()?);
    let (scratch, data) = (site.scratch().display().to_string(), site.dir().display().to_string());
    let busybox = tool("busybox")?.display().to_string();
    let act = |name: &str| -> Result<()> {
        let (kubectl, aws) = (kubectl.display().to_string(), aws.display().to_string());
        let words = [name, &kubectl, &aws, &scratch, &data, &busybox];
        let told = site.python(include_str!("identity.py"), &words)?;
        told.ok().map(drop).with_context(|| format!("act {name}\n{}", site.logs()))
    };
    act("packed")?;
    act("made")?;
    for cluster in ["dev", "shop"] {
        let mut import = site.command("image import --cmd")?;
        import.arg("/bin/busybox sleep 86400").arg("--rootfs").arg(site.scratch().join("sdk"));
        run(import.args(["sdk:1", "--name", cluster]), "")?.ok()?;
    }
    act("placed")?;
    act("irsa")?;
    act("pod_identity")?;
    act("attacks")?;
    // What a pod got before, it gets after: nothing of it is remembered by the daemon.
    let pid = Pid::from_raw(cluster.daemon_pid()?).context("a process")?;
    kill_process(pid, Signal::KILL)?;
    site.ekso("up --name dev")?.ok().with_context(|| site.logs())?;
    act("went_on")?;
    act("gone")?;
    site.delete("dev")
}
