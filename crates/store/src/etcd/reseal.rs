//! Values that are kept under an older key, or plain, written anew under the current one.

use super::Etcd;
use super::commit::store_error;
use super::keys::ROOT;
use super::wire::{AnyRequest, Compare, KeyValue, PutRequest, RangeRequest, TxnRequest};
use crate::StoreError;

/// Values that are read at once.
const PAGE: i64 = 500;

impl Etcd {
    /// Goes through all values. Each is written where it still is as it was read, so that several servers may do it at once, and a
    /// change that comes between wins.
    pub(super) async fn seal_anew(&self) -> Result<(), StoreError> {
        if self.sealing.is_none() {
            return Ok(());
        }
        let mut request = RangeRequest {
            key: ROOT.into(),
            // The first key behind all that begin with the root.
            range_end: [&ROOT.as_bytes()[..ROOT.len() - 1], b"0"].concat(),
            limit: PAGE,
            ..RangeRequest::default()
        };
        let mut written = 0_usize;
        loop {
            let page = self.client.range(request.clone()).await.map_err(|status| store_error(&status))?;
            for kv in &page.kvs {
                written += usize::from(self.seal_one(kv).await?);
            }
            match page.kvs.last() {
                Some(last) if page.more => request.key = [&last.key[..], b"\0"].concat(),
                _ => break,
            }
        }
        tracing::info!(written, "everything is kept under the current key");
        Ok(())
    }

    async fn seal_one(&self, kv: &KeyValue) -> Result<bool, StoreError> {
        let (Some(sealing), Some(key)) = (&self.sealing, self.keys.read(&kv.key)) else { return Ok(false) };
        let opened = sealing.unseal(&key, &kv.key, &kv.value).await?;
        if !opened.is_stale {
            return Ok(false);
        }
        let value = sealing.seal(&key, &kv.key, &opened.plain)?.map_or(opened.plain, Into::into);
        let put = PutRequest { key: kv.key.to_vec(), value };
        let transaction = TxnRequest {
            compare: vec![Compare::modified_at(kv.key.to_vec(), kv.mod_revision as u64)],
            success: vec![AnyRequest::Put(put).into()],
            ..TxnRequest::default()
        };
        let answer = self.client.txn(transaction).await.map_err(|status| store_error(&status))?;
        Ok(answer.succeeded)
    }
}
