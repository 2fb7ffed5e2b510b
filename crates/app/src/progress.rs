//! What is being done, told to whoever waits for it.

use std::time::Instant;

use tokio::sync::mpsc;

use crate::admin::Told;

/// Tells whoever waits what is being done.
#[derive(Clone)]
pub struct Progress(Option<mpsc::UnboundedSender<Told>>);

impl Progress {
    pub fn to(listener: mpsc::UnboundedSender<Told>) -> Self {
        Self(Some(listener))
    }

    pub fn none() -> Self {
        Self(None)
    }

    pub fn doing(&self, what: &str) {
        self.tell(Told::Doing { what: what.to_owned() });
    }

    pub fn step(&self, what: impl Into<String>, since: Instant) {
        let millis = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.tell(Told::Step { what: what.into(), millis });
    }

    pub fn tell(&self, told: Told) {
        if let Some(listener) = &self.0 {
            // Nobody listening any more does not stop the work.
            let _ = listener.send(told);
        }
    }
}
