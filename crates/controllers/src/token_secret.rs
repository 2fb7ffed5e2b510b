//! Fills Secrets of type `kubernetes.io/service-account-token` for the accounts that they name, and takes them away with those.
//!
//! <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/#token-controller>

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kinds::{SECRETS, SERVICE_ACCOUNTS};
use object::{Change, Event, Key, Object, Snapshot, Time};
use plan::Plan;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::writes::{delete, merge};
use crate::{Controller, Settings, Watch};

pub static CONTROLLER: Controller = Controller {
    name: "serviceaccount-token-controller",
    user: "system:kube-controller-manager",
    watches: &[
        Watch { resource: SECRETS, keys: of_token },
        Watch { resource: SERVICE_ACCOUNTS, keys: of_account },
    ],
    reconcile,
    refused: None,
    resync_secs: None,
};

const TYPE: &str = "kubernetes.io/service-account-token";
const NAME: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";

#[derive(Default, Deserialize)]
#[serde(default)]
struct View {
    metadata: MetadataView,
    r#type: String,
    data: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MetadataView {
    annotations: Option<BTreeMap<String, String>>,
}

/// A Secret that holds, or is to hold, the token of an account.
pub(crate) struct TokenSecret {
    /// The account's, of the Secret's namespace.
    name: String,
    /// Empty: whichever account has the name.
    uid: String,
    data: BTreeMap<String, String>,
}

impl TokenSecret {
    /// None: it is of another type, or names no account.
    pub(crate) fn of(secret: &Object) -> Option<Self> {
        let View { metadata, r#type, data } = secret.decode().ok()?;
        let mut annotations = metadata.annotations.filter(|_| r#type == TYPE)?;
        let name = annotations.remove(NAME).filter(|name| !name.is_empty())?;
        let uid = annotations.remove(UID).unwrap_or_default();
        Some(Self { name, uid, data: data.unwrap_or_default() })
    }

    pub(crate) fn account<'a>(&self, snapshot: &'a Snapshot, namespace: &str) -> Option<&'a Object> {
        let account = snapshot.find(SERVICE_ACCOUNTS, namespace, &self.name)?;
        (self.uid.is_empty() || *account.meta.uid == *self.uid).then_some(account)
    }
}

pub(crate) fn of_token(_: &Snapshot, event: &Event) -> Vec<Key> {
    TokenSecret::of(&event.object).map(|_| event.key().clone()).into_iter().collect()
}

/// An account that went, or that took another's place, leaves Secrets behind.
fn of_account(snapshot: &Snapshot, event: &Event) -> Vec<Key> {
    let account = event.key();
    let replaced = event.previous.as_ref().is_some_and(|previous| previous.meta.uid != event.object.meta.uid);
    if event.change != Change::Deleted && !replaced {
        return Vec::new();
    }
    let secrets = snapshot.list(SECRETS, &account.namespace);
    let its =
        secrets.filter(|secret| TokenSecret::of(secret).is_some_and(|held| *held.name == *account.name));
    its.map(|secret| secret.key.clone()).collect()
}

fn reconcile(snapshot: &Snapshot, key: &Key, _: Time, settings: &Settings) -> Plan {
    let Some(secret) = snapshot.get(key) else { return forgotten(snapshot, key) };
    let mut plan = Plan::default();
    let Some(held) = TokenSecret::of(secret) else { return plan };
    match held.account(snapshot, &key.namespace) {
        Some(account) => {
            plan.writes.extend(filled(secret, &held, account, settings).map(|patch| merge(secret, patch)));
        }
        None if secret.meta.is_deleting() => {}
        None => plan.write(delete(secret)),
    }
    plan
}

/// What a Secret lacks, as a merge patch.
fn filled(secret: &Object, held: &TokenSecret, account: &Object, settings: &Settings) -> Option<Value> {
    let lacks = |name: &str| held.data.get(name).is_none_or(String::is_empty);
    let mut data = Map::new();
    let ca = STANDARD.encode(&settings.ca_pem);
    if !ca.is_empty() && held.data.get("ca.crt") != Some(&ca) {
        data.insert("ca.crt".into(), ca.into());
    }
    if lacks("namespace") {
        data.insert("namespace".into(), STANDARD.encode(&*secret.key.namespace).into());
    }
    if lacks("token") {
        let token = settings.tokens.as_ref().and_then(|tokens| tokens.of_secret(account, secret));
        data.extend(token.map(|token| ("token".into(), STANDARD.encode(token).into())));
    }
    let annotations = json!({NAME: &*account.key.name, UID: &*account.meta.uid});
    (!data.is_empty()).then(|| json!({"metadata": {"annotations": annotations}, "data": data}))
}

/// A Secret that is gone is no longer among an account's own.
fn forgotten(snapshot: &Snapshot, key: &Key) -> Plan {
    let mut plan = Plan::default();
    for account in snapshot.list(SERVICE_ACCOUNTS, &key.namespace) {
        if !access::service_account::names_secret(account, &key.name) {
            continue;
        }
        let Ok(Value::Array(mut named)) = account.to_value().map(|mut account| account["secrets"].take())
        else {
            continue;
        };
        named.retain(|one| one["name"].as_str() != Some(&key.name));
        let named = if named.is_empty() { Value::Null } else { named.into() };
        plan.write(merge(account, json!({"secrets": named})));
    }
    plan
}
