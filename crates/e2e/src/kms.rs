//! A KMS plugin of version 2 on a Unix socket: it seals with AES-256-GCM under keys of its own, which nobody else ever sees.
//! <https://kubernetes.io/docs/tasks/administer-cluster/kms-provider/>

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::os::unix::net::UnixListener as Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ::http::{HeaderMap, HeaderValue, Request, Response};
use anyhow::{Context, Result};
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Runtime};

/// It answers as long as it is [`Self::open`].
pub struct Kms {
    socket: PathBuf,
    keys: Arc<Mutex<Keys>>,
    /// Its connections end with it.
    serving: Option<Runtime>,
}

/// By their ids; the current one seals.
struct Keys {
    current: String,
    all: BTreeMap<String, LessSafeKey>,
}

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
}

#[derive(Clone, PartialEq, Message)]
struct EncryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    ciphertext: Vec<u8>,
    #[prost(string, tag = "2")]
    key_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct DecryptRequest {
    #[prost(bytes = "vec", tag = "1")]
    ciphertext: Vec<u8>,
    #[prost(string, tag = "3")]
    key_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct DecryptResponse {
    #[prost(bytes = "vec", tag = "1")]
    plaintext: Vec<u8>,
}

impl Kms {
    /// Answers at the socket, with a new key of this id.
    pub fn start(socket: &Path, key: &str) -> Result<Self> {
        let keys = Keys { current: String::new(), all: BTreeMap::new() };
        let mut kms = Self { socket: socket.to_owned(), keys: Arc::new(Mutex::new(keys)), serving: None };
        kms.rotate(key)?;
        kms.open()?;
        Ok(kms)
    }

    /// What is sealed from now on is under a new key; what was, is still opened.
    pub fn rotate(&self, key: &str) -> Result<()> {
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).ok().context("random bytes")?;
        let made = UnboundKey::new(&AES_256_GCM, &bytes).ok().context("a key")?;
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.all.insert(key.to_owned(), LessSafeKey::new(made));
        key.clone_into(&mut keys.current);
        Ok(())
    }

    /// Answers again.
    pub fn open(&mut self) -> Result<()> {
        let _ = std::fs::remove_file(&self.socket);
        let bound = Bound::bind(&self.socket).context("the socket of the KMS")?;
        bound.set_nonblocking(true)?;
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let keys = self.keys.clone();
        let listener = runtime.block_on(async { UnixListener::from_std(bound) })?;
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let keys = keys.clone();
                let service = service_fn(move |request| answer(keys.clone(), request));
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(server.serve_connection(TokioIo::new(socket), service));
            }
        });
        self.serving = Some(runtime);
        Ok(())
    }

    /// Is away: connections end, and nobody listens.
    pub fn close(&mut self) {
        if let Some(runtime) = self.serving.take() {
            runtime.shutdown_background();
        }
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl Drop for Kms {
    fn drop(&mut self) {
        self.close();
    }
}

impl Keys {
    /// The answer to a call, or why there is none.
    fn call(&self, method: &str, asked: &[u8]) -> Result<Vec<u8>, String> {
        let unread = |error: prost::DecodeError| error.to_string();
        let answer = match method {
            "Status" => {
                let key_id = self.current.clone();
                StatusResponse { version: "v2".into(), healthz: "ok".into(), key_id }.encode_to_vec()
            }
            "Encrypt" => {
                let EncryptRequest { plaintext } = EncryptRequest::decode(asked).map_err(unread)?;
                let ciphertext = self.seal(plaintext).ok_or("it cannot be sealed")?;
                EncryptResponse { ciphertext, key_id: self.current.clone() }.encode_to_vec()
            }
            "Decrypt" => {
                let DecryptRequest { ciphertext, key_id } = DecryptRequest::decode(asked).map_err(unread)?;
                let plaintext = self.open(&key_id, ciphertext).ok_or("it cannot be opened")?;
                DecryptResponse { plaintext }.encode_to_vec()
            }
            _ => return Err(format!("there is no {method}")),
        };
        Ok(answer)
    }

    /// The nonce, and what is sealed with it.
    fn seal(&self, mut plain: Vec<u8>) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let key = self.all.get(&self.current)?;
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut plain).ok()?;
        Some([&nonce[..], &plain].concat())
    }

    fn open(&self, key_id: &str, sealed: Vec<u8>) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_at_checked(NONCE_LEN)?;
        let mut opened = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = self.all.get(key_id)?.open_in_place(nonce, Aad::empty(), &mut opened).ok()?;
        Some(plain.to_vec())
    }
}

/// gRPC: before each message a byte for its compression and four for its length, and at the end whether it went well.
async fn answer(
    keys: Arc<Mutex<Keys>>,
    request: Request<Incoming>,
) -> Result<Response<impl Body<Data = Bytes, Error = Infallible>>, hyper::Error> {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let sent = request.into_body().collect().await?.to_bytes();
    let asked = sent.get(5..).unwrap_or_default();
    let told = keys.lock().unwrap_or_else(PoisonError::into_inner).call(&method, asked);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(if told.is_ok() { "0" } else { "13" }));
    let mut message = vec![0];
    let told = told.unwrap_or_default();
    message.extend(u32::try_from(told.len()).unwrap_or(u32::MAX).to_be_bytes());
    message.extend(told);
    let frames = [Ok(Frame::data(Bytes::from(message))), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(StreamBody::new(stream::iter(frames)));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}
