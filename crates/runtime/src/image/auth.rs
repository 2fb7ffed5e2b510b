//! Which credentials go with an image: docker config files and pull secrets, matched as the kubelet does
//! (kubernetes.io/docs/concepts/containers/images, "Interpretation of config.json").

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;

use super::reference::Reference;

const DOCKER_HUB: &str = "index.docker.io";

/// A user and password; never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credential {
    pub username: String,
    pub password: String,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Credential {
    /// The value of an `Authorization` header (RFC 7617).
    pub(super) fn basic(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.username, self.password)))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    #[error("pull secret is not a docker configuration: {0}")]
    Malformed(String),
    #[error("pull secret: the auth of {0:?} is not the base64 of user:password")]
    BadAuth(String),
}

/// Credentials by registry or repository prefix.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    /// Host, with port and path where given, to the credentials in the order they were added.
    entries: BTreeMap<String, Vec<Credential>>,
}

#[derive(Deserialize)]
struct ConfigFile {
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
}

impl Keyring {
    /// Adds the content of a secret of type `kubernetes.io/dockerconfigjson` (or a docker config.json).
    pub fn add_config_json(&mut self, json: &[u8]) -> Result<(), AuthError> {
        let file: ConfigFile = serde_json::from_slice(json).map_err(malformed)?;
        self.add(file.auths)
    }

    /// Adds the content of a secret of the older type `kubernetes.io/dockercfg`.
    pub fn add_dockercfg(&mut self, json: &[u8]) -> Result<(), AuthError> {
        self.add(serde_json::from_slice(json).map_err(malformed)?)
    }

    fn add(&mut self, entries: BTreeMap<String, Entry>) -> Result<(), AuthError> {
        for (location, entry) in entries {
            let credential = credential(&location, entry)?;
            if let Some(key) = key_of(&location) {
                self.entries.entry(key).or_default().push(credential);
            }
        }
        Ok(())
    }

    /// The credentials to try for an image, best first: longer locations before shorter ones.
    pub fn lookup(&self, image: &Reference) -> Vec<Credential> {
        let matching = self.entries.iter().rev().filter(|(key, _)| matches(key, image));
        let found: Vec<Credential> = matching.flat_map(|(_, credentials)| credentials.clone()).collect();
        if found.is_empty() && image.domain == "docker.io" {
            return self.entries.get(DOCKER_HUB).cloned().unwrap_or_default();
        }
        found
    }
}

/// Serde's message names the place but may quote a value, so only the place is kept.
fn malformed(error: serde_json::Error) -> AuthError {
    AuthError::Malformed(format!(
        "{:?} error at line {}, column {}",
        error.classify(),
        error.line(),
        error.column()
    ))
}

fn credential(location: &str, entry: Entry) -> Result<Credential, AuthError> {
    if entry.auth.is_empty() {
        return Ok(Credential { username: entry.username, password: entry.password });
    }
    let bad = || AuthError::BadAuth(location.to_string());
    let auth = entry.auth.trim();
    let bytes = STANDARD.decode(auth).or_else(|_| STANDARD_NO_PAD.decode(auth)).map_err(|_| bad())?;
    let text = String::from_utf8(bytes).map_err(|_| bad())?;
    let (username, password) = text.split_once(':').ok_or_else(bad)?;
    Ok(Credential { username: username.to_string(), password: password.trim_end_matches('\0').to_string() })
}

/// `https://index.docker.io/v1/` is `index.docker.io`: scheme and API version say nothing about whose images these are.
fn key_of(location: &str) -> Option<String> {
    let rest =
        location.strip_prefix("https://").or_else(|| location.strip_prefix("http://")).unwrap_or(location);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let path = path.strip_prefix("v1/").or_else(|| path.strip_prefix("v2/")).unwrap_or(path);
    let path = if matches!(path, "v1" | "v2") { "" } else { path };
    match (host, path) {
        ("", _) => None,
        (host, "") => Some(host.to_string()),
        (host, path) => Some(format!("{host}/{path}")),
    }
}

/// Host labels match one to one, with `*` and `?` inside a label; ports are equal; the path is a prefix.
fn matches(key: &str, image: &Reference) -> bool {
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    if !image.path.starts_with(path) {
        return false;
    }
    let (host, port) = split_port(host);
    let (image_host, image_port) = split_port(&image.domain);
    let (labels, image_labels): (Vec<_>, Vec<_>) =
        (host.split('.').collect(), image_host.split('.').collect());
    port == image_port
        && labels.len() == image_labels.len()
        && labels.iter().zip(image_labels).all(|(pattern, label)| glob(pattern.as_bytes(), label.as_bytes()))
}

fn split_port(host: &str) -> (&str, &str) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host, ""),
    }
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == b'?' || pattern[p] == text[t]) {
            (p, t) = (p + 1, t + 1);
        } else if let Some((after, eaten)) = star {
            star = Some((after, eaten + 1));
            (p, t) = (after + 1, eaten + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyring(locations: &[&str]) -> Keyring {
        let entry = |location: &&str| {
            (location.to_string(), serde_json::json!({"username": location, "password": "secret"}))
        };
        let auths: serde_json::Map<_, _> = locations.iter().map(entry).collect();
        let mut keyring = Keyring::default();
        keyring.add_config_json(serde_json::json!({"auths": auths}).to_string().as_bytes()).unwrap();
        keyring
    }

    #[test]
    fn locations_match_as_the_kubelet_says() {
        let cases: &[(&[&str], &str, &[&str])] = &[
            (&["https://index.docker.io/v1/"], "nginx", &["https://index.docker.io/v1/"]),
            (&["docker.io"], "nginx", &["docker.io"]),
            (&["https://index.docker.io/v1/"], "quay.io/a", &[]),
            (&["quay.io"], "quay.io/a/b", &["quay.io"]),
            (&["quay.io", "quay.io/a", "quay.io/b"], "quay.io/a/b", &["quay.io/a", "quay.io"]),
            (&["http://quay.io/v2/"], "quay.io/a/b", &["http://quay.io/v2/"]),
            (&["*.example.com"], "r.example.com/a", &["*.example.com"]),
            (&["*.example.com"], "a.r.example.com/a", &[]),
            (&["*.example.com"], "example.com/a", &[]),
            (&["r-??.*.com"], "r-01.example.com/a", &["r-??.*.com"]),
            (&["localhost:5000"], "localhost:5000/a", &["localhost:5000"]),
            (&["localhost"], "localhost:5000/a", &[]),
            (&["localhost:5000"], "localhost:5001/a", &[]),
        ];
        for (locations, image, want) in cases {
            let found = keyring(locations).lookup(&image.parse().unwrap());
            let users: Vec<&str> = found.iter().map(|credential| credential.username.as_str()).collect();
            assert_eq!(&users, want, "{locations:?} for {image}");
        }
    }

    #[test]
    fn both_forms_of_secret_are_read() {
        let entry = |auth: &str| serde_json::json!({"r.io": {"auth": auth}});
        let want = Credential { username: "u".into(), password: "p:q".into() };
        let image = "r.io/a".parse().unwrap();
        let mut keyring = Keyring::default();
        keyring.add_dockercfg(entry("dTpwOnE=").to_string().as_bytes()).unwrap();
        assert_eq!(keyring.lookup(&image), std::slice::from_ref(&want));
        keyring
            .add_config_json(serde_json::json!({"auths": entry("dTpwOnE")}).to_string().as_bytes())
            .unwrap();
        assert_eq!(keyring.lookup(&image), [want.clone(), want]);
    }

    #[test]
    fn what_is_wrong_is_said_without_the_secret() {
        let mut keyring = Keyring::default();
        for json in [
            r#"{"auths":{"r.io":{"auth":"topsecret"}}}"#,
            r#"{"auths":{"r.io":{"password":5,"username":"topsecret"}}}"#,
            r#"{"auths":"topsecret"}"#,
        ] {
            let error = keyring.add_config_json(json.as_bytes()).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("topsecret"), "{error}");
        }
        let shown = format!("{:?}", Credential { username: "u".into(), password: "topsecret".into() });
        assert!(!shown.contains("topsecret"));
    }
}
