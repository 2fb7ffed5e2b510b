//! JSONPath as printer columns use it: `.status.conditions[?(@.type=="Ready")].status`.
//! <https://kubernetes.io/docs/reference/kubectl/jsonpath/>

use serde_json::Value;

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
                bracket(after, &mut steps)?
            } else {
                field(rest, &mut steps)?
            };
        }
        Ok(Self(steps))
    }

    /// Everything that the path leads to, in order. What is not there is nothing.
    pub fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        self.0
            .iter()
            .fold(vec![value], |found, step| found.into_iter().flat_map(|one| step.take(one)).collect())
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

fn bracket<'a>(text: &'a str, steps: &mut Vec<Step>) -> Result<&'a str, String> {
    let (inner, rest) = closed(text).ok_or_else(|| "unterminated array".to_owned())?;
    let inner = inner.trim();
    if let Some(filter) = inner.strip_prefix("?(").and_then(|inner| inner.strip_suffix(')')) {
        steps.push(filter_of(filter)?);
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

fn filter_of(text: &str) -> Result<Step, String> {
    let mut quote = None;
    for (at, next) in text.char_indices() {
        match (quote, next) {
            (Some(open), _) if open == next => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(next),
            (None, _) => {
                if let Some(operator) = OPERATORS.iter().find(|operator| text[at..].starts_with(**operator)) {
                    let (left, right) = (&text[..at], &text[at + operator.len()..]);
                    return Ok(Step::Filter(operand(left)?, operator, operand(right)?));
                }
            }
        }
    }
    Ok(Step::Exists(operand(text)?))
}

fn operand(text: &str) -> Result<Operand, String> {
    let text = text.trim();
    if text.starts_with(['@', '$']) {
        return JsonPath::parse(text).map(Operand::Path);
    }
    if let Some(text) = unquoted(text) {
        return Ok(Operand::Literal(text.into()));
    }
    serde_json::from_str(text).map(Operand::Literal).map_err(|_| format!("unrecognized operand {text:?}"))
}

impl Operand {
    fn of<'a>(&'a self, item: &'a Value) -> Option<&'a Value> {
        match self {
            Self::Path(path) => path.find(item).into_iter().next(),
            Self::Literal(value) => Some(value),
        }
    }
}

impl Step {
    fn take<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Field(name) => value.get(name).into_iter().collect(),
            Self::Union(names) => names.iter().filter_map(|name| value.get(name)).collect(),
            Self::Every => children(value),
            Self::Deep => {
                let mut all = vec![value];
                let mut next = 0;
                while let Some(&one) = all.get(next) {
                    all.extend(children(one));
                    next += 1;
                }
                all
            }
            Self::Index(index) => {
                let Value::Array(items) = value else { return Vec::new() };
                place(*index, items.len()).and_then(|at| items.get(at)).into_iter().collect()
            }
            Self::Slice(from, to, step) => {
                let Value::Array(items) = value else { return Vec::new() };
                let bound = |at: Option<i64>, otherwise| {
                    at.map_or(otherwise, |at| place(at, items.len()).unwrap_or(0))
                };
                let (from, to) = (bound(*from, 0), bound(*to, items.len()).min(items.len()));
                let step = usize::try_from(*step).unwrap_or(1).max(1);
                items.get(from..to).unwrap_or_default().iter().step_by(step).collect()
            }
            Self::Filter(left, operator, right) => children(value)
                .into_iter()
                .filter(|item| compare(left.of(item), operator, right.of(item)))
                .collect(),
            Self::Exists(operand) => {
                children(value).into_iter().filter(|item| operand.of(item).is_some()).collect()
            }
        }
    }
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(members) => members.values().collect(),
        _ => Vec::new(),
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
}
