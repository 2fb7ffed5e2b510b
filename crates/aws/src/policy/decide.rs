//! The order in which AWS weighs the kinds of policies, for principals of the resource's own account.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html>

use std::fmt;

use super::principal::Reach;
use super::set::{Opinion, Origin};
use super::{Keys, Principal, PrincipalKind, Set};

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub principal: &'a Principal,
    /// `eks:DescribeCluster`
    pub action: &'a str,
    /// An ARN, or `*` for an action without a resource.
    pub resource: &'a str,
    pub keys: &'a Keys,
}

/// The policies that bear on a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Policies<'a> {
    /// Of the user and its groups, or of the session's role. Not looked at for the account's root, who may do all.
    pub identity: Option<&'a Set>,
    pub boundary: Option<&'a Set>,
    /// What the session was given when it began.
    pub session: Option<&'a Set>,
    /// Of the resource.
    pub resource: Option<&'a Set>,
    /// Of the role that is to be assumed: without its word nobody may, whatever else allows it.
    pub trust: Option<&'a Set>,
}

/// A decision and what made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allow(Kind, Option<Origin>),
    /// A statement says so.
    ExplicitDeny(Kind, Origin),
    /// No statement of the kind allows it.
    ImplicitDeny(Kind),
}

/// A kind of policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The account's root needs no policy.
    Root,
    Identity,
    Boundary,
    Session,
    Resource,
    Trust,
}

/// Decides a request.
///
/// ```text
/// an explicit deny anywhere ─► no
/// the role's trust policy, for assuming it: silent ─► no
/// a resource's or trust policy names the user or session itself ─► yes
///                              … names its role ─► session policy and boundary must allow ─► yes
/// session policy, boundary, identity policies: all must allow ─► yes
/// ```
pub fn decide(policies: &Policies, request: &Request) -> Verdict {
    let is_root = request.principal.kind == PrincipalKind::Root;
    let given = [
        (Kind::Identity, policies.identity.filter(|_| !is_root)),
        (Kind::Boundary, policies.boundary),
        (Kind::Session, policies.session),
        (Kind::Resource, policies.resource),
        (Kind::Trust, policies.trust),
    ];
    let mut opinions = Opinions::default();
    for (kind, set) in given {
        match set.map(|set| set.opinion(request)) {
            Some(Opinion::Denies(origin)) => return Verdict::ExplicitDeny(kind, origin),
            Some(Opinion::Allows(origin, reach)) => opinions.allows.push((kind, origin, reach)),
            Some(Opinion::Nothing) => opinions.silent.push(kind),
            None => {}
        }
    }
    opinions.weigh(is_root)
}

/// What the kinds of policies said, none of which denies.
#[derive(Default)]
struct Opinions {
    allows: Vec<(Kind, Origin, Reach)>,
    /// Present, and without a word on the request.
    silent: Vec<Kind>,
}

impl Opinions {
    fn weigh(self, is_root: bool) -> Verdict {
        if self.silent.contains(&Kind::Trust) {
            return Verdict::ImplicitDeny(Kind::Trust);
        }
        let granted = |(kind, _, reach): &&(Kind, Origin, Reach)| {
            matches!(kind, Kind::Resource | Kind::Trust) && *reach > Reach::Account
        };
        let grant = self.allows.iter().filter(granted).max_by_key(|(.., reach)| *reach);
        if let Some((kind, origin, Reach::Itself)) = grant {
            return Verdict::Allow(*kind, Some(origin.clone()));
        }
        let mut allow = grant.map(|(kind, origin, _)| (*kind, Some(origin.clone())));
        if is_root {
            allow = allow.or(Some((Kind::Root, None)));
        }
        let identity = self.allows.iter().find(|(kind, ..)| *kind == Kind::Identity);
        let allow = allow.or(identity.map(|(kind, origin, _)| (*kind, Some(origin.clone()))));
        let Some((kind, origin)) = allow else { return Verdict::ImplicitDeny(Kind::Identity) };
        match [Kind::Boundary, Kind::Session].into_iter().find(|kind| self.silent.contains(kind)) {
            Some(silent) => Verdict::ImplicitDeny(silent),
            None => Verdict::Allow(kind, origin),
        }
    }
}

impl Verdict {
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow(..))
    }

    /// The message of the `AccessDenied` that AWS answers; empty if the verdict is yes.
    /// <https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html>
    pub fn denial(&self, request: &Request) -> String {
        let Request { principal, action, resource, .. } = request;
        let because = match self {
            Self::Allow(..) => return String::new(),
            Self::ExplicitDeny(kind, _) => format!("with an explicit deny in {}", kind.with_article()),
            // The token service does not tell strangers what a role's trust policy says.
            Self::ImplicitDeny(Kind::Trust) => String::new(),
            Self::ImplicitDeny(kind) => format!("because no {kind} allows the {action} action"),
        };
        let on = match *resource {
            "*" => String::new(),
            resource => format!(" on resource: {resource}"),
        };
        let message = format!("User: {} is not authorized to perform: {action}{on} {because}", principal.arn);
        message.trim_end().to_owned()
    }
}

impl Kind {
    fn with_article(self) -> String {
        match self {
            Self::Identity => format!("an {self}"),
            Self::Trust => format!("the {self}"),
            _ => format!("a {self}"),
        }
    }
}

/// As AWS's messages name it.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Root => "root user",
            Self::Identity => "identity-based policy",
            Self::Boundary => "permissions boundary",
            Self::Session => "session policy",
            Self::Resource => "resource-based policy",
            Self::Trust => "role trust policy",
        })
    }
}

/// `AdministratorAccess, statement 1 (AllowAll)`: how an explanation names a statement.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, statement {}", self.policy, self.statement + 1)?;
        match &self.sid {
            Some(sid) => write!(f, " ({sid})"),
            None => Ok(()),
        }
    }
}

/// One sentence: `allowed by an identity-based policy: arn:aws:iam::aws:policy/AdministratorAccess, statement 1`.
impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allow(Kind::Root, _) => f.write_str("allowed: the account's root may do everything"),
            Self::Allow(kind, None) => write!(f, "allowed by {}", kind.with_article()),
            Self::Allow(kind, Some(origin)) => write!(f, "allowed by {}: {origin}", kind.with_article()),
            Self::ExplicitDeny(kind, origin) => {
                write!(f, "denied by {}: {origin}", kind.with_article())
            }
            Self::ImplicitDeny(kind) => write!(f, "denied: no {kind} allows it"),
        }
    }
}
