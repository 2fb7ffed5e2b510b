//! The token service: who one is, and temporary keys.

mod identity;

use crate::service::{Operation, Service, Subject};

pub const SERVICE: Service = Service {
    signing_name: "sts",
    action_prefix: "sts",
    operations: &[
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
