//! Numbers of the text format: read and written as the Go programs around Prometheus do.
//!
//! Not a general float parser: hexadecimal, digit grouping and a sign before NaN are refused, as the official text
//! parser refuses them.

/// Why a text is no number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberError {
    /// The text is not spelled like a number.
    Malformed,
    /// The number is beyond the largest float.
    OutOfRange,
}

/// Reads a whole text as a float. Numbers too small become zero, numbers too large are refused.
#[inline]
pub fn parse_float(text: &[u8]) -> Result<f64, NumberError> {
    match scan_decimal(text) {
        Some((value, length)) if length == text.len() => Ok(value),
        _ => parse_any_float(text),
    }
}

/// Powers of ten which a float holds exactly.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];
/// More digits may overflow the `u64` they are gathered in.
const FAST_DIGITS_MAX: usize = 19;
/// Up to here every whole number is a float.
const EXACT_MAX: u64 = 1 << 53;

/// Reads the decimal number at the front of the text; gives its length in bytes. `None` where the fast way does not
/// suffice, whether or not there is a number.
///
/// A mantissa and a power of ten that are both exact need one multiplication or division, which rounds once and
/// hence correctly (Clinger 1990).
#[inline]
pub(super) fn scan_decimal(text: &[u8]) -> Option<(f64, usize)> {
    let negative = text.first() == Some(&b'-');
    let mut at = usize::from(negative);
    let mut mantissa = 0_u64;
    let whole = gather_digits(text, &mut at, &mut mantissa);
    let mut fraction = 0;
    if text.get(at) == Some(&b'.') {
        at += 1;
        fraction = gather_digits(text, &mut at, &mut mantissa);
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

/// Appends digits to the mantissa; gives their number. The mantissa is only good up to [`FAST_DIGITS_MAX`] digits.
#[inline]
fn gather_digits(text: &[u8], at: &mut usize, mantissa: &mut u64) -> usize {
    let start = *at;
    while let Some(digit) = text.get(*at).map(|byte| byte.wrapping_sub(b'0')).filter(|&digit| digit <= 9) {
        *mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
        *at += 1;
    }
    *at - start
}

/// Reads up to three digits with an optional sign; gives the length, too.
fn scan_exponent(text: &[u8]) -> Option<(i32, usize)> {
    let signed = matches!(text.first(), Some(b'+' | b'-'));
    let mut at = usize::from(signed);
    let mut exponent = 0;
    let digits = gather_digits(text, &mut at, &mut exponent);
    if digits == 0 || digits > 3 {
        return None;
    }
    let exponent = exponent as i32;
    Some((if text[0] == b'-' { -exponent } else { exponent }, at))
}

/// The words, and what the fast way left over.
#[cold]
fn parse_any_float(text: &[u8]) -> Result<f64, NumberError> {
    let (sign, unsigned) = match text {
        [b'+', rest @ ..] => (1.0, rest),
        [b'-', rest @ ..] => (-1.0, rest),
        _ => (1.0, text),
    };
    if unsigned.eq_ignore_ascii_case(b"inf") || unsigned.eq_ignore_ascii_case(b"infinity") {
        return Ok(sign * f64::INFINITY);
    }
    if text.eq_ignore_ascii_case(b"nan") {
        return Ok(f64::NAN);
    }
    // The standard library would take a second sign's place for words only, so a digit or point must follow.
    if !matches!(unsigned.first(), Some(b'0'..=b'9' | b'.')) {
        return Err(NumberError::Malformed);
    }
    let value: f64 =
        str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(NumberError::Malformed)?;
    if value.is_finite() { Ok(value) } else { Err(NumberError::OutOfRange) }
}

/// Writes a float as the text format has it: the shortest digits that read back as the same float, an exponent below
/// 1e-4 and from 1e6 on, `+Inf`, `-Inf`, `NaN`. Zero has no sign.
pub fn write_float(out: &mut Vec<u8>, value: f64) {
    // Adding zero takes the sign off a negative zero and leaves everything else.
    write_float_keeping_zero_sign(out, value + 0.0);
}

/// As [`write_float`], but negative zero is `-0`, as the JSON API has it.
pub fn write_float_keeping_zero_sign(out: &mut Vec<u8>, value: f64) {
    if value.is_nan() {
        out.extend_from_slice(b"NaN");
        return;
    }
    if value.is_sign_negative() {
        out.push(b'-');
    } else if value.is_infinite() {
        out.push(b'+');
    }
    let magnitude = value.abs();
    if magnitude.is_infinite() {
        out.extend_from_slice(b"Inf");
    } else if magnitude < EXACT_MAX as f64 && magnitude.trunc() == magnitude {
        write_whole(out, magnitude as u64);
    } else {
        write_shortest(out, magnitude);
    }
}

/// Below 2^53 the digits of a whole number are its shortest ones, but for zeros at the end.
fn write_whole(out: &mut Vec<u8>, magnitude: u64) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(magnitude).as_bytes();
    if magnitude < 1_000_000 {
        out.extend_from_slice(digits);
    } else {
        write_digits(out, trim_zeros(digits), digits.len() as i32);
    }
}

fn write_shortest(out: &mut Vec<u8>, magnitude: f64) {
    let mut buffer = zmij::Buffer::new();
    let printed = buffer.format_finite(magnitude).as_bytes();
    // Only the digits and the place of the point are of use, whatever the spelling.
    let mut digits = [0; DIGITS_MAX];
    let (mut count, mut point, mut exponent) = (0, None, 0);
    for (at, &byte) in printed.iter().enumerate() {
        match byte {
            b'0'..=b'9' => {
                digits[count] = byte;
                count += 1;
            }
            b'.' => point = Some(count as i32),
            _ => {
                exponent = scan_exponent(&printed[at + 1..]).map_or(0, |(exponent, _)| exponent);
                break;
            }
        }
    }
    let digits = trim_zeros(&digits[..count]);
    let leading = digits.iter().take_while(|&&digit| digit == b'0').count();
    write_digits(out, &digits[leading..], point.unwrap_or(count as i32) + exponent - leading as i32);
}

/// More than a shortest float ever has, with the zeros that a printer may put around its digits.
const DIGITS_MAX: usize = 32;

fn trim_zeros(digits: &[u8]) -> &[u8] {
    let end = digits.iter().rposition(|&digit| digit != b'0').map_or(0, |last| last + 1);
    &digits[..end]
}

/// Writes `0.<digits> * 10^point`; the digits neither begin nor end with a zero.
fn write_digits(out: &mut Vec<u8>, digits: &[u8], point: i32) {
    let exponent = point - 1;
    if !(-4..6).contains(&exponent) {
        write_scientific(out, digits, exponent);
    } else if point <= 0 {
        out.extend_from_slice(&b"0.000"[..2 + point.unsigned_abs() as usize]);
        out.extend_from_slice(digits);
    } else if digits.len() <= point as usize {
        out.extend_from_slice(digits);
        out.resize(out.len() + (point as usize - digits.len()), b'0');
    } else {
        out.extend_from_slice(&digits[..point as usize]);
        out.push(b'.');
        out.extend_from_slice(&digits[point as usize..]);
    }
}

fn write_scientific(out: &mut Vec<u8>, digits: &[u8], exponent: i32) {
    out.push(digits[0]);
    if digits.len() > 1 {
        out.push(b'.');
        out.extend_from_slice(&digits[1..]);
    }
    out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
    if exponent.unsigned_abs() < 10 {
        out.push(b'0');
    }
    out.extend_from_slice(itoa::Buffer::new().format(exponent.unsigned_abs()).as_bytes());
}

#[cfg(test)]
mod tests;
