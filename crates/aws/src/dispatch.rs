//! One call, from its bytes to its answer.

use bytes::Bytes;
use http::{Request, Response};
use object::{Snapshot, Time};
use serde_json::{Value, json};

use crate::model::{self, Model, Protocol};
use crate::sigv4::{self, Message, Scope, Signature};
use crate::state::Changes;
use crate::wire::{self, Asked, Family};
use crate::{Answer, Caller, Context, Fault, Ids, Operation, Origin, SERVICES, Service, authorize};

/// The account that is asked, at one moment.
pub struct World<'a> {
    /// Twelve digits.
    pub account: &'a str,
    /// `us-east-1`
    pub region: &'a str,
    pub now: Time,
    /// At least as new as everything that was answered before.
    pub state: &'a Snapshot,
}

/// What becomes of a request.
pub struct Reply {
    /// To be sent when the changes are made.
    pub response: Response<Bytes>,
    /// One transaction. If a precondition fails, the request is answered anew.
    pub changes: Changes,
    /// For the log: `eks:CreateCluster`, who asked, and what it came to (`OK`, `ResourceInUseException`).
    pub line: Line,
}

/// What the log says about a call.
#[derive(Debug, Default)]
pub struct Line {
    pub action: String,
    pub caller: String,
    pub result: String,
}

/// Services that have one endpoint for all regions, or had one.
const GLOBAL: &[&str] = &["iam", "sts"];
const GLOBAL_REGION: &str = "us-east-1";

/// Answers a request: who signed it, what it asks, whether they may, and what comes of it.
pub fn answer(world: &World, ids: &mut Ids, request: &Request<Bytes>) -> Reply {
    let request_id = ids.uuid();
    let mut line = Line::default();
    let wants_json = wire::wants_json(request);
    let message = Message::of(request);
    let (model, signature) = match find_service(&message, request) {
        Ok(found) => found,
        Err(fault) => {
            let response = wire::error(None, guess(request), &fault, &request_id, wants_json);
            line.result = fault.code;
            return Reply { response, changes: Changes::default(), line };
        }
    };
    match call_of(world, ids, request, &message, model, signature.as_ref(), &mut line) {
        Ok((asked, answer)) => {
            line.result = "OK".to_owned();
            let response = wire::output(model, asked.operation, &answer.output, &request_id, wants_json);
            Reply { response, changes: answer.changes, line }
        }
        Err(fault) => {
            let response = wire::error(Some(model), model.protocol, &fault, &request_id, wants_json);
            line.result = fault.code;
            Reply { response, changes: Changes::default(), line }
        }
    }
}

/// The answer to a request that is not looked at any further, in the words of the service that its signature names.
pub fn refusal(request: &Request<Bytes>, fault: &Fault, ids: &mut Ids) -> Response<Bytes> {
    let signature = Signature::of(&Message::of(request)).ok().flatten();
    let model = signature.and_then(|signature| model::of(&signature.service));
    let protocol = model.map_or_else(|| guess(request), |model| model.protocol);
    wire::error(model, protocol, fault, &ids.uuid(), wire::wants_json(request))
}

/// The service that a request is for, and its signature: by the signature's scope, or by an action that nobody signs.
fn find_service(
    message: &Message,
    request: &Request<Bytes>,
) -> Result<(&'static Model, Option<Signature>), Fault> {
    if let Some(signature) = Signature::of(message)? {
        let model = model::of(&signature.service).ok_or_else(|| {
            let text =
                format!("Ekso has no service '{}'", signature.service.chars().take(64).collect::<String>());
            Fault::new("UnsupportedOperation", text)
        })?;
        return Ok((model, Some(signature)));
    }
    let missing = || Fault::new("MissingAuthenticationToken", "Missing Authentication Token");
    let action = wire::action(request).ok_or_else(missing)?;
    let unsigned = model::names().filter_map(model::of).find(|model| {
        model.protocol == Protocol::Query
            && model.operation(&action).is_some_and(|operation| operation.is_unsigned)
    });
    Ok((unsigned.ok_or_else(missing)?, None))
}

/// How a client whose service nobody knows would like its errors.
fn guess(request: &Request<Bytes>) -> Protocol {
    let header =
        |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match () {
        () if !header("x-amz-target").is_empty() => Protocol::Json11,
        () if header("content-type").contains("json") || request.uri().path().len() > 1 => Protocol::RestJson,
        () => Protocol::Query,
    }
}

fn call_of(
    world: &World,
    ids: &mut Ids,
    request: &Request<Bytes>,
    message: &Message,
    model: &'static Model,
    signature: Option<&Signature>,
    line: &mut Line,
) -> Result<(Asked, Answer), Fault> {
    let mut caller = match signature {
        Some(signature) => {
            let mut regions = vec![world.region];
            regions.extend(GLOBAL.contains(&model.signing_name).then_some(GLOBAL_REGION));
            let scope = Scope { service: model.signing_name, regions: &regions };
            sigv4::verify(world.state, world.now, &scope, message, signature)?
        }
        None => Caller::default(),
    };
    caller.origin = origin(request);
    line.caller.clone_from(&caller.arn);
    let asked = wire::operation(model, request)?;
    line.action = format!("{}:{}", model.signing_name, asked.operation.name);
    let input = wire::input(model, &asked, request)?;
    let answer = run(world, ids, &caller, model, asked.operation.name, &input)?;
    Ok((asked, answer))
}

/// What whoever took the request in says of its connection, and what the client says of itself.
fn origin(request: &Request<Bytes>) -> Origin {
    let mut origin = request.extensions().get::<Origin>().cloned().unwrap_or_default();
    let agent = request.headers().get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    origin.user_agent = agent.unwrap_or_default().to_owned();
    origin
}

/// Makes a call without a wire: the same validation, decision and paging as for one that came over it.
pub fn call(
    world: &World,
    ids: &mut Ids,
    caller: &Caller,
    service: &str,
    operation: &str,
    input: &Value,
) -> Result<Answer, Fault> {
    let model = model::of(service).ok_or_else(|| unsupported(service, operation))?;
    run(world, ids, caller, model, operation, input)
}

fn run(
    world: &World,
    ids: &mut Ids,
    caller: &Caller,
    model: &'static Model,
    name: &str,
    input: &Value,
) -> Result<Answer, Fault> {
    let modelled = model.operation(name).ok_or_else(|| unsupported(model.signing_name, name))?;
    let (service, operation) =
        row(model.signing_name, name).ok_or_else(|| unsupported(model.signing_name, name))?;
    if let Some(shape) = modelled.input {
        wire::validate(model, model.shape(shape), input)?;
    }
    let mut context = Context {
        account: world.account,
        region: world.region,
        now: world.now,
        caller,
        state: world.state,
        ids,
    };
    decide(&context, service, operation, input)?;
    let mut answer = (operation.run)(&mut context, input)?;
    if wire::family_of(model.protocol) == Family::Ec2 && input["DryRun"] == true {
        return Err(Fault::new("DryRunOperation", "Request would have succeeded, but DryRun flag is set."));
    }
    wire::page(model, modelled, input, &mut answer.output)?;
    if answer.output.is_null() {
        answer.output = json!({});
    }
    Ok(answer)
}

fn decide(context: &Context, service: &Service, operation: &Operation, input: &Value) -> Result<(), Fault> {
    let subject = (operation.subject)(context, input);
    let action = format!("{}:{}", service.action_prefix, operation.name);
    // Who has not signed has no permissions; an operation that nobody signs says so itself, and looks at what it was shown.
    if context.caller.arn.is_empty() && !subject.is_exempt {
        return Err(Fault::new("MissingAuthenticationToken", "Missing Authentication Token"));
    }
    authorize::decide(context, &action, &subject)
}

fn row(signing_name: &str, operation: &str) -> Option<(&'static Service, &'static Operation)> {
    let service = SERVICES.iter().find(|service| service.signing_name == signing_name)?;
    let place = service.operations.binary_search_by(|row| row.name.cmp(operation)).ok()?;
    Some((service, &service.operations[place]))
}

/// What AWS has and Ekso has not is refused, never pretended.
fn unsupported(service: &str, operation: &str) -> Fault {
    Fault::new("UnsupportedOperation", format!("Ekso has no {service}:{operation}"))
}

#[cfg(test)]
mod tests;
