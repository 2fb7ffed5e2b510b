//! IAM and the token service with boto3, and why a decision was made.

use anyhow::{Context, Result, ensure};
use e2e::Site;
use serde_json::Value;

/// Users, groups, roles and policies as boto3 and Terraform make them; what they may and may not; roles assumed and their sessions; then
/// what the command line tells of a decision.
pub fn tell() -> Result<()> {
    let site = Site::new()?;
    site.up("iam", "--nodes 0").context(site.logs())?;
    site.act("iam.py", &[])?;
    let why = |words: &str| -> Result<Value> {
        let text = site.ekso(&format!("why aws {words} -o json"))?.ok()?;
        Ok(serde_json::from_str(&text)?)
    };
    let allowed = why("eks:CreateCluster")?;
    ensure!(allowed["allowed"] == true, "{allowed}");
    let because =
        "allowed by an identity-based policy: arn:aws:iam::aws:policy/AdministratorAccess, statement 1";
    ensure!(allowed["why"] == because, "{allowed}");
    let denied = why("eks:CreateCluster --principal role/AmazonEKSNodeRole")?;
    ensure!(denied["allowed"] == false, "{denied}");
    ensure!(denied["why"] == "denied: no identity-based policy allows it", "{denied}");
    let text = site.ekso("why aws eks:CreateCluster --principal role/AmazonEKSNodeRole")?.ok()?;
    ensure!(text.contains("AccessDenied: User: arn:aws:sts::"), "{text}");
    site.ekso("why aws CreateCluster")?.fails_with("is no action: name one as eks:CreateCluster")?;
    site.ekso("why aws iam:GetRole --principal user/nobody")?
        .fails_with("there is no user, role or session")?;
    site.delete("iam")
}
