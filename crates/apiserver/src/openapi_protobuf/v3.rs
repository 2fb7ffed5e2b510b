//! `openapi.v3`: gnostic's messages, all of them, since the documents of extension API servers may have any.

use super::Message;
use super::Shape::{Any, Double, Each, Flag, Integer, One, OrFlag, OrReference, Scalar, Text, Within};

pub(super) static DOCUMENT: Message = Message::of(
    9,
    &[
        ("openapi", 1, Text),
        ("info", 2, One(&INFO)),
        ("servers", 3, Each(&One(&SERVER))),
        ("paths", 4, One(&PATHS)),
        ("components", 5, One(&COMPONENTS)),
        ("security", 6, Each(&One(&SECURITY))),
        ("tags", 7, Each(&One(&TAG))),
        ("externalDocs", 8, One(&EXTERNAL_DOCS)),
    ],
);

static INFO: Message = Message::of(
    7,
    &[
        ("title", 1, Text),
        ("description", 2, Text),
        ("termsOfService", 3, Text),
        ("contact", 4, One(&CONTACT)),
        ("license", 5, One(&LICENSE)),
        ("version", 6, Text),
        ("summary", 8, Text),
    ],
);
static CONTACT: Message = Message::of(4, &[("name", 1, Text), ("url", 2, Text), ("email", 3, Text)]);
static LICENSE: Message = Message::of(3, &[("name", 1, Text), ("url", 2, Text)]);
static TAG: Message =
    Message::of(4, &[("name", 1, Text), ("description", 2, Text), ("externalDocs", 3, One(&EXTERNAL_DOCS))]);
static EXTERNAL_DOCS: Message = Message::of(3, &[("description", 1, Text), ("url", 2, Text)]);

static SERVER: Message =
    Message::of(4, &[("url", 1, Text), ("description", 2, Text), ("variables", 3, One(&VARIABLES))]);
static VARIABLES: Message = Message::map(&One(&VARIABLE));
static VARIABLE: Message =
    Message::of(4, &[("enum", 1, Each(&Text)), ("default", 2, Text), ("description", 3, Text)]);

/// A `Callback` is the same message.
static PATHS: Message = Message { fields: &[], others: Some((1, &One(&PATH_ITEM))), extensions: 2 };

static PATH_ITEM: Message = Message::of(
    14,
    &[
        ("$ref", 1, Text),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("get", 4, One(&OPERATION)),
        ("put", 5, One(&OPERATION)),
        ("post", 6, One(&OPERATION)),
        ("delete", 7, One(&OPERATION)),
        ("options", 8, One(&OPERATION)),
        ("head", 9, One(&OPERATION)),
        ("patch", 10, One(&OPERATION)),
        ("trace", 11, One(&OPERATION)),
        ("servers", 12, Each(&One(&SERVER))),
        ("parameters", 13, Each(&OrReference(&PARAMETER))),
    ],
);

static OPERATION: Message = Message::of(
    13,
    &[
        ("tags", 1, Each(&Text)),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("externalDocs", 4, One(&EXTERNAL_DOCS)),
        ("operationId", 5, Text),
        ("parameters", 6, Each(&OrReference(&PARAMETER))),
        ("requestBody", 7, OrReference(&REQUEST_BODY)),
        ("responses", 8, One(&RESPONSES)),
        ("callbacks", 9, One(&CALLBACKS)),
        ("deprecated", 10, Flag),
        ("security", 11, Each(&One(&SECURITY))),
        ("servers", 12, Each(&One(&SERVER))),
    ],
);

static PARAMETER: Message = Message::of(
    14,
    &[
        ("name", 1, Text),
        ("in", 2, Text),
        ("description", 3, Text),
        ("required", 4, Flag),
        ("deprecated", 5, Flag),
        ("allowEmptyValue", 6, Flag),
        ("style", 7, Text),
        ("explode", 8, Flag),
        ("allowReserved", 9, Flag),
        ("schema", 10, OrReference(&SCHEMA)),
        ("example", 11, Any),
        ("examples", 12, One(&EXAMPLES)),
        ("content", 13, One(&MEDIA_TYPES)),
    ],
);

static REQUEST_BODY: Message =
    Message::of(4, &[("description", 1, Text), ("content", 2, One(&MEDIA_TYPES)), ("required", 3, Flag)]);

static RESPONSES: Message = Message {
    fields: &[("default", 1, OrReference(&RESPONSE))],
    others: Some((2, &OrReference(&RESPONSE))),
    extensions: 3,
};
static RESPONSE: Message = Message::of(
    5,
    &[
        ("description", 1, Text),
        ("headers", 2, One(&HEADERS)),
        ("content", 3, One(&MEDIA_TYPES)),
        ("links", 4, One(&LINKS)),
    ],
);

static MEDIA_TYPES: Message = Message::map(&One(&MEDIA_TYPE));
static MEDIA_TYPE: Message = Message::of(
    5,
    &[
        ("schema", 1, OrReference(&SCHEMA)),
        ("example", 2, Any),
        ("examples", 3, One(&EXAMPLES)),
        ("encoding", 4, One(&ENCODINGS)),
    ],
);
static ENCODINGS: Message = Message::map(&One(&ENCODING));
static ENCODING: Message = Message::of(
    6,
    &[
        ("contentType", 1, Text),
        ("headers", 2, One(&HEADERS)),
        ("style", 3, Text),
        ("explode", 4, Flag),
        ("allowReserved", 5, Flag),
    ],
);

static HEADERS: Message = Message::map(&OrReference(&HEADER));
static HEADER: Message = Message::of(
    12,
    &[
        ("description", 1, Text),
        ("required", 2, Flag),
        ("deprecated", 3, Flag),
        ("allowEmptyValue", 4, Flag),
        ("style", 5, Text),
        ("explode", 6, Flag),
        ("allowReserved", 7, Flag),
        ("schema", 8, OrReference(&SCHEMA)),
        ("example", 9, Any),
        ("examples", 10, One(&EXAMPLES)),
        ("content", 11, One(&MEDIA_TYPES)),
    ],
);

static EXAMPLES: Message = Message::map(&OrReference(&EXAMPLE));
static EXAMPLE: Message = Message::of(
    5,
    &[("summary", 1, Text), ("description", 2, Text), ("value", 3, Any), ("externalValue", 4, Text)],
);

static LINKS: Message = Message::map(&OrReference(&LINK));
static LINK: Message = Message::of(
    7,
    &[
        ("operationRef", 1, Text),
        ("operationId", 2, Text),
        ("parameters", 3, Within(1, &Any)),
        ("requestBody", 4, Within(1, &Any)),
        ("description", 5, Text),
        ("server", 6, One(&SERVER)),
    ],
);

static CALLBACKS: Message = Message::map(&OrReference(&PATHS));

static COMPONENTS: Message = Message::of(
    10,
    &[
        ("schemas", 1, One(&SCHEMAS)),
        ("responses", 2, One(&ANY_RESPONSES)),
        ("parameters", 3, One(&PARAMETERS)),
        ("examples", 4, One(&EXAMPLES)),
        ("requestBodies", 5, One(&REQUEST_BODIES)),
        ("headers", 6, One(&HEADERS)),
        ("securitySchemes", 7, One(&SECURITY_SCHEMES)),
        ("links", 8, One(&LINKS)),
        ("callbacks", 9, One(&CALLBACKS)),
    ],
);
static ANY_RESPONSES: Message = Message::map(&OrReference(&RESPONSE));
static PARAMETERS: Message = Message::map(&OrReference(&PARAMETER));
static REQUEST_BODIES: Message = Message::map(&OrReference(&REQUEST_BODY));
static SECURITY_SCHEMES: Message = Message::map(&OrReference(&SECURITY_SCHEME));

/// What is asked of who calls: the scopes of each scheme.
static SECURITY: Message = Message::map(&Within(1, &Each(&Text)));
static SECURITY_SCHEME: Message = Message::of(
    9,
    &[
        ("type", 1, Text),
        ("description", 2, Text),
        ("name", 3, Text),
        ("in", 4, Text),
        ("scheme", 5, Text),
        ("bearerFormat", 6, Text),
        ("flows", 7, One(&FLOWS)),
        ("openIdConnectUrl", 8, Text),
    ],
);
static FLOWS: Message = Message::of(
    5,
    &[
        ("implicit", 1, One(&FLOW)),
        ("password", 2, One(&FLOW)),
        ("clientCredentials", 3, One(&FLOW)),
        ("authorizationCode", 4, One(&FLOW)),
    ],
);
static FLOW: Message = Message::of(
    5,
    &[
        ("authorizationUrl", 1, Text),
        ("tokenUrl", 2, Text),
        ("refreshUrl", 3, Text),
        ("scopes", 4, One(&TEXTS)),
    ],
);
static TEXTS: Message = Message::map(&Text);

/// `Properties` are the same message.
static SCHEMAS: Message = Message::map(&OrReference(&SCHEMA));

static SCHEMA: Message = Message::of(
    36,
    &[
        ("nullable", 1, Flag),
        ("discriminator", 2, One(&DISCRIMINATOR)),
        ("readOnly", 3, Flag),
        ("writeOnly", 4, Flag),
        ("xml", 5, One(&XML)),
        ("externalDocs", 6, One(&EXTERNAL_DOCS)),
        ("example", 7, Any),
        ("deprecated", 8, Flag),
        ("title", 9, Text),
        ("multipleOf", 10, Double),
        ("maximum", 11, Double),
        ("exclusiveMaximum", 12, Flag),
        ("minimum", 13, Double),
        ("exclusiveMinimum", 14, Flag),
        ("maxLength", 15, Integer),
        ("minLength", 16, Integer),
        ("pattern", 17, Text),
        ("maxItems", 18, Integer),
        ("minItems", 19, Integer),
        ("uniqueItems", 20, Flag),
        ("maxProperties", 21, Integer),
        ("minProperties", 22, Integer),
        ("required", 23, Each(&Text)),
        ("enum", 24, Each(&Any)),
        ("type", 25, Text),
        ("allOf", 26, Each(&OrReference(&SCHEMA))),
        ("oneOf", 27, Each(&OrReference(&SCHEMA))),
        ("anyOf", 28, Each(&OrReference(&SCHEMA))),
        ("not", 29, One(&SCHEMA)),
        ("items", 30, Within(1, &OrReference(&SCHEMA))),
        ("properties", 31, One(&SCHEMAS)),
        ("additionalProperties", 32, OrFlag(&OrReference(&SCHEMA))),
        ("default", 33, Scalar),
        ("description", 34, Text),
        ("format", 35, Text),
    ],
);
static DISCRIMINATOR: Message = Message::of(3, &[("propertyName", 1, Text), ("mapping", 2, One(&TEXTS))]);
static XML: Message = Message::of(
    6,
    &[
        ("name", 1, Text),
        ("namespace", 2, Text),
        ("prefix", 3, Text),
        ("attribute", 4, Flag),
        ("wrapped", 5, Flag),
    ],
);
