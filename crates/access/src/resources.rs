//! The resources that this crate reads.

use object::Resource;

pub const CLUSTER_ROLES: Resource = Resource::new("clusterroles.rbac.authorization.k8s.io");
pub const CLUSTER_ROLE_BINDINGS: Resource = Resource::new("clusterrolebindings.rbac.authorization.k8s.io");
pub const NODES: Resource = Resource::new("nodes");
pub const PERSISTENT_VOLUMES: Resource = Resource::new("persistentvolumes");
pub const PERSISTENT_VOLUME_CLAIMS: Resource = Resource::new("persistentvolumeclaims");
pub const PODS: Resource = Resource::new("pods");
pub const RESOURCE_SLICES: Resource = Resource::new("resourceslices.resource.k8s.io");
pub const ROLES: Resource = Resource::new("roles.rbac.authorization.k8s.io");
pub const ROLE_BINDINGS: Resource = Resource::new("rolebindings.rbac.authorization.k8s.io");
pub const SECRETS: Resource = Resource::new("secrets");
pub const SERVICE_ACCOUNTS: Resource = Resource::new("serviceaccounts");
pub const VOLUME_ATTACHMENTS: Resource = Resource::new("volumeattachments.storage.k8s.io");
