//! A gate over a memory store, with a clock and random numbers of the test's own.
#![allow(dead_code)] // each test program uses a part

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use gate::{
    Answer, Authority, Change, DeleteOptions, Gate, Options, Outcome, PatchKind, Preconditions, Request,
    ServiceRanges, Webhooks,
};
use object::{Key, Object, Resource, Snapshot, Status, Time};
use plan::{Attributes, Decision, User};
use serde_json::{Value, json};
use store::{Memory, Store};

/// Everyone may do everything.
pub struct Anyone;

impl Authority for Anyone {
    fn authorize(&self, _: &Snapshot, _: &User, _: &Attributes<'_>) -> Decision {
        Decision { allowed: true, ..Decision::default() }
    }

    fn may_grant(&self, _: &Snapshot, _: &User, _: &Key, _: &Value, _: Option<&Value>) -> Result<(), Status> {
        Ok(())
    }
}

pub struct World {
    pub gate: Arc<Gate>,
    pub now: Arc<AtomicI64>,
    user: User,
    options: Options,
}

pub fn splitmix(state: u64) -> u64 {
    let mut z = state.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z ^ (z >> 31)
}

impl World {
    pub async fn new() -> Self {
        Self::with(ServiceRanges::default(), splitmix).await
    }

    /// `random` makes the n-th number.
    pub async fn with(services: ServiceRanges, random: fn(u64) -> u64) -> Self {
        Self::made(services, random, |gate| gate).await
    }

    /// With somebody who answers webhooks.
    pub async fn with_webhooks(webhooks: Arc<dyn Webhooks>) -> Self {
        Self::made(ServiceRanges::default(), splitmix, |gate| gate.with_webhooks(webhooks)).await
    }

    async fn made(
        services: ServiceRanges,
        random: fn(u64) -> u64,
        finish: impl FnOnce(Gate) -> Gate,
    ) -> Self {
        let store: Arc<dyn Store> = Arc::new(Memory::new());
        let now = Arc::new(AtomicI64::new(1_700_000_000));
        let world = Self::over(store, now, services, random, finish);
        world.create("namespaces", json!({"metadata": {"name": "a"}})).await.expect("a namespace");
        world
            .create("serviceaccounts", json!({"metadata": {"name": "default", "namespace": "a"}}))
            .await
            .expect("an account");
        world
    }

    /// Another server of the same cluster.
    pub fn beside(&self, webhooks: Arc<dyn Webhooks>) -> Self {
        let (store, services) = (self.gate.store().clone(), ServiceRanges::default());
        Self::over(store, self.now.clone(), services, splitmix, |gate| gate.with_webhooks(webhooks))
    }

    fn over(
        store: Arc<dyn Store>,
        now: Arc<AtomicI64>,
        services: ServiceRanges,
        random: fn(u64) -> u64,
        finish: impl FnOnce(Gate) -> Gate,
    ) -> Self {
        let (clock, state) = (now.clone(), AtomicU64::new(1));
        let fill = move |bytes: &mut [u8]| {
            for chunk in bytes.chunks_mut(8) {
                let number = random(state.fetch_add(1, Ordering::Relaxed)).to_le_bytes();
                chunk.copy_from_slice(&number[..chunk.len()]);
            }
        };
        let clock = Arc::new(move || Time::from_secs(clock.load(Ordering::Relaxed)));
        let gate = finish(Gate::new(store, Arc::new(Anyone), clock, Arc::new(fill), services));
        let gate = Arc::new(gate);
        let user = User::new("system:admin", &["system:masters"]);
        Self { gate, now, user, options: Options::default() }
    }

    pub fn request<'a>(
        &'a self,
        resource: &'static str,
        namespace: &'a str,
        name: &'a str,
        subresource: &'a str,
    ) -> Request<'a> {
        let kind = kinds::of(Resource::new(resource)).expect("a kind");
        let namespace = if kind.namespaced { namespace } else { "" };
        Request { user: &self.user, kind, namespace, name, subresource, options: &self.options }
    }

    pub async fn create(&self, resource: &'static str, object: Value) -> Result<Arc<Object>, Status> {
        stored(self.gate.create(&self.request(resource, "a", "", ""), object).await?)
    }

    pub async fn merge(
        &self,
        resource: &'static str,
        name: &str,
        subresource: &str,
        patch: Value,
    ) -> Result<Arc<Object>, Status> {
        let change = Change::Patch(PatchKind::Merge, patch);
        stored(
            self.gate
                .update(&self.request(resource, "a", name, subresource), &change, &Preconditions::default())
                .await?,
        )
    }

    pub async fn delete(
        &self,
        resource: &'static str,
        name: &str,
        options: DeleteOptions,
    ) -> Result<Outcome, Status> {
        self.gate.delete(&self.request(resource, "a", name, ""), &options).await
    }

    pub async fn post(
        &self,
        resource: &'static str,
        name: &str,
        subresource: &str,
        body: Value,
    ) -> Result<Outcome, Status> {
        self.gate.create(&self.request(resource, "a", name, subresource), body).await
    }

    pub fn get(&self, resource: &'static str, name: &str) -> Option<Value> {
        let kind = kinds::of(Resource::new(resource)).expect("a kind");
        let snapshot = self.gate.store().snapshot();
        let found = snapshot.find(kind.resource, if kind.namespaced { "a" } else { "" }, name)?;
        Some(found.to_value().expect("JSON"))
    }
}

pub fn stored(outcome: Outcome) -> Result<Arc<Object>, Status> {
    match outcome.answer {
        Answer::Object(object) | Answer::Removed(object) => Ok(object),
        Answer::Made(value) => panic!("not stored: {value}"),
    }
}

pub fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"app": "x"}}, "spec": {"containers": [{"name": "c", "image": "i"}], "terminationGracePeriodSeconds": 30}})
}
