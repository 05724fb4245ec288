//! Pushes by which the official program can be made to fail every scrape, or to refuse what others push, until somebody
//! deletes the group. `docs/compatibility.md`, "Where sluicegate differs on purpose", says what becomes of them here.
//!
//! Also what merely looks like it: such a push must be taken.

use super::{Gateway, protobuf_fields as pb};

/// One such push.
pub struct Poison {
    /// What is wrong with it.
    pub what: &'static str,
    /// Where it is pushed.
    pub path: &'static str,
    /// Content-Type, if it matters.
    pub headers: &'static [(&'static str, &'static str)],
    /// The body.
    pub body: Vec<u8>,
    /// What must become of it.
    pub fate: Fate,
}

/// What becomes of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// 400, and no group is there afterwards that was not there before.
    TurnedAway,
    /// 400, and the group has a failure time.
    Refused,
    /// 200.
    Taken,
}

/// A group that holds something before any poison comes.
pub const VICTIM: &str = "/metrics/job/victim/zone/eu";
const VICTIM_BODY: &str = "# TYPE v_seconds histogram\nv_seconds_bucket{le=\"1\"} 1\nv_seconds_bucket{le=\"+Inf\"} 2\n\
    v_seconds_sum 5\nv_seconds_count 2\n# TYPE v_rows counter\nv_rows 7\n";

const HISTOGRAM: &str = "# TYPE p_h histogram\np_h_bucket{le=\"1\"} 1\np_h_sum 1\np_h_count 1\n";
const SUMMARY: &str = "# TYPE p_s summary\np_s{quantile=\"0.5\"} 1\np_s_sum 1\np_s_count 1\n";

/// Pushes what the poison may hurt.
pub fn push_victim(gateway: &Gateway) {
    assert_eq!(gateway.put(VICTIM, VICTIM_BODY).status, 200);
}

/// All of them. They can be pushed one after the other, in this order, once the victim is there.
pub fn all() -> Vec<Poison> {
    let mut all = keys();
    all.extend(texts());
    all.extend(protobufs());
    all
}

/// What can only be said with `--push.enable-utf8-names`: names that are told apart here, but not by every scraper. Behind all
/// others: the reader wants names in order, and these are in the same order however they are spelled.
pub fn with_utf8_names() -> Vec<Poison> {
    use Fate::{Refused, Taken, TurnedAway};
    vec![
        text("a reserved name, spelled", "/metrics/job/p/U______name____/x", "m 1\n", TurnedAway),
        text("two grouping names that become one", "/metrics/job/p/U__a_2e_b/1/a_b/2", "m 1\n", TurnedAway),
        text("two names that become one", "/metrics/job/p_utf8", "{\"zz.u\"} 1\nzz_u 1\n", Refused),
        text(
            "two label names that become one",
            "/metrics/job/p_utf8",
            "zz_u{\"a.b\"=\"1\",a_b=\"1\"} 1\n",
            Refused,
        ),
        text("a dotted name", "/metrics/job/p_utf8", "{\"zz.u\",\"a.b\"=\"1\"} 1\n", Taken),
        text("its plain twin in another group", "/metrics/job/p_utf8b", "zz_u 1\n", Refused),
        text(
            "a dotted name of somebody's part",
            "/metrics/job/p_utf8b",
            "{\"v_seconds.count\"} 1\n",
            Refused,
        ),
    ]
}

fn text(what: &'static str, path: &'static str, body: impl AsRef<[u8]>, fate: Fate) -> Poison {
    Poison { what, path, headers: &[], body: body.as_ref().to_vec(), fate }
}

/// Keys that are told apart, or made, where a scrape cannot.
fn keys() -> Vec<Poison> {
    use Fate::{Taken, TurnedAway};
    vec![
        text("a grouping value that is not UTF-8", "/metrics/job/p/zone/%ff", "m 1\n", TurnedAway),
        text("a job that is not UTF-8", "/metrics/job/%c3%28", "m 1\n", TurnedAway),
        text("a value that is not UTF-8 in base64", "/metrics/job/p/zone@base64/_w", "m 1\n", TurnedAway),
        text("a job that is not UTF-8 in base64", "/metrics/job@base64/_w", "m 1\n", TurnedAway),
        text("a grouping name that is not UTF-8", "/metrics/job/p/z%ff/1", "m 1\n", TurnedAway),
        text("a reserved grouping name", "/metrics/job/p/__name__/p_other", "m 1\n", TurnedAway),
        text(
            "the twin of a living group",
            "/metrics/job/victim/zone/eu/instance@base64/=",
            "m 1\n",
            TurnedAway,
        ),
        text("its twin with nothing in it", "/metrics/job/victim/instance@base64/=/zone/eu", "", TurnedAway),
        text("a group that has an empty instance", "/metrics/job/p/instance@base64/=", "p_twin 1\n", Taken),
        text("and its twin", "/metrics/job/p", "p_twin 1\n", TurnedAway),
        text("a label of the URL for buckets", "/metrics/job/p_le/le/1", HISTOGRAM, Fate::Refused),
        text("the same with a value of no kind", "/metrics/job/p_le/le/much", HISTOGRAM, Fate::Refused),
        text("a label of the URL for quantiles", "/metrics/job/p_q/quantile/0.5", SUMMARY, Fate::Refused),
        text("le with another type", "/metrics/job/p_le/le/2", "p_le 1\n", Taken),
        text("quantile with another type", "/metrics/job/p_q/quantile/2", "p_q 1\n", Taken),
    ]
}

fn texts() -> Vec<Poison> {
    use Fate::{Refused, Taken, TurnedAway};
    let own = "# TYPE push_failure_time_seconds counter\npush_failure_time_seconds 12\n";
    let own_histogram = "# TYPE push_time_seconds histogram\npush_time_seconds_count 1\n";
    vec![
        text("a failure time of another type, into a living group", "/metrics/job/p_times", "m 1\n", Taken),
        text("the same", "/metrics/job/p_times", own, Taken),
        text("a push time that is a histogram", "/metrics/job/p_times", own_histogram, Taken),
        text(
            "both times as they are",
            "/metrics/job/p_times",
            "push_time_seconds 1\npush_failure_time_seconds 1\n",
            Taken,
        ),
        text(
            "another type for a name of others",
            "/metrics/job/p_type",
            "# TYPE v_rows gauge\nv_rows 1\n",
            Refused,
        ),
        text("a part of somebody's histogram", "/metrics/job/p_part", "v_seconds_count 1\n", Refused),
        text(
            "a histogram around somebody's name",
            "/metrics/job/p_part",
            "# TYPE v histogram\nv_count 1\n",
            Taken,
        ),
        text(
            "one of the gateway's own, of another type",
            "/metrics/job/p_own",
            "# TYPE process_open_fds counter\nprocess_open_fds 1\n",
            Refused,
        ),
        text(
            "a part of one of the gateway's own",
            "/metrics/job/p_own",
            "pushgateway_http_push_size_bytes_sum 1\n",
            Refused,
        ),
        text(
            "more series of one of the gateway's own",
            "/metrics/job/p_own",
            "# TYPE process_open_fds gauge\nprocess_open_fds 1\n",
            Taken,
        ),
        text(
            "HELP that is not UTF-8",
            "/metrics/job/p_help",
            b"# HELP p_help a caf\xe9 \xff\np_help 1\n",
            Taken,
        ),
        text(
            "HELP that would end its line",
            "/metrics/job/p_help",
            "# HELP p_help2 a\rb\np_help2 1\n",
            Taken,
        ),
        text("a value that is not UTF-8", "/metrics/job/p_value", b"p_value{x=\"\xff\"} 1\n", TurnedAway),
        text(
            "the same series twice",
            "/metrics/job/p_twice",
            "p_twice 1\np_twice{instance=\"\"} 2\n",
            Refused,
        ),
        text(
            "a series of another group",
            "/metrics/job/victim",
            "# TYPE v_rows counter\nv_rows{zone=\"eu\"} 1\n",
            Refused,
        ),
        text("a time of its own", "/metrics/job/p_stamp", "p_stamp 1 1700000000000\n", Refused),
        text(
            "a label that would be a metric's name",
            "/metrics/job/p_name",
            "p_name{__name__=\"x\"} 1\n",
            TurnedAway,
        ),
    ]
}

fn protobufs() -> Vec<Poison> {
    use Fate::{Refused, Taken, TurnedAway};
    let push = |what, path, body: Vec<u8>, fate| Poison { what, path, headers: pb::CONTENT_TYPE, body, fate };
    let gauge = |labels: &[(&[u8], &[u8])]| pb::metric(labels, 2, &pb::double(1, 1.0));
    let named = |name: &[u8]| pb::family(name, pb::GAUGE, &[gauge(&[])]);
    let labelled = |name: &[u8], value: &[u8]| pb::family(b"p_pb", pb::GAUGE, &[gauge(&[(name, value)])]);
    let native =
        |parts: &[Vec<u8>]| pb::family(b"p_native", pb::HISTOGRAM, &[pb::metric(&[], 7, &parts.concat())]);
    // A count, a sum and schema 3: what each of them has.
    let head = [pb::number(1, 3), pb::double(2, 6.0), pb::signed(5, 3)].concat();
    let span =
        |field, offset, length| pb::message(field, &[pb::signed(1, offset), pb::number(2, length)].concat());
    let classic = pb::metric(&[], 7, &[pb::number(1, 1), pb::double(2, 1.0)].concat());
    vec![
        push("no name", "/metrics/job/p_pb", named(b""), TurnedAway),
        push("a name that is not UTF-8", "/metrics/job/p_pb", named(b"p_\xff"), TurnedAway),
        push("a name with a line feed", "/metrics/job/p_pb", named(b"p_pb 1\np_pc"), TurnedAway),
        push("a label name with a quote", "/metrics/job/p_pb", labelled(b"a\"", b"1"), TurnedAway),
        push("an empty label name", "/metrics/job/p_pb", labelled(b"", b"1"), TurnedAway),
        push("a label value that is not UTF-8", "/metrics/job/p_pb", labelled(b"a", b"\xff"), Refused),
        push("a reserved label name", "/metrics/job/p_pb", labelled(b"__name__", b"x"), Refused),
        push(
            "a label twice",
            "/metrics/job/p_pb",
            pb::family(b"p_pb", pb::GAUGE, &[gauge(&[(b"a", b"1"), (b"a", b"2")])]),
            Refused,
        ),
        push(
            "a value of another kind",
            "/metrics/job/p_pb",
            pb::family(b"p_pb", pb::COUNTER, &[gauge(&[])]),
            Refused,
        ),
        push(
            "a histogram for a group with le",
            "/metrics/job/p_le2/le/1",
            pb::family(b"p_pb_h", pb::HISTOGRAM, std::slice::from_ref(&classic)),
            Refused,
        ),
        push(
            "a histogram with le",
            "/metrics/job/p_pb",
            pb::family(b"p_pb_h", pb::HISTOGRAM, &[pb::with_label(&classic, b"le", b"1")]),
            Refused,
        ),
        push(
            "spans without deltas",
            "/metrics/job/p_native",
            native(&[head.clone(), span(12, 0, 3)]),
            Refused,
        ),
        push(
            "deltas without spans",
            "/metrics/job/p_native",
            native(&[head.clone(), pb::zigzag(13, 3)]),
            Refused,
        ),
        push(
            "more deltas than spans",
            "/metrics/job/p_native",
            native(&[head.clone(), span(12, 0, 1), pb::zigzag(13, 1), pb::zigzag(13, 1)]),
            Refused,
        ),
        push(
            "counts below zero",
            "/metrics/job/p_native",
            native(&[head.clone(), span(12, 0, 2), pb::zigzag(13, 4), pb::zigzag(13, -5)]),
            Refused,
        ),
        push(
            "spans that go back",
            "/metrics/job/p_native",
            native(&[head.clone(), span(12, 0, 1), span(12, -5, 1), pb::zigzag(13, 1), pb::zigzag(13, 0)]),
            Refused,
        ),
        push(
            "a huge span",
            "/metrics/job/p_native",
            native(&[head.clone(), span(12, 0, u64::from(u32::MAX))]),
            Refused,
        ),
        push(
            "fewer observations than in buckets",
            "/metrics/job/p_native",
            native(&[head.clone(), span(12, 0, 1), pb::zigzag(13, 9)]),
            Refused,
        ),
        push(
            "a schema that nobody knows",
            "/metrics/job/p_native",
            native(&[pb::number(1, 1), pb::signed(5, 77), span(12, 0, 1), pb::zigzag(13, 1)]),
            Refused,
        ),
        push(
            "a zero bucket below zero",
            "/metrics/job/p_native",
            native(&[head.clone(), pb::double(6, -1.0), pb::number(7, 1)]),
            Refused,
        ),
        push(
            "a native histogram that is whole",
            "/metrics/job/p_native",
            native(&[head, span(12, 0, 2), pb::zigzag(13, 1), pb::zigzag(13, 1)]),
            Taken,
        ),
    ]
}
