//! The Lease by which an API server says that it is there: KEP-1965, as upstream's kube-apiserver does it.
//!
//! It is made anew when the server starts, renewed every ten seconds, and deleted when the server stops. Of servers that ended without
//! doing so, any other deletes it once it has run out, which each looks for every hour.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use gate::Gate;
use kinds::LEASES;
use object::{Key, Object, Reason, Snapshot, Status, Time};
use plan::{Expect, User, Write};
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;
use tracing::warn;

use crate::run::Clock;

const NAMESPACE: &str = "kube-system";
/// What the servers of one kind have in common, and which kind it is.
const LABEL: &str = "apiserver.kubernetes.io/identity";
const COMPONENT: &str = "kube-apiserver";
/// Upstream's IdentityLeaseDurationSeconds, IdentityLeaseRenewIntervalPeriod and IdentityLeaseGCPeriod.
const LEASE_SECONDS: i64 = 3600;
const RENEW_EVERY: Duration = Duration::from_secs(10);
const COLLECT_EVERY: Duration = Duration::from_secs(3600);
/// A server that is told to stop does not wait longer than this for its Lease to be deleted.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// One API server.
pub struct ServerLease {
    /// `apiserver-` and what tells it from the others.
    pub id: String,
    /// Of the host that it runs on.
    pub hostname: String,
    /// Another one each time that the server starts.
    pub holder: String,
    pub gate: Arc<Gate>,
    pub clock: Clock,
}

impl ServerLease {
    /// Keeps the Lease until `shutdown` resolves.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let mut shutdown = pin!(shutdown);
        let mut collect_at = Instant::now();
        self.told("deleted", self.delete(&self.key()).await);
        loop {
            self.told("renewed", self.renew().await);
            if collect_at <= Instant::now() {
                self.collect().await;
                collect_at = Instant::now() + COLLECT_EVERY;
            }
            tokio::select! {
                () = tokio::time::sleep(RENEW_EVERY) => {}
                () = &mut shutdown => break,
            }
        }
        match tokio::time::timeout(STOP_WITHIN, self.delete(&self.key())).await {
            Ok(done) => self.told("deleted", done),
            Err(_) => warn!(lease = self.id, "the lease of this server could not be deleted in time"),
        }
    }

    fn key(&self) -> Key {
        Key::new(LEASES, NAMESPACE, &*self.id)
    }

    /// Another one may have been faster; what fails otherwise is tried again with the next renewal.
    fn told(&self, operation: &str, done: Result<(), Status>) {
        match done {
            Err(status) if !matches!(status.reason, Reason::NotFound | Reason::Conflict) => {
                warn!(lease = self.id, %status, "the lease of this server could not be {operation}");
            }
            _ => {}
        }
    }

    async fn renew(&self) -> Result<(), Status> {
        let now = (self.clock)().micro();
        let spec = json!({
            "holderIdentity": self.holder, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now,
        });
        let labels = json!({LABEL: COMPONENT, "kubernetes.io/hostname": self.hostname});
        let snapshot = self.gate.store().snapshot();
        let write = match snapshot.get(&self.key()) {
            Some(lease) => Write::Merge {
                key: lease.key.clone(),
                expect: Expect::unchanged(lease),
                subresource: "",
                patch: json!({"metadata": {"labels": labels}, "spec": spec}),
            },
            None => Write::Create {
                resource: LEASES,
                object: json!({
                    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                    "metadata": {"name": self.id, "namespace": NAMESPACE, "labels": labels}, "spec": spec,
                }),
            },
        };
        self.gate.execute(&user(), write).await.map(drop)
    }

    async fn delete(&self, key: &Key) -> Result<(), Status> {
        let snapshot = self.gate.store().snapshot();
        let Some(lease) = snapshot.get(key) else { return Ok(()) };
        let write = Write::Delete {
            key: key.clone(),
            expect: Expect::unchanged(lease),
            grace_seconds: None,
            propagation: None,
        };
        self.gate.execute(&user(), write).await.map(drop)
    }

    async fn collect(&self) {
        for key in run_out(&self.gate.store().snapshot(), (self.clock)()) {
            self.told("deleted", self.delete(&key).await);
        }
    }
}

/// As upstream's API server calls itself to itself.
fn user() -> User {
    User::new("system:kube-apiserver", &["system:masters", "system:authenticated"])
}

/// Those of API servers that were not renewed for as long as they say they last, or do not say.
fn run_out(snapshot: &Snapshot, now: Time) -> Vec<Key> {
    let leases = snapshot.list(LEASES, NAMESPACE);
    let ours = leases.filter(|lease| lease.meta.labels.get(LABEL).is_some_and(|kind| **kind == *COMPONENT));
    let gone = ours.filter(|lease| ends(lease).is_none_or(|end| end < now));
    gone.map(|lease| lease.key.clone()).collect()
}

fn ends(lease: &Object) -> Option<Time> {
    #[derive(Deserialize)]
    struct Lease {
        spec: Spec,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Spec {
        renew_time: Time,
        lease_duration_seconds: i64,
    }
    let Spec { renew_time, lease_duration_seconds } = lease.decode::<Lease>().ok()?.spec;
    Some(renew_time.plus_secs(lease_duration_seconds))
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::election::tests::{clock, gate};

    fn server(id: &str, holder: &str, gate: &Arc<Gate>) -> ServerLease {
        let [id, holder, hostname] = [id, holder, "host"].map(str::to_owned);
        ServerLease { id, hostname, holder, gate: gate.clone(), clock: clock() }
    }

    fn holders(gate: &Gate) -> Vec<String> {
        let snapshot = gate.store().snapshot();
        let values = snapshot.list(LEASES, NAMESPACE).map(|lease| lease.to_value().expect("JSON"));
        values.map(|lease| lease["spec"]["holderIdentity"].as_str().expect("a holder").to_owned()).collect()
    }

    async fn pass(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_there_as_long_as_its_server() {
        let gate = gate().await;
        let (stop, stopped) = oneshot::channel::<()>();
        let first = tokio::spawn(server("apiserver-a", "a_1", &gate).run(async { drop(stopped.await) }));
        pass(1).await;
        let key = server("apiserver-a", "", &gate).key();
        let lease = || gate.store().snapshot().get(&key).cloned().expect("a lease");
        let made = lease();
        let value = made.to_value().expect("JSON");
        let labels = json!({LABEL: COMPONENT, "kubernetes.io/hostname": "host"});
        assert_eq!(
            (&value["metadata"]["labels"], &value["spec"]["leaseDurationSeconds"]),
            (&labels, &json!(3600))
        );
        pass(10).await;
        assert!(ends(&lease()) > ends(&made), "it is renewed");
        // One that ends without a word, and comes back under its name.
        first.abort();
        let back = tokio::spawn(server("apiserver-a", "a_2", &gate).run(async {
            pass(60).await;
        }));
        pass(1).await;
        assert_eq!(holders(&gate), ["a_2"]);
        assert_ne!(lease().meta.uid, made.meta.uid, "it is another one");
        back.await.expect("it ends");
        assert_eq!(holders(&gate), [""; 0], "it is taken along");
        drop(stop);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_renews_is_collected() {
        let gate = gate().await;
        let gone = tokio::spawn(server("apiserver-gone", "gone", &gate).run(std::future::pending()));
        pass(1).await;
        gone.abort();
        let candidate = json!({
            "metadata": {"name": "some-leader", "namespace": NAMESPACE},
            "spec": {"holderIdentity": "leader", "leaseDurationSeconds": 1, "renewTime": clock()().micro()},
        });
        let write = Write::Create { resource: LEASES, object: candidate };
        gate.execute(&user(), write).await.expect("a lease");
        let lives = tokio::spawn(server("apiserver-lives", "lives", &gate).run(std::future::pending()));
        pass(3600).await;
        assert_eq!(holders(&gate), ["gone", "lives", "leader"]);
        pass(3610).await;
        assert_eq!(holders(&gate), ["lives", "leader"], "nobody's but those of API servers");
        lives.abort();
    }
}
