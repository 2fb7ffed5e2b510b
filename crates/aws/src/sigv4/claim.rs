use object::Time;

use super::{ALGORITHM, EXPIRES_LIMIT, Message};
use crate::Fault;
use crate::wire::percent;

/// What a message claims about its signature; nothing of it is verified.
#[derive(Clone)]
pub struct Signature {
    pub access_key_id: String,
    /// `20261123`
    pub date: String,
    pub region: String,
    pub service: String,
    pub terminator: String,
    /// In lower case, in the order given.
    pub signed_headers: Vec<String>,
    /// 64 hex digits.
    pub signature: String,
    /// `20261123T042243Z`
    pub time_text: String,
    pub time: Time,
    /// Seconds that a presigned URL lives; none if the signature is in the headers.
    pub expires: Option<i64>,
    /// The session token.
    pub token: Option<String>,
}

impl Signature {
    /// The signature of a message; none if it has none.
    pub fn of(message: &Message) -> Result<Option<Self>, Fault> {
        if let Some(header) = message.header("authorization") {
            return Self::of_header(message, header).map(Some);
        }
        let pairs = percent::pairs(message.query)
            .ok_or_else(|| incomplete("The query is not percent-encoded UTF-8"))?;
        let get = |name: &str| {
            pairs.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
        };
        match get("X-Amz-Algorithm") {
            Some(algorithm) => Self::of_query(algorithm, get).map(Some),
            None => Ok(None),
        }
    }

    fn of_header(message: &Message, header: &str) -> Result<Self, Fault> {
        let (algorithm, rest) = header.split_once(' ').unwrap_or((header, ""));
        if algorithm != ALGORITHM {
            return Err(incomplete(&format!(
                "Unsupported AWS 'algorithm': '{}'. It should be {ALGORITHM}",
                clip(algorithm)
            )));
        }
        let part = |name: &str| {
            let parts = rest.split(',').filter_map(|part| part.trim().split_once('='));
            parts.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let date = message.header("x-amz-date").or_else(|| message.header("date"));
        let (credential, signed, signature) = (part("Credential"), part("SignedHeaders"), part("Signature"));
        let missing: Vec<String> =
            [("Credential", credential), ("Signature", signature), ("SignedHeaders", signed)]
                .into_iter()
                .filter(|(_, value)| value.is_none_or(str::is_empty))
                .map(|(name, _)| format!("Authorization header requires '{name}' parameter."))
                .chain(date.is_none().then(|| {
                    "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header."
                        .to_owned()
                }))
                .collect();
        let (Some(credential), Some(signed), Some(signature), Some(date), true) =
            (credential, signed, signature, date, missing.is_empty())
        else {
            return Err(incomplete(&missing.join(" ")));
        };
        let token = message.header("x-amz-security-token");
        Self::of_parts(credential, signed, signature, date, None, token)
    }

    fn of_query<'a>(algorithm: &str, get: impl Fn(&str) -> Option<&'a str>) -> Result<Self, Fault> {
        if algorithm != ALGORITHM {
            return Err(incomplete(&format!(
                "AWS query-string parameters must include a valid 'X-Amz-Algorithm': {ALGORITHM}"
            )));
        }
        let need = |name: &'static str| {
            let value = get(name).filter(|value| !value.is_empty());
            value.ok_or_else(|| incomplete(&format!("AWS query-string parameters must include '{name}'.")))
        };
        let expires = need("X-Amz-Expires")?
            .parse::<i64>()
            .ok()
            .filter(|seconds| (0..=EXPIRES_LIMIT).contains(seconds));
        let expires = expires.ok_or_else(|| {
            incomplete(&format!("X-Amz-Expires must be a number of seconds from 0 to {EXPIRES_LIMIT}"))
        })?;
        Self::of_parts(
            need("X-Amz-Credential")?,
            need("X-Amz-SignedHeaders")?,
            need("X-Amz-Signature")?,
            need("X-Amz-Date")?,
            Some(expires),
            get("X-Amz-Security-Token"),
        )
    }

    fn of_parts(
        credential: &str,
        signed_headers: &str,
        signature: &str,
        time_text: &str,
        expires: Option<i64>,
        token: Option<&str>,
    ) -> Result<Self, Fault> {
        let parts: Vec<&str> = credential.split('/').collect();
        let [access_key_id, date, region, service, terminator] = parts[..] else {
            return Err(incomplete(&format!(
                "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '{}'",
                clip(credential)
            )));
        };
        let time = read_basic(time_text).ok_or_else(|| {
            incomplete(&format!("Date must be in ISO-8601 'basic format'. Got '{}'.", clip(time_text)))
        })?;
        Ok(Self {
            access_key_id: access_key_id.to_owned(),
            date: date.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
            terminator: terminator.to_owned(),
            signed_headers: signed_headers.split(';').map(str::to_ascii_lowercase).collect(),
            signature: signature.to_owned(),
            time_text: time_text.to_owned(),
            time,
            expires,
            token: token.map(str::to_owned),
        })
    }
}

fn incomplete(message: &str) -> Fault {
    Fault::new("IncompleteSignature", message)
}

/// What is repeated to the sender of it has an end.
fn clip(text: &str) -> String {
    text.chars().take(100).collect()
}

/// The moment of `20261123T042243Z`.
fn read_basic(text: &str) -> Option<Time> {
    let is_basic = text.len() == 16 && text.is_ascii() && &text[8..9] == "T" && text.ends_with('Z');
    if !is_basic {
        return None;
    }
    let (date, time) = (&text[..8], &text[9..15]);
    format!("{}-{}-{}T{}:{}:{}Z", &date[..4], &date[4..6], &date[6..], &time[..2], &time[2..4], &time[4..])
        .parse()
        .ok()
}
