//! Brings one layer from a registry into a new blob: broken transfers go on where they stopped, the digest is
//! taken while the content streams, and the file is written on a thread that may block.

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio::sync::mpsc;
use tokio::task::{JoinError, spawn_blocking};

use super::blob::NewBlob;
use super::digest::Digest;
use super::pull::{OnProgress, Progress};
use super::registry::{RegistryError, Session};
use super::store::{At, Layer, Store, StoreError};
use super::transport::Fault;

/// Of one transfer, without a mebibyte of progress in between.
const MAX_ATTEMPTS: u32 = 5;
const PROGRESS: u64 = 1 << 20;
const FIRST_DELAY: Duration = Duration::from_millis(200);
/// Pieces that wait to be written.
const QUEUED_CHUNKS: usize = 16;

pub(super) struct Transfer<'a> {
    pub(super) session: &'a Session,
    pub(super) layer: &'a Layer,
    pub(super) progress: &'a OnProgress,
}

impl Transfer<'_> {
    /// Fills `blob` and gives it its name. What fetching and what writing came to; the latter is nearer to the cause.
    pub(super) async fn run(
        &self,
        blob: NewBlob,
        store: &Store,
    ) -> (Result<(), RegistryError>, Result<Result<(), StoreError>, JoinError>) {
        let (pieces, queue) = mpsc::channel(QUEUED_CHUNKS);
        let (store, wanted) = (store.clone(), self.layer.blob);
        let writer = spawn_blocking(move || write(&store, blob, queue, &wanted));
        let fetched = self.fetch(&pieces).await;
        if fetched.is_ok() {
            // It fails only if the writer has ended, whose own error is the better one.
            let _ = pieces.send(Piece::Keep).await;
        }
        drop(pieces);
        (fetched, writer.await)
    }

    /// Sends a blob to the writer, going on where a broken transfer stopped.
    async fn fetch(&self, pieces: &mpsc::Sender<Piece>) -> Result<(), RegistryError> {
        let mut done = 0;
        let mut attempts = 0;
        let mut last_failure = 0;
        loop {
            let error = match self.fetch_from(&mut done, pieces).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if done >= last_failure + PROGRESS {
                attempts = 0;
            }
            last_failure = done;
            attempts += 1;
            if attempts >= MAX_ATTEMPTS || !error.is_transient() {
                return Err(error);
            }
            tracing::debug!(blob = %self.layer.blob, done, attempts, %error, "transfer broke, going on");
            tokio::time::sleep(FIRST_DELAY * 2u32.pow(attempts - 1)).await;
        }
    }

    async fn fetch_from(&self, done: &mut u64, pieces: &mpsc::Sender<Piece>) -> Result<(), RegistryError> {
        let (blob, total) = (self.layer.blob, self.layer.size_bytes);
        let response = self.session.blob(&blob, *done).await?;
        // A registry may not know ranges, and begins anew.
        if *done > 0 && !continues(&response, *done) {
            *done = 0;
            if pieces.send(Piece::Restart).await.is_err() {
                return Err(RegistryError::Invalid("the writer ended".to_string()));
            }
        }
        let mut body = response.into_body();
        while let Some(chunk) = body.chunk().await? {
            *done += chunk.len() as u64;
            if *done > total {
                return Err(RegistryError::Invalid(format!(
                    "blob {blob} is longer than the {total} bytes its manifest says"
                )));
            }
            if pieces.send(Piece::Data(chunk)).await.is_err() {
                return Err(RegistryError::Invalid("the writer ended".to_string()));
            }
            (self.progress)(Progress::Layer { blob, done: *done, total });
        }
        if *done < total {
            return Err(body.fail(Fault::Short { done: *done, total }).into());
        }
        Ok(())
    }
}

fn continues<B>(response: &http::Response<B>, offset: u64) -> bool {
    let range = response.headers().get(http::header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    response.status() == StatusCode::PARTIAL_CONTENT
        && range.is_none_or(|range| range.starts_with(&format!("bytes {offset}-")))
}

enum Piece {
    Data(Bytes),
    Restart,
    Keep,
}

/// Writes pieces on a thread that may block; without a `Keep` at the end the file goes.
fn write(
    store: &Store,
    mut blob: NewBlob,
    mut queue: mpsc::Receiver<Piece>,
    wanted: &Digest,
) -> Result<(), StoreError> {
    while let Some(piece) = queue.blocking_recv() {
        match piece {
            Piece::Data(bytes) => blob.write_all(&bytes).at("writing", &blob.path)?,
            Piece::Restart => blob.restart()?,
            Piece::Keep => return blob.keep(store, wanted),
        }
    }
    Ok(())
}
