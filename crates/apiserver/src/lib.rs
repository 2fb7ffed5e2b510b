//! HTTP over the store: routing from `kinds`, list, watch, patch, discovery, streams.
//!
//! ```text
//! connection ─► authenticate ─► impersonate ─► route ─► seat ─► authorize ─► read: list, watch, get   (bytes of the snapshot, never decoded)
//!                                                                        ├─► write: gate
//!                                                                        └─► stream: proxied to the kubelet
//! ```
//!
//! Architecture invariant: no kind is named here to route it; what is served is what the catalog's rows say. The few things that a
//! kind has of its own (logs, exec, tokens, reviews) are subresources and virtual resources, one row each in `special`.

mod aggregate;
mod audit;
mod authenticate;
mod authority;
mod backend;
mod body;
mod cbor;
mod compress;
mod config;
mod connection;
mod dial;
mod discovery;
mod fairness;
mod gather;
mod handle;
mod health;
mod held;
mod https;
mod indent;
mod items;
mod kubelet;
mod links;
mod list;
mod metrics;
mod negotiate;
mod openapi;
mod openapi_protobuf;
mod options;
mod past;
mod patches;
mod protobuf;
mod proxy;
mod published;
mod query;
mod recent;
mod repack;
mod respond;
mod route;
mod seats;
mod select;
mod server;
mod shared;
mod shared_events;
mod show;
mod special;
mod tls;
mod watch;
mod webhooks;
mod websocket;
mod write;
mod yaml;
mod zpages;

pub use aggregate::FrontProxy;
pub use audit::{Audit, AuditWebhook, LogError as AuditLogError, LogOptions as AuditLog};
pub use authenticate::oidc::{AuthenticationSource, Believed};
pub use authenticate::webhook::TokenWebhook;
pub use authority::{AccessSource, Authorization, AuthorizationSource, Authorizers};
pub use body::yaml as decode_yaml;
pub use cbor::decode as decode_cbor;
pub use config::{Config, Deps, FrontProxies, Limits, Login, Version};
pub use connection::{Connection, ConnectionError};
pub use dial::{Dial, Socket, is_proxyable};
pub use health::HealthCheck;
pub use metrics::deprecated::{DeprecatedClient, DeprecatedUse};
pub use metrics::{ComponentMetrics, WriteMetrics};
pub use protobuf::{decode as decode_protobuf, identity as protobuf_identity};
pub use server::{ServeError, Server};
pub use tls::{client_config, server_config};
pub use webhooks::Caller;
