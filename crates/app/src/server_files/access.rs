//! Who is believed and who may do what: read at the start, and followed when the files change.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use access::authentication::Configuration;
use apiserver::{Authorization, Connection, TokenWebhook};
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{error, info};

use super::File;
use super::reloads::Followings;
use super::watched::{LOOK_EVERY, Watched};
use crate::dial;

/// The files, whose flags have upstream's names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default)]
pub struct AccessFiles {
    /// Believe the issuers of this AuthenticationConfiguration; followed when it changes
    #[arg(long, value_name = "FILE")]
    pub authentication_config: Option<PathBuf>,
    /// Ask the authorizers of this AuthorizationConfiguration; followed when it changes [default: Node, RBAC]
    #[arg(long, value_name = "FILE")]
    pub authorization_config: Option<PathBuf>,
    /// Ask the webhook of this kubeconfig about tokens that nobody else knows
    #[arg(long, value_name = "FILE")]
    pub authentication_token_webhook_config_file: Option<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum AccessFileError {
    #[error("read {}: {source}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is not as it should be:\n{why}", .path.display())]
    Wrong { path: PathBuf, why: String },
    #[error("--authentication-token-webhook-config-file: {0}")]
    Webhook(#[from] apiserver::ConnectionError),
}

impl AccessFiles {
    pub(super) fn files(&mut self) -> [&mut File; 3] {
        [
            &mut self.authentication_config,
            &mut self.authorization_config,
            &mut self.authentication_token_webhook_config_file,
        ]
    }

    pub(super) fn or(self, kept: Self) -> Self {
        let webhook = self.authentication_token_webhook_config_file;
        Self {
            authentication_config: self.authentication_config.or(kept.authentication_config),
            authorization_config: self.authorization_config.or(kept.authorization_config),
            authentication_token_webhook_config_file: webhook
                .or(kept.authentication_token_webhook_config_file),
        }
    }

    /// The issuers and the anonymous access of the configuration. `own_issuer` is the cluster's, whom nobody else may be.
    pub fn authentication(
        &self,
        own_issuer: &str,
    ) -> Result<Option<Followed<Configuration>>, AccessFileError> {
        let own = own_issuer.to_owned();
        let read = move |text: &[u8]| {
            let file = apiserver::decode_yaml(text)?;
            access::authentication::read(&file, &[&own]).map_err(|found| found.join("\n"))
        };
        self.authentication_config.as_deref().map(|path| Followed::open(path, read)).transpose()
    }

    pub fn authorization(&self) -> Result<Option<Followed<Authorization>>, AccessFileError> {
        self.authorization_config.as_deref().map(|path| Followed::open(path, Authorization::read)).transpose()
    }

    pub fn token_webhook(&self) -> Result<Option<TokenWebhook>, AccessFileError> {
        let Some(path) = &self.authentication_token_webhook_config_file else { return Ok(None) };
        Ok(Some(TokenWebhook { connection: Connection::read(path)?, dial: dial::from_host() }))
    }
}

type Read<T> = Box<dyn Fn(&[u8]) -> Result<T, String> + Send + Sync>;

/// What a file says, as it was when it was last right.
pub struct Followed<T> {
    file: Watched,
    read: Read<T>,
    current: Arc<RwLock<Arc<T>>>,
    followings: Arc<Followings>,
}

impl<T: Send + Sync + 'static> Followed<T> {
    /// # Errors
    /// The file cannot be read, or what is in it is wrong: a cluster does not start with half of its access.
    fn open(
        path: &Path,
        read: impl Fn(&[u8]) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, AccessFileError> {
        let file = Watched::new(path);
        let first = read_file(path, &read)?;
        let current = Arc::new(RwLock::new(Arc::new(first)));
        Ok(Self { file, read: Box::new(read), current, followings: Arc::default() })
    }

    pub fn source(&self) -> Arc<dyn Fn() -> Arc<T> + Send + Sync> {
        let current = self.current.clone();
        Arc::new(move || current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Looks at the file until told to stop. A content that is wrong is said once and changes nothing.
    pub fn follow(mut self, mut stop: watch::Receiver<bool>) -> JoinHandle<()> {
        tokio::spawn(async move {
            let mut looks = tokio::time::interval(LOOK_EVERY);
            loop {
                tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => return,
                    _ = looks.tick() => self.look(),
                }
            }
        })
    }

    fn look(&mut self) {
        if !self.file.has_changed() {
            return;
        }
        let read = read_file(self.file.path(), &self.read);
        self.followings.note(read.is_ok(), SystemTime::now());
        match read {
            Ok(changed) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(changed);
                info!(file = %self.file.path().display(), "follows the changed file");
            }
            Err(failure) => error!(%failure, "the changed file is not followed"),
        }
    }
}

fn read_file<T>(path: &Path, read: impl Fn(&[u8]) -> Result<T, String>) -> Result<T, AccessFileError> {
    let text = fs::read(path).map_err(|source| AccessFileError::Read { path: path.to_owned(), source })?;
    read(&text).map_err(|why| AccessFileError::Wrong { path: path.to_owned(), why })
}

/// Follows what there is to follow, beside its source; how often is counted.
pub fn followed<T: Send + Sync + 'static>(
    file: Option<Followed<T>>,
    followings: &Arc<Followings>,
    stop: &watch::Receiver<bool>,
    tasks: &mut Vec<JoinHandle<()>>,
) -> Option<Arc<dyn Fn() -> Arc<T> + Send + Sync>> {
    let file = Followed { followings: followings.clone(), ..file? };
    let source = file.source();
    tasks.push(file.follow(stop.clone()));
    Some(source)
}

#[cfg(test)]
mod tests {
    use super::super::Reloads;
    use super::*;

    fn file(conditions: &str) -> String {
        format!(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\nanonymous: {{enabled: true, conditions: [{conditions}]}}\n"
        )
    }

    #[test]
    fn a_file_is_followed_as_long_as_it_is_right() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("authentication.yaml");
        let replace = |text: &str| {
            let aside = folder.path().join("aside");
            std::fs::write(&aside, text).expect("written");
            std::fs::rename(&aside, &path).expect("renamed");
        };
        replace(&file("{path: /livez}"));
        let files = AccessFiles { authentication_config: Some(path.clone()), ..AccessFiles::default() };
        let mut followed = files.authentication("https://own").expect("read").expect("a file");
        let source = followed.source();
        let first = source();
        assert!(first.anonymous.allows("/livez") && !first.anonymous.allows("/readyz"));
        followed.look();
        assert!(Arc::ptr_eq(&first, &source()), "nothing has changed");
        replace(&file("{path: livez}"));
        followed.look();
        assert!(Arc::ptr_eq(&first, &source()), "what is wrong is not followed");
        replace(&file("{path: /readyz}"));
        followed.look();
        assert!(source().anonymous.allows("/readyz"));
        let mut page = metrics::Page::default();
        Reloads { authentication: followed.followings.clone(), ..Reloads::default() }.write("one", &mut page);
        let text = page.into_text();
        for status in ["failure", "success"] {
            let mut lines = text.lines().filter(|line| line.contains("automatic_reloads_total{"));
            assert!(
                lines.any(|line| line.ends_with(&format!("status=\"{status}\"}} 1"))),
                "{status} in {text}"
            );
        }
        std::fs::remove_file(&path).expect("removed");
        followed.look();
        assert!(source().anonymous.allows("/readyz"));
        let wrong = files.authentication("https://own").err().expect("it is gone").to_string();
        assert!(wrong.starts_with("read "), "{wrong}");
    }
}
