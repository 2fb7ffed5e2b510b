//! How principals of the account come into a cluster: their tokens, and what access policies let them do; and how its pods come to roles.

use std::sync::{Arc, Mutex, PoisonError};

use access::AccessPolicies;
use access::authentication::Configuration;
use account::Account;
use apiserver::{AccessSource, AuthenticationSource, Login};
use aws::ec2::record::Instance;
use aws::eks::{AccessEntry, ClusterRecord, IdentityProvider, PodIdentityAssociation, believed};
use aws::iam::record::{Role, User};
use aws::login::{Door, grants};
use aws::sigv4::TokenError;
use aws::state::{self, Record};
use gate::{PodIdentity, PodIdentitySource};
use object::{Revision, Snapshot};
use tracing::warn;

/// Looks at tokens of `aws eks get-token` for the cluster of this name.
pub fn door(account: Arc<Account>, cluster: &str) -> Login {
    let name = cluster.to_owned();
    Arc::new(move |objects, token| {
        let state = account.snapshot();
        let cluster = state::get::<ClusterRecord>(&state, "", &name)?;
        let door = Door {
            account: &account.identity.account,
            region: &account.identity.region,
            now: account.now(),
            state: &state,
            cluster: &cluster.record,
            objects,
            dns_name_of: &|instance| {
                // An instance is a node of its own cluster only.
                let instance = state::get::<Instance>(&state, "", instance)?.record;
                (instance.joined.as_ref() == Some(&name)).then(|| instance.node_name().to_owned())
            },
        };
        match door.login(token) {
            Err(TokenError::NotOurs) => None,
            Err(TokenError::Refused(why)) => Some(Err(why)),
            Ok(user) => Some(Ok(user)),
        }
    })
}

/// The access policies of a cluster's entries, made anew when an entry, the cluster or a principal has changed.
pub fn policies(account: Arc<Account>, cluster: &str) -> AccessSource {
    let name = cluster.to_owned();
    let held: Mutex<([Revision; 4], Arc<AccessPolicies>)> =
        Mutex::new(([0; 4], Arc::new(AccessPolicies::new([]))));
    Arc::new(move || {
        let state = account.snapshot();
        let at = tables(&state);
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.0 != at {
            let cluster = state::get::<ClusterRecord>(&state, "", &name);
            let all = cluster.map(|cluster| grants(&state, &cluster.record)).unwrap_or_default();
            *held = (at, Arc::new(AccessPolicies::new(all)));
        }
        held.1.clone()
    })
}

/// The provider that is associated with the cluster, made anew when the association has changed.
pub fn provider(account: Arc<Account>, cluster: &str, own_issuer: &str) -> AuthenticationSource {
    let (name, own) = (cluster.to_owned(), own_issuer.to_owned());
    let held: Mutex<(Option<Revision>, Arc<Configuration>)> = Mutex::default();
    Arc::new(move || {
        let state = account.snapshot();
        let at = state.table(IdentityProvider::RESOURCE).map_or(0, |table| table.revision());
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.0 != Some(at) {
            let read = believed(&state, &name).map(|file| access::authentication::read(&file, &[&own]));
            let configuration = match read {
                None => Configuration::default(),
                Some(Ok(configuration)) => configuration,
                // What the account took and the cluster does not: nobody is believed by it.
                Some(Err(why)) => {
                    warn!(cluster = name, why = why.join("; "), "an identity provider cannot be believed");
                    Configuration::default()
                }
            };
            *held = (Some(at), Arc::new(configuration));
        }
        held.1.clone()
    })
}

/// What the pods of the cluster are told of their roles, made anew when an association has changed.
pub fn pod_identity(account: Arc<Account>, cluster: &str) -> PodIdentitySource {
    let name = cluster.to_owned();
    let held: Mutex<Option<(Revision, Arc<PodIdentity>)>> = Mutex::new(None);
    Arc::new(move || {
        let state = account.snapshot();
        let at = state.table(PodIdentityAssociation::RESOURCE).map_or(0, |table| table.revision());
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, told)) = &*held
            && *known == at
        {
            return told.clone();
        }
        let associations = state::list::<PodIdentityAssociation>(&state, &name).into_iter();
        let told = Arc::new(PodIdentity {
            region: account.identity.region.clone(),
            environment: vec![("AWS_ENDPOINT_URL".to_owned(), format!("http://{}", machines::AWS_DOOR))],
            associations: associations
                .map(|one| (one.record.namespace, one.record.service_account))
                .collect(),
        });
        *held = Some((at, told.clone()));
        told
    })
}

/// Of what access policies depend on.
fn tables(state: &Snapshot) -> [Revision; 4] {
    [ClusterRecord::RESOURCE, AccessEntry::RESOURCE, Role::RESOURCE, User::RESOURCE]
        .map(|resource| state.table(resource).map_or(0, |table| table.revision()))
}
