use schema::{Strategy, path};
use serde_json::{Value, json};

/// No generation, nothing kept back, PUT needs no resourceVersion.
pub const PLAIN: Strategy = Strategy {
    generation: &[],
    main_keeps: &[],
    unowned: &[],
    status_keeps_metadata: false,
    create_on_update: false,
    unconditional_update: true,
    grace_seconds: None,
    orphans_by_default: false,
    begin_deletion: None,
    prepare: |_, _| {},
};

/// PUT creates what is absent.
pub const CREATE_ON_UPDATE: Strategy = Strategy { create_on_update: true, ..PLAIN };

/// PUT must name the resourceVersion that it replaces.
pub const GUARDED: Strategy = Strategy { unconditional_update: false, ..PLAIN };

/// A generation that follows the spec.
pub const SPEC: Strategy = Strategy { generation: &["spec"], ..PLAIN };

/// A status that only its subresource writes, empty at first.
pub const STATUS: Strategy = Strategy { main_keeps: &["status"], prepare: empty_status, ..PLAIN };

pub const SPEC_AND_STATUS: Strategy = Strategy { generation: &["spec"], ..STATUS };

/// A new object has an empty status, whatever the client sent.
pub fn empty_status(new: &mut Value, old: Option<&Value>) {
    if old.is_none() {
        path::set(new, "status", json!({}));
    }
}
