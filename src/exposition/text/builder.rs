//! Assembles samples into families, and the series of a histogram or summary into one metric.

use std::borrow::Cow;
use std::hash::BuildHasher;
use std::mem::take;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::runs::Runs;
use crate::exposition::model::{Families, Family, Label, Metric, MetricType, Point, Span, Value};
use crate::exposition::names::{self, METRIC, NameRules, Part};

/// What a name refers to: a family and one kind of its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Role {
    pub(super) family: u32,
    series: Series,
}

/// The series of a family to which a sample belongs. Only a label marks buckets and quantiles, because the official parser
/// also accepts a histogram's bare name for its buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Series {
    Bare,
    Sum,
    Count,
}

/// The tables while they grow, with indexes into them.
pub(super) struct FamiliesBuilder<'a> {
    families: Vec<Family<'a>>,
    states: Vec<FamilyState>,
    metrics: Vec<Metric>,
    labels: Vec<Label<'a>>,
    points: Vec<Point>,
    /// Families by name.
    by_name: HashTable<u32>,
    /// Histograms and summaries of families that have more than one, by family and labels.
    by_labels: HashTable<IndexedMetric>,
    /// The current sample's labels by name, once there are many.
    sample_labels: HashTable<u32>,
    metric_runs: Runs,
    point_runs: Runs,
    /// The family that was named most recently.
    current: Option<u32>,
    /// Whether any family may have the name of a part of another one.
    has_part_names: bool,
    has_timestamp: bool,
    hasher: RandomState,
}

/// A histogram or summary with its family, and the hash of its family and labels.
#[derive(Clone, Copy)]
struct IndexedMetric {
    hash: u64,
    family: u32,
    metric: u32,
}

/// The count of a histogram that is negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NegativeCount {
    Count,
    Bucket,
}

impl NegativeCount {
    /// The official wording.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Bucket => "bucket population",
        }
    }
}

/// What the builder knows about a family beyond its [`Family`].
#[derive(Clone, Copy)]
struct FamilyState {
    has_type: bool,
    /// Whether the name needs no quotes.
    is_plain: bool,
    /// Whether one of its parts has the name of another family, to which the name then refers.
    has_shadowed_part: bool,
    /// The histogram or summary that received the last sample.
    last_metric: Option<u32>,
    /// Whether `by_labels` contains this family's metrics.
    is_indexed: bool,
}

/// The body size up to which tables are allocated in advance. Bodies are rarely larger; tables of larger bodies grow.
const PRESIZED_BODY_BYTES: usize = 64 << 10;
/// Up to this number, comparing label names one by one is cheaper than hashing them.
const FEW_LABELS: usize = 16;

impl<'a> FamiliesBuilder<'a> {
    pub(super) fn for_body(bytes: usize) -> Self {
        let bytes = bytes.min(PRESIZED_BODY_BYTES);
        Self {
            families: Vec::with_capacity(bytes / 96 + 1),
            states: Vec::with_capacity(bytes / 96 + 1),
            metrics: Vec::with_capacity(bytes / 64 + 1),
            labels: Vec::with_capacity(bytes / 64 + 1),
            points: Vec::new(),
            by_name: HashTable::with_capacity(bytes / 96 + 1),
            by_labels: HashTable::new(),
            sample_labels: HashTable::new(),
            metric_runs: Runs::default(),
            point_runs: Runs::default(),
            current: None,
            has_part_names: false,
            has_timestamp: false,
            hasher: RandomState::default(),
        }
    }

    // --- size

    /// The memory of the tables. Vectors count with what they contain, because the system does not provide the unused end of a large
    /// one; hash tables spread over all of theirs.
    pub(super) fn bytes(&self) -> usize {
        self.families.len() * (size_of::<Family<'_>>() + size_of::<FamilyState>())
            + self.metrics.len() * size_of::<Metric>()
            + self.labels.len() * size_of::<Label<'_>>()
            + self.points.len() * size_of::<Point>()
            + self.by_name.capacity() * 2 * size_of::<u32>()
            + self.by_labels.capacity() * 2 * size_of::<IndexedMetric>()
            + self.metric_runs.bytes()
            + self.point_runs.bytes()
    }

    /// The memory that [`Self::finish`] needs for a moment.
    pub(super) fn finish_bytes(&self) -> usize {
        let metrics = self.metric_runs.gathering_bytes(self.metrics.len() * size_of::<Metric>());
        metrics.max(self.point_runs.gathering_bytes(self.points.len() * size_of::<Point>()))
    }

    // --- families

    /// The role and the length of the name at the start of the text, if it is the name of the current family or of one of
    /// its parts.
    #[inline]
    pub(super) fn match_current(&self, text: &[u8]) -> Option<(Role, usize)> {
        let family = self.current?;
        let state = &self.states[family as usize];
        let name = self.families[family as usize].name.as_bytes();
        if !state.is_plain || !text.starts_with(name) {
            return None;
        }
        let ends_at =
            |at: usize| text.get(at).is_some_and(|&byte| byte != b'"' && !names::continues(byte, METRIC));
        if ends_at(name.len()) {
            return Some((Role { family, series: Series::Bare }, name.len()));
        }
        let parts = parts_of(self.families[family as usize].kind);
        if parts.is_empty() || state.has_shadowed_part {
            return None;
        }
        let part = *parts.iter().find(|part| text[name.len()..].starts_with(part.suffix().as_bytes()))?;
        let length = name.len() + part.suffix().len();
        ends_at(length).then_some((Role { family, series: Series::of(part) }, length))
    }

    /// Finds what a name refers to, and creates a family if it refers to none. `is_plain` means that the body has the name
    /// without quotes.
    pub(super) fn resolve(&mut self, name: Cow<'a, str>, is_plain: bool) -> Role {
        let hash = self.hasher.hash_one(&*name);
        let role = match self.find_family(hash, &name) {
            Some(family) => Role { family, series: Series::Bare },
            None => {
                let part = names::split_part(&name);
                self.has_part_names |= part.is_some();
                part.and_then(|(base, part)| self.find_whole(base, part)).unwrap_or_else(|| {
                    let is_plain = is_plain || NameRules::Legacy.allow_metric_name(&name);
                    self.create(hash, name, is_plain)
                })
            }
        };
        self.current = Some(role.family);
        role
    }

    fn find_family(&self, hash: u64, name: &str) -> Option<u32> {
        self.by_name.find(hash, |&family| self.families[family as usize].name == name).copied()
    }

    /// Finds the histogram or summary with this name, if its type has the part.
    fn find_whole(&self, base: &str, part: Part) -> Option<Role> {
        let family = self.find_family(self.hasher.hash_one(base), base)?;
        let is_part = parts_of(self.families[family as usize].kind).contains(&part);
        is_part.then_some(Role { family, series: Series::of(part) })
    }

    fn create(&mut self, hash: u64, name: Cow<'a, str>, is_plain: bool) -> Role {
        let family = self.families.len() as u32;
        let rehash = |&family: &u32| self.hasher.hash_one(&*self.families[family as usize].name);
        self.by_name.insert_unique(hash, family, rehash);
        self.states.push(FamilyState {
            has_type: false,
            is_plain,
            has_shadowed_part: false,
            last_metric: None,
            is_indexed: false,
        });
        self.families.push(Family {
            name,
            help: None,
            unit: None,
            kind: MetricType::Untyped,
            metrics: Span::default(),
        });
        Role { family, series: Series::Bare }
    }

    pub(super) fn name(&self, family: u32) -> &str {
        &self.families[family as usize].name
    }

    pub(super) fn has_help(&self, family: u32) -> bool {
        self.families[family as usize].help.is_some()
    }

    pub(super) fn set_help(&mut self, family: u32, help: Cow<'a, str>) {
        self.families[family as usize].help = Some(help);
    }

    /// Whether a TYPE line or a sample has determined the type.
    pub(super) fn has_type(&self, family: u32) -> bool {
        self.states[family as usize].has_type
    }

    pub(super) fn set_type(&mut self, family: u32, kind: MetricType) {
        self.families[family as usize].kind = kind;
        self.states[family as usize].has_type = true;
        // From now on the names of parts refer to this family, so no new family can get such a name.
        if self.has_part_names {
            let name = &self.families[family as usize].name;
            let shadowed = parts_of(kind).iter().any(|part| {
                let name = format!("{name}{}", part.suffix());
                self.find_family(self.hasher.hash_one(&*name), &name).is_some()
            });
            self.states[family as usize].has_shadowed_part = shadowed;
        }
    }

    /// A sample fixes the type. Without an earlier TYPE line it is untyped.
    #[inline]
    pub(super) fn fix_type(&mut self, family: u32) {
        self.states[family as usize].has_type = true;
    }

    /// The label that distinguishes buckets or quantiles. It is not a label of the metric.
    #[inline]
    pub(super) fn special_label(&self, family: u32) -> Option<&'static str> {
        match self.families[family as usize].kind {
            MetricType::Summary => Some("quantile"),
            MetricType::Histogram | MetricType::GaugeHistogram => Some("le"),
            MetricType::Counter | MetricType::Gauge | MetricType::Untyped => None,
        }
    }

    // --- labels of the current sample: the last ones in the table

    /// Starts a sample and returns the index at which its labels begin.
    #[inline]
    pub(super) fn begin_sample(&mut self) -> usize {
        if !self.sample_labels.is_empty() {
            // Clearing would take time in proportion to the sample with the most labels so far.
            self.sample_labels = HashTable::new();
        }
        self.labels.len()
    }

    /// Whether the sample already has a label with this name.
    #[inline]
    pub(super) fn has_label(&mut self, start: usize, name: &str) -> bool {
        if self.labels.len() - start < FEW_LABELS {
            return self.labels[start..].iter().any(|label| label.name == name);
        }
        self.has_label_of_many(start, name)
    }

    fn has_label_of_many(&mut self, start: usize, name: &str) -> bool {
        if self.sample_labels.is_empty() {
            (start..self.labels.len()).for_each(|index| self.index_label(index));
        }
        let hash = self.hasher.hash_one(name);
        self.sample_labels.find(hash, |&index| self.labels[index as usize].name == name).is_some()
    }

    fn index_label(&mut self, index: usize) {
        let rehash = |&index: &u32| self.hasher.hash_one(&*self.labels[index as usize].name);
        self.sample_labels.insert_unique(rehash(&(index as u32)), index as u32, rehash);
    }

    #[inline]
    pub(super) fn push_label(&mut self, label: Label<'a>) {
        self.labels.push(label);
        if !self.sample_labels.is_empty() {
            self.index_label(self.labels.len() - 1);
        }
    }

    /// Removes a label and returns its value.
    pub(super) fn take_label(&mut self, start: usize, name: &str) -> Option<Cow<'a, str>> {
        let place = self.labels[start..].iter().position(|label| label.name == name)?;
        self.sample_labels = HashTable::new();
        Some(self.labels.remove(start + place).value)
    }

    // --- samples

    /// Adds a sample whose labels begin at `labels_start` and returns the index of its metric. `rank` is its `le` or
    /// `quantile`, or NaN.
    ///
    /// # Errors
    /// A histogram's count or bucket is negative.
    #[inline]
    pub(super) fn add(
        &mut self,
        role: Role,
        labels_start: usize,
        rank: f64,
        value: f64,
    ) -> Result<u32, NegativeCount> {
        let kind = self.families[role.family as usize].kind;
        match kind {
            MetricType::Counter | MetricType::Gauge | MetricType::Untyped => {
                Ok(self.push_metric(role.family, labels_start, Value::Single(value)))
            }
            MetricType::Summary | MetricType::Histogram | MetricType::GaugeHistogram => {
                let metric = self.find_or_create(role.family, labels_start);
                self.add_to_metric(metric, role.series, rank, value)?;
                Ok(metric)
            }
        }
    }

    pub(super) fn set_timestamp(&mut self, metric: u32, timestamp: i64) {
        self.metrics[metric as usize].timestamp = Some(timestamp);
        self.has_timestamp = true;
    }

    #[inline]
    fn push_metric(&mut self, family: u32, labels_start: usize, value: Value) -> u32 {
        let index = self.metrics.len();
        let labels = Span { start: labels_start as u32, end: self.labels.len() as u32 };
        self.metric_runs.record(family, index, &mut self.families[family as usize].metrics);
        self.metrics.push(Metric { labels, value, timestamp: None, exact: Span::default() });
        index as u32
    }

    fn add_to_metric(
        &mut self,
        metric: u32,
        series: Series,
        rank: f64,
        new: f64,
    ) -> Result<(), NegativeCount> {
        let span = match (&mut self.metrics[metric as usize].value, series) {
            (Value::Summary { count, .. }, Series::Count) => {
                *count = new as u64;
                return Ok(());
            }
            (Value::Histogram { count, .. }, Series::Count) => {
                *count = not_negative(new).ok_or(NegativeCount::Count)?;
                return Ok(());
            }
            (Value::Summary { sum, .. } | Value::Histogram { sum, .. }, Series::Sum) => {
                *sum = new;
                return Ok(());
            }
            // A sample with the bare name only shows that the histogram or summary exists.
            (_, Series::Bare) if rank.is_nan() => return Ok(()),
            (Value::Summary { quantiles, .. }, Series::Bare) => quantiles,
            (Value::Histogram { buckets, .. }, Series::Bare) => {
                let value = not_negative(new).ok_or(NegativeCount::Bucket)?;
                self.point_runs.record(metric, self.points.len(), buckets);
                self.points.push(Point { at: rank, value });
                return Ok(());
            }
            (Value::Single(_), _) => {
                unreachable!("families of histograms or summaries contain no single values")
            }
        };
        self.point_runs.record(metric, self.points.len(), span);
        self.points.push(Point { at: rank, value: new });
        Ok(())
    }

    /// Finds the metric with the labels of the sample, and then drops these labels; or creates the metric.
    fn find_or_create(&mut self, family: u32, labels_start: usize) -> u32 {
        let FamilyState { last_metric, is_indexed, .. } = self.states[family as usize];
        let Some(last) = last_metric else {
            return self.create_assembled(family, labels_start);
        };
        if self.has_labels(last, labels_start) {
            self.labels.truncate(labels_start);
            return last;
        }
        if !is_indexed {
            self.index_metric(family, last);
        }
        let hash = hash_labels(&self.hasher, family, &self.labels[labels_start..]);
        let found = self.by_labels.find(hash, |found| {
            found.hash == hash && found.family == family && self.has_same_labels(found.metric, labels_start)
        });
        match found {
            Some(&IndexedMetric { metric, .. }) => {
                self.labels.truncate(labels_start);
                self.states[family as usize].last_metric = Some(metric);
                metric
            }
            None => {
                let metric = self.create_assembled(family, labels_start);
                self.index_metric(family, metric);
                metric
            }
        }
    }

    fn create_assembled(&mut self, family: u32, labels_start: usize) -> u32 {
        let none = Span::default();
        let value = match self.families[family as usize].kind {
            MetricType::Summary => Value::Summary { count: 0, sum: 0.0, quantiles: none },
            _ => Value::Histogram { count: 0.0, sum: 0.0, buckets: none },
        };
        let metric = self.push_metric(family, labels_start, value);
        self.states[family as usize].last_metric = Some(metric);
        metric
    }

    /// Adds a metric to `by_labels`. The only metric of a family is not added.
    fn index_metric(&mut self, family: u32, metric: u32) {
        let labels = &self.labels[self.metrics[metric as usize].labels.range()];
        let hash = hash_labels(&self.hasher, family, labels);
        self.by_labels.insert_unique(hash, IndexedMetric { hash, family, metric }, |entry| entry.hash);
        self.states[family as usize].is_indexed = true;
    }

    /// Whether the metric and the sample have equal labels in the same order.
    #[inline]
    fn has_labels(&self, metric: u32, labels_start: usize) -> bool {
        self.labels[self.metrics[metric as usize].labels.range()] == self.labels[labels_start..]
    }

    /// Whether the metric and the sample have equal labels in any order.
    fn has_same_labels(&self, metric: u32, labels_start: usize) -> bool {
        let left = &self.labels[self.metrics[metric as usize].labels.range()];
        let right = &self.labels[labels_start..];
        if left.len() != right.len() {
            return false;
        }
        if left.len() <= FEW_LABELS {
            // Names are unique on both sides, so inclusion in one direction is enough.
            return left.iter().all(|label| right.contains(label));
        }
        sorted_by_name(left).eq(sorted_by_name(right))
    }
}

impl<'a> FamiliesBuilder<'a> {
    /// Returns the tables, with the entries of each owner contiguous, and leaves the builder empty.
    pub(super) fn finish(&mut self) -> Families<'a> {
        let mut families = take(&mut self.families);
        let mut metrics = take(&mut self.metrics);
        let mut points = take(&mut self.points);
        self.point_runs.make_contiguous(&mut points, |metric, span| {
            match &mut metrics[metric as usize].value {
                Value::Summary { quantiles: points, .. } | Value::Histogram { buckets: points, .. } => {
                    *points = span;
                }
                Value::Single(_) => {}
            }
        });
        self.metric_runs
            .make_contiguous(&mut metrics, |family, span| families[family as usize].metrics = span);
        families.retain(|family| !family.metrics.is_empty());
        let (labels, has_timestamp) = (take(&mut self.labels), self.has_timestamp);
        Families { families, metrics, labels, points, has_timestamp, ..Families::default() }
    }
}

impl Series {
    fn of(part: Part) -> Self {
        match part {
            Part::Bucket => Self::Bare,
            Part::Sum => Self::Sum,
            Part::Count => Self::Count,
        }
    }
}

/// A hash that does not depend on the order of the labels.
fn hash_labels(hasher: &RandomState, family: u32, labels: &[Label<'_>]) -> u64 {
    let sum = labels
        .iter()
        .map(|label| hasher.hash_one((&*label.name, &*label.value)))
        .fold(0_u64, u64::wrapping_add);
    hasher.hash_one((family, sum))
}

fn sorted_by_name<'l, 'a>(labels: &'l [Label<'a>]) -> impl Iterator<Item = &'l Label<'a>> {
    let mut sorted: Vec<_> = labels.iter().collect();
    sorted.sort_unstable_by(|left, right| left.name.cmp(&right.name));
    sorted.into_iter()
}

/// The parts that a family of this type has.
fn parts_of(kind: MetricType) -> &'static [Part] {
    match kind {
        MetricType::Histogram | MetricType::GaugeHistogram => &Part::ALL,
        MetricType::Summary => &[Part::Sum, Part::Count],
        MetricType::Counter | MetricType::Gauge | MetricType::Untyped => &[],
    }
}

/// A histogram's count. As in the official parser, NaN is accepted; a zero loses its sign.
fn not_negative(count: f64) -> Option<f64> {
    if count < 0.0 { None } else { Some(count + 0.0) }
}
