//! Carries out what probes and lifecycle hooks ask for. The texts of failures are upstream's.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use plan::pod::Handler;
use runtime::{Runtime, RuntimeError};
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::grpc_health;

/// As much of an answer's body as a probe reads.
const BODY_LIMIT: usize = 10 << 10;

pub struct Handlers {
    runtime: Runtime,
    tls: TlsConnector,
}

impl Handlers {
    pub fn new(runtime: Runtime) -> Arc<Self> {
        let config = ClientConfig::builder()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Unverified))
            .with_no_client_auth();
        Arc::new(Self { runtime, tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Does it once; the error is what the Unhealthy or hook event says.
    pub async fn check(
        &self,
        container_id: &str,
        handler: &Handler,
        timeout: Duration,
    ) -> Result<(), String> {
        match handler {
            Handler::Exec(command) => self.exec(container_id, command, timeout).await,
            Handler::Http { host, port, path, https, headers } => {
                let scheme = if *https { "https" } else { "http" };
                let url = format!("{scheme}://{}{path}", host_port(host, *port));
                let get = self.http(host, *port, path, *https, headers);
                match tokio::time::timeout(timeout, get).await {
                    Ok(Ok(code)) if (200..400).contains(&code) => Ok(()),
                    Ok(Ok(code)) => Err(format!("HTTP probe failed with statuscode: {code}")),
                    Ok(Err(why)) => Err(format!("Get \"{url}\": {why}")),
                    Err(_) => Err(format!(
                        "Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
                    )),
                }
            }
            Handler::Tcp { host, port } => match tokio::time::timeout(timeout, dial(host, *port)).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(why)) => Err(why),
                Err(_) => Err(format!("dial tcp {}: i/o timeout", host_port(host, *port))),
            },
            Handler::Grpc { host, port, service } => {
                let target = host_port(host, *port);
                let ask = async {
                    let stream = dial(host, *port).await;
                    let stream = stream
                        .map_err(|why| format!("error: failed to connect service at \"{target}\": {why}"))?;
                    grpc_health::check(stream, &target, service).await
                };
                match tokio::time::timeout(timeout, ask).await {
                    Ok(result) => result,
                    Err(_) => {
                        Err(format!("timeout: health rpc did not complete within {}s", timeout.as_secs()))
                    }
                }
            }
            Handler::Sleep { seconds } => {
                tokio::time::sleep(Duration::from_secs((*seconds).max(0).unsigned_abs())).await;
                Ok(())
            }
        }
    }

    async fn exec(&self, container_id: &str, command: &[String], timeout: Duration) -> Result<(), String> {
        let result = self.runtime.exec_sync(container_id, command.to_vec(), Some(timeout), BODY_LIMIT).await;
        let result = match result {
            Ok(result) => result,
            Err(RuntimeError::ExecTimeout { .. }) => {
                return Err(format!(
                    "command timed out: \"{}\" timed out after {timeout:?}",
                    command.join(" ")
                ));
            }
            Err(error) => return Err(error.to_string()),
        };
        if result.exit_code == 0 {
            return Ok(());
        }
        let output = [result.stdout, result.stderr].concat();
        Err(String::from_utf8_lossy(&output).into_owned())
    }

    async fn http(
        &self,
        host: &str,
        port: u16,
        path: &str,
        https: bool,
        headers: &[(String, String)],
    ) -> Result<u16, String> {
        let stream = dial(host, port).await?;
        let mut request = Request::get(path).header("user-agent", "kube-probe/1.36").header("accept", "*/*");
        let mut has_host = false;
        for (name, value) in headers {
            has_host |= name.eq_ignore_ascii_case("host");
            request = request.header(name, value);
        }
        if !has_host {
            request = request.header("host", host_port(host, port));
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
        if !https {
            return ask(stream, request).await;
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        ask(self.tls.connect(name, stream).await.map_err(|error| error.to_string())?, request).await
    }
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<u16, String> {
    let failed = |error: hyper::Error| error.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let connection = tokio::spawn(connection);
    let response = sender.send_request(request).await.map_err(failed)?;
    let code = response.status().as_u16();
    let mut body = response.into_body();
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > BODY_LIMIT {
            break;
        }
    }
    connection.abort();
    Ok(code)
}

async fn dial(host: &str, port: u16) -> Result<TcpStream, String> {
    let target = host_port(host, port);
    let connected = match host.parse() {
        Ok(ip) => TcpStream::connect(SocketAddr::new(ip, port)).await,
        Err(_) => TcpStream::connect((host, port)).await,
    };
    connected.map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("dial tcp {target}: connect: connection refused"),
        io::ErrorKind::HostUnreachable => format!("dial tcp {target}: connect: no route to host"),
        _ => format!("dial tcp {target}: {error}"),
    })
}

fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Probes do not verify certificates: <https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/#http-probes>.
#[derive(Debug)]
struct Unverified;

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
