//! Which devices the machines of a site may open: those that a machine has, and none of the host's disks.
//!
//! The limit is on the site's group, above the machines' own, which a privileged pod can write to.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use crate::{Error, Result};

/// Version 1, in the words of its `devices.allow`: any node may be made, and these may be opened. Terminals are 136,
/// loop devices 7 (volumes in files), 10 is TUN, FUSE and the maker of loop devices.
const ALLOWED: &[&str] = &[
    "c *:* m",
    "b *:* m",
    "b 7:* rwm",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 1:11 rwm",
    "c 5:0 rwm",
    "c 5:1 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
    "c 10:200 rwm",
    "c 10:229 rwm",
    "c 10:237 rwm",
];

/// Limits a site's new group, which has no children yet, in whichever hierarchy it is.
pub fn restrict(group: &Path, unified: bool) -> Result<()> {
    if unified {
        return attach(group, &program()).map_err(Error::file("restrict the devices of", group));
    }
    let deny = group.join("devices.deny");
    if !deny.exists() {
        return Ok(());
    }
    fs::write(&deny, "a").map_err(Error::file("write", &deny))?;
    let allow = group.join("devices.allow");
    for line in ALLOWED {
        match fs::write(&allow, line) {
            // Ekso is in a container itself, which may not open that either.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            other => other.map_err(Error::file("write", &allow))?,
        }
    }
    Ok(())
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
const AND: u8 = 0x57;
const IF_EQUAL: u8 = 0x15;
const IF_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

/// Version 2 has no list but a program, which sees `struct bpf_cgroup_dev_ctx`: `access << 16 | kind`, major, minor.
/// It refuses reading and writing block devices but for loop devices; characters are left to what the machine has no
/// capability for.
fn program() -> Vec<Instruction> {
    const BLOCK: i32 = 1;
    const READ_OR_WRITE: i32 = 6 << 16;
    const LOOP: i32 = 7;
    let instruction = |code, to: u8, from: u8, offset, value| Instruction {
        code,
        registers: from << 4 | to,
        offset,
        value,
    };
    vec![
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(LOAD_WORD, 3, 1, 0, 0),
        instruction(AND, 2, 0, 0, 0xffff),
        instruction(IF_NOT_EQUAL, 2, 0, 6, BLOCK),
        instruction(AND, 3, 0, 0, READ_OR_WRITE),
        instruction(IF_EQUAL, 3, 0, 4, 0),
        instruction(LOAD_WORD, 4, 1, 4, 0),
        instruction(IF_EQUAL, 4, 0, 2, LOOP),
        instruction(MOVE, 0, 0, 0, 0),
        instruction(EXIT, 0, 0, 0, 0),
        instruction(MOVE, 0, 0, 0, 1),
        instruction(EXIT, 0, 0, 0, 0),
    ]
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
}

#[repr(C)]
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
    };
    // SAFETY: the kernel copies the attributes, the program and the licence during the call, and is told their sizes.
    let program =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<LoadAttr>()) };
    if program < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    let program = unsafe { OwnedFd::from_raw_fd(program as i32) };
    let group = File::open(group)?;
    let attach = AttachAttr {
        target_fd: group.as_raw_fd() as u32,
        attach_bpf_fd: program.as_raw_fd() as u32,
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: the kernel copies the attributes during the call, and is told their size.
    let attached =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attach, size_of::<AttachAttr>()) };
    if attached < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
