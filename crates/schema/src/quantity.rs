//! Resource quantities: `500m`, `128Mi`, `1e3`.
//!
//! Grammar and canonical form: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>.
//! A number is held in billionths, the finest that upstream keeps; what is finer is rounded away from zero.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;

const NANO: i128 = 1_000_000_000;
const MILLI_NANOS: i128 = 1_000_000;

/// A number with the notation that it was written in. Compares by number alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// The notation of a quantity's suffix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `12e6`
    DecimalExponent,
    /// `12M`
    #[default]
    DecimalSi,
    /// `12Mi`
    BinarySi,
}

/// Why a text is no quantity, in upstream's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuantityError {
    Form,
    Number,
    Suffix,
}

impl fmt::Display for QuantityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => {
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
            }
            Self::Number => "unable to parse numeric part of quantity",
            Self::Suffix => "unable to parse quantity's suffix",
        })
    }
}

impl std::error::Error for QuantityError {}

/// The parts of a quantity's text.
struct Parts<'a> {
    negative: bool,
    /// Digits before the point, without leading zeros.
    whole: &'a str,
    /// Digits behind the point.
    fraction: &'a str,
    suffix: &'a str,
}

/// What a suffix multiplies by.
#[derive(Clone, Copy)]
enum Scale {
    Ten(i32),
    Two(u32),
}

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Result<Self, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Form);
        }
        let (negative, rest) = match text.as_bytes()[0] {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let (whole, rest) = rest.split_at(digits(rest));
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => rest.split_at(digits(rest)),
            None => ("", rest),
        };
        let letters = suffix.bytes().take_while(|byte| b"eEinumkKMGTP".contains(byte)).count();
        let tail = suffix[letters..].strip_prefix(['+', '-']).unwrap_or(&suffix[letters..]);
        if !tail.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(QuantityError::Form);
        }
        Ok(Self { negative, whole: whole.trim_start_matches('0'), fraction, suffix })
    }

    fn scale(&self) -> Result<(Scale, Format), QuantityError> {
        let ten = |power| Ok((Scale::Ten(power), Format::DecimalSi));
        let two = |power| Ok((Scale::Two(power), Format::BinarySi));
        match self.suffix {
            "n" => ten(-9),
            "u" => ten(-6),
            "m" => ten(-3),
            "" => ten(0),
            "k" => ten(3),
            "M" => ten(6),
            "G" => ten(9),
            "T" => ten(12),
            "P" => ten(15),
            "E" => ten(18),
            "Ki" => two(10),
            "Mi" => two(20),
            "Gi" => two(30),
            "Ti" => two(40),
            "Pi" => two(50),
            "Ei" => two(60),
            other => {
                let power = other.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
                let power = power.parse().map_err(|_| QuantityError::Suffix)?;
                Ok((Scale::Ten(power), Format::DecimalExponent))
            }
        }
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let parts = Parts::split(text)?;
        let (scale, mut format) = parts.scale()?;
        let magnitude = magnitude(&parts, scale)?;
        if format == Format::BinarySi && magnitude < NANO && magnitude > 0 {
            format = Format::DecimalSi;
        }
        let nanos = if parts.negative { -magnitude } else { magnitude };
        Ok(Self { nanos, format })
    }
}

/// The absolute value in billionths, rounded up.
fn magnitude(parts: &Parts<'_>, scale: Scale) -> Result<i128, QuantityError> {
    // More digits than this cannot be told apart in billionths, or do not fit.
    let fraction = parts.fraction.trim_end_matches('0');
    let mut digits: i128 = 0;
    for byte in parts.whole.bytes().chain(fraction.bytes().take(28)) {
        let digit = i128::from(byte - b'0');
        digits =
            digits.checked_mul(10).and_then(|sum| sum.checked_add(digit)).ok_or(QuantityError::Number)?;
    }
    // What is cut off still rounds up.
    if fraction.len() > 28 {
        digits = digits.checked_add(1).ok_or(QuantityError::Number)?;
    }
    if digits == 0 {
        return Ok(0);
    }
    let places = i32::try_from(fraction.len().min(28)).map_err(|_| QuantityError::Number)?;
    match scale {
        Scale::Ten(power) => shift(digits, power.saturating_sub(places).saturating_add(9)),
        Scale::Two(power) => {
            let nanos = digits
                .checked_mul(1 << power)
                .ok_or(QuantityError::Number)
                .and_then(|n| shift(n, 9 - places));
            // Upstream caps binary quantities at the largest int64.
            Ok(nanos.unwrap_or(i128::MAX).min(i128::from(i64::MAX) * NANO))
        }
    }
}

/// `number · 10^power`, rounded up where digits are lost.
fn shift(number: i128, power: i32) -> Result<i128, QuantityError> {
    if power >= 0 {
        let factor = 10i128.checked_pow(power.unsigned_abs()).ok_or(QuantityError::Number)?;
        return number.checked_mul(factor).ok_or(QuantityError::Number);
    }
    match 10i128.checked_pow(power.unsigned_abs()) {
        Some(divisor) => Ok(div_away(number, divisor)),
        None => Ok(1),
    }
}

/// Division that rounds away from zero.
fn div_away(number: i128, divisor: i128) -> i128 {
    let quotient = number / divisor;
    if number % divisor == 0 { quotient } else { quotient + number.signum() }
}

impl Quantity {
    pub const ZERO: Self = Self { nanos: 0, format: Format::DecimalSi };

    /// A whole number, written in decimal: cores, pods, objects.
    pub const fn from_units(units: i64) -> Self {
        Self { nanos: units as i128 * NANO, format: Format::DecimalSi }
    }

    /// Thousandths, written in decimal: millicores.
    pub const fn from_millis(millis: i64) -> Self {
        Self { nanos: millis as i128 * MILLI_NANOS, format: Format::DecimalSi }
    }

    /// A number of bytes, written in powers of 1024.
    pub const fn from_bytes(bytes: i64) -> Self {
        Self { nanos: bytes as i128 * NANO, format: Format::BinarySi }
    }

    /// Whole units, rounded away from zero; stays at the ends of the range.
    pub fn units(self) -> i64 {
        clamp(div_away(self.nanos, NANO))
    }

    /// Thousandths, rounded away from zero; stays at the ends of the range.
    pub fn millis(self) -> i64 {
        clamp(div_away(self.nanos, MILLI_NANOS))
    }

    /// For ratios and scores, where rounding does not matter.
    pub fn as_f64(self) -> f64 {
        self.nanos as f64 / NANO as f64
    }

    pub const fn is_zero(self) -> bool {
        self.nanos == 0
    }

    pub const fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Whether it is a whole number.
    pub const fn is_whole(self) -> bool {
        self.nanos % NANO == 0
    }

    pub const fn format(self) -> Format {
        self.format
    }

    /// So many times this quantity; stays at the ends of the range.
    pub fn times(self, count: i64) -> Self {
        Self { nanos: self.nanos.saturating_mul(i128::from(count)), ..self }
    }

    /// Nothing finer than a thousandth, rounded away from zero.
    pub fn round_up_to_milli(self) -> Self {
        Self { nanos: div_away(self.nanos, MILLI_NANOS) * MILLI_NANOS, ..self }
    }

    /// Whole units, rounded away from zero.
    pub fn round_up(self) -> Self {
        Self { nanos: div_away(self.nanos, NANO) * NANO, ..self }
    }

    /// The text that the API gives back for a text: canonical, but for some that upstream keeps as they were written (`1.234`, `5.`, `1E3`).
    pub fn normalise(text: &str) -> Result<String, QuantityError> {
        let quantity: Self = text.parse()?;
        let parts = Parts::split(text)?;
        if is_kept(&parts, parts.scale()?.0) { Ok(text.to_owned()) } else { Ok(quantity.to_string()) }
    }
}

/// Upstream keeps a text whose digits its fast parser takes for canonical.
fn is_kept(parts: &Parts<'_>, scale: Scale) -> bool {
    let (whole, fraction) = (parts.whole.len(), parts.fraction.len());
    match scale {
        Scale::Ten(power) => {
            let places = i32::try_from(fraction).unwrap_or(i32::MAX);
            let exponent = power.saturating_sub(places);
            let digits = [parts.whole, parts.fraction].concat();
            whole + fraction <= 18
                && exponent >= -9
                && exponent % 3 == 0
                && !parts.whole.is_empty()
                && !digits.ends_with("000")
        }
        Scale::Two(power) => {
            let written: Option<i64> = parts.whole.parse().ok();
            let room = 15 - i64::try_from(whole).unwrap_or(i64::MAX) - i64::from(power) * 3 / 10 - 1;
            fraction == 0 && room >= 0 && written.is_some_and(|number| number % 8 != 0)
        }
    }
}

fn clamp(number: i128) -> i64 {
    i64::try_from(number).unwrap_or(if number < 0 { i64::MIN } else { i64::MAX })
}

/// The canonical form: no fraction, the largest suffix that loses nothing.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
        const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let units = self.nanos / NANO;
        if self.format == Format::BinarySi && self.nanos % NANO == 0 && units.abs() >= 1024 {
            let (mut mantissa, mut power) = (units, 0);
            while mantissa % 1024 == 0 && power + 1 < BINARY.len() {
                mantissa /= 1024;
                power += 1;
            }
            return write!(f, "{mantissa}{}", BINARY[power]);
        }
        let (mut mantissa, mut power) = (self.nanos, 0);
        let last = if self.format == Format::DecimalExponent { usize::MAX } else { DECIMAL.len() - 1 };
        while mantissa % 1000 == 0 && power < last {
            mantissa /= 1000;
            power += 1;
        }
        match (self.format, power) {
            (Format::DecimalExponent, 3) => write!(f, "{mantissa}"),
            (Format::DecimalExponent, _) => write!(f, "{mantissa}e{}", power as i64 * 3 - 9),
            _ => write!(f, "{mantissa}{}", DECIMAL[power]),
        }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

/// Zero takes the other's notation; otherwise the left one's stays.
fn combine(left: Quantity, right: Quantity, nanos: i128) -> Quantity {
    Quantity { nanos, format: if left.nanos == 0 { right.format } else { left.format } }
}

impl Add for Quantity {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        combine(self, other, self.nanos.saturating_add(other.nanos))
    }
}

impl Sub for Quantity {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        combine(self, other, self.nanos.saturating_sub(other.nanos))
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl Neg for Quantity {
    type Output = Self;

    fn neg(self) -> Self {
        Self { nanos: self.nanos.saturating_neg(), ..self }
    }
}

impl std::iter::Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::ZERO, Add::add)
    }
}

impl serde::Serialize for Quantity {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// From a string or a bare number, as upstream reads it.
impl<'de> serde::Deserialize<'de> for Quantity {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let parsed = match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::Null => Ok(Self::ZERO),
            serde_json::Value::String(text) => text.trim().parse(),
            serde_json::Value::Number(number) => number.to_string().parse(),
            _ => Err(QuantityError::Form),
        };
        parsed.map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXAMPLES: &str = include_str!("../testdata/quantity.tsv");

    #[test]
    fn upstreams_examples_hold() {
        let mut rows = 0;
        for line in EXAMPLES.lines().filter(|line| !line.starts_with('#')) {
            let columns: Vec<&str> = line.split('\t').collect();
            let [input, emitted, canonical] = columns[..] else { panic!("three columns: {line}") };
            let text = Quantity::normalise(input).unwrap_or_else(|error| error.to_string());
            assert_eq!(text, emitted, "{input:?} is emitted");
            if let Ok(quantity) = input.parse::<Quantity>() {
                assert_eq!(quantity.to_string(), canonical, "{input:?} is canonical as");
            }
            rows += 1;
        }
        assert!(rows > 150, "{rows} rows");
    }

    #[test]
    fn sums_keep_the_first_notation_that_is_not_zero() {
        for (left, right, sum, difference) in [
            ("1Ki", "1k", "2024", "24"),
            ("0", "1Ki", "1Ki", "-1Ki"),
            ("1500m", "500m", "2", "1"),
            ("0.5Gi", "512Mi", "1Gi", "0"),
            ("2Gi", "1", "2147483649", "2147483647"),
            ("1e3", "1k", "2e3", "0"),
            ("0.000000000000000000000000000000001", "0", "1n", "1n"),
        ] {
            let (left, right): (Quantity, Quantity) = (left.parse().unwrap(), right.parse().unwrap());
            assert_eq!((left + right).to_string(), sum);
            assert_eq!((left - right).to_string(), difference);
        }
    }

    #[test]
    fn values_are_rounded_away_from_zero() {
        let parse = |text: &str| text.parse::<Quantity>().unwrap();
        assert_eq!((parse("1.5").units(), parse("-1.5").units(), parse("1500u").millis()), (2, -2, 2));
        assert_eq!(parse("1.2345").round_up_to_milli().to_string(), "1235m");
        assert_eq!(parse("1").cmp(&parse("1000m")), Ordering::Equal);
        assert!(parse("1G") < parse("1Gi"));
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(nanos in -(1i128 << 100)..(1i128 << 100), format in 0..3) {
            let format = [Format::DecimalExponent, Format::DecimalSi, Format::BinarySi][format as usize];
            let limit = i128::from(i64::MAX) * NANO;
            // A suffix stands for 18 zeros at most, and binary quantities end at the largest int64.
            let nanos = if format == Format::BinarySi { nanos.clamp(-limit, limit) } else { nanos };
            prop_assume!(format == Format::DecimalExponent || nanos % (1000 * 10i128.pow(27)) != 0 || nanos == 0);
            let quantity = Quantity { nanos, format };
            let text = quantity.to_string();
            prop_assert_eq!(text.parse::<Quantity>(), Ok(quantity), "{}", text);
            prop_assert_eq!(Quantity::normalise(&text).map(|again| again.parse()), Ok(Ok(quantity)));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[-+]?[0-9.]{0,12}[eEinumkKMGTP]{0,3}[-+]?[0-9]{0,4}") {
            if let Ok(quantity) = text.parse::<Quantity>() {
                prop_assert_eq!(quantity.to_string().parse::<Quantity>(), Ok(quantity));
            }
        }
    }
}
