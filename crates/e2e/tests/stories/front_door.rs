//! The AWS endpoint with AWS's own clients.

use anyhow::{Context, Result, ensure};
use e2e::{Site, run};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// One profile and the stock tools: who one is; what is forged, late, replayed, malformed or from a web page is refused and changes
/// nothing; the account outlives its process.
pub fn tell() -> Result<()> {
    let site = Site::new()?;
    let cluster = site.up("door", "--nodes 0").context(site.logs())?;
    let before = identity(&site)?;
    site.act("front_door.py", &[])?;

    let status: Value = serde_json::from_str(&site.ekso("aws -o json")?.ok()?)?;
    ensure!(status["account"] == before["Account"] && status["profile"] == "ekso", "{status}");
    let roles = status["resources"].as_array().context("resources")?;
    ensure!(roles.iter().any(|one| one["kind"] == "role"), "{status}");
    ensure!(site.ekso("aws")?.ok()?.contains("export AWS_PROFILE=ekso"), "an example");

    // kill -9, and on it goes with the same keys.
    let pid = Pid::from_raw(cluster.daemon_pid()?).context("a process")?;
    kill_process(pid, Signal::KILL)?;
    site.ekso("up --name door")?.ok().context(site.logs())?;
    ensure!(identity(&site)? == before, "the account is another");

    refusals(&site)?;
    site.delete("door")
}

fn identity(site: &Site) -> Result<Value> {
    let text = site.aws("sts get-caller-identity --output json")?.ok().with_context(|| site.logs())?;
    let identity: Value = serde_json::from_str(&text)?;
    let arn = identity["Arn"].as_str().unwrap_or_default();
    ensure!(arn.ends_with(":user/admin"), "{identity}");
    Ok(identity)
}

/// What the command line says when the endpoint cannot be had as asked.
fn refusals(site: &Site) -> Result<()> {
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port();
    site.ekso(&format!("up --name door --aws-port {port}"))?.fails_with("answers at port")?;
    site.ekso("up --name door --aws-region eu-west-1")?.fails_with("is in us-east-1")?;
    let wrong = site.ekso("up --name door --aws-region mars")?;
    ensure!(wrong.code == 2, "{wrong:?}");
    let other = Site::new()?;
    let refused = other.ekso(&format!("up --name none --api-port 0 --nodes 0 --aws-port {port}"))?;
    refused.fails_with(&format!("port {port} on 127.0.0.1 cannot be used"))?;
    refused.fails_with("choose another with --aws-port")?;
    // What never ran is not there to be deleted.
    other.is_gone()?;
    let nowhere = run(&mut other.command("aws")?, "")?;
    nowhere.fails_with("no AWS endpoint runs here")?;
    ensure!(nowhere.code == 3, "{nowhere:?}");
    Ok(())
}
