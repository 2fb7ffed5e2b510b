//! The EKS Pod Identity agent of every node.
//!
//! On EKS it is a pod on each node. Here it is in the VPC's router, as instance metadata is: no node has keys of its own to lose, and the
//! address says whose agent is asked. `aws::eks_auth::agent` decides; nothing is cached, so that an association that is changed or deleted
//! holds from the next request on.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use account::Account;
use aws::eks_auth::agent::{Asked, Node, Told, answer};
use aws::state::Changes;
use aws::{Context, Ids, World};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

use super::connections::{self, BoxError, PATIENCE};
use super::metadata;
use crate::pki;

/// The agents of one VPC's nodes.
#[derive(Clone)]
pub struct Service {
    account: Arc<Account>,
    vpc: String,
}

impl Service {
    pub fn new(account: Arc<Account>, vpc: &str) -> Self {
        Self { account, vpc: vpc.to_owned() }
    }

    /// Serves until dropped.
    pub async fn serve(self, listener: TcpListener) {
        let vpc = self.vpc.clone();
        let converse = move |socket, peer| self.clone().converse(socket, peer);
        connections::each(listener, "Pod Identity agent", vpc, converse).await;
    }

    async fn converse(self, socket: TcpStream, peer: SocketAddr) -> Result<(), BoxError> {
        // Who is no node of a cluster with the add-on finds nobody here.
        let Some(node) = self.node(peer.ip()) else { return Ok(()) };
        let service = service_fn(move |request: Request<Incoming>| {
            let (service, node) = (self.clone(), node.clone());
            async move {
                Ok::<_, Infallible>(service.answer(&node, request.uri().path(), request.headers()).await)
            }
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(PATIENCE);
        Ok(http.serve_connection(TokioIo::new(socket), service).await?)
    }

    /// The node whose address it is, its own or of a pod on it, if its cluster has the agent.
    fn node(&self, address: IpAddr) -> Option<Node> {
        let state = self.account.snapshot();
        let instance = metadata::asker(&state, &self.vpc, address)?;
        Node::of(&instance).filter(|node| node.has_agent(&state))
    }

    async fn answer(&self, node: &Node, path: &str, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let asked = Asked { path, host: text(header::HOST), authorization: text(header::AUTHORIZATION) };
        let told = Mutex::new(None);
        let read = |context: &mut Context| {
            let Context { account, region, now, state, .. } = *context;
            let world = World { account, region, now, state };
            let given = answer(&world, &mut Ids::new(pki::random()), node, &asked);
            *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(given);
            Changes::default()
        };
        let failed = self.account.change(read).await.err();
        let told = told.into_inner().unwrap_or_else(PoisonError::into_inner);
        let unread = || failed.map(|failure| failure.to_string()).unwrap_or_default();
        respond(told.unwrap_or_else(|| Told { status: 500, is_json: false, body: unread() }))
    }
}

fn respond(told: Told) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(told.body)));
    *response.status_mut() = StatusCode::from_u16(told.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let kind = if told.is_json { "application/json" } else { "text/plain; charset=utf-8" };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
