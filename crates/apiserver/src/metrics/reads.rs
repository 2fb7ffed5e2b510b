//! `apiserver_cache_list_*`, `apiserver_watch_cache_*`: what is read of the state in memory, which is what upstream calls its watch cache.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::metrics::{Counter, Family, Histogram, Page};
use object::Resource;

static WAIT_SECONDS: [f64; 13] = [0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0];

/// The counts of one server.
#[derive(Default)]
pub(crate) struct Reads {
    /// By resource, and the field that was looked up, if one was: `spec.nodeName`.
    lists: Family<(Resource, &'static str), Listed>,
    /// By resource: lists that wanted the newest state, which could not be had.
    failed: Family<Resource, Counter>,
    /// Objects that watches began with, by resource.
    initial: Family<Resource, Counter>,
}

/// The lists of one resource by one index.
pub(crate) struct Listed {
    lists: Counter,
    /// Objects that were looked at, and those that were given.
    fetched: Counter,
    returned: Counter,
    /// Of those of the newest state: how long it took to be sure of that.
    waited: Histogram,
}

impl Default for Listed {
    fn default() -> Self {
        let waited = Histogram::new(&WAIT_SECONDS);
        Self { lists: Counter::default(), fetched: Counter::default(), returned: Counter::default(), waited }
    }
}

/// One list on its way out, which is counted when all of it was read, or nobody wants more of it.
#[derive(Default)]
pub(crate) struct Listing {
    home: Option<Arc<Listed>>,
    fetched: AtomicU64,
    returned: AtomicU64,
}

impl Listing {
    pub(crate) fn saw(&self, fetched: u64, returned: u64) {
        self.fetched.fetch_add(fetched, Ordering::Relaxed);
        self.returned.fetch_add(returned, Ordering::Relaxed);
    }

    /// Objects that were looked at, and those that were given.
    pub(crate) fn seen(&self) -> (u64, u64) {
        (self.fetched.load(Ordering::Relaxed), self.returned.load(Ordering::Relaxed))
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        if let Some(home) = &self.home {
            home.lists.increase();
            home.fetched.add(*self.fetched.get_mut());
            home.returned.add(*self.returned.get_mut());
        }
    }
}

impl Reads {
    /// A list begins; `index`: the field that leads to its objects, or nothing. `waited`: how long it took to be sure of the newest state,
    /// if it is of that.
    pub(crate) fn list(&self, resource: Resource, index: &'static str, waited: Option<Duration>) -> Listing {
        let home = self.lists.of(&(resource, index));
        waited.into_iter().for_each(|waited| home.waited.took(waited));
        let mut listing = Listing::default();
        listing.home = Some(home);
        listing
    }

    /// The newest state could not be had for a list.
    pub(crate) fn failed(&self, resource: Resource) {
        self.failed.of(&resource).increase();
    }

    /// A watch has sent the state that it begins with: so many objects.
    pub(crate) fn began(&self, resource: Resource, objects: u64) {
        self.initial.of(&resource).add(objects);
    }

    pub(super) fn write(&self, page: &mut Page) {
        let name = "apiserver_init_events_total";
        let help = "[ALPHA] Counter of init events processed in watch cache broken by resource type.";
        page.head(name, "counter", help);
        for (resource, objects) in self.initial.sorted() {
            page.sample(name, &labels(resource), objects.get());
        }
        let lists = self.lists.sorted();
        let index = |field: &str| if field.is_empty() { String::new() } else { format!("f:{field}") };
        for (name, help, count) in [
            (
                "apiserver_cache_list_fetched_objects_total",
                "[ALPHA] Number of objects read from watch cache in the course of serving a LIST request",
                (|listed| &listed.fetched) as fn(&Listed) -> &Counter,
            ),
            (
                "apiserver_cache_list_total",
                "[ALPHA] Number of LIST requests served from watch cache",
                |listed| &listed.lists,
            ),
        ] {
            page.head(name, "counter", help);
            for ((resource, field), listed) in &lists {
                let [group, plural] = labels(*resource);
                page.sample(name, &[group, ("index", &index(field)), plural], count(listed).get());
            }
        }
        let name = "apiserver_cache_list_returned_objects_total";
        page.head(name, "counter", "[ALPHA] Number of objects returned for a LIST request from watch cache");
        for of_resource in lists.chunk_by(|((one, _), _), ((other, _), _)| one == other) {
            let returned: u64 = of_resource.iter().map(|(_, listed)| listed.returned.get()).sum();
            page.sample(name, &labels(of_resource[0].0.0), returned);
        }
        let mut consistent: BTreeMap<Resource, (Histogram, u64)> = BTreeMap::new();
        let none = || (Histogram::new(&WAIT_SECONDS), 0);
        for ((resource, _), listed) in &lists {
            consistent.entry(*resource).or_insert_with(none).0.absorb(&listed.waited);
        }
        for (resource, failed) in self.failed.sorted() {
            consistent.entry(resource).or_insert_with(none).1 += failed.get();
        }
        let name = "apiserver_watch_cache_consistent_read_total";
        page.head(name, "counter", "[ALPHA] Counter for consistent reads from cache.");
        for (resource, (waited, failed)) in &consistent {
            for (success, count) in [("false", *failed), ("true", waited.count())] {
                if count > 0 {
                    let [group, plural] = labels(*resource);
                    page.sample(name, &[("fallback", "false"), group, plural, ("success", success)], count);
                }
            }
        }
        let name = "apiserver_watch_cache_read_wait_seconds";
        let help = "[ALPHA] Histogram of time spent waiting for a watch cache to become fresh.";
        page.head(name, "histogram", help);
        for (resource, (waited, _)) in consistent.iter().filter(|(_, (waited, _))| waited.count() > 0) {
            page.histogram(name, &labels(*resource), waited);
        }
    }
}

fn labels(resource: Resource) -> [(&'static str, &'static str); 2] {
    [("group", resource.group()), ("resource", resource.plural())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_counted_with_what_they_went_through() {
        const PODS: Resource = Resource::new("pods");
        let reads = Reads::default();
        reads.list(PODS, "", Some(Duration::from_millis(30))).saw(100, 3);
        let by_node = reads.list(PODS, "spec.nodeName", None);
        by_node.saw(4, 4);
        by_node.saw(1, 1);
        drop(by_node);
        Listing::default().saw(1000, 1000);
        reads.failed(PODS);
        reads.began(PODS, 7);
        let mut page = Page::default();
        reads.write(&mut page);
        let text = page.into_text();
        for line in [
            "apiserver_cache_list_fetched_objects_total{group=\"\",index=\"\",resource=\"pods\"} 100",
            "apiserver_cache_list_fetched_objects_total{group=\"\",index=\"f:spec.nodeName\",resource=\"pods\"} 5",
            "apiserver_cache_list_total{group=\"\",index=\"f:spec.nodeName\",resource=\"pods\"} 1",
            "apiserver_cache_list_returned_objects_total{group=\"\",resource=\"pods\"} 8",
            "apiserver_init_events_total{group=\"\",resource=\"pods\"} 7",
            "apiserver_watch_cache_consistent_read_total{fallback=\"false\",group=\"\",resource=\"pods\",success=\"false\"} 1",
            "apiserver_watch_cache_consistent_read_total{fallback=\"false\",group=\"\",resource=\"pods\",success=\"true\"} 1",
            "apiserver_watch_cache_read_wait_seconds_bucket{group=\"\",resource=\"pods\",le=\"0.025\"} 0",
            "apiserver_watch_cache_read_wait_seconds_bucket{group=\"\",resource=\"pods\",le=\"0.05\"} 1",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in {text}");
        }
    }
}
