//! The smallest HTTP client: one connection a request, as a load balancer's probe would.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Longer than any answer of a healthy server takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// The body of a 200, or why there is none.
pub fn get(address: SocketAddr, path: &str) -> Result<String> {
    let (status, body) = fetch(address, path)?;
    ensure!(status == 200, "http://{address}{path} answered {status}: {body}");
    Ok(body)
}

/// The status and the body.
pub fn fetch(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream =
        TcpStream::connect_timeout(&address, PATIENCE).with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(PATIENCE)).context("limit the wait")?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).with_context(|| format!("ask {address}"))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| format!("read the answer of {address}"))?;
    let (head, body) =
        answer.split_once("\r\n\r\n").with_context(|| format!("{address} answered {answer:?}"))?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    Ok((status.with_context(|| format!("{address} answered {head:?}"))?, body.to_owned()))
}
