//! `serviceaccounts/token`: <https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/>.

use object::{Cause, Key, Object, Reason, Resource, Snapshot, Status, Time};
use ring::rand::SecureRandom;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::Authority;
use super::claims::{Audience, Claims, KubernetesClaims, ObjectClaim};
use kinds::{NODES, PODS, SECRETS};

const MIN_SECONDS: i64 = 10 * 60;
const MAX_SECONDS: i64 = 1 << 32;
const DEFAULT_SECONDS: i64 = 60 * 60;

/// What kubelets ask for a projected volume: one hour and seven seconds, by which it is known. Such a token is made to
/// live a year, for clients that never read it again, and says in `warnafter` when it should have been renewed.
const RENEWED_SECONDS: i64 = 60 * 60 + 7;
const EXTENDED_SECONDS: i64 = 365 * 24 * 60 * 60;

/// One request for a token.
pub struct TokenRequest<'a> {
    /// The service account: namespace and name of the request's path.
    pub account: &'a Key,
    /// `authentication.k8s.io/v1` `TokenRequest` as the client sent it.
    pub body: &'a Value,
    /// A random UUID: the token's `jti`.
    pub id: &'a str,
    pub now: Time,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RequestView {
    metadata: MetadataView,
    spec: SpecView,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MetadataView {
    uid: String,
    name: String,
    namespace: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SpecView {
    audiences: Option<Vec<String>>,
    expiration_seconds: Option<i64>,
    bound_object_ref: Option<BoundObject>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct BoundObject {
    kind: String,
    api_version: String,
    name: String,
    uid: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodView {
    spec: PodSpecView,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpecView {
    service_account_name: String,
    node_name: String,
}

impl Authority {
    /// Answers a TokenRequest: the same object with its defaults, and the token in its status.
    pub fn issue(
        &self,
        snapshot: &Snapshot,
        request: &TokenRequest,
        random: &dyn SecureRandom,
    ) -> Result<Value, Status> {
        let view: RequestView = serde_json::from_value(request.body.clone())
            .map_err(|error| Status::bad_request(format!("TokenRequest in version \"v1\": {error}")))?;
        let account = snapshot.get(request.account).ok_or_else(|| Status::not_found(request.account))?;
        valid(request.account, &view)?;
        let uid = &view.metadata.uid;
        if !uid.is_empty() && *uid != *account.meta.uid {
            let held = &account.meta.uid;
            let why = format!(
                "the UID in the token request ({uid}) does not match the UID of the service account ({held})"
            );
            let named =
                Key::new(Resource::new("TokenRequest.authentication.k8s.io"), "", &*request.account.name);
            return Err(Status::conflict(&named, &why));
        }
        let asked = view.spec.expiration_seconds.unwrap_or(DEFAULT_SECONDS);
        let audiences = match view.spec.audiences {
            Some(audiences) if !audiences.is_empty() => audiences,
            _ => self.audiences.clone(),
        };
        let mut kubernetes = KubernetesClaims {
            namespace: request.account.namespace.to_string(),
            serviceaccount: claim(account),
            ..KubernetesClaims::default()
        };
        if let Some(bound) = &view.spec.bound_object_ref {
            bind(snapshot, request.account, bound, &mut kubernetes)?;
        }
        let issued = request.now.as_secs();
        let mut expires = issued + asked;
        // Only tokens for the API server itself are worth extending.
        if asked == RENEWED_SECONDS && kubernetes.pod.is_some() && audiences == self.audiences {
            kubernetes.warnafter = Some(expires);
            expires = issued + EXTENDED_SECONDS;
        }
        let claims = Claims {
            aud: Audience::Many(audiences.clone()),
            exp: expires,
            iat: issued,
            iss: self.issuer.clone(),
            jti: request.id.to_owned(),
            sub: format!("system:serviceaccount:{}:{}", request.account.namespace, request.account.name),
            kubernetes,
            nbf: issued,
        };
        let payload = serde_json::to_vec(&claims).map_err(Status::internal)?;
        let token = self.signing.sign(&payload, random).map_err(Status::internal)?;
        // Clients renew by what they asked for, not by the extended life.
        let told = Time::from_secs(issued + asked);
        let bound = view.spec.bound_object_ref.as_ref();
        Ok(answer(request, bound, &audiences, asked, &token, told, &account.meta.uid))
    }
}

fn answer(
    request: &TokenRequest,
    bound: Option<&BoundObject>,
    audiences: &[String],
    seconds: i64,
    token: &str,
    expires: Time,
    uid: &str,
) -> Value {
    let bound = bound.map(|bound| {
        let members = [
            ("kind", &bound.kind),
            ("apiVersion", &bound.api_version),
            ("name", &bound.name),
            ("uid", &bound.uid),
        ];
        let given = members.into_iter().filter(|(_, value)| !value.is_empty());
        given.map(|(name, value)| (name.to_owned(), value.as_str().into())).collect::<Map<String, Value>>()
    });
    json!({
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {
            "name": &*request.account.name,
            "namespace": &*request.account.namespace,
            "uid": uid,
            "creationTimestamp": request.now.to_string(),
        },
        "spec": {"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": bound},
        "status": {"token": token, "expirationTimestamp": expires.to_string()},
    })
}

fn valid(account: &Key, view: &RequestView) -> Result<(), Status> {
    let MetadataView { name, namespace, .. } = &view.metadata;
    if !namespace.is_empty() && *namespace != *account.namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if !name.is_empty() && *name != *account.name {
        let why = "must match the service account name if specified";
        return Err(invalid(&account.name, "metadata.name", &format!("{name:?}"), why));
    }
    let Some(seconds) = view.spec.expiration_seconds else { return Ok(()) };
    let why = match seconds {
        ..MIN_SECONDS => "may not specify a duration less than 10 minutes",
        MIN_SECONDS..=MAX_SECONDS => return Ok(()),
        _ => "may not specify a duration larger than 2^32 seconds",
    };
    // Upstream names no object here.
    Err(invalid("", "spec.expirationSeconds", &seconds.to_string(), why))
}

fn invalid(name: &str, field: &str, value: &str, why: &str) -> Status {
    let detail = format!("Invalid value: {value}: {why}");
    let message = format!("TokenRequest.authentication.k8s.io {name:?} is invalid: {field}: {detail}");
    let mut status = Status::new(Reason::Invalid, message);
    status.group = "authentication.k8s.io".to_owned();
    status.kind = "TokenRequest".to_owned();
    status.name = name.to_owned();
    status.causes.push(Cause { reason: "FieldValueInvalid", message: detail, field: field.to_owned() });
    status
}

/// Finds what the token is to be bound to, and writes it into the claims.
fn bind(
    snapshot: &Snapshot,
    account: &Key,
    bound: &BoundObject,
    claims: &mut KubernetesClaims,
) -> Result<(), Status> {
    let find = |resource: Resource, namespace: &str, shown: &'static str| {
        let key = Key::new(resource, namespace, bound.name.as_str());
        let object = snapshot.get(&key).ok_or_else(|| Status::not_found(&key))?;
        if bound.uid.is_empty() || *object.meta.uid == *bound.uid {
            return Ok(object);
        }
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            bound.uid
        );
        // By its kind, as upstream names it here.
        let named = Key::new(Resource::new(shown), "", bound.name.as_str());
        Err(Status::conflict(&named, &why))
    };
    // Whatever version: the group is what counts.
    let (group, version) = bound.api_version.split_once('/').unwrap_or(("", &bound.api_version));
    match (group, bound.kind.as_str()) {
        ("", "Pod") => {
            let pod = find(PODS, &account.namespace, "Pod")?;
            let spec = pod.decode::<PodView>().map_err(Status::internal)?.spec;
            if spec.service_account_name != *account.name {
                let why = format!(
                    "cannot bind token for serviceaccount {:?} to pod running with different serviceaccount name.",
                    &*account.name
                );
                return Err(Status::bad_request(why));
            }
            if !spec.node_name.is_empty() {
                let node = snapshot.get(&Key::cluster(NODES, spec.node_name.as_str()));
                claims.node = Some(node.map_or_else(
                    || ObjectClaim { name: spec.node_name.clone(), uid: String::new() },
                    |node| claim(node),
                ));
            }
            claims.pod = Some(claim(pod));
        }
        ("", "Secret") => claims.secret = Some(claim(find(SECRETS, &account.namespace, "Secret")?)),
        ("", "Node") => claims.node = Some(claim(find(NODES, "", "Node")?)),
        (group, kind) => {
            let why = format!("cannot bind token to object of type {group}/{version}, Kind={kind}");
            return Err(Status::bad_request(why));
        }
    }
    Ok(())
}

fn claim(object: &Object) -> ObjectClaim {
    ObjectClaim { name: object.key.name.to_string(), uid: object.meta.uid.to_string() }
}
