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
    /// The object as they left it in the first round, if any of them wants to know.
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
        if self.is_second && !self.asked.is_empty() && self.left.as_ref() != object {
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
        let is_compared = !self.is_second && !self.asked.is_empty();
        self.left = object.filter(|_| is_compared).cloned();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_kept_only_for_who_wants_to_be_asked_again() {
        for is_reinvoked in [false, true] {
            let mut rounds = Rounds::default();
            let (left, changed) = (json!({"a": 1}), json!({"a": 2}));
            rounds.webhooks.begin(Some(&json!({})));
            rounds.webhooks.asked(0, is_reinvoked, true);
            rounds.webhooks.end(Some(&left));
            assert_eq!(rounds.webhooks.left, is_reinvoked.then_some(left));
            assert!(rounds.again(), "a change has a second round");
            rounds.webhooks.begin(Some(&changed));
            assert_eq!(rounds.webhooks.may_ask(&0), is_reinvoked);
        }
    }
}
