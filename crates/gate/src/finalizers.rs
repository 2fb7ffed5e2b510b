//! The two finalizers that a deletion's propagation policy stands for.
//!
//! <https://kubernetes.io/docs/concepts/architecture/garbage-collection/#cascading-deletion>

use object::Meta;
use plan::Propagation;

use crate::DeleteOptions;

pub(crate) const ORPHAN: &str = "orphan";
pub(crate) const FOREGROUND: &str = "foregroundDeletion";

/// The finalizers that an object must carry when it is deleted this way; None: the ones it has.
pub(crate) fn wanted(
    meta: &Meta,
    options: &DeleteOptions,
    orphans_by_default: bool,
) -> Option<Vec<Box<str>>> {
    let orphan = match (options.orphan_dependents, options.propagation) {
        (Some(orphan), _) => orphan,
        (None, Some(policy)) => policy == Propagation::Orphan,
        (None, None) if meta.has_finalizer(ORPHAN) => true,
        (None, None) if meta.has_finalizer(FOREGROUND) => false,
        (None, None) => orphans_by_default,
    };
    let foreground = match (options.orphan_dependents, options.propagation) {
        (Some(_), _) => false,
        (None, Some(policy)) => policy == Propagation::Foreground,
        (None, None) => !meta.has_finalizer(ORPHAN) && meta.has_finalizer(FOREGROUND),
    };
    let mut finalizers: Vec<Box<str>> =
        meta.finalizers.iter().filter(|held| !matches!(&***held, ORPHAN | FOREGROUND)).cloned().collect();
    for (name, want) in [(ORPHAN, orphan), (FOREGROUND, foreground)] {
        if want {
            finalizers.push(name.into());
        }
    }
    (finalizers != meta.finalizers).then_some(finalizers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(held: &[&str], propagation: Option<Propagation>, by_default: bool, expected: &[&str]) {
        let meta = Meta { finalizers: held.iter().map(|&name| name.into()).collect(), ..Meta::default() };
        let options = DeleteOptions { propagation, ..DeleteOptions::default() };
        let found = wanted(&meta, &options, by_default).unwrap_or(meta.finalizers.clone());
        assert_eq!(found, expected.iter().map(|&name| name.into()).collect::<Vec<Box<str>>>());
    }

    #[test]
    fn a_policy_becomes_a_finalizer() {
        check(&["a"], None, false, &["a"]);
        check(&["a"], None, true, &["a", ORPHAN]);
        check(&[FOREGROUND], None, true, &[FOREGROUND]);
        check(&[ORPHAN, "a"], Some(Propagation::Foreground), false, &["a", FOREGROUND]);
        check(&[FOREGROUND], Some(Propagation::Background), true, &[]);
        check(&[], Some(Propagation::Orphan), false, &[ORPHAN]);
    }
}
