//! `apiserver_flowcontrol_*`: who has seats, who waits, who was refused.

use ::metrics::Page;
use access::fairness::{BUCKETS, Counts, Histogram, LevelState, Reason};

use crate::shared::Shared;

/// Its name, what it says, and where it stands in a level's state.
type LevelGauge = (&'static str, &'static str, fn(&LevelState) -> f64);
type CountGauge = (&'static str, &'static str, fn(&Counts) -> f64);
type Histograms = (&'static str, &'static str, (&'static str, &'static str), fn(&Counts) -> &Histogram);

const LEVEL_GAUGES: &[LevelGauge] = &[
    (
        "nominal_limit_seats",
        "[BETA] Nominal number of execution seats configured for each priority level",
        |level| level.nominal.into(),
    ),
    (
        "lower_limit_seats",
        "[ALPHA] Configured lower bound on number of execution seats available to each priority level",
        |level| level.lower.into(),
    ),
    (
        "upper_limit_seats",
        "[ALPHA] Configured upper bound on number of execution seats available to each priority level",
        |level| level.upper.into(),
    ),
    (
        "current_limit_seats",
        "[ALPHA] current derived number of execution seats available to each priority level",
        |level| level.current.into(),
    ),
    // The name that it had before; dashboards still ask for it.
    ("request_concurrency_limit", "Seats by the level's shares.", |level| level.nominal.into()),
    (
        "demand_seats_high_watermark",
        "[ALPHA] High watermark, over last adjustment period, of demand_seats",
        |level| level.demand_high,
    ),
    (
        "demand_seats_average",
        "[ALPHA] Time-weighted average, over last adjustment period, of demand_seats",
        |level| level.demand_average,
    ),
    ("demand_seats_smoothed", "[ALPHA] Smoothed seat demands", |level| level.demand_smoothed),
];

const COUNT_GAUGES: &[CountGauge] = &[
    (
        "current_inqueue_requests",
        "[BETA] Number of requests currently pending in queues of the API Priority and Fairness subsystem",
        |counts| counts.waiting.into(),
    ),
    (
        "current_executing_requests",
        "[BETA] Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API Priority and Fairness subsystem",
        |counts| counts.executing.into(),
    ),
    (
        "current_executing_seats",
        "[BETA] Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any stage otherwise) requests in the API Priority and Fairness subsystem",
        |counts| counts.seats.into(),
    ),
    ("request_concurrency_in_use", "Seats of the requests at work.", |counts| counts.seats.into()),
];

const HISTOGRAMS: &[Histograms] = &[
    (
        "request_wait_duration_seconds",
        "[BETA] Length of time a request spent waiting in its queue",
        ("execute", "true"),
        |counts| &counts.waited,
    ),
    (
        "request_execution_seconds",
        "[ALPHA] Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in the API Priority and Fairness subsystem",
        ("type", "regular"),
        |counts| &counts.ran,
    ),
];

pub(super) fn write(shared: &Shared, page: &mut Page) {
    let (levels, counts) = shared.seats.look(|fairness| {
        let counts = fairness
            .counts()
            .map(|(schema, level, counts)| ((schema.to_owned(), level.to_owned()), counts.clone()));
        (fairness.levels().collect::<Vec<_>>(), counts.collect::<Vec<_>>())
    });
    for (name, help, value) in LEVEL_GAUGES {
        let name = format!("apiserver_flowcontrol_{name}");
        page.head(&name, "gauge", help);
        for level in &levels {
            page.sample(&name, &[("priority_level", &*level.name)], value(level));
        }
    }
    for (name, help, value) in COUNT_GAUGES {
        let name = format!("apiserver_flowcontrol_{name}");
        page.head(&name, "gauge", help);
        for (of, counts) in &counts {
            page.sample(&name, &labels(of), value(counts));
        }
    }
    let name = "apiserver_flowcontrol_dispatched_requests_total";
    page.head(name, "counter", "[BETA] Number of requests executed by API Priority and Fairness subsystem");
    for (of, counts) in &counts {
        page.sample(name, &labels(of), counts.dispatched);
    }
    let name = "apiserver_flowcontrol_rejected_requests_total";
    page.head(name, "counter", "[BETA] Number of requests rejected by API Priority and Fairness subsystem");
    for (of, counts) in &counts {
        for (reason, refused) in Reason::ALL.iter().zip(counts.refused).filter(|(_, refused)| *refused > 0) {
            let [schema, level] = labels(of);
            page.sample(name, &[schema, level, ("reason", reason.word())], refused);
        }
    }
    for (name, help, more, histogram) in HISTOGRAMS {
        let name = format!("apiserver_flowcontrol_{name}");
        page.head(&name, "histogram", help);
        for (of, counts) in counts.iter().filter(|(_, counts)| histogram(counts).count > 0) {
            let [schema, level] = labels(of);
            let Histogram { buckets, count, sum } = histogram(counts);
            page.buckets(&name, &[*more, schema, level], BUCKETS.into_iter().zip(*buckets), *count, *sum);
        }
    }
}

/// Of a flow schema and its level.
fn labels((schema, level): &(String, String)) -> [(&str, &str); 2] {
    [("flow_schema", schema), ("priority_level", level)]
}
