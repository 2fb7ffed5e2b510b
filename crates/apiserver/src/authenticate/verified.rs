//! Tokens that were looked at already.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::Authenticated;
use crate::recent::Recent;

/// How long a verified token is believed without looking again.
const TOKEN_TRUST: Duration = Duration::from_secs(10);
pub(super) const MOST_TOKENS: usize = 4096;

/// Tokens that were verified a moment ago, by their digest.
pub(crate) struct Verified(Mutex<Recent<[u8; 32], (Instant, Authenticated)>>);

impl Default for Verified {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(MOST_TOKENS)))
    }
}

impl Verified {
    pub(super) fn get(&self, digest: &[u8; 32]) -> Option<Authenticated> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, believed) = known.get(digest)?;
        (since.elapsed() < TOKEN_TRUST).then(|| believed.clone())
    }

    pub(super) fn put(&self, digest: [u8; 32], believed: &Authenticated) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.put(digest, (Instant::now(), believed.clone()));
    }
}
