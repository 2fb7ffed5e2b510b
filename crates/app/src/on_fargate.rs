//! What a cluster's admission asks of its account about Fargate: which pods are for it, and what it cannot run.

use std::sync::{Arc, Mutex, PoisonError};

use account::Account;
use aws::control::fargate;
use aws::eks::{FargateProfile, FargateProfileRecord};
use aws::state::{self, Record};
use object::Revision;
use serde_json::Value;

/// The Fargate profiles of one cluster.
pub struct OnFargate {
    account: Arc<Account>,
    cluster: String,
    /// The profiles that hold, and the revision of the profiles that they were read at.
    held: Mutex<(Revision, Arc<[FargateProfile]>)>,
}

impl OnFargate {
    pub fn new(account: Arc<Account>, cluster: &str) -> Self {
        Self { account, cluster: cluster.to_owned(), held: Mutex::new((0, Arc::new([]))) }
    }

    /// Those that hold, read anew when one has changed.
    fn profiles(&self) -> Arc<[FargateProfile]> {
        let state = self.account.snapshot();
        let at = state.table(FargateProfileRecord::RESOURCE).map_or(0, |table| table.revision());
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.0 != at {
            let profiles = state::list::<FargateProfileRecord>(&state, &self.cluster).into_iter();
            let profiles = profiles.map(|kept| kept.record.shown);
            *held = (at, profiles.filter(|profile| profile.status == "ACTIVE").collect());
        }
        held.1.clone()
    }
}

impl gate::Fargate for OnFargate {
    fn profile_of(&self, namespace: &str, labels: &Value) -> Option<String> {
        let profiles = self.profiles();
        let label = |name: &str| labels[name].as_str().map(str::to_owned);
        let found = fargate::profile_of(profiles.iter(), namespace, &label);
        found.map(|profile| profile.fargate_profile_name.clone())
    }

    fn lacking(&self, container: &Value) -> Option<String> {
        fargate::lacking(container)
    }
}
