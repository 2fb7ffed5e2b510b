//! SPDY/3.1: frames and streams over one connection, as much of it as Kubernetes' streaming speaks. Knows nothing of Kubernetes.
//!
//! kubectl up to 1.30 and the older client libraries exec, attach and forward ports with it; newer ones still forward
//! ports with it, inside a WebSocket. The protocol: <https://www.chromium.org/spdy/spdy-protocol/spdy-protocol-draft3-1/>.
//!
//! Flow control is left out on purpose: the library on the other side (moby/spdystream) neither opens windows nor keeps
//! to ours. A stream that nobody reads therefore holds up the connection once its small buffer is full.

mod connection;
mod frame;
mod headers;

pub use connection::{Closed, Connection, Driver, Incoming, Reader, Role, Stream, Writer, connection};
pub use frame::{Decoder, Encoder, Frame, FrameError};
pub use headers::Headers;
