//! What an API server is told by files of upstream's forms; the flags that name them have upstream's names too.

mod access;
mod guard;
mod reloads;
mod watched;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use access::{AccessFileError, AccessFiles, followed};
pub use guard::{GuardFileError, GuardFiles};
pub use reloads::Reloads;

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

/// What is wrong with a file that an API server is told by.
#[derive(Debug, thiserror::Error)]
pub enum ServerFilesError {
    #[error(transparent)]
    Guard(#[from] GuardFileError),
    #[error(transparent)]
    Access(#[from] AccessFileError),
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

    /// These without what a flag gave, nor what is of no use without it.
    pub fn without(mut self, flag: Flag) -> Self {
        let Self { guard, access } = &mut self;
        match flag {
            Flag::AdmissionControlConfigFile => guard.admission_control_config_file = None,
            Flag::AuditLogPath => guard.forget_log(),
            Flag::AuditPolicyFile => guard.forget_audit(),
            Flag::AuditWebhookConfigFile => guard.audit_webhook_config_file = None,
            Flag::AuthenticationConfig => access.authentication_config = None,
            Flag::AuthenticationTokenWebhookConfigFile => {
                access.authentication_token_webhook_config_file = None;
            }
            Flag::AuthorizationConfig => access.authorization_config = None,
            Flag::EncryptionProviderConfig => guard.encryption_provider_config = None,
        }
        self
    }

    /// Each flag with what it says; nothing if it says nothing.
    pub fn flags(&self) -> BTreeMap<String, String> {
        let parts = [serde_json::to_value(&self.guard), serde_json::to_value(&self.access)];
        let told = parts.into_iter().flatten().filter_map(|part| match part {
            Value::Object(fields) => Some(fields),
            _ => None,
        });
        let text = |value: Value| match value {
            Value::Null => String::new(),
            Value::String(text) => text,
            other => other.to_string(),
        };
        told.flatten().map(|(field, value)| (field.replace('_', "-"), text(value))).collect()
    }

    /// Whether a cluster would start with these, as far as they say themselves, and with the state that it had with `before`. `own_issuer`
    /// is the cluster's.
    pub fn check(&self, before: &Self, own_issuer: &str) -> Result<(), ServerFilesError> {
        self.access.authentication(own_issuer)?;
        self.access.authorization()?;
        self.access.token_webhook()?;
        Ok(self.guard.check(&before.guard)?)
    }
}

/// A file that may be taken off again, named as its flag is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Flag {
    AdmissionControlConfigFile,
    AuditLogPath,
    AuditPolicyFile,
    AuditWebhookConfigFile,
    AuthenticationConfig,
    AuthenticationTokenWebhookConfigFile,
    AuthorizationConfig,
    EncryptionProviderConfig,
}

type File = Option<PathBuf>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_is_taken_off_with_what_needs_it() {
        let path = |name: &str| Some(PathBuf::from(name));
        let kept = ServerFiles {
            guard: GuardFiles {
                audit_policy_file: path("policy"),
                audit_log_path: path("log"),
                audit_log_maxage: Some(7),
                encryption_provider_config: path("keys"),
                ..GuardFiles::default()
            },
            access: AccessFiles { authorization_config: path("authorizers"), ..AccessFiles::default() },
        };
        for flag in Flag::value_variants() {
            let left = kept.clone().without(*flag);
            let is_any = [
                left.guard.audit_policy_file.is_some(),
                left.guard.audit_log_path.is_some(),
                left.guard.audit_log_maxage.is_some(),
                left.guard.encryption_provider_config.is_some(),
                left.access.authorization_config.is_some(),
            ];
            let expected = match flag {
                Flag::AuditLogPath => [true, false, false, true, true],
                Flag::AuditPolicyFile => [false, false, false, true, true],
                Flag::AuthorizationConfig => [true, true, true, true, false],
                Flag::EncryptionProviderConfig => [true, true, true, false, true],
                _ => [true; 5],
            };
            assert_eq!(is_any, expected, "{flag:?}");
        }
        let flags = kept.flags();
        let told = |flag: &str| flags.get(flag).map(String::as_str);
        assert_eq!(told("audit-log-maxage"), Some("7"));
        assert_eq!(told("authorization-config"), Some("authorizers"));
        assert_eq!(told("audit-webhook-config-file"), Some(""));
        for flag in Flag::value_variants() {
            let name = flag.to_possible_value().expect("a name");
            assert!(flags.contains_key(name.get_name()), "{flag:?}");
        }
    }
}
