//! Kernel settings of the calling thread's network namespace.

use std::fs;
use std::path::Path;

use crate::{Error, Result};

/// Reads `net.ipv4.ip_forward`-like names (dots or slashes), without the line end.
pub fn get(name: &str) -> Result<String> {
    let path = path_of(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim_end().to_owned()),
        Err(source) => Err(Error::Sysctl { operation: "read", path, source }),
    }
}

/// Writes a setting unless it has the value already, so that a read-only /proc/sys with the right values is fine.
pub fn set(name: &str, value: &str) -> Result<()> {
    if get(name).is_ok_and(|now| now == value) {
        return Ok(());
    }
    let path = path_of(name);
    fs::write(&path, value).map_err(|source| Error::Sysctl { operation: "write", path, source })
}

/// Writes a setting that a kernel without the feature does not have.
pub fn set_if_present(name: &str, value: &str) -> Result<()> {
    if Path::new(&path_of(name)).exists() { set(name, value) } else { Ok(()) }
}

fn path_of(name: &str) -> String {
    format!("/proc/sys/{}", if name.contains('/') { name.to_owned() } else { name.replace('.', "/") })
}
