//! A KMS plugin on a Unix socket: it seals by turning every byte around, under the key that it has at the moment.

use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::UnixListener;

pub struct Plugin {
    pub key: Mutex<String>,
    pub is_well: AtomicBool,
    /// Whether it opens what it has sealed.
    pub opens: AtomicBool,
    pub decrypted: AtomicUsize,
}

/// All messages of the protocol: each has a part of these fields, under other numbers.
#[derive(Clone, PartialEq, Message)]
struct Fields {
    #[prost(bytes = "vec", tag = "1")]
    first: Vec<u8>,
    #[prost(string, tag = "2")]
    second: String,
    #[prost(string, tag = "3")]
    third: String,
}

impl Plugin {
    pub fn start(socket: &Path) -> Arc<Self> {
        let plugin = Arc::new(Self {
            key: Mutex::new("key-1".into()),
            is_well: AtomicBool::new(true),
            opens: AtomicBool::new(true),
            decrypted: AtomicUsize::new(0),
        });
        let listener = UnixListener::bind(socket).expect("a socket");
        let serving = plugin.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let plugin = serving.clone();
                let service = service_fn(move |request| answer(plugin.clone(), request));
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                tokio::spawn(server.serve_connection(TokioIo::new(socket), service));
            }
        });
        plugin
    }

    fn act(&self, method: &str, asked: Fields) -> Fields {
        let key = self.key.lock().expect("no panic").clone();
        let turned = |bytes: &[u8]| bytes.iter().map(|byte| !byte).collect();
        match method {
            "Status" => {
                let health = if self.is_well.load(Ordering::Relaxed) { "ok" } else { "no key" };
                Fields { first: b"v2".to_vec(), second: health.into(), third: key }
            }
            "Encrypt" => Fields { first: turned(&asked.first), second: key, third: String::new() },
            _ => {
                self.decrypted.fetch_add(1, Ordering::Relaxed);
                Fields { first: turned(&asked.first), ..Fields::default() }
            }
        }
    }
}

async fn answer(
    plugin: Arc<Plugin>,
    request: Request<Incoming>,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let sent = request.into_body().collect().await.expect("a body").to_bytes();
    // gRPC: a byte for compression, four for the length.
    let done = plugin.act(&method, Fields::decode(&sent[5..]).expect("a message")).encode_to_vec();
    let mut message = vec![0];
    message.extend_from_slice(&(done.len() as u32).to_be_bytes());
    message.extend_from_slice(&done);
    let refuses = method == "Decrypt" && !plugin.opens.load(Ordering::Relaxed);
    let status = if refuses { "14" } else { "0" };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(status));
    let frames = [Ok(Frame::data(Bytes::from(message))), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    Ok(response)
}
