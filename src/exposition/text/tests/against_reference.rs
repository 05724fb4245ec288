//! The parser and the reference implementation agree on any body.

use proptest::prelude::*;

use super::super::{parse, parse_with, reference};
use crate::exposition::lengths::LengthLimits;
use crate::exposition::memory::Unlimited;
use crate::exposition::names::NameRules;

/// Compares without limits on names and texts, and with limits that many bodies exceed.
fn compare(body: &[u8], rules: NameRules) -> Result<(), TestCaseError> {
    compare_with(body, rules, LengthLimits::NONE)?;
    compare_with(body, rules, LengthLimits::TINY)
}

fn compare_with(body: &[u8], rules: NameRules, lengths: LengthLimits) -> Result<(), TestCaseError> {
    let parsed = parse_with(body, rules, lengths, &mut Unlimited);
    match (parsed, reference::parse(body, rules == NameRules::Utf8, lengths)) {
        (Ok(families), Ok(expected)) => {
            // The metrics of a family are contiguous, and every table entry has an owner.
            let owned: usize = families.families.iter().map(|family| family.metrics.len()).sum();
            prop_assert_eq!(owned, families.metrics.len());
            let labels: usize = families.metrics.iter().map(|metric| metric.labels.len()).sum();
            prop_assert_eq!(labels, families.labels.len());
            let mut nested = reference::nested(&families);
            // The reference has no type if the body has none.
            for (family, expected) in nested.iter_mut().zip(&expected) {
                family.kind = expected.kind.and(family.kind);
            }
            prop_assert_eq!(nested, expected);
        }
        (Err(error), Err((line, reason))) => {
            prop_assert_eq!(error.line(), line, "{}", &error);
            prop_assert!(error.reason().starts_with(reason), "{} instead of {}", error.reason(), reason);
        }
        (parsed, expected) => prop_assert!(false, "parsed {parsed:?}, expected {expected:?}"),
    }
    Ok(())
}

fn rules() -> impl Strategy<Value = NameRules> {
    prop_oneof![3 => Just(NameRules::Legacy), 1 => Just(NameRules::Utf8)]
}

/// One of the words, usually one of the first four.
fn one_of(words: &'static [&'static str]) -> impl Strategy<Value = String> {
    let last = words.len() - 1;
    prop_oneof![4 => 0..=last.min(3), 1 => 0..=last].prop_map(move |index| words[index].to_owned())
}

fn metric_name() -> impl Strategy<Value = String> {
    one_of(&[
        "h",
        "h_bucket",
        "s",
        "m",
        "h_sum",
        "h_count",
        "s_sum",
        "s_count",
        "s_bucket",
        "h_count_sum",
        "_sum",
        ":x",
        "\"m\"",
        "\"m.n\"",
        "\"m 1\"",
        "a\"b\"",
        "\"q\\\"x\"",
        "\"h\"",
        "\"\"",
    ])
}

fn label() -> impl Strategy<Value = String> {
    one_of(&[
        "le=\"1\"",
        "a=\"1\"",
        "b=\"2\"",
        "quantile=\"0.5\"",
        "le=\"+Inf\"",
        "le=\"NaN\"",
        "le=\"x\"",
        "le=\"\\n1\"",
        "c=\"\"",
        "a = \"a value of more than thirty-two bytes\"",
        "\"a\"=\"1\"",
        "\"x.y\"=\"1\"",
        "d=\"\\\\ \\\" \\n\"",
        "d=\"a longer value, \\\"with escapes\\\" in it\"",
        "d=\"\u{e4}\t\r\0\"",
        "__name__=\"n\"",
        "e",
        "f=1",
        "g=\"\\t\"",
        "a:b=\"1\"",
        "h\"i\"=\"1\"",
    ])
}

fn labels() -> impl Strategy<Value = String> {
    (
        prop::collection::vec(label(), 0..4),
        one_of(&[",", ", ", " ,", "\t, "]),
        one_of(&["", "", "", "", ",", " , "]),
    )
        .prop_map(|(labels, between, end)| format!("{}{end}", labels.join(&between)))
}

fn value() -> impl Strategy<Value = String> {
    let notation = one_of(&[
        "1",
        "2.5",
        "0",
        "1700000001.25",
        "-1",
        "-0",
        "NaN",
        "+Inf",
        "-Inf",
        "1e3",
        "1.5E-3",
        ".5",
        "5.",
        "1e999",
        "1e-999",
        "123456789012345678901234567890",
        "0x1",
        "1_0",
        "+nan",
        "",
        "1\\",
        "0.30000000000000004",
    ]);
    prop_oneof![3 => notation, 1 => any::<f64>().prop_map(|value| value.to_string())]
}

fn sample() -> impl Strategy<Value = String> {
    let end = one_of(&[
        "\n", "\n", "\n", "\n", " 17\n", " \n", "\t-17\n", " 1.5\n", " 17 x\n", " 17 \n", " +5\n", "\r\n", "",
    ]);
    let braced =
        (label(), metric_name(), labels(), 0..4).prop_map(|(before, name, labels, form)| match form {
            0 => format!("{{{name},{labels}}} "),
            1 => format!("{{{before},{name}}}"),
            2 => format!("{{{before},{name},{labels}}} "),
            _ => format!("{{{labels}}} "),
        });
    let series = (metric_name(), prop::option::of(labels()), one_of(&[" ", " ", "", "\t "])).prop_map(
        |(name, labels, blank)| match labels {
            Some(labels) => format!("{name}{blank}{{{labels}}}{blank}"),
            None => format!("{name}{blank}"),
        },
    );
    (prop_oneof![5 => series, 1 => braced], value(), end)
        .prop_map(|(series, value, end)| format!("{series}{value}{end}"))
}

fn comment() -> impl Strategy<Value = String> {
    let help = one_of(&["Help.", "", "two  blanks ", "\\\\ \\n \\\"", "bad \\t", "end\\", "\u{20ac} \r"]);
    let kind = one_of(&[
        "histogram",
        "summary",
        "gauge",
        "counter",
        "untyped",
        "HISTOGRAM",
        "gaugehistogram",
        "Gauge_Histogram",
        "info",
        "gau\\ge",
        "gauge ",
        "",
    ]);
    let other = one_of(&[
        "#\n",
        "# x y\n",
        "\n",
        " \t\n",
        "#HELP a b\n",
        "# HELP\n",
        "# TYPE h\n",
        "# HELP h \n",
        "# TYPE 0 x\n",
    ]);
    prop_oneof![
        3 => (metric_name(), kind).prop_map(|(name, kind)| format!("# TYPE {name} {kind}\n")),
        2 => (metric_name(), help).prop_map(|(name, help)| format!("# HELP {name} {help}\n")),
        1 => other,
    ]
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop_oneof![1 => comment(), 3 => sample()], 0..14)
        .prop_map(|lines| lines.concat().into_bytes())
}

/// A body of lines that are valid on their own, so that most of the body is parsed.
fn valid_body() -> impl Strategy<Value = Vec<u8>> {
    let types = Just("# TYPE h histogram\n# TYPE s summary\n# TYPE g gauge\n".to_owned());
    let name = one_of(&["h_bucket", "s", "g", "m", "h_sum", "h_count", "s_sum", "s_count", "h"]);
    let labels = prop::sample::subsequence(
        vec!["a=\"1\"", "b=\"2\"", "le=\"1\"", "quantile=\"0.5\"", "c=\"\\n\""],
        0..4,
    )
    .prop_shuffle()
    .prop_map(|labels| labels.join(","));
    let number = prop_oneof![any::<u16>().prop_map(|value| value.to_string()), "[0-9]{1,4}\\.[0-9]{1,3}"];
    let lines =
        (name, labels, number).prop_map(|(name, labels, number)| format!("{name}{{{labels}}} {number}\n"));
    (types, prop::collection::vec(lines, 0..60))
        .prop_map(|(types, lines)| (types + &lines.concat()).into_bytes())
}

fn mutated_body() -> impl Strategy<Value = Vec<u8>> {
    let edit =
        (any::<prop::sample::Index>(), prop::sample::select(&b"\r\t \"\\{}=,#\n\0\xff\xe4a1"[..]), 0..4);
    (body(), prop::collection::vec(edit, 1..4)).prop_map(|(mut body, edits)| {
        for (index, byte, kind) in edits {
            let at = index.index(body.len() + 1);
            match kind {
                0 if at < body.len() => body[at] = byte,
                1 if at < body.len() => drop(body.remove(at)),
                2 => body.truncate(at),
                _ => body.insert(at, byte),
            }
        }
        body
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn agree_on_bodies_of_valid_lines(body in valid_body()) {
        prop_assert!(parse(&body, NameRules::Legacy).is_ok());
        compare(&body, NameRules::Legacy)?;
    }

    #[test]
    fn agree_on_bodies_with_odd_lines(body in body(), rules in rules()) {
        compare(&body, rules)?;
    }

    #[test]
    fn agree_on_single_lines(line in prop_oneof![sample(), comment()], rules in rules()) {
        compare(line.as_bytes(), rules)?;
    }

    #[test]
    fn agree_on_nearly_valid_bodies(body in mutated_body(), rules in rules()) {
        compare(&body, rules)?;
    }

    #[test]
    fn agree_on_any_bytes(body in prop::collection::vec(any::<u8>(), 0..64), rules in rules()) {
        compare(&body, rules)?;
    }

    #[test]
    fn agree_on_the_bytes_of_the_grammar(body in "[hs_bucketm0-9 .\\-{}=,\"\\\\#\\n\\tHELPTYE]{0,60}", rules in rules()) {
        compare(body.as_bytes(), rules)?;
    }
}
