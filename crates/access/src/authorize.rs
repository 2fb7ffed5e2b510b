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
    authorize_by(view, user, attributes).0
}

/// The same with the authorizer that allowed or denied it, if one did: nobody asks them about `system:masters`.
pub fn authorize_by<'a>(
    view: &View<'a>,
    user: &User,
    attributes: &Attributes,
) -> (Decision, Option<&'a Authorizer>) {
    if user.is_in(groups::MASTERS) {
        return (Decision { allowed: true, ..Decision::default() }, None);
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
            return (decision, Some(authorizer));
        }
        reasons.extend(Some(decision.reason).filter(|reason| !reason.is_empty()));
        errors.extend(Some(decision.error).filter(|error| !error.is_empty()));
    }
    let reason = reasons.join("\n");
    (Decision { reason, error: rbac::in_brackets(errors), ..Decision::default() }, None)
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
        return Status::of_no_resource(Reason::Forbidden, format!("forbidden: {message}"));
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

/// (namespace, name) of a service account's user name.
pub(crate) fn service_account_of(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}
