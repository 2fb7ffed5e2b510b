//! Looks into clusters for their insights: what stands in the way of an upgrade and only the cluster itself knows.

use account::{Account, OpenError};
use aws::eks::observed::{self, Client, DeprecatedUse, Observed, Seen};
use aws::state::Record;
use object::{Key, Snapshot, Time};

use crate::clock::{now, time_of};
use crate::cluster::Cluster;

/// How often a cluster that does not run is looked for.
const LOOK_AGAIN_SECS: i64 = 600;

/// The key of a cluster's insights.
pub fn key(cluster: &str) -> Key {
    Key::new(Observed::RESOURCE, cluster, observed::NAME)
}

/// One run for a cluster, whose control plane is `running` if it does.
pub async fn keep(
    account: &Account,
    running: Option<&Cluster>,
    cluster: &str,
) -> Result<Option<Time>, OpenError> {
    let state = account.snapshot();
    let Some(due) = observed::due(&state, cluster) else { return Ok(None) };
    if due > now() {
        return Ok(Some(due));
    }
    if running.is_none() && !observed::is_asked_for(&state, cluster) {
        return Ok(Some(now().plus_secs(LOOK_AGAIN_SECS)));
    }
    let seen = running.map(|cluster| seen(&cluster.gate.store().snapshot(), cluster));
    account.change(|context| observed::observe(context, cluster, seen.clone())).await?;
    Ok(None)
}

fn seen(objects: &Snapshot, cluster: &Cluster) -> Seen {
    let deprecated = cluster.deprecated_uses().into_iter().map(|one| DeprecatedUse {
        group: one.group.to_owned(),
        version: one.version.to_owned(),
        resource: one.resource.to_owned(),
        removed: one.removed,
        instead: one.instead.map(str::to_owned),
        clients: one
            .clients
            .into_iter()
            .map(|client| Client {
                user_agent: client.user_agent,
                requests: client.requests,
                last: time_of(client.last),
            })
            .collect(),
    });
    Seen { at: now(), kubelets: observed::kubelets(objects), deprecated: deprecated.collect() }
}
