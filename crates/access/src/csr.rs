//! Which certificate signing requests of kubelets are approved without anybody's hand, and what the signers of the API sign at all.
//! <https://kubernetes.io/docs/reference/access-authn-authz/kubelet-tls-bootstrapping/#approval>
//! <https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers>

use std::net::IpAddr;

use base64::Engine;
use object::{Key, Snapshot};
use plan::{Attributes, User};
use serde::Deserialize;
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::pem::Pem;
use x509_parser::prelude::FromDer;

use crate::{View, authorize, groups};
use kinds::NODES;

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

/// What a request for a certificate says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    /// E-mail addresses, URIs or other names that no kubelet asks for.
    pub has_other_names: bool,
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
    if !subject.common_name.starts_with("system:node:") || subject.organizations != [groups::NODES] {
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
    let plain = subject.dns_names.is_empty() && subject.addresses.is_empty() && !subject.has_other_names;
    if !plain || !usages_are(spec, "client auth") {
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
    let none = subject.dns_names.is_empty() && subject.addresses.is_empty();
    if none || subject.has_other_names || !usages_are(spec, "server auth") || !user.is_in(groups::NODES) {
        return None;
    }
    let node: NodeView = snapshot.get(&Key::cluster(NODES, name))?.decode().ok()?;
    let known = |text: &str| node.status.addresses.iter().any(|held| held.address == text);
    let names = subject.dns_names.iter().all(|asked| asked == name || known(asked));
    let addresses = subject.addresses.iter().all(|asked| known(&asked.to_string()));
    (names && addresses).then_some(Approval {
        message: "Auto approving kubelet serving certificate of the node's own names and addresses.",
    })
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
    let read =
        read(request).ok_or_else(|| "unable to parse csr: not a PEM encoded PKCS #10 request".to_owned());
    Some(read.and_then(|(subject, der)| {
        let purpose = check(&subject, usages).map_err(str::to_owned)?;
        Ok(Signable { purpose, der })
    }))
}

type Signed = Result<Purpose, &'static str>;

fn for_clients(_: &Subject, usages: &[String]) -> Signed {
    if !has_usages(usages, &[], "client auth") {
        return Err("usages did not match [client auth digital signature key encipherment]");
    }
    Ok(Purpose::Client)
}

fn for_kubelets(subject: &Subject, usages: &[String]) -> Signed {
    of_node(subject)?;
    if !subject.dns_names.is_empty() {
        return Err("DNS subjectAltNames are not allowed");
    }
    if !subject.addresses.is_empty() {
        return Err("IP subjectAltNames are not allowed");
    }
    if !has_usages(usages, &["digital signature"], "client auth") {
        return Err("usages did not match [client auth digital signature key encipherment]");
    }
    Ok(Purpose::Client)
}

fn for_kubelet_servers(subject: &Subject, usages: &[String]) -> Signed {
    of_node(subject)?;
    if subject.dns_names.is_empty() && subject.addresses.is_empty() {
        return Err("DNS or IP subjectAltName is required");
    }
    if !has_usages(usages, &["digital signature"], "server auth") {
        return Err("usages did not match [digital signature key encipherment server auth]");
    }
    Ok(Purpose::Server)
}

fn of_node(subject: &Subject) -> Result<(), &'static str> {
    if subject.organizations != [groups::NODES] {
        return Err("subject organization is not system:nodes");
    }
    if !subject.common_name.starts_with("system:node:") {
        return Err("subject common name does not begin with system:node:");
    }
    if subject.has_other_names {
        return Err("Email and URI subjectAltNames are not allowed");
    }
    Ok(())
}

/// The subject of `spec.request`: base64 of PEM of PKCS #10. None: it is none, or its signature does not hold.
pub fn subject(request: &str) -> Option<Subject> {
    Some(read(request)?.0)
}

/// The subject, and the request as DER. Of a text with several blocks, or with something around one, everybody must take the same.
fn read(request: &str) -> Option<(Subject, Vec<u8>)> {
    let pem = base64::engine::general_purpose::STANDARD.decode(request).ok()?;
    let pem = Pem::iter_from_buffer(&pem).next()?.ok()?;
    if pem.label != "CERTIFICATE REQUEST" {
        return None;
    }
    Some((parsed(&pem.contents)?, pem.contents))
}

fn parsed(der: &[u8]) -> Option<Subject> {
    let ([], request) = X509CertificationRequest::from_der(der).ok()? else { return None };
    request.verify_signature().ok()?;
    let info = &request.certification_request_info;
    let mut subject = Subject::default();
    // Who approves, who signs and who reads the certificate must not each take another one of several names.
    if info.subject.iter_common_name().count() > 1 {
        return None;
    }
    for name in info.subject.iter_common_name() {
        subject.common_name = name.as_str().ok()?.to_owned();
    }
    for name in info.subject.iter_organization() {
        subject.organizations.push(name.as_str().ok()?.to_owned());
    }
    for extension in request.requested_extensions().into_iter().flatten() {
        if let ParsedExtension::SubjectAlternativeName(names) = extension {
            names.general_names.iter().for_each(|name| learn(&mut subject, name));
        }
    }
    Some(subject)
}

fn learn(subject: &mut Subject, name: &GeneralName) {
    match name {
        GeneralName::DNSName(name) => subject.dns_names.push((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match address(bytes) {
            Some(address) => subject.addresses.push(address),
            None => subject.has_other_names = true,
        },
        _ => subject.has_other_names = true,
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(four.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(Into::into)
}
