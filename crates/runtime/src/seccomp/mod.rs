//! Seccomp filters: which system calls a container may make.
//!
//! A profile is a list of rules by system call; `filter::assemble` turns it into the program that the kernel runs at
//! every call. `default` is the profile of `RuntimeDefault`, `profile` reads the JSON of `Localhost` ones.

mod default;
mod filter;
mod profile;
mod table;

use filter::Profile;
use plan::node::Seccomp;

/// What one comparison looks at: an argument's number, and what it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Condition {
    argument: u32,
    is: Comparison,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal(u64),
    NotEqual(u64),
    Less(u64),
    LessOrEqual(u64),
    Greater(u64),
    GreaterOrEqual(u64),
    /// `argument & mask == value`
    Masked {
        mask: u64,
        value: u64,
    },
}

/// The program for a container with `capabilities`; `None` when it is not filtered.
///
/// # Errors
/// A `Localhost` profile that cannot be read, or that says what is not understood.
pub fn program(seccomp: &Seccomp, capabilities: u64) -> Result<Option<Vec<libc::sock_filter>>, String> {
    let profile: Profile = match seccomp {
        Seccomp::Unconfined => return Ok(None),
        Seccomp::RuntimeDefault => default::profile(capabilities),
        Seccomp::Localhost(path) => profile::load(path, capabilities)?,
    };
    filter::assemble(&profile).map(Some)
}
