//! `x-kubernetes-validations`: rules in CEL beside the schema of what they are about.
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-rules>

use std::sync::Arc;

use cel::{EvalError, Program, Type, Value as Cel, from_json};
use schema::custom::Rules;
use schema::{At, Violation, ViolationKind, path};
use serde_json::Value;

use crate::definition_types::{Declared, declared, most_values};
use crate::expressions::{self, Wanted};
use crate::spec::check::Found;

const RULES: &str = "x-kubernetes-validations";
/// What one rule may cost at most by its estimate, and all rules of a version together.
const RULE_ESTIMATE: u64 = 10_000_000;
const VERSION_ESTIMATE: u64 = 100_000_000;
/// What one evaluation may cost.
const CALL_BUDGET: u64 = 1_000_000;

/// (reason, how it is told), by reason.
const REASONS: [(&str, ViolationKind); 4] = [
    ("FieldValueDuplicate", ViolationKind::Duplicate),
    ("FieldValueForbidden", ViolationKind::Forbidden),
    ("FieldValueInvalid", ViolationKind::Invalid),
    ("FieldValueRequired", ViolationKind::Required),
];

/// What expressions of one schema are compiled with.
struct Language {
    of: Declared,
    /// Rules that speak of the value alone.
    state: cel::Env,
    /// Rules that compare it with what it was.
    transition: cel::Env,
    /// The same, where it may have been nothing.
    optional: cel::Env,
}

impl Language {
    fn of(schema: &Value, is_resource: bool) -> Option<Self> {
        let of = declared(schema, is_resource, "")?;
        let state = cel::Env::default().library(schema::expressions::LIBRARY).variable(
            "self",
            of.r#type.clone(),
            of.sizes.clone(),
        );
        let with = |old: Type| state.clone().variable("oldSelf", old, of.sizes.clone());
        let (transition, optional) = (with(of.r#type.clone()), with(Type::optional(of.r#type.clone())));
        Some(Self { of, state, transition, optional })
    }

    /// A program, and whether it needs what the value was: then it does not compile without.
    fn compile(&self, rule: &Value, text: &str, wanted: Wanted) -> Result<(Program, bool), String> {
        let alone = expressions::compile(&self.state, text, wanted);
        if alone.is_ok() {
            return alone.map(|program| (program, false));
        }
        let is_optional = path::bool(rule, "optionalOldSelf");
        let env = if is_optional { &self.optional } else { &self.transition };
        expressions::compile(env, text, wanted).map(|program| (program, true))
    }
}

/// Where the walk over a schema is.
#[derive(Clone, Copy)]
struct Place<'a> {
    at: At<'a>,
    is_resource: bool,
    /// How many values of the schema an object can have.
    count: u64,
    /// The list or map without keys within which values cannot be told to be the same after an update.
    lost: Option<&'a str>,
}

/// Everything that is wrong with the rules of a schema of whole objects.
pub fn check(schema: &Value, at: At<'_>, found: &mut Found) {
    let mut spent = 0;
    let place = Place { at, is_resource: true, count: 1, lost: None };
    check_node(schema, place, &mut spent, found);
}

fn check_node(schema: &Value, place: Place<'_>, spent: &mut u64, found: &mut Found) {
    let rules = path::list(schema, RULES);
    if !rules.is_empty()
        && let Some(language) = Language::of(schema, place.is_resource)
    {
        let at = place.at.field(RULES);
        for (index, rule) in rules.iter().enumerate() {
            check_rule(schema, rule, &language, Place { at: at.index(index), ..place }, spent, found);
        }
    }
    let is_embedded = |inner: &Value| path::bool(inner, "x-kubernetes-embedded-resource");
    let properties_at = place.at.field("properties");
    for (name, inner) in path::members(schema, "properties") {
        let at = properties_at.key(name);
        check_node(inner, Place { at, is_resource: is_embedded(inner), ..place }, spent, found);
    }
    let count = place.count.saturating_mul(most_values(schema));
    if let Some(inner) = schema.get("additionalProperties").filter(|inner| inner.is_object()) {
        let at = place.at.field("additionalProperties");
        check_node(inner, Place { at, is_resource: is_embedded(inner), count, ..place }, spent, found);
    }
    if let Some(inner) = schema.get("items").filter(|inner| inner.is_object()) {
        let at = place.at.field("items");
        let own = place.at.to_string();
        let keeps = path::text(schema, "x-kubernetes-list-type") == "map";
        let lost = place.lost.or((!keeps).then_some(&*own));
        check_node(inner, Place { at, is_resource: is_embedded(inner), count, lost }, spent, found);
    }
}

fn check_rule(
    schema: &Value,
    rule: &Value,
    language: &Language,
    place: Place<'_>,
    spent: &mut u64,
    found: &mut Found,
) {
    let at = place.at;
    let text = path::text(rule, "rule");
    if text.trim().is_empty() {
        found.push(Violation::required(at.field("rule"), "rule is not specified"));
        return;
    }
    check_words(schema, rule, at, found);
    let message = path::text(rule, "messageExpression");
    if !message.is_empty()
        && let Err(why) = language.compile(rule, message, Wanted::Text)
    {
        found.push(Violation::invalid(at.field("messageExpression"), rule, why));
    }
    let (program, compares) = match language.compile(rule, text, Wanted::Bool) {
        Ok(compiled) => compiled,
        Err(why) => return found.push(Violation::invalid(at.field("rule"), rule, why)),
    };
    if let Some(lost) = place.lost.filter(|_| compares) {
        let why = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {lost}");
        found.push(Violation::invalid(at.field("rule"), text, why));
    }
    if !compares && rule.get("optionalOldSelf").is_some() {
        let why = "may not be set if oldSelf is not used in rule";
        found.push(Violation::invalid(at.field("optionalOldSelf"), &rule["optionalOldSelf"], why));
    }
    let cost = program.estimate().max.saturating_mul(place.count);
    if cost > RULE_ESTIMATE {
        let factor = cost as f64 / RULE_ESTIMATE as f64;
        let factor = if factor > 100.0 { "more than 100x".to_owned() } else { format!("{factor:.1}x") };
        let why = format!(
            "estimated rule cost exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
        );
        found.push(Violation::forbidden(at.field("rule"), why));
    }
    let before = *spent;
    *spent = spent.saturating_add(cost);
    if before <= VERSION_ESTIMATE && *spent > VERSION_ESTIMATE {
        let why = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        found.push(Violation::forbidden(at.field("rule"), why));
    }
}

/// Messages, reasons and the field that a rule points to.
fn check_words(schema: &Value, rule: &Value, at: At<'_>, found: &mut Found) {
    let text = path::text(rule, "rule").trim();
    match rule.get("message").and_then(Value::as_str) {
        Some("") | None => {
            let has_message = !path::text(rule, "messageExpression").is_empty();
            if text.contains('\n') && !has_message {
                let why = "message must be specified if rule contains line breaks";
                found.push(Violation::required(at.field("message"), why));
            }
        }
        Some(message) if message.trim().is_empty() => {
            found.push(Violation::invalid(at.field("message"), message, "must be non-empty if specified"));
        }
        Some(message) if message.trim().contains('\n') => {
            found.push(Violation::invalid(
                at.field("message"),
                message,
                "message must not contain line breaks",
            ));
        }
        Some(_) => {}
    }
    let reason = path::text(rule, "reason");
    if !reason.is_empty() && !REASONS.iter().any(|(known, _)| *known == reason) {
        let known = REASONS.map(|(known, _)| known);
        found.push(Violation::not_supported(at.field("reason"), reason, &known));
    }
    let field = path::text(rule, "fieldPath");
    if !field.is_empty() && !leads_somewhere(schema, field) {
        found.push(Violation::invalid(at.field("fieldPath"), field, "must be a valid path"));
    }
}

/// The names of a path such as `.spec.a` or `['a.b'].c`.
fn names(field: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut rest = field;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("['") {
            let (name, after) = after.split_once("']")?;
            names.push(name.replace("\\'", "'"));
            rest = after;
        } else {
            let after = rest.strip_prefix('.')?;
            let end = after.find(['.', '[']).unwrap_or(after.len());
            names.push(after[..end].to_owned());
            rest = &after[end..];
        }
    }
    names.iter().all(|name| !name.is_empty()).then_some(names)
}

fn leads_somewhere(schema: &Value, field: &str) -> bool {
    let step = |schema, name: String| -> Option<&Value> {
        let schema: &Value = schema;
        schema["properties"]
            .get(&name)
            .or_else(|| schema.get("additionalProperties").filter(|inner| inner.is_object()))
    };
    names(field).is_some_and(|names| names.into_iter().try_fold(schema, step).is_some())
}

/// The rules of one schema, ready to be asked.
#[derive(Debug)]
struct Compiled {
    of: Type,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    text: Box<str>,
    program: Result<Program, String>,
    /// It says something of updates only, unless what was may be nothing.
    compares: bool,
    is_optional: bool,
    message: Box<str>,
    message_program: Option<Program>,
    kind: ViolationKind,
    field: Vec<String>,
}

/// The compiled rules of one schema, told as it is written. What does not compile any more is told when it is asked.
pub fn compile(schema: &Value, is_resource: bool) -> Option<Arc<dyn Rules>> {
    let language = Language::of(schema, is_resource)?;
    let rule = |rule: &Value| {
        let text = path::text(rule, "rule");
        let compiled = language.compile(rule, text, Wanted::Bool);
        let compares = compiled.as_ref().is_ok_and(|(_, compares)| *compares);
        let message = path::text(rule, "messageExpression");
        let reason = path::text(rule, "reason");
        let known = REASONS.iter().find(|(known, _)| *known == reason);
        Rule {
            text: text.into(),
            program: compiled.map(|(program, _)| program),
            compares,
            is_optional: path::bool(rule, "optionalOldSelf"),
            message: path::text(rule, "message").into(),
            message_program: Some(message)
                .filter(|text| !text.is_empty())
                .and_then(|text| language.compile(rule, text, Wanted::Text).ok())
                .map(|(program, _)| program),
            kind: known.map_or(ViolationKind::Invalid, |(_, kind)| *kind),
            field: names(path::text(rule, "fieldPath")).unwrap_or_default(),
        }
    };
    let rules: Vec<Rule> = path::list(schema, RULES).iter().map(rule).collect();
    (!rules.is_empty()).then(|| Arc::new(Compiled { of: language.of.r#type, rules }) as Arc<dyn Rules>)
}

impl Rules for Compiled {
    fn violations(&self, new: &Value, old: Option<&Value>, at: At<'_>, budget: &mut u64) -> Vec<Violation> {
        let mut found = Vec::new();
        for rule in &self.rules {
            if *budget == 0 {
                break;
            }
            if !rule.compares || rule.is_optional || old.is_some() {
                found.extend(rule.violation(&self.of, new, old, at, budget));
            }
        }
        found
    }
}

impl Rule {
    fn violation(
        &self,
        of: &Type,
        new: &Value,
        old: Option<&Value>,
        at: At<'_>,
        budget: &mut u64,
    ) -> Option<Violation> {
        let words = if self.message.is_empty() { &self.text } else { &self.message };
        let say = |detail: String| {
            let field = at.to_string();
            Violation {
                kind: ViolationKind::Invalid,
                field,
                value: format!("\"{}\"", json_type(new)),
                detail,
            }
        };
        let program = match &self.program {
            Ok(program) => program,
            Err(why) => return Some(say(format!("{why} evaluating rule: {words}"))),
        };
        let mut variables = vec![("self", from_json(new, of))];
        if self.compares {
            let seen = old.map(|old| from_json(old, of));
            variables.push(match (self.is_optional, seen) {
                (true, seen) => ("oldSelf", Cel::Optional(seen.map(Arc::new))),
                (false, seen) => ("oldSelf", seen.unwrap_or(Cel::Null)),
            });
        }
        let (result, cost) = program.eval(&variables, CALL_BUDGET.min(*budget));
        *budget = budget.saturating_sub(cost);
        match result {
            Ok(Cel::Bool(true)) => None,
            Ok(Cel::Bool(false)) => Some(self.failed(new, &variables, at, budget)),
            Ok(_) => Some(say(format!("rule evaluation error: no such overload evaluating rule: {words}"))),
            Err(EvalError::OverBudget) => {
                *budget = 0;
                let why = "validation failed due to running out of cost budget, no further validation rules will be run";
                Some(say(why.to_owned()))
            }
            Err(error) => Some(say(format!("rule evaluation error: {error} evaluating rule: {words}"))),
        }
    }

    fn failed(&self, new: &Value, variables: &[(&str, Cel<'_>)], at: At<'_>, budget: &mut u64) -> Violation {
        let made = self.message_program.as_ref().and_then(|program| {
            let (text, cost) = program.eval(variables, CALL_BUDGET.min(*budget));
            *budget = budget.saturating_sub(cost);
            match text {
                Ok(Cel::String(text)) => Some(text.trim().to_owned()),
                _ => None,
            }
        });
        let detail = match made.filter(|text| !text.is_empty() && !text.contains('\n')) {
            Some(text) => text,
            None if self.message.is_empty() => format!("failed rule: {}", self.text.trim()),
            None => self.message.to_string(),
        };
        let mut field = at.to_string();
        for name in &self.field {
            if !field.is_empty() {
                field.push('.');
            }
            field.push_str(name);
        }
        let field = if field.is_empty() { "<nil>".to_owned() } else { field };
        let shown = matches!(self.kind, ViolationKind::Invalid | ViolationKind::Duplicate);
        let value = if shown { format!("\"{}\"", json_type(new)) } else { String::new() };
        Violation { kind: self.kind, field, value, detail }
    }
}

/// What upstream shows of a value that a rule is against.
fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
