//! The wire protocols, once: restJson, restXml, awsJson, awsQuery, ec2Query, driven by the services' models.
//!
//! ```text
//! request ─► operation(): which one ─► input(): members by their names ─► validate() … handler … ─► output(), or error()
//! ```
//!
//! Between the two stands one form for all protocols: a JSON object by the model's names of members; timestamps are RFC 3339 strings, blobs
//! base64. What a client says wrongly is answered as AWS answers it in that protocol.

mod error;
mod json;
mod page;
pub mod percent;
mod query;
mod rest;
mod time;
mod validate;
mod xml;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use serde_json::Value;

pub use error::{Family, error, family_of};
pub use page::page;
pub use validate::validate;

use crate::Fault;
use crate::model::{Model, OperationModel, Protocol};

/// How deep an input may be nested.
const DEPTH_LIMIT: usize = 64;

/// What a client asks for.
pub struct Asked {
    pub operation: &'static OperationModel,
    /// What the path's labels hold, decoded.
    labels: Vec<(&'static str, String)>,
    /// The parameters of a query protocol, decoded.
    params: Vec<(String, String)>,
}

/// Finds the operation of a request.
pub fn operation(model: &'static Model, request: &Request<Bytes>) -> Result<Asked, Fault> {
    match model.protocol {
        Protocol::RestJson | Protocol::RestXml => {
            let (operation, labels) = rest::find(model, request)?;
            Ok(Asked { operation, labels, params: Vec::new() })
        }
        Protocol::Json10 | Protocol::Json11 => {
            let operation = json::find(model, request)?;
            Ok(Asked { operation, labels: Vec::new(), params: Vec::new() })
        }
        Protocol::Query | Protocol::Ec2 => {
            let params = query::params(request)?;
            let operation = query::find(model, &params)?;
            Ok(Asked { operation, labels: Vec::new(), params })
        }
    }
}

/// The members of the operation's input. Types hold; what is required and the limits are not looked at yet.
pub fn input(model: &Model, asked: &Asked, request: &Request<Bytes>) -> Result<Value, Fault> {
    let Some(shape) = asked.operation.input.map(|id| model.shape(id)) else {
        return Ok(Value::Object(serde_json::Map::new()));
    };
    match model.protocol {
        Protocol::RestJson | Protocol::RestXml => rest::input(model, shape, &asked.labels, request),
        Protocol::Json10 | Protocol::Json11 => json::body(model, shape, request.body()),
        Protocol::Query | Protocol::Ec2 => query::input(model, shape, &asked.params),
    }
}

/// The answer to a call that went well.
pub fn output(
    model: &Model,
    operation: &OperationModel,
    output: &Value,
    request_id: &str,
    wants_json: bool,
) -> Response<Bytes> {
    let shape = operation.output.map(|id| model.shape(id));
    let (kind, body, headers) = match model.protocol {
        Protocol::RestJson => {
            let (body, headers) = rest::output(model, shape, output);
            ("application/json", body, headers)
        }
        Protocol::RestXml => {
            let (body, headers) = rest::output_xml(model, shape, output);
            ("application/xml", body, headers)
        }
        protocol @ (Protocol::Json10 | Protocol::Json11) => {
            (json::content_type(protocol), json::text(model, shape, output), Vec::new())
        }
        Protocol::Query if wants_json => {
            ("application/json", query::output_json(model, operation, shape, output, request_id), Vec::new())
        }
        Protocol::Query => ("text/xml", xml::query(model, operation, shape, output, request_id), Vec::new()),
        Protocol::Ec2 => {
            ("text/xml;charset=UTF-8", xml::ec2(model, operation, shape, output, request_id), Vec::new())
        }
    };
    let mut response = respond(operation.status, kind, body, request_id);
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (http::HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// The action that a form names, whoever it is for.
pub fn action(request: &Request<Bytes>) -> Option<String> {
    let params = query::params(request).ok()?;
    query::param(&params, "Action").map(str::to_owned)
}

/// Whether an awsQuery client would rather read JSON.
pub fn wants_json(request: &Request<Bytes>) -> bool {
    let accepted = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accepted.is_some_and(|accepted| accepted.contains("application/json"))
}

fn respond(status: u16, kind: &'static str, body: Vec<u8>, request_id: &str) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert("x-amzn-requestid", id);
    }
    response
}

#[cfg(test)]
mod tests;
