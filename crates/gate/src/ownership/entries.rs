//! `metadata.managedFields`: one entry for each manager.

use serde_json::{Value, json};

use super::fields::Fields;

/// At most so many entries of updaters are kept apart.
const MOST_UPDATERS: usize = 10;
const ANCIENT: &str = "ancient-changes";

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) manager: String,
    /// `Apply`; otherwise `Update`.
    pub(crate) applies: bool,
    pub(crate) api_version: String,
    pub(crate) subresource: String,
    /// RFC 3339; empty if there is none.
    pub(crate) time: String,
    pub(crate) fields: Fields,
}

impl Entry {
    /// An applier is one manager whatever version it speaks; an updater is another one in each.
    pub(crate) fn is_of(&self, manager: &str, applies: bool, api_version: &str, subresource: &str) -> bool {
        self.manager == manager
            && self.applies == applies
            && self.subresource == subresource
            && (applies || self.api_version == api_version)
    }

    fn read(value: &Value) -> Option<Self> {
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let applies = match value["operation"].as_str()? {
            "Apply" => true,
            "Update" => false,
            _ => return None,
        };
        let entry = Self {
            manager: text("manager"),
            applies,
            api_version: text("apiVersion"),
            subresource: text("subresource"),
            time: text("time"),
            fields: Fields::read(&value["fieldsV1"])?,
        };
        (!entry.api_version.is_empty() && value["fieldsType"] == "FieldsV1").then_some(entry)
    }

    fn write(&self) -> Value {
        let mut value = json!({
            "manager": self.manager,
            "operation": if self.applies { "Apply" } else { "Update" },
            "apiVersion": self.api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": self.fields.write(),
        });
        for (name, text) in [("time", &self.time), ("subresource", &self.subresource)] {
            if !text.is_empty() {
                value[name] = text.as_str().into();
            }
        }
        value
    }

    /// `"kubectl" with subresource "scale" using apps/v1`, as conflicts name it.
    pub(crate) fn name(&self) -> String {
        let mut name = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            name.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if !self.applies {
            name.push_str(&format!(" using {}", self.api_version));
        }
        name
    }
}

/// The entries of an object; None if the list has one that cannot be read.
pub(crate) fn read(object: &Value) -> Option<Vec<Entry>> {
    let list = object["metadata"]["managedFields"].as_array().map_or(&[][..], Vec::as_slice);
    list.iter().map(Entry::read).collect()
}

/// Writes the entries in upstream's order, without those that own nothing.
pub(crate) fn write(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|entry| !entry.fields.is_empty());
    entries.sort_by(|a, b| order(a).cmp(&order(b)));
    let metadata = crate::metadata::metadata(object);
    if entries.is_empty() {
        metadata.remove("managedFields");
    } else {
        metadata.insert("managedFields".into(), entries.iter().map(Entry::write).collect());
    }
}

fn order(entry: &Entry) -> (bool, &str, &str, &str, &str) {
    (!entry.applies, &entry.time, &entry.manager, &entry.api_version, &entry.subresource)
}

/// Joins the oldest updaters of a version until few enough are left.
pub(crate) fn cap(entries: &mut Vec<Entry>) {
    let mut updaters: Vec<usize> = (0..entries.len()).filter(|&index| !entries[index].applies).collect();
    if updaters.len() <= MOST_UPDATERS {
        return;
    }
    updaters.sort_by(|&a, &b| order(&entries[a]).cmp(&order(&entries[b])));
    let mut gone: Vec<usize> = Vec::new();
    let mut oldest: Vec<usize> = Vec::new();
    for index in updaters.iter().copied() {
        if updaters.len() - gone.len() <= MOST_UPDATERS {
            break;
        }
        match oldest.iter().copied().find(|&held| entries[held].api_version == entries[index].api_version) {
            None => oldest.push(index),
            Some(held) => {
                let younger = entries[index].clone();
                let joined = &mut entries[held];
                joined.fields.add(&younger.fields);
                joined.manager = ANCIENT.into();
                joined.subresource.clear();
                joined.time = younger.time;
                gone.push(index);
            }
        }
    }
    gone.sort_unstable();
    gone.into_iter().rev().for_each(|index| drop(entries.remove(index)));
}
