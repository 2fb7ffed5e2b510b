//! A certificate of the node with its key: how long it is good for, whom it names, and how a new one takes its place.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use files::FileError;
use object::Time;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_parser::extensions::GeneralName;

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the certificate in {path}: {message}")]
    Content { path: PathBuf, message: String },
}

/// A certificate and its key, as they stand in one PEM file.
#[derive(Clone, Debug)]
pub struct Certificate {
    pub key: Arc<CertifiedKey>,
    not_before: Time,
    not_after: Time,
    dns_names: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl Certificate {
    /// The one kept at `path`; `None` when there is no such file.
    pub fn load(path: &Path) -> Result<Option<Self>, CertificateError> {
        let Some(text) = files::read(path)? else { return Ok(None) };
        let found = Self::parse(&text);
        found.map(Some).map_err(|message| CertificateError::Content { path: path.to_owned(), message })
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(text)
            .collect::<Result<_, _>>()
            .map_err(|error| error.to_string())?;
        let key = PrivateKeyDer::from_pem_slice(text).map_err(|error| error.to_string())?;
        let first = chain.first().ok_or("the file has none")?;
        let (_, parsed) = x509_parser::parse_x509_certificate(first).map_err(|error| error.to_string())?;
        let seconds =
            |at: x509_parser::time::ASN1Time| Time::from_micros(at.timestamp().saturating_mul(1_000_000));
        let (not_before, not_after) =
            (seconds(parsed.validity().not_before), seconds(parsed.validity().not_after));
        let (mut dns_names, mut addresses) = (Vec::new(), Vec::new());
        let names = parsed.subject_alternative_name().map_err(|error| error.to_string())?;
        for name in names.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => addresses.extend(address(bytes)),
                _ => {}
            }
        }
        let provider = rustls::crypto::ring::default_provider();
        let key = CertifiedKey::from_der(chain, key, &provider).map_err(|error| error.to_string())?;
        Ok(Self { key: Arc::new(key), not_before, not_after, dns_names, addresses })
    }

    pub fn is_valid(&self, now: Time) -> bool {
        self.not_before <= now && now < self.not_after
    }

    /// After 80 % of its life.
    pub fn renew_at(&self) -> Time {
        let life = self.not_after.as_micros() - self.not_before.as_micros();
        Time::from_micros(self.not_before.as_micros() + life / 5 * 4)
    }

    /// Whether a server may show it under this name and these addresses.
    pub fn names(&self, name: &str, addresses: &[IpAddr]) -> bool {
        self.dns_names.iter().any(|held| held == name)
            && addresses.iter().all(|one| self.addresses.contains(one))
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// Shows one certificate, until another is put in its place: connections made from then on show that.
#[derive(Debug)]
pub struct Rotating(RwLock<Certificate>);

impl Rotating {
    pub fn new(certificate: Certificate) -> Arc<Self> {
        Arc::new(Self(RwLock::new(certificate)))
    }

    pub fn current(&self) -> Certificate {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn replace(&self, certificate: Certificate) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = certificate;
    }
}

impl ResolvesServerCert for Rotating {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current().key)
    }
}

impl ResolvesClientCert for Rotating {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current().key)
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_certificate_is_read_with_its_names_and_its_life() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params =
            rcgen::CertificateParams::new(vec!["node-1".into(), "172.31.0.2".into()]).expect("names");
        params.not_before = rcgen::date_time_ymd(2026, 1, 1);
        params.not_after = rcgen::date_time_ymd(2026, 1, 11);
        let certificate = params.self_signed(&key).expect("signed");
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("server.pem");
        assert!(Certificate::load(&path).expect("nothing there").is_none());
        std::fs::write(&path, "no certificate").expect("written");
        assert!(matches!(Certificate::load(&path), Err(CertificateError::Content { .. })));
        std::fs::write(&path, format!("{}{}", certificate.pem(), key.serialize_pem())).expect("written");
        let read = Certificate::load(&path).expect("readable").expect("there");
        let at = |text: &str| text.parse::<Time>().expect("a time");
        assert_eq!(read.renew_at(), at("2026-01-09T00:00:00Z"));
        for (now, valid) in
            [("2025-12-31T23:59:59Z", false), ("2026-01-01T00:00:00Z", true), ("2026-01-11T00:00:00Z", false)]
        {
            assert_eq!(read.is_valid(at(now)), valid, "{now}");
        }
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert!(read.names("node-1", &[ip("172.31.0.2")]));
        assert!(!read.names("node-2", &[ip("172.31.0.2")]));
        assert!(!read.names("node-1", &[ip("172.31.0.2"), ip("172.31.0.3")]));
    }
}
