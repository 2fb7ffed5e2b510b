//! Real containers: needs root and a static busybox, and leaves nothing behind.

// Clippy lets tests unwrap, but not what they share.
#![allow(clippy::unwrap_used)]

mod exec;
mod lifecycle;
mod limits;
mod recovery;
mod security;
mod support;
