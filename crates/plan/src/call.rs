use serde_json::Value;

/// A webhook to be asked over HTTPS: `POST` of a JSON body, answered by JSON.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub target: Target,
    /// PEM of the authorities that its certificate must chain to; none: the system's.
    pub ca_bundle: Option<Box<[u8]>>,
    pub timeout_ms: u64,
    pub body: Value,
}

/// Where a webhook is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `https://…`
    Url(Box<str>),
    /// A Service of the cluster: its certificate is for `name.namespace.svc`.
    Service { namespace: Box<str>, name: Box<str>, port: u16, path: Box<str> },
}

impl Target {
    /// As errors name it: `https://name.namespace.svc:443/path`.
    pub fn url(&self) -> String {
        match self {
            Self::Url(url) => url.to_string(),
            Self::Service { namespace, name, port, path } => {
                let slash = if path.starts_with('/') { "" } else { "/" };
                format!("https://{name}.{namespace}.svc:{port}{slash}{path}")
            }
        }
    }
}
