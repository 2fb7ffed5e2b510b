//! What users run in their clusters behind HTTPS, in one small program for a pod of the stories; one answer a connection.
//!
//! Webhooks: `/label` adds a label, `/no-latest` refuses images without a version and warns of the others; `/convert` makes `hostPort` of
//! version 1 `host` and `port` of version 2, and back.
//! An extension API server: `/apis/guests.example.com/v1`, which tells who asks. It believes headers only of whoever has a certificate of
//! `/trust/requestheader-client-ca-file`.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// What a review may be at most: upstream's largest object, twice.
const BODY_LIMIT: usize = 8 << 20;

fn main() -> Result<()> {
    let chain = CertificateDer::pem_file_iter("/tls/tls.crt")?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file("/tls/tls.key")?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut trusted = RootCertStore::empty();
    for authority in CertificateDer::pem_file_iter("/trust/requestheader-client-ca-file")? {
        trusted.add(authority?)?;
    }
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(trusted), provider.clone())
        .allow_unauthenticated()
        .build()?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)?;
    let config = Arc::new(config);
    let listener = TcpListener::bind("0.0.0.0:8443")?;
    for stream in listener.incoming() {
        if let Err(error) = answer(stream?, config.clone()) {
            eprintln!("{error:#}");
        }
    }
    Ok(())
}

fn answer(stream: TcpStream, config: Arc<ServerConfig>) -> Result<()> {
    let mut stream = StreamOwned::new(ServerConnection::new(config)?, stream);
    let request = read(&mut stream)?;
    let is_trusted = stream.conn.peer_certificates().is_some();
    let (code, answer) = if request.path.starts_with("/apis") || request.path.starts_with("/openapi") {
        extension(&request, is_trusted)
    } else {
        (200, review(&request)?)
    };
    let answer = answer.to_string();
    let head = format!(
        "HTTP/1.1 {code} Answered\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        answer.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(answer.as_bytes())?;
    stream.flush()?;
    stream.conn.send_close_notify();
    stream.conn.complete_io(&mut stream.sock)?;
    Ok(())
}

struct Request {
    path: String,
    head: String,
    body: Vec<u8>,
}

impl Request {
    /// The values of a header.
    fn all(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(held, _)| held.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).collect()
    }
}

fn read(stream: &mut impl Read) -> Result<Request> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
        ensure!(head.len() < 64 << 10, "the head has no end");
    }
    let head = String::from_utf8(head)?;
    let path = head.split_whitespace().nth(1).context("no path")?;
    let path = path.split('?').next().unwrap_or_default().to_owned();
    let mut request = Request { path, head, body: Vec::new() };
    let length: usize = request.all("content-length").first().map_or(Ok(0), |length| length.parse())?;
    ensure!(length <= BODY_LIMIT, "a body of {length} bytes");
    request.body = vec![0; length];
    stream.read_exact(&mut request.body)?;
    Ok(request)
}

/// The answer of a webhook.
fn review(request: &Request) -> Result<Value> {
    let review: Value = serde_json::from_slice(&request.body).context("the review is no JSON")?;
    if request.path == "/convert" {
        return Ok(converted(&review));
    }
    let mut response = match request.path.as_str() {
        "/label" => label(),
        "/no-latest" => no_latest(&review["request"]["object"]),
        other => json!({"allowed": false, "status": {"message": format!("nothing is at {other}")}}),
    };
    response["uid"] = review["request"]["uid"].clone();
    Ok(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}))
}

/// A ConversionReview, answered.
fn converted(review: &Value) -> Value {
    let request = &review["request"];
    let convert = |object: &Value| {
        let (mut object, spec) = (object.clone(), &object["spec"]);
        let text = |field: &str| spec[field].as_str().unwrap_or_default().to_owned();
        object["spec"] = match request["desiredAPIVersion"].as_str() {
            Some(version) if version.ends_with("/v2") => {
                let whole = text("hostPort");
                let (host, port) = whole.split_once(':').unwrap_or((&whole, ""));
                json!({"host": host, "port": port})
            }
            _ => json!({"hostPort": format!("{}:{}", text("host"), text("port"))}),
        };
        object["apiVersion"] = request["desiredAPIVersion"].clone();
        object
    };
    let objects: Vec<Value> = request["objects"].as_array().into_iter().flatten().map(convert).collect();
    json!({
        "apiVersion": review["apiVersion"], "kind": "ConversionReview",
        "response": {"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": objects},
    })
}

/// The answer of the API server: guests are whoever asks.
fn extension(request: &Request, is_trusted: bool) -> (u16, Value) {
    let api = "guests.example.com/v1";
    if !is_trusted {
        return (
            401,
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 401, "message": "who are you?"}),
        );
    }
    let (user, groups) = (request.all("x-remote-user").concat(), request.all("x-remote-group"));
    let guest = |name: &str| json!({"apiVersion": api, "kind": "Guest", "metadata": {"name": name, "labels": {"user": user}}, "groups": groups});
    match request.path.trim_start_matches("/apis/guests.example.com/v1") {
        "" => (
            200,
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api, "resources": [
                {"name": "guests", "singularName": "guest", "namespaced": false, "kind": "Guest", "verbs": ["get", "list"], "shortNames": ["gu"]},
            ]}),
        ),
        "/guests" => {
            (200, json!({"kind": "GuestList", "apiVersion": api, "metadata": {}, "items": [guest("you")]}))
        }
        "/guests/you" => (200, guest("you")),
        path => {
            let message = format!("there is nothing at {path}");
            (
                404,
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404, "message": message}),
            )
        }
    }
}

/// `[{"op":"add","path":"/metadata/labels/seen","value":"yes"}]`, in base64 as the API wants it.
fn label() -> Value {
    let patch = "W3sib3AiOiJhZGQiLCJwYXRoIjoiL21ldGFkYXRhL2xhYmVscy9zZWVuIiwidmFsdWUiOiJ5ZXMifV0=";
    json!({"allowed": true, "patchType": "JSONPatch", "patch": patch})
}

fn no_latest(pod: &Value) -> Value {
    let images = pod["spec"]["containers"].as_array().into_iter().flatten();
    let mut images = images.filter_map(|container| container["image"].as_str());
    match images.find(|image| !image.contains(':') || image.ends_with(":latest")) {
        Some(image) => {
            json!({"allowed": false, "status": {"code": 403, "message": format!("the image {image} has no version")}})
        }
        None => json!({"allowed": true, "warnings": ["somebody looked at the images"]}),
    }
}
