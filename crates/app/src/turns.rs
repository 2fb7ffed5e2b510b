//! Turns: of each name one at a time, and no name waits for another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

type Names = Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>;

/// Who works on what.
#[derive(Clone, Default)]
pub struct Turns(Names);

/// Nobody else has the turn of this name until it is dropped.
pub struct Turn {
    turns: Turns,
    name: String,
    held: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Waits until nobody has the turn of a name, in the order of asking.
    pub async fn take(&self, name: &str) -> Turn {
        let lock = self.names().entry(name.to_owned()).or_default().clone();
        let held = Some(lock.lock_owned().await);
        Turn { turns: self.clone(), name: name.to_owned(), held }
    }

    /// The names whose turn somebody has, or waits for.
    pub fn taken(&self) -> Vec<String> {
        self.names().keys().cloned().collect()
    }

    fn names(&self) -> MutexGuard<'_, HashMap<String, Arc<tokio::sync::Mutex<()>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn {
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut names = self.turns.names();
        self.held = None;
        // Whoever waits has a clone, made while the table was held.
        if names.get(&self.name).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            names.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn a_name_is_one_at_a_time_and_no_name_waits_for_another() {
        let turns = Turns::default();
        let first = turns.take("a").await;
        let mut second = pin!(turns.take("a"));
        assert!((&mut second).now_or_never().is_none(), "it is taken");
        let other = turns.take("b").await;
        let mut taken = turns.taken();
        taken.sort();
        assert_eq!(taken, ["a", "b"]);
        drop(first);
        let second = second.await;
        assert_eq!((second.name(), other.name()), ("a", "b"));
        drop((second, other));
        assert!(turns.taken().is_empty(), "nothing is kept of names that nobody works on");
    }

    #[tokio::test]
    async fn who_stops_waiting_keeps_nobody_waiting() {
        let turns = Turns::default();
        let first = turns.take("a").await;
        {
            let mut impatient = pin!(turns.take("a"));
            assert!((&mut impatient).now_or_never().is_none());
        }
        drop(first);
        drop(turns.take("a").await);
        assert!(turns.taken().is_empty());
    }
}
