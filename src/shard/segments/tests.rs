//! Segments compared with a reference implementation: a map from group to lines.

use super::super::group_set::GroupSet;
use super::segment::PIECES_MAX;
use super::*;
use crate::encoding::encode::{Coding, Form, Piece};
use crate::encoding::gzip::Deflated;
use crate::exposition::Format;
use crate::exposition::escape::Escaping;
use crate::exposition::model::MetricType;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn lines(seed: u8, len: usize) -> Vec<u8> {
    let mut text: Vec<u8> =
        (0..len).map(|at| if at % 100 == 99 { b'\n' } else { b'a' + seed % 26 }).collect();
    text.push(b'\n');
    text
}

fn whole(text: &FamilyText) -> Vec<u8> {
    text.segments().map(|segment| segment.text()).collect::<Vec<_>>().concat()
}

type Model = BTreeMap<u32, (Vec<u8>, Option<Vec<u8>>)>;

fn check(text: &FamilyText, model: &Model) {
    let all = whole(text);
    assert!(all == model.values().map(|(lines, _)| lines.as_slice()).collect::<Vec<_>>().concat());
    for (group, (lines, exact)) in model {
        assert_eq!(&text.run(*group).collect::<Vec<_>>().concat(), lines);
        assert_eq!(text.exact(*group).as_deref(), exact.as_deref());
    }
    assert_eq!(text.len(), all.len());
    for entry in &text.entries {
        let segment = &entry.segment;
        assert!(!segment.text.is_empty(), "an empty segment remains");
        assert_eq!(segment.runs.is_empty(), entry.exclusive);
        if let Some(last) = segment.runs.len().checked_sub(1) {
            assert_eq!(segment.runs.range(last).end, segment.text.len());
            assert_eq!(segment.runs.group(0), entry.first);
            assert!(segment.exact.iter().all(|(group, _)| segment.runs.find(*group).is_ok()));
            assert!(segment.runs.len() == 1 || segment.text.len() <= SEGMENT_BYTES_MAX);
        }
    }
}

/// A very large group has a segment for each of its families. A kilobyte of memory for a line was most of what such groups took.
#[test]
fn a_short_segment_takes_little_memory() {
    for len in [1, 60, 200, 900] {
        let mut text = FamilyText::default();
        text.replace(7, NewLines::Run(&lines(0, len)));
        let segment = &text.entries[0].segment;
        assert!(segment.text.capacity() < segment.text.len() + 64, "{len}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn replacing_lines_is_like_changing_a_map(steps in prop::collection::vec((0u32..60, 0u8..26, 0usize..5), 1..200)) {
        let sizes = [0, 300, 5_000, 30_000, 150_000];
        let (mut text, mut model) = (FamilyText::default(), Model::new());
        let mut held = Vec::new();
        for (group, seed, size) in steps {
            let new = if sizes[size] == 0 { Vec::new() } else { lines(seed, sizes[size]) };
            let before = whole(&text);
            held.push((text.clone(), before));
            if held.len() > 5 {
                held.remove(0);
            }
            let exact = (seed % 3 == 0 && !new.is_empty()).then(|| vec![seed; 3]);
            let new_lines = match &exact {
                _ if new.len() > RUN_BYTES_MAX => {
                    NewLines::Segments(own_segments("m", MetricType::Gauge, &new, exact.as_deref()))
                }
                Some(exact) => NewLines::Exact(&new, exact),
                None => NewLines::Run(&new),
            };
            text.replace(group, new_lines);
            if new.is_empty() { model.remove(&group); } else { model.insert(group, (new, exact)); }
            check(&text, &model);
        }
        // The snapshots of scrapes did not change.
        for (text, before) in held {
            prop_assert!(whole(&text) == before);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn gathering_runs_is_like_filling_a_map(runs in prop::collection::vec((0u32..5, 0u8..26, 0usize..5), 1..80)) {
        let sizes = [0, 300, 5_000, 30_000, 150_000];
        let (mut text, mut model, mut group) = (FamilyText::default(), Model::new(), 0);
        let mut gathered = GatheredRuns::default();
        for (step, seed, size) in runs {
            // A step of 0 reuses the number.
            group += step;
            let new = if sizes[size] == 0 { Vec::new() } else { lines(seed, sizes[size]) };
            let exact = (seed % 3 == 0 && !new.is_empty()).then(|| vec![seed; 3]);
            if !gathered.push(&text, group, &new, exact.as_deref()) {
                if !gathered.is_empty() {
                    text.append(&mut gathered);
                }
                let new = match &exact {
                    _ if new.len() > RUN_BYTES_MAX => {
                        NewLines::Segments(own_segments("m", MetricType::Gauge, &new, exact.as_deref()))
                    }
                    Some(exact) => NewLines::Exact(&new, exact),
                    None => NewLines::Run(&new),
                };
                text.replace(group, new);
            }
            if new.is_empty() { model.remove(&group); } else { model.insert(group, (new, exact)); }
            let mut whole = text.clone();
            if !gathered.is_empty() {
                whole.append(&mut gathered.clone());
            }
            check(&whole, &model);
        }
    }
}

#[test]
fn groups_with_rising_numbers_fill_their_segments() {
    let mut text = FamilyText::default();
    for group in 0..1_000 {
        text.replace(group, NewLines::Run(&lines(1, 79)));
    }
    assert!(text.segments().count() <= 1_000 * 80 / (SEGMENT_BYTES_FILLED - 100) + 1);
}

#[test]
fn a_long_run_is_cut_where_a_metric_ends() {
    let metric = |n: usize| {
        format!("h_bucket{{n=\"{n}\",le=\"+Inf\"}} 1\nh_sum{{n=\"{n}\"}} 1\nh_count{{n=\"{n}\"}} 1\n")
    };
    let text: String = (0..3_000).map(metric).collect();
    let segments = own_segments("h", MetricType::Histogram, text.as_bytes(), None);
    assert!(segments.len() > 3);
    for segment in &segments {
        let last = segment.text().split_inclusive(|byte| *byte == b'\n').next_back();
        assert!(last.is_some_and(|line| line.starts_with(b"h_count{")));
    }
    assert_eq!(segments.iter().map(|segment| segment.text()).collect::<Vec<_>>().concat(), text.as_bytes());
}

#[test]
fn the_number_of_cached_forms_is_limited() {
    let segment = Segment::default();
    let forms = Escaping::ALL
        .into_iter()
        .flat_map(|escaping| Coding::ALL.map(|coding| Form { format: Format::Protobuf, escaping, coding }));
    for form in forms.clone() {
        segment.cache_piece(form, Piece::Plain(Default::default()));
    }
    let kept: Vec<bool> = forms.map(|form| segment.piece(form).is_some()).collect();
    let (old, new) = kept.split_at(kept.len() - PIECES_MAX);
    assert!(!old.contains(&true) && !new.contains(&false));
}

#[test]
fn a_change_clears_the_cache_but_not_that_of_a_snapshot() {
    let mut text = FamilyText::default();
    text.replace(1, NewLines::Run(b"a 1\n"));
    let held = text.clone();
    let form = Form { format: Format::Protobuf, escaping: Escaping::AllowUtf8, coding: Coding::Gzip };
    for segment in held.segments() {
        segment.cache_piece(form, Piece::Gzip(Deflated::default()));
    }
    let ids = |text: &FamilyText| text.segments().map(|segment| segment.id()).collect::<Vec<_>>();
    let held_ids = ids(&held);
    let is_cached = |segment: &Arc<Segment>| segment.piece(form).is_some();
    assert!(text.segments().all(is_cached), "the cache is shared with the snapshot");
    assert_eq!(ids(&text), held_ids);
    text.replace(1, NewLines::Run(b"a 2\n"));
    assert!(!text.segments().any(is_cached));
    assert_ne!(ids(&text), held_ids);
    assert!(held.segments().all(is_cached));
    assert_eq!(ids(&held), held_ids);
    // Also without a snapshot, when the segment is changed in place.
    drop(held);
    text.segments().for_each(|segment| segment.cache_piece(form, Piece::Gzip(Deflated::default())));
    let last_ids = ids(&text);
    text.replace(1, NewLines::Run(b"a 3\n"));
    assert!(!text.segments().any(is_cached));
    assert_ne!(ids(&text), last_ids);
}

fn lines_of(text: &FamilyText) -> usize {
    measure(&whole(text)).1
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn rewriting_segments_is_like_replacing_lines(
        first in prop::collection::vec((0u32..200, 0usize..3), 1..200),
        batches in prop::collection::vec(prop::collection::btree_map(0u32..200, (any::<bool>(), 0u8..26, 0usize..3), 1..100), 1..4),
        long in prop::option::of(0u32..200),
        is_held in any::<bool>(),
    ) {
        let sizes = [20, 200, 3_000];
        let (mut text, mut model) = (FamilyText::default(), Model::new());
        for (group, size) in first {
            let new = lines(0, sizes[size]);
            text.replace(group, NewLines::Run(&new));
            model.insert(group, (new, None));
        }
        if let Some(long) = long {
            let new = lines(1, 150_000);
            text.replace(long, NewLines::Segments(own_segments("m", MetricType::Gauge, &new, None)));
            model.insert(long, (new, None));
        }
        let mut rewriting = Rewriting::default();
        for batch in batches {
            let held = is_held.then(|| (text.clone(), whole(&text)));
            // Groups without short lines are left as they are.
            let groups: BTreeMap<u32, Option<Vec<u8>>> =
                batch.into_iter().map(|(group, (is_new, seed, size))| (group, is_new.then(|| lines(seed, sizes[size])))).collect();
            let mut set = GroupSet::default();
            groups.keys().for_each(|group| assert!(set.insert(*group)));
            let (before, lines_before) = (text.len(), lines_of(&text));
            let (mut next, mut bytes, mut lines) = (0, 0, 0);
            let mut write = |group: u32, out: &mut Vec<u8>| {
                let new = groups[&group].as_deref();
                out.extend_from_slice(new.unwrap_or(b"dropped"));
                new.is_some()
            };
            while let Some(rewritten) = rewriting.rewrite(&mut text, &set, next, true, &mut write) {
                prop_assert!(rewritten.next > next);
                next = rewritten.next;
                bytes += rewritten.new_bytes as isize - rewritten.old_bytes as isize;
                lines += rewritten.new_lines as isize - rewritten.old_lines as isize;
            }
            prop_assert_eq!(text.len() as isize, before as isize + bytes);
            prop_assert_eq!(lines_of(&text) as isize, lines_before as isize + lines);
            for (group, new) in groups {
                if let (Some(new), Some((known, _)), false) = (new, model.get_mut(&group), long == Some(group)) {
                    *known = new;
                }
            }
            check(&text, &model);
            if let Some((text, before)) = held {
                prop_assert!(whole(&text) == before);
            }
        }
    }
}

#[test]
fn a_segment_that_is_rewritten_as_it_was_keeps_its_cached_forms() {
    let mut text = FamilyText::default();
    text.replace(1, NewLines::Run(b"m 1\n"));
    text.replace(2, NewLines::Run(b"m 2\n"));
    let first = |text: &FamilyText| text.segments().next().expect("has lines").clone();
    let rewrite = |text: &mut FamilyText, new: &'static [u8]| {
        let write = |_: u32, out: &mut Vec<u8>| {
            out.extend_from_slice(new);
            true
        };
        let mut groups = GroupSet::default();
        groups.insert(2);
        let rewritten = Rewriting::default().rewrite(text, &groups, 0, false, write);
        assert_eq!(rewritten.map(|rewritten| rewritten.groups), Some(1));
    };
    first(&text).is_quoted();
    rewrite(&mut text, b"m 2\n");
    assert_eq!(first(&text).known_quoted(), Some(false));
    rewrite(&mut text, b"m 3\n");
    assert_eq!(first(&text).known_quoted(), None);
}
