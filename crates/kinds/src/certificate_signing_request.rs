use crate::{column, row, strategy, subresource};
use object::Resource;
use schema::names;
use schema::{Kind, Strategy, Subresource};

pub const CERTIFICATE_SIGNING_REQUESTS: Resource =
    Resource::new("certificatesigningrequests.certificates.k8s.io");

pub static KIND: Kind = Kind {
    resource: CERTIFICATE_SIGNING_REQUESTS,
    group: "certificates.k8s.io",
    version: "v1",
    kind: "CertificateSigningRequest",
    singular: "certificatesigningrequest",
    short_names: &["csr"],
    namespaced: false,
    subresources: &[
        Subresource { name: "approval", gvk: None, verbs: &["get", "patch", "update"] },
        subresource::STATUS,
    ],
    type_name: "certificates.v1.CertificateSigningRequest",
    name: names::path_segment,
    columns: &[column::NAME, column::AGE],
    selectable: &["spec.signerName"],
    strategy: Strategy { main_keeps: &["status"], ..strategy::PLAIN },
    ..row::BASE
};
