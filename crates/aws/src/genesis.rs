//! What an account has from its first moment.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::Context;
use crate::credentials::{AccessKey, SEAL, SealingKey};
use crate::iam;
use crate::iam::record::{User, named};
use crate::state::{self, Changes};

/// The user whose key stands in the profile.
pub const ADMIN: &str = "admin";

/// Made in this order at each start, each in one transaction; what is there already is left as it is.
pub const STEPS: &[fn(&mut Context) -> Changes] = &[iam::genesis::principals, keys];

/// The sealing key, and the administrator's first access key.
fn keys(context: &mut Context) -> Changes {
    let mut changes = Changes::default();
    if state::get::<SealingKey>(context.state, "", SEAL).is_none() {
        changes.create("", SEAL, &SealingKey { key: STANDARD.encode(context.ids.bytes()) });
    }
    let admin = named::<User>(context.state, ADMIN);
    if let (None, Some(admin)) = (admin_key(context.state), admin) {
        let key = AccessKey {
            user_name: ADMIN.to_owned(),
            arn: admin.record.common.arn,
            user_id: admin.record.common.id,
            secret: context.ids.secret(),
            is_active: true,
            created: context.now,
        };
        changes.create("", &context.ids.unique("AKIA"), &key);
    }
    changes
}

/// The administrator's oldest key that works: its id and the rest of it.
pub fn admin_key(state: &object::Snapshot) -> Option<(String, AccessKey)> {
    let keys = state::list::<AccessKey>(state, "").into_iter();
    let admins = keys.filter(|key| key.record.user_name == ADMIN && key.record.is_active);
    admins.min_by_key(|key| key.record.created).map(|key| (key.key.name.to_string(), key.record))
}
