//! Who may talk to this server: the API server, by its client certificate, and administrators of the cluster.
//!
//! That a certificate is of the cluster's authority, for clients and in its time is checked before, by TLS.

use http::{Method, StatusCode};
use rustls::pki_types::CertificateDer;

use super::reply::{Refusal, refuse};

/// The user that the API server is to kubelets.
const API_SERVER: &str = "kube-apiserver-kubelet-client";
const ADMINISTRATORS: &str = "system:masters";

/// Who a client certificate says somebody is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    pub user: String,
    pub groups: Vec<String>,
}

impl Caller {
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let mut caller = Self::default();
        for name in parsed.subject().iter_common_name() {
            caller.user = name.as_str().ok()?.to_owned();
        }
        for name in parsed.subject().iter_organization() {
            caller.groups.push(name.as_str().ok()?.to_owned());
        }
        Some(caller)
    }
}

/// Upstream's answers: 401 without a name, 403 with one that may not.
pub fn check(caller: Option<&Caller>, method: &Method, path: &str) -> Result<(), Refusal> {
    let Some(caller) = caller.filter(|caller| !caller.user.is_empty()) else {
        return Err(refuse(StatusCode::UNAUTHORIZED, "Unauthorized"));
    };
    if caller.user == API_SERVER || caller.groups.iter().any(|group| group == ADMINISTRATORS) {
        return Ok(());
    }
    let (user, verb, of) = (&caller.user, verb(method), subresources(path));
    let message = format!("Forbidden (user={user}, verb={verb}, resource=nodes, subresource(s)=[{of}])");
    Err(refuse(StatusCode::FORBIDDEN, message))
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

/// <https://kubernetes.io/docs/reference/access-authn-authz/kubelet-authn-authz/#kubelet-authorization>
fn subresources(path: &str) -> &'static str {
    match path.trim_matches('/').split('/').next().unwrap_or_default() {
        "stats" => "stats",
        "metrics" => "metrics",
        "logs" => "log",
        "checkpoint" => "checkpoint",
        "pods" => "pods proxy",
        "healthz" => "healthz proxy",
        "configz" => "configz proxy",
        _ => "proxy",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_api_server_and_administrators_come_in() {
        let caller = |user: &str, groups: &[&str]| {
            Some(Caller { user: user.into(), groups: groups.iter().map(|&group| group.into()).collect() })
        };
        let check = |caller: Option<Caller>, method: Method, path: &str, want: Result<(), (u16, &str)>| {
            let got = super::check(caller.as_ref(), &method, path);
            assert_eq!(
                got.map_err(|refusal| (refusal.code.as_u16(), refusal.message)),
                want.map_err(|(code, text)| (code, text.to_owned()))
            );
        };
        check(caller(API_SERVER, &[]), Method::POST, "/exec/a/b/c", Ok(()));
        check(caller("root", &["system:masters"]), Method::GET, "/pods", Ok(()));
        check(None, Method::GET, "/healthz", Err((401, "Unauthorized")));
        check(caller("", &["system:masters"]), Method::GET, "/healthz", Err((401, "Unauthorized")));
        let node = caller("system:node:node-1", &["system:nodes"]);
        let no = |verb: &str, of: &str| {
            format!("Forbidden (user=system:node:node-1, verb={verb}, resource=nodes, subresource(s)=[{of}])")
        };
        check(node.clone(), Method::POST, "/exec/a/b/c", Err((403, &no("create", "proxy"))));
        check(node.clone(), Method::GET, "/stats/summary", Err((403, &no("get", "stats"))));
        check(node, Method::GET, "/pods", Err((403, &no("get", "pods proxy"))));
    }

    #[test]
    fn a_certificate_names_its_user() {
        use rcgen::DnType;
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "jane");
        params.distinguished_name.push(DnType::OrganizationName, "developers");
        let certificate = params.self_signed(&key).expect("signed");
        assert_eq!(
            Caller::of(certificate.der()),
            Some(Caller { user: "jane".into(), groups: vec!["developers".into()] })
        );
        assert_eq!(Caller::of(&CertificateDer::from(vec![1, 2, 3])), None);
    }
}
