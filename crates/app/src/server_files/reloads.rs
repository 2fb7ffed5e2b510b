//! How often a file was followed that had changed, and how often it was not, under upstream's names.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use metrics::{Counter, Page};

/// Of the files of one server.
#[derive(Default)]
pub struct Reloads {
    pub authentication: Arc<Followings>,
    pub authorization: Arc<Followings>,
    pub encryption: Arc<Followings>,
}

/// Of one file.
#[derive(Default)]
pub struct Followings {
    failure: Done,
    success: Done,
}

#[derive(Default)]
struct Done {
    times: Counter,
    /// Seconds since 1970: the last time.
    last: AtomicU64,
}

impl Followings {
    /// The file had changed at this time; what it says now counts, or is wrong.
    pub(super) fn note(&self, is_followed: bool, at: SystemTime) {
        let done = if is_followed { &self.success } else { &self.failure };
        let seconds = at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        done.last.store(seconds, Ordering::Relaxed);
        done.times.increase();
    }

    fn done(&self) -> impl Iterator<Item = (&'static str, &Done)> {
        let both = [("failure", &self.failure), ("success", &self.success)];
        both.into_iter().filter(|(_, done)| done.times.get() > 0)
    }
}

impl Reloads {
    /// `server`: the id of the API server. What has never changed is not told of.
    pub fn write(&self, server: &str, page: &mut Page) {
        let digest = ring::digest::digest(&ring::digest::SHA256, server.as_bytes());
        let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let hash = format!("sha256:{hex}");
        for (of, stability, followings) in [
            ("authentication", "BETA", &self.authentication),
            ("authorization", "BETA", &self.authorization),
            ("encryption", "ALPHA", &self.encryption),
        ] {
            if followings.done().next().is_none() {
                continue;
            }
            let name = format!("apiserver_{of}_config_controller_automatic_reload_last_timestamp_seconds");
            let help = format!(
                "[{stability}] Timestamp of the last automatic reload of {of} configuration split by status and apiserver identity."
            );
            page.head(&name, "gauge", &help);
            for (status, done) in followings.done() {
                let last = done.last.load(Ordering::Relaxed);
                page.sample(&name, &[("apiserver_id_hash", &hash), ("status", status)], last);
            }
            let name = format!("apiserver_{of}_config_controller_automatic_reloads_total");
            let help = format!(
                "[{stability}] Total number of automatic reloads of {of} configuration split by status and apiserver identity."
            );
            page.head(&name, "counter", &help);
            for (status, done) in followings.done() {
                page.sample(&name, &[("apiserver_id_hash", &hash), ("status", status)], done.times.get());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_followed_is_told_by_its_server() {
        let reloads = Reloads::default();
        for (is_followed, seconds) in [(true, 10), (false, 20), (false, 30)] {
            reloads.authorization.note(is_followed, UNIX_EPOCH + Duration::from_secs(seconds));
        }
        reloads.encryption.note(true, UNIX_EPOCH + Duration::from_secs(40));
        let mut page = Page::default();
        reloads.write("abc", &mut page);
        let text = page.into_text();
        let hash =
            "apiserver_id_hash=\"sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"";
        for line in [
            format!(
                "apiserver_authorization_config_controller_automatic_reloads_total{{{hash},status=\"failure\"}} 2"
            ),
            format!(
                "apiserver_authorization_config_controller_automatic_reloads_total{{{hash},status=\"success\"}} 1"
            ),
            format!(
                "apiserver_authorization_config_controller_automatic_reload_last_timestamp_seconds{{{hash},status=\"failure\"}} 30"
            ),
            format!(
                "apiserver_encryption_config_controller_automatic_reloads_total{{{hash},status=\"success\"}} 1"
            ),
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in {text}");
        }
        assert!(!text.contains("authentication"), "it has not changed");
    }
}
