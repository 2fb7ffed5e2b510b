//! Who asked, where an object itself says so: certificate signing requests carry their requestor, whatever the body says.
//! <https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#request-signing-process>

use kinds::CERTIFICATE_SIGNING_REQUESTS;
use object::Resource;
use plan::User;
use serde_json::{Map, Value, json};

/// Writes the requestor into a new object that has a place for it.
pub(crate) fn stamp(resource: Resource, user: &User, new: &mut Value) {
    if resource != CERTIFICATE_SIGNING_REQUESTS {
        return;
    }
    let Some(spec) = new.get_mut("spec").and_then(Value::as_object_mut) else { return };
    spec.insert("username".into(), user.name.as_ref().into());
    let groups: Vec<&str> = user.groups.iter().map(|group| &**group).collect();
    put(spec, "groups", !groups.is_empty(), json!(groups));
    put(spec, "uid", !user.uid.is_empty(), json!(&*user.uid));
    put(spec, "extra", !user.extra.is_empty(), json!(user.extra));
}

fn put(spec: &mut Map<String, Value>, name: &str, has_value: bool, value: Value) {
    if has_value {
        spec.insert(name.into(), value);
    } else {
        spec.remove(name);
    }
}
