//! Which devices the processes of a control group may open: a list for version 1, a BPF program for version 2.
//!
//! Sites limit their machines with it and the runtime its containers, so that both versions refuse the same.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// One rule: `b` or `c`, numbers (`None` is any) and of what (`r`, `w`, `m`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub kind: char,
    pub major: Option<u32>,
    pub minor: Option<u32>,
    pub access: String,
}

/// What every group may use: making any node (it can then not open it), and the standard devices.
#[rustfmt::skip]
const STANDARD: [(char, Option<u32>, Option<u32>, &str); 11] = [
    ('c', None, None, "m"), ('b', None, None, "m"),
    ('c', Some(1), Some(3), "rwm"), ('c', Some(1), Some(5), "rwm"), ('c', Some(1), Some(7), "rwm"),
    ('c', Some(1), Some(8), "rwm"), ('c', Some(1), Some(9), "rwm"), ('c', Some(5), Some(0), "rwm"),
    ('c', Some(5), Some(1), "rwm"), ('c', Some(5), Some(2), "rwm"),
    ('c', Some(136), None, "rwm"),
];

/// Lets a group of version 1, which has no children yet, use the standard devices and `more`, and no others. What a group
/// above may not use stays refused here too, as in version 2.
///
/// # Errors
/// The list cannot be written.
pub fn restrict_v1(group: &Path, more: &[Rule]) -> io::Result<()> {
    fs::write(group.join("devices.deny"), "a")?;
    let number = |number: Option<u32>| number.map_or_else(|| "*".to_string(), |number| number.to_string());
    for Rule { kind, major, minor, access } in rules(more) {
        let line = format!("{kind} {}:{} {access}", number(major), number(minor));
        match fs::write(group.join("devices.allow"), line) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            other => other?,
        }
    }
    Ok(())
}

/// As [`restrict_v1`] for a group of version 2. Programs of groups above are asked as well.
///
/// # Errors
/// The kernel takes no such program, or this process may not load one.
pub fn restrict_v2(group: &Path, more: &[Rule]) -> io::Result<()> {
    attach(group, &program(&rules(more)))
}

fn rules(more: &[Rule]) -> Vec<Rule> {
    let standard =
        STANDARD.map(|(kind, major, minor, access)| Rule { kind, major, minor, access: access.to_string() });
    standard.into_iter().chain(more.iter().cloned()).collect()
}

/// One instruction of eBPF, as in linux/bpf.h.
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high half.
    registers: u8,
    offset: i16,
    value: i32,
}

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const IF_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> Instruction {
    Instruction { code, registers: from << 4 | to, offset, value }
}

/// `struct bpf_cgroup_dev_ctx`: `access << 16 | kind`, major, minor. Returns 1 to allow.
fn program(rules: &[Rule]) -> Vec<Instruction> {
    let mut code = vec![
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(MOVE_REGISTER, 3, 2, 0, 0),
        instruction(AND, 2, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, 3, 0, 0, 16),
        instruction(LOAD_WORD, 4, 1, 4, 0),
        instruction(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules {
        let kind = if rule.kind == 'b' { 1 } else { 2 };
        let bit = |access: char| match access {
            'm' => 1,
            'r' => 2,
            'w' => 4,
            _ => 0,
        };
        let allowed = rule.access.chars().map(bit).fold(0, |all, bit| all | bit);
        // Tests that do not hold jump over the rest of this rule.
        let mut tests = vec![(2u8, kind)];
        tests.extend(rule.major.map(|major| (4, major as i32)));
        tests.extend(rule.minor.map(|minor| (5, minor as i32)));
        let length = tests.len() + 5;
        for (done, (register, value)) in tests.into_iter().enumerate() {
            code.push(instruction(IF_NOT_EQUAL, register, 0, (length - done - 1) as i16, value));
        }
        code.push(instruction(MOVE_REGISTER, 6, 3, 0, 0));
        code.push(instruction(AND, 6, 0, 0, !allowed & 7));
        code.push(instruction(IF_NOT_EQUAL, 6, 0, 2, 0));
        code.push(instruction(MOVE, 0, 0, 0, 1));
        code.push(instruction(EXIT, 0, 0, 0, 0));
    }
    code.push(instruction(MOVE, 0, 0, 0, 0));
    code.push(instruction(EXIT, 0, 0, 0, 0));
    code
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Programs of groups below are asked as well, and each can only refuse more.
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The part of `union bpf_attr` that loading a program uses.
#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

fn attach(group: &Path, code: &[Instruction]) -> io::Result<()> {
    let load = LoadAttr {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: code.len() as u32,
        insns: code.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..Default::default()
    };
    // SAFETY: the kernel copies the attributes, the program and the licence during the call.
    let program =
        check(unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of_val(&load)) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    let program = unsafe { OwnedFd::from_raw_fd(program as i32) };
    let group = File::open(group)?;
    let attach = AttachAttr {
        target_fd: group.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: the kernel copies the attributes during the call.
    check(unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attach, size_of_val(&attach)) })
        .map(drop)
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// Runs on every machine with cgroup2 somewhere, also where version 1 would restrict devices.
    #[test]
    fn the_program_of_version_2_restricts() {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mount = mounts.lines().find(|line| line.contains(" - cgroup2 ")).expect("cgroup2 is mounted");
        let mount = Path::new(mount.split(' ').nth(4).unwrap());
        let group = mount.join(format!("ekso-test-devices-{}", std::process::id()));
        std::fs::create_dir(&group).unwrap();
        let rules = [
            Rule { kind: 'c', major: Some(1), minor: Some(5), access: "r".into() },
            Rule { kind: 'c', major: Some(1), minor: Some(3), access: "rwm".into() },
        ];
        let attached = attach(&group, &program(&rules));
        let script = "echo 0 > $0/cgroup.procs || exit 9; \
            for d in '3</dev/zero' '3>/dev/zero' '3>/dev/null' '3</dev/full'; do (eval exec $d) 2>/dev/null; echo $?; done";
        let output = Command::new("/bin/sh").args(["-c", script]).arg(&group).output().unwrap();
        std::fs::remove_dir(&group).unwrap();
        attached.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let allowed: Vec<bool> = text.lines().map(|line| line == "0").collect();
        assert_eq!(allowed, [true, false, true, false], "{text}");
    }
}
