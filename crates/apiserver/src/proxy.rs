//! Requests passed on to somebody inside the cluster, and connections that become raw streams.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use object::{Reason, Status};
use rustls::pki_types::ServerName;
use tokio::io::copy_bidirectional;
use tokio_rustls::TlsConnector;
use tracing::debug;

use crate::dial::{Socket, is_proxyable};
use crate::https::Distrust;
use crate::respond::Answer;
use crate::shared::Shared;
use crate::websocket::SUBPROTOCOL_TOKEN;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Headers that are about one connection, and credentials that are for this server only.
const NOT_PASSED_ON: &[&str] = &[
    "authorization",
    "connection",
    "host",
    "keep-alive",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
];

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Goal {
    pub(crate) address: String,
    pub(crate) port: u16,
    pub(crate) secure: Secure,
    /// Path and query as the other side sees them.
    pub(crate) path: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secure {
    Plain,
    /// A kubelet: it must show the cluster's certificate, and is shown ours.
    Kubelet,
    /// Whoever answers: a pod's certificate is nobody's business.
    Unverified,
}

/// Passes a request on and its answer back; an upgrade becomes a raw stream between the two.
pub(crate) async fn pass(
    shared: &Arc<Shared>,
    goal: Goal,
    mut request: Request<Incoming>,
) -> Result<Answer, Status> {
    forget_user(request.headers_mut());
    let stream = connect(shared, &goal).await?;
    pass_over(stream, goal, request).await
}

/// As [`pass`], over a connection that is there.
pub(crate) async fn pass_over(
    stream: Box<dyn Socket>,
    goal: Goal,
    request: Request<Incoming>,
) -> Result<Answer, Status> {
    let unreachable = |error: hyper::Error| unreachable(&goal, &error);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(unreachable)?;
    let address = goal.address.clone();
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            debug!(address, %error, "a proxied connection ended");
        }
    });
    let (outgoing, incoming) = rewritten(&goal, request)?;
    let mut answer = sender.send_request(outgoing).await.map_err(unreachable)?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let Some(incoming) = incoming else {
            return Err(Status::new(
                Reason::ServiceUnavailable,
                "the backend upgraded a connection that was not asked to be",
            ));
        };
        splice(hyper::upgrade::on(&mut answer), incoming);
    }
    Ok(returned(answer))
}

async fn connect(shared: &Shared, goal: &Goal) -> Result<Box<dyn Socket>, Status> {
    let config = match goal.secure {
        Secure::Plain => return dial(shared, goal).await,
        Secure::Kubelet => shared.kubelet_tls.clone(),
        Secure::Unverified => shared.unverified_tls.clone(),
    };
    connect_as(shared, goal, &goal.address, config, &Distrust::default()).await
}

/// A TLS connection to a goal whose certificate must be for `host`; why it is not believed is counted.
pub(crate) async fn connect_as(
    shared: &Shared,
    goal: &Goal,
    host: &str,
    config: Arc<rustls::ClientConfig>,
    distrust: &Distrust,
) -> Result<Box<dyn Socket>, Status> {
    let socket = dial(shared, goal).await?;
    let name = ServerName::try_from(host.to_owned()).map_err(|error| unreachable(goal, &error))?;
    let secured = TlsConnector::from(config).connect(name, socket).await;
    let secured = secured.map_err(|error| unreachable(goal, distrust.noted(&error)))?;
    Ok(Box::new(secured))
}

async fn dial(shared: &Shared, goal: &Goal) -> Result<Box<dyn Socket>, Status> {
    if let Ok(address) = goal.address.parse::<IpAddr>()
        && !is_proxyable(address)
    {
        return Err(Status::bad_request("address not allowed"));
    }
    let dialed = (shared.dial)(goal.address.clone(), goal.port);
    match tokio::time::timeout(CONNECT_TIMEOUT, dialed).await {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(error)) => Err(unreachable(goal, &error)),
        Err(_) => Err(unreachable(goal, &"i/o timeout")),
    }
}

fn unreachable(goal: &Goal, error: &dyn std::fmt::Display) -> Status {
    let Goal { address, port, .. } = goal;
    Status::new(
        Reason::ServiceUnavailable,
        format!("error trying to reach service: dial tcp {address}:{port}: {error}"),
    )
}

/// The request as the other side gets it, and our end of the connection if the client wants to upgrade it.
fn rewritten(
    goal: &Goal,
    mut request: Request<Incoming>,
) -> Result<(Request<Incoming>, Option<hyper::upgrade::OnUpgrade>), Status> {
    let upgrade = request.headers().get(header::UPGRADE).cloned();
    let incoming = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
    let (mut head, body) = request.into_parts();
    head.uri = goal.path.parse::<Uri>().map_err(|error| Status::bad_request(error.to_string()))?;
    head.version = http::Version::HTTP_11;
    head.headers = passed_on(&head.headers);
    let host = format!("{}:{}", goal.address, goal.port);
    if let Ok(host) = HeaderValue::from_str(&host) {
        head.headers.insert(header::HOST, host);
    }
    if let Some(upgrade) = upgrade {
        head.headers.insert(header::UPGRADE, upgrade);
        head.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    }
    Ok((Request::from_parts(head, body), incoming))
}

/// Takes out what a front proxy, or somebody in its place, says of who asks: that was for this server.
pub(crate) fn forget_user(headers: &mut HeaderMap) {
    let told: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("x-remote-")).cloned().collect();
    for name in told {
        headers.remove(name);
    }
}

fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        if name == header::SEC_WEBSOCKET_PROTOCOL {
            if let Some(value) = without_token(value) {
                kept.append(name.clone(), value);
            }
            continue;
        }
        if !NOT_PASSED_ON.contains(&name.as_str())
            && name != header::UPGRADE
            && !name.as_str().starts_with("impersonate-")
        {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

/// The subprotocols that a WebSocket is offered in, without the one that is a token; None: there is no other.
fn without_token(offered: &HeaderValue) -> Option<HeaderValue> {
    let protocols = offered.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let kept: Vec<&[u8]> = protocols
        .filter(|protocol| !protocol.is_empty() && !protocol.starts_with(SUBPROTOCOL_TOKEN.as_bytes()))
        .collect();
    if kept.is_empty() {
        return None;
    }
    HeaderValue::from_bytes(&kept.join(&b", "[..])).ok()
}

fn returned(answer: Response<Incoming>) -> Answer {
    let upgraded = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
    let (mut head, body) = answer.into_parts();
    let dropped: &[HeaderName] =
        if upgraded { &[] } else { &[header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] };
    for name in dropped {
        head.headers.remove(name);
    }
    head.version = http::Version::HTTP_11;
    Response::from_parts(head, body.map_err(io::Error::other).boxed_unsync())
}

/// Copies both ways until either side is done.
fn splice(backend: hyper::upgrade::OnUpgrade, client: hyper::upgrade::OnUpgrade) {
    tokio::spawn(async move {
        let (backend, client) = match tokio::try_join!(backend, client) {
            Ok(ends) => ends,
            Err(error) => return debug!(%error, "an upgrade failed"),
        };
        let copied = copy_bidirectional(&mut TokioIo::new(backend), &mut TokioIo::new(client)).await;
        if let Err(error) = copied {
            debug!(%error, "a stream ended");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_out_of_reach() {
        for (address, allowed) in [
            ("10.0.0.1", true),
            ("172.31.0.5", true),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("::1", false),
            ("::ffff:127.0.0.1", false),
            ("fe80::1", false),
            ("0.0.0.0", false),
        ] {
            assert_eq!(is_proxyable(address.parse().expect("an address")), allowed, "{address}");
        }
    }

    #[test]
    fn credentials_and_hops_are_not_passed_on() {
        let mut headers = HeaderMap::new();
        for name in ["authorization", "accept", "connection", "impersonate-user", "upgrade", "x-mine"] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static("x"));
        }
        let kept = passed_on(&headers);
        let mut names: Vec<&str> = kept.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "x-mine"]);
        headers.insert("x-remote-group", HeaderValue::from_static("system:masters"));
        forget_user(&mut headers);
        assert!(!headers.contains_key("x-remote-group") && headers.contains_key("x-mine"));
    }

    #[test]
    fn a_token_among_subprotocols_is_not_passed_on() {
        let token = "base64url.bearer.authorization.k8s.io.c2VjcmV0";
        for (offered, expected) in [
            ("v5.channel.k8s.io, v4.channel.k8s.io".to_owned(), Some("v5.channel.k8s.io, v4.channel.k8s.io")),
            (format!("v5.channel.k8s.io,{token}"), Some("v5.channel.k8s.io")),
            (format!("{token} , v5.channel.k8s.io, {token}"), Some("v5.channel.k8s.io")),
            (token.to_owned(), None),
        ] {
            let mut headers = HeaderMap::new();
            headers
                .insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(&offered).expect("a header"));
            let kept = passed_on(&headers);
            let kept = kept.get(header::SEC_WEBSOCKET_PROTOCOL).map(|value| value.to_str().expect("text"));
            assert_eq!(kept, expected, "{offered}");
        }
    }
}
