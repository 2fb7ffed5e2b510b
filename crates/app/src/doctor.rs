//! `ekso doctor`: what this machine lacks, each finding with its mend.

use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;

use machines::doctor::{Finding, Level, Subject, examine};
use serde_json::json;

use crate::cli::{self, Format};
use crate::exit;
use crate::output;
use crate::site::Site;

const API_PORT: u16 = 6443;

pub fn run(args: &cli::Doctor) -> ExitCode {
    let findings = match findings(args) {
        Ok(findings) => findings,
        Err(why) => {
            eprintln!("error: {why}");
            return ExitCode::from(exit::FAILED);
        }
    };
    match args.output.output {
        Format::Json => println!("{}", to_json(&findings)),
        Format::Text if findings.is_empty() => println!("Nothing is missing: `sudo ekso up` will work."),
        Format::Text => println!("{}", to_text(&findings)),
    }
    let fatal = findings.iter().any(|finding| finding.level == Level::Error);
    ExitCode::from(if fatal { exit::MACHINE_LACKS } else { 0 })
}

fn findings(args: &cli::Doctor) -> Result<Vec<Finding>, String> {
    if !rustix::process::geteuid().is_root() {
        return Ok(vec![Finding {
            check: "root",
            level: Level::Error,
            what: "this is not root: namespaces, mounts and cgroups need it, and so do the other checks"
                .into(),
            mend: "run it with sudo".into(),
        }]);
    }
    // A folder that is no site yet stays untouched: the checks look at what a site of it would be.
    let known = Site::find(&args.site.data_dir).map_err(|error| error.to_string())?;
    let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (id, dir) = match &known {
        Some(site) => (site.id.clone(), site.dir.join("vpc")),
        None => ("doctor".to_owned(), scratch.path().to_owned()),
    };
    let site = machines::Site::open(&id, dir).map_err(|error| error.to_string())?;
    let mut findings = examine(&Subject { site: &site });
    if known.is_none() && TcpListener::bind((Ipv4Addr::LOCALHOST, API_PORT)).is_err() {
        findings.push(Finding {
            check: "ports",
            level: Level::Warning,
            what: format!("port {API_PORT} of 127.0.0.1 is taken: the first cluster gets another"),
            mend: "end what listens there, or choose a port with `ekso up --api-port`".into(),
        });
    }
    if known.is_none() {
        site.delete().map_err(|error| error.to_string())?;
    }
    Ok(findings)
}

fn level(finding: &Finding) -> &'static str {
    match finding.level {
        Level::Warning => "warning",
        Level::Error => "error",
    }
}

fn to_json(findings: &[Finding]) -> String {
    let all: Vec<_> = findings
        .iter()
        .map(|one| json!({"check": one.check, "level": level(one), "what": one.what, "mend": one.mend}))
        .collect();
    format!("{:#}", serde_json::Value::from(all))
}

fn to_text(findings: &[Finding]) -> String {
    let rows: Vec<Vec<String>> = findings
        .iter()
        .map(|one| vec![level(one).to_owned(), one.check.to_owned(), one.what.clone(), one.mend.clone()])
        .collect();
    output::table(&["LEVEL", "CHECK", "FOUND", "MEND"], &rows)
}
