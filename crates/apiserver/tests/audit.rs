//! The audit log of a server: every line an event, as upstream would have written it.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use access::audit::Policy;
use apiserver::{Audit, AuditLog};
use common::Cluster;
use common::client::Client;
use object::Time;
use serde_json::{Value, json};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    Time::from_micros(since.as_micros() as i64)
}

async fn cluster(rules: Value, path: &Path) -> Cluster {
    let policy = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": rules});
    let policy = Policy::parse(policy).expect("a policy");
    let log = AuditLog { path: path.to_owned(), ..AuditLog::default() };
    let audit = Audit::new(policy, Some(log), None, Arc::new(now)).expect("a log");
    Cluster::start_with(|config| config.audit = Some(Arc::new(audit))).await
}

/// The events of a path, once there are so many of them: they are written beside the requests.
fn events(path: &Path, uri: &str, count: usize) -> Vec<Value> {
    let deadline = SystemTime::now() + std::time::Duration::from_secs(30);
    loop {
        let text = std::fs::read_to_string(path).expect("a log");
        // The last line may be half written.
        let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
        let lines = whole.lines().map(|line| serde_json::from_str::<Value>(line).expect("an event"));
        let found: Vec<Value> = lines.filter(|event| event["requestURI"] == uri).collect();
        if found.len() >= count {
            return found;
        }
        assert!(SystemTime::now() < deadline, "{count} events of {uri} in {text}");
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_say_who_did_what_and_what_came_of_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.log");
    let cluster = cluster(
        json!([
            {"level": "RequestResponse", "resources": [{"group": "", "resources": ["configmaps"]}], "omitManagedFields": true},
            {"level": "Metadata", "resources": [{"group": "", "resources": ["secrets"]}]},
            {"level": "None", "nonResourceURLs": ["/healthz*"]},
            {"level": "Metadata"},
        ]),
        &path,
    )
    .await;
    let admin = Client::admin(&cluster);
    let body = json!({"metadata": {"name": "a"}, "data": {"k": "v"}}).to_string();
    let headers = [
        ("content-type", "application/json"),
        ("user-agent", "test/1"),
        ("audit-id", "my-id"),
        ("accept-encoding", "gzip"),
    ];
    let made = admin.send("POST", CONFIG_MAPS, &headers, &body).await;
    assert_eq!((made.code, made.header("audit-id")), (201, "my-id"));
    let event = events(&path, CONFIG_MAPS, 1).remove(0);
    for (field, expected) in [
        ("kind", json!("Event")),
        ("apiVersion", json!("audit.k8s.io/v1")),
        ("level", json!("RequestResponse")),
        ("auditID", json!("my-id")),
        ("stage", json!("ResponseComplete")),
        ("verb", json!("create")),
        ("sourceIPs", json!(["127.0.0.1"])),
        ("userAgent", json!("test/1")),
        (
            "objectRef",
            json!({"resource": "configmaps", "namespace": "default", "name": "a", "apiVersion": "v1"}),
        ),
        ("responseStatus", json!({"metadata": {}, "code": 201})),
    ] {
        assert_eq!(event[field], expected, "{field} of {event}");
    }
    assert_eq!(event["user"]["username"], "admin");
    assert_eq!(event["user"]["groups"], json!(["system:masters", "system:authenticated"]));
    assert_eq!(event["requestObject"]["data"]["k"], "v");
    assert_eq!(event["responseObject"]["metadata"]["name"], "a");
    assert!(event["responseObject"]["metadata"].get("managedFields").is_none());
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "allow");

    // What is secret is not written down at this level.
    let secrets = "/api/v1/namespaces/default/secrets";
    admin.post(secrets, &json!({"metadata": {"name": "s"}, "stringData": {"k": "hidden-thing"}})).await;
    let event = events(&path, secrets, 1).remove(0);
    assert_eq!((&event["level"], event.get("requestObject")), (&json!("Metadata"), None));
    assert!(!std::fs::read_to_string(&path).expect("a log").contains("hidden-thing"));

    // Who is refused, and who acts as another.
    let jane = Client::of(&cluster, Some(cluster.identity("jane", &[])));
    let pods = "/api/v1/namespaces/default/pods";
    jane.get(pods).await;
    let event = events(&path, pods, 1).remove(0);
    assert_eq!(event["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(
        (&event["responseStatus"]["code"], &event["responseStatus"]["reason"]),
        (&json!(403), &json!("Forbidden"))
    );
    admin.send("GET", "/version", &[("impersonate-user", "kim")], "").await;
    let event = events(&path, "/version", 1).remove(0);
    assert_eq!(
        (&event["user"]["username"], &event["impersonatedUser"]["username"]),
        (&json!("admin"), &json!("kim"))
    );
    assert!(event.get("objectRef").is_none());
    let stranger = Client::of(&cluster, None);
    stranger.send("GET", "/api/v1/nodes", &[("authorization", "Bearer nonsense")], "").await;
    let event = events(&path, "/api/v1/nodes", 1).remove(0);
    assert_eq!((&event["responseStatus"]["code"], &event["user"]), (&json!(401), &json!({})));

    // A watch is told when it begins, and when it ends.
    let watch = format!("{pods}?watch=true&timeoutSeconds=1");
    let mut stream = admin.watch(&watch).await;
    assert_eq!(events(&path, &watch, 1)[0]["stage"], "ResponseStarted");
    while stream.next().await.is_some() {}
    let stages: Vec<Value> =
        events(&path, &watch, 2).into_iter().map(|event| event["stage"].clone()).collect();
    assert_eq!(stages, ["ResponseStarted", "ResponseComplete"]);

    admin.get("/healthz").await;
    let metrics = admin.get("/metrics").await.text;
    assert!(metrics.contains("apiserver_audit_error_total{plugin=\"log\"} 0"));
    assert!(!std::fs::read_to_string(&path).expect("a log").contains("/healthz"));
}

#[tokio::test(flavor = "multi_thread")]
async fn admission_says_what_it_found() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("audit.log");
    let cluster =
        cluster(json!([{"level": "Metadata", "resources": [{"group": "", "resources": ["pods"]}]}]), &path)
            .await;
    let admin = Client::admin(&cluster);
    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/audit": "restricted"}}});
    admin.patch("/api/v1/namespaces/default", "merge-patch+json", &labels).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i", "securityContext": {"privileged": true}}]}});
    let pods = "/api/v1/namespaces/default/pods";
    let made = admin.post(pods, &pod).await;
    assert_eq!(made.code, 201, "{}", made.text);
    let event = events(&path, pods, 1).remove(0);
    let told =
        event["annotations"]["pod-security.kubernetes.io/audit-violations"].as_str().unwrap_or_default();
    assert!(told.contains("privileged"), "{event}");
}

/// A webhook over TLS: what is posted to it comes out of the channel.
async fn webhook(authority: &Cluster) -> (u16, tokio::sync::mpsc::UnboundedReceiver<Value>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let tls = tokio_rustls::TlsAcceptor::from(Arc::new(authority.kubelet_tls()));
    let (tell, told) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let stream = tls.accept(socket).await.expect("TLS");
            let tell = tell.clone();
            let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let tell = tell.clone();
                async move {
                    let body = http_body_util::BodyExt::collect(request.into_body()).await?.to_bytes();
                    drop(tell.send(common::value(&body)));
                    Ok::<_, hyper::Error>(http::Response::new(String::new()))
                }
            });
            let served = hyper::server::conn::http1::Builder::new();
            tokio::spawn(served.serve_connection(hyper_util::rt::TokioIo::new(stream), service));
        }
    });
    (port, told)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_gets_events_in_lists() {
    let authority = Cluster::start().await;
    let (port, mut told) = webhook(&authority).await;
    let kubeconfig = authority.folder.path().join("audit.kubeconfig");
    let ca = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &authority.ca_pem);
    let config = json!({"clusters": [{"name": "audit", "cluster": {
        "server": format!("https://127.0.0.1:{port}/events"), "certificate-authority-data": ca, "tls-server-name": "10.9.8.7"}}]});
    std::fs::write(&kubeconfig, config.to_string()).expect("written");
    let policy = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata", "nonResourceURLs": ["/version"]}]});
    let to = apiserver::AuditWebhook {
        connection: apiserver::Connection::read(&kubeconfig).expect("a kubeconfig"),
        dial: Arc::new(|host, port| {
            Box::pin(async move {
                let socket = tokio::net::TcpStream::connect((host.as_str(), port)).await?;
                Ok(Box::new(socket) as Box<dyn apiserver::Socket>)
            })
        }),
        batch_wait: std::time::Duration::from_millis(50),
    };
    let audit =
        Audit::new(Policy::parse(policy).expect("a policy"), None, Some(to), Arc::new(now)).expect("made");
    let cluster = Cluster::start_with(|config| config.audit = Some(Arc::new(audit))).await;
    assert_eq!(Client::admin(&cluster).get("/version").await.code, 200);
    let mut stages = Vec::new();
    while stages.len() < 2 {
        let list = told.recv().await.expect("a list");
        assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("EventList"), &json!("audit.k8s.io/v1")));
        let items = list["items"].as_array().expect("items").iter();
        stages.extend(items.map(|event| event["stage"].clone()));
    }
    assert_eq!(stages, ["RequestReceived", "ResponseComplete"]);
}
