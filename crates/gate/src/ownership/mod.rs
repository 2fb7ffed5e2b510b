//! Who owns which field: `metadata.managedFields` and server-side apply (KEP-555).
//!
//! <https://kubernetes.io/docs/reference/using-api/server-side-apply/>. Whoever changes a field by an update owns it; whoever applies
//! a configuration owns what is in it, and is told of a conflict before taking over what another manager set to something else.

mod entries;
mod fields;
mod shape;
mod typed;

use std::collections::{BTreeMap, BTreeSet};

use object::{Cause, Reason, Status, Time};
use schema::{At, DecodeError, Kind, ViolationKind, path};
use serde_json::Value;

use crate::decode::Form;
use crate::request::Request;
use crate::{decode, metadata, subresource};
use entries::Entry;
use fields::Fields;
use shape::{Difference, Shape};

/// What nobody ever owns.
const STRIPPED: &[&[&str]] = &[
    &["f:apiVersion"],
    &["f:kind"],
    &["f:metadata", "f:creationTimestamp"],
    &["f:metadata", "f:generation"],
    &["f:metadata", "f:managedFields"],
    &["f:metadata", "f:name"],
    &["f:metadata", "f:namespace"],
    &["f:metadata", "f:resourceVersion"],
    &["f:metadata", "f:selfLink"],
    &["f:metadata", "f:uid"],
];

/// Who owns what was there before the first apply.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// Who takes over what it applied before on the client's side.
const KUBECTL: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const SCALE_VERSION: &str = "autoscaling/v1";

/// A write as it looks in the versions that other managers of the object speak: where a webhook converts, a field is another one there.
pub(crate) type Elsewhere = BTreeMap<String, Difference>;

/// How two states of an object differ by a row's schema.
pub(crate) fn difference(kind: &Kind, old: &Value, new: &Value) -> Difference {
    Difference::between(Shape::of(kind), old, new)
}

/// The other versions that managers of an object speak.
pub(crate) fn versions(request: &Request<'_>, object: &Value) -> BTreeSet<String> {
    let own = request.kind.api_version();
    let entries = entries::read(object).unwrap_or_default().into_iter();
    entries.map(|entry| entry.api_version).filter(|version| *version != own).collect()
}

/// The set without what is never owned and what writes through this endpoint do not reach.
fn owned(request: &Request<'_>, mut fields: Fields) -> Fields {
    STRIPPED.iter().for_each(|path| fields.cut(path));
    if let Some(metadata) = fields.below.get_mut("f:metadata") {
        metadata.here = false;
    }
    fields.below.retain(|_, inner| !inner.is_empty());
    fields.here = false;
    match request.subresource {
        "" => {
            let strategy = &request.kind.strategy;
            let untold = strategy.main_keeps.iter().chain(strategy.unowned);
            untold.for_each(|field| fields.cut(&[&format!("f:{field}")]));
        }
        "status" => {
            fields.cut(&["f:spec"]);
            let resource = request.kind.resource.as_str();
            for (_, path) in subresource::KEPT_BY_STATUS.iter().filter(|(kept, _)| *kept == resource) {
                let steps: Vec<String> = path.split('.').map(|name| format!("f:{name}")).collect();
                fields.cut(&steps.iter().map(String::as_str).collect::<Vec<_>>());
            }
        }
        _ => {}
    }
    fields
}

/// A new object's fields belong to whoever created it. `kind` is the stored row: what objects are inside the gate.
pub(crate) fn created(request: &Request<'_>, kind: &Kind, object: &mut Value, now: Time) {
    // The object of an apply that found nothing brings its own entry.
    if entries::read(object).is_some_and(|entries| !entries.is_empty()) {
        return;
    }
    metadata::metadata(object).remove("managedFields");
    let row = spoken(request, kind);
    let difference = match row.conversion {
        Some(_) => Difference::between(Shape::of(row), &unsaid(row), &row.read_stored(object.clone())),
        None => Difference::between(Shape::of(row), &unsaid(row), object),
    };
    let fields = owned(request, difference.changed);
    entries::write(object, vec![entry(request, false, now, fields)]);
}

/// The row whose fields an entry names: of a built-in kind the one that the client speaks.
fn spoken<'a>(request: &Request<'a>, kind: &'a Kind) -> &'a Kind {
    if kind.custom.is_none() { request.kind } else { kind }
}

/// How two stored states differ to those who speak a version.
fn difference_in(row: &Kind, old: &Value, new: &Value) -> Difference {
    match row.conversion {
        Some(_) => {
            let read = |object: &Value| row.read_stored(object.clone());
            Difference::between(Shape::of(row), &read(old), &read(new))
        }
        None => Difference::between(Shape::of(row), old, new),
    }
}

/// The same to managers who speak other versions of a built-in kind than the one that is written in.
fn in_versions(request: &Request<'_>, held: &[Entry], old: &Value, new: &Value) -> Elsewhere {
    let (own, kind) = (request.kind.api_version(), request.kind);
    let mut found = Elsewhere::new();
    if kind.custom.is_some() {
        return found;
    }
    for version in held.iter().map(|entry| &entry.api_version).filter(|version| **version != own) {
        let (group, name) = version.split_once('/').unwrap_or(("", version));
        if let Some(row) = kinds::by_gvk(group, name, kind.kind)
            && !found.contains_key(version)
        {
            found.insert(version.clone(), difference_in(row, old, new));
        }
    }
    found
}

/// An object of the kind that says nothing. What stands in it belongs to nobody who leaves it so.
fn unsaid(kind: &Kind) -> Value {
    match kind.schema() {
        Some(_) => serde_json::json!({}),
        None => kinds::types().zero(kind.type_name),
    }
}

fn entry(request: &Request<'_>, applies: bool, now: Time, fields: Fields) -> Entry {
    let manager = &request.options.field_manager;
    // Upstream loses the time on the way from the Scale to the object.
    let time = if request.subresource == "scale" { String::new() } else { now.to_string() };
    Entry {
        manager: if manager.is_empty() { "unknown".into() } else { manager.to_string() },
        applies,
        api_version: request.kind.api_version(),
        subresource: request.subresource.to_owned(),
        time,
        fields,
    }
}

/// The fields that an update changed belong to whoever made it; what it removed belongs to nobody.
pub(crate) fn updated(
    request: &Request<'_>,
    kind: &Kind,
    new: &mut Value,
    old: &Value,
    now: Time,
    elsewhere: &Elsewhere,
) {
    let given = metadata::metadata(new).remove("managedFields").filter(|_| request.subresource.is_empty());
    let live = old["metadata"].get("managedFields");
    let start = match &given {
        // An empty list, or one with an empty entry, gives up tracking.
        Some(Value::Array(list))
            if list.iter().all(|one| one.as_object().is_some_and(|one| one.is_empty())) =>
        {
            return;
        }
        Some(list @ Value::Array(_)) => readable(list).or_else(|| live.and_then(readable)),
        _ => live.and_then(readable),
    };
    // An object that nobody tracks stays so until it is applied.
    let Some(mut held) = start else { return };
    let difference = difference_in(spoken(request, kind), old, new);
    let (changed, removed) = (owned(request, difference.changed), difference.removed);
    let spoken_too = in_versions(request, &held, old, new);
    let mine = entry(request, false, now, Fields::default());
    let is_mine = |one: &Entry| one.is_of(&mine.manager, false, &mine.api_version, &mine.subresource);
    for other in held.iter_mut() {
        let there = elsewhere.get(&other.api_version).or_else(|| spoken_too.get(&other.api_version));
        let (changed, removed) = there.map_or((&changed, &removed), |there| (&there.changed, &there.removed));
        other.fields.subtract(removed);
        if !is_mine(other) {
            other.fields.subtract(changed);
        }
    }
    if !changed.is_empty() {
        match held.iter_mut().find(|one| is_mine(one)) {
            Some(known) => {
                known.fields.add(&changed);
                known.time = mine.time;
            }
            None => held.push(Entry { fields: changed, ..mine }),
        }
        entries::cap(&mut held);
    }
    entries::write(new, held);
}

fn readable(list: &Value) -> Option<Vec<Entry>> {
    entries::read(&serde_json::json!({"metadata": {"managedFields": list}}))
        .filter(|entries| !entries.is_empty())
}

fn without_entries(object: &Value) -> Value {
    let mut object = object.clone();
    metadata::metadata(&mut object).remove("managedFields");
    object
}

/// The object that an apply leads to, with its entries.
pub(crate) fn apply(
    request: &Request<'_>,
    applied: &Value,
    old: &Value,
    now: Time,
    elsewhere: &Elsewhere,
) -> Result<Value, Status> {
    let config = configuration(request, applied)?;
    let shape = Shape::of(request.kind);
    let live = without_entries(&decode::from_stored(request.kind, old.clone()));
    let mut held = match entries::read(old) {
        Some(entries) if !entries.is_empty() => entries,
        _ => vec![first(request, shape, &live, now)],
    };
    let mine = entry(request, true, now, set_by(request, shape, &config)?);
    let is_mine = |one: &Entry| one.is_of(&mine.manager, true, &mine.api_version, &mine.subresource);
    let mut kept = mine.fields.clone();
    held.iter().filter(|one| !is_mine(one)).for_each(|other| kept.add(&other.fields));
    let mut merged = live.clone();
    shape::merge(shape, &mut merged, &config);
    let before = held.iter().find(|one| is_mine(one)).cloned();
    if let Some(before) = &before {
        shape::remove(shape, &mut merged, &before.fields, &kept);
    }
    let difference = Difference::between(shape, &live, &merged);
    let changed = owned(request, difference.changed);
    let mut claimed = changed.clone();
    if mine.manager == KUBECTL {
        claimed.subtract(&applied_by_the_client(request, shape, &live));
    }
    contest(request, &held, &claimed, elsewhere, &is_mine)?;
    for other in held.iter_mut().filter(|one| !is_mine(one)) {
        let there = elsewhere.get(&other.api_version);
        let (changed, removed) =
            there.map_or((&changed, &difference.removed), |there| (&there.changed, &there.removed));
        other.fields.subtract(changed);
        other.fields.subtract(removed);
    }
    let time = match &before {
        _ if merged != live => mine.time.clone(),
        Some(before) => before.time.clone(),
        None => String::new(),
    };
    if mine.manager == KUBECTL && last_applied(&merged).is_some() {
        note_last_applied(&mut merged, config);
    }
    held.retain(|one| !is_mine(one));
    held.push(Entry { time, ..mine });
    entries::write(&mut merged, held);
    Ok(merged)
}

/// The configuration that `kubectl apply` noted before it applied on the server.
fn last_applied(object: &Value) -> Option<&str> {
    object["metadata"]["annotations"][LAST_APPLIED].as_str().filter(|text| !text.is_empty())
}

/// What the live object has of the configuration that the client applied by itself: `kubectl apply --server-side` takes it over
/// without a conflict.
fn applied_by_the_client(request: &Request<'_>, shape: Shape<'_>, live: &Value) -> Fields {
    let noted = last_applied(live).and_then(|text| serde_json::from_str::<Value>(text).ok());
    let Some(noted) = noted.filter(|noted| noted["apiVersion"] == *request.kind.api_version()) else {
        return Fields::default();
    };
    let mut fields = Fields::default();
    // One that is not of its type tells nothing.
    let mut wrong = Vec::new();
    shape::set_by(shape, &noted, "", &mut fields, &mut wrong);
    if !wrong.is_empty() {
        return Fields::default();
    }
    let since = Difference::between(shape, &noted, live);
    fields.subtract(&since.changed);
    fields.subtract(&since.removed);
    fields
}

/// Keeps the client's note as it would have written it itself, for the day that it applies by itself again.
fn note_last_applied(object: &mut Value, mut config: Value) {
    if let Some(Value::Object(annotations)) = config.pointer_mut("/metadata/annotations") {
        annotations.remove(LAST_APPLIED);
    }
    let annotations = &mut object["metadata"]["annotations"];
    annotations[LAST_APPLIED] = format!("{config}\n").into();
    let mut found = Vec::new();
    schema::metadata::annotations(Some(&*annotations), At::root("metadata.annotations"), &mut found);
    // What is too large to be noted is applied all the same. A note of something older would mislead the client.
    if found.iter().any(|one| one.kind == ViolationKind::TooLong)
        && let Some(annotations) = annotations.as_object_mut()
    {
        annotations.remove(LAST_APPLIED);
    }
}

/// A configuration of a `Scale`, which says that it is one.
pub(crate) fn scale(applied: &Value) -> Result<Value, Status> {
    let text = |name: &str| applied.get(name).and_then(Value::as_str).unwrap_or_default();
    match (text("apiVersion"), text("kind")) {
        (SCALE_VERSION, "Scale") => {
            typed::check(crate::scale::TYPE, applied)
                .map_err(|why| not_of_its_type(SCALE_VERSION, "Scale", applied, &why))?;
            Ok(applied.clone())
        }
        (version, name) => Err(of_another_type(version, name)),
    }
}

fn of_another_type(version: &str, name: &str) -> Status {
    Status::bad_request(match version.split('/').count() {
        1 => format!("invalid object type: /{version}, Kind={name}"),
        2 => format!("invalid object type: {version}, Kind={name}"),
        // Not to be read as a version, nothing of it is told.
        _ => "invalid object type: /, Kind=".to_owned(),
    })
}

/// Whoever applies a scale owns the number of replicas alone, which stands `at` this path of the object; one that does not say the
/// number leaves it and its owners as they are, unless it was this manager's only.
pub(crate) fn scaled(
    request: &Request<'_>,
    applied: &Value,
    old: &Value,
    new: &mut Value,
    at: &str,
    now: Time,
) -> Result<(), Status> {
    let mut fields = Fields::default();
    at.split('.').fold(&mut fields, |to, name| to.at(format!("f:{name}"))).here = true;
    let mut held = entries::read(old).unwrap_or_default();
    let mut mine = entry(request, true, now, fields);
    let is_mine = |one: &Entry| one.is_of(&mine.manager, true, &mine.api_version, &mine.subresource);
    let owns = |one: &Entry| !one.fields.common(&mine.fields).is_empty();
    // As of an object that is applied for the first time; a Scale does not say a number of zero.
    if !held.iter().any(owns) && path::int(old, at).is_some_and(|number| number != 0) {
        held.push(Entry { manager: BEFORE_FIRST_APPLY.into(), applies: false, ..mine.clone() });
    }
    if path::get(applied, "spec.replicas").is_none() {
        let is_others = held.iter().any(|one| !is_mine(one) && owns(one));
        if is_others || !held.iter().any(is_mine) {
            subresource::copy_at(new, old, at);
        }
        held.retain(|one| !is_mine(one));
        entries::write(new, held);
        return Ok(());
    }
    if path::get(old, at) == path::get(new, at) {
        let before = held.iter().find(|one| is_mine(one));
        mine.time = before.map_or_else(String::new, |before| before.time.clone());
    } else {
        // Conflicts are told in the version of what is applied.
        let in_its_words = |one: &Entry| Entry { api_version: SCALE_VERSION.into(), ..one.clone() };
        let told: Vec<Entry> = held.iter().filter(|one| !is_mine(one)).map(in_its_words).collect();
        contest(request, &told, &mine.fields, &Elsewhere::default(), &|_| false)?;
        held.iter_mut().filter(|one| !is_mine(one)).for_each(|other| other.fields.subtract(&mine.fields));
    }
    held.retain(|one| !one.is_of(&mine.manager, true, &mine.api_version, &mine.subresource));
    held.push(mine);
    entries::write(new, held);
    Ok(())
}

/// As [`updated`], of a write of the scale: upstream looks at the Scale, which does not say a number of zero, and tracks nothing in one
/// whose number nobody owns.
pub(crate) fn rescaled(request: &Request<'_>, old: &Value, new: &mut Value, at: &str, now: Time) {
    let mut fields = Fields::default();
    at.split('.').fold(&mut fields, |to, name| to.at(format!("f:{name}"))).here = true;
    let number = |object: &Value| path::int(object, at).filter(|number| *number != 0);
    let Some(mut held) = entries::read(old) else { return };
    let is_owned = held.iter().any(|one| !one.fields.common(&fields).is_empty());
    if !is_owned || number(old) == number(new) {
        return;
    }
    held.iter_mut().for_each(|one| one.fields.subtract(&fields));
    if number(new).is_some() {
        let mine = entry(request, false, now, fields);
        held.retain(|one| !one.is_of(&mine.manager, false, &mine.api_version, &mine.subresource));
        held.push(mine);
        entries::cap(&mut held);
    }
    entries::write(new, held);
}

/// Merges a policy's configuration into an object by the rules of apply, whoever owns what.
///
/// # Errors
/// Upstream's words for a part that could only be replaced as a whole: a policy would take away what it does not know of.
pub(crate) fn merge(kind: &Kind, object: &mut Value, configuration: &Value) -> Result<(), String> {
    let mut atomics = Fields::default();
    shape::atomics(Shape::of(kind), configuration, &mut atomics);
    let atomics = atomics.paths().join(", ");
    if !atomics.is_empty() {
        return Err(format!(
            "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {atomics}"
        ));
    }
    shape::merge(Shape::of(kind), object, configuration);
    Ok(())
}

/// An apply of an absent object: its configuration is the object.
pub(crate) fn applied_new(request: &Request<'_>, applied: &Value, now: Time) -> Result<Value, Status> {
    let config = configuration(request, applied)?;
    let fields = set_by(request, Shape::of(request.kind), &config)?;
    let mut object = config;
    entries::write(&mut object, vec![entry(request, true, now, fields)]);
    Ok(object)
}

/// The configuration, checked: of the kind that the path names, without unknown fields, without entries of its own.
fn configuration(request: &Request<'_>, applied: &Value) -> Result<Value, Status> {
    let text = |name: &str| applied.get(name).and_then(Value::as_str).unwrap_or_default();
    let (version, name) = (text("apiVersion"), text("kind"));
    if version != request.kind.api_version() || name != request.kind.kind {
        return Err(of_another_type(version, name));
    }
    if !applied["metadata"]["managedFields"].is_null() {
        return Err(Status::bad_request("metadata.managedFields must be nil"));
    }
    if request.kind.custom.is_none() {
        typed::check(request.kind.type_name, applied).map_err(|why| untyped(request, applied, &[why]))?;
    }
    let mut config = applied.clone();
    let mut strict = request.options.clone();
    strict.field_validation = schema::FieldValidation::Strict;
    // What the reader of the body found is as bad as the request has it.
    strict.problems.told.clear();
    decode::fields(&Form::Kind(request.kind), &mut config, &strict)
        .map_err(|error| untyped(request, applied, &undeclared(request, applied, &error)))?;
    // Conforming fills in what Go always writes; a configuration says only what it says.
    Ok(only_given(config, applied))
}

/// What apply says of fields that the type does not have, and of what else is wrong with the configuration, by its places.
fn undeclared(request: &Request<'_>, applied: &Value, error: &DecodeError) -> Vec<String> {
    let DecodeError::Strict(texts) = error else { return vec![error.to_string()] };
    let mut told: Vec<String> = texts
        .iter()
        .map(|text| match text.strip_prefix("unknown field \"").and_then(|rest| rest.strip_suffix('"')) {
            Some(path) => format!(".{path}: field not declared in schema"),
            None => text.clone(),
        })
        .collect();
    shape::set_by(Shape::of(request.kind), applied, "", &mut Fields::default(), &mut told);
    told.sort();
    told
}

/// The members of a checked value that the client wrote. Those of nothing (`data: {}`, `data: null`), which checking leaves
/// out, are a manager's own too.
fn only_given(checked: Value, given: &Value) -> Value {
    match (checked, given) {
        (Value::Object(mut members), Value::Object(wrote)) => {
            let kept = wrote.iter().filter_map(|(name, wrote)| match members.remove(name) {
                Some(value) => Some((name.clone(), only_given(value, wrote))),
                None => is_nothing(wrote).then(|| (name.clone(), wrote.clone())),
            });
            Value::Object(kept.collect())
        }
        (Value::Array(items), Value::Array(wrote)) if items.len() == wrote.len() => {
            items.into_iter().zip(wrote).map(|(item, wrote)| only_given(item, wrote)).collect()
        }
        (checked, _) => checked,
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    }
}

/// The 500 of a configuration that is not of its type, as upstream has it: a Status without a reason.
fn untyped(request: &Request<'_>, applied: &Value, wrong: &[String]) -> Status {
    let why = match wrong {
        [one] => one.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    };
    not_of_its_type(&request.kind.api_version(), request.kind.kind, applied, &why)
}

fn not_of_its_type(version: &str, kind: &str, applied: &Value, why: &str) -> Status {
    let (namespace, name) = (metadata::text(applied, "namespace"), metadata::text(applied, "name"));
    let slash = if version.contains('/') { "" } else { "/" };
    Status::new(
        Reason::Unknown,
        format!(
            "failed to create typed patch object ({namespace}/{name}; {slash}{version}, Kind={kind}): {why}"
        ),
    )
}

fn set_by(request: &Request<'_>, shape: Shape<'_>, config: &Value) -> Result<Fields, Status> {
    let mut fields = Fields::default();
    let mut wrong = Vec::new();
    shape::set_by(shape, config, "", &mut fields, &mut wrong);
    if wrong.is_empty() { Ok(owned(request, fields)) } else { Err(untyped(request, config, &wrong)) }
}

/// What was there before the first apply belongs to nobody in particular.
fn first(request: &Request<'_>, shape: Shape<'_>, live: &Value, now: Time) -> Entry {
    let difference = Difference::between(shape, &unsaid(request.kind), live);
    Entry {
        manager: BEFORE_FIRST_APPLY.into(),
        ..entry(request, false, now, owned(request, difference.changed))
    }
}

/// The 409 of an apply that would change what others own, unless it is forced.
fn contest(
    request: &Request<'_>,
    held: &[Entry],
    changed: &Fields,
    elsewhere: &Elsewhere,
    is_mine: &dyn Fn(&Entry) -> bool,
) -> Result<(), Status> {
    if request.options.force {
        return Ok(());
    }
    let others = held.iter().filter(|one| !is_mine(one));
    let mut conflicts: Vec<(String, Vec<String>)> = others
        .map(|other| {
            let there = elsewhere.get(&other.api_version).map_or(changed, |there| &there.changed);
            (other.name(), other.fields.common(there).paths())
        })
        .filter(|(_, paths)| !paths.is_empty())
        .collect();
    if conflicts.is_empty() {
        return Ok(());
    }
    conflicts.sort();
    let count: usize = conflicts.iter().map(|(_, paths)| paths.len()).sum();
    let message = match &conflicts[..] {
        [(name, paths)] if count == 1 => {
            format!("Apply failed with 1 conflict: conflict with {name}: {}", paths.join(""))
        }
        all => {
            let list = |(name, paths): &(String, Vec<String>)| {
                format!(
                    "conflicts with {name}:\n{}",
                    paths.iter().map(|path| format!("- {path}")).collect::<Vec<_>>().join("\n")
                )
            };
            format!(
                "Apply failed with {count} conflicts: {}",
                all.iter().map(list).collect::<Vec<_>>().join("\n")
            )
        }
    };
    let mut status = Status::new(Reason::Conflict, message);
    for (name, paths) in conflicts {
        status.causes.extend(paths.into_iter().map(|field| Cause {
            reason: "FieldManagerConflict",
            message: format!("conflict with {name}"),
            field,
        }));
    }
    Err(status)
}
