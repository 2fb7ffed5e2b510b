//! The chain of authorizers: `system:masters` first, then those of the configuration in their order. The first that allows or denies decides; the
//! reasons of those without an opinion are joined. <https://kubernetes.io/docs/reference/access-authn-authz/authorization/>

use object::{Reason, Snapshot, Status};
use plan::{Attributes, Decision, User};

use crate::authorization::{AskWebhook, Authorizer, DEFAULT_AUTHORIZERS, NoWebhooks};
use crate::{AccessPolicies, groups, node, rbac};

/// What authorization looks at. The index must have been folded up to the snapshot's revision.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub snapshot: &'a Snapshot,
    pub rbac: &'a rbac::Index,
    /// Of a cluster of EKS: what its access entries give. They are asked right before RBAC.
    pub access_policies: Option<&'a AccessPolicies>,
    /// In the order in which they are asked.
    pub authorizers: &'a [Authorizer],
    /// Whoever reaches the webhooks among them.
    pub webhooks: &'a dyn AskWebhook,
}

impl<'a> View<'a> {
    /// With the authorizers of a cluster that configures none: Node and RBAC.
    pub fn new(snapshot: &'a Snapshot, rbac: &'a rbac::Index) -> Self {
        let authorizers = &DEFAULT_AUTHORIZERS;
        Self { snapshot, rbac, access_policies: None, authorizers, webhooks: &NoWebhooks }
    }
}

/// May this user do this?
///
/// `list`, `watch` and `deletecollection` bring their selectors along: a node may list pods only with `spec.nodeName=<itself>`
/// (KEP-4601), and without the selector the answer is no.
pub fn authorize(view: &View, user: &User, attributes: &Attributes) -> Decision {
    if user.is_in(groups::MASTERS) {
        return Decision { allowed: true, ..Decision::default() };
    }
    let (mut reasons, mut errors) = (Vec::new(), Vec::new());
    for authorizer in view.authorizers {
        let decision = match authorizer {
            Authorizer::AlwaysAllow => Decision { allowed: true, ..Decision::default() },
            Authorizer::AlwaysDeny => {
                let reason = "Everything is forbidden.".to_owned();
                Decision { reason, ..Decision::default() }
            }
            Authorizer::Node => node::authorize(view.snapshot, user, attributes),
            Authorizer::Rbac => by_role(view, user, attributes),
            Authorizer::Webhook(webhook) => webhook.authorize(view.webhooks, user, attributes),
        };
        if decision.allowed || decision.denied {
            return decision;
        }
        reasons.extend(Some(decision.reason).filter(|reason| !reason.is_empty()));
        errors.extend(Some(decision.error).filter(|error| !error.is_empty()));
    }
    Decision { reason: reasons.join("\n"), error: rbac::in_brackets(errors), ..Decision::default() }
}

fn by_role(view: &View, user: &User, attributes: &Attributes) -> Decision {
    let granted = view.access_policies.map(|policies| policies.authorize(user, attributes));
    granted.filter(|decision| decision.allowed).unwrap_or_else(|| view.rbac.authorize(user, attributes))
}

/// The 403 that upstream answers when a request is not allowed. `reason` is the decision's and may be empty.
pub fn forbidden(user: &User, attributes: &Attributes, reason: &str) -> Status {
    let escape = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut message = if attributes.resource.is_empty() {
        let Attributes { verb, path, .. } = attributes;
        escape(&format!("User {:?} cannot {verb} path {path:?}", &*user.name))
    } else {
        let what = match attributes.subresource {
            "" => attributes.resource.to_owned(),
            subresource => format!("{}/{subresource}", attributes.resource),
        };
        let place = match attributes.namespace {
            "" => "at the cluster scope".to_owned(),
            namespace => format!("in the namespace {namespace:?}"),
        };
        let Attributes { verb, group, .. } = attributes;
        let user = &*user.name;
        escape(&format!("User {user:?} cannot {verb} resource {what:?} in API group {group:?} {place}"))
    };
    if !reason.is_empty() {
        message = format!("{message}: {reason}");
    }
    if attributes.resource.is_empty() {
        return Status::new(Reason::Forbidden, format!("forbidden: {message}"));
    }
    let resource = match attributes.group {
        "" => attributes.resource.to_owned(),
        group => format!("{}.{group}", attributes.resource),
    };
    let subject = match attributes.name {
        "" => resource,
        name => format!("{resource} {name:?}"),
    };
    let mut status = Status::new(Reason::Forbidden, format!("{subject} is forbidden: {message}"));
    status.group = attributes.group.to_owned();
    status.kind = attributes.resource.to_owned();
    status.name = attributes.name.to_owned();
    status
}

/// Acting as somebody else (`Impersonate-User`, `-Group`, `-Uid`, `-Extra-*`): the user to go on as, or the 403 for the
/// first thing that `user` may not impersonate. `wanted.groups` are those of the headers.
///
/// <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation>
pub fn impersonation(view: &View, user: &User, wanted: User) -> Result<User, Status> {
    let check = |resource, subresource, namespace, name, group| {
        let attributes = Attributes {
            verb: "impersonate",
            group,
            version: "v1",
            resource,
            subresource,
            namespace,
            name,
            ..Attributes::default()
        };
        let decision = authorize(view, user, &attributes);
        if decision.allowed { Ok(()) } else { Err(forbidden(user, &attributes, &decision.reason)) }
    };
    let name = wanted.name.clone();
    let account = service_account_of(&name);
    match account {
        Some((namespace, name)) => check("serviceaccounts", "", namespace, name, "")?,
        None => check("users", "", "", &wanted.name, "")?,
    }
    for group in &wanted.groups {
        check("groups", "", "", group, "")?;
    }
    for (key, values) in &wanted.extra {
        for value in values {
            check("userextras", key, "", value, "authentication.k8s.io")?;
        }
    }
    if !wanted.uid.is_empty() {
        check("uids", "", "", &wanted.uid, "authentication.k8s.io")?;
    }
    let mut wanted = wanted;
    if let (Some((namespace, _)), true) = (account, wanted.groups.is_empty()) {
        wanted.groups =
            vec![groups::SERVICE_ACCOUNTS.into(), format!("{}:{namespace}", groups::SERVICE_ACCOUNTS).into()];
    }
    let known = wanted.is_in(groups::AUTHENTICATED) || wanted.is_in(groups::UNAUTHENTICATED);
    if !known {
        let group = if &*wanted.name == groups::ANONYMOUS_USER {
            groups::UNAUTHENTICATED
        } else {
            groups::AUTHENTICATED
        };
        wanted.groups.push(group.into());
    }
    Ok(wanted)
}

/// (namespace, name) of a service account's user name.
pub(crate) fn service_account_of(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}
