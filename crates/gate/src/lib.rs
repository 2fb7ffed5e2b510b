//! The one way in for a write: default → mutate → validate → admit → commit. API requests and controllers alike pass it.
//!
//! ```text
//! create   decode → default → own fields → mutate → name, uid, generation → validate → validating admission → charge, commit
//! update   decode → default → own fields → mutate → metadata, generation   → validate → validating admission → charge, commit or remove
//! delete   preconditions → validating admission → grace and finalizers → commit or remove
//! ```
//!
//! A commit compares every key that the decision was made on; if one has moved meanwhile, the whole decision is made again on the newer
//! snapshot. No lock is held but one: those whom a quota charges have their turn, one after another (`charge`).
//!
//! Architecture invariant: the gate knows kinds by their rows. What a single kind does beyond its row stands in one table
//! (`subresource`, `removal`) or in one file (`service`), never in the flow.

mod admit;
mod allocation;
mod catalog;
mod charge;
mod commit;
mod conversion;
mod create;
mod decode;
mod delete;
mod eviction;
mod execute;
mod finalizers;
mod measures;
mod metadata;
mod ownership;
mod patch;
mod pod;
mod removal;
mod request;
mod requestor;
mod rounds;
mod scale;
mod service;
mod subresource;
mod update;
mod webhooks;

use std::sync::{Arc, Mutex};

use admission::extension::Extensions;
use object::{Resource, Status, Time};
use schema::Kind;
use store::Store;

pub use admission::{Configuration as AdmissionConfiguration, Fargate, Operation, PodIdentity};
pub use admit::{Authority, Passed};
pub use allocation::{ServiceRange, ServiceRanges};
pub use catalog::{Catalog, Groups};
pub use commit::selectable_values;
pub use decode::document;
pub use request::{
    Annotations, Answer, Change, DeleteOptions, Options, Outcome, PatchKind, Preconditions, Problems, Request,
};
pub use scale::read_scale;
pub use webhooks::{Asking, Webhooks};

/// Tells the time; the simulator's clock is virtual.
pub type Clock = Arc<dyn Fn() -> Time + Send + Sync>;

/// Fills a buffer with random bytes: uids, generated names, addresses. Seeded in the simulator.
pub type Random = Arc<dyn Fn(&mut [u8]) + Send + Sync>;

/// Gives what is true of a cluster of EKS at the moment.
pub type PodIdentitySource = Arc<dyn Fn() -> Arc<PodIdentity> + Send + Sync>;

/// The way in of one cluster. Cheap to share; holds no state but what it compiled of the snapshot's policies, what was converted lately, and
/// whose turn it is to be charged.
pub struct Gate {
    store: Arc<dyn Store>,
    catalog: Arc<catalog::Live>,
    clock: Clock,
    random: Random,
    authority: Arc<dyn Authority>,
    services: ServiceRanges,
    webhooks: Option<Arc<dyn Webhooks>>,
    admission: Arc<admission::Configuration>,
    pod_identity: Option<PodIdentitySource>,
    fargate: Option<Arc<dyn Fargate>>,
    extensions: Mutex<Arc<Extensions>>,
    conversions: Arc<conversion::Conversions>,
    measures: Arc<measures::Measures>,
    turns: Arc<charge::Turns>,
}

impl Gate {
    pub fn new(
        store: Arc<dyn Store>,
        authority: Arc<dyn Authority>,
        clock: Clock,
        random: Random,
        services: ServiceRanges,
    ) -> Self {
        Self {
            store,
            catalog: Arc::new(catalog::Live::new(Catalog::built_in())),
            clock,
            random,
            authority,
            services,
            webhooks: None,
            admission: Arc::default(),
            pod_identity: None,
            fargate: None,
            extensions: Mutex::default(),
            conversions: Arc::default(),
            measures: Arc::default(),
            turns: Arc::default(),
        }
    }

    /// Serves what a minor version of Kubernetes (36) serves.
    pub fn of_version(mut self, minor: u8) -> Self {
        self.catalog = Arc::new(catalog::Live::new(Catalog::of_version(minor)));
        self
    }

    /// With what the plugins of admission are told.
    pub fn with_admission(mut self, configuration: Arc<admission::Configuration>) -> Self {
        self.admission = configuration;
        self
    }

    /// The same way in to another view of the same state: one that takes writes only as long as its server leads.
    pub fn over(&self, store: Arc<dyn Store>) -> Self {
        Self {
            store,
            catalog: self.catalog.clone(),
            clock: self.clock.clone(),
            random: self.random.clone(),
            authority: self.authority.clone(),
            services: self.services,
            webhooks: self.webhooks.clone(),
            admission: self.admission.clone(),
            pod_identity: self.pod_identity.clone(),
            fargate: self.fargate.clone(),
            extensions: Mutex::default(),
            conversions: self.conversions.clone(),
            measures: self.measures.clone(),
            turns: self.turns.clone(),
        }
    }

    /// With the way to roles of a cluster of EKS, which is asked for at each pod: it changes in the account, not in the cluster.
    pub fn with_pod_identity(mut self, source: PodIdentitySource) -> Self {
        self.pod_identity = Some(source);
        self
    }

    /// With Fargate of a cluster of EKS, which is asked at each pod, as [`Self::with_pod_identity`].
    pub fn with_fargate(mut self, fargate: Arc<dyn Fargate>) -> Self {
        self.fargate = Some(fargate);
        self
    }

    pub fn authority(&self) -> &Arc<dyn Authority> {
        &self.authority
    }

    /// The row that objects of a resource are stored by.
    fn kind(&self, resource: Resource) -> Result<Arc<Kind>, Status> {
        let kind = self.catalog().by_resource(resource).cloned();
        kind.ok_or_else(|| Status::internal(format!("no kind is served as {resource}")))
    }

    /// The row of the form that a request's objects have while they are decided on: of built-ins the one that is stored, of custom
    /// resources the one that the request speaks.
    fn row(&self, request: &Request<'_>) -> Result<Arc<Kind>, Status> {
        match &request.kind.custom {
            Some(_) => Ok(Arc::new(request.kind.clone())),
            None => self.kind(request.kind.resource),
        }
    }

    /// The row that is served in place of one of a definition that has changed since; None: it is still the same.
    ///
    /// # Errors
    /// 404 if its version is no longer there.
    fn replaced(&self, kind: &Kind) -> Result<Option<Arc<Kind>>, Status> {
        let Some(custom) = &kind.custom else { return Ok(None) };
        let catalog = self.catalog();
        let served = catalog.served(kind.group, kind.version, kind.resource.plural());
        let now =
            served.or_else(|| catalog.by_resource(kind.resource).filter(|row| row.version == kind.version));
        let now = now.ok_or_else(subresource::not_served)?;
        let is_same = now.custom.as_ref().is_some_and(|now| Arc::ptr_eq(now, custom));
        Ok((!is_same).then(|| now.clone()))
    }

    /// Writes what admission and allocation cost so far.
    pub fn write_metrics(&self, page: &mut metrics::Page) {
        self.measures.write(&self.store.snapshot(), self.services, page);
        if let Some(webhooks) = &self.webhooks {
            webhooks.write_metrics(page);
        }
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// What is served now. A request keeps to the one that it was routed by.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.get(&*self.store, &self.measures)
    }

    pub fn now(&self) -> Time {
        (self.clock)()
    }

    /// A number below `bound`; zero if `bound` is zero.
    fn below(&self, bound: u64) -> u64 {
        let mut bytes = [0; 8];
        (self.random)(&mut bytes);
        u64::from_le_bytes(bytes).checked_rem(bound).unwrap_or(0)
    }

    /// A random (version 4) UUID, RFC 9562.
    pub fn uid(&self) -> String {
        let mut bytes = [0_u8; 16];
        (self.random)(&mut bytes);
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let mut text = String::with_capacity(36);
        for (index, byte) in bytes.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from(b"0123456789abcdef"[usize::from(digit)]));
            }
        }
        text
    }

    /// What `generateName` appends: five letters and digits that spell no words.
    fn suffix(&self) -> String {
        const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
        let mut bytes = [0; 5];
        (self.random)(&mut bytes);
        bytes.iter().map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])).collect()
    }
}
