//! Expressions and what they give: each row one text, checked and evaluated.

use std::sync::Arc;

use cel::{Env, Field, ObjectType, Sizes, Type, Value, from_json};
use serde_json::{Value as Json, json};

/// A schema and an object of it, as a custom resource's rule sees them.
fn subject() -> (Type, Json) {
    let field = |name: &str, r#type: Type, sizes: Sizes| {
        (cel::escape(name), Field { name: name.to_owned(), r#type, sizes })
    };
    let port = Type::Object(Arc::new(ObjectType {
        name: "object.ports".into(),
        fields: [field("name", Type::String, Sizes::most(10)), field("port", Type::Int, Sizes::most(1))]
            .into(),
        open: false,
    }));
    let root = ObjectType {
        name: "object".into(),
        fields: [
            field("replicas", Type::Int, Sizes::most(1)),
            field("max-replicas", Type::Int, Sizes::most(1)),
            field("ratio", Type::Double, Sizes::most(1)),
            field("name", Type::String, Sizes::most(63)),
            field("at", Type::Timestamp, Sizes::most(1)),
            field("every", Type::Duration, Sizes::most(1)),
            field("raw", Type::Bytes, Sizes::most(16)),
            field("ports", Type::list(port), Sizes::list(5, Sizes::default())),
            field("tags", Type::list(Type::String), Sizes::list(4, Sizes::most(8))),
            field(
                "labels",
                Type::map(Type::String, Type::String),
                Sizes::map(8, Sizes::most(63), Sizes::most(63)),
            ),
            field("any", Type::Dyn, Sizes::default()),
            field("absent", Type::String, Sizes::most(5)),
            field("namespace", Type::String, Sizes::most(5)),
        ]
        .into(),
        open: false,
    };
    let object = json!({
        "replicas": 3, "max-replicas": 5, "ratio": 2, "name": "web", "at": "2026-11-23T07:26:22Z", "every": "90s",
        "raw": "aGk=", "ports": [{"name": "http", "port": 80}, {"name": "https", "port": 443}],
        "tags": ["a", "b", "c"], "labels": {"app": "web", "tier-x": "front"}, "any": {"x": [1, "two", 3.5]},
        "namespace": "shop",
    });
    (Type::Object(Arc::new(root)), object)
}

fn run(expression: &str) -> String {
    let (of, object) = subject();
    let env = Env::default().variable("self", of.clone(), Sizes::default());
    let program = match env.compile(expression) {
        Ok(program) => program,
        Err(issues) => return format!("INVALID {}", issues[0].message),
    };
    match program.eval(&[("self", from_json(&object, &of))], 1_000_000).0 {
        Ok(value) => shown(&value),
        Err(error) => format!("ERROR {error}"),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Optional(None) => "none".into(),
        Value::Optional(Some(inner)) => format!("some({})", shown(inner)),
        Value::Uint(number) => format!("{number}u"),
        Value::Type(name) => format!("type {name}"),
        Value::Opaque(opaque) => format!("{opaque:?}"),
        other => cel::to_json(other).map_or_else(|| format!("{other:?}"), |json| json.to_string()),
    }
}

fn check(rows: &str) {
    let mut wrong = Vec::new();
    for row in rows.lines().filter(|row| !row.is_empty() && !row.starts_with('#')) {
        let (expression, wanted) = row.split_once("  =>  ").expect("a row is `expression  =>  result`");
        let found = run(expression.trim());
        if found != wanted.trim() {
            wrong.push(format!("{expression}\n   wanted {wanted}\n   found  {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_language() {
    check(include_str!("../testdata/language.txt"));
}

#[test]
fn the_libraries() {
    check(include_str!("../testdata/libraries.txt"));
}

#[test]
fn what_the_checker_refuses() {
    check(include_str!("../testdata/refused.txt"));
}

#[test]
fn issues_show_where() {
    let (of, _) = subject();
    let env = Env::default().variable("self", of, Sizes::default());
    let source = "self.replicas >\n  self.missing";
    let issues = env.compile(source).expect_err("a field that is not there");
    assert_eq!(
        cel::render(&issues, source),
        "ERROR: <input>:2:7: undefined field 'missing'\n |   self.missing\n | ......^"
    );
}

#[test]
fn a_budget_ends_an_evaluation() {
    let env = Env::default();
    let program = env
        .compile("[1,2,3,4,5].all(a, [1,2,3,4,5].all(b, [1,2,3,4,5].all(c, a + b + c > 0)))")
        .expect("compiles");
    let (value, used) = program.eval(&[], u64::MAX);
    assert!(matches!(value, Ok(Value::Bool(true))));
    assert!(used > 500, "{used}");
    let (value, stopped) = program.eval(&[], used / 2);
    assert_eq!(value.expect_err("over the budget"), cel::EvalError::OverBudget);
    assert!(stopped <= used / 2 + 50);
    // Nothing absorbs it.
    let program = env.compile("[1,2,3].all(a, a > 0) || true").expect("compiles");
    assert_eq!(program.eval(&[], 3).0.expect_err("over the budget"), cel::EvalError::OverBudget);
}

#[test]
fn an_estimate_bounds_what_is_paid() {
    let (of, object) = subject();
    let env = Env::default().variable("self", of.clone(), Sizes::default());
    for expression in [
        "self.replicas <= self.max__dash__replicas",
        "self.ports.all(p, p.port > 0 && p.port < 65536)",
        "self.ports.all(p, self.ports.exists_one(q, q.port == p.port))",
        "self.tags.map(t, t + 'x').exists(t, t.startsWith('a'))",
        "self.name.matches('^[a-z]+$') && self.tags.isSorted()",
        "self.labels.all(k, k.size() < 64 && self.labels[k].contains('e'))",
        "has(self.absent) ? self.absent.size() > 3 : true",
    ] {
        let program = env.compile(expression).expect(expression);
        let estimate = program.estimate();
        let used = program.eval(&[("self", from_json(&object, &of))], u64::MAX).1;
        assert!(used <= estimate.max, "{expression}: paid {used}, estimated {estimate:?}");
        assert!(estimate.max < 100_000, "{expression}: {estimate:?}");
    }
    let unbounded = env.compile("self.any.all(x, self.any.all(y, x == y))").expect("compiles");
    assert_eq!(unbounded.estimate().max, cel::UNBOUNDED);
}

#[test]
fn depth_is_bounded() {
    for (text, fits) in [
        (format!("{}1{}", "(".repeat(90), ")".repeat(90)), true),
        (format!("{}1{}", "(".repeat(10_000), ")".repeat(10_000)), false),
        (vec!["1"; 200].join(" + "), true),
        (vec!["1"; 20_000].join(" + "), false),
        (format!("self{}", ".any".repeat(20_000)), false),
        ("!".repeat(50_000), false),
        ("[".repeat(50_000), false),
        ("a?".repeat(30_000), false),
    ] {
        assert_eq!(Env::default().compile(&text).is_ok(), fits, "{}…", &text[..20]);
    }
}

proptest::proptest! {
    #[test]
    fn no_text_breaks_it(text in "[ -~\\n\"'ü]{0,80}") {
        let _ = Env::default().compile(&text);
    }

    /// Whatever compiles also ends, with a value or an error.
    #[test]
    fn what_compiles_ends(words in proptest::collection::vec(proptest::sample::select(&[
        "1", "2.5", "'a'", "true", "null", "[1, 2]", "{'a': 1}", "self", ".name", ".tags", ".ports", "+", "-", "*", "/", "%", "==", "<",
        "&&", "||", "!", "?", ":", "(", ")", "[", "]", "in", ".all(x, ", ".map(x, ", "x", "size(", ".size()", ".?absent", ".orValue(",
    ][..]), 0..14)) {
        let (of, object) = subject();
        let env = Env::default().variable("self", of.clone(), Sizes::default());
        if let Ok(program) = env.compile(&words.concat()) {
            let _ = program.eval(&[("self", from_json(&object, &of))], 10_000);
        }
    }
}

/// Expressions that are small and would make something huge: each ends at a limit.
#[test]
fn nothing_grows_without_bound() {
    let doubled = |first: &str, step: &str| {
        let names: Vec<String> = (0..40).map(|index| format!("v{index}")).collect();
        let mut text = names.iter().skip(1).rev().fold("size(v39) > 0".to_owned(), |body, name| {
            let index: usize = name[1..].parse().expect("a number");
            format!("cel.bind({name}, {}, {body})", step.replace('x', &format!("v{}", index - 1)))
        });
        text = format!("cel.bind(v0, {first}, {text})");
        text
    };
    for text in [
        doubled("[1]", "x + x"),
        doubled("[1]", "[x, x]"),
        doubled("{'a': 1}", "{'a': x, 'b': x}"),
        doubled("'aaaaaaaaaa'", "x + x"),
        doubled("'aaaaaaaaaa'", "x.replace('', x)"),
        doubled("'aaaaaaaaaa'", "[x, x, x].join(x)"),
        doubled("'aaaaaaaaaa'", "'%s%s'.format([x, x])"),
        "[1, 2, 3].all(x, 'a'.matches('(\\\\pL{50}){30}'))".to_owned(),
    ] {
        let program = Env::default().compile(&text).unwrap_or_else(|issues| panic!("{text}: {issues:?}"));
        let (value, used) = program.eval(&[], 1_000_000);
        assert!(value.is_err() && used < 2_000_000, "{text}: {value:?}");
    }
    let keys = doubled("{1: 1}", "{x: x}");
    assert!(Env::default().compile(&keys).is_err());
}
