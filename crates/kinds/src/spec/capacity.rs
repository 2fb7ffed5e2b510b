//! How much of a device's capacity one claim may take, of devices that several claims share.

use schema::{At, Quantity, Violation, path};
use serde_json::Value;

use super::check::Found;

const VALUES_MAX: usize = 10;

/// The policy of one capacity.
pub fn policy(capacity: &Value, policy: &Value, is_shared: bool, at: At<'_>, found: &mut Found) {
    if !is_shared {
        found.push(Violation::forbidden(at, "allowMultipleAllocations must be true"));
        return;
    }
    let whole = read(&capacity["value"]).unwrap_or(Quantity::ZERO);
    let (values, range) = (path::list(policy, "validValues"), policy.get("validRange"));
    if !values.is_empty() && range.is_some() {
        let detail = r#"exactly one policy can be specified, cannot specify "validValues" and "validRange" at the same time"#;
        found.push(Violation::forbidden(at, detail));
        return;
    }
    let default = read(&policy["default"]);
    let missing =
        |by: &str| Violation::required(at.field("default"), format!("required when {by} is defined"));
    match (values.is_empty(), range, default) {
        (false, _, None) => found.push(missing("validValues")),
        (true, Some(_), None) => found.push(missing("validRange")),
        (false, _, Some(default)) => one_of(values, default, whole, at.field("validValues"), found),
        (true, Some(range), Some(default)) => within(range, default, whole, at.field("validRange"), found),
        (true, None, _) => {}
    }
}

fn read(value: &Value) -> Option<Quantity> {
    value.as_str()?.parse().ok()
}

fn one_of(values: &[Value], default: Quantity, whole: Quantity, at: At<'_>, found: &mut Found) {
    let values: Vec<Quantity> = values.iter().filter_map(read).collect();
    for (index, pair) in values.windows(2).enumerate().filter(|(_, pair)| pair[0] > pair[1]) {
        let detail = "values must be sorted in ascending order";
        found.push(Violation::invalid(at.index(index + 1), pair[1], detail));
    }
    if values.len() > VALUES_MAX {
        found.push(Violation::too_many(at, values.len(), VALUES_MAX));
        return;
    }
    for (index, value) in values.iter().enumerate().filter(|(_, value)| **value > whole) {
        let detail = format!("option is larger than capacity value: {whole}");
        found.push(Violation::invalid(at.index(index), value, detail));
    }
    for (index, value) in values.iter().enumerate().filter(|(index, value)| values[..*index].contains(value))
    {
        found.push(Violation::duplicate(at.index(index), value.units().to_string()));
    }
    if !values.contains(&default) {
        let detail = "default value is not valid according to the requestPolicy";
        found.push(Violation::invalid(at, default, detail));
    }
}

fn within(range: &Value, default: Quantity, whole: Quantity, at: At<'_>, found: &mut Found) {
    let Some(least) = read(&range["min"]) else {
        found.push(Violation::required(at.field("min"), "required when validRange is defined"));
        return;
    };
    let at_least = at.field("min");
    if least > whole {
        let detail = format!("min is larger than capacity value: {whole}");
        found.push(Violation::invalid(at_least, least, detail));
    }
    if default < least {
        found.push(Violation::invalid(at_least, default, format!("default is less than min: {least}")));
    }
    let most = read(&range["max"]);
    if let Some(most) = most {
        let at = at.field("max");
        if least > most {
            found.push(Violation::invalid(at, least, format!("min is larger than max: {most}")));
        }
        if most > whole {
            found.push(Violation::invalid(at, most, format!("max is larger than capacity value: {whole}")));
        }
        if default > most {
            found.push(Violation::invalid(at, default, format!("default is more than max: {most}")));
        }
    }
    let Some(step) = read(&range["step"]) else { return };
    let at = at.field("step");
    let first = least + step;
    if first > whole {
        let detail = format!("one step {first} is larger than capacity value: {whole}");
        found.push(Violation::invalid(at, step, detail));
    }
    for value in [Some(default), most].into_iter().flatten() {
        // A step of less than one is none, and upstream divides by it.
        if step.units() == 0 || (value.units() - least.units()) % step.units() != 0 {
            let detail = format!("value is not a multiple of a given step ({step}) from ({least})");
            found.push(Violation::invalid(at, value, detail));
        }
    }
}
