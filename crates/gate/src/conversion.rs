//! Custom resources in another version than the one that they are kept in.
//!
//! Versions of a definition with the strategy `None` differ in name and schema, and rows see to that themselves. With `Webhook` somebody
//! is asked, many objects at a time. What was asked once is remembered while there is room, and whoever wants the same meanwhile waits for
//! the same call: however many clients watch a version, a change costs one conversion.
//!
//! ```text
//! stored ──► in_version ──► read, watched          a request's body ──► its version ──► kept ──► the store
//!                      └──► old, in a write ─────────────────────────────┘
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use object::{Object, Reason, Revision, Snapshot, Status, body};
use plan::Call;
use schema::custom::{ConversionFault, ConversionWebhook};
use schema::{Kind, path};
use serde_json::Value;
use store::Store;

use crate::measures::Measures;
use crate::request::Request;
use crate::webhooks::{self, Webhooks};
use crate::{Gate, commit, decode};

/// What upstream gives a conversion webhook.
const TIMEOUT_MS: u64 = 30_000;
/// Of one call: objects, and bytes of them.
const BATCH_OBJECTS: usize = 256;
const BATCH_BYTES: usize = 1 << 20;
/// Of objects that are remembered in another version, by their size as they are stored.
const KNOWN_BYTES: usize = 64 << 20;

/// One state of one object in one version, as a definition was at some time.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Id {
    definition: Revision,
    version: &'static str,
    key: object::Key,
    revision: Revision,
}

/// A call that is under way or was answered. Whoever waits for it drives it, so that it does not matter who gives up.
type Batch = Shared<BoxFuture<'static, Result<Arc<[Arc<Object>]>, Status>>>;

/// What was converted lately.
#[derive(Default)]
pub(crate) struct Conversions(Mutex<Known>);

#[derive(Default)]
struct Known {
    batches: HashMap<Id, (Batch, usize)>,
    /// The oldest first, with their sizes.
    order: VecDeque<(Id, usize)>,
    bytes: usize,
}

impl Conversions {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call that failed is made again by whoever asks next, for whichever of its objects.
    fn forget(&self, failed: &Batch) {
        let Known { batches, order, bytes } = &mut *self.lock();
        batches.retain(|_, (batch, _)| !batch.ptr_eq(failed));
        order.retain(|(id, size)| {
            let stays = batches.contains_key(id);
            *bytes -= if stays { 0 } else { *size };
            stays
        });
    }
}

impl Known {
    fn remember(&mut self, id: Id, bytes: usize, batch: Batch, place: usize) {
        self.batches.insert(id.clone(), (batch, place));
        self.order.push_back((id, bytes));
        self.bytes += bytes;
        while self.bytes > KNOWN_BYTES
            && let Some((oldest, bytes)) = self.order.pop_front()
        {
            self.batches.remove(&oldest);
            self.bytes -= bytes;
        }
    }
}

impl Gate {
    /// Stored objects as a reader of the row's version gets them, in the same order. Those of rows without a webhook come back as they are:
    /// the row itself shows them in its version.
    ///
    /// # Errors
    /// A 500 with upstream's words if the webhook cannot be asked or answers something else than was asked for.
    pub async fn in_version(
        &self,
        kind: &Kind,
        mut objects: Vec<Arc<Object>>,
    ) -> Result<Vec<Arc<Object>>, Status> {
        let Some(custom) = kind.custom.as_ref().filter(|custom| custom.webhook.is_some()) else {
            return Ok(objects);
        };
        let api_version = kind.api_version();
        let others: Vec<usize> =
            (0..objects.len()).filter(|&place| !custom.is_kept_as(&api_version, &objects[place])).collect();
        if others.is_empty() {
            return Ok(objects);
        }
        let id = |object: &Object| Id {
            definition: custom.since,
            version: kind.version,
            key: object.key.clone(),
            revision: object.revision,
        };
        let waited = self.begin(kind, &objects, &others, &id);
        for (place, (batch, within)) in others.into_iter().zip(waited) {
            match batch.clone().await {
                Ok(converted) => objects[place] = converted[within].clone(),
                Err(status) => {
                    self.conversions.forget(&batch);
                    return Err(status);
                }
            }
        }
        Ok(objects)
    }

    /// The calls that give the objects at these places, each with the object's place in it: those that are known, and new ones.
    fn begin(
        &self,
        kind: &Kind,
        objects: &[Arc<Object>],
        places: &[usize],
        id: &dyn Fn(&Object) -> Id,
    ) -> Vec<(Batch, usize)> {
        let mut known = self.conversions.lock();
        let mut new: Vec<Arc<Object>> = Vec::new();
        let mut asked: HashMap<Id, ()> = HashMap::new();
        for &place in places {
            let id = id(&objects[place]);
            if !known.batches.contains_key(&id) && asked.insert(id, ()).is_none() {
                new.push(objects[place].clone());
            }
        }
        let mut made: HashMap<Id, (Batch, usize)> = HashMap::new();
        for batch in batches(new) {
            let job = convert_all(
                self.webhooks.clone(),
                self.store.clone(),
                kind.clone(),
                batch.clone(),
                self.uid(),
                self.measures.clone(),
            );
            let job = job.boxed().shared();
            for (within, object) in batch.iter().enumerate() {
                made.insert(id(object), (job.clone(), within));
                known.remember(id(object), object.body.len(), job.clone(), within);
            }
        }
        let find = |place: &usize| {
            let id = id(&objects[*place]);
            // What was known may have had to give way to what is new; then it is asked for again by itself.
            made.get(&id).or_else(|| known.batches.get(&id)).cloned().unwrap_or_else(|| {
                let object = objects[*place].clone();
                let webhooks = self.webhooks.clone();
                let (uid, measures) = (self.uid(), self.measures.clone());
                let job =
                    convert_all(webhooks, self.store.clone(), kind.clone(), vec![object], uid, measures);
                (job.boxed().shared(), 0)
            })
        };
        places.iter().map(find).collect()
    }

    /// A stored object as the gate has it while it decides: built-ins with every default and without what Go leaves out, since a build
    /// that knew less of either may have stored them and what is not said is not changed; custom resources in the request's version.
    pub(crate) async fn held(&self, kind: &Kind, stored: &Arc<Object>) -> Result<Value, Status> {
        let value = |object: &Object| object.to_value().map_err(Status::internal);
        if kind.custom.is_none() {
            let mut own = value(stored)?;
            kinds::types().omit(kind.type_name, &mut own);
            decode::default(kind, &mut own);
            return Ok(own);
        }
        if kind.is_made_by_webhook() {
            let converted = self.in_version(kind, vec![stored.clone()]).await?;
            return converted.first().map_or(Ok(Value::Null), |object| value(object));
        }
        let own = value(stored)?;
        Ok(if kind.reads_as_stored(stored) { own } else { kind.read_stored(own) })
    }

    /// An object that the gate has decided on in the form that is stored.
    pub(crate) async fn kept(&self, kind: &Kind, held: Value) -> Result<Value, Status> {
        let Some(custom) = &kind.custom else { return Ok(held) };
        let Some(webhook) = custom.webhook.as_ref().filter(|_| *custom.stored.0 != *kind.api_version())
        else {
            return Ok(kind.to_stored(held));
        };
        let mut kept = self.ask_for(webhook, &custom.stored.0, held).await?;
        custom.fit_stored(&mut kept);
        Ok(kept)
    }

    /// An object of one version of a resource in another.
    pub(crate) async fn converted(&self, to: &Kind, value: Value) -> Result<Value, Status> {
        let Some(custom) = &to.custom else { return Ok(value) };
        let api_version = to.api_version();
        let mut converted = match &custom.webhook {
            Some(webhook) if path::text(&value, "apiVersion") != api_version => {
                self.ask_for(webhook, &api_version, value).await?
            }
            _ => value,
        };
        custom.fit(&api_version, &mut converted);
        Ok(converted)
    }

    async fn ask_for(
        &self,
        webhook: &ConversionWebhook,
        api_version: &str,
        value: Value,
    ) -> Result<Value, Status> {
        let (webhooks, snapshot) = (self.webhooks.as_deref(), self.store.snapshot());
        let uid = self.uid();
        let asking = Asking { webhooks, snapshot: &snapshot, measures: &self.measures, webhook, uid: &uid };
        let converted = asking.convert(api_version, vec![value]).await?;
        converted.into_iter().next().ok_or_else(|| Status::internal("a conversion gave no object"))
    }

    /// An object that the gate has decided on and that nothing is stored of, as the request's client reads it.
    pub(crate) fn told(&self, request: &Request<'_>, held: Value) -> Value {
        if request.kind.custom.is_some() { held } else { request.kind.read_stored(held) }
    }
}

/// Objects in their order, so many to a call.
fn batches(objects: Vec<Arc<Object>>) -> Vec<Vec<Arc<Object>>> {
    let (mut batches, mut bytes) = (Vec::<Vec<Arc<Object>>>::new(), 0);
    for object in objects {
        bytes += object.body.len();
        match batches.last_mut() {
            Some(last) if last.len() < BATCH_OBJECTS && bytes <= BATCH_BYTES => last.push(object),
            _ => {
                bytes = object.body.len();
                batches.push(vec![object]);
            }
        }
    }
    batches
}

/// Stored objects in the version of a row that a webhook makes.
async fn convert_all(
    webhooks: Option<Arc<dyn Webhooks>>,
    store: Arc<dyn Store>,
    kind: Kind,
    objects: Vec<Arc<Object>>,
    uid: String,
    measures: Arc<Measures>,
) -> Result<Arc<[Arc<Object>]>, Status> {
    let Some((custom, webhook)) = kind.custom.as_ref().and_then(|one| Some((one, one.webhook.as_ref()?)))
    else {
        return Ok(objects.into());
    };
    let api_version = kind.api_version();
    let read = |object: &Arc<Object>| serde_json::from_slice(&body::without_revision(&object.body));
    let values: Vec<Value> = objects.iter().map(read).collect::<Result<_, _>>().map_err(Status::internal)?;
    // As it is when the call is made: many wait for their turn, and none keeps an old state alive.
    let snapshot = store.snapshot();
    let webhooks = webhooks.as_deref();
    let asking = Asking { webhooks, snapshot: &snapshot, measures: &measures, webhook, uid: &uid };
    let converted = asking.convert(&api_version, values).await?;
    let made = objects.iter().zip(converted).map(|(object, mut value)| {
        custom.fit(&api_version, &mut value);
        Ok::<_, Status>(Arc::new(commit::draft(&kind, &object.key, &value)?.at(object.revision)))
    });
    made.collect()
}

/// One call of a conversion webhook.
struct Asking<'a> {
    webhooks: Option<&'a dyn Webhooks>,
    snapshot: &'a Snapshot,
    measures: &'a Measures,
    webhook: &'a ConversionWebhook,
    uid: &'a str,
}

impl Asking<'_> {
    /// Objects in another version. Those that have it already are not sent: within one version there is nothing to convert.
    async fn convert(&self, api_version: &str, mut values: Vec<Value>) -> Result<Vec<Value>, Status> {
        let places: Vec<usize> = (0..values.len())
            .filter(|&place| path::text(&values[place], "apiVersion") != api_version)
            .collect();
        let asked: Vec<Value> = places.iter().map(|&place| values[place].take()).collect();
        let Some(first) = asked.first() else { return Ok(values) };
        let (own, kind) = (path::text(first, "apiVersion"), path::text(first, "kind"));
        let refused = |why: String| {
            Status::new(Reason::Unknown, format!("conversion webhook for {own}, Kind={kind} {why}"))
        };
        let began = Instant::now();
        let answered = self.answered(api_version, &asked).await?;
        self.measures.converted(answered.as_ref().err().map(|(fault, _)| *fault), began.elapsed());
        let converted = answered.map_err(|(_, why)| refused(why))?;
        for (place, converted) in places.into_iter().zip(converted) {
            values[place] = converted;
        }
        Ok(values)
    }

    /// What the webhook made of objects; the inner error is its own, None of it: it could not be called.
    async fn answered(
        &self,
        api_version: &str,
        asked: &[Value],
    ) -> Result<Result<Vec<Value>, (Option<ConversionFault>, String)>, Status> {
        let Self { webhooks, snapshot, webhook, uid, .. } = *self;
        let body = webhook.review(uid, api_version, asked);
        let body = body.map_err(|why| Status::new(Reason::Unknown, why))?;
        let Some(target) = admission::extension::target(&webhook.client_config) else {
            return Ok(Err((None, "failed: it names no place that could be called".to_owned())));
        };
        let ca_bundle = admission::extension::ca_bundle(&webhook.client_config);
        let call = Call { target, ca_bundle, timeout_ms: TIMEOUT_MS, body };
        Ok(match webhooks::post(webhooks, snapshot, &call).await {
            Err(why) => Err((None, format!("failed: {why}"))),
            Ok(answer) => {
                webhook.read(answer, uid, api_version, asked).map_err(|(fault, why)| (Some(fault), why))
            }
        })
    }
}
