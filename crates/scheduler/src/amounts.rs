use std::collections::BTreeMap;

use schema::Quantity;

/// What a pod asks for or a node has: CPU in thousandths, the rest in whole units (bytes).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    pub cpu_millis: i64,
    pub memory_bytes: i64,
    pub ephemeral_bytes: i64,
    /// Extended resources and huge pages, by name. Few pods have any.
    pub others: Vec<(Box<str>, i64)>,
}

impl Amounts {
    pub fn of(quantities: &BTreeMap<Box<str>, Quantity>) -> Self {
        let mut amounts = Self::default();
        for (name, quantity) in quantities {
            match &**name {
                "cpu" => amounts.cpu_millis = quantity.millis(),
                "memory" => amounts.memory_bytes = quantity.units(),
                "ephemeral-storage" => amounts.ephemeral_bytes = quantity.units(),
                "pods" => {}
                _ => amounts.others.push((name.clone(), quantity.units())),
            }
        }
        amounts
    }

    pub fn other(&self, name: &str) -> i64 {
        self.others.iter().find(|(held, _)| **held == *name).map_or(0, |(_, amount)| *amount)
    }

    pub fn add(&mut self, more: &Self) {
        self.change(more, 1);
    }

    pub fn subtract(&mut self, less: &Self) {
        self.change(less, -1);
    }

    fn change(&mut self, by: &Self, sign: i64) {
        let sum = |a: i64, b: i64| a.saturating_add(b.saturating_mul(sign));
        self.cpu_millis = sum(self.cpu_millis, by.cpu_millis);
        self.memory_bytes = sum(self.memory_bytes, by.memory_bytes);
        self.ephemeral_bytes = sum(self.ephemeral_bytes, by.ephemeral_bytes);
        for (name, amount) in &by.others {
            match self.others.binary_search_by(|(held, _)| held.cmp(name)) {
                Ok(at) => self.others[at].1 = sum(self.others[at].1, *amount),
                Err(at) => self.others.insert(at, (name.clone(), sum(0, *amount))),
            }
        }
        self.others.retain(|(_, amount)| *amount != 0);
    }

    /// At least as much of everything as `other`.
    pub fn raise(&mut self, other: &Self) {
        self.cpu_millis = self.cpu_millis.max(other.cpu_millis);
        self.memory_bytes = self.memory_bytes.max(other.memory_bytes);
        self.ephemeral_bytes = self.ephemeral_bytes.max(other.ephemeral_bytes);
        for (name, amount) in &other.others {
            match self.others.binary_search_by(|(held, _)| held.cmp(name)) {
                Ok(at) => self.others[at].1 = self.others[at].1.max(*amount),
                Err(at) => self.others.insert(at, (name.clone(), *amount)),
            }
        }
    }

    /// Puts these in place of what stands under the same names (pod-level requests, KEP-2837).
    pub fn overrule(&mut self, with: &Self) {
        for (mine, theirs) in [
            (&mut self.cpu_millis, with.cpu_millis),
            (&mut self.memory_bytes, with.memory_bytes),
            (&mut self.ephemeral_bytes, with.ephemeral_bytes),
        ] {
            if theirs != 0 {
                *mine = theirs;
            }
        }
        for (name, amount) in &with.others {
            match self.others.binary_search_by(|(held, _)| held.cmp(name)) {
                Ok(at) => self.others[at].1 = *amount,
                Err(at) => self.others.insert(at, (name.clone(), *amount)),
            }
        }
    }
}
