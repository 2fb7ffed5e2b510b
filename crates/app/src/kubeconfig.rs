//! A cluster's context in a kubeconfig: merged in, taken out, everything else left as it was.
//!
//! A file in a user's home is handled with that user's rights, also when root runs the command: see [`user_file`](crate::user_file).

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use files::FileError;
use serde_json::{Value, json};

use crate::owner::Owner;
use crate::pki::Pair;
use crate::user_file::{UserFile, UserFileError};

#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    UserFile(#[from] UserFileError),
    #[error("{path} is not a kubeconfig ({why}): mend it, or name another file with --kubeconfig")]
    Malformed { path: PathBuf, why: String },
    #[error("there is no home folder to keep a kubeconfig in: name a file with --kubeconfig")]
    NoHome,
}

/// What a context needs.
pub struct Context<'a> {
    /// Of the context, the cluster and the user alike: `ekso-dev`.
    pub name: &'a str,
    /// `https://127.0.0.1:6443`
    pub server: &'a str,
    pub ca_pem: &'a str,
    pub admin: &'a Pair,
}

/// Where a kubeconfig is when nobody says: the first of `$KUBECONFIG`, else `~/.kube/config` of the user behind sudo.
pub fn default_path(owner: &Owner) -> Result<PathBuf, KubeconfigError> {
    let from_environment = std::env::var("KUBECONFIG").unwrap_or_default();
    match from_environment.split(':').find(|path| !path.is_empty()) {
        Some(path) => Ok(path.into()),
        None => owner.home.as_ref().map(|home| home.join(".kube/config")).ok_or(KubeconfigError::NoHome),
    }
}

/// Puts a context in place of what had its name. Returns the context that was selected before, if another one is now.
pub fn merge(
    path: &Path,
    owner: &Owner,
    context: &Context,
    select: bool,
) -> Result<Option<String>, KubeconfigError> {
    edit(path, owner, |config| {
        let data = |text: &str| STANDARD.encode(text);
        put(
            config,
            "clusters",
            json!({"name": context.name, "cluster": {
                "server": context.server, "certificate-authority-data": data(context.ca_pem)}}),
        );
        put(
            config,
            "users",
            json!({"name": context.name, "user": {
                "client-certificate-data": data(&context.admin.certificate),
                "client-key-data": data(&context.admin.key)}}),
        );
        put(
            config,
            "contexts",
            json!({"name": context.name, "context": {"cluster": context.name, "user": context.name}}),
        );
        let before = config["current-context"].as_str().unwrap_or_default().to_owned();
        if before == context.name || !(select || before.is_empty()) {
            return None;
        }
        config["current-context"] = context.name.into();
        Some(before)
    })
}

/// Takes a context out with its cluster and user, and selects `previous` again if it was selected and that one still exists.
pub fn remove(path: &Path, owner: &Owner, name: &str, previous: Option<&str>) -> Result<(), KubeconfigError> {
    let exists = owner.with_rights(|| path.exists());
    if !exists {
        return Ok(());
    }
    edit(path, owner, |config| {
        for list in ["clusters", "users", "contexts"] {
            if let Some(entries) = config[list].as_array_mut() {
                entries.retain(|entry| entry["name"] != name);
            }
        }
        if config["current-context"] == name {
            let known = |wanted: &str| {
                config["contexts"]
                    .as_array()
                    .is_some_and(|all| all.iter().any(|entry| entry["name"] == wanted))
            };
            let back = previous.filter(|previous| known(previous)).unwrap_or_default().to_owned();
            config["current-context"] = back.into();
        }
    })
}

fn put(config: &mut Value, list: &str, entry: Value) {
    if !config[list].is_array() {
        config[list] = json!([]);
    }
    let Some(entries) = config[list].as_array_mut() else { return };
    match entries.iter_mut().find(|known| known["name"] == entry["name"]) {
        Some(known) => *known = entry,
        None => entries.push(entry),
    }
}

fn edit<T: Send>(
    path: &Path,
    owner: &Owner,
    change: impl FnOnce(&mut Value) -> T + Send,
) -> Result<T, KubeconfigError> {
    owner.with_rights(|| {
        let file = UserFile::lock(path)?;
        let malformed = |why: String| KubeconfigError::Malformed { path: file.path().to_owned(), why };
        let mut config = match file.read()? {
            Some(text) if !text.trim_ascii().is_empty() => {
                let text = String::from_utf8(text).map_err(|_| malformed("not UTF-8".into()))?;
                serde_saphyr::from_str::<Value>(&text).map_err(|error| malformed(error.to_string()))?
            }
            _ => json!({"apiVersion": "v1", "kind": "Config", "preferences": {}}),
        };
        if !config.is_object() {
            return Err(malformed("not a mapping".into()));
        }
        let result = change(&mut config);
        let text = serde_saphyr::to_string(&config).map_err(|error| malformed(error.to_string()))?;
        file.write(0o600, text.as_bytes())?;
        Ok(result)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> Pair {
        Pair { certificate: "C".into(), key: "K".into() }
    }

    #[test]
    fn a_context_comes_and_goes_and_leaves_the_rest() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("config");
        let mine = "apiVersion: v1\nkind: Config\ncurrent-context: mine\nclusters: []\nusers:\n- name: me\n  user:\n    token: 'yes'\ncontexts:\n- name: mine\n  context: {cluster: c, user: me}\n";
        std::fs::write(&path, mine).expect("written");
        let owner = Owner::current();
        let admin = pair();
        let context = Context { name: "ekso-dev", server: "https://127.0.0.1:1", ca_pem: "A", admin: &admin };
        let before = merge(&path, &owner, &context, true).expect("merged");
        assert_eq!(before.as_deref(), Some("mine"));
        assert_eq!(merge(&path, &owner, &context, true).expect("merged again"), None);
        let read = |path: &Path| -> Value {
            serde_saphyr::from_str(&std::fs::read_to_string(path).expect("a file")).expect("YAML")
        };
        let merged = read(&path);
        assert_eq!(merged["current-context"], "ekso-dev");
        assert_eq!(merged["users"][0]["user"]["token"], "yes");
        assert_eq!(merged["contexts"].as_array().map(Vec::len), Some(2));
        remove(&path, &owner, "ekso-dev", before.as_deref()).expect("removed");
        let after = read(&path);
        assert_eq!(after["current-context"], "mine");
        assert_eq!(after["contexts"].as_array().map(Vec::len), Some(1));
        assert!(!dir.path().join("config.lock").exists());
    }

    #[test]
    fn another_selected_context_stays_unless_told() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("deep/config");
        let admin = pair();
        let owner = Owner::current();
        let context = |name| Context { name, server: "https://127.0.0.1:1", ca_pem: "A", admin: &admin };
        assert_eq!(merge(&path, &owner, &context("a"), false).expect("merged"), Some(String::new()));
        assert_eq!(merge(&path, &owner, &context("b"), false).expect("merged"), None);
    }
}
