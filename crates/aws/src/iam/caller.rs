//! What of the account's policies bears on a caller: its own, its groups', its role's, its boundary, its session's; and its condition keys.

use std::sync::Arc;

use object::Snapshot;

use super::managed;
use super::policy;
use super::record::{Group, Permissions, Role, Tags, User, named, role_of_arn, user_of_arn};
use crate::credentials::Session;
use crate::policy::{Document, Keys, Policies, Principal, Request, Set, Use, Verdict, decide};
use crate::state::Kept;
use crate::{Caller, Fault};

/// A principal of the account with everything that decides what it may do.
pub struct Holdings {
    pub principal: Principal,
    /// The keys that are the principal's, without those of a call.
    pub keys: Keys,
    identity: Set,
    boundary: Option<Set>,
    session: Option<Set>,
}

/// Why nothing is known of a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// There is no such principal any more, or another of the same name.
    Gone,
    /// The named policy, or a group with all of its own, cannot be read. Without it nothing is decided: it might be a deny.
    Unreadable(String),
}

impl Unknown {
    pub fn fault(self) -> Fault {
        match self {
            Self::Gone => {
                Fault::new("InvalidClientTokenId", "The security token included in the request is invalid.")
            }
            Self::Unreadable(policy) => {
                Fault::new("InternalFailure", format!("Policy {policy} cannot be read"))
            }
        }
    }
}

impl Holdings {
    /// Of whoever signed a call.
    pub fn of(state: &Snapshot, account: &str, caller: &Caller) -> Result<Self, Unknown> {
        let mut holdings = match &caller.session {
            Some(session) if session.role_arn.is_some() => Self::of_session(state, account, session)?,
            _ if caller.user_id == account => Self::of_root(account),
            _ => {
                let user = user_of_arn(state, &caller.arn).ok_or(Unknown::Gone)?;
                if user.record.common.id != caller.user_id {
                    return Err(Unknown::Gone);
                }
                Self::of_user(state, account, &user.record)?
            }
        };
        holdings.keys.set("aws:userid", &*caller.user_id);
        if let Some(session) = &caller.session {
            holdings.keys.set("aws:TokenIssueTime", session.issued.to_string());
            // Nobody has a second factor here.
            holdings.keys.set("aws:MultiFactorAuthPresent", "false");
        }
        Ok(holdings)
    }

    /// Of a user, a role (as its sessions have it) or the root, by ARN: what an explanation is asked about.
    pub fn of_arn(state: &Snapshot, account: &str, arn: &str) -> Result<Self, Unknown> {
        if arn == format!("arn:aws:iam::{account}:root") {
            return Ok(Self::of_root(account));
        }
        if let Some(user) = user_of_arn(state, arn) {
            return Self::of_user(state, account, &user.record);
        }
        let session_of = |arn: &str| {
            let (role, name) = arn.split_once(":assumed-role/")?.1.split_once('/')?;
            Some((named::<Role>(state, role)?, name.to_owned()))
        };
        let role = role_of_arn(state, arn).map(|role| (role, "explained".to_owned()));
        let (role, name) = role.or_else(|| session_of(arn)).ok_or(Unknown::Gone)?;
        let common = &role.record.common;
        let arn = format!("arn:aws:sts::{account}:assumed-role/{}/{name}", common.name);
        let mut holdings = Self::of_role(state, account, &role.record, &arn)?;
        holdings.keys.set("aws:userid", format!("{}:{name}", common.id));
        Ok(holdings)
    }

    /// The account's root, which may do everything.
    fn of_root(account: &str) -> Self {
        let arn = format!("arn:aws:iam::{account}:root");
        let keys = principal_keys(account, "Account", &arn, &Tags::new());
        let principal = Principal::of_account(account, &arn, "");
        Self { principal, keys, identity: Set::default(), boundary: None, session: None }
    }

    fn of_user(state: &Snapshot, account: &str, user: &User) -> Result<Self, Unknown> {
        let mut identity = Set::default();
        enter(state, &mut identity, &user.permissions, "")?;
        for name in &user.groups {
            let group = named::<Group>(state, name);
            let group = group.ok_or_else(|| Unknown::Unreadable(format!("of group {name}")))?;
            let of = format!(" of group {}", group.record.common.name);
            enter(state, &mut identity, &group.record.permissions, &of)?;
        }
        let common = &user.common;
        let mut keys = principal_keys(account, "User", &common.arn, &common.tags);
        keys.set("aws:username", &*common.name);
        let principal = Principal::of_account(account, &common.arn, "");
        let boundary = boundary(state, &user.permissions)?;
        Ok(Self { principal, keys, identity, boundary, session: None })
    }

    fn of_role(state: &Snapshot, account: &str, role: &Role, arn: &str) -> Result<Self, Unknown> {
        let mut identity = Set::default();
        enter(state, &mut identity, &role.permissions, "")?;
        let common = &role.common;
        let keys = principal_keys(account, "AssumedRole", &common.arn, &common.tags);
        let principal = Principal::of_account(account, arn, &common.arn);
        let boundary = boundary(state, &role.permissions)?;
        Ok(Self { principal, keys, identity, boundary, session: None })
    }

    fn of_session(state: &Snapshot, account: &str, session: &Session) -> Result<Self, Unknown> {
        let arn = session.role_arn.as_deref().unwrap_or_default();
        let role = role_of_arn(state, arn).filter(|role| is_of(session, role)).ok_or(Unknown::Gone)?;
        let mut holdings = Self::of_role(state, account, &role.record, &session.arn)?;
        let keys = &mut holdings.keys;
        for (key, value) in &session.tags {
            keys.set(&format!("aws:PrincipalTag/{key}"), &**value);
        }
        if let Some(identity) = &session.source_identity {
            keys.set("aws:SourceIdentity", &**identity);
        }
        for (key, value) in &session.keys {
            keys.set(key, &**value);
        }
        if !session.policies.is_empty() {
            let mut set = Set::default();
            for (number, document) in session.policies.iter().enumerate() {
                let name = format!("session policy {}", number + 1);
                set.add(name.as_str().into(), compiled(document, &name)?);
            }
            holdings.session = Some(set);
        }
        Ok(holdings)
    }

    /// Decides one action on one resource (`*` if the action has none). `keys` are those of the call; what is the principal's own wins.
    pub fn decide(&self, action: &str, resource: &str, keys: &Keys) -> (Verdict, String) {
        self.decide_with(action, resource, keys, None)
    }

    /// As [`Self::decide`], where the resource is a role with this trust policy.
    pub fn decide_with(
        &self,
        action: &str,
        resource: &str,
        keys: &Keys,
        trust: Option<&Set>,
    ) -> (Verdict, String) {
        let mut all = keys.clone();
        all.merge(&self.keys);
        let policies = Policies {
            identity: Some(&self.identity),
            boundary: self.boundary.as_ref(),
            session: self.session.as_ref(),
            resource: None,
            trust,
        };
        let request = Request { principal: &self.principal, action, resource, keys: &all };
        let verdict = decide(&policies, &request);
        let message = verdict.denial(&request);
        (verdict, message)
    }
}

/// A role that was made again under the same name has another id, and its predecessor's sessions are worth nothing.
fn is_of(session: &Session, role: &Kept<Role>) -> bool {
    session.user_id.split(':').next() == Some(&role.record.common.id)
}

fn principal_keys(account: &str, kind: &str, arn: &str, tags: &Tags) -> Keys {
    let mut keys = Keys::default();
    keys.set("aws:PrincipalAccount", account);
    keys.set("aws:PrincipalArn", arn);
    keys.set("aws:PrincipalIsAWSService", "false");
    keys.set("aws:PrincipalType", kind);
    for (key, value) in tags {
        keys.set(&format!("aws:PrincipalTag/{key}"), &**value);
    }
    keys
}

/// Puts what a user, group or role has into a set. `of` is added to the names of inline policies.
fn enter(state: &Snapshot, set: &mut Set, permissions: &Permissions, of: &str) -> Result<(), Unknown> {
    for (name, document) in &permissions.inline {
        let name = format!("inline policy {name}{of}");
        set.add(name.as_str().into(), compiled(document, &name)?);
    }
    for arn in &permissions.attached {
        set.add(arn.as_str().into(), managed_policy(state, arn)?);
    }
    Ok(())
}

fn boundary(state: &Snapshot, permissions: &Permissions) -> Result<Option<Set>, Unknown> {
    let Some(arn) = &permissions.boundary else { return Ok(None) };
    Ok(Some(Set::of([(arn.as_str().into(), managed_policy(state, arn)?)])))
}

fn managed_policy(state: &Snapshot, arn: &str) -> Result<Arc<Document>, Unknown> {
    if let Some(document) = managed::compiled(arn) {
        return Ok(document.clone());
    }
    let policy = policy::of_arn(state, arn).ok_or_else(|| Unknown::Unreadable(arn.to_owned()))?;
    compiled(policy.record.document(), arn)
}

fn compiled(document: &str, name: &str) -> Result<Arc<Document>, Unknown> {
    let document = Document::parse(document, Use::Identity);
    document.map(Arc::new).map_err(|_| Unknown::Unreadable(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stories::{ACCOUNT, Account};

    #[test]
    fn without_one_of_a_users_groups_nothing_is_decided() {
        let mut account = Account::new();
        let mut admin = named::<User>(&account.state, "admin").expect("a user");
        admin.record.groups.push("lost".into());
        account.change(|changes| changes.update(&admin));
        let caller = account.caller("admin").expect("a caller");
        let unknown = Holdings::of(&account.state, ACCOUNT, &caller).err();
        assert_eq!(unknown, Some(Unknown::Unreadable("of group lost".into())));
    }
}
