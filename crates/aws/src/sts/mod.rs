//! The token service: who one is, and temporary keys.

mod assume_role;
pub mod discovery;
mod identity;
pub mod jwt;
pub(crate) mod session;
mod web_identity;

#[cfg(test)]
mod tests;

use crate::service::{Operation, Service, Subject};

pub const SERVICE: Service = Service {
    signing_name: "sts",
    action_prefix: "sts",
    operations: &[
        Operation { name: "AssumeRole", subject: |_, _| Subject::exempt(), run: assume_role::assume_role },
        Operation {
            name: "AssumeRoleWithWebIdentity",
            subject: |_, _| Subject::exempt(),
            run: web_identity::assume_role,
        },
        Operation {
            name: "GetCallerIdentity",
            subject: |_, _| Subject::exempt(),
            run: identity::get_caller_identity,
        },
        Operation {
            name: "GetSessionToken",
            subject: |_, _| Subject::exempt(),
            run: identity::get_session_token,
        },
    ],
};
