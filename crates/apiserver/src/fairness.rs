//! Seats for requests: asks `access::fairness` who runs, keeps those who wait, and wakes them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use access::fairness::{About, Fairness, Refusal, Rules, Seconds, Ticket, Verdict, Work};
use http::{HeaderMap, HeaderName, HeaderValue};
use object::{Resource, Revision, Snapshot, Time};
use plan::{Attributes, User};
use tokio::sync::oneshot;

use crate::past;
use crate::query::{ListOptions, Query};
use crate::shared::Shared;

const SCHEMA: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// The seats of one server.
pub(crate) struct Seats {
    state: Mutex<State>,
    began: Instant,
    began_at: SystemTime,
}

/// What a request asks for, and what that takes.
pub(crate) struct Wish<'a> {
    pub(crate) attributes: &'a Attributes<'a>,
    /// The URL's.
    pub(crate) path: &'a str,
    /// What is stored of it; one that nothing is stored of, if it is none.
    pub(crate) stored: Resource,
    pub(crate) work: Work,
}

/// How many watch a resource, by namespace and name, each empty if that does not matter to them.
type Watchers = HashMap<Box<str>, HashMap<Box<str>, usize>>;

struct State {
    fairness: Fairness,
    watchers: HashMap<Resource, Watchers>,
    /// The headers of each schema of the rules that it goes by.
    marks: Vec<Marks>,
    /// Who waits, each told when it began to run.
    waiting: HashMap<u64, oneshot::Sender<Seconds>>,
}

/// Which schema and level a request was of, for its answer.
#[derive(Clone)]
pub(crate) struct Marks {
    schema: HeaderValue,
    level: HeaderValue,
}

impl Marks {
    pub(crate) fn put(self, headers: &mut HeaderMap) {
        headers.insert(SCHEMA, self.schema);
        headers.insert(LEVEL, self.level);
    }
}

/// Leave to run. Dropped, it makes room for others.
pub(crate) struct Seat<'a> {
    seats: &'a Seats,
    ticket: Ticket,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let now = self.seats.now();
        let mut state = self.seats.lock();
        let woken = state.fairness.finish(self.ticket, now);
        state.wake(woken, now);
    }
}

/// A place in a queue. Dropped (the client has gone, its time is over), it is left.
struct Place<'a> {
    seats: &'a Seats,
    ticket: Option<Ticket>,
}

impl Place<'_> {
    fn leave(&mut self) -> Option<Refusal> {
        let ticket = self.ticket.take()?;
        let now = self.seats.now();
        let mut state = self.seats.lock();
        state.waiting.remove(&ticket.id());
        match state.fairness.give_up(ticket, now) {
            Ok((refusal, woken)) => {
                state.wake(woken, now);
                Some(refusal)
            }
            // Woken at the last moment: the seat goes to the next.
            Err(ticket) => {
                let woken = state.fairness.finish(ticket.woken(now), now);
                state.wake(woken, now);
                None
            }
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.leave();
    }
}

/// A watch that counts as long as this lives.
pub(crate) struct Watching {
    shared: Arc<Shared>,
    resource: Resource,
    namespace: Box<str>,
    name: Box<str>,
}

impl Watching {
    /// Empty: of every namespace, or name.
    pub(crate) fn begin(shared: Arc<Shared>, resource: Resource, namespace: &str, name: &str) -> Self {
        let watching = Self { shared, resource, namespace: namespace.into(), name: name.into() };
        *watching.shared.seats.lock().watchers_of(&watching) += 1;
        watching
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut state = self.shared.seats.lock();
        let count = state.watchers_of(self);
        *count = count.saturating_sub(1);
        if *count > 0 {
            return;
        }
        // Names are clients' own words, which nobody forgets otherwise.
        if let Some(namespaces) = state.watchers.get_mut(&self.resource) {
            if let Some(names) = namespaces.get_mut(&self.namespace) {
                names.remove(&self.name);
            }
            namespaces.retain(|_, names| !names.is_empty());
        }
    }
}

impl State {
    fn watchers_of(&mut self, watching: &Watching) -> &mut usize {
        let namespaces = self.watchers.entry(watching.resource).or_default();
        let names = namespaces.entry(watching.namespace.clone()).or_default();
        names.entry(watching.name.clone()).or_default()
    }

    /// How many watch what a request changes; None if it changes nothing that can be watched.
    fn interested(&self, Wish { attributes, stored, .. }: &Wish<'_>) -> Option<usize> {
        let Attributes { verb, group, subresource, namespace, name, .. } = **attributes;
        let is_answered_only = matches!(group, "authentication.k8s.io" | "authorization.k8s.io")
            || subresource == "token" && stored.as_str() == "serviceaccounts";
        if is_answered_only || !matches!(verb, "create" | "update" | "patch" | "delete") {
            return None;
        }
        let Some(namespaces) = self.watchers.get(stored) else { return Some(0) };
        let of = |namespace: &str, name: &str| {
            namespaces.get(namespace).and_then(|names| names.get(name)).copied().unwrap_or(0)
        };
        let within = |namespace: &str| match name {
            "" => of(namespace, ""),
            name => of(namespace, "") + of(namespace, name),
        };
        Some(if namespace.is_empty() { within("") } else { within("") + within(namespace) })
    }

    fn wake(&mut self, woken: Vec<u64>, now: Seconds) {
        for id in woken {
            if let Some(waiting) = self.waiting.remove(&id) {
                // One that has gone meanwhile gives the seat back by itself.
                let _ = waiting.send(now);
            }
        }
    }

    fn mark(&mut self) {
        let rules = self.fairness.rules();
        let header = |text: &str| HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""));
        let marks = rules.schemas.iter().map(|schema| Marks {
            schema: header(&schema.uid),
            level: header(&rules.levels[schema.level].uid),
        });
        self.marks = marks.collect();
    }
}

impl Seats {
    /// `limit`: requests at work at once.
    pub(crate) fn new(limit: usize, snapshot: &Snapshot) -> Self {
        let fairness = Fairness::new(u32::try_from(limit).unwrap_or(u32::MAX), Rules::read(snapshot));
        let (watchers, waiting) = (HashMap::new(), HashMap::new());
        let mut state = State { fairness, watchers, marks: Vec::new(), waiting };
        state.mark();
        Self { state: Mutex::new(state), began: Instant::now(), began_at: SystemTime::now() }
    }

    fn now(&self) -> Seconds {
        self.began.elapsed().as_secs_f64()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rules of a snapshot, or later ones. Read, where they are new, while others take their seats.
    fn rules(&self, snapshot: &Snapshot) -> Arc<Rules> {
        let known = self.lock().fairness.rules().clone();
        if !known.is_older_than(snapshot) {
            return known;
        }
        let rules = Arc::new(Rules::read(snapshot));
        let now = self.now();
        let mut state = self.lock();
        let woken = state.fairness.follow(rules, now);
        state.mark();
        state.wake(woken, now);
        state.fairness.rules().clone()
    }

    /// A seat, now or within `patience`; otherwise in how many seconds the client should come again.
    pub(crate) async fn take(
        &self,
        snapshot: &Snapshot,
        user: &User,
        wish: &Wish<'_>,
        patience: Duration,
    ) -> (Marks, Result<Seat<'_>, Refusal>) {
        let attributes = wish.attributes;
        let rules = self.rules(snapshot);
        let schema = rules.classify(user, attributes);
        let about = About::of(user, attributes, wish.path);
        let (marks, ticket, woken) = {
            let now = self.now();
            let mut state = self.lock();
            let woken = state.fairness.adjust(now);
            state.wake(woken, now);
            // Other rules came meanwhile.
            let is_same = Arc::ptr_eq(&rules, state.fairness.rules());
            let schema = if is_same { schema } else { state.fairness.rules().classify(user, attributes) };
            let marks = state.marks[schema].clone();
            let work = Work { watchers: state.interested(wish), ..wish.work };
            match state.fairness.begin(schema, about, work, now) {
                Verdict::Run(ticket) => return (marks, Ok(Seat { seats: self, ticket })),
                Verdict::Refuse(refusal) => return (marks, Err(refusal)),
                Verdict::Wait(ticket) => {
                    let (wake, woken) = oneshot::channel();
                    state.waiting.insert(ticket.id(), wake);
                    (marks, ticket, woken)
                }
            }
        };
        let mut place = Place { seats: self, ticket: Some(ticket) };
        if let Ok(Ok(at)) = tokio::time::timeout(patience, woken).await
            && let Some(ticket) = place.ticket.take()
        {
            return (marks, Ok(Seat { seats: self, ticket: ticket.woken(at) }));
        }
        let refusal = place.leave().unwrap_or(Refusal { retry_after_seconds: 1 });
        (marks, Err(refusal))
    }

    /// The wall time of a moment.
    pub(crate) fn time(&self, at: Seconds) -> Time {
        let at = self.began_at + Duration::from_secs_f64(at);
        let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Time::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    /// Looks at the decider as it is now, for metrics.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Fairness, Seconds) -> T) -> T {
        let now = self.now();
        look(&self.lock().fairness, now)
    }
}

/// What a request costs: a list by what it goes through, anything else one seat.
pub(crate) fn work(
    snapshot: &Snapshot,
    attributes: &Attributes<'_>,
    query: &Query,
    stored: Resource,
) -> Work {
    let lists = match attributes.verb {
        "list" => true,
        // One that begins at a revision sends no state first.
        "watch" => query.flag("sendInitialEvents") || matches!(query.get("resourceVersion"), "" | "0"),
        _ => false,
    };
    if !lists || query.get("fieldSelector").starts_with("metadata.name=") {
        return Work::default();
    }
    let changed = snapshot.table(stored).map_or(0, object::Table::revision);
    let stored = snapshot.table(stored).map_or(0, object::Table::len);
    let selects = !query.get("fieldSelector").is_empty() || !query.get("labelSelector").is_empty();
    let listed = Work::of_list(stored, query.get("limit").parse().unwrap_or(0), selects);
    match past_revision(query, attributes).filter(|revision| *revision < changed) {
        // However little of it is told, it may have to be put together from all that has changed since.
        Some(revision) => {
            let changes = usize::try_from(changed - revision).unwrap_or(usize::MAX);
            listed.max(Work::of_list(changes.min(past::MOST_CHANGES), 0, false))
        }
        None => listed,
    }
}

/// The revision that a list is asked of and of no other.
fn past_revision(query: &Query, attributes: &Attributes<'_>) -> Option<Revision> {
    let asked = query.get("resourceVersion");
    if attributes.verb != "list" || matches!(asked, "" | "0") {
        return None;
    }
    let options = ListOptions::read(query).ok()?;
    if options.is_exact() && options.token.is_empty() { asked.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PODS: Attributes<'static> = Attributes {
        verb: "list",
        group: "",
        version: "v1",
        resource: "pods",
        subresource: "",
        namespace: "a",
        name: "",
        path: "",
        fields: None,
        labels: None,
    };

    /// A hundred objects are a seat's.
    #[test]
    fn a_list_of_the_past_costs_what_is_taken_back() {
        const MAPS: Resource = Resource::new("configmaps");
        let mut snapshot = Snapshot::default();
        for revision in 1..=1000 {
            let text = object::body::encode(&serde_json::json!({}));
            let key = object::Key::new(MAPS, "a", "one");
            let draft = object::Draft::read(key, [].into(), text).expect("a draft");
            snapshot.put(draft.at(revision));
        }
        for (query, objects) in [
            ("limit=1", 1),
            ("limit=1&resourceVersion=0", 1),
            ("limit=1&resourceVersion=1000", 1),
            ("limit=1&resourceVersion=500", 500),
            ("limit=1&resourceVersion=500&resourceVersionMatch=NotOlderThan", 1),
            ("resourceVersion=500", 1),
            ("resourceVersion=500&resourceVersionMatch=Exact", 500),
            ("resourceVersion=x&resourceVersionMatch=Exact", 1),
        ] {
            let work = work(&snapshot, &PODS, &Query::parse(query), MAPS);
            assert_eq!(work, Work::of_list(objects, 0, false), "{query}");
        }
    }

    /// One seat in all: the level that is always there takes no queue, so who comes second is told to come again.
    #[tokio::test]
    async fn a_seat_that_is_dropped_is_the_next_ones() {
        let snapshot = Snapshot::default();
        let seats = Seats::new(1, &snapshot);
        let user = User::new("jane", &["system:authenticated"]);
        let wish = Wish { attributes: &PODS, path: "", stored: Resource::new("pods"), work: Work::default() };
        let take = || seats.take(&snapshot, &user, &wish, Duration::ZERO);
        let (_, first) = take().await;
        assert!(first.is_ok());
        assert!(matches!(take().await.1, Err(Refusal { retry_after_seconds: 1 })));
        drop(first);
        assert!(take().await.1.is_ok());
    }

    #[test]
    fn who_watches_what_is_changed_is_counted() {
        const PODS: Resource = Resource::new("pods");
        let seats = Seats::new(1, &Snapshot::default());
        let mut state = seats.lock();
        let watchers =
            [("", "", 1), ("a", "", 10), ("a", "one", 100), ("b", "one", 1000), ("", "one", 10_000)];
        for (namespace, name, count) in watchers {
            let names = state.watchers.entry(PODS).or_default().entry(namespace.into()).or_default();
            names.insert(name.into(), count);
        }
        for (verb, group, namespace, name, expected) in [
            ("update", "", "a", "one", Some(10_111)),
            ("update", "", "a", "two", Some(11)),
            ("create", "", "a", "", Some(11)),
            ("delete", "", "c", "two", Some(1)),
            ("get", "", "a", "one", None),
            ("create", "authorization.k8s.io", "a", "", None),
        ] {
            let attributes = Attributes { verb, group, namespace, name, ..super::tests::PODS };
            let wish = Wish { attributes: &attributes, path: "", stored: PODS, work: Work::default() };
            assert_eq!(state.interested(&wish), expected, "{verb} {group} {namespace} {name}");
        }
    }
}
