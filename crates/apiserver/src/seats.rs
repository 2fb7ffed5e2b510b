//! `/debug/api_priority_and_fairness/dump_{priority_levels,queues,requests}`: who has seats and who waits, in upstream's tables.

use access::fairness::{LevelDump, RequestDump, Seconds};
use http::StatusCode;
use object::Time;

use crate::query::Query;
use crate::respond::{self, Answer};
use crate::shared::Shared;

const ROOT: &str = "/debug/api_priority_and_fairness/";
/// A column is as wide as this at least, and a blank wider than its longest cell.
const NARROWEST: usize = 8;
/// The zero of Go's clock: what has not happened.
const NEVER: &str = "0001-01-01T00:00:00Z";
/// No queue, or no place in one.
const NONE: &str = "-1";

const LEVELS: &[&str] = &[
    "PriorityLevelName",
    "ActiveQueues",
    "IsIdle",
    "IsQuiescing",
    "WaitingRequests",
    "ExecutingRequests",
    "DispatchedRequests",
    "RejectedRequests",
    "TimedoutRequests",
    "CancelledRequests",
];
const QUEUES: &[&str] = &[
    "PriorityLevelName",
    "Index",
    "PendingRequests",
    "ExecutingRequests",
    "SeatsInUse",
    "NextDispatchR",
    "InitialSeatsSum",
    "MaxSeatsSum",
    "TotalWorkSum",
];
const REQUESTS: &[&str] = &[
    "PriorityLevelName",
    "FlowSchemaName",
    "QueueIndex",
    "RequestIndexInQueue",
    // Upstream's spelling.
    "FlowDistingsher",
    "ArriveTime",
    "InitialSeats",
    "FinalSeats",
    "AdditionalLatency",
    "StartTime",
];
const DETAILS: &[&str] =
    &["UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource"];

pub(crate) fn answer(shared: &Shared, path: &str, query: &Query) -> Option<Answer> {
    let page = path.strip_prefix(ROOT)?;
    let dump = || shared.seats.look(|fairness, _| fairness.dump());
    let rows = match page {
        "dump_priority_levels" => levels(&dump()),
        "dump_queues" => queues(&dump()),
        "dump_requests" => {
            let is_detailed = !query.get("includeRequestDetails").is_empty();
            requests(&dump(), is_detailed, |at| shared.seats.time(at))
        }
        _ => return None,
    };
    Some(respond::text(StatusCode::OK, table(&rows)))
}

fn head(columns: &[&[&str]]) -> Vec<String> {
    columns.concat().into_iter().map(str::to_owned).collect()
}

fn levels(dump: &[LevelDump]) -> Vec<Vec<String>> {
    let mut rows = vec![head(&[LEVELS])];
    for level in dump {
        let active = level.queues.iter().filter(|queue| queue.waiting > 0).count();
        rows.push(vec![
            level.name.to_string(),
            active.to_string(),
            level.requests.is_empty().to_string(),
            level.is_retired.to_string(),
            level.waiting.to_string(),
            level.executing.to_string(),
            level.dispatched.to_string(),
            level.refused.to_string(),
            // Upstream counts who waited too long under the cancelled, and nobody here.
            "0".to_owned(),
            level.gave_up.to_string(),
        ]);
    }
    rows
}

fn queues(dump: &[LevelDump]) -> Vec<Vec<String>> {
    let mut rows = vec![head(&[QUEUES])];
    for level in dump {
        for (index, queue) in level.queues.iter().enumerate() {
            // A request keeps its width until it is done: the two sums are one.
            let seats = queue.waiting_seats.to_string();
            rows.push(vec![
                level.name.to_string(),
                index.to_string(),
                queue.waiting.to_string(),
                queue.executing.to_string(),
                queue.seats.to_string(),
                seat_seconds(queue.next_start_nanos),
                seats.clone(),
                seats,
                seat_seconds(queue.work_nanos),
            ]);
        }
    }
    rows
}

fn requests(dump: &[LevelDump], is_detailed: bool, time: impl Fn(Seconds) -> Time) -> Vec<Vec<String>> {
    let mut rows = vec![head(if is_detailed { &[REQUESTS, DETAILS] } else { &[REQUESTS] })];
    let index = |at: Option<usize>| at.map_or_else(|| NONE.to_owned(), |at| at.to_string());
    for level in dump {
        for request in &level.requests {
            let mut row = vec![
                level.name.to_string(),
                request.schema.to_string(),
                index(request.queue),
                index(request.place),
                printable(&request.flow),
                moment(time(request.arrived)),
                request.seats.to_string(),
                // Nobody holds a seat for longer than the request takes.
                "0".to_owned(),
                "0s".to_owned(),
                request.started.map_or_else(|| NEVER.to_owned(), |at| moment(time(at))),
            ];
            if is_detailed {
                row.extend(details(request));
            }
            rows.push(row);
        }
    }
    rows
}

fn details(request: &RequestDump) -> [String; DETAILS.len()] {
    let about = &request.about;
    let version = if about.group.is_empty() {
        about.version.to_string()
    } else {
        format!("{}/{}", about.group, about.version)
    };
    [
        printable(&about.user),
        about.verb.to_string(),
        printable(&about.path),
        printable(&about.namespace),
        printable(&about.name),
        version,
        about.resource.to_string(),
        about.subresource.to_string(),
    ]
}

/// Whoever may choose a name makes no line of the table with it.
fn printable(text: &str) -> String {
    let one = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(one).collect()
}

/// `0.00300000ss`
fn seat_seconds(nanos: u64) -> String {
    format!("{}.{:08}ss", nanos / 1_000_000_000, nanos % 1_000_000_000 / 10)
}

/// RFC 3339 with as many digits as there are.
fn moment(time: Time) -> String {
    let text = time.micro();
    let digits = text.trim_end_matches('Z').trim_end_matches('0').trim_end_matches('.');
    format!("{digits}Z")
}

/// Cells with commas between them, below one another.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at));
        // The comma and a blank.
        cells.map(|cell| cell.chars().count() + 2).max().unwrap_or(0).max(NARROWEST)
    };
    let widths: Vec<usize> = (0..columns.saturating_sub(1)).map(width).collect();
    let mut text = String::new();
    for row in rows {
        for (at, cell) in row.iter().enumerate() {
            match widths.get(at) {
                Some(width) => text.push_str(&format!("{:width$}", format!("{cell},"))),
                None => text.push_str(cell),
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use access::fairness::{About, QueueDump};
    use plan::{Attributes, User};

    use super::*;

    fn request(place: Option<usize>, attributes: Attributes<'_>, path: &str) -> RequestDump {
        let started = place.is_none().then_some(1.25);
        let about = *About::of(&User::new("jane\n", &[]), &attributes, path);
        let queue = (!attributes.resource.is_empty()).then_some(1);
        let flow = if queue.is_some() { about.user[..].into() } else { Box::default() };
        RequestDump { schema: "some".into(), queue, place, flow, arrived: 0.5, started, seats: 2, about }
    }

    fn dump() -> Vec<LevelDump> {
        let idle = LevelDump {
            name: Arc::from("exempt"),
            is_retired: true,
            waiting: 0,
            executing: 0,
            dispatched: 7,
            refused: 0,
            gave_up: 0,
            queues: Vec::new(),
            requests: Vec::new(),
        };
        let queue = QueueDump {
            waiting: 1,
            waiting_seats: 2,
            executing: 1,
            seats: 2,
            next_start_nanos: 1_503_000_000,
            work_nanos: 6_000_000,
        };
        let empty = QueueDump {
            waiting: 0,
            waiting_seats: 0,
            executing: 0,
            seats: 0,
            next_start_nanos: 0,
            work_nanos: 0,
        };
        let pods = Attributes {
            verb: "get",
            group: "metrics.k8s.io",
            version: "v1",
            resource: "pods",
            subresource: "log",
            namespace: "a",
            name: "p",
            ..Attributes::default()
        };
        let version = Attributes { verb: "get", path: "/version", ..Attributes::default() };
        let busy = LevelDump {
            name: Arc::from("workload-low"),
            is_retired: false,
            waiting: 1,
            executing: 2,
            dispatched: 31,
            refused: 4,
            gave_up: 3,
            queues: vec![empty, queue],
            requests: vec![
                request(Some(0), pods, "/apis/x"),
                request(None, pods, "/apis/x"),
                request(None, version, "/version"),
            ],
        };
        vec![idle, busy]
    }

    fn check(rows: &[Vec<String>], expected: &[&str]) {
        assert_eq!(table(rows), expected.iter().map(|line| format!("{line}\n")).collect::<String>());
    }

    /// The widths are those that upstream's server was seen to write.
    #[test]
    fn tables_are_upstreams() {
        let time = |at: Seconds| Time::from_micros((at * 1e6) as i64);
        check(
            &levels(&dump()),
            &[
                "PriorityLevelName, ActiveQueues, IsIdle, IsQuiescing, WaitingRequests, ExecutingRequests, DispatchedRequests, RejectedRequests, TimedoutRequests, CancelledRequests",
                "exempt,            0,            true,   true,        0,               0,                 7,                  0,                0,                0",
                "workload-low,      1,            false,  false,       1,               2,                 31,                 4,                0,                3",
            ],
        );
        check(
            &queues(&dump()),
            &[
                "PriorityLevelName, Index,  PendingRequests, ExecutingRequests, SeatsInUse, NextDispatchR, InitialSeatsSum, MaxSeatsSum, TotalWorkSum",
                "workload-low,      0,      0,               0,                 0,          0.00000000ss,  0,               0,           0.00000000ss",
                "workload-low,      1,      1,               1,                 2,          1.50300000ss,  2,               2,           0.00600000ss",
            ],
        );
        check(
            &requests(&dump(), false, time),
            &[
                "PriorityLevelName, FlowSchemaName, QueueIndex, RequestIndexInQueue, FlowDistingsher, ArriveTime,             InitialSeats, FinalSeats, AdditionalLatency, StartTime",
                "workload-low,      some,           1,          0,                   jane\\n,          1970-01-01T00:00:00.5Z, 2,            0,          0s,                0001-01-01T00:00:00Z",
                "workload-low,      some,           1,          -1,                  jane\\n,          1970-01-01T00:00:00.5Z, 2,            0,          0s,                1970-01-01T00:00:01.25Z",
                "workload-low,      some,           -1,         -1,                  ,                1970-01-01T00:00:00.5Z, 2,            0,          0s,                1970-01-01T00:00:01.25Z",
            ],
        );
        let pods = requests(&dump()[1..], true, time);
        let details = |row: usize| vec![pods[0][10..].to_vec(), pods[row][10..].to_vec()];
        check(
            &details(1),
            &[
                "UserName, Verb,   APIPath, Namespace, Name,   APIVersion,        Resource, SubResource",
                "jane\\n,   get,    /apis/x, a,         p,      metrics.k8s.io/v1, pods,     log",
            ],
        );
        check(
            &details(3),
            &[
                "UserName, Verb,   APIPath,  Namespace, Name,   APIVersion, Resource, SubResource",
                "jane\\n,   get,    /version, ,          ,       ,           ,         ",
            ],
        );
    }
}
