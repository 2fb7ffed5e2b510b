//! The monitor as a program of its own: what `ekso pod-monitor` does, for the tests of this crate.
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        Some(command) if command == "pod-monitor" => runtime::monitor::main(args),
        _ => {
            eprintln!("usage: runtime-test-monitor pod-monitor --sandbox DIRECTORY --run DIRECTORY");
            ExitCode::FAILURE
        }
    }
}
