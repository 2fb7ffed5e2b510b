//! What a node should do next for its pods: desired + observed → ops. Pure.
//!
//! Everything is decided afresh from what is there: nothing is remembered between two calls, so a kubelet that was killed goes on where
//! it was. What must outlive it stands beside the containers (`Container::annotations`).

mod admit;
mod claims;
mod config;
mod env;
mod eviction;
mod image_gc;
mod lifecycle;
mod node_status;
mod pod;
mod probes;
mod references;
mod resize;
mod resources;
mod restart;
mod status;
mod sync;
mod volumes;

pub use admit::{Rejection, admit};
pub use config::TERMINATION_POLICY;
pub use image_gc::{Disk, Garbage, StoredImage, garbage};
pub use node_status::{Heartbeat, NodeFacts, OsFacts, heartbeat, lease, registration};
pub use pod::{Container as ContainerSpec, Pod};
pub use probes::failure_message;
pub use references::{Reference, references};
pub use resize::is_wanted as is_resize_wanted;
pub use status::{is_overwritten, pod_status, status_patch};
pub use sync::{Event, Input, Step, sync};
pub use volumes::renew_token_at;
