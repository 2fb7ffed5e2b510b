//! Client certificates: <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#x509-client-certificates>.

use object::Time;
use plan::User;
use x509_parser::oid_registry::Oid;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

use crate::{AccessError, groups};

/// A chain longer than this is refused before any signature is checked.
const MAX_CHAIN: usize = 8;

/// Where KEP-5043's user uid stands in a subject.
const UID: &str = "1.3.6.1.4.1.57683.2";

/// The authorities whose client certificates are believed, as DER.
#[derive(Clone, Debug, Default)]
pub struct ClientCa {
    pub certificates: Vec<Vec<u8>>,
}

/// The user of a client certificate: its common name, its organizations as groups, and `system:authenticated`.
///
/// `chain` is as TLS gives it, DER with the leaf first. It must lead to one of the authorities, every certificate in it
/// must be valid at `now`, and the leaf must be meant for client authentication.
pub fn certificate(chain: &[impl AsRef<[u8]>], ca: &ClientCa, now: Time) -> Result<User, AccessError> {
    let (Some(der), true) = (chain.first(), chain.len() <= MAX_CHAIN) else {
        return Err(refused(format!("a chain has 1 to {MAX_CHAIN} certificates, this one {}", chain.len())));
    };
    let leaf = parse(der.as_ref())?;
    meant_for_clients(&leaf)?;
    trusted(chain, ca, now)?;
    user_of(&leaf, der.as_ref())
}

/// When a certificate (DER) is no longer good; None: it cannot be read.
pub fn expiry(certificate: &[u8]) -> Option<Time> {
    let parsed = parse(certificate).ok()?;
    Some(Time::from_secs(parsed.validity().not_after.timestamp()))
}

fn trusted(chain: &[impl AsRef<[u8]>], ca: &ClientCa, now: Time) -> Result<(), AccessError> {
    let at = ASN1Time::from_timestamp(now.as_secs()).map_err(|error| refused(error.to_string()))?;
    let mut current = parse(chain[0].as_ref())?;
    // How many authorities stand between `current` and the leaf.
    let mut depth = 0;
    loop {
        valid(&current, at)?;
        if issued_by_any(&current, ca, at, depth) {
            return Ok(());
        }
        let Some(next) = chain.get(depth + 1) else {
            return Err(refused("x509: certificate signed by unknown authority".to_owned()));
        };
        let next = parse(next.as_ref())?;
        if !issues(&next, &current, depth) {
            return Err(refused(
                "x509: the chain is out of order, or longer than an authority in it allows".to_owned(),
            ));
        }
        current = next;
        depth += 1;
    }
}

fn issued_by_any(certificate: &X509Certificate, ca: &ClientCa, at: ASN1Time, depth: usize) -> bool {
    ca.certificates.iter().any(|der| {
        parse(der).is_ok_and(|authority| {
            issues(&authority, certificate, depth) && authority.validity().is_valid_at(at)
        })
    })
}

/// Has the authority signed this certificate, and may it, with so many authorities below it?
fn issues(authority: &X509Certificate, certificate: &X509Certificate, depth: usize) -> bool {
    let may_sign =
        authority.key_usage().is_ok_and(|usage| usage.is_none_or(|usage| usage.value.key_cert_sign()));
    let reaches = authority.basic_constraints().is_ok_and(|constraints| {
        constraints.is_some_and(|held| {
            let most = held.value.path_len_constraint;
            held.value.ca && most.is_none_or(|most| usize::try_from(most).is_ok_and(|most| depth <= most))
        })
    });
    may_sign
        && reaches
        && authority.subject().as_raw() == certificate.issuer().as_raw()
        && certificate.verify_signature(Some(authority.public_key())).is_ok()
}

fn valid(certificate: &X509Certificate, at: ASN1Time) -> Result<(), AccessError> {
    let validity = certificate.validity();
    if at < validity.not_before {
        return Err(refused(format!(
            "x509: certificate is not yet valid: it starts {}",
            validity.not_before
        )));
    }
    if at > validity.not_after {
        return Err(refused(format!("x509: certificate has expired {}", validity.not_after)));
    }
    Ok(())
}

fn meant_for_clients(leaf: &X509Certificate) -> Result<(), AccessError> {
    match leaf.extended_key_usage() {
        Ok(Some(usage)) if usage.value.client_auth || usage.value.any => Ok(()),
        Ok(_) => Err(refused("x509: certificate specifies an incompatible key usage".to_owned())),
        Err(error) => Err(refused(error.to_string())),
    }
}

fn user_of(leaf: &X509Certificate, der: &[u8]) -> Result<User, AccessError> {
    let subject = leaf.subject();
    let name = subject.iter_common_name().next().and_then(|name| name.as_str().ok()).unwrap_or_default();
    if name.is_empty() {
        return Err(refused("the subject has no common name".to_owned()));
    }
    let mut user = User::new(name, &[]);
    user.groups =
        subject.iter_organization().filter_map(|group| group.as_str().ok()).map(Into::into).collect();
    let uid: Option<Oid> = UID.parse().ok();
    if let Some(value) = uid.and_then(|uid| subject.iter_by_oid(&uid).next()) {
        user.uid = value.as_str().unwrap_or_default().into();
    }
    if !user.is_in(groups::AUTHENTICATED) {
        user.groups.push(groups::AUTHENTICATED.into());
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, der);
    let digest: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    let credential = format!("X509SHA256={digest}").into();
    user.extra.insert("authentication.kubernetes.io/credential-id".into(), vec![credential]);
    Ok(user)
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, AccessError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(refused("x509: trailing data".to_owned())),
        Err(error) => Err(refused(error.to_string())),
    }
}

fn refused(why: String) -> AccessError {
    AccessError::Certificate(why)
}
