//! Answers that are kept for a while, as many as there is room for.

use std::collections::HashMap;
use std::hash::Hash;
use std::mem;

/// Two generations: what is asked for moves to the younger, and the elder goes when the younger is full. So nobody keeps others out by
/// filling it, and room is made at once.
pub(crate) struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    /// Of each generation.
    most: usize,
}

impl<K: Eq + Hash, V> Recent<K, V> {
    /// Of `most` entries and twice as many at most.
    pub(crate) fn new(most: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), most }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<&V> {
        if let Some((key, value)) = self.old.remove_entry(key) {
            self.put(key, value);
        }
        self.young.get(key)
    }

    pub(crate) fn put(&mut self, key: K, value: V) {
        self.old.remove(&key);
        if self.young.len() >= self.most && !self.young.contains_key(&key) {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_stays_and_the_oldest_goes() {
        let mut recent = Recent::new(2);
        for key in 0..10 {
            recent.put(key, key);
            assert_eq!(recent.get(&0), Some(&0), "after {key}");
            assert!(recent.young.len() <= 2 && recent.old.len() <= 2);
        }
        assert_eq!(recent.get(&1), None);
        assert_eq!(recent.get(&9), Some(&9));
        recent.put(9, 90);
        assert_eq!(recent.get(&9), Some(&90));
    }
}
