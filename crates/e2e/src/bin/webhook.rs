//! An admission webhook as users write them: HTTPS, one answer a connection. It runs in a pod of the stories.
//!
//! `/label` adds a label, `/no-latest` refuses images without a version and warns of the others.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

/// What a review may be at most: upstream's largest object, twice.
const BODY_LIMIT: usize = 8 << 20;

fn main() -> Result<()> {
    let chain = CertificateDer::pem_file_iter("/tls/tls.crt")?.collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_file("/tls/tls.key")?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
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
    let (path, body) = read(&mut stream)?;
    let review: Value = serde_json::from_slice(&body).context("the review is no JSON")?;
    let mut response = match path.as_str() {
        "/label" => label(),
        "/no-latest" => no_latest(&review["request"]["object"]),
        other => json!({"allowed": false, "status": {"message": format!("nothing is at {other}")}}),
    };
    response["uid"] = review["request"]["uid"].clone();
    let answer =
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
            .to_string();
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        answer.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(answer.as_bytes())?;
    stream.flush()?;
    stream.conn.send_close_notify();
    stream.conn.complete_io(&mut stream.sock)?;
    Ok(())
}

/// The path and the body of a request.
fn read(stream: &mut impl Read) -> Result<(String, Vec<u8>)> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
        ensure!(head.len() < 64 << 10, "the head has no end");
    }
    let head = String::from_utf8(head)?;
    let path = head.split_whitespace().nth(1).context("no path")?;
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:").map(str::to_owned));
    let length: usize = length.context("no length")?.trim().parse()?;
    ensure!(length <= BODY_LIMIT, "a body of {length} bytes");
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((path.split('?').next().unwrap_or_default().to_owned(), body))
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
