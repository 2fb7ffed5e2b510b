//! What the expressions of admission may use: their variables, and the authorizer.
//! <https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/#validation-expression>

use std::any::Any;
use std::sync::Arc;

use cel::Ty::{Bool, Opaque as Of, String};
use cel::{
    Cost, Env, EvalError, Field, Function, Host, ObjectType, Opaque, Sizes, Ty, Type, Value, overload,
};

/// What an expression is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    Bool,
    Text,
    /// A text, or nothing.
    TextOrNull,
    /// An object whose fields are merged in.
    Configuration,
    /// A list of operations of a JSON patch.
    Patch,
    /// Whatever it gives: a variable of the policy.
    Anything,
}

/// What a policy or a webhook gives its expressions besides the request.
#[derive(Clone, Debug, Default)]
pub struct Given {
    pub params: bool,
    pub authorizer: bool,
}

/// An environment for expressions about a request.
pub fn env(given: &Given) -> Env {
    let mut env = Env::default()
        .library(schema::expressions::LIBRARY)
        .variable("object", Type::Dyn, Sizes::default())
        .variable("oldObject", Type::Dyn, Sizes::default())
        .variable("namespaceObject", Type::Dyn, Sizes::default())
        .variable("request", Type::Object(request_type()), Sizes::default())
        .makes("Object")
        .makes("JSONPatch")
        .library(JSON_PATCH);
    if given.params {
        env = env.variable("params", Type::Dyn, Sizes::default());
    }
    if given.authorizer {
        env = env.library(AUTHORIZER).variable("authorizer", AUTHORIZER_TYPE.to_type(), Sizes::default());
        let request_resource = RESOURCE_CHECK.to_type();
        env = env.variable("authorizer.requestResource", request_resource, Sizes::default());
    }
    env
}

/// Adds a variable of a policy: the expressions behind it see it.
pub fn declare(env: &mut Env, name: &str, r#type: Type) {
    env.field("variables", Field { name: name.to_owned(), r#type, sizes: Sizes::default() });
}

/// Compiles an expression of a policy, or says what is wrong with it in upstream's words.
pub fn compile(env: &Env, text: &str, wanted: Wanted) -> Result<cel::Program, std::string::String> {
    let program =
        env.compile(text).map_err(|issues| format!("compilation failed: {}", cel::render(&issues, text)))?;
    let result = program.result();
    let (fits, what) = match wanted {
        Wanted::Bool => (Type::Bool.accepts(result), "bool"),
        Wanted::Text => (Type::String.accepts(result), "string"),
        Wanted::TextOrNull => {
            (matches!(result, Type::Dyn | Type::String | Type::Null), "string or null_type")
        }
        Wanted::Configuration => (matches!(result, Type::Dyn | Type::Object(_)), "Object"),
        Wanted::Patch => (matches!(result, Type::Dyn | Type::List(_)), "list(JSONPatch)"),
        Wanted::Anything => (true, ""),
    };
    if fits { Ok(program) } else { Err(format!("must evaluate to {what}")) }
}

/// As [`compile`], for what is checked before it is stored: the type must be known, and what it is instead is told.
pub fn compile_exactly(env: &Env, text: &str, wanted: Wanted) -> Result<cel::Program, std::string::String> {
    let program = compile(env, text, Wanted::Anything)?;
    let result = program.result();
    let is_named = |name: &str| matches!(result, Type::Object(object) if object.name == name);
    let (fits, what) = match wanted {
        Wanted::Bool => (*result == Type::Bool, "bool"),
        Wanted::Text => (*result == Type::String, "string"),
        Wanted::TextOrNull => (matches!(result, Type::String | Type::Null), "one of [string null_type]"),
        Wanted::Configuration => (is_named("Object"), "Object"),
        Wanted::Patch => (matches!(result, Type::List(_)), "list(JSONPatch)"),
        Wanted::Anything => (true, ""),
    };
    if fits { Ok(program) } else { Err(format!("must evaluate to {what} but got {result}")) }
}

/// Adds what is wrong with the expression in a member of `of`; one that is absent or empty is for others to miss.
pub(crate) fn check(
    env: &Env,
    of: &serde_json::Value,
    member: &str,
    wanted: Wanted,
    at: schema::At<'_>,
    found: &mut Vec<schema::Violation>,
) -> Option<Type> {
    let text = schema::path::text(of, member);
    if text.trim().is_empty() {
        return None;
    }
    match compile_exactly(env, text, wanted) {
        Ok(program) => Some(program.result().clone()),
        Err(why) => {
            found.push(schema::Violation::invalid(at.field(member), text, why));
            None
        }
    }
}

/// The environment behind the variables of a policy, with what is wrong with those.
pub(crate) fn check_variables(
    spec: &serde_json::Value,
    at: schema::At<'_>,
    found: &mut Vec<schema::Violation>,
) -> Env {
    let params = spec.get("paramKind").is_some_and(|kind| !kind.is_null());
    let mut seen = env(&Given { params, authorizer: true });
    if !schema::path::list(spec, "variables").is_empty() {
        seen.object("variables");
    }
    let list = at.field("variables");
    for (index, variable) in schema::path::list(spec, "variables").iter().enumerate() {
        let result = check(&seen, variable, "expression", Wanted::Anything, list.index(index), found);
        declare(&mut seen, schema::path::text(variable, "name"), result.unwrap_or(Type::Dyn));
    }
    seen
}

/// `AdmissionRequest`, without the objects, which are variables of their own.
fn request_type() -> Arc<ObjectType> {
    let object = |name: &str, fields: &[(&str, Type)]| {
        let fields = fields.iter().map(|(name, r#type)| {
            let field = Field { name: (*name).to_owned(), r#type: r#type.clone(), sizes: Sizes::default() };
            ((*name).to_owned(), field)
        });
        Type::Object(Arc::new(ObjectType { name: name.to_owned(), fields: fields.collect(), open: false }))
    };
    let text = Type::String;
    let kind = object(
        "kubernetes.GroupVersionKind",
        &[("group", text.clone()), ("version", text.clone()), ("kind", text.clone())],
    );
    let resource = object(
        "kubernetes.GroupVersionResource",
        &[("group", text.clone()), ("version", text.clone()), ("resource", text.clone())],
    );
    let user = object(
        "kubernetes.UserInfo",
        &[
            ("username", text.clone()),
            ("uid", text.clone()),
            ("groups", Type::list(text.clone())),
            ("extra", Type::map(text.clone(), Type::list(text.clone()))),
        ],
    );
    let request = object(
        "kubernetes.AdmissionRequest",
        &[
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("subResource", text.clone()),
            ("requestKind", kind),
            ("requestResource", resource),
            ("requestSubResource", text.clone()),
            ("name", text.clone()),
            ("namespace", text.clone()),
            ("operation", text),
            ("userInfo", user),
            ("dryRun", Type::Bool),
            ("options", Type::Dyn),
        ],
    );
    match request {
        Type::Object(object) => object,
        _ => Arc::default(),
    }
}

/// The type of `request`, for whoever gives it its value.
pub fn request_variable() -> Type {
    Type::Object(request_type())
}

const JSON_PATCH: &[Function] = &[Function {
    name: "jsonpatch.escapeKey",
    overloads: &[overload!((String) -> String, Cost::Walk(&[0]), |args| match args {
        [Value::String(key)] => Ok(key.replace('~', "~0").replace('/', "~1").into()),
        _ => Err(EvalError::new("no such overload")),
    })],
}];

const AUTHORIZER_TYPE: Ty = Of("kubernetes.authorization.Authorizer");
const PATH_CHECK: Ty = Of("kubernetes.authorization.PathCheck");
const GROUP_CHECK: Ty = Of("kubernetes.authorization.GroupCheck");
const RESOURCE_CHECK: Ty = Of("kubernetes.authorization.ResourceCheck");
const DECISION: Ty = Of("kubernetes.authorization.Decision");

/// What upstream counts for a question to the authorizer.
const ASKING: u64 = 350_000;

/// <https://kubernetes.io/docs/reference/using-api/cel/#kubernetes-authorizer-library>
pub const AUTHORIZER: &[Function] = &[
    Function {
        name: "allowed",
        overloads: &[
            overload!(member (DECISION) -> Bool, Cost::One, |args| Ok(Value::Bool(held::<Verdict>(args)?.allowed))),
        ],
    },
    Function {
        name: "check",
        overloads: &[
            overload!(member (PATH_CHECK, String) -> DECISION, Cost::Fixed(ASKING), ask |args, host| asked(args, host)),
            overload!(member (RESOURCE_CHECK, String) -> DECISION, Cost::Fixed(ASKING), ask |args, host| asked(args, host)),
        ],
    },
    Function {
        name: "error",
        overloads: &[overload!(member (DECISION) -> String, Cost::One, |args| {
            held::<Verdict>(args)?;
            Ok("".into())
        })],
    },
    Function {
        name: "errored",
        overloads: &[overload!(member (DECISION) -> Bool, Cost::One, |args| {
            held::<Verdict>(args)?;
            Ok(Value::Bool(false))
        })],
    },
    Function {
        name: "group",
        overloads: &[overload!(member (AUTHORIZER_TYPE, String) -> GROUP_CHECK, Cost::One, |args| {
            refined(args, "kubernetes.authorization.GroupCheck", |question, text| question.group = text)
        })],
    },
    Function {
        name: "name",
        overloads: &[overload!(member (RESOURCE_CHECK, String) -> RESOURCE_CHECK, Cost::One, |args| {
            refined(args, "kubernetes.authorization.ResourceCheck", |question, text| question.name = text)
        })],
    },
    Function {
        name: "namespace",
        overloads: &[overload!(member (RESOURCE_CHECK, String) -> RESOURCE_CHECK, Cost::One, |args| {
            refined(args, "kubernetes.authorization.ResourceCheck", |question, text| question.namespace = text)
        })],
    },
    Function {
        name: "path",
        overloads: &[overload!(member (AUTHORIZER_TYPE, String) -> PATH_CHECK, Cost::One, |args| {
            refined(args, "kubernetes.authorization.PathCheck", |question, text| question.path = text)
        })],
    },
    Function {
        name: "reason",
        overloads: &[
            overload!(member (DECISION) -> String, Cost::One, |args| Ok(held::<Verdict>(args)?.reason.clone().into())),
        ],
    },
    Function {
        name: "resource",
        overloads: &[overload!(member (GROUP_CHECK, String) -> RESOURCE_CHECK, Cost::One, |args| {
            refined(args, "kubernetes.authorization.ResourceCheck", |question, text| question.resource = text)
        })],
    },
    Function {
        name: "serviceAccount",
        overloads: &[
            overload!(member (AUTHORIZER_TYPE, String, String) -> AUTHORIZER_TYPE, Cost::One, |args| {
                let [_, Value::String(namespace), Value::String(name)] = args else {
                    return Err(EvalError::new("no such overload"));
                };
                for (what, wrong) in [(namespace, schema::names::dns_label(namespace)), (name, schema::names::dns_subdomain(name))] {
                    if let Some(why) = wrong.first() {
                        return Err(EvalError::new(format!("Invalid service account {:?}: {why}", &**what)));
                    }
                }
                let mut question = held::<Question>(args)?.clone();
                question.service_account = Some((namespace.to_string(), name.to_string()));
                Ok(Value::opaque(question))
            }),
        ],
    },
    Function {
        name: "subresource",
        overloads: &[overload!(member (RESOURCE_CHECK, String) -> RESOURCE_CHECK, Cost::One, |args| {
            refined(args, "kubernetes.authorization.ResourceCheck", |question, text| question.subresource = text)
        })],
    },
];

/// What an expression asks the authorizer: [`Host::answer`] gets it whole, with the verb, and gives a [`Verdict`].
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    type_name: &'static str,
    /// Namespace and name; none: the user of the request.
    pub service_account: Option<(std::string::String, std::string::String)>,
    pub path: std::string::String,
    pub group: std::string::String,
    pub resource: std::string::String,
    pub subresource: std::string::String,
    pub namespace: std::string::String,
    pub name: std::string::String,
    pub verb: std::string::String,
}

/// The authorizer's answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub allowed: bool,
    pub reason: std::string::String,
}

impl Question {
    /// The value of `authorizer`.
    pub fn begin() -> Self {
        let empty = std::string::String::new;
        Self {
            type_name: "kubernetes.authorization.Authorizer",
            service_account: None,
            path: empty(),
            group: empty(),
            resource: empty(),
            subresource: empty(),
            namespace: empty(),
            name: empty(),
            verb: empty(),
        }
    }

    /// The same about a resource: the value of `authorizer.requestResource`, filled in by the caller.
    pub fn of_resource(self) -> Self {
        Self { type_name: "kubernetes.authorization.ResourceCheck", ..self }
    }
}

impl Opaque for Question {
    fn type_name(&self) -> &'static str {
        self.type_name
    }
    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref() == Some(self)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Opaque for Verdict {
    fn type_name(&self) -> &'static str {
        "kubernetes.authorization.Decision"
    }
    fn equals(&self, other: &dyn Opaque) -> bool {
        other.as_any().downcast_ref() == Some(self)
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn held<'v, T: 'static>(args: &'v [Value<'_>]) -> Result<&'v T, EvalError> {
    args.first().and_then(Value::as_opaque).ok_or_else(|| EvalError::new("no such overload"))
}

/// The question with one more part; a part that is empty asks about nothing.
fn refined<'a>(
    args: &[Value<'a>],
    type_name: &'static str,
    set: fn(&mut Question, std::string::String),
) -> Result<Value<'a>, EvalError> {
    let Some(Value::String(text)) = args.get(1) else { return Err(EvalError::new("no such overload")) };
    let mut question = held::<Question>(args)?.clone();
    question.type_name = type_name;
    set(&mut question, text.to_string());
    Ok(Value::opaque(question))
}

fn asked<'a>(args: &[Value<'a>], host: &dyn Host<'a>) -> Result<Value<'a>, EvalError> {
    let Some(Value::String(verb)) = args.get(1) else { return Err(EvalError::new("no such overload")) };
    let mut question = held::<Question>(args)?.clone();
    question.verb = verb.to_string();
    host.answer(&question).ok_or_else(|| EvalError::new("there is no authorizer to ask"))
}
