//! Keys for pods: what the agent on each node asks for, with a pod's token in its hand.
//! <https://docs.aws.amazon.com/eks/latest/APIReference/API_auth_AssumeRoleForPodIdentity.html>

pub mod agent;

use serde_json::{Value, json};

use crate::eks::{ClusterRecord, PodIdentityAssociation};
use crate::iam::record::{Role, role_of_arn};
use crate::policy::{Policies, Principal, Request, decide};
use crate::service::{Operation, Service, Subject};
use crate::sts::jwt::{self, Claims, Token};
use crate::sts::session::{self, Wanted};
use crate::{Answer, Context, Fault, authorize, state};

/// Whom a role must trust.
const PRINCIPAL: &str = "pods.eks.amazonaws.com";
/// Whom a pod's token must be for.
const AUDIENCE: &str = "pods.eks.amazonaws.com";
/// As AWS gives them, unless the role's own limit is less.
const SECONDS: i64 = 21_600;
/// Limits of a session's name.
const NAME: usize = 64;

pub const SERVICE: Service = Service {
    signing_name: "eks-auth",
    action_prefix: "eks-auth",
    operations: &[Operation {
        name: "AssumeRoleForPodIdentity",
        subject: |context, input| {
            let (region, account) = (context.region, context.account);
            let cluster = input["clusterName"].as_str().unwrap_or_default();
            Subject::of(format!("arn:aws:eks:{region}:{account}:cluster/{cluster}"))
        },
        run: assume_role,
    }],
};

/// The caller is the node; whose keys they are, the pod's token says.
fn assume_role(context: &mut Context, input: &Value) -> Result<Answer, Fault> {
    let name = input["clusterName"].as_str().unwrap_or_default();
    let cluster = state::get::<ClusterRecord>(context.state, "", name).ok_or_else(|| {
        Fault::new("ResourceNotFoundException", format!("No cluster found for name: {name}."))
    })?;
    let cluster = cluster.record.shown;
    let issuer = cluster.identity.map(|identity| identity.oidc.issuer).unwrap_or_default();
    let token = Token::read(input["token"].as_str().unwrap_or_default());
    let token = token.ok_or_else(|| invalid("The token is not a valid JWT"))?;
    check(context, &token, &issuer)?;
    let claims = &token.claims;
    let pod = &claims.kubernetes;
    let association = state::list::<PodIdentityAssociation>(context.state, name).into_iter().find(|kept| {
        kept.record.namespace == pod.namespace && kept.record.service_account == pod.serviceaccount.name
    });
    let association = association.ok_or_else(|| {
        let account = format!("{}/{}", pod.namespace, pod.serviceaccount.name);
        let message = format!("No association found for the service account {account} in the cluster {name}");
        Fault::new("ResourceNotFoundException", message)
    })?;
    let association = association.record;
    let tags = if association.disable_session_tags { Vec::new() } else { tags(&cluster.arn, name, claims) };
    let denied = || {
        let message = format!(
            "Role {} may not be assumed: its trust policy must allow {PRINCIPAL} to sts:AssumeRole and sts:TagSession",
            association.role_arn
        );
        Fault::new("AccessDeniedException", message)
    };
    let role = role_of_arn(context.state, &association.role_arn).ok_or_else(denied)?.record;
    if !is_trusted(context, &role, &tags)? {
        return Err(denied());
    }
    let mut session_name = format!("eks-{name}-{}-{}", pod.pod.name, context.ids.uuid());
    session_name.truncate(NAME);
    let wanted = Wanted {
        name: session_name,
        seconds: SECONDS.min(role.max_session_seconds.max(3_600)),
        tags: tags.clone(),
        transitive_tag_keys: tags.into_iter().map(|(key, _)| key).collect(),
        ..Wanted::default()
    };
    let begun = session::begin(context, &role, wanted)?;
    let (credentials, user) = (&begun["Credentials"], &begun["AssumedRoleUser"]);
    Ok(Answer::read(json!({
        "subject": {"namespace": pod.namespace, "serviceAccount": pod.serviceaccount.name},
        "audience": AUDIENCE,
        "podIdentityAssociation": {
            "associationArn": association.association_arn, "associationId": association.association_id,
        },
        "assumedRoleUser": {"arn": user["Arn"], "assumeRoleId": user["AssumedRoleId"]},
        "credentials": {
            "sessionToken": credentials["SessionToken"], "secretAccessKey": credentials["SecretAccessKey"],
            "accessKeyId": credentials["AccessKeyId"], "expiration": credentials["Expiration"],
        },
    })))
}

/// Is it a token of a pod of this cluster, for this purpose, in time?
fn check(context: &Context, token: &Token, issuer: &str) -> Result<(), Fault> {
    if token.claims.iss != issuer {
        return Err(invalid("The token is not of this cluster"));
    }
    let keys = jwt::keys_of(context.state, issuer);
    if keys.and_then(|keys| token.is_signed(&keys)) != Some(true) {
        return Err(invalid("The signature of the token is invalid"));
    }
    if token.claims.expired(context.now).is_some() {
        return Err(Fault::new("ExpiredTokenException", "The token has expired"));
    }
    if token.claims.is_early(context.now) {
        return Err(invalid("The token is not valid yet"));
    }
    if !token.claims.audiences().contains(&AUDIENCE) {
        return Err(invalid("The token is for another audience"));
    }
    if token.claims.kubernetes.pod.name.is_empty() {
        return Err(invalid("The token is not bound to a pod"));
    }
    Ok(())
}

/// <https://docs.aws.amazon.com/eks/latest/userguide/pod-id-abac.html>, in the order of their keys.
fn tags(cluster_arn: &str, cluster: &str, claims: &Claims) -> Vec<(String, String)> {
    let pod = &claims.kubernetes;
    let tags = [
        ("eks-cluster-arn", cluster_arn),
        ("eks-cluster-name", cluster),
        ("kubernetes-namespace", &*pod.namespace),
        ("kubernetes-pod-name", &*pod.pod.name),
        ("kubernetes-pod-uid", &*pod.pod.uid),
        ("kubernetes-service-account", &*pod.serviceaccount.name),
    ];
    tags.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

fn is_trusted(context: &Context, role: &Role, tags: &[(String, String)]) -> Result<bool, Fault> {
    let trust = session::trust(role)?;
    let request_tag =
        |(key, value): &(String, String)| (format!("aws:RequestTag/{key}"), vec![value.clone()]);
    let mut of_call: Vec<_> = tags.iter().map(request_tag).collect();
    of_call.push(("aws:TagKeys".to_owned(), tags.iter().map(|(key, _)| key.clone()).collect()));
    of_call.push(("aws:SourceAccount".to_owned(), vec![context.account.to_owned()]));
    let source = tags.iter().find(|(key, _)| key == "eks-cluster-arn").map(|(_, arn)| arn.clone());
    of_call.push(("aws:SourceArn".to_owned(), source.into_iter().collect()));
    let keys = authorize::keys(context, &of_call);
    let principal = Principal::service(PRINCIPAL);
    let may = |action| {
        let request = Request { principal: &principal, action, resource: &role.common.arn, keys: &keys };
        decide(&Policies { trust: Some(&trust), ..Policies::default() }, &request).is_allowed()
    };
    Ok(may("sts:AssumeRole") && (tags.is_empty() || may("sts:TagSession")))
}

fn invalid(message: &str) -> Fault {
    Fault::new("InvalidTokenException", message)
}
