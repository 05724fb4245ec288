//! One test per rule of the text format, as the official Pushgateway applies it.

use super::super::{parse, parse_within};
use crate::exposition::memory::Unlimited;
use crate::exposition::model::{Families, Family, Metric, MetricType, Value};
use crate::exposition::names::NameRules;

fn accepted(body: &str) -> Families<'_> {
    parse(body.as_bytes(), NameRules::Legacy).unwrap_or_else(|error| panic!("{body:?}: {error}"))
}

/// The error of a body, which must have one.
fn rejected(body: impl AsRef<[u8]>) -> String {
    let error = parse(body.as_ref(), NameRules::Legacy).expect_err("an error").to_string();
    error.strip_prefix("text format parsing error in line ").expect("the official prefix").to_owned()
}

fn family<'f, 'a>(families: &'f Families<'a>, name: &str) -> &'f Family<'a> {
    families.families.iter().find(|family| family.name == name).expect("the family")
}

fn names<'f>(families: &'f Families<'_>) -> Vec<&'f str> {
    families.families.iter().map(|family| &*family.name).collect()
}

/// The metrics of a family as `labels value`, in the notation of these tests.
fn metrics(families: &Families<'_>, name: &str) -> Vec<String> {
    let show = |metric: &Metric| {
        let labels = families.labels_of(metric);
        let labels: Vec<String> =
            labels.iter().map(|label| format!("{}={}", label.name, label.value)).collect();
        let points = |span| {
            families
                .points_of(span)
                .iter()
                .map(|point| format!(" {}:{}", point.at, point.value))
                .collect::<String>()
        };
        let value = match metric.value {
            Value::Single(value) => value.to_string(),
            Value::Summary { count, sum, quantiles } => {
                format!("count {count} sum {sum}{}", points(quantiles))
            }
            Value::Histogram { count, sum, buckets } => format!("count {count} sum {sum}{}", points(buckets)),
        };
        format!("{{{}}} {value}", labels.join(","))
    };
    families.metrics_of(family(families, name)).iter().map(show).collect()
}

// --- lines

#[test]
fn the_last_line_needs_a_line_feed() {
    for body in [
        "m 1",
        "m",
        "m{a=\"1\"} 1",
        "m 1\n# bye",
        "# HELP m text",
        "# TYPE m gauge",
        "#",
        "m{a=\"1",
        "m 1 17",
    ] {
        let line = if body.contains('\n') { 2 } else { 1 };
        assert_eq!(rejected(body), format!("{line}: unexpected end of input stream"));
    }
}

#[test]
fn a_carriage_return_does_not_end_a_line() {
    assert_eq!(rejected("m 1\r\n"), r#"1: expected float as value, got "1\r""#);
    assert_eq!(rejected("# TYPE m gauge\r\nm 1\n"), r#"1: unknown metric type "gauge\r""#);
    assert_eq!(rejected("m 1\n\r\n"), "2: invalid metric name");
    assert_eq!(rejected("a 1\rb\r"), "1: unexpected end of input stream");
}

#[test]
fn help_comments_and_label_values_may_contain_carriage_returns() {
    let families = accepted("# HELP m hi\r\n# note\r\nm{a=\"1\r\"} 1\n");
    assert_eq!(family(&families, "m").help.as_deref(), Some("hi\r"));
    assert_eq!(metrics(&families, "m"), ["{a=1\r} 1"]);
}

#[test]
fn nothing_may_follow_a_value_or_type() {
    assert_eq!(rejected("m 1 \n"), r#"1: expected integer as timestamp, got """#);
    assert_eq!(rejected("m 1 # note\n"), r##"1: expected integer as timestamp, got "#""##);
    assert_eq!(rejected("# TYPE m gauge \nm 1\n"), r#"1: unknown metric type "gauge ""#);
}

#[test]
fn rejects_a_byte_order_mark() {
    assert_eq!(rejected("\u{feff}m 1\n"), "1: invalid metric name");
}

#[test]
fn accepts_bodies_without_samples() {
    for body in ["", "\n\n", "  ", " \t", "# hello\n", "# TYPE m gauge\n", "# HELP m text\n", "#\n"] {
        assert!(accepted(body).families.is_empty(), "{body:?}");
    }
}

#[test]
fn blanks_and_tabs_may_separate_the_parts_of_a_line() {
    let families = accepted("#\tTYPE\tm\tgauge\n \t m \t{ a = \"1\" , b\t=\t\"2\" , } \t 3\n");
    assert_eq!(family(&families, "m").kind, MetricType::Gauge);
    assert_eq!(metrics(&families, "m"), ["{a=1,b=2} 3"]);
}

#[test]
fn errors_contain_the_line_number() {
    assert_eq!(rejected("a 1\n\n# HELP a x\nb one\n"), r#"4: expected float as value, got "one""#);
}

// --- comments

#[test]
fn rejects_a_second_help_or_type() {
    assert_eq!(rejected("# HELP c one\n# HELP c two\nc 5\n"), r#"2: second HELP line for metric name "c""#);
    let second = r#"2: second TYPE line for metric name "c", or TYPE reported after samples"#;
    assert_eq!(rejected("# TYPE c gauge\n# TYPE c gauge\nc 5\n"), second);
}

#[test]
fn a_type_must_not_follow_samples_but_help_may() {
    let late = r#"2: second TYPE line for metric name "c", or TYPE reported after samples"#;
    assert_eq!(rejected("c 5\n# TYPE c counter\n"), late);
    let families = accepted("c 5\n# HELP c Things done.\n");
    assert_eq!(family(&families, "c").help.as_deref(), Some("Things done."));
}

#[test]
fn accepts_the_known_types_in_any_case() {
    for (word, kind) in [
        ("counter", MetricType::Counter),
        ("COUNTER", MetricType::Counter),
        ("Gauge", MetricType::Gauge),
        ("untyped", MetricType::Untyped),
    ] {
        assert_eq!(family(&accepted(&format!("# TYPE m {word}\nm 1\n")), "m").kind, kind);
    }
    for word in ["histogram", "gaugehistogram", "gauge_histogram", "summary"] {
        accepted(&format!("# TYPE m {word}\nm_count 1\n"));
    }
    for word in ["unknown", "info", "stateset", "0"] {
        assert_eq!(rejected(format!("# TYPE m {word}\nm 1\n")), format!("1: unknown metric type \"{word}\""));
    }
}

#[test]
fn a_backslash_in_a_type_is_ignored() {
    assert_eq!(family(&accepted("# TYPE m gau\\ge\\\nm 1\n"), "m").kind, MetricType::Gauge);
    assert_eq!(rejected("# TYPE m in\\fo\nm 1\n"), r#"1: unknown metric type "info""#);
}

#[test]
fn help_or_type_without_text_is_ignored() {
    let families =
        accepted("# HELP c\n# HELP c  \n# TYPE c\n# TYPE c \n# HELP c text\n# TYPE c gauge\nc 5\n");
    assert_eq!(family(&families, "c").help.as_deref(), Some("text"));
    assert_eq!(family(&accepted("# HELP c  \nc 5\n"), "c").help, None);
}

#[test]
fn help_or_type_without_samples_creates_no_family() {
    let families = accepted("# HELP a text\n# TYPE b gauge\nm 1\n# TYPE h histogram\n");
    assert_eq!(names(&families), ["m"]);
}

#[test]
fn help_keeps_its_inner_and_trailing_blanks() {
    assert_eq!(family(&accepted("# HELP c   a  b  \nc 5\n"), "c").help.as_deref(), Some("a  b  "));
}

#[test]
fn help_has_three_escape_sequences() {
    let families = accepted("# HELP c \\\\ \\n \\\" end\nc 5\n");
    assert_eq!(family(&families, "c").help.as_deref(), Some("\\ \n \" end"));
    assert_eq!(rejected("# HELP c a\\tb\nc 5\n"), "1: invalid escape sequence '\\t'");
    assert_eq!(rejected("# HELP c text\\\nc 5\n"), "1: invalid escape sequence '\\\n'");
}

#[test]
fn help_that_is_not_utf8_is_repaired() {
    for body in [&b"# HELP a caf\xe9!\na 1\n"[..], b"# HELP a c\\\\f\xe9!\na 1\n"] {
        let families = parse(body, NameRules::Legacy).expect("accepted");
        assert!(family(&families, "a").help.as_deref().expect("help").ends_with("f\u{fffd}!"));
    }
}

#[test]
fn a_comment_that_is_not_utf8_does_not_affect_other_lines() {
    let families = parse(b"# caf\xe9\nm{a=\"\xc3\xa4\"} 1\n", NameRules::Legacy).expect("accepted");
    assert_eq!(metrics(&families, "m"), ["{a=\u{e4}} 1"]);
}

#[test]
fn rejects_comments_with_invalid_names() {
    assert_eq!(rejected("# HELP 0c text\nc 5\n"), "1: invalid metric name in comment");
    assert_eq!(rejected("# TYPE c{ gauge\nc 5\n"), "1: invalid metric name in comment");
    assert_eq!(rejected("c 1\n# HELP c{ text\n"), "2: invalid metric name in comment");
}

#[test]
fn help_and_type_are_upper_case_words() {
    let families = accepted("# help c text\n# HELPc text\n# UNIT c seconds\nc 5\n");
    assert_eq!(family(&families, "c").help, None);
    // No blank is needed after the hash.
    assert_eq!(family(&accepted("#HELP c text\nc 5\n"), "c").help.as_deref(), Some("text"));
}

// --- names and labels

#[test]
fn names_may_begin_with_colons_and_underscores() {
    assert_eq!(names(&accepted(":x 1\n_ 1\n__a 1\nA 1\na 1\n")), [":x", "_", "__a", "A", "a"]);
}

#[test]
fn rejects_other_names() {
    for body in ["1m 1\n", "\0\n", "\u{e4} 1\n", "= 1\n", "\"\" 1\n"] {
        assert_eq!(rejected(body), "1: invalid metric name");
    }
    assert_eq!(rejected("m-n 1\n"), r#"1: expected float as value, got "-n""#);
    assert_eq!(rejected("m.n 1\n"), r#"1: expected float as value, got ".n""#);
}

#[test]
fn a_quoted_name_may_be_inside_or_outside_the_braces() {
    for body in [
        "{\"m\",a=\"1\"} 5\n",
        "{a=\"1\",\"m\"} 5\n",
        "{m,a=\"1\",} 5\n",
        "\"m\"{a=\"1\"} 5\n",
        "m{\"a\"=\"1\"} 5\n",
    ] {
        assert_eq!(metrics(&accepted(body), "m"), ["{a=1} 5"]);
    }
    assert_eq!(metrics(&accepted("# TYPE \"m\" gauge\n{\"m\"}5\n"), "m"), ["{} 5"]);
    assert_eq!(rejected("{\"m\",\"n\"} 5\n"), r#"1: multiple metric names for metric "m""#);
    assert_eq!(rejected("{\"m\" a=\"1\"} 5\n"), "1: unexpected end of metric name 'a'");
    assert_eq!(rejected("\"m\n"), r#"1: metric name "m" contains unescaped new-line"#);
    assert_eq!(rejected("m{\"a\n\"=\"1\"} 1\n"), r#"1: label name "a" contains unescaped new-line"#);
}

#[test]
fn quoted_names_contain_other_characters_only_with_utf8_names() {
    for body in ["{\"m.n\"} 5\n", "\"m.n\" 5\n", "# HELP \"m.n\" text\n"] {
        assert_eq!(rejected(body), r#"1: invalid metric name "m.n""#);
    }
    assert_eq!(rejected("m{\"x.y\"=\"1\"} 5\n"), r#"1: invalid label name "x.y""#);
    let families = parse(b"{\"m.n\",\"x.\\\"y\"=\"1\"} 5\n", NameRules::Utf8).expect("accepted");
    assert_eq!(metrics(&families, "m.n"), ["{x.\"y=1} 5"]);
    let error = parse(b"{\"m\xff\"} 5\n", NameRules::Utf8).expect_err("not UTF-8");
    assert_eq!(error.reason(), r#"invalid metric name "m\xff""#);
}

/// Without quotes, such a name would be a name, a value and a timestamp.
#[test]
fn a_quoted_name_with_a_blank_does_not_match_the_next_line() {
    let families = parse(b"{\"m 1\"} 5\nm 1\n", NameRules::Utf8).expect("accepted");
    assert_eq!(names(&families), ["m 1", "m"]);
}

#[test]
fn a_sample_needs_a_name() {
    for body in ["{} 1\n", "{a=\"1\"} 1\n", "{a=\"1\",} 1\n"] {
        assert_eq!(rejected(body), "1: invalid metric name");
        assert_eq!(rejected(format!("m 1\n{body}")), "2: invalid metric name");
    }
}

#[test]
fn only_one_comma_may_follow_the_last_label() {
    assert_eq!(metrics(&accepted("m{a=\"1\",} 1\n"), "m"), ["{a=1} 1"]);
    let no_name = r#"1: invalid label name for metric "m""#;
    for body in [
        "m{,} 1\n",
        "m{,a=\"1\"} 1\n",
        "m{a=\"1\",,b=\"2\"} 1\n",
        "m{1=\"1\"} 1\n",
        "m{\u{e4}=\"1\"} 1\n",
        "m{a=\"1\",\n",
    ] {
        assert_eq!(rejected(body), no_name);
    }
    for body in ["m{a=\"1\" b=\"2\"} 1\n", "m{a=\"1\";b=\"2\"} 1\n", "m{a=\"1\"\n"] {
        assert_eq!(rejected(body), r#"1: unexpected end of label value "1""#);
    }
}

#[test]
fn no_blank_is_needed_after_the_closing_brace() {
    assert_eq!(metrics(&accepted("a{x=\"1\"}1\n"), "a"), ["{x=1} 1"]);
    assert_eq!(metrics(&accepted("a{}1\n"), "a"), ["{} 1"]);
    assert_eq!(rejected("a{x=\"1\"}{y=\"2\"} 1\n"), r#"1: expected float as value, got "{y=\"2\"}""#);
    assert_eq!(rejected("a1\n"), r#"1: expected float as value, got """#);
}

#[test]
fn a_label_is_a_name_an_equals_sign_and_a_value_in_double_quotes() {
    assert_eq!(rejected("m{a} 1\n"), "1: expected '=' after label name, found '}'");
    assert_eq!(rejected("m{a:b=\"1\"} 1\n"), "1: expected '=' after label name, found ':'");
    assert_eq!(rejected("m{a=1} 1\n"), "1: expected '\"' at start of label value, found '1'");
    assert_eq!(rejected("m{a='1'} 1\n"), r#"1: expected '"' at start of label value, found '\''"#);
}

#[test]
fn label_values_are_any_text_with_three_escape_sequences() {
    let families = accepted("m{a=\"q\\\"b\\\\n\\nx\",b=\"\",c=\"\0\t# no\"} 1\n");
    assert_eq!(metrics(&families, "m"), ["{a=q\"b\\n\nx,b=,c=\0\t# no} 1"]);
    assert_eq!(rejected("m{a=\"\\r\"} 1\n"), "1: invalid escape sequence '\\r'");
    assert_eq!(rejected("m{a=\"1\n2\"} 1\n"), r#"1: label value "1" contains unescaped new-line"#);
}

/// Plain and escaped values that end at every position within the eight bytes that are examined together.
#[test]
fn finds_the_end_of_label_values_of_any_length() {
    for length in 0..80 {
        let value = "v".repeat(length);
        assert_eq!(metrics(&accepted(&format!("m{{a=\"{value}\"}} 1\n")), "m"), [format!("{{a={value}}} 1")]);
        let families = format!("m{{a=\"{value}\\\\\",b=\"\u{e4}{value}\"}} 1\n");
        assert_eq!(metrics(&accepted(&families), "m"), [format!("{{a={value}\\,b=\u{e4}{value}}} 1")]);
    }
}

#[test]
fn label_values_are_utf8() {
    for value in [&b"\xff"[..], b"\xc0\x80", b"\xe2\x82", b"\\n\xff"] {
        let body = [b"m{a=\"", value, b"\"} 1\n"].concat();
        assert!(rejected(&body).starts_with("1: invalid label value \""), "{value:?}");
    }
    assert_eq!(rejected(b"m{a=\"b\xff\"} 1\n"), r#"1: invalid label value "b\xff""#);
}

#[test]
fn rejects_a_duplicate_label_name() {
    let twice = r#"1: duplicate label names for metric "m""#;
    assert_eq!(rejected("m{x=\"1\",y=\"2\",x=\"1\"} 1\n"), twice);
    assert_eq!(rejected("m{x=\"1\",\"x\"=\"2\"} 1\n"), twice);
    // More labels than are compared one by one.
    let many: String = (0..40).map(|number| format!("l{number}=\"1\",")).collect();
    for duplicate in [0, 15, 16, 17, 39] {
        assert_eq!(rejected(format!("m{{{many}l{duplicate}=\"1\"}} 1\n")), twice);
    }
    let labels = accepted(&format!("m{{{many}}} 1\nm{{{many}}} 1\n")).labels.len();
    assert_eq!(labels, 80);
}

#[test]
fn the_name_label_is_reserved() {
    assert_eq!(rejected("m{__name__=\"n\"} 1\n"), r#"1: label name "__name__" is reserved"#);
    accepted("m{__x=\"1\"} 1\n");
}

// --- values and timestamps

#[test]
fn rejects_numbers_outside_the_format() {
    for word in
        ["0x1p-2", "0x1", "1_000", "+NaN", "-NaN", "1e999", "-1e400", "one", "--5", "5e", "1,5", "\u{665}"]
    {
        assert_eq!(rejected(format!("m {word}\n")), format!("1: expected float as value, got \"{word}\""));
    }
    assert_eq!(rejected("m\n"), r#"1: expected float as value, got """#);
}

#[test]
fn numbers_that_are_too_small_become_zero() {
    assert_eq!(metrics(&accepted("m 1e-999\n"), "m"), ["{} 0"]);
}

#[test]
fn a_timestamp_is_parsed_so_that_rendering_can_reject_it() {
    let families = accepted("m 1 17\nm 2\nm 3 -5\nm 4\t+6\n");
    let timestamps: Vec<_> = families.metrics.iter().map(|metric| metric.timestamp).collect();
    assert_eq!(timestamps, [Some(17), None, Some(-5), Some(6)]);
    assert_eq!(accepted("# TYPE h histogram\nh_sum 1\nh_count 1 17\n").metrics[0].timestamp, Some(17));
    assert_eq!(rejected("m 1 1.5\n"), r#"1: expected integer as timestamp, got "1.5""#);
    assert_eq!(
        rejected("m 1 9223372036854775808\n"),
        r#"1: expected integer as timestamp, got "9223372036854775808""#
    );
    assert_eq!(rejected("m 1 17 x\n"), r#"1: spurious string after timestamp: " x""#);
}

// --- families

#[test]
fn families_keep_the_order_of_their_names_and_their_metrics_are_contiguous() {
    let families = accepted("# TYPE b gauge\na{x=\"1\"} 1\nb 1\na{x=\"2\"} 2\nb 2\nc 1\na 3\n");
    assert_eq!(names(&families), ["b", "a", "c"]);
    assert_eq!(metrics(&families, "a"), ["{x=1} 1", "{x=2} 2", "{} 3"]);
    assert_eq!(metrics(&families, "b"), ["{} 1", "{} 2"]);
}

#[test]
fn the_parts_of_a_histogram_belong_to_it() {
    let families = accepted(
        "# HELP h Sizes.\n# TYPE h histogram\nh_bucket{le=\"1.0\"} 1\nh_bucket{le=\"+Inf\"} 4\nh_sum 9.5\nh_count 4\n",
    );
    assert_eq!(names(&families), ["h"]);
    assert_eq!(metrics(&families, "h"), ["{} count 4 sum 9.5 1:1 inf:4"]);
}

#[test]
fn the_parts_of_a_summary_belong_to_it_but_buckets_do_not() {
    let families =
        accepted("# TYPE s summary\ns{quantile=\"0.5\"} NaN\ns_sum 30\ns_count 20.7\ns_bucket 1\n");
    assert_eq!(names(&families), ["s", "s_bucket"]);
    assert_eq!(metrics(&families, "s"), ["{} count 20 sum 30 0.5:NaN"]);
}

#[test]
fn help_and_type_of_a_part_apply_to_the_histogram() {
    let body = "# TYPE h histogram\n# HELP h_count Sizes.\nh_count 1\n";
    assert_eq!(family(&accepted(body), "h").help.as_deref(), Some("Sizes."));
    let second = r#"3: second HELP line for metric name "h""#;
    assert_eq!(rejected("# TYPE h histogram\n# HELP h a\n# HELP h_count b\n"), second);
    let second = r#"2: second TYPE line for metric name "h", or TYPE reported after samples"#;
    assert_eq!(rejected("# TYPE h histogram\n# TYPE h_count counter\n"), second);
}

#[test]
fn an_exact_name_wins_over_a_suffix() {
    for first in ["# TYPE h_count gauge\n", "# HELP h_count text\n", "# HELP h_count \n", "h_count 1\n"] {
        let body = format!("{first}# TYPE h histogram\nh_sum 2\nh_count 3\nh_bucket{{le=\"1\"}} 4\n");
        let families = accepted(&body);
        assert_eq!(metrics(&families, "h"), ["{} count 0 sum 2 1:4"], "{first}");
        assert_eq!(metrics(&families, "h_count").last().map(String::as_str), Some("{} 3"));
    }
}

#[test]
fn a_part_of_a_part_belongs_to_the_longest_matching_name() {
    let families =
        accepted("# TYPE h_count histogram\n# TYPE h histogram\nh_count_sum 1\nh_sum 2\nh_count_count 3\n");
    assert_eq!(metrics(&families, "h_count"), ["{} count 3 sum 1"]);
    assert_eq!(metrics(&families, "h"), ["{} count 0 sum 2"]);
}

#[test]
fn parts_before_the_type_line_are_separate_families() {
    let families = accepted("h_count 4\n# TYPE h histogram\nh_sum 9\n");
    assert_eq!(names(&families), ["h_count", "h"]);
    assert_eq!(
        names(&accepted("h_bucket{le=\"1\"} 1\nh_sum 9\nh_count 4\n")),
        ["h_bucket", "h_sum", "h_count"]
    );
    assert_eq!(names(&accepted("# TYPE c counter\nc 1\nc_count 2\n")), ["c", "c_count"]);
}

#[test]
fn a_sample_with_the_bare_name_only_creates_the_metric() {
    assert_eq!(metrics(&accepted("# TYPE h histogram\nh 7\n"), "h"), ["{} count 0 sum 0"]);
    assert_eq!(metrics(&accepted("# TYPE s summary\ns 7\ns_count 3\n"), "s"), ["{} count 3 sum 0"]);
    // With a bound it is a bucket.
    assert_eq!(metrics(&accepted("# TYPE h histogram\nh{le=\"1\"} 7\n"), "h"), ["{} count 0 sum 0 1:7"]);
}

#[test]
fn buckets_without_a_bound_are_dropped() {
    let families = accepted("# TYPE h histogram\nh_bucket 1\nh_bucket{le=\"NaN\"} 2\nh_count 3\n");
    assert_eq!(metrics(&families, "h"), ["{} count 3 sum 0"]);
    let no_number = r#"2: expected float as value for 'le' label, got "x""#;
    assert_eq!(rejected("# TYPE h histogram\nh_bucket{le=\"x\"} 1\n"), no_number);
    let no_number = r#"2: expected float as value for 'quantile' label, got """#;
    assert_eq!(rejected("# TYPE s summary\ns{quantile=\"\"} 1\n"), no_number);
}

#[test]
fn the_order_of_buckets_is_not_checked() {
    let families =
        accepted("# TYPE h histogram\nh_bucket{le=\"2\"} 1\nh_bucket{le=\"1\"} 5\nh_bucket{le=\"1\"} 2\n");
    assert_eq!(metrics(&families, "h"), ["{} count 0 sum 0 2:1 1:5 1:2"]);
}

#[test]
fn histogram_counts_may_be_fractions_but_not_negative() {
    let families = accepted("# TYPE h histogram\nh_bucket{le=\"1\"} 1.5\nh_count 2.5\nh_sum -3\n");
    assert_eq!(metrics(&families, "h"), ["{} count 2.5 sum -3 1:1.5"]);
    assert_eq!(rejected("# TYPE h histogram\nh_count -1\n"), r#"2: negative count for histogram "h""#);
    let negative = r#"2: negative bucket population for histogram "h""#;
    assert_eq!(rejected("# TYPE h histogram\nh_bucket{le=\"1\"} -0.5\n"), negative);
    // The official parser converts a zero to an integer, which has no sign.
    let Value::Histogram { count, .. } = accepted("# TYPE h histogram\nh_count -0\n").metrics[0].value else {
        panic!("a histogram");
    };
    assert!(count.is_sign_positive());
}

#[test]
fn labels_identify_the_metrics_of_a_histogram_in_any_order() {
    let families = accepted(
        "# TYPE h histogram\nh_bucket{x=\"1\",y=\"2\",le=\"1\"} 1\nh_bucket{x=\"2\",y=\"1\",le=\"1\"} 2\n\
         h_bucket{le=\"2\",y=\"2\",x=\"1\"} 3\nh_count{y=\"1\",x=\"2\"} 4\nh_count{y=\"2\",x=\"1\"} 5\nh_count 6\n",
    );
    let expected = ["{x=1,y=2} count 5 sum 0 1:1 2:3", "{x=2,y=1} count 4 sum 0 1:2", "{} count 6 sum 0"];
    assert_eq!(metrics(&families, "h"), expected);
}

#[test]
fn many_labels_identify_a_histogram_in_any_order() {
    let there: Vec<String> = (0..30).map(|number| format!("l{number}=\"v\"")).collect();
    let back: Vec<String> = there.iter().rev().cloned().collect();
    let (there, back) = (there.join(","), back.join(","));
    let body = format!("# TYPE h histogram\nh_sum{{{there}}} 1\nh_sum 2\nh_count{{{back}}} 3\n");
    assert_eq!(accepted(&body).metrics.len(), 2);
}

#[test]
fn the_last_of_two_counts_wins() {
    assert_eq!(metrics(&accepted("# TYPE h histogram\nh_count 3\nh_count 4\n"), "h"), ["{} count 4 sum 0"]);
}

#[test]
fn le_and_quantile_are_ordinary_labels_elsewhere() {
    let families =
        accepted("# TYPE g gauge\ng{quantile=\"x\"} 1\n# TYPE s summary\ns{le=\"x\",quantile=\"1.0\"} 2\n");
    assert_eq!(metrics(&families, "g"), ["{quantile=x} 1"]);
    assert_eq!(metrics(&families, "s"), ["{le=x} count 0 sum 0 1:2"]);
}

#[test]
fn a_gauge_histogram_is_parsed_like_a_histogram() {
    let families = accepted("# TYPE h gaugehistogram\nh_bucket{le=\"1\"} 1\nh_sum 2\nh_count 3\n");
    assert_eq!(family(&families, "h").kind, MetricType::GaugeHistogram);
    assert_eq!(metrics(&families, "h"), ["{} count 3 sum 2 1:1"]);
}

// --- hostile bodies: any quadratic step would make these tests take minutes

#[test]
fn a_hundred_thousand_labels_on_one_sample() {
    let labels: String = (0..100_000).map(|number| format!("l{number}=\"\",")).collect();
    assert_eq!(
        accepted(&format!("# TYPE h histogram\nh_sum{{{labels}}} 1\nh_count{{{labels}}} 1\n")).labels.len(),
        100_000
    );
}

#[test]
fn a_hundred_thousand_histograms_whose_series_are_scattered() {
    let mut body = "# TYPE h histogram\n".to_owned();
    for part in ["h_bucket{le=\"1\",", "h_bucket{le=\"2\",", "h_count{"] {
        for number in 0..100_000 {
            body.push_str(&format!("{part}n=\"{number}\"}} {number}\n"));
        }
    }
    let families = accepted(&body);
    assert_eq!(families.metrics.len(), 100_000);
    let Value::Histogram { count, buckets, .. } = families.metrics[77_777].value else {
        panic!("a histogram")
    };
    assert_eq!(count, 77_777.0);
    assert_eq!(families.points_of(buckets).iter().map(|point| point.at).collect::<Vec<_>>(), [1.0, 2.0]);
}

#[test]
fn a_hundred_thousand_interleaved_families() {
    let names: Vec<String> = (0..100_000).map(|number| format!("m{number} 1\n")).collect();
    let families_text = names.concat().repeat(2);
    let families = accepted(&families_text);
    assert_eq!(families.families.len(), 100_000);
    assert!(families.families.iter().all(|family| family.metrics.len() == 2));
}

#[test]
fn names_and_texts_of_a_push_have_a_limit() {
    let text = |bytes: usize| "x".repeat(bytes);
    let bodies = |name: usize, value: usize| {
        [
            ("metric name longer than 65536 bytes", format!("n 1\n{} 1\n", text(name))),
            // What a name in braces names is known only after it.
            ("label name longer than 65536 bytes", format!("n 1\n{{\"{}\"}} 1\n", text(name))),
            ("metric name longer than 65536 bytes", format!("n 1\n# TYPE {} gauge\n", text(name))),
            ("label name longer than 65536 bytes", format!("n 1\nm{{{}=\"1\"}} 1\n", text(name))),
            ("label name longer than 65536 bytes", format!("n 1\nm{{\"{}\"=\"1\"}} 1\n", text(name))),
            ("label value longer than 1048576 bytes", format!("n 1\nm{{a=\"{}\"}} 1\n", text(value))),
            ("HELP longer than 1048576 bytes", format!("n 1\n# HELP m {}\n", text(value))),
        ]
    };
    for (_, body) in bodies(64 << 10, 1 << 20) {
        assert!(parse_within(body.as_bytes(), NameRules::Legacy, &mut Unlimited).is_ok(), "{}", &body[..20]);
    }
    for (reason, body) in bodies((64 << 10) + 1, (1 << 20) + 1) {
        let error = parse_within(body.as_bytes(), NameRules::Legacy, &mut Unlimited).expect_err("too long");
        assert_eq!(error.to_string(), format!("text format parsing error in line 2: {reason}"));
        assert!(parse(body.as_bytes(), NameRules::Legacy).is_ok(), "lines of the gateway have no limit");
    }
}

#[test]
fn a_part_of_a_histogram_has_no_longer_name_than_others() {
    let name = "x".repeat((64 << 10) - 4);
    let body = |suffix| format!("# TYPE {name} histogram\n{name}{suffix} 1\n");
    assert!(parse_within(body("_sum").as_bytes(), NameRules::Legacy, &mut Unlimited).is_ok());
    let too_long = body("_count");
    let error = parse_within(too_long.as_bytes(), NameRules::Legacy, &mut Unlimited);
    assert_eq!(error.expect_err("too long").line(), 2);
}
