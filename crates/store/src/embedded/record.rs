//! What the payloads of frames hold: transactions and objects.
//!
//! ```text
//! transaction   revision, count, count × (1 put | 2 delete)
//! put           1, key, count of fields, fields, body without resourceVersion
//! delete        2, key
//! object        revision, put without its 1
//! key           resource, namespace, name
//! ```
//!
//! In frames that may be sealed, a flag follows the key of a put: 0, then fields and body as above; 1, then one text, which is fields and
//! body sealed.
//!
//! Numbers are LEB128, texts a length and their bytes. Fields stand in the record, so that starting need not know kinds or read whole bodies.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use object::{Draft, Key, Meta, Object, Resource, Revision, Snapshot};
use serde::Deserialize;

use crate::embedded::frame::Frame;
use crate::{Op, Put, SealError, Sealing, Transaction, apply};

const PUT: u8 = 1;
const DELETE: u8 = 2;
const OPEN: u8 = 0;
const SEALED: u8 = 1;

/// One change as it is replayed.
pub(crate) enum Change {
    Put(Draft),
    Delete(Key),
}

/// Appends a transaction that is about to happen to this state.
pub(crate) fn write_transaction(
    out: &mut Vec<u8>,
    revision: Revision,
    now: &Snapshot,
    transaction: &Transaction,
    sealing: Option<&Sealing>,
) -> Result<(), SealError> {
    let changing = |op: &&Op| apply::changes(now, op);
    number(out, revision);
    number(out, transaction.ops.iter().filter(changing).count() as u64);
    for op in transaction.ops.iter().filter(changing) {
        match &op.put {
            Put::Object(draft) => {
                out.push(PUT);
                put(out, &draft.key, &draft.fields, &draft.stored, sealing)?;
            }
            Put::Delete => {
                out.push(DELETE);
                key(out, &op.key);
            }
            Put::Nothing => {}
        }
    }
    Ok(())
}

/// Appends an object as a snapshot holds it.
pub(crate) fn write_object(
    out: &mut Vec<u8>,
    object: &Object,
    sealing: Option<&Sealing>,
) -> Result<(), SealError> {
    number(out, object.revision);
    put(out, &object.key, &object.fields, &object::body::without_revision(&object.body), sealing)
}

fn put(
    out: &mut Vec<u8>,
    at: &Key,
    fields: &[Box<str>],
    stored: &[u8],
    sealing: Option<&Sealing>,
) -> Result<(), SealError> {
    key(out, at);
    if let Some(sealing) = sealing {
        if sealing.seals(at.resource) {
            let mut plain = Vec::with_capacity(stored.len() + 64);
            content(&mut plain, fields, stored);
            if let Some(sealed) = sealing.seal(at, path(at).as_bytes(), &plain)? {
                out.push(SEALED);
                text(out, &sealed);
                return Ok(());
            }
        }
        out.push(OPEN);
    }
    content(out, fields, stored);
    Ok(())
}

/// What a sealed value is bound to, so that it opens nowhere else.
fn path(key: &Key) -> String {
    format!("/registry/{}/{}", key.resource, key.path())
}

fn content(out: &mut Vec<u8>, fields: &[Box<str>], stored: &[u8]) {
    number(out, fields.len() as u64);
    for field in fields {
        text(out, field.as_bytes());
    }
    text(out, stored);
}

fn key(out: &mut Vec<u8>, key: &Key) {
    text(out, key.resource.as_str().as_bytes());
    text(out, key.namespace.as_bytes());
    text(out, key.name.as_bytes());
}

fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads payloads. One reader serves a whole start, so that the names of namespaces are kept once.
#[derive(Default)]
pub(crate) struct Reader {
    namespaces: HashSet<Arc<str>>,
    sealing: Option<Arc<Sealing>>,
    /// Something was read that would be written otherwise today.
    pub(crate) is_stale: bool,
}

/// Why the payload of an intact frame cannot be read.
#[derive(Debug)]
pub(crate) enum Trouble {
    Nonsense(Nonsense),
    Sealed(SealError),
}

impl From<Nonsense> for Trouble {
    fn from(message: Nonsense) -> Self {
        Self::Nonsense(message)
    }
}

/// Why an intact frame does not say anything sensible.
pub(crate) type Nonsense = String;

impl Reader {
    pub(crate) fn new(sealing: Option<Arc<Sealing>>) -> Self {
        Self { sealing, ..Self::default() }
    }

    /// The transactions of a batch.
    pub(crate) fn batch(&mut self, frame: &Frame) -> Result<Vec<(Revision, Vec<Change>)>, Trouble> {
        let mut rest = frame.payload.clone();
        let mut transactions = Vec::new();
        while !rest.is_empty() {
            let revision = take_number(&mut rest)?;
            let count = take_number(&mut rest)?;
            let mut changes = Vec::new();
            for _ in 0..count {
                changes.push(match take_number(&mut rest)? as u8 {
                    PUT => Change::Put(self.draft(&mut rest, frame.sealed)?),
                    DELETE => Change::Delete(self.key(&mut rest)?),
                    other => return Err(format!("unknown operation {other}").into()),
                });
            }
            transactions.push((revision, changes));
        }
        Ok(transactions)
    }

    /// The objects of a part of a snapshot.
    pub(crate) fn objects(&mut self, frame: &Frame) -> Result<Vec<Object>, Trouble> {
        let mut rest = frame.payload.clone();
        let mut objects = Vec::new();
        while !rest.is_empty() {
            let revision = take_number(&mut rest)?;
            objects.push(self.draft(&mut rest, frame.sealed)?.at(revision));
        }
        Ok(objects)
    }

    fn draft(&mut self, rest: &mut Bytes, sealed: bool) -> Result<Draft, Trouble> {
        let key = self.key(rest)?;
        if sealed && take_number(rest)? == u64::from(SEALED) {
            let value = take_bytes(rest)?;
            let mut plain = self.unsealed(&key, &value)?;
            return Ok(content_of(key, &mut plain)?);
        }
        self.is_stale |= self.sealing.as_ref().is_some_and(|sealing| sealing.seals(key.resource));
        Ok(content_of(key, rest)?)
    }

    fn unsealed(&mut self, key: &Key, value: &Bytes) -> Result<Bytes, Trouble> {
        let Some(sealing) = &self.sealing else {
            crate::sealing::refuse_sealed(key, value).map_err(Trouble::Sealed)?;
            return Err(format!("{key} is said to be sealed, and is not").into());
        };
        let opened = sealing.unseal_blocking(key, path(key).as_bytes(), value).map_err(Trouble::Sealed)?;
        self.is_stale |= opened.is_stale;
        Ok(opened.plain)
    }

    fn key(&mut self, rest: &mut Bytes) -> Result<Key, Nonsense> {
        let resource = Resource::intern(&take_text(rest)?);
        let namespace = take_text(rest)?;
        let namespace = match self.namespaces.get(&*namespace) {
            Some(known) => known.clone(),
            None => {
                let kept: Arc<str> = namespace.into();
                self.namespaces.insert(kept.clone());
                kept
            }
        };
        Ok(Key::new(resource, namespace, take_text(rest)?))
    }
}

fn content_of(key: Key, rest: &mut Bytes) -> Result<Draft, Nonsense> {
    let count = take_number(rest)?;
    let mut fields = Vec::new();
    for _ in 0..count {
        fields.push(take_text(rest)?.into());
    }
    let stored = take_bytes(rest)?;
    let meta = meta_of(&stored).map_err(|error| format!("the metadata of {key}: {error}"))?;
    Ok(Draft { key, meta, fields: fields.into(), stored })
}

/// Only the metadata is read: it stands before the rest of a body, and what follows it is not looked at.
fn meta_of(stored: &[u8]) -> Result<Meta, serde_json::Error> {
    const METADATA: &[u8] = b"\"metadata\":";
    let Some(at) = stored.windows(METADATA.len()).position(|window| window == METADATA) else {
        return Ok(Meta::default());
    };
    Meta::deserialize(&mut serde_json::Deserializer::from_slice(&stored[at + METADATA.len()..]))
}

fn take_text(rest: &mut Bytes) -> Result<String, Nonsense> {
    String::from_utf8(take_bytes(rest)?.into()).map_err(|error| error.to_string())
}

fn take_bytes(rest: &mut Bytes) -> Result<Bytes, Nonsense> {
    let len = take_number(rest)?;
    if len > rest.len() as u64 {
        return Err(format!("a text of {len} bytes where {} are left", rest.len()));
    }
    Ok(rest.split_to(len as usize))
}

pub(crate) fn take_number(rest: &mut Bytes) -> Result<u64, Nonsense> {
    let mut value = 0;
    for (at, byte) in rest.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7F) << (7 * at);
        if byte & 0x80 == 0 {
            rest.advance(at + 1);
            return Ok(value);
        }
    }
    Err("a number does not end".to_owned())
}

/// Appends the numbers that a head or an end consists of.
pub(crate) fn write_numbers(out: &mut Vec<u8>, numbers: &[u64]) {
    for value in numbers {
        number(out, *value);
    }
}
