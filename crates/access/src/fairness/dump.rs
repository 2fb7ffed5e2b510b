//! What runs and what waits, one by one: for those who look for whoever takes the seats.

use std::sync::Arc;

use plan::{Attributes, User};

use super::rules::Distinguisher;
use super::{Fairness, Level, Reason, Seconds, Ticket};

/// What a request asks for, and who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    pub user: Arc<str>,
    pub verb: Box<str>,
    /// Of the URL, also of a resource's.
    pub path: Box<str>,
    pub group: Box<str>,
    pub version: Box<str>,
    pub resource: Box<str>,
    pub subresource: Box<str>,
    pub namespace: Box<str>,
    pub name: Box<str>,
}

impl About {
    pub fn of(user: &User, attributes: &Attributes<'_>, path: &str) -> Box<Self> {
        Box::new(Self {
            user: user.name.clone(),
            verb: attributes.verb.into(),
            path: path.into(),
            group: attributes.group.into(),
            version: attributes.version.into(),
            resource: attributes.resource.into(),
            subresource: attributes.subresource.into(),
            namespace: attributes.namespace.into(),
            name: attributes.name.into(),
        })
    }
}

/// A request that runs or waits, as it is kept.
pub(super) struct Held {
    pub(super) about: Box<About>,
    pub(super) distinguisher: Distinguisher,
    pub(super) ticket: Ticket,
    /// None: it waits.
    pub(super) started: Option<Seconds>,
}

/// A level, with what it did since there are levels of its name.
#[derive(Clone, Debug, PartialEq)]
pub struct LevelDump {
    pub name: Arc<str>,
    /// Its object is gone; it ends with its last request.
    pub is_retired: bool,
    pub waiting: usize,
    pub executing: usize,
    pub dispatched: u64,
    /// For whatever reason.
    pub refused: u64,
    /// Of those, the ones that had waited.
    pub gave_up: u64,
    pub queues: Vec<QueueDump>,
    /// By queue, those without one last; in a queue those that wait come first, in the order in which they will run.
    pub requests: Vec<RequestDump>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueDump {
    pub waiting: usize,
    pub waiting_seats: u32,
    pub executing: u32,
    pub seats: u32,
    /// When its next request begins, in virtual time, in nanoseconds.
    pub next_start_nanos: u64,
    /// What those that wait are guessed to take: seats times time.
    pub work_nanos: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RequestDump {
    pub schema: Arc<str>,
    pub queue: Option<usize>,
    /// Its place among those that wait; `None`: it runs.
    pub place: Option<usize>,
    /// What tells the flows of its schema apart: a user, a namespace, or nothing.
    pub flow: Box<str>,
    pub arrived: Seconds,
    pub started: Option<Seconds>,
    pub seats: u32,
    pub about: About,
}

impl Fairness {
    /// Every level by name, with its queues and requests.
    pub fn dump(&self) -> Vec<LevelDump> {
        let levels = self.levels.iter().enumerate().filter(|(_, level)| !level.is_free());
        let mut dumps: Vec<LevelDump> = levels.map(|(place, level)| self.level_dump(place, level)).collect();
        dumps.sort_by(|a, b| a.name.cmp(&b.name));
        dumps
    }

    fn level_dump(&self, place: usize, level: &Level) -> LevelDump {
        let mut held: Vec<&Held> = self.held.values().filter(|held| held.ticket.level == place).collect();
        // Ids are given in the order in which requests came, and queues are first in, first out.
        held.sort_by_key(|held| {
            let queue = held.ticket.queue.unwrap_or(usize::MAX);
            (queue, held.started.is_some(), held.ticket.id)
        });
        let mut next = (None, 0);
        let mut requests = Vec::with_capacity(held.len());
        for held in held {
            let queue = held.ticket.queue;
            if next.0 != queue {
                next = (queue, 0);
            }
            let place = held.started.is_none().then_some(next.1);
            next.1 += 1;
            let flow = held.distinguisher.of(&held.about.user, &held.about.namespace);
            requests.push(RequestDump {
                schema: self.counts[held.ticket.count].0.clone(),
                queue,
                place,
                flow: flow.into(),
                arrived: held.ticket.since,
                started: held.started,
                seats: held.ticket.seats,
                about: (*held.about).clone(),
            });
        }
        let counts =
            || self.counts.iter().filter(|(_, of, _)| *of == level.name).map(|(_, _, counts)| counts);
        LevelDump {
            name: level.name.clone(),
            is_retired: level.is_retired,
            waiting: requests.iter().filter(|request| request.started.is_none()).count(),
            executing: requests.iter().filter(|request| request.started.is_some()).count(),
            dispatched: counts().map(|counts| counts.dispatched).sum(),
            refused: counts().flat_map(|counts| counts.refused).sum(),
            gave_up: counts().map(|counts| counts.refused[Reason::TimeOut as usize]).sum(),
            queues: level.queue_dumps(),
            requests,
        }
    }
}
