//! How each protocol tells an error.

use bytes::Bytes;
use http::{HeaderValue, Response};
use serde_json::{Value, json};

use super::{json, respond, xml};
use crate::Fault;
use crate::model::{Kind, Model, Protocol};

/// Protocols whose errors have the same names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Query,
    Json,
    Ec2,
}

pub fn family_of(protocol: Protocol) -> Family {
    match protocol {
        Protocol::Query | Protocol::RestXml => Family::Query,
        Protocol::RestJson | Protocol::Json10 | Protocol::Json11 => Family::Json,
        Protocol::Ec2 => Family::Ec2,
    }
}

/// Errors that any service has.
struct Common {
    /// As our code says it.
    code: &'static str,
    query: (&'static str, u16),
    json: (&'static str, u16),
    ec2: (&'static str, u16),
}

/// The pages "Common Errors" of the services' references, and what their clients see.
#[rustfmt::skip]
const COMMON: &[Common] = &[
    Common { code: "AccessDenied", query: ("AccessDenied", 403), json: ("AccessDeniedException", 403), ec2: ("UnauthorizedOperation", 403) },
    Common { code: "DryRunOperation", query: ("DryRunOperation", 412), json: ("DryRunOperation", 412), ec2: ("DryRunOperation", 412) },
    Common { code: "ExpiredToken", query: ("ExpiredToken", 403), json: ("ExpiredTokenException", 403), ec2: ("RequestExpired", 400) },
    Common { code: "IncompleteSignature", query: ("IncompleteSignature", 400), json: ("IncompleteSignatureException", 400), ec2: ("IncompleteSignature", 400) },
    Common { code: "InternalFailure", query: ("InternalFailure", 500), json: ("InternalFailure", 500), ec2: ("InternalError", 500) },
    Common { code: "InvalidAction", query: ("InvalidAction", 400), json: ("UnknownOperationException", 404), ec2: ("InvalidAction", 400) },
    Common { code: "InvalidClientTokenId", query: ("InvalidClientTokenId", 403), json: ("UnrecognizedClientException", 403), ec2: ("AuthFailure", 401) },
    Common { code: "InvalidPageToken", query: ("ValidationError", 400), json: ("InvalidParameterException", 400), ec2: ("InvalidParameterValue", 400) },
    Common { code: "MalformedInput", query: ("MalformedInput", 400), json: ("SerializationException", 400), ec2: ("InvalidParameterValue", 400) },
    Common { code: "MissingAction", query: ("MissingAction", 400), json: ("UnknownOperationException", 404), ec2: ("MissingAction", 400) },
    Common { code: "MissingAuthenticationToken", query: ("MissingAuthenticationToken", 403), json: ("MissingAuthenticationTokenException", 403), ec2: ("MissingAuthenticationToken", 403) },
    Common { code: "RequestEntityTooLarge", query: ("RequestEntityTooLarge", 413), json: ("RequestEntityTooLargeException", 413), ec2: ("RequestEntityTooLarge", 413) },
    Common { code: "Serialization", query: ("MalformedInput", 400), json: ("SerializationException", 400), ec2: ("InvalidParameterValue", 400) },
    Common { code: "ServiceUnavailable", query: ("ServiceUnavailable", 503), json: ("ServiceUnavailableException", 503), ec2: ("Unavailable", 503) },
    Common { code: "SignatureDoesNotMatch", query: ("SignatureDoesNotMatch", 403), json: ("InvalidSignatureException", 403), ec2: ("AuthFailure", 401) },
    Common { code: "SignatureExpired", query: ("SignatureDoesNotMatch", 403), json: ("InvalidSignatureException", 403), ec2: ("RequestExpired", 400) },
    Common { code: "UnknownOperation", query: ("InvalidAction", 404), json: ("UnknownOperationException", 404), ec2: ("InvalidAction", 404) },
    Common { code: "UnsupportedOperation", query: ("UnsupportedOperation", 400), json: ("UnsupportedOperationException", 400), ec2: ("UnsupportedOperation", 400) },
    Common { code: "Validation", query: ("ValidationError", 400), json: ("ValidationException", 400), ec2: ("InvalidParameterValue", 400) },
];

/// What an error is told with.
struct Told<'a> {
    code: &'a str,
    status: u16,
    /// The member of its shape that holds the message.
    message_member: &'static str,
}

fn told<'a>(model: Option<&'static Model>, family: Family, fault: &'a Fault) -> Told<'a> {
    let modelled = model.and_then(|model| model.error(&fault.code));
    if let Some((status, shape)) = modelled {
        let member = shape.members().iter().find(|member| member.name.eq_ignore_ascii_case("message"));
        // A JSON error goes by its shape's name, the others by their code.
        let code = if family == Family::Json { shape.name } else { fault.code.as_str() };
        return Told { code, status, message_member: member.map_or("message", |member| member.name) };
    }
    let common = COMMON.iter().find(|common| common.code == fault.code);
    let (code, status) = match (common, family) {
        (Some(common), Family::Query) => common.query,
        (Some(common), Family::Json) => common.json,
        (Some(common), Family::Ec2) => common.ec2,
        (None, _) => (fault.code.as_str(), 400),
    };
    Told { code, status, message_member: "message" }
}

/// The answer to a call that failed. Without a model (nobody knows which service was meant) `protocol` says how it is told.
pub fn error(
    model: Option<&'static Model>,
    protocol: Protocol,
    fault: &Fault,
    request_id: &str,
    wants_json: bool,
) -> Response<Bytes> {
    let family = family_of(protocol);
    let told = told(model, family, fault);
    match family {
        Family::Json => in_json(model, protocol, fault, &told, request_id),
        Family::Query if wants_json => {
            let body = json!({"Error": {"Code": told.code, "Message": fault.message, "Type": side(told.status)},
                "RequestId": request_id});
            respond(told.status, "application/json", body.to_string().into_bytes(), request_id)
        }
        Family::Query => {
            let namespace = model.map_or("", |model| model.namespace);
            let mut text = format!("<ErrorResponse xmlns=\"{namespace}\">\n<Error>");
            for (name, value) in
                [("Type", side(told.status)), ("Code", told.code), ("Message", &fault.message)]
            {
                xml::leaf(&mut text, name, value);
            }
            text += &format!("</Error>\n<RequestId>{request_id}</RequestId>\n</ErrorResponse>\n");
            respond(told.status, "text/xml", text.into_bytes(), request_id)
        }
        Family::Ec2 => {
            let mut text =
                String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error>");
            xml::leaf(&mut text, "Code", told.code);
            let message = match told.code {
                "AuthFailure" if fault.code != "AuthFailure" => {
                    "AWS was not able to validate the provided access credentials".to_owned()
                }
                "UnauthorizedOperation" => {
                    format!("You are not authorized to perform this operation. {}", fault.message)
                }
                _ => fault.message.clone(),
            };
            xml::leaf(&mut text, "Message", &message);
            text += &format!("</Error></Errors><RequestID>{request_id}</RequestID></Response>");
            respond(told.status, "text/xml;charset=UTF-8", text.into_bytes(), request_id)
        }
    }
}

fn side(status: u16) -> &'static str {
    if status < 500 { "Sender" } else { "Receiver" }
}

fn in_json(
    model: Option<&'static Model>,
    protocol: Protocol,
    fault: &Fault,
    told: &Told,
    request_id: &str,
) -> Response<Bytes> {
    let mut body = match &fault.members {
        Value::Object(members) => members.clone(),
        _ => serde_json::Map::new(),
    };
    if let Some((_, shape)) = model.and_then(|model| model.error(&fault.code)) {
        debug_assert!(matches!(shape.kind, Kind::Structure { .. }));
        body.retain(|name, _| shape.member(name).is_some());
    }
    body.insert(told.message_member.to_owned(), json!(fault.message));
    if protocol != Protocol::RestJson {
        body.insert("__type".to_owned(), json!(told.code));
    }
    let body = Value::Object(body).to_string().into_bytes();
    let mut response = respond(told.status, json::content_type(protocol), body, request_id);
    if let Ok(code) = HeaderValue::from_str(told.code) {
        response.headers_mut().insert("x-amzn-errortype", code);
    }
    response
}
