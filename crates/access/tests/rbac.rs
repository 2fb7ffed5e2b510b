//! Roles, bindings, their defaults and the chain of authorizers.

mod world;

use access::rbac::{Index, check_write};
use access::{ImpersonationMode, View, authorize, bootstrap, forbidden, impersonation, rbac};
use object::{Key, Snapshot};
use plan::{Attributes, Write};
use proptest::prelude::*;
use serde_json::{Value, json};
use world::{attributes, put, snapshot, user};

fn role(kind: &str, namespace: &str, name: &str, rules: Value) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
        "metadata": {"name": name, "namespace": namespace}, "rules": rules})
}

fn binding(namespace: &str, name: &str, role: &str, subjects: Value) -> Value {
    let kind = if namespace.is_empty() { "ClusterRoleBinding" } else { "RoleBinding" };
    let (role_kind, role) = role.split_once('/').expect("kind/name");
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role},
        "subjects": subjects})
}

fn people() -> Snapshot {
    snapshot(&[
        role(
            "ClusterRole",
            "",
            "reader",
            json!([{"apiGroups": [""], "resources": ["pods", "*/scale"], "verbs": ["get", "list"]}]),
        ),
        role(
            "ClusterRole",
            "",
            "health",
            json!([{"nonResourceURLs": ["/healthz/*", "/version"], "verbs": ["get"]}]),
        ),
        role(
            "Role",
            "a",
            "editor",
            json!([
                {"apiGroups": ["", "apps"], "resources": ["*"], "verbs": ["*"]},
                {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["one"], "verbs": ["get"]},
            ]),
        ),
        role(
            "Role",
            "b",
            "one",
            json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["one"], "verbs": ["get"]}]),
        ),
        binding("", "all-read", "ClusterRole/reader", json!([{"kind": "Group", "name": "devs"}])),
        binding("", "probes", "ClusterRole/health", json!([{"kind": "User", "name": "carol"}])),
        binding("", "nothing", "ClusterRole/gone", json!([{"kind": "User", "name": "dave"}])),
        binding("a", "edit", "Role/editor", json!([{"kind": "User", "name": "bob"}])),
        binding(
            "a",
            "builders",
            "ClusterRole/reader",
            json!([{"kind": "ServiceAccount", "name": "build", "namespace": "ci"}]),
        ),
        binding("b", "one", "Role/one", json!([{"kind": "User", "name": "erin"}])),
        binding("b", "gone", "Role/absent", json!([{"kind": "User", "name": "dave"}])),
    ])
}

/// A review may ask for a resource with a slash in its name, as that of the Prometheus Operator does.
#[test]
fn a_rule_names_resources_with_their_subresources() {
    for (held, resource, subresource, allowed) in [
        ("pods", "pods", "", true),
        ("pods", "pods", "log", false),
        ("pods/log", "pods", "log", true),
        ("pods/log", "pods/log", "", true),
        ("pods/log", "pods", "", false),
        ("pods/log", "pods", "logs", false),
        ("pods/log", "pod", "s/log", false),
        ("*/log", "pods", "log", true),
        ("*/log", "pods/log", "", false),
        ("*", "pods/log", "", true),
        ("*", "pods", "log", true),
    ] {
        let rule = rbac::Rule {
            api_groups: vec!["".into()],
            resources: vec![held.into()],
            verbs: vec!["get".into()],
            ..Default::default()
        };
        let asked = Attributes { verb: "get", resource, subresource, name: "x", ..Default::default() };
        assert_eq!(rule.allows(&asked), allowed, "{held}: {resource} {subresource}");
    }
}

#[test]
fn requests_are_allowed_by_the_binding_that_says_so() {
    let snapshot = people();
    let index = Index::of(&snapshot);
    let view = View::new(&snapshot, &index);
    for (who, what, expected) in [
        (
            "alice|devs",
            "list pods a/",
            r#"yes RBAC: allowed by ClusterRoleBinding "all-read" of ClusterRole "reader" to Group "devs""#,
        ),
        (
            "alice|devs",
            "list pods /",
            r#"yes RBAC: allowed by ClusterRoleBinding "all-read" of ClusterRole "reader" to Group "devs""#,
        ),
        ("alice|devs", "delete pods a/x", "no "),
        (
            "alice|devs",
            "get deployments/scale a/x",
            r#"yes RBAC: allowed by ClusterRoleBinding "all-read" of ClusterRole "reader" to Group "devs""#,
        ),
        ("alice|devs", "get pods/log a/x", "no "),
        (
            "bob",
            "create deployments.apps a/",
            r#"yes RBAC: allowed by RoleBinding "edit/a" of Role "editor" to User "bob""#,
        ),
        (
            "bob",
            "get pods/log a/x",
            r#"yes RBAC: allowed by RoleBinding "edit/a" of Role "editor" to User "bob""#,
        ),
        ("bob", "create deployments.apps b/", "no "),
        ("bob", "list pods /", "no "),
        (
            "system:serviceaccount:ci:build",
            "get pods a/x",
            r#"yes RBAC: allowed by RoleBinding "builders/a" of ClusterRole "reader" to ServiceAccount "build/ci""#,
        ),
        ("system:serviceaccount:ci:other", "get pods a/x", "no "),
        (
            "carol",
            "get /healthz/etcd",
            r#"yes RBAC: allowed by ClusterRoleBinding "probes" of ClusterRole "health" to User "carol""#,
        ),
        ("carol", "get /healthz", "no "),
        ("carol", "post /version", "no "),
        (
            "erin",
            "get secrets b/one",
            r#"yes RBAC: allowed by RoleBinding "one/b" of Role "one" to User "erin""#,
        ),
        ("erin", "get secrets b/two", "no "),
        ("erin", "list secrets b/", "no "),
        ("dave", "get pods a/x", r#"no RBAC: clusterrole.rbac.authorization.k8s.io "gone" not found"#),
        (
            "dave",
            "get pods b/x",
            r#"no RBAC: [clusterrole.rbac.authorization.k8s.io "gone" not found, role.rbac.authorization.k8s.io "absent" not found]"#,
        ),
        ("root|system:masters", "delete nodes /n1", "yes "),
    ] {
        let decision = authorize(&view, &user(who), &attributes(what));
        let answer = format!("{} {}", if decision.allowed { "yes" } else { "no" }, decision.reason);
        assert_eq!(answer, expected, "{who}: {what}");
    }
}

#[test]
fn a_refusal_says_what_upstream_says() {
    for (what, reason, expected) in [
        (
            "list deployments.apps a/",
            "",
            r#"deployments.apps is forbidden: User "alice" cannot list resource "deployments" in API group "apps" in the namespace "a""#,
        ),
        (
            "get pods/log a/x",
            "",
            r#"pods "x" is forbidden: User "alice" cannot get resource "pods/log" in API group "" in the namespace "a""#,
        ),
        (
            "list nodes /",
            "why",
            r#"nodes is forbidden: User "alice" cannot list resource "nodes" in API group "" at the cluster scope: why"#,
        ),
        ("get /metrics", "", r#"forbidden: User "alice" cannot get path "/metrics""#),
    ] {
        let status = forbidden(&user("alice"), &attributes(what), reason);
        assert_eq!((status.code, status.message.as_str()), (403, expected));
    }
}

#[test]
fn nobody_grants_what_they_do_not_hold() {
    let mut snapshot = people();
    put(
        &mut snapshot,
        &role(
            "ClusterRole",
            "",
            "binder",
            json!([
                {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "resourceNames": ["gone", "health"], "verbs": ["bind"]},
            ]),
        ),
    );
    put(
        &mut snapshot,
        &binding("", "binder", "ClusterRole/binder", json!([{"kind": "User", "name": "frank"}])),
    );
    let index = Index::of(&snapshot);
    let view = View::new(&snapshot, &index);
    let pods = |verbs: Value| {
        role("Role", "a", "new", json!([{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]))
    };
    let aggregating = || {
        let mut object = role("ClusterRole", "", "new", json!([]));
        object["aggregationRule"] = json!({"clusterRoleSelectors": [{}]});
        object
    };
    let missing = |group: &str, name: &str, who: &str, groups: &str, rules: &str| {
        format!(
            "{group} {name:?} is forbidden: user {who:?} (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n{rules}"
        )
    };
    for (who, object, expected) in [
        ("alice|devs", pods(json!(["get"])), Ok(())),
        ("bob", pods(json!(["*"])), Ok(())),
        ("root|system:masters", pods(json!(["*"])), Ok(())),
        ("alice|devs,ops", pods(json!(["get", "update", "delete"])), Err(missing("roles.rbac.authorization.k8s.io", "new", "alice", "\"devs\" \"ops\"", r#"{APIGroups:[""], Resources:["pods"], Verbs:["update" "delete"]}"#))),
        ("alice|devs", binding("a", "new", "ClusterRole/reader", json!([])), Ok(())),
        ("frank", binding("", "new", "ClusterRole/health", json!([])), Ok(())),
        ("bob", binding("", "new", "ClusterRole/health", json!([])), Err(missing("clusterrolebindings.rbac.authorization.k8s.io", "new", "bob", "", "{NonResourceURLs:[\"/healthz/*\"], Verbs:[\"get\"]}\n{NonResourceURLs:[\"/version\"], Verbs:[\"get\"]}"))),
        ("bob", binding("a", "new", "Role/absent", json!([])), Err("rolebindings.rbac.authorization.k8s.io \"absent\" not found".to_owned())),
        ("bob", aggregating(), Err("clusterroles.rbac.authorization.k8s.io \"new\" is forbidden: must have cluster-admin privileges to use the aggregationRule".to_owned())),
    ] {
        let key = world::object(&object, 1).key;
        let answer = check_write(&view, &user(who), &key, &object, None).map_err(|status| status.message);
        assert_eq!(answer, expected, "{who}: {object}");
    }
}

/// A label alone can gather a role's rules into another role, whose holders then have them.
#[test]
fn a_role_is_changed_by_who_holds_it_and_collected_by_anybody() {
    let snapshot = people();
    let index = Index::of(&snapshot);
    let view = View::new(&snapshot, &index);
    let mut old =
        role("ClusterRole", "", "all", json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]));
    old["metadata"]["finalizers"] = json!(["a.example.com/b"]);
    let written = |who: &str, old: &Value, change: &dyn Fn(&mut Value)| {
        let mut new = old.clone();
        change(&mut new);
        let key = Key::new(kinds::CLUSTER_ROLES, "", "all");
        check_write(&view, &user(who), &key, &new, Some(old)).is_ok()
    };
    let labelled = |role: &mut Value| {
        role["metadata"]["labels"] = json!({"rbac.authorization.k8s.io/aggregate-to-view": "true"});
    };
    assert!(!written("alice", &old, &labelled));
    assert!(written("root|system:masters", &old, &labelled));
    assert!(written("alice", &old, &|role| role["metadata"]["finalizers"] = json!([])));
    assert!(
        !written("alice", &old, &|role| role["rules"] = json!([{"verbs": 7}])),
        "rules that cannot be read"
    );
    let mut aggregated = role("ClusterRole", "", "all", json!([]));
    aggregated["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]});
    assert!(!written("alice", &aggregated, &labelled));
    assert!(!written("alice", &aggregated, &|role| role["aggregationRule"] = Value::Null));
    let old = binding("", "b", "ClusterRole/health", json!([]));
    let key = Key::new(kinds::CLUSTER_ROLE_BINDINGS, "", "b");
    for (field, value, is_allowed) in
        [("labels", json!({"a": "b"}), false), ("finalizers", json!(["example.com/f"]), true)]
    {
        let mut new = old.clone();
        new["metadata"][field] = value;
        let answer = check_write(&view, &user("bob"), &key, &new, Some(&old));
        assert_eq!(answer.is_ok(), is_allowed, "a binding's {field}: {answer:?}");
    }
}

#[test]
fn impersonation_needs_a_right_to_each_part() {
    let snapshot = snapshot(&[
        role(
            "ClusterRole",
            "",
            "imp",
            json!([
                {"apiGroups": [""], "resources": ["users"], "resourceNames": ["bob"], "verbs": ["impersonate"]},
                {"apiGroups": [""], "resources": ["serviceaccounts"], "verbs": ["impersonate"]},
            ]),
        ),
        binding("", "imp", "ClusterRole/imp", json!([{"kind": "User", "name": "alice"}])),
    ]);
    let index = Index::of(&snapshot);
    let view = View::new(&snapshot, &index);
    let become_ = |who: &str| {
        impersonation(&view, &user("alice"), user(who), &attributes("get pods a/b"), None, &|_, _| {})
            .map(|(user, _)| user.groups.iter().map(|group| group.to_string()).collect::<Vec<_>>().join(","))
            .map_err(|status| status.message)
    };
    assert_eq!(become_("bob").as_deref(), Ok("system:authenticated"));
    assert_eq!(
        become_("system:serviceaccount:ci:build").as_deref(),
        Ok("system:serviceaccounts,system:serviceaccounts:ci,system:authenticated")
    );
    let refused = r#"groups "system:masters" is forbidden: User "alice" cannot impersonate resource "groups" in API group "" at the cluster scope"#;
    assert_eq!(become_("bob|system:masters"), Err(refused.to_owned()));
    // Who was once allowed to be somebody in everything is told what of everything is missing.
    let mut with_uid = user("bob");
    with_uid.uid = "u".into();
    let told = |last| {
        let asked = impersonation(
            &view,
            &user("alice"),
            with_uid.clone(),
            &attributes("get pods a/b"),
            last,
            &|_, _| {},
        );
        asked.map_err(|status| status.message).expect_err("no right to a uid")
    };
    let uid = r#"uids.authentication.k8s.io "u" is forbidden: User "alice" cannot impersonate resource "uids" in API group "authentication.k8s.io" at the cluster scope"#;
    assert_eq!(told(Some(ImpersonationMode::Legacy)), uid);
    let constrained = r#"pods "b" is forbidden: User "alice" cannot impersonate-on:user-info:get resource "pods" in API group "" in the namespace "a""#;
    assert_eq!(told(None), constrained);
}

/// Does what a gate would do with the writes of a reconciliation.
#[test]
fn impersonation_may_be_for_some_requests_only() {
    let authentication = |resource: &str, names: &[&str], verb: &str| json!({"apiGroups": ["authentication.k8s.io"], "resources": [resource], "resourceNames": names, "verbs": [verb]});
    let snapshot = snapshot(&[
        role(
            "ClusterRole",
            "",
            "who",
            json!([
                authentication("users", &["jane"], "impersonate:user-info"),
                authentication("groups", &["devs", "system:masters"], "impersonate:user-info"),
                authentication("serviceaccounts", &["builder"], "impersonate:serviceaccount"),
                authentication("nodes", &[], "impersonate:associated-node"),
                authentication("nodes", &["n9"], "impersonate:arbitrary-node"),
            ]),
        ),
        role(
            "ClusterRole",
            "",
            "what",
            json!([{"apiGroups": [""], "resources": ["pods"], "verbs": [
                "impersonate-on:user-info:list", "impersonate-on:serviceaccount:list",
                "impersonate-on:associated-node:list", "impersonate-on:arbitrary-node:get",
            ]}]),
        ),
        binding(
            "",
            "who",
            "ClusterRole/who",
            json!([{"kind": "User", "name": "system:serviceaccount:a:agent"}]),
        ),
        binding(
            "a",
            "what",
            "ClusterRole/what",
            json!([{"kind": "User", "name": "system:serviceaccount:a:agent"}]),
        ),
    ]);
    let index = Index::of(&snapshot);
    let view = View::new(&snapshot, &index);
    let mut agent = user("system:serviceaccount:a:agent");
    agent.extra.insert("authentication.kubernetes.io/node-name".into(), vec!["n1".into()]);
    for (who, request, expected) in [
        ("jane", "list pods a/", Some("system:authenticated")),
        ("jane|devs", "list pods a/", Some("devs,system:authenticated")),
        ("jane|ops", "list pods a/", None),
        ("jane|system:masters", "list pods a/", None),
        ("jane", "list pods b/", None),
        ("jane", "get pods a/x", None),
        ("joe", "list pods a/", None),
        (
            "system:serviceaccount:b:builder",
            "list pods a/",
            Some("system:serviceaccounts,system:serviceaccounts:b,system:authenticated"),
        ),
        ("system:serviceaccount:b:other", "list pods a/", None),
        ("system:serviceaccount:b:builder|devs", "list pods a/", None),
        ("system:node:n1", "list pods a/", Some("system:nodes,system:authenticated")),
        ("system:node:n2", "list pods a/", None),
        ("system:node:n9", "get pods a/x", Some("system:nodes,system:authenticated")),
        ("system:node:n1", "get pods a/x", None),
    ] {
        let become_ = impersonation(&view, &agent, user(who), &attributes(request), None, &|_, _| {});
        let groups = become_.map(|(user, _)| user.groups.join(","));
        assert_eq!(groups.as_deref().ok(), expected, "{who} {request}");
    }
}

fn carry_out(snapshot: &mut Snapshot, writes: Vec<Write>) {
    for write in writes {
        match write {
            Write::Create { object, .. } => {
                put(snapshot, &object);
            }
            Write::Merge { key, patch, .. } => {
                let mut value = snapshot.get(&key).expect("held").to_value().expect("JSON");
                for (field, new) in patch.as_object().expect("an object") {
                    let merged = value[field].as_object().cloned().filter(|_| field != "spec");
                    match (merged, new.as_object()) {
                        (Some(mut held), Some(new)) => {
                            held.extend(new.clone());
                            value[field] = held.into();
                        }
                        _ => value[field] = new.clone(),
                    }
                }
                put(snapshot, &value);
            }
            Write::Delete { key, .. } => {
                let revision = snapshot.revision() + 1;
                snapshot.remove(&key, revision);
            }
            other => panic!("unexpected {other:?}"),
        }
    }
}

#[test]
fn a_cluster_gets_its_default_objects_and_gets_them_back() {
    let mut snapshot = Snapshot::default();
    let fresh = bootstrap::reconcile(&snapshot, "CA", "PROXY");
    assert_eq!(fresh.len(), bootstrap::rbac_objects().len() + bootstrap::system_objects("CA", "PROXY").len());
    carry_out(&mut snapshot, fresh);
    assert_eq!(bootstrap::reconcile(&snapshot, "CA", "PROXY"), []);

    let name = |name: &str| Key::cluster(kinds::CLUSTER_ROLES, name);
    let mut changed =
        snapshot.get(&name("system:kube-scheduler")).expect("a default role").to_value().expect("JSON");
    changed["rules"] = json!([{"apiGroups": ["example.com"], "resources": ["widgets"], "verbs": ["get"]}]);
    put(&mut snapshot, &changed);
    let mut kept = snapshot.get(&name("system:kube-dns")).expect("a default role").to_value().expect("JSON");
    kept["rules"] = json!([]);
    kept["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] = "false".into();
    put(&mut snapshot, &kept);
    let revision = snapshot.revision() + 1;
    snapshot.remove(&Key::cluster(kinds::NAMESPACES, "kube-public"), revision);
    let repairs = bootstrap::reconcile(&snapshot, "CA", "PROXY");
    carry_out(&mut snapshot, repairs);

    let index = Index::of(&snapshot);
    let may = |who: &str, what: &str| index.authorize(&user(who), &attributes(what)).allowed;
    assert!(may("system:kube-scheduler", "create pods/binding a/x"));
    assert!(may("system:kube-scheduler", "get widgets.example.com a/x"), "what was added stays");
    assert!(
        !may("system:serviceaccount:kube-system:kube-dns", "list services /"),
        "autoupdate=false is respected"
    );
    assert!(snapshot.get(&Key::cluster(kinds::NAMESPACES, "kube-public")).is_some());
    assert_eq!(bootstrap::reconcile(&snapshot, "CA", "PROXY"), []);
}

#[test]
fn the_default_roles_let_the_system_work_and_nobody_else() {
    let snapshot = snapshot(&bootstrap::rbac_objects());
    let index = Index::of(&snapshot);
    for (who, what, expected) in [
        ("anyone|system:authenticated", "get /api", true),
        ("anyone|system:authenticated", "create selfsubjectaccessreviews.authorization.k8s.io /", true),
        ("anyone|system:authenticated", "list pods a/", false),
        ("system:anonymous|system:unauthenticated", "get /version", true),
        ("system:anonymous|system:unauthenticated", "get /api", false),
        ("system:kube-controller-manager", "list widgets.example.com /", true),
        ("system:serviceaccount:kube-system:deployment-controller", "create replicasets.apps a/", true),
        ("system:serviceaccount:kube-system:deployment-controller", "create pods a/", false),
        ("x|system:serviceaccounts", "get /openid/v1/jwks", true),
    ] {
        assert_eq!(index.authorize(&user(who), &attributes(what)).allowed, expected, "{who}: {what}");
    }
}

#[test]
fn an_aggregated_role_collects_the_rules_of_others() {
    let snapshot = snapshot(&bootstrap::rbac_objects());
    let role = |name: &str| snapshot.get(&Key::cluster(kinds::CLUSTER_ROLES, name)).expect("a default role");
    let view = rbac::aggregated_rules(&snapshot, role("view")).expect("aggregated");
    assert!(view.iter().any(|rule| rule.allows(&attributes("list pods a/"))));
    assert!(!view.iter().any(|rule| rule.allows(&attributes("get secrets a/x"))));
    assert_eq!(rbac::aggregated_rules(&snapshot, role("cluster-admin")), None);
}

/// Brings an index from the state of one snapshot to that of another.
fn follow(index: &mut Index, before: &Snapshot, after: &Snapshot) {
    for resource in [kinds::ROLES, kinds::CLUSTER_ROLES, kinds::ROLE_BINDINGS, kinds::CLUSTER_ROLE_BINDINGS] {
        let table = |snapshot: &Snapshot| snapshot.table(resource).cloned().unwrap_or_default();
        index.follow(&table(before), &table(after));
    }
}

fn changes() -> impl Strategy<Value = Vec<(bool, u8, u8, u8)>> {
    prop::collection::vec((any::<bool>(), 0..4u8, 0..3u8, 0..3u8), 0..40)
}

proptest! {
    #[test]
    fn folding_events_and_rebuilding_come_to_the_same(changes in changes()) {
        let mut snapshot = Snapshot::default();
        let mut index = Index::default();
        let (mut between, mut followed) = (Snapshot::default(), Index::default());
        for (is_put, kind, name, variant) in changes {
            let (namespace, name) = (if kind % 2 == 0 { "" } else { "a" }, format!("n{name}"));
            let object = match kind {
                0 => role("ClusterRole", "", &name, json!([{"apiGroups": [""], "resources": [format!("r{variant}")], "verbs": ["get"]}])),
                1 => role("Role", "a", &name, json!([{"apiGroups": [""], "resources": [format!("r{variant}")], "verbs": ["get"]}])),
                _ => binding(namespace, &name, &format!("ClusterRole/n{variant}"), json!([
                    {"kind": "User", "name": format!("u{variant}")}, {"kind": "Group", "name": "g"},
                    {"kind": "ServiceAccount", "name": format!("s{variant}"), "namespace": "a"},
                ])),
            };
            let event = if is_put {
                Some(put(&mut snapshot, &object))
            } else {
                let key = world::object(&object, 1).key;
                let revision = snapshot.revision() + 1;
                snapshot.remove(&key, revision)
            };
            if let Some(event) = event {
                index.apply(&event);
            }
            if variant == 0 {
                follow(&mut followed, &between, &snapshot);
                between = snapshot.clone();
            }
        }
        prop_assert_eq!(index, Index::of(&snapshot));
        follow(&mut followed, &between, &snapshot);
        prop_assert_eq!(&followed, &Index::of(&snapshot));
        // And back, as for who asks about what was.
        follow(&mut followed, &snapshot, &between);
        prop_assert_eq!(followed, Index::of(&between));
    }
}
