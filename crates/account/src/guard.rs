//! Who may speak to a listener of the loopback address: nobody whom a browser was talked into it by a page of elsewhere.
//!
//! A name that was rebound to the loopback address shows in `Host`, a foreign page in `Origin` or `Sec-Fetch-Site`.

use http::{HeaderMap, Request, header};

/// The names under which an endpoint answers, without ports, in lower case.
#[derive(Clone, Debug)]
pub struct Names(Vec<String>);

impl Names {
    /// The loopback names, and those given.
    pub fn loopback_and(others: &[String]) -> Self {
        let loopback = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned);
        Self(loopback.into_iter().chain(others.iter().map(|name| name.to_ascii_lowercase())).collect())
    }

    fn has(&self, authority: &str) -> bool {
        let name = host_of(authority).to_ascii_lowercase();
        self.0.contains(&name)
    }
}

/// `127.0.0.1` of `127.0.0.1:4566`, `[::1]` of `[::1]:4566`.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// Why a request is not listened to; none if it is.
pub fn refuse<B>(names: &Names, request: &Request<B>) -> Option<&'static str> {
    let headers = request.headers();
    let mut hosts = headers.get_all(header::HOST).iter().map(|value| value.to_str().unwrap_or_default());
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    let host = hosts.next().or(authority).unwrap_or_default();
    if !names.has(host) || hosts.next().is_some() || authority.is_some_and(|authority| !names.has(authority))
    {
        return Some("this endpoint does not answer under that name: use 127.0.0.1 or localhost");
    }
    if let Some(origin) = headers.get(header::ORIGIN) {
        // Of this very endpoint: its own name and port.
        let origin = origin.to_str().unwrap_or_default();
        let place = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        if place != Some(host) {
            return Some("this endpoint does not answer to web pages");
        }
    }
    match fetch_site(headers) {
        "" | "none" | "same-origin" => None,
        _ => Some("this endpoint does not answer to web pages"),
    }
}

fn fetch_site(headers: &HeaderMap) -> &str {
    headers.get("sec-fetch-site").map_or("", |value| value.to_str().unwrap_or("unreadable"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_refused(headers: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let names = Names::loopback_and(&["169.254.170.2".into()]);
        refuse(&names, &request.body(()).expect("a request")).is_some()
    }

    #[test]
    fn only_known_names_and_no_pages() {
        let host = ("host", "127.0.0.1:4566");
        for headers in [
            vec![host],
            vec![("host", "LOCALHOST:1")],
            vec![("host", "[::1]:4566")],
            vec![("host", "[::1]")],
            vec![("host", "169.254.170.2")],
            vec![host, ("origin", "http://127.0.0.1:4566")],
            vec![host, ("sec-fetch-site", "none")],
        ] {
            assert!(!is_refused(&headers), "{headers:?}");
        }
        for headers in [
            vec![],
            vec![("host", "")],
            vec![("host", "evil.example:4566")],
            vec![("host", "127.0.0.1.evil.example")],
            vec![("host", "localhost.evil.example:4566")],
            vec![host, ("host", "evil.example")],
            vec![host, ("origin", "https://evil.example")],
            vec![host, ("origin", "http://127.0.0.1:8080")],
            vec![host, ("origin", "http://localhost:4566")],
            vec![host, ("origin", "null")],
            vec![host, ("origin", "")],
            vec![host, ("sec-fetch-site", "cross-site")],
            vec![host, ("sec-fetch-site", "same-site")],
        ] {
            assert!(is_refused(&headers), "{headers:?}");
        }
    }
}
