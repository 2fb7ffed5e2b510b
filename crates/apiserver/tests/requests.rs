//! Requests as any client may send them, and what upstream's server would have said.

mod common;

use std::sync::Arc;

use apiserver::decode_protobuf;
use common::Cluster;
use common::client::Client;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Method, path, headers, body; the code and some words of the answer.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], &'a str, u16, &'a str);

#[tokio::test]
async fn bad_requests_are_told_what_is_wrong() {
    let cluster = Cluster::start_with(|config| config.limits.body_bytes = 4096).await;
    let client = Client::admin(&cluster);
    client.post(CONFIG_MAPS, &json!({"metadata": {"name": "held"}})).await;
    let json_body = [("content-type", "application/json")];
    let long = format!("{{\"data\":{{\"a\":\"{}\"}}}}", "x".repeat(5000));
    let cases: &[Case] = &[
        ("GET", "/nothing", &[], "", 404, "404 page not found"),
        ("GET", "/apis/nope.io/v1/things", &[], "", 404, "404 page not found"),
        ("GET", "/api/v1/nonsense", &[], "", 404, "the server could not find the requested resource"),
        ("GET", "/api/v1/namespaces/default/configmaps/a", &[], "", 404, "configmaps \\\"a\\\" not found"),
        (
            "DELETE",
            "/api/v1/namespaces",
            &[],
            "",
            405,
            "the server does not allow this method on the requested resource",
        ),
        (
            "GET",
            CONFIG_MAPS,
            &[("accept", "text/html")],
            "",
            406,
            "406: Not Acceptable\\n\\nAvailable representations: application/json, application/yaml, ",
        ),
        (
            "GET",
            CONFIG_MAPS,
            &[("accept", "application/json;as=Table;v=v7;g=meta.k8s.io")],
            "",
            406,
            "only the following media types are accepted: application/json",
        ),
        ("GET", "/api/v2/pods", &[], "", 404, "the server could not find the requested resource"),
        ("HEAD", CONFIG_MAPS, &[], "", 405, ""),
        (
            "DELETE",
            "/api/v1/configmaps",
            &[],
            "",
            405,
            "the server does not allow this method on the requested resource",
        ),
        ("GET", "/api/v1/namespaces/default/configmaps/%2e%2e", &[], "", 400, "Name parameter invalid"),
        // A selector that is no text selects nothing, least of all everything.
        (
            "DELETE",
            "/api/v1/namespaces/default/configmaps?labelSelector=app%3D%FF",
            &[],
            "",
            400,
            "unable to parse requirement: values[0][app]: Invalid value",
        ),
        // What the query says is not asked beside a body.
        (
            "DELETE",
            "/api/v1/namespaces/default/configmaps/held?propagationPolicy=nonsense&dryRun=All",
            &json_body,
            "{}",
            200,
            "Success",
        ),
        (
            "DELETE",
            "/api/v1/namespaces/default/configmaps/held",
            &json_body,
            "{\"kind\":\"Pod\",\"apiVersion\":\"v1\"}",
            400,
            "no kind \\\"Pod\\\" is registered for version \\\"v1\\\"",
        ),
        (
            "DELETE",
            "/api/v1/namespaces/default/configmaps/held",
            &json_body,
            "{\"gracePeriodSeconds\":\"x\"}",
            400,
            "json: cannot unmarshal string into Go struct field DeleteOptions.gracePeriodSeconds of type int64",
        ),
        (
            "POST",
            CONFIG_MAPS,
            &[("content-type", "text/plain")],
            "{}",
            415,
            "the body of the request was in an unknown format",
        ),
        (
            "PATCH",
            "/api/v1/namespaces/default/configmaps/held",
            &json_body,
            "{}",
            415,
            "415: Unsupported Media Type",
        ),
        ("POST", CONFIG_MAPS, &json_body, "{", 400, "couldn't get version/kind; json parse error"),
        ("POST", CONFIG_MAPS, &json_body, "", 400, "<empty>"),
        ("POST", CONFIG_MAPS, &json_body, "[]", 400, "cannot unmarshal array"),
        (
            "POST",
            CONFIG_MAPS,
            &json_body,
            "{\"data\":{\"a\":1}}",
            400,
            "cannot unmarshal number into Go struct field ConfigMap.data of type string",
        ),
        (
            "POST",
            CONFIG_MAPS,
            &json_body,
            "{}",
            422,
            "metadata.name: Required value: name or generateName is required",
        ),
        ("POST", CONFIG_MAPS, &json_body, &long, 413, "Request entity too large: limit is 4096"),
        (
            "POST",
            CONFIG_MAPS,
            &json_body,
            "{\"apiVersion\":\"v2\",\"kind\":\"ConfigMap\"}",
            400,
            "is registered for version",
        ),
        (
            "POST",
            CONFIG_MAPS,
            &json_body,
            "{\"metadata\":{\"name\":\"a\",\"namespace\":\"other\"}}",
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            "PUT",
            "/api/v1/namespaces/default/configmaps/held",
            &json_body,
            "{\"metadata\":{\"name\":\"b\"}}",
            400,
            "the name of the object (b) does not match the name on the URL (held)",
        ),
        (
            "POST",
            CONFIG_MAPS,
            &json_body,
            "{\"metadata\":{\"name\":\"held\"}}",
            409,
            "configmaps \\\"held\\\" already exists",
        ),
        (
            "PUT",
            "/api/v1/namespaces/default/configmaps/held",
            &json_body,
            "{\"metadata\":{\"name\":\"held\",\"resourceVersion\":\"1\"}}",
            409,
            "the object has been modified; please apply your changes to the latest version and try again",
        ),
        (
            "PUT",
            "/api/v1/namespaces/default/configmaps/held",
            &json_body,
            "{\"metadata\":{\"name\":\"held\",\"uid\":\"x\"}}",
            409,
            "Precondition failed: UID in precondition: x, UID in object meta: ",
        ),
        (
            "DELETE",
            "/api/v1/namespaces/default/configmaps/held",
            &json_body,
            "{\"preconditions\":{\"uid\":\"x\"}}",
            409,
            "the UID in the precondition (x) does not match the UID in record",
        ),
        (
            "POST",
            "/api/v1/namespaces/default/configmaps?fieldValidation=Strict",
            &json_body,
            "{\"metadata\":{\"name\":\"a\"},\"foo\":1,\"data\":{\"k\":\"1\",\"k\":\"2\"}}",
            400,
            "strict decoding error: ",
        ),
        (
            "POST",
            "/api/v1/namespaces/default/configmaps?dryRun=Some",
            &json_body,
            "{}",
            422,
            "dryRun: Unsupported value: [\\\"Some\\\"]",
        ),
        (
            "POST",
            "/api/v1/namespaces/none/configmaps",
            &json_body,
            "{\"metadata\":{\"name\":\"a\"}}",
            404,
            "namespaces \\\"none\\\" not found",
        ),
        ("GET", "/api/v1/configmaps?labelSelector=a%20in%20(", &[], "", 400, "unable to parse requirement"),
        (
            "GET",
            "/api/v1/configmaps?fieldSelector=spec.x%3D1",
            &[],
            "",
            400,
            "\\\"spec.x\\\" is not a known field selector: only \\\"metadata.name\\\", \\\"metadata.namespace\\\"",
        ),
        ("GET", "/api/v1/pods?fieldSelector=spec.x%3D1", &[], "", 400, "field label not supported: spec.x"),
        (
            "GET",
            "/api/v1/nodes?fieldSelector=metadata.namespace%3D1",
            &[],
            "",
            400,
            "field label not supported: metadata.namespace",
        ),
        ("GET", "/api/v1/configmaps?resourceVersion=x", &[], "", 400, "invalid resource version"),
        (
            "GET",
            "/api/v1/configmaps?resourceVersionMatch=Exact",
            &[],
            "",
            422,
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        ("GET", "/api/v1/configmaps?continue=zzz", &[], "", 400, "continue key is not valid"),
        (
            "GET",
            "/api/v1/configmaps?watch=1&sendInitialEvents=true",
            &[],
            "",
            422,
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        ("GET", "/api/v1/configmaps?limit=%4", &[], "", 200, "ConfigMapList"),
        ("GET", "/api/v1/configmaps?watch=1&continue=x", &[], "", 422, "forbidden when continue is provided"),
        (
            "PATCH",
            "/api/v1/namespaces/default/configmaps/held",
            &[("content-type", "application/json-patch+json")],
            "[{\"op\":\"test\",\"path\":\"/data/x\",\"value\":\"1\"}]",
            422,
            "the server rejected our request due to an error in our request",
        ),
        (
            "PATCH",
            "/api/v1/namespaces/default/configmaps/held",
            &[("content-type", "application/merge-patch+json")],
            "{\"data\":3}",
            422,
            " \\\"\\\" is invalid: patch: Invalid value: ",
        ),
    ];
    for (method, path, headers, body, code, words) in cases {
        let reply = client.send(method, path, headers, body).await;
        assert_eq!(reply.code, *code, "{method} {path} {body}: {}", reply.text);
        assert!(reply.text.contains(words), "{method} {path} {body}: {}", reply.text);
        assert!(!reply.header("audit-id").is_empty());
    }
}

#[tokio::test]
async fn a_half_request_ends_its_connection_and_nothing_else() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let cluster =
        Cluster::start_with(|config| config.limits.head_timeout = std::time::Duration::from_millis(200))
            .await;
    let client = Client::admin(&cluster);
    for text in [
        "GET /api/v1/pods HT",
        "NONSENSE\r\n\r\n",
        "GET /api/v1/pods HTTP/1.1\r\nHost: x\r\nContent-Length: nine\r\n\r\n",
        "GET /api/v1/pods HTTP/1.1\r\n",
        "\0\x01\x02\x03",
    ] {
        let mut stream = client.connect().await;
        stream.write_all(text.as_bytes()).await.expect("written");
        let mut answer = Vec::new();
        // The server hangs up by itself, with or without a 400.
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{text:?}: {answer}");
    }
    assert_eq!(client.get("/api/v1/pods").await.code, 200);
}

#[tokio::test]
async fn who_asks_decides_what_is_answered() {
    let cluster = Cluster::start().await;
    let admin = Client::admin(&cluster);
    let nobody = Client::of(&cluster, None);
    let bob = Client::of(&cluster, Some(cluster.identity("bob", &["devs"])));
    let stranger = Client::of(&cluster, Some(Cluster::start().await.identity("admin", &["system:masters"])));
    let pods = "/api/v1/namespaces/default/pods";

    let refused = nobody.get(pods).await;
    let words = "pods is forbidden: User \"system:anonymous\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\"";
    assert_eq!((refused.code, refused.json()["message"].as_str()), (403, Some(words)));
    assert_eq!(stranger.get(pods).await.code, 401);
    assert_eq!(nobody.send("GET", pods, &[("authorization", "Bearer x.y.z")], "").await.code, 401);
    assert_eq!(nobody.get("/version").await.code, 200);
    assert_eq!(bob.get(pods).await.code, 403);

    let role = json!({"metadata": {"name": "reader"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]});
    admin.post("/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles", &role).await;
    let binding = json!({"metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "devs"}]});
    let bound =
        admin.post("/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", &binding).await;
    assert_eq!(bound.code, 201, "{}", bound.text);
    assert_eq!(bob.get(pods).await.code, 200);

    let as_bob = [("impersonate-user", "bob"), ("impersonate-group", "devs")];
    assert_eq!(admin.send("GET", pods, &as_bob, "").await.code, 200);
    assert_eq!(admin.send("GET", "/api/v1/namespaces/default/secrets", &as_bob, "").await.code, 403);
    let refused = bob.send("GET", pods, &[("impersonate-user", "alice")], "").await;
    assert!(
        refused.json()["message"]
            .as_str()
            .is_some_and(|text| text.contains("cannot impersonate-on:user-info:list resource \"pods\""))
    );

    let review =
        json!({"spec": {"resourceAttributes": {"namespace": "default", "verb": "list", "resource": "pods"}}});
    let answer = bob.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", &review).await;
    // Anyone who is authenticated may ask for themselves.
    assert_eq!((answer.code, &answer.json()["status"]["allowed"]), (201, &json!(true)), "{}", answer.text);

    let token =
        admin.post("/api/v1/namespaces/default/serviceaccounts/default/token", &json!({"spec": {}})).await;
    let token = token.json()["status"]["token"].as_str().expect("a token").to_owned();
    let bearer = format!("Bearer {token}");
    let who = nobody
        .send(
            "POST",
            "/apis/authentication.k8s.io/v1/selfsubjectreviews",
            &[("authorization", &bearer), ("content-type", "application/json")],
            "{}",
        )
        .await;
    assert_eq!(who.json()["status"]["userInfo"]["username"], "system:serviceaccount:default:default");
}

#[tokio::test]
async fn an_object_lives_and_dies_over_http() {
    let cluster = Cluster::start().await;
    let client = Client::admin(&cluster);
    let one = format!("{CONFIG_MAPS}/one");
    let made = client.post(CONFIG_MAPS, &json!({"metadata": {"name": "one", "finalizers": ["example.com/keep"]}, "data": {"a": "1"}, "foo": 1})).await;
    assert_eq!((made.code, made.header("warning")), (201, "299 - \"unknown field \\\"foo\\\"\""));
    let dry = client.post(&format!("{CONFIG_MAPS}?dryRun=All"), &json!({"metadata": {"name": "two"}})).await;
    assert_eq!((dry.code, client.get(&format!("{CONFIG_MAPS}/two")).await.code), (201, 404));

    let version = |reply: &common::client::Reply| {
        reply.json()["metadata"]["resourceVersion"].as_str().map(str::to_owned)
    };
    let same = client.patch(&one, "merge-patch+json", &json!({"data": {"a": "1"}})).await;
    assert_eq!(version(&same), version(&made), "a patch that changes nothing is no change");
    let patched = client
        .patch(
            &one,
            "strategic-merge-patch+json",
            &json!({"data": {"b": "2"}, "metadata": {"labels": {"x": "y"}}}),
        )
        .await;
    assert_eq!(patched.json()["data"], json!({"a": "1", "b": "2"}));
    let patched = client.patch(&one, "json-patch+json", &json!([{"op": "remove", "path": "/data/a"}])).await;
    assert_eq!(patched.json()["data"], json!({"b": "2"}));

    let going = client.delete(&one).await;
    assert!(going.json()["metadata"]["deletionTimestamp"].is_string(), "{}", going.text);
    let refused = client
        .patch(
            &one,
            "merge-patch+json",
            &json!({"metadata": {"finalizers": ["example.com/keep", "example.com/more"]}}),
        )
        .await;
    assert!(
        refused.code == 422 && refused.text.contains("no new finalizers can be added"),
        "{}",
        refused.text
    );
    assert_eq!(
        client.patch(&one, "merge-patch+json", &json!({"metadata": {"finalizers": null}})).await.code,
        200
    );
    assert_eq!(client.get(&one).await.code, 404);

    client.post(CONFIG_MAPS, &json!({"metadata": {"name": "three"}})).await;
    let gone = client.delete(&format!("{CONFIG_MAPS}/three")).await.json();
    assert_eq!((&gone["status"], &gone["details"]["kind"]), (&json!("Success"), &json!("configmaps")));
    client.post(CONFIG_MAPS, &json!({"metadata": {"generateName": "many-", "labels": {"a": "1"}}})).await;
    client.post(CONFIG_MAPS, &json!({"metadata": {"generateName": "many-", "labels": {"a": "2"}}})).await;
    let deleted = client.delete(&format!("{CONFIG_MAPS}?labelSelector=a%3D1")).await.json();
    assert_eq!(deleted["items"].as_array().map(Vec::len), Some(1));
    let left = client.get(CONFIG_MAPS).await.json();
    assert_eq!(left["items"].as_array().map(Vec::len), Some(1));
    assert_eq!((&left["kind"], left["items"][0].get("kind")), (&json!("ConfigMapList"), None));
    let shapes = client
        .send(
            "GET",
            CONFIG_MAPS,
            &[("accept", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io")],
            "",
        )
        .await
        .json();
    assert_eq!(
        (&shapes["kind"], &shapes["items"][0]["kind"]),
        (&json!("PartialObjectMetadataList"), &json!("PartialObjectMetadata"))
    );
    let table = client
        .send("GET", CONFIG_MAPS, &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")], "")
        .await
        .json();
    assert_eq!((&table["kind"], table["rows"].as_array().map(Vec::len)), (&json!("Table"), Some(1)));
    let scaled = json!({"metadata": {"name": "web"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    client.post("/apis/apps/v1/namespaces/default/deployments", &scaled).await;
    let web = "/apis/apps/v1/namespaces/default/deployments/web";
    let scale = client
        .patch(&format!("{web}/scale"), "merge-patch+json", &json!({"spec": {"replicas": 3}}))
        .await
        .json();
    assert_eq!(
        (&scale["kind"], &scale["spec"]["replicas"], &scale["status"]["selector"]),
        (&json!("Scale"), &json!(3), &json!("a=b"))
    );
    let web = client.get(web).await.json();
    assert_eq!((&web["spec"]["replicas"], &web["metadata"]["generation"]), (&json!(3), &json!(2)));
}

#[tokio::test]
async fn a_list_can_be_read_in_pieces_of_one_state() {
    let cluster = Cluster::start_with(|config| config.limits.held_snapshots = 1).await;
    let client = Client::admin(&cluster);
    for name in ["a", "b", "c", "d", "e"] {
        client.post(CONFIG_MAPS, &json!({"metadata": {"name": name}})).await;
    }
    let first = client.get(&format!("{CONFIG_MAPS}?limit=2")).await.json();
    assert_eq!(
        (&first["metadata"]["remainingItemCount"], first["items"].as_array().map(Vec::len)),
        (&json!(3), Some(2))
    );
    let token = first["metadata"]["continue"].as_str().expect("a token").to_owned();
    client.delete(&format!("{CONFIG_MAPS}/c")).await;
    let second = client.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await.json();
    let names: Vec<_> = second["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|item| item["metadata"]["name"].clone())
        .collect();
    assert_eq!(names, ["c", "d"], "the deleted object is still in the state that the list began with");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    // Another list takes the only place; the first one's state is given up.
    client.get("/api/v1/namespaces?limit=1").await;
    let expired = client.get(&format!("{CONFIG_MAPS}?limit=2&continue={token}")).await;
    assert_eq!((expired.code, &expired.json()["reason"]), (410, &json!("Expired")));
    let fresh = expired.json()["metadata"]["continue"].as_str().expect("a token").to_owned();
    let rest = client.get(&format!("{CONFIG_MAPS}?continue={fresh}")).await.json();
    let names: Vec<_> = rest["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|item| item["metadata"]["name"].clone())
        .collect();
    assert_eq!(names, ["d", "e"]);
    let ahead = client.get(&format!("{CONFIG_MAPS}?resourceVersion=999999")).await;
    assert_eq!((ahead.code, ahead.header("retry-after")), (504, "1"));
}

#[tokio::test]
async fn long_answers_are_compressed_for_those_who_can_read_it() {
    use std::io::Read;
    let cluster = Cluster::start().await;
    let client = Client::admin(&cluster);
    for index in 0..3 {
        let object = json!({"metadata": {"name": format!("big-{index}")}, "data": {"a": "x".repeat(60_000)}});
        client.post(CONFIG_MAPS, &object).await;
    }
    let plain = client.get(CONFIG_MAPS).await;
    assert_eq!(plain.header("content-encoding"), "");
    let answer = client.open("GET", CONFIG_MAPS, &[("accept-encoding", "gzip")], "").await;
    assert_eq!(answer.headers()["content-encoding"], "gzip");
    let small = http_body_util::BodyExt::collect(answer.into_body()).await.expect("a body").to_bytes();
    let mut text = String::new();
    flate2::read::GzDecoder::new(&small[..]).read_to_string(&mut text).expect("gzip");
    assert_eq!(text, plain.text);
}

#[tokio::test]
async fn discovery_tells_what_is_served() {
    let cluster = Cluster::start().await;
    let client = Client::admin(&cluster);
    let accept = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    let all = client.send("GET", "/apis", &accept, "").await;
    assert_eq!(all.header("content-type"), accept[0].1);
    let known = client.send("GET", "/apis", &[accept[0], ("if-none-match", all.header("etag"))], "").await;
    assert_eq!((known.code, &*known.text), (304, ""));
    // Who reads it at all gets it, in their encoding.
    let both = "application/json,application/yaml;q=0.5;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let yaml = client.send("GET", "/api", &[("accept", both)], "").await;
    assert!(
        yaml.header("content-type").starts_with("application/yaml;g="),
        "{}",
        yaml.header("content-type")
    );
    let protobuf = [("accept", "application/vnd.kubernetes.protobuf")];
    for (path, type_name) in [
        ("/api", "meta.v1.APIVersions"),
        ("/api/v1", "meta.v1.APIResourceList"),
        ("/apis", "meta.v1.APIGroupList"),
        ("/apis/apps", "meta.v1.APIGroup"),
        ("/apis/apps/v1", "meta.v1.APIResourceList"),
    ] {
        let told = client.send("GET", path, &protobuf, "").await;
        assert_eq!(told.header("content-type"), protobuf[0].1, "{path}");
        let mut wanted = client.get(path).await.json();
        let read = decode_protobuf(type_name, &told.bytes).expect(path);
        for said_by_the_envelope in ["apiVersion", "kind"] {
            wanted.as_object_mut().expect("an object").remove(said_by_the_envelope);
        }
        for (name, value) in wanted.as_object().expect("an object") {
            assert_eq!(&read[name], value, "{path}: {name}");
        }
    }
    let indented = client.get("/apis/apps?pretty=true").await.text;
    assert!(indented.starts_with("{\n  \"") && indented.ends_with("\n}"), "{indented}");
    assert!(client.get("/apis/apps").await.text.ends_with("}\n"));
    assert_eq!(client.send("HEAD", "/apis/apps/v1", &[], "").await.code, 405);
    for path in [
        "/api",
        "/apis",
        "/apis/apps",
        "/api/v1",
        "/openapi/v2",
        "/openapi/v3",
        "/.well-known/openid-configuration",
        "/openid/v1/jwks",
    ] {
        let reply = client.get(path).await;
        assert!(reply.code == 200 && reply.json().is_object(), "{path}: {}", reply.text);
    }
    for (path, group) in client.get("/openapi/v3").await.json()["paths"].as_object().expect("paths") {
        let url = group["serverRelativeURL"].as_str().expect("a path");
        let document = client.get(url).await;
        assert!(document.header("cache-control").contains("immutable"), "{path}");
        assert!(document.json()["components"]["schemas"].is_object(), "{path}");
        let accept = ("accept", "application/com.github.proto-openapi.spec.v3@v1.0+protobuf");
        let encoded = client.send("GET", url, &[accept], "").await;
        let told = (encoded.code, encoded.header("content-type"), encoded.header("etag"));
        let wanted = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";
        assert_eq!(told, (200, wanted, document.header("etag")), "{path}");
        assert!(encoded.text.starts_with("\n\u{5}3.0.0"), "{path}");
        let known = [accept, ("if-none-match", document.header("etag"))];
        assert_eq!(client.send("GET", url, &known, "").await.code, 304, "{path}");
    }
    for (path, words) in
        [("/healthz", "ok"), ("/livez/ping", "ok"), ("/readyz?verbose", "readyz check passed")]
    {
        assert!(client.get(path).await.text.contains(words), "{path}");
    }
}

#[tokio::test]
async fn a_put_may_create_and_versions_are_one_object() {
    let cluster = Cluster::start().await;
    let client = Client::admin(&cluster);
    let lease = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l";
    let other = client.put(lease, &json!({"metadata": {"name": "other"}})).await;
    assert_eq!(other.code, 400, "{}", other.text);
    let made = client.put(lease, &json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}})).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let blind = client.put(lease, &json!({"metadata": {"name": "l"}})).await;
    assert!(blind.code == 422 && blind.text.contains("must be specified for an update"), "{}", blind.text);
    let absent = client.put(&format!("{CONFIG_MAPS}/none"), &json!({"metadata": {"name": "none"}})).await;
    assert_eq!(absent.code, 404);

    let scaler = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 70,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}});
    let at =
        |version: &str| format!("/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers");
    let made = client.post(&at("v1"), &scaler).await;
    assert_eq!((made.code, &made.json()["apiVersion"]), (201, &json!("autoscaling/v1")), "{}", made.text);
    let newer = client.get(&format!("{}/h", at("v2"))).await.json();
    assert_eq!(newer["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 70);
    let patch = json!({"spec": {"maxReplicas": 5}});
    assert_eq!(client.patch(&format!("{}/h", at("v1")), "merge-patch+json", &patch).await.code, 200);
    let listed = client.get(&at("v1")).await.json();
    assert_eq!(
        (&listed["apiVersion"], &listed["items"][0]["spec"]["maxReplicas"]),
        (&json!("autoscaling/v1"), &json!(5))
    );
    assert_eq!(client.get(&at("v2")).await.json()["items"][0]["spec"]["maxReplicas"], 5);

    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Started", "message": "it did", "type": "Normal"});
    client.post("/api/v1/namespaces/default/events", &event).await;
    let told = client.get("/apis/events.k8s.io/v1/namespaces/default/events/e").await.json();
    assert_eq!((&told["note"], &told["regarding"]["name"]), (&json!("it did"), &json!("p")));
}

#[tokio::test]
async fn what_was_done_is_counted() {
    let cluster = Cluster::start().await;
    let client = Client::admin(&cluster);
    client.get("/api/v1/pods").await;
    client.get("/api/v1/namespaces/default/pods/none").await;
    let text = client.get("/metrics").await.text;
    for line in [
        "apiserver_request_total{code=\"200\",component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"pods\",scope=\"cluster\",subresource=\"\",verb=\"LIST\",version=\"v1\"} 1",
        "apiserver_request_total{code=\"404\",component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"pods\",scope=\"resource\",subresource=\"\",verb=\"GET\",version=\"v1\"} 1",
        "apiserver_current_inflight_requests{request_kind=\"readOnly\"} ",
        "apiserver_storage_objects{resource=\"namespaces\"} 4",
        "apiserver_resource_objects{group=\"rbac.authorization.k8s.io\",resource=\"roles\"}",
        "apiserver_storage_events_received_total{group=\"\",resource=\"namespaces\"} 4",
        "apiserver_response_sizes_count{component=\"apiserver\",group=\"\",resource=\"pods\",scope=\"cluster\",subresource=\"\",verb=\"LIST\",version=\"v1\"} 1",
        "apiserver_admission_controller_admission_duration_seconds_count{name=\"NamespaceLifecycle\",operation=\"CREATE\",rejected=\"false\",type=\"validate\"}",
        "apiserver_admission_step_admission_duration_seconds_count{operation=\"CREATE\",rejected=\"false\",type=\"admit\"}",
        "apiserver_client_certificate_expiration_seconds_count 3",
        "authenticated_user_requests{username=\"admin\"} 3",
        "authentication_attempts{result=\"success\"} 3",
        "authorization_attempts_total{result=\"allowed\"} 3",
        "kube_apiserver_clusterip_allocator_available_ips{cidr=\"10.100.0.0/16\"} 65534",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let heads: Vec<&str> = text.lines().filter(|line| line.starts_with("# TYPE")).collect();
    let once: std::collections::BTreeSet<&str> = heads.iter().copied().collect();
    assert_eq!(heads.len(), once.len(), "a metric is told twice");
    assert_eq!(Client::of(&cluster, None).get("/metrics").await.code, 403);
}

/// As EKS serves them: each component at a path of its own, for those who may.
#[tokio::test]
async fn the_metrics_of_other_components_have_a_group_of_their_own() {
    let write: apiserver::WriteMetrics = Arc::new(|page| page.gauge("workqueue_depth", "Depth.", 7));
    let cluster = Cluster::start_with(|config| {
        let apart = vec![("kcm", write.clone())];
        config.components = Some(apiserver::ComponentMetrics { all: write, apart });
    })
    .await;
    let at = |component: &str| format!("/apis/metrics.eks.amazonaws.com/v1/{component}/container/metrics");
    let admin = Client::admin(&cluster);
    for path in [at("kcm"), "/metrics".to_owned()] {
        let told = admin.get(&path).await;
        assert_eq!(
            told.header("content-type"),
            "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
        );
        assert!(
            told.text.contains("\nworkqueue_depth 7\n") && told.text.contains("\nprocess_open_fds "),
            "{path}"
        );
    }
    assert_eq!(admin.get(&at("ksh")).await.code, 404);
    assert_eq!(admin.post(&at("kcm"), &json!({})).await.code, 404);
    let jane = Client::of(&cluster, Some(cluster.identity("jane", &[])));
    let refused = jane.get(&at("kcm")).await;
    let words = "cannot get resource \\\"kcm/metrics\\\" in API group \\\"metrics.eks.amazonaws.com\\\"";
    assert!(refused.code == 403 && refused.text.contains(words), "{}", refused.text);
}

/// What is not stored is admitted all the same: plugins and policies see tokens and connections.
#[tokio::test]
async fn tokens_and_connections_are_admitted() {
    let cluster = Cluster::start().await;
    let admin = Client::admin(&cluster);
    let tokens = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let unbound = json!({"spec": {"expirationSeconds": 600}});
    // Whatever roles let a node ask, it gets tokens of its own pods only.
    let role = json!({"metadata": {"name": "minter"},
        "rules": [{"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]}]});
    admin.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", &role).await;
    let binding = json!({"metadata": {"name": "minter"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "minter"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes"}]});
    admin.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await;
    let node = Client::of(&cluster, Some(cluster.identity("system:node:x", &["system:nodes"])));
    let reply = node.post(tokens, &unbound).await;
    assert_eq!(reply.code, 403, "{}", reply.text);
    assert!(reply.text.contains("node requested token not bound to a pod"), "{}", reply.text);
    assert_eq!(admin.post(tokens, &unbound).await.code, 201);

    // The example of upstream's documentation for CONNECT: nobody opens a terminal.
    let policies = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
    let policy = json!({"metadata": {"name": "no-terminals"}, "spec": {
        "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
            "operations": ["CONNECT"], "resources": ["pods/exec", "pods/attach", "pods/portforward", "pods/proxy"]}]},
        "validations": [{"expression": "object.kind == 'PodExecOptions' && !(has(object.tty) && object.tty)",
            "message": "no terminals here"}]}});
    let reply = admin.post(policies, &policy).await;
    assert_eq!(reply.code, 201, "{}", reply.text);
    let binding = json!({"metadata": {"name": "no-terminals"},
        "spec": {"policyName": "no-terminals", "validationActions": ["Deny"]}});
    let reply =
        admin.post("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings", &binding).await;
    assert_eq!(reply.code, 201, "{}", reply.text);
    let pods = "/api/v1/namespaces/default/pods/nothing";
    for (path, code, words) in [
        ("/exec?command=sh&stdin=true&tty=true", 422, "no terminals here"),
        ("/attach?stdin=true", 422, "no terminals here"),
        ("/portforward?ports=80", 422, "no terminals here"),
        ("/proxy/path", 422, "no terminals here"),
        // Admitted: then there is no such pod.
        ("/exec?command=sh&tty=false", 404, "pods \\\"nothing\\\" not found"),
    ] {
        let reply = admin.post(&format!("{pods}{path}"), &json!({})).await;
        assert_eq!(reply.code, code, "{path}: {}", reply.text);
        assert!(reply.text.contains(words), "{path}: {}", reply.text);
    }
}

#[tokio::test]
async fn who_has_connected_when_the_server_stops_and_asks_at_once_is_answered() {
    let cluster = Cluster::start().await;
    let mut early = Client::admin(&cluster).connect().await;
    cluster.server.stop();
    while TcpStream::connect(cluster.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    let request = b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    early.write_all(request).await.expect("an open connection");
    let mut answer = Vec::new();
    early.read_to_end(&mut answer).await.expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", String::from_utf8_lossy(&answer));
}

#[tokio::test]
async fn what_is_accepted_and_not_meant_is_warned_about() {
    let cluster = Cluster::start().await;
    let client = Client::admin(&cluster);
    let endpoints = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice";
    let dots = "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: [must not contain dots]";
    let deployment = json!({"metadata": {"name": "a.b"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let map = json!({"metadata": {"name": "m"}, "dato": {}});
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    for (method, path, body, expected) in [
        ("GET", "/api/v1/endpoints", String::new(), endpoints),
        ("GET", "/api/v1/namespaces/default/endpoints/none", String::new(), endpoints),
        ("GET", "/api/v1/componentstatuses", String::new(), "v1 ComponentStatus is deprecated in v1.19+"),
        ("GET", "/api/v1/pods", String::new(), ""),
        ("POST", deployments, deployment.to_string(), dots),
        ("POST", CONFIG_MAPS, map.to_string(), "unknown field \\\"dato\\\""),
    ] {
        let reply = client.send(method, path, &[("content-type", "application/json")], body).await;
        let expected = if expected.is_empty() { String::new() } else { format!("299 - \"{expected}\"") };
        assert_eq!(reply.header("warning"), expected, "{method} {path}: {}", reply.text);
    }
    let metrics = client.get("/metrics").await.text;
    for line in [
        r#"apiserver_requested_deprecated_apis{group="",removed_release="",resource="endpoints",subresource="",version="v1"} 1"#,
        r#"apiserver_request_sli_duration_seconds_count{component="apiserver",group="",resource="endpoints",scope="cluster",subresource="",verb="LIST",version="v1"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}
