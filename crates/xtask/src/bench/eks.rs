//! Clusters and node groups by Amazon's API, and what a cluster costs that does nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::Method;
use serde_json::{Value, json};

use super::calls::{Call, Caller, ask, caller};
use super::pods::create_and_wait;
use super::site::Site;
use super::{Row, percentiles, seconds};
use crate::servers::output;

const STARTS: usize = 5;
const MANY: usize = 200;
const NODES: usize = 3;
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(5);
const SETTLE: Duration = Duration::from_secs(15);
const IDLE: Duration = Duration::from_secs(60);

pub fn run() -> Result<Vec<Row>> {
    let site = Site::new()?;
    site.up()?;
    let caller = caller(&site)?;
    let mut active = Vec::new();
    for number in 0..STARTS {
        let (name, since) = (format!("one-{number}"), Instant::now());
        create(&caller, &name)?;
        until(&caller, &format!("/clusters/{name}"), "cluster")?;
        active.push(since.elapsed());
    }
    let since = Instant::now();
    let cluster = get(&caller, "/clusters/bench")?;
    let group = json!({
        "nodegroupName": "ng", "subnets": cluster["cluster"]["resourcesVpcConfig"]["subnetIds"],
        "nodeRole": role(&cluster, "AmazonEKSNodeRole")?,
        "scalingConfig": {"minSize": NODES, "maxSize": NODES, "desiredSize": NODES},
    });
    post(&caller, "/clusters/one-0/node-groups", &group)?;
    until(&caller, "/clusters/one-0/node-groups/ng", "nodegroup")?;
    let mut rows = vec![
        row("create-cluster until ACTIVE", seconds(percentiles(active).0), "1 s"),
        row(
            &format!("create-nodegroup of {NODES} until ACTIVE, nodes Ready"),
            seconds(since.elapsed()),
            "3 s",
        ),
    ];
    rows.push(fargate(&site, &caller)?);
    rows.extend(idle(&site, &caller)?);
    Ok(rows)
}

/// Pods of a Fargate profile in the cluster that `ekso up` made, one after another: each gets a machine.
fn fargate(site: &Site, caller: &Caller) -> Result<Row> {
    site.import_image()?;
    let cluster = get(caller, "/clusters/bench")?;
    // The cluster's own subnets are public, which Fargate refuses.
    let account: Value = serde_json::from_str(&output(&mut site.ekso("aws -o json"))?)?;
    let subnets = account["resources"].as_array().into_iter().flatten();
    let is_private = |one: &&Value| {
        one["kind"] == "subnet" && one["detail"].as_str().is_some_and(|detail| detail.ends_with("private"))
    };
    let subnets: Vec<&Value> = subnets.filter(is_private).map(|subnet| &subnet["id"]).collect();
    let on = json!({"on": "fargate"});
    let profile = json!({
        "fargateProfileName": "fp", "podExecutionRoleArn": role(&cluster, "AmazonEKSFargatePodExecutionRole")?,
        "selectors": [{"namespace": "default", "labels": on}], "subnets": subnets,
    });
    post(caller, "/clusters/bench/fargate-profiles", &profile)?;
    until(caller, "/clusters/bench/fargate-profiles/fp", "fargateProfile")?;
    let mut times = Vec::new();
    for number in 0..STARTS {
        times.extend(create_and_wait(site, &[format!("fargate-{number}")], &on)?);
    }
    Ok(row("Fargate: create → Running of a pod", seconds(percentiles(times).0), "2 s"))
}

/// What each of many clusters adds.
fn idle(site: &Site, caller: &Caller) -> Result<Vec<Row>> {
    let figures = |site: &Site| -> Result<(u64, Duration)> {
        std::thread::sleep(SETTLE);
        let before = site.cpu()?;
        std::thread::sleep(IDLE);
        Ok((site.memory_bytes()?, site.cpu()?.saturating_sub(before)))
    };
    let (memory, cpu) = figures(site)?;
    let since = Instant::now();
    for number in 0..MANY {
        create(caller, &format!("many-{number}"))?;
    }
    for number in 0..MANY {
        until(caller, &format!("/clusters/many-{number}"), "cluster")?;
    }
    let made = since.elapsed();
    let (more_memory, more_cpu) = figures(site)?;
    let each = more_memory.saturating_sub(memory) as f64 / MANY as f64 / 1e6;
    let share = more_cpu.saturating_sub(cpu).as_secs_f64() / IDLE.as_secs_f64() / MANY as f64 * 100.0;
    Ok(vec![
        row(&format!("{MANY} clusters at once until all are ACTIVE"), seconds(made), ""),
        row(&format!("memory of each of {MANY} idle clusters (PSS)"), format!("{each:.1} MB"), "5 MB"),
        row(
            &format!("CPU of each of {MANY} idle clusters"),
            format!("{share:.3} % of a core"),
            "0.02 % of a core",
        ),
    ])
}

fn row(figure: &str, value: String, reach: &'static str) -> Row {
    Row { figure: figure.to_owned(), value, cpu: String::new(), peer: String::new(), reach }
}

fn get(caller: &Caller, path: &str) -> Result<Value> {
    ask(caller, &Call { name: path, service: "eks", method: Method::GET, path, body: "" })
}

fn post(caller: &Caller, path: &str, input: &Value) -> Result<Value> {
    ask(caller, &Call { name: path, service: "eks", method: Method::POST, path, body: &input.to_string() })
}

/// In the subnets of the cluster that `ekso up` made.
fn create(caller: &Caller, name: &str) -> Result<Value> {
    let cluster = get(caller, "/clusters/bench")?;
    let input = json!({
        "name": name, "roleArn": role(&cluster, "AmazonEKSClusterRole")?,
        "resourcesVpcConfig": {"subnetIds": cluster["cluster"]["resourcesVpcConfig"]["subnetIds"]},
    });
    post(caller, "/clusters", &input)
}

fn role(cluster: &Value, name: &str) -> Result<String> {
    let arn = cluster["cluster"]["roleArn"].as_str().context("a role")?;
    let (account, _) = arn.split_once(":role/").context("the ARN of a role")?;
    Ok(format!("{account}:role/{name}"))
}

/// Looks until what stands at the path is ACTIVE.
fn until(caller: &Caller, path: &str, member: &str) -> Result<()> {
    let since = Instant::now();
    loop {
        let seen = get(caller, path)?;
        let status = seen[member]["status"].as_str().unwrap_or_default();
        if status == "ACTIVE" {
            return Ok(());
        }
        ensure!(matches!(status, "CREATING" | "UPDATING") && since.elapsed() < PATIENCE, "{path} is {seen}");
        std::thread::sleep(LOOK_AGAIN);
    }
}
