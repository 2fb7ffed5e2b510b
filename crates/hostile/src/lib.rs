//! What comes from outside, and what reads it: each target takes any bytes, and must neither panic nor hang.
//!
//! The tests give every target its examples and what fuzzing has found (`found/<target>/`); `make fuzz` gives it more (`fuzz/`).

mod api;
mod disk;
mod identity;
mod image;
mod object;
mod stream;
mod text;

/// A reader of something that comes from outside.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// It works on a disk: tests try it with fewer inputs.
    pub is_slow: bool,
    /// Inputs that go far, for fuzzing to begin with.
    pub examples: &'static [&'static [u8]],
}

#[rustfmt::skip]
pub const TARGETS: &[Target] = &[
    Target { name: "api_request", run: api::request, is_slow: false, examples: api::EXAMPLES },
    Target { name: "aws_policy", run: text::aws_policy, is_slow: false, examples: &[br#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*","Condition":{"StringLike":{"aws:username":"a*"}}}]}"#] },
    Target { name: "cel", run: text::cel, is_slow: false, examples: &[b"self.all(x, x > 0 && x.matches('a+'))", b"has(self.a) ? [1, 2.5e3, b'\\xff', {'k': r'v'}] : null"] },
    Target { name: "certificate", run: identity::certificate, is_slow: false, examples: &[b"\x30\x0a\x30\x03\x02\x01\x01\x30\0\x03\x01\0"] },
    Target { name: "certificate_request", run: identity::certificate_request, is_slow: false, examples: &[b"-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n"] },
    Target { name: "conversion_review", run: object::conversion_review, is_slow: false, examples: &[br#"{"apiVersion":"apiextensions.k8s.io/v1","kind":"ConversionReview","response":{"uid":"u","result":{"status":"Success"},"convertedObjects":[{"apiVersion":"g.io/v2","kind":"K","metadata":{"name":"a","labels":{"a":"b"}}}]}}"#] },
    Target { name: "cron", run: text::cron, is_slow: false, examples: &[b"*/5 1-3,7 * jan-mar 1#2", b"@hourly", b"TZ=Europe/Rome 0 0 29 2 *"] },
    Target { name: "dns", run: stream::dns, is_slow: false, examples: &[b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x01a\x01b\x03svc\x07cluster\x05local\0\0\x01\0\x01"] },
    Target { name: "image_archive", run: image::archive, is_slow: true, examples: &[b"\x1f\x8b\x08\0\0\0\0\0\0\x03", b"\x28\xb5\x2f\xfd\0\0"] },
    Target { name: "image_layer", run: image::layer, is_slow: true, examples: image::LAYERS },
    Target { name: "jwt", run: identity::token, is_slow: false, examples: &[b"eyJhbGciOiJFUzI1NiIsImtpZCI6IngifQ.eyJpc3MiOiJlIiwiZXhwIjo5OTk5OTk5OTk5fQ.AAAA"] },
    Target { name: "object_cbor", run: object::cbor, is_slow: false, examples: &[b"\x01\xd9\xd9\xf7\xa2\x48metadata\xa1\x44name\x41a\x44data\xa1\x41k\xd6\x41v"] },
    Target { name: "object_json", run: object::json, is_slow: false, examples: object::EXAMPLES },
    Target { name: "object_protobuf", run: object::protobuf, is_slow: false, examples: &[b"\x01k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x0f\x0a\x03\x0a\x01a\x12\x08\x0a\x01k\x12\x03v\xc3\xa9"] },
    Target { name: "object_yaml", run: object::yaml, is_slow: false, examples: &[b"\x01metadata: {name: a}\ndata:\n  k: |\n    v\n  l: &x 'y'\n  m: *x\n"] },
    Target { name: "patch", run: object::patch, is_slow: false, examples: object::PATCHES },
    Target { name: "quantity", run: text::quantity, is_slow: false, examples: &[b"1.5Gi", b"-12e3", b"100m", b"0.000000001"] },
    Target { name: "selector", run: text::selector, is_slow: false, examples: &[b"a in (b,c),d!=e,!f", "a,\u{e9}".as_bytes(), b"metadata.name=a,spec.nodeName!=b\\,c"] },
    Target { name: "spdy", run: stream::spdy, is_slow: false, examples: &[b"\x80\x03\0\x01\0\0\0\x0a\0\0\0\x01\0\0\0\0\0\0", b"\0\0\0\x01\x01\0\0\x02hi"] },
    Target { name: "store_files", run: disk::recover, is_slow: false, examples: disk::EXAMPLES },
    Target { name: "websocket", run: stream::websocket, is_slow: false, examples: &[b"\x82\x83\0\0\0\0\0ab", b"\x81\x82abcd\x51\x09", b"\x88\x80\0\0\0\0"] },
];

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
