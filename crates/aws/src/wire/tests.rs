//! Properties of the protocols over all models, and the protocols that no service speaks yet over models made for it.

use http::Request;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::Ids;
use crate::model::{self, Kind, Shape};

/// Random choices out of one seed.
struct Choices(Ids);

impl Choices {
    fn of(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        Self(Ids::new(bytes))
    }

    fn below(&mut self, end: u64) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0.bytes()[..8]);
        u64::from_be_bytes(bytes) % end
    }

    /// Some input of a shape, in our form. What is empty cannot be told from what is not there in a form, and is not made.
    fn value(&mut self, model: &Model, shape: &Shape, depth: usize) -> Value {
        match &shape.kind {
            Kind::Structure { members, .. } => {
                let mut object = serde_json::Map::new();
                for member in members {
                    let of = model.shape(member.of);
                    let is_deep =
                        matches!(of.kind, Kind::Structure { .. } | Kind::List { .. } | Kind::Map { .. });
                    if self.below(3) == 0 && (depth < 4 || !is_deep) {
                        let value = self.value(model, of, depth + 1);
                        if !is_empty(&value) {
                            object.insert(member.name.to_owned(), value);
                        }
                    }
                }
                Value::Object(object)
            }
            Kind::List { of, .. } => {
                let count = 1 + self.below(3);
                let items = (0..count).map(|_| self.value(model, model.shape(*of), depth + 1));
                Value::Array(items.filter(|item| !is_empty(item)).collect())
            }
            Kind::Map { value, .. } => {
                let count = 1 + self.below(3);
                let entries = (0..count).map(|number| {
                    (format!("k{number}.&= ü"), self.value(model, model.shape(*value), depth + 1))
                });
                Value::Object(entries.filter(|(_, value)| !is_empty(value)).collect())
            }
            Kind::String | Kind::Enum(_) => {
                const TEXTS: [&str; 6] = ["a", "x y", "ü+%&=", "<a>\"'&amp;\n", "1", "true"];
                json!(TEXTS[self.below(6) as usize])
            }
            Kind::Blob => json!("AAECAw=="),
            Kind::Integer => json!(self.below(1 << 40) as i64 - (1 << 39)),
            Kind::Double => json!(self.below(1 << 20) as f64 / 8.0 - 1e3),
            Kind::Boolean => json!(self.below(2) == 0),
            Kind::Timestamp(_) => json!("2026-11-23T04:22:43Z"),
        }
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(serde_json::Map::is_empty)
}

/// An input as a client of a query protocol writes it.
fn form(model: &Model, shape: &Shape, value: &Value, prefix: &str, pairs: &mut Vec<(String, String)>) {
    let is_ec2 = model.protocol == Protocol::Ec2;
    let join = |name: &str| if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
    match (&shape.kind, value) {
        (Kind::Structure { members, .. }, value) => {
            for member in members.iter().filter(|member| !value[member.name].is_null()) {
                let wire = member.wire.unwrap_or(member.name);
                let mut letters = wire.chars();
                let first = letters.next().unwrap_or_default().to_ascii_uppercase();
                let capital = format!("{first}{}", letters.as_str());
                let name = if is_ec2 { member.query.unwrap_or(&capital) } else { wire };
                form(model, model.shape(member.of), &value[member.name], &join(name), pairs);
            }
        }
        (Kind::List { of, wire, .. }, Value::Array(items)) => {
            for (number, item) in (1..).zip(items) {
                let name = if is_ec2 {
                    format!("{number}")
                } else {
                    format!("{}.{number}", wire.unwrap_or("member"))
                };
                form(model, model.shape(*of), item, &join(&name), pairs);
            }
        }
        (Kind::Map { value: of, .. }, Value::Object(map)) => {
            for (number, (key, value)) in (1..).zip(map) {
                pairs.push((join(&format!("entry.{number}.key")), key.clone()));
                form(model, model.shape(*of), value, &join(&format!("entry.{number}.value")), pairs);
            }
        }
        (_, Value::String(text)) => pairs.push((prefix.to_owned(), text.clone())),
        (_, other) => pairs.push((prefix.to_owned(), other.to_string())),
    }
}

fn post(uri: &str, body: impl Into<Bytes>) -> Request<Bytes> {
    let mut request = Request::new(body.into());
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = uri.parse().expect("a URI");
    request
}

/// What comes of a request: the operation's name and its input.
fn read(model: &'static Model, request: &Request<Bytes>) -> Result<(&'static str, Value), Fault> {
    let asked = operation(model, request)?;
    let input = input(model, &asked, request)?;
    Ok((asked.operation.name, input))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// What a client of awsQuery or ec2Query writes is what is read, for every operation.
    #[test]
    fn forms_are_read_as_they_were_meant(seed: u64) {
        let mut choices = Choices::of(seed);
        for name in ["autoscaling", "ec2", "iam", "sts"] {
            let model = model::of(name).expect("a model");
            let place = choices.below(model.operations.len() as u64) as usize;
            let operation = &model.operations[place];
            let Some(shape) = operation.input.map(|id| model.shape(id)) else { continue };
            let meant = choices.value(model, shape, 0);
            let mut pairs = vec![("Action".to_owned(), operation.name.to_owned()), ("Version".to_owned(), model.api_version.to_owned())];
            form(model, shape, &meant, "", &mut pairs);
            let pairs: Vec<_> = pairs.iter().map(|(key, value)| format!("{}={}", percent::encode(key, b""), percent::encode(value, b""))).collect();
            let seen = read(model, &post("/", pairs.join("&")));
            prop_assert_eq!(seen, Ok((operation.name, meant)));
        }
    }

    /// What a client of restJson puts into a body is what is read.
    #[test]
    fn bodies_are_read_as_they_were_meant(seed: u64) {
        let mut choices = Choices::of(seed);
        let model = model::of("eks").expect("a model");
        let place = choices.below(model.operations.len() as u64) as usize;
        let shape = model.operations[place].input.map(|id| model.shape(id)).expect("an input");
        let meant = choices.value(model, shape, 0);
        let sent = json::write(model, shape, &meant, crate::model::TimestampFormat::Unix);
        let body = sent.to_string();
        let seen = json::body(model, shape, body.as_bytes()).expect("read");
        for member in shape.members().iter().filter(|member| member.location == crate::model::Location::Body) {
            prop_assert_eq!(&seen[member.name], &meant[member.name], "{}", member.name);
        }
    }

    /// Whatever is answered is well-formed XML.
    #[test]
    fn answers_in_xml_are_well_formed(seed: u64) {
        let mut choices = Choices::of(seed);
        for name in ["autoscaling", "ec2", "iam", "sts"] {
            let model = model::of(name).expect("a model");
            let operation = &model.operations[choices.below(model.operations.len() as u64) as usize];
            let Some(shape) = operation.output.map(|id| model.shape(id)) else { continue };
            let value = choices.value(model, shape, 0);
            let response = output(model, operation, &value, "r-1", false);
            prop_assert!(xml::is_well_formed(response.body()), "{}", String::from_utf8_lossy(response.body()));
        }
    }

    /// Nothing that is sent ends the readers.
    #[test]
    fn whatever_is_sent_is_read_or_refused(
        text in "[ -~]{0,40}",
        keys in prop::collection::vec("(Filter|TagSpecification|Tags|member|entry|key|value|[0-9]{1,12}|[a-zA-Z]{1,8})(\\.(1|2|member|entry|Tag|Value|4294967296)){0,5}", 0..6),
        action in 0_usize..1_000,
    ) {
        for name in model::names() {
            let model = model::of(name).expect("a model");
            let operation = &model.operations[action % model.operations.len()];
            let form: Vec<_> = keys.iter().map(|key| format!("{key}={}", percent::encode(&text, b""))).collect();
            let body = format!("Action={}&{}", operation.name, form.join("&"));
            for request in [post("/", body.clone()), post("/", text.clone()), post("/clusters", text.clone())] {
                if let Ok((name, seen)) = read(model, &request) {
                    let shape = model.operation(name).and_then(|operation| operation.input);
                    let _ = shape.map(|shape| validate(model, model.shape(shape), &seen));
                }
            }
        }
    }
}

const XML: &str = "service x 1 rest-xml namespace=https://x/
operation Get GET /{Bucket}/{Key+} in=GetIn out=GetOut
operation Put POST /{Bucket}/{Key+}?tagging in=PutIn
structure GetIn
 Bucket! Text in=uri as=Bucket
 Key! Text in=uri as=Key
 Since Time in=header as=If-Modified-Since
 Depth Number in=querystring as=depth
structure GetOut payload=Body
 Body Data
 When Time in=header as=Last-Modified
 Meta Meta in=headers as=x-meta-
structure PutIn payload=Tagging
 Bucket! Text in=uri as=Bucket
 Key! Text in=uri as=Key
 Tagging! Tagging as=Tagging
structure Tagging
 TagSet Tags
 Flat Flat
structure Tag
 Key! Text
 Value! Text
list Flat Number as=N flat
list Tags Tag as=Tag
map Meta Text Text
string Text
integer Number
blob Data
timestamp Time
";

fn made(text: &'static str) -> &'static Model {
    Box::leak(Box::new(model::of_text(text)))
}

#[test]
fn rest_xml_has_members_in_all_places() {
    let model = made(XML);
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = "/b/c/d%20e?depth=3".parse().expect("a URI");
    request.headers_mut().insert("if-modified-since", "2026-11-23T04:22:43Z".parse().expect("a value"));
    let seen = read(model, &request).expect("read");
    let expected = json!({"Bucket": "b", "Key": "c/d e", "Depth": 3, "Since": "2026-11-23T04:22:43Z"});
    assert_eq!(seen, ("Get", expected));

    let body = "<Tagging xmlns='x'><TagSet><Tag><Key>a</Key><Value>1 &amp; 2</Value></Tag></TagSet><N>1</N><N>2</N></Tagging>";
    let (name, seen) = read(model, &post("/b/c?tagging", body)).expect("read");
    let tagging = json!({"TagSet": [{"Key": "a", "Value": "1 & 2"}], "Flat": [1, 2]});
    assert_eq!((name, &seen["Tagging"]), ("Put", &tagging));
    for body in ["<Tagging>", "<Tagging><N>one</N></Tagging>", "{}"] {
        assert_eq!(
            read(model, &post("/b/c?tagging", body)).expect_err("refused").code,
            "Serialization",
            "{body}"
        );
    }

    let answer = json!({"Body": "aGk=", "When": "2026-11-23T04:22:43Z", "Meta": {"a": "1"}});
    let get = model.operation("Get").expect("an operation");
    let response = output(model, get, &answer, "r-1", false);
    assert_eq!(&response.body()[..], b"hi");
    assert_eq!(response.headers()["last-modified"], "Mon, 23 Nov 2026 04:22:43 GMT");
    assert_eq!(response.headers()["x-meta-a"], "1");
}

const JSON: &str = "service x 1 json target=X_1 json=1.0
operation Put POST / in=In out=Out
structure In
 Name! Text
 Tags Tags
structure Out
 When Time
structure Gone error=400
 Message Text
map Tags Text Text
string Text max=3
timestamp Time
";

#[test]
fn aws_json_goes_by_its_target() {
    let model = made(JSON);
    let ask = |target: &str, body: &'static str| {
        let mut request = post("/", body);
        request.headers_mut().insert("x-amz-target", target.parse().expect("a value"));
        read(model, &request)
    };
    assert_eq!(
        ask("X_1.Put", "{\"Name\":\"a\",\"Tags\":{\"b\":\"c\"},\"Else\":1}"),
        Ok(("Put", json!({"Name": "a", "Tags": {"b": "c"}})))
    );
    for target in ["", "Put", "Y.Put", "X_1.Get", "X_1."] {
        assert_eq!(ask(target, "{}").expect_err("refused").code, "UnknownOperation", "{target}");
    }
    for body in ["{", "[]", "null", "{\"Name\":1}", "{\"Tags\":[]}", "{\"Name\":\"\u{0}\"} x"] {
        assert_eq!(ask("X_1.Put", body).expect_err("refused").code, "Serialization", "{body}");
    }
    let put = model.operation("Put").expect("an operation");
    let response = output(model, put, &json!({"When": "2026-11-23T04:22:43Z", "Secret": 1}), "r-1", false);
    assert_eq!(response.headers()["content-type"], "application/x-amz-json-1.0");
    assert_eq!(&response.body()[..], b"{\"When\":1795407763}");
    let fault = Fault::new("Gone", "it is").with("Colour", "red");
    let response = error(Some(model), model.protocol, &fault, "r-1", false);
    let body: Value = serde_json::from_slice(response.body()).expect("JSON");
    assert_eq!(body, json!({"__type": "Gone", "Message": "it is"}));
}

#[test]
fn each_family_tells_the_common_errors_by_its_own_names() {
    let told = |service: &str, code: &str| {
        let model = model::of(service).expect("a model");
        let response = error(Some(model), model.protocol, &Fault::new(code, "text"), "r-1", false);
        let body = String::from_utf8_lossy(response.body()).into_owned();
        let code = match response.headers().get("x-amzn-errortype") {
            Some(code) => code.to_str().expect("text").to_owned(),
            None => body
                .split("<Code>")
                .nth(1)
                .and_then(|rest| rest.split('<').next())
                .unwrap_or_default()
                .to_owned(),
        };
        (response.status().as_u16(), code)
    };
    for (code, iam, eks, ec2) in [
        (
            "AccessDenied",
            (403, "AccessDenied"),
            (403, "AccessDeniedException"),
            (403, "UnauthorizedOperation"),
        ),
        (
            "SignatureExpired",
            (403, "SignatureDoesNotMatch"),
            (403, "InvalidSignatureException"),
            (400, "RequestExpired"),
        ),
        ("ExpiredToken", (403, "ExpiredToken"), (403, "ExpiredTokenException"), (400, "RequestExpired")),
        (
            "InvalidClientTokenId",
            (403, "InvalidClientTokenId"),
            (403, "UnrecognizedClientException"),
            (401, "AuthFailure"),
        ),
        (
            "Validation",
            (400, "ValidationError"),
            (400, "ValidationException"),
            (400, "InvalidParameterValue"),
        ),
        ("InternalFailure", (500, "InternalFailure"), (500, "InternalFailure"), (500, "InternalError")),
    ] {
        let own = |(status, code): (u16, &str)| (status, code.to_owned());
        assert_eq!(
            (told("iam", code), told("eks", code), told("ec2", code)),
            (own(iam), own(eks), own(ec2)),
            "{code}"
        );
    }
    // What the model knows has the model's status and name.
    assert_eq!(told("iam", "NoSuchEntity"), (404, "NoSuchEntity".to_owned()));
    assert_eq!(told("eks", "ResourceNotFoundException"), (404, "ResourceNotFoundException".to_owned()));
    assert_eq!(told("autoscaling", "AlreadyExists"), (400, "AlreadyExists".to_owned()));
}
