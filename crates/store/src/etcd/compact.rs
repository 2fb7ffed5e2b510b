//! Compaction of etcd, as upstream's API servers agree on it: whoever moves `compact_rev_key` first compacts to what was current at its last turn.
//!
//! The key's version is the number of the turn. A server that finds another number has lost this turn, and takes that number for the next.

use std::time::Duration;

use tonic::Status;

use super::wire::{AnyRequest, Client, Compare, PutRequest, RangeRequest, TxnRequest};

const KEY: &[u8] = b"compact_rev_key";

/// What a server remembers between turns.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Turn {
    number: i64,
    /// What was current at the last turn: what the next may compact to. Zero at first.
    revision: i64,
}

impl Turn {
    /// Takes a turn, unless another server was faster. Returns what to remember.
    pub(super) async fn take(self, client: &Client) -> Result<Self, Status> {
        let put = PutRequest { key: KEY.to_vec(), value: self.revision.to_string().into() };
        let get = RangeRequest { key: KEY.to_vec(), ..RangeRequest::default() };
        let answer = client
            .txn(TxnRequest {
                compare: vec![Compare::version_is(KEY.to_vec(), self.number)],
                success: vec![AnyRequest::Put(put).into()],
                failure: vec![AnyRequest::Range(get).into()],
            })
            .await?;
        let revision = answer.header.map_or(0, |header| header.revision);
        if !answer.succeeded {
            let number = answer.found().next().map_or(0, |kv| kv.version);
            return Ok(Self { number, revision });
        }
        if self.revision > 0 {
            client.compact(self.revision).await?;
        }
        Ok(Self { number: self.number + 1, revision })
    }
}

/// Takes a turn every so often, until the task ends.
pub(super) async fn run(client: Client, every: Duration) {
    let mut turn = Turn::default();
    loop {
        tokio::time::sleep(every).await;
        match turn.take(&client).await {
            Ok(next) => turn = next,
            Err(status) => tracing::warn!(error = status.message(), "etcd was not compacted"),
        }
    }
}
