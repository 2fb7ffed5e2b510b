//! The policies of one kind that bear on a request, with an index by action: of thousands of statements only those are looked at that may
//! be about the action.

use std::collections::HashMap;
use std::sync::Arc;

use super::document::{Document, Patterns, Statement};
use super::pattern::Pattern;
use super::principal::Reach;
use super::{Principal, Request};

/// Policies that are decided together, each with a name for explanations.
#[derive(Clone, Debug, Default)]
pub struct Set {
    policies: Vec<(Arc<str>, Arc<Document>)>,
    /// By an action without wildcards, in lower case.
    exact: HashMap<Box<str>, Vec<At>>,
    /// By the service of an action with wildcards: `eks:Describe*`.
    vendor: HashMap<Box<str>, Vec<At>>,
    /// `*`, and every NotAction.
    any: Vec<At>,
}

/// Where a statement stands.
type At = (u32, u32);

/// What a set says about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Opinion {
    Denies(Origin),
    Allows(Origin, Reach),
    Nothing,
}

/// A statement, for whoever asks why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The policy's ARN, or what its set calls it.
    pub policy: Arc<str>,
    /// From 0, in the order of the document.
    pub statement: usize,
    pub sid: Option<Box<str>>,
}

impl Set {
    pub fn of(policies: impl IntoIterator<Item = (Arc<str>, Arc<Document>)>) -> Self {
        let mut set = Self::default();
        for (name, document) in policies {
            set.add(name, document);
        }
        set
    }

    /// Adds a policy under the name that explanations will have.
    pub fn add(&mut self, name: Arc<str>, document: Arc<Document>) {
        let policy = index(self.policies.len());
        for (number, statement) in document.statements.iter().enumerate() {
            self.enter((policy, index(number)), &statement.actions);
        }
        self.policies.push((name, document));
    }

    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    fn enter(&mut self, at: At, actions: &Patterns) {
        if actions.negated {
            self.any.push(at);
            return;
        }
        for action in &actions.list {
            let list = match (action.exact(), action.vendor()) {
                (Some(exact), _) => self.exact.entry(exact.into()).or_default(),
                (None, Some(vendor)) => self.vendor.entry(vendor.into()).or_default(),
                (None, None) => &mut self.any,
            };
            if list.last() != Some(&at) {
                list.push(at);
            }
        }
    }

    /// An explicit deny, or else the allow that reaches farthest.
    pub(super) fn opinion(&self, request: &Request) -> Opinion {
        let action = request.action.to_ascii_lowercase();
        let vendor = action.split_once(':').map_or("", |(vendor, _)| vendor);
        let lists = [self.exact.get(&*action), self.vendor.get(vendor), Some(&self.any)];
        let mut allows = Opinion::Nothing;
        for (policy, number) in lists.into_iter().flatten().flatten() {
            let (name, document) = &self.policies[*policy as usize];
            let statement = &document.statements[*number as usize];
            let known = match &allows {
                Opinion::Allows(_, reach) => Some(*reach),
                _ => None,
            };
            if statement.allows && known == Some(Reach::Itself) {
                continue;
            }
            let Some(reach) = statement.applies(&action, request) else { continue };
            let origin =
                || Origin { policy: name.clone(), statement: *number as usize, sid: statement.sid.clone() };
            if !statement.allows {
                return Opinion::Denies(origin());
            }
            if known.is_none_or(|known| known < reach) {
                allows = Opinion::Allows(origin(), reach);
            }
        }
        allows
    }
}

impl Statement {
    /// How far the statement reaches, if it is about this request. `action` in lower case.
    fn applies(&self, action: &str, request: &Request) -> Option<Reach> {
        let matches =
            |pattern: &Pattern, text: &str| pattern.is_everything() || pattern.matches(text, request.keys);
        let is_about = |patterns: &Patterns, text: &str| {
            patterns.list.iter().any(|pattern| matches(pattern, text)) != patterns.negated
        };
        if !is_about(&self.actions, action) {
            return None;
        }
        if self.resources.as_ref().is_some_and(|resources| !is_about(resources, request.resource)) {
            return None;
        }
        let reach = self.reach(request.principal)?;
        self.conditions.iter().all(|condition| condition.holds(request.keys)).then_some(reach)
    }

    fn reach(&self, who: &Principal) -> Option<Reach> {
        match &self.principals {
            None => Some(Reach::Itself),
            Some(principals) => principals.reach(who),
        }
    }
}

/// A document has at most some ten thousand characters, an identity a few thousand policies.
fn index(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
