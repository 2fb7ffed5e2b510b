//! Deletes CertificateSigningRequests that are over: decided an hour ago, or never decided for a day.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#request-signing-process>

use kinds::CERTIFICATE_SIGNING_REQUESTS;
use object::{Key, Snapshot, Time};
use plan::{Expect, Plan, Write};
use serde::Deserialize;

use crate::ownership::own_key;
use crate::views::{Condition, condition};
use crate::{Controller, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "certificatesigningrequest-cleaner-controller",
    user: "certificate-controller",
    watches: &[Watch { resource: CERTIFICATE_SIGNING_REQUESTS, keys: own_key }],
    reconcile,
    refused: None,
    resync_secs: None,
};

const DECIDED_SECS: i64 = 3_600;
const PENDING_SECS: i64 = 24 * 3_600;

#[derive(Deserialize)]
struct View {
    #[serde(default)]
    status: RequestStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RequestStatus {
    conditions: Vec<Condition>,
}

fn reconcile(snapshot: &Snapshot, key: &Key, now: Time, _: &Settings) -> Plan {
    let mut plan = Plan::default();
    let Some(request) = snapshot.get(key) else { return plan };
    let Ok(View { status }) = request.decode() else { return plan };
    let decided =
        ["Approved", "Denied", "Failed"].iter().find_map(|kind| condition(&status.conditions, kind));
    let over = match decided {
        Some(decided) => {
            decided.last_update_time.or(decided.last_transition_time).map(|at| at.plus_secs(DECIDED_SECS))
        }
        None => request.meta.creation_timestamp.map(|at| at.plus_secs(PENDING_SECS)),
    };
    match over {
        Some(at) if at > now => plan.wake(at),
        Some(_) => plan.write(Write::Delete {
            key: key.clone(),
            expect: Expect::unchanged(request),
            grace_seconds: None,
            propagation: None,
        }),
        None => {}
    }
    plan
}
