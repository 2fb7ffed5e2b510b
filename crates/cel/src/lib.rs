//! The Common Expression Language as Kubernetes speaks it: parsed, type-checked, its cost bounded, evaluated. Knows no kind.
//!
//! ```text
//! source ─► lex ─► parse (macros expanded) ─► check (types, overloads) ─► Program ─► eval(variables, budget) ─► Value
//!                                                └─► cost: what it may cost at most, before it ever runs
//! ```
//!
//! The language is that of cel.dev's specification with the extensions that Kubernetes switches on (optionals, `cel.bind`, two-variable
//! macros, strings, lists, sets, regex, URLs, addresses, semantic versions). What needs Kubernetes' own vocabulary (quantities,
//! authorizers, named formats) is a table of [`Function`]s that the caller adds to its [`Env`].
//!
//! Why not a library: those at hand neither check types nor bound costs, and both decide what an API server accepts.
//!
//! Architecture invariant: pure, and bounded: an evaluation ends at its budget, a parse at its depth and length.

mod ast;
mod check;
mod cost;
mod env;
mod error;
mod eval;
mod function;
mod functions;
mod json;
mod lex;
mod macros;
mod parse;
mod types;
mod value;

pub use cost::{Estimate, Sizes, UNBOUNDED};
pub use env::{Env, Program, Variable};
pub use error::{EvalError, Issue, render};
pub use function::{Call, Cost, Function, Host, Nobody, Overload, Ty};
pub use json::{escape, from_json, to_json};
pub use types::{Field, ObjectType, Type};
pub use value::{Key, Opaque, Text, Value};
