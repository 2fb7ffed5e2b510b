//! Deletes Events that nobody has added to for their time to live: what upstream's `--event-ttl` asks of etcd.

use kinds::EVENTS;
use object::{Key, Snapshot, Time};
use plan::{Expect, Plan, Write};
use serde::Deserialize;

use crate::ownership::own_key;
use crate::{Controller, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "event-ttl-controller",
    user: "event-ttl-controller",
    watches: &[Watch { resource: EVENTS, keys: own_key }],
    reconcile,
    refused: None,
    resync_secs: None,
};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct View {
    last_timestamp: Option<Time>,
    event_time: Option<Time>,
    series: Option<Series>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Series {
    last_observed_time: Option<Time>,
}

fn reconcile(snapshot: &Snapshot, key: &Key, now: Time, settings: &Settings) -> Plan {
    let mut plan = Plan::default();
    let Some(event) = snapshot.get(key) else { return plan };
    let told = event.decode::<View>().ok().map(|view| {
        let last_of_series = view.series.and_then(|series| series.last_observed_time);
        [view.last_timestamp, view.event_time, last_of_series].into_iter().flatten().max()
    });
    // Times that clients write may lie anywhere; the creation is the server's own.
    let told = told.flatten().filter(|told| *told <= now);
    let Some(last) = told.max(event.meta.creation_timestamp) else { return plan };
    let over = last.plus_secs(settings.event_ttl_secs);
    if over > now {
        plan.wake(over);
    } else {
        plan.write(Write::Delete {
            key: key.clone(),
            expect: Expect::unchanged(event),
            grace_seconds: None,
            propagation: None,
        });
    }
    plan
}
