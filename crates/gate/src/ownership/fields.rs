//! A set of fields: what one manager owns. Written as `FieldsV1`, which is JSON.
//!
//! ```text
//! {"f:spec":{"f:replicas":{},"f:ports":{".":{},"k:{\"port\":80}":{".":{},"f:port":{}}}}}
//! ```
//!
//! A key is a step inwards: `f:` a field, `k:` the item of a list that has these keys, `v:` the item of a set. `"."` says that the
//! element itself is owned besides what is in it; an element with nothing in it is owned itself.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    /// The element itself.
    pub(crate) here: bool,
    pub(crate) below: BTreeMap<Box<str>, Fields>,
}

impl Fields {
    pub(crate) fn is_empty(&self) -> bool {
        !self.here && self.below.is_empty()
    }

    /// The element one step inwards; it is made if it is not there.
    pub(crate) fn at(&mut self, step: impl Into<Box<str>>) -> &mut Self {
        self.below.entry(step.into()).or_default()
    }

    /// None: it has a key that is no step. Steps of a sort that nobody knows yet are passed over, as upstream does.
    pub(crate) fn read(value: &Value) -> Option<Self> {
        let mut fields = Self::default();
        for (step, inner) in value.as_object().into_iter().flatten() {
            match step.as_bytes() {
                b"." => fields.here = true,
                [b'f' | b'k' | b'v' | b'i', b':', ..] => {
                    let mut inner = Self::read(inner)?;
                    inner.here |= inner.below.is_empty();
                    fields.below.insert(step.as_str().into(), inner);
                }
                [_, b':', ..] => {}
                _ => return None,
            }
        }
        Some(fields)
    }

    pub(crate) fn write(&self) -> Value {
        let mut members = Map::new();
        if self.here && !self.below.is_empty() {
            members.insert(".".into(), Value::Object(Map::new()));
        }
        members.extend(self.below.iter().map(|(step, inner)| (step.to_string(), inner.write())));
        members.into()
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.here |= other.here;
        for (step, inner) in &other.below {
            self.at(step.clone()).add(inner);
        }
    }

    /// Takes away exactly the elements of the other set.
    pub(crate) fn subtract(&mut self, other: &Self) {
        self.here &= !other.here;
        for (step, inner) in &other.below {
            if let Some(mine) = self.below.get_mut(step) {
                mine.subtract(inner);
                if mine.is_empty() {
                    self.below.remove(step);
                }
            }
        }
    }

    /// Takes away an element with everything in it.
    pub(crate) fn cut(&mut self, path: &[&str]) {
        let [step, rest @ ..] = path else { return };
        if rest.is_empty() {
            self.below.remove(*step);
            return;
        }
        if let Some(inner) = self.below.get_mut(*step) {
            inner.cut(rest);
            if inner.is_empty() {
                self.below.remove(*step);
            }
        }
    }

    /// The elements that are in both sets.
    pub(crate) fn common(&self, other: &Self) -> Self {
        let mut common = Self { here: self.here && other.here, below: BTreeMap::new() };
        for (step, inner) in &self.below {
            if let Some(theirs) = other.below.get(step) {
                let both = inner.common(theirs);
                if !both.is_empty() {
                    common.below.insert(step.clone(), both);
                }
            }
        }
        common
    }

    /// The elements as messages name them: `.spec.ports[port=80].name`.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        if self.here {
            paths.push(String::new());
        }
        self.collect(&mut String::new(), &mut paths);
        paths
    }

    fn collect(&self, prefix: &mut String, paths: &mut Vec<String>) {
        // As upstream tells them: first what is held itself, then what is held within.
        for (step, _) in self.below.iter().filter(|(_, inner)| inner.here) {
            paths.push(format!("{prefix}{}", step_text(step)));
        }
        for (step, inner) in &self.below {
            let length = prefix.len();
            prefix.push_str(&step_text(step));
            inner.collect(prefix, paths);
            prefix.truncate(length);
        }
    }
}

pub(super) fn step_text(step: &str) -> String {
    match step.split_at_checked(2) {
        Some(("f:", name)) => format!(".{name}"),
        Some(("v:", value)) => format!("[={value}]"),
        Some(("k:", keys)) => {
            let keys: Map<String, Value> = serde_json::from_str(keys).unwrap_or_default();
            let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("[{}]", keys.join(","))
        }
        Some(("i:", index)) => format!("[{index}]"),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_set_is_what_its_text_says() {
        let text = json!({"f:spec": {"f:replicas": {}, "f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}},
            "f:metadata": {"f:finalizers": {"v:\"a/b\"": {}}}});
        let fields = Fields::read(&text).expect("a set");
        assert_eq!(Fields::read(&json!({"f:spec": {"replicas": {}}})), None);
        assert_eq!(fields.write(), text);
        assert_eq!(
            fields.paths(),
            [
                ".metadata.finalizers[=\"a/b\"]",
                ".spec.ports",
                ".spec.replicas",
                ".spec.ports[port=80,protocol=\"TCP\"]",
                ".spec.ports[port=80,protocol=\"TCP\"].port",
            ]
        );
        let mut rest = fields.clone();
        rest.subtract(&fields);
        assert!(rest.is_empty());
        assert_eq!(fields.common(&fields), fields);
    }
}
