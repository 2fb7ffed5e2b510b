//! What a cluster's API and network are like: its version, its ranges, its issuer.

use std::net::Ipv4Addr;

use plan::net::Cidr;

/// The version that this binary is of, and that a cluster has if nobody says.
pub const NEWEST: u8 = 36;
/// What the names of services end with.
pub const CLUSTER_DOMAIN: &str = "cluster.local";
/// Where a node's kubelet listens.
pub const KUBELET_PORT: u16 = 10_250;
/// The addresses of services and of pods, if nobody says.
const SERVICES: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 100, 0, 0), 16);
const PODS: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 244, 0, 0), 16);
/// Who signs the tokens of service accounts, if no issuer on the outside does.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// The shape of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// 36 of 1.36
    pub minor: u8,
    pub services: Cidr,
    /// The addresses of all pods; each node has a block of them.
    pub pods: Cidr,
    /// `iss` of service-account tokens, and the first of their audiences.
    pub issuer: String,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            minor: NEWEST,
            services: Cidr::new(SERVICES.0, SERVICES.1),
            pods: Cidr::new(PODS.0, PODS.1),
            issuer: ISSUER.into(),
        }
    }
}

impl Shape {
    /// The ClusterIP of the Service `kubernetes`: the first address of the range.
    pub fn kubernetes_ip(&self) -> Ipv4Addr {
        self.service(1)
    }

    /// The ClusterIP of the cluster's DNS, as EKS and kubeadm choose it.
    pub fn dns_ip(&self) -> Ipv4Addr {
        self.service(10)
    }

    /// Where the keys of tokens are found: beside the API, or where EKS' issuers have them.
    pub fn jwks_uri(&self) -> String {
        let path = if self.issuer == ISSUER { "openid/v1/jwks" } else { "keys" };
        format!("{}/{path}", self.issuer)
    }

    fn service(&self, number: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.services.address()).saturating_add(number))
    }
}

/// What `/version` and nodes of a minor version tell: `v1.36.0-ekso.0.1.0`.
pub fn git_version(minor: u8) -> String {
    format!("v1.{minor}.0-ekso.{}", env!("CARGO_PKG_VERSION"))
}
