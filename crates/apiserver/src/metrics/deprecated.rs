//! Who asks for versions of kinds that clients should leave: a metric of upstream's, and what the insights of EKS are made of.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use ::metrics::Page;

use crate::route::Target;

/// So many clients of one kind are told apart, by so many characters of what they call themselves; the others are one.
const MOST_CLIENTS: usize = 32;
const MOST_CHARS: usize = 200;
const OTHERS: &str = "others";

/// A version of a kind that was asked for although clients should leave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeprecatedUse {
    pub group: &'static str,
    /// `v1`
    pub version: &'static str,
    /// `endpoints`
    pub resource: &'static str,
    /// The minor version of Kubernetes that serves it no more, if anybody has said.
    pub removed: Option<u8>,
    /// Group with version of what is there instead.
    pub instead: Option<&'static str>,
    pub clients: Vec<DeprecatedClient>,
}

/// A client by its user agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeprecatedClient {
    pub user_agent: String,
    /// Requests since the server began.
    pub requests: u64,
    pub last: SystemTime,
}

#[derive(Default)]
pub(crate) struct DeprecatedUses(Mutex<BTreeMap<Labels, Use>>);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    subresource: String,
}

struct Use {
    removed: Option<u8>,
    instead: Option<&'static str>,
    /// Count and last time, by user agent.
    clients: BTreeMap<String, (u64, SystemTime)>,
}

impl DeprecatedUses {
    /// Of a request for such a version; its answer does not matter.
    pub(crate) fn record(&self, target: &Target, user_agent: &str, now: SystemTime) {
        let labels = Labels {
            group: target.kind.group,
            version: target.kind.version,
            resource: target.kind.resource.plural(),
            subresource: target.subresource.clone(),
        };
        let row = target.kind.deprecated;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = all.entry(labels).or_insert_with(|| Use {
            removed: row.and_then(|row| row.removed),
            instead: row.and_then(|row| row.instead).map(|(version, _)| version),
            clients: BTreeMap::new(),
        });
        let name: String = user_agent.chars().take(MOST_CHARS).collect();
        let is_room = found.clients.len() < MOST_CLIENTS || found.clients.contains_key(&name);
        let name = if is_room { name } else { OTHERS.to_owned() };
        let (count, last) = found.clients.entry(name).or_insert((0, now));
        *count += 1;
        *last = now;
    }

    /// All of them, subresources with what they belong to.
    pub(crate) fn all(&self) -> Vec<DeprecatedUse> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut told: Vec<DeprecatedUse> = Vec::new();
        for (labels, found) in all.iter() {
            let clients = found.clients.iter().map(|(user_agent, (requests, last))| DeprecatedClient {
                user_agent: user_agent.clone(),
                requests: *requests,
                last: *last,
            });
            let Labels { group, version, resource, .. } = *labels;
            match told.last_mut() {
                Some(known) if (known.group, known.version, known.resource) == (group, version, resource) => {
                    known.clients.extend(clients);
                }
                _ => told.push(DeprecatedUse {
                    group,
                    version,
                    resource,
                    removed: found.removed,
                    instead: found.instead,
                    clients: clients.collect(),
                }),
            }
        }
        told
    }

    pub(super) fn write(&self, page: &mut Page) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let name = "apiserver_requested_deprecated_apis";
        page.head(name, "gauge", "[STABLE] Gauge of deprecated APIs that have been requested, broken out by API group, version, resource, subresource, and removed_release.");
        for (Labels { group, version, resource, subresource }, found) in all.iter() {
            let removed = found.removed.map(|minor| format!("1.{minor}")).unwrap_or_default();
            let labels = [
                ("group", *group),
                ("removed_release", &removed),
                ("resource", resource),
                ("subresource", subresource),
                ("version", version),
            ];
            page.sample(name, &labels, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use schema::{Deprecated, Kind};

    use super::*;

    fn target(deprecated: Option<Deprecated>) -> Target {
        let row = kinds::all().iter().find(|kind| kind.kind == "Endpoints").expect("a row");
        let kind = Kind { deprecated, ..(*row).clone() };
        Target {
            kind: Arc::new(kind),
            verb: "list",
            namespace: String::new(),
            name: String::new(),
            subresource: String::new(),
            rest: String::new(),
        }
    }

    #[test]
    fn who_asks_for_what_goes_is_counted() {
        let uses = DeprecatedUses::default();
        let begin = SystemTime::UNIX_EPOCH;
        let row = Deprecated {
            since: 33,
            removed: Some(37),
            instead: Some(("discovery.k8s.io/v1", "EndpointSlice")),
        };
        let target = target(Some(row));
        for second in 0..3 {
            uses.record(&target, "kubectl/1.36", begin + Duration::from_secs(second));
        }
        for number in 0..100 {
            uses.record(&target, &format!("agent-{number}"), begin);
        }
        let told = uses.all();
        let [one] = &told[..] else { panic!("one kind: {told:?}") };
        assert_eq!((one.removed, one.instead), (Some(37), Some("discovery.k8s.io/v1")));
        assert_eq!(one.clients.len(), MOST_CLIENTS + 1);
        let count = |name: &str| {
            one.clients.iter().find(|client| client.user_agent == name).map(|client| client.requests)
        };
        assert_eq!((count("kubectl/1.36"), count(OTHERS)), (Some(3), Some(69)));
        let mut page = Page::default();
        uses.write(&mut page);
        let text = page.into_text();
        let line = "apiserver_requested_deprecated_apis{group=\"\",removed_release=\"1.37\",resource=\"endpoints\",subresource=\"\",version=\"v1\"} 1";
        assert!(text.lines().any(|one| one == line), "{text}");
    }
}
