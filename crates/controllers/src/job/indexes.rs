//! Sets of completion indexes as a Job's status writes them: `0,3-5`.

use std::collections::BTreeSet;

pub const INDEX: &str = "batch.kubernetes.io/job-completion-index";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes(pub BTreeSet<i64>);

impl Indexes {
    /// Reads a status; what is not an index below `completions` is left out.
    pub fn parse(text: &str, completions: Option<i64>) -> Self {
        let end = completions.unwrap_or(0);
        let number = |text: &str| text.trim().parse::<i64>().ok();
        let mut set = BTreeSet::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            if let (Some(first), Some(last)) = (number(first), number(last)) {
                set.extend(first.max(0)..=last.min(end - 1));
            }
        }
        Self(set)
    }

    pub fn contains(&self, index: i64) -> bool {
        self.0.contains(&index)
    }

    pub fn len(&self) -> i64 {
        i64::try_from(self.0.len()).unwrap_or(i64::MAX)
    }
}

/// Three or more in a row become a range, two stay two: upstream's form.
impl std::fmt::Display for Indexes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut runs: Vec<(i64, i64)> = Vec::new();
        for &index in &self.0 {
            match runs.last_mut().filter(|(_, last)| last + 1 == index) {
                Some((_, last)) => *last = index,
                None => runs.push((index, index)),
            }
        }
        for (place, (first, last)) in runs.iter().enumerate() {
            if place > 0 {
                f.write_str(",")?;
            }
            match last - first {
                0 => write!(f, "{first}")?,
                1 => write!(f, "{first},{last}")?,
                _ => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_read_and_written() {
        for text in ["", "0", "0,1", "0-2", "1,3-5,7,8", "0-9"] {
            assert_eq!(Indexes::parse(text, Some(10)).to_string(), text);
        }
        assert_eq!(Indexes::parse("3-5,x,11", Some(5)).to_string(), "3,4");
    }
}
