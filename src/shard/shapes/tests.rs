//! Shapes compared with the parser and the renderer.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use proptest::prelude::*;

use super::skeleton::{Skeleton, fingerprint};
use super::*;
use crate::exposition::memory::Unlimited;
use crate::exposition::names::NameRules;
use crate::handlers::push::{Format, PushRules, ReceivedPush};

const RULES: PushRules = PushRules { body_bytes_max: None, consistency_check: true, names: NameRules::Utf8 };

/// What the parser and the renderer make of a push. `None` if there is an error.
fn rendered(key: &GroupingKey, body: &[u8]) -> Option<Push> {
    let received = ReceivedPush {
        key: key.clone(),
        mode: Mode::Replace,
        format: Format::Text,
        encoding: None,
        body: body.to_vec().into(),
        source: None,
    };
    received.prepare(RULES, RULES.sizes(), &mut Unlimited).ok()
}

/// All that a shard sees of a push.
type Seen = Vec<(String, Option<String>, MetricType, String, bool)>;

fn seen(push: &Push) -> Option<Seen> {
    let Content::Families(_, rendered) = &push.content else { return None };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("lines are UTF-8");
    let family = |family| {
        let (name, help) = (rendered.name(family), rendered.help(family));
        let (text, has_exact) = (text(rendered.text(family)), rendered.exact(family).is_some());
        (name.to_owned(), help.map(str::to_owned), family.kind, text, has_exact)
    };
    Some(rendered.families().iter().map(family).collect())
}

fn compiled(key: &GroupingKey, body: &str) -> Option<Arc<Shape>> {
    Some(Arc::new(Shape::compile(Skeleton::cut(body.as_bytes())?, key, NameRules::Utf8)?))
}

fn key(labels: &[(&str, &str)]) -> GroupingKey {
    GroupingKey::new(labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

/// What the shape makes of a body; `None` if the body has another shape.
fn by_shape(shape: &Arc<Shape>, key: &GroupingKey, body: &[u8]) -> Option<Seen> {
    let mut numbers = Vec::new();
    if !shape.is_for(key, usize::MAX) || !shape.skeleton.read_numbers(body, &mut numbers) {
        return None;
    }
    let key = key.clone();
    seen(&ShapedPush { key, mode: Mode::Replace, source: None, shape: shape.clone(), numbers }.to_push())
}

#[test]
fn a_shape_that_was_forgotten_and_added_again_is_still_known_after_its_first_groups() {
    let (mut local, key) = (LocalShapes::default(), key(&[("job", "a")]));
    let shape = compiled(&key, "m 1\n").expect("a plain body");
    let other = compiled(&key, "n 1\n").expect("a plain body");
    let acquire = |local: &mut LocalShapes, shape| local.acquire(shape, |_| Some(0)).expect("all families");
    let first = acquire(&mut local, &shape);
    shape.is_evicted.store(true, Ordering::Relaxed);
    assert!(local.forget_evicted().is_empty());
    acquire(&mut local, &other);
    let second = acquire(&mut local, &shape);
    assert_ne!(first, second);
    local.release(first);
    assert_eq!(acquire(&mut local, &shape), second);
}

/// A line of a body, with a place for its number.
fn line() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        Just("m"),
        Just("h"),
        Just("h_bucket"),
        Just("h_sum"),
        Just("h_count"),
        Just("s"),
        Just("s_sum"),
        Just("s_count")
    ];
    let label = prop_oneof![
        (
            prop_oneof![Just("a"), Just("b"), Just("job"), Just("k"), Just("instance"), Just("zone")],
            prop_oneof![
                Just("1"),
                Just("x"),
                Just("a b"),
                Just("\\\""),
                Just("\\n} 7"),
                Just("ä"),
                Just("group-0")
            ],
        )
            .prop_map(|(name, value)| format!("{name}=\"{value}\"")),
        prop_oneof![Just("le=\"1\""), Just("le=\"+Inf\""), Just("quantile=\"0.5\""), Just("le=\"100000\"")]
            .prop_map(str::to_owned),
    ];
    let sample = (
        name,
        prop::collection::vec(label, 0..3),
        prop_oneof![9 => Just(" "), 1 => Just("\t"), 1 => Just("  ")],
    )
        .prop_map(|(name, labels, space)| {
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            format!("{name}{labels}{space}#")
        });
    prop_oneof![
        12 => sample,
        1 => Just("{\"q.x\",a=\"1\"} #".to_owned()),
        1 => Just("# TYPE m counter".to_owned()),
        1 => Just("# HELP m some text 5".to_owned()),
        1 => Just("# HELP m \\\\ escaped".to_owned()),
        1 => Just("# EOF 7".to_owned()),
        1 => Just(String::new()),
        1 => Just("push_time_seconds 1".to_owned()),
        1 => Just("m 1 #".to_owned()),
    ]
}

/// The lines of a body, and its types at the start.
fn lines() -> impl Strategy<Value = Vec<String>> {
    let whole_histogram = ["h_bucket{le=\"1\"} #", "h_bucket{le=\"+Inf\"} #", "h_sum #", "h_count #"];
    let whole_summary = ["s{quantile=\"0.5\"} #", "s_sum #", "s_count #"];
    let types = ["# TYPE h histogram", "# TYPE s summary", "# TYPE m gauge"];
    let owned = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    let (histogram, summary, types) = (owned(&whole_histogram), owned(&whole_summary), owned(&types));
    (
        prop::collection::vec(line(), 1..5),
        prop::option::of(Just(histogram)),
        prop::option::of(Just(summary)),
        prop::option::weighted(0.8, Just(types)),
    )
        .prop_map(|(lines, histogram, summary, types)| {
            [types, Some(lines), histogram, summary].into_iter().flatten().flatten().collect()
        })
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => (0..2_000_000_u32).prop_map(|number| number.to_string()),
        4 => any::<f64>().prop_map(|number| format!("{}", number.abs())),
        4 => (-1e7..1e7).prop_map(|number: f64| number.to_string()),
        1 => prop_oneof![
            Just("0"), Just("-0"), Just("-0.0"), Just("1e5"), Just("1e400"), Just("1e-400"), Just(".5"), Just("5."), Just("+5"), Just("NaN"),
            Just("+Inf"), Just("-Inf"), Just("-1"), Just("0.1"), Just("9007199254740993"), Just("12345678901234567890"), Just("1e21"),
            Just("0x10"), Just("1_0"), Just(""), Just("1 "), Just("1\r"), Just("x"), Just("00012"), Just("0.00001"),
        ].prop_map(str::to_owned),
    ]
}

fn filled(lines: &[String], numbers: &[String]) -> Vec<u8> {
    let (mut body, mut numbers) = (String::new(), numbers.iter().cycle());
    for line in lines {
        let line = line.strip_suffix('#').map(|line| format!("{line}{}", numbers.next().expect("endless")));
        writeln!(body, "{}", line.as_ref().unwrap_or_else(|| &lines[0]))
            .expect("writing to a string cannot fail");
    }
    body.into_bytes()
}

const KEYS: [&[(&str, &str)]; 5] = [
    &[("job", "x")],
    &[("job", "\\\"\n5"), ("instance", "a,job=\"x\"")],
    &[("job", "b"), ("zone", "group-0")],
    &[("job", "b"), ("a", "1"), ("le", "1")],
    &[("job", "b"), ("zone.x", "1")],
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]
    /// A body that matches a shape is what the parser and the renderer would have made of it. Bodies differ in their numbers, and in one
    /// byte anywhere.
    #[test]
    fn a_shape_gives_what_the_parser_and_the_renderer_give(
        lines in lines(),
        first in prop::collection::vec(number(), 9),
        numbers in prop::collection::vec(number(), 9),
        (names, other) in (0..KEYS.len(), any::<bool>()),
        change in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let first_key = key(KEYS[names]);
        let renamed: Vec<_> = KEYS[names].iter().map(|(name, value)| (*name, format!("{value}{}", if other { "9" } else { "" }))).collect();
        let second_key = key(&renamed.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>());
        let first = filled(&lines, &first);
        let Some(shape) = std::str::from_utf8(&first).ok().and_then(|first| compiled(&first_key, first)) else { return Ok(()) };
        let mut body = filled(&lines, &numbers);
        if let Some((at, byte)) = change {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if let Some(by_shape) = by_shape(&shape, &second_key, &body) {
            prop_assert_eq!(fingerprint(&body), fingerprint(&first));
            let reference = rendered(&second_key, &body).as_ref().and_then(seen);
            prop_assert_eq!(Some(by_shape), reference, "{:?}", String::from_utf8_lossy(&body));
        }
    }
}

const BODY: &str = "# HELP m Some text.\n# TYPE m counter\nm{zone=\"x\"} 1\nm{zone=\"y\"} 2\n# TYPE h histogram\n\
                    h_bucket{le=\"1\"} 3\nh_bucket{le=\"+Inf\"} 4\nh_sum 5\nh_count 6\n# TYPE s summary\ns{quantile=\"0.5\"} 7\n\
                    s_sum 8\ns_count 9\nuntyped 10\n";

#[test]
fn a_usual_body_has_a_shape() {
    let shape = compiled(&key(&[("job", "a"), ("instance", "b")]), BODY).expect("has a shape");
    let other = key(&[("job", "c"), ("instance", "\"")]);
    let body = BODY.replace(" 3\n", " 3.5e3\n").replace(" 8\n", " 0.25\n").replace(" 10\n", " -1.5\n");
    let by_shape = by_shape(&shape, &other, body.as_bytes());
    assert!(by_shape.is_some());
    assert_eq!(by_shape, rendered(&other, body.as_bytes()).as_ref().and_then(seen));
    assert!(shape.bytes() < 6 * BODY.len() + 500, "{}", shape.bytes());
}

#[test]
fn a_shape_is_only_for_groups_with_its_label_names_and_short_lines() {
    let shape = compiled(&key(&[("job", "a")]), BODY).expect("has a shape");
    let long = "x".repeat(RUN_BYTES_MAX / 4);
    for (labels, is_for) in [
        (&[("job", "b")][..], true),
        (&[("job", "b"), ("zone", "c")], false),
        (&[("Job", "b")], false),
        (&[("job", &*long)], false),
    ] {
        assert_eq!(shape.is_for(&key(labels), usize::MAX), is_for);
    }
    assert!(!shape.is_for(&key(&[("job", "b")]), BODY.len()));
}

#[test]
fn some_bodies_have_no_shape() {
    let plain = &[("job", "a")][..];
    for (labels, body, reason) in [
        (plain, "# TYPE h histogram\nh_sum 1\nh_count 2\n", "the count also comes out as a bucket"),
        (
            plain,
            "# TYPE h histogram\nh_sum 1\nh_sum 2\nh_bucket{le=\"+Inf\"} 1\nh_count 2\n",
            "a number is lost",
        ),
        (plain, "# TYPE s summary\ns_sum 1\n", "the count is not in the body"),
        (plain, "m{a=\"x\"} 1\nm{b=\"x\"} 1\n", "the order depends on the names"),
        (plain, "m{zone=\"x\"} 1\nm{instance=\"x\",zone=\"x\"} 1\n", "the instance is the body's"),
        (&[("job", "a"), ("zone", "x")], "m{kind=\"x\"} 1\n", "the labels of the group are in two pieces"),
        (plain, "push_time_seconds 1\nm 1\n", "a family is ignored"),
        (plain, "m 1 1000\n", "a timestamp"),
        (plain, "m\t1\n", "no space before the number"),
        (plain, "m 1", "no end of line"),
        (plain, "# TYPE m gauge\n", "no number"),
        (plain, "", "nothing"),
    ] {
        assert!(compiled(&key(labels), body).is_none(), "{reason}: {body:?}");
    }
}

/// Such numbers mean more than a number, or are read in another way.
#[test]
fn some_numbers_are_parsed() {
    let key = key(&[("job", "a")]);
    let shape = compiled(&key, BODY).expect("has a shape");
    for (from, to) in [
        (" 1\n", " -0\n"),
        (" 1\n", " NaN\n"),
        (" 1\n", " +Inf\n"),
        (" 1\n", " 1 \n"),
        (" 1\n", " 1 1000\n"),
        (" 1\n", " 123456789012345678901\n"),
        (" 3\n", " -3\n"),
        (" 6\n", " -0\n"),
        (" 8\n", " -8\n"),
        (" 9\n", " 9.5\n"),
        (" 9\n", " 9007199254740994\n"),
        (" 10\n", " 10"),
        (" 10\n", " 10\n\n"),
    ] {
        assert_eq!(by_shape(&shape, &key, BODY.replacen(from, to, 1).as_bytes()), None, "{to:?}");
    }
}
