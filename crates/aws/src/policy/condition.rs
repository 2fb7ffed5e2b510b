//! The condition operators.
//!
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_condition_operators.html>

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use object::Time;

use super::Keys;
use super::pattern::{Pattern, Signs};

/// One operator on one key: `"StringEquals": {"aws:username": ["a", "b"]}`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Condition {
    operator: Operator,
    negated: bool,
    if_exists: bool,
    set: Set,
    /// In lower case.
    key: Box<str>,
    values: Box<[Operand]>,
}

/// How several values of the request are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Set {
    /// The key has one value.
    One,
    ForAllValues,
    ForAnyValue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Text,
    Arn,
    Number(Order),
    Date(Order),
    Bool,
    Binary,
    Ip,
    Null,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A value of the policy, read once.
#[derive(Clone, Debug, PartialEq)]
enum Operand {
    Text(Pattern),
    Number(f64),
    Date(Time),
    Bytes(Vec<u8>),
    Net(IpAddr, u8),
    Flag(bool),
}

/// What is wrong with a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BadCondition {
    Operator,
    Value,
}

const TEXT: Signs = Signs { wildcards: false, variables: true, any_case: false };
const LIKE: Signs = Signs { wildcards: true, variables: true, any_case: false };
const ANY_CASE: Signs = Signs { wildcards: false, variables: true, any_case: true };
const BARE: Signs = Signs { wildcards: false, variables: false, any_case: false };

/// Name, operator, whether it is the negation, which signs its values may have.
const OPERATORS: &[(&str, Operator, bool, Signs)] = &[
    ("ArnEquals", Operator::Arn, false, LIKE),
    ("ArnLike", Operator::Arn, false, LIKE),
    ("ArnNotEquals", Operator::Arn, true, LIKE),
    ("ArnNotLike", Operator::Arn, true, LIKE),
    ("BinaryEquals", Operator::Binary, false, BARE),
    ("Bool", Operator::Bool, false, ANY_CASE),
    ("DateEquals", Operator::Date(Order::Equal), false, BARE),
    ("DateGreaterThan", Operator::Date(Order::Greater), false, BARE),
    ("DateGreaterThanEquals", Operator::Date(Order::GreaterOrEqual), false, BARE),
    ("DateLessThan", Operator::Date(Order::Less), false, BARE),
    ("DateLessThanEquals", Operator::Date(Order::LessOrEqual), false, BARE),
    ("DateNotEquals", Operator::Date(Order::Equal), true, BARE),
    ("IpAddress", Operator::Ip, false, BARE),
    ("NotIpAddress", Operator::Ip, true, BARE),
    ("Null", Operator::Null, false, BARE),
    ("NumericEquals", Operator::Number(Order::Equal), false, BARE),
    ("NumericGreaterThan", Operator::Number(Order::Greater), false, BARE),
    ("NumericGreaterThanEquals", Operator::Number(Order::GreaterOrEqual), false, BARE),
    ("NumericLessThan", Operator::Number(Order::Less), false, BARE),
    ("NumericLessThanEquals", Operator::Number(Order::LessOrEqual), false, BARE),
    ("NumericNotEquals", Operator::Number(Order::Equal), true, BARE),
    ("StringEquals", Operator::Text, false, TEXT),
    ("StringEqualsIgnoreCase", Operator::Text, false, ANY_CASE),
    ("StringLike", Operator::Text, false, LIKE),
    ("StringNotEquals", Operator::Text, true, TEXT),
    ("StringNotEqualsIgnoreCase", Operator::Text, true, ANY_CASE),
    ("StringNotLike", Operator::Text, true, LIKE),
];

impl Condition {
    /// `name` is the operator with its prefix and suffix: `ForAnyValue:StringLikeIfExists`. `variables`: does the policy's version have them?
    pub(super) fn compile(
        name: &str,
        key: &str,
        values: &[String],
        variables: bool,
    ) -> Result<Self, BadCondition> {
        let (set, bare) = match name.split_once(':') {
            Some(("ForAllValues", bare)) => (Set::ForAllValues, bare),
            Some(("ForAnyValue", bare)) => (Set::ForAnyValue, bare),
            Some(_) => return Err(BadCondition::Operator),
            None => (Set::One, name),
        };
        let (bare, if_exists) = match bare.strip_suffix("IfExists") {
            Some(bare) => (bare, true),
            None => (bare, false),
        };
        let row = OPERATORS.iter().find(|(known, ..)| known.eq_ignore_ascii_case(bare));
        let Some((_, operator, negated, signs)) = row else { return Err(BadCondition::Operator) };
        if *operator == Operator::Null && (if_exists || set != Set::One) {
            return Err(BadCondition::Operator);
        }
        let signs = Signs { variables: signs.variables && variables, ..*signs };
        let read = |value: &String| operand(*operator, value, signs).ok_or(BadCondition::Value);
        let values = values.iter().map(read).collect::<Result<_, _>>()?;
        let key = key.to_ascii_lowercase().into();
        Ok(Self { operator: *operator, negated: *negated, if_exists, set, key, values })
    }

    pub(super) fn holds(&self, keys: &Keys) -> bool {
        let given = keys.get(&self.key);
        if self.operator == Operator::Null {
            let is_absent = Operand::Flag(given.is_none());
            return self.values.contains(&is_absent);
        }
        let Some(given) = given else {
            return match self.set {
                _ if self.if_exists => true,
                Set::One => self.negated,
                Set::ForAllValues => true,
                Set::ForAnyValue => false,
            };
        };
        let passes = |value: &String| self.matches_any(value, keys) != self.negated;
        match self.set {
            // Of a key with several values, one that matches is enough, and a negation wants none.
            Set::One if self.negated => given.iter().all(passes),
            Set::ForAllValues => given.iter().all(passes),
            Set::One | Set::ForAnyValue => given.iter().any(passes),
        }
    }

    fn matches_any(&self, given: &str, keys: &Keys) -> bool {
        match self.operator {
            Operator::Text | Operator::Bool => {
                self.any(|operand| matches!(operand, Operand::Text(text) if text.matches(given, keys)))
            }
            Operator::Arn => {
                self.any(|operand| matches!(operand, Operand::Text(text) if text.matches_arn(given, keys)))
            }
            Operator::Number(order) => number(given).is_some_and(|given| {
                self.any(|operand| matches!(operand, Operand::Number(wanted) if order.holds(&given, wanted)))
            }),
            Operator::Date(order) => date(given).is_some_and(|given| {
                self.any(|operand| matches!(operand, Operand::Date(wanted) if order.holds(&given, wanted)))
            }),
            Operator::Binary => STANDARD.decode(given).is_ok_and(|given| {
                self.any(|operand| matches!(operand, Operand::Bytes(wanted) if *wanted == given))
            }),
            Operator::Ip => given.parse().is_ok_and(|given| {
                self.any(|operand| matches!(operand, Operand::Net(net, bits) if contains(*net, *bits, given)))
            }),
            // Decided before any value is looked at.
            Operator::Null => false,
        }
    }

    fn any(&self, holds: impl Fn(&Operand) -> bool) -> bool {
        self.values.iter().any(holds)
    }
}

impl Order {
    fn holds<T: PartialOrd>(self, given: &T, wanted: &T) -> bool {
        match self {
            Self::Equal => given == wanted,
            Self::Less => given < wanted,
            Self::LessOrEqual => given <= wanted,
            Self::Greater => given > wanted,
            Self::GreaterOrEqual => given >= wanted,
        }
    }
}

fn operand(operator: Operator, value: &str, signs: Signs) -> Option<Operand> {
    match operator {
        Operator::Text | Operator::Arn | Operator::Bool => {
            Some(Operand::Text(Pattern::compile(value, signs)))
        }
        Operator::Number(_) => number(value).map(Operand::Number),
        Operator::Date(_) => date(value).map(Operand::Date),
        Operator::Binary => STANDARD.decode(value).ok().map(Operand::Bytes),
        Operator::Ip => net(value).map(|(net, bits)| Operand::Net(net, bits)),
        Operator::Null => value.to_ascii_lowercase().parse().ok().map(Operand::Flag),
    }
}

fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|number: &f64| number.is_finite())
}

/// A date of the W3C's profile of ISO 8601 (a year alone is one), or seconds since the epoch.
fn date(text: &str) -> Option<Time> {
    let text = text.trim();
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.len() > 4 && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().ok().map(Time::from_secs);
    }
    let whole = match text.len() {
        4 => format!("{text}-01-01T00:00:00Z"),
        7 => format!("{text}-01T00:00:00Z"),
        10 => format!("{text}T00:00:00Z"),
        // Seconds may be left out: 2026-11-23T07:30Z
        17 if text.ends_with('Z') => format!("{}:00Z", &text.get(..16)?),
        _ => text.to_owned(),
    };
    whole.parse().ok()
}

/// `10.0.0.0/8`; an address alone is a net of one.
fn net(text: &str) -> Option<(IpAddr, u8)> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let all = if address.is_ipv4() { 32 } else { 128 };
    let bits: u8 = bits.unwrap_or(all);
    (bits <= all).then_some((address, bits))
}

fn contains(net: IpAddr, bits: u8, address: IpAddr) -> bool {
    let same = |net: u128, address: u128, width: u32| {
        let shift = width - u32::from(bits).min(width);
        net.checked_shr(shift).unwrap_or(0) == address.checked_shr(shift).unwrap_or(0)
    };
    match (net, address) {
        (IpAddr::V4(net), IpAddr::V4(address)) => {
            same(u128::from(net.to_bits()), u128::from(address.to_bits()), 32)
        }
        (IpAddr::V6(net), IpAddr::V6(address)) => same(net.to_bits(), address.to_bits(), 128),
        _ => false,
    }
}
