//! cel-go's set functions over lists.

use super::{elements, overload};
use crate::function::Ty::{Bool, List, Param};
use crate::function::{Cost, Function, Ty};
use crate::value::Value;

const A: Ty = Param(0);

pub const FUNCTIONS: &[Function] = &[
    Function {
        name: "sets.contains",
        overloads: &[overload!((List(&A), List(&A)) -> Bool, Cost::Pairs(0, 1), |args| {
            let (all, wanted) = (elements(args, 0)?, elements(args, 1)?);
            Ok(Value::Bool(contains(&all, &wanted)))
        })],
    },
    Function {
        name: "sets.equivalent",
        overloads: &[overload!((List(&A), List(&A)) -> Bool, Cost::Pairs(0, 1), |args| {
            let (one, two) = (elements(args, 0)?, elements(args, 1)?);
            Ok(Value::Bool(contains(&one, &two) && contains(&two, &one)))
        })],
    },
    Function {
        name: "sets.intersects",
        overloads: &[overload!((List(&A), List(&A)) -> Bool, Cost::Pairs(0, 1), |args| {
            let (one, two) = (elements(args, 0)?, elements(args, 1)?);
            Ok(Value::Bool(one.iter().any(|element| two.iter().any(|other| element.equals(other)))))
        })],
    },
];

fn contains(all: &[Value], wanted: &[Value]) -> bool {
    wanted.iter().all(|element| all.iter().any(|known| known.equals(element)))
}
