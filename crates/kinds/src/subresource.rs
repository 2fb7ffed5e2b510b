use schema::Subresource;

pub const STATUS: Subresource = Subresource { name: "status", gvk: None, verbs: &["get", "patch", "update"] };

pub const SCALE: Subresource = Subresource {
    name: "scale",
    gvk: Some(("autoscaling", "v1", "Scale")),
    verbs: &["get", "patch", "update"],
};

/// What a proxied request may be.
pub const PROXY_VERBS: &[&str] = &["create", "delete", "get", "patch", "update"];
