//! What may be used up only under a quota that counts it: `limitedResources` of the plugin's configuration.
//! <https://kubernetes.io/docs/concepts/policy/resource-quotas/#limit-priority-class-consumption-by-default>

use std::collections::BTreeSet;

use kinds::amounts::Amounts;
use kinds::quota::ScopeTerm;
use object::{Reason, Resource, Status};
use schema::Quantity;
use serde::Deserialize;
use serde_json::Value;

use crate::Request;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limited {
    api_group: String,
    resource: String,
    match_contains: Vec<String>,
    match_scopes: Vec<ScopeTerm>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct File {
    limited_resources: Vec<Limited>,
}

/// Reads what stands below the head of the file.
///
/// # Errors
/// Everything that is wrong with it, in upstream's words.
pub fn read(content: Value) -> Result<Vec<Limited>, Vec<String>> {
    let file: File =
        serde_json::from_value(content).map_err(|error| vec![format!("strict decoding error: {error}")])?;
    let unnamed = file.limited_resources.iter().enumerate().filter(|(_, one)| one.resource.is_empty());
    let wrong: Vec<String> =
        unnamed.map(|(index, _)| format!("limitedResources[{index}].resource: Required value")).collect();
    if wrong.is_empty() { Ok(file.limited_resources) } else { Err(wrong) }
}

/// What the quotas of a namespace say of a request.
#[derive(Default)]
pub(super) struct Covered<'a> {
    /// What those that are about it count.
    pub(super) names: BTreeSet<&'a str>,
    /// The scopes that it is in, of all there are.
    pub(super) scopes: BTreeSet<&'a str>,
}

/// Refuses what is limited and not covered.
pub(super) fn check(
    request: &Request,
    object: &Value,
    wanted: &Amounts,
    covered: &Covered<'_>,
) -> Result<(), Status> {
    let resource = request.key.resource;
    let limited = &request.configuration.limited;
    let mut bare: BTreeSet<&str> = BTreeSet::new();
    for one in limited.iter().filter(|one| one.is_about(resource)) {
        let used = wanted.iter().filter(|(_, amount)| **amount > Quantity::ZERO);
        let is_limited = |name: &str| one.match_contains.iter().any(|part| name.contains(part.as_str()));
        bare.extend(used.map(|(name, _)| name.as_str()).filter(|name| is_limited(name)));
    }
    bare.retain(|name| !covered.names.contains(name));
    if !bare.is_empty() {
        let names: Vec<&str> = bare.into_iter().collect();
        return Err(
            request.forbidden(Some(object), format!("insufficient quota to consume: {}", names.join(",")))
        );
    }
    let scopes = limited.iter().flat_map(|one| &one.match_scopes);
    let bare: Vec<String> = scopes
        .filter(|term| term.holds(resource, object) && !covered.scopes.contains(&*term.scope_name))
        .map(ToString::to_string)
        .collect();
    if !bare.is_empty() {
        let why = format!("insufficient quota to match these scopes: [{}]", bare.join(" "));
        return Err(Status::new(Reason::InternalError, why));
    }
    Ok(())
}

impl Limited {
    fn is_about(&self, resource: Resource) -> bool {
        self.api_group == resource.group() && self.resource == resource.plural()
    }
}
