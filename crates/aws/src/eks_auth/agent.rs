//! What the Pod Identity agent on a node answers to the SDKs in its pods: `GET http://169.254.170.23/v1/credentials`, with the pod's token
//! as the Authorization header. <https://github.com/aws/eks-pod-identity-agent>

use serde_json::{Value, json};

use crate::eks::ClusterRecord;
use crate::sts::jwt::Token;
use crate::{Caller, Context, Fault, Ids, World, state};

/// The keys of a pod's role as an SDK reads them, or why there are none. The agent acts for Ekso itself: whose keys they are, the token says.
pub fn credentials(world: &World, ids: &mut Ids, authorization: &str) -> Result<Value, Fault> {
    let token = Token::read(authorization).ok_or_else(|| {
        Fault::new("InvalidTokenException", "The Authorization header is not a pod's token")
    })?;
    let clusters = state::list::<ClusterRecord>(world.state, "").into_iter().map(|kept| kept.record.shown);
    let is_meant = |issuer: &str| issuer == token.claims.iss;
    let mut issued =
        clusters.filter(|one| one.identity.as_ref().is_some_and(|own| is_meant(&own.oidc.issuer)));
    let cluster = issued
        .next()
        .ok_or_else(|| Fault::new("InvalidTokenException", "The token is of no cluster of this account"))?;
    let World { account, region, now, state } = *world;
    let arn = format!("arn:aws:iam::{account}:root");
    let caller = Caller { arn, user_id: account.to_owned(), ..Caller::default() };
    let mut context = Context { account, region, now, caller: &caller, state, ids };
    let input = json!({"clusterName": cluster.name, "token": authorization});
    let given = super::assume_role(&mut context, &input)?.output["credentials"].take();
    Ok(json!({
        "AccessKeyId": given["accessKeyId"], "SecretAccessKey": given["secretAccessKey"],
        "Token": given["sessionToken"], "AccountId": account, "Expiration": given["expiration"],
    }))
}
