//! Reads a `Localhost` profile: the JSON that Docker, containerd and CRI-O take.
//! <https://github.com/opencontainers/runtime-spec/blob/main/config-linux.md#seccomp>

use super::filter::{ALLOW, Action, Profile, errno};
use super::{Comparison, Condition};
use crate::container::capability;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// The largest profile that is read.
const LIMIT_BYTES: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    default_action: String,
    default_errno_ret: Option<i32>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    names: Vec<String>,
    name: Option<String>,
    action: String,
    errno_ret: Option<i32>,
    #[serde(default)]
    args: Vec<Argument>,
    #[serde(default)]
    includes: Selector,
    #[serde(default)]
    excludes: Selector,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// Where a rule holds. The kernel's version is not asked: those that this runs on are younger than any profile means.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Selector {
    caps: Vec<String>,
    arches: Vec<String>,
}

pub fn load(path: &Path, capabilities: u64) -> Result<Profile, String> {
    let named = |error: &dyn std::fmt::Display| format!("seccomp profile {}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(|error| named(&error))?;
    let text = crate::sys::read_limited(file.into(), LIMIT_BYTES).map_err(|error| named(&error))?;
    parse(&text, capabilities).map_err(|error| named(&error))
}

fn parse(text: &str, capabilities: u64) -> Result<Profile, String> {
    let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let default = action(&file.default_action, file.default_errno_ret)?;
    let mut profile = Profile { default, rules: BTreeMap::new() };
    for rule in &file.syscalls {
        if !holds(rule, capabilities) {
            continue;
        }
        let action = action(&rule.action, rule.errno_ret.or(file.default_errno_ret))?;
        let names: Vec<&str> = rule.names.iter().chain(&rule.name).map(String::as_str).collect();
        // One per argument is the most that makes sense, and keeps the jumps over them short.
        if rule.args.len() > 6 {
            return Err(format!(
                "{} comparisons for {names:?}; a system call has 6 arguments",
                rule.args.len()
            ));
        }
        let conditions = rule.args.iter().map(condition).collect::<Result<Vec<_>, _>>()?;
        profile.add(&names, &conditions, action);
    }
    Ok(profile)
}

fn holds(rule: &Rule, capabilities: u64) -> bool {
    let has = |name: &String| capability::bit(name).is_some_and(|bit| capabilities & bit != 0);
    let here = |name: &String| match name.as_str() {
        "amd64" | "x86_64" => cfg!(target_arch = "x86_64"),
        "arm64" | "aarch64" => cfg!(target_arch = "aarch64"),
        _ => false,
    };
    rule.includes.caps.iter().all(has)
        && (rule.includes.arches.is_empty() || rule.includes.arches.iter().any(here))
        && !rule.excludes.caps.iter().any(has)
        && !rule.excludes.arches.iter().any(here)
}

fn action(name: &str, errno_ret: Option<i32>) -> Result<Action, String> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => ALLOW,
        "SCMP_ACT_ERRNO" => errno(errno_ret.unwrap_or(libc::EPERM)),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => libc::SECCOMP_RET_KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => libc::SECCOMP_RET_KILL_PROCESS,
        "SCMP_ACT_LOG" => libc::SECCOMP_RET_LOG,
        "SCMP_ACT_TRAP" => libc::SECCOMP_RET_TRAP,
        other => return Err(format!("action {other:?} is not supported")),
    })
}

fn condition(argument: &Argument) -> Result<Condition, String> {
    let value = argument.value;
    if argument.index > 5 {
        return Err(format!("a system call has no argument {}", argument.index));
    }
    let is = match argument.op.as_str() {
        "SCMP_CMP_EQ" => Comparison::Equal(value),
        "SCMP_CMP_NE" => Comparison::NotEqual(value),
        "SCMP_CMP_LT" => Comparison::Less(value),
        "SCMP_CMP_LE" => Comparison::LessOrEqual(value),
        "SCMP_CMP_GT" => Comparison::Greater(value),
        "SCMP_CMP_GE" => Comparison::GreaterOrEqual(value),
        "SCMP_CMP_MASKED_EQ" => Comparison::Masked { mask: value, value: argument.value_two },
        other => return Err(format!("comparison {other:?} is not supported")),
    };
    Ok(Condition { argument: argument.index, is })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rules_for_this_machine_and_these_capabilities() {
        let text = r#"{
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
            "syscalls": [
                {"names": ["read", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5,
                 "args": [{"index": 1, "value": 9, "op": "SCMP_CMP_EQ"}]}
            ]}"#;
        let number = |name| super::super::table::number(name).unwrap();
        let profile = parse(text, 0).unwrap();
        assert_eq!(profile.default, errno(38));
        assert_eq!(profile.rules[&number("read")], vec![(vec![], ALLOW)]);
        assert!(!profile.rules.contains_key(&number("mount")));
        assert_eq!(profile.rules[&number("kill")][0].1, errno(5));
        assert!(parse(text, u64::MAX).unwrap().rules.contains_key(&number("mount")));
    }

    #[test]
    fn says_what_it_does_not_understand() {
        let text = r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#;
        assert_eq!(parse(text, 0).err().unwrap(), "action \"SCMP_ACT_NOTIFY\" is not supported");
    }
}
