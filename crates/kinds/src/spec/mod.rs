//! Parts that several kinds share: the pod spec and what it is made of, selectors, templates.
//!
//! Each file holds the defaults that the table of types cannot say, and the validation, of one part.

pub mod addresses;
pub mod admission_policy;
pub mod affinity;
pub mod annotations;
pub mod capacity;
pub mod check;
pub mod conditions;
pub mod container;
pub mod devices;
pub mod env;
pub mod label_selector;
pub mod node_labels;
pub mod old_volume;
pub mod os;
pub mod pod_spec;
pub mod probe;
pub mod projected;
pub mod qos;
pub mod resources;
pub mod review;
pub mod rules;
pub mod schedule;
pub mod scheduling;
pub mod security_context;
pub mod storage;
pub mod template;
pub mod volume;
pub mod warnings;
pub mod webhook;
