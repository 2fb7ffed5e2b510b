//! `x-kubernetes-validations`: rules in CEL beside the schema of what they are about.
//! <https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#validation-rules>

use std::sync::Arc;

use cel::{EvalError, Program, Type, Value as Cel, from_json};
use schema::custom::{Answer, Asked, Node, Rules, Which, field_path, of_default};
use schema::{At, Violation, ViolationKind, path};
use serde_json::Value;

use crate::definition_types::{Declared, declared, multiplies};
use crate::spec::check::Found;

const RULES: &str = "x-kubernetes-validations";
/// What one rule may cost at most by its estimate, and all rules of a version together.
const RULE_ESTIMATE: u64 = 10_000_000;
const VERSION_ESTIMATE: u64 = 100_000_000;
/// What one evaluation may cost.
const CALL_BUDGET: u64 = 1_000_000;

/// What an expression may give as a message.
const MESSAGE_MOST_BYTES: usize = 5 * 1024;
/// How many rules are named that together cost too much.
const DEAREST: usize = 4;

/// How what a rule's reason says is told; [`schema::custom::REASONS`] are all that there are.
const KINDS_OF_REASONS: [(&str, ViolationKind); 4] = [
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

    /// A rule's program, and whether it needs what the value was: then it does not compile without.
    fn rule(&self, rule: &Value) -> Result<(Program, bool), String> {
        let (program, compares) = self.compile(rule, path::text(rule, "rule"))?;
        match program.result() {
            Type::Bool => Ok((program, compares)),
            _ => Err("cel expression must evaluate to a bool".into()),
        }
    }

    fn message(&self, rule: &Value) -> Result<Program, String> {
        let compiled = self.compile(rule, path::text(rule, "messageExpression"));
        let (program, _) = compiled.map_err(|why| format!("messageExpression {why}"))?;
        match program.result() {
            Type::String => Ok(program),
            _ => Err("messageExpression must evaluate to a string".into()),
        }
    }

    fn compile(&self, rule: &Value, text: &str) -> Result<(Program, bool), String> {
        if let Ok(program) = self.state.compile(text) {
            return Ok((program, false));
        }
        let is_optional = path::bool(rule, "optionalOldSelf");
        let env = if is_optional { &self.optional } else { &self.transition };
        let compiled = env.compile(text).map(|program| (program, true));
        compiled.map_err(|issues| format!("compilation failed: {}", cel::render(&issues, text)))
    }
}

/// Where the walk over a schema is.
#[derive(Clone, Copy)]
struct Place<'a> {
    at: At<'a>,
    is_resource: bool,
    /// How many values of the schema an object can have; None: nothing around it bounds them.
    count: Option<u64>,
    /// The list or map without keys within which values cannot be told to be the same after an update.
    lost: Option<&'a str>,
}

/// What the walk has come upon.
struct Walk<'a> {
    /// Where single schemas are wrong. Rules beside and around those are not compiled: their types may be no types.
    wrong: &'a [String],
    spent: u64,
    /// The rules that cost most, first of all the dearest.
    dearest: Vec<(u64, String)>,
}

/// Everything that is wrong with the rules in a sound schema of whole objects. `wrong` are the places of what else is.
pub fn check(schema: &Value, wrong: &[String], at: At<'_>, found: &mut Found) {
    let before = found.len();
    defaults(schema, true, at, found);
    if found.len() > before {
        return;
    }
    let mut walk = Walk { wrong, spent: 0, dearest: Vec::new() };
    let place = Place { at, is_resource: true, count: Some(1), lost: None };
    walk.node(schema, place, found);
    if walk.spent > VERSION_ESTIMATE {
        for (_, field) in &walk.dearest {
            let why =
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            found.push(Violation::forbidden(At::root(field), why));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        found.push(Violation::forbidden(at, too_dear(what, walk.spent, VERSION_ESTIMATE)));
    }
}

/// Defaults that their own rules refuse.
fn defaults(schema: &Value, is_resource: bool, at: At<'_>, found: &mut Found) {
    if let Some(default) = schema.get("default").filter(|default| !default.is_null()) {
        let node = Node::ruled(schema, is_resource, &compile);
        found.extend(of_default(&node, default, at.field("default")));
    }
    if let Some(inner) = schema.get("items").filter(|inner| inner.is_object()) {
        defaults(inner, is_embedded(inner), at.field("items"), found);
    }
    let properties_at = at.field("properties");
    for (name, inner) in path::members(schema, "properties") {
        defaults(inner, is_embedded(inner), properties_at.key(name), found);
    }
}

fn is_embedded(schema: &Value) -> bool {
    path::bool(schema, "x-kubernetes-embedded-resource")
}

fn too_dear(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = match factor {
        100.0.. if factor > 100.0 => "more than 100x".to_owned(),
        ..1.5 => format!("{factor:.6}x"),
        _ => format!("{factor:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}

impl Walk<'_> {
    /// The schemas within come first, as upstream tells them.
    fn node(&mut self, schema: &Value, place: Place<'_>, found: &mut Found) {
        let count = place.count.zip(multiplies(schema)).map(|(count, times)| count.saturating_mul(times));
        let within = |inner: &Value, at| Place { at, is_resource: is_embedded(inner), count, ..place };
        if let Some(inner) = schema.get("additionalProperties").filter(|inner| inner.is_object()) {
            self.node(inner, within(inner, place.at.field("additionalProperties")), found);
        }
        let properties_at = place.at.field("properties");
        for (name, inner) in path::members(schema, "properties") {
            self.node(inner, within(inner, properties_at.key(name)), found);
        }
        if let Some(inner) = schema.get("items").filter(|inner| inner.is_object()) {
            let own = place.at.to_string();
            let keeps = path::text(schema, "x-kubernetes-list-type") == "map";
            let lost = place.lost.or((!keeps).then_some(&*own));
            let at = place.at.field("items");
            self.node(inner, Place { lost, at, is_resource: is_embedded(inner), count }, found);
        }
        let rules = path::list(schema, RULES);
        if rules.is_empty() || self.is_wrong_within(place.at) {
            return;
        }
        let Some(language) = Language::of(schema, place.is_resource) else { return };
        let at = place.at.field(RULES);
        for (index, rule) in rules.iter().enumerate() {
            self.rule(rule, &language, Place { at: at.index(index), ..place }, found);
        }
    }

    fn is_wrong_within(&self, at: At<'_>) -> bool {
        let own = at.to_string();
        self.wrong.iter().any(|field| {
            field.strip_prefix(&*own).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }

    fn observe(&mut self, cost: u64, at: At<'_>) {
        self.spent = self.spent.saturating_add(cost);
        if cost < VERSION_ESTIMATE / 100 {
            return;
        }
        self.dearest.push((cost, at.to_string()));
        self.dearest.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
        self.dearest.truncate(DEAREST);
    }

    fn rule(&mut self, rule: &Value, language: &Language, place: Place<'_>, found: &mut Found) {
        let at = place.at;
        let rule_at = at.field("rule");
        let compiled = language.rule(rule);
        let estimate = compiled.as_ref().map_or(0, |(program, _)| program.estimate().max);
        let cost = estimate.saturating_mul(place.count.unwrap_or_else(|| language.of.most_in_request()));
        if cost > RULE_ESTIMATE {
            found.push(Violation::forbidden(rule_at, too_dear("estimated rule cost", cost, RULE_ESTIMATE)));
        }
        self.observe(cost, rule_at);
        let compares = match compiled {
            Ok((_, compares)) => {
                self.message(rule, language, at, found);
                compares
            }
            Err(why) => {
                found.push(Violation::invalid(rule_at, rule, why));
                false
            }
        };
        if let Some(lost) = place.lost.filter(|_| compares) {
            let why =
                format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {lost}");
            found.push(Violation::invalid(rule_at, path::text(rule, "rule"), why));
        } else if !compares && rule.get("optionalOldSelf").is_some_and(|flag| !flag.is_null()) {
            let why = "may not be set if oldSelf is not used in rule";
            found.push(Violation::invalid(at.field("optionalOldSelf"), &rule["optionalOldSelf"], why));
        }
    }

    fn message(&mut self, rule: &Value, language: &Language, at: At<'_>, found: &mut Found) {
        if path::text(rule, "messageExpression").is_empty() {
            return;
        }
        let at = at.field("messageExpression");
        match language.message(rule) {
            Ok(program) => {
                let cost = program.estimate().max;
                if cost > RULE_ESTIMATE {
                    let why = too_dear("estimated messageExpression cost", cost, RULE_ESTIMATE);
                    found.push(Violation::forbidden(at, why));
                }
                self.observe(cost, at);
            }
            Err(why) => found.push(Violation::invalid(at, rule, why)),
        }
    }
}

/// The rules of one schema, ready to be asked.
#[derive(Debug)]
struct Compiled {
    of: Type,
    /// What the schema calls the type of its values; empty: any.
    type_name: Box<str>,
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
    message_text: Box<str>,
    message_program: Option<Program>,
    kind: ViolationKind,
    /// Where in the value it points to: `spec.a`, `labels[x]`; empty: the value itself.
    field: Box<str>,
}

/// The compiled rules of one schema, told as it is written. What does not compile any more is told when it is asked.
pub fn compile(schema: &Value, is_resource: bool) -> Option<Arc<dyn Rules>> {
    let language = Language::of(schema, is_resource)?;
    let rule = |rule: &Value| {
        let compiled = language.rule(rule);
        let message = path::text(rule, "messageExpression");
        let reason = path::text(rule, "reason");
        let known = KINDS_OF_REASONS.iter().find(|(known, _)| *known == reason);
        Rule {
            text: path::text(rule, "rule").trim().into(),
            compares: compiled.as_ref().is_ok_and(|(_, compares)| *compares),
            program: compiled.map(|(program, _)| program),
            is_optional: path::bool(rule, "optionalOldSelf"),
            message: path::text(rule, "message").trim().into(),
            message_text: message.into(),
            message_program: Some(message)
                .filter(|text| !text.is_empty())
                .and_then(|_| language.message(rule).ok()),
            kind: known.map_or(ViolationKind::Invalid, |(_, kind)| *kind),
            field: field_path::follow(schema, path::text(rule, "fieldPath"), true)
                .map(|(told, _)| told.into())
                .unwrap_or_default(),
        }
    };
    let rules: Vec<Rule> = path::list(schema, RULES)
        .iter()
        .filter(|rule| !path::text(rule, "rule").trim().is_empty())
        .map(rule)
        .collect();
    let type_name = path::text(schema, "type").into();
    let of = language.of.r#type;
    (!rules.is_empty()).then(|| Arc::new(Compiled { of, type_name, rules }) as Arc<dyn Rules>)
}

impl Rules for Compiled {
    fn violations(&self, asked: Asked<'_>, which: Which, budget: &mut u64) -> Answer {
        let mut answer = Answer::default();
        for rule in &self.rules {
            let only_warns = asked.is_unchanged && !rule.compares;
            if only_warns != (which == Which::Warnings) {
                continue;
            }
            if rule.compares && !rule.is_optional && asked.old.is_none() {
                continue;
            }
            let mut asking = Asking { of: self, rule, asked, budget, is_over: false };
            let told = asking.answer();
            let is_over = asking.is_over;
            answer.found.extend(told);
            if is_over {
                answer.is_over = true;
                break;
            }
        }
        answer
    }
}

/// One rule, being asked of one value.
struct Asking<'a> {
    of: &'a Compiled,
    rule: &'a Rule,
    asked: Asked<'a>,
    budget: &'a mut u64,
    /// No further rule may be asked.
    is_over: bool,
}

const SPENT: &str = "out of cost budget, no further validation rules will be run";

impl Asking<'_> {
    fn answer(&mut self) -> Option<Violation> {
        let rule = self.rule;
        let program = match &rule.program {
            Ok(program) => program,
            Err(why) => return Some(self.at_the_value(format!("rule compile error: {why}"))),
        };
        if *self.budget == 0 {
            self.is_over = true;
            return Some(self.at_the_value(format!("validation failed due to running {SPENT}")));
        }
        let of = &self.of.of;
        let mut variables = vec![("self", from_json(self.asked.new, of))];
        if rule.compares {
            let seen = self.asked.old.map(|old| from_json(old, of));
            variables.push(match (rule.is_optional, seen) {
                (true, seen) => ("oldSelf", Cel::Optional(seen.map(Arc::new))),
                (false, seen) => ("oldSelf", seen.unwrap_or(Cel::Null)),
            });
        }
        let (result, spends_all) = self.evaluate(program, &variables);
        let words = if rule.message.is_empty() { &rule.text } else { &rule.message };
        match result {
            Ok(Cel::Bool(true)) => None,
            Ok(Cel::Bool(false)) => Some(self.failed(&variables)),
            Err(EvalError::OverBudget) => {
                self.is_over = true;
                Some(self.at_the_value(match spends_all {
                    true => format!("validation failed due to running {SPENT}"),
                    false => format!(
                        "'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: {words}"
                    ),
                }))
            }
            other => {
                let why = other.map_or_else(|error| error.to_string(), |_| "no such overload".into());
                Some(self.at_the_value(match why.starts_with("no such overload") {
                    true => format!(
                        "'{why}': call arguments did not match a supported operator, function or macro signature for rule: {words}"
                    ),
                    false => format!("{why} evaluating rule: {words}"),
                }))
            }
        }
    }

    /// What a program gives, and whether it was stopped since all rules together may cost no more, rather than it alone.
    fn evaluate<'v>(
        &mut self,
        program: &Program,
        variables: &[(&str, Cel<'v>)],
    ) -> (Result<Cel<'v>, EvalError>, bool) {
        let spends_all = *self.budget < CALL_BUDGET;
        let (result, cost) = program.eval(variables, CALL_BUDGET.min(*self.budget));
        *self.budget = self.budget.saturating_sub(cost);
        (result, spends_all)
    }

    fn failed(&mut self, variables: &[(&str, Cel<'_>)]) -> Violation {
        let rule = self.rule;
        let field = self.field();
        let made = match rule.message_program.as_ref().map(|program| self.evaluate(program, variables)) {
            Some((Err(EvalError::OverBudget), spends_all)) => {
                self.is_over = true;
                let detail = match spends_all {
                    true => format!("messageExpression evaluation failed due to running {SPENT}"),
                    false => format!(
                        "no further validation rules will be run due to call cost exceeds limit for messageExpression: {:?}",
                        rule.message_text
                    ),
                };
                return Violation { field, ..self.at_the_value(detail) };
            }
            Some((Ok(Cel::String(text)), _)) => Some(text.trim().to_owned()),
            _ => None,
        };
        let is_fit =
            |text: &String| !text.is_empty() && text.len() <= MESSAGE_MOST_BYTES && !text.contains('\n');
        let detail = match made.filter(is_fit) {
            Some(text) => text,
            None if rule.message.is_empty() => format!("failed rule: {}", rule.text),
            None => rule.message.to_string(),
        };
        // Of what is there twice nothing else is said.
        let detail = if rule.kind == ViolationKind::Duplicate { String::new() } else { detail };
        // What has parts is not shown whole.
        let value = match &*self.of.type_name {
            "array" | "object" => String::new(),
            _ => self.asked.new.to_string(),
        };
        Violation { kind: rule.kind, field, value, detail }
    }

    /// Something of the value itself, which is shown by its type.
    fn at_the_value(&self, detail: String) -> Violation {
        let field = or_nowhere(self.asked.at.to_string());
        Violation { kind: ViolationKind::Invalid, field, value: format!("\"{}\"", self.of.type_name), detail }
    }

    fn field(&self) -> String {
        let own = self.asked.at.to_string();
        or_nowhere(match (own.is_empty(), &*self.rule.field) {
            (_, "") => own,
            (true, inner) => inner.to_owned(),
            (false, inner) => format!("{own}.{inner}"),
        })
    }
}

/// How upstream names the place of a whole object.
fn or_nowhere(field: String) -> String {
    if field.is_empty() { "<nil>".to_owned() } else { field }
}
