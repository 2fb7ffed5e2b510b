//! Automation: imports, tidy checks, benches, CI.

mod bench;
mod compare;
mod import;
mod servers;
mod test;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let result = match args.split_first() {
        Some((command, rest)) if command == "bench" => bench::run(rest),
        Some((command, rest)) if command == "compare" => compare::run(rest),
        Some((command, [what, source @ ..])) if command == "import" && what == "models" => {
            import::models(source.first().map(String::as_str))
        }
        Some((command, rest)) if command == "test" => test::run(rest),
        Some((command, [])) if command == "tidy" => tidy::run(),
        _ => {
            let usage = "bench [FIGURE…] | compare [AREA…] | import models [WHEEL] | test [NAME…] | tidy";
            Err(anyhow::anyhow!("usage: xtask {usage}"))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure:#}");
            ExitCode::FAILURE
        }
    }
}

/// The folder of the workspace.
fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}
