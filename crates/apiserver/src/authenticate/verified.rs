//! Tokens that were looked at already.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use plan::User;

use crate::recent::Recent;

/// How long a verified token is believed without looking again.
const TOKEN_TRUST: Duration = Duration::from_secs(10);
pub(super) const MOST_TOKENS: usize = 4096;

/// Tokens that were verified a moment ago, by their digest.
pub(crate) struct Verified(Mutex<Recent<[u8; 32], (Instant, User)>>);

impl Default for Verified {
    fn default() -> Self {
        Self(Mutex::new(Recent::new(MOST_TOKENS)))
    }
}

impl Verified {
    pub(super) fn get(&self, digest: &[u8; 32]) -> Option<User> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, user) = known.get(digest)?;
        (since.elapsed() < TOKEN_TRUST).then(|| user.clone())
    }

    pub(super) fn put(&self, digest: [u8; 32], user: &User) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.put(digest, (Instant::now(), user.clone()));
    }
}
