//! Indexes of an indexed job as its status and its success policy say them: `1,3-5`.

/// How many there are; all are below `completions` and in their order. The error is upstream's text.
pub fn count(text: &str, completions: i64) -> Result<i64, String> {
    if text.is_empty() {
        return Ok(0);
    }
    let (mut last, mut total) = (None, 0);
    for part in text.split(',') {
        let (first, end) = interval(part, completions)?;
        if let Some(last) = last.filter(|last| *last >= first) {
            return Err(format!("non-increasing order, previous: {last}, current: {first}"));
        }
        total += end - first + 1;
        last = Some(end);
    }
    Ok(total)
}

/// The first index that both texts hold. Parts that cannot be read are passed over: they are told elsewhere.
pub fn overlap(one: &str, other: &str, completions: i64) -> Option<i64> {
    let parts = |text: &str| -> Vec<(i64, i64)> {
        text.split(',').filter_map(|part| interval(part, completions).ok()).collect()
    };
    let (one, other) = (parts(one), parts(other));
    let (mut left, mut right) = (one.iter().peekable(), other.iter().peekable());
    while let (Some(&&(first, end)), Some(&&(other_first, other_end))) = (left.peek(), right.peek()) {
        if first <= other_end && other_first <= end {
            return Some(first.max(other_first));
        }
        if first <= other_first {
            left.next()
        } else {
            right.next()
        };
    }
    None
}

fn interval(part: &str, completions: i64) -> Result<(i64, i64), String> {
    let index = |text: &str| match text.parse::<i64>() {
        Err(_) => Err(format!("cannot convert string to integer for index: {text:?}")),
        Ok(index) if index >= completions => Err(format!("too large index: {text:?}")),
        Ok(index) => Ok(index),
    };
    let Some((first, end)) = part.split_once('-') else { return index(part).map(|one| (one, one)) };
    if end.contains('-') {
        return Err(format!(
            "the fragment {part:?} violates the requirement that an index interval can have at most two parts separated by '-'"
        ));
    }
    let (first, end) = (index(first)?, index(end)?);
    if first >= end {
        return Err(format!("non-increasing order, previous: {first}, current: {end}"));
    }
    Ok((first, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_order_is_counted() {
        for (text, wanted) in [
            ("", Ok(0)),
            ("0", Ok(1)),
            ("0,2-4", Ok(4)),
            ("5-3", Err("too large index: \"5\"")),
            ("3-1", Err("non-increasing order, previous: 3, current: 1")),
            ("2,1", Err("non-increasing order, previous: 2, current: 1")),
            ("a", Err("cannot convert string to integer for index: \"a\"")),
            (
                "0-1-2",
                Err(
                    "the fragment \"0-1-2\" violates the requirement that an index interval can have at most two parts separated by '-'",
                ),
            ),
        ] {
            assert_eq!(count(text, 5), wanted.map_err(str::to_owned), "{text}");
        }
    }

    #[test]
    fn what_is_in_both_is_found() {
        for (one, other, wanted) in [
            ("0-2", "2", Some(2)),
            ("0,2,4", "1,3", None),
            ("x,1", "1", Some(1)),
            ("", "1", None),
            ("3-4", "0-3", Some(3)),
        ] {
            assert_eq!(overlap(one, other, 5), wanted, "{one} {other}");
        }
    }
}
