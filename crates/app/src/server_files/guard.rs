//! What guards a cluster's API and its data: encryption of what is stored, and what is written down of requests.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use access::audit::Policy;
use apiserver::{Audit, AuditLog, AuditLogError, AuditWebhook, Connection, ConnectionError};
use clap::Args;
use gate::AdmissionConfiguration;
use serde::{Deserialize, Serialize};
use store::{ConfigError, SealError, Sealing, SealingRules, Store, StoreError};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, info, warn};

use super::File;
use super::reloads::Followings;
use super::watched::{LOOK_EVERY, Watched};
use crate::dial;

/// How often a KMS is asked whether it is well and has the same key: as long as upstream's health check believes an answer, and that of one
/// that is in trouble.
const ASK_EVERY: Duration = Duration::from_secs(20);
const ASK_AGAIN: Duration = Duration::from_secs(3);
/// When what has failed is tried again: a changed file, and to seal everything anew.
const TRY_AGAIN: Duration = Duration::from_secs(10);
/// The default of `--audit-webhook-batch-max-wait`.
const BATCH_WAIT: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default)]
pub struct GuardFiles {
    /// Tell plugins of admission what this AdmissionConfiguration says: PodSecurity and ResourceQuota
    #[arg(long, value_name = "FILE")]
    pub admission_control_config_file: Option<PathBuf>,
    /// Encrypt what is stored as this EncryptionConfiguration says; followed when it changes
    #[arg(long, value_name = "FILE")]
    pub encryption_provider_config: Option<PathBuf>,
    /// Write down requests as this audit Policy says, to --audit-log-path or --audit-webhook-config-file or both
    #[arg(long, value_name = "FILE")]
    pub audit_policy_file: Option<PathBuf>,
    /// Where audit events go; "-" is standard output
    #[arg(long, value_name = "FILE", requires = "audit_policy_file")]
    pub audit_log_path: Option<PathBuf>,
    /// Days that old audit logs stay [default: for ever]
    #[arg(long, value_name = "DAYS", requires = "audit_log_path")]
    pub audit_log_maxage: Option<u32>,
    /// How many old audit logs stay [default: all]
    #[arg(long, value_name = "NUMBER", requires = "audit_log_path")]
    pub audit_log_maxbackup: Option<u32>,
    /// Megabytes at which an audit log is turned over [default: never]
    #[arg(long, value_name = "MEGABYTES", requires = "audit_log_path")]
    pub audit_log_maxsize: Option<u32>,
    /// Post audit events in batches to the webhook of this kubeconfig
    #[arg(long, value_name = "FILE", requires = "audit_policy_file")]
    pub audit_webhook_config_file: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum GuardFileError {
    #[error("read {}: {source}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is no YAML: {why}", .path.display())]
    Yaml { path: PathBuf, why: String },
    #[error("--admission-control-config-file: {}: {why}", .path.display())]
    Admission { path: PathBuf, why: String },
    #[error("{}: {source}", .path.display())]
    Encryption { path: PathBuf, source: ConfigError },
    #[error("--encryption-provider-config: {0}")]
    Keys(#[from] SealError),
    #[error(
        "what is stored is sealed with the keys of {}: make \"identity\" the first provider there, so that everything is \
         written plain, and take the file off then", .0.display()
    )]
    Sealed(PathBuf),
    #[error("what is stored could not be written plain, so {} stays: {source}", .path.display())]
    StillSealed { path: PathBuf, source: StoreError },
    #[error("{}: {why}", .path.display())]
    Policy { path: PathBuf, why: String },
    #[error(
        "--audit-policy-file needs --audit-log-path or --audit-webhook-config-file: events have to go somewhere"
    )]
    Nowhere,
    #[error("--audit-webhook-config-file: {0}")]
    Webhook(#[from] ConnectionError),
    #[error("--audit-log-path: {0}")]
    Log(#[from] AuditLogError),
}

impl GuardFiles {
    pub(super) fn files(&mut self) -> [&mut File; 5] {
        [
            &mut self.admission_control_config_file,
            &mut self.encryption_provider_config,
            &mut self.audit_policy_file,
            &mut self.audit_log_path,
            &mut self.audit_webhook_config_file,
        ]
    }

    pub(super) fn or(self, kept: Self) -> Self {
        let admission = self.admission_control_config_file;
        Self {
            admission_control_config_file: admission.or(kept.admission_control_config_file),
            encryption_provider_config: self.encryption_provider_config.or(kept.encryption_provider_config),
            audit_policy_file: self.audit_policy_file.or(kept.audit_policy_file),
            audit_webhook_config_file: self.audit_webhook_config_file.or(kept.audit_webhook_config_file),
            audit_log_path: self.audit_log_path.or(kept.audit_log_path),
            audit_log_maxage: self.audit_log_maxage.or(kept.audit_log_maxage),
            audit_log_maxbackup: self.audit_log_maxbackup.or(kept.audit_log_maxbackup),
            audit_log_maxsize: self.audit_log_maxsize.or(kept.audit_log_maxsize),
        }
    }

    /// What makes no sense without a log.
    pub(super) fn forget_log(&mut self) {
        self.audit_log_path = None;
        (self.audit_log_maxage, self.audit_log_maxbackup, self.audit_log_maxsize) = (None, None, None);
    }

    pub(super) fn forget_audit(&mut self) {
        self.forget_log();
        (self.audit_policy_file, self.audit_webhook_config_file) = (None, None);
    }

    /// Reads all of them. Of a state that was sealed by `before` the keys stay.
    pub(super) fn check(&self, before: &Self) -> Result<(), GuardFileError> {
        match (&self.encryption_provider_config, &before.encryption_provider_config) {
            (Some(path), _) => drop(rules(path)?),
            // Without the file nobody knows; the store tells, if it cannot be opened.
            (None, Some(path)) if rules(path).is_ok_and(|rules| rules.seal()) => {
                return Err(GuardFileError::Sealed(path.clone()));
            }
            (None, _) => {}
        }
        self.admission()?;
        self.policy()?;
        self.audit_webhook_config_file.as_deref().map(Connection::read).transpose()?;
        Ok(())
    }

    /// What plugins of admission are told. Read at the start and not followed, as upstream has it.
    pub fn admission(&self) -> Result<AdmissionConfiguration, GuardFileError> {
        let Some(path) = &self.admission_control_config_file else {
            return Ok(AdmissionConfiguration::default());
        };
        let folder = path.parent().unwrap_or(Path::new("/"));
        let read = AdmissionConfiguration::read(yaml(path)?, |named| {
            yaml(&folder.join(named)).map_err(|error| error.to_string())
        });
        read.map_err(|why| GuardFileError::Admission { path: path.clone(), why })
    }

    fn policy(&self) -> Result<Option<Policy>, GuardFileError> {
        let Some(path) = &self.audit_policy_file else { return Ok(None) };
        if self.audit_log_path.is_none() && self.audit_webhook_config_file.is_none() {
            return Err(GuardFileError::Nowhere);
        }
        let read = Policy::parse(yaml(path)?);
        read.map(Some).map_err(|why| GuardFileError::Policy { path: path.clone(), why })
    }

    /// The keys of the store; None: it is kept plain.
    pub async fn sealing(&self) -> Result<Option<Arc<Sealing>>, GuardFileError> {
        match &self.encryption_provider_config {
            Some(path) => Ok(Some(Sealing::open(rules(path)?).await?)),
            None => Ok(None),
        }
    }

    /// Writes everything plain, as the file says by now, in the store that was opened with these keys: it can be opened without them then.
    pub async fn give_up_keys(
        &self,
        sealing: Option<&Sealing>,
        store: &dyn Store,
    ) -> Result<(), GuardFileError> {
        let Some((path, sealing)) = self.encryption_provider_config.as_ref().zip(sealing) else {
            return Ok(());
        };
        let rules = rules(path)?;
        if rules.seal() {
            return Err(GuardFileError::Sealed(path.clone()));
        }
        sealing.replace(rules).await?;
        store.reseal().await.map_err(|source| GuardFileError::StillSealed { path: path.clone(), source })
    }

    /// What is written down of requests; None: nothing.
    pub fn audit(&self, clock: gate::Clock) -> Result<Option<Arc<Audit>>, GuardFileError> {
        let Some(policy) = self.policy()? else { return Ok(None) };
        let log = self.audit_log_path.as_ref().map(|path| AuditLog {
            path: path.clone(),
            max_age_days: self.audit_log_maxage.unwrap_or(0),
            max_backups: self.audit_log_maxbackup.unwrap_or(0),
            max_size_mb: self.audit_log_maxsize.unwrap_or(0),
        });
        let webhook = match &self.audit_webhook_config_file {
            None => None,
            Some(path) => {
                let connection = Connection::read(path)?;
                Some(AuditWebhook { connection, dial: dial::from_host(), batch_wait: BATCH_WAIT })
            }
        };
        Ok(Some(Arc::new(Audit::new(policy, log, webhook, clock)?)))
    }

    /// Follows the keys until told to stop: the file, and a KMS whose key is changed. What is stored is then sealed anew.
    pub fn follow_keys(
        &self,
        sealing: Option<&Arc<Sealing>>,
        store: Arc<dyn Store>,
        followings: Arc<Followings>,
        stop: watch::Receiver<bool>,
    ) -> Option<JoinHandle<()>> {
        let path = self.encryption_provider_config.clone()?;
        let keys = Keys {
            file: Watched::new(&path),
            sealing: sealing?.clone(),
            owes: store.was_stale(),
            store,
            due: Instant::now() + ASK_EVERY,
            is_unread: false,
            again: Instant::now(),
            followings,
        };
        Some(tokio::spawn(keys.follow(stop)))
    }
}

fn rules(path: &Path) -> Result<SealingRules, GuardFileError> {
    SealingRules::parse(&yaml(path)?)
        .map_err(|source| GuardFileError::Encryption { path: path.to_owned(), source })
}

fn yaml(path: &Path) -> Result<serde_json::Value, GuardFileError> {
    let text = fs::read(path).map_err(|source| GuardFileError::Read { path: path.to_owned(), source })?;
    // A parser's message may quote what it could not read, and that may be a key: only where it stopped is told.
    apiserver::decode_yaml(&text).map_err(|why| {
        let place = why.split(" at line ").nth(1).map_or(String::new(), |place| {
            let digits: String = place.chars().take_while(|c| c.is_ascii_digit()).collect();
            format!("at line {digits}")
        });
        let why = if place.is_empty() { "it cannot be parsed".to_owned() } else { place };
        GuardFileError::Yaml { path: path.to_owned(), why }
    })
}

/// The keys of a store, as long as it is open.
struct Keys {
    file: Watched,
    sealing: Arc<Sealing>,
    store: Arc<dyn Store>,
    /// When the KMS is to be asked.
    due: Instant,
    /// The file is another one than is followed.
    is_unread: bool,
    /// Not everything is under the keys of now.
    owes: bool,
    /// When what has failed is tried again.
    again: Instant,
    followings: Arc<Followings>,
}

impl Keys {
    async fn follow(mut self, mut stop: watch::Receiver<bool>) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                _ = looks.tick() => {}
            }
            if self.look().await {
                (self.owes, self.again) = (true, Instant::now());
            }
            if self.owes && Instant::now() >= self.again {
                self.reseal().await;
            }
        }
    }

    async fn reseal(&mut self) {
        match self.store.reseal().await {
            Ok(()) => {
                self.owes = false;
                info!(file = %self.file.path().display(), "everything is under the keys of the file");
            }
            Err(failure) => {
                self.again = Instant::now() + TRY_AGAIN;
                error!(%failure, "not everything could be written under the keys of the file");
            }
        }
    }

    /// Whether there are other keys than before.
    async fn look(&mut self) -> bool {
        if self.file.has_changed() {
            (self.is_unread, self.again) = (true, Instant::now());
        }
        if self.is_unread && Instant::now() >= self.again {
            let replaced = match rules(self.file.path()) {
                Ok(rules) => self.sealing.replace(rules).await.map_err(GuardFileError::from),
                Err(failure) => Err(failure),
            };
            self.followings.note(replaced.is_ok(), SystemTime::now());
            match replaced {
                Ok(()) => {
                    self.is_unread = false;
                    return true;
                }
                Err(failure) => {
                    self.again = Instant::now() + TRY_AGAIN;
                    error!(%failure, "the changed file is not followed");
                }
            }
        }
        if !self.sealing.has_kms() || Instant::now() < self.due {
            return false;
        }
        let refreshed = self.sealing.refresh().await;
        self.due = Instant::now() + if refreshed.is_ok() { ASK_EVERY } else { ASK_AGAIN };
        refreshed.unwrap_or_else(|failure| {
            warn!(%failure, "asked for the key of a KMS");
            false
        })
    }
}

#[cfg(test)]
mod tests {
    use object::{Draft, Key, Resource, body};
    use serde_json::json;
    use store::{Embedded, Op, Options};

    use super::*;

    fn configuration(name: &str, byte: u8) -> String {
        use base64::Engine as _;
        let secret = base64::engine::general_purpose::STANDARD.encode([byte; 32]);
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n- resources: [secrets]\n  providers:\n  - aesgcm: {{keys: [{{name: {name}, secret: {secret}}}]}}\n"
        )
    }

    #[tokio::test]
    async fn a_file_that_changes_changes_the_keys_of_what_is_stored() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("encryption.yaml");
        let both = configuration("one", 1);
        fs::write(&path, &both).expect("written");
        let files = GuardFiles { encryption_provider_config: Some(path.clone()), ..GuardFiles::default() };
        let sealing = files.sealing().await.expect("keys").expect("a file");
        let data = folder.path().join("data");
        let options = Options { sealing: Some(sealing.clone()), ..Options::default() };
        let opened = data.clone();
        let store =
            tokio::task::spawn_blocking(move || Embedded::open(&opened, options)).await.expect("no panic");
        let store: Arc<dyn Store> = Arc::new(store.expect("a store"));
        let key = Key::new(Resource::new("secrets"), "default", "a");
        let text = body::encode(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}));
        store
            .commit(Op::create(Draft::read(key, Box::default(), text).expect("a draft")).into())
            .await
            .expect("created");
        let names = |name: &str| {
            let word = format!("k8s:enc:aesgcm:v1:{name}:");
            let files = fs::read_dir(&data)
                .expect("a folder")
                .map(|file| fs::read(file.expect("a file").path()).expect("bytes"));
            files.into_iter().any(|bytes| bytes.windows(word.len()).any(|window| window == word.as_bytes()))
        };
        let mut keys = Keys {
            file: Watched::new(&path),
            sealing,
            store: store.clone(),
            due: Instant::now() + ASK_EVERY,
            is_unread: false,
            owes: false,
            again: Instant::now(),
            followings: Arc::default(),
        };
        assert!(!keys.look().await, "nothing has changed");
        fs::write(&path, "kind: Nothing\n").expect("written");
        assert!(!keys.look().await, "what is wrong is not followed");
        assert!(keys.is_unread && keys.again > Instant::now(), "and tried again later");
        let second = configuration("two", 2).replace(
            "  - aesgcm",
            "  - aesgcm: {keys: [{name: zwei, secret: AwMDAwMDAwMDAwMDAwMDAw==}]}\n  - aesgcm",
        );
        fs::write(&path, second).expect("written");
        assert!(keys.look().await);
        assert!(names("one"));
        assert!(!keys.is_unread);
        keys.owes = true;
        keys.reseal().await;
        assert!(!keys.owes && names("zwei") && !names("one"));
        let given_up = files.give_up_keys(Some(&keys.sealing), &*store).await;
        assert!(matches!(given_up, Err(GuardFileError::Sealed(_))), "the file still seals");
        let plain = fs::read_to_string(&path)
            .expect("text")
            .replace("  - aesgcm: {keys: [{name: zwei", "  - identity: {}\n  - aesgcm: {keys: [{name: zwei");
        fs::write(&path, plain).expect("written");
        files.give_up_keys(Some(&keys.sealing), &*store).await.expect("plain");
        assert!(!names("zwei"), "before the file was followed");
        store.close().await;
        assert!(matches!(
            files.give_up_keys(Some(&keys.sealing), &*store).await,
            Err(GuardFileError::StillSealed { .. })
        ));
        keys.owes = true;
        keys.reseal().await;
        assert!(keys.owes, "what has failed is still owed");
        fs::write(&path, "a: [unclosed, c2VjcmV0\n").expect("written");
        let told = files.sealing().await.err().expect("refused").to_string();
        assert!(told.contains("encryption.yaml is no YAML") && !told.contains("c2VjcmV0"), "{told}");
    }
}
