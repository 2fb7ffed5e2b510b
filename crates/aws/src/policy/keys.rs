/// The condition keys of a request with their values. Names are compared without regard to case, tag keys in them too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys(Vec<(String, Vec<String>)>);

impl Keys {
    /// Gives a key its one value.
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        self.put(key, vec![value.into()]);
    }

    /// Gives a key its values, instead of those that it had. A key without a value is absent.
    pub fn put(&mut self, key: &str, values: Vec<String>) {
        let key = key.to_ascii_lowercase();
        self.0.retain(|(known, _)| *known != key);
        if !values.is_empty() {
            self.0.push((key, values));
        }
    }

    /// Takes over the other's keys; where both have one, the other's values count.
    pub fn merge(&mut self, other: &Self) {
        for (key, values) in &other.0 {
            self.put(key, values.clone());
        }
    }

    /// `key` in lower case.
    pub(super) fn get(&self, key: &str) -> Option<&[String]> {
        self.0.iter().find(|(known, _)| known == key).map(|(_, values)| &values[..])
    }
}
