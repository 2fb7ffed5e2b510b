//! Servers under load, on a virtual clock.

use std::collections::BTreeMap;

use object::Snapshot;
use plan::{Attributes, User};
use proptest::prelude::*;

use super::*;
use crate::bootstrap;

const LIMIT: u32 = 600;

fn fresh() -> Snapshot {
    filled(Snapshot::default())
}

/// With the objects that each cluster has, written anew.
fn filled(mut snapshot: Snapshot) -> Snapshot {
    for object in bootstrap::flow_control() {
        let source = usize::from(object["kind"] != "FlowSchema");
        let key = object::Key::cluster(SOURCES[source], object["metadata"]["name"].as_str().expect("a name"));
        let revision = snapshot.revision() + 1;
        let draft = object::Draft::read(key, Box::default(), object::body::encode(&object));
        snapshot.put(draft.expect("an object").at(revision));
        snapshot.advance(revision);
    }
    snapshot
}

/// A server whose requests take as long as they are said to.
struct Server {
    fairness: Fairness,
    now: Seconds,
    /// What ends when, in microseconds, and whose it is.
    running: BTreeMap<(u64, u64), (String, Ticket)>,
    waiting: BTreeMap<u64, (String, Ticket, Seconds)>,
    done: BTreeMap<String, u64>,
    refused: BTreeMap<String, u64>,
    longest_wait: BTreeMap<String, Seconds>,
}

impl Server {
    fn new() -> Self {
        Self {
            fairness: Fairness::new(LIMIT, Rules::read(&fresh())),
            now: 0.0,
            running: BTreeMap::new(),
            waiting: BTreeMap::new(),
            done: BTreeMap::new(),
            refused: BTreeMap::new(),
            longest_wait: BTreeMap::new(),
        }
    }

    fn ask(&mut self, user: &User, took: Seconds, work: Work) -> Verdict {
        let attributes =
            Attributes { verb: "list", resource: "pods", namespace: "a", ..Attributes::default() };
        let woken = self.fairness.adjust(self.now);
        self.wake(woken);
        let schema = self.fairness.rules().classify(user, &attributes);
        let verdict = self.fairness.begin(schema, About::of(user, &attributes, ""), work, self.now);
        let name = user.name.to_string();
        match verdict {
            Verdict::Run(ticket) => self.run(name, ticket, took),
            Verdict::Wait(ticket) => drop(self.waiting.insert(ticket.id(), (name, ticket, took))),
            Verdict::Refuse(_) => *self.refused.entry(name).or_default() += 1,
        }
        verdict
    }

    fn run(&mut self, name: String, ticket: Ticket, took: Seconds) {
        self.running.insert((((self.now + took) * 1e6) as u64, ticket.id()), (name, ticket));
    }

    fn wake(&mut self, woken: Vec<u64>) {
        for id in woken {
            let (name, ticket, took) = self.waiting.remove(&id).expect("one that waits");
            let longest = self.longest_wait.entry(name.clone()).or_default();
            *longest = longest.max(self.now - ticket.since);
            self.run(name, ticket.woken(self.now), took);
        }
    }

    /// Lets everything end that ends until then.
    fn until(&mut self, then: Seconds) {
        while let Some(((at, _), _)) = self.running.first_key_value()
            && *at as f64 / 1e6 <= then
        {
            let ((at, _), (name, ticket)) = self.running.pop_first().expect("one that runs");
            self.now = self.now.max(at as f64 / 1e6);
            *self.done.entry(name).or_default() += 1;
            let woken = self.fairness.finish(ticket, self.now);
            self.wake(woken);
        }
        self.now = then;
    }

    fn level(&self, name: &str) -> LevelState {
        self.fairness.levels(self.now).find(|level| &*level.name == name).expect("a level")
    }
}

fn user(name: &str) -> User {
    User::new(name, &["system:authenticated"])
}

#[test]
fn seats_are_divided_by_shares() {
    let server = Server::new();
    let seats: Vec<_> =
        server.fairness.levels(server.now).map(|level| (level.name.to_string(), level.nominal)).collect();
    // ceil(600 × shares / 245)
    for (name, nominal) in
        [("system", 74), ("node-high", 98), ("workload-low", 245), ("catch-all", 13), ("exempt", 0)]
    {
        assert!(seats.contains(&(name.to_owned(), nominal)), "{name}: {seats:?}");
    }
    let low = server.level("workload-low");
    assert_eq!((low.lower, low.upper, low.current), (24, LIMIT, 245));
}

#[test]
fn who_asks_little_hardly_waits_for_who_asks_much() {
    let mut server = Server::new();
    let (loud, quiet) = (user("loud"), user("quiet"));
    for step in 0..200 {
        for _ in 0..50 {
            server.ask(&loud, 0.1, Work::default());
        }
        server.ask(&quiet, 0.1, Work::default());
        server.until(f64::from(step + 1) * 0.05);
    }
    let waited = |name: &str| server.longest_wait.get(name).copied().unwrap_or_default();
    assert!(server.refused["loud"] > 1000, "{:?}", server.refused);
    assert!(!server.refused.contains_key("quiet"));
    assert!(waited("quiet") < 0.11, "{}", waited("quiet"));
    assert!(waited("loud") > 0.3, "{}", waited("loud"));
}

#[test]
fn flows_that_ask_the_same_get_the_same() {
    let mut server = Server::new();
    let users = ["a", "b", "c"].map(user);
    for step in 0..1000 {
        for one in &users {
            for _ in 0..4 {
                server.ask(one, 0.2, Work::default());
            }
        }
        server.until(f64::from(step + 1) * 0.01);
    }
    let done = ["a", "b", "c"].map(|name| server.done[name] as f64);
    let (least, most) =
        (done.iter().copied().fold(f64::MAX, f64::min), done.iter().copied().fold(0.0, f64::max));
    assert!(most / least < 1.1, "{done:?}");
}

#[test]
fn wide_requests_count_for_as_much_as_they_take() {
    let mut server = Server::new();
    let (wide, narrow) = (user("wide"), user("narrow"));
    for step in 0..1000 {
        for _ in 0..8 {
            // 500 objects: five seats.
            server.ask(&wide, 0.1, Work::of_list(500, 0, false));
            server.ask(&narrow, 0.1, Work::default());
        }
        server.until(f64::from(step + 1) * 0.01);
    }
    let ratio = server.done["narrow"] as f64 / server.done["wide"] as f64;
    assert!((3.0..7.0).contains(&ratio), "{:?}", server.done);
}

#[test]
fn the_exempt_never_wait_and_the_catch_all_never_queues() {
    let mut server = Server::new();
    let root = User::new("root", &["system:masters"]);
    for _ in 0..2000 {
        assert!(matches!(server.ask(&root, 1.0, Work::default()), Verdict::Run(_)));
    }
    let stray = User::new("stray", &[]);
    for _ in 0..server.level("catch-all").nominal {
        assert!(matches!(server.ask(&stray, 1.0, Work::default()), Verdict::Run(_)));
    }
    let refused = server.ask(&stray, 1.0, Work::default());
    assert_eq!(refused, Verdict::Refuse(Refusal { retry_after_seconds: 1 }));
}

#[test]
fn a_level_under_load_borrows_what_others_lend() {
    let mut server = Server::new();
    let app = User::new("system:serviceaccount:a:b", &["system:serviceaccounts", "system:authenticated"]);
    for step in 0..2200 {
        for _ in 0..8 {
            server.ask(&app, 0.5, Work::default());
        }
        server.until(f64::from(step + 1) * 0.01);
    }
    let low = server.level("workload-low");
    assert!(low.current > low.nominal + 50, "{low:?}");
    assert!(server.level("node-high").current >= server.level("node-high").lower);
    let most: u32 = server.fairness.levels(server.now).map(|level| level.current).sum();
    assert!(most <= LIMIT + 10, "{most}");
}

#[test]
fn seats_that_are_borrowed_are_taken_at_once() {
    let mut server = Server::new();
    let app = User::new("system:serviceaccount:a:b", &["system:serviceaccounts", "system:authenticated"]);
    for _ in 0..400 {
        server.ask(&app, 1000.0, Work::default());
    }
    let waiting = server.level("workload-low").waiting;
    assert!(waiting > 0);
    server.until(10.0);
    // Nobody of the level comes or goes: it is another's request that makes the levels lend.
    server.ask(&User::new("root", &["system:masters"]), 1.0, Work::default());
    let low = server.level("workload-low");
    assert!(low.waiting < waiting && (low.waiting == 0 || low.in_use == low.current), "{low:?}");
}

#[test]
fn who_is_refused_again_and_again_is_sent_further_away() {
    let mut server = Server::new();
    let stray = User::new("stray", &[]);
    let mut after = 0;
    for second in 0..10 {
        for _ in 0..200 {
            if let Verdict::Refuse(refusal) = server.ask(&stray, 100.0, Work::default()) {
                after = refusal.retry_after_seconds;
            }
        }
        server.until(f64::from(second + 1));
    }
    assert_eq!(after, 32);
}

#[test]
fn widths_are_upstreams() {
    for (stored, limit, selects, most, expected) in [
        (0, 0, false, 10, 1),
        (100, 0, false, 10, 1),
        (101, 0, false, 10, 2),
        (5_000, 0, false, 10, 10),
        (5_000, 0, false, 4, 4),
        (5_000, 100, false, 10, 2),
        (5_000, 100, true, 10, 10),
        (5_000, 0, false, 0, 1),
    ] {
        assert_eq!(Work::of_list(stored, limit, selects).seats(most), expected, "{stored} {limit} {selects}");
    }
}

#[test]
fn levels_that_go_let_their_requests_end() {
    let mut server = Server::new();
    let one = user("one");
    for _ in 0..80 {
        server.ask(&one, 1.0, Work::default());
    }
    assert!(!server.waiting.is_empty());
    let mut emptied = fresh();
    for source in SOURCES {
        let keys: Vec<_> = emptied.list(source, "").map(|object| object.key.clone()).collect();
        for key in keys {
            let revision = emptied.revision() + 1;
            emptied.remove(&key, revision);
        }
    }
    let woken = server.fairness.follow(Arc::new(Rules::read(&emptied)), 0.5);
    server.wake(woken);
    assert_eq!(server.fairness.levels(server.now).count(), 2, "those that always are");
    // The schemas are gone but for those that always are: who came before goes on as it began.
    assert!(matches!(server.ask(&one, 1.0, Work::default()), Verdict::Run(_)));
    server.until(10.0);
    assert!(server.waiting.is_empty() && server.running.is_empty());
    assert_eq!(server.done["one"], 81);
    assert!(server.fairness.follow(Arc::new(Rules::read(&fresh())), 10.0).is_empty());
    assert_eq!(server.fairness.levels(server.now).count(), 2, "what was before comes too late");
    assert!(server.fairness.follow(Arc::new(Rules::read(&filled(emptied))), 10.0).is_empty());
    assert!(server.fairness.levels(server.now).count() > 2);
    assert!(server.fairness.levels(server.now).all(|level| level.in_use == 0 && level.waiting == 0));
}

/// What a page for debugging tells, in so far as a line can say it.
#[test]
fn each_request_is_told_of_while_it_is_there() {
    let mut server = Server::new();
    let low = User::new("system:serviceaccount:a:b", &["system:serviceaccounts", "system:authenticated"]);
    let lines = |server: &Server| -> Vec<String> {
        let levels = server.fairness.dump();
        let busy = levels.iter().filter(|level| level.dispatched > 0);
        let told = busy.map(|level| {
            let queues = level.queues.iter().filter(|queue| queue.executing > 0 || queue.waiting > 0);
            let queues: Vec<_> = queues.map(|queue| (queue.executing, queue.waiting)).collect();
            let requests = level.requests.iter().map(|request| {
                format!("{} {:?} {} {:?}", request.schema, request.place, request.flow, request.started)
            });
            let requests: Vec<_> = requests.collect();
            let LevelDump { name, executing, waiting, dispatched, refused, gave_up, .. } = level;
            format!("{name} {executing} {waiting} {dispatched} {refused} {gave_up} {queues:?} {requests:?}")
        });
        told.collect()
    };
    server.until(1.0);
    server.ask(&User::new("root", &["system:masters"]), 0.5, Work::default());
    server.ask(&low, 2.0, Work::default());
    assert_eq!(
        lines(&server),
        [
            "exempt 1 0 1 0 0 [] [\"exempt None  Some(1.0)\"]",
            "workload-low 1 0 1 0 0 [(1, 0)] [\"service-accounts None system:serviceaccount:a:b Some(1.0)\"]",
        ]
    );
    server.until(2.0);
    assert_eq!(lines(&server)[0], "exempt 0 0 1 0 0 [] []", "it is done");
    // One more than there are seats: the last waits, and then no longer.
    while server.waiting.is_empty() {
        server.ask(&low, 1.0, Work::default());
    }
    let waits = |server: &Server| {
        let levels = server.fairness.dump();
        let level = levels.into_iter().find(|level| &*level.name == "workload-low").expect("the level");
        let waiting: Vec<_> =
            level.requests.iter().filter_map(|request| Some((request.place?, request.started))).collect();
        (waiting, level.refused, level.gave_up)
    };
    assert_eq!(waits(&server), (vec![(0, None)], 0, 0));
    let (_, (_, ticket, _)) = server.waiting.pop_first().expect("it waits");
    server.fairness.give_up(ticket, server.now).expect("it waited");
    assert_eq!(waits(&server), (vec![], 1, 1));
}

proptest! {
    /// Whatever comes and goes: no seat is lost, none is given twice, and who waits is woken.
    #[test]
    fn seats_come_back(steps in proptest::collection::vec((0_u8..4, 0_usize..2000, 0_u8..3), 1..300)) {
        let mut server = Server::new();
        for (index, (who, objects, what)) in steps.into_iter().enumerate() {
            let asking = match who {
                0 => User::new("stray", &[]),
                other => user(&format!("user-{other}")),
            };
            for _ in 0..10 {
                server.ask(&asking, 0.02 * f64::from(what + 1), Work { objects, watchers: None });
            }
            if what == 2
                && let Some((id, (_, ticket, _))) = server.waiting.first_key_value().map(|(id, held)| (*id, held.clone()))
            {
                server.waiting.remove(&id);
                let (_, woken) = server.fairness.give_up(ticket, server.now).expect("it waited");
                server.wake(woken);
            }
            server.until(index as f64 * 0.01);
            // Asked where they are held: what is told of a level is a copy with histograms.
            for (place, level) in server.fairness.levels.iter().enumerate() {
                let running = server.running.values().filter(|(_, ticket)| ticket.level == place);
                prop_assert_eq!(running.map(|(_, ticket)| ticket.seats).sum::<u32>(), level.in_use);
            }
            prop_assert_eq!(server.fairness.held.len(), server.running.len() + server.waiting.len());
        }
        server.until(1e6);
        prop_assert!(server.waiting.is_empty());
        prop_assert!(server.fairness.levels(server.now).all(|level| level.in_use == 0 && level.waiting == 0));
        // What is told of it adds up: each level was seen at each nanosecond, and nobody is left over.
        for level in server.fairness.levels(server.now) {
            let seen = [&level.demand_part, &level.seats_part, &level.executing_part, &level.waiting_part];
            prop_assert!(seen.iter().all(|part| (part.count() as f64 / (server.now * 1e9) - 1.0).abs() < 1e-6));
        }
        for (_, _, counts) in server.fairness.counts() {
            prop_assert_eq!((counts.waiting_seats, counts.executing), (0, 0));
            prop_assert_eq!(counts.waited.count(), counts.dispatched);
            let came = counts.dispatched + counts.refused.iter().sum::<u64>();
            prop_assert_eq!((counts.wanted_seats.count(), counts.ran.count()), (came, counts.dispatched));
        }
        prop_assert!(server.fairness.traffic(server.now).iter().all(|kind| kind.executing == 0 && kind.waiting == 0));
    }
}
