//! Numbers of the text format, parsed and written as the Go programs around Prometheus do. They are written in the crate of the engines,
//! which put new numbers into lines.
//!
//! This is not a general parser of floats: hexadecimal numbers, digit grouping and a sign before NaN are rejected, as in
//! the official text parser.

pub(crate) use sluicegate_engine::number::EXACT_MAX;
pub use sluicegate_engine::number::{write_float, write_float_keeping_zero_sign};

/// Parses a whole text as a float. `None` if it is not a number or exceeds the largest float; numbers that are too small
/// become zero.
#[inline]
pub(super) fn parse_float(text: &[u8]) -> Option<f64> {
    match scan_decimal(text) {
        Some((value, length)) if length == text.len() => Some(value),
        _ => parse_any_float(text),
    }
}

/// The powers of ten that a float represents exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];
/// More digits may overflow the `u64` that collects them.
const FAST_DIGITS_MAX: usize = 19;

/// Parses the decimal number at the start of the text, and returns it with its length in bytes. `None` means that the fast
/// path does not apply; there may still be a number.
///
/// If the mantissa and the power of ten are both exact, one multiplication or division is enough. It rounds once, and
/// therefore correctly (Clinger 1990).
#[inline]
pub(crate) fn scan_decimal(text: &[u8]) -> Option<(f64, usize)> {
    let negative = text.first() == Some(&b'-');
    let mut at = usize::from(negative);
    let mut mantissa = 0_u64;
    let whole = collect_digits(text, &mut at, &mut mantissa);
    let mut fraction = 0;
    if text.get(at) == Some(&b'.') {
        at += 1;
        fraction = collect_digits(text, &mut at, &mut mantissa);
    }
    if whole + fraction == 0 || whole + fraction > FAST_DIGITS_MAX {
        return None;
    }
    let mut power = -(fraction as i32);
    if let Some(b'e' | b'E') = text.get(at) {
        let (exponent, length) = scan_exponent(&text[at + 1..])?;
        at += 1 + length;
        power += exponent;
    }
    let magnitude = if power == 0 {
        mantissa as f64
    } else if mantissa > EXACT_MAX || power.unsigned_abs() > 22 {
        return None;
    } else if power < 0 {
        mantissa as f64 / POWERS[power.unsigned_abs() as usize]
    } else {
        mantissa as f64 * POWERS[power as usize]
    };
    Some((if negative { -magnitude } else { magnitude }, at))
}

/// Appends digits to the mantissa and returns their number. The mantissa is valid up to [`FAST_DIGITS_MAX`] digits.
#[inline]
fn collect_digits(text: &[u8], at: &mut usize, mantissa: &mut u64) -> usize {
    let start = *at;
    while let Some(digit) = text.get(*at).map(|byte| byte.wrapping_sub(b'0')).filter(|&digit| digit <= 9) {
        *mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
        *at += 1;
    }
    *at - start
}

/// Parses up to three digits with an optional sign, and returns the exponent with its length in bytes.
fn scan_exponent(text: &[u8]) -> Option<(i32, usize)> {
    let signed = matches!(text.first(), Some(b'+' | b'-'));
    let mut at = usize::from(signed);
    let mut exponent = 0;
    let digits = collect_digits(text, &mut at, &mut exponent);
    if digits == 0 || digits > 3 {
        return None;
    }
    let exponent = exponent as i32;
    Some((if text[0] == b'-' { -exponent } else { exponent }, at))
}

/// Parses infinity, NaN and the numbers for which the fast path does not apply.
#[cold]
fn parse_any_float(text: &[u8]) -> Option<f64> {
    let (sign, unsigned) = match text {
        [b'+', rest @ ..] => (1.0, rest),
        [b'-', rest @ ..] => (-1.0, rest),
        _ => (1.0, text),
    };
    if unsigned.eq_ignore_ascii_case(b"inf") || unsigned.eq_ignore_ascii_case(b"infinity") {
        return Some(sign * f64::INFINITY);
    }
    if text.eq_ignore_ascii_case(b"nan") {
        return Some(f64::NAN);
    }
    // The standard library accepts more words, for example a signed NaN, so a digit or a point must follow.
    if !matches!(unsigned.first(), Some(b'0'..=b'9' | b'.')) {
        return None;
    }
    let value: f64 = str::from_utf8(text).ok()?.parse().ok()?;
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests;
