//! Prometheus' text format, version 0.0.4.
//! <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>

use std::fmt::{Display, Write};
use std::hash::Hash;

use crate::{Counter, Family, Histogram};

/// The text of a page, as far as it is written. Writing to memory does not fail: what `write!` says to that is let go.
#[derive(Debug, Default)]
pub struct Page(String);

impl Page {
    /// What a metric is called, what it is (`counter`, `gauge`, `histogram`), and what it says. Its samples come next.
    pub fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        self.labels(labels, None);
        let _ = writeln!(self.0, " {value}");
    }

    pub fn histogram(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        // So that what is counted meanwhile does not make the last bucket and the count differ.
        let buckets: Vec<_> = histogram.cumulative().collect();
        let count = buckets.last().map_or(0, |(_, count)| *count);
        let bounded = buckets.into_iter().filter(|(bound, _)| bound.is_finite());
        self.buckets(name, labels, bounded, count, histogram.sum());
    }

    /// Some of a histogram's buckets, which it has among others.
    pub fn coarse(&mut self, name: &str, labels: &[(&str, &str)], bounds: &[f64], histogram: &Histogram) {
        let all: Vec<_> = histogram.cumulative().collect();
        let count = all.last().map_or(0, |(_, count)| *count);
        let some = all.into_iter().filter(|(bound, _)| bounds.contains(bound));
        self.buckets(name, labels, some, count, histogram.sum());
    }

    /// A summary: what the parts of a histogram's values are at most that clients are told of, as exactly as its bounds are close.
    pub fn summary(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        for (part, word) in [(0.5, "0.5"), (0.9, "0.9"), (0.99, "0.99")] {
            let labels: Vec<_> = labels.iter().copied().chain([("quantile", word)]).collect();
            self.sample(name, &labels, histogram.quantile(part));
        }
        self.sample(&format!("{name}_sum"), labels, histogram.sum());
        self.sample(&format!("{name}_count"), labels, histogram.count());
    }

    /// A histogram that somebody else keeps: each upper bound with how many values are at most that, how many there are, and their sum.
    pub fn buckets(
        &mut self,
        name: &str,
        labels: &[(&str, &str)],
        buckets: impl IntoIterator<Item = (f64, u64)>,
        count: u64,
        sum: f64,
    ) {
        for (bound, until) in buckets.into_iter().chain([(f64::INFINITY, count)]) {
            let _ = write!(self.0, "{name}_bucket");
            self.labels(labels, Some(bound));
            let _ = writeln!(self.0, " {until}");
        }
        for (part, value) in [("sum", sum), ("count", count as f64)] {
            let _ = write!(self.0, "{name}_{part}");
            self.labels(labels, None);
            let _ = writeln!(self.0, " {value}");
        }
    }

    /// A metric without labels.
    pub fn counter(&mut self, name: &str, help: &str, counter: &Counter) {
        self.head(name, "counter", help);
        self.sample(name, &[], counter.get());
    }

    /// A metric without labels.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.head(name, "gauge", help);
        self.sample(name, &[], value);
    }

    /// A family of counters; nothing if nothing was counted yet.
    pub fn counters<S, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        family: &Family<[S; N], Counter>,
    ) where
        S: AsRef<str> + Clone + Eq + Hash + Ord,
    {
        let all = family.sorted();
        if !all.is_empty() {
            self.head(name, "counter", help);
        }
        for (values, counter) in all {
            self.sample(name, &pairs(&labels, &values), counter.get());
        }
    }

    /// A family of histograms; nothing if nothing was observed yet.
    pub fn histograms<S, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        family: &Family<[S; N], Histogram>,
    ) where
        S: AsRef<str> + Clone + Eq + Hash + Ord,
    {
        let all = family.sorted();
        if !all.is_empty() {
            self.head(name, "histogram", help);
        }
        for (values, histogram) in all {
            self.histogram(name, &pairs(&labels, &values), &histogram);
        }
    }

    pub fn into_text(self) -> String {
        self.0
    }

    fn labels(&mut self, labels: &[(&str, &str)], bound: Option<f64>) {
        if labels.is_empty() && bound.is_none() {
            return;
        }
        let mut before = '{';
        for (name, value) in labels {
            let _ = write!(self.0, "{before}{name}=\"");
            before = ',';
            for letter in value.chars() {
                match letter {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    other => self.0.push(other),
                }
            }
            self.0.push('"');
        }
        match bound {
            Some(f64::INFINITY) => {
                let _ = write!(self.0, "{before}le=\"+Inf\"");
            }
            Some(bound) => {
                let _ = write!(self.0, "{before}le=\"{}\"", number(bound));
            }
            None => {}
        }
        self.0.push('}');
    }
}

/// Names of labels with their values.
fn pairs<'a, S: AsRef<str>, const N: usize>(
    names: &[&'a str; N],
    values: &'a [S; N],
) -> [(&'a str, &'a str); N] {
    std::array::from_fn(|index| (names[index], values[index].as_ref()))
}

/// As Go writes it: an exponent of two digits for what is below 1e-4 or from 1e6 on.
fn number(value: f64) -> String {
    if value == 0.0 || (1e-4..1e6).contains(&value.abs()) {
        return value.to_string();
    }
    let text = format!("{value:e}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) = match exponent.strip_prefix('-') {
                Some(exponent) => ('-', exponent),
                None => ('+', exponent),
            };
            format!("{digits}e{sign}{exponent:0>2}")
        }
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_what_prometheus_reads() {
        let mut page = Page::default();
        let counted: Family<[String; 2], Counter> = Family::default();
        counted.of(&["b".to_owned(), "a \"b\"\\\n".to_owned()]).add(7);
        counted.of(&["a".to_owned(), String::new()]).increase();
        page.counters("things_total", "Things.", ["kind", "name"], &counted);
        let took: Family<[&'static str; 0], Histogram> =
            Family::new(|| Histogram::new(&[1e-8, 0.5, 1_500_000.0]));
        page.histograms("none_seconds", "Nothing.", [], &took);
        took.of(&[]).observe(0.25);
        page.histograms("took_seconds", "Times.", [], &took);
        let expected = "# HELP things_total Things.\n# TYPE things_total counter\n\
            things_total{kind=\"a\",name=\"\"} 1\n\
            things_total{kind=\"b\",name=\"a \\\"b\\\"\\\\\\n\"} 7\n\
            # HELP took_seconds Times.\n# TYPE took_seconds histogram\n\
            took_seconds_bucket{le=\"1e-08\"} 0\ntook_seconds_bucket{le=\"0.5\"} 1\n\
            took_seconds_bucket{le=\"1.5e+06\"} 1\ntook_seconds_bucket{le=\"+Inf\"} 1\n\
            took_seconds_sum 0.25\ntook_seconds_count 1\n";
        assert_eq!(page.into_text(), expected);
    }
}
