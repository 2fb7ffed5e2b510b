//! Calls that are repeated: a call with a `clientRequestToken` that was seen gives what it gave the first time.

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Which call made a thing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub token: String,
    /// Of the whole input.
    pub digest: String,
}

impl Request {
    pub fn of(input: &Value) -> Self {
        let token = input["clientRequestToken"].as_str().unwrap_or_default().to_owned();
        // Objects keep their members in order of name, so that equal inputs have equal texts.
        let digest = digest(&SHA256, input.to_string().as_bytes());
        Self { token, digest: digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect() }
    }

    /// Whether `input` is the same call once more.
    pub fn is_repeated_by(&self, input: &Value) -> bool {
        let other = Self::of(input);
        !self.token.is_empty() && *self == other
    }
}
