//! KMS v2: values are sealed here, with keys that a plugin behind a Unix socket seals.
//!
//! ```text
//! EncryptedObject   1 sealed value, 2 id of the KMS's key, 3 sealed seed, 4 annotations, 5 what kind of seed
//! sealed value      info (32), nonce (12), ciphertext, tag      with the key HKDF-Expand-SHA256(seed, info)
//! ```
//!
//! The plugin is asked for one seed when a server starts and when its key changes; every value has a key of its own made from that.
//! <https://kubernetes.io/docs/tasks/administer-cluster/kms-provider/>, KEP-3299

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use prost::Message;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tonic_prost::ProstCodec;

use super::cipher::{Cipher, random};
use super::measured::Calls;

const SEED: usize = 32;
const INFO: usize = 32;
/// `EncryptedDEKSourceType`: what stands sealed beside a value is a key, or a seed of keys.
const OF_KEY: i32 = 0;
const OF_SEED: i32 = 1;
/// How long a seed is used after the plugin was last heard, as upstream.
const TRUSTED: Duration = Duration::from_secs(180);
/// Seeds that are kept: one for each time a server started or a key was changed.
const MOST_SEEDS: usize = 1000;
/// Bounds of the protocol.
const MOST_SEALED_SEED: usize = 1024;
const MOST_KEY_ID: usize = 1024;

/// Why the plugin gave no key: what it did not answer, and the gRPC status of that if it was asked.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) status: Option<&'static str>,
    pub(super) message: String,
}

impl Unanswered {
    pub(super) fn unasked(message: impl ToString) -> Self {
        Self { status: None, message: message.to_string() }
    }

    fn of(self, kms: &str) -> Self {
        Self { message: format!("the KMS {kms:?}: {}", self.message), ..self }
    }
}

/// The sealed value is none, or of another key than it says.
#[derive(Debug)]
pub(super) struct Unreadable;

pub(super) struct Kms {
    name: String,
    timeout: Duration,
    socket: Endpoint,
    channel: Mutex<Option<Channel>>,
    state: Mutex<State>,
    calls: Calls,
}

#[derive(Default)]
struct State {
    /// What new values are sealed with.
    current: Option<Current>,
    /// By what stands sealed beside values.
    seeds: HashMap<Vec<u8>, [u8; SEED]>,
    trouble: Option<String>,
}

#[derive(Clone)]
struct Current {
    seed: [u8; SEED],
    /// All but the value.
    sealed: EncryptedObject,
    heard: Instant,
}

#[derive(Clone, PartialEq, Message)]
struct EncryptedObject {
    #[prost(bytes = "vec", tag = "1")]
    data: Vec<u8>,
    #[prost(string, tag = "2")]
    key_id: String,
    #[prost(bytes = "vec", tag = "3")]
    source: Vec<u8>,
    #[prost(map = "string, bytes", tag = "4")]
    annotations: HashMap<String, Vec<u8>>,
    #[prost(int32, tag = "5")]
    source_type: i32,
}

#[derive(Clone, PartialEq, Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, Message)]
struct StatusResponse {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(string, tag = "2")]
    healthz: String,
    #[prost(string, tag = "3")]
    key_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct EncryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    plaintext: Vec<u8>,
    #[prost(string, tag = "2")]
    uid: String,
}

#[derive(Clone, PartialEq, Message)]
struct EncryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    key_id: String,
    #[prost(map = "string, bytes", tag = "3")]
    annotations: HashMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct DecryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    key_id: String,
    #[prost(map = "string, bytes", tag = "4")]
    annotations: HashMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct DecryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    plaintext: Vec<u8>,
}

impl Kms {
    pub(super) fn new(name: &str, socket: &str, timeout: Duration) -> Result<Self, String> {
        let socket = Endpoint::from_shared(format!("unix://{socket}")).map_err(|error| error.to_string())?;
        let socket = socket.connect_timeout(timeout);
        Ok(Self {
            name: name.to_owned(),
            timeout,
            socket,
            channel: Mutex::default(),
            state: Mutex::default(),
            calls: Calls::default(),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn calls(&self) -> &Calls {
        &self.calls
    }

    pub(super) fn known_seeds(&self) -> usize {
        self.state().seeds.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn trouble(&self) -> Option<String> {
        self.state().trouble.clone()
    }

    /// Whether the plugin has another key than before.
    pub(super) async fn refresh(&self) -> Result<bool, Unanswered> {
        let refreshed = self.look().await.map_err(|why| why.of(&self.name));
        self.state().trouble = refreshed.as_ref().err().map(|why| why.message.clone());
        refreshed
    }

    async fn look(&self) -> Result<bool, Unanswered> {
        let wrong = |why: String| Err(Unanswered::unasked(why));
        let status: StatusResponse = self.call("Status", StatusRequest {}).await?;
        if !matches!(&*status.version, "v2" | "v2beta1") {
            return wrong(format!("it speaks {:?}, not v2", status.version));
        }
        if status.healthz != "ok" {
            return wrong(format!("it is not well: {}", status.healthz));
        }
        if let Some(fault) = key_id_fault(&status.key_id) {
            self.calls.wrong_key_id(fault);
            return wrong("the id of its key is empty or too long".to_owned());
        }
        let now = Instant::now();
        let had_one = {
            let mut state = self.state();
            if let Some(current) = state.current.as_mut().filter(|one| one.sealed.key_id == status.key_id) {
                current.heard = now;
                return Ok(false);
            }
            state.current.is_some()
        };
        let began = Instant::now();
        let seed = random::<SEED>();
        self.calls.made_seed(began.elapsed());
        let request = EncryptRequest { plaintext: seed.to_vec(), uid: self.uid() };
        let answer: EncryptResponse = self.call("Encrypt", request).await?;
        if answer.ciphertext.is_empty() || answer.ciphertext.len() > MOST_SEALED_SEED {
            return wrong("what it made of a seed is empty or too long".to_owned());
        }
        if answer.key_id != status.key_id {
            return wrong("it sealed with another key than it says it has".to_owned());
        }
        let sealed = EncryptedObject {
            data: Vec::new(),
            key_id: answer.key_id,
            source: answer.ciphertext,
            annotations: answer.annotations,
            source_type: OF_SEED,
        };
        let mut state = self.state();
        remember(&mut state, &sealed, seed);
        state.current = Some(Current { seed, sealed, heard: now });
        Ok(had_one)
    }

    /// Appends the sealed value.
    pub(super) fn seal(&self, path: &[u8], plain: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let current = self.state().current.clone();
        let current = current.ok_or_else(|| format!("the KMS {:?} has given no key yet", self.name))?;
        if current.heard.elapsed() > TRUSTED {
            return Err(format!("the KMS {:?} was last heard too long ago to seal with its key", self.name));
        }
        let info = random::<INFO>();
        let mut data = info.to_vec();
        derived(&current.seed, &info).ok_or("no key can be derived")?.seal(path, plain, &mut data);
        let object = EncryptedObject { data, ..current.sealed };
        object.encode(out).map_err(|error| error.to_string())
    }

    /// The value, and whether it is sealed as a new one would be. None: ask the plugin for its seed, see [`Self::fetch`].
    pub(super) fn open(&self, path: &[u8], sealed: &[u8]) -> Result<Option<(Vec<u8>, bool)>, Unreadable> {
        let object = EncryptedObject::decode(sealed).map_err(|_| Unreadable)?;
        let state = self.state();
        let Some(seed) = state.seeds.get(&identity(&object)) else { return Ok(None) };
        let is_of_now = state
            .current
            .as_ref()
            .is_some_and(|current| current.sealed.key_id == object.key_id && object.source_type == OF_SEED);
        let plain = match object.source_type {
            OF_KEY => Cipher::gcm(seed).and_then(|key| key.open(path, &object.data)),
            OF_SEED => object
                .data
                .split_at_checked(INFO)
                .and_then(|(info, data)| derived(seed, info)?.open(path, data)),
            _ => None,
        };
        plain.map(|plain| Some((plain, is_of_now))).ok_or(Unreadable)
    }

    /// Asks the plugin to open the seed of a value.
    pub(super) async fn fetch(&self, sealed: &[u8]) -> Result<(), Unanswered> {
        let object = EncryptedObject::decode(sealed).map_err(Unanswered::unasked)?;
        let request = DecryptRequest {
            ciphertext: object.source.clone(),
            uid: self.uid(),
            key_id: object.key_id.clone(),
            annotations: object.annotations.clone(),
        };
        let answer: DecryptResponse =
            self.call("Decrypt", request).await.map_err(|why| why.of(&self.name))?;
        let seed = answer.plaintext.try_into();
        let seed = seed.map_err(|_| Unanswered::unasked("it gave a key of a wrong length").of(&self.name))?;
        remember(&mut self.state(), &object, seed);
        Ok(())
    }

    /// Names a call in the plugin's log.
    fn uid(&self) -> String {
        random::<16>().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    async fn call<Q, R>(&self, method: &'static str, request: Q) -> Result<R, Unanswered>
    where
        Q: Message + Send + Sync + 'static,
        R: Message + Default + Send + Sync + 'static,
    {
        let channel = {
            let mut held = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
            held.get_or_insert_with(|| self.socket.connect_lazy()).clone()
        };
        let (began, whole) = (Instant::now(), format!("/v2.KeyManagementService/{method}"));
        let path = PathAndQuery::from_maybe_shared(whole.clone()).map_err(Unanswered::unasked)?;
        let asked = async {
            let mut grpc = Grpc::new(channel);
            grpc.ready().await.map_err(|error| (Code::Unavailable, causes(&error)))?;
            let answer = grpc.unary(Request::new(request), path, ProstCodec::<Q, R>::default()).await;
            answer.map(tonic::Response::into_inner).map_err(|status| (status.code(), causes(&status)))
        };
        let late = || (Code::DeadlineExceeded, format!("no answer within {} ms", self.timeout.as_millis()));
        let answered = tokio::time::timeout(self.timeout, asked).await.unwrap_or_else(|_| Err(late()));
        let status = word(answered.as_ref().err().map_or(Code::Ok, |(code, _)| *code));
        self.calls.note(&whole, status, began.elapsed());
        answered.map_err(|(_, why)| Unanswered { status: Some(status), message: format!("{method}: {why}") })
    }
}

/// What is wrong with the id of a key, in the word that upstream's metrics have for it.
fn key_id_fault(id: &str) -> Option<&'static str> {
    match id.len() {
        0 => Some("empty"),
        1..=MOST_KEY_ID => None,
        _ => Some("too_long"),
    }
}

/// What gRPC's library for Go calls a status.
fn word(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

/// What went wrong, down to why a socket could not be reached.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

fn remember(state: &mut State, object: &EncryptedObject, seed: [u8; SEED]) {
    if state.seeds.len() >= MOST_SEEDS {
        state.seeds.clear();
    }
    state.seeds.insert(identity(object), seed);
}

/// What a sealed seed is known by: all that the plugin needs to open it.
fn identity(object: &EncryptedObject) -> Vec<u8> {
    let mut annotations: Vec<_> = object.annotations.iter().collect();
    annotations.sort();
    let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
    let mut add = |part: &[u8]| {
        digest.update(&(part.len() as u64).to_le_bytes());
        digest.update(part);
    };
    add(&object.source);
    add(object.key_id.as_bytes());
    for (name, value) in annotations {
        add(name.as_bytes());
        add(value);
    }
    digest.finish().as_ref().to_vec()
}

/// The key of one value.
fn derived(seed: &[u8], info: &[u8]) -> Option<Cipher> {
    let seed = ring::hkdf::Prk::new_less_safe(ring::hkdf::HKDF_SHA256, seed);
    let parts = [info];
    let expanded = seed.expand(&parts, ring::hkdf::HKDF_SHA256).ok()?;
    let mut key = [0; 32];
    expanded.fill(&mut key).ok()?;
    Cipher::gcm(&key)
}
