use std::collections::{BTreeMap, BTreeSet};

use object::Resource;
use schema::{At, Kind, Violation, names, path};
use serde_json::Value;

use crate::column::{AGE, column, text, text_or};
use crate::spec::check::{self, Found};
use crate::spec::node_labels;
use crate::spec::storage;
use crate::{row, strategy};

pub const STORAGE_CLASSES: Resource = Resource::new("storageclasses.storage.k8s.io");

pub static KIND: Kind = Kind {
    resource: STORAGE_CLASSES,
    group: "storage.k8s.io",
    version: "v1",
    kind: "StorageClass",
    singular: "storageclass",
    short_names: &["sc"],
    namespaced: false,
    type_name: "storage.v1.StorageClass",
    columns: &[
        storage::NAME_OR_DEFAULT,
        column("Provisioner", "string", "Who makes its volumes.", |object, _| text(object, "provisioner")),
        column(
            "ReclaimPolicy",
            "string",
            "What becomes of its volumes when they are given back.",
            |object, _| text_or(object, "reclaimPolicy", "Delete"),
        ),
        column("VolumeBindingMode", "string", "When its volumes are made.", |object, _| {
            text_or(object, "volumeBindingMode", "Immediate")
        }),
        column("AllowVolumeExpansion", "string", "Whether its volumes may grow.", |object, _| {
            path::bool(object, "allowVolumeExpansion").into()
        }),
        AGE,
    ],
    strategy: strategy::PLAIN,
    validate,
    warn,
    ..row::BASE
};

fn warn(new: &Value, _old: Option<&Value>) -> Vec<String> {
    let mut found = Vec::new();
    for (index, topology) in path::list(new, "allowedTopologies").iter().enumerate() {
        for (nested, expression) in path::list(topology, "matchLabelExpressions").iter().enumerate() {
            let at = format!("allowedTopologies[{index}].matchLabelExpressions[{nested}].key");
            let told = node_labels::deprecation(path::text(expression, "key"));
            found.extend(told.map(|told| format!("{at}: {told}")));
        }
    }
    found
}

fn validate(class: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let root = At::root("");
    storage::provisioner(class, "provisioner", &mut found);
    storage::parameters(class, &mut found);
    check::one_of(class, "reclaimPolicy", &["Delete", "Retain"], root, &mut found);
    check::one_of(class, "volumeBindingMode", &["Immediate", "WaitForFirstConsumer"], root, &mut found);
    topologies(path::list(class, "allowedTopologies"), &mut found);
    if let Some(old) = old {
        for field in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            check::immutable(class, old, field, root, &mut found);
        }
    }
    found
}

fn topologies(terms: &[Value], found: &mut Found) {
    // Upstream begins with as many empty terms as it is given: one that is empty equals them all. It tells of each that is equal; here no
    // more than so many are told, since their number grows with the square of the terms'.
    const MOST_REPEATED: usize = 100;
    let mut seen: BTreeMap<BTreeMap<&str, BTreeSet<&str>>, usize> =
        BTreeMap::from([(BTreeMap::new(), terms.len())]);
    let mut told = 0;
    let list = At::root("allowedTopologies");
    for (index, term) in terms.iter().enumerate() {
        let at = list.index(index);
        let at = at.field("matchLabelExpressions");
        let mut keys = BTreeMap::new();
        for (place, expression) in path::list(term, "matchLabelExpressions").iter().enumerate() {
            let at = at.index(place);
            let (values, values_at) = (path::list(expression, "values"), at.field("values"));
            if values.is_empty() {
                found.push(Violation::required(values_at, ""));
            }
            let mut held = BTreeSet::new();
            for (place, value) in values.iter().enumerate() {
                let value = value.as_str().unwrap_or_default();
                if !held.insert(value) {
                    found.push(Violation::duplicate(values_at.index(place), value));
                }
            }
            let (key, key_at) = (path::text(expression, "key"), at.field("key"));
            found.extend(Violation::all_invalid(key_at, key, names::qualified_name(key)));
            if keys.insert(key, held).is_some() {
                found.push(Violation::duplicate(key_at, key));
            }
        }
        let equal = seen.entry(keys).or_default();
        let tell = (*equal).min(MOST_REPEATED - told);
        found.extend((0..tell).map(|_| Violation::duplicate(at, "")));
        told += tell;
        *equal += 1;
    }
}
