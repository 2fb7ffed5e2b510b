//! What people see: steps with their times, tables, colours when a terminal looks and none when a pipe does.

use std::io::{IsTerminal, Write};

use crate::admin::{AccountStatus, ClusterStatus, Told};

const GREEN: &str = "\x1b[32m";
const DIM: &str = "\x1b[2m";
const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[31m";
const RESET: &str = "\x1b[0m";

/// Writes to standard error, so that standard output holds results only.
pub struct Screen {
    is_terminal: bool,
    has_colour: bool,
}

impl Screen {
    pub fn new() -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        let has_colour = is_terminal && std::env::var_os("NO_COLOR").is_none();
        Self { is_terminal, has_colour }
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.has_colour { format!("{colour}{text}{RESET}") } else { text.to_owned() }
    }

    pub fn told(&self, told: &Told) {
        match told {
            Told::Doing { what } if self.is_terminal => {
                eprint!("  {}\r", self.paint(DIM, &format!("{what} …")));
                // A terminal that is gone shows nothing either way.
                let _ = std::io::stderr().flush();
            }
            Told::Step { what, millis } => self.step(what, *millis),
            _ => {}
        }
    }

    pub fn step(&self, what: &str, millis: u64) {
        let clear = if self.is_terminal { "\r\x1b[K" } else { "" };
        let time = self.paint(DIM, &seconds(millis));
        eprintln!("{clear}{} {what:<34}{time}", self.paint(GREEN, "✓"));
    }

    pub fn say(&self, text: &str) {
        eprintln!("{text}");
    }

    pub fn next(&self, text: &str, command: &str) {
        eprintln!("{text}\n\n    {}\n", self.paint(BOLD, command));
    }

    pub fn error(&self, text: &str) {
        let clear = if self.is_terminal { "\r\x1b[K" } else { "" };
        eprintln!("{clear}{}: {text}", self.paint(RED, "error"));
    }
}

fn seconds(millis: u64) -> String {
    format!("{}.{:02} s", millis / 1_000, millis % 1_000 / 10)
}

/// Rows under a header, in columns as kubectl prints them.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(column, title)| {
            rows.iter().map(|row| row[column].chars().count()).chain([title.len()]).max().unwrap_or(0)
        })
        .collect();
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> =
            cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("   ").trim_end().to_owned()
    };
    let mut text = line(header.to_vec());
    for row in rows {
        text.push('\n');
        text.push_str(&line(row.iter().map(String::as_str).collect()));
    }
    text
}

/// `4.2 MB`
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut amount = count as f64;
    let mut unit = 0;
    while amount >= 999.5 && unit + 1 < UNITS.len() {
        amount /= 1_000.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{amount:.1} {}", UNITS[unit]) }
}

pub fn cluster_list(clusters: &[ClusterStatus]) -> String {
    let rows: Vec<Vec<String>> = clusters
        .iter()
        .map(|cluster| {
            let ready = cluster.nodes.iter().filter(|node| node.ready).count();
            vec![
                cluster.name.clone(),
                cluster.state.clone(),
                format!("{ready}/{}", cluster.nodes.len()),
                cluster.version.clone(),
                cluster.endpoint.clone(),
            ]
        })
        .collect();
    table(&["NAME", "STATE", "NODES", "VERSION", "ENDPOINT"], &rows)
}

pub fn cluster_status(cluster: &ClusterStatus) -> String {
    let field = |name: &str, value: &str| format!("{name:<10} {value}\n");
    let mut text = field("Cluster", &format!("{} ({})", cluster.name, cluster.state));
    text += &field("API", &cluster.endpoint);
    text += &field("Context", &cluster.context);
    text += &field("Version", &cluster.version);
    if cluster.state == "Running" {
        text += &field("Pods", &cluster.pods.to_string());
        text += &field("Memory", &bytes(cluster.memory_bytes));
        let store = format!(
            "{} objects, {} live, {} on disk, revision {}",
            cluster.objects,
            bytes(cluster.store_live_bytes),
            bytes(cluster.store_disk_bytes),
            cluster.revision
        );
        text += &field("Store", &store);
    }
    text += &field("Data", &cluster.data_dir);
    if !cluster.nodes.is_empty() {
        let rows: Vec<Vec<String>> = cluster
            .nodes
            .iter()
            .map(|node| {
                let ready = if node.ready { "Ready" } else { "NotReady" };
                vec![node.name.clone(), ready.into(), node.internal_ip.clone(), node.external_ip.clone()]
            })
            .collect();
        text.push('\n');
        text += &table(&["NODE", "STATUS", "INTERNAL-IP", "NODEPORTS AT"], &rows);
    }
    text.trim_end().to_owned()
}

pub fn account_status(status: &AccountStatus) -> String {
    let field = |name: &str, value: &str| format!("{name:<10} {value}\n");
    let mut text = field("Endpoint", &status.endpoint);
    text += &field("Account", &status.account);
    text += &field("Region", &status.region);
    text += &field("Profile", &status.profile);
    if !status.resources.is_empty() {
        let rows: Vec<Vec<String>> = status
            .resources
            .iter()
            .map(|one| vec![one.kind.clone(), one.id.clone(), one.detail.clone()])
            .collect();
        text.push('\n');
        text += &table(&["KIND", "ID", ""], &rows);
        text.push('\n');
    }
    text.push_str("\nTry:\n");
    for line in account_example(status) {
        text += &format!("\n    {line}");
    }
    text
}

/// Who, what and with what in a line, then what decided it, then what AWS would answer.
pub fn explanation(told: &aws::iam::Explanation) -> String {
    let mut text = format!("{} {} {}\n{}", told.principal, told.action, told.resource, told.why);
    if !told.message.is_empty() {
        text += &format!("\nAccessDenied: {}", told.message);
    }
    text
}

/// What things cost, and what the pods would cost elsewhere.
pub fn bill(bill: &aws::cost::Bill) -> String {
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let row = |line: &aws::cost::Line| {
        let hourly = line.usd_per_hour;
        vec![
            or_dash(&line.cluster),
            line.what.clone(),
            line.detail.clone(),
            line.count.to_string(),
            hourly.map_or_else(|| "not sold".to_owned(), dollars),
            hourly.map_or_else(|| "-".to_owned(), |usd| dollars(usd * aws::cost::HOURS_A_MONTH)),
            dollars(line.usd_so_far),
        ]
    };
    let mut rows: Vec<Vec<String>> = bill.lines.iter().map(row).collect();
    let total = ["total", "", "", ""].map(str::to_owned).into_iter();
    rows.push(total.chain([bill.usd_per_hour, bill.usd_per_month, bill.usd_so_far].map(dollars)).collect());
    let mut text = table(&["CLUSTER", "WHAT", "", "COUNT", "USD/HOUR", "USD/MONTH", "SO FAR"], &rows);
    let sides: Vec<Vec<String>> = bill
        .clusters
        .iter()
        .map(|side| {
            vec![
                side.cluster.clone(),
                dollars(side.ec2_usd_per_hour),
                dollars(side.fargate_usd_per_hour),
                format!("{} for {} pods", dollars(side.movable_usd_per_hour), side.movable_pods),
                side.fixed_pods.to_string(),
            ]
        })
        .collect();
    if !sides.is_empty() {
        text.push_str("\n\n");
        let header =
            ["CLUSTER", "EC2 NOW", "FARGATE NOW", "ITS OTHER PODS ON FARGATE", "PODS FARGATE CANNOT RUN"];
        text += &table(&header, &sides);
    }
    text += &format!(
        "\n\nPrices of {} as of {}, on demand, without traffic, discounts and free tiers.",
        bill.prices_of, bill.prices_as_of
    );
    if bill.region != bill.prices_of {
        text += &format!(" This account is in {}, whose prices are others.", bill.region);
    }
    text
}

/// `0.1000`
fn dollars(usd: f64) -> String {
    format!("{usd:.4}")
}

/// Commands that work as they stand, with what is in the account.
fn account_example(status: &AccountStatus) -> Vec<String> {
    let of = |kind: &'static str| status.resources.iter().filter(move |one| one.kind == kind);
    let role = |part: &str| {
        of("role").find(|role| role.id.to_lowercase().contains(part)).map(|role| role.id.clone())
    };
    let mut lines =
        vec![format!("export AWS_PROFILE={}", status.profile), "aws sts get-caller-identity".to_owned()];
    let subnets: Vec<&str> = of("subnet")
        .filter(|subnet| subnet.detail.ends_with("private"))
        .map(|subnet| subnet.id.as_str())
        .collect();
    if let (Some(cluster_role), Some(node_role), false) = (role("cluster"), role("node"), subnets.is_empty())
    {
        lines.push(format!(
            "aws eks create-cluster --name shop --role-arn {cluster_role} --resources-vpc-config subnetIds={}",
            subnets.join(",")
        ));
        lines.push("aws eks wait cluster-active --name shop".to_owned());
        lines.push(format!(
            "aws eks create-nodegroup --cluster-name shop --nodegroup-name ng --subnets {} --node-role {node_role} --scaling-config minSize=1,maxSize=5,desiredSize=3",
            subnets.join(" ")
        ));
        lines.push("aws eks update-kubeconfig --name shop && kubectl get nodes".to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_tables_read_well() {
        for (count, text) in
            [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (60_000_000, "60.0 MB"), (999_960, "1.0 MB")]
        {
            assert_eq!(bytes(count), text);
        }
        let rows = vec![vec!["a".to_owned(), "Running".to_owned()], vec!["longer".to_owned(), String::new()]];
        assert_eq!(table(&["NAME", "STATE"], &rows), "NAME     STATE\na        Running\nlonger");
    }
}
