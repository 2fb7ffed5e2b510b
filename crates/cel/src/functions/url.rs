//! Kubernetes' URL library. <https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-url-library>

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{opaque, overload, text};
use crate::error::EvalError;
use crate::function::Ty::{Bool, List, Map, Opaque as Of, String};
use crate::function::{Cost, Function, Ty};
use crate::value::{Key, Opaque, Text, Value};

const URL: Ty = Of("kubernetes.URL");

pub const FUNCTIONS: &[Function] = &[
    Function {
        name: "getEscapedPath",
        overloads: &[overload!(member (URL) -> String, Cost::One, |args| part(args, |url| &url.path))],
    },
    Function {
        name: "getHost",
        overloads: &[overload!(member (URL) -> String, Cost::One, |args| part(args, |url| &url.host))],
    },
    Function {
        name: "getHostname",
        overloads: &[overload!(member (URL) -> String, Cost::One, |args| {
            Ok(opaque::<Url>(args, 0)?.host_and_port().0.to_owned().into())
        })],
    },
    Function {
        name: "getPort",
        overloads: &[overload!(member (URL) -> String, Cost::One, |args| {
            Ok(opaque::<Url>(args, 0)?.host_and_port().1.to_owned().into())
        })],
    },
    Function {
        name: "getQuery",
        overloads: &[overload!(member (URL) -> Map(&String, &List(&String)), Cost::One, |args| {
            Ok(opaque::<Url>(args, 0)?.query_values())
        })],
    },
    Function {
        name: "getScheme",
        overloads: &[overload!(member (URL) -> String, Cost::One, |args| part(args, |url| &url.scheme))],
    },
    Function {
        name: "isURL",
        overloads: &[
            overload!((String) -> Bool, Cost::Walk(&[0]), |args| Ok(Value::Bool(Url::read(text(args, 0)?).is_some()))),
        ],
    },
    Function {
        name: "url",
        overloads: &[overload!((String) -> URL, Cost::Walk(&[0]), |args| {
            let text = text(args, 0)?;
            Url::read(text)
                .map(Value::opaque)
                .ok_or_else(|| EvalError::new(format!("URL parse error during conversion from string: {text:?}")))
        })],
    },
];

/// An absolute URL or an absolute path, as Go's `url.ParseRequestURI` reads it.
#[derive(Debug, PartialEq)]
struct Url {
    scheme: std::string::String,
    /// With the port, as written.
    host: std::string::String,
    /// Escaped.
    path: std::string::String,
    query: std::string::String,
}

impl Opaque for Url {
    fn type_name(&self) -> &'static str {
        "kubernetes.URL"
    }
    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref() == Some(self)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn part<'a>(args: &[Value<'a>], of: fn(&Url) -> &std::string::String) -> Result<Value<'a>, EvalError> {
    Ok(of(opaque(args, 0)?).clone().into())
}

impl Url {
    fn read(text: &str) -> Option<Self> {
        if text.is_empty() || text.chars().any(|c| c.is_control() || c == ' ') || !has_valid_escapes(text) {
            return None;
        }
        let (scheme, rest) = scheme(text)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (host, path) = match rest.strip_prefix("//") {
            Some(authority) if !scheme.is_empty() => {
                let end = authority.find('/').unwrap_or(authority.len());
                let (authority, path) = authority.split_at(end);
                (authority.rsplit_once('@').map_or(authority, |(_, host)| host), path)
            }
            // Without a scheme only a path is taken; with one, something must follow its colon from the root.
            _ if rest.starts_with('/') => ("", rest),
            _ => return None,
        };
        if !is_host(host) {
            return None;
        }
        let owned = |text: &str| text.to_owned();
        Some(Self {
            scheme: scheme.to_ascii_lowercase(),
            host: owned(host),
            path: owned(path),
            query: owned(query),
        })
    }

    /// Without the brackets of an IPv6 address.
    fn host_and_port(&self) -> (&str, &str) {
        if let Some(rest) = self.host.strip_prefix('[') {
            let (host, port) = rest.split_once(']').unwrap_or((rest, ""));
            return (host, port.strip_prefix(':').unwrap_or(""));
        }
        self.host.rsplit_once(':').unwrap_or((&self.host, ""))
    }

    fn query_values<'a>(&self) -> Value<'a> {
        let mut values: BTreeMap<std::string::String, Vec<Value>> = BTreeMap::new();
        for pair in self.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if let (Some(name), Some(value)) = (unescaped(name), unescaped(value)) {
                values.entry(name).or_default().push(value.into());
            }
        }
        let entries = values
            .into_iter()
            .map(|(name, values)| (Key::String(Text::Owned(name.into())), values.into_iter().collect()));
        Value::Map(Arc::new(entries.collect()))
    }
}

/// A scheme and what follows its colon; a text without one is all rest.
fn scheme(text: &str) -> Option<(&str, &str)> {
    for (at, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if at > 0 => {}
            ':' if at == 0 => return None,
            ':' => return Some((&text[..at], &text[at + 1..])),
            _ => return Some(("", text)),
        }
    }
    Some(("", text))
}

fn has_valid_escapes(text: &str) -> bool {
    text.split('%').skip(1).all(|rest| {
        let digits = rest.as_bytes();
        digits.len() >= 2 && digits[..2].iter().all(u8::is_ascii_hexdigit)
    })
}

fn is_host(host: &str) -> bool {
    let port = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port))
                if address.split('%').next().unwrap_or_default().parse::<std::net::Ipv6Addr>().is_ok() =>
            {
                port
            }
            _ => return false,
        },
        None => host.find(':').map_or("", |at| &host[at..]),
    };
    port.is_empty()
        || port.strip_prefix(':').is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn unescaped(text: &str) -> Option<std::string::String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                u8::try_from(digit(rest.next())? * 16 + digit(rest.next())?).ok()?
            }
            other => other,
        });
    }
    std::string::String::from_utf8(bytes).ok()
}
