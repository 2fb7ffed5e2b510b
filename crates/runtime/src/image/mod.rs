//! Images: a content store that all nodes of a cluster share, what fills it (registries, archives, folders), and root filesystems from it.
//! Several processes use one store at once, and each may be killed at any instruction.
//! Knows nothing of containers: it hands out overlay lower directories and a configuration.

mod archive;
mod auth;
mod blob;
mod challenge;
mod decode;
mod digest;
mod folder;
mod gc;
mod layer;
mod lease;
mod limits;
mod lock;
mod manifest;
mod proxy;
mod pull;
mod reference;
mod registry;
mod share;
mod store;
mod tarball;
mod transfer;
mod transport;
mod tree;

#[cfg(test)]
mod tests;

pub use archive::{ImportError, ImportOptions};
pub use auth::{AuthError, Credential, Keyring};
pub use digest::Digest;
pub use gc::{Collected, Usage};
pub use layer::UnpackError;
pub use lease::Prepared;
pub use limits::{Devices, Limits};
pub use manifest::{ManifestError, Platform};
pub use proxy::Proxies;
pub use pull::{Policy, Progress, PullError, PullErrorKind, Puller};
pub use reference::{InvalidReference, Reference};
pub use registry::{Registries, RegistryError};
pub use store::{Image, Layer, Options, Store, StoreError};
pub use transport::{BadAuthorities, HttpError, HttpOptions};
