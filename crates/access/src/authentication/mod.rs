//! Who else is believed, as `AuthenticationConfiguration` says it: issuers of OpenID Connect, and where nobody has to say who they are.
//! <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#using-authentication-configuration>

mod config;
mod jwk;
mod mapping;
mod verify;

pub use config::read;
pub use jwk::KeySet;
pub use verify::{Claims, Elsewhere, Refused};

use mapping::{ClaimRule, Expression, Extra, Mapping, UserRule};

/// What a configuration says.
#[derive(Debug, Default)]
pub struct Configuration {
    pub issuers: Vec<Issuer>,
    pub anonymous: Anonymous,
}

/// Which requests may come without credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Anonymous {
    #[default]
    All,
    None,
    /// Those for these paths.
    Paths(Vec<String>),
}

impl Anonymous {
    pub fn allows(&self, path: &str) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Paths(paths) => paths.iter().any(|held| held == path),
        }
    }
}

/// Somebody whose ID tokens are believed, and what is made of their claims.
#[derive(Debug)]
pub struct Issuer {
    /// The `iss` of its tokens.
    pub url: String,
    /// Where its discovery document is, if not below its URL.
    pub discovery_url: Option<String>,
    /// PEM of the authorities that its certificate must chain to; none: the system's.
    pub certificate_authority: Option<String>,
    audiences: Vec<String>,
    username: Mapping,
    groups: Option<Mapping>,
    uid: Option<Mapping>,
    extra: Vec<Extra>,
    claim_rules: Vec<ClaimRule>,
    user_rules: Vec<UserRule>,
}

impl Issuer {
    /// Where to ask for its keys.
    pub fn discovery(&self) -> String {
        self.discovery_url.clone().unwrap_or_else(|| discovery(&self.url))
    }
}

/// Where the discovery document of an issuer is that says nothing else: OpenID Connect Discovery 1.0, 4.
pub fn discovery(issuer: &str) -> String {
    format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'))
}
