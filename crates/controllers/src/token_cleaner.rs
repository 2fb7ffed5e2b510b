//! Deletes bootstrap tokens when their time is over.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/>

use access::bootstrap_token;
use kinds::SECRETS;
use object::{Event, Key, Snapshot, Time};
use plan::{Expect, Plan, Write};

use crate::{Controller, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "token-cleaner",
    user: "token-cleaner",
    watches: &[Watch { resource: SECRETS, keys: of_token }],
    reconcile,
    refused: None,
    resync_secs: None,
};

/// Where and how those that are believed are named.
fn of_token(_: &Snapshot, event: &Event) -> Vec<Key> {
    let key = event.key();
    let is_token = *key.namespace == *"kube-system" && key.name.starts_with("bootstrap-token-");
    if is_token { vec![key.clone()] } else { Vec::new() }
}

fn reconcile(snapshot: &Snapshot, key: &Key, now: Time, _: &Settings) -> Plan {
    let mut plan = Plan::default();
    let Some(secret) = snapshot.get(key).filter(|secret| !secret.meta.is_deleting()) else { return plan };
    let Some(over) = bootstrap_token::expiration(secret) else { return plan };
    if over > now {
        plan.wake(over);
        return plan;
    }
    plan.write(Write::Delete {
        key: key.clone(),
        expect: Expect::unchanged(secret),
        grace_seconds: None,
        propagation: None,
    });
    plan
}
