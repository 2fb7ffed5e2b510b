//! `EncryptionConfiguration` of `apiserver.config.k8s.io/v1`, with upstream's rules for what it may say.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use super::cipher::Cipher;
use super::kms::Kms;
use super::{Group, Pattern, Provider, Rules};

const API_VERSION: &str = "apiserver.config.k8s.io/v1";
const KIND: &str = "EncryptionConfiguration";

/// What is wrong with a configuration, and where. It never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}")]
pub struct ConfigError {
    pub at: String,
    pub what: String,
}

fn wrong(at: impl Into<String>, what: impl Into<String>) -> ConfigError {
    ConfigError { at: at.into(), what: what.into() }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    api_version: String,
    kind: String,
    #[serde(default)]
    resources: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    providers: Vec<Choice>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Choice {
    aesgcm: Option<Keys>,
    aescbc: Option<Keys>,
    secretbox: Option<Keys>,
    identity: Option<Empty>,
    kms: Option<KmsView>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(default)]
    keys: Vec<NamedKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedKey {
    #[serde(default)]
    name: String,
    #[serde(default)]
    secret: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KmsView {
    #[serde(rename = "apiVersion", default)]
    api_version: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    endpoint: String,
    #[serde(default)]
    timeout: Option<String>,
    #[serde(default)]
    #[expect(dead_code, reason = "of v1 only, and allowed to stand there")]
    cachesize: Option<i64>,
}

pub(super) fn parse(text: &Value) -> Result<Rules, ConfigError> {
    // What serde says of a value may be a part of a secret: only where it stands is told.
    let document = Document::deserialize(text).map_err(|error| wrong("the document", kind_of(&error)))?;
    if (&*document.api_version, &*document.kind) != (API_VERSION, KIND) {
        let found = format!("{} {}", document.api_version, document.kind);
        return Err(wrong("the document", format!("it is a {found}, not a {API_VERSION} {KIND}")));
    }
    if document.resources.is_empty() {
        return Err(wrong("resources", "at least one is required"));
    }
    let mut names = HashSet::new();
    let mut groups = Vec::new();
    for (index, entry) in document.resources.into_iter().enumerate() {
        groups.push(group(entry, &format!("resources[{index}]"), &mut names)?);
    }
    Ok(Rules { groups })
}

/// A message of serde without the values that it quotes.
fn kind_of(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.split_once('`') {
        Some((_, rest)) if message.starts_with("unknown field") => {
            format!("unknown field {:?}", rest.split('`').next().unwrap_or_default())
        }
        Some((_, rest)) if message.starts_with("missing field") => {
            format!("missing field {:?}", rest.split('`').next().unwrap_or_default())
        }
        _ => "a value is of another type than it should be".to_owned(),
    }
}

fn group(entry: Entry, at: &str, kms_names: &mut HashSet<String>) -> Result<Group, ConfigError> {
    if entry.resources.is_empty() {
        return Err(wrong(format!("{at}.resources"), "at least one is required"));
    }
    let mut resources = Vec::new();
    for (index, resource) in entry.resources.into_iter().enumerate() {
        let at = format!("{at}.resources[{index}]");
        resources.push(pattern(resource).map_err(|what| wrong(at, what))?);
    }
    if entry.providers.is_empty() {
        return Err(wrong(format!("{at}.providers"), "at least one is required"));
    }
    let mut providers = Vec::new();
    for (index, choice) in entry.providers.into_iter().enumerate() {
        let at = format!("{at}.providers[{index}]");
        let Choice { aesgcm, aescbc, secretbox, identity, kms } = choice;
        let given =
            [aesgcm.is_some(), aescbc.is_some(), secretbox.is_some(), identity.is_some(), kms.is_some()];
        if given.iter().filter(|given| **given).count() != 1 {
            return Err(wrong(at, "exactly one provider is required in each item of the list"));
        }
        if let Some(keys) = aesgcm {
            local(&mut providers, keys, "aesgcm", "16, 24 or 32", &at, Cipher::gcm)?;
        }
        if let Some(keys) = aescbc {
            local(&mut providers, keys, "aescbc", "16, 24 or 32", &at, Cipher::cbc)?;
        }
        if let Some(keys) = secretbox {
            local(&mut providers, keys, "secretbox", "32", &at, Cipher::secretbox)?;
        }
        if identity.is_some() {
            providers.push(Provider::Identity);
        }
        if let Some(view) = kms {
            providers.push(of_kms(view, &at, kms_names)?);
        }
    }
    Ok(Group { resources, providers })
}

fn pattern(text: String) -> Result<Pattern, String> {
    if text.is_empty() || text.contains('/') || text.chars().any(char::is_uppercase) {
        return Err(format!("{text:?} is no resource: write secrets, deployments.apps, *.apps, *. or *.*"));
    }
    match text.strip_prefix("*.") {
        Some("*") => Ok(Pattern::All),
        Some(group) if !group.contains('*') => Ok(Pattern::Group(group.to_owned())),
        None if !text.contains('*') => Ok(Pattern::One(text)),
        _ => Err(format!("{text:?} has a wildcard where none can be: write *.apps, *. or *.*")),
    }
}

fn local(
    providers: &mut Vec<Provider>,
    keys: Keys,
    kind: &str,
    lengths: &str,
    at: &str,
    cipher: fn(&[u8]) -> Option<Cipher>,
) -> Result<(), ConfigError> {
    let at = format!("{at}.{kind}.keys");
    if keys.keys.is_empty() {
        return Err(wrong(at, "at least one is required"));
    }
    for (index, key) in keys.keys.into_iter().enumerate() {
        let at = format!("{at}[{index}]");
        if key.name.is_empty() || key.name.contains(':') {
            return Err(wrong(format!("{at}.name"), "a name without colons is required"));
        }
        let secret =
            STANDARD.decode(&key.secret).map_err(|_| wrong(format!("{at}.secret"), "it is no base64"))?;
        let cipher = cipher(&secret).ok_or_else(|| {
            let what = format!("the key has {} bytes; it should have {lengths}", secret.len());
            wrong(format!("{at}.secret"), what)
        })?;
        let prefix = format!("k8s:enc:{kind}:v1:{}:", key.name).into_bytes().into_boxed_slice();
        if providers.iter().any(|known| known.prefix() == &*prefix) {
            return Err(wrong(format!("{at}.name"), format!("{:?} stands here twice", key.name)));
        }
        providers.push(Provider::Local { prefix, cipher });
    }
    Ok(())
}

fn of_kms(view: KmsView, at: &str, names: &mut HashSet<String>) -> Result<Provider, ConfigError> {
    let at = format!("{at}.kms");
    if view.api_version != "v2" {
        let what = "only v2 is served (v1 is deprecated since 1.28 and off by default upstream)";
        return Err(wrong(format!("{at}.apiVersion"), what));
    }
    if view.name.is_empty() || view.name.contains(':') {
        return Err(wrong(format!("{at}.name"), "a name without colons is required"));
    }
    if !names.insert(view.name.clone()) {
        return Err(wrong(format!("{at}.name"), format!("{:?} stands here twice", view.name)));
    }
    let Some(path) = view.endpoint.strip_prefix("unix://").filter(|path| path.starts_with('/')) else {
        return Err(wrong(format!("{at}.endpoint"), "it should look like unix:///run/kms.sock"));
    };
    let timeout = match &view.timeout {
        None => Duration::from_secs(3),
        Some(text) => seconds(text)
            .ok_or_else(|| wrong(format!("{at}.timeout"), "it should be a positive duration like 3s"))?,
    };
    let kms = Kms::new(&view.name, path, timeout).map_err(|what| wrong(format!("{at}.endpoint"), what))?;
    let prefix = format!("k8s:enc:kms:v2:{}:", view.name).into_bytes().into_boxed_slice();
    Ok(Provider::Kms { prefix, kms: Arc::new(kms) })
}

/// `3s`, `500ms`, `1m`
fn seconds(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok().filter(|number| *number > 0)?;
    match &text[digits..] {
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_secs(number.checked_mul(60)?)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(resources: Value, expected: Result<(), &str>) {
        let text = json!({"apiVersion": API_VERSION, "kind": KIND, "resources": resources});
        let found = parse(&text).map(drop).map_err(|error| error.to_string());
        match (&found, expected) {
            (Ok(()), Ok(())) => {}
            (Err(found), Err(expected)) if found.contains(expected) => {}
            _ => panic!("{found:?} instead of {expected:?} for {resources}"),
        }
    }

    #[test]
    fn what_a_configuration_may_say() {
        let key = |bytes: usize| json!({"keys": [{"name": "k", "secret": STANDARD.encode(vec![7; bytes])}]});
        let of = |providers: Value| json!([{"resources": ["secrets"], "providers": providers}]);
        check(
            of(json!([{"aesgcm": key(16)}, {"aescbc": key(24)}, {"secretbox": key(32)}, {"identity": {}}])),
            Ok(()),
        );
        check(
            of(json!([{"aesgcm": key(15)}])),
            Err("resources[0].providers[0].aesgcm.keys[0].secret: the key has 15 bytes"),
        );
        check(of(json!([{"secretbox": key(16)}])), Err("it should have 32"));
        check(of(json!([{"aesgcm": {"keys": [{"name": "k", "secret": "???"}]}}])), Err("it is no base64"));
        check(
            of(json!([{"aesgcm": {"keys": [{"name": "a:b", "secret": ""}]}}])),
            Err("a name without colons"),
        );
        check(of(json!([{"aesgcm": key(16)}, {"aesgcm": key(16)}])), Err("\"k\" stands here twice"));
        check(of(json!([{"aesgcm": key(16), "identity": {}}])), Err("exactly one provider"));
        check(of(json!([{"rot13": {}}])), Err("unknown field \"rot13\""));
        check(of(json!([])), Err("resources[0].providers: at least one"));
        check(json!([]), Err("resources: at least one"));
        for (resource, expected) in [
            ("deployments.apps", Ok(())),
            ("*.apps", Ok(())),
            ("*.", Ok(())),
            ("*.*", Ok(())),
            ("*", Err("a wildcard where none can be")),
            ("secrets.*", Err("a wildcard where none can be")),
            ("pods/status", Err("is no resource")),
            ("", Err("is no resource")),
        ] {
            check(json!([{"resources": [resource], "providers": [{"identity": {}}]}]), expected);
        }
        let kms = |version: &str, endpoint: &str| {
            of(json!([{"kms": {"apiVersion": version, "name": "k", "endpoint": endpoint}}]))
        };
        check(kms("v1", "unix:///run/kms.sock"), Err("only v2 is served"));
        check(kms("v2", "tcp://a"), Err("it should look like unix:///run/kms.sock"));
        let secret = json!({"apiVersion": API_VERSION, "kind": KIND, "resources": "c2VjcmV0"});
        let told = parse(&secret).map(drop).expect_err("refused").to_string();
        assert!(!told.contains("c2VjcmV0"), "{told}");
    }

    #[test]
    fn the_first_entry_that_is_about_a_resource_holds() {
        let entry = |resource: &str| json!({"resources": [resource], "providers": [{"identity": {}}]});
        let text = json!({"apiVersion": API_VERSION, "kind": KIND,
            "resources": [entry("secrets"), entry("*.apps"), entry("*."), entry("*.example.com")]});
        let rules = parse(&text).expect("a configuration");
        for (resource, expected) in [
            ("secrets", Some(0)),
            ("deployments.apps", Some(1)),
            ("configmaps", Some(2)),
            ("widgets.example.com", Some(3)),
            ("jobs.batch", None),
        ] {
            let group = rules.group(object::Resource::new(resource));
            let index = group.and_then(|group| rules.groups.iter().position(|one| std::ptr::eq(one, group)));
            assert_eq!(index, expected, "{resource}");
        }
    }
}
