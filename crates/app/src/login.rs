//! How principals of the account come into a cluster: their tokens, and what access policies let them do.

use std::sync::{Arc, Mutex, PoisonError};

use access::AccessPolicies;
use account::Account;
use apiserver::{AccessSource, Login};
use aws::autoscaling;
use aws::eks::{AccessEntry, ClusterRecord};
use aws::login::{Door, grants};
use aws::sigv4::TokenError;
use aws::state::{self, Record};
use object::{Revision, Snapshot};

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
            dns_name_of: &|instance| Some(autoscaling::member(&state, instance)?.record.node_name),
        };
        match door.login(token) {
            Err(TokenError::NotOurs) => None,
            Err(TokenError::Refused(why)) => Some(Err(why)),
            Ok(user) => Some(Ok(user)),
        }
    })
}

/// The access policies of a cluster's entries, made anew when an entry or the cluster has changed.
pub fn policies(account: Arc<Account>, cluster: &str) -> AccessSource {
    let name = cluster.to_owned();
    let held: Mutex<([Revision; 2], Arc<AccessPolicies>)> =
        Mutex::new(([0; 2], Arc::new(AccessPolicies::new([]))));
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

fn tables(state: &Snapshot) -> [Revision; 2] {
    [ClusterRecord::RESOURCE, AccessEntry::RESOURCE]
        .map(|resource| state.table(resource).map_or(0, |table| table.revision()))
}
