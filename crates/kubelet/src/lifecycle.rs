//! Hooks and probes: what a handler of the spec means for a container at an address.

use plan::pod::Handler;
use serde_json::Value;

use crate::pod::{Container, Handler as Spec, Header};

/// None if the handler is empty or its port cannot be told.
pub fn handler(spec: &Spec, container: &Container, pod_ip: &str) -> Option<Handler> {
    if let Some(exec) = &spec.exec {
        return Some(Handler::Exec(exec.command.clone()));
    }
    if let Some(http) = &spec.http_get {
        return Some(Handler::Http {
            host: if http.host.is_empty() { pod_ip.to_owned() } else { http.host.clone() },
            port: port(&http.port, container)?,
            path: if http.path.starts_with('/') { http.path.clone() } else { format!("/{}", http.path) },
            https: http.scheme.eq_ignore_ascii_case("https"),
            headers: http
                .http_headers
                .iter()
                .map(|Header { name, value }| (name.clone(), value.clone()))
                .collect(),
        });
    }
    if let Some(tcp) = &spec.tcp_socket {
        let host = if tcp.host.is_empty() { pod_ip.to_owned() } else { tcp.host.clone() };
        return Some(Handler::Tcp { host, port: port(&tcp.port, container)? });
    }
    if let Some(grpc) = &spec.grpc {
        let service = grpc.service.clone().unwrap_or_default();
        return Some(Handler::Grpc { host: pod_ip.to_owned(), port: grpc.port, service });
    }
    spec.sleep.as_ref().map(|sleep| Handler::Sleep { seconds: sleep.seconds })
}

/// A number, or the name of one of the container's ports.
fn port(value: &Value, container: &Container) -> Option<u16> {
    match value {
        Value::Number(number) => u16::try_from(number.as_u64()?).ok(),
        Value::String(name) => container
            .ports
            .iter()
            .find(|port| port.name == *name)
            .map(|port| port.container_port)
            .or_else(|| name.parse().ok()),
        _ => None,
    }
}
