//! Acting as somebody else: `Impersonate-User`, `-Group`, `-Uid`, `-Extra-*`.
//! <https://kubernetes.io/docs/reference/access-authn-authz/user-impersonation/>

use object::Status;
use plan::{Attributes, User};

use crate::authorize::service_account_of;
use crate::{View, authorize, forbidden, groups};

const GROUP: &str = "authentication.k8s.io";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";

/// The user to go on as and how that is allowed, or the 403 for the first thing that `user` may not impersonate. `wanted.groups` are those
/// of the headers, `request` is what is asked for as that user, `last` how this user was allowed to be somebody the last time: that is asked
/// about first, so that who may be somebody in everything is not asked about parts of it each time.
///
/// Whoever holds `impersonate:<mode>` for whom they want to be and `impersonate-on:<mode>:<verb>` for what they want to do (KEP-5284) needs
/// no right to impersonate them in everything.
///
/// `told` hears of each right that is asked about on the way, by the mode that it is of, and whether `user` has it.
pub fn impersonation(
    view: &View,
    user: &User,
    mut wanted: User,
    request: &Attributes,
    last: Option<Mode>,
    told: &dyn Fn(Mode, bool),
) -> Result<(User, Mode), Status> {
    let mut modes = modes(user, &wanted);
    modes.sort_by_key(|mode| Some(*mode) != last);
    let mut refused = None;
    let allowed = modes.into_iter().find(|mode| {
        match (Asking { view, user, mode: *mode, told }).allows(&wanted, request) {
            Ok(()) => true,
            Err(why) => {
                // What was asked about first is what is told.
                refused.get_or_insert(why);
                false
            }
        }
    });
    let Some(mode) = allowed else {
        return Err(refused.unwrap_or_else(|| Status::internal("all impersonation modes failed")));
    };
    let account = service_account_of(&wanted.name);
    match (account, mode) {
        (Some((namespace, _)), _) if wanted.groups.is_empty() => {
            let of_namespace = format!("{}:{namespace}", groups::SERVICE_ACCOUNTS);
            wanted.groups = vec![groups::SERVICE_ACCOUNTS.into(), of_namespace.into()];
        }
        (_, Mode::AssociatedNode | Mode::ArbitraryNode) => wanted.groups = vec![groups::NODES.into()],
        _ => {}
    }
    let known = wanted.is_in(groups::AUTHENTICATED) || wanted.is_in(groups::UNAUTHENTICATED);
    if !known {
        let is_nobody = &*wanted.name == groups::ANONYMOUS_USER;
        let group = if is_nobody { groups::UNAUTHENTICATED } else { groups::AUTHENTICATED };
        wanted.groups.push(group.into());
    }
    Ok((wanted, mode))
}

/// The right to be somebody in everything: `impersonate`.
fn entirely(check: impl Fn(&Attributes) -> Result<(), Status>, wanted: &User) -> Result<(), Status> {
    let base = Attributes { verb: "impersonate", version: "v1", ..Attributes::default() };
    match service_account_of(&wanted.name) {
        Some((namespace, name)) => {
            check(&Attributes { resource: "serviceaccounts", namespace, name, ..base })?
        }
        None => check(&Attributes { resource: "users", name: &wanted.name, ..base })?,
    }
    let of_authentication = Attributes { group: GROUP, ..base };
    if !wanted.uid.is_empty() {
        check(&Attributes { resource: "uids", name: &wanted.uid, ..of_authentication })?;
    }
    for name in &wanted.groups {
        check(&Attributes { resource: "groups", name, ..base })?;
    }
    for (subresource, values) in &wanted.extra {
        for name in values {
            check(&Attributes { resource: "userextras", subresource, name, ..of_authentication })?;
        }
    }
    Ok(())
}

/// How somebody may be taken for another: in some requests, of a kind of users each (KEP-5284), or in everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The node that whoever asks runs on.
    AssociatedNode,
    ArbitraryNode,
    ServiceAccount,
    UserInfo,
    /// In everything: `impersonate`.
    Legacy,
}

/// The modes that are asked about, in their order. Nodes and service accounts are named and nothing else is said of them; nobody becomes
/// `system:masters` in parts.
fn modes(user: &User, wanted: &User) -> Vec<Mode> {
    let only_named = wanted.groups.is_empty() && wanted.uid.is_empty() && wanted.extra.is_empty();
    if let Some(node) = wanted.name.strip_prefix("system:node:") {
        let own =
            user.extra.get(NODE_NAME).is_some_and(|names| matches!(&names[..], [own] if **own == *node));
        let is_own = own && service_account_of(&user.name).is_some();
        let modes = [
            (is_own && only_named, Mode::AssociatedNode),
            (only_named, Mode::ArbitraryNode),
            (true, Mode::Legacy),
        ];
        return modes.into_iter().filter(|(applies, _)| *applies).map(|(_, mode)| mode).collect();
    }
    let constrained = match service_account_of(&wanted.name) {
        Some(_) => Some(Mode::ServiceAccount).filter(|_| only_named),
        None => Some(Mode::UserInfo).filter(|_| !wanted.is_in(groups::MASTERS)),
    };
    constrained.into_iter().chain([Mode::Legacy]).collect()
}

impl Mode {
    /// As the verbs of constrained impersonation and upstream's metrics call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AssociatedNode => "associated-node",
            Self::ArbitraryNode => "arbitrary-node",
            Self::ServiceAccount => "serviceaccount",
            Self::UserInfo => "user-info",
            Self::Legacy => "legacy",
        }
    }
}

/// Who wants to be somebody else in one of the modes.
struct Asking<'a> {
    view: &'a View<'a>,
    user: &'a User,
    mode: Mode,
    told: &'a dyn Fn(Mode, bool),
}

impl Asking<'_> {
    fn check(&self, attributes: &Attributes) -> Result<(), Status> {
        let decision = authorize(self.view, self.user, attributes);
        (self.told)(self.mode, decision.allowed);
        if decision.allowed {
            return Ok(());
        }
        if !decision.error.is_empty() {
            return Err(Status::internal(decision.error));
        }
        Err(forbidden(self.user, attributes, &decision.reason))
    }

    /// May the request be made as somebody, and as this one?
    fn allows(&self, wanted: &User, request: &Attributes) -> Result<(), Status> {
        if self.mode != Mode::Legacy {
            let on = format!("impersonate-on:{}:{}", self.mode.name(), request.verb);
            self.check(&Attributes { verb: &on, ..*request })?;
        }
        self.may_be(wanted)
    }

    fn may_be(&self, wanted: &User) -> Result<(), Status> {
        let verb = format!("impersonate:{}", self.mode.name());
        let base = Attributes { verb: &verb, group: GROUP, version: "v1", ..Attributes::default() };
        let may = |attributes: Attributes| self.check(&attributes);
        match self.mode {
            Mode::AssociatedNode => may(Attributes { resource: "nodes", name: "*", ..base }),
            Mode::ArbitraryNode => {
                let name = wanted.name.strip_prefix("system:node:").unwrap_or_default();
                may(Attributes { resource: "nodes", name, ..base })
            }
            Mode::ServiceAccount => {
                let (namespace, name) = service_account_of(&wanted.name).unwrap_or_default();
                may(Attributes { resource: "serviceaccounts", namespace, name, ..base })
            }
            Mode::Legacy => entirely(|attributes| self.check(attributes), wanted),
            Mode::UserInfo => {
                may(Attributes { resource: "users", name: &wanted.name, ..base })?;
                if !wanted.uid.is_empty() {
                    may(Attributes { resource: "uids", name: &wanted.uid, ..base })?;
                }
                for name in &wanted.groups {
                    may(Attributes { resource: "groups", name, ..base })?;
                }
                for (subresource, values) in &wanted.extra {
                    for name in values {
                        may(Attributes { resource: "userextras", subresource, name, ..base })?;
                    }
                }
                Ok(())
            }
        }
    }
}
