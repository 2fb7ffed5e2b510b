//! HTTP proxies between this machine and registries, by the conventions of `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`
//! as Go programs (docker, containerd) read them.

use std::fmt;
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::transport::Fault;

/// The head of a proxy's answer to CONNECT.
const HEAD_BYTES: usize = 8 << 10;

/// `http://[user:password@]host[:port]` for each scheme of registries, and the hosts that are reached without.
#[derive(Clone, Default)]
pub struct Proxies {
    pub https: Option<String>,
    pub http: Option<String>,
    /// `*`, a host or domain (`example.com`, `.example.com`), an address or a range of addresses.
    pub none: Vec<String>,
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URLs may hold passwords.
        let given = |url: &Option<String>| url.is_some();
        f.debug_struct("Proxies")
            .field("https", &given(&self.https))
            .field("http", &given(&self.http))
            .field("none", &self.none)
            .finish()
    }
}

pub(super) struct Proxy {
    pub(super) host: String,
    pub(super) port: u16,
    /// The value of `Proxy-Authorization`.
    pub(super) authorization: Option<String>,
}

impl Proxies {
    /// What the environment of this process says; lower-case names win.
    pub fn from_env() -> Proxies {
        let of = |name: &str| {
            let lower = std::env::var(name.to_ascii_lowercase()).ok();
            lower.or_else(|| std::env::var(name).ok()).filter(|value| !value.is_empty())
        };
        let none = of("NO_PROXY").unwrap_or_default();
        let none =
            none.split(',').map(|entry| entry.trim().to_string()).filter(|entry| !entry.is_empty()).collect();
        Proxies { https: of("HTTPS_PROXY"), http: of("HTTP_PROXY"), none }
    }

    /// The proxy to use for a host; never for this machine itself.
    pub(super) fn of(&self, tls: bool, host: &str, port: u16) -> Result<Option<Proxy>, Fault> {
        let Some(url) = (if tls { &self.https } else { &self.http }) else { return Ok(None) };
        let ip: Option<IpAddr> = host.parse().ok();
        let own = host == "localhost" || ip.is_some_and(|ip| ip.is_loopback());
        if own || self.none.iter().any(|entry| spares(entry, host, ip, port)) {
            return Ok(None);
        }
        parse(url).map(Some).ok_or(Fault::BadProxy)
    }
}

fn parse(url: &str) -> Option<Proxy> {
    let whole = if url.contains("://") { url.to_string() } else { format!("http://{url}") };
    let uri: Uri = whole.parse().ok()?;
    if uri.scheme_str() != Some("http") {
        return None;
    }
    let authority = uri.authority()?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_string();
    let user = authority.as_str().rsplit_once('@').map(|(user, _)| unescape(user));
    let authorization = user.map(|user| format!("Basic {}", STANDARD.encode(user)));
    Some(Proxy { host, port: authority.port_u16().unwrap_or(80), authorization })
}

/// `%41` is `A`: passwords with `@` or `:` are written so.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let byte = after.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match (first, byte) {
            (b'%', Some(byte)) => {
                out.push(byte);
                rest = &after[2..];
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

fn spares(entry: &str, host: &str, ip: Option<IpAddr>, port: u16) -> bool {
    if entry == "*" {
        return true;
    }
    if let Some((range, bits)) = entry.split_once('/') {
        return matches!((range.parse(), bits.parse(), ip), (Ok(range), Ok(bits), Some(ip)) if in_range(ip, range, bits));
    }
    if let Ok(only) = entry.parse::<IpAddr>() {
        return ip == Some(only);
    }
    let name = match entry.rsplit_once(':') {
        Some((name, only)) if only == port.to_string() => name,
        Some(_) => return false,
        None => entry,
    };
    let name = name.trim_start_matches("*").to_ascii_lowercase();
    let host = host.to_ascii_lowercase();
    match name.strip_prefix('.') {
        Some(_) => host.ends_with(&name),
        None => host == name || host.strip_suffix(&name).is_some_and(|rest| rest.ends_with('.')),
    }
}

fn in_range(ip: IpAddr, range: IpAddr, bits: u32) -> bool {
    let top = |value: u128, width: u32| if bits == 0 { 0 } else { value >> width.saturating_sub(bits) };
    match (ip, range) {
        (IpAddr::V4(ip), IpAddr::V4(range)) => {
            top(ip.to_bits().into(), 32) == top(range.to_bits().into(), 32)
        }
        (IpAddr::V6(ip), IpAddr::V6(range)) => top(ip.to_bits(), 128) == top(range.to_bits(), 128),
        _ => false,
    }
}

/// Asks a proxy for a connection to a host (RFC 9110, 9.3.6).
pub(super) async fn tunnel(
    mut stream: TcpStream,
    proxy: &Proxy,
    host: &str,
    port: u16,
) -> Result<TcpStream, Fault> {
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_string() };
    let authorization = proxy.authorization.as_ref();
    let authorization =
        authorization.map(|value| format!("Proxy-Authorization: {value}\r\n")).unwrap_or_default();
    let request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{authorization}\r\n");
    stream.write_all(request.as_bytes()).await.map_err(Fault::Proxy)?;
    let mut head = Vec::new();
    // One byte at a time: what follows the head belongs to the tunnel.
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= HEAD_BYTES {
            return Err(Fault::ProxyRefused("an endless answer".to_string()));
        }
        head.push(stream.read_u8().await.map_err(Fault::Proxy)?);
    }
    let line = String::from_utf8_lossy(&head);
    let line = line.lines().next().unwrap_or_default();
    match line.split(' ').nth(1) {
        Some(status) if status.len() == 3 && status.starts_with('2') => Ok(stream),
        _ => Err(Fault::ProxyRefused(line.chars().filter(|c| !c.is_control()).take(200).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_spared_as_no_proxy_says() {
        let cases = [
            ("example.com", "example.com", true),
            ("example.com", "a.example.com", true),
            ("example.com", "notexample.com", false),
            (".example.com", "example.com", false),
            (".example.com", "a.example.com", true),
            ("*.example.com", "a.Example.com", true),
            ("example.com:5000", "example.com", true),
            ("example.com:5001", "example.com", false),
            ("10.0.0.0/8", "10.1.2.3", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("10.0.0.0/33", "10.1.2.3", false),
            ("0.0.0.0/0", "11.1.2.3", true),
            ("fd00::/8", "fd12::1", true),
            ("10.1.2.3", "10.1.2.3", true),
            ("*", "anything", true),
            ("x", "localhost", true),
            ("x", "127.0.0.1", true),
            ("x", "r.io", false),
        ];
        for (entry, host, spared) in cases {
            let proxies = Proxies {
                https: Some("http://proxy:3128".into()),
                http: None,
                none: vec![entry.to_string()],
            };
            assert_eq!(proxies.of(true, host, 5000).ok().unwrap().is_none(), spared, "{entry} for {host}");
            assert!(proxies.of(false, host, 5000).ok().unwrap().is_none());
        }
    }

    #[test]
    fn urls_of_proxies_are_read() {
        let cases = [
            ("http://proxy:3128", Some(("proxy", 3128, None))),
            ("proxy", Some(("proxy", 80, None))),
            ("http://u:p%40q@[::1]:1/", Some(("::1", 1, Some("Basic dTpwQHE=")))),
            ("https://proxy", None),
            ("socks5://proxy", None),
        ];
        for (url, want) in cases {
            let proxy = parse(url);
            let found =
                proxy.as_ref().map(|proxy| (proxy.host.as_str(), proxy.port, proxy.authorization.as_deref()));
            assert_eq!(found, want, "{url}");
        }
        let shown =
            format!("{:?}", Proxies { https: Some("http://u:secret@proxy".into()), ..Proxies::default() });
        assert!(!shown.contains("secret"));
    }
}
