//! What an API server is told by files of upstream's forms; the flags that name them have upstream's names too.

mod access;
mod guard;
mod watched;

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};

pub use access::{AccessFileError, AccessFiles, followed};
pub use guard::{GuardFileError, GuardFiles};

#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerFiles {
    /// What guards its API and its data.
    #[command(flatten)]
    pub guard: GuardFiles,
    /// Who is believed and who may do what, besides what every cluster has.
    #[command(flatten)]
    pub access: AccessFiles,
}

impl ServerFiles {
    /// The same, whatever folder the process that reads the files works in.
    pub fn absolute(mut self) -> std::io::Result<Self> {
        let Self { guard, access } = &mut self;
        for file in guard.files().into_iter().chain(access.files()).flatten() {
            if file.as_os_str() != "-" {
                *file = std::path::absolute(&*file)?;
            }
        }
        Ok(self)
    }

    /// These, and of `kept` what is not said anew.
    pub fn or(self, kept: Self) -> Self {
        Self { guard: self.guard.or(kept.guard), access: self.access.or(kept.access) }
    }
}

type File = Option<PathBuf>;
