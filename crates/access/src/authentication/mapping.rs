//! From claims to a user: by the names of claims, or by expressions.

use std::sync::LazyLock;

use cel::{Env, EvalError, Program, Sizes, Type, Value as Cel, from_json};
use serde_json::{Map, Value};

use crate::config_file::message;

/// What one expression may cost: upstream's limit.
const BUDGET: u64 = 1_000_000;

/// An expression that compiled, with its text.
#[derive(Debug)]
pub struct Expression {
    pub text: String,
    program: Program,
}

/// Where a part of the user comes from.
#[derive(Debug)]
pub enum Mapping {
    Claim { name: String, prefix: String },
    Expression(Expression),
}

#[derive(Debug)]
pub struct Extra {
    pub key: String,
    pub value: Expression,
}

/// What a token must say.
#[derive(Debug)]
pub enum ClaimRule {
    Value { claim: String, required: String },
    Expression { expression: Expression, message: String },
}

/// What a user must be.
#[derive(Debug)]
pub struct UserRule {
    pub expression: Expression,
    pub message: String,
}

/// What an expression is about.
#[derive(Clone, Copy)]
pub enum About {
    Claims,
    User,
}

static CLAIMS: LazyLock<Type> = LazyLock::new(|| Type::map(Type::String, Type::Dyn));
static USER: LazyLock<Type> = LazyLock::new(|| {
    let text = Type::String;
    message(
        "kubernetes.UserInfo",
        &[
            ("extra", Type::map(text.clone(), Type::list(text.clone()))),
            ("groups", Type::list(text.clone())),
            ("uid", text.clone()),
            ("username", text),
        ],
    )
});

impl About {
    fn variable(self) -> (&'static str, &'static Type) {
        match self {
            Self::Claims => ("claims", &CLAIMS),
            Self::User => ("user", &USER),
        }
    }
}

impl Expression {
    /// # Errors
    /// Upstream's words for an expression that does not compile, or gives none of the types that are wanted.
    pub fn compile(text: &str, about: About, wanted: &[Type]) -> Result<Self, String> {
        let (name, of) = about.variable();
        let env = Env::default().library(schema::expressions::LIBRARY);
        let env = env.variable(name, of.clone(), Sizes::default());
        let program = env
            .compile(text)
            .map_err(|issues| format!("compilation failed: {}", cel::render(&issues, text)))?;
        let result = program.result();
        if *result != Type::Dyn && !wanted.iter().any(|wanted| wanted.accepts(result)) {
            let names: Vec<String> = wanted.iter().map(ToString::to_string).collect();
            return Err(format!("must evaluate to {}", names.join(" or a ")));
        }
        Ok(Self { text: text.to_owned(), program })
    }

    fn eval<'a>(&self, about: About, value: &'a Value) -> Result<Cel<'a>, String> {
        let (name, of) = about.variable();
        let (value, _) = self.program.eval(&[(name, from_json(value, of))], BUDGET);
        value.map_err(|error| match error {
            EvalError::OverBudget => "operation cancelled: actual cost limit exceeded".to_owned(),
            error => format!("expression '{}' resulted in error: {error}", self.text),
        })
    }

    /// # Errors
    /// It fails, or gives no bool.
    pub fn holds(&self, about: About, value: &Value) -> Result<bool, String> {
        match self.eval(about, value)? {
            Cel::Bool(holds) => Ok(holds),
            other => Err(format!("expression '{}' gave a {}, not a bool", self.text, other.type_name())),
        }
    }

    fn text(&self, claims: &Value) -> Result<String, String> {
        match self.eval(About::Claims, claims)? {
            Cel::String(text) => Ok(text.to_string()),
            other => Err(format!("expression '{}' gave a {}, not a string", self.text, other.type_name())),
        }
    }

    /// One text is a list of one; nothing and an empty text are no text.
    pub fn texts(&self, claims: &Value) -> Result<Vec<String>, String> {
        let value = self.eval(About::Claims, claims)?;
        let wrong = |other: &Cel| {
            format!(
                "expression '{}' gave a {}, not a string or a list of strings",
                self.text,
                other.type_name()
            )
        };
        match &value {
            Cel::Null => Ok(Vec::new()),
            Cel::String(text) if text.is_empty() => Ok(Vec::new()),
            Cel::String(text) => Ok(vec![text.to_string()]),
            other => {
                let elements = other.elements().ok_or_else(|| wrong(other))?;
                let texts = elements.iter().map(|element| match element {
                    Cel::String(text) => Ok(text.to_string()),
                    other => Err(wrong(other)),
                });
                texts.collect()
            }
        }
    }
}

impl Mapping {
    /// The one text that it gives.
    pub fn text(&self, claims: &Value) -> Result<String, String> {
        match self {
            Self::Expression(expression) => expression.text(claims),
            Self::Claim { name, prefix } => match claims.get(name) {
                Some(Value::String(text)) => Ok(format!("{prefix}{text}")),
                Some(_) => Err(format!("the claim {name:?} is no string")),
                None => Err(format!("claim {name:?} not present")),
            },
        }
    }

    /// The texts that it gives; a claim that is absent gives none.
    pub fn texts(&self, claims: &Value) -> Result<Vec<String>, String> {
        let Self::Claim { name, prefix } = self else {
            let Self::Expression(expression) = self else { return Ok(Vec::new()) };
            return expression.texts(claims);
        };
        let prefixed = |value: &Value| {
            let text = value.as_str().ok_or_else(|| format!("the claim {name:?} holds what is no string"))?;
            Ok(format!("{prefix}{text}"))
        };
        match claims.get(name) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(values)) => values.iter().map(prefixed).collect(),
            Some(value) => prefixed(value).map(|text| vec![text]),
        }
    }

    /// A claim that decides about a name must be the issuer's own word: an address that nobody verified is not.
    pub fn is_unverified_email(&self, claims: &Map<String, Value>) -> bool {
        matches!(self, Self::Claim { name, .. } if name == "email")
            && claims.get("email_verified").is_some_and(|verified| *verified != Value::Bool(true))
    }
}
