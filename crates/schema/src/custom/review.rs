//! ConversionReview: what a conversion webhook is asked, and what its answer means.
//!
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/#webhook-request-and-response>.
//! A webhook makes objects of one version into those of another and may change labels and annotations; whose object it is, and everything
//! else of its metadata, stays.

use serde_json::{Map, Value, json};

use super::ConversionWebhook;
use crate::{At, go, metadata, path};

const GROUP: &str = "apiextensions.k8s.io";

/// What is wrong with the answer of a conversion webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConversionFault {
    /// It is no answer.
    Malformed,
    /// There are not as many objects as were sent.
    Partial,
    /// One of them is not what was asked for.
    Invalid,
}

impl ConversionWebhook {
    /// The version of the review that is spoken: the first of the webhook's that is known here.
    fn version(&self) -> Result<&'static str, String> {
        let known = self.review_versions.iter().find_map(|version| match &**version {
            "v1" => Some("v1"),
            "v1beta1" => Some("v1beta1"),
            _ => None,
        });
        known.ok_or_else(|| "no supported conversion review versions".to_owned())
    }

    /// The body of a call.
    ///
    /// # Errors
    /// It speaks no version of the review that is known here.
    pub fn review(&self, uid: &str, api_version: &str, objects: &[Value]) -> Result<Value, String> {
        Ok(json!({
            "kind": "ConversionReview",
            "apiVersion": format!("{GROUP}/{}", self.version()?),
            "request": {"uid": uid, "desiredAPIVersion": api_version, "objects": objects},
        }))
    }

    /// The objects of an answer, each with the metadata that it had.
    ///
    /// # Errors
    /// What is wrong with the answer, and upstream's words for that, behind `conversion webhook for {group/version, Kind=Kind}`.
    pub fn read(
        &self,
        answer: Value,
        uid: &str,
        api_version: &str,
        asked: &[Value],
    ) -> Result<Vec<Value>, (ConversionFault, String)> {
        let converted = self
            .converted(answer, uid)
            .map_err(|why| (ConversionFault::Malformed, format!("failed: {why}")))?;
        if converted.len() != asked.len() {
            let why = format!("returned {} objects, expected {}", converted.len(), asked.len());
            return Err((ConversionFault::Partial, why));
        }
        let pairs = converted.into_iter().zip(asked).enumerate();
        pairs
            .map(|(index, (mut converted, own))| {
                // Of one object upstream does not say which.
                let (which, within) = match asked.len() {
                    1 => ("object".to_owned(), String::new()),
                    _ => {
                        (format!("converted object at index {index}"), format!(" in object at index {index}"))
                    }
                };
                let invalid = |what: String| (ConversionFault::Invalid, what);
                same(own, &converted, api_version)
                    .map_err(|why| invalid(format!("returned invalid {which}: {why}")))?;
                restore(own, &mut converted)
                    .map_err(|why| invalid(format!("returned invalid metadata{within}: {why}")))?;
                Ok(converted)
            })
            .collect()
    }

    fn converted(&self, mut answer: Value, uid: &str) -> Result<Vec<Value>, String> {
        let version = self.version()?;
        let (own, kind) = (path::text(&answer, "apiVersion"), path::text(&answer, "kind"));
        if version == "v1" && (own, kind) != ("apiextensions.k8s.io/v1", "ConversionReview") {
            return Err(format!(
                "expected webhook response of {GROUP}/v1, Kind=ConversionReview, got {own}, Kind={kind}"
            ));
        }
        let Some(response) = answer.get_mut("response").filter(|response| response.is_object()) else {
            return Err("no response provided".into());
        };
        let told = path::text(response, "uid");
        if version == "v1" && told != uid {
            return Err(format!("expected response.uid={uid:?}, got {told:?}"));
        }
        match (path::text(response, "result.status"), path::text(response, "result.message")) {
            ("Success", _) => {}
            (status, "") => return Err(format!("response.result.status was '{status}', not 'Success'")),
            (_, message) => return Err(message.to_owned()),
        }
        match response["convertedObjects"].take() {
            Value::Array(objects) => Ok(objects),
            _ => Ok(Vec::new()),
        }
    }
}

/// Whether an object is the one that was asked about, in the version that it should have.
fn same(asked: &Value, converted: &Value, api_version: &str) -> Result<(), String> {
    let got = path::text(converted, "apiVersion");
    if got != api_version {
        return Err(format!("invalid groupVersion (expected {api_version}, received {got})"));
    }
    let (kind, got) = (path::text(asked, "kind"), path::text(converted, "kind"));
    if kind != got {
        return Err(format!("invalid kind (expected {kind}, received {got})"));
    }
    for (field, word) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let at = format!("metadata.{field}");
        let (expected, got) = (path::text(asked, &at), path::text(converted, &at));
        if expected != got {
            return Err(format!("must have the same {word}: {expected} != {got}"));
        }
    }
    Ok(())
}

/// Gives an object the metadata that it had, with the labels and annotations that the webhook gave it.
fn restore(asked: &Value, converted: &mut Value) -> Result<(), String> {
    let Some(told) = converted.get("metadata") else {
        return Err("missing metadata in converted object".into());
    };
    let Value::Object(told) = told else {
        return Err(format!("invalid metadata of type {} in converted object", type_of(told)));
    };
    let mut kept = asked.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    for field in ["labels", "annotations"] {
        match told.get(field) {
            None | Some(Value::Null) => drop(kept.remove(field)),
            Some(Value::Object(members)) => {
                check_texts(field, members)?;
                if kept.get(field).and_then(Value::as_object) != Some(members) {
                    check_names(field, members)?;
                }
                kept.insert(field.into(), members.clone().into());
            }
            Some(other) => {
                return Err(format!(
                    "invalid metadata.{field} of type {} in converted object",
                    type_of(other)
                ));
            }
        }
    }
    converted["metadata"] = kept.into();
    Ok(())
}

fn check_texts(field: &str, members: &Map<String, Value>) -> Result<(), String> {
    match members.iter().find(|(_, value)| !value.is_string()) {
        Some((key, value)) => Err(format!(
            "metadata.{field}[{key}] must be a string, but is {} in converted object",
            type_of(value)
        )),
        None => Ok(()),
    }
}

fn check_names(field: &str, members: &Map<String, Value>) -> Result<(), String> {
    let (value, mut found) = (Value::Object(members.clone()), Vec::new());
    match field {
        "labels" => metadata::labels(Some(&value), At::root("metadata.labels"), &mut found),
        _ => metadata::annotations(Some(&value), At::root("metadata.annotations"), &mut found),
    }
    let told: Vec<String> = found.iter().map(|one| format!("{}: {}", one.field, one.body())).collect();
    match &told[..] {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}

/// What upstream's language calls the type of a value.
fn type_of(value: &Value) -> &'static str {
    if value.is_null() { "<nil>" } else { go::type_of(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: &str = r#"{"apiVersion":"g.io/v1","kind":"Thing","metadata":{"name":"a","namespace":"n","uid":"u","labels":{"a":"1"}}}"#;

    fn webhook(versions: &[&str]) -> ConversionWebhook {
        let review_versions = versions.iter().map(|&version| version.into()).collect();
        ConversionWebhook { client_config: Value::Null, review_versions }
    }

    /// What becomes of an answer whose response is the one of a webhook that does nothing wrong, with these members changed.
    fn check(changes: &[(&str, Value)], expected: Result<Value, &str>) {
        let asked: Value = serde_json::from_str(ASKED).expect("JSON");
        let mut answer = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
            "response": {"uid": "1", "result": {"status": "Success"}, "convertedObjects": [asked]},
        });
        answer["response"]["convertedObjects"][0]["apiVersion"] = "g.io/v2".into();
        for (pointer, value) in changes {
            match answer.pointer_mut(pointer) {
                Some(place) => *place = value.clone(),
                None => answer["response"]["convertedObjects"][0]["metadata"]["annotations"] = value.clone(),
            }
        }
        let read = webhook(&["v3", "v1"]).read(answer, "1", "g.io/v2", &[asked]).map_err(|(fault, why)| {
            let told = match fault {
                ConversionFault::Malformed => "failed: ",
                ConversionFault::Partial => "returned 0 objects",
                ConversionFault::Invalid => "returned invalid ",
            };
            assert!(why.starts_with(told), "{fault:?}: {why}");
            why
        });
        assert_eq!(
            read.map(|mut all| all.remove(0)["metadata"].take()).as_ref().map_err(String::as_str),
            expected.as_ref().map_err(|why| *why)
        );
    }

    #[test]
    fn an_answer_is_held_to_what_was_asked() {
        const OBJECT: &str = "/response/convertedObjects/0";
        let kept = json!({"name": "a", "namespace": "n", "uid": "u", "labels": {"a": "1"}});
        check(&[], Ok(kept.clone()));
        let labels = format!("{OBJECT}/metadata/labels");
        let mut relabelled = kept.clone();
        relabelled["labels"] = json!({"b": "2"});
        check(&[(&labels, json!({"b": "2"}))], Ok(relabelled));
        check(
            &[(&labels, json!(7))],
            Err("returned invalid metadata: invalid metadata.labels of type int64 in converted object"),
        );
        check(
            &[(&labels, json!({"b": true}))],
            Err(
                "returned invalid metadata: metadata.labels[b] must be a string, but is bool in converted object",
            ),
        );
        let metadata = format!("{OBJECT}/metadata");
        check(
            &[(&metadata, json!({"name": "b"}))],
            Err("returned invalid object: must have the same name: a != b"),
        );
        check(
            &[(&format!("{OBJECT}/kind"), json!("Other"))],
            Err("returned invalid object: invalid kind (expected Thing, received Other)"),
        );
        check(
            &[(&format!("{OBJECT}/apiVersion"), json!("g.io/v1"))],
            Err("returned invalid object: invalid groupVersion (expected g.io/v2, received g.io/v1)"),
        );
        check(&[("/response/uid", json!("2"))], Err("failed: expected response.uid=\"1\", got \"2\""));
        check(&[("/response", Value::Null)], Err("failed: no response provided"));
        check(&[("/response/convertedObjects", json!([]))], Err("returned 0 objects, expected 1"));
        check(&[("/response/result", json!({"status": "Failed", "message": "no"}))], Err("failed: no"));
        check(
            &[("/response/result", json!({}))],
            Err("failed: response.result.status was '', not 'Success'"),
        );
        check(
            &[("/kind", json!("Pod"))],
            Err(
                "failed: expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got apiextensions.k8s.io/v1, Kind=Pod",
            ),
        );
    }

    #[test]
    fn the_first_known_version_is_spoken() {
        let review = webhook(&["v9", "v1beta1", "v1"]).review("1", "g.io/v2", &[]).expect("known");
        assert_eq!(review["apiVersion"], "apiextensions.k8s.io/v1beta1");
        assert_eq!(
            webhook(&["v9"]).review("1", "g.io/v2", &[]),
            Err("no supported conversion review versions".into())
        );
    }
}
