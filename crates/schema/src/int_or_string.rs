//! `IntOrString`: a number, or a percentage of one.

use serde_json::Value;

/// Which way a share of a whole is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    Down,
    Up,
}

/// `3` is 3; `"25%"` is a quarter of `total`. None: neither a number nor a percentage.
pub fn scaled(value: &Value, total: i64, round: Round) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => {
            let percent: i64 = text.strip_suffix('%')?.parse().ok()?;
            let product = i128::from(percent) * i128::from(total);
            let share = match round {
                Round::Down => product.div_euclid(100),
                Round::Up => (product + 99).div_euclid(100),
            };
            i64::try_from(share).ok()
        }
        _ => None,
    }
}

/// The number of `"25%"`.
pub fn percent(value: &Value) -> Option<i64> {
    let digits = value.as_str()?.strip_suffix('%')?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn percentages_are_rounded_as_asked() {
        for (value, down, up) in [
            (json!(3), Some(3), Some(3)),
            (json!("25%"), Some(2), Some(3)),
            (json!("0%"), Some(0), Some(0)),
            (json!("x"), None, None),
            (json!("3"), None, None),
        ] {
            assert_eq!(scaled(&value, 10, Round::Down), down, "{value}");
            assert_eq!(scaled(&value, 10, Round::Up), up, "{value}");
        }
    }
}
