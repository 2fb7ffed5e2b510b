//! Which certificate signing requests of kubelets are approved without anybody's hand, and what the signers of the API sign at all.
//! <https://kubernetes.io/docs/reference/access-authn-authz/kubelet-tls-bootstrapping/#approval>
//! <https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers>

use kinds::NODES;
use kinds::pkcs10::{self, CertificateRequest};
use object::{Key, Snapshot};
use plan::{Attributes, User};
use serde::Deserialize;
use serde_json::Value;

use crate::{View, authorize, groups};

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";

/// The condition to add: type `Approved`, status `True`, reason `AutoApproved`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    pub message: &'static str,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RequestView {
    spec: Spec,
    status: Status,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    request: String,
    signer_name: String,
    username: String,
    groups: Vec<String>,
    usages: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    conditions: Vec<Condition>,
    certificate: String,
}

#[derive(Default, Deserialize)]
struct Condition {
    r#type: String,
}

/// What a request for a certificate says: one name at most, since who approves, who signs and who reads the certificate must not each take
/// another one of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    pub common_name: String,
    pub asked: CertificateRequest,
}

/// Approves, or leaves the request to others. An approved or denied one is left alone.
pub fn decide(view: &View, request: &Value) -> Option<Approval> {
    let RequestView { spec, status } = serde_json::from_value(request.clone()).ok()?;
    let decided =
        status.conditions.iter().any(|held| matches!(&*held.r#type, "Approved" | "Denied" | "Failed"));
    if decided || !status.certificate.is_empty() {
        return None;
    }
    let subject = subject(&spec.request)?;
    if !subject.common_name.starts_with("system:node:") || subject.asked.organizations != [groups::NODES] {
        return None;
    }
    let groups: Vec<&str> = spec.groups.iter().map(String::as_str).collect();
    let user = User::new(spec.username.as_str(), &groups);
    let own = spec.username == subject.common_name;
    match spec.signer_name.as_str() {
        KUBELET_CLIENT => client(view, &spec, &subject, &user, own),
        KUBELET_SERVING if own => serving(view.snapshot, &spec, &subject, &user),
        _ => None,
    }
}

fn client(view: &View, spec: &Spec, subject: &Subject, user: &User, own: bool) -> Option<Approval> {
    let CertificateRequest { dns_names, addresses, .. } = &subject.asked;
    if !dns_names.is_empty()
        || !addresses.is_empty()
        || has_odd_names(&subject.asked)
        || !usages_are(spec, "client auth")
    {
        return None;
    }
    let may = |subresource| {
        let attributes = Attributes {
            verb: "create",
            group: "certificates.k8s.io",
            version: "v1",
            resource: "certificatesigningrequests",
            subresource,
            ..Attributes::default()
        };
        authorize(view, user, &attributes).allowed
    };
    let bound = user.groups.iter().find_map(|group| group.strip_prefix(groups::BOOTSTRAPPER_OF));
    let name = subject.common_name.strip_prefix("system:node:").unwrap_or_default().replace('.', ":");
    if bound.is_some_and(|bound| bound != name) {
        return None;
    }
    if own && may("selfnodeclient") {
        let message = "Auto approving self kubelet client certificate after SubjectAccessReview.";
        return Some(Approval { message });
    }
    may("nodeclient").then_some(Approval {
        message: "Auto approving kubelet client certificate after SubjectAccessReview.",
    })
}

/// A node may serve under the names and addresses that its Node object has, and under no others.
fn serving(snapshot: &Snapshot, spec: &Spec, subject: &Subject, user: &User) -> Option<Approval> {
    let name = subject.common_name.strip_prefix("system:node:")?;
    let CertificateRequest { dns_names, addresses, .. } = &subject.asked;
    let none = dns_names.is_empty() && addresses.is_empty();
    if none || has_odd_names(&subject.asked) || !usages_are(spec, "server auth") || !user.is_in(groups::NODES)
    {
        return None;
    }
    let node: NodeView = snapshot.get(&Key::cluster(NODES, name))?.decode().ok()?;
    let known = |text: &str| node.status.addresses.iter().any(|held| held.address == text);
    let names = dns_names.iter().all(|asked| asked == name || known(asked));
    let addresses = addresses.iter().all(|asked| known(&asked.to_string()));
    (names && addresses).then_some(Approval {
        message: "Auto approving kubelet serving certificate of the node's own names and addresses.",
    })
}

/// Names that no kubelet asks for.
fn has_odd_names(asked: &CertificateRequest) -> bool {
    asked.has_emails || asked.has_uris || asked.has_other_names
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeView {
    status: NodeStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeStatus {
    addresses: Vec<Address>,
}

#[derive(Default, Deserialize)]
struct Address {
    address: String,
}

/// `digital signature` and this one, with `key encipherment` or without (keys that are not RSA).
fn usages_are(spec: &Spec, purpose: &str) -> bool {
    has_usages(&spec.usages, &["digital signature"], purpose)
}

/// The purpose and what is needed besides, and nothing that no TLS certificate needs.
fn has_usages(usages: &[String], needed: &[&str], purpose: &str) -> bool {
    let has = |wanted: &str| usages.iter().any(|usage| usage == wanted);
    let allowed =
        |usage: &String| usage == "digital signature" || usage == "key encipherment" || usage == purpose;
    has(purpose) && needed.iter().all(|needed| has(needed)) && usages.iter().all(allowed)
}

/// What a signer of the API makes certificates for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Client,
    Server,
}

/// What may be signed, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signable {
    pub purpose: Purpose,
    /// The request itself, DER of PKCS #10: what was looked at here, whatever else stands beside it.
    pub der: Vec<u8>,
}

/// Whether a signer signs an approved request. None: it is somebody else's signer.
///
/// # Errors
/// What the signer does not allow, for the condition `Failed`: whoever approves is not asked whether the request is one for this signer.
pub fn signable(signer: &str, request: &str, usages: &[String]) -> Option<Result<Signable, String>> {
    let check = match signer {
        CLIENT => for_clients,
        KUBELET_CLIENT => for_kubelets,
        KUBELET_SERVING => for_kubelet_servers,
        _ => return None,
    };
    let read = read(request).map_err(|why| format!("unable to parse csr: {why}"));
    Some(read.and_then(|subject| {
        let purpose = check(&subject, usages).map_err(str::to_owned)?;
        Ok(Signable { purpose, der: subject.asked.der })
    }))
}

type Signed = Result<Purpose, &'static str>;

const NO_DNS: &str = "DNS subjectAltNames are not allowed";
const NO_EMAILS: &str = "Email subjectAltNames are not allowed";
const NO_ADDRESSES: &str = "IP subjectAltNames are not allowed";
const NO_URIS: &str = "URI subjectAltNames are not allowed";
const NO_OTHERS: &str = "other subjectAltNames are not allowed";
const NOT_OF_NODES: &str = "subject organization is not system:nodes";
const NOT_A_NODE: &str = "subject common name does not begin with system:node:";

fn for_clients(_: &Subject, usages: &[String]) -> Signed {
    if !has_usages(usages, &[], "client auth") {
        return Err("usages did not match [client auth digital signature key encipherment]");
    }
    Ok(Purpose::Client)
}

/// The first of them that is true is what is wrong.
fn refuse<const N: usize>(wrong: [(bool, &'static str); N]) -> Result<(), &'static str> {
    wrong.into_iter().find(|(is_wrong, _)| *is_wrong).map_or(Ok(()), |(_, why)| Err(why))
}

fn for_kubelets(subject: &Subject, usages: &[String]) -> Signed {
    let asked = &subject.asked;
    refuse([
        (asked.organizations != [groups::NODES], NOT_OF_NODES),
        (!asked.dns_names.is_empty(), NO_DNS),
        (asked.has_emails, NO_EMAILS),
        (!asked.addresses.is_empty(), NO_ADDRESSES),
        (asked.has_uris, NO_URIS),
        (asked.has_other_names, NO_OTHERS),
        (!subject.common_name.starts_with("system:node:"), NOT_A_NODE),
        (
            !has_usages(usages, &["digital signature"], "client auth"),
            "usages did not match [client auth digital signature key encipherment]",
        ),
    ])?;
    Ok(Purpose::Client)
}

fn for_kubelet_servers(subject: &Subject, usages: &[String]) -> Signed {
    let asked = &subject.asked;
    refuse([
        (asked.organizations != [groups::NODES], NOT_OF_NODES),
        (asked.dns_names.is_empty() && asked.addresses.is_empty(), "DNS or IP subjectAltName is required"),
        (asked.has_emails, NO_EMAILS),
        (asked.has_uris, NO_URIS),
        (asked.has_other_names, NO_OTHERS),
        (
            !has_usages(usages, &["digital signature"], "server auth"),
            "usages did not match [digital signature key encipherment server auth]",
        ),
        (!subject.common_name.starts_with("system:node:"), NOT_A_NODE),
    ])?;
    Ok(Purpose::Server)
}

/// The subject of `spec.request`. None: it is no request for a certificate, its signature does not hold, or it has several names.
pub fn subject(request: &str) -> Option<Subject> {
    read(request).ok()
}

fn read(request: &str) -> Result<Subject, String> {
    let asked = pkcs10::read(request)?;
    let common_name = match &asked.common_names[..] {
        [] => String::new(),
        [one] => one.clone(),
        _ => return Err("the subject has several common names".to_owned()),
    };
    Ok(Subject { common_name, asked })
}
