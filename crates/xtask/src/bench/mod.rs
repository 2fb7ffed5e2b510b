//! `xtask bench`: the figures that Ekso is measured by, here and now, with the peers that Debian has beside them.
//!
//! Figures are for people to read, and no test: the load shares the cores with what it measures, so each row has the CPU
//! time that Ekso spent on one operation too.

mod api;
mod calls;
mod client;
mod eks;
mod etcd;
mod growth;
mod pods;
mod policies;
mod site;
mod snapshot;
mod start;
mod upstream;
mod watches;

use std::time::Duration;

use anyhow::{Result, ensure};

/// One line of the table.
pub struct Row {
    pub figure: String,
    pub value: String,
    /// Of all of Ekso's processes, for one operation.
    pub cpu: String,
    /// What another program needs for the like, in the same run.
    pub peer: String,
    pub reach: &'static str,
}

/// What many clients at once saw.
struct Load {
    a_second: f64,
    p99: Duration,
}

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.0} a second, p99 {}", self.a_second, seconds(self.p99))
    }
}

/// What is measured together, under the name by which it is asked for.
type Measure = (&'static str, fn() -> Result<Vec<Row>>);

const MEASURES: &[Measure] = &[
    ("start", start::run),
    ("api", api::run),
    ("writes", || upstream::compared(growth::writes)),
    ("growth", || upstream::compared(growth::lists)),
    ("memory", || upstream::compared(growth::memory)),
    ("informers", || upstream::compared(growth::informers)),
    ("large", || upstream::compared(growth::large)),
    ("watches", watches::run),
    ("snapshot", snapshot::run),
    ("pods", pods::run),
    ("calls", calls::run),
    ("eks", eks::run),
    ("policies", policies::run),
];

/// Measures those named, or all.
pub fn run(names: &[String]) -> Result<()> {
    for name in names {
        let known: Vec<&str> = MEASURES.iter().map(|(name, _)| *name).collect();
        ensure!(known.contains(&name.as_str()), "there is no figure {name}; there are {}", known.join(", "));
    }
    print([["figure", "measured", "CPU an operation", "peer, same run", "reach"], ["---"; 5]]);
    for (name, measure) in MEASURES {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            eprintln!("measuring {name} …");
            let rows = measure()?;
            print(rows.iter().map(|row| [&*row.figure, &row.value, &row.cpu, &row.peer, row.reach]));
        }
    }
    Ok(())
}

fn print<'a>(lines: impl IntoIterator<Item = [&'a str; 5]>) {
    lines.into_iter().for_each(|line| println!("| {} |", line.join(" | ")));
}

/// The middle one, and the one that 99 of 100 do not pass.
fn percentiles(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    (at(0.5), at(0.99))
}

fn micros(time: Duration) -> String {
    format!("{:.1} µs", time.as_secs_f64() * 1e6)
}

fn seconds(time: Duration) -> String {
    if time < Duration::from_millis(100) {
        return format!("{:.1} ms", time.as_secs_f64() * 1e3);
    }
    format!("{:.2} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_worst_but_one() {
        let times = (1..=101).rev().map(Duration::from_millis).collect();
        assert_eq!(percentiles(times), (Duration::from_millis(51), Duration::from_millis(100)));
        assert_eq!(seconds(Duration::from_micros(1_540)), "1.5 ms");
        assert_eq!(seconds(Duration::from_millis(1_540)), "1.54 s");
    }
}
