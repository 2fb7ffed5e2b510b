//! Authorization as the server and the gate ask it: an index of roles and bindings, kept as fresh as the snapshot that is asked about, and
//! the webhooks among the authorizers with what they answered lately.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::metrics::{Counter, Family, Histogram, Page};
use access::authorization::{AskWebhook, Authorizer, Webhook};
use access::rbac::Index;
use access::{AccessPolicies, View};
use kinds::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES};
use object::{Key, Resource, Revision, Snapshot, Status, Table};
use plan::{Attributes, Decision, User};
use serde_json::Value;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;
use tracing::warn;

use crate::connection::{Connection, ConnectionError};
use crate::dial::Dial;
use crate::recent::Recent;

const TABLES: [Resource; 4] = [ROLES, CLUSTER_ROLES, ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS];

/// How many answers of webhooks are kept; a longer question is asked each time.
const MOST_ANSWERS: usize = 8192;
const LONGEST_QUESTION: usize = 10_000;
/// How many threads may wait for webhooks at once: the runtime has some hundreds, and without one left nothing moves any more.
const MOST_WAITING: usize = 128;
/// And for how long: upstream's limit for a request.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Where the access policies of a cluster of EKS are asked for, at each decision: they change in the account, not in the cluster.
pub type AccessSource = Arc<dyn Fn() -> Arc<AccessPolicies> + Send + Sync>;

/// Where the authorizers of a configuration file are asked for, at each decision: the file may change.
pub type AuthorizationSource = Arc<dyn Fn() -> Arc<Authorization> + Send + Sync>;

/// The authorizers of a configuration file, and how their webhooks are reached.
#[derive(Debug)]
pub struct Authorization {
    authorizers: Vec<Authorizer>,
    /// By the name of the authorizer.
    connections: HashMap<String, Connection>,
}

impl Authorization {
    /// Reads an `AuthorizationConfiguration`, YAML or JSON, and the kubeconfigs that it names.
    ///
    /// # Errors
    /// Everything that is wrong with it, one line each.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        let file = crate::body::yaml(text)?;
        let authorizers = access::authorization::read(&file).map_err(|found| found.join("\n"))?;
        let mut connections = HashMap::new();
        for authorizer in &authorizers {
            if let Authorizer::Webhook(webhook) = authorizer {
                let connection = Connection::read(Path::new(&webhook.kubeconfig));
                let connection = connection.map_err(|error: ConnectionError| error.to_string())?;
                connections.insert(webhook.name.clone(), connection);
            }
        }
        Ok(Self { authorizers, connections })
    }
}

/// The authorizers of a cluster, with an index that follows the roles and bindings.
#[derive(Default)]
pub struct Authorizers {
    indexed: Mutex<Arc<Indexed>>,
    access: Option<AccessSource>,
    configured: Option<Configured>,
}

/// Roles and bindings, and what was made of them.
#[derive(Default)]
struct Indexed {
    tables: [Table; TABLES.len()],
    index: Arc<Index>,
}

impl Indexed {
    /// The revision of the last change that is in it.
    fn revision(&self) -> Revision {
        self.tables.iter().map(Table::revision).max().unwrap_or(0)
    }

    /// The same for a snapshot, if anything in it is different.
    fn follow(&self, snapshot: &Snapshot) -> Option<Self> {
        let revision = |table: Option<&Table>| table.map_or(0, Table::revision);
        let mut known = TABLES.iter().zip(&self.tables);
        if known.all(|(resource, table)| revision(snapshot.table(*resource)) == table.revision()) {
            return None;
        }
        let tables = TABLES.map(|resource| snapshot.table(resource).cloned().unwrap_or_default());
        let mut index = (*self.index).clone();
        for (before, after) in self.tables.iter().zip(&tables) {
            if before.revision() != after.revision() {
                index.follow(before, after);
            }
        }
        Some(Self { tables, index: Arc::new(index) })
    }
}

struct Configured {
    source: AuthorizationSource,
    dial: Dial,
    /// By name and result: `success`, `timeout` or `error`.
    asked: Family<[Box<str>; 2], Histogram>,
    /// Those that had no answer and did not deny for it.
    fail_open: Family<[Box<str>; 2], Counter>,
    answers: Mutex<Answers>,
    waiting: Semaphore,
}

/// What webhooks answered, and which configuration they were asked by.
struct Answers {
    of: Option<Arc<Authorization>>,
    kept: Recent<Question, (Instant, Decision)>,
}

impl Default for Answers {
    fn default() -> Self {
        Self { of: None, kept: Recent::new(MOST_ANSWERS) }
    }
}

/// The name of an authorizer, and the review that it was sent.
type Question = (String, String);

impl Authorizers {
    /// Node and RBAC.
    pub fn new() -> Self {
        Self::default()
    }

    /// With the access policies of EKS beside RBAC.
    pub fn with_access_policies(self, access: AccessSource) -> Self {
        Self { access: Some(access), ..self }
    }

    /// With the authorizers of a configuration instead of Node and RBAC; their webhooks are reached with `dial`.
    pub fn with_configuration(self, source: AuthorizationSource, dial: Dial) -> Self {
        let waiting = Semaphore::new(MOST_WAITING);
        let configured = Configured {
            source,
            dial,
            asked: Family::new(|| Histogram::new(::metrics::SECONDS)),
            fail_open: Family::default(),
            answers: Mutex::default(),
            waiting,
        };
        Self { configured: Some(configured), ..self }
    }

    /// `apiserver_authorization_webhook_*`
    pub(crate) fn write_metrics(&self, page: &mut Page) {
        let Some(Configured { asked, fail_open, .. }) = &self.configured else { return };
        let (labels, of) = (["name", "result"], "apiserver_authorization_webhook");
        let all = asked.sorted();
        let name = format!("{of}_evaluations_total");
        page.head(&name, "counter", "[ALPHA] Round-trips to authorization webhooks.");
        for ([who, result], took) in &all {
            page.sample(&name, &[("name", who), ("result", result)], took.count());
        }
        let help = "[ALPHA] Request latency in seconds.";
        page.histograms(&format!("{of}_duration_seconds"), help, labels, asked);
        let help = "[ALPHA] NoOpinion results due to webhook timeout or error.";
        page.counters(&format!("{of}_evaluations_fail_open_total"), help, labels, fail_open);
    }

    fn index(&self, snapshot: &Snapshot) -> Arc<Index> {
        let lock = || self.indexed.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().clone();
        // Nobody waits while it is brought up to date.
        let Some(made) = known.follow(snapshot) else { return known.index.clone() };
        let made = Arc::new(made);
        let mut indexed = lock();
        if indexed.revision() < made.revision() {
            *indexed = made.clone();
        }
        made.index.clone()
    }

    /// Calls `ask` with what authorization looks at.
    fn view<T>(
        &self,
        snapshot: &Snapshot,
        current: Option<&Authorization>,
        webhooks: &dyn AskWebhook,
        ask: impl FnOnce(&View<'_>) -> T,
    ) -> T {
        let index = self.index(snapshot);
        let access = self.access.as_ref().map(|source| source());
        let mut view = View::new(snapshot, &index);
        view.access_policies = access.as_deref();
        if let Some(current) = current {
            view.authorizers = &current.authorizers;
            view.webhooks = webhooks;
        }
        ask(&view)
    }

    /// Calls `ask` with what authorization looks at. If a webhook has to be asked on the way, that is done and `ask` is called again, with
    /// its answer: nothing waits while a decision is worked out.
    pub(crate) async fn decide<T>(&self, snapshot: &Snapshot, ask: impl Fn(&View<'_>) -> T) -> T {
        let Some(configured) = &self.configured else {
            return self.view(snapshot, None, &access::authorization::NoWebhooks, ask);
        };
        let current = (configured.source)();
        let known =
            Known { configured, current: &current, told: RefCell::default(), missing: RefCell::default() };
        loop {
            let missing = {
                let decided = self.view(snapshot, Some(&current), &known, &ask);
                match known.missing.take() {
                    None => return decided,
                    Some(missing) => missing,
                }
            };
            let answer = configured.ask(&current, &missing).await;
            known.told.borrow_mut().insert((missing.name, missing.text), answer);
        }
    }

    /// As [`Authorizers::decide`], for whoever cannot wait: the thread does, for so long, and if there are not too many. Otherwise webhooks
    /// are out of reach, and their failure policies decide.
    fn decide_here<T>(&self, snapshot: &Snapshot, ask: impl Fn(&View<'_>) -> T + Sync) -> T {
        let waits =
            Handle::try_current().ok().filter(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread);
        let Some(configured) = &self.configured else {
            return self.view(snapshot, None, &access::authorization::NoWebhooks, ask);
        };
        let current = (configured.source)();
        let has_webhooks = !current.connections.is_empty();
        if let Some(handle) = waits.filter(|_| has_webhooks)
            && let Ok(_turn) = configured.waiting.try_acquire()
        {
            let decided = async { tokio::time::timeout(LONGEST_WAIT, self.decide(snapshot, &ask)).await };
            if let Ok(decided) = tokio::task::block_in_place(|| handle.block_on(decided)) {
                return decided;
            }
        }
        self.view(snapshot, Some(&current), &access::authorization::NoWebhooks, ask)
    }
}

/// A question to a webhook that is not answered yet.
struct Missing {
    name: String,
    text: String,
    review: Value,
}

/// The webhooks as one decision sees them: what they have answered. The first question without an answer ends the decision.
struct Known<'a> {
    configured: &'a Configured,
    current: &'a Arc<Authorization>,
    told: RefCell<HashMap<Question, Result<Decision, String>>>,
    missing: RefCell<Option<Missing>>,
}

impl AskWebhook for Known<'_> {
    fn ask(&self, webhook: &Webhook, review: &Value) -> Result<Decision, String> {
        let question = (webhook.name.clone(), review.to_string());
        if let Some(told) = self.told.borrow().get(&question) {
            return told.clone();
        }
        if let Some(kept) = self.configured.kept(self.current, &question) {
            return Ok(kept);
        }
        let (name, text) = question;
        self.missing.borrow_mut().get_or_insert(Missing { name, text, review: review.clone() });
        // Nobody sees this: the decision is made again when the answer is there.
        Ok(Decision { denied: true, ..Decision::default() })
    }
}

impl Configured {
    fn kept(&self, current: &Arc<Authorization>, question: &Question) -> Option<Decision> {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.follow(current);
        let (until, decision) = answers.kept.get(question)?;
        (Instant::now() < *until).then(|| decision.clone())
    }

    async fn ask(&self, current: &Arc<Authorization>, missing: &Missing) -> Result<Decision, String> {
        let webhook = current.authorizers.iter().find_map(|authorizer| match authorizer {
            Authorizer::Webhook(webhook) if webhook.name == missing.name => Some(webhook),
            _ => None,
        });
        let (Some(webhook), Some(connection)) = (webhook, current.connections.get(&missing.name)) else {
            return Err(format!("there is no authorizer {}", missing.name));
        };
        let limit = Duration::from_millis(webhook.timeout_ms);
        let began = Instant::now();
        let answered = connection.post(&self.dial, &missing.review, limit).await;
        let took = began.elapsed();
        let answered = answered.and_then(|review| webhook.answer(&review));
        let result = match &answered {
            Ok(_) => "success",
            Err(_) if took >= limit => "timeout",
            Err(_) => "error",
        };
        let labels = [&*webhook.name, result];
        self.asked.of(&labels).took(took);
        if answered.is_err() && !webhook.denies_on_failure {
            self.fail_open.of(&labels).increase();
        }
        let decision = answered.inspect_err(|why| {
            warn!(authorizer = webhook.name, why, "an authorization webhook did not answer");
        })?;
        let ttl = if decision.allowed { webhook.authorized_ttl_ms } else { webhook.unauthorized_ttl_ms };
        if let Some(ttl) = ttl.filter(|_| missing.text.len() <= LONGEST_QUESTION) {
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.follow(current);
            answers.keep((missing.name.clone(), missing.text.clone()), Duration::from_millis(ttl), &decision);
        }
        Ok(decision)
    }
}

impl Answers {
    /// Forgets what an older configuration was told.
    fn follow(&mut self, current: &Arc<Authorization>) {
        if !self.of.as_ref().is_some_and(|of| Arc::ptr_eq(of, current)) {
            *self = Self { of: Some(current.clone()), ..Self::default() };
        }
    }

    fn keep(&mut self, question: Question, ttl: Duration, decision: &Decision) {
        self.kept.put(question, (Instant::now() + ttl, decision.clone()));
    }
}

impl gate::Authority for Authorizers {
    fn authorize(&self, snapshot: &Snapshot, user: &User, attributes: &Attributes<'_>) -> Decision {
        self.decide_here(snapshot, |view| access::authorize(view, user, attributes))
    }

    fn may_grant(
        &self,
        snapshot: &Snapshot,
        user: &User,
        key: &Key,
        new: &Value,
        old: Option<&Value>,
    ) -> Result<(), Status> {
        if !TABLES.contains(&key.resource) {
            return Ok(());
        }
        self.decide_here(snapshot, |view| access::rbac::check_write(view, user, key, new, old))
    }
}

#[cfg(test)]
mod tests {
    use gate::Authority;
    use object::{Draft, body};
    use serde_json::json;

    use super::*;

    fn put(snapshot: &mut Snapshot, resource: Resource, name: &str, object: &Value, revision: Revision) {
        let draft = Draft::read(Key::cluster(resource, name), [].into(), body::encode(object));
        snapshot.put(draft.expect("an object").at(revision));
    }

    fn bind(snapshot: &mut Snapshot, user: &str, revision: Revision) {
        let binding = json!({"metadata": {"name": user},
            "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": user}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"}});
        put(snapshot, CLUSTER_ROLE_BINDINGS, user, &binding, revision);
    }

    /// As a store does that was out of reach of etcd for long: it lists again, and nothing says that a binding is gone.
    #[test]
    fn a_grant_that_went_unseen_is_no_longer_in_force() {
        let mut with_role = Snapshot::default();
        let rules = json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]);
        let role = json!({"metadata": {"name": "reader"}, "rules": rules});
        put(&mut with_role, CLUSTER_ROLES, "reader", &role, 1);
        let (mut before, mut after) = (with_role.clone(), with_role);
        bind(&mut before, "jane", 2);
        for snapshot in [&mut before, &mut after] {
            bind(snapshot, "joe", 3);
        }
        after.advance(9);
        after.replace(&before);
        let authorizers = Authorizers::new();
        let may_read = |snapshot: &Snapshot, user: &str| {
            let attributes =
                Attributes { verb: "get", resource: "pods", namespace: "a", ..Attributes::default() };
            authorizers.authorize(snapshot, &User::new(user, &[]), &attributes).allowed
        };
        assert!(may_read(&before, "jane") && may_read(&before, "joe"));
        assert!(!may_read(&after, "jane") && may_read(&after, "joe"));
    }
}
