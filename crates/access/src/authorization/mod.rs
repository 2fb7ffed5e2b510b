//! The authorizers that a cluster asks, as `AuthorizationConfiguration` lists them.
//! <https://kubernetes.io/docs/reference/access-authn-authz/authorization/#using-configuration-file-for-authorization>

mod config;
mod webhook;

pub use config::read;
pub use webhook::{AskWebhook, Webhook, review};

use plan::Decision;
use serde_json::Value;

/// One of the chain.
#[derive(Debug)]
pub enum Authorizer {
    AlwaysAllow,
    AlwaysDeny,
    Node,
    Rbac,
    Webhook(Webhook),
}

impl Authorizer {
    /// Its type and its name, as upstream's metrics have them.
    pub fn labels(&self) -> (&'static str, &str) {
        match self {
            Self::AlwaysAllow => ("AlwaysAllow", "alwaysallow"),
            Self::AlwaysDeny => ("AlwaysDeny", "alwaysdeny"),
            Self::Node => ("Node", "node"),
            Self::Rbac => ("RBAC", "rbac"),
            Self::Webhook(webhook) => ("Webhook", &webhook.name),
        }
    }
}

/// Of a cluster that configures none.
pub static DEFAULT_AUTHORIZERS: [Authorizer; 2] = [Authorizer::Node, Authorizer::Rbac];

/// For whoever has no webhooks among its authorizers.
pub struct NoWebhooks;

impl AskWebhook for NoWebhooks {
    fn ask(&self, webhook: &Webhook, _: &Value) -> Result<Decision, String> {
        Err(format!("the authorizer {} is out of reach here", webhook.name))
    }
}
