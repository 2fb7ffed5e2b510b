//! How long the containers of a pod that are being stopped may still live. It can get shorter while they are.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

/// One pod's; clones are the same.
#[derive(Clone, Default)]
pub struct Patience(watch::Sender<BTreeMap<String, Instant>>);

impl Patience {
    /// A container has this long from now, or less if it had less.
    pub fn give(&self, container_id: &str, grace: Duration) {
        let now = Instant::now();
        let end = now.checked_add(grace).unwrap_or(now);
        self.0.send_modify(|ends| {
            ends.entry(container_id.to_owned()).and_modify(|held| *held = end.min(*held)).or_insert(end);
        });
    }

    /// It has been stopped.
    pub fn forget(&self, container_id: &str) {
        self.0.send_if_modified(|ends| ends.remove(container_id).is_some());
    }

    /// Returns when a container's time is over, and not before `earliest`.
    pub async fn is_over(&self, container_id: &str, earliest: Instant) {
        let mut ends = self.0.subscribe();
        loop {
            let end = ends.borrow_and_update().get(container_id).copied();
            let end = end.map_or(earliest, |end| end.max(earliest));
            match timeout_at(end, ends.changed()).await {
                Ok(Ok(())) => {}
                // Nobody can shorten it any more.
                Ok(Err(_)) => return sleep_until(end).await,
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const SECOND: Duration = Duration::from_secs(1);

    /// Seconds until the patience with `c` is over: it has a minute, and after two seconds what is given anew.
    async fn lasts(anew: Option<Duration>, earliest: Duration) -> u64 {
        let (began, patience) = (Instant::now(), Patience::default());
        patience.give("c", MINUTE);
        patience.give("other", Duration::ZERO);
        let shorten = async {
            tokio::time::sleep(2 * SECOND).await;
            if let Some(anew) = anew {
                patience.give("c", anew);
            }
        };
        tokio::join!(patience.is_over("c", began + earliest), shorten);
        began.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn it_gets_shorter_and_never_longer() {
        assert_eq!(lasts(None, SECOND).await, 60);
        assert_eq!(lasts(Some(SECOND), SECOND).await, 3, "a shorter grace counts from when it was given");
        assert_eq!(lasts(Some(SECOND), 10 * SECOND).await, 10, "nobody is killed before the earliest moment");
        assert_eq!(lasts(Some(MINUTE), SECOND).await, 60, "a later end does not replace an earlier one");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_stop_has_its_own_time() {
        let (began, patience) = (Instant::now(), Patience::default());
        patience.give("c", SECOND);
        patience.forget("c");
        patience.give("c", MINUTE);
        patience.is_over("c", began).await;
        assert_eq!(began.elapsed(), MINUTE);
    }
}
