//! FlowSchemas and PriorityLevelConfigurations, compiled: to which flow of which level a request belongs.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use object::{Object, Revision, Snapshot, Table};
use plan::{Attributes, User};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::{About, SOURCES};
use crate::bootstrap;

/// The two that are always there, whatever became of their objects.
const MANDATORY: [&str; 2] = ["exempt", "catch-all"];
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// What all schemas and levels of a snapshot say.
pub struct Rules {
    seen: [Revision; SOURCES.len()],
    pub levels: Vec<LevelSpec>,
    /// In the order in which they are tried.
    pub schemas: Vec<Schema>,
}

/// A PriorityLevelConfiguration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelSpec {
    pub name: Arc<str>,
    pub uid: Arc<str>,
    pub is_exempt: bool,
    pub shares: u32,
    /// Percent of its seats that others may use.
    pub lendable: u32,
    /// Percent of its seats that it may borrow besides; as much as there is, if nothing is said.
    pub borrowing: Option<u32>,
    /// None: who finds no seat is refused.
    pub queuing: Option<Queuing>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queuing {
    pub queues: usize,
    /// Of how many queues each flow uses the emptiest.
    pub hand: usize,
    pub length: usize,
}

impl Queuing {
    /// Requests that all its queues hold.
    pub(super) fn room(self) -> usize {
        self.queues.saturating_mul(self.length)
    }
}

/// A FlowSchema whose level is there.
#[derive(Debug)]
pub struct Schema {
    pub name: Arc<str>,
    pub uid: Arc<str>,
    /// Index into [`Rules::levels`].
    pub level: usize,
    precedence: i64,
    pub(super) distinguisher: Distinguisher,
    rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Distinguisher {
    None,
    User,
    Namespace,
}

impl Distinguisher {
    /// What tells a request's flow from the others of its schema.
    pub(super) fn of<'a>(self, user: &'a str, namespace: &'a str) -> &'a str {
        match self {
            Self::None => "",
            Self::User => user,
            Self::Namespace => namespace,
        }
    }
}

impl Rules {
    /// Whether a snapshot says something that these do not know: cheap enough for every request.
    pub fn is_older_than(&self, snapshot: &Snapshot) -> bool {
        revisions(snapshot).iter().max() > self.seen.iter().max()
    }

    pub(super) fn is_later_than(&self, other: &Self) -> bool {
        self.seen.iter().max() > other.seen.iter().max()
    }

    pub fn read(snapshot: &Snapshot) -> Self {
        let defaults = bootstrap::flow_control();
        let levels = all(snapshot, 1, "PriorityLevelConfiguration", &defaults, LevelSpec::read);
        let mut schemas = all(snapshot, 0, "FlowSchema", &defaults, |name, uid, object| {
            Schema::read(name, uid, object, &levels)
        });
        schemas.sort_by(|a, b| (a.precedence, &a.name).cmp(&(b.precedence, &b.name)));
        Self { seen: revisions(snapshot), levels, schemas }
    }

    /// The index of the schema that a request belongs to.
    pub fn classify(&self, user: &User, attributes: &Attributes<'_>) -> usize {
        let first = self.schemas.iter().position(|schema| schema.matches(user, attributes));
        // The last one takes everybody; a user of neither group would find no other.
        first.or_else(|| self.schemas.iter().position(|schema| &*schema.name == "catch-all")).unwrap_or(0)
    }
}

fn revisions(snapshot: &Snapshot) -> [Revision; SOURCES.len()] {
    SOURCES.map(|resource| snapshot.table(resource).map_or(0, Table::revision))
}

/// The objects of a source, and of the mandatory ones those that are missing.
fn all<T>(
    snapshot: &Snapshot,
    source: usize,
    kind: &str,
    defaults: &[Value],
    read: impl Fn(Arc<str>, Arc<str>, Value) -> Option<T>,
) -> Vec<T> {
    let stored = snapshot.list(SOURCES[source], "");
    let value = |object: &Arc<Object>| {
        read((&*object.key.name).into(), (&*object.meta.uid).into(), object.to_value().ok()?)
    };
    let mut found: Vec<T> = stored.filter_map(value).collect();
    for name in MANDATORY {
        if snapshot.find(SOURCES[source], "", name).is_none() {
            let default =
                defaults.iter().find(|one| one["kind"] == kind && one["metadata"]["name"] == name).cloned();
            found.extend(default.and_then(|default| read(name.into(), "".into(), default)));
        }
    }
    found
}

impl LevelSpec {
    fn read(name: Arc<str>, uid: Arc<str>, object: Value) -> Option<Self> {
        let LevelView { spec } = serde_json::from_value(object).ok()?;
        // The exempt level is what it is, whatever its object says.
        let is_exempt = spec.kind == "Exempt" || &*name == "exempt";
        let share =
            if is_exempt { spec.exempt.unwrap_or_default() } else { spec.limited.unwrap_or_default() };
        let queuing = share.limit_response.and_then(|response| response.queuing).map(|queuing| Queuing {
            queues: queuing.queues.unwrap_or(64).clamp(1, 10_000_000) as usize,
            hand: queuing.hand_size.unwrap_or(8).clamp(1, 64) as usize,
            length: queuing.queue_length_limit.unwrap_or(50).max(1) as usize,
        });
        Some(Self {
            name,
            uid,
            is_exempt,
            shares: share.nominal_concurrency_shares.unwrap_or(if is_exempt { 0 } else { 30 }),
            lendable: share.lendable_percent.unwrap_or(0).min(100),
            borrowing: share.borrowing_limit_percent,
            queuing,
        })
    }
}

impl Schema {
    fn read(name: Arc<str>, uid: Arc<str>, object: Value, levels: &[LevelSpec]) -> Option<Self> {
        let SchemaView { spec } = serde_json::from_value(object).ok()?;
        // One whose level is missing is passed over; its condition says so.
        let level = levels.iter().position(|level| *level.name == *spec.priority_level_configuration.name)?;
        let distinguisher = match spec.distinguisher_method.as_ref().map(|method| &*method.kind) {
            Some("ByUser") => Distinguisher::User,
            Some("ByNamespace") => Distinguisher::Namespace,
            _ => Distinguisher::None,
        };
        let precedence = spec.matching_precedence.unwrap_or(1000);
        Some(Self { name, uid, level, precedence, distinguisher, rules: spec.rules })
    }

    fn matches(&self, user: &User, attributes: &Attributes<'_>) -> bool {
        self.rules.iter().any(|rule| rule.matches(user, attributes))
    }

    /// The flow of a request within the schema, as a number that is spread evenly.
    pub(super) fn flow(&self, about: &About) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.name.hash(&mut hasher);
        self.distinguisher.of(&about.user, &about.namespace).hash(&mut hasher);
        hasher.finish()
    }
}

#[derive(Deserialize)]
struct LevelView {
    spec: LevelViewSpec,
}

#[derive(Deserialize)]
struct LevelViewSpec {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    limited: Option<ShareView>,
    #[serde(default)]
    exempt: Option<ShareView>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ShareView {
    nominal_concurrency_shares: Option<u32>,
    lendable_percent: Option<u32>,
    borrowing_limit_percent: Option<u32>,
    limit_response: Option<ResponseView>,
}

#[derive(Deserialize)]
struct ResponseView {
    #[serde(default)]
    queuing: Option<QueuingView>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct QueuingView {
    queues: Option<i64>,
    hand_size: Option<i64>,
    queue_length_limit: Option<i64>,
}

#[derive(Deserialize)]
struct SchemaView {
    spec: SchemaViewSpec,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SchemaViewSpec {
    priority_level_configuration: Named,
    #[serde(default)]
    matching_precedence: Option<i64>,
    #[serde(default)]
    distinguisher_method: Option<Typed>,
    #[serde(default, deserialize_with = "or_empty")]
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
struct Named {
    name: Box<str>,
}

#[derive(Deserialize)]
struct Typed {
    #[serde(rename = "type")]
    kind: Box<str>,
}

/// Some of somebody's requests.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Rule {
    #[serde(deserialize_with = "or_empty")]
    subjects: Vec<Subject>,
    #[serde(deserialize_with = "or_empty")]
    resource_rules: Vec<ResourceRule>,
    #[serde(deserialize_with = "or_empty")]
    non_resource_rules: Vec<PathRule>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "kind")]
enum Subject {
    User {
        user: Named,
    },
    Group {
        group: Named,
    },
    ServiceAccount {
        #[serde(rename = "serviceAccount")]
        account: Account,
    },
}

#[derive(Debug, Deserialize)]
struct Account {
    namespace: Box<str>,
    name: Box<str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ResourceRule {
    #[serde(deserialize_with = "or_empty")]
    verbs: Vec<Box<str>>,
    #[serde(deserialize_with = "or_empty")]
    api_groups: Vec<Box<str>>,
    #[serde(deserialize_with = "or_empty")]
    resources: Vec<Box<str>>,
    cluster_scope: bool,
    #[serde(deserialize_with = "or_empty")]
    namespaces: Vec<Box<str>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PathRule {
    #[serde(deserialize_with = "or_empty")]
    verbs: Vec<Box<str>>,
    #[serde(rename = "nonResourceURLs", deserialize_with = "or_empty")]
    urls: Vec<Box<str>>,
}

fn or_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Vec<T>, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// Whether a list holds a word, or a star.
fn has(list: &[Box<str>], word: &str) -> bool {
    list.iter().any(|held| **held == *word || &**held == "*")
}

impl Rule {
    fn matches(&self, user: &User, attributes: &Attributes<'_>) -> bool {
        self.subjects.iter().any(|subject| subject.is(user))
            && if attributes.path.is_empty() {
                self.resource_rules.iter().any(|rule| rule.matches(attributes))
            } else {
                self.non_resource_rules.iter().any(|rule| rule.matches(attributes))
            }
    }
}

impl Subject {
    fn is(&self, user: &User) -> bool {
        match self {
            Self::User { user: named } => &*named.name == "*" || *named.name == *user.name,
            Self::Group { group } => &*group.name == "*" || user.is_in(&group.name),
            Self::ServiceAccount { account } => {
                let rest = user.name.strip_prefix(SERVICE_ACCOUNT).and_then(|rest| rest.split_once(':'));
                rest.is_some_and(|(namespace, name)| {
                    *namespace == *account.namespace && (&*account.name == "*" || *name == *account.name)
                })
            }
        }
    }
}

impl ResourceRule {
    fn matches(&self, asked: &Attributes<'_>) -> bool {
        let in_scope = if asked.namespace.is_empty() {
            self.cluster_scope
        } else {
            has(&self.namespaces, asked.namespace)
        };
        in_scope
            && has(&self.verbs, asked.verb)
            && has(&self.api_groups, asked.group)
            && self.resources.iter().any(|resource| is_resource(resource, asked))
    }
}

/// `*`, `pods` or `pods/log`
fn is_resource(wanted: &str, asked: &Attributes<'_>) -> bool {
    if wanted == "*" {
        return true;
    }
    match wanted.split_once('/') {
        Some((resource, part)) => resource == asked.resource && part == asked.subresource,
        None => asked.subresource.is_empty() && wanted == asked.resource,
    }
}

impl PathRule {
    fn matches(&self, asked: &Attributes<'_>) -> bool {
        let is_meant = |url: &str| match url.strip_suffix('*') {
            Some(start) => asked.path.starts_with(start),
            None => url == asked.path,
        };
        has(&self.verbs, asked.verb) && self.urls.iter().any(|url| is_meant(url))
    }
}

#[cfg(test)]
mod tests {
    use object::{Draft, Key, body};
    use serde_json::json;

    use super::*;
    use crate::anonymous;

    fn fresh() -> Snapshot {
        let mut snapshot = Snapshot::default();
        for object in bootstrap::flow_control() {
            put(&mut snapshot, &object);
        }
        snapshot
    }

    fn put(snapshot: &mut Snapshot, object: &Value) {
        let source = usize::from(object["kind"] != "FlowSchema");
        let key = Key::cluster(SOURCES[source], object["metadata"]["name"].as_str().expect("a name"));
        let revision = snapshot.revision() + 1;
        let draft = Draft::read(key, Box::default(), body::encode(object)).expect("an object");
        snapshot.put(draft.at(revision));
        snapshot.advance(revision);
    }

    fn check(rules: &Rules, user: &User, attributes: Attributes<'_>, schema: &str, level: &str) {
        let found = &rules.schemas[rules.classify(user, &attributes)];
        assert_eq!(
            (&*found.name, &*rules.levels[found.level].name),
            (schema, level),
            "{user:?} {attributes:?}"
        );
    }

    #[test]
    fn a_fresh_cluster_classifies_as_upstream() {
        let rules = Rules::read(&fresh());
        let of =
            |verb, resource, namespace| Attributes { verb, resource, namespace, ..Attributes::default() };
        let lease = |verb, namespace| Attributes {
            verb,
            group: "coordination.k8s.io",
            resource: "leases",
            namespace,
            ..Attributes::default()
        };
        let path = |path| Attributes { verb: "get", path, ..Attributes::default() };
        let user = |name: &str, groups: &[&str]| {
            let groups: Vec<&str> = groups.iter().copied().chain(["system:authenticated"]).collect();
            User::new(name, &groups)
        };
        let admin = user("kubernetes-admin", &["system:masters"]);
        let node = user("system:node:a", &["system:nodes"]);
        let manager = user("system:kube-controller-manager", &[]);
        let dns = user("system:serviceaccount:kube-system:dns", &["system:serviceaccounts"]);
        let app = user("system:serviceaccount:default:app", &["system:serviceaccounts"]);
        for (user, attributes, schema, level) in [
            (&admin, of("list", "pods", ""), "exempt", "exempt"),
            (&admin, path("/version"), "exempt", "exempt"),
            (&anonymous(), path("/healthz"), "probes", "exempt"),
            (&anonymous(), path("/version"), "global-default", "global-default"),
            (
                &node,
                Attributes { subresource: "status", ..of("patch", "nodes", "") },
                "system-node-high",
                "node-high",
            ),
            (&node, lease("update", "kube-node-lease"), "system-node-high", "node-high"),
            (&node, of("list", "pods", ""), "system-nodes", "system"),
            (&manager, lease("update", "kube-system"), "system-leader-election", "leader-election"),
            (&manager, of("list", "pods", ""), "kube-controller-manager", "workload-high"),
            (&dns, of("list", "services", ""), "kube-system-service-accounts", "workload-high"),
            (&app, of("get", "pods", "default"), "service-accounts", "workload-low"),
            (&user("jane", &[]), of("get", "pods", "default"), "global-default", "global-default"),
            (&User::new("stray", &[]), of("get", "pods", "default"), "catch-all", "catch-all"),
        ] {
            check(&rules, user, attributes, schema, level);
        }
    }

    #[test]
    fn what_is_mandatory_is_there_without_its_objects() {
        let rules = Rules::read(&Snapshot::default());
        let root = User::new("root", &["system:masters", "system:authenticated"]);
        let jane = User::new("jane", &["system:authenticated"]);
        let attributes =
            Attributes { verb: "get", resource: "pods", namespace: "a", ..Attributes::default() };
        check(&rules, &root, attributes, "exempt", "exempt");
        check(&rules, &jane, attributes, "catch-all", "catch-all");
    }

    #[test]
    fn a_schema_without_its_level_is_passed_over() {
        let mut snapshot = fresh();
        let schema = |level: &str| {
            json!({"kind": "FlowSchema", "metadata": {"name": "mine"}, "spec": {
                "matchingPrecedence": 10, "priorityLevelConfiguration": {"name": level},
                "rules": [{"subjects": [{"kind": "User", "user": {"name": "jane"}}],
                    "resourceRules": [{"verbs": ["list"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["a"]}]}]}})
        };
        put(&mut snapshot, &schema("gone"));
        let rules = Rules::read(&snapshot);
        let jane = User::new("jane", &["system:authenticated"]);
        let pods = Attributes { verb: "list", resource: "pods", namespace: "a", ..Attributes::default() };
        check(&rules, &jane, pods, "global-default", "global-default");
        put(&mut snapshot, &schema("system"));
        assert!(rules.is_older_than(&snapshot));
        let rules = Rules::read(&snapshot);
        check(&rules, &jane, pods, "mine", "system");
        check(&rules, &jane, Attributes { namespace: "b", ..pods }, "global-default", "global-default");
        check(&rules, &jane, Attributes { subresource: "log", ..pods }, "global-default", "global-default");
    }
}
