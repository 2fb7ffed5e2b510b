//! Which objects of a table carry a label: looked up instead of looked for.
//!
//! Nobody pays who does not ask. The first question about a label goes through the table and keeps what it finds; later ones first take in
//! what was changed since, which writers write down as long as somebody asks:
//!
//! ```text
//! app=web ─► known: version 7, asked: version 9 ─► changed since: a/two ─► postings of "app": (web, a/one) (web, a/two) ─► their objects in 9
//! ```
//!
//! This is a memory and no state: all versions of a table share one, and what is found does not depend on what it held before.
//!
//! The other way, postings in the snapshot itself, would make every write of every object pay for each of its labels.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use super::{BEHIND, BETWEEN, Objects, Table};
use crate::Object;
use crate::selector::{LabelSelector, Operator, Requirement};

/// So many objects are gone through as fast as their postings are read, and need no memory besides.
const FEW: usize = 256;
/// Going through an object costs a fraction of finding it by its path.
const SCANS_PER_LOOKUP: usize = 4;
/// Labels that are remembered of one table. Of more, the one that nobody has asked for longest is forgotten.
const MOST_KEYS: usize = 16;
/// The known version holds objects that are gone: until they are so many bytes, or an eighth of the table.
const HELD_BYTES: usize = 4 << 20;
/// So many changes are written down, or an eighth of the objects. Whoever asks behind more of them goes through the table again.
const HELD_CHANGES: usize = 4096;

/// What is known of the labels of a table, for all of its versions.
#[derive(Debug, Default)]
pub(super) struct Labels {
    /// Of a table that stands aside: it is gone through, since nobody asks it often enough to keep anything.
    is_aside: bool,
    /// Changes are written down.
    is_asked: AtomicBool,
    changes: Mutex<Changes>,
    known: Mutex<Known>,
}

/// What was changed since the version that is known.
#[derive(Debug, Default)]
struct Changes {
    steps: Vec<Step>,
    /// Bytes of the bodies that they did away with.
    gone: usize,
}

/// One change: what it made of which version.
#[derive(Debug)]
struct Step {
    from: u64,
    to: u64,
    path: Arc<str>,
    gone: usize,
}

#[derive(Debug, Default)]
struct Known {
    /// The version that the postings are of.
    version: u64,
    objects: Objects,
    keys: Vec<Postings>,
    questions: u64,
}

/// The objects that carry a label, by its value and their paths.
#[derive(Debug)]
struct Postings {
    key: Box<str>,
    /// The number of the last question about it.
    asked: u64,
    entries: BTreeSet<(Arc<str>, Arc<str>)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// None: somebody holds it.
fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

impl Labels {
    pub(super) fn aside() -> Arc<Self> {
        Arc::new(Self { is_aside: true, ..Self::default() })
    }

    /// To be called when an object of a table was changed, with the version that it was of and the bytes that are gone.
    pub(super) fn changed(&self, table: &Table, from: u64, path: &Arc<str>, gone: usize) {
        if !self.is_asked.load(Ordering::Relaxed) {
            return;
        }
        let mut changes = lock(&self.changes);
        changes.gone += gone;
        changes.steps.push(Step { from, to: table.version, path: path.clone(), gone });
        if changes.gone > HELD_BYTES.max(table.bytes / 8)
            || changes.steps.len() > HELD_CHANGES.max(table.len() / 8)
        {
            *changes = Changes::default();
            // What is held by whoever asks just now can only be forgotten later: changes go on being counted.
            if let Some(mut known) = try_lock(&self.known) {
                *known = Known::default();
                self.is_asked.store(false, Ordering::Relaxed);
            }
        }
    }

    /// The paths of the objects that differ between the known version and a later one. None: that is not known.
    fn paths_changed(&self, known: u64, table: &Table) -> Option<BTreeSet<Arc<str>>> {
        let mut paths = BTreeSet::new();
        if known == table.version {
            return Some(paths);
        }
        let mut changes = lock(&self.changes);
        let last = changes.steps.iter().rposition(|step| step.to == table.version)?;
        // Backwards, since snapshots may go different ways: only what led here counts.
        let mut at = table.version;
        for step in changes.steps[..=last].iter().rev() {
            if step.to == at {
                paths.insert(step.path.clone());
                at = step.from;
            }
            if at == known {
                break;
            }
        }
        let gone: usize = changes.steps.drain(..=last).map(|step| step.gone).sum();
        changes.gone -= gone;
        (at == known).then_some(paths)
    }

    /// The paths behind `after` of the objects that one of the requirements leaves, in their order. None: going through the namespace
    /// costs no more, or somebody else is being answered.
    pub(super) fn candidates(
        &self,
        table: &Table,
        namespace: &str,
        labels: &LabelSelector,
        after: &str,
    ) -> Option<Vec<Arc<str>>> {
        let useful: Vec<&Requirement> = labels.0.iter().filter(|one| names_carriers(one)).collect();
        if self.is_aside || useful.is_empty() || useful.len() > MOST_KEYS || is_few(table, namespace) {
            return None;
        }
        // Who holds it may be going through the table. So can this one: nobody waits for what only saves time.
        let mut known = try_lock(&self.known)?;
        // Older versions are rarely asked about; going back and forth would cost more.
        if known.version > table.version {
            return None;
        }
        match self.paths_changed(known.version, table) {
            Some(paths) => known.follow(table, &paths),
            None => known.keys.clear(),
        }
        known.objects = table.objects.clone();
        known.version = table.version;
        self.is_asked.store(true, Ordering::Relaxed);
        known.learn_for(&useful, namespace);
        let of = |one: &Requirement| known.keys.iter().find(|held| held.key == one.key);
        let postings: Vec<_> = useful.iter().filter_map(|one| Some((*one, of(one)?))).collect();
        // All are counted a little further until one comes to its end.
        let mut limit = FEW / SCANS_PER_LOOKUP;
        loop {
            for (requirement, postings) in &postings {
                if postings.are_at_most(limit, requirement, namespace) {
                    return Some(postings.behind(requirement, namespace, after));
                }
            }
            // The namespace has come to its end first.
            table.range(namespace, None).nth(limit * SCANS_PER_LOOKUP)?;
            limit *= SCANS_PER_LOOKUP;
        }
    }
}

fn is_few(table: &Table, namespace: &str) -> bool {
    table.len() <= FEW || (!namespace.is_empty() && table.range(namespace, None).nth(FEW).is_none())
}

/// Whether a requirement holds only of objects that carry its label.
fn names_carriers(requirement: &Requirement) -> bool {
    matches!(requirement.operator, Operator::In | Operator::Exists | Operator::Gt | Operator::Lt)
}

impl Known {
    /// Takes in what differs in a later version.
    fn follow(&mut self, table: &Table, paths: &BTreeSet<Arc<str>>) {
        for path in paths {
            let (before, after) = (self.objects.get(path), table.objects.get(path));
            self.keys.iter_mut().for_each(|postings| postings.change(path, before, after));
        }
    }

    /// Learns the first of a question's labels that is not known, unless the others already leave few objects: whatever is asked, it goes
    /// through the table once, and does away with one label that others ask about.
    fn learn_for(&mut self, useful: &[&Requirement], namespace: &str) {
        self.questions += 1;
        let (mut unknown, mut leaves_few) = (None, false);
        for requirement in useful {
            match self.keys.iter_mut().find(|postings| postings.key == requirement.key) {
                Some(postings) => {
                    postings.asked = self.questions;
                    leaves_few |= postings.are_at_most(FEW, requirement, namespace);
                }
                None => unknown = unknown.or(Some(&requirement.key)),
            }
        }
        if let (Some(key), false) = (unknown, leaves_few) {
            self.learn(key);
        }
    }

    /// Goes through the known version for a label.
    fn learn(&mut self, key: &str) {
        if self.keys.len() >= MOST_KEYS
            && let Some(oldest) = (0..self.keys.len()).min_by_key(|&at| self.keys[at].asked)
        {
            self.keys.swap_remove(oldest);
        }
        let mut values: BTreeSet<Arc<str>> = BTreeSet::new();
        let mut entries = Vec::new();
        for (path, object) in &self.objects {
            let Some(value) = object.meta.label(key) else { continue };
            let value = values.get(value).cloned().unwrap_or_else(|| {
                let value: Arc<str> = value.into();
                values.insert(value.clone());
                value
            });
            entries.push((value, path.clone()));
        }
        let entries = entries.into_iter().collect();
        self.keys.push(Postings { key: key.into(), asked: self.questions, entries });
    }
}

impl Postings {
    fn change(&mut self, path: &Arc<str>, before: Option<&Arc<Object>>, after: Option<&Arc<Object>>) {
        let before = before.and_then(|object| object.meta.label(&self.key));
        let after = after.and_then(|object| object.meta.label(&self.key));
        if before == after {
            return;
        }
        if let Some(before) = before {
            self.entries.remove(&(before.into(), path.clone()));
        }
        if let Some(after) = after {
            // The text of a value is shared by all that carry it.
            let after: Arc<str> = after.into();
            let same = self.entries.range((after.clone(), "".into())..).next();
            let value = same.filter(|(value, _)| *value == after).map_or(after, |(value, _)| value.clone());
            self.entries.insert((value, path.clone()));
        }
    }

    /// Whether so few entries have to be read for a requirement.
    fn are_at_most(&self, limit: usize, requirement: &Requirement, namespace: &str) -> bool {
        match requirement.operator {
            Operator::In => self.of_values(&requirement.values, namespace).take(limit + 1).count() <= limit,
            _ => self.entries.len() <= limit,
        }
    }

    /// The paths of the objects of a namespace (of all, if it is empty) that have one of the values: value by value.
    fn of_values<'a>(
        &'a self,
        values: &'a [Box<str>],
        namespace: &str,
    ) -> impl Iterator<Item = &'a Arc<str>> + use<'a> {
        let (first, behind): (Arc<str>, _) = match namespace {
            "" => ("".into(), None),
            _ => ([namespace, BETWEEN].concat().into(), Some([namespace, BEHIND].concat())),
        };
        values.iter().flat_map(move |value| {
            let behind = behind.clone();
            let found = self.entries.range((Arc::from(&**value), first.clone())..);
            let found = found.take_while(move |(held, path)| {
                **held == **value && behind.as_ref().is_none_or(|behind| **path < **behind)
            });
            found.map(|(_, path)| path)
        })
    }

    /// The paths behind one of the objects of a namespace that a requirement may hold of, in their order.
    fn behind(&self, requirement: &Requirement, namespace: &str, after: &str) -> Vec<Arc<str>> {
        let is_behind = |path: &&Arc<str>| ***path > *after;
        let mut paths: Vec<Arc<str>> = match requirement.operator {
            Operator::In => {
                self.of_values(&requirement.values, namespace).filter(is_behind).cloned().collect()
            }
            _ => {
                let prefix = [namespace, BETWEEN].concat();
                let is_within = |path: &&Arc<str>| namespace.is_empty() || path.starts_with(&prefix);
                let all = self.entries.iter().map(|(_, path)| path);
                all.filter(is_within).filter(is_behind).cloned().collect()
            }
        };
        // Already so, if there was one value.
        paths.sort_unstable();
        paths
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Draft, Key, Resource, Snapshot, body};

    const PODS: Resource = Resource::new("pods");

    fn put(snapshot: &mut Snapshot, nth: usize) {
        let labels = serde_json::json!({"app": "web", "pod": format!("pod-{nth}"), "zone": "a"});
        let text = body::encode(&serde_json::json!({"metadata": {"labels": labels}}));
        let draft = Draft::read(Key::new(PODS, "a", format!("pod-{nth}")), [].into(), text).expect("a draft");
        snapshot.put(draft.at(snapshot.revision() + 1));
    }

    fn full() -> Snapshot {
        let mut snapshot = Snapshot::default();
        (0..3 * FEW).for_each(|nth| put(&mut snapshot, nth));
        snapshot
    }

    fn found(snapshot: &Snapshot, selector: &str) -> Option<usize> {
        let labels = LabelSelector::parse(selector).expect("a selector");
        let found = snapshot.table(PODS)?.look_up("", &labels, None, usize::MAX, |_| true)?;
        Some(found.len())
    }

    fn labels(snapshot: &Snapshot) -> Arc<Labels> {
        snapshot.table(PODS).expect("objects").labels.clone()
    }

    #[test]
    fn a_question_teaches_one_label_at_most() {
        let snapshot = full();
        let known = || -> Vec<String> {
            lock(&labels(&snapshot).known).keys.iter().map(|postings| postings.key.to_string()).collect()
        };
        for (selector, count, keys) in [
            ("app=web,zone=a,pod=pod-7", None, vec!["app"]),
            ("app=web,zone=a,pod=pod-7", None, vec!["app", "zone"]),
            ("app=web,zone=a,pod=pod-7", Some(1), vec!["app", "zone", "pod"]),
            // What is known leaves one object: nothing else is worth a walk.
            ("other=x,pod=pod-7", Some(0), vec!["app", "zone", "pod"]),
        ] {
            assert_eq!(
                (found(&snapshot, selector), known()),
                (count, keys.iter().map(|key| (*key).into()).collect()),
                "{selector}"
            );
        }
    }

    /// However much is taken back, and whatever is asked of it, live tables are looked up as fast as before.
    #[test]
    fn what_is_taken_back_is_no_news_to_the_live_table() {
        let mut live = full();
        assert_eq!(found(&live, "pod=pod-7"), Some(1));
        put(&mut live, 7);
        let mut past = live.aside(PODS);
        for nth in 0..2 * HELD_CHANGES {
            past.take_back(&Key::new(PODS, "a", format!("pod-{}", nth % (2 * FEW))), None);
            past.take_back(&Key::new(PODS, "a", "pod-700"), live.find(PODS, "a", "pod-700").cloned());
        }
        assert_eq!(lock(&labels(&live).changes).steps.len(), 1, "only the live table's own change");
        assert_eq!(found(&past, "pod=pod-700"), None, "gone through");
        let of = |snapshot: &Snapshot, selector: &str| {
            snapshot.select(PODS, "", &LabelSelector::parse(selector).expect("a selector")).count()
        };
        assert_eq!((of(&past, "pod=pod-700"), of(&past, "pod=pod-7"), of(&past, "app=web")), (1, 0, FEW));
        assert_eq!(found(&live, "pod=pod-7"), Some(1), "looked up, with its change");
        let known = lock(&labels(&live).known).keys.len();
        assert_eq!(known, 1, "and nothing was learned anew");
    }

    #[test]
    fn nobody_waits_for_whoever_is_being_answered() {
        let snapshot = full();
        let labels = labels(&snapshot);
        let answering = lock(&labels.known);
        assert_eq!(found(&snapshot, "pod=pod-7"), None, "gone through");
        drop(answering);
        assert_eq!(found(&snapshot, "pod=pod-7"), Some(1));
    }

    /// The known version keeps objects that are gone: nobody may keep it for ever who does not ask again.
    #[test]
    fn what_could_not_be_forgotten_is_forgotten_later() {
        let mut snapshot = full();
        assert_eq!(found(&snapshot, "pod=pod-7"), Some(1));
        let labels = labels(&snapshot);
        let answering = lock(&labels.known);
        (0..=HELD_CHANGES).for_each(|nth| put(&mut snapshot, nth % FEW));
        assert!(!answering.objects.is_empty());
        drop(answering);
        (0..=HELD_CHANGES).for_each(|nth| put(&mut snapshot, nth % FEW));
        assert!(lock(&labels.known).objects.is_empty(), "it is held though nobody asks");
        assert_eq!(found(&snapshot, "pod=pod-7"), Some(1));
    }
}
