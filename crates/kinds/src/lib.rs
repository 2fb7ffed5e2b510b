//! Every built-in kind: one file each, listed once.
//!
//! A kind is a row (`schema::Kind`) in a file of its name, with what only it has: defaults that depend on other fields, validation, cells of
//! columns. A new one is that file, two lines here, its types in `data/types.tsv` with their words in `data/descriptions.tsv`, and a worked
//! case in `testdata/`; the tests of the table tell what is missing. `spec` holds the parts that several kinds share.
//!
//! Architecture invariant: nothing here reads a clock or a store. A row is asked about one object, and about what it was before.

pub mod amounts;
mod autoscaler_columns;
mod autoscaler_v1;
mod autoscaler_validation;
mod column;
pub mod custom;
mod definition_rules;
mod definition_types;
mod definition_validation;
mod event_columns;
pub mod expressions;
mod job_indexes;
mod job_status;
mod job_validation;
pub mod pem;
pub mod pkcs10;
mod pod_columns;
mod pod_resize;
mod pod_status;
mod pod_update;
pub mod quota;
mod row;
mod service_spec;
mod spec;
mod strategy;
mod subresource;
pub mod type_checking;

mod api_service;
mod binding;
mod certificate_signing_request;
mod cluster_role;
mod cluster_role_binding;
mod component_status;
mod config_map;
mod controller_revision;
mod cron_job;
mod csi_driver;
mod csi_node;
mod csi_storage_capacity;
mod custom_resource_definition;
mod daemon_set;
mod deployment;
mod device_class;
mod endpoint_slice;
mod endpoints;
mod event;
mod flow_schema;
mod horizontal_pod_autoscaler;
mod ingress;
mod ingress_class;
mod ip_address;
mod job;
mod lease;
mod limit_range;
mod local_subject_access_review;
mod mutating_admission_policy;
mod mutating_admission_policy_binding;
mod mutating_webhook_configuration;
mod namespace;
mod network_policy;
mod node;
mod persistent_volume;
mod persistent_volume_claim;
mod pod;
mod pod_disruption_budget;
mod pod_template;
mod priority_class;
mod priority_level_configuration;
mod replica_set;
mod replication_controller;
mod resource_claim;
mod resource_claim_template;
mod resource_quota;
mod resource_slice;
mod role;
mod role_binding;
mod runtime_class;
mod secret;
mod self_subject_access_review;
mod self_subject_review;
mod self_subject_rules_review;
pub mod service;
mod service_account;
mod service_cidr;
mod stateful_set;
mod storage_class;
mod subject_access_review;
mod token_review;
mod validating_admission_policy;
mod validating_admission_policy_binding;
mod validating_webhook_configuration;
mod volume_attachment;
mod volume_attributes_class;

pub use api_service::API_SERVICES;
pub use binding::BINDINGS;
pub use certificate_signing_request::CERTIFICATE_SIGNING_REQUESTS;
pub use cluster_role::CLUSTER_ROLES;
pub use cluster_role_binding::CLUSTER_ROLE_BINDINGS;
pub use component_status::COMPONENT_STATUSES;
pub use config_map::CONFIG_MAPS;
pub use controller_revision::CONTROLLER_REVISIONS;
pub use cron_job::CRON_JOBS;
pub use csi_driver::CSI_DRIVERS;
pub use csi_node::CSI_NODES;
pub use csi_storage_capacity::CSI_STORAGE_CAPACITIES;
pub use custom_resource_definition::{CLEANUP, CUSTOM_RESOURCE_DEFINITIONS};
pub use daemon_set::DAEMON_SETS;
pub use definition_validation::Approval;
pub use deployment::DEPLOYMENTS;
pub use device_class::DEVICE_CLASSES;
pub use endpoint_slice::ENDPOINT_SLICES;
pub use endpoints::ENDPOINTS;
pub use event::EVENTS;
pub use flow_schema::FLOW_SCHEMAS;
pub use horizontal_pod_autoscaler::HORIZONTAL_POD_AUTOSCALERS;
pub use ingress::INGRESSES;
pub use ingress_class::INGRESS_CLASSES;
pub use ip_address::IP_ADDRESSES;
pub use job::JOBS;
pub use lease::LEASES;
pub use limit_range::LIMIT_RANGES;
pub use local_subject_access_review::LOCAL_SUBJECT_ACCESS_REVIEWS;
pub use mutating_admission_policy::MUTATING_ADMISSION_POLICIES;
pub use mutating_admission_policy_binding::MUTATING_ADMISSION_POLICY_BINDINGS;
pub use mutating_webhook_configuration::MUTATING_WEBHOOK_CONFIGURATIONS;
pub use namespace::NAMESPACES;
pub use network_policy::NETWORK_POLICIES;
pub use node::NODES;
pub use persistent_volume::PERSISTENT_VOLUMES;
pub use persistent_volume_claim::PERSISTENT_VOLUME_CLAIMS;
pub use pod::PODS;
pub use pod_disruption_budget::POD_DISRUPTION_BUDGETS;
pub use pod_template::POD_TEMPLATES;
pub use priority_class::PRIORITY_CLASSES;
pub use priority_level_configuration::PRIORITY_LEVEL_CONFIGURATIONS;
pub use replica_set::REPLICA_SETS;
pub use replication_controller::REPLICATION_CONTROLLERS;
pub use resource_claim::{ADMIN_NAMESPACE, RESOURCE_CLAIMS, admin_access};
pub use resource_claim_template::RESOURCE_CLAIM_TEMPLATES;
pub use resource_quota::RESOURCE_QUOTAS;
pub use resource_slice::RESOURCE_SLICES;
pub use role::ROLES;
pub use role_binding::ROLE_BINDINGS;
pub use runtime_class::RUNTIME_CLASSES;
pub use secret::SECRETS;
pub use self_subject_access_review::SELF_SUBJECT_ACCESS_REVIEWS;
pub use self_subject_review::SELF_SUBJECT_REVIEWS;
pub use self_subject_rules_review::SELF_SUBJECT_RULES_REVIEWS;
pub use service::SERVICES;
pub use service_account::SERVICE_ACCOUNTS;
pub use service_cidr::SERVICE_CIDRS;
pub use stateful_set::STATEFUL_SETS;
pub use storage_class::STORAGE_CLASSES;
pub use subject_access_review::SUBJECT_ACCESS_REVIEWS;
pub use token_review::TOKEN_REVIEWS;
pub use validating_admission_policy::VALIDATING_ADMISSION_POLICIES;
pub use validating_admission_policy_binding::VALIDATING_ADMISSION_POLICY_BINDINGS;
pub use validating_webhook_configuration::VALIDATING_WEBHOOK_CONFIGURATIONS;
pub use volume_attachment::VOLUME_ATTACHMENTS;
pub use volume_attributes_class::VOLUME_ATTRIBUTES_CLASSES;

use std::collections::HashMap;
use std::sync::LazyLock;

use object::{Resource, Status};
use schema::{DecodeError, Decoded, FieldValidation, Kind, Types, Words};
use serde_json::Value;

/// Every kind, by file name. A resource served in several versions has a row for each; the first is the stored one.
static KINDS: &[&Kind] = &[
    &api_service::KIND,
    &binding::KIND,
    &certificate_signing_request::KIND,
    &cluster_role::KIND,
    &cluster_role_binding::KIND,
    &component_status::KIND,
    &config_map::KIND,
    &controller_revision::KIND,
    &cron_job::KIND,
    &csi_driver::KIND,
    &csi_node::KIND,
    &csi_storage_capacity::KIND,
    &custom_resource_definition::KIND,
    &daemon_set::KIND,
    &deployment::KIND,
    &device_class::KIND,
    &endpoint_slice::KIND,
    &endpoints::KIND,
    &event::KIND,
    &event::V1,
    &flow_schema::KIND,
    &horizontal_pod_autoscaler::KIND,
    &horizontal_pod_autoscaler::V1,
    &ingress::KIND,
    &ingress_class::KIND,
    &ip_address::KIND,
    &job::KIND,
    &lease::KIND,
    &limit_range::KIND,
    &local_subject_access_review::KIND,
    &mutating_admission_policy::KIND,
    &mutating_admission_policy_binding::KIND,
    &mutating_webhook_configuration::KIND,
    &namespace::KIND,
    &network_policy::KIND,
    &node::KIND,
    &persistent_volume::KIND,
    &persistent_volume_claim::KIND,
    &pod::KIND,
    &pod_disruption_budget::KIND,
    &pod_template::KIND,
    &priority_class::KIND,
    &priority_level_configuration::KIND,
    &replica_set::KIND,
    &replication_controller::KIND,
    &resource_claim::KIND,
    &resource_claim_template::KIND,
    &resource_quota::KIND,
    &resource_slice::KIND,
    &role::KIND,
    &role_binding::KIND,
    &runtime_class::KIND,
    &secret::KIND,
    &self_subject_access_review::KIND,
    &self_subject_review::KIND,
    &self_subject_rules_review::KIND,
    &service::KIND,
    &service_account::KIND,
    &service_cidr::KIND,
    &stateful_set::KIND,
    &storage_class::KIND,
    &subject_access_review::KIND,
    &token_review::KIND,
    &validating_admission_policy::KIND,
    &validating_admission_policy_binding::KIND,
    &validating_webhook_configuration::KIND,
    &volume_attachment::KIND,
    &volume_attributes_class::KIND,
];

/// The table of types that the kinds are made of.
pub fn types() -> &'static Types {
    static TYPES: LazyLock<Types> = LazyLock::new(|| match Types::parse(include_str!("../data/types.tsv")) {
        Ok(types) => types,
        // The table is part of the program and a test reads it.
        Err(error) => unreachable!("data/types.tsv: {error:?}"),
    });
    &TYPES
}

/// What the types are, in words. Taken apart anew each time: it is asked for when a document is made, which is then kept.
pub fn words() -> Words {
    Words::parse(include_str!("../data/descriptions.tsv"))
}

pub fn all() -> &'static [&'static Kind] {
    KINDS
}

/// The row that objects of this resource are stored by.
pub fn of(resource: Resource) -> Option<&'static Kind> {
    static BY_RESOURCE: LazyLock<HashMap<&'static str, &'static Kind>> =
        LazyLock::new(|| KINDS.iter().rev().map(|kind| (kind.resource.as_str(), *kind)).collect());
    BY_RESOURCE.get(resource.as_str()).copied()
}

/// The row of `apiVersion` and `kind`: `("apps", "v1", "Deployment")`.
pub fn by_gvk(group: &str, version: &str, kind: &str) -> Option<&'static Kind> {
    KINDS.iter().copied().find(|row| row.kind == kind && row.group == group && row.version == version)
}

/// The row behind a path: `("apps", "v1", "deployments")`.
pub fn by_path(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    let is_wanted =
        |row: &&Kind| row.group == group && row.version == version && row.resource.plural() == plural;
    KINDS.iter().copied().find(is_wanted)
}

/// Reads a request's body as an object of the kind. The error is upstream's 400.
pub fn decode(kind: &Kind, text: &[u8], mode: FieldValidation) -> Result<Decoded, Status> {
    types().decode(kind.type_name, text, mode).map_err(|error| undecodable(kind, text, &error))
}

/// Reads a tree (a body, the result of a patch, a controller's write) as an object of the kind.
///
/// # Errors
/// What cannot be one, in upstream's words.
pub fn conform(kind: &Kind, value: Value, mode: FieldValidation) -> Result<Decoded, DecodeError> {
    kind.conform(types(), value, mode)
}

/// Fills in every default of the kind. Doing it again changes nothing.
pub fn default(kind: &Kind, object: &mut Value) {
    kind.fill_in(types(), object);
}

fn undecodable(kind: &Kind, text: &[u8], error: &DecodeError) -> Status {
    let name = kind.kind;
    Status::bad_request(match error {
        DecodeError::Syntax(_) => format!(
            "the object provided is unrecognized (must be of type {name}): couldn't get version/kind; {error} ({})",
            excerpt(text)
        ),
        _ => format!("{name} in version \"{}\" cannot be handled as a {name}: {error}", kind.version),
    })
}

/// The beginning of a body that cannot be read: as text if it looks like JSON, else in hex.
fn excerpt(text: &[u8]) -> String {
    const MOST_BYTES: usize = 30;
    if text.is_empty() {
        return "<empty>".into();
    }
    let (front, more) = if text.len() > MOST_BYTES { (&text[..MOST_BYTES], " ...") } else { (text, "") };
    if front[0] == b'{' {
        return format!("{}{more}", String::from_utf8_lossy(front));
    }
    let hex: String = front.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{hex}{more}")
}
