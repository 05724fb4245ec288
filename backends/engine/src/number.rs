//! Writing the numbers of lines. The gateway writes all of them with these functions, and so do engines that put new numbers into lines.

/// Up to this number, a float represents every integer.
pub const EXACT_MAX: u64 = 1 << 53;

/// Writes a float as in the text format: the shortest digits that parse to the same float, an exponent below 1e-4 and from
/// 1e6 on, `+Inf`, `-Inf`, `NaN`. Zero has no sign.
pub fn write_float(out: &mut Vec<u8>, value: f64) {
    // Adding zero removes the sign of a negative zero and changes no other value.
    write_float_keeping_zero_sign(out, value + 0.0);
}

/// Like [`write_float`], but writes negative zero as `-0`, as in the JSON API.
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

/// Below 2^53, the shortest digits of an integer are its decimal digits without trailing zeros.
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
    // Only the digits and the position of the point matter, not the notation.
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
                exponent = exponent_of(&printed[at + 1..]);
                break;
            }
        }
    }
    let digits = trim_zeros(&digits[..count]);
    let leading = digits.iter().take_while(|&&digit| digit == b'0').count();
    write_digits(out, &digits[leading..], point.unwrap_or(count as i32) + exponent - leading as i32);
}

fn exponent_of(digits: &[u8]) -> i32 {
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// More digits than the shortest digits of any float, including zeros that a printer may put around them.
const DIGITS_MAX: usize = 32;

fn trim_zeros(digits: &[u8]) -> &[u8] {
    let end = digits.iter().rposition(|&digit| digit != b'0').map_or(0, |last| last + 1);
    &digits[..end]
}

/// Writes `0.<digits> * 10^point`. The digits neither begin nor end with a zero.
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
