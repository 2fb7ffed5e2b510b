//! Registries that nodes reach in other ways than by https under their own names.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use clap::Args;
use http::Uri;
use serde::{Deserialize, Serialize};

/// What containerd reads from `certs.d/*/hosts.toml` for this: <https://github.com/containerd/containerd/blob/main/docs/hosts.md>
#[derive(Clone, Debug, Default, PartialEq, Eq, Args, Serialize, Deserialize)]
#[serde(default)]
pub struct Registries {
    /// Registries (HOST:PORT) that the nodes may speak plain HTTP to
    #[arg(long = "insecure-registry", value_name = "HOST:PORT")]
    pub insecure_registries: Vec<String>,
    /// Where images of a registry are looked for before it is asked itself: docker.io=https://mirror.example. Several are tried in order
    #[arg(long = "registry-mirror", value_name = "REGISTRY=URL")]
    pub registry_mirrors: Vec<Mirror>,
}

/// `docker.io=https://mirror.example:5000`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mirror {
    registry: String,
    url: String,
}

impl FromStr for Mirror {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let example = "write REGISTRY=URL, as docker.io=https://mirror.example:5000";
        let (registry, url) = text.split_once('=').ok_or(example)?;
        if registry.is_empty() || registry.contains('/') {
            return Err(format!("{registry:?} is not a registry: {example}"));
        }
        let uri: Uri = url.parse().map_err(|error| format!("{url:?} is not a URL ({error}): {example}"))?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        if !is_http || uri.host().is_none_or(str::is_empty) || uri.query().is_some() {
            return Err(format!("{url:?} is not the URL of a registry: {example}"));
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            // What a node is started with is for many to see.
            return Err(format!("the mirror of {registry} is asked without credentials: leave them out"));
        }
        Ok(Self { registry: registry.to_owned(), url: url.to_owned() })
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.registry, self.url)
    }
}

impl TryFrom<String> for Mirror {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Mirror> for String {
    fn from(mirror: Mirror) -> Self {
        mirror.to_string()
    }
}

impl Registries {
    /// What a cluster has, with what is asked for now: a flag that is given at all replaces what it gave before.
    pub fn or(&self, before: &Self) -> Self {
        fn newest<T: Clone>(now: &[T], before: &[T]) -> Vec<T> {
            if now.is_empty() { before.to_vec() } else { now.to_vec() }
        }
        Self {
            insecure_registries: newest(&self.insecure_registries, &before.insecure_registries),
            registry_mirrors: newest(&self.registry_mirrors, &before.registry_mirrors),
        }
    }

    /// The same, for the command line of `ekso node`.
    pub fn flags(&self) -> impl Iterator<Item = (&'static str, String)> {
        let insecure = self.insecure_registries.iter().map(|one| ("--insecure-registry", one.clone()));
        let mirrors = self.registry_mirrors.iter().map(|one| ("--registry-mirror", one.to_string()));
        insecure.chain(mirrors)
    }

    /// As who pulls wants them.
    pub fn of_node(&self) -> runtime::image::Registries {
        let mut mirrors: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for mirror in &self.registry_mirrors {
            mirrors.entry(mirror.registry.clone()).or_default().push(mirror.url.clone());
        }
        let insecure = self.insecure_registries.clone();
        runtime::image::Registries { mirrors, insecure, ..runtime::image::Registries::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirrors(texts: &[&str]) -> Vec<Mirror> {
        texts.iter().map(|text| text.parse().expect("a mirror")).collect()
    }

    #[test]
    fn a_mirror_is_a_registry_and_a_url() {
        for (text, expected) in [
            ("docker.io=https://mirror.example", None),
            ("registry.k8s.io:443=http://10.0.0.1:5000/prefix/", None),
            ("docker.io", Some("write REGISTRY=URL")),
            ("=https://mirror.example", Some("\"\" is not a registry")),
            ("docker.io/library=https://mirror.example", Some("is not a registry")),
            ("docker.io=mirror.example", Some("is not the URL of a registry")),
            ("docker.io=ftp://mirror.example", Some("is not the URL of a registry")),
            ("docker.io=https://mirror.example/?a=b", Some("is not the URL of a registry")),
            ("docker.io=https://mirror example", Some("is not a URL")),
            ("docker.io=https://me:secret@mirror.example", Some("without credentials")),
        ] {
            match (text.parse::<Mirror>(), expected) {
                (Ok(mirror), None) => assert_eq!(mirror.to_string(), text),
                (Err(why), Some(words)) => {
                    assert!(why.contains(words) && !why.contains("secret"), "{text}: {why}");
                }
                (other, _) => panic!("{text}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_given_anew_replaces_and_the_rest_stays() {
        let before = Registries {
            insecure_registries: vec!["a:1".into()],
            registry_mirrors: mirrors(&["docker.io=http://one", "docker.io=http://two", "b=http://three"]),
        };
        let asked = Registries { insecure_registries: vec!["c:1".into()], ..Registries::default() };
        let now = asked.or(&before);
        assert_eq!(now.insecure_registries, ["c:1"]);
        assert_eq!(now.registry_mirrors, before.registry_mirrors);
        let of_node = now.of_node();
        assert_eq!(of_node.mirrors["docker.io"], ["http://one", "http://two"]);
        assert_eq!(of_node.mirrors["b"], ["http://three"]);
        let words: Vec<String> = now.flags().map(|(flag, value)| format!("{flag} {value}")).collect();
        assert_eq!(words[..2], ["--insecure-registry c:1", "--registry-mirror docker.io=http://one"]);
        // Sites that were made before have the one list only.
        let kept: Registries = serde_json::from_str(r#"{"insecure_registries":["a:1"]}"#).expect("read");
        assert_eq!(kept, Registries { insecure_registries: vec!["a:1".into()], ..Registries::default() });
        let text = serde_json::to_string(&now).expect("written");
        assert_eq!(serde_json::from_str::<Registries>(&text).expect("read"), now);
    }
}
