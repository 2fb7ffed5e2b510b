//! From rules to classic BPF.
//!
//! The calls that share an answer are merged into ranges of numbers, and the program finds its range by halving:
//! about eight comparisons for a call without conditions.
//!
//! ```text
//!   is this our architecture?  no → refuse
//!   number >= 128? ── no ──► number >= 60? …  ──► allow
//!        └─ yes ──► number >= 435? … ──► argument 0 & 0x7e020000 == 0? ──► allow
//! ```

use super::{Comparison, Condition, table};
use libc::sock_filter;
use std::collections::BTreeMap;

/// What the kernel does with a call: the numbers of seccomp(2).
pub type Action = u32;

pub const ALLOW: Action = libc::SECCOMP_RET_ALLOW;

pub const fn errno(number: i32) -> Action {
    libc::SECCOMP_RET_ERRNO | number as u32
}

/// Ways to one answer: the first alternative whose conditions all hold.
pub type Alternatives = Vec<(Vec<Condition>, Action)>;

pub struct Profile {
    /// For calls without a rule, or none of whose alternatives holds.
    pub default: Action,
    pub rules: BTreeMap<u32, Alternatives>,
}

impl Profile {
    /// Answers `action` to the named calls when all `conditions` hold. A name that this architecture lacks is no rule.
    pub fn add(&mut self, names: &[&str], conditions: &[Condition], action: Action) {
        for number in names.iter().filter_map(|name| table::number(name)) {
            self.rules.entry(number).or_default().push((conditions.to_vec(), action));
        }
    }
}

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Offsets in `struct seccomp_data`; the machine is little-endian.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const fn low_half(argument: u32) -> u32 {
    16 + 8 * argument
}
const fn high_half(argument: u32) -> u32 {
    low_half(argument) + 4
}

fn op(code: u16, k: u32) -> sock_filter {
    sock_filter { code, jt: 0, jf: 0, k }
}

/// Skips `yes` or `no` instructions.
fn branch(code: u16, k: u32, yes: u8, no: u8) -> sock_filter {
    sock_filter { code, jt: yes, jf: no, k }
}

/// What stands at the leaf of the search.
#[derive(Clone, PartialEq, Eq)]
enum Leaf<'a> {
    Act(Action),
    Ask(&'a Alternatives),
}

/// # Errors
/// The program would be longer than the kernel takes (4096 instructions).
pub fn assemble(profile: &Profile) -> Result<Vec<sock_filter>, String> {
    let mut ranges: Vec<(u32, Leaf)> = vec![(0, Leaf::Act(profile.default))];
    for (number, alternatives) in &profile.rules {
        let leaf = match alternatives.iter().find(|(conditions, _)| conditions.is_empty()) {
            Some((_, action)) if alternatives.iter().all(|(_, other)| other == action) => Leaf::Act(*action),
            _ => Leaf::Ask(alternatives),
        };
        place(&mut ranges, *number, leaf);
        place(&mut ranges, number + 1, Leaf::Act(profile.default));
    }
    // Calls younger than the table do not exist for the container: programs then fall back to older ones.
    let newest = table::SYSCALLS.iter().map(|(_, x86_64, arm64)| *x86_64.max(arm64)).max().unwrap_or(0);
    if profile.default != ALLOW {
        place(&mut ranges, newest as u32 + 1, Leaf::Act(errno(libc::ENOSYS)));
    }
    let mut code = vec![
        op(LOAD, ARCHITECTURE),
        branch(IF_EQUAL, AUDIT_ARCH, 1, 0),
        op(RETURN, if profile.default == ALLOW { ALLOW } else { errno(libc::ENOSYS) }),
        op(LOAD, NUMBER),
    ];
    search(&ranges, profile.default, &mut code);
    match code.len() {
        ..=4096 => Ok(code),
        length => {
            Err(format!("the seccomp filter has {length} instructions, of which the kernel takes 4096"))
        }
    }
}

/// Begins a range at `number`, which is not below any range that stands already.
fn place<'a>(ranges: &mut Vec<(u32, Leaf<'a>)>, number: u32, leaf: Leaf<'a>) {
    if ranges.last().is_some_and(|(last, _)| *last == number) {
        ranges.pop();
    }
    if ranges.last().is_none_or(|(_, last)| *last != leaf) {
        ranges.push((number, leaf));
    }
}

fn search(ranges: &[(u32, Leaf)], default: Action, code: &mut Vec<sock_filter>) {
    if let [(_, leaf)] = ranges {
        match leaf {
            Leaf::Act(action) => code.push(op(RETURN, *action)),
            Leaf::Ask(alternatives) => ask(alternatives, default, code),
        }
        return;
    }
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    // The way up may be longer than a branch can skip, so it goes through a jump.
    code.push(branch(IF_AT_LEAST, upper[0].0, 0, 1));
    let jump = code.len();
    code.push(op(JUMP, 0));
    search(lower, default, code);
    code[jump].k = (code.len() - jump - 1) as u32;
    search(upper, default, code);
}

fn ask(alternatives: &Alternatives, default: Action, code: &mut Vec<sock_filter>) {
    for (conditions, action) in alternatives {
        let mut body: Vec<sock_filter> = vec![op(RETURN, *action)];
        for condition in conditions.iter().rev() {
            let mut test = compare(condition, body.len() as u8);
            test.append(&mut body);
            body = test;
        }
        code.append(&mut body);
    }
    code.push(op(RETURN, default));
}

/// Goes on behind itself when the condition holds, else skips the `rest` instructions that follow.
///
/// A 64-bit comparison is one of the high halves, then (if they are equal) one of the low halves.
fn compare(condition: &Condition, rest: u8) -> Vec<sock_filter> {
    let (low, high) = (op(LOAD, low_half(condition.argument)), op(LOAD, high_half(condition.argument)));
    let halves = |value: u64| (value as u32, (value >> 32) as u32);
    match condition.is {
        Comparison::Equal(value) => {
            let (l, h) = halves(value);
            vec![high, branch(IF_EQUAL, h, 0, rest + 2), low, branch(IF_EQUAL, l, 0, rest)]
        }
        Comparison::NotEqual(value) => {
            let (l, h) = halves(value);
            vec![high, branch(IF_EQUAL, h, 0, 2), low, branch(IF_EQUAL, l, rest, 0)]
        }
        Comparison::Greater(value) => ordered(low, high, halves(value), IF_GREATER, rest),
        Comparison::GreaterOrEqual(value) => ordered(low, high, halves(value), IF_AT_LEAST, rest),
        Comparison::Less(value) => reversed(low, high, halves(value), IF_AT_LEAST, rest),
        Comparison::LessOrEqual(value) => reversed(low, high, halves(value), IF_GREATER, rest),
        Comparison::Masked { mask, value } => {
            let ((l, h), (mask_low, mask_high)) = (halves(value), halves(mask));
            vec![
                high,
                op(AND, mask_high),
                branch(IF_EQUAL, h, 0, rest + 3),
                low,
                op(AND, mask_low),
                branch(IF_EQUAL, l, 0, rest),
            ]
        }
    }
}

/// `argument > value` or `argument >= value`, as `last` compares the low halves.
fn ordered(low: sock_filter, high: sock_filter, (l, h): (u32, u32), last: u16, rest: u8) -> Vec<sock_filter> {
    vec![high, branch(IF_GREATER, h, 3, 0), branch(IF_EQUAL, h, 0, rest + 2), low, branch(last, l, 0, rest)]
}

/// The opposite of `ordered`.
fn reversed(
    low: sock_filter,
    high: sock_filter,
    (l, h): (u32, u32),
    last: u16,
    rest: u8,
) -> Vec<sock_filter> {
    vec![high, branch(IF_GREATER, h, rest + 3, 0), branch(IF_EQUAL, h, 0, 2), low, branch(last, l, rest, 0)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Runs a program as the kernel would.
    fn run(code: &[sock_filter], number: u32, arch: u32, args: [u64; 6]) -> Action {
        let load = |offset: u32| match offset {
            NUMBER => number,
            ARCHITECTURE => arch,
            _ => {
                let argument = args[(offset as usize - 16) / 8];
                if offset.is_multiple_of(8) { argument as u32 } else { (argument >> 32) as u32 }
            }
        };
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let sock_filter { code: operation, jt, jf, k } = code[at];
            at += 1;
            let mut skip = |yes: bool| at += usize::from(if yes { jt } else { jf });
            match operation {
                LOAD => accumulator = load(k),
                AND => accumulator &= k,
                JUMP => at += k as usize,
                IF_EQUAL => skip(accumulator == k),
                IF_GREATER => skip(accumulator > k),
                IF_AT_LEAST => skip(accumulator >= k),
                RETURN => return k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    fn holds(condition: &Condition, args: [u64; 6]) -> bool {
        let argument = args[condition.argument as usize];
        match condition.is {
            Comparison::Equal(value) => argument == value,
            Comparison::NotEqual(value) => argument != value,
            Comparison::Less(value) => argument < value,
            Comparison::LessOrEqual(value) => argument <= value,
            Comparison::Greater(value) => argument > value,
            Comparison::GreaterOrEqual(value) => argument >= value,
            Comparison::Masked { mask, value } => argument & mask == value,
        }
    }

    /// Values whose halves are often equal, so that both halves of a comparison matter.
    fn value() -> impl Strategy<Value = u64> {
        (0u64..3, 0u64..3).prop_map(|(high, low)| high << 32 | low)
    }

    fn condition() -> impl Strategy<Value = Condition> {
        let is = (0..7, value(), value()).prop_map(|(kind, value, mask)| match kind {
            0 => Comparison::Equal(value),
            1 => Comparison::NotEqual(value),
            2 => Comparison::Less(value),
            3 => Comparison::LessOrEqual(value),
            4 => Comparison::Greater(value),
            5 => Comparison::GreaterOrEqual(value),
            _ => Comparison::Masked { mask, value: value & mask },
        });
        (0u32..6, is).prop_map(|(argument, is)| Condition { argument, is })
    }

    proptest! {
        #[test]
        fn a_program_says_what_its_rules_say(
            rules in prop::collection::btree_map(
                0u32..40,
                prop::collection::vec((prop::collection::vec(condition(), 0..3), prop::sample::select(vec![ALLOW, errno(7)])), 1..3),
                0..20,
            ),
            number in 0u32..42,
            args in prop::array::uniform6(value()),
        ) {
            let profile = Profile { default: errno(1), rules };
            let code = assemble(&profile).unwrap();
            let want = profile.rules.get(&number).and_then(|alternatives| {
                alternatives.iter().find(|(conditions, _)| conditions.iter().all(|c| holds(c, args)))
            });
            prop_assert_eq!(run(&code, number, AUDIT_ARCH, args), want.map_or(errno(1), |(_, action)| *action));
        }
    }

    #[test]
    fn foreign_architectures_and_unknown_calls_do_not_exist() {
        let code = assemble(&super::super::default::profile(0)).unwrap();
        assert_eq!(run(&code, 0, 0x4000_0003, [0; 6]), errno(libc::ENOSYS));
        assert_eq!(run(&code, 5000, AUDIT_ARCH, [0; 6]), errno(libc::ENOSYS));
        assert!(code.len() < 600, "{} instructions", code.len());
    }

    #[test]
    fn the_default_profile_follows_capabilities() {
        let bit = |name| crate::container::capability::bit(name).unwrap();
        let check = |capabilities: u64, name: &str, args: [u64; 6], want: Action| {
            let code = assemble(&super::super::default::profile(capabilities)).unwrap();
            let number = table::number(name).unwrap();
            assert_eq!(run(&code, number, AUDIT_ARCH, args), want, "{name} with {capabilities:#x}");
        };
        check(0, "read", [0; 6], ALLOW);
        check(0, "mount", [0; 6], errno(libc::EPERM));
        check(bit("SYS_ADMIN"), "mount", [0; 6], ALLOW);
        check(0, "keyctl", [0; 6], errno(libc::EPERM));
        check(0, "clone", [libc::CLONE_NEWUSER as u64, 0, 0, 0, 0, 0], errno(libc::EPERM));
        check(0, "clone", [libc::SIGCHLD as u64, 0, 0, 0, 0, 0], ALLOW);
        check(0, "clone3", [0; 6], errno(libc::ENOSYS));
        check(bit("SYS_ADMIN"), "clone3", [0; 6], ALLOW);
        check(0, "socket", [libc::AF_VSOCK as u64, 0, 0, 0, 0, 0], errno(libc::EPERM));
        check(0, "socket", [libc::AF_INET as u64, 0, 0, 0, 0, 0], ALLOW);
        check(0, "personality", [0xffff_ffff, 0, 0, 0, 0, 0], ALLOW);
        check(0, "personality", [0x0040_0000, 0, 0, 0, 0, 0], errno(libc::EPERM));
        check(0, "chroot", [0; 6], errno(libc::EPERM));
        check(bit("SYS_CHROOT"), "chroot", [0; 6], ALLOW);
    }

    #[test]
    fn the_table_is_sorted() {
        assert!(table::SYSCALLS.is_sorted_by(|a, b| a.0 < b.0));
    }
}
