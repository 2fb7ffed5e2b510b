//! LIST: which objects, of which state.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, StatusCode};
use object::{Cause, Object, Reason, Resource, Revision, Snapshot, Status};
use schema::Kind;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::held;
use crate::items::{self, Objects};
use crate::negotiate::{self, Asked};
use crate::query::{ListOptions, Query};
use crate::respond::{self, Answer};
use crate::route::Target;
use crate::select::Selection;
use crate::shared::Shared;

/// How long a read waits for a revision that this server has not seen yet.
const CATCH_UP: Duration = Duration::from_secs(3);

/// Where a list goes on, as clients carry it around: in upstream's form.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Token {
    #[serde(default)]
    v: String,
    /// The snapshot's revision; -1 goes on in the newest one.
    #[serde(default)]
    rv: i64,
    /// The last object that was given, and what comes behind it: `default/web\0`. In a list of one namespace its name is left out:
    /// `/web\0`.
    #[serde(default)]
    start: String,
}

impl Token {
    fn behind(rv: i64, namespace: &str, last: &Object) -> Self {
        let place = if namespace.is_empty() { &*last.key.namespace } else { "" };
        Self { v: TOKEN_VERSION.into(), rv, start: format!("{place}/{}\0", last.key.name) }
    }

    /// (namespace, name) of the object that was given last.
    fn last(&self, namespace: &str) -> (String, String) {
        let start = self.start.trim_end_matches('\0');
        let (place, name) = start.split_once('/').unwrap_or(("", start));
        let place = if namespace.is_empty() { place } else { namespace };
        (place.to_owned(), name.to_owned())
    }
}

const TOKEN_VERSION: &str = "meta.k8s.io/v1";

/// Why there is no snapshot to list in.
enum Refusal {
    Status(Status),
    /// The token's snapshot is no longer held.
    Expired(Token),
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

/// Answers a list.
pub(crate) async fn list(
    shared: &Shared,
    target: &Target,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Answer, Status> {
    let view = negotiate::view(headers, query, &target.kind, Asked::List, shared.config.cbor)?;
    let mut options = ListOptions::read(query)?;
    options.check_list()?;
    if options.resource_version == "0" && options.token.is_empty() {
        // Upstream's cache has never cut such a list, and clients count on getting all of it.
        options.limit = 0;
    }
    let selection = Selection::new(&target.kind, &target.namespace, "", &options)?;
    let Place { snapshot, revision, after, is_past, waited } =
        match place(shared, &target.kind, &target.namespace, &options).await {
            Ok(found) => found,
            Err(Refusal::Status(status)) => return Err(status),
            Err(Refusal::Expired(token)) => return Ok(expired(token)),
        };
    readable(&snapshot, target.kind.resource, &target.namespace, selection.name())?;
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    let index = selection.indexed().and(target.kind.selectable.first()).copied().unwrap_or_default();
    let listing = shared.reads.list(target.kind.resource, index, waited);
    let is_converted = target.kind.is_made_by_webhook();
    if options.limit == 0 && selection.needs_scan(&target.kind) && !is_converted {
        let table = snapshot.table(target.kind.resource).cloned().unwrap_or_default();
        let behind = after.as_ref().map(|(namespace, name)| (&**namespace, &**name));
        let objects = match selection.look_up(&table, behind, usize::MAX) {
            Some(found) => {
                listing.saw(found.len() as u64, 0);
                Objects::Chosen(found.into_iter().cloned().collect::<Vec<_>>().into_iter())
            }
            None => {
                let last = after.map(|(namespace, name)| (namespace.into(), name.into()));
                Objects::Selected { table, selection, last }
            }
        };
        return items::answer(shared, &target.kind, view, metadata, objects, listing).await;
    }
    let page = if is_converted {
        converted(shared, &snapshot, &target.kind, &selection, after.as_ref(), options.limit).await?
    } else {
        select(&snapshot, &target.kind, &selection, after.as_ref(), options.limit)
    };
    listing.saw(page.fetched, 0);
    if let Some(remaining) = page.remaining {
        let limits = &shared.config.limits;
        let told = (revision, target.kind.resource);
        let state = if is_past { held::State::Past } else { held::State::Here(snapshot) };
        shared.held.keep(told, state, limits.token_lifetime, limits.held_snapshots);
        let rv = i64::try_from(revision).unwrap_or(-1);
        if let Some(last) = page.objects.last() {
            metadata["continue"] = write_token(&Token::behind(rv, &target.namespace, last)).into();
        }
        if selection.is_everything() {
            metadata["remainingItemCount"] = remaining.into();
        }
    }
    let objects = Objects::Chosen(page.objects.into_iter());
    items::answer(shared, &target.kind, view, metadata, objects, listing).await
}

/// Every object that a request selects, for `deletecollection`.
pub(crate) async fn selected(
    shared: &Shared,
    target: &Target,
    query: &Query,
) -> Result<Vec<Arc<Object>>, Status> {
    let options = ListOptions::read(query)?;
    options.check_list()?;
    let selection = Selection::new(&target.kind, &target.namespace, "", &options)?;
    let Place { snapshot, after, .. } =
        place(shared, &target.kind, &target.namespace, &options).await.map_err(|refusal| match refusal {
            Refusal::Status(status) => status,
            Refusal::Expired(_) => Status::new(Reason::Expired, EXPIRED),
        })?;
    readable(&snapshot, target.kind.resource, &target.namespace, selection.name())?;
    if !target.kind.is_made_by_webhook() {
        return Ok(select(&snapshot, &target.kind, &selection, after.as_ref(), options.limit).objects);
    }
    let page = converted(shared, &snapshot, &target.kind, &selection, after.as_ref(), options.limit).await?;
    // What is deleted are the objects as they are stored.
    Ok(page.objects.iter().filter_map(|object| snapshot.get(&object.key)).cloned().collect())
}

struct Page {
    objects: Vec<Arc<Object>>,
    /// How many more there are; None: this is the end.
    remaining: Option<usize>,
    /// How many were looked at.
    fetched: u64,
}

fn select(
    snapshot: &Snapshot,
    kind: &Kind,
    selection: &Selection,
    after: Option<&(String, String)>,
    limit: usize,
) -> Page {
    let behind = |object: &Object| {
        after.is_none_or(|(namespace, name)| {
            (&*object.key.namespace, &*object.key.name) > (&**namespace, &**name)
        })
    };
    let matching: Box<dyn Iterator<Item = &Arc<Object>>> = match (selection.name(), selection.indexed()) {
        (Some(name), _) if !selection.namespace().is_empty() || !kind.namespaced => {
            let found = snapshot.find(kind.resource, selection.namespace(), name);
            Box::new(found.into_iter().filter(move |object| behind(object)))
        }
        (_, Some(value)) => {
            Box::new(snapshot.list_by_field(kind.resource, value).filter(move |object| behind(object)))
        }
        _ => match snapshot.table(kind.resource) {
            Some(table) => {
                let after = after.map(|(namespace, name)| (&**namespace, &**name));
                // One more than is given tells that there are more.
                let most = if limit == 0 { usize::MAX } else { limit.saturating_add(1) };
                match selection.look_up(table, after, most) {
                    Some(found) => Box::new(found.into_iter()),
                    None => Box::new(table.range(selection.namespace(), after)),
                }
            }
            None => Box::new(std::iter::empty()),
        },
    };
    let fetched = Cell::new(0);
    let mut matching = matching.filter(|object| {
        fetched.set(fetched.get() + 1);
        selection.matches(object)
    });
    if limit == 0 {
        let objects = matching.cloned().collect();
        return Page { objects, remaining: None, fetched: fetched.get() };
    }
    let objects: Vec<_> = matching.by_ref().take(limit).cloned().collect();
    // Counting is only worth it when the count is told.
    let rest = if selection.is_everything() { matching.count() } else { matching.take(1).count() };
    Page { objects, remaining: (rest > 0).then_some(rest), fetched: fetched.get() }
}

/// As [`select`], of a version that a webhook makes: labels and fields are those of the objects in this version, so that they must be
/// converted before they are chosen from.
async fn converted(
    shared: &Shared,
    snapshot: &Snapshot,
    kind: &Kind,
    selection: &Selection,
    after: Option<&(String, String)>,
    limit: usize,
) -> Result<Page, Status> {
    if selection.is_by_key() {
        let page = select(snapshot, kind, selection, after, limit);
        return Ok(Page { objects: shared.gate.in_version(kind, page.objects).await?, ..page });
    }
    let Page { objects, fetched, .. } = select(snapshot, kind, &selection.by_key(), after, 0);
    let mut objects = shared.gate.in_version(kind, objects).await?;
    objects.retain(|object| selection.matches(object));
    let rest = if limit == 0 { 0 } else { objects.len().saturating_sub(limit) };
    objects.truncate(objects.len() - rest);
    Ok(Page { objects, remaining: (rest > 0).then_some(rest), fetched })
}

/// Where a list is read.
struct Place {
    snapshot: Snapshot,
    /// The revision that is told, which may be older than the snapshot's if nothing has changed in between.
    revision: Revision,
    /// (namespace, name) of the object behind which it goes on.
    after: Option<(String, String)>,
    /// The snapshot was put together for this list and others like it.
    is_past: bool,
    /// How long it took to be sure that it is the newest, if that was asked for.
    waited: Option<Duration>,
}

impl Place {
    fn newest(snapshot: Snapshot) -> Self {
        Self::of(snapshot.revision(), snapshot)
    }

    fn of(revision: Revision, snapshot: Snapshot) -> Self {
        Self { snapshot, revision, after: None, is_past: false, waited: None }
    }
}

async fn place(
    shared: &Shared,
    kind: &Kind,
    namespace: &str,
    options: &ListOptions,
) -> Result<Place, Refusal> {
    if !options.token.is_empty() {
        return continued(shared, kind, namespace, options).await;
    }
    Ok(at(shared, kind, options).await?)
}

/// resourceVersion and resourceVersionMatch: <https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-get-and-list>
async fn at(shared: &Shared, kind: &Kind, options: &ListOptions) -> Result<Place, Status> {
    let asked = &options.resource_version;
    if asked.is_empty() {
        let began = Instant::now();
        let newest = shared.newest().await.inspect_err(|_| shared.reads.failed(kind.resource))?;
        return Ok(Place { waited: Some(began.elapsed()), ..Place::newest(newest) });
    }
    if asked == "0" {
        return Ok(Place::newest(shared.store().snapshot()));
    }
    let revision = revision(asked)
        .map_err(|why| Status::bad_request(format!("invalid resource version: {}", why.message)))?;
    let snapshot = at_least(shared, revision).await?;
    if !options.is_exact() {
        return Ok(Place::newest(snapshot));
    }
    // The newest snapshot is as good as the asked one if the resource has not changed since.
    let changed = snapshot.table(kind.resource).map_or(0, |table| table.revision());
    if changed <= revision {
        return Ok(Place::of(revision, snapshot));
    }
    drop(snapshot);
    let held = shared.held.get((revision, kind.resource), shared.config.limits.token_lifetime);
    if let Some(held::State::Here(snapshot)) = held {
        return Ok(Place::of(revision, snapshot));
    }
    let place = past(shared, kind, revision, None).await;
    place.ok_or_else(|| Status::new(Reason::Expired, "The resourceVersion for the provided list is too old."))
}

async fn past(
    shared: &Shared,
    kind: &Kind,
    revision: Revision,
    after: Option<(String, String)>,
) -> Option<Place> {
    let lifetime = shared.config.limits.token_lifetime;
    let snapshot = shared.past.at(&**shared.store(), kind.resource, revision, lifetime).await?;
    Some(Place { after, is_past: true, ..Place::of(revision, snapshot) })
}

/// A resourceVersion as a number. Lists have words of their own around the error, which in a watch or of one object upstream takes for a
/// fault of its own.
pub(crate) fn revision(text: &str) -> Result<Revision, Status> {
    text.parse().map_err(|_| {
        let why = format!("strconv.ParseUint: parsing {text:?}: invalid syntax");
        Status::new(Reason::Unknown, format!("resourceVersion: Invalid value: {text:?}: {why}"))
    })
}

/// That a snapshot holds the newest state of what is asked for: a resource, a namespace (all if it is empty) and maybe a name. Who says
/// that any state will do gets none either: upstream's cache gives up what it holds of the resource then, and asks etcd.
///
/// # Errors
/// 500: some of it can no longer be read, whatever else there is in a list.
pub(crate) fn readable(
    snapshot: &Snapshot,
    resource: Resource,
    namespace: &str,
    name: Option<&str>,
) -> Result<(), Status> {
    snapshot.unreadable(resource, namespace, name).map_or(Ok(()), |key| Err(Status::unreadable(key)))
}

/// A snapshot at least as new as a revision; 504 if the store does not get there soon.
pub(crate) async fn at_least(shared: &Shared, revision: Revision) -> Result<Snapshot, Status> {
    let now = shared.store().snapshot();
    if now.revision() >= revision {
        return Ok(now);
    }
    match tokio::time::timeout(CATCH_UP, shared.store().read_at_least(revision)).await {
        Ok(Ok(snapshot)) => Ok(snapshot),
        Ok(Err(error)) => Err(Status::new(Reason::ServiceUnavailable, error.to_string())),
        Err(_) => Err(too_large(revision, shared.store().snapshot().revision())),
    }
}

fn too_large(asked: Revision, now: Revision) -> Status {
    let message = format!("Timeout: Too large resource version: {asked}, current: {now}");
    let mut status = Status::new(Reason::Timeout, message);
    let cause = "Too large resource version".to_owned();
    status.causes.push(Cause { reason: "ResourceVersionTooLarge", message: cause, field: String::new() });
    status.retry_after_seconds = Some(1);
    status
}

async fn continued(
    shared: &Shared,
    kind: &Kind,
    namespace: &str,
    options: &ListOptions,
) -> Result<Place, Refusal> {
    let invalid = |why| Status::bad_request(format!("invalid continue token: {why}"));
    let token =
        read_token(&options.token).map_err(|why| invalid(format!("continue key is not valid: {why}")))?;
    if !matches!(&*options.resource_version, "" | "0") {
        let why = "specifying resource version is not allowed when using continue";
        return Err(Refusal::Status(Status::bad_request(why)));
    }
    let after = Some(token.last(namespace));
    let Ok(revision) = Revision::try_from(token.rv) else {
        return Ok(Place { after, ..Place::newest(shared.newest().await?) });
    };
    let lifetime = shared.config.limits.token_lifetime;
    let place = match shared.held.get((revision, kind.resource), lifetime) {
        Some(held::State::Here(snapshot)) => Some(Place { after, ..Place::of(revision, snapshot) }),
        Some(held::State::Past) => past(shared, kind, revision, after).await,
        None => None,
    };
    place.ok_or(Refusal::Expired(token))
}

/// A token; the errors are Go's.
fn read_token(text: &str) -> Result<Token, String> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|error| match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => {
            format!("illegal base64 data at input byte {at}")
        }
        // Where the last four symbols begin that are not all there.
        _ => format!("illegal base64 data at input byte {}", text.len() - text.len() % 4),
    })?;
    let token: Token = serde_json::from_slice(&bytes).map_err(|error| schema::go_words(&error, &bytes))?;
    match &*token.v {
        TOKEN_VERSION if token.rv == 0 => {
            Err("incorrect encoded start resourceVersion (version meta.k8s.io/v1)".into())
        }
        TOKEN_VERSION if token.start.is_empty() => {
            Err("encoded start key empty (version meta.k8s.io/v1)".into())
        }
        TOKEN_VERSION if !is_clean(&token.start) => Err(token.start),
        TOKEN_VERSION => Ok(token),
        version => Err(format!("server does not recognize this encoded version {version}")),
    }
}

/// Whether a path, which may begin with a slash, stays the same when Go cleans it: it names what it says and nothing above it.
fn is_clean(path: &str) -> bool {
    let path = path.strip_prefix('/').unwrap_or(path);
    path.is_empty() || path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn write_token(token: &Token) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(token).unwrap_or_default())
}

const EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list \
    without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing \
    with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the \
    first chunk was returned and now may show up in the list.";

/// 410 with a token that goes on in the newest snapshot.
fn expired(token: Token) -> Answer {
    let mut status = Status::new(Reason::Expired, EXPIRED).to_json();
    status["metadata"]["continue"] = write_token(&Token { rv: -1, ..token }).into();
    respond::failure_document(StatusCode::GONE.as_u16(), status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_one_place() {
        for (rv, start, expected) in [
            (7, "default/web\0", Ok(("default", "web"))),
            (7, "/web\0", Ok(("", "web"))),
            (-1, "/", Ok(("", ""))),
            (0, "/web\0", Err("incorrect encoded start resourceVersion (version meta.k8s.io/v1)")),
            (7, "", Err("encoded start key empty (version meta.k8s.io/v1)")),
            (7, "/a/../b\0", Err("/a/../b\0")),
            (7, "../b\0", Err("../b\0")),
            (7, "a/./b\0", Err("a/./b\0")),
            (7, "a//b\0", Err("a//b\0")),
            (7, "a/", Err("a/")),
        ] {
            let token = Token { v: TOKEN_VERSION.into(), rv, start: start.into() };
            let read = read_token(&write_token(&token)).map(|token| token.last(""));
            let expected = expected.map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
            assert_eq!(read, expected.map_err(str::to_owned), "{start:?}");
        }
    }
}
