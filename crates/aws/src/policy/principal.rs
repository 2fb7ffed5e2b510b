//! Who asks, and whom a Principal element names.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_principal.html>

/// Who asks, as the Principal elements of policies name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub kind: PrincipalKind,
    /// Twelve digits; empty for services and federated identities.
    pub account: String,
    /// The user's, the session's or the provider's ARN, `arn:aws:iam::…:root`, or a service's name.
    pub arn: String,
    /// The ARN of the role of a role's session; empty for all others.
    pub role: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrincipalKind {
    Root,
    User,
    /// A session of a role.
    Session,
    /// `ec2.amazonaws.com`
    Service,
    /// Somebody whom an identity provider vouches for.
    Federated,
}

impl Principal {
    /// A principal of the account by its ARN: its root, a user, or a session whose role's ARN is `role`.
    pub fn of_account(account: &str, arn: &str, role: &str) -> Self {
        let kind = match () {
            () if !role.is_empty() => PrincipalKind::Session,
            () if arn.ends_with(":root") => PrincipalKind::Root,
            () => PrincipalKind::User,
        };
        Self { kind, account: account.to_owned(), arn: arn.to_owned(), role: role.to_owned() }
    }

    /// A service of AWS by its name, `ec2.amazonaws.com`.
    pub fn service(name: &str) -> Self {
        Self {
            kind: PrincipalKind::Service,
            account: String::new(),
            arn: name.to_owned(),
            role: String::new(),
        }
    }

    /// An identity provider by its ARN.
    pub fn federated(provider: &str) -> Self {
        let arn = provider.to_owned();
        Self { kind: PrincipalKind::Federated, account: String::new(), arn, role: String::new() }
    }
}

/// The Principal or NotPrincipal of a statement.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Principals {
    pub negated: bool,
    pub names: Vec<Name>,
}

/// One entry of such an element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Name {
    /// `*`, and `{"AWS": "*"}`, which says the same.
    Everyone,
    /// An account and everybody in it: `111122223333`, `arn:aws:iam::111122223333:root`.
    Account(String),
    /// A user, a role or a session.
    Arn(String),
    Service(String),
    Federated(String),
}

/// How far an Allow of a resource's policy goes for a principal of the same account.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic_policy-eval-basics-single-account.html>
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// The account is trusted: its own policies decide who may.
    Account,
    /// The role is trusted: its boundary and the session's policy still limit it.
    Role,
    /// This very user or session: nothing but an explicit deny limits it.
    Itself,
}

impl Principals {
    /// The farthest that the element's names reach for this principal; none if the element is not about it.
    pub(super) fn reach(&self, who: &Principal) -> Option<Reach> {
        if self.negated {
            return (!self.excepts(who)).then_some(Reach::Itself);
        }
        self.names.iter().filter_map(|name| name.reach(who)).max()
    }

    /// Whom NotPrincipal leaves out must be named with its account, and a session with its role too:
    /// each of them is a principal of the request, and one that is not named brings the statement to bear.
    fn excepts(&self, who: &Principal) -> bool {
        let named =
            |arn: &str| self.names.iter().any(|name| matches!(name, Name::Arn(known) if known == arn));
        let account = || self.names.contains(&Name::Account(who.account.clone()));
        if self.names.contains(&Name::Everyone) {
            return true;
        }
        match who.kind {
            PrincipalKind::Root => account(),
            PrincipalKind::User => named(&who.arn) && account(),
            PrincipalKind::Session => named(&who.arn) && named(&who.role) && account(),
            PrincipalKind::Service => self.names.contains(&Name::Service(who.arn.clone())),
            PrincipalKind::Federated => self.names.contains(&Name::Federated(who.arn.clone())),
        }
    }
}

impl Name {
    fn reach(&self, who: &Principal) -> Option<Reach> {
        let is_of_account =
            matches!(who.kind, PrincipalKind::Root | PrincipalKind::User | PrincipalKind::Session);
        match self {
            Self::Everyone => Some(Reach::Itself),
            Self::Account(account) if is_of_account && *account == who.account => Some(Reach::Account),
            Self::Arn(arn) if is_of_account && *arn == who.arn => Some(Reach::Itself),
            Self::Arn(arn) if who.kind == PrincipalKind::Session && *arn == who.role => Some(Reach::Role),
            Self::Service(name) if who.kind == PrincipalKind::Service && *name == who.arn => {
                Some(Reach::Itself)
            }
            Self::Federated(arn) if who.kind == PrincipalKind::Federated && *arn == who.arn => {
                Some(Reach::Itself)
            }
            _ => None,
        }
    }
}
