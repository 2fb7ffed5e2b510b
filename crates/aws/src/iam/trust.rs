//! Whether a role lets a service of AWS assume it: what services ask of the roles that they are handed.

use crate::policy::{Document, Policies, Principal, Request, Use, decide};
use crate::sts::session;
use crate::{Context, authorize};

use super::record::role_of_arn;

/// What is to be said of a role that a service is handed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// There is no role of this ARN.
    Missing,
    /// Its trust policy does not let the service in.
    Refused,
    Given,
}

/// May the service assume the role of this ARN? `service` is `eks.amazonaws.com`.
pub fn trust(context: &Context, arn: &str, service: &str) -> Trust {
    let Some(role) = role_of_arn(context.state, arn) else { return Trust::Missing };
    // A trust policy that cannot be read lets nobody in.
    let Ok(trust) = session::trust(&role.record) else { return Trust::Refused };
    let keys =
        authorize::keys(context, &[("aws:SourceAccount".to_owned(), vec![context.account.to_owned()])]);
    let principal = Principal::service(service);
    let request = Request { principal: &principal, action: "sts:AssumeRole", resource: arn, keys: &keys };
    let policies = Policies { trust: Some(&trust), ..Policies::default() };
    if decide(&policies, &request).is_allowed() { Trust::Given } else { Trust::Refused }
}

/// Does the role's trust policy speak of the service? Its conditions are about calls that are made later: from which cluster, for which pod.
pub fn names_service(context: &Context, arn: &str, service: &str) -> Trust {
    let Some(role) = role_of_arn(context.state, arn) else { return Trust::Missing };
    let document = Document::parse(&role.record.trust, Use::Trust);
    let is_named = document.is_ok_and(|document| document.trusted_services().any(|one| one == service));
    if is_named { Trust::Given } else { Trust::Refused }
}
