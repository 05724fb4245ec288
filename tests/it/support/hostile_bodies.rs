//! Hostile pushes: after most of them, the official program fails every scrape or rejects the pushes of other groups until
//! the group is deleted. `docs/compatibility.md`, difference 2, says how sluicegate responds.
//!
//! The list also has harmless pushes that look similar and must be accepted.

use super::{Gateway, protobuf_fields as pb};

/// A push and its expected outcome.
pub struct HostilePush {
    /// A description for messages.
    pub what: &'static str,
    pub path: &'static str,
    pub headers: &'static [(&'static str, &'static str)],
    pub body: Vec<u8>,
    pub outcome: Outcome,
}

/// The effect of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// 400; the push creates no group and sets no failure time.
    Invalid,
    /// 400; the group gets a failure time.
    Inconsistent,
    /// 200.
    Accepted,
}

/// The path of a group that exists before the hostile pushes.
pub const VICTIM: &str = "/metrics/job/victim/zone/eu";
const VICTIM_BODY: &str = "# TYPE v_seconds histogram\nv_seconds_bucket{le=\"1\"} 1\nv_seconds_bucket{le=\"+Inf\"} 2\n\
    v_seconds_sum 5\nv_seconds_count 2\n# TYPE v_rows counter\nv_rows 7\n";

const HISTOGRAM: &str = "# TYPE p_h histogram\np_h_bucket{le=\"1\"} 1\np_h_sum 1\np_h_count 1\n";
const SUMMARY: &str = "# TYPE p_s summary\np_s{quantile=\"0.5\"} 1\np_s_sum 1\np_s_count 1\n";

/// Pushes the group that the hostile pushes may break.
pub fn push_victim(gateway: &Gateway) {
    assert_eq!(gateway.put(VICTIM, VICTIM_BODY).status, 200);
}

/// All hostile pushes that need no flag. They expect the victim, and are pushed in this order.
pub fn all() -> Vec<HostilePush> {
    let mut all = keys();
    all.extend(texts());
    all.extend(protobufs());
    all
}

/// Hostile pushes with `--push.enable-utf8-names`: names that differ, but not for a scraper without UTF-8 support. To be pushed
/// after the others. The test's parser requires sorted names, and these sort alike in all escaping schemes.
pub fn with_utf8_names() -> Vec<HostilePush> {
    use Outcome::{Accepted, Inconsistent, Invalid};
    vec![
        text("an escaped reserved name", "/metrics/job/p/U______name____/x", "m 1\n", Invalid),
        text(
            "two grouping labels that collide after escaping",
            "/metrics/job/p/U__a_2e_b/1/a_b/2",
            "m 1\n",
            Invalid,
        ),
        text(
            "two metric names that collide after escaping",
            "/metrics/job/p_utf8",
            "{\"zz.u\"} 1\nzz_u 1\n",
            Inconsistent,
        ),
        text(
            "two label names that collide after escaping",
            "/metrics/job/p_utf8",
            "zz_u{\"a.b\"=\"1\",a_b=\"1\"} 1\n",
            Inconsistent,
        ),
        text("a dotted name", "/metrics/job/p_utf8", "{\"zz.u\",\"a.b\"=\"1\"} 1\n", Accepted),
        text(
            "a name that collides with it, in another group",
            "/metrics/job/p_utf8b",
            "zz_u 1\n",
            Inconsistent,
        ),
        text(
            "a dotted name that collides with a part of another group's histogram",
            "/metrics/job/p_utf8b",
            "{\"v_seconds.count\"} 1\n",
            Inconsistent,
        ),
    ]
}

fn text(what: &'static str, path: &'static str, body: impl AsRef<[u8]>, outcome: Outcome) -> HostilePush {
    HostilePush { what, path, headers: &[], body: body.as_ref().to_vec(), outcome }
}

/// Grouping keys that a scrape cannot represent or distinguish.
fn keys() -> Vec<HostilePush> {
    use Outcome::{Accepted, Invalid};
    vec![
        text("a grouping value that is not UTF-8", "/metrics/job/p/zone/%ff", "m 1\n", Invalid),
        text("a job that is not UTF-8", "/metrics/job/%c3%28", "m 1\n", Invalid),
        text("a value that is not UTF-8 in base64", "/metrics/job/p/zone@base64/_w", "m 1\n", Invalid),
        text("a job that is not UTF-8 in base64", "/metrics/job@base64/_w", "m 1\n", Invalid),
        text("a grouping name that is not UTF-8", "/metrics/job/p/z%ff/1", "m 1\n", Invalid),
        text("a reserved grouping name", "/metrics/job/p/__name__/p_other", "m 1\n", Invalid),
        text(
            "a key that differs from an existing one by an empty instance",
            "/metrics/job/victim/zone/eu/instance@base64/=",
            "m 1\n",
            Invalid,
        ),
        text("the same with an empty body", "/metrics/job/victim/instance@base64/=/zone/eu", "", Invalid),
        text("a group with an empty instance", "/metrics/job/p/instance@base64/=", "p_same 1\n", Accepted),
        text("the same key without it", "/metrics/job/p", "p_same 1\n", Invalid),
        text(
            "a grouping label le with a histogram",
            "/metrics/job/p_le/le/1",
            HISTOGRAM,
            Outcome::Inconsistent,
        ),
        text(
            "the same with a value that is no number",
            "/metrics/job/p_le/le/much",
            HISTOGRAM,
            Outcome::Inconsistent,
        ),
        text(
            "a grouping label quantile with a summary",
            "/metrics/job/p_q/quantile/0.5",
            SUMMARY,
            Outcome::Inconsistent,
        ),
        text("le with another type", "/metrics/job/p_le/le/2", "p_le 1\n", Accepted),
        text("quantile with another type", "/metrics/job/p_q/quantile/2", "p_q 1\n", Accepted),
    ]
}

fn texts() -> Vec<HostilePush> {
    use Outcome::{Accepted, Inconsistent, Invalid};
    let own = "# TYPE push_failure_time_seconds counter\npush_failure_time_seconds 12\n";
    let own_histogram = "# TYPE push_time_seconds histogram\npush_time_seconds_count 1\n";
    vec![
        text("a first push", "/metrics/job/p_times", "m 1\n", Accepted),
        text("a failure time of another type, into an existing group", "/metrics/job/p_times", own, Accepted),
        text("a push time that is a histogram", "/metrics/job/p_times", own_histogram, Accepted),
        text(
            "both times with their own type",
            "/metrics/job/p_times",
            "push_time_seconds 1\npush_failure_time_seconds 1\n",
            Accepted,
        ),
        text(
            "another type for a name of another group",
            "/metrics/job/p_type",
            "# TYPE v_rows gauge\nv_rows 1\n",
            Inconsistent,
        ),
        text(
            "a part of another group's histogram",
            "/metrics/job/p_part",
            "v_seconds_count 1\n",
            Inconsistent,
        ),
        text(
            "a histogram whose name is a prefix of another name",
            "/metrics/job/p_part",
            "# TYPE v histogram\nv_count 1\n",
            Accepted,
        ),
        text(
            "one of the gateway's own metrics with another type",
            "/metrics/job/p_own",
            "# TYPE process_open_fds counter\nprocess_open_fds 1\n",
            Inconsistent,
        ),
        text(
            "a part of one of the gateway's own metrics",
            "/metrics/job/p_own",
            "pushgateway_http_push_size_bytes_sum 1\n",
            Inconsistent,
        ),
        text(
            "another series of one of the gateway's own metrics",
            "/metrics/job/p_own",
            "# TYPE process_open_fds gauge\nprocess_open_fds 1\n",
            Accepted,
        ),
        text(
            "HELP that is not UTF-8",
            "/metrics/job/p_help",
            b"# HELP p_help a caf\xe9 \xff\np_help 1\n",
            Accepted,
        ),
        text(
            "HELP with a carriage return",
            "/metrics/job/p_help",
            "# HELP p_help2 a\rb\np_help2 1\n",
            Accepted,
        ),
        text("a value that is not UTF-8", "/metrics/job/p_value", b"p_value{x=\"\xff\"} 1\n", Invalid),
        text(
            "the same series twice",
            "/metrics/job/p_twice",
            "p_twice 1\np_twice{instance=\"\"} 2\n",
            Inconsistent,
        ),
        text(
            "a series of another group",
            "/metrics/job/victim",
            "# TYPE v_rows counter\nv_rows{zone=\"eu\"} 1\n",
            Inconsistent,
        ),
        text("a timestamp", "/metrics/job/p_stamp", "p_stamp 1 1700000000000\n", Inconsistent),
        text("a label __name__", "/metrics/job/p_name", "p_name{__name__=\"x\"} 1\n", Invalid),
    ]
}

fn protobufs() -> Vec<HostilePush> {
    use Outcome::{Accepted, Inconsistent, Invalid};
    let push = |what, path, body: Vec<u8>, outcome| HostilePush {
        what,
        path,
        headers: pb::CONTENT_TYPE,
        body,
        outcome,
    };
    let gauge = |labels: &[(&[u8], &[u8])]| pb::metric(labels, 2, &pb::double(1, 1.0));
    let named = |name: &[u8]| pb::family(name, pb::GAUGE, &[gauge(&[])]);
    let labelled = |name: &[u8], value: &[u8]| pb::family(b"p_pb", pb::GAUGE, &[gauge(&[(name, value)])]);
    let native =
        |parts: &[Vec<u8>]| pb::family(b"p_native", pb::HISTOGRAM, &[pb::metric(&[], 7, &parts.concat())]);
    // A count, a sum and schema 3, as in each native histogram.
    let head = [pb::number(1, 3), pb::double(2, 6.0), pb::signed(5, 3)].concat();
    let span =
        |field, offset, length| pb::message(field, &[pb::signed(1, offset), pb::number(2, length)].concat());
    let classic = pb::metric(&[], 7, &[pb::number(1, 1), pb::double(2, 1.0)].concat());
    vec![
        // 512 GiB, which the official program tries to allocate.
        push(
            "a length beyond all memory",
            "/metrics/job/p_pb",
            b"\x80\x80\x80\x80\x80\x10".to_vec(),
            Invalid,
        ),
        push("no name", "/metrics/job/p_pb", named(b""), Inconsistent),
        push("a name that is not UTF-8", "/metrics/job/p_pb", named(b"p_\xff"), Inconsistent),
        push("a name with a line feed", "/metrics/job/p_pb", named(b"p_pb 1\np_pc"), Inconsistent),
        push("a label name with a quote", "/metrics/job/p_pb", labelled(b"a\"", b"1"), Inconsistent),
        push("an empty label name", "/metrics/job/p_pb", labelled(b"", b"1"), Inconsistent),
        push("a label value that is not UTF-8", "/metrics/job/p_pb", labelled(b"a", b"\xff"), Inconsistent),
        push("a reserved label name", "/metrics/job/p_pb", labelled(b"__name__", b"x"), Inconsistent),
        push(
            "a repeated label",
            "/metrics/job/p_pb",
            pb::family(b"p_pb", pb::GAUGE, &[gauge(&[(b"a", b"1"), (b"a", b"2")])]),
            Inconsistent,
        ),
        push(
            "a value of another type",
            "/metrics/job/p_pb",
            pb::family(b"p_pb", pb::COUNTER, &[gauge(&[])]),
            Inconsistent,
        ),
        push(
            "a histogram in a group with le",
            "/metrics/job/p_le2/le/1",
            pb::family(b"p_pb_h", pb::HISTOGRAM, std::slice::from_ref(&classic)),
            Inconsistent,
        ),
        push(
            "a histogram with le",
            "/metrics/job/p_pb",
            pb::family(b"p_pb_h", pb::HISTOGRAM, &[pb::with_label(&classic, b"le", b"1")]),
            Inconsistent,
        ),
        push(
            "spans without deltas",
            "/metrics/job/p_native",
            native(&[head.clone(), span(12, 0, 3)]),
            Inconsistent,
        ),
        push(
            "deltas without spans",
            "/metrics/job/p_native",
            native(&[head.clone(), pb::zigzag(13, 3)]),
            Inconsistent,
        ),
        push(
            "more deltas than spans",
            "/metrics/job/p_native",
            native(&[head.clone(), span(12, 0, 1), pb::zigzag(13, 1), pb::zigzag(13, 1)]),
            Inconsistent,
        ),
        push(
            "counts below zero",
            "/metrics/job/p_native",
            native(&[head.clone(), span(12, 0, 2), pb::zigzag(13, 4), pb::zigzag(13, -5)]),
            Inconsistent,
        ),
        push(
            "overlapping spans",
            "/metrics/job/p_native",
            native(&[head.clone(), span(12, 0, 1), span(12, -5, 1), pb::zigzag(13, 1), pb::zigzag(13, 0)]),
            Inconsistent,
        ),
        push(
            "a huge span",
            "/metrics/job/p_native",
            native(&[head.clone(), span(12, 0, u64::from(u32::MAX))]),
            Inconsistent,
        ),
        push(
            "fewer observations than in buckets",
            "/metrics/job/p_native",
            native(&[head.clone(), span(12, 0, 1), pb::zigzag(13, 9)]),
            Inconsistent,
        ),
        push(
            "an unknown schema",
            "/metrics/job/p_native",
            native(&[pb::number(1, 1), pb::signed(5, 77), span(12, 0, 1), pb::zigzag(13, 1)]),
            Inconsistent,
        ),
        push(
            "a negative zero threshold",
            "/metrics/job/p_native",
            native(&[head.clone(), pb::double(6, -1.0), pb::number(7, 1)]),
            Inconsistent,
        ),
        push(
            "a valid native histogram",
            "/metrics/job/p_native",
            native(&[head, span(12, 0, 2), pb::zigzag(13, 1), pb::zigzag(13, 1)]),
            Accepted,
        ),
    ]
}
