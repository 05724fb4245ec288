//! Making a shape of a body.
//!
//! There is no second parser: the parser and the renderer get the body with a *marker* for each number and for each label value of the
//! group, and the markers show what comes out where.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::super::key::GroupingKey;
use super::skeleton::{Gap, Skeleton};
use super::{Line, Shape, ShapeFamily};
use crate::exposition::labels::write_series_start;
use crate::exposition::memory::Unlimited;
use crate::exposition::model::{Families, Family, MetricType};
use crate::exposition::names::{NameRules, Part};
use crate::exposition::render::{Rendered, RenderedFamily, render_within};
use crate::exposition::text::parse_within;

/// The first marker. Up to 900,000 of them are written with all their digits.
const FIRST_MARKER: usize = 100_000;
const MARKERS_MAX: usize = 100_000;
/// A push with more families is decided in slices.
const FAMILIES_MAX: usize = 256;

impl Shape {
    /// The shape of a body for groups with the label names of this key. `None` if the values of the group may change more than the labels
    /// of the group in each line, or the numbers more than the numbers.
    pub(super) fn compile(mut skeleton: Skeleton, key: &GroupingKey, rules: NameRules) -> Option<Self> {
        if skeleton.len() > MARKERS_MAX {
            return None;
        }
        let body = skeleton.filled(|index| (FIRST_MARKER + index).to_string());
        let grouping = marked_labels(key, &body);
        let mut families = parse_within(&body, rules, &mut Unlimited).ok()?;
        families.remove_push_times();
        if families.families.len() > FAMILIES_MAX
            || !families.families.iter().all(|family| has_one_set_of_names(&families, family, &grouping))
        {
            return None;
        }
        let rendered = render_within(&families, &grouping, rules, usize::MAX, &mut Unlimited).ok()?;
        let labels = GroupingKey::new(grouping).series_labels();
        let mut lines = Lines { seen: vec![false; skeleton.len()], ..Lines::default() };
        let mut shape_families = Vec::with_capacity(rendered.families().len());
        for family in rendered.families() {
            lines.add_family(&rendered, family, &labels, &mut skeleton)?;
            shape_families.push(ShapeFamily {
                name: rendered.name(family).into(),
                help: rendered.help(family).map(Box::from),
                kind: family.kind,
                lines_end: lines.lines.len() as u32,
            });
        }
        let names =
            |family: &ShapeFamily| family.name.len() + family.help.as_ref().map_or(0, |help| help.len());
        let names_bytes = shape_families.iter().map(names).sum();
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        // A number that came out nowhere would be lost.
        lines.seen.iter().all(|seen| *seen).then(|| Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            names: key.names().into(),
            skeleton,
            families: shape_families.into(),
            lines: lines.lines.into(),
            text: lines.text.into(),
            family_bytes_max: lines.family_bytes_max,
            family_lines_max: lines.family_lines_max,
            names_bytes,
            last_used: AtomicU64::new(0),
            is_evicted: AtomicBool::new(false),
        })
    }
}

/// The labels of a group with the same names, whose values do not occur in the body.
fn marked_labels(key: &GroupingKey, body: &[u8]) -> Vec<(String, String)> {
    let mut number = 0_u32;
    let marker = loop {
        let marker = format!("group-{number}");
        if memchr::memmem::find(body, marker.as_bytes()).is_none() {
            break marker;
        }
        number += 1;
    };
    key.labels().into_iter().map(|(name, _)| (name, marker.clone())).collect()
}

/// Whether all metrics of a family have the same label names. Otherwise their order depends on the values of the group.
fn has_one_set_of_names(families: &Families<'_>, family: &Family<'_>, grouping: &[(String, String)]) -> bool {
    let is_grouped = |name: &str| grouping.iter().any(|(grouped, _)| grouped == name);
    let mut sets = families.metrics_of(family).iter().map(|metric| -> BTreeSet<&str> {
        families.labels_of(metric).iter().map(|label| &*label.name).filter(|name| !is_grouped(name)).collect()
    });
    let Some(first) = sets.next() else { return true };
    sets.all(|set| set == first)
}

/// The lines of a shape so far.
#[derive(Default)]
struct Lines {
    lines: Vec<Line>,
    text: Vec<u8>,
    /// Which numbers came out.
    seen: Vec<bool>,
    family_bytes_max: usize,
    family_lines_max: usize,
}

impl Lines {
    fn add_family(
        &mut self,
        rendered: &Rendered,
        family: &RenderedFamily,
        labels: &str,
        skeleton: &mut Skeleton,
    ) -> Option<()> {
        if rendered.exact(family).is_some() {
            return None;
        }
        let mut count = Vec::new();
        write_series_start(&mut count, rendered.name(family), Part::Count.suffix());
        let (lines_before, text_before) = (self.lines.len(), self.text.len());
        for line in rendered.text(family).split_inclusive(|byte| *byte == b'\n') {
            let at = memchr::memrchr(b' ', line)? + 1;
            let (head, number) = (&line[..at], line[at..].strip_suffix(b"\n")?);
            let number: usize = str::from_utf8(number).ok()?.parse().ok()?;
            let number = number.checked_sub(FIRST_MARKER)?;
            // Not twice.
            if std::mem::replace(self.seen.get_mut(number)?, true) {
                return None;
            }
            let mut found = memchr::memmem::find_iter(head, labels.as_bytes());
            let labels_at = found.next().filter(|_| found.next().is_none())?;
            let gap = match family.kind {
                MetricType::Counter | MetricType::Gauge | MetricType::Untyped => Gap::Any,
                MetricType::Summary if head.starts_with(&count) => Gap::Whole,
                _ => Gap::NotNegative,
            };
            skeleton.set_gap(number, gap);
            self.text.extend_from_slice(&head[..labels_at]);
            let text_before_labels = self.text.len() as u32;
            self.text.extend_from_slice(&head[labels_at + labels.len()..]);
            let end = self.text.len() as u32;
            self.lines.push(Line { labels_at: text_before_labels, end, number: number as u32 });
        }
        self.family_bytes_max = self.family_bytes_max.max(self.text.len() - text_before);
        self.family_lines_max = self.family_lines_max.max(self.lines.len() - lines_before);
        Some(())
    }
}
