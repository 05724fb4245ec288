//! Durations as Go writes them (`1h30m`, `1.5h`, `300ms`), because the flags of the official program are typed so.
//!
//! The grammar and the printed form are those of `time.ParseDuration` and `Duration.String` in Go's documentation: a sign,
//! then decimal numbers each with a unit of `ns`, `us`, `µs`, `ms`, `s`, `m`, `h`; `0` needs no unit.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// A signed count of nanoseconds; about 292 years each way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration {
    nanoseconds: i64,
}

impl GoDuration {
    /// From a signed count of nanoseconds.
    pub const fn from_nanoseconds(nanoseconds: i64) -> Self {
        Self { nanoseconds }
    }

    /// The same length as the standard library has it; `None` when negative.
    pub fn non_negative(self) -> Option<Duration> {
        u64::try_from(self.nanoseconds).ok().map(Duration::from_nanos)
    }
}

/// Why a text is no duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DurationError {
    /// Not of the form `1h30m`.
    Malformed,
    /// A number is followed by no unit.
    UnitMissing,
    /// A number is followed by a word that is no unit.
    UnitUnknown,
    /// More than about 292 years.
    TooLong,
}

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "not a duration such as 5m, 1h30m or 300ms",
            Self::UnitMissing => "a unit is missing, as in 5m, 30s or 300ms",
            Self::UnitUnknown => "unknown unit, use ns, us, ms, s, m or h",
            Self::TooLong => "too long, at most about 292 years",
        })
    }
}

impl std::error::Error for DurationError {}

impl FromStr for GoDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let (negative, magnitude) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        if magnitude == "0" {
            return Ok(Self::from_nanoseconds(0));
        }
        if magnitude.is_empty() {
            return Err(DurationError::Malformed);
        }
        let mut total: u64 = 0;
        let mut rest = magnitude;
        while !rest.is_empty() {
            let part;
            (part, rest) = take_part(rest)?;
            total = total.checked_add(part).ok_or(DurationError::TooLong)?;
        }
        let nanoseconds =
            if negative { 0_i64.checked_sub_unsigned(total) } else { i64::try_from(total).ok() };
        nanoseconds.map(Self::from_nanoseconds).ok_or(DurationError::TooLong)
    }
}

/// One number with its unit in nanoseconds, and what follows.
fn take_part(text: &str) -> Result<(u64, &str), DurationError> {
    let (whole, rest) = take_digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => take_digits(rest),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(DurationError::Malformed);
    }
    let unit_end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    let unit = match unit {
        "" => return Err(DurationError::UnitMissing),
        "ns" => 1,
        // U+00B5 is the micro sign, U+03BC the letter; both are typed.
        "us" | "\u{b5}s" | "\u{3bc}s" => MICROSECOND,
        "ms" => MILLISECOND,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        _ => return Err(DurationError::UnitUnknown),
    };
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| DurationError::TooLong)? };
    let whole = whole.checked_mul(unit).ok_or(DurationError::TooLong)?;
    let total = whole.checked_add(fraction_of(fraction, unit)).ok_or(DurationError::TooLong)?;
    Ok((total, rest))
}

fn take_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// `0.<digits>` of a unit. Digits beyond the eighteenth are far below a nanosecond.
fn fraction_of(digits: &str, unit: u64) -> u64 {
    let digits = &digits.as_bytes()[..digits.len().min(18)];
    let (mut numerator, mut denominator) = (0_u128, 1_u128);
    for digit in digits {
        numerator = numerator * 10 + u128::from(digit - b'0');
        denominator *= 10;
    }
    u64::try_from(numerator * u128::from(unit) / denominator).expect("less than one unit")
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.nanoseconds.unsigned_abs();
        if self.nanoseconds < 0 {
            f.write_str("-")?;
        }
        match magnitude {
            0 => f.write_str("0s"),
            1..MICROSECOND => write!(f, "{magnitude}ns"),
            MICROSECOND..MILLISECOND => write_decimal(f, magnitude, MICROSECOND, "\u{b5}s"),
            MILLISECOND..SECOND => write_decimal(f, magnitude, MILLISECOND, "ms"),
            _ => {
                let (hours, minutes) = (magnitude / HOUR, magnitude % HOUR / MINUTE);
                if hours > 0 {
                    write!(f, "{hours}h")?;
                }
                if hours > 0 || minutes > 0 {
                    write!(f, "{minutes}m")?;
                }
                write_decimal(f, magnitude % MINUTE, SECOND, "s")
            }
        }
    }
}

/// `value / unit` with as many decimals as it takes to be exact.
fn write_decimal(f: &mut fmt::Formatter<'_>, value: u64, unit: u64, name: &str) -> fmt::Result {
    write!(f, "{}", value / unit)?;
    let fraction = value % unit;
    if fraction > 0 {
        let width = unit.ilog10() as usize;
        let digits = format!("{fraction:0width$}");
        write!(f, ".{}", digits.trim_end_matches('0'))?;
    }
    f.write_str(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nanoseconds(text: &str) -> Result<i64, DurationError> {
        text.parse::<GoDuration>().map(|duration| duration.nanoseconds)
    }

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, expected) in [
            ("0", 0),
            ("-0", 0),
            ("+5s", 5_000_000_000),
            ("5m", 300_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("300ms", 300_000_000),
            ("1us", 1_000),
            ("1\u{b5}s", 1_000),
            ("1\u{3bc}s", 1_000),
            ("-5m", -300_000_000_000),
            ("3s1ms", 3_001_000_000),
            ("0.3333333333333333333h", 1_199_999_999_999),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
        ] {
            assert_eq!(nanoseconds(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_go_refuses_is_refused() {
        use DurationError::*;
        for (text, expected) in [
            ("", Malformed),
            ("-", Malformed),
            ("foo", Malformed),
            (".s", Malformed),
            ("--5m", Malformed),
            (" 5m", Malformed),
            ("5", UnitMissing),
            ("1h5", UnitMissing),
            ("5 m", UnitUnknown),
            ("5d", UnitUnknown),
            ("1h-5m", UnitUnknown),
            ("9223372036854775808ns", TooLong),
            ("99999999999999999999s", TooLong),
            ("3000000h", TooLong),
        ] {
            assert_eq!(nanoseconds(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn durations_are_shown_as_go_shows_them() {
        for (text, expected) in [
            ("0", "0s"),
            ("5m", "5m0s"),
            ("1.5h", "1h30m0s"),
            ("300ms", "300ms"),
            ("1us", "1\u{b5}s"),
            ("1100us", "1.1ms"),
            ("90s", "1m30s"),
            ("-5m", "-5m0s"),
            ("2h0.05s", "2h0m0.05s"),
            ("7ns", "7ns"),
        ] {
            assert_eq!(text.parse::<GoDuration>().map(|d| d.to_string()).as_deref(), Ok(expected));
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(nanoseconds: i64) {
            let duration = GoDuration::from_nanoseconds(nanoseconds);
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[-+0-9.hmsnuµ ]{0,24}") {
            if let Ok(duration) = text.parse::<GoDuration>() {
                prop_assert_eq!(duration.to_string().parse(), Ok(duration));
            }
        }
    }
}
