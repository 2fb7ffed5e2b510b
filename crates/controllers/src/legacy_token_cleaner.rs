//! Marks token Secrets that accounts name among their own and that nobody used for a year, and deletes them after another.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#legacy-serviceaccount-token-cleaner>

use access::service_account::{INVALID_SINCE, LAST_USED, names_secret};
use kinds::{PODS, SECRETS};
use object::{Key, Snapshot, Time};
use plan::{Expect, Plan, Write};
use serde_json::json;

use crate::token_secret::{TokenSecret, of_token};
use crate::{Controller, Settings, Watch, legacy_token_tracking};

pub static CONTROLLER: Controller = Controller {
    name: "legacy-serviceaccount-token-cleaner-controller",
    user: "legacy-service-account-token-cleaner",
    watches: &[Watch { resource: SECRETS, keys: of_token }],
    reconcile,
    refused: None,
    resync_secs: Some(DAY_SECS),
};

const DAY_SECS: i64 = 24 * 60 * 60;
/// Upstream's `--legacy-service-account-token-clean-up-period`.
const UNUSED_SECS: i64 = 365 * DAY_SECS;

fn reconcile(snapshot: &Snapshot, key: &Key, now: Time, _: &Settings) -> Plan {
    let mut plan = Plan::default();
    let Some(secret) = snapshot.get(key).filter(|secret| !secret.meta.is_deleting()) else { return plan };
    let Some(since) = legacy_token_tracking::since(snapshot) else { return plan };
    let long_ago = now.plus_secs(-UNUSED_SECS);
    // Uses are noted for certain from the second day on.
    if since.plus_secs(DAY_SECS) > long_ago || secret.meta.creation_timestamp.is_none_or(|at| at >= long_ago)
    {
        return plan;
    }
    let is_recent = |day: Time| day.day() >= long_ago.day();
    // What is not a day says nothing of the last use, and the Secret is left alone.
    if secret.meta.label(LAST_USED).is_some_and(|day| Time::of_day(day).is_none_or(is_recent)) {
        return plan;
    }
    let account = TokenSecret::of(secret).and_then(|held| held.account(snapshot, &key.namespace));
    if !account.is_some_and(|account| names_secret(account, &key.name)) || is_in_use(snapshot, key) {
        return plan;
    }
    match secret.meta.label(INVALID_SINCE).and_then(Time::of_day) {
        None => plan.write(Write::Merge {
            key: key.clone(),
            expect: Expect::same(secret),
            subresource: "",
            patch: json!({"metadata": {"labels": {INVALID_SINCE: now.day()}}}),
        }),
        Some(since) if is_recent(since) => {}
        Some(_) => plan.write(Write::Delete {
            key: key.clone(),
            expect: Expect::unchanged(secret),
            grace_seconds: None,
            propagation: None,
        }),
    }
    plan
}

fn is_in_use(snapshot: &Snapshot, secret: &Key) -> bool {
    snapshot.list(PODS, &secret.namespace).any(|pod| access::is_secret_of_pod(pod, &secret.name))
}
