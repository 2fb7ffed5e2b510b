//! Signals by name, as images and pods write them.

#[rustfmt::skip]
const NAMES: [(&str, i32); 31] = [
    ("ABRT", libc::SIGABRT), ("ALRM", libc::SIGALRM), ("BUS", libc::SIGBUS), ("CHLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT), ("FPE", libc::SIGFPE), ("HUP", libc::SIGHUP), ("ILL", libc::SIGILL),
    ("INT", libc::SIGINT), ("IO", libc::SIGIO), ("KILL", libc::SIGKILL), ("PIPE", libc::SIGPIPE),
    ("PROF", libc::SIGPROF), ("PWR", libc::SIGPWR), ("QUIT", libc::SIGQUIT), ("SEGV", libc::SIGSEGV),
    ("STKFLT", libc::SIGSTKFLT), ("STOP", libc::SIGSTOP), ("SYS", libc::SIGSYS), ("TERM", libc::SIGTERM),
    ("TRAP", libc::SIGTRAP), ("TSTP", libc::SIGTSTP), ("TTIN", libc::SIGTTIN), ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG), ("USR1", libc::SIGUSR1), ("USR2", libc::SIGUSR2), ("VTALRM", libc::SIGVTALRM),
    ("WINCH", libc::SIGWINCH), ("XCPU", libc::SIGXCPU), ("XFSZ", libc::SIGXFSZ),
];

/// The kernel's range; RTMIN is 34 for programs, since libc keeps two for itself.
const REAL_TIME: (i32, i32) = (34, 64);

/// `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`, `SIGRTMAX-1`; `None` for what is no signal.
pub fn number(name: &str) -> Option<i32> {
    let upper = name.trim().to_ascii_uppercase();
    if let Ok(number) = upper.parse::<i32>() {
        return (1..=REAL_TIME.1).contains(&number).then_some(number);
    }
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(known, _)| *known == name) {
        return Some(*number);
    }
    let offset = |rest: &str, sign: char| match rest {
        "" => Some(0),
        _ => rest.strip_prefix(sign)?.parse::<i32>().ok().filter(|offset| (0..=30).contains(offset)),
    };
    let from_min = name.strip_prefix("RTMIN").and_then(|rest| Some(REAL_TIME.0 + offset(rest, '+')?));
    let from_max = || name.strip_prefix("RTMAX").and_then(|rest| Some(REAL_TIME.1 - offset(rest, '-')?));
    from_min.or_else(from_max)
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn names_and_numbers() {
        for (name, want) in [
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("SIGRTMIN", Some(34)),
            ("0", None),
            ("65", None),
            ("SIGNOPE", None),
            ("", None),
            ("SIGRTMIN-3", None),
        ] {
            assert_eq!(number(name), want, "{name:?}");
        }
    }
}
