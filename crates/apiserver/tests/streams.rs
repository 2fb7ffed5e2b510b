//! Logs and streams reach the kubelet of a pod's node as upstream's would.

mod common;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use common::Cluster;
use common::client::Client;
use futures_util::StreamExt;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};

/// A kubelet that tells what it was asked, and echoes upgraded connections.
async fn kubelet(cluster: &Cluster) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let acceptor = TlsAcceptor::from(Arc::new(cluster.kubelet_tls()));
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (acceptor, seen) = (acceptor.clone(), seen.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(socket).await else { return };
                let shown = stream.get_ref().1.peer_certificates().map_or(0, <[_]>::len);
                let service = service_fn(move |request| answer(request, shown, seen.clone()));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                let _ = connection.with_upgrades().await;
            });
        }
    });
    (port, asked)
}

async fn answer(
    mut request: Request<Incoming>,
    shown: usize,
    seen: Arc<Mutex<Vec<String>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let credentials = request.headers().contains_key("authorization");
    seen.lock().expect("a lock").push(format!(
        "{} {} {shown} {credentials}",
        request.method(),
        request.uri()
    ));
    if request.uri().path().ends_with("/waiting") {
        let text = "container \"waiting\" in pod \"p\" is waiting to start: ContainerCreating";
        return Ok(Response::builder().status(400).body(text.into()).expect("a response"));
    }
    if !request.headers().contains_key("upgrade") {
        return Ok(Response::new("a line\n".into()));
    }
    let protocol = request.headers()["sec-websocket-protocol"].clone();
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(&mut request).await.expect("an upgrade");
        let (mut reader, mut writer) = tokio::io::split(TokioIo::new(upgraded));
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    });
    let response =
        Response::builder().status(101).header("upgrade", "websocket").header("connection", "Upgrade");
    Ok(response.header("sec-websocket-protocol", protocol).body("".into()).expect("a response"))
}

/// A node at 10.9.8.7 (which the test's dialer takes for loopback) and a pod on it.
async fn pod(cluster: &Cluster, client: &Client) -> Arc<Mutex<Vec<String>>> {
    let (port, asked) = kubelet(cluster).await;
    client.post("/api/v1/nodes", &json!({"metadata": {"name": "n1"}})).await;
    let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "10.9.8.7"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
    let reply = client.patch("/api/v1/nodes/n1/status", "merge-patch+json", &status).await;
    assert_eq!(reply.code, 200, "{}", reply.text);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}, {"name": "waiting", "image": "i"}]}});
    let reply = client.post("/api/v1/namespaces/default/pods", &pod).await;
    assert_eq!(reply.code, 201, "{}", reply.text);
    asked
}

async fn bind(client: &Client, path: &str) {
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    let reply = client.post(&format!("/api/v1/namespaces/default/{path}"), &binding).await;
    assert_eq!(reply.code, 201, "{}", reply.text);
}

#[tokio::test]
async fn logs_come_from_the_kubelet() {
    let cluster = Cluster::start().await;
    let client = Client::admin(&cluster);
    let asked = pod(&cluster, &client).await;
    let log = "/api/v1/namespaces/default/pods/p/log";
    assert_eq!(client.get(&format!("{log}?container=c")).await.code, 204, "a pod without a node has no logs");
    bind(&client, "pods/p/binding").await;
    for (query, code, words) in [
        ("?container=c&follow=true&tailLines=5", 200, "a line\n"),
        ("", 400, "a container name must be specified for pod p, choose one of: [c waiting]"),
        ("?container=x", 400, "container x is not valid for pod p"),
        ("?container=waiting", 400, "is waiting to start: ContainerCreating"),
        (
            "?container=c&tailLines=-1",
            422,
            "tailLines: Invalid value: -1: must be greater than or equal to 0",
        ),
    ] {
        let reply = client.get(&format!("{log}{query}")).await;
        assert_eq!(reply.code, code, "{query}: {}", reply.text);
        assert!(reply.text.contains(words), "{query}: {}", reply.text);
    }
    let reply = client.get("/api/v1/nodes/n1/proxy/stats/summary?only=1").await;
    assert_eq!((reply.code, &*reply.text), (200, "a line\n"));
    let expected = [
        "GET /containerLogs/default/p/c?follow=true&tailLines=5 1 false",
        "GET /containerLogs/default/p/waiting 1 false",
        "GET /stats/summary?only=1 1 false",
    ];
    assert_eq!(*asked.lock().expect("a lock"), expected);
}

/// As messages of a WebSocket, for browsers, in the dialect that is offered.
#[tokio::test]
async fn a_log_is_read_over_a_websocket() {
    let cluster = Cluster::start().await;
    let client = Client::admin(&cluster);
    let asked = pod(&cluster, &client).await;
    bind(&client, "bindings").await;
    let path = "/api/v1/namespaces/default/pods/p/log?container=c";
    let upgrade = |protocol: &'static str| {
        [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", protocol),
        ]
    };
    for (protocol, begin, line) in [
        ("binary.k8s.io", Message::Binary("".into()), Message::Binary("a line\n".into())),
        ("base64.binary.k8s.io", Message::text(""), Message::text("YSBsaW5lCg==")),
    ] {
        let answer = client.open("GET", path, &upgrade(protocol), "").await;
        assert_eq!(answer.status(), 101, "{protocol}");
        assert_eq!(answer.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(answer.headers()["sec-websocket-protocol"], protocol);
        let connection = TokioIo::new(hyper::upgrade::on(answer).await.expect("an upgrade"));
        let socket = WebSocketStream::from_raw_socket(connection, Role::Client, None).await;
        let said: Vec<Message> = socket.map(|message| message.expect("a message")).collect().await;
        let normal = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        assert_eq!(said, [begin, line, Message::Close(Some(normal))], "{protocol}");
    }
    let refused = client.send("GET", path, &upgrade("v5.channel.k8s.io"), "").await;
    assert_eq!(refused.code, 400, "{}", refused.text);
    let expected = ["GET /containerLogs/default/p/c 1 false"; 2];
    assert_eq!(*asked.lock().expect("a lock"), expected);
}

/// Relative links of a page work only below a slash.
#[tokio::test]
async fn the_root_of_a_proxied_server_ends_with_a_slash() {
    let cluster = Cluster::start().await;
    let client = Client::admin(&cluster);
    let asked = pod(&cluster, &client).await;
    for method in ["GET", "HEAD"] {
        let reply = client.send(method, "/api/v1/nodes/n1/proxy?x=1", &[], "").await;
        assert_eq!((reply.code, reply.header("location")), (301, "/api/v1/nodes/n1/proxy/?x=1"), "{method}");
    }
    assert_eq!(client.send("POST", "/api/v1/nodes/n1/proxy?x=1", &[], "").await.code, 200);
    assert_eq!(*asked.lock().expect("a lock"), ["POST /?x=1 1 false"]);
}

#[tokio::test]
async fn an_upgraded_connection_is_a_raw_stream() {
    let cluster = Cluster::start().await;
    let client = Client::admin(&cluster);
    let asked = pod(&cluster, &client).await;
    bind(&client, "bindings").await;
    let upgrade = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-protocol", "v5.channel.k8s.io"),
        ("authorization", "Basic x"),
    ];
    let path = "/api/v1/namespaces/default/pods/p/exec?container=c&command=sh&command=-c&command=a%20b&stdin=true&stdout=true&tty=false";
    let answer = client.open("GET", path, &upgrade, "").await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["sec-websocket-protocol"]),
        (101, &"v5.channel.k8s.io".parse().expect("a value"))
    );
    let mut stream = TokioIo::new(hyper::upgrade::on(answer).await.expect("an upgrade"));
    stream.write_all(b"ping").await.expect("written");
    let mut echoed = [0; 4];
    stream.read_exact(&mut echoed).await.expect("read");
    assert_eq!(&echoed, b"ping");
    let expected = ["GET /exec/default/p/c?input=1&output=1&command=sh&command=-c&command=a%20b 1 false"];
    assert_eq!(*asked.lock().expect("a lock"), expected);

    // Who may only read may not open a stream, whichever method asks for it.
    let role = json!({"metadata": {"name": "reader"}, "rules": [{"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get"]}]});
    client.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", &role).await;
    let binding = json!({"metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bob"}]});
    client.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await;
    let bob = Client::of(&cluster, Some(cluster.identity("bob", &[])));
    assert_eq!(bob.open("GET", path, &upgrade, "").await.status().as_u16(), 403);
}
