//! JSONPath as printer columns use it: `.status.conditions[?(@.type=="Ready")].status`.
//! <https://kubernetes.io/docs/reference/kubectl/jsonpath/>

use std::collections::VecDeque;

use serde_json::Value;

/// A longer text is no path of a column: a path is walked by recursion, a step at a time.
const MOST_BYTES: usize = 2048;
/// Filters within filters.
const MOST_NESTED: usize = 32;
/// So many values are looked at for one path. Several `..` lead to the same value by many ways.
const MOST_LOOKED_AT: usize = 10_000;

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// Several fields at once: `['a','b']`.
    Union(Vec<String>),
    /// All members or items.
    Every,
    /// The value itself and everything within it.
    Deep,
    /// From, to (exclusive), step; negative positions count from the end.
    Slice(Option<i64>, Option<i64>, i64),
    Index(i64),
    Filter(Operand, &'static str, Operand),
    Exists(Operand),
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    /// From the item that is asked about.
    Path(JsonPath),
    Literal(Value),
}

const OPERATORS: [&str; 6] = ["==", "!=", "<=", ">=", "<", ">"];

impl JsonPath {
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MOST_BYTES {
            return Err(format!("it is longer than {MOST_BYTES} bytes"));
        }
        Self::parse_within(text, MOST_NESTED)
    }

    fn parse_within(text: &str, levels: usize) -> Result<Self, String> {
        let levels = levels
            .checked_sub(1)
            .ok_or_else(|| format!("filters are nested more than {MOST_NESTED} levels deep"))?;
        let text = text.trim();
        let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap_or(text);
        let mut rest = inner.trim();
        rest = rest.strip_prefix(['$', '@']).unwrap_or(rest);
        let mut steps = Vec::new();
        while !rest.is_empty() {
            rest = if let Some(after) = rest.strip_prefix("..") {
                steps.push(Step::Deep);
                if after.starts_with('[') { after } else { field(after, &mut steps)? }
            } else if let Some(after) = rest.strip_prefix('.') {
                if after.is_empty() || after.starts_with('[') { after } else { field(after, &mut steps)? }
            } else if let Some(after) = rest.strip_prefix('[') {
                bracket(after, &mut steps, levels)?
            } else {
                field(rest, &mut steps)?
            };
        }
        Ok(Self(steps))
    }

    /// What the path leads to, in order, among the first [`MOST_LOOKED_AT`] values on its way. What is not there is nothing.
    pub fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        let mut search = Search { left: MOST_LOOKED_AT, most: usize::MAX, found: Vec::new() };
        search.follow(&self.0, value);
        search.found
    }

    /// The first that [`JsonPath::find`] finds, without a look at the others.
    pub fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.first_within(value, &mut { MOST_LOOKED_AT })
    }

    fn first_within<'a>(&self, value: &'a Value, left: &mut usize) -> Option<&'a Value> {
        let mut search = Search { left: *left, most: 1, found: Vec::new() };
        search.follow(&self.0, value);
        *left = search.left;
        search.found.pop()
    }
}

/// A walk along a path. Values come in the path's order, so it may end at any of them.
struct Search<'a> {
    /// How many values may still be looked at.
    left: usize,
    /// How many are wanted.
    most: usize,
    found: Vec<&'a Value>,
}

impl<'a> Search<'a> {
    fn is_over(&self) -> bool {
        self.left == 0 || self.found.len() >= self.most
    }

    fn follow(&mut self, steps: &[Step], value: &'a Value) {
        if self.is_over() {
            return;
        }
        self.left -= 1;
        let Some((step, rest)) = steps.split_first() else { return self.found.push(value) };
        match step {
            Step::Field(name) => self.follow_each(rest, value.get(name).into_iter()),
            Step::Union(names) => {
                self.follow_each(rest, names.iter().filter_map(|name| value.get(name)));
            }
            Step::Every => self.follow_each(rest, children(value)),
            Step::Deep => {
                let mut waiting = VecDeque::from([value]);
                while let Some(one) = waiting.pop_front().filter(|_| !self.is_over()) {
                    self.follow(rest, one);
                    waiting.extend(children(one).take(self.left));
                }
            }
            Step::Index(index) => {
                let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
                let item = place(*index, items.len()).and_then(|at| items.get(at));
                self.follow_each(rest, item.into_iter());
            }
            Step::Slice(from, to, step) => {
                let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
                let bound = |at: Option<i64>, otherwise| {
                    at.map_or(otherwise, |at| place(at, items.len()).unwrap_or(0))
                };
                let (from, to) = (bound(*from, 0), bound(*to, items.len()).min(items.len()));
                let step = usize::try_from(*step).unwrap_or(1).max(1);
                self.follow_each(rest, items.get(from..to).unwrap_or_default().iter().step_by(step));
            }
            Step::Filter(left, operator, right) => self.follow_those(rest, value, |item, looks| {
                compare(left.of(item, looks), operator, right.of(item, looks))
            }),
            Step::Exists(operand) => {
                self.follow_those(rest, value, |item, looks| operand.of(item, looks).is_some());
            }
        }
    }

    fn follow_each(&mut self, rest: &[Step], values: impl Iterator<Item = &'a Value>) {
        for one in values {
            if self.is_over() {
                return;
            }
            self.follow(rest, one);
        }
    }

    /// The members or items that pass a test, which looks at values itself.
    fn follow_those(
        &mut self,
        rest: &[Step],
        value: &'a Value,
        passes: impl Fn(&'a Value, &mut usize) -> bool,
    ) {
        for one in children(value) {
            if self.is_over() {
                return;
            }
            self.left -= 1;
            if passes(one, &mut self.left) {
                self.follow(rest, one);
            }
        }
    }
}

fn field<'a>(text: &'a str, steps: &mut Vec<Step>) -> Result<&'a str, String> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    let mut end = text.len();
    while let Some((at, next)) = chars.next() {
        match next {
            '\\' => name.extend(chars.next().map(|(_, escaped)| escaped)),
            '.' | '[' => {
                end = at;
                break;
            }
            ' ' | '{' | '}' | '|' | '(' | ')' => return Err(format!("unexpected {next:?} in {text:?}")),
            other => name.push(other),
        }
    }
    if name.is_empty() {
        return Err(format!("a name is missing before {text:?}"));
    }
    steps.push(if name == "*" { Step::Every } else { Step::Field(name) });
    Ok(&text[end..])
}

fn bracket<'a>(text: &'a str, steps: &mut Vec<Step>, levels: usize) -> Result<&'a str, String> {
    let (inner, rest) = closed(text).ok_or_else(|| "unterminated array".to_owned())?;
    let inner = inner.trim();
    if let Some(filter) = inner.strip_prefix("?(").and_then(|inner| inner.strip_suffix(')')) {
        steps.push(filter_of(filter, levels)?);
    } else if inner == "*" {
        steps.push(Step::Every);
    } else if inner.starts_with(['\'', '"']) {
        let names =
            inner.split(',').map(|name| unquoted(name.trim()).ok_or_else(|| format!("{name:?} is no name")));
        let mut names = names.collect::<Result<Vec<_>, _>>()?;
        steps.push(match names.len() {
            1 => Step::Field(names.remove(0)),
            _ => Step::Union(names),
        });
    } else if inner.contains(':') {
        let mut parts = inner.split(':').map(|part| match part.trim() {
            "" => Ok(None),
            number => number.parse().map(Some).map_err(|_| format!("invalid array index {inner}")),
        });
        let mut next = || parts.next().unwrap_or(Ok(None));
        let (from, to, step) = (next()?, next()?, next()?.unwrap_or(1));
        if step < 1 {
            return Err("step must be > 0".into());
        }
        steps.push(Step::Slice(from, to, step));
    } else {
        let index = inner.parse().map_err(|_| format!("invalid array index {inner}"))?;
        steps.push(Step::Index(index));
    }
    Ok(rest)
}

/// What stands before the bracket that closes, and what follows it; quotes and inner brackets are passed over.
fn closed(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0;
    let mut quote = None;
    for (at, next) in text.char_indices() {
        match (quote, next) {
            (Some(open), _) if open == next => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(next),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some((&text[..at], &text[at + 1..])),
            (None, ']') => depth -= 1,
            (None, _) => {}
        }
    }
    None
}

fn unquoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|one| matches!(one, '\'' | '"'))?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    Some(inner.replace('\\', ""))
}

fn filter_of(text: &str, levels: usize) -> Result<Step, String> {
    let mut quote = None;
    for (at, next) in text.char_indices() {
        match (quote, next) {
            (Some(open), _) if open == next => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(next),
            (None, _) => {
                if let Some(operator) = OPERATORS.iter().find(|operator| text[at..].starts_with(**operator)) {
                    let (left, right) = (&text[..at], &text[at + operator.len()..]);
                    return Ok(Step::Filter(operand(left, levels)?, operator, operand(right, levels)?));
                }
            }
        }
    }
    Ok(Step::Exists(operand(text, levels)?))
}

fn operand(text: &str, levels: usize) -> Result<Operand, String> {
    let text = text.trim();
    if text.starts_with(['@', '$']) {
        return JsonPath::parse_within(text, levels).map(Operand::Path);
    }
    if let Some(text) = unquoted(text) {
        return Ok(Operand::Literal(text.into()));
    }
    serde_json::from_str(text).map(Operand::Literal).map_err(|_| format!("unrecognized operand {text:?}"))
}

impl Operand {
    fn of<'a>(&'a self, item: &'a Value, left: &mut usize) -> Option<&'a Value> {
        match self {
            Self::Path(path) => path.first_within(item, left),
            Self::Literal(value) => Some(value),
        }
    }
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(members) => Box::new(members.values()),
        _ => Box::new(std::iter::empty()),
    }
}

/// A position from either end; None: before the beginning.
fn place(index: i64, length: usize) -> Option<usize> {
    let length = i64::try_from(length).ok()?;
    usize::try_from(if index < 0 { index + length } else { index }).ok()
}

fn compare(left: Option<&Value>, operator: &str, right: Option<&Value>) -> bool {
    let (Some(left), Some(right)) = (left, right) else { return false };
    let order = match (left, right) {
        (Value::Number(_), Value::Number(_)) => left.as_f64().partial_cmp(&right.as_f64()),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        _ => return (left == right) == (operator == "==") && matches!(operator, "==" | "!="),
    };
    let Some(order) = order else { return false };
    match operator {
        "==" => order.is_eq(),
        "!=" => order.is_ne(),
        "<" => order.is_lt(),
        "<=" => order.is_le(),
        ">" => order.is_gt(),
        _ => order.is_ge(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_lead_to_values() {
        let value = json!({
            "a": {"b.c/d": 1, "list": [{"n": "x", "v": 1}, {"n": "y", "v": 2}]},
            "metadata": {"annotations": {"k.io/x": "yes"}},
        });
        for (path, expected) in [
            (".a.list[0].v", json!([1])),
            (".a.list[-1].v", json!([2])),
            (".a.list[*].n", json!(["x", "y"])),
            (".a.list[0:1].n", json!(["x"])),
            (r#".a.list[?(@.n=="y")].v"#, json!([2])),
            (".a.list[?(@.v>1)].n", json!(["y"])),
            (".a.list[?(@.v<=1)].n", json!(["x"])),
            (".a.list[?(@.w)].n", json!([])),
            (r".a.b\.c/d", json!([1])),
            (".a['b.c/d']", json!([1])),
            (r".metadata.annotations.k\.io/x", json!(["yes"])),
            ("{.a.list[0].n}", json!(["x"])),
            ("..n", json!(["x", "y"])),
            (".nothing.here", json!([])),
        ] {
            let parsed = JsonPath::parse(path).unwrap_or_else(|why| panic!("{path}: {why}"));
            assert_eq!(json!(parsed.find(&value)), expected, "{path}");
        }
        for wrong in [".a[", ".a[x]", ".a b", ".a[?(@.n==x)]"] {
            assert!(JsonPath::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_path_costs_no_more_than_its_limit() {
        let mut deep = json!({"n": 1});
        for _ in 0..100 {
            deep = json!({"a": deep, "b": [1, 2, 3]});
        }
        // Each `..` leads to every value once for each way there: too many to count.
        let path = JsonPath::parse(&"..[*]".repeat(50)).expect("a path");
        assert!(path.find(&deep).len() <= MOST_LOOKED_AT);
        let filters = JsonPath::parse(&"..[?(@..n==@..a)]".repeat(50)).expect("a path");
        assert!(filters.find(&deep).len() <= MOST_LOOKED_AT);
        let long = Value::Array(vec![json!({"n": 1}); 3 * MOST_LOOKED_AT]);
        let path = JsonPath::parse("[*].n").expect("a path");
        // One look for the list, two for each item.
        assert_eq!(path.find(&long).len(), (MOST_LOOKED_AT - 1) / 2);
        assert_eq!(path.first(&long), Some(&json!(1)));

        let closed = |levels: usize| format!("{}{}", ".a[?(@".repeat(levels), ")]".repeat(levels));
        assert!(JsonPath::parse(&closed(MOST_NESTED - 1)).is_ok());
        let why = JsonPath::parse(&closed(MOST_NESTED)).expect_err("too deep");
        assert!(why.contains("32 levels"), "{why}");
        assert!(JsonPath::parse(&".a".repeat(MOST_BYTES)).is_err());
    }
}
