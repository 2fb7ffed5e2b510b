//! `openapi.v2`: of gnostic's messages those that the document has.

use super::Message;
use super::Shape::{Any, Double, Each, Flag, Integer, One, OrFlag, Text, Within};

pub(super) static DOCUMENT: Message = Message::of(
    16,
    &[
        ("swagger", 1, Text),
        ("info", 2, One(&INFO)),
        ("paths", 8, One(&PATHS)),
        ("definitions", 9, One(&SCHEMAS)),
    ],
);

static INFO: Message = Message::of(7, &[("title", 1, Text), ("version", 2, Text), ("description", 3, Text)]);

static PATHS: Message = Message { fields: &[], others: Some((2, &One(&PATH_ITEM))), extensions: 1 };

static PATH_ITEM: Message = Message::of(
    10,
    &[
        ("get", 2, One(&OPERATION)),
        ("put", 3, One(&OPERATION)),
        ("post", 4, One(&OPERATION)),
        ("delete", 5, One(&OPERATION)),
        ("patch", 8, One(&OPERATION)),
    ],
);

static OPERATION: Message = Message::of(
    13,
    &[
        ("operationId", 5, Text),
        // A `ParametersItem`, in it a `Parameter` and a `NonBodyParameter`, and in that one of a query.
        ("parameters", 8, Each(&Within(1, &Within(2, &Within(3, &One(&PARAMETER)))))),
        ("responses", 9, One(&RESPONSES)),
    ],
);

static PARAMETER: Message = Message::of(
    23,
    &[
        ("required", 1, Flag),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("type", 6, Text),
        ("uniqueItems", 20, Flag),
    ],
);

static RESPONSES: Message =
    Message { fields: &[], others: Some((1, &Within(1, &One(&RESPONSE)))), extensions: 2 };

static RESPONSE: Message = Message::of(5, &[("description", 1, Text)]);

/// `Definitions` and `Properties` are the same message.
static SCHEMAS: Message = Message::map(&One(&SCHEMA));

static SCHEMA: Message = Message::of(
    31,
    &[
        ("$ref", 1, Text),
        ("format", 2, Text),
        ("title", 3, Text),
        ("description", 4, Text),
        ("default", 5, Any),
        ("multipleOf", 6, Double),
        ("maximum", 7, Double),
        ("exclusiveMaximum", 8, Flag),
        ("minimum", 9, Double),
        ("exclusiveMinimum", 10, Flag),
        ("maxLength", 11, Integer),
        ("minLength", 12, Integer),
        ("pattern", 13, Text),
        ("maxItems", 14, Integer),
        ("minItems", 15, Integer),
        ("uniqueItems", 16, Flag),
        ("maxProperties", 17, Integer),
        ("minProperties", 18, Integer),
        ("required", 19, Each(&Text)),
        ("enum", 20, Each(&Any)),
        ("additionalProperties", 21, OrFlag(&One(&SCHEMA))),
        ("type", 22, Within(1, &Text)),
        ("items", 23, Within(1, &One(&SCHEMA))),
        ("allOf", 24, Each(&One(&SCHEMA))),
        ("properties", 25, One(&SCHEMAS)),
        ("externalDocs", 29, One(&EXTERNAL_DOCS)),
        ("example", 30, Any),
    ],
);

static EXTERNAL_DOCS: Message = Message::of(3, &[("description", 1, Text), ("url", 2, Text)]);
