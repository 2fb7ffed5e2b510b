//! What may be written, and how it is completed: the plugins. Pure.
//!
//! The caller (the gate) goes through [`CHAIN`] twice: to complete a request, by [`mutate`], and to judge it, by [`validate`]. It defaults the
//! object before the first and validates it against its kind between the two, as upstream does. The steps of the chain that are extensions
//! are the caller's to carry out: they may have to be asked elsewhere. So is the last, [`Step::Charge`], which belongs to the commit.
//!
//! ```text
//! decode ─► default ─► mutate ─► default ─► the kind's own validation ─► validate ─► charge and commit
//! ```
//!
//! Every plugin is a file and a row of [`CHAIN`], in upstream's order.
//!
//! Architecture invariant: no clock, no randomness, no I/O; `now` and a random suffix are part of the [`Request`], and
//! whether its user may do something else besides is asked through `Request::authorize`.

mod configuration;
pub mod extension;
mod plugins;
mod pod;
mod request;

pub use configuration::Configuration;
pub use plugins::CHAIN;
pub use plugins::fargate::Fargate;
pub use plugins::pod_identity::PodIdentity;
pub use request::{
    Admitted, Charge, Mutate, Operation, Plugin, PodSecurityNote, PodSecurityVersion, PolicyCheck, Request,
    Step, Validate, Verdict,
};

use object::{Snapshot, Status};
use serde_json::Value;

/// Completes the object of a create, update or connect: service account, priority, tolerations, limits, classes.
///
/// The object must have passed decoding: its fields are of the types of its kind's schema. `told` hears of each plugin that had its say: its
/// place among them, and whether it refused.
pub fn mutate(
    plugins: &[Plugin],
    snapshot: &Snapshot,
    request: &Request,
    mut object: Value,
    mut told: impl FnMut(usize, bool),
) -> Result<Admitted, Status> {
    let mut warnings = Vec::new();
    for (index, plugin) in plugins.iter().enumerate() {
        if let Some(mutate) = plugin.mutate {
            let done = mutate(snapshot, request, &mut object, &mut warnings);
            told(index, done.is_err());
            done?;
        }
    }
    Ok(Admitted { object, warnings })
}

/// Judges a request. `object` is as it would be stored; a delete has none. What the audit log should hold is in the verdict of a
/// request that is refused, too. `told` is as in [`mutate`].
pub fn validate(
    plugins: &[Plugin],
    snapshot: &Snapshot,
    request: &Request,
    object: Option<&Value>,
    verdict: &mut Verdict,
    mut told: impl FnMut(usize, bool),
) -> Result<(), Status> {
    for (index, plugin) in plugins.iter().enumerate() {
        if let Some(validate) = plugin.validate {
            let done = validate(snapshot, request, object, verdict);
            told(index, done.is_err());
            done?;
        }
    }
    Ok(())
}
