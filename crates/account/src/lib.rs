//! One AWS account: its store, and the endpoint that answers signed calls.
//!
//! ```text
//! connection ─► server (http or https, limits) ─► guard (Host, Origin) ─► aws::answer (pure) ─► commit ─► response
//!                                                                            ▲ newest snapshot      │ a precondition failed: anew
//!                                                                            └──────────────────────┘
//! ```

mod account;
mod guard;
mod server;

pub use account::{Account, Clock, Identity, MOST_OPS, OpenError, Random};
pub use guard::Names;
pub use server::{Answers, Limits, Server};
