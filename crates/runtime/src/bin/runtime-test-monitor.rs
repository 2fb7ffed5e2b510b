//! The monitor as a program of its own: what `ekso pod-monitor` does, for the tests of this crate.

use std::process::ExitCode;

fn main() -> ExitCode {
    runtime::monitor::main(std::env::args_os().skip(2))
}
