//! What the clusters that run here would cost on EKS: control planes, instances, Fargate by the second, gateways and addresses.
//!
//! Prices are data with a date and a region; nobody is asked. What runs on instances is also told as Fargate would bill it, so that the two
//! stand side by side.

use std::collections::BTreeMap;

use kinds::PODS;
use object::{Snapshot, Time};
use serde::{Deserialize, Serialize};

use crate::control::fargate::{self, Capacity};
use crate::ec2::instance_type;
use crate::ec2::record::{Address, Instance, NatGateway, NetworkInterface, State};
use crate::eks::{ClusterRecord, FargateNode, FargateState, support_of};
use crate::state;

const PRICES: &str = include_str!("../data/prices.tsv");
/// Of which region and when the table is.
pub const REGION: &str = "us-east-1";
pub const DATE: &str = "2026-01-19";
/// As AWS' calculators have it.
pub const HOURS_A_MONTH: f64 = 730.0;
/// Instances and pods on Fargate are billed by the second, from this one on; gateways by hours that have begun.
const LEAST_SECS: i64 = 60;
const HOUR_SECS: i64 = 3_600;

/// What everything costs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Bill {
    /// The account's own region; the prices are [`REGION`]'s.
    pub region: String,
    pub prices_of: String,
    pub prices_as_of: String,
    pub currency: String,
    pub lines: Vec<Line>,
    pub clusters: Vec<Side>,
    pub usd_per_hour: f64,
    pub usd_per_month: f64,
    /// Of what runs now, since it began.
    pub usd_so_far: f64,
}

/// Things of one kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Line {
    /// Empty for what belongs to none.
    pub cluster: String,
    /// `EKS control plane`, `EC2 instance`, `Fargate pod`, `NAT gateway`, `public IPv4 address`
    pub what: String,
    /// `1.36, standard support`, `m5.large`, `0.25vCPU 0.5GB`
    pub detail: String,
    pub count: u32,
    /// Of all of them; none if AWS sells no such thing.
    pub usd_per_hour: Option<f64>,
    pub usd_so_far: f64,
}

/// The pods of one cluster on EC2 and on Fargate.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Side {
    pub cluster: String,
    /// Its instances now.
    pub ec2_usd_per_hour: f64,
    /// Its pods on Fargate now.
    pub fargate_usd_per_hour: f64,
    /// Pods on its nodes that Fargate could run, and what it would ask for them: an hour of each one's size.
    pub movable_pods: u32,
    pub movable_usd_per_hour: f64,
    /// Pods that it could not run: of DaemonSets, privileged, with volumes of the host, …
    pub fixed_pods: u32,
}

/// Dollars an hour by item, and what it is counted by.
fn price(item: &str) -> Option<(&'static str, f64)> {
    let rows = PRICES.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut columns = line.split('\t');
        Some((columns.next()?, columns.next()?, columns.next()?.parse().ok()?))
    });
    rows.into_iter().find(|(name, ..)| *name == item).map(|(_, unit, usd)| (unit, usd))
}

fn usd(item: &str) -> f64 {
    price(item).map_or(0.0, |(_, usd)| usd)
}

/// An hour of an instance; none for what is not sold.
fn instance_usd(name: &str) -> Option<f64> {
    let kind = instance_type::find(name)?;
    let (unit, usd) = price(name.split('.').next()?)?;
    let count = if unit == "GB" { f64::from(kind.memory_mib) / 1024.0 } else { f64::from(kind.cpus) };
    Some(usd * count)
}

fn fargate_usd(capacity: Capacity) -> f64 {
    let (vcpus, gigabytes) = (f64::from(capacity.cpu_milli) / 1e3, f64::from(capacity.memory_mib) / 1024.0);
    vcpus * usd("fargate.vcpu") + gigabytes * usd("fargate.memory")
}

/// Adds up equal things.
#[derive(Default)]
struct Lines(BTreeMap<(String, &'static str, String), Line>);

impl Lines {
    fn add(
        &mut self,
        cluster: &str,
        what: &'static str,
        detail: String,
        usd_per_hour: Option<f64>,
        seconds: i64,
    ) {
        let key = (cluster.to_owned(), what, detail.clone());
        let line = self.0.entry(key).or_insert_with(|| Line {
            cluster: cluster.to_owned(),
            what: what.to_owned(),
            detail,
            usd_per_hour: usd_per_hour.map(|_| 0.0),
            ..Line::default()
        });
        line.count += 1;
        let hourly = usd_per_hour.unwrap_or(0.0);
        line.usd_per_hour = line.usd_per_hour.map(|known| known + hourly);
        line.usd_so_far += hourly * seconds.max(0) as f64 / 3600.0;
    }

    fn hourly(&self, cluster: &str, what: &str) -> f64 {
        let lines = self.0.values().filter(|line| line.cluster == cluster && line.what == what);
        // The sum of no floats is a negative nothing.
        lines.filter_map(|line| line.usd_per_hour).fold(0.0, |sum, usd| sum + usd)
    }
}

/// The bill of an account. `objects` gives what a cluster's store holds, if it runs.
pub fn bill(account: &Snapshot, region: &str, now: Time, objects: &dyn Fn(&str) -> Option<Snapshot>) -> Bill {
    let mut lines = Lines::default();
    let clusters = state::list::<ClusterRecord>(account, "");
    for cluster in &clusters {
        let shown = &cluster.record.shown;
        let is_standard = support_of(&shown.version, now) == "STANDARD_SUPPORT";
        let (support, item) =
            if is_standard { ("standard", "eks.standard") } else { ("extended", "eks.extended") };
        let detail = format!("{}, {support} support", shown.version);
        let seconds = now.secs_since(shown.created_at);
        lines.add(&shown.name, "EKS control plane", detail, price(item).map(|(_, usd)| usd), seconds);
    }
    for instance in state::list::<Instance>(account, "").into_iter().map(|kept| kept.record) {
        // Stopped ones cost nothing.
        if instance.state != State::Running || instance.fargate.is_some() {
            continue;
        }
        let cluster = instance.joined.clone().unwrap_or_default();
        let seconds = now.secs_since(instance.launched).max(LEAST_SECS);
        let hourly = instance_usd(&instance.instance_type);
        lines.add(&cluster, "EC2 instance", instance.instance_type, hourly, seconds);
    }
    for cluster in &clusters {
        for node in state::list::<FargateNode>(account, cluster.name()).into_iter().map(|kept| kept.record) {
            if node.state != FargateState::Running {
                continue;
            }
            let capacity = Capacity { cpu_milli: node.cpu_milli, memory_mib: node.memory_mib };
            let seconds = now.secs_since(node.created).max(LEAST_SECS);
            lines.add(
                cluster.name(),
                "Fargate pod",
                capacity.to_string(),
                Some(fargate_usd(capacity)),
                seconds,
            );
        }
    }
    for gateway in state::list::<NatGateway>(account, "").into_iter().map(|kept| kept.record) {
        if gateway.deleted.is_none() {
            let hours_begun = now.secs_since(gateway.created).max(0) / HOUR_SECS + 1;
            let seconds = hours_begun * HOUR_SECS;
            lines.add("", "NAT gateway", gateway.vpc_id, Some(usd("nat-gateway")), seconds);
        }
    }
    // In use or not, each has its price; since when they are there, nobody has written down.
    let elastic = state::list::<Address>(account, "").len();
    let given = state::list::<NetworkInterface>(account, "").into_iter();
    let given = given.filter(|interface| interface.record.public_ip.is_some()).count();
    for (count, detail) in [(elastic, "elastic"), (given, "given at launch")] {
        for _ in 0..count {
            lines.add("", "public IPv4 address", detail.to_owned(), Some(usd("public-ipv4")), 0);
        }
    }
    let sides =
        clusters.iter().map(|cluster| side(&lines, cluster.name(), objects(cluster.name()))).collect();
    let lines: Vec<Line> = lines.0.into_values().collect();
    let usd_per_hour: f64 = lines.iter().filter_map(|line| line.usd_per_hour).sum();
    Bill {
        region: region.to_owned(),
        prices_of: REGION.to_owned(),
        prices_as_of: DATE.to_owned(),
        currency: "USD".to_owned(),
        usd_per_hour,
        usd_per_month: usd_per_hour * HOURS_A_MONTH,
        usd_so_far: lines.iter().map(|line| line.usd_so_far).sum(),
        lines,
        clusters: sides,
    }
}

fn side(lines: &Lines, cluster: &str, objects: Option<Snapshot>) -> Side {
    let mut side = Side {
        cluster: cluster.to_owned(),
        ec2_usd_per_hour: lines.hourly(cluster, "EC2 instance"),
        fargate_usd_per_hour: lines.hourly(cluster, "Fargate pod"),
        ..Side::default()
    };
    let Some(objects) = objects else { return side };
    for pod in objects.list(PODS, "") {
        match fargate::would_be(&objects, pod) {
            fargate::WouldBe::Sized(capacity) => {
                side.movable_pods += 1;
                side.movable_usd_per_hour += fargate_usd(capacity);
            }
            fargate::WouldBe::Refused => side.fixed_pods += 1,
            fargate::WouldBe::Nothing => {}
        }
    }
    side
}

#[cfg(test)]
mod tests {
    use object::{Draft, Key, body};
    use serde_json::{Value, json};

    use super::*;
    use crate::stories::Account;

    #[test]
    fn every_type_and_size_has_a_price() {
        for kind in instance_type::all() {
            assert!(instance_usd(&kind.name).is_some_and(|usd| usd > 0.0), "{}", kind.name);
        }
        for (name, usd) in [
            ("c5.9xlarge", 1.53),
            ("c6g.16xlarge", 2.176),
            ("c7g.large", 0.0725),
            ("c7i.48xlarge", 8.568),
            ("m5.large", 0.096),
            ("m6i.32xlarge", 6.144),
            ("m7g.4xlarge", 0.6528),
            ("m7i.48xlarge", 9.6768),
            ("r5.24xlarge", 6.048),
            ("r6g.8xlarge", 1.6128),
            ("r7g.12xlarge", 2.5704),
            ("r7i.24xlarge", 6.3504),
            ("t3.medium", 0.0416),
            ("t3a.2xlarge", 0.3008),
            ("t4g.nano", 0.0042),
        ] {
            let found = instance_usd(name).expect("a price");
            assert!((found - usd).abs() < 1e-9, "{name}: {found}");
        }
        assert!(PRICES.starts_with(&format!("# What AWS asks in {REGION}")) && PRICES.contains(DATE));
        assert_eq!(instance_usd("ekso.host"), None);
    }

    fn near(found: f64, wanted: f64) {
        assert!((found - wanted).abs() < 1e-9, "{found} is not {wanted}");
    }

    #[test]
    fn a_bill_has_what_runs_and_both_sides() {
        let mut account = Account::with_vpc();
        let text = include_str!("../testdata/sts/cluster.json")
            .replace("NAME", "shop")
            .replace("ISSUER", "https://i");
        let mut cluster: ClusterRecord = serde_json::from_str(&text).expect("a cluster");
        cluster.shown.created_at = account.now;
        cluster.shown.version = "1.36".into();
        let node = json!({
            "instanceId": "i-1", "nodeName": "n", "providerId": "p", "profile": "fp", "pod": {"namespace": "a", "name": "b", "uid": "c"},
            "subnetId": "s", "cpuMilli": 1000, "memoryMib": 2048, "created": account.now, "state": "Running",
        });
        let node: FargateNode = serde_json::from_value(node).expect("a node");
        account.change(|changes| {
            changes.create("", "shop", &cluster);
            changes.create("shop", "i-1", &node);
        });
        let mut objects = Snapshot::default();
        let mut put = |name: &str, spec: Value, owner: &str| {
            let owners = json!([{"apiVersion": "apps/v1", "kind": owner, "name": "o", "uid": "u"}]);
            let pod = json!({"metadata": {"name": name, "namespace": "a", "uid": name, "ownerReferences": owners},
                "spec": spec, "status": {"phase": "Running"}});
            let field = spec["nodeName"].as_str().unwrap_or_default();
            let draft = Draft::read(Key::new(PODS, "a", name), [field.into()].into(), body::encode(&pod));
            objects.put(draft.expect("a pod").at(1));
        };
        let on = |spec: Value| {
            let mut spec = spec;
            spec["nodeName"] = "n".into();
            spec
        };
        put("small", on(json!({"containers": [{"name": "c"}]})), "ReplicaSet");
        put("daemon", on(json!({"containers": [{"name": "c"}]})), "DaemonSet");
        put(
            "root",
            on(json!({"containers": [{"name": "c", "securityContext": {"privileged": true}}]})),
            "ReplicaSet",
        );
        put(
            "there",
            on(json!({"schedulerName": "fargate-scheduler", "containers": [{"name": "c"}]})),
            "ReplicaSet",
        );
        put("waiting", json!({"containers": [{"name": "c"}]}), "ReplicaSet");

        let bill =
            bill(&account.state, "us-east-1", account.now.plus_secs(1_800), &|_| Some(objects.clone()));
        let line = |what: &str| bill.lines.iter().find(|line| line.what == what).expect("a line");
        near(line("EKS control plane").usd_per_hour.unwrap_or_default(), 0.10);
        near(line("EKS control plane").usd_so_far, 0.05);
        assert_eq!(line("EKS control plane").detail, "1.36, standard support");
        let fargate = 0.04048 + 2.0 * 0.004445;
        near(line("Fargate pod").usd_per_hour.unwrap_or_default(), fargate);
        near(line("Fargate pod").usd_so_far, fargate / 2.0);
        near(line("NAT gateway").usd_per_hour.unwrap_or_default(), 0.045);
        near(line("NAT gateway").usd_so_far, 0.045);
        assert_eq!(line("public IPv4 address").count, 1);
        near(bill.usd_per_hour, 0.10 + fargate + 0.045 + 0.005);
        let [side] = &bill.clusters[..] else { panic!("one cluster") };
        assert_eq!((side.movable_pods, side.fixed_pods), (1, 2));
        near(side.movable_usd_per_hour, fargate_usd(Capacity { cpu_milli: 250, memory_mib: 512 }));
    }
}
