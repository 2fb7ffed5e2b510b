//! The schedules of cron jobs: whether a text is one. <https://en.wikipedia.org/wiki/Cron>

/// The ranges of the five fields, and the names that two of them know.
const FIELDS: [(&str, u32, u32, &[&str]); 5] = [
    ("minute", 0, 59, &[]),
    ("hour", 0, 23, &[]),
    ("day of month", 1, 31, &[]),
    ("month", 1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    ("day of week", 0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];
const MACROS: [&str; 7] = ["@annually", "@daily", "@hourly", "@midnight", "@monthly", "@weekly", "@yearly"];

/// What is wrong with a schedule; None: nothing is. A time zone in front (`TZ=…`) is no fault of the form.
pub fn wrong(schedule: &str) -> Option<String> {
    let plain = match schedule.strip_prefix("TZ=").or(schedule.strip_prefix("CRON_TZ=")) {
        Some(rest) => rest.split_once(' ').map_or("", |(_, plain)| plain),
        None => schedule,
    };
    let plain = plain.trim();
    if plain.starts_with('@') {
        return macro_wrong(plain);
    }
    let fields: Vec<&str> = plain.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Some(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    fields.iter().zip(FIELDS).find_map(|(field, (_, least, most, names))| {
        field.split(',').find_map(|range| range_wrong(range, least, most, names))
    })
}

fn macro_wrong(text: &str) -> Option<String> {
    if MACROS.contains(&text) || text.strip_prefix("@every ").is_some_and(is_duration) {
        return None;
    }
    Some(format!("unrecognized descriptor: {text}"))
}

/// `1h30m`
fn is_duration(text: &str) -> bool {
    let mut rest = text.trim();
    let is_there = !rest.is_empty();
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let unit =
            ["ms", "us", "ns", "h", "m", "s"].into_iter().find(|unit| rest[digits..].starts_with(unit));
        let Some(unit) = unit.filter(|_| digits > 0) else { return false };
        rest = &rest[digits + unit.len()..];
    }
    is_there
}

/// `*`, `5`, `1-5`, `*/2`, `1-30/5`, `mon`
fn range_wrong(text: &str, least: u32, most: u32, names: &[&str]) -> Option<String> {
    let mut parts = text.split('/');
    let (range, step, more) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    if more.is_some() {
        return Some(format!("too many slashes: {text}"));
    }
    let number = |text: &str| -> Result<u32, String> {
        if let Some(index) = names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
            return Ok(index as u32 + least);
        }
        text.parse().map_err(|_| {
            format!("failed to parse int from {text}: strconv.Atoi: parsing \"{text}\": invalid syntax")
        })
    };
    let bounds = if range == "*" || range == "?" {
        Ok((least, most))
    } else {
        match range.split_once('-') {
            Some((_, high)) if high.contains('-') => return Some(format!("too many hyphens: {text}")),
            Some((low, high)) => number(low).and_then(|low| number(high).map(|high| (low, high))),
            None => number(range).map(|low| (low, if step.is_some() { most } else { low })),
        }
    };
    let (low, high) = match bounds {
        Ok(bounds) => bounds,
        Err(wrong) => return Some(wrong),
    };
    match step.map(|step| step.parse::<u32>()) {
        Some(Err(_)) => return Some(format!("failed to parse int from {}", step.unwrap_or_default())),
        Some(Ok(0)) => return Some(format!("step of range should be a positive number: {text}")),
        _ => {}
    }
    if low < least {
        return Some(format!("beginning of range ({low}) below minimum ({least}): {text}"));
    }
    if high > most {
        return Some(format!("end of range ({high}) above maximum ({most}): {text}"));
    }
    (low > high).then(|| format!("beginning of range ({low}) beyond end of range ({high}): {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        for good in ["* * * * *", "*/5 0-6 1,15 jan-mar MON", "@daily", "@every 1h30m", "TZ=UTC 0 0 * * ?"] {
            assert_eq!(wrong(good), None, "{good}");
        }
        for (bad, text) in [
            ("x", "expected exactly 5 fields, found 1: [x]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("@nonsense", "unrecognized descriptor: @nonsense"),
        ] {
            assert_eq!(wrong(bad).as_deref(), Some(text), "{bad}");
        }
    }
}
