//! JSON for people to read: two blanks a level, as Go's `MarshalIndent` writes it. Text goes in in any pieces, and nothing is parsed.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};

/// A body of compact JSON, indented as it passes.
pub(crate) struct Indented<B> {
    inner: B,
    indent: Indent,
}

pub(crate) fn indented<B>(inner: B) -> Indented<B> {
    Indented { inner, indent: Indent::default() }
}

/// Where in a text one is.
#[derive(Default)]
struct Indent {
    depth: usize,
    in_text: bool,
    escaped: bool,
    /// Behind `{` or `[`, as long as it is not known whether something follows.
    opened: bool,
}

impl Indent {
    fn feed(&mut self, compact: &[u8], to: &mut Vec<u8>) {
        for byte in compact {
            match byte {
                _ if self.in_text => {
                    self.in_text = self.escaped || *byte != b'"';
                    self.escaped = !self.escaped && *byte == b'\\';
                    to.push(*byte);
                }
                b' ' | b'\n' | b'\r' | b'\t' => {}
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    if !std::mem::take(&mut self.opened) {
                        self.line(to);
                    }
                    to.push(*byte);
                }
                b',' => {
                    to.push(b',');
                    self.line(to);
                }
                b':' => to.extend_from_slice(b": "),
                _ => {
                    if std::mem::take(&mut self.opened) {
                        self.line(to);
                    }
                    to.push(*byte);
                    self.in_text = *byte == b'"';
                    if matches!(byte, b'{' | b'[') {
                        self.depth += 1;
                        self.opened = true;
                    }
                }
            }
        }
    }

    fn line(&self, to: &mut Vec<u8>) {
        to.push(b'\n');
        to.extend(std::iter::repeat_n(b' ', 2 * self.depth));
    }
}

impl<B: Body<Data = Bytes, Error = std::io::Error> + Unpin> Body for Indented<B> {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let this = &mut *self;
        loop {
            let Some(frame) = ready!(Pin::new(&mut this.inner).poll_frame(context)).transpose()? else {
                return Poll::Ready(None);
            };
            let Ok(data) = frame.into_data() else { continue };
            let mut text = Vec::with_capacity(data.len() * 2);
            this.indent.feed(&data, &mut text);
            if !text.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(text.into()))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(compact: &str, expected: &str) {
        for piece in [1, 3, 1_000] {
            let (mut indent, mut text) = (Indent::default(), Vec::new());
            compact.as_bytes().chunks(piece).for_each(|bytes| indent.feed(bytes, &mut text));
            assert_eq!(String::from_utf8_lossy(&text), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn compact_json_is_written_as_go_indents_it() {
        check("{\"a\":[],\"b\":{}}\n", "{\n  \"a\": [],\n  \"b\": {}\n}");
        check(
            r#"[1,"x:{,}\"[",{"a":null,"é":[[true]]}]"#,
            "[\n  1,\n  \"x:{,}\\\"[\",\n  {\n    \"a\": null,\n    \"é\": [\n      [\n        true\n      ]\n    ]\n  }\n]",
        );
        check(r#""\\""#, r#""\\""#);
    }

    #[test]
    fn what_is_indented_says_the_same() {
        let kinds: serde_json::Value = kinds::all()
            .iter()
            .map(|kind| serde_json::json!({"verbs": kind.verbs, "kind": kind.kind}))
            .collect();
        let mut text = Vec::new();
        Indent::default().feed(kinds.to_string().as_bytes(), &mut text);
        assert_eq!(String::from_utf8_lossy(&text), serde_json::to_string_pretty(&kinds).expect("JSON"));
    }
}
