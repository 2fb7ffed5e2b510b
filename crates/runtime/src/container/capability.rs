//! Capabilities by name, and which ones a container gets.

use plan::node::SecurityContext;

/// capability.h, in the order of their numbers.
#[rustfmt::skip]
const NAMES: [&str; 41] = [
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
];

/// What containerd gives a container that asks for nothing.
#[rustfmt::skip]
const DEFAULT: [&str; 14] = [
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
    "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
];

/// The bit of a capability, named with or without `CAP_`, in any case.
pub fn bit(name: &str) -> Option<u64> {
    let upper = name.to_ascii_uppercase();
    let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|known| *known == name).map(|number| 1 << number)
}

/// How many capabilities the running kernel knows.
fn known_to_kernel() -> u32 {
    let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok();
    last.and_then(|text| text.trim().parse::<u32>().ok()).map_or(NAMES.len() as u32, |last| last + 1).min(64)
}

/// Whatever there is to give: the machine itself may have been started with less than the kernel knows.
fn all() -> u64 {
    u64::MAX >> (64 - known_to_kernel()) & crate::sys::permitted_capabilities()
}

/// The set a container runs with: everything when privileged, else the default plus `add` minus `drop`.
///
/// `ALL` in one list is applied first, so `drop: [ALL], add: [CHOWN]` leaves one. An unknown name is an error.
pub fn granted(security: &SecurityContext) -> Result<u64, String> {
    if security.privileged {
        return Ok(all());
    }
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
    let mut mask = DEFAULT.iter().filter_map(|name| bit(name)).fold(0, |mask, bit| mask | bit);
    if security.add_capabilities.iter().any(is_all) {
        mask = all();
    }
    if security.drop_capabilities.iter().any(is_all) {
        mask = 0;
    }
    let unknown = |name: &String| format!("unknown capability {:?}", format!("CAP_{name}"));
    for name in security.add_capabilities.iter().filter(|name| !is_all(name)) {
        mask |= bit(name).ok_or_else(|| unknown(name))?;
    }
    for name in security.drop_capabilities.iter().filter(|name| !is_all(name)) {
        mask &= !bit(name).ok_or_else(|| unknown(name))?;
    }
    Ok(mask & all())
}

/// Takes every capability outside `mask` from what this process and its children can ever have.
pub fn limit_bounding_set(mask: u64) -> std::io::Result<()> {
    for number in (0..known_to_kernel()).filter(|number| mask & (1 << number) == 0) {
        crate::sys::prctl(libc::PR_CAPBSET_DROP, number.into())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(add: &[&str], drop: &[&str], has: &[&str], lacks: &[&str]) {
        let security = SecurityContext {
            add_capabilities: add.iter().map(|s| s.to_string()).collect(),
            drop_capabilities: drop.iter().map(|s| s.to_string()).collect(),
            ..Default::default()
        };
        let mask = granted(&security).unwrap();
        for name in has {
            assert_ne!(mask & bit(name).unwrap(), 0, "{name} missing with add {add:?} drop {drop:?}");
        }
        for name in lacks {
            assert_eq!(mask & bit(name).unwrap(), 0, "{name} present with add {add:?} drop {drop:?}");
        }
    }

    #[test]
    fn granted_sets() {
        check(&[], &[], &["CHOWN", "NET_RAW", "AUDIT_WRITE"], &["SYS_ADMIN", "NET_ADMIN", "SYS_PTRACE"]);
        check(&["NET_ADMIN"], &["CHOWN"], &["NET_ADMIN", "KILL"], &["CHOWN"]);
        check(&["NET_BIND_SERVICE"], &["ALL"], &["NET_BIND_SERVICE"], &["CHOWN", "KILL"]);
        check(&["ALL"], &["MKNOD"], &["SYS_ADMIN"], &["MKNOD"]);
        check(&["cap_sys_time"], &[], &["SYS_TIME"], &[]);
    }

    #[test]
    fn unknown_names_are_refused() {
        let security = SecurityContext { add_capabilities: vec!["FLY".into()], ..Default::default() };
        assert_eq!(granted(&security).unwrap_err(), "unknown capability \"CAP_FLY\"");
    }
}
