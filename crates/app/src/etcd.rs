//! A cluster's state in a stock etcd: where it is, and what to make of what other servers wrote there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use files::FileError;
use object::Resource;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{Etcd, EtcdOpenError, EtcdOptions, EtcdTls, Import, Imported, Sealing, Window};

/// Upstream's `--etcd-compaction-interval`.
const COMPACT_EVERY: Duration = Duration::from_secs(300);
/// How a value begins that upstream encrypted: `k8s:enc:aescbc:v1:key1:…`.
const ENCRYPTED: &[u8] = b"k8s:enc:";
/// How a value begins that upstream wrote as protobuf.
const PROTOBUF: &[u8] = b"k8s\0";

/// Where the state is kept: in the data folder, or in an etcd. The files have upstream's names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default)]
pub struct Place {
    /// Keep the state in etcd (etcd://HOST:PORT[,HOST:PORT…], or etcds:// for TLS) instead of the data folder
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,
    /// The authority of etcd's certificates, PEM; with etcds://
    #[arg(long, value_name = "FILE", requires = "store")]
    pub etcd_cafile: Option<PathBuf>,
    /// This server's certificate for etcd, PEM
    #[arg(long, value_name = "FILE", requires = "store", requires = "etcd_keyfile")]
    pub etcd_certfile: Option<PathBuf>,
    /// The key of --etcd-certfile, PEM
    #[arg(long, value_name = "FILE", requires = "store", requires = "etcd_certfile")]
    pub etcd_keyfile: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum EtcdError {
    #[error("{0} is not the URL of an etcd: it should look like etcd://127.0.0.1:2379, or etcds://… for TLS")]
    Url(String),
    #[error(
        "{url} is not spoken TLS to, so the --etcd-… files are of no use: say etcds://, or leave them out"
    )]
    NotTls { url: String },
    #[error("{url} is spoken TLS to: name the authority of its certificates with --etcd-cafile")]
    NoAuthority { url: String },
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{} is not there, or no text", .0.display())]
    NoText(PathBuf),
    #[error("open the store in etcd: {0}")]
    Open(#[from] EtcdOpenError),
}

impl Place {
    /// The same, whatever folder the process that reads the files works in.
    pub fn absolute(mut self) -> std::io::Result<Self> {
        for file in
            [&mut self.etcd_cafile, &mut self.etcd_certfile, &mut self.etcd_keyfile].into_iter().flatten()
        {
            *file = std::path::absolute(&*file)?;
        }
        Ok(self)
    }

    /// Connects and reads everything. `None`: the state is in the data folder.
    pub async fn open(&self, sealing: Option<Arc<Sealing>>) -> Result<Option<Etcd>, EtcdError> {
        let Some(url) = &self.store else { return Ok(None) };
        let options = EtcdOptions {
            endpoints: endpoints(url)?,
            tls: self.tls(url)?,
            builtins: kinds::all().iter().map(|kind| kind.resource).collect(),
            import: import(),
            sealing,
            window: Window::default(),
            compact_every: Some(COMPACT_EVERY),
        };
        Ok(Some(Etcd::open(options).await?))
    }

    fn tls(&self, url: &str) -> Result<Option<EtcdTls>, EtcdError> {
        if !url.starts_with("etcds://") {
            let none = self.etcd_cafile.is_none() && self.etcd_certfile.is_none();
            return if none { Ok(None) } else { Err(EtcdError::NotTls { url: url.to_owned() }) };
        }
        let authority =
            self.etcd_cafile.as_ref().ok_or_else(|| EtcdError::NoAuthority { url: url.to_owned() })?;
        let identity = match (&self.etcd_certfile, &self.etcd_keyfile) {
            (Some(certificate), Some(key)) => Some((text(certificate)?, text(key)?)),
            _ => None,
        };
        Ok(Some(EtcdTls { authority: text(authority)?, identity }))
    }
}

fn endpoints(url: &str) -> Result<Vec<String>, EtcdError> {
    let hosts = url.strip_prefix("etcd://").or_else(|| url.strip_prefix("etcds://"));
    let hosts = hosts.map(|hosts| hosts.trim_end_matches('/')).filter(|hosts| !hosts.is_empty());
    let hosts = hosts.ok_or_else(|| EtcdError::Url(url.to_owned()))?;
    Ok(hosts.split(',').map(str::to_owned).collect())
}

fn text(path: &Path) -> Result<String, EtcdError> {
    let bytes = files::read(path)?;
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| EtcdError::NoText(path.to_owned()))
}

fn import() -> Import {
    Arc::new(|resource, value| {
        let object = read(resource, value)?;
        let fields = kinds::of(resource).map(|kind| gate::selectable_values(kind, &object));
        Ok(Imported { stored: object::body::encode(&object), fields: fields.unwrap_or_default() })
    })
}

/// An object in the version that it is stored in here. Upstream may have kept it in another one that is served.
fn read(resource: Resource, value: &Bytes) -> Result<Value, String> {
    if value.starts_with(ENCRYPTED) {
        return Err("it is encrypted: start with the --encryption-provider-config that its server had".into());
    }
    let Some(stored) = kinds::of(resource) else {
        // A custom resource, always JSON.
        let object: Value = serde_json::from_slice(value).map_err(|error| error.to_string())?;
        return if object.is_object() { Ok(object) } else { Err("it is no object".into()) };
    };
    let said = if value.starts_with(PROTOBUF) {
        apiserver::protobuf_identity(value)?
    } else {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Identity {
            api_version: String,
            kind: String,
        }
        let said: Identity = serde_json::from_slice(value).map_err(|error| error.to_string())?;
        (said.api_version, said.kind)
    };
    let row = kinds::all().iter().find(|row| {
        row.resource.plural() == stored.resource.plural() && row.kind == said.1 && row.api_version() == said.0
    });
    let row = row.ok_or_else(|| format!("{} {} is not served here", said.0, said.1))?;
    let object = if value.starts_with(PROTOBUF) {
        apiserver::decode_protobuf(row.type_name, value)?
    } else {
        serde_json::from_slice(value).map_err(|error| error.to_string())?
    };
    Ok(match row.conversion {
        Some(conversion) => (conversion.to_stored)(object),
        None => object,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn place(url: &str, ca: bool) -> Place {
        let ca = ca.then(|| PathBuf::from("/dev/null"));
        Place { store: Some(url.into()), etcd_cafile: ca, ..Place::default() }
    }

    #[test]
    fn urls_say_how_etcd_is_reached() {
        assert_eq!(endpoints("etcd://a:1,b").expect("hosts"), ["a:1", "b"]);
        for wrong in ["", "etcd://", "http://a", "a:1"] {
            assert!(endpoints(wrong).is_err(), "{wrong}");
        }
        assert!(place("etcd://a", false).tls("etcd://a").expect("plain").is_none());
        assert!(matches!(place("etcd://a", true).tls("etcd://a"), Err(EtcdError::NotTls { .. })));
        assert!(matches!(place("etcds://a", false).tls("etcds://a"), Err(EtcdError::NoAuthority { .. })));
        assert!(place("etcds://a", true).tls("etcds://a").expect("secured").is_some());
    }

    fn check(resource: &'static str, value: &[u8], expected: Result<Value, &str>) {
        let found = read(Resource::new(resource), &Bytes::copy_from_slice(value));
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(found), Err(part)) => assert!(found.contains(part), "{found}"),
            (found, expected) => panic!("{found:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn what_upstream_wrote_is_read_or_refused_by_name() {
        // runtime.Unknown { typeMeta: {v1, ConfigMap}, raw: {metadata: {name: a}, data: {k: v}} }
        let written = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x0f\x0a\x03\x0a\x01a\x12\x08\x0a\x01k\x12\x03v\xc3\xa9\x1a\0\x22\0";
        let read =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "vé"}});
        check("configmaps", written, Ok(read));
        let newer = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "note": "n"});
        let stored = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "message": "n", "involvedObject": {}});
        check("events", newer.to_string().as_bytes(), Ok(stored));
        let custom = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}});
        check("widgets.example.com", custom.to_string().as_bytes(), Ok(custom));
        check("secrets", b"k8s:enc:aescbc:v1:key1:\x01\x02", Err("it is encrypted"));
        check("configmaps", b"k8s\0\x0a\x7f", Err("unexpected EOF"));
        let old = br#"{"apiVersion":"extensions/v1beta1","kind":"Deployment","metadata":{"name":"d"}}"#;
        check("deployments.apps", old, Err("extensions/v1beta1 Deployment is not served here"));
        check("configmaps", b"[]", Err("invalid"));
    }
}
