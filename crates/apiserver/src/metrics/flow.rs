//! `apiserver_flowcontrol_*`: who has seats, who waits, who was refused; and how many requests are at work.

use ::metrics::Page;
use access::fairness::{Counts, Dispatched, Histogram, LevelState, Reason, TrafficState};

use crate::shared::Shared;

/// Its name, what it says, and where it stands in a level's state.
type LevelGauge = (&'static str, &'static str, fn(&LevelState) -> f64);
/// Several, each with a label of its own.
type LevelUsage = (&'static str, &'static str, &'static [(Label, fn(&LevelState) -> &Histogram)]);
type CountGauge = (&'static str, &'static str, fn(&Counts) -> f64);
type Histograms = (&'static str, &'static str, &'static [(Label, fn(&Counts) -> &Histogram)]);
type Label = Option<(&'static str, &'static str)>;

const LEVEL_GAUGES: &[LevelGauge] = &[
    (
        "current_limit_seats",
        "[ALPHA] current derived number of execution seats available to each priority level",
        |level| level.current.into(),
    ),
    ("current_r", "[ALPHA] R(time of last change)", |level| level.progress),
    (
        "demand_seats_average",
        "[ALPHA] Time-weighted average, over last adjustment period, of demand_seats",
        |level| level.demand_average,
    ),
    (
        "demand_seats_high_watermark",
        "[ALPHA] High watermark, over last adjustment period, of demand_seats",
        |level| level.demand_high,
    ),
    ("demand_seats_smoothed", "[ALPHA] Smoothed seat demands", |level| level.demand_smoothed),
    (
        "demand_seats_stdev",
        "[ALPHA] Time-weighted standard deviation, over last adjustment period, of demand_seats",
        |level| level.demand_deviation,
    ),
    (
        "lower_limit_seats",
        "[ALPHA] Configured lower bound on number of execution seats available to each priority level",
        |level| level.lower.into(),
    ),
    (
        "nominal_limit_seats",
        "[BETA] Nominal number of execution seats configured for each priority level",
        |level| level.nominal.into(),
    ),
    ("target_seats", "[ALPHA] Seat allocation targets", |level| level.target),
    (
        "upper_limit_seats",
        "[ALPHA] Configured upper bound on number of execution seats available to each priority level",
        |level| level.upper.into(),
    ),
];

const UTILIZATION: &str = "EXPERIMENTAL: [ALPHA] Observations, at the end of every nanosecond, of number of requests (as a fraction of the relevant limit) waiting or in any stage of execution (but only initial stage for WATCHes)";
const LEVEL_USAGES: &[LevelUsage] = &[
    (
        "demand_seats",
        "EXPERIMENTAL: [ALPHA] Observations, at the end of every nanosecond, of (the number of seats each priority level could use) / (nominal number of seats for that level)",
        &[(None, |level| &level.demand_part)],
    ),
    (
        "priority_level_request_utilization",
        UTILIZATION,
        &[
            (Some(("phase", "executing")), |level| &level.executing_part),
            (Some(("phase", "waiting")), |level| &level.waiting_part),
        ],
    ),
    (
        "priority_level_seat_utilization",
        "EXPERIMENTAL: [ALPHA] Observations, at the end of every nanosecond, of utilization of seats for any stage of execution (but only initial stage for WATCHes)",
        &[(Some(("phase", "executing")), |level| &level.seats_part)],
    ),
];

const COUNT_GAUGES: &[CountGauge] = &[
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
    (
        "current_inqueue_requests",
        "[BETA] Number of requests currently pending in queues of the API Priority and Fairness subsystem",
        |counts| counts.waiting.into(),
    ),
    (
        "current_inqueue_seats",
        "[ALPHA] Number of seats currently pending in queues of the API Priority and Fairness subsystem",
        |counts| counts.waiting_seats.into(),
    ),
];

const HISTOGRAMS: &[Histograms] = &[
    (
        "request_execution_seconds",
        "[ALPHA] Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in the API Priority and Fairness subsystem",
        &[
            (Some(("type", "regular")), |counts| &counts.ran),
            (Some(("type", "watch")), |counts| &counts.watches_ran),
        ],
    ),
    (
        "request_queue_length_after_enqueue",
        "[ALPHA] Length of queue in the API Priority and Fairness subsystem, as seen by each request after it is enqueued",
        &[(None, |counts| &counts.queue_length)],
    ),
    (
        "request_wait_duration_seconds",
        "[BETA] Length of time a request spent waiting in its queue",
        &[
            (Some(("execute", "false")), |counts| &counts.waited_in_vain),
            (Some(("execute", "true")), |counts| &counts.waited),
        ],
    ),
    (
        "watch_count_samples",
        "[ALPHA] count of watchers for mutating requests in API Priority and Fairness",
        &[(None, |counts| &counts.watchers)],
    ),
    (
        "work_estimated_seats",
        "[ALPHA] Number of estimated seats (maximum of initial and final seats) associated with requests in API Priority and Fairness",
        &[(None, |counts| &counts.wanted_seats)],
    ),
];

pub(super) fn write(shared: &Shared, page: &mut Page) {
    let (levels, counts, traffic, fair_fraction) = shared.seats.look(|fairness, now| {
        let counts = fairness
            .counts()
            .map(|(schema, level, counts)| ((schema.to_owned(), level.to_owned()), counts.clone()));
        let counts: Vec<_> = counts.collect();
        (fairness.levels(now).collect::<Vec<_>>(), counts, fairness.traffic(now), fairness.fair_fraction())
    });
    write_traffic(&traffic, page);
    write_levels(&levels, page);
    let help =
        "[ALPHA] Fair fraction of server's concurrency to allocate to each priority level that can use it";
    page.gauge("apiserver_flowcontrol_seat_fair_frac", help, fair_fraction);
    for (name, help, value) in COUNT_GAUGES {
        let name = full(name);
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
    let name = "apiserver_flowcontrol_request_dispatch_no_accommodation_total";
    let help = "[ALPHA] Number of times a dispatch attempt resulted in a non accommodation due to lack of available seats";
    page.head(name, "counter", help);
    for (of, counts) in counts.iter().filter(|(_, counts)| counts.not_accommodated > 0) {
        page.sample(name, &labels(of), counts.not_accommodated);
    }
    for (name, help, parts) in HISTOGRAMS {
        let name = full(name);
        page.head(&name, "histogram", help);
        for (of, counts) in &counts {
            for (more, histogram) in *parts {
                let histogram = histogram(counts);
                if histogram.count() > 0 {
                    let labels: Vec<_> = more.iter().copied().chain(labels(of)).collect();
                    write_histogram(&name, &labels, histogram, page);
                }
            }
        }
    }
}

/// How many requests run and wait, whichever level they are of.
fn write_traffic(traffic: &[TrafficState; 2], page: &mut Page) {
    // In the order in which the state has them.
    let kinds = ["readOnly", "mutating"];
    for (name, help, value) in [
        (
            "apiserver_current_inflight_requests",
            "[STABLE] Maximal number of currently used inflight request limit of this apiserver per request kind in last second.",
            (|traffic| traffic.executing) as fn(&TrafficState) -> u32,
        ),
        (
            "apiserver_current_inqueue_requests",
            "[ALPHA] Maximal number of queued requests in this apiserver per request kind in last second.",
            |traffic| traffic.waiting,
        ),
    ] {
        page.head(name, "gauge", help);
        for (kind, traffic) in kinds.iter().zip(traffic) {
            page.sample(name, &[("request_kind", kind)], value(traffic));
        }
    }
    let name = "apiserver_flowcontrol_read_vs_write_current_requests";
    page.head(name, "histogram", "EXPERIMENTAL: [ALPHA] Observations, at the end of every nanosecond, of the number of requests (as a fraction of the relevant limit) waiting or in regular stage of execution");
    for (kind, traffic) in kinds.iter().zip(traffic) {
        for (phase, part) in [("executing", &traffic.executing_part), ("waiting", &traffic.waiting_part)] {
            write_histogram(name, &[("phase", phase), ("request_kind", kind)], part, page);
        }
    }
}

fn write_levels(levels: &[LevelState], page: &mut Page) {
    for (name, help, value) in LEVEL_GAUGES {
        let name = full(name);
        page.head(&name, "gauge", help);
        for level in levels {
            page.sample(&name, &[("priority_level", &*level.name)], value(level));
        }
    }
    for (name, help, parts) in LEVEL_USAGES {
        let name = full(name);
        page.head(&name, "histogram", help);
        for level in levels {
            for (more, part) in *parts {
                let labels: Vec<_> = more.iter().copied().chain([("priority_level", &*level.name)]).collect();
                write_histogram(&name, &labels, part(level), page);
            }
        }
    }
    // Of those that had something to dispatch.
    let dispatched: Vec<_> =
        levels.iter().filter_map(|level| Some((&*level.name, level.dispatched?))).collect();
    for (name, help, value) in [
        ("dispatch_r", "[ALPHA] R(time of last dispatch)", (|at| at.at) as fn(&Dispatched) -> f64),
        ("latest_s", "[ALPHA] S(most recently dispatched request)", |at| at.start),
    ] {
        let name = full(name);
        page.head(&name, "gauge", help);
        for (level, at) in &dispatched {
            page.sample(&name, &[("priority_level", level)], value(at));
        }
    }
    for (name, help, range) in [
        (
            "next_discounted_s_bounds",
            "[ALPHA] min and max, over queues, of S(oldest waiting request in queue) - estimated work in progress",
            (|at| at.discounted) as fn(&Dispatched) -> (f64, f64),
        ),
        ("next_s_bounds", "[ALPHA] min and max, over queues, of S(oldest waiting request in queue)", |at| {
            at.starts
        }),
    ] {
        let name = full(name);
        page.head(&name, "gauge", help);
        for (level, at) in &dispatched {
            let (min, max) = range(at);
            for (bound, value) in [("max", max), ("min", min)] {
                page.sample(&name, &[("bound", bound), ("priority_level", level)], value);
            }
        }
    }
}

fn full(name: &str) -> String {
    format!("apiserver_flowcontrol_{name}")
}

fn write_histogram(name: &str, labels: &[(&str, &str)], histogram: &Histogram, page: &mut Page) {
    page.buckets(name, labels, histogram.buckets(), histogram.count(), histogram.sum());
}

/// Of a flow schema and its level.
fn labels((schema, level): &(String, String)) -> [(&str, &str); 2] {
    [("flow_schema", schema), ("priority_level", level)]
}
