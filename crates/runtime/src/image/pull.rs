//! Pulls an image: resolve, fetch the documents, fetch layers three at a time, unpack them in order, record.
//! Failures read as containerd's do, which is what the kubelet's users know.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet, spawn_blocking};

use super::auth::Credential;
use super::digest::Digest;
use super::lock::Operation;
use super::manifest::{self, Document, ManifestError, Platform};
use super::reference::Reference;
use super::registry::{Registries, RegistryError, Session};
use super::store::{Image, Layer, Resolved, Store, StoreError};
use super::transfer::Transfer;
use super::transport::{BadAuthorities, Client};

const CONCURRENT_LAYERS: usize = 3;
/// Indexes within indexes.
const MAX_NESTING: usize = 4;

/// A container's `imagePullPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Asks the registry what the name means now; fetches only what is not here.
    Always,
    IfNotPresent,
    Never,
}

/// How far a pull has come, for whoever shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    Resolved {
        digest: Digest,
    },
    /// Bytes of a layer that are here.
    Layer {
        blob: Digest,
        done: u64,
        total: u64,
    },
    Unpacking {
        blob: Digest,
    },
}

/// What whoever asked for the pull should make of its failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullErrorKind {
    NotFound,
    Unauthorized,
    /// The registry cannot be reached or is overloaded; later may be better.
    Unreachable,
    /// What the registry sent is not an image for this machine, or breaks a rule.
    Invalid,
    /// This machine failed: a full disk, a damaged store.
    Local,
    /// Policy `Never`, and the image is not here.
    NeverPull,
}

/// Why a pull failed, in the words of containerd, which users of kubelets know.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    #[error("failed to pull and unpack image \"{image}\": failed to resolve reference \"{image}\": {source}")]
    Resolve { image: String, source: RegistryError },
    #[error("failed to pull and unpack image \"{image}\": failed to copy: {source}")]
    Fetch { image: String, source: RegistryError },
    #[error("failed to pull and unpack image \"{image}\": {source}")]
    Manifest { image: String, source: ManifestError },
    #[error("failed to pull and unpack image \"{image}\": failed to extract layer {diff_id}: {source}")]
    Extract { image: String, diff_id: Digest, source: StoreError },
    #[error("failed to pull and unpack image \"{image}\": {source}")]
    Store { image: String, source: StoreError },
    #[error("Container image \"{0}\" is not present with pull policy of Never")]
    NeverPull(String),
    #[error("failed to pull and unpack image \"{image}\": a worker ended: {source}")]
    Worker { image: String, source: JoinError },
}

impl PullError {
    pub fn kind(&self) -> PullErrorKind {
        match self {
            PullError::Resolve { source, .. } | PullError::Fetch { source, .. } => registry_kind(source),
            PullError::Manifest { .. } => PullErrorKind::Invalid,
            PullError::Extract { source, .. } | PullError::Store { source, .. } => match source {
                StoreError::Unpack { .. } | StoreError::Digest { .. } => PullErrorKind::Invalid,
                _ => PullErrorKind::Local,
            },
            PullError::NeverPull(_) => PullErrorKind::NeverPull,
            PullError::Worker { .. } => PullErrorKind::Local,
        }
    }

    /// The gRPC code that containerd would answer with; the kubelet writes `rpc error: code = <this> desc = …`.
    pub fn grpc_code(&self) -> &'static str {
        match self.kind() {
            PullErrorKind::NotFound => "NotFound",
            _ => "Unknown",
        }
    }
}

fn registry_kind(error: &RegistryError) -> PullErrorKind {
    match error {
        RegistryError::NotFound(_) => PullErrorKind::NotFound,
        RegistryError::Denied(_) => PullErrorKind::Unauthorized,
        RegistryError::Status { status, .. } if matches!(status.as_u16(), 401 | 403) => {
            PullErrorKind::Unauthorized
        }
        RegistryError::Token { source, .. } => registry_kind(source),
        error if error.is_transient() => PullErrorKind::Unreachable,
        _ => PullErrorKind::Invalid,
    }
}

/// Pulls into one store. Share it: it keeps connections.
#[derive(Clone)]
pub struct Puller {
    store: Store,
    registries: Arc<Registries>,
    client: Arc<Client>,
}

pub(super) type OnProgress = Arc<dyn Fn(Progress) + Send + Sync>;

impl Puller {
    /// Fails if the authorities of `registries` cannot be read.
    pub fn new(store: Store, registries: Registries) -> Result<Puller, BadAuthorities> {
        let client = Arc::new(Client::new(registries.http.clone())?);
        Ok(Puller { store, registries: Arc::new(registries), client })
    }

    /// Pulls `reference` and records it under that name. Credentials are tried in order; none means anonymously.
    /// Dropping the future ends the pull; what arrived whole stays until collected.
    pub async fn pull(
        &self,
        reference: &Reference,
        credentials: &[Credential],
        platform: &Platform,
        policy: Policy,
        progress: impl Fn(Progress) + Send + Sync + 'static,
    ) -> Result<Image, PullError> {
        let job = Job {
            puller: self.clone(),
            image: reference.to_string(),
            reference: reference.clone(),
            platform: platform.clone(),
            progress: Arc::new(progress),
        };
        let present = job.local(|job, store| store.get(&job.image)).await?;
        match (policy, present) {
            (Policy::Never, None) => Err(PullError::NeverPull(job.image)),
            (Policy::Never | Policy::IfNotPresent, Some(image)) => Ok(image),
            (_, present) => job.run(credentials, present).await,
        }
    }
}

#[derive(Clone)]
struct Job {
    puller: Puller,
    image: String,
    reference: Reference,
    platform: Platform,
    progress: OnProgress,
}

impl Job {
    /// Runs blocking work on the store.
    async fn local<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Job, &Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, PullError> {
        let job = self.clone();
        spawn_blocking(move || work(&job, &job.puller.store))
            .await
            .map_err(|e| self.worker(e))?
            .map_err(|e| self.store(e))
    }

    fn worker(&self, source: JoinError) -> PullError {
        PullError::Worker { image: self.image.clone(), source }
    }

    fn store(&self, source: StoreError) -> PullError {
        PullError::Store { image: self.image.clone(), source }
    }

    fn fetch(&self, source: RegistryError) -> PullError {
        PullError::Fetch { image: self.image.clone(), source }
    }

    async fn run(self, credentials: &[Credential], present: Option<Image>) -> Result<Image, PullError> {
        let (session, digest) = self.resolve(credentials).await?;
        if let (Some(image), Some(digest)) = (&present, digest)
            && image.digest == digest
            && self.is_whole(image.clone()).await?
        {
            (self.progress)(Progress::Resolved { digest });
            return Ok(image.clone());
        }
        let operation = Arc::new(self.local(|_, store| store.begin()).await?);
        let resolved = Arc::new(self.documents(&session, &operation, digest).await?);
        (self.progress)(Progress::Resolved { digest: resolved.digest });
        self.layers(&session, &operation, &resolved).await?;
        let pinned = present.is_some_and(|image| image.pinned);
        let mut images = self
            .local(move |job, store| {
                let images =
                    store.record(&operation, std::slice::from_ref(&job.reference), &resolved, pinned)?;
                drop(operation);
                // Layers are unpacked now; unless told to keep them, their archives are of no use.
                store.drop_blobs(
                    &resolved.manifest.layers.iter().map(|layer| layer.digest).collect::<Vec<_>>(),
                )?;
                Ok(images)
            })
            .await?;
        let lost = StoreError::Corrupt {
            path: self.puller.store.dir().to_path_buf(),
            why: "nothing was recorded".into(),
        };
        images.pop().ok_or_else(|| self.store(lost))
    }

    async fn is_whole(&self, image: Image) -> Result<bool, PullError> {
        self.local(move |_, store| Ok(image.layers.iter().all(|layer| store.has_layer(&layer.chain_id))))
            .await
    }

    /// Finds an endpoint that knows the reference, and a credential that it takes. The last failure is the registry's own.
    async fn resolve(&self, credentials: &[Credential]) -> Result<(Arc<Session>, Option<Digest>), PullError> {
        let mut last = RegistryError::NotFound(self.image.clone());
        let attempts: Vec<Option<Credential>> =
            if credentials.is_empty() { vec![None] } else { credentials.iter().cloned().map(Some).collect() };
        for endpoint in self.puller.registries.endpoints(&self.reference) {
            for credential in &attempts {
                // A pull secret is for the registry it names, not for a mirror of it.
                let credential = if endpoint.is_mirror() { None } else { credential.clone() };
                let session = Session::new(
                    self.puller.client.clone(),
                    endpoint.clone(),
                    self.reference.clone(),
                    credential,
                );
                match session.resolve().await {
                    Ok(digest) => return Ok((Arc::new(session), digest)),
                    Err(error) => last = error,
                }
                if endpoint.is_mirror() || registry_kind(&last) != PullErrorKind::Unauthorized {
                    break;
                }
            }
        }
        Err(PullError::Resolve { image: self.image.clone(), source: last })
    }

    /// Fetches and stores everything but the layers.
    async fn documents(
        &self,
        session: &Session,
        operation: &Arc<Operation>,
        digest: Option<Digest>,
    ) -> Result<Resolved, PullError> {
        let manifest_error = |source| PullError::Manifest { image: self.image.clone(), source };
        let mut target = digest.map_or_else(|| self.reference.target(), |digest| digest.to_string());
        let mut documents = Vec::new();
        for _ in 0..MAX_NESTING {
            let (bytes, media_type) = session.manifest(&target).await.map_err(|e| self.fetch(e))?;
            let parsed = manifest::parse(&bytes, &media_type).map_err(manifest_error)?;
            let manifest_bytes = bytes.len() as u64;
            documents.push(self.keep_bytes(operation, bytes).await?);
            match parsed {
                Document::Index(entries) => {
                    let entry = manifest::for_platform(&entries, &self.platform).map_err(manifest_error)?[0];
                    target = entry.digest.to_string();
                }
                Document::Manifest(manifest) => {
                    let config = self.config(session, &manifest).await?;
                    let parsed = manifest::parse_config(&config, &manifest).map_err(manifest_error)?;
                    manifest::check_platform(&parsed, &self.platform).map_err(manifest_error)?;
                    self.keep_bytes(operation, config).await?;
                    return Ok(Resolved {
                        digest: documents[0],
                        documents,
                        manifest_bytes,
                        manifest,
                        config: parsed,
                    });
                }
            }
        }
        let why = format!("more than {MAX_NESTING} indexes within each other");
        Err(manifest_error(ManifestError::Malformed { what: "index", why }))
    }

    async fn keep_bytes(&self, operation: &Arc<Operation>, bytes: Vec<u8>) -> Result<Digest, PullError> {
        let operation = operation.clone();
        self.local(move |_, store| store.put_bytes(&operation, &bytes)).await
    }

    async fn config(&self, session: &Session, manifest: &manifest::Manifest) -> Result<Vec<u8>, PullError> {
        let wanted = manifest.config.digest;
        let response = session.blob(&wanted, 0).await.map_err(|e| self.fetch(e))?;
        let bytes =
            response.into_body().read(manifest::DOCUMENT_BYTES).await.map_err(|e| self.fetch(e.into()))?;
        let found = Digest::of(&bytes);
        if found != wanted {
            return Err(self.store(StoreError::Digest { wanted, found }));
        }
        Ok(bytes)
    }

    /// Fetches what is not unpacked, and unpacks from the bottom up while the rest arrives.
    async fn layers(
        &self,
        session: &Arc<Session>,
        operation: &Arc<Operation>,
        resolved: &Resolved,
    ) -> Result<(), PullError> {
        let layers = resolved.layers();
        let slots = Arc::new(Semaphore::new(CONCURRENT_LAYERS));
        // Dropping the set on a failure ends the other fetches.
        let mut fetches = JoinSet::new();
        for (index, layer) in layers.iter().cloned().enumerate() {
            let (job, session, operation, slots) =
                (self.clone(), session.clone(), operation.clone(), slots.clone());
            fetches.spawn(async move {
                let _slot = slots.acquire().await;
                job.layer(&session, &operation, &layer).await.map(|()| index)
            });
        }
        let mut here = vec![false; layers.len()];
        let mut next = 0;
        while next < layers.len() {
            if here[next] {
                self.unpack(operation, &layers[..=next]).await?;
                next += 1;
                continue;
            }
            let Some(fetched) = fetches.join_next().await else { break };
            here[fetched.map_err(|e| self.worker(e))??] = true;
        }
        Ok(())
    }

    /// Unpacks the last of `layers` over the others.
    async fn unpack(&self, operation: &Arc<Operation>, layers: &[Layer]) -> Result<(), PullError> {
        let Some((layer, below)) = layers.split_last() else { return Ok(()) };
        (self.progress)(Progress::Unpacking { blob: layer.blob });
        let (image, diff_id) = (self.image.clone(), layer.diff_id);
        let (operation, layer, below, store) =
            (operation.clone(), layer.clone(), below.to_vec(), self.puller.store.clone());
        spawn_blocking(move || store.ensure_layer(&operation, &layer, &below))
            .await
            .map_err(|e| self.worker(e))?
            .map_err(|source| PullError::Extract { image, diff_id, source })
    }

    /// Makes sure that a layer is unpacked or its blob is here.
    async fn layer(
        &self,
        session: &Session,
        operation: &Arc<Operation>,
        layer: &Layer,
    ) -> Result<(), PullError> {
        let (held, wanted) = (operation.clone(), layer.clone());
        // The stripe waits for another process that fetches the same, and is held over the transfer.
        let stripe = self.local(move |_, store| {
            held.uses(&wanted.chain_id)?;
            held.uses(&wanted.blob)?;
            let here = || store.has_layer(&wanted.chain_id) || store.has_blob(&wanted.blob);
            if here() {
                return Ok(None);
            }
            let stripe = store.stripe("blob", &wanted.blob)?;
            Ok(if here() { None } else { Some(stripe) })
        });
        let Some(_stripe) = stripe.await? else { return Ok(()) };
        if layer.size_bytes > self.puller.store.options().limits.total_bytes {
            let why = format!("layer {} has {} bytes, more than is allowed", layer.blob, layer.size_bytes);
            return Err(self.fetch(RegistryError::Invalid(why)));
        }
        let held = operation.clone();
        let blob = self.local(move |_, store| store.new_blob(&held)).await?;
        let transfer = Transfer { session, layer, progress: &self.progress };
        let (fetched, written) = transfer.run(blob, &self.puller.store).await;
        let written = written.map_err(|e| self.worker(e))?;
        // A full disk stops the writer and then the transfer: its error comes first.
        written.map_err(|e| self.store(e))?;
        fetched.map_err(|e| self.fetch(e))
    }
}
