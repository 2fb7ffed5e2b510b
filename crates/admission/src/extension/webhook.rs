//! Admission webhooks: whom to ask what, and what the answer means.
//! <https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/>

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use object::{Reason, Snapshot, Status};
use plan::{Call, Target};
use schema::path;
use serde::Deserialize;
use serde_json::{Value, json};

use super::expression::{CONDITIONS_BUDGET, Compiler, Inputs, Named, Run};
use super::matching::Matcher;
use super::{Asked, Served};

/// One webhook of a configuration.
#[derive(Debug)]
pub struct Webhook {
    pub name: String,
    configuration: String,
    matcher: Matcher,
    conditions: Vec<Named>,
    target: Option<Target>,
    ca_bundle: Option<Box<[u8]>>,
    timeout_ms: u64,
    /// A failure to reach it refuses the request.
    pub fails: bool,
    /// Wants to be asked again if others changed the object after it.
    pub reinvoked: bool,
    /// Has no side effects on a dry run.
    dry: bool,
    /// `v1` or `v1beta1`: the first of its versions that is known here.
    review: Option<&'static str>,
}

/// What a webhook says of a request.
#[derive(Debug, Default, PartialEq)]
pub struct Answered {
    /// As the webhook words it; None: it admits the request.
    pub refusal: Option<Status>,
    /// Operations of a JSON patch.
    pub patch: Option<Value>,
    pub warnings: Vec<String>,
    pub audit: Vec<(String, String)>,
}

/// The webhooks of a configuration.
pub fn read(configuration: &Value) -> Vec<Arc<Webhook>> {
    let name = path::text(configuration, "metadata.name");
    let webhooks = path::list(configuration, "webhooks").iter();
    webhooks.map(|webhook| Arc::new(one(name, webhook))).collect()
}

fn one(configuration: &str, webhook: &Value) -> Webhook {
    let client = &webhook["clientConfig"];
    let versions = path::list(webhook, "admissionReviewVersions");
    let review = versions.iter().find_map(|version| match version.as_str()? {
        "v1" => Some("v1"),
        "v1beta1" => Some("v1beta1"),
        _ => None,
    });
    Webhook {
        name: path::text(webhook, "name").to_owned(),
        configuration: configuration.to_owned(),
        matcher: Matcher::deserialize(webhook).unwrap_or_default(),
        conditions: Compiler::new(false).conditions(webhook),
        target: target(client),
        ca_bundle: ca_bundle(client),
        timeout_ms: path::int(webhook, "timeoutSeconds")
            .and_then(|seconds| u64::try_from(seconds).ok())
            .unwrap_or(10)
            * 1000,
        fails: path::text(webhook, "failurePolicy") != "Ignore",
        reinvoked: path::text(webhook, "reinvocationPolicy") == "IfNeeded",
        dry: matches!(path::text(webhook, "sideEffects"), "None" | "NoneOnDryRun"),
        review,
    }
}

/// PEM of whom a client configuration trusts.
pub fn ca_bundle(client: &Value) -> Option<Box<[u8]>> {
    let pem = STANDARD.decode(path::text(client, "caBundle")).ok()?;
    (!pem.is_empty()).then(|| pem.into())
}

/// Where a client configuration points; none if it points nowhere that can be called.
pub fn target(client: &Value) -> Option<Target> {
    if let Some(service) = client.get("service").filter(|service| !service.is_null()) {
        return Some(Target::Service {
            namespace: path::text(service, "namespace").into(),
            name: path::text(service, "name").into(),
            port: path::int(service, "port").and_then(|port| u16::try_from(port).ok()).unwrap_or(443),
            path: path::text(service, "path").into(),
        });
    }
    let url = path::text(client, "url");
    (!url.is_empty()).then(|| Target::Url(url.into()))
}

impl Webhook {
    /// What to ask, and in which version the objects are in it; none if the webhook is not about the request.
    ///
    /// # Errors
    /// A condition that cannot be evaluated, and a dry run that the webhook cannot take part in.
    pub fn call<'a>(
        &self,
        snapshot: &Snapshot,
        asked: &Asked<'a>,
        object: Option<&Value>,
    ) -> Result<Option<(Call, Served<'a>)>, Status> {
        let Some(served) = self.matcher.version(snapshot, asked, object) else { return Ok(None) };
        if !self.conditions.is_empty() {
            let inputs = Inputs::new(snapshot, asked, object, None, served);
            match Run::new(&inputs, &[], asked, CONDITIONS_BUDGET).conditions(&self.conditions) {
                Ok(true) => {}
                Ok(false) => return Ok(None),
                Err(why) if self.fails => return Err(asked.request.forbidden(object, why)),
                Err(_) => return Ok(None),
            }
        }
        if asked.request.dry_run && !self.dry {
            let message = format!("admission webhook {:?} does not support dry run", self.name);
            return Err(Status::bad_request(message));
        }
        let (Some(target), Some(review)) = (&self.target, self.review) else {
            let why = "it names no version of AdmissionReview and no place that could be called";
            return self.unreachable(why).map(|()| None);
        };
        let seen = |object: Option<&Value>| (asked.seen)(served, object?);
        let mut request = super::request_value(asked, object, served);
        request["object"] = seen(object).unwrap_or(Value::Null);
        request["oldObject"] = seen(asked.request.old).unwrap_or(Value::Null);
        let body = json!({
            "kind": "AdmissionReview", "apiVersion": format!("admission.k8s.io/{review}"), "request": request,
        });
        let ca_bundle = self.ca_bundle.clone();
        Ok(Some((Call { target: target.clone(), ca_bundle, timeout_ms: self.timeout_ms, body }, served)))
    }

    /// The webhook could not be asked, or answered nonsense: what its failure policy makes of it.
    ///
    /// # Errors
    /// The 500 of a webhook that must not be passed by.
    pub fn unreachable(&self, why: &str) -> Result<(), Status> {
        if !self.fails {
            return Ok(());
        }
        Err(Status::internal(format!("failed calling webhook {:?}: {why}", self.name)))
    }

    /// What an answer means.
    ///
    /// # Errors
    /// What [`Webhook::unreachable`] says of an answer that is none.
    pub fn answer(&self, uid: &str, answer: &Value) -> Result<Answered, Status> {
        match self.read_answer(uid, answer) {
            Ok(answered) => Ok(answered),
            Err(why) => self.unreachable(&why).map(|()| Answered::default()),
        }
    }

    fn read_answer(&self, asked: &str, answer: &Value) -> Result<Answered, String> {
        let response = answer
            .get("response")
            .filter(|response| response.is_object())
            .ok_or_else(|| "webhook response was absent".to_owned())?;
        if self.review == Some("v1") {
            let uid = path::text(response, "uid");
            if uid != asked {
                return Err(format!("expected response.uid={asked:?}, got {uid:?}"));
            }
            let (kind, version) = (path::text(answer, "kind"), path::text(answer, "apiVersion"));
            if (kind, version) != ("AdmissionReview", "admission.k8s.io/v1") {
                return Err(format!(
                    "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got {version}, Kind={kind}"
                ));
            }
        }
        let is_allowed = path::bool(response, "allowed");
        let refusal = || self.refusal(response.get("status").unwrap_or(&Value::Null));
        let warnings = path::list(response, "warnings").iter();
        let audit = path::members(response, "auditAnnotations");
        Ok(Answered {
            refusal: (!is_allowed).then(refusal),
            patch: if is_allowed { patch(response)? } else { None },
            warnings: warnings.filter_map(|warning| warning.as_str().map(str::to_owned)).collect(),
            audit: audit
                .filter_map(|(key, value)| Some((format!("{}/{key}", self.name), value.as_str()?.to_owned())))
                .collect(),
        })
    }

    fn refusal(&self, told: &Value) -> Status {
        let denied = format!("admission webhook {:?} denied the request", self.name);
        let message = match (path::text(told, "message"), path::text(told, "reason")) {
            ("", "") => format!("{denied} without explanation"),
            ("", reason) => format!("{denied}: {reason}"),
            (message, _) => format!("{denied}: {message}"),
        };
        let reason = Reason::named(path::text(told, "reason"));
        let mut status = Status::new(reason, message);
        let code = path::int(told, "code").and_then(|code| u16::try_from(code).ok());
        status.code = code.filter(|code| (400..600).contains(code)).unwrap_or(400);
        status
    }

    /// The configuration that it stands in.
    pub fn configuration(&self) -> &str {
        &self.configuration
    }
}

fn patch(response: &Value) -> Result<Option<Value>, String> {
    let text = path::text(response, "patch");
    if text.is_empty() {
        return Ok(None);
    }
    if path::text(response, "patchType") != "JSONPatch" {
        return Err("webhook returned response.patch but not response.patchType".into());
    }
    let bytes = STANDARD.decode(text).map_err(|_| "response.patch is not base64".to_owned())?;
    let patch =
        serde_json::from_slice(&bytes).map_err(|error| format!("response.patch is no JSON: {error}"))?;
    Ok(Some(patch))
}
