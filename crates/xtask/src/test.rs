//! `xtask test`: runs every test of the workspace and sums up, so that nobody has to read thirty results.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

/// What the lines of test runners add up to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
    /// `crate's binary: test`
    failures: Vec<String>,
    /// The binary whose tests are being read.
    binary: String,
    /// Those of its tests that passed, until it says so itself: not every runner does.
    unconfirmed: u64,
}

impl Tally {
    fn read(&mut self, line: &str) {
        // cargo's: "     Running tests/suite.rs (target/debug/deps/suite-0f3c)"
        if let Some(rest) = line
            .trim_start()
            .strip_prefix("Running ")
            .or_else(|| line.trim_start().strip_prefix("Doc-tests "))
        {
            self.binary = binary_name(rest);
            self.passed += std::mem::take(&mut self.unconfirmed);
        }
        if line.starts_with("test ") && line.ends_with(" ... ok") {
            self.unconfirmed += 1;
        }
        if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failures.push(format!("{}: {name}", self.binary));
        }
        let Some(result) = line.strip_prefix("test result: ") else { return };
        self.unconfirmed = 0;
        for part in result.split(['.', ';']) {
            let mut words = part.split_whitespace();
            let (Some(Ok(count)), Some(what), None) =
                (words.next().map(str::parse::<u64>), words.next(), words.next())
            else {
                continue;
            };
            match what {
                "passed" => self.passed += count,
                "failed" => self.failed += count,
                "ignored" => self.skipped += count,
                _ => {}
            }
        }
    }
}

/// `suite` of `tests/suite.rs (target/debug/deps/suite-0f3c)`.
fn binary_name(running: &str) -> String {
    let path = running.rsplit_once('(').map_or(running, |(_, path)| path.trim_end_matches(')'));
    let file = path.rsplit('/').next().unwrap_or(path);
    file.rsplit_once('-').map_or(file, |(name, _)| name).to_owned()
}

/// Runs them all, or those whose names have one of the `filters` in them.
pub fn run(filters: &[String]) -> Result<()> {
    let since = Instant::now();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.current_dir(crate::root()).args(["test", "--workspace", "--locked", "--no-fail-fast"]);
    if !filters.is_empty() {
        cargo.arg("--").args(filters);
    }
    // The names of the binaries go to the error stream; merged, they stand before their tests.
    let (reader, writer) = std::io::pipe().context("make a pipe")?;
    cargo.stdin(Stdio::null()).stdout(writer.try_clone().context("make a pipe")?).stderr(writer);
    let mut child = cargo.spawn().context("start cargo test")?;
    // The command holds our ends of the pipe; the last must close for the reading to end.
    drop(cargo);
    let mut tally = Tally::default();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.context("read what cargo test prints")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        tally.read(&line);
    }
    tally.passed += std::mem::take(&mut tally.unconfirmed);
    let status = child.wait().context("wait for cargo test")?;

    if !status.success() && tally.failed == 0 {
        tally.failed = 1;
        tally.failures.push(format!("cargo test ended with {status}, see above"));
    }

    println!();
    for failure in &tally.failures {
        println!("FAILED {failure}");
    }
    println!("took {} s", since.elapsed().as_secs());
    println!("{} passed, {} failed, {} skipped", tally.passed, tally.failed, tally.skipped);
    ensure!(tally.failed == 0, "tests failed");
    ensure!(tally.passed > 0, "no test ran");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_add_up() {
        let mut tally = Tally::default();
        let lines = "     Running unittests src/lib.rs (target/debug/deps/access-9b1)\n\
            test a::b ... ok\n\
            test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 3 filtered out; finished in 0.02s\n\
            \u{20}    Running tests/machine.rs (/x/y/machine-0f)\n\
            test one ... ok\n\
            \u{20}    Running tests/stories.rs (/x/y/stories-0f)\n\
            test main_job ... FAILED\n\
            test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 9.00s\n\
            a line with 7 passed; in it";
        lines.lines().for_each(|line| tally.read(line));
        assert_eq!((tally.passed, tally.failed, tally.skipped), (15, 1, 1));
        assert_eq!(tally.failures, ["stories: main_job"]);
    }
}
