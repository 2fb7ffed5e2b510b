//! Roles for pods: IRSA and EKS Pod Identity, with an unchanged boto3 in real pods, and what they are not for.

use anyhow::{Context, Result};
use e2e::{Site, run, tool};

/// Pods that act as their roles and are refused what the roles may not; keys and tokens that end and are made anew; then those who should
/// get nothing: the wrong account, audience, role, cluster, node and network.
pub fn tell() -> Result<()> {
    let site = Site::new()?;
    site.up("dev", "--nodes 1").with_context(|| site.logs())?;
    let busybox = tool("busybox")?.display().to_string();
    let act = |name: &str| site.act("identity.py", &[name, &busybox]);
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
    act("went_on")?;
    act("gone")?;
    site.delete("dev")
}
