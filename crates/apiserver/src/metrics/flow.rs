//! `apiserver_flowcontrol_*`: who has seats, who waits, who was refused.

use std::fmt::Write;

use access::fairness::{BUCKETS, Counts, Histogram, LevelState, Reason};

use super::head;
use crate::shared::Shared;

/// Its name, what it says, and where it stands in a level's state.
type LevelGauge = (&'static str, &'static str, fn(&LevelState) -> f64);
type CountGauge = (&'static str, &'static str, fn(&Counts) -> f64);
type Histograms = (&'static str, &'static str, &'static str, fn(&Counts) -> &Histogram);

const LEVEL_GAUGES: &[LevelGauge] = &[
    ("nominal_limit_seats", "Seats by the level's shares.", |level| level.nominal.into()),
    ("lower_limit_seats", "Seats that the level keeps when it lends.", |level| level.lower.into()),
    ("upper_limit_seats", "Seats that the level has when it borrows.", |level| level.upper.into()),
    ("current_limit_seats", "Seats that the level has now.", |level| level.current.into()),
    // The name that it had before; dashboards still ask for it.
    ("request_concurrency_limit", "Seats by the level's shares.", |level| level.nominal.into()),
    ("demand_seats_high_watermark", "Most seats that were wanted in the last period.", |level| {
        level.demand_high
    }),
    ("demand_seats_average", "Seats that were wanted in the last period.", |level| level.demand_average),
    ("demand_seats_smoothed", "Seats that are wanted, smoothed.", |level| level.demand_smoothed),
];

const COUNT_GAUGES: &[CountGauge] = &[
    ("current_inqueue_requests", "Requests that wait for a seat.", |counts| counts.waiting.into()),
    ("current_executing_requests", "Requests that have a seat.", |counts| counts.executing.into()),
    ("current_executing_seats", "Seats of the requests at work.", |counts| counts.seats.into()),
    ("request_concurrency_in_use", "Seats of the requests at work.", |counts| counts.seats.into()),
];

const HISTOGRAMS: &[Histograms] = &[
    (
        "request_wait_duration_seconds",
        "How long requests waited for a seat.",
        ",execute=\"true\"",
        |counts| &counts.waited,
    ),
    ("request_execution_seconds", "How long requests had a seat.", ",type=\"regular\"", |counts| &counts.ran),
];

pub(super) fn write(shared: &Shared, text: &mut String) {
    let (levels, counts) = shared.seats.look(|fairness| {
        let counts = fairness.counts().map(|(schema, level, counts)| {
            (format!("flow_schema=\"{schema}\",priority_level=\"{level}\""), counts.clone())
        });
        (fairness.levels().collect::<Vec<_>>(), counts.collect::<Vec<_>>())
    });
    for (name, help, value) in LEVEL_GAUGES {
        let name = format!("apiserver_flowcontrol_{name}");
        head(text, &name, "gauge", help);
        for level in &levels {
            let _ = writeln!(text, "{name}{{priority_level=\"{}\"}} {}", level.name, value(level));
        }
    }
    for (name, help, value) in COUNT_GAUGES {
        let name = format!("apiserver_flowcontrol_{name}");
        head(text, &name, "gauge", help);
        for (labels, counts) in &counts {
            let _ = writeln!(text, "{name}{{{labels}}} {}", value(counts));
        }
    }
    let name = "apiserver_flowcontrol_dispatched_requests_total";
    head(text, name, "counter", "Requests that were given a seat.");
    for (labels, counts) in &counts {
        let _ = writeln!(text, "{name}{{{labels}}} {}", counts.dispatched);
    }
    let name = "apiserver_flowcontrol_rejected_requests_total";
    head(text, name, "counter", "Requests that were told to come again.");
    for (labels, counts) in &counts {
        for (reason, refused) in Reason::ALL.iter().zip(counts.refused).filter(|(_, refused)| *refused > 0) {
            let _ = writeln!(text, "{name}{{{labels},reason=\"{}\"}} {refused}", reason.word());
        }
    }
    for (name, help, more, histogram) in HISTOGRAMS {
        let name = format!("apiserver_flowcontrol_{name}");
        head(text, &name, "histogram", help);
        for (labels, counts) in &counts {
            let histogram = histogram(counts);
            if histogram.count == 0 {
                continue;
            }
            for (count, bound) in histogram.buckets.iter().zip(BUCKETS) {
                let _ = writeln!(text, "{name}_bucket{{{labels}{more},le=\"{bound}\"}} {count}");
            }
            let _ = writeln!(text, "{name}_bucket{{{labels}{more},le=\"+Inf\"}} {}", histogram.count);
            let _ = writeln!(text, "{name}_sum{{{labels}{more}}} {}", histogram.sum);
            let _ = writeln!(text, "{name}_count{{{labels}{more}}} {}", histogram.count);
        }
    }
}
