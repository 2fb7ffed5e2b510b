//! The two rounds of mutating admission: if an extension changed the object in the first, all plugins complete it once more, and of the
//! extensions those are asked again that want to see what came after them (`reinvocationPolicy: IfNeeded`).
//! <https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#reinvocation-policy>

use std::collections::BTreeSet;

use admission::extension::InvocationKey;
use serde_json::Value;

/// Where a request is.
#[derive(Default)]
pub(crate) struct Rounds {
    is_second: bool,
    /// Policies, by policy, binding and parameter.
    pub(crate) policies: Turn<InvocationKey>,
    /// Webhooks, by their place in the order in which they are called.
    pub(crate) webhooks: Turn<usize>,
}

impl Rounds {
    /// Begins the second round, if there is to be one.
    pub(crate) fn again(&mut self) -> bool {
        let again = !self.is_second && (self.policies.has_changed || self.webhooks.has_changed);
        self.is_second |= again;
        self.policies.is_second = self.is_second;
        self.webhooks.is_second = self.is_second;
        again
    }
}

/// One sort of extensions.
pub(crate) struct Turn<K> {
    is_second: bool,
    has_changed: bool,
    /// Those that want to be asked again if anything changes after them.
    asked: BTreeSet<K>,
    again: BTreeSet<K>,
    /// The object as they left it.
    left: Option<Value>,
}

impl<K> Default for Turn<K> {
    fn default() -> Self {
        let (asked, again) = (BTreeSet::new(), BTreeSet::new());
        Self { is_second: false, has_changed: false, asked, again, left: None }
    }
}

impl<K: Ord + Clone> Turn<K> {
    /// Before the first is asked in a round: whether others changed the object since.
    pub(crate) fn begin(&mut self, object: Option<&Value>) {
        if self.is_second && self.left.as_ref() != object {
            self.again.append(&mut self.asked);
        }
    }

    pub(crate) fn may_ask(&self, who: &K) -> bool {
        !self.is_second || self.again.contains(who)
    }

    /// After somebody was asked.
    pub(crate) fn asked(&mut self, who: K, is_reinvoked: bool, has_changed: bool) {
        if has_changed {
            self.has_changed = true;
            self.again.append(&mut self.asked);
        }
        if is_reinvoked {
            self.asked.insert(who);
        }
    }

    pub(crate) fn end(&mut self, object: Option<&Value>) {
        self.left = object.cloned();
    }
}
