//! Role-based access control: an index of roles and bindings by subject, and what follows from it.
//! <https://kubernetes.io/docs/reference/access-authn-authz/rbac/>

mod aggregate;
mod escalation;
mod index;
mod rule;

pub use aggregate::aggregated_rules;
pub use escalation::check_write;
pub(crate) use index::in_brackets;
pub use index::{Index, SubjectRules};
pub use rule::Rule;
