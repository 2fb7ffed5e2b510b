use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use super::{Kind, Location, Member, Model, OperationModel, Page, Protocol, Shape, ShapeId, TimestampFormat};

/// The words of a line: bare ones in their order, and those that are `key=value`.
struct Line {
    kind: &'static str,
    words: Vec<&'static str>,
    settings: Vec<(&'static str, &'static str)>,
}

impl Line {
    fn of(text: &'static str) -> Self {
        // A pattern is the rest of its line.
        let (text, pattern) = match text.split_once(" pattern=") {
            Some((text, pattern)) => (text, Some(pattern)),
            None => (text, None),
        };
        let mut words = text.split(' ').filter(|word| !word.is_empty());
        let kind = words.next().unwrap_or_default();
        let (settings, words): (Vec<&str>, Vec<&str>) =
            words.partition(|word| word.contains('=') && !word.starts_with('/'));
        let settings = settings.into_iter().filter_map(|word| word.split_once('='));
        Self { kind, words, settings: settings.chain(pattern.map(|pattern| ("pattern", pattern))).collect() }
    }

    fn word(&self, place: usize) -> &'static str {
        self.words.get(place).copied().unwrap_or_default()
    }

    fn has(&self, word: &str) -> bool {
        self.words.contains(&word)
    }

    fn get(&self, key: &str) -> Option<&'static str> {
        self.settings.iter().find(|(name, _)| *name == key).map(|(_, value)| *value)
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.get(key)?.parse().ok()
    }
}

/// Reads a model's text. It is a part of the program, and a test reads all of them: what is wrong in it shows there.
pub fn model(text: &'static str) -> Model {
    let lines = || text.lines().filter(|line| !line.starts_with('#'));
    let is_shape = |line: &&str| {
        !line.starts_with([' ', 's']) && !line.starts_with("operation ")
            || line.starts_with("structure ")
            || line.starts_with("string ")
    };
    let named = lines().filter(is_shape).filter_map(|line| line.split(' ').nth(1));
    let ids: HashMap<&str, ShapeId> = (0..).map(ShapeId).zip(named).map(|(id, name)| (name, id)).collect();
    let id = |name: &str| ids.get(name).copied();
    let mut model = Model {
        signing_name: "",
        api_version: "",
        protocol: Protocol::Query,
        namespace: "",
        target_prefix: "",
        operations: Vec::new(),
        shapes: Vec::with_capacity(ids.len()),
        errors: BTreeMap::new(),
    };
    for line in lines() {
        if line.starts_with(' ') {
            let member = member(&Line::of(line), &id);
            if let Some(Shape { kind: Kind::Structure { members, .. }, .. }) = model.shapes.last_mut() {
                members.extend(member);
            }
            continue;
        }
        let line = if let Some(rest) = line.strip_prefix("enum ") {
            // Its values may have anything in them but a bar.
            let (name, values) = rest.split_once(' ').unwrap_or((rest, ""));
            model.shapes.push(shape(name, Kind::Enum(values), &Line::of("")));
            continue;
        } else {
            Line::of(line)
        };
        match line.kind {
            "service" => header(&mut model, &line),
            "operation" => model.operations.push(operation(&line, &id)),
            _ => {
                if let Some(kind) = kind(&line, &id) {
                    note_error(&mut model, &line);
                    model.shapes.push(shape(line.word(0), kind, &line));
                }
            }
        }
    }
    model
}

fn header(model: &mut Model, line: &Line) {
    model.signing_name = line.word(0);
    model.api_version = line.word(1);
    model.protocol = match (line.word(2), line.get("json")) {
        ("rest-json", _) => Protocol::RestJson,
        ("rest-xml", _) => Protocol::RestXml,
        ("json", Some("1.0")) => Protocol::Json10,
        ("json", _) => Protocol::Json11,
        ("ec2", _) => Protocol::Ec2,
        _ => Protocol::Query,
    };
    model.namespace = line.get("namespace").unwrap_or_default();
    model.target_prefix = line.get("target").unwrap_or_default();
}

fn note_error(model: &mut Model, line: &Line) {
    let Some(status) = line.get("error").and_then(|text| text.parse().ok()) else { return };
    let Ok(place) = u16::try_from(model.shapes.len()) else { return };
    for name in [Some(line.word(0)), line.get("code")].into_iter().flatten() {
        model.errors.insert(name, (status, ShapeId(place)));
    }
}

fn operation(line: &Line, id: &impl Fn(&str) -> Option<ShapeId>) -> OperationModel {
    OperationModel {
        name: line.word(0),
        method: line.word(1),
        uri: line.word(2),
        input: line.get("in").and_then(id),
        output: line.get("out").and_then(id),
        status: line.get("status").and_then(|text| text.parse().ok()).unwrap_or(200),
        wrapper: line.get("wrapper"),
        is_unsigned: line.has("unsigned"),
        page: line.get("page").and_then(page),
    }
}

fn page(text: &'static str) -> Option<Page> {
    let mut parts = text.split(',');
    Some(Page {
        input_token: parts.next()?,
        output_token: parts.next()?,
        limit: parts.next()?,
        list: parts.next()?,
        more: parts.next(),
    })
}

fn kind(line: &Line, id: &impl Fn(&str) -> Option<ShapeId>) -> Option<Kind> {
    let is_flat = line.has("flat");
    Some(match line.kind {
        "structure" => Kind::Structure { members: Vec::new(), payload: line.get("payload") },
        "list" => Kind::List { of: id(line.word(1))?, wire: line.get("as"), is_flat },
        "map" => Kind::Map {
            key: id(line.word(1))?,
            value: id(line.word(2))?,
            key_wire: line.get("key"),
            value_wire: line.get("value"),
            is_flat,
        },
        "string" | "character" => Kind::String,
        "integer" | "long" => Kind::Integer,
        "float" | "double" => Kind::Double,
        "boolean" => Kind::Boolean,
        "blob" => Kind::Blob,
        "timestamp" => Kind::Timestamp(line.get("format").map(|format| match format {
            "iso8601" => TimestampFormat::Iso8601,
            "rfc822" => TimestampFormat::Rfc822,
            _ => TimestampFormat::Unix,
        })),
        _ => return None,
    })
}

fn shape(name: &'static str, kind: Kind, line: &Line) -> Shape {
    Shape {
        name,
        kind,
        min: line.number("min"),
        max: line.number("max"),
        pattern: line.get("pattern"),
        is_sensitive: line.has("sensitive"),
        regex: OnceLock::new(),
    }
}

fn member(line: &Line, id: &impl Fn(&str) -> Option<ShapeId>) -> Option<Member> {
    Some(Member {
        name: line.kind.trim_end_matches('!'),
        of: id(line.word(0))?,
        is_required: line.kind.ends_with('!'),
        location: match line.get("in") {
            Some("uri") => Location::Uri,
            Some("querystring") => Location::Query,
            Some("header") => Location::Header,
            Some("headers") => Location::Headers,
            Some("statusCode") => Location::Status,
            _ => Location::Body,
        },
        wire: line.get("as"),
        query: line.get("query"),
        is_flat: line.has("flat"),
    })
}
