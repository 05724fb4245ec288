//! The documents that are made in slices, against those that are made as a whole.

use proptest::prelude::*;
use prost::Message;

use super::*;
use crate::exposition::model::MetricType;
use crate::exposition::names::NameRules;
use crate::exposition::protobuf::message::{BucketSpan, Histogram, Metric, MetricFamily};
use crate::exposition::render::render;
use crate::exposition::{protobuf, text};
use crate::handlers::{api_metrics, status_page};
use crate::runtime::budget::Budget;
use crate::runtime::spawn;
use crate::runtime::threads::block_on_epoll;
use crate::shard::key::GroupingKey;
use crate::shard::registry::Registry;
use crate::shard::view::GroupTimes;
use crate::shard::{FAILURE_TIME, FamilyLines, GroupHead, GroupView, PUSH_TIME, Persistence, Shard};

/// How the shard cuts slices.
#[derive(Debug, Clone, Copy)]
struct Slices {
    groups_bytes: usize,
    listed: usize,
    families_bytes: usize,
}

fn shard() -> Shard {
    let own = [PUSH_TIME, FAILURE_TIME].map(|name| (name, MetricType::Gauge, ""));
    Shard::new(0, Arc::new(Registry::new(own)), Persistence::InMemory)
}

fn load(shard: &mut Shard, job: &str, families: &crate::exposition::model::Families<'_>) {
    let key = GroupingKey::new([("job".to_owned(), job.to_owned())]);
    let rendered = render(families, &key.labels(), NameRules::Utf8, usize::MAX).expect("consistent");
    let lines: Vec<_> = rendered
        .families()
        .iter()
        .map(|family| FamilyLines {
            name: rendered.name(family),
            kind: family.kind,
            help: Some("a \"help\" text\n"),
            push_seconds: 1_700_000_000.5,
            text: rendered.text(family),
            exact: rendered.exact(family),
        })
        .collect();
    let times = GroupTimes { push_seconds: 1_700_000_000.5, failure_seconds: 0.0, created_seconds: 1.0 };
    shard.load(&GroupHead::new(key, times), lines.into_iter()).expect("consistent");
}

/// A body of families with these names, types and numbers of metrics.
fn body(families: &[(String, usize, usize)]) -> String {
    let mut body = String::new();
    for (name, kind, metrics) in families {
        let kind = ["counter", "gauge", "untyped", "histogram", "summary"][*kind];
        body.push_str(&format!("# TYPE {name} {kind}\n"));
        for metric in 0..*metrics {
            let label = format!("number=\"{metric}<&\",padding=\"{}\"", "p".repeat(60));
            match kind {
                "histogram" => body.push_str(&format!(
                    "{name}_bucket{{{label},le=\"1\"}} 1\n{name}_bucket{{{label},le=\"+Inf\"}} 2\n{name}_sum{{{label}}} 3\n\
                     {name}_count{{{label}}} 2\n"
                )),
                "summary" => body.push_str(&format!(
                    "{name}{{{label},quantile=\"0.5\"}} 1\n{name}_sum{{{label}}} 3\n{name}_count{{{label}}} 2\n"
                )),
                _ => body.push_str(&format!("{name}{{{label}}} {metric}.5\n")),
            }
        }
    }
    body
}

/// A family of native histograms, which text cannot represent.
fn native_family(metrics: usize) -> Vec<u8> {
    let metric = |number: usize| Metric {
        label: vec![protobuf::message::LabelPair {
            name: Some("number".into()),
            value: Some(number.to_string().into()),
        }],
        histogram: Some(Histogram {
            sample_count: Some(3),
            sample_sum: Some(number as f64),
            schema: Some(2),
            zero_threshold: Some(0.001),
            zero_count: Some(1),
            positive_span: vec![BucketSpan { offset: Some(0), length: Some(2) }],
            positive_delta: vec![1, 0],
            ..Histogram::default()
        }),
        ..Metric::default()
    };
    let family = MetricFamily {
        name: Some("native".into()),
        help: None,
        kind: Some(4),
        metric: (0..metrics).map(metric).collect(),
        ..MetricFamily::default()
    };
    family.encode_length_delimited_to_vec()
}

/// All groups as they are now.
fn whole_views(shard: &Shard) -> Vec<GroupView> {
    let (mut views, mut from) = (Vec::new(), Some(0));
    while let Some(start) = from {
        let slice = shard.copy_groups(start, 1);
        views.extend(slice.groups);
        if let Some(large) = slice.large {
            let names = shard.families_of(&large, 0, usize::MAX);
            let families = shard.copy_families_of(&large, &names, usize::MAX);
            views.push(GroupView { families: families.into_iter().flatten().collect(), ..large.head });
        }
        from = slice.next;
    }
    views
}

/// What `write` makes of the groups of a shard. Before each command, `change` can change the shard.
fn produced<F>(
    shard: Shard,
    slices: Slices,
    mut change: impl FnMut(&mut Shard) + 'static,
    write: impl FnOnce(GroupReader, Writer) -> F,
) -> Vec<u8>
where
    F: Future<Output = Result<(), Aborted>> + 'static,
{
    let (mailboxes, mut inboxes) = Mailboxes::new(1, None);
    let mut inbox = inboxes.remove(0);
    let reader = GroupReader {
        mailboxes,
        workers: Workers::start(1).expect("a thread"),
        pins: Pins::new(&Budget::new(None), RESPONSE_BYTES).expect("no limit"),
        own_bytes: RESPONSE_BYTES,
        core: 0,
        next: Some(0),
    };
    let mut body = ResponseBody::produced(|output| write(reader, Writer { output, gathered: Vec::new() }));
    let mut shard = shard;
    block_on_epoll(async move {
        spawn(async move {
            use futures_util::StreamExt;
            while let Some(command) = inbox.next().await {
                change(&mut shard);
                let Slices { groups_bytes, listed, families_bytes } = slices;
                match command {
                    ShardCommand::CopyGroups(from, tx) => {
                        tx.send(shard.copy_groups(from, groups_bytes)).expect("the reader waits");
                    }
                    ShardCommand::ListFamilies(group, from, tx) => {
                        tx.send(shard.families_of(&group, from, listed)).expect("the reader waits");
                    }
                    ShardCommand::CopyFamilies(group, names, tx) => {
                        let views = shard.copy_families_of(&group, &names, families_bytes);
                        tx.send(views).expect("the reader waits");
                    }
                    other => panic!("unexpected {other:?}"),
                }
            }
        });
        let mut bytes = Vec::new();
        while let Some(piece) = http_body_util::BodyExt::frame(&mut body).await {
            let piece = piece.expect("not aborted").into_data().expect("data");
            bytes.extend_from_slice(&piece);
        }
        bytes
    })
}

fn names() -> impl Strategy<Value = Vec<(String, usize, usize)>> {
    let name = prop_oneof![
        6 => "[a-z]{1,3}_x",
        1 => Just("labels".to_owned()),
        1 => Just("last_push_successful".to_owned()),
        1 => Just("push_time_second".to_owned()),
    ];
    let metrics = prop_oneof![8 => 1..4_usize, 1 => 900..1_000_usize];
    prop::collection::btree_map(name, (0..5_usize, metrics), 0..6).prop_map(|families| {
        families.into_iter().map(|(name, (kind, metrics))| (name, kind, metrics)).collect()
    })
}

fn slices() -> impl Strategy<Value = Slices> {
    let bytes = || prop::sample::select(&[1, 500, 32 * 1024][..]);
    (bytes(), 1..4_usize, bytes()).prop_map(|(groups_bytes, listed, families_bytes)| Slices {
        groups_bytes,
        listed,
        families_bytes,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn documents_in_slices_are_those_made_as_a_whole(
        groups in prop::collection::vec(names(), 0..3),
        native in prop_oneof![Just(0_usize), 1..3_usize, Just(400)],
        slices in slices(),
    ) {
        let make = || {
            let mut shard = shard();
            for (number, families) in groups.iter().enumerate() {
                // Types must agree between groups.
                let families: Vec<_> = families
                    .iter()
                    .map(|(name, kind, metrics)| (format!("{name}{}", if number == 0 { "" } else { "_2" }), *kind, *metrics))
                    .collect();
                let body = body(&families);
                load(&mut shard, &format!("j{number}"), &text::parse(body.as_bytes(), NameRules::Utf8).expect("valid"));
            }
            if native > 0 {
                let body = native_family(native);
                load(&mut shard, "native", &protobuf::parse(&body, NameRules::Utf8).expect("valid"));
            }
            shard.end_loading();
            shard
        };
        let views = whole_views(&make());

        let json = produced(make(), slices, |_| {}, api_metrics::write_groups);
        let documents: Vec<_> = views.iter().map(|view| String::from_utf8_lossy(&api_metrics::group(view)).into_owned()).collect();
        let expected = format!("{{\"status\":\"success\",\"data\":[{}]}}", documents.join(","));
        prop_assert_eq!(String::from_utf8_lossy(&json), expected);

        let html = produced(make(), slices, |_| {}, |reader, writer| {
            status_page::write_page(reader, writer, "start".into(), "end".into())
        });
        let expected = format!("start{}end", views.iter().map(status_page::row).collect::<String>());
        prop_assert_eq!(String::from_utf8_lossy(&html), expected);
    }
}

#[test]
fn a_group_that_is_deleted_while_it_is_read_leaves_a_valid_document() {
    let families: Vec<_> = (0..20).map(|number| (format!("f{number}"), 0, 2)).collect();
    let text = body(&families);
    for deleted_before in 0..15 {
        let mut shard = shard();
        load(&mut shard, "a", &text::parse(text.as_bytes(), NameRules::Utf8).expect("valid"));
        shard.end_loading();
        let mut commands = 0;
        let change = move |shard: &mut Shard| {
            if commands == deleted_before {
                let key = GroupingKey::new([("job".to_owned(), "a".to_owned())]);
                let mut edit = Shard::delete(shard, &key);
                while let std::ops::ControlFlow::Continue(rest) = edit.advance(1 << 20) {
                    edit = rest;
                }
            }
            commands += 1;
        };
        let slices = Slices { groups_bytes: 1, listed: 7, families_bytes: 200 };
        let json = produced(shard, slices, change, api_metrics::write_groups);
        let document: serde_json::Value = serde_json::from_slice(&json).expect("valid JSON");
        let groups = document["data"].as_array().expect("a list").len();
        assert_eq!(groups, usize::from(deleted_before > 0));
    }
}
