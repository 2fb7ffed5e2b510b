//! Programs that the kernel refuses a call, as one does that lacks a feature.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// A system call that fails when one of its arguments is this.
#[derive(Clone, Copy)]
pub struct Refused {
    pub call: libc::c_long,
    pub argument: u32,
    pub value: u32,
    pub errno: libc::c_int,
}

/// Lets the program, and all that it starts, make every call but this one. seccomp(2), and classic BPF on `struct seccomp_data`.
pub fn refuse(command: &mut Command, refused: Refused) {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        step(LOAD, 0, 0, 0),
        step(IF_EQUAL, 0, 3, refused.call as u32),
        step(LOAD, 0, 0, 16 + 8 * refused.argument),
        step(IF_EQUAL, 0, 1, refused.value),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | refused.errno as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let install = move || {
        let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
        // SAFETY: the kernel reads the program, which lives until the call returns, and nothing else.
        match unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: prctl is async-signal-safe, and the closure owns what it points to.
    unsafe {
        command.pre_exec(install);
    }
}
