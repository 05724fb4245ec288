//! Durations as in the flags of the official program (`1h30m`, `1.5h`, `300ms`, `1d12h`).
//!
//! The syntax is that of `time.ParseDuration` in Go with days and weeks: an optional sign, then decimal numbers, each with one of the
//! units `ns`, `us`, `µs`, `ms`, `s`, `m`, `h`, `d`, `w`. `0` needs no unit. The output is that of Go's `Duration.String`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const WEEK: u64 = 7 * DAY;

/// A signed number of nanoseconds, up to about 292 years in both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration {
    nanoseconds: i64,
}

impl GoDuration {
    /// Creates a duration from a signed number of nanoseconds.
    pub const fn from_nanoseconds(nanoseconds: i64) -> Self {
        Self { nanoseconds }
    }

    /// The signed number of nanoseconds.
    pub const fn nanoseconds(self) -> i64 {
        self.nanoseconds
    }

    /// Parses a duration without days and weeks, which Go itself does not have.
    ///
    /// # Errors
    /// See [`DurationError`].
    pub fn parse_as_go(text: &str) -> Result<Self, DurationError> {
        if text.contains(['d', 'w']) { Err(DurationError::UnitUnknown) } else { text.parse() }
    }

    /// The duration as a type of the standard library; `None` if it is negative.
    pub fn non_negative(self) -> Option<Duration> {
        u64::try_from(self.nanoseconds).ok().map(Duration::from_nanos)
    }
}

/// Why a text is not a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// The text does not have the form `1h30m`.
    #[error("expected a duration such as 5m, 1h30m or 300ms")]
    Malformed,
    /// A number has no unit.
    #[error("missing unit; use ns, us, ms, s, m, h, d or w")]
    UnitMissing,
    /// A number has an unknown unit.
    #[error("unknown unit; use ns, us, ms, s, m, h, d or w")]
    UnitUnknown,
    /// The duration does not fit into 64 bits.
    #[error("too long; the maximum is about 292 years")]
    TooLong,
    /// The duration of a [`Timeout`] is negative.
    #[error("a timeout cannot be negative; use 0 to disable it")]
    NegativeTimeout,
}

/// A time limit; 0 disables it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeout(Duration);

impl Timeout {
    /// The limit; `None` if it is disabled.
    pub fn limit(self) -> Option<Duration> {
        (!self.0.is_zero()).then_some(self.0)
    }
}

impl FromStr for Timeout {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let duration: GoDuration = text.parse()?;
        duration.non_negative().map(Self).ok_or(DurationError::NegativeTimeout)
    }
}

impl fmt::Display for Timeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanoseconds = i64::try_from(self.0.as_nanos()).expect("parsed from a GoDuration");
        GoDuration::from_nanoseconds(nanoseconds).fmt(f)
    }
}

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

/// Splits off one number with its unit and returns it in nanoseconds, with the rest of the text.
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
        // U+00B5 is the micro sign, U+03BC the Greek letter; Go accepts both.
        "us" | "\u{b5}s" | "\u{3bc}s" => MICROSECOND,
        "ms" => MILLISECOND,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        "d" => DAY,
        "w" => WEEK,
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

/// The value of `0.<digits>` units. Digits after the eighteenth are far below a nanosecond.
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

/// Writes `value / unit` exactly, with as few decimals as possible.
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
    fn parses_durations_like_go() {
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
            ("1d", 86_400_000_000_000),
            ("1w", 604_800_000_000_000),
            ("1d12h", 129_600_000_000_000),
            ("1.5d", 129_600_000_000_000),
            ("0.3333333333333333333h", 1_199_999_999_999),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
        ] {
            assert_eq!(nanoseconds(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn rejects_what_go_rejects() {
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
            ("5y", UnitUnknown),
            ("5D", UnitUnknown),
            ("1h-5m", UnitUnknown),
            ("9223372036854775808ns", TooLong),
            ("99999999999999999999s", TooLong),
            ("3000000h", TooLong),
        ] {
            assert_eq!(nanoseconds(text), Err(expected), "{text}");
        }
    }

    #[test]
    fn go_itself_has_no_days() {
        for text in ["1d", "1w", "1d12h"] {
            assert_eq!(GoDuration::parse_as_go(text), Err(DurationError::UnitUnknown), "{text}");
        }
        assert_eq!(GoDuration::parse_as_go("1h30m"), "90m".parse());
    }

    #[test]
    fn prints_durations_like_go() {
        for (text, expected) in [
            ("0", "0s"),
            ("5m", "5m0s"),
            ("1.5h", "1h30m0s"),
            ("300ms", "300ms"),
            ("1us", "1\u{b5}s"),
            ("1w1d", "192h0m0s"),
            ("1100us", "1.1ms"),
            ("90s", "1m30s"),
            ("-5m", "-5m0s"),
            ("2h0.05s", "2h0m0.05s"),
            ("7ns", "7ns"),
        ] {
            assert_eq!(text.parse::<GoDuration>().map(|d| d.to_string()).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn timeouts_are_not_negative_and_0_disables_them() {
        assert_eq!("-1ns".parse::<Timeout>(), Err(DurationError::NegativeTimeout));
        assert_eq!("5".parse::<Timeout>(), Err(DurationError::UnitMissing));
        assert_eq!("0".parse::<Timeout>().map(Timeout::limit), Ok(None));
        let timeout: Timeout = "90s".parse().expect("a timeout");
        assert_eq!(
            (timeout.limit(), timeout.to_string()),
            (Some(Duration::from_secs(90)), "1m30s".to_owned())
        );
    }

    proptest! {
        #[test]
        fn printed_durations_parse_to_the_same_value(nanoseconds: i64) {
            let duration = GoDuration::from_nanoseconds(nanoseconds);
            prop_assert_eq!(duration.to_string().parse(), Ok(duration));
        }

        #[test]
        fn any_text_is_parsed_or_rejected(text in "[-+0-9.hmsnuµ ]{0,24}") {
            if let Ok(duration) = text.parse::<GoDuration>() {
                prop_assert_eq!(duration.to_string().parse(), Ok(duration));
            }
        }
    }
}
