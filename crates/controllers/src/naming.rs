//! Names and hashes. There is no randomness here: a name comes from what it is made for and the snapshot's revision, so that the
//! same plan made twice asks for the same objects.

use std::collections::BTreeSet;

use object::{Key, Resource, Snapshot};
use serde_json::Value;

/// Characters that form no words: upstream's `k8s.io/apimachinery/pkg/util/rand`.
const SAFE: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;
const LONGEST_NAME: usize = 63;

/// FNV-1a over 32 bits.
pub fn fnv32(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn fnv64(bytes: &[u8]) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325;
    bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The hash in the names of ReplicaSets and ControllerRevisions: of a template's canonical JSON and how often that collided before.
pub fn template_hash(template: &Value, collisions: i64) -> String {
    let mut text = template.to_string().into_bytes();
    if collisions > 0 {
        text.extend_from_slice(&collisions.to_le_bytes());
    }
    fnv32(&text).to_string().bytes().map(|digit| char::from(SAFE[usize::from(digit) % SAFE.len()])).collect()
}

/// Gives out names for new objects that nothing in the snapshot has.
pub struct Names<'a> {
    snapshot: &'a Snapshot,
    resource: Resource,
    namespace: &'a str,
    given: BTreeSet<String>,
}

impl<'a> Names<'a> {
    pub fn new(snapshot: &'a Snapshot, resource: Resource, namespace: &'a str) -> Self {
        Self { snapshot, resource, namespace, given: BTreeSet::new() }
    }

    /// `web-6d5f` → `web-6d5f-x7k2p`. `uid` is that of the owner.
    pub fn next(&mut self, prefix: &str, uid: &str) -> String {
        let mut end = prefix.len().min(LONGEST_NAME - SUFFIX_LENGTH);
        while !prefix.is_char_boundary(end) {
            end -= 1;
        }
        let mut attempt = 0;
        loop {
            let seed = format!("{uid}/{prefix}/{}/{}/{attempt}", self.snapshot.revision(), self.given.len());
            let name = format!("{}{}", &prefix[..end], suffix(fnv64(seed.as_bytes())));
            let key = Key::new(self.resource, self.namespace, name.as_str());
            if self.snapshot.get(&key).is_none() && self.given.insert(name.clone()) {
                return name;
            }
            attempt += 1;
        }
    }
}

fn suffix(mut hash: u64) -> String {
    // FNV mixes its low bits best at the end; fold the high ones in.
    hash ^= hash >> 29;
    let base = SAFE.len() as u64;
    (0..SUFFIX_LENGTH)
        .map(|_| {
            let index = usize::try_from(hash % base).unwrap_or(0);
            hash /= base;
            char::from(SAFE[index])
        })
        .collect()
}
