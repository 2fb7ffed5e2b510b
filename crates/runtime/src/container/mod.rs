//! The child process that becomes a container's process: it shuts itself in, then replaces itself.
//!
//! A monitor forks it; the monitor has one thread, so the child may allocate and read files. Whatever goes wrong is
//! told to the monitor over a socket that closes by itself when the program starts.

pub mod capability;
mod devices;
pub mod init;
mod mounts;
mod rootfs;
mod user;

pub use devices::numbers as device_numbers;
