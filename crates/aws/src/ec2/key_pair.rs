//! Key pairs. The public part is kept; a private one is made nowhere, so new pairs are imported.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::noun::{invalid, lacking, show_tags, tags_for, text, texts, unsupported};
use super::record::KeyPair;
use crate::state::{self, Changes, Kept};
use crate::{Answer, Context, Fault};

/// The pair of a name.
pub fn by_name(context: &Context, name: &str) -> Option<Kept<KeyPair>> {
    state::list::<KeyPair>(context.state, "").into_iter().find(|pair| pair.record.key_name == name)
}

fn no_pair(name: &str) -> Fault {
    Fault::new("InvalidKeyPair.NotFound", format!("The key pair '{name}' does not exist"))
}

/// Whether a name may be handed to an instance.
pub fn check(context: &Context, name: &str) -> Result<(), Fault> {
    by_name(context, name).map(drop).ok_or_else(|| no_pair(name))
}

pub fn create(_: &mut Context, _: &Value) -> Result<Answer, Fault> {
    Err(unsupported(
        "making of private keys: make one with ssh-keygen and import its public part (ImportKeyPair)",
    ))
}

pub fn import(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let name = text(input, "KeyName");
    if name.is_empty() {
        return Err(lacking("KeyName"));
    }
    if by_name(context, name).is_some() {
        return Err(Fault::new("InvalidKeyPair.Duplicate", format!("The keypair '{name}' already exists.")));
    }
    let malformed = || Fault::new("InvalidKey.Format", "Key is not in valid OpenSSH public key format");
    let key = STANDARD.decode(text(input, "PublicKeyMaterial")).map_err(|_| malformed())?;
    let key = String::from_utf8(key).map_err(|_| malformed())?;
    let mut words = key.split_whitespace();
    let key_type = match words.next() {
        Some("ssh-ed25519") => "ed25519",
        Some("ssh-rsa") => "rsa",
        _ => return Err(malformed()),
    };
    let blob = STANDARD.decode(words.next().unwrap_or_default()).map_err(|_| malformed())?;
    if blob.is_empty() {
        return Err(invalid("Length exceeds maximum of 2048, or there is no key"));
    }
    let pair = KeyPair {
        key_pair_id: context.ids.resource("key"),
        key_name: name.to_owned(),
        fingerprint: STANDARD.encode(digest(&SHA256, &blob)),
        key_type: key_type.to_owned(),
        public_key: key.trim().to_owned(),
        created: context.now,
        tags: tags_for(input, "key-pair", &[])?,
    };
    let mut changes = Changes::default();
    changes.create("", &pair.key_pair_id, &pair);
    let output = json!({
        "KeyName": pair.key_name, "KeyPairId": pair.key_pair_id, "KeyFingerprint": pair.fingerprint,
        "Tags": show_tags(&pair.tags),
    });
    Ok(Answer::write(output, changes))
}

pub fn show(pair: &KeyPair, _: &Context) -> Value {
    json!({
        "KeyName": pair.key_name, "KeyPairId": pair.key_pair_id, "KeyFingerprint": pair.fingerprint,
        "KeyType": pair.key_type, "CreateTime": pair.created, "Tags": show_tags(&pair.tags),
    })
}

/// Pairs can be asked for by name, and show their key if that is asked for.
pub fn describe(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let names = texts(input, "KeyNames");
    if let Some(name) = names.iter().find(|name| by_name(context, name).is_none()) {
        return Err(no_pair(name));
    }
    let mut shown = super::noun::described::<KeyPair>(context, input)?;
    shown.retain(|pair| names.is_empty() || names.contains(&text(pair, "KeyName")));
    if input["IncludePublicKey"] == true {
        for pair in &mut shown {
            pair["PublicKey"] =
                json!(by_name(context, text(pair, "KeyName")).map(|one| one.record.public_key));
        }
    }
    Ok(Answer::read(json!({"KeyPairs": shown})))
}

/// One that is not there is deleted, too, as on AWS.
pub fn delete(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let found = match text(input, "KeyPairId") {
        "" => by_name(context, text(input, "KeyName")),
        id => state::get::<KeyPair>(context.state, "", id),
    };
    let mut changes = Changes::default();
    found.iter().for_each(|pair| changes.delete(pair));
    let id = found.map(|pair| pair.record.key_pair_id);
    Ok(Answer::write(json!({"Return": true, "KeyPairId": id}), changes))
}
