//! The keys and certificates of one cluster: made once, kept in its folder, never logged.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use files::FileError;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CidrSubnet, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
    SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use x509_parser::extensions::GeneralName;

/// Ten years, as upstream's authorities live.
const AUTHORITY_DAYS: i64 = 3_650;
/// One year for everything that it signs here; the server's own certificates are made anew at each start.
const LEAF_DAYS: i64 = 365;
const DAY: i64 = 86_400;
/// What is signed on request begins to be good so long before: upstream's signer does the same for clocks that are behind.
const REQUEST_SKEW_SECONDS: i64 = 300;
/// The shortest life that may be requested, as the API has it.
const SHORTEST_SECONDS: i64 = 600;

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
    /// Signs the certificate with which the API server tells extension servers who asks. Not the cluster's own: whoever has a client
    /// certificate of that could speak for everybody.
    pub front_proxy: CertificateAuthority,
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
        let front_proxy = CertificateAuthority::open(&dir.join("front-proxy"), "front-proxy-ca")?;
        let service_account_key = key(&dir.join("sa.key"))?.serialize_der();
        Ok(Self { ca_pem: authority.ca_pem.clone(), authority, front_proxy, service_account_key })
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
        Self::open_or_make(dir, || authority(common_name), |_| true)
    }

    /// As [`Self::open`], of one whose word is good for this address only: who trusts it trusts it with nothing else. One that is there for
    /// another address is made anew, since nobody would believe what it says of this one.
    pub fn open_for(dir: &Path, common_name: &str, address: Ipv4Addr) -> Result<Self, PkiError> {
        let only = GeneralSubtree::IpAddress(CidrSubnet::from_addr_prefix(address.into(), 32));
        // A constraint on addresses leaves names free; the empty name is at the end of all of them.
        let all_names = GeneralSubtree::DnsName(String::new());
        let constraints =
            NameConstraints { permitted_subtrees: vec![only], excluded_subtrees: vec![all_names] };
        let params = || {
            let mut params = authority(common_name);
            params.name_constraints = Some(constraints);
            params
        };
        Self::open_or_make(dir, params, |known| is_for(known, address))
    }

    /// What `fits` refuses of the PEM that is there is made anew, with the same key.
    fn open_or_make(
        dir: &Path,
        params: impl FnOnce() -> CertificateParams,
        fits: impl FnOnce(&str) -> bool,
    ) -> Result<Self, PkiError> {
        files::make_dir(dir)?;
        let ca_key = key(&dir.join("ca.key"))?;
        let ca_path = dir.join("ca.crt");
        let known = files::read(&ca_path)?.map(String::from_utf8).transpose();
        let ca_pem = match known.map_err(|_| PkiError::NotPem { path: ca_path.clone() })? {
            Some(known) if fits(&known) => known,
            _ => {
                let made = params().self_signed(&ca_key);
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
        sign_for(&mut params, usage, Life::days(LEAF_DAYS));
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
        let longest = LEAF_DAYS * DAY;
        let seconds = seconds.map_or(longest, |seconds| seconds.clamp(SHORTEST_SECONDS, longest));
        sign_for(&mut request.params, usage, Life { skew_seconds: REQUEST_SKEW_SECONDS, seconds });
        Ok(request.signed_by(&self.issuer).map_err(&failed)?.pem())
    }
}

/// Whether an authority may speak for this address. Of what is no certificate it says yes: that is for whoever opens it to refuse.
fn is_for(authority: &str, address: Ipv4Addr) -> bool {
    let Ok(der) = CertificateDer::from_pem_slice(authority.as_bytes()) else { return true };
    let Ok((_, authority)) = x509_parser::parse_x509_certificate(&der) else { return true };
    // As RFC 5280 has it (4.2.1.10): the address, then its mask.
    let wanted = [address.octets(), [255; 4]].concat();
    let constraints = authority.name_constraints().ok().flatten();
    let permitted = constraints.and_then(|found| found.value.permitted_subtrees.as_ref());
    permitted.is_some_and(|permitted| {
        permitted.iter().any(|tree| matches!(&tree.base, GeneralName::IPAddress(found) if **found == *wanted))
    })
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
    set_times(&mut params, Life::days(AUTHORITY_DAYS));
    params
}

/// How long a certificate is good for: from so long before now.
#[derive(Clone, Copy)]
struct Life {
    skew_seconds: i64,
    seconds: i64,
}

impl Life {
    /// Clocks of clients may be behind by a day.
    fn days(days: i64) -> Self {
        Self { skew_seconds: DAY, seconds: days * DAY }
    }
}

fn sign_for(params: &mut CertificateParams, usage: ExtendedKeyUsagePurpose, life: Life) {
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    set_times(params, life);
}

fn set_times(params: &mut CertificateParams, life: Life) {
    let now = std::time::SystemTime::now();
    let seconds = |count: i64| std::time::Duration::from_secs(count.unsigned_abs());
    params.not_before = (now - seconds(life.skew_seconds)).into();
    params.not_after = (now + seconds(life.seconds)).into();
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

/// The same for what is made often and is no secret (uids, names): the system is asked for many bytes at a time.
pub fn fill_random_ahead(bytes: &mut [u8]) {
    const AHEAD_BYTES: usize = 1024;
    thread_local! {
        static AHEAD: RefCell<([u8; AHEAD_BYTES], usize)> = const { RefCell::new(([0; AHEAD_BYTES], AHEAD_BYTES)) };
    }
    AHEAD.with_borrow_mut(|(ahead, used)| {
        if bytes.len() > AHEAD_BYTES - *used {
            fill_random(ahead);
            *used = 0;
        }
        match ahead.get(*used..*used + bytes.len()) {
            Some(next) => bytes.copy_from_slice(next),
            None => fill_random(bytes),
        }
        *used = (*used + bytes.len()).min(AHEAD_BYTES);
    });
}

/// `count` characters of `[a-z0-9]`, for tokens and ids.
pub fn random_word(count: usize) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let mut bytes = vec![0; count];
    fill_random(&mut bytes);
    bytes.into_iter().map(|byte| char::from(LETTERS[usize::from(byte % 32)])).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rustls::client::danger::ServerCertVerifier;

    use super::*;

    /// Seconds from now to the end of what is signed for a request of so many.
    fn life(asked: Option<i64>) -> i64 {
        let dir = tempfile::tempdir().expect("a folder");
        let pki = Pki::open(dir.path()).expect("keys");
        let key = KeyPair::generate().expect("a key");
        let request = CertificateParams::default().serialize_request(&key).expect("a request");
        let signed = pki.sign_request(request.der(), true, asked).expect("signed");
        let pem = rustls::pki_types::pem::PemObject::from_pem_slice(signed.as_bytes());
        let der: rustls::pki_types::CertificateDer<'_> = pem.expect("PEM");
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).expect("a certificate");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a time");
        parsed.validity().not_after.timestamp() - now.as_secs() as i64
    }

    #[test]
    fn a_request_has_the_life_that_it_asks_for() {
        for (asked, expected) in [
            (Some(600), 600),
            (Some(7_200), 7_200),
            (Some(1), 600),
            (None, 365 * DAY),
            (Some(999 * DAY), 365 * DAY),
        ] {
            assert!((expected - 5..=expected).contains(&life(asked)), "{asked:?}: {}", life(asked));
        }
    }

    #[test]
    fn an_authority_for_one_address_vouches_for_nothing_else() {
        let dir = tempfile::tempdir().expect("a folder");
        let own = Ipv4Addr::new(198, 18, 0, 3);
        let authority = CertificateAuthority::open_for(dir.path(), "issuers", own).expect("an authority");
        let mut roots = rustls::RootCertStore::empty();
        let root = rustls::pki_types::CertificateDer::from_pem_slice(authority.ca_pem.as_bytes());
        roots.add(root.expect("PEM")).expect("a root");
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(roots.into(), provider);
        let verifier = verifier.build().expect("a verifier");
        let is_believed = |names: &[&str], addresses: &[IpAddr], asked: &str| {
            let subject = Subject { common_name: "x", organizations: &[] };
            let pair = authority.server(&subject, names, addresses).expect("signed");
            let leaf = rustls::pki_types::CertificateDer::from_pem_slice(pair.certificate.as_bytes());
            let name = asked.to_owned().try_into().expect("a name");
            let now = rustls::pki_types::UnixTime::now();
            verifier.verify_server_cert(&leaf.expect("PEM"), &[], &name, &[], now).is_ok()
        };
        assert!(is_believed(&[], &[own.into()], "198.18.0.3"));
        let api = Ipv4Addr::new(10, 100, 0, 1);
        assert!(!is_believed(&[], &[api.into()], "10.100.0.1"));
        assert!(!is_believed(&[], &["fd00::1".parse().expect("an address")], "fd00::1"));
        for name in ["kubernetes", "kubernetes.default.svc", "localhost"] {
            assert!(!is_believed(&[name], &[], name), "{name}");
            assert!(!is_believed(&[name], &[own.into()], name), "{name}");
        }
    }

    #[test]
    fn an_authority_for_another_address_is_made_anew() {
        let dir = tempfile::tempdir().expect("a folder");
        let open = |address: [u8; 4]| {
            CertificateAuthority::open_for(dir.path(), "issuers", address.into())
                .expect("an authority")
                .ca_pem
        };
        let first = open([198, 18, 0, 3]);
        assert!(is_for(&first, Ipv4Addr::new(198, 18, 0, 3)));
        assert_eq!(open([198, 18, 0, 3]), first);
        let moved = open([198, 19, 0, 3]);
        assert!(
            is_for(&moved, Ipv4Addr::new(198, 19, 0, 3)) && !is_for(&moved, Ipv4Addr::new(198, 18, 0, 3))
        );
        assert_eq!(open([198, 19, 0, 3]), moved, "and kept from then on");
        // What is no certificate was put there by somebody.
        std::fs::write(dir.path().join("ca.crt"), "lost").expect("written");
        let refused = CertificateAuthority::open_for(dir.path(), "issuers", Ipv4Addr::LOCALHOST);
        assert!(matches!(refused, Err(PkiError::NotPem { .. })));
    }

    #[test]
    fn no_random_byte_is_given_twice() {
        let mut seen = BTreeSet::new();
        for length in [16, 700, 900, 3_000].into_iter().cycle().take(400) {
            let mut bytes = vec![0; length];
            fill_random_ahead(&mut bytes);
            let parts: Vec<[u8; 16]> = bytes.as_chunks().0.to_vec();
            assert!(parts.into_iter().all(|part| seen.insert(part)), "{length} bytes repeat others");
        }
    }
}
