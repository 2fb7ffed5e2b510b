//! API servers and etcds of a task's own, and how one speaks to them. Each ends with the value that stands for it.

mod connection;
mod door;
pub mod etcd;
mod upstream;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

pub use connection::Connection;
pub use door::{Door, Identity};
pub use upstream::Upstream;

/// What `command` prints; an error if it fails.
pub fn output(command: &mut Command) -> Result<String> {
    let done = command.stdin(Stdio::null()).output().with_context(|| format!("run {command:?}"))?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{command:?} ended with {}: {said}", done.status);
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// A program that the scripts bring.
pub fn brought(name: &str) -> PathBuf {
    crate::root().join(".tmp/bin").join(name)
}

pub fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
