//! What the Pod Identity agent answers to the SDKs in the pods of a node: `GET http://169.254.170.23/v1/credentials`, with the pod's token as
//! the Authorization header. Statuses and words are those of <https://github.com/aws/eks-pod-identity-agent>.

use object::Snapshot;
use serde_json::{Value, json};

use crate::credentials::Session;
use crate::ec2::record::Instance;
use crate::eks::Addon;
use crate::iam::record::{InstanceProfile, Role, named};
use crate::sts::jwt::Token;
use crate::{Caller, Fault, Ids, World, model, state};

/// The add-on without which a cluster's nodes have no agent.
pub const ADDON: &str = "eks-pod-identity-agent";
/// Where an agent listens.
pub const HOST: &str = "169.254.170.23";
const PATH: &str = "/v1/credentials";

/// Whose agent is asked: a node, which is known by its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The cluster that it is a node of.
    pub cluster: String,
    /// The instance that it is, or a node of the site's own, which needs no role.
    pub machine: String,
}

/// What a pod asks.
pub struct Asked<'a> {
    pub path: &'a str,
    /// The Host header.
    pub host: &'a str,
    /// The Authorization header: the token and nothing else.
    pub authorization: &'a str,
}

/// What it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub status: u16,
    pub is_json: bool,
    pub body: String,
}

impl Node {
    /// The node that an instance is, if it is one.
    pub fn of(instance: &Instance) -> Option<Self> {
        let (cluster, machine) = (instance.joined.clone()?, instance.instance_id.clone());
        Some(Self { cluster, machine })
    }

    /// Whether its cluster has the agent.
    pub fn has_agent(&self, state: &Snapshot) -> bool {
        state::get::<Addon>(state, &self.cluster, ADDON).is_some()
    }

    /// The agent calls with the keys of its node's role. A node of the site's own needs none: Ekso itself calls for it.
    fn caller(&self, world: &World) -> Option<Caller> {
        let state = world.state;
        let instance = self.instance(state)?;
        if instance.site_node.is_some() {
            let account = world.account.to_owned();
            let arn = format!("arn:aws:iam::{account}:root");
            return Some(Caller { arn, user_id: account, ..Caller::default() });
        }
        let (arn, id) = instance.profile?;
        let profile = named::<InstanceProfile>(state, arn.rsplit('/').next()?)?.record;
        let role = named::<Role>(state, &profile.role.filter(|_| profile.common.id == id)?)?;
        let common = role.record.common;
        let session = Session {
            arn: format!("arn:aws:sts::{}:assumed-role/{}/{}", world.account, common.name, self.machine),
            user_id: format!("{}:{}", common.id, self.machine),
            issued: world.now,
            role_arn: Some(common.arn),
            ..Session::default()
        };
        let (arn, user_id) = (session.arn.clone(), session.user_id.clone());
        Some(Caller { arn, user_id, session: Some(Box::new(session)), ..Caller::default() })
    }

    fn instance(&self, state: &Snapshot) -> Option<Instance> {
        Some(state::get::<Instance>(state, "", &self.machine)?.record)
    }
}

/// The answer of a node's agent: the keys of the pod's role as an SDK reads them, or why there are none.
pub fn answer(world: &World, ids: &mut Ids, node: &Node, asked: &Asked) -> Told {
    if asked.path != PATH {
        return refusal(404, "404 page not found");
    }
    if let Some(told) = refuse(world, asked) {
        return told;
    }
    let Some(caller) = node.caller(world) else {
        return refusal(
            500,
            &format!("failed to refresh cached credentials: node {} has no role", node.machine),
        );
    };
    let input = json!({"clusterName": node.cluster, "token": asked.authorization});
    match crate::call(world, ids, &caller, "eks-auth", "AssumeRoleForPodIdentity", &input) {
        Ok(answer) => Told { status: 200, is_json: true, body: document(world, &answer.output).to_string() },
        Err(fault) => of_service(&fault, &ids.uuid()),
    }
}

/// What the agent looks at itself, before it asks the service.
fn refuse(world: &World, asked: &Asked) -> Option<Told> {
    // As where a name was rebound to the agent's address.
    let host = asked.host.strip_suffix(":80").unwrap_or(asked.host);
    if host != HOST {
        let text = format!(
            "Access Denied. Called agent through invalid address, please use either [{HOST} fd00:ec2::23] address not {host}"
        );
        return Some(refusal(403, &text));
    }
    if asked.authorization.is_empty() {
        return Some(refusal(400, "Service account token cannot be empty"));
    }
    let Some(token) = Token::read(asked.authorization) else {
        return Some(refusal(400, "Service account token cannot be parsed: token is malformed"));
    };
    let wrong = match () {
        () if token.claims.expired(world.now).is_some() => "token is expired",
        () if token.claims.is_early(world.now) => "token is not valid yet",
        () => return None,
    };
    Some(refusal(400, &format!("Service account token failed basic claim validations: {wrong}")))
}

fn document(world: &World, output: &Value) -> Value {
    let given = &output["credentials"];
    json!({
        "AccessKeyId": given["accessKeyId"], "SecretAccessKey": given["secretAccessKey"],
        "Token": given["sessionToken"], "AccountId": world.account, "Expiration": given["expiration"],
    })
}

fn of_service(fault: &Fault, request_id: &str) -> Told {
    let model = model::of("eks-auth");
    // A denial has another name in each protocol; this one's has the suffix.
    let code = if fault.code == "AccessDenied" { "AccessDeniedException" } else { &fault.code };
    let status = model.and_then(|model| model.error(code)).map_or(400, |(status, _)| status);
    let side = if status < 500 { "client" } else { "server" };
    refusal(status, &format!("[{request_id}]: ({code}): {}, fault: {side}", fault.message))
}

fn refusal(status: u16, text: &str) -> Told {
    Told { status, is_json: false, body: format!("{text}\n") }
}
