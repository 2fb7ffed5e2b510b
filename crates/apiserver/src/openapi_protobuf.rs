//! OpenAPI v2 as protobuf: what older kubectls, client-go's `OpenAPISchema()` and with it Argo CD ask for.
//!
//! The messages are those of gnostic's `OpenAPIv2.proto`; what a message has no field for is a vendor extension.

use serde_json::Value;

/// The media types under which clients ask for it.
pub(crate) const MEDIA_TYPES: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
];

/// A message in the making.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            #[expect(clippy::cast_possible_truncation, reason = "seven bits at a time")]
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        #[expect(clippy::cast_possible_truncation, reason = "below 0x80")]
        self.0.push(value as u8);
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.varint(u64::from(field << 3 | 2));
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn text(&mut self, field: u32, text: &str) {
        if !text.is_empty() {
            self.bytes(field, text.as_bytes());
        }
    }

    fn flag(&mut self, field: u32, flag: bool) {
        if flag {
            self.varint(u64::from(field << 3));
            self.varint(1);
        }
    }

    fn number(&mut self, field: u32, value: &Value) {
        if let Some(number) = value.as_u64() {
            self.varint(u64::from(field << 3));
            self.varint(number);
        }
    }

    fn double(&mut self, field: u32, value: &Value) {
        if let Some(number) = value.as_f64() {
            self.varint(u64::from(field << 3 | 1));
            self.0.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn message(&mut self, field: u32, message: &Message) {
        self.bytes(field, &message.0);
    }
}

/// A whole document.
pub(crate) fn encode(document: &Value) -> Vec<u8> {
    let mut message = Message::default();
    message.text(1, text(document, "swagger"));
    let mut info = Message::default();
    info.text(1, text(&document["info"], "title"));
    info.text(2, text(&document["info"], "version"));
    message.message(2, &info);
    let mut paths = Message::default();
    for (path, item) in members(&document["paths"]) {
        paths.message(2, &named(path, &path_item(item)));
    }
    message.message(8, &paths);
    message.message(9, &named_schemas(&document["definitions"]));
    message.0
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_default()
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn named(name: &str, value: &Message) -> Message {
    let mut message = Message::default();
    message.text(1, name);
    message.message(2, value);
    message
}

/// `Definitions` and `Properties` are the same message.
fn named_schemas(schemas: &Value) -> Message {
    let mut message = Message::default();
    for (name, one) in members(schemas) {
        message.message(1, &named(name, &schema(one)));
    }
    message
}

/// `Any`: JSON is YAML.
fn any(value: &Value) -> Message {
    let mut message = Message::default();
    message.text(2, &value.to_string());
    message
}

fn extensions(field: u32, of: &Value, message: &mut Message) {
    for (name, value) in members(of).filter(|(name, _)| name.starts_with("x-")) {
        message.message(field, &named(name, &any(value)));
    }
}

fn schema(of: &Value) -> Message {
    let mut message = Message::default();
    message.text(1, text(of, "$ref"));
    message.text(2, text(of, "format"));
    message.text(3, text(of, "title"));
    message.text(4, text(of, "description"));
    if let Some(default) = of.get("default") {
        message.message(5, &any(default));
    }
    for (field, member) in [(6, "multipleOf"), (7, "maximum"), (9, "minimum")] {
        message.double(field, &of[member]);
    }
    for (field, member) in [(8, "exclusiveMaximum"), (10, "exclusiveMinimum"), (16, "uniqueItems")] {
        message.flag(field, of[member] == true);
    }
    for (field, member) in [
        (11, "maxLength"),
        (12, "minLength"),
        (14, "maxItems"),
        (15, "minItems"),
        (17, "maxProperties"),
        (18, "minProperties"),
    ] {
        message.number(field, &of[member]);
    }
    message.text(13, text(of, "pattern"));
    for name in of["required"].as_array().into_iter().flatten() {
        message.text(19, name.as_str().unwrap_or_default());
    }
    for value in of["enum"].as_array().into_iter().flatten() {
        message.message(20, &any(value));
    }
    match &of["additionalProperties"] {
        Value::Bool(allowed) => {
            let mut item = Message::default();
            item.flag(2, *allowed);
            message.message(21, &item);
        }
        Value::Object(_) => {
            let mut item = Message::default();
            item.message(1, &schema(&of["additionalProperties"]));
            message.message(21, &item);
        }
        _ => {}
    }
    if let Some(name) = of["type"].as_str() {
        let mut item = Message::default();
        item.text(1, name);
        message.message(22, &item);
    }
    if of["items"].is_object() {
        let mut item = Message::default();
        item.message(1, &schema(&of["items"]));
        message.message(23, &item);
    }
    for part in of["allOf"].as_array().into_iter().flatten() {
        message.message(24, &schema(part));
    }
    if of["properties"].is_object() {
        message.message(25, &named_schemas(&of["properties"]));
    }
    extensions(31, of, &mut message);
    message
}

fn path_item(item: &Value) -> Message {
    let mut message = Message::default();
    for (field, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if item[method].is_object() {
            message.message(field, &operation(&item[method]));
        }
    }
    message
}

fn operation(of: &Value) -> Message {
    let mut message = Message::default();
    message.text(5, text(of, "operationId"));
    for parameter in of["parameters"].as_array().into_iter().flatten() {
        let mut query = Message::default();
        query.flag(1, parameter["required"] == true);
        query.text(2, text(parameter, "in"));
        query.text(4, text(parameter, "name"));
        query.text(6, text(parameter, "type"));
        query.flag(20, parameter["uniqueItems"] == true);
        // ParametersItem.parameter.non_body_parameter.query_parameter_sub_schema
        message.message(8, &within(1, &within(2, &within(3, &query))));
    }
    let mut responses = Message::default();
    for (code, answer) in members(&of["responses"]) {
        let mut response = Message::default();
        response.text(1, text(answer, "description"));
        responses.message(1, &named(code, &within(1, &response)));
    }
    message.message(9, &responses);
    extensions(13, of, &mut message);
    message
}

fn within(field: u32, inner: &Message) -> Message {
    let mut message = Message::default();
    message.message(field, inner);
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_document_in_bytes() {
        let document = json!({
            "swagger": "2.0", "info": {"title": "K", "version": "v1"}, "paths": {},
            "definitions": {"a.B": {"type": "object", "required": ["c"], "properties": {"c": {"$ref": "#/x"}}, "x-k": [1]}},
        });
        let schema = [
            &b"\x9a\x01\x01c"[..],                               // required
            b"\xb2\x01\x08\x0a\x06object",                       // type
            b"\xca\x01\x0c\x0a\x0a\x0a\x01c\x12\x05\x0a\x03#/x", // properties
            b"\xfa\x01\x0c\x0a\x03x-k\x12\x05\x12\x03[1]",       // extension
        ]
        .concat();
        let mut wanted = b"\x0a\x032.0\x12\x07\x0a\x01K\x12\x02v1\x42\x00".to_vec();
        let mut named = b"\x0a\x03a.B\x12".to_vec();
        named.push(u8::try_from(schema.len()).expect("short"));
        named.extend(&schema);
        wanted.extend([
            0x4a,
            u8::try_from(named.len() + 2).expect("short"),
            0x0a,
            u8::try_from(named.len()).expect("short"),
        ]);
        wanted.extend(&named);
        assert_eq!(encode(&document), wanted);
    }
}
