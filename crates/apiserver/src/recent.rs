//! Answers that are kept for a while, as many as there is room for.

use std::collections::HashMap;
use std::hash::Hash;
use std::mem;

/// Two generations: what is asked for moves to the younger, and the elder goes when the younger is full. So nobody keeps others out by
/// filling it, and room is made at once.
pub(crate) struct Recent<K, V> {
    young: HashMap<K, (V, usize)>,
    old: HashMap<K, (V, usize)>,
    /// What the younger ones weigh.
    weight: usize,
    /// What each generation may weigh.
    most: usize,
}

impl<K: Eq + Hash, V> Recent<K, V> {
    /// Of `most` entries and twice as many at most; of those that were put with a weight, so much and twice as much, and one more.
    pub(crate) fn new(most: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), weight: 0, most }
    }

    pub(crate) fn get(&mut self, key: &K) -> Option<&V> {
        if let Some((key, (value, weight))) = self.old.remove_entry(key) {
            self.put_weighing(key, value, weight);
        }
        self.young.get(key).map(|(value, _)| value)
    }

    pub(crate) fn put(&mut self, key: K, value: V) {
        self.put_weighing(key, value, 1);
    }

    /// The same of what is larger than others.
    pub(crate) fn put_weighing(&mut self, key: K, value: V, weight: usize) {
        self.old.remove(&key);
        if self.weight >= self.most && !self.young.contains_key(&key) {
            self.old = mem::take(&mut self.young);
            self.weight = 0;
        }
        let replaced = self.young.insert(key, (value, weight)).map_or(0, |(_, weight)| weight);
        self.weight = self.weight + weight - replaced;
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

    #[test]
    fn what_is_heavy_leaves_room_for_fewer() {
        let mut recent = Recent::new(100);
        for key in 0..1_000 {
            recent.put_weighing(key, key, 40);
            assert!(recent.young.len() <= 3 && recent.old.len() <= 3, "after {key}");
        }
        assert_eq!(recent.get(&999), Some(&999));
    }
}
