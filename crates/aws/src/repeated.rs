//! Calls that are sent again, with the token of the first: the same once more makes nothing more, and another with its token is refused.
//! <https://docs.aws.amazon.com/ec2/latest/devguide/ec2-api-idempotency.html>

use object::{Resource, Time};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::state::{self, Record};
use crate::{Answer, Context, Fault};

/// How long a token is remembered.
const REMEMBERED_SECONDS: i64 = 86_400;

/// A call that had a token. It is named by the digest of its operation and token.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Seen {
    /// Of the whole input, but for `DryRun`.
    digest: String,
    at: Time,
    /// What it gave; null if the operation tells again how things are.
    output: Value,
}

impl Record for Seen {
    const RESOURCE: Resource = Resource::new("client-tokens");
}

/// Whether a call that is sent again gets what it got, or looks for itself what it has made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Again {
    SameAnswer,
    Looks,
}

/// How a service has its tokens.
pub struct Tokens {
    /// `ClientToken`, `clientRequestToken`
    pub member: &'static str,
    /// What is said of another call with a token that was seen.
    pub mismatch: fn() -> Fault,
}

type Run = fn(&mut Context, &Value) -> Result<Answer, Fault>;

/// Runs a call once for its token, which is another one with another operation.
pub fn once(
    operation: &'static str,
    context: &mut Context,
    input: &Value,
    tokens: &Tokens,
    again: Again,
    run: Run,
) -> Result<Answer, Fault> {
    let token = input[tokens.member].as_str().unwrap_or_default();
    if token.is_empty() {
        return run(context, input);
    }
    let mut meant = input.clone();
    meant.as_object_mut().map(|members| members.remove("DryRun"));
    let (name, digest) = (hex(&format!("{operation}:{token}")), hex(&meant.to_string()));
    let old = |seen: &Seen| context.now.secs_since(seen.at) >= REMEMBERED_SECONDS;
    let known = state::get::<Seen>(context.state, "", &name);
    if let Some(seen) = known.as_ref().map(|kept| &kept.record).filter(|seen| !old(seen)) {
        if seen.digest != digest {
            return Err((tokens.mismatch)());
        }
        if again == Again::SameAnswer {
            return Ok(Answer::read(seen.output.clone()));
        }
        return run(context, input);
    }
    let forgotten: Vec<_> =
        state::list::<Seen>(context.state, "").into_iter().filter(|kept| old(&kept.record)).collect();
    let mut answer = run(context, input)?;
    let output = if again == Again::SameAnswer { answer.output.clone() } else { Value::Null };
    let seen = Seen { digest, at: context.now, output };
    match known {
        Some(mut kept) => {
            kept.record = seen;
            answer.changes.update(&kept);
        }
        None => answer.changes.create("", &name, &seen),
    }
    forgotten.iter().filter(|kept| *kept.key.name != *name).for_each(|kept| answer.changes.delete(kept));
    Ok(answer)
}

fn hex(text: &str) -> String {
    digest(&SHA256, text.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
