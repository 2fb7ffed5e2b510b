//! Real containers: needs root and a static busybox, and leaves nothing behind.

mod exec;
mod lifecycle;
mod limits;
mod recovery;
mod security;
mod support;
