//! POST of a new object.

use std::sync::Arc;

use admission::Operation;
use object::{Key, Object, Reason, Snapshot, Status, Time};
use schema::{Kind, Violation};
use serde_json::Value;
use store::{Op, Precondition, Put};

use crate::admit::{self, Review};
use crate::commit::{self, Failed};
use crate::request::{Outcome, Request};
use crate::{Gate, charge, decode, metadata, ownership, requestor, service};

/// How often a name is generated before the client hears of it.
const NAME_ATTEMPTS: u32 = 8;
/// How often other keys (a namespace, an address) may move during one create.
const ATTEMPTS: u32 = 64;
/// A generated name's stem: 63 less the five characters that follow.
const STEM_BYTES: usize = 58;

/// A create as decided on one snapshot.
struct Prepared {
    key: Key,
    /// As its client sees it.
    new: Value,
    draft: object::Draft,
    ops: Vec<Op>,
}

/// Devices that others have are for the claims of some namespaces only.
fn administers(kind: &Kind, new: &Value, namespace: Option<&Arc<Object>>) -> Result<(), Status> {
    let spec = match kind.resource {
        kinds::RESOURCE_CLAIMS => &new["spec"],
        kinds::RESOURCE_CLAIM_TEMPLATES => &new["spec"]["spec"],
        _ => return Ok(()),
    };
    let is_trusted =
        namespace.is_some_and(|namespace| namespace.meta.label(kinds::ADMIN_NAMESPACE) == Some("true"));
    match kinds::admin_access(spec).filter(|_| !is_trusted) {
        None => Ok(()),
        Some(violation) => {
            let name = metadata::text(new, "name");
            Err(Violation::to_status(&[violation], kind.group, kind.kind, name))
        }
    }
}

impl Gate {
    /// Creates an object from a request's body.
    ///
    /// # Errors
    /// As the API answers them: 400 what cannot be read, 403 admission, 409 the name exists, 422 validation.
    pub async fn create(&self, request: &Request<'_>, object: Value) -> Result<Outcome, Status> {
        if !request.subresource.is_empty() {
            return self.create_subresource(request, object).await;
        }
        if !request.kind.is_stored() {
            return Err(Status::internal(format!("{} are not stored", request.kind.resource)));
        }
        // What a definition that changes meanwhile makes of the body is decided anew.
        let body = request.kind.custom.is_some().then(|| object.clone());
        let mut object = object;
        let mut warnings = decode::object(request, &mut object)?;
        // As upstream, which finds out when it writes.
        if !request.options.dry_run && !metadata::text(&object, "resourceVersion").is_empty() {
            return Err(Status::internal("resourceVersion should not be set on objects to be created"));
        }
        let created = self.create_decoded(request, body, &object, &mut warnings).await;
        created.map_err(|status| status.warning_of(&warnings))
    }

    /// Of a body that is an object of its kind; `body` is as it came, of a custom resource. To `warnings`, which decoding began, comes
    /// whatever else is told, of a refused one too.
    async fn create_decoded(
        &self,
        request: &Request<'_>,
        body: Option<Value>,
        object: &Value,
        warnings: &mut Vec<String>,
    ) -> Result<Outcome, Status> {
        let now = self.now();
        let of_decoding = warnings.len();
        let (mut names_left, mut raced) = (NAME_ATTEMPTS, 0);
        for _ in 0..ATTEMPTS {
            warnings.truncate(of_decoding);
            let snapshot = self.snapshot_after(&commit::key_of(request, ""), raced).await?;
            if let (Some(row), Some(body)) = (self.replaced(request.kind)?, &body) {
                let anew = Request { kind: &row, ..*request };
                warnings.clear();
                return Box::pin(self.create(&anew, body.clone())).await;
            }
            let Prepared { key, new, draft, ops } =
                self.prepare_create(request, &snapshot, object, now, warnings).await?;
            let operation = Operation::Create;
            let review = Review { gate: self, request, snapshot: &snapshot, operation, now };
            if request.options.dry_run {
                charge::ops(&review, &key, &new, None)?;
                return self.dry_create(request, &key, new, warnings.clone());
            }
            let generated = metadata::text(object, "name").is_empty();
            let mut all = vec![commit::put(draft, Precondition::Absent)];
            all.extend(ops);
            match self.commit_charged(&review, &key, &new, None, all).await {
                Ok(events) => {
                    let outcome = Outcome::object(commit::committed(&key, &events)?);
                    return Ok(Outcome { created: true, warnings: std::mem::take(warnings), ..outcome });
                }
                Err(Failed::Status(status)) => return Err(status),
                Err(Failed::Raced { op: 0, .. }) if generated => {
                    names_left -= 1;
                    if names_left == 0 {
                        return Err(no_name_found(&key));
                    }
                }
                Err(Failed::Raced { op: 0, .. }) => return Err(Status::already_exists(&key)),
                Err(Failed::Raced { revision, .. }) => raced = raced.max(revision).max(1),
            }
        }
        let key = commit::key_of(request, metadata::text(object, "name"));
        Err(Status::conflict(&key, "the cluster is changing too fast to decide; try again"))
    }

    /// Everything between decoding and the commit, on one snapshot.
    async fn prepare_create(
        &self,
        request: &Request<'_>,
        snapshot: &Snapshot,
        object: &Value,
        now: Time,
        warnings: &mut Vec<String>,
    ) -> Result<Prepared, Status> {
        let kind = self.row(request)?;
        let namespace = snapshot.find(kinds::NAMESPACES, "", request.namespace);
        // All objects of a namespace share its name.
        let shared = namespace.map_or_else(|| request.namespace.into(), |object| object.key.name.clone());
        let key_of = |name: &str| Key::new(request.kind.resource, Arc::clone(&shared), name);
        // What one try writes into it is not the next one's.
        let mut new = object.clone();
        warnings.extend(metadata::drop_repeated_owners(&mut new, ""));
        ownership::created(request, &kind, &mut new, now);
        let review = Review { gate: self, request, snapshot, operation: Operation::Create, now };
        let asked = key_of(metadata::text(&new, "name"));
        admit::mutate(&review, &asked, &mut new, None, warnings).await?;
        warnings.extend(metadata::drop_repeated_owners(&mut new, metadata::AFTER_ADMISSION));
        decode::default(&kind, &mut new);
        metadata::begin(&mut new, self.uid(), now);
        requestor::stamp(kind.resource, request.user, &mut new);
        let key = key_of(&self.name(&mut new));
        warnings.extend((kind.remark)(&new, None));
        metadata::prepare(&kind, &mut new, None);
        let mut ops = service::allocate(self, snapshot, &key, &mut new, None, request.options.dry_run)?;
        administers(&kind, &new, namespace)?;
        decode::validate(request, &kind, &new, None, false, warnings, &self.measures)?;
        warnings.extend(kind.warnings(&new, None));
        admit::validate(&review, &key, Some(&new), None, warnings).await?;
        ops.extend(namespace.map(|namespace| stands(namespace)));
        ops.extend(definition_stands(snapshot, &kind, &key)?);
        let draft = commit::draft(&kind, &key, &self.kept(&kind, new.clone()).await?)?;
        Ok(Prepared { key, new, draft, ops })
    }

    /// The object's name, generated if only its beginning is given.
    fn name(&self, object: &mut Value) -> String {
        let name = metadata::text(object, "name");
        let stem = metadata::text(object, "generateName");
        if !name.is_empty() || stem.is_empty() {
            return name.to_owned();
        }
        let end = (0..=STEM_BYTES.min(stem.len())).rev().find(|&end| stem.is_char_boundary(end)).unwrap_or(0);
        let name = format!("{}{}", &stem[..end], self.suffix());
        metadata::metadata(object).insert("name".into(), name.clone().into());
        name
    }

    fn dry_create(
        &self,
        request: &Request<'_>,
        key: &Key,
        new: Value,
        warnings: Vec<String>,
    ) -> Result<Outcome, Status> {
        if self.store.snapshot().get(key).is_some() {
            return Err(Status::already_exists(key));
        }
        Ok(Outcome { created: true, warnings, ..Outcome::made(self.told(request, new)) })
    }
}

/// The namespace must still be as admission saw it when the object is committed: nothing slips into one that is being emptied.
pub(crate) fn stands(namespace: &Object) -> Op {
    let precondition = Precondition::At(namespace.revision);
    Op { key: namespace.key.clone(), precondition, put: Put::Nothing }
}

/// The definition of a custom resource must stand: nothing is written in the form that an older one asked for.
pub(crate) fn definition<'a>(snapshot: &'a Snapshot, kind: &Kind) -> Option<&'a Arc<Object>> {
    kind.custom.as_ref()?;
    snapshot.find(kinds::CUSTOM_RESOURCE_DEFINITIONS, "", kind.resource.as_str())
}

/// And nothing slips into one that is being emptied.
fn definition_stands(snapshot: &Snapshot, kind: &Kind, key: &Key) -> Result<Option<Op>, Status> {
    if kind.custom.is_none() {
        return Ok(None);
    }
    match definition(snapshot, kind) {
        Some(definition) if !definition.meta.is_deleting() => Ok(Some(stands(definition))),
        _ => {
            let why = "create not allowed while custom resource definition is terminating";
            Err(Status::forbidden(key, why))
        }
    }
}

fn no_name_found(key: &Key) -> Status {
    let mut status = Status::already_exists(key);
    status.reason = Reason::AlreadyExists;
    status.message = format!(
        "{} \"{}\" already exists, the server was not able to generate a unique name for the object",
        key.resource, key.name
    );
    status.retry_after_seconds = Some(1);
    status
}
