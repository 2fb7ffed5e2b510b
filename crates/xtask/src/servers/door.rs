//! Where a server listens on this host, and the authority that its certificate is believed by.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

#[derive(Clone)]
pub struct Door {
    tls: TlsConnector,
    port: u16,
}

/// A client's certificate and its key, PEM.
#[derive(Clone)]
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Door {
    /// `authorities`: PEM of those that its certificate is believed by. `identity`: who one is, if the connection says so.
    pub fn new(authorities: &Path, port: u16, identity: Option<&Identity>) -> Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        for authority in CertificateDer::pem_file_iter(authorities).context("read the authority")? {
            roots.add(authority?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let config = match identity {
            Some(Identity { certificate, key }) => {
                let chain: Result<Vec<_>, _> =
                    CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).context("read the client's key")?;
                config.with_client_auth_cert(chain.context("read the client's certificate")?, key)?
            }
            None => config.with_no_client_auth(),
        };
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), port })
    }

    pub async fn connect(&self) -> Result<TlsStream<TcpStream>> {
        let address = Ipv4Addr::LOCALHOST;
        let socket = TcpStream::connect((address, self.port)).await?;
        socket.set_nodelay(true)?;
        Ok(self.tls.connect(ServerName::IpAddress(address.into()), socket).await?)
    }
}
