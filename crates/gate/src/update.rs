//! PUT and PATCH of an object or of a part of it.

use std::sync::Arc;
use std::time::Instant;

use admission::Operation;
use object::{Key, Object, Reason, Status};
use schema::FieldValidation;
use serde_json::Value;
use store::{Op, Precondition};

use crate::admit::{self, Review};
use crate::commit::{self, Failed};
use crate::decode::Form;
use crate::ownership::Elsewhere;
use crate::request::{Change, Options, Outcome, PatchKind, Preconditions, Request};
use crate::subresource::{self, Row};
use crate::{Gate, charge, create, decode, metadata, ownership, patch, removal, scale, service};

/// A patch is tried again this often on a newer object, as upstream does.
const PATCH_ATTEMPTS: u32 = 6;
/// Anything else: each failed attempt is somebody else's success, so this many only fail together.
const ATTEMPTS: u32 = 64;

/// An update as decided on one snapshot.
struct Decided {
    ops: Vec<Op>,
    /// The object as its client sees it, and as it was before.
    new: Value,
    old: Value,
    /// Nothing of the object changes.
    unchanged: bool,
    /// Its last finalizer goes: the object is removed.
    removed: bool,
    warnings: Vec<String>,
}

impl Gate {
    /// Changes an object. `expect` is what must be true of the stored one besides what the body says.
    ///
    /// # Errors
    /// As the API answers them: 400 what cannot be read, 403 admission, 404, 409 stale, 422 validation.
    pub async fn update(
        &self,
        request: &Request<'_>,
        change: &Change,
        expect: &Preconditions,
    ) -> Result<Outcome, Status> {
        let row = subresource::row(request)?;
        let key = commit::key_of(request, request.name);
        let attempts = if matches!(change, Change::Patch(..)) { PATCH_ATTEMPTS } else { ATTEMPTS };
        let mut raced = 0;
        for _ in 0..attempts {
            let snapshot = self.newest_of(&key, raced).await?;
            let Some(stored) = snapshot.get(&key) else {
                return self.update_absent(request, change, &key).await;
            };
            hold(&key, stored, expect)?;
            let row_now = self.replaced(request.kind)?;
            let request = &Request { kind: row_now.as_deref().unwrap_or(request.kind), ..*request };
            let review = Review {
                gate: self,
                request,
                snapshot: &snapshot,
                operation: Operation::Update,
                now: self.now(),
            };
            let mut decided = self.decide_update(&review, row, change, stored).await?;
            if decided.unchanged || request.options.dry_run {
                // Its quotas may refuse it all the same.
                charge::ops(&review, &stored.key, &decided.new, Some(&decided.old))
                    .map_err(|status| status.warning_of(&decided.warnings))?;
                return Ok(if decided.unchanged || decided.removed {
                    answer(request, row, stored, stored.clone(), decided)
                } else {
                    self.dry(request, row, stored, decided)
                });
            }
            let ops = std::mem::take(&mut decided.ops);
            match self.commit_charged(&review, &stored.key, &decided.new, Some(&decided.old), ops).await {
                Ok(events) => {
                    let object = commit::committed(&key, &events)?;
                    return Ok(answer(request, row, stored, object, decided));
                }
                Err(Failed::Status(status)) => return Err(status.warning_of(&decided.warnings)),
                Err(Failed::Raced { revision, .. }) => raced = raced.max(revision).max(1),
            }
        }
        Err(Status::stale(&key))
    }

    async fn decide_update(
        &self,
        review: &Review<'_>,
        row: &Row,
        change: &Change,
        stored: &Arc<Object>,
    ) -> Result<Decided, Status> {
        let request = review.request;
        let kind = self.row(request)?;
        let old = self.held(&kind, stored).await?;
        let elsewhere = match change {
            // What the apply leads to must be known before it is known whom that would overrule.
            Change::Patch(PatchKind::Apply, body) if kind.is_made_by_webhook() && row.view.is_none() => {
                let forced = Options { force: true, ..request.options.clone() };
                let forced = Request { options: &forced, ..*request };
                let merged = ownership::apply(&forced, body, &old, review.now, &Elsewhere::default())?;
                self.elsewhere(request, &old, &merged).await?
            }
            _ => Elsewhere::default(),
        };
        let (given, mut warnings) = self.given(review, row, change, &old, &elsewhere)?;
        match self.decide_given(review, row, change, stored, (old, given), &mut warnings).await {
            Ok(decided) => Ok(Decided { warnings, ..decided }),
            Err(status) => Err(status.warning_of(&warnings)),
        }
    }

    /// Of what the client wants the object to be, now that it is known to be of its kind. `states`: as it is, and as it should be.
    async fn decide_given(
        &self,
        review: &Review<'_>,
        row: &Row,
        change: &Change,
        stored: &Arc<Object>,
        (old, given): (Value, Value),
        warnings: &mut Vec<String>,
    ) -> Result<Decided, Status> {
        let request = review.request;
        means(request, row, change, &given, stored)?;
        let kind = &self.row(request)?;
        let mut new = (row.blend)(kind, given, &old, review.now)?;
        if let Change::Patch(PatchKind::Apply, applied) = change {
            if row.view.is_some() {
                ownership::scaled(request, applied, &old, &mut new, scale::places(kind).0, review.now)?;
            }
        } else if row.view.is_some() {
            ownership::rescaled(request, &old, &mut new, scale::places(kind).0, review.now);
        } else {
            let elsewhere = self.elsewhere(request, &old, &new).await?;
            ownership::updated(request, kind, &mut new, &old, review.now, &elsewhere);
        }
        admit::mutate(review, &stored.key, &mut new, Some(&old), warnings).await?;
        warnings.extend(metadata::drop_repeated_owners(&mut new, metadata::AFTER_ADMISSION));
        metadata::carry_over(&mut new, &old, stored);
        if row.is_main() {
            warnings.extend((kind.remark)(&new, Some(&old)));
            metadata::prepare(kind, &mut new, Some(&old));
        } else if row.counts {
            metadata::count_generation(kind, &mut new, &old);
        }
        let dry_run = request.options.dry_run;
        let others = service::allocate(self, review.snapshot, &stored.key, &mut new, Some(&old), dry_run)?;
        decode::validate(request, kind, &new, Some(&old), row.compares, warnings, &self.measures)?;
        if row.is_main() {
            warnings.extend(kind.warnings(&new, Some(&old)));
        }
        // Whoever may refuse an update is asked about one that changes nothing, too.
        admit::validate(review, &stored.key, Some(&new), Some(&old), warnings).await?;
        let draft = commit::draft(kind, &stored.key, &self.kept(kind, new.clone()).await?)?;
        let began = Instant::now();
        let is_same = draft.stored == object::body::without_revision(&stored.body);
        self.measures.compared(is_same, began.elapsed());
        if is_same {
            let (ops, warnings) = (Vec::new(), Vec::new());
            return Ok(Decided { ops, new, old, unchanged: true, removed: false, warnings });
        }
        let removed = removal::is_finished(kind, stored, &draft.meta, &new);
        let mut ops = if removed {
            removal::ops(review.snapshot, stored)
        } else {
            vec![commit::put(draft, Precondition::At(stored.revision))]
        };
        ops.extend(others);
        ops.extend(create::definition(review.snapshot, kind).map(|definition| create::stands(definition)));
        Ok(Decided { ops, new, old, unchanged: false, removed, warnings: Vec::new() })
    }

    /// How a change looks in the versions of other managers.
    async fn elsewhere(&self, request: &Request<'_>, old: &Value, new: &Value) -> Result<Elsewhere, Status> {
        let mut elsewhere = Elsewhere::default();
        if !request.kind.is_made_by_webhook() {
            return Ok(elsewhere);
        }
        let catalog = self.catalog();
        for api_version in ownership::versions(request, old) {
            let version = api_version.rsplit('/').next().unwrap_or_default();
            // What a version that is gone owned, nobody can tell.
            let Some(row) = catalog.served(request.kind.group, version, request.kind.resource.plural())
            else {
                continue;
            };
            let (old, new) =
                (self.converted(row, old.clone()).await?, self.converted(row, new.clone()).await?);
            elsewhere.insert(api_version, ownership::difference(row, &old, &new));
        }
        Ok(elsewhere)
    }

    /// What the client wants the object (or its view through a subresource) to be.
    fn given(
        &self,
        review: &Review<'_>,
        row: &Row,
        change: &Change,
        old: &Value,
        elsewhere: &Elsewhere,
    ) -> Result<(Value, Vec<String>), Status> {
        let request = review.request;
        Ok(match change {
            Change::Replace(body) => {
                let mut given = body.clone();
                let warnings = (row.decode)(request, &mut given)?;
                metadata::give_up_tracking(&mut given, metadata::gives_up_tracking(body));
                (given, warnings)
            }
            Change::Patch(PatchKind::Apply, body) => {
                if row.view.is_some() {
                    // Whose the replicas are is told once it is known what they become.
                    let mut body = ownership::scale(body)?;
                    let warnings = (row.decode)(request, &mut body)?;
                    return Ok((body, warnings));
                }
                let mut merged = ownership::apply(request, body, old, review.now, elsewhere)?;
                let entries = metadata::metadata(&mut merged).remove("managedFields");
                let mut warnings = decode::fields(&Form::Kind(request.kind), &mut merged, request.options)
                    .map_err(|error| Status::internal(&error))?;
                // Of the configuration; what else there is in the object is not this client's.
                warnings.retain(|told| request.options.problems.told.contains(told));
                decode::finish(request, &mut merged)?;
                if let Some(entries) = entries {
                    metadata::metadata(&mut merged).insert("managedFields".into(), entries);
                }
                (merged, warnings)
            }
            Change::Patch(how, document) => patch::apply(request, row, *how, document, old)?,
        })
    }

    /// An update of nothing creates it, where the kind allows that or the client applies.
    async fn update_absent(
        &self,
        request: &Request<'_>,
        change: &Change,
        key: &Key,
    ) -> Result<Outcome, Status> {
        let mut object = match change {
            _ if !request.subresource.is_empty() => return Err(Status::not_found(key)),
            Change::Patch(PatchKind::Apply, object) => {
                let uid = metadata::text(object, "uid");
                if !uid.is_empty() {
                    let why = format!(
                        "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                    );
                    return Err(Status::conflict(key, &why));
                }
                ownership::applied_new(request, object, self.now())?
            }
            Change::Replace(object) if request.kind.strategy.create_on_update => object.clone(),
            _ => return Err(Status::not_found(key)),
        };
        // The body must be of the path's name; a create does not look at it.
        let told = if request.options.field_validation == FieldValidation::Warn {
            &request.options.problems.told[..]
        } else {
            &[]
        };
        decode::object(request, &mut object.clone()).map_err(|status| status.warning_of(told))?;
        metadata::metadata(&mut object).remove("resourceVersion");
        let absent = Request { name: "", ..*request };
        self.create(&absent, object).await
    }
}

/// What a client gives is of the object that is stored, as it is now.
fn means(
    request: &Request<'_>,
    row: &Row,
    change: &Change,
    given: &Value,
    stored: &Object,
) -> Result<(), Status> {
    let uid = metadata::text(given, "uid");
    if !uid.is_empty() && *uid != *stored.meta.uid {
        return Err(match change {
            Change::Patch(..) => {
                let at = schema::At::root("metadata");
                let violations = [schema::Violation::immutable(at.field("uid"), &given["metadata"]["uid"])];
                let name = metadata::text(given, "name");
                schema::Violation::to_status(&violations, request.kind.group, request.kind.kind, name)
            }
            Change::Replace(_) => metadata::other_uid(&stored.key, uid, &stored.meta.uid),
        });
    }
    if matches!(change, Change::Replace(_))
        && !request.kind.strategy.unconditional_update
        && row.name != "scale"
    {
        conditional(request, given)?;
    }
    let version = metadata::text(given, "resourceVersion");
    if !version.is_empty() && version.parse::<u64>().is_err() {
        let why = format!("strconv.ParseUint: parsing {version:?}: invalid syntax");
        return Err(Status::new(Reason::Unknown, why));
    }
    if !version.is_empty() && version.parse() != Ok(stored.revision) {
        return Err(Status::stale(&stored.key));
    }
    Ok(())
}

/// The 422 of a PUT without resourceVersion where the kind wants one.
fn conditional(request: &Request<'_>, body: &Value) -> Result<(), Status> {
    if !metadata::text(body, "resourceVersion").is_empty() {
        return Ok(());
    }
    let violation = schema::Violation {
        kind: schema::ViolationKind::Invalid,
        field: "metadata.resourceVersion".into(),
        value: "0".into(),
        detail: "must be specified for an update".into(),
    };
    Err(schema::Violation::to_status(
        &[violation],
        request.kind.group,
        request.kind.resource.plural(),
        request.name,
    ))
}

/// The stored object is the one that the caller means.
fn hold(key: &Key, stored: &Object, expect: &Preconditions) -> Result<(), Status> {
    if let Some(uid) = &expect.uid
        && *uid != stored.meta.uid
    {
        return Err(metadata::other_uid(key, uid, &stored.meta.uid));
    }
    match &expect.revision {
        Some(revision) if revision.parse() != Ok(stored.revision) => Err(Status::stale(key)),
        _ => Ok(()),
    }
}

fn answer(
    request: &Request<'_>,
    row: &Row,
    stored: &Object,
    object: Arc<Object>,
    decided: Decided,
) -> Outcome {
    let outcome = match row.view {
        Some(view) => Outcome::made(view(request.kind, &at(decided.new, &object))),
        None if decided.removed => {
            // Shown as the update has made it: without the finalizer that it took away, at the last revision that it was stored with.
            let made = Some(&decided.new).filter(|_| !request.kind.is_made_by_webhook());
            let draft = made.and_then(|new| commit::draft(request.kind, &object.key, new).ok());
            Outcome::removed(
                draft.map_or_else(|| object.clone(), |draft| Arc::new(draft.at(stored.revision))),
            )
        }
        None => Outcome::object(object),
    };
    Outcome { warnings: decided.warnings, ..outcome }
}

/// With the revision that it came to have.
fn at(mut object: Value, stored: &Object) -> Value {
    metadata::metadata(&mut object).insert("resourceVersion".into(), stored.revision.to_string().into());
    object
}

impl Gate {
    /// What would have been stored.
    fn dry(&self, request: &Request<'_>, row: &Row, stored: &Object, decided: Decided) -> Outcome {
        let new = at(decided.new, stored);
        let made = match row.view {
            Some(view) => view(request.kind, &new),
            None => self.told(request, new),
        };
        Outcome { warnings: decided.warnings, ..Outcome::made(made) }
    }
}
