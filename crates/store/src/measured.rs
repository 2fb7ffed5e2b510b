//! A store whose requests are counted, whichever engine answers them.

use std::sync::Arc;
use std::time::Instant;

use metrics::{Counter, Family, Histogram, Page};
use object::Resource;

use crate::{Commit, CommitError, Op, Over, Pending, Precondition, Put, Store, Transaction};

/// Upstream's buckets of `etcd_request_duration_seconds`.
static SECONDS: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0,
];

/// What was asked of a store: operation and resource.
type Labels = (&'static str, Resource);

/// What a store was asked, and how long it took. Reads are answered from memory, and are none.
pub struct Measures {
    /// Every request counts here when it is answered.
    took: Family<Labels, Histogram>,
    errors: Family<Labels, Counter>,
}

impl Default for Measures {
    fn default() -> Self {
        Self { took: Family::new(|| Histogram::new(&SECONDS)), errors: Family::default() }
    }
}

impl Measures {
    /// Under the names that upstream has for its requests to etcd.
    pub fn write(&self, page: &mut Page) {
        let labels = |operation: &'static str, resource: Resource| {
            [("group", resource.group()), ("operation", operation), ("resource", resource.plural())]
        };
        let took = self.took.sorted();
        let name = "etcd_request_duration_seconds";
        page.head(
            name,
            "histogram",
            "[ALPHA] Etcd request latency in seconds for each operation and object type.",
        );
        for ((operation, resource), one) in &took {
            page.histogram(name, &labels(operation, *resource), one);
        }
        let errors = self.errors.sorted();
        let name = "etcd_request_errors_total";
        page.head(name, "counter", "[ALPHA] Etcd failed request counts for each operation and object type.");
        for ((operation, resource), count) in &errors {
            page.sample(name, &labels(operation, *resource), count.get());
        }
        let name = "etcd_requests_total";
        page.head(name, "counter", "[ALPHA] Etcd request counts for each operation and object type.");
        for ((operation, resource), one) in &took {
            page.sample(name, &labels(operation, *resource), one.count());
        }
    }
}

/// A store that counts.
pub struct Measured {
    store: Arc<dyn Store>,
    measures: Measures,
}

impl Measured {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, measures: Measures::default() }
    }

    async fn timed(&self, transaction: Transaction) -> Result<Commit, CommitError> {
        let labels = transaction.ops.first().map(|op| (operation(op), op.key.resource));
        let began = Instant::now();
        let done = self.store.commit(transaction).await;
        if let Some(labels) = labels {
            self.measures.took.of(&labels).took(began.elapsed());
            if let Err(CommitError::Store(_)) = done {
                self.measures.errors.of(&labels).increase();
            }
        }
        done
    }
}

/// As upstream calls what it does with a key.
fn operation(op: &Op) -> &'static str {
    match (&op.put, op.precondition) {
        (Put::Delete, _) => "delete",
        (Put::Nothing, _) => "get",
        (Put::Object(_), Precondition::Absent) => "create",
        (Put::Object(_), _) => "update",
    }
}

impl Over for Measured {
    fn below(&self) -> &dyn Store {
        &*self.store
    }

    fn pass(&self, transaction: Transaction) -> Pending<'_, Result<Commit, CommitError>> {
        Box::pin(self.timed(transaction))
    }

    fn counted(&self) -> Option<&Measures> {
        Some(&self.measures)
    }
}

#[cfg(test)]
mod tests {
    use object::{Draft, Key, body};
    use serde_json::json;

    use super::*;
    use crate::Memory;

    #[tokio::test]
    async fn what_is_asked_of_a_store_is_told_by_operation_and_resource() {
        let store = Measured::new(Arc::new(Memory::new()));
        let key = Key::new(Resource::new("deployments.apps"), "default", "a");
        let draft = || {
            let object = json!({"metadata": {"name": "a", "namespace": "default"}});
            Draft::read(key.clone(), Box::default(), body::encode(&object)).expect("a draft")
        };
        let made = store.commit(Op::create(draft()).into()).await.expect("made").revision;
        let changed = store.commit(Op::update(draft(), made).into()).await.expect("changed").revision;
        store.commit(Op::update(draft(), made).into()).await.expect_err("somebody was faster");
        store.commit(Op::delete(key.clone(), changed).into()).await.expect("gone");
        store.close().await;
        store.commit(Op::create(draft()).into()).await.expect_err("closed");
        assert_eq!(store.received(), [(key.resource, 3)]);
        let mut page = Page::default();
        store.measures().expect("measures").write(&mut page);
        let text = page.into_text();
        for line in [
            "etcd_requests_total{group=\"apps\",operation=\"create\",resource=\"deployments\"} 2",
            "etcd_requests_total{group=\"apps\",operation=\"update\",resource=\"deployments\"} 2",
            "etcd_requests_total{group=\"apps\",operation=\"delete\",resource=\"deployments\"} 1",
            "etcd_request_errors_total{group=\"apps\",operation=\"create\",resource=\"deployments\"} 1",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in {text}");
        }
        assert_eq!(text.matches("etcd_request_errors_total{").count(), 1, "{text}");
    }
}
