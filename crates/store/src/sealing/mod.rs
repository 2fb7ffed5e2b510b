//! Encryption at rest: what of the state is sealed before it reaches a disk or etcd, and with which key.
//!
//! ```text
//! k8s:enc:aesgcm:v1:KEY:    nonce (12), ciphertext, tag      authenticates the object's path
//! k8s:enc:aescbc:v1:KEY:    iv (16), ciphertext              PKCS#7
//! k8s:enc:secretbox:v1:KEY: nonce (24), box                  XSalsa20-Poly1305
//! k8s:enc:kms:v2:NAME:      EncryptedObject                  see `kms`
//! ```
//!
//! The formats are upstream's, so that either server reads what the other wrote into an etcd. In memory everything is plain.
//! <https://kubernetes.io/docs/tasks/administer-cluster/encrypt-data/>

mod cipher;
mod config;
mod kms;
mod measured;

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use bytes::Bytes;
use metrics::Page;
use object::{Key, Resource};

use cipher::Cipher;
pub use config::ConfigError;
use kms::{Kms, Unanswered};
use measured::{DONE, NOT_ASKED, Transformations, Way};

/// How every sealed value begins.
const SEALED: &[u8] = b"k8s:enc:";
/// A prefix with its key's name is not longer.
const LONGEST_PREFIX: usize = 512;

/// The keys of one store. They may be replaced while it runs.
pub struct Sealing {
    rules: RwLock<Arc<Rules>>,
    transformations: Transformations,
}

/// An `EncryptionConfiguration`.
pub struct Rules {
    groups: Vec<Group>,
}

/// Resources, and the providers of their values.
struct Group {
    resources: Vec<Pattern>,
    /// The first seals; all of them open.
    providers: Vec<Provider>,
}

enum Pattern {
    /// `*.*`
    All,
    /// `*.apps`; `*.` for the core group.
    Group(String),
    One(String),
}

enum Provider {
    Identity,
    Local { prefix: Box<[u8]>, cipher: Cipher },
    Kms { prefix: Box<[u8]>, kms: Arc<Kms> },
}

impl Provider {
    fn prefix(&self) -> &[u8] {
        match self {
            Self::Identity => b"",
            Self::Local { prefix, .. } | Self::Kms { prefix, .. } => prefix,
        }
    }
}

/// Why a value could not be sealed or opened; it names the object.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum SealError {
    #[error(
        "{object} is sealed with {with}, and no encryption is configured: start with its --encryption-provider-config"
    )]
    NotConfigured { object: String, with: String },
    #[error("{object} is sealed with {with}, which is none of the configured keys for {resource}")]
    UnknownKey { object: String, with: String, resource: Resource },
    #[error("{object} is not sealed, and the provider \"identity\" is not configured for {resource}")]
    Plain { object: String, resource: Resource },
    #[error("{object} cannot be opened with {with}: the key is another one, or the value is damaged")]
    Wrong { object: String, with: String },
    /// `status`: gRPC's word for what came of asking it; None if it was not asked.
    #[error("{object}: {message}")]
    Kms { object: String, message: String, status: Option<&'static str> },
}

impl SealError {
    fn of_kms(object: impl ToString, Unanswered { message, status }: Unanswered) -> Self {
        Self::Kms { object: object.to_string(), message, status }
    }

    /// As it is counted.
    fn status(&self) -> &'static str {
        match self {
            Self::Kms { status: Some(status), .. } => status,
            _ => NOT_ASKED,
        }
    }
}

/// A value as it was.
pub(crate) struct Opened {
    pub(crate) plain: Bytes,
    /// New values are written otherwise: with another key, or sealed at all.
    pub(crate) is_stale: bool,
}

/// What opening needs first.
enum Step {
    Done(Opened),
    /// The KMS is to be asked for a key.
    Ask(Arc<Kms>, Bytes),
}

impl Rules {
    /// Reads an `EncryptionConfiguration` of `apiserver.config.k8s.io/v1`.
    pub fn parse(text: &serde_json::Value) -> Result<Self, ConfigError> {
        config::parse(text)
    }

    /// Whether anything is sealed by them.
    pub fn seal(&self) -> bool {
        let mut first = self.groups.iter().filter_map(|group| group.providers.first());
        first.any(|provider| !matches!(provider, Provider::Identity))
    }

    fn group(&self, resource: Resource) -> Option<&Group> {
        self.groups.iter().find(|group| group.resources.iter().any(|pattern| pattern.is_of(resource)))
    }

    fn kms(&self) -> impl Iterator<Item = &Arc<Kms>> {
        let providers = self.groups.iter().flat_map(|group| &group.providers);
        providers.filter_map(|provider| match provider {
            Provider::Kms { kms, .. } => Some(kms),
            _ => None,
        })
    }
}

impl Pattern {
    fn is_of(&self, resource: Resource) -> bool {
        match self {
            Self::All => true,
            Self::Group(group) => resource.group() == group,
            Self::One(name) => resource.as_str() == name,
        }
    }
}

impl Sealing {
    fn of(rules: Rules) -> Self {
        Self { rules: RwLock::new(Arc::new(rules)), transformations: Transformations::default() }
    }

    /// `apiserver_storage_transformation_*`, `apiserver_envelope_encryption_*`
    pub fn write_metrics(&self, page: &mut Page) {
        self.transformations.write(page);
        measured::write_kms(self.rules().kms(), page);
    }

    /// Reaches what holds the keys: values can be sealed and opened from then on.
    ///
    /// # Errors
    /// When a KMS does not answer, named.
    pub async fn open(rules: Rules) -> Result<Arc<Self>, SealError> {
        let sealing = Self::of(rules);
        sealing.refresh().await?;
        Ok(Arc::new(sealing))
    }

    /// Seals and opens with these from now on. What is there is sealed anew by [`Store::reseal`](crate::Store::reseal).
    ///
    /// # Errors
    /// When a KMS does not answer; the keys stay as they were.
    pub async fn replace(&self, rules: Rules) -> Result<(), SealError> {
        let next = Self::of(rules);
        next.refresh().await?;
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = next.rules();
        Ok(())
    }

    /// Asks every KMS how it does, and for a new key where it has another one now. True: there is a new key, so that old values are stale.
    /// To be called about once a minute: a key of a KMS that no longer answers seals nothing after three.
    ///
    /// # Errors
    /// The first KMS that does not answer.
    pub async fn refresh(&self) -> Result<bool, SealError> {
        let mut changed = false;
        let mut failed = None;
        for kms in self.rules().kms() {
            match kms.refresh().await {
                Ok(new) => changed |= new,
                Err(why) => failed = failed.or(Some(SealError::of_kms(kms.name(), why))),
            }
        }
        failed.map_or(Ok(changed), Err)
    }

    /// Whether there is a KMS that is to be refreshed.
    pub fn has_kms(&self) -> bool {
        self.rules().kms().next().is_some()
    }

    /// What is wrong with a KMS, for health checks.
    pub fn trouble(&self) -> Option<String> {
        self.rules().kms().find_map(|kms| kms.trouble())
    }

    fn rules(&self) -> Arc<Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether values of a resource are to be sealed.
    pub(crate) fn seals(&self, resource: Resource) -> bool {
        let rules = self.rules();
        let first = rules.group(resource).and_then(|group| group.providers.first());
        first.is_some_and(|provider| !matches!(provider, Provider::Identity))
    }

    /// The value as it is to be written; None: as it is.
    pub(crate) fn seal(&self, key: &Key, path: &[u8], plain: &[u8]) -> Result<Option<Vec<u8>>, SealError> {
        let rules = self.rules();
        let Some(provider) = rules.group(key.resource).and_then(|group| group.providers.first()) else {
            return Ok(None);
        };
        let (mut out, began) = (provider.prefix().to_vec(), Instant::now());
        let sealed = match provider {
            Provider::Identity => Ok(()),
            Provider::Local { cipher, .. } => {
                cipher.seal(path, plain, &mut out);
                Ok(())
            }
            Provider::Kms { kms, .. } => kms
                .seal(path, plain, &mut out)
                .map_err(|message| SealError::of_kms(key, Unanswered::unasked(message))),
        };
        let prefix = String::from_utf8_lossy(provider.prefix());
        let status = sealed.as_ref().err().map_or(DONE, SealError::status);
        self.transformations.note(key.resource, Way::ToStorage, &prefix, status, began.elapsed());
        sealed?;
        Ok((!matches!(provider, Provider::Identity)).then_some(out))
    }

    /// How far a value can be opened with what is here.
    fn step(&self, key: &Key, path: &[u8], stored: &Bytes) -> Result<Step, SealError> {
        let rules = self.rules();
        let group = rules.group(key.resource);
        let done = |plain, is_stale| Ok(Step::Done(Opened { plain, is_stale }));
        let Some(group) = group else {
            if stored.starts_with(SEALED) {
                return Err(unknown(key, stored));
            }
            return done(stored.clone(), false);
        };
        let found = group.providers.iter().position(|provider| match provider {
            Provider::Identity => !stored.starts_with(SEALED),
            other => stored.starts_with(other.prefix()),
        });
        let Some(index) = found else {
            return Err(if stored.starts_with(SEALED) {
                unknown(key, stored)
            } else {
                SealError::Plain { object: key.to_string(), resource: key.resource }
            });
        };
        let wrong = |provider: &Provider| SealError::Wrong {
            object: key.to_string(),
            with: words(provider.prefix()),
        };
        let provider = &group.providers[index];
        let sealed = stored.slice(provider.prefix().len()..);
        match provider {
            Provider::Identity => done(stored.clone(), index > 0),
            Provider::Local { cipher, .. } => {
                let plain = cipher.open(path, &sealed).ok_or_else(|| wrong(provider))?;
                done(plain.into(), index > 0)
            }
            Provider::Kms { kms, .. } => match kms.open(path, &sealed) {
                Ok(Some((plain, is_of_now))) => done(plain.into(), index > 0 || !is_of_now),
                Ok(None) => Ok(Step::Ask(kms.clone(), sealed)),
                Err(kms::Unreadable) => Err(wrong(provider)),
            },
        }
    }

    /// The value as it was before [`Self::seal`]. It is timed and counted once, with what a KMS took to be asked.
    pub(crate) async fn unseal(&self, key: &Key, path: &[u8], stored: &Bytes) -> Result<Opened, SealError> {
        let began = Instant::now();
        let opened = self.asking(key, path, stored).await;
        self.count(key, stored, &opened, began);
        opened
    }

    /// The same for a thread that may block. Without a runtime no KMS can be asked.
    pub(crate) fn unseal_blocking(
        &self,
        key: &Key,
        path: &[u8],
        stored: &Bytes,
    ) -> Result<Opened, SealError> {
        let began = Instant::now();
        let opened = match (self.step(key, path, stored), tokio::runtime::Handle::try_current()) {
            (Ok(Step::Done(opened)), _) => Ok(opened),
            (Ok(Step::Ask(..)), Ok(runtime)) => runtime.block_on(self.asking(key, path, stored)),
            (Ok(Step::Ask(..)), Err(error)) => Err(SealError::of_kms(key, Unanswered::unasked(error))),
            (Err(why), _) => Err(why),
        };
        self.count(key, stored, &opened, began);
        opened
    }

    async fn asking(&self, key: &Key, path: &[u8], stored: &Bytes) -> Result<Opened, SealError> {
        loop {
            match self.step(key, path, stored)? {
                Step::Done(opened) => return Ok(opened),
                Step::Ask(kms, sealed) => {
                    kms.fetch(&sealed).await.map_err(|why| SealError::of_kms(key, why))?
                }
            }
        }
    }

    fn count(&self, key: &Key, stored: &[u8], opened: &Result<Opened, SealError>, began: Instant) {
        let prefix = match opened {
            Err(SealError::UnknownKey { .. }) => "unknown".into(),
            _ if stored.starts_with(SEALED) => String::from_utf8_lossy(prefix_of(stored)),
            _ => measured::IDENTITY.into(),
        };
        let status = opened.as_ref().err().map_or(DONE, SealError::status);
        self.transformations.note(key.resource, Way::FromStorage, &prefix, status, began.elapsed());
    }
}

/// A sealed value where nothing is configured.
pub(crate) fn refuse_sealed(key: &Key, stored: &[u8]) -> Result<(), SealError> {
    if !stored.starts_with(SEALED) {
        return Ok(());
    }
    Err(SealError::NotConfigured { object: key.to_string(), with: words(prefix_of(stored)) })
}

fn unknown(key: &Key, stored: &[u8]) -> SealError {
    SealError::UnknownKey { object: key.to_string(), with: words(prefix_of(stored)), resource: key.resource }
}

/// `k8s:enc:PROVIDER:VERSION:KEY:`
fn prefix_of(stored: &[u8]) -> &[u8] {
    let colons = stored.iter().take(LONGEST_PREFIX).enumerate().filter(|(_, byte)| **byte == b':');
    let end = colons.map(|(at, _)| at + 1).nth(4).unwrap_or(SEALED.len());
    &stored[..end.min(stored.len())]
}

fn words(prefix: &[u8]) -> String {
    String::from_utf8_lossy(prefix).trim_end_matches(':').to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECRETS: Resource = Resource::new("secrets");

    fn rules(providers: serde_json::Value) -> Rules {
        let text = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
            "resources": [{"resources": ["secrets"], "providers": providers}]});
        Rules::parse(&text).expect("a configuration")
    }

    async fn sealing(providers: serde_json::Value) -> Arc<Sealing> {
        Sealing::open(rules(providers)).await.expect("keys")
    }

    fn provider(kind: &str, name: &str, byte: u8) -> serde_json::Value {
        use base64::Engine as _;
        let secret = base64::engine::general_purpose::STANDARD.encode([byte; 32]);
        json!({kind: {"keys": [{"name": name, "secret": secret}]}})
    }

    fn identity() -> serde_json::Value {
        json!({"identity": {}})
    }

    #[tokio::test]
    async fn what_is_sealed_is_opened_with_its_key_at_its_place_only() {
        let key = Key::new(SECRETS, "default", "a");
        for kind in ["aesgcm", "aescbc", "secretbox"] {
            let one = sealing(json!([provider(kind, "one", 1), identity()])).await;
            let sealed: Bytes =
                one.seal(&key, b"/path", b"hidden").expect("sealed").expect("not plain").into();
            assert!(sealed.starts_with(format!("k8s:enc:{kind}:v1:one:").as_bytes()));
            assert!(!sealed.windows(6).any(|window| window == b"hidden"));
            let opened = one.unseal(&key, b"/path", &sealed).await.expect("opened");
            assert_eq!((&*opened.plain, opened.is_stale), (&b"hidden"[..], false));
            let elsewhere = one.unseal(&key, b"/other", &sealed).await.map(|opened| opened.plain);
            assert_eq!(elsewhere.is_err(), kind == "aesgcm", "{kind}");

            let rotated = sealing(json!([provider(kind, "two", 2), provider(kind, "one", 1)])).await;
            assert!(rotated.unseal(&key, b"/path", &sealed).await.expect("opened").is_stale);
            let told = |why: Result<Opened, SealError>| why.map(|_| ()).expect_err("refused").to_string();
            let another = sealing(json!([provider(kind, "one", 3)])).await;
            let why = told(another.unseal(&key, b"/path", &sealed).await);
            assert!(
                why.starts_with(&format!("secrets default/a cannot be opened with k8s:enc:{kind}:v1:one")),
                "{why}"
            );
            let gone = sealing(json!([provider(kind, "two", 2)])).await;
            let why = told(gone.unseal(&key, b"/path", &sealed).await);
            assert!(why.contains("none of the configured keys for secrets"), "{why}");
            let why = told(gone.unseal(&key, b"/path", &Bytes::from_static(b"{}")).await);
            assert!(why.contains("\"identity\" is not configured"), "{why}");
            assert!(one.unseal(&key, b"/path", &Bytes::from_static(b"{}")).await.expect("plain").is_stale);
            let mut page = Page::default();
            one.write_metrics(&mut page);
            let text = page.into_text();
            let of = format!("transformer_prefix=\"k8s:enc:{kind}:v1:one:\"");
            let total =
                "apiserver_storage_transformation_operations_total{resource=\"secrets\",status=\"OK\"";
            for line in [
                format!("{total},transformation_type=\"to_storage\",{of}}} 1"),
                format!("{total},transformation_type=\"from_storage\",transformer_prefix=\"identity\"}} 1"),
            ] {
                assert!(text.lines().any(|one| one == line), "{line} is not in {text}");
            }
            for cut in 0..sealed.len() {
                drop(one.unseal(&key, b"/path", &sealed.slice(..cut)).await);
            }
        }
        assert!(
            refuse_sealed(&key, b"k8s:enc:aesgcm:v1:one:xyz").expect_err("refused").to_string().contains(
                "secrets default/a is sealed with k8s:enc:aesgcm:v1:one, and no encryption is configured"
            )
        );
    }

    #[tokio::test]
    async fn others_stay_as_they_are() {
        let sealing = sealing(json!([provider("aesgcm", "one", 1)])).await;
        let key = Key::new(Resource::new("configmaps"), "default", "a");
        assert_eq!(sealing.seal(&key, b"", b"x").expect("no error"), None);
        let opened = sealing.unseal(&key, b"", &Bytes::from_static(b"x")).await.expect("opened");
        assert_eq!((&*opened.plain, opened.is_stale), (&b"x"[..], false));
    }
}
