//! A cluster's state in a stock etcd.

use std::sync::Arc;
use std::time::Duration;

use store::{Etcd, EtcdOpenError, EtcdOptions, Import, Window, import_json};

/// Upstream's `--etcd-compaction-interval`.
const COMPACT_EVERY: Duration = Duration::from_secs(300);

pub async fn open(endpoints: Vec<String>) -> Result<Etcd, EtcdOpenError> {
    let options = EtcdOptions {
        endpoints,
        tls: None,
        builtins: kinds::all().iter().map(|kind| kind.resource).collect(),
        import: import(),
        window: Window::default(),
        compact_every: Some(COMPACT_EVERY),
    };
    Etcd::open(options).await
}

/// JSON is read; protobuf, which upstream writes unless told otherwise, says so in the error.
fn import() -> Import {
    Arc::new(|resource, value| {
        let Some(kind) = kinds::of(resource) else { return Err(format!("no kind is served as {resource}")) };
        import_json(value, |object| gate::selectable_values(kind, object))
    })
}
