//! What sealing and opening took, under the names that upstream has for its transformers and its KMS.

use std::collections::BTreeMap;
use std::time::Duration;

use metrics::{Counter, Family, Histogram, Page, exponential};
use object::Resource;

use super::kms::Kms;

static TRANSFORMATION_SECONDS: [f64; 25] = exponential(5e-6, 2.0);
static SEED_SECONDS: [f64; 14] = exponential(5e-6, 2.0);
static CALL_SECONDS: [f64; 20] = exponential(0.0001, 2.0);

/// The word for what is written as it is, where it is read.
pub(super) const IDENTITY: &str = "identity";
/// The status of what went well, and of what went wrong without gRPC.
pub(super) const DONE: &str = "OK";
pub(super) const NOT_ASKED: &str = "unknown-non-grpc";

#[derive(Clone, Copy)]
pub(super) enum Way {
    FromStorage,
    ToStorage,
}

impl Way {
    fn word(self) -> &'static str {
        match self {
            Self::FromStorage => "from_storage",
            Self::ToStorage => "to_storage",
        }
    }
}

/// Of one store.
pub(super) struct Transformations {
    /// By way and prefix: those that went well.
    took: Family<[Box<str>; 2], Histogram>,
    /// By resource, status, way and prefix.
    done: Family<[Box<str>; 4], Counter>,
}

impl Default for Transformations {
    fn default() -> Self {
        Self { took: Family::new(|| Histogram::new(&TRANSFORMATION_SECONDS)), done: Family::default() }
    }
}

impl Transformations {
    /// `prefix`: that of the key, which the configuration names. `status`: [`DONE`], or why not: what a KMS answered with, or
    /// [`NOT_ASKED`].
    pub(super) fn note(&self, resource: Resource, way: Way, prefix: &str, status: &str, took: Duration) {
        self.done.of(&[resource.as_str(), status, way.word(), prefix]).increase();
        if status == DONE {
            self.took.of(&[way.word(), prefix]).took(took);
        }
    }

    pub(super) fn write(&self, page: &mut Page) {
        page.histograms(
            "apiserver_storage_transformation_duration_seconds",
            "[ALPHA] Latencies in seconds of value transformation operations.",
            ["transformation_type", "transformer_prefix"],
            &self.took,
        );
        page.counters(
            "apiserver_storage_transformation_operations_total",
            "[ALPHA] Total number of transformations. Successful transformation will have a status 'OK'.",
            ["resource", "status", "transformation_type", "transformer_prefix"],
            &self.done,
        );
    }
}

/// What a KMS was asked.
pub(super) struct Calls {
    /// By method and gRPC status.
    took: Family<[Box<str>; 2], Histogram>,
    /// Making the seeds of keys that it sealed.
    seeds: Histogram,
    /// By what was wrong: ids of keys that it told and that are none.
    wrong_key_ids: Family<[&'static str; 1], Counter>,
}

impl Default for Calls {
    fn default() -> Self {
        Self {
            took: Family::new(|| Histogram::new(&CALL_SECONDS)),
            seeds: Histogram::new(&SEED_SECONDS),
            wrong_key_ids: Family::default(),
        }
    }
}

impl Calls {
    pub(super) fn note(&self, method: &str, status: &str, took: Duration) {
        self.took.of(&[method, status]).took(took);
    }

    pub(super) fn made_seed(&self, took: Duration) {
        self.seeds.took(took);
    }

    /// `fault`: `empty` or `too_long`.
    pub(super) fn wrong_key_id(&self, fault: &'static str) {
        self.wrong_key_ids.of(&[fault]).increase();
    }
}

/// One name may stand for several groups of resources: they are counted together.
pub(super) fn write_kms<'a>(all: impl Iterator<Item = &'a std::sync::Arc<Kms>>, page: &mut Page) {
    let calls: Family<[Box<str>; 3], Histogram> = Family::new(|| Histogram::new(&CALL_SECONDS));
    let mut seeds: BTreeMap<&str, usize> = BTreeMap::new();
    let (made, wrong_key_ids) = (Histogram::new(&SEED_SECONDS), Family::<[Box<str>; 2], Counter>::default());
    for kms in all {
        made.absorb(&kms.calls().seeds);
        for ([fault], count) in kms.calls().wrong_key_ids.sorted() {
            wrong_key_ids.of(&[fault, kms.name()]).add(count.get());
        }
        *seeds.entry(kms.name()).or_default() += kms.known_seeds();
        for ([method, status], took) in kms.calls().took.sorted() {
            calls.of(&[&*status, &*method, kms.name()]).absorb(&took);
        }
    }
    if seeds.is_empty() {
        return;
    }
    let name = "apiserver_storage_data_key_generation_duration_seconds";
    let help = "[ALPHA] Latencies in seconds of data encryption key(DEK) generation operations.";
    page.head(name, "histogram", help);
    page.histogram(name, &[], &made);
    page.counters(
        "apiserver_envelope_encryption_invalid_key_id_from_status_total",
        "[ALPHA] Number of times an invalid keyID is returned by the Status RPC call split by error.",
        ["error", "provider_name"],
        &wrong_key_ids,
    );
    let name = "apiserver_envelope_encryption_dek_source_cache_size";
    page.head(name, "gauge", "[ALPHA] Number of records in data encryption key (DEK) source cache. On a restart, this value is an approximation of the number of decrypt RPC calls the server will make to the KMS plugin.");
    for (provider, count) in &seeds {
        page.sample(name, &[("provider_name", provider)], count);
    }
    page.histograms(
        "apiserver_envelope_encryption_kms_operations_latency_seconds",
        "[ALPHA] KMS operation duration with gRPC error code status total.",
        ["grpc_status_code", "method_name", "provider_name"],
        &calls,
    );
}
