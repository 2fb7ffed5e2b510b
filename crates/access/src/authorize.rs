//! The chain of authorizers: `system:masters`, Node, the access policies of EKS, RBAC. The first that allows or denies decides; the reasons of those
//! without an opinion are joined. <https://kubernetes.io/docs/reference/access-authn-authz/authorization/>

use object::{FieldSelector, Reason, Snapshot, Status};
use plan::{Attributes, Decision, User};

use crate::{AccessPolicies, groups, node, rbac};

/// What authorization looks at. The index must have been folded up to the snapshot's revision.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub snapshot: &'a Snapshot,
    pub rbac: &'a rbac::Index,
    /// Of a cluster of EKS: what its access entries give.
    pub access_policies: Option<&'a AccessPolicies>,
}

/// May this user do this?
///
/// For `list`, `watch` and `deletecollection` with a field selector use [`authorize_list`]: a node may list pods only
/// with `spec.nodeName=<itself>` (KEP-4601), and without the selector the answer is no.
pub fn authorize(view: &View, user: &User, attributes: &Attributes) -> Decision {
    decide(view, user, attributes, None)
}

/// As [`authorize`], for a request that carries a field selector.
pub fn authorize_list(view: &View, user: &User, attributes: &Attributes, fields: &FieldSelector) -> Decision {
    decide(view, user, attributes, Some(fields))
}

fn decide(view: &View, user: &User, attributes: &Attributes, fields: Option<&FieldSelector>) -> Decision {
    if user.is_in(groups::MASTERS) {
        return Decision { allowed: true, ..Decision::default() };
    }
    let node = node::authorize(view.snapshot, user, attributes, fields);
    if node.allowed || node.denied {
        return node;
    }
    if let Some(policies) = view.access_policies {
        let decision = policies.authorize(user, attributes);
        if decision.allowed {
            return decision;
        }
    }
    let mut rbac = view.rbac.authorize(user, attributes);
    if !node.reason.is_empty() {
        rbac.reason =
            if rbac.reason.is_empty() { node.reason } else { format!("{}\n{}", node.reason, rbac.reason) };
    }
    rbac
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
            path: "",
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
