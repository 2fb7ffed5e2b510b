//! Links in pages that come through a proxy: one that begins at the root of the server behind it begins at the proxy's path.
//!
//! ```text
//! GET /api/v1/namespaces/default/pods/web/proxy/     <a href="/next">  becomes
//!                                                    <a href="/api/v1/namespaces/default/pods/web/proxy/next">
//! ```
//!
//! <https://kubernetes.io/docs/tasks/access-application-cluster/access-cluster-services/>; the elements are those of upstream's `Transport`.

use std::error::Error;
use std::io;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderValue, header};
use http_body_util::{BodyExt, BodyStream, StreamBody};
use hyper::body::Frame;

use crate::repack::{Coding, Repack};
use crate::respond::Answer;

/// A tag longer than this is passed on as it is.
const TAG_BYTES: usize = 64 << 10;

/// The attributes that hold links, by element.
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["formaction", "src", "usemap"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Where a page comes through.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    /// The path of the proxy, without a slash at its end: `/api/v1/namespaces/default/pods/web/proxy`
    pub(crate) prefix: String,
    /// Who asks calls this server so: `127.0.0.1:6443`
    pub(crate) host: String,
    /// The server behind it: `10.0.0.7:80`
    pub(crate) backend: String,
}

impl Way {
    /// The link through the proxy; None: it is good as it is.
    fn through(&self, link: &str) -> Option<String> {
        let (place, host, path) = split(link.trim())?;
        if !host.is_empty() && host != self.host && host != self.backend || path.starts_with(&self.prefix) {
            return None;
        }
        // To the server behind, only the path is left; to this one, the place stays.
        let place = if host == self.host { place } else { "" };
        Some(format!("{place}{}{path}", self.prefix))
    }
}

/// `https://web:80/next` as (`https://web:80`, `web:80`, `/next`). None of what begins at no server's root.
fn split(link: &str) -> Option<(&str, &str, &str)> {
    let begin = match link.find("//") {
        Some(0) => 2,
        Some(at) if link[..at].ends_with(':') && !link[..at].contains('/') => at + 2,
        _ => return link.starts_with('/').then_some(("", "", link)),
    };
    let end = begin + link[begin..].find('/')?;
    Some((&link[..end], &link[begin..end], &link[end..]))
}

/// An answer with its redirect, and its links if it is a page, through the proxy.
pub(crate) fn rewritten(mut answer: Answer, way: Way) -> Answer {
    let text = |value: &HeaderValue| value.to_str().map(str::to_owned).ok();
    if let Some(place) = answer.headers().get(header::LOCATION).and_then(text) {
        if let Some(Ok(place)) = way.through(&place).map(HeaderValue::try_from) {
            answer.headers_mut().insert(header::LOCATION, place);
        }
        return answer;
    }
    let kind = answer.headers().get(header::CONTENT_TYPE).and_then(text).unwrap_or_default();
    let is_page = kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/html"));
    let coding = answer.headers().get(header::CONTENT_ENCODING).and_then(text).unwrap_or_default();
    let packed = Coding::named(&coding);
    if !is_page || (!coding.is_empty() && packed.is_none()) {
        // As upstream: what cannot be read is passed on.
        return answer;
    }
    answer.headers_mut().remove(header::CONTENT_LENGTH);
    answer.map(|body| {
        let mut page = Page { way, rest: Vec::new(), seen: Seen::default(), ends_with: None };
        let mut repack = packed.map(Repack::new);
        let is_packed = repack.is_some();
        let pieces = BodyStream::new(body).flat_map(move |frame| stream::iter(pieces(frame, is_packed)));
        let pieces = pieces.map(Some).chain(stream::iter([None])).then(move |piece| {
            let told = match (piece, &mut repack) {
                (None, None) => Ok(page.end()),
                (None, Some(repack)) => repack.end(&page.end()),
                (Some(Ok(data)), None) => Ok(page.feed(&data)),
                (Some(Ok(data)), Some(repack)) => repack.feed(&data, |plain| page.feed(plain)),
                (Some(Err(error)), _) => Err(error),
            };
            async {
                // Small pieces may be large pages, and nobody waits for all of one.
                tokio::task::yield_now().await;
                told.map(|told| Frame::data(Bytes::from(told)))
            }
        });
        StreamBody::new(pieces).boxed_unsync()
    })
}

/// What is read at a time of a frame of a body.
fn pieces<E: Into<Box<dyn Error + Send + Sync>>>(
    frame: Result<Frame<Bytes>, E>,
    is_packed: bool,
) -> Vec<io::Result<Bytes>> {
    match frame.map(Frame::into_data) {
        Ok(Ok(data)) if is_packed => Repack::pieces(data).map(Ok).collect(),
        Ok(Ok(data)) => vec![Ok(data)],
        Ok(Err(_)) => Vec::new(),
        Err(error) => vec![Err(io::Error::other(error))],
    }
}

/// A page that is being read.
struct Page {
    way: Way,
    /// The beginning of a tag, and how far its end was looked for.
    rest: Vec<u8>,
    seen: Seen,
    /// In the text of a script or a style, what ends it: `</script`
    ends_with: Option<&'static [u8]>,
}

impl Page {
    /// What can be told after some more bytes.
    fn feed(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.rest.extend_from_slice(bytes);
        let mut text = std::mem::take(&mut self.rest);
        let mut seen = std::mem::take(&mut self.seen);
        let mut told = Vec::with_capacity(text.len() + 256);
        let mut at = 0;
        loop {
            if let Some(end) = self.ends_with {
                let found = text[at..].windows(end.len()).position(|word| word.eq_ignore_ascii_case(end));
                let stop = found
                    .map_or_else(|| text.len().saturating_sub(end.len() - 1).max(at), |found| at + found);
                told.extend_from_slice(&text[at..stop]);
                at = stop;
                if found.is_none() {
                    self.rest = text[at..].to_vec();
                    return told;
                }
                self.ends_with = None;
            }
            let Some(begin) = text[at..].iter().position(|byte| *byte == b'<').map(|found| at + found) else {
                break;
            };
            told.extend_from_slice(&text[at..begin]);
            at = begin;
            let tag = &text[begin..];
            let Some(length) = length(tag, &mut seen) else {
                if tag.len() < TAG_BYTES {
                    // Whoever sends one byte at a time has each of them looked at once.
                    text.drain(..begin);
                    (self.rest, self.seen) = (text, seen);
                    return told;
                }
                break;
            };
            seen = Seen::default();
            at += length;
            self.tell(&tag[..length], &mut told);
        }
        told.extend_from_slice(&text[at..]);
        told
    }

    fn end(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.rest)
    }

    fn tell(&mut self, tag: &[u8], told: &mut Vec<u8>) {
        let name_bytes = tag[1..].iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
        let name = String::from_utf8_lossy(&tag[1..=name_bytes]).to_ascii_lowercase();
        self.ends_with = match &*name {
            "script" => Some(b"</script"),
            "style" => Some(b"</style"),
            _ => None,
        };
        let Some((_, wanted)) = LINKS.iter().find(|(element, _)| *element == name) else {
            return told.extend_from_slice(tag);
        };
        let mut at = 0;
        for (attribute, from, to) in attributes(tag, 1 + name_bytes) {
            let is_link = wanted.iter().any(|wanted| attribute.eq_ignore_ascii_case(wanted.as_bytes()));
            let link = std::str::from_utf8(&tag[from..to]).ok().filter(|_| is_link);
            if let Some(link) = link.and_then(|link| self.way.through(link)) {
                told.extend_from_slice(&tag[at..from]);
                told.extend_from_slice(link.as_bytes());
                at = to;
            }
        }
        told.extend_from_slice(&tag[at..]);
    }
}

/// How far the end of a tag was looked for.
#[derive(Clone, Copy, Default)]
struct Seen {
    bytes: usize,
    /// It is in a value that ends with this.
    quote: Option<u8>,
}

/// How long the tag is that a text begins with; None: its end is still to come, and is looked for from `seen` on then.
fn length(text: &[u8], seen: &mut Seen) -> Option<usize> {
    if text.starts_with(b"<!--") {
        // What was seen of a tag that was too short to be a comment is no end of one.
        let from = seen.bytes.saturating_sub(2).min(text.len());
        let end = text[from..].windows(3).position(|three| three == b"-->").map(|at| from + at + 3);
        seen.bytes = text.len();
        return end;
    }
    match text.get(1) {
        None => return None,
        Some(byte) if byte.is_ascii_alphabetic() || matches!(byte, b'/' | b'!' | b'?') => {}
        // A sign of comparison.
        Some(_) => return Some(1),
    }
    for (at, byte) in text.iter().enumerate().skip(seen.bytes) {
        match (seen.quote, byte) {
            (None, b'>') => return Some(at + 1),
            (None, b'"' | b'\'') if text[at - 1] == b'=' || text[at - 1].is_ascii_whitespace() => {
                seen.quote = Some(*byte);
            }
            (Some(open), close) if open == *close => seen.quote = None,
            _ => {}
        }
    }
    seen.bytes = text.len();
    None
}

/// The attributes of a tag behind its name: their names, and where their values are.
fn attributes(tag: &[u8], mut at: usize) -> Vec<(&[u8], usize, usize)> {
    let mut found = Vec::new();
    let skip =
        |from: usize, is: fn(u8) -> bool| from + tag[from..].iter().take_while(|byte| is(**byte)).count();
    let is_space = |byte: u8| byte.is_ascii_whitespace() || byte == b'/';
    while at < tag.len() {
        let begin = skip(at, is_space);
        let end = skip(begin, |byte| !byte.is_ascii_whitespace() && !matches!(byte, b'=' | b'>' | b'/'));
        let equals = skip(end, |byte| byte.is_ascii_whitespace());
        if tag.get(equals) != Some(&b'=') {
            // One without a value, or the tag's end.
            at = end.max(begin + 1);
            continue;
        }
        let mut from = skip(equals + 1, |byte| byte.is_ascii_whitespace());
        let to = match tag.get(from) {
            Some(b'"') => skip(from + 1, |byte| byte != b'"'),
            Some(b'\'') => skip(from + 1, |byte| byte != b'\''),
            _ => skip(from, |byte| !byte.is_ascii_whitespace() && byte != b'>'),
        };
        let is_quoted = matches!(tag.get(from), Some(b'"' | b'\''));
        from += usize::from(is_quoted);
        found.push((&tag[begin..end], from, to));
        at = to + 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way() -> Way {
        Way { prefix: "/p/proxy".into(), host: "here:6443".into(), backend: "10.0.0.7:80".into() }
    }

    fn through(page: &str, piece: usize) -> String {
        let mut read = Page { way: way(), rest: Vec::new(), seen: Seen::default(), ends_with: None };
        let mut told: Vec<u8> = page.as_bytes().chunks(piece).flat_map(|bytes| read.feed(bytes)).collect();
        told.extend(read.end());
        String::from_utf8(told).expect("text")
    }

    #[test]
    fn links_lead_through_the_proxy() {
        for (link, wanted) in [
            ("/next", Some("/p/proxy/next")),
            ("/", Some("/p/proxy/")),
            ("next", None),
            ("../next", None),
            ("#there", None),
            ("?a=/b", None),
            ("a//b", None),
            ("mailto:me", None),
            ("/p/proxy/next", None),
            ("http://10.0.0.7:80/next", Some("/p/proxy/next")),
            ("//10.0.0.7:80/next", Some("/p/proxy/next")),
            ("https://here:6443/next", Some("https://here:6443/p/proxy/next")),
            ("https://example.com/next", None),
            ("https://here:6443", None),
        ] {
            assert_eq!(way().through(link).as_deref(), wanted, "{link}");
        }
    }

    #[test]
    fn pages_are_read_in_any_pieces() {
        for (page, wanted) in [
            (r#"<pre><a href="/x">x</a>"#, r#"<pre><a href="/p/proxy/x">x</a>"#),
            ("<A class=b HREF='/x' >x", "<A class=b HREF='/p/proxy/x' >x"),
            ("<a href=/x>x", "<a href=/p/proxy/x>x"),
            ("<img alt='a > b' src = /i.png/>", "<img alt='a > b' src = /p/proxy/i.png/>"),
            ("<img alt src=/i>", "<img alt src=/p/proxy/i>"),
            ("1 < 2 <a title=\"/t\" href=\"/x\">", "1 < 2 <a title=\"/t\" href=\"/p/proxy/x\">"),
            ("<!-- <a href='/x'> --><p href='/x'>", "<!-- <a href='/x'> --><p href='/x'>"),
            (
                "<script src='/s'>'<a href=\"/x\">'; a<b</SCRIPT><a href='/x'>",
                "<script src='/p/proxy/s'>'<a href=\"/x\">'; a<b</SCRIPT><a href='/p/proxy/x'>",
            ),
            ("<a href='/x", "<a href='/x"),
            ("<a", "<a"),
            ("<", "<"),
            ("", ""),
        ] {
            for piece in [1, 2, 7, 1_000] {
                assert_eq!(through(page, piece), wanted, "in pieces of {piece}");
            }
        }
    }

    /// As many bytes as the tag has, and not as many for each of them.
    #[test]
    fn a_tag_in_small_pieces_is_looked_at_once() {
        let tag = format!("<a title=\"{}", ">".repeat(TAG_BYTES / 2));
        let mut seen = Seen::default();
        for end in 1..=tag.len() {
            let before = seen.bytes;
            assert_eq!(length(&tag.as_bytes()[..end], &mut seen), None);
            assert!(end < 2 || (seen.bytes, before) == (end, if end == 2 { 0 } else { end - 1 }));
        }
        assert_eq!(seen.quote, Some(b'"'));
        assert_eq!(through(&tag, 1), tag);
    }

    #[tokio::test]
    async fn only_pages_and_redirects_change() {
        let page = "<a href='/x'>";
        for (name, value, wanted) in [
            ("content-type", "text/html; charset=utf-8", "<a href='/p/proxy/x'>"),
            ("content-type", "application/json", page),
            ("content-encoding", "br", page),
            ("location", "/next", page),
        ] {
            let mut answer = crate::respond::bytes(http::StatusCode::OK, "text/html", page);
            answer.headers_mut().insert(name, HeaderValue::from_static(value));
            let answer = rewritten(answer, way());
            let place =
                answer.headers().get("location").map(|place| place.to_str().expect("text").to_owned());
            assert_eq!(place.as_deref(), (name == "location").then_some("/p/proxy/next"));
            let told = answer.into_body().collect().await.expect("a body").to_bytes();
            assert_eq!(told, wanted, "{name}: {value}");
        }
    }

    #[tokio::test]
    async fn a_compressed_page_stays_compressed() {
        let packed = crate::compress::bytes(b"<a href='/x'>").expect("packed");
        let mut answer = crate::respond::bytes(http::StatusCode::OK, "text/html", packed);
        answer.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let told = rewritten(answer, way()).into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(crate::compress::unpack(&told).expect("packed"), b"<a href='/p/proxy/x'>");
    }

    #[tokio::test]
    async fn others_have_their_turn_while_a_page_is_unpacked() {
        let packed = crate::compress::bytes(&vec![0; 4 << 20]).expect("packed");
        let pieces = Repack::pieces(packed.clone()).count();
        let mut answer = crate::respond::bytes(http::StatusCode::OK, "text/html", packed);
        answer.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        let told = rewritten(answer, way()).into_body().collect();
        let mut turns = 0;
        let other = async {
            loop {
                tokio::task::yield_now().await;
                turns += 1;
            }
        };
        tokio::select! {
            biased;
            told = told => assert!(told.is_ok()),
            () = other => {}
        }
        assert!(pieces > 4 && turns >= pieces, "{turns} turns in {pieces} pieces");
    }

    #[test]
    fn a_tag_without_end_is_passed_on() {
        let page = format!("<a href='{}", "x".repeat(2 * TAG_BYTES));
        assert_eq!(through(&page, 1_000), page);
    }
}
