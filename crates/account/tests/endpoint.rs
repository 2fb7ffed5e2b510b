//! The endpoint over real connections.

use std::sync::Arc;
use std::time::Duration;

use account::{Account, Answers, Identity, Limits, Names, Server};
use aws::credentials::AccessKey;
use aws::state;
use object::Time;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use store::{Memory, Store};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

async fn account(store: Arc<dyn Store>) -> Arc<Account> {
    let identity = Identity { account: "123456789012".into(), region: "us-east-1".into() };
    let random = |bytes: &mut [u8]| {
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), bytes).expect("bytes")
    };
    let now = || Time::from_secs(1_795_000_000);
    Account::open(identity, store, Arc::new(now), Arc::new(random)).await.expect("opened")
}

struct Endpoint {
    server: Server,
    address: std::net::SocketAddr,
    authority: CertificateDer<'static>,
    task: tokio::task::JoinHandle<()>,
}

async fn endpoint(limits: Limits) -> Endpoint {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(vec!["localhost".into()]).expect("parameters");
    let certificate = params.self_signed(&key).expect("signed").der().clone();
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .expect("a certificate");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let account = account(Arc::new(Memory::new())).await;
    let server = Server::new(account, Names::loopback_and(&[]), Arc::new(tls), limits, Answers::Calls);
    let task = tokio::spawn({
        let server = server.clone();
        async move { server.serve(listener).await }
    });
    Endpoint { server, address, authority: certificate, task }
}

impl Endpoint {
    async fn end(self) {
        self.server.stop();
        self.task.await.expect("no panic");
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connected")
    }

    async fn connect_tls(&self) -> tokio_rustls::client::TlsStream<TcpStream> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.authority.clone()).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from("localhost").expect("a name");
        connector.connect(name, self.connect().await).await.expect("a handshake")
    }

    /// What comes back for these bytes, to the end of the connection.
    async fn say(&self, bytes: &[u8]) -> String {
        say(self.connect().await, bytes).await
    }
}

async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> String {
    // A server that has heard enough may close before it has read all.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn post(headers: &str, body: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
        .into_bytes()
}

#[tokio::test]
async fn http_and_https_share_a_port() {
    let endpoint = endpoint(Limits::default()).await;
    let request = post("Host: 127.0.0.1\r\n", "Action=GetCallerIdentity&Version=2011-06-15");
    let plain = endpoint.say(&request).await;
    assert!(
        plain.starts_with("HTTP/1.1 403") && plain.contains("<Code>MissingAuthenticationToken</Code>"),
        "{plain}"
    );

    let encrypted = say(endpoint.connect_tls().await, &request).await;
    assert!(encrypted.contains("<Code>MissingAuthenticationToken</Code>"), "{encrypted}");
    endpoint.end().await;
}

#[tokio::test]
async fn pages_and_rebound_names_are_kept_out() {
    let endpoint = endpoint(Limits::default()).await;
    for headers in [
        "Host: evil.example\r\n",
        "Host: 127.0.0.1\r\nOrigin: https://evil.example\r\n",
        "Host: 127.0.0.1\r\nSec-Fetch-Site: cross-site\r\n",
    ] {
        let answer = endpoint.say(&post(headers, "Action=GetCallerIdentity")).await;
        assert!(
            answer.starts_with("HTTP/1.1 403") && answer.contains("this endpoint does not answer"),
            "{answer}"
        );
    }
    endpoint.end().await;
}

#[tokio::test]
async fn what_is_too_much_is_refused() {
    let limits = Limits {
        body_bytes: 100,
        head_bytes: 8_192,
        patience: Duration::from_millis(200),
        ..Limits::default()
    };
    let endpoint = endpoint(limits).await;
    let host = "Host: 127.0.0.1\r\n";
    let large = endpoint.say(&post(host, &"a".repeat(101))).await;
    assert!(large.starts_with("HTTP/1.1 413") && large.contains("RequestEntityTooLarge"), "{large}");
    let long_head = endpoint.say(&post(&format!("{host}X: {}\r\n", "a".repeat(20_000)), "")).await;
    assert!(long_head.starts_with("HTTP/1.1 431"), "{long_head}");
    // One that never ends its head, its body or its handshake is not waited for.
    assert_eq!(endpoint.say(b"POST / HTTP/1.1\r\n").await, "");
    let slow = endpoint.say(format!("POST / HTTP/1.1\r\n{host}Content-Length: 9\r\n\r\na").as_bytes()).await;
    assert!(slow.starts_with("HTTP/1.1 400") && slow.contains("did not come in time"), "{slow}");
    assert_eq!(endpoint.say(&[0x16]).await, "");
    for garbage in
        [&b"\x00\x01\x02"[..], b"\x16\x03\x01\xff\xff nothing", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"]
    {
        let answer = endpoint.say(garbage).await;
        assert!(!answer.contains("200"), "{answer}");
    }
    endpoint.end().await;
}

#[tokio::test]
async fn a_listener_that_is_full_keeps_nobody_from_another() {
    let endpoint = endpoint(Limits { connections: 1, ..Limits::default() }).await;
    // As long as the one connection of the first listener is held, its next is not answered.
    let held = endpoint.connect().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let second = tokio::spawn({
        let server = endpoint.server.clone();
        async move { server.serve(listener).await }
    });
    let stream = TcpStream::connect(address).await.expect("connected");
    let answer = say(stream, &post("Host: 127.0.0.1\r\n", "")).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    drop(held);
    endpoint.end().await;
    second.await.expect("no panic");
}

/// Long enough for a loaded machine, and shorter than what would end these connections otherwise, if anything does.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(15), what).await.expect("it ends within 15 s")
}

#[tokio::test]
async fn who_asks_nothing_is_not_kept() {
    let endpoint = endpoint(Limits { patience: Duration::from_millis(200), ..Limits::default() }).await;
    assert_eq!(soon(say(endpoint.connect_tls().await, b"")).await, "", "nothing behind the handshake");
    assert_eq!(soon(say(endpoint.connect_tls().await, b"PRI")).await, "", "a version that is left open");
    // HTTP/2, to its settings: what comes back are the server's.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    assert!(!soon(endpoint.say(preface)).await.contains("HTTP"));
    // One that has asked may be used again, and is not kept for ever either.
    let twice = "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n\r\n".repeat(2);
    let answers = soon(say(endpoint.connect_tls().await, twice.as_bytes())).await;
    assert_eq!(answers.matches("HTTP/1.1 403").count(), 2, "{answers}");
    endpoint.end().await;
}

#[tokio::test]
async fn an_endpoint_that_is_full_can_be_stopped() {
    let limits = Limits {
        connections: 1,
        patience: Duration::from_secs(600),
        drain: Duration::from_millis(10),
        ..Limits::default()
    };
    let endpoint = endpoint(limits).await;
    let mut held = endpoint.connect_tls().await;
    soon(endpoint.end()).await;
    // And lets go of who held it.
    let _ = soon(held.read(&mut [0])).await;
}

#[tokio::test]
async fn a_source_has_its_part_of_the_places() {
    let endpoint = endpoint(Limits { connections: 3, connections_per_source: 2, ..Limits::default() }).await;
    let held = (endpoint.connect_tls().await, endpoint.connect_tls().await);
    let request = post("Host: 127.0.0.1\r\n", "");
    assert_eq!(soon(endpoint.say(&request)).await, "");
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.2:0".parse().expect("an address")).expect("bound");
    let other = socket.connect(endpoint.address).await.expect("connected");
    assert!(soon(say(other, &request)).await.starts_with("HTTP/1.1 4"));
    drop(held);
    // Places come back when their connections have ended, which takes a moment.
    let answered = async {
        while endpoint.say(&request).await.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    soon(answered).await;
    endpoint.end().await;
}

#[tokio::test]
async fn an_account_keeps_what_it_began_with() {
    let store: Arc<dyn Store> = Arc::new(Memory::new());
    let first = account(store.clone()).await;
    let key = aws::genesis::admin_key(&first.snapshot()).expect("a key");
    assert!(key.0.starts_with("AKIA") && key.0.len() == 20 && key.1.secret.len() == 40);
    let again = account(store).await;
    assert!(aws::genesis::admin_key(&again.snapshot()) == Some(key));
}

/// Many change one record at once, each on what it has read: none is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_on_what_is_not_true_any_more_is_decided_anew() {
    let account = account(Arc::new(Memory::new())).await;
    let key = AccessKey {
        user_name: "counted".into(),
        arn: String::new(),
        user_id: String::new(),
        secret: String::new(),
        is_active: true,
        created: Time::default(),
    };
    let made = account.change(|_| {
        let mut changes = state::Changes::default();
        changes.create("", "AKIACOUNTED", &key);
        changes
    });
    made.await.expect("made");
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let account = account.clone();
            tokio::spawn(async move {
                account
                    .change(|context| {
                        let mut changes = state::Changes::default();
                        let mut kept =
                            state::get::<AccessKey>(context.state, "", "AKIACOUNTED").expect("there");
                        kept.record.created = kept.record.created.plus_secs(1);
                        changes.update(&kept);
                        changes
                    })
                    .await
            })
        })
        .collect();
    for task in tasks {
        assert!(task.await.expect("no panic").expect("changed"));
    }
    let kept = state::get::<AccessKey>(&account.snapshot(), "", "AKIACOUNTED").expect("there");
    assert_eq!(kept.record.created, Time::from_secs(16));
}
