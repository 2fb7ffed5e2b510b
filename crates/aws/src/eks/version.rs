//! The Kubernetes versions that clusters may have.

use object::Time;
use serde_json::{Value, json};

use super::fault;
use crate::{Answer, Context, Fault};

/// What a cluster has if nobody says.
pub const DEFAULT: &str = "1.36";

/// A minor version that clusters may have.
pub struct Version {
    /// `1.36`
    pub name: &'static str,
    pub minor: u8,
    /// The patch release whose behaviour it has.
    pub patch: &'static str,
    /// `eks.1`
    pub platform: &'static str,
    /// When EKS released it or upstream did, and when support of either kind ends: dates of the EKS release calendar, or upstream's
    /// release and the calendar's 14 and 26 months.
    pub released: &'static str,
    pub standard_until: &'static str,
    pub extended_until: &'static str,
}

/// Oldest first.
pub const VERSIONS: &[Version] = &[
    Version {
        name: "1.34",
        minor: 34,
        patch: "1.34.0",
        platform: "eks.1",
        released: "2025-10-02T00:00:00Z",
        standard_until: "2026-12-02T00:00:00Z",
        extended_until: "2027-12-02T00:00:00Z",
    },
    Version {
        name: "1.35",
        minor: 35,
        patch: "1.35.0",
        platform: "eks.1",
        released: "2026-01-27T00:00:00Z",
        standard_until: "2027-03-27T00:00:00Z",
        extended_until: "2028-03-27T00:00:00Z",
    },
    Version {
        name: "1.36",
        minor: 36,
        patch: "1.36.0",
        platform: "eks.1",
        released: "2026-04-22T00:00:00Z",
        standard_until: "2027-06-22T00:00:00Z",
        extended_until: "2028-06-22T00:00:00Z",
    },
];

/// The row of a version.
pub fn find(name: &str) -> Option<&'static Version> {
    VERSIONS.iter().find(|version| version.name == name)
}

/// The row of the version that is asked for, the default if none is.
pub fn wanted(name: Option<&str>) -> Result<&'static Version, Fault> {
    find(name.unwrap_or(DEFAULT)).ok_or_else(|| fault::invalid("unsupported Kubernetes version"))
}

pub fn describe(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let asked = |member: &str| input[member].as_str().map(str::to_owned);
    if asked("clusterType").is_some_and(|kind| kind != "eks") {
        return Err(fault::invalid("clusterType must be eks"));
    }
    let named: Vec<&str> =
        input["clusterVersions"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if let Some(unknown) = named.iter().find(|name| find(name).is_none()) {
        return Err(fault::invalid(format!("The cluster version {unknown} is not supported")));
    }
    let now = context.now.to_string();
    let wanted = VERSIONS.iter().rev().filter(|version| {
        let support = support(version, &now);
        (named.is_empty() || named.contains(&version.name))
            && (input["defaultOnly"] != true || version.name == DEFAULT)
            && asked("versionStatus").is_none_or(|status| status == support)
            && asked("status").is_none_or(|status| status.replace('-', "_").to_uppercase() == support)
    });
    let shown: Vec<Value> = wanted.map(|version| shown(version, &now)).collect();
    Ok(Answer::read(json!({"clusterVersions": shown})))
}

/// `STANDARD_SUPPORT`, `EXTENDED_SUPPORT`, `UNSUPPORTED`: what a version has now.
pub fn support_of(name: &str, now: Time) -> &'static str {
    find(name).map_or("UNSUPPORTED", |version| support(version, &now.to_string()))
}

/// Dates of one form compare as text.
fn support(version: &Version, now: &str) -> &'static str {
    if now < version.standard_until {
        "STANDARD_SUPPORT"
    } else if now < version.extended_until {
        "EXTENDED_SUPPORT"
    } else {
        "UNSUPPORTED"
    }
}

fn shown(version: &Version, now: &str) -> Value {
    let support = support(version, now);
    json!({
        "clusterVersion": version.name,
        "clusterType": "eks",
        "defaultPlatformVersion": version.platform,
        "defaultVersion": version.name == DEFAULT,
        "releaseDate": version.released,
        "endOfStandardSupportDate": version.standard_until,
        "endOfExtendedSupportDate": version.extended_until,
        "status": support.to_lowercase().replace('_', "-"),
        "versionStatus": support,
        "kubernetesPatchVersion": version.patch,
    })
}
