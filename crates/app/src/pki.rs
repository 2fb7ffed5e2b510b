//! The keys and certificates of one cluster: made once, kept in its folder, never logged.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use files::FileError;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::CertificateSigningRequestDer;

/// Ten years, as upstream's authorities live.
const AUTHORITY_DAYS: i64 = 3_650;
/// One year for everything that it signs here; the server's own certificates are made anew at each start.
const LEAF_DAYS: i64 = 365;
/// Clocks of clients may be behind by this much.
const SKEW_DAYS: i64 = 1;

#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{what}: {source}")]
    Certificate { what: &'static str, source: rcgen::Error },
    #[error(
        "{path} is not a PEM file of the kind that belongs there: restore it, or delete the cluster and make it anew"
    )]
    NotPem { path: PathBuf },
}

fn certificate(what: &'static str) -> impl Fn(rcgen::Error) -> PkiError {
    move |source| PkiError::Certificate { what, source }
}

/// A certificate and its key, both PEM.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// Signs certificates: a cluster's, or that of the AWS endpoint.
pub struct CertificateAuthority {
    pub ca_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// The authority of a cluster, and the key that signs service-account tokens.
pub struct Pki {
    pub ca_pem: String,
    authority: CertificateAuthority,
    /// PKCS#8 DER of an ECDSA P-256 key.
    pub service_account_key: Vec<u8>,
}

/// Who a certificate is for.
pub struct Subject<'a> {
    pub common_name: &'a str,
    pub organizations: &'a [&'a str],
}

impl Pki {
    /// Reads the cluster's keys from `dir`, making what is missing.
    pub fn open(dir: &Path) -> Result<Self, PkiError> {
        let authority = CertificateAuthority::open(dir, "kubernetes")?;
        let service_account_key = key(&dir.join("sa.key"))?.serialize_der();
        Ok(Self { ca_pem: authority.ca_pem.clone(), authority, service_account_key })
    }

    /// As [`CertificateAuthority::client`].
    pub fn client(&self, subject: &Subject) -> Result<Pair, PkiError> {
        self.authority.client(subject)
    }

    /// As [`CertificateAuthority::server`].
    pub fn server(&self, subject: &Subject, names: &[&str], addresses: &[IpAddr]) -> Result<Pair, PkiError> {
        self.authority.server(subject, names, addresses)
    }

    /// As [`CertificateAuthority::sign_request`].
    pub fn sign_request(&self, der: &[u8], server: bool, seconds: Option<i64>) -> Result<String, PkiError> {
        self.authority.sign_request(der, server, seconds)
    }
}

impl CertificateAuthority {
    /// Reads the authority's key and certificate from `dir`, making what is missing.
    pub fn open(dir: &Path, common_name: &str) -> Result<Self, PkiError> {
        files::make_dir(dir)?;
        let ca_key = key(&dir.join("ca.key"))?;
        let ca_path = dir.join("ca.crt");
        let ca_pem = match files::read(&ca_path)? {
            Some(text) => String::from_utf8(text).map_err(|_| PkiError::NotPem { path: ca_path.clone() })?,
            None => {
                let made = authority(common_name).self_signed(&ca_key);
                let made = made.map_err(certificate("make the authority"))?.pem();
                files::write(&ca_path, 0o644, made.as_bytes())?;
                made
            }
        };
        let issuer =
            Issuer::from_ca_cert_pem(&ca_pem, ca_key).map_err(|_| PkiError::NotPem { path: ca_path })?;
        Ok(Self { ca_pem, issuer })
    }

    /// A client certificate: its common name is the user, its organizations are the groups.
    pub fn client(&self, subject: &Subject) -> Result<Pair, PkiError> {
        self.leaf(subject, &[], &[], ExtendedKeyUsagePurpose::ClientAuth)
    }

    pub fn server(&self, subject: &Subject, names: &[&str], addresses: &[IpAddr]) -> Result<Pair, PkiError> {
        self.leaf(subject, names, addresses, ExtendedKeyUsagePurpose::ServerAuth)
    }

    fn leaf(
        &self,
        subject: &Subject,
        names: &[&str],
        addresses: &[IpAddr],
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<Pair, PkiError> {
        let failed = certificate("make a certificate");
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).map_err(&failed)?;
        params.subject_alt_names.extend(addresses.iter().map(|&address| SanType::IpAddress(address)));
        params.distinguished_name.remove(DnType::CommonName);
        params.distinguished_name.push(DnType::CommonName, subject.common_name);
        for &organization in subject.organizations {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        sign_for(&mut params, usage, LEAF_DAYS);
        let key = KeyPair::generate().map_err(&failed)?;
        let signed = params.signed_by(&key, &self.issuer).map_err(&failed)?;
        Ok(Pair { certificate: signed.pem(), key: key.serialize_pem() })
    }

    /// Signs a request as it is: subject and names are its own (whoever approved it has looked), usages and times are ours.
    pub fn sign_request(&self, der: &[u8], server: bool, seconds: Option<i64>) -> Result<String, PkiError> {
        let failed = certificate("sign a certificate request");
        let der = CertificateSigningRequestDer::from(der.to_vec());
        let mut request = CertificateSigningRequestParams::from_der(&der).map_err(&failed)?;
        let usage =
            if server { ExtendedKeyUsagePurpose::ServerAuth } else { ExtendedKeyUsagePurpose::ClientAuth };
        let days = seconds.map_or(LEAF_DAYS, |seconds| (seconds / 86_400).clamp(1, LEAF_DAYS));
        sign_for(&mut request.params, usage, days);
        Ok(request.signed_by(&self.issuer).map_err(&failed)?.pem())
    }
}

/// The key in a file, made if there is none.
fn key(path: &Path) -> Result<KeyPair, PkiError> {
    if let Some(text) = files::read(path)? {
        let text = String::from_utf8(text).map_err(|_| PkiError::NotPem { path: path.to_owned() })?;
        return KeyPair::from_pem(&text).map_err(|_| PkiError::NotPem { path: path.to_owned() });
    }
    let made = KeyPair::generate().map_err(certificate("make a key"))?;
    files::write(path, 0o600, made.serialize_pem().as_bytes())?;
    Ok(made)
}

fn authority(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_times(&mut params, AUTHORITY_DAYS);
    params
}

fn sign_for(params: &mut CertificateParams, usage: ExtendedKeyUsagePurpose, days: i64) {
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    set_times(params, days);
}

fn set_times(params: &mut CertificateParams, days: i64) {
    let now = std::time::SystemTime::now();
    let day = std::time::Duration::from_secs(86_400);
    params.not_before = (now - day * u32::try_from(SKEW_DAYS).unwrap_or(0)).into();
    params.not_after = (now + day * u32::try_from(days).unwrap_or(0)).into();
    params.serial_number = Some(SerialNumber::from_slice(&random::<16>()));
}

/// Random bytes of the operating system.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill_random(&mut bytes);
    bytes
}

/// Fills a buffer from the operating system's generator; without one nothing here may go on.
#[expect(clippy::expect_used, reason = "a machine without getrandom cannot keep a secret")]
pub fn fill_random(bytes: &mut [u8]) {
    use ring::rand::SecureRandom;
    ring::rand::SystemRandom::new().fill(bytes).expect("the operating system gives random bytes");
}

/// `count` characters of `[a-z0-9]`, for tokens and ids.
pub fn random_word(count: usize) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut bytes = vec![0; count];
    fill_random(&mut bytes);
    bytes.into_iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect()
}
