//! The official program's notations, and reference implementations of parsing and writing.

use proptest::prelude::*;

use super::*;

fn written(value: f64) -> String {
    let mut out = Vec::new();
    write_float(&mut out, value);
    String::from_utf8(out).expect("ASCII")
}

fn written_with_sign(value: f64) -> String {
    let mut out = Vec::new();
    write_float_keeping_zero_sign(&mut out, value);
    String::from_utf8(out).expect("ASCII")
}

#[test]
fn numbers_are_written_as_in_go() {
    for (value, text) in [
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (-1.0, "-1"),
        (0.1, "0.1"),
        (0.25, "0.25"),
        (12.51, "12.51"),
        (100_000.0, "100000"),
        (999_999.0, "999999"),
        (999_999.5, "999999.5"),
        (1e6, "1e+06"),
        (-1e6, "-1e+06"),
        (1_234_567.0, "1.234567e+06"),
        (123_456_789.0, "1.23456789e+08"),
        (1_700_000_000.0, "1.7e+09"),
        (1_700_000_001.25, "1.70000000125e+09"),
        (1e21, "1e+21"),
        (9_007_199_254_740_992.0, "9.007199254740992e+15"),
        (0.0001, "0.0001"),
        (0.000123, "0.000123"),
        (0.00001, "1e-05"),
        (0.000001, "1e-06"),
        (1e-7, "1e-07"),
        (1.5e-10, "1.5e-10"),
        (5e-324, "5e-324"),
        (f64::MAX, "1.7976931348623157e+308"),
        (0.1 + 0.2, "0.30000000000000004"),
        (1.0 / 3.0, "0.3333333333333333"),
        (f64::INFINITY, "+Inf"),
        (f64::NEG_INFINITY, "-Inf"),
        (f64::NAN, "NaN"),
        (-f64::NAN, "NaN"),
    ] {
        assert_eq!(written(value), text);
    }
}

#[test]
fn only_the_json_api_writes_the_sign_of_zero() {
    assert_eq!(written_with_sign(-0.0), "-0");
    assert_eq!(written_with_sign(0.0), "0");
    assert_eq!(written_with_sign(-2.5), "-2.5");
}

#[test]
fn accepts_the_notations_of_go() {
    for (text, value) in [
        ("0", 0.0_f64),
        ("-0", -0.0),
        ("+0", 0.0),
        ("7", 7.0),
        ("+7", 7.0),
        ("007", 7.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-.5", -0.5),
        ("5.e3", 5000.0),
        ("1e3", 1000.0),
        ("1E-3", 0.001),
        ("+1.5e+2", 150.0),
        ("1e022", 1e22),
        ("0e99999", 0.0),
        ("1e-999", 0.0),
        ("-1e-999", -0.0),
        ("1e-99999999999999999999", 0.0),
        ("1.7976931348623157e308", f64::MAX),
        ("5e-324", 5e-324),
        ("9007199254740993", 9_007_199_254_740_992.0),
        ("18446744073709551616", 18_446_744_073_709_551_616.0),
        ("0.1000000000000000055511151231257827021181583404541015625", 0.1),
        ("Inf", f64::INFINITY),
        ("+Inf", f64::INFINITY),
        ("-inf", f64::NEG_INFINITY),
        ("iNfInItY", f64::INFINITY),
        ("-INFINITY", f64::NEG_INFINITY),
    ] {
        let read = parse_float(text.as_bytes()).expect(text);
        assert_eq!(read.to_bits(), value.to_bits(), "{text}");
    }
    for text in ["NaN", "nan", "NAN"] {
        assert!(parse_float(text.as_bytes()).expect(text).is_nan());
    }
}

#[test]
fn rejects_other_notations_and_numbers_beyond_the_largest_float() {
    for text in [
        "",
        "+",
        "-",
        ".",
        "-.",
        "e5",
        "5e",
        "5e+",
        "5e-",
        ".e1",
        "--5",
        "+-5",
        "+NaN",
        "-NaN",
        "0x1",
        "0x1p-2",
        "1_000",
        "0b1",
        "1,5",
        "5%",
        "infi",
        "infinityy",
        "nan(1)",
        " 1",
        "1 ",
        "1\r",
        "1.2.3",
        "1e5.5",
        "1e5e5",
        "one",
        "1f",
        "\u{665}",
        "1\0",
        "+inf1",
        "++inf",
    ] {
        assert_eq!(parse_float(text.as_bytes()), None, "{text:?}");
    }
    assert_eq!(parse_float(b"\xff"), None);
    for text in ["1e309", "1e999", "-1e400", "1e99999999999999999999", "1.7976931348623159e308"] {
        assert_eq!(parse_float(text.as_bytes()), None, "{text:?}");
    }
}

/// Reference implementation of writing: the standard library finds the digits, and this puts them into Go's notation.
fn written_by_reference(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    if value == 0.0 {
        return "0".to_owned();
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').expect("an exponent");
    let exponent: i32 = exponent.parse().expect("a number");
    if (-4..6).contains(&exponent) {
        return format!("{value}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.abs())
}

/// Whether both are equal. If two shortest notations are equally near (1561744139724116.25 with 16 digits), Go uses the
/// even digit and the standard library the greater one.
fn same_digits(ours: &str, reference: &str) -> bool {
    let differing: Vec<_> = ours.bytes().zip(reference.bytes()).filter(|(a, b)| a != b).collect();
    ours.len() == reference.len()
        && match differing[..] {
            [] => true,
            [(a, b)] => a % 2 == 0 && b == a + 1,
            _ => false,
        }
}

#[test]
fn of_two_equally_near_notations_the_even_one_is_written() {
    assert_eq!(written(6_246_976_558_896_465.0 / 4.0), "1.5617441397241162e+15");
}

/// Reference implementation of parsing: checks the allowed characters, then uses the standard library.
fn parsed_by_reference(text: &str) -> Option<f64> {
    let lower = text.to_lowercase();
    let allowed = lower.chars().all(|c| c.is_ascii_digit() || "+-.e".contains(c))
        || lower.contains("inf")
        || lower == "nan";
    let value: f64 = if allowed { lower.parse().ok()? } else { return None };
    (value.is_finite() || lower.contains("inf") || lower == "nan").then_some(value)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn any_float_is_written_like_the_reference_and_parses_back(bits: u64) {
        let value = f64::from_bits(bits);
        let text = written(value);
        prop_assert!(same_digits(&text, &written_by_reference(value)), "{} {}", text, written_by_reference(value));
        let back = parse_float(text.as_bytes()).expect("own notation");
        prop_assert!(back == value || back.is_nan() && value.is_nan());
    }

    #[test]
    fn everyday_floats_are_written_like_the_reference(mantissa in -10_000_000_i64..10_000_000, shift in 0..12_i32) {
        let value = mantissa as f64 / 10_f64.powi(shift);
        prop_assert_eq!(written(value), written_by_reference(value));
        let value = mantissa as f64 * 10_f64.powi(shift);
        prop_assert_eq!(written(value), written_by_reference(value));
    }

    #[test]
    fn notations_are_parsed_like_the_reference(text in "[+-]{0,2}[0-9]{0,22}\\.?[0-9]{0,5}([eE][+-]?[0-9]{0,4})?|[+-]?(inf|nan|NaN|INFINITY|x)[0-9]?") {
        let read = parse_float(text.as_bytes());
        prop_assert_eq!(read.map(f64::to_bits), parsed_by_reference(&text).map(f64::to_bits), "{}", text);
    }
}
