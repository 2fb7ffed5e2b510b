use object::Resource;
use schema::{At, Kind, Strategy, Violation, names, path};
use serde_json::Value;

use crate::column::{AGE, NAME, column, text};
use crate::config_map::{VALUES_MAX_BYTES, sealed};
use crate::spec::check::{self, Found};
use crate::{row, strategy};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

pub const SECRETS: Resource = Resource::new("secrets");

pub static KIND: Kind = Kind {
    resource: SECRETS,
    group: "",
    version: "v1",
    kind: "Secret",
    singular: "secret",
    namespaced: true,
    type_name: "core.v1.Secret",
    columns: &[
        NAME,
        column("Type", "string", "What its entries are for.", |object, _| text(object, "type")),
        column("Data", "string", "How many entries it has.", |object, _| {
            path::members(object, "data").count().into()
        }),
        AGE,
    ],
    selectable: &["type"],
    strategy: Strategy { prepare, ..strategy::PLAIN },
    default,
    validate,
    ..row::BASE
};

const ACCOUNT: &str = "kubernetes.io/service-account.name";

/// An update that names no type keeps the stored one.
fn prepare(secret: &mut Value, old: Option<&Value>) {
    if let Some(old) = old
        && path::text(secret, "type").is_empty()
    {
        secret["type"] = old["type"].clone();
    }
}

/// `stringData` is written into `data`, and never kept.
fn default(secret: &mut Value) {
    let Some(plain) = path::remove(secret, "stringData") else { return };
    for (key, value) in plain.as_object().into_iter().flatten() {
        let value = STANDARD.encode(value.as_str().unwrap_or_default());
        secret["data"][key.as_str()] = value.into();
    }
}

fn validate(secret: &Value, old: Option<&Value>) -> Vec<Violation> {
    let mut found = Vec::new();
    let at = At::root("data");
    let mut bytes = 0;
    for (key, value) in path::members(secret, "data") {
        found.extend(Violation::all_invalid(at.key(key), key, names::config_key(key)));
        bytes += check::base64_len(value);
    }
    if bytes > VALUES_MAX_BYTES {
        found.push(Violation::too_long(at, VALUES_MAX_BYTES));
    }
    typed(secret, at, &mut found);
    if let Some(old) = old {
        check::immutable(secret, old, "type", At::root(""), &mut found);
        sealed(secret, old, &["data"], &mut found);
    }
    found
}

/// The entries that some types must have.
fn typed(secret: &Value, at: At<'_>, found: &mut Found) {
    let data = secret.get("data").unwrap_or(&Value::Null);
    let mut need = |key: &str, may_be_empty: bool| match data.get(key).and_then(Value::as_str) {
        Some(value) if may_be_empty || !value.is_empty() => {}
        _ => found.push(Violation::required(at.key(key), "")),
    };
    match path::text(secret, "type") {
        "kubernetes.io/service-account-token" => {
            let annotations = path::get(secret, "metadata.annotations");
            let account = annotations.and_then(|all| all.get(ACCOUNT)?.as_str()).unwrap_or_default();
            if account.is_empty() {
                found.push(Violation::required(At::root("metadata.annotations").key(ACCOUNT), ""));
            }
        }
        "kubernetes.io/dockercfg" => json_entry(data, ".dockercfg", at, found),
        "kubernetes.io/dockerconfigjson" => json_entry(data, ".dockerconfigjson", at, found),
        "kubernetes.io/basic-auth" if data.get("username").is_none() && data.get("password").is_none() => {
            need("username", true);
            need("password", true);
        }
        "kubernetes.io/ssh-auth" => need("ssh-privatekey", false),
        "kubernetes.io/tls" => {
            need("tls.crt", true);
            need("tls.key", true);
        }
        _ => {}
    }
}

fn json_entry(data: &Value, key: &str, at: At<'_>, found: &mut Found) {
    let Some(text) = data.get(key).and_then(Value::as_str) else {
        found.push(Violation::required(at.key(key), ""));
        return;
    };
    let bytes = STANDARD.decode(text).unwrap_or_default();
    if let Err(error) = serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes) {
        // Where the text is wrong may be told, what it says may not.
        let detail = format!("not a JSON object: line {} column {}", error.line(), error.column());
        found.push(Violation::invalid(at.key(key), "<secret contents redacted>", detail));
    }
}
