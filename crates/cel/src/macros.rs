//! Calls that are not calls: `has`, `all`, `map`, `cel.bind`, … They are expanded while parsing, by name and number of arguments.

use crate::ast::{Comprehension, Expr, Fold, Kind, Select};
use crate::error::Issue;
use crate::parse::Parser;

/// `name(args)`.
pub fn global(parser: &mut Parser, at: usize, name: String, mut args: Vec<Expr>) -> Result<Expr, Issue> {
    if name != "has" || args.len() != 1 {
        return Ok(parser.make(at, Kind::Call { target: None, function: name, args }));
    }
    let arg = args.remove(0);
    match arg.kind {
        Kind::Select { operand, field, how: Select::Value } => {
            Ok(parser.make(at, Kind::Select { operand, field, how: Select::Test }))
        }
        _ => Err(Issue::new(arg.at, "invalid argument to has() macro")),
    }
}

/// `target.name(args)`.
pub fn member(
    parser: &mut Parser,
    at: usize,
    target: Expr,
    name: String,
    mut args: Vec<Expr>,
) -> Result<Expr, Issue> {
    if is_named(&target, "cel") && name == "bind" && args.len() == 3 {
        return bind(parser, at, args);
    }
    if matches!(name.as_str(), "optMap" | "optFlatMap") && args.len() == 2 {
        return optional_map(parser, at, target, &name, args);
    }
    let wanted = match (name.as_str(), args.len()) {
        ("all" | "exists" | "exists_one" | "existsOne", 2 | 3) => args.len() - 1,
        ("filter", 2) => 1,
        ("map", 2 | 3) => 1,
        ("transformList" | "transformMap" | "transformMapEntry", 3 | 4) => 2,
        _ => return Ok(parser.make(at, Kind::Call { target: Some(Box::new(target)), function: name, args })),
    };
    let variables: Vec<Expr> = args.drain(..wanted).collect();
    let mut names = Vec::new();
    for variable in &variables {
        match &variable.kind {
            Kind::Ident(name) if !name.starts_with('.') => names.push(name.clone()),
            _ => return Err(Issue::new(variable.at, "argument must be a simple name")),
        }
    }
    if names.len() == 2 && names[0] == names[1] {
        return Err(Issue::new(variables[1].at, "duplicate variable name"));
    }
    let fold = fold(&name, args);
    let second = (names.len() == 2).then(|| names.remove(1));
    let comprehension = Comprehension { range: target, variable: names.remove(0), second, fold };
    Ok(parser.make(at, Kind::Comprehension(Box::new(comprehension))))
}

/// The fold of a macro whose number of arguments fits: one, or a predicate and a value.
fn fold(name: &str, mut args: Vec<Expr>) -> Fold {
    let last = args.remove(args.len() - 1);
    let predicate = args.pop();
    match name {
        "all" => Fold::All(last),
        "exists" => Fold::Exists(last),
        "exists_one" | "existsOne" => Fold::ExistsOne(last),
        "filter" => Fold::Filter(last),
        "transformMap" => Fold::TransformMap { predicate, value: last },
        "transformMapEntry" => Fold::TransformMapEntry { predicate, value: last },
        _ => Fold::Map { predicate, value: last },
    }
}

fn is_named(expr: &Expr, name: &str) -> bool {
    matches!(&expr.kind, Kind::Ident(known) if known == name)
}

fn bind(parser: &mut Parser, at: usize, mut args: Vec<Expr>) -> Result<Expr, Issue> {
    let body = Box::new(args.remove(2));
    let value = Box::new(args.remove(1));
    match args.remove(0) {
        Expr { kind: Kind::Ident(name), .. } if !name.starts_with('.') => {
            Ok(parser.make(at, Kind::Bind { name, value, body }))
        }
        other => Err(Issue::new(other.at, "cel.bind() variable names must be simple identifiers")),
    }
}

/// `target.optMap(x, body)` is `target.hasValue() ? optional.of(bind x = target.value() in body) : optional.none()`; `optFlatMap` does not
/// wrap its body.
fn optional_map(
    parser: &mut Parser,
    at: usize,
    target: Expr,
    name: &str,
    mut args: Vec<Expr>,
) -> Result<Expr, Issue> {
    let body = args.remove(1);
    let Expr { kind: Kind::Ident(variable), at: variable_at, .. } = args.remove(0) else {
        return Err(Issue::new(at, format!("{name}() variable name must be a simple identifier")));
    };
    // The target stands in it twice, but is evaluated once.
    let held = "@optional".to_owned();
    let hold = |parser: &mut Parser| parser.make(variable_at, Kind::Ident(held.clone()));
    let method = |parser: &mut Parser, function: &str| {
        let target = Some(Box::new(hold(parser)));
        parser.make(at, Kind::Call { target, function: function.to_owned(), args: Vec::new() })
    };
    let has = method(parser, "hasValue");
    let value = Box::new(method(parser, "value"));
    let inner = parser.make(at, Kind::Bind { name: variable, value, body: Box::new(body) });
    let yes = if name == "optMap" { parser.call(at, "optional.of", vec![inner]) } else { inner };
    let no = parser.call(at, "optional.none", Vec::new());
    let choice = parser.call(at, "_?_:_", vec![has, yes, no]);
    Ok(parser.make(at, Kind::Bind { name: held, value: Box::new(target), body: Box::new(choice) }))
}
