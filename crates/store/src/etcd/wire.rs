//! The part of etcd's gRPC API that the engine speaks, declared by hand from the public definition of its v3 API, so that no build needs protoc.

use std::time::Duration;

use http::uri::PathAndQuery;
use prost::Message;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

/// A call that takes longer is given up; whether it happened is then unknown.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// As etcd's own client: what etcd sends is bounded by etcd.
const MESSAGE_BYTES: usize = i32::MAX as usize;

/// `Compare.result` and `.target`.
const EQUAL: i32 = 0;
const VERSION: i32 = 0;
const MOD: i32 = 2;
/// `Event.type`
pub(super) const DELETE: i32 = 1;

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct Header {
    #[prost(int64, tag = "3")]
    pub revision: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct KeyValue {
    #[prost(bytes = "bytes", tag = "1")]
    pub key: bytes::Bytes,
    #[prost(int64, tag = "3")]
    pub mod_revision: i64,
    /// How often the key was written since it was made.
    #[prost(int64, tag = "4")]
    pub version: i64,
    #[prost(bytes = "bytes", tag = "5")]
    pub value: bytes::Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub limit: i64,
    #[prost(int64, tag = "4")]
    pub revision: i64,
    #[prost(bool, tag = "8")]
    pub keys_only: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RangeResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    #[prost(message, repeated, tag = "2")]
    pub kvs: Vec<KeyValue>,
    #[prost(bool, tag = "3")]
    pub more: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "bytes", tag = "2")]
    pub value: bytes::Bytes,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DeleteRequest {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Message)]
pub(super) struct DeleteResponse {
    #[prost(int64, tag = "2")]
    pub deleted: i64,
}

/// Responses whose contents are not looked at.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Ignored {}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum AnyRequest {
    #[prost(message, tag = "1")]
    Range(RangeRequest),
    #[prost(message, tag = "2")]
    Put(PutRequest),
    #[prost(message, tag = "3")]
    Delete(DeleteRequest),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RequestOp {
    #[prost(oneof = "AnyRequest", tags = "1, 2, 3")]
    pub request: Option<AnyRequest>,
}

impl From<AnyRequest> for RequestOp {
    fn from(request: AnyRequest) -> Self {
        Self { request: Some(request) }
    }
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum AnyResponse {
    #[prost(message, tag = "1")]
    Range(RangeResponse),
    #[prost(message, tag = "2")]
    Put(Ignored),
    #[prost(message, tag = "3")]
    Delete(DeleteResponse),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ResponseOp {
    #[prost(oneof = "AnyResponse", tags = "1, 2, 3")]
    pub response: Option<AnyResponse>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Target {
    #[prost(int64, tag = "4")]
    Version(i64),
    #[prost(int64, tag = "6")]
    Mod(i64),
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Compare {
    #[prost(int32, tag = "1")]
    result: i32,
    #[prost(int32, tag = "2")]
    target: i32,
    #[prost(bytes = "vec", tag = "3")]
    key: Vec<u8>,
    #[prost(oneof = "Target", tags = "4, 6")]
    value: Option<Target>,
}

impl Compare {
    pub(super) fn modified_at(key: Vec<u8>, revision: u64) -> Self {
        Self { result: EQUAL, target: MOD, key, value: Some(Target::Mod(revision as i64)) }
    }

    pub(super) fn version_is(key: Vec<u8>, version: i64) -> Self {
        Self { result: EQUAL, target: VERSION, key, value: Some(Target::Version(version)) }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TxnRequest {
    #[prost(message, repeated, tag = "1")]
    pub compare: Vec<Compare>,
    #[prost(message, repeated, tag = "2")]
    pub success: Vec<RequestOp>,
    #[prost(message, repeated, tag = "3")]
    pub failure: Vec<RequestOp>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TxnResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    #[prost(bool, tag = "2")]
    pub succeeded: bool,
    #[prost(message, repeated, tag = "3")]
    pub responses: Vec<ResponseOp>,
}

impl TxnResponse {
    /// Whether it wrote anything: only then is the revision its own.
    pub(super) fn changed(&self) -> bool {
        self.responses.iter().any(|op| match op.response {
            Some(AnyResponse::Put(_)) => true,
            Some(AnyResponse::Delete(DeleteResponse { deleted })) => deleted > 0,
            _ => false,
        })
    }

    /// The keys that the transaction's reads found.
    pub(super) fn found(&self) -> impl Iterator<Item = &KeyValue> {
        self.responses.iter().flat_map(|op| match &op.response {
            Some(AnyResponse::Range(range)) => &range.kvs[..],
            _ => &[],
        })
    }
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct CompactRequest {
    #[prost(int64, tag = "1")]
    pub revision: i64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WatchCreate {
    #[prost(bytes = "vec", tag = "1")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub range_end: Vec<u8>,
    #[prost(int64, tag = "3")]
    pub start_revision: i64,
}

/// Of etcd's choice of requests only the first: a stream holds one watch, and ends with it.
#[derive(Clone, PartialEq, Message)]
pub(super) struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    pub create: Option<WatchCreate>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WatchEvent {
    #[prost(int32, tag = "1")]
    pub kind: i32,
    #[prost(message, optional, tag = "2")]
    pub kv: Option<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct WatchResponse {
    #[prost(message, optional, tag = "1")]
    pub header: Option<Header>,
    #[prost(bool, tag = "4")]
    pub canceled: bool,
    #[prost(int64, tag = "5")]
    pub compact_revision: i64,
    #[prost(string, tag = "6")]
    pub cancel_reason: String,
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<WatchEvent>,
}

/// The connections to all members; a call goes to one that answers.
#[derive(Clone)]
pub(super) struct Client {
    channel: Channel,
}

impl Client {
    pub(super) fn new(channel: Channel) -> Self {
        Self { channel }
    }

    pub(super) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        self.call("/etcdserverpb.KV/Range", request).await
    }

    pub(super) async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        self.call("/etcdserverpb.KV/Txn", request).await
    }

    pub(super) async fn compact(&self, revision: i64) -> Result<(), Status> {
        let Ignored {} = self.call("/etcdserverpb.KV/Compact", CompactRequest { revision }).await?;
        Ok(())
    }

    /// Every change to every key from a revision on.
    pub(super) async fn watch(&self, from: u64) -> Result<Streaming<WatchResponse>, Status> {
        use futures_util::stream::{StreamExt, iter, pending};
        // Key and end zero: all keys there are.
        let create = WatchCreate { key: vec![0], range_end: vec![0], start_revision: from as i64 };
        let requests = iter([WatchRequest { create: Some(create) }]).chain(pending());
        let mut grpc = self.ready().await?;
        let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
        let begun = grpc.streaming(Request::new(requests), path, ProstCodec::default());
        Ok(within(begun).await?.into_inner())
    }

    async fn call<Q, R>(&self, path: &'static str, request: Q) -> Result<R, Status>
    where
        Q: Message + 'static,
        R: Message + Default + 'static,
    {
        let mut grpc = self.ready().await?;
        let path = PathAndQuery::from_static(path);
        let answer = grpc.unary(Request::new(request), path, ProstCodec::<Q, R>::default());
        Ok(within(answer).await?.into_inner())
    }

    async fn ready(&self) -> Result<Grpc<Channel>, Status> {
        let mut grpc = Grpc::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES);
        within(async {
            grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
            Ok(())
        })
        .await?;
        Ok(grpc)
    }
}

async fn within<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Status::deadline_exceeded(format!("no answer within {} s", CALL_TIMEOUT.as_secs()))),
    }
}
