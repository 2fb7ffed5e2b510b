//! The site's AWS account: opened with the first cluster, answering at a port of the loopback address as long as the daemon runs.
//!
//! ```text
//! aws/
//!   account.json   which account it is, and its port
//!   access.json    what the command line writes into the profile
//!   pki/  store/   of the endpoint; in pki/issuers of what answers for issuers of tokens
//! ```
//!
//! An issuer of tokens is asked from the host, from pods and from whatever else leaves a VPC, as those of EKS are asked from the internet:
//! the site's edge has an address for them, where nothing else is answered.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

use account::{Account, Answers, Identity, Limits, Names, OpenError, Server};
use files::FileError;
use machines::netns;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{Embedded, Store};
use tokio::task::JoinHandle;
use tracing::info;

use crate::admin::{AccountResource, AccountStatus, AwsRequest};
use crate::clock;
use crate::pki::{self, CertificateAuthority, PkiError, Subject};
use crate::site::Site;

pub const PORT: u16 = 4566;
pub const REGION: &str = "us-east-1";
/// Where a port is looked for when the usual one is taken.
const ANY: u16 = 0;
/// Where issuers of tokens answer: IAM names a provider without its port, so it must be the usual one.
const HTTPS: u16 = 443;
/// Of the places at that door, for each address: pods come there too, and none may keep the site's clusters from their keys.
const ISSUERS_PER_SOURCE: usize = 128;
/// The keys of what answers there, in the account's folder.
const ISSUERS: &str = "pki/issuers";

#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error(transparent)]
    Machines(#[from] machines::Error),
    #[error("open the account's store: {0}")]
    Store(#[from] store::OpenError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("a worker ended: {0}")]
    Worker(#[from] tokio::task::JoinError),
    #[error("the keys of the AWS endpoint: {0}")]
    Keys(String),
    #[error("listen at {address} in the site's edge, for its issuers of tokens: {why}")]
    Issuers { address: SocketAddr, why: String },
    #[error(
        "the AWS endpoint's port {port} on 127.0.0.1 cannot be used: {source}; choose another with --aws-port (0 takes a free one)"
    )]
    Port { port: u16, source: io::Error },
    #[error(
        "the AWS endpoint of this data folder answers at port {0} already: `ekso down` its clusters before you choose another"
    )]
    OtherPort(u16),
    #[error("the AWS account of this data folder is in {is}: for one in {wanted} choose another --data-dir")]
    OtherRegion { is: String, wanted: String },
    #[error("the account has no administrator: its access keys were deleted or made inactive")]
    NoAdministrator,
}

/// Which account a site has: kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    account: String,
    region: String,
    port: u16,
}

/// What one needs to act as the account's administrator.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// `https://127.0.0.1:4566`
    pub endpoint: String,
    pub account: String,
    pub region: String,
    pub access_key_id: String,
    pub secret_access_key: String,
}

impl Site {
    /// The folder of the AWS account.
    pub fn aws(&self) -> std::path::PathBuf {
        self.dir.join("aws")
    }

    /// What the running account's administrator needs, if there is an account.
    pub fn access(&self) -> Result<Option<Access>, FileError> {
        files::read_json(&self.aws().join("access.json"))
    }

    /// The authorities of the endpoint and of the issuers of tokens, PEM: what a client of the account believes.
    pub fn aws_authorities(&self) -> Result<String, FileError> {
        Ok(pem(&self.aws().join("pki/ca.crt"))? + &self.issuers_authority()?)
    }

    /// The authority of what answers for the site's issuers of tokens, PEM.
    pub fn issuers_authority(&self) -> Result<String, FileError> {
        pem(&self.aws().join(ISSUERS).join("ca.crt"))
    }
}

fn pem(path: &Path) -> Result<String, FileError> {
    let pem = files::read(path)?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&pem).into_owned())
}

/// An account that answers.
pub struct Running {
    pub account: Arc<Account>,
    port: u16,
    server: Server,
    serving: JoinHandle<()>,
    issuers: Issuers,
}

/// What answers for the site's issuers of tokens.
struct Issuers {
    address: Ipv4Addr,
    server: Server,
    serving: JoinHandle<()>,
}

impl Issuers {
    /// Opens their door in the edge, which must be there.
    fn start(dir: &Path, machines: &machines::Site, account: Arc<Account>) -> Result<Self, AccountError> {
        let address = machines.public_addresses()?.pool.issuers();
        let authority = CertificateAuthority::open_for(&dir.join(ISSUERS), "ekso token issuers", address)?;
        let tls = tls(&authority, &[], &[address.into()])?;
        let names = Names::loopback_and(&[address.to_string()]);
        let limits = Limits { connections_per_source: ISSUERS_PER_SOURCE, ..Limits::default() };
        let server = Server::new(account, names, tls, limits, Answers::Issuers);
        let at = SocketAddr::from((address, HTTPS));
        let failed =
            |why: &dyn std::fmt::Display| AccountError::Issuers { address: at, why: why.to_string() };
        let listener = netns::tcp_listener(&machines.edge_ns()?, at).map_err(|error| failed(&error))?;
        listener.set_nonblocking(true).map_err(|error| failed(&error))?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(|error| failed(&error))?;
        let serving = tokio::spawn({
            let server = server.clone();
            async move { server.serve(listener).await }
        });
        Ok(Self { address, server, serving })
    }
}

impl Running {
    /// Opens the site's account, or makes it, and opens its doors. The site's network must be up.
    pub async fn start(
        site: &Site,
        machines: &machines::Site,
        wanted: &AwsRequest,
    ) -> Result<Self, AccountError> {
        let dir = site.aws();
        files::make_dir(&dir)?;
        let path = dir.join("account.json");
        let known: Option<Record> = files::read_json(&path)?;
        let (record, listener) = record(known.clone(), wanted)?;
        if known.as_ref() != Some(&record) {
            files::write_json(&path, &record)?;
        }
        let folder = dir.join("store");
        let window = store::Window { bytes: 4 << 20, ..store::Window::default() };
        let options = store::Options {
            file_bytes: 1 << 20,
            window,
            most_ops: ::account::MOST_OPS,
            ..store::Options::default()
        };
        let opened = tokio::task::spawn_blocking(move || Embedded::open(&folder, options)).await??;
        let store: Arc<dyn Store> = Arc::new(opened);
        let started = Self::open_doors(&dir, machines, &record, listener, store.clone()).await;
        match &started {
            Ok(_) => info!(
                account = record.account,
                region = record.region,
                port = record.port,
                "the AWS endpoint answers"
            ),
            // So that it can be opened again.
            Err(_) => store.close().await,
        }
        started
    }

    /// When it fails, nothing of it answers.
    async fn open_doors(
        dir: &Path,
        machines: &machines::Site,
        record: &Record,
        listener: TcpListener,
        store: Arc<dyn Store>,
    ) -> Result<Self, AccountError> {
        let identity = Identity { account: record.account.clone(), region: record.region.clone() };
        let account =
            Account::open(identity, store, Arc::new(clock::now), Arc::new(pki::fill_random)).await?;
        files::write_json(&dir.join("access.json"), &access(&account, record.port)?)?;
        let authority = CertificateAuthority::open(&dir.join("pki"), "ekso AWS endpoint")?;
        let addresses: [IpAddr; 3] =
            [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into(), machines::AWS_DOOR.into()];
        let tls = tls(&authority, &["localhost"], &addresses)?;
        let names = Names::loopback_and(&[machines::AWS_DOOR.to_string()]);
        let server = Server::new(account.clone(), names, tls, Limits::default(), Answers::Calls);
        let failed = |source| AccountError::Port { port: record.port, source };
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
        // Nothing fails after this: nobody would stop what is served already.
        let issuers = Issuers::start(dir, machines, account.clone())?;
        let serving = tokio::spawn({
            let server = server.clone();
            async move { server.serve(listener).await }
        });
        Ok(Self { account, port: record.port, server, serving, issuers })
    }

    /// Below which the issuers of tokens of new clusters are: `https://198.18.149.3`. An issuer stays what it was first.
    pub fn issuers(&self) -> String {
        format!("https://{}", self.issuers.address)
    }

    /// What answers, for more listeners.
    pub fn server(&self) -> Server {
        self.server.clone()
    }

    /// Whether what is wanted is what is there.
    pub fn check(&self, wanted: &AwsRequest) -> Result<(), AccountError> {
        if wanted.port.is_some_and(|port| port != ANY && port != self.port) {
            return Err(AccountError::OtherPort(self.port));
        }
        check_region(&self.account.identity.region, wanted)
    }

    /// The account for people: where it answers, and what in it one needs to name.
    pub async fn status(&self) -> Result<AccountStatus, AccountError> {
        let Access { endpoint, account, region, .. } = access(&self.account, self.port)?;
        let mut status = AccountStatus { endpoint, account, region, ..AccountStatus::default() };
        for row in SHOWN {
            // What has no function behind it yet has nothing to show.
            let Ok(output) =
                self.account.call(&self.account.root(), row.service, row.operation, &json!({})).await
            else {
                continue;
            };
            let items = output[row.list].as_array().into_iter().flatten();
            status.resources.extend(items.map(|item| AccountResource {
                kind: row.kind.to_owned(),
                id: item[row.id].as_str().unwrap_or_default().to_owned(),
                detail: (row.detail)(item),
            }));
        }
        Ok(status)
    }

    /// Why somebody may do something, or may not. The error says why there is nothing to tell.
    pub fn why(&self, question: &aws::iam::Question) -> Result<aws::iam::Explanation, String> {
        let Identity { account, region } = &self.account.identity;
        let (state, now) = (self.account.snapshot(), self.account.now());
        aws::iam::explain(&aws::World { account, region, now, state: &state }, question)
    }

    /// Ends the calls in order, then the store.
    pub async fn stop(self) {
        self.server.stop();
        self.issuers.server.stop();
        for serving in [self.serving, self.issuers.serving] {
            if let Err(panic) = serving.await {
                tracing::error!(%panic, "the AWS endpoint ended badly");
            }
        }
        self.account.close().await;
    }
}

fn access(account: &Account, port: u16) -> Result<Access, AccountError> {
    let (id, key) = aws::genesis::admin_key(&account.snapshot()).ok_or(AccountError::NoAdministrator)?;
    let Identity { account, region } = account.identity.clone();
    Ok(Access {
        endpoint: format!("https://{}:{port}", Ipv4Addr::LOCALHOST),
        account,
        region,
        access_key_id: id,
        secret_access_key: key.secret,
    })
}

/// What `ekso aws` lists.
struct Shown {
    kind: &'static str,
    service: &'static str,
    operation: &'static str,
    /// Members of its output and of the items in it.
    list: &'static str,
    id: &'static str,
    detail: fn(&Value) -> String,
}

const SHOWN: &[Shown] = &[
    Shown {
        kind: "vpc",
        service: "ec2",
        operation: "DescribeVpcs",
        list: "Vpcs",
        id: "VpcId",
        detail: |vpc| word(&vpc["CidrBlock"]),
    },
    Shown {
        kind: "subnet",
        service: "ec2",
        operation: "DescribeSubnets",
        list: "Subnets",
        id: "SubnetId",
        detail: |subnet| {
            let kind = if subnet["MapPublicIpOnLaunch"] == true { "public" } else { "private" };
            format!("{} {} {kind}", word(&subnet["AvailabilityZone"]), word(&subnet["CidrBlock"]))
        },
    },
    Shown {
        kind: "role",
        service: "iam",
        operation: "ListRoles",
        list: "Roles",
        id: "Arn",
        detail: |role| word(&role["Description"]),
    },
];

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn check_region(is: &str, wanted: &AwsRequest) -> Result<(), AccountError> {
    match &wanted.region {
        Some(region) if region != is => {
            Err(AccountError::OtherRegion { is: is.to_owned(), wanted: region.clone() })
        }
        _ => Ok(()),
    }
}

/// The account as it was, or a new one, and its door.
fn record(known: Option<Record>, wanted: &AwsRequest) -> Result<(Record, TcpListener), AccountError> {
    if let Some(known) = &known {
        check_region(&known.region, wanted)?;
    }
    let (listener, port) = match (wanted.port, &known) {
        (Some(port), _) => listen(port)?,
        (None, Some(known)) => listen(known.port)?,
        (None, None) => listen(PORT).or_else(|_| listen(ANY))?,
    };
    let mut record = known.unwrap_or_else(|| Record {
        account: account_number(),
        region: wanted.region.clone().unwrap_or_else(|| REGION.to_owned()),
        port,
    });
    record.port = port;
    Ok((record, listener))
}

fn listen(port: u16) -> Result<(TcpListener, u16), AccountError> {
    let failed = |source| AccountError::Port { port, source };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(failed)?;
    let port = listener.local_addr().map_err(failed)?.port();
    Ok((listener, port))
}

/// Twelve digits, the first of which is none.
fn account_number() -> String {
    let number = u64::from_be_bytes(pki::random()) % 900_000_000_000;
    format!("{}", number + 100_000_000_000)
}

fn tls(
    authority: &CertificateAuthority,
    names: &[&str],
    addresses: &[IpAddr],
) -> Result<Arc<rustls::ServerConfig>, AccountError> {
    let subject = Subject { common_name: "ekso", organizations: &[] };
    let pair = authority.server(&subject, names, addresses)?;
    let keys = |error: &dyn std::fmt::Display| AccountError::Keys(error.to_string());
    let leaf = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).map_err(|error| keys(&error))?;
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).map_err(|error| keys(&error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config =
        config.map_err(|error| keys(&error))?.with_no_client_auth().with_single_cert(vec![leaf], key);
    let mut config = config.map_err(|error| keys(&error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// A region's name, as AWS gives them: tools refuse one that cannot be.
pub fn region_name(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.split('-').collect();
    let is_word = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
    match parts[..] {
        [area, .., number]
            if parts.len() >= 3
                && area.len() == 2
                && parts[..parts.len() - 1].iter().all(is_word)
                && number.len() == 1
                && number.bytes().all(|byte| byte.is_ascii_digit()) =>
        {
            Ok(text.to_owned())
        }
        _ => Err("name a region as AWS does: us-east-1, eu-central-1, ap-southeast-2".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_have_names() {
        for text in ["us-east-1", "eu-central-1", "us-gov-west-1", "ap-southeast-2"] {
            assert!(region_name(text).is_ok(), "{text}");
        }
        for text in ["", "local", "us-east", "us-east-one", "US-EAST-1", "us--1", "usa-east-1", "us-east-12"]
        {
            assert!(region_name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_account_keeps_its_number_its_region_and_its_port() {
        let free = AwsRequest { port: Some(0), ..AwsRequest::default() };
        let (first, listener) = record(None, &free).expect("made");
        assert_eq!((first.account.len(), first.region.as_str()), (12, REGION));
        // Its port is taken, by itself.
        let taken = record(Some(first.clone()), &AwsRequest::default()).expect_err("taken").to_string();
        assert!(taken.contains("choose another with --aws-port"), "{taken}");
        drop(listener);
        let (again, _) = record(Some(first.clone()), &AwsRequest::default()).expect("there");
        assert_eq!(again, first);
        let elsewhere = AwsRequest { region: Some("eu-west-1".into()), ..free };
        assert!(matches!(record(Some(first), &elsewhere), Err(AccountError::OtherRegion { .. })));
    }
}
