//! Image references: `[domain/]path[:tag][@digest]`, normalised as Docker, containerd and the kubelet do.
//! Grammar: github.com/distribution/reference.

use std::fmt;
use std::str::FromStr;

use super::digest::Digest;

const DEFAULT_DOMAIN: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
/// Of domain and path together, as the grammar's authors set it.
const NAME_BYTES: usize = 255;
const TAG_BYTES: usize = 128;

/// A complete name: `nginx` is `docker.io/library/nginx:latest`.
/// With a digest the tag is only remembered, never resolved.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// Host, with a port if one was given.
    pub domain: String,
    pub path: String,
    pub tag: Option<String>,
    pub digest: Option<Digest>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("couldn't parse image name {name:?}: {why}")]
pub struct InvalidReference {
    pub name: String,
    pub why: &'static str,
}

impl Reference {
    /// `domain/path`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// What a registry is asked for: the digest, else the tag.
    pub fn target(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => DEFAULT_TAG.to_string(),
        }
    }

    /// `domain/path@digest`, the form of a pod's `imageID`.
    pub fn with_digest(&self, digest: &Digest) -> String {
        format!("{}@{digest}", self.repository())
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.path)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;

    fn from_str(name: &str) -> Result<Self, InvalidReference> {
        parse(name).map_err(|why| InvalidReference { name: name.chars().take(300).collect(), why })
    }
}

const BAD_FORMAT: &str = "invalid reference format";

fn parse(name: &str) -> Result<Reference, &'static str> {
    if Digest::from_hex(name).is_some() {
        return Err("invalid repository name, cannot specify 64-byte hexadecimal strings");
    }
    let (rest, digest) = match name.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse::<Digest>().map_err(|_| BAD_FORMAT)?)),
        None => (name, None),
    };
    // A colon before the last slash belongs to a port.
    let (rest, tag) = match rest.rsplit_once(':') {
        Some((rest, tag)) if !tag.contains('/') => (rest, Some(tag)),
        _ => (rest, None),
    };
    if let Some(tag) = tag
        && !is_tag(tag)
    {
        return Err(BAD_FORMAT);
    }
    let (domain, path) = split_domain(rest);
    if !is_domain(&domain) {
        return Err(BAD_FORMAT);
    }
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("invalid reference format: repository name must be lowercase");
    }
    if !path.split('/').all(is_path_component) {
        return Err(BAD_FORMAT);
    }
    if domain.len() + 1 + path.len() > NAME_BYTES {
        return Err("repository name must not be more than 255 characters");
    }
    let tag = match (tag, &digest) {
        (Some(tag), _) => Some(tag.to_string()),
        (None, None) => Some(DEFAULT_TAG.to_string()),
        (None, Some(_)) => None,
    };
    Ok(Reference { domain, path, tag, digest })
}

/// The first part is a host if it looks like one: a dot, a colon, an upper-case letter, or `localhost`.
fn split_domain(name: &str) -> (String, String) {
    let (domain, path) = match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_DOMAIN, name),
    };
    let domain = if domain == "index.docker.io" { DEFAULT_DOMAIN } else { domain };
    if domain == DEFAULT_DOMAIN && !path.contains('/') {
        return (domain.to_string(), format!("library/{path}"));
    }
    (domain.to_string(), path.to_string())
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (domain, None),
    };
    if let Some(port) = port
        && port.parse::<u16>().is_err()
    {
        return false;
    }
    if let Some(v6) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return v6.parse::<std::net::Ipv6Addr>().is_ok();
    }
    host.split('.').all(|label| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    })
}

/// Runs of lower-case letters and digits, joined by `.`, `_`, `__` or any number of `-`.
fn is_path_component(part: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    if !bytes.first().copied().is_some_and(is_word) || !bytes.last().copied().is_some_and(is_word) {
        return false;
    }
    bytes
        .split(|b| is_word(*b))
        .all(|joint| matches!(joint, b"" | b"." | b"_" | b"__") || joint.iter().all(|b| *b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let bytes = tag.as_bytes();
    (1..=TAG_BYTES).contains(&bytes.len())
        && !matches!(bytes[0], b'.' | b'-')
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn names_are_completed() {
        let cases = [
            ("nginx", "docker.io/library/nginx:latest".to_string()),
            ("nginx:1.27", "docker.io/library/nginx:1.27".to_string()),
            ("bitnami/nginx", "docker.io/bitnami/nginx:latest".to_string()),
            ("docker.io/nginx", "docker.io/library/nginx:latest".to_string()),
            ("index.docker.io/a/b", "docker.io/a/b:latest".to_string()),
            ("localhost/a", "localhost/a:latest".to_string()),
            ("localhost:5000/a", "localhost:5000/a:latest".to_string()),
            ("[::1]:5000/a:v", "[::1]:5000/a:v".to_string()),
            ("Host/a", "Host/a:latest".to_string()),
            ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10".to_string()),
            ("a__b/c--d.e_f", "docker.io/a__b/c--d.e_f:latest".to_string()),
            (&format!("nginx@{SHA}"), format!("docker.io/library/nginx@{SHA}")),
            (&format!("nginx:1@{SHA}"), format!("docker.io/library/nginx:1@{SHA}")),
        ];
        for (name, want) in cases {
            let parsed: Reference = name.parse().unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(parsed.to_string(), want, "{name}");
            assert_eq!(
                want.parse::<Reference>().unwrap(),
                parsed,
                "completing twice changes nothing: {name}"
            );
        }
    }

    #[test]
    fn names_are_refused() {
        let upper = "repository name must be lowercase";
        let cases = [
            ("", BAD_FORMAT),
            ("Nginx", upper),
            ("a/B", upper),
            ("a//b", BAD_FORMAT),
            ("a/", BAD_FORMAT),
            ("-a", BAD_FORMAT),
            ("a___b", BAD_FORMAT),
            ("a..b", BAD_FORMAT),
            ("../a", BAD_FORMAT),
            ("a b", BAD_FORMAT),
            ("a:", BAD_FORMAT),
            ("a:-x", BAD_FORMAT),
            ("a:b@sha256:12", BAD_FORMAT),
            ("http://a.b/c", BAD_FORMAT),
            ("a.b:99999/c", BAD_FORMAT),
            (SHA.split_once(':').unwrap().1, "64-byte"),
        ];
        for (name, why) in cases {
            let error = name.parse::<Reference>().expect_err(name);
            assert!(error.to_string().contains(why), "{name}: {error}");
        }
        assert!("a/".repeat(200).parse::<Reference>().is_err());
        assert!(format!("a:{}", "t".repeat(129)).parse::<Reference>().is_err());
    }

    #[test]
    fn the_digest_wins_over_the_tag() {
        let target = |name: &str| name.parse::<Reference>().unwrap().target();
        assert_eq!(target("a"), "latest");
        assert_eq!(target("a:b"), "b");
        assert_eq!(target(&format!("a:b@{SHA}")), SHA);
    }
}
