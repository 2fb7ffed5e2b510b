//! Who is whom in a cluster, by mode, entries and ConfigMap.

use object::{Draft, Key, Resource, Snapshot, body};
use serde_json::{Value, json};

use super::{Door, grants};
use crate::eks::{AuthenticationMode, ClusterRecord};
use crate::sigv4::TokenError;
use crate::stories::{ACCOUNT, Account};

fn cluster(mode: AuthenticationMode) -> ClusterRecord {
    let text = include_str!("../../testdata/sts/cluster.json")
        .replace("NAME", "shop")
        .replace("ISSUER", "https://i");
    let mut record: ClusterRecord = serde_json::from_str(&text).expect("a cluster");
    record.shown.access_config.authentication_mode = mode;
    record
}

/// A cluster's store with an aws-auth ConfigMap.
fn objects() -> Snapshot {
    let data = json!({
        "mapRoles": "- rolearn: arn:aws:iam::111122223333:role/node\n  username: system:node:{{EC2PrivateDNSName}}\n  groups: [system:bootstrappers, system:nodes]\n- rolearn: arn:aws:iam::111122223333:role/dev\n  username: mapped:{{SessionName}}\n  groups: [mapped]\n",
        "mapUsers": "- userarn: arn:aws:iam::111122223333:user/alice\n  username: alice\n  groups: [system:masters]\n",
    });
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "aws-auth", "namespace": "kube-system"}, "data": data});
    let key = Key::new(Resource::new("configmaps"), "kube-system", "aws-auth");
    let draft = Draft::read(key, Box::default(), body::encode(&object)).expect("a ConfigMap");
    let mut objects = Snapshot::default();
    objects.put(draft.at(1));
    objects
}

struct House {
    account: Account,
    objects: Snapshot,
}

impl House {
    fn new() -> Self {
        let mut account = Account::new();
        account.change(|changes| changes.create("", "shop", &cluster(AuthenticationMode::ApiAndConfigMap)));
        account.tell(include_str!("../../testdata/login.yaml"));
        Self { account, objects: objects() }
    }

    /// `name [groups]`, or why not.
    fn who(&self, mode: AuthenticationMode, visitor: &str) -> String {
        match self.enter(mode, visitor) {
            Ok(user) => {
                let groups: Vec<&str> = user.groups.iter().map(|group| &**group).collect();
                format!("{} {groups:?}", user.name)
            }
            Err(why) => why,
        }
    }

    fn enter(&self, mode: AuthenticationMode, visitor: &str) -> Result<plan::User, String> {
        let cluster = cluster(mode);
        let dns_name_of =
            |id: &str| (id == "i-0123456789abcdef0").then(|| "ip-10-0-0-1.ec2.internal".to_owned());
        let door = Door {
            account: ACCOUNT,
            region: "us-east-1",
            now: self.account.now,
            state: &self.account.state,
            cluster: &cluster,
            objects: &self.objects,
            dns_name_of: &dns_name_of,
        };
        assert_eq!(door.login("eyJhbGciOi"), Err(TokenError::NotOurs));
        door.user(&self.account.caller(visitor).expect("a caller"))
    }
}

#[test]
fn a_principal_is_whom_the_mode_says() {
    use AuthenticationMode::{Api, ApiAndConfigMap, ConfigMap};
    let house = House::new();
    let unmapped = |arn: &str| format!("ARN is not mapped: arn:aws:iam::111122223333:{arn}");
    for (mode, visitor, wanted) in [
        // Who made the cluster is its administrator, unseen, as long as no entries are read.
        (ConfigMap, "admin", r#"kubernetes-admin ["system:masters", "system:authenticated"]"#.to_owned()),
        (ApiAndConfigMap, "admin", unmapped("user/admin")),
        (ConfigMap, "alice", r#"alice ["system:masters", "system:authenticated"]"#.to_owned()),
        (ApiAndConfigMap, "alice", r#"alice ["system:masters", "system:authenticated"]"#.to_owned()),
        (Api, "alice", unmapped("user/alice")),
        // The entry of a role with a path wins over the ConfigMap, which knows no paths.
        (ConfigMap, "dev", r#"mapped:jo-example.com ["mapped", "system:authenticated"]"#.to_owned()),
        (
            ApiAndConfigMap,
            "dev",
            r#"arn:aws:sts::111122223333:assumed-role/dev/jo-example.com ["team", "system:authenticated"]"#.to_owned(),
        ),
        (
            Api,
            "dev",
            r#"arn:aws:sts::111122223333:assumed-role/dev/jo-example.com ["team", "system:authenticated"]"#.to_owned(),
        ),
        (
            ConfigMap,
            "node",
            r#"system:node:ip-10-0-0-1.ec2.internal ["system:bootstrappers", "system:nodes", "system:authenticated"]"#
                .to_owned(),
        ),
        (
            Api,
            "node",
            r#"system:node:ip-10-0-0-1.ec2.internal ["system:nodes", "system:authenticated"]"#.to_owned(),
        ),
        (Api, "impostor", "session \"jo\" is no instance whose name is known".to_owned()),
        (Api, "bob", "bobby [\"system:authenticated\"]".to_owned()),
        (ConfigMap, "bob", unmapped("user/ops/bob")),
    ] {
        assert_eq!(house.who(mode, visitor), wanted, "{mode:?} {visitor}");
    }
}

#[test]
fn a_user_tells_which_principal_it_is() {
    let house = House::new();
    let user = house.enter(AuthenticationMode::Api, "dev").expect("a user");
    let extra = |key: &str| user.extra[key].first().map(|value| value.to_string()).unwrap_or_default();
    let id = extra("principalId");
    assert!(id.starts_with("AROA") && id.len() == 21, "{id}");
    assert_eq!(&*user.uid, format!("aws-iam-authenticator:{ACCOUNT}:{id}"));
    assert_eq!(extra("arn"), "arn:aws:sts::111122223333:assumed-role/dev/jo@example.com");
    assert_eq!(extra("canonicalArn"), "arn:aws:iam::111122223333:role/dev");
    assert_eq!(extra("sessionName"), "jo@example.com");
    assert_eq!(extra("sigs.k8s.io/aws-iam-authenticator/principalId"), id);
    assert!(extra("accessKeyId").starts_with("ASIA"));
}

#[test]
fn who_is_gone_does_not_come_in() {
    let mut house = House::new();
    let bob = house.account.caller("bob").expect("bob");
    house.account.tell("- {call: DeleteUser, with: {UserName: bob}}\n- {call: CreateUser, with: {UserName: bob, Path: /ops/}}\n");
    let cluster = cluster(AuthenticationMode::Api);
    let door = Door {
        account: ACCOUNT,
        region: "us-east-1",
        now: house.account.now,
        state: &house.account.state,
        cluster: &cluster,
        objects: &house.objects,
        dns_name_of: &|_| None,
    };
    let wanted = "arn:aws:iam::111122223333:user/ops/bob is no principal of the account any more";
    assert_eq!(door.user(&bob), Err(wanted.to_owned()));
}

#[test]
fn entries_give_policies_where_they_are_read() {
    let house = House::new();
    let given = |mode| -> Value {
        let grants = grants(&house.account.state, &cluster(mode));
        grants.into_iter().map(|one| json!([one.principal, one.policy, one.namespaces])).collect()
    };
    let wanted = json!([
        ["arn:aws:iam::111122223333:role/dev", "AmazonEKSEditPolicy", ["dev-*"]],
        ["arn:aws:iam::111122223333:role/dev", "AmazonEKSViewPolicy", null],
    ]);
    assert_eq!(given(AuthenticationMode::Api), wanted);
    assert_eq!(given(AuthenticationMode::ConfigMap), json!([]));
}

#[test]
fn who_is_made_again_under_the_same_arn_is_another() {
    use AuthenticationMode::{Api, ApiAndConfigMap};
    let mut house = House::new();
    assert!(house.who(Api, "dev").contains("\"team\""), "{}", house.who(Api, "dev"));
    let held = |house: &House| grants(&house.account.state, &cluster(Api)).len();
    let before = held(&house);
    house.account.tell(
        r#"
- {call: DeleteRole, with: {RoleName: dev}}
- {call: CreateRole, with: {RoleName: dev, Path: /team/, AssumeRolePolicyDocument: '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"111122223333"},"Action":"sts:AssumeRole"}]}'}}
- {call: AssumeRole, with: {RoleArn: 'arn:aws:iam::111122223333:role/team/dev', RoleSessionName: jo@example.com}, keep: successor}
"#,
    );
    // The old one's session is nobody's, and the entry is not the new one's; the ConfigMap knows ARNs only.
    assert!(house.who(Api, "dev").ends_with("is no principal of the account any more"));
    assert_eq!(house.who(Api, "successor"), "ARN is not mapped: arn:aws:iam::111122223333:role/dev");
    assert!(house.who(ApiAndConfigMap, "successor").starts_with("mapped:jo-example.com [\"mapped\""));
    assert_eq!(held(&house), before - 2);
    house.account.tell(
        r#"
- {call: DeleteAccessEntry, with: {clusterName: shop, principalArn: 'arn:aws:iam::111122223333:role/team/dev'}}
- {call: CreateAccessEntry, with: {clusterName: shop, principalArn: 'arn:aws:iam::111122223333:role/team/dev', kubernetesGroups: [team]}}
- {call: CreateAccessEntry, with: {clusterName: shop, principalArn: 'arn:aws:iam::111122223333:role/team/gone'}, fails: 'InvalidParameterException: The specified principalArn is invalid: invalid principal.'}
"#,
    );
    assert!(house.who(Api, "successor").contains("\"team\""));
}
