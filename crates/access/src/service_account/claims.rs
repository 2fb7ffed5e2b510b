use serde::{Deserialize, Serialize};

/// The payload of a bound token. Times are seconds since the epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub aud: Audience,
    pub exp: i64,
    pub iat: i64,
    pub iss: String,
    #[serde(default)]
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: KubernetesClaims,
    pub nbf: i64,
    pub sub: String,
}

/// `aud` is one string or a list of them (RFC 7519, 4.1.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    Many(Vec<String>),
    One(String),
}

impl Default for Audience {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Audience {
    pub fn all(&self) -> &[String] {
        match self {
            Self::Many(all) => all,
            Self::One(one) => std::slice::from_ref(one),
        }
    }
}

/// The private claims: which account, and what the token lives and dies with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KubernetesClaims {
    pub namespace: String,
    /// With the pod it is bound to: the pod's node. Otherwise the node it is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<ObjectClaim>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<ObjectClaim>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<ObjectClaim>,
    pub serviceaccount: ObjectClaim,
    /// When a token that lives longer than was asked for should have been renewed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectClaim {
    pub name: String,
    #[serde(default)]
    pub uid: String,
}
