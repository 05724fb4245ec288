//! Renders families to the lines that every scrape sends.
//!
//! A push is rendered once, on the core that accepted it, with the labels of its grouping key. This module checks what can
//! be checked within one body; the shard checks it against other groups.

use std::collections::HashSet;

use bytes::Bytes;

use super::consistency::{Inconsistency, check_names};
use super::escape::{NameKind, SCHEMES, collision, escape};
use super::labels::{write_help, write_label, write_metric_name, write_plain_label, write_series_start};
use super::memory::{Memory, OutOfMemory, Unlimited};
use super::model::{Families, Family, Label, Metric, MetricType, Point, Span, Value};
use super::names::NameRules;
use super::number::write_float;
use super::protobuf::{FamilyHeader, write_header_fields, write_metric};

/// The label that every series has; it is empty if neither the body nor the grouping key has it.
const INSTANCE: &str = "instance";
/// What a label takes beside its name and value: `=`, two quotes, and a comma or a brace.
const LABEL_BYTES_MORE: usize = 4;
/// How many labels are collected, or bytes written, between two looks at the memory.
const MEASURE_LABELS: usize = 4 << 10;
const MEASURE_BYTES: usize = 64 << 10;
/// The memory for a metric of more lines is reserved before they are written.
const MANY_LINES: usize = 1 << 10;
/// What a line takes beside its name and labels: `_bucket`, the bound and the value.
const LINE_BYTES_MORE: usize = 48;
/// Longer labels are truncated in an error.
const SHOWN_BYTES_MAX: usize = 64 << 10;
/// What the checks of names and series after escaping take, for each name and for each label.
const ESCAPED_NAME_BYTES: usize = 256;
const ESCAPED_LABEL_BYTES: usize = 128;

/// The rendered lines of one body, in one buffer.
#[derive(Debug, Clone, Default)]
pub struct Rendered {
    /// Names and HELP texts.
    names: String,
    /// Lines and exact protobuf.
    buffer: Bytes,
    families: Vec<RenderedFamily>,
}

/// One family of a [`Rendered`] body. Its texts are ranges of the buffers.
#[derive(Debug, Clone)]
pub struct RenderedFamily {
    name: Span,
    help: Option<Span>,
    text: Span,
    exact: Option<Span>,
    /// The metric type.
    pub kind: MetricType,
}

impl Rendered {
    /// The families in body order. Names are unique.
    pub fn families(&self) -> &[RenderedFamily] {
        &self.families
    }

    /// A family's name.
    pub fn name(&self, family: &RenderedFamily) -> &str {
        &self.names[family.name.range()]
    }

    /// A family's unescaped HELP text.
    pub fn help(&self, family: &RenderedFamily) -> Option<&str> {
        family.help.map(|span| &self.names[span.range()])
    }

    /// A family's lines. Each ends with LF.
    pub fn text(&self, family: &RenderedFamily) -> &[u8] {
        &self.buffer[family.text.range()]
    }

    /// The exact protobuf of the family (not delimited), if its lines cannot reproduce the data: parts that text cannot
    /// represent, a negative zero, a histogram whose `+Inf` bucket was added. [`super::protobuf::decode_family`] parses it.
    /// For all other families, the lines with the type and HELP are enough.
    pub fn exact(&self, family: &RenderedFamily) -> Option<&[u8]> {
        family.exact.map(|span| &self.buffer[span.range()])
    }

    /// The bytes of all names, texts and lines.
    pub fn bytes(&self) -> usize {
        self.names.len() + self.buffer.len()
    }
}

/// Collects families whose lines are made elsewhere.
#[derive(Debug, Default)]
pub struct RenderedBuilder {
    names: String,
    out: Vec<u8>,
    families: Vec<RenderedFamily>,
}

impl RenderedBuilder {
    /// No families yet, with memory for this many bytes of lines.
    pub fn new(bytes: usize) -> Self {
        Self { out: Vec::with_capacity(bytes), ..Self::default() }
    }

    /// Adds a family with another name than those before. `write` appends its lines, as [`render`] would.
    pub fn add_family(
        &mut self,
        name: &str,
        help: Option<&str>,
        kind: MetricType,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let mut push_name = |name: &str| {
            let start = self.names.len();
            self.names.push_str(name);
            span(start, self.names.len())
        };
        let (name, help, start) = (push_name(name), help.map(push_name), self.out.len());
        write(&mut self.out);
        let text = span(start, self.out.len());
        self.families.push(RenderedFamily { name, help, text, exact: None, kind });
    }

    /// The families.
    pub fn finish(self) -> Rendered {
        Rendered { names: self.names, buffer: self.out.into(), families: self.families }
    }
}

/// Why a body cannot be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The metrics are inconsistent. The push is rejected, and its group gets a failure time.
    #[error(transparent)]
    Inconsistent(#[from] Inconsistency),
    /// The lines exceed the limit. The labels of the grouping key are repeated on each of them.
    #[error("the pushed series with their grouping labels are too large")]
    TooLarge,
    /// The lines do not fit into the memory.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

/// Renders the families of a body for one group.
///
/// `grouping` are the labels of the grouping key, sorted by name and with unique names. They replace labels of the body.
/// `instance=""` is added to a series without `instance`. `rules` are the rules by which all names were parsed. `bytes_max`
/// limits the result (to at most 4 GiB).
///
/// # Errors
/// The first inconsistency: a timestamp, a rejection by the parser, a reserved label name, an `le` or `quantile` that the
/// type generates itself, equal series, or a name that collides with a series of a histogram or summary. Or lines that
/// exceed `bytes_max`.
pub fn render(
    families: &Families<'_>,
    grouping: &[(String, String)],
    rules: NameRules,
    bytes_max: usize,
) -> Result<Rendered, RenderError> {
    render_within(families, grouping, rules, bytes_max, &mut Unlimited)
}

/// Renders the families of a body, and reserves what the lines need from `memory` while it renders.
///
/// # Errors
/// Those of [`render`], or the lines do not fit into the memory.
pub fn render_within(
    families: &Families<'_>,
    grouping: &[(String, String)],
    rules: NameRules,
    bytes_max: usize,
    memory: &mut dyn Memory,
) -> Result<Rendered, RenderError> {
    if families.has_timestamp {
        return Err(Inconsistency::Timestamp.into());
    }
    if let Some(rejection) = &families.rejection {
        return Err(Inconsistency::clone(rejection).into());
    }
    let may_quote = rules == NameRules::Utf8;
    let name_bytes = if may_quote { ESCAPED_NAME_BYTES } else { 2 * size_of::<(&str, MetricType)>() };
    memory.grow(families.families.len() * name_bytes)?;
    check_names(families, rules)?;
    let mut renderer = Renderer {
        families,
        grouping,
        grouping_bytes: labels_bytes(grouping.iter().map(|(name, value)| (name, value))),
        may_quote,
        memory,
        reserved_bytes: 0,
        next_labels: 0,
        next_bytes: 0,
        family_bytes: 0,
        bytes_max: bytes_max.min(u32::MAX as usize),
        names: String::with_capacity(families.families.len() * 64),
        out: Vec::with_capacity(estimate(families, grouping)),
        sorted: Vec::new(),
        metrics: Vec::new(),
        scratch: Vec::new(),
    };
    let mut rendered = Vec::with_capacity(families.families.len());
    for family in &families.families {
        rendered.push(renderer.family(family)?);
    }
    renderer.reserve(0)?;
    renderer.out.shrink_to_fit();
    Ok(Rendered { names: renderer.names, buffer: renderer.out.into(), families: rendered })
}

/// Estimates the rendered size in bytes, so that the buffer of a typical body grows at most once.
fn estimate(families: &Families<'_>, grouping: &[(String, String)]) -> usize {
    let grouping: usize = grouping.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    let lines = families.metrics.len() + families.points.len();
    (lines * (grouping + 64)).min(1 << 20)
}

/// The bytes of labels in a line, if nothing has to be escaped.
fn labels_bytes<N: AsRef<str>>(labels: impl Iterator<Item = (N, N)>) -> usize {
    labels.map(|(name, value)| name.as_ref().len() + value.as_ref().len() + LABEL_BYTES_MORE).sum()
}

/// The state of rendering one body. The scratch tables are reused between families.
struct Renderer<'f, 'a, 'm> {
    families: &'f Families<'a>,
    grouping: &'f [(String, String)],
    grouping_bytes: usize,
    /// Whether names may need quotes.
    may_quote: bool,
    bytes_max: usize,
    memory: &'m mut dyn Memory,
    /// What is reserved for all of the following.
    reserved_bytes: usize,
    /// The length of `sorted` from which on the memory is compared again, and that of `out`.
    next_labels: usize,
    next_bytes: usize,
    /// The least that the lines of the current family take.
    family_bytes: usize,
    names: String,
    out: Vec<u8>,
    /// The labels of the current family's metrics, merged with those of the group and sorted by name within each metric.
    sorted: Vec<(&'f str, &'f str)>,
    /// The current family's metrics with their ranges in `sorted`.
    metrics: Vec<(Span, &'f Metric)>,
    scratch: Vec<u8>,
}

impl<'f, 'a> Renderer<'f, 'a, '_> {
    fn family(&mut self, family: &'f Family<'a>) -> Result<RenderedFamily, RenderError> {
        self.sorted.clear();
        self.metrics.clear();
        self.family_bytes = 0;
        self.next_labels = MEASURE_LABELS;
        for metric in self.families.metrics_of(family) {
            self.collect(family, metric)?;
        }
        self.sort(family)?;
        if self.may_quote {
            self.check_escaped_series(family)?;
        }
        let name = self.push_name(&family.name);
        let help = family.help.as_ref().map(|help| self.push_name(help));
        let start = self.out.len();
        let mut text_is_exact = family.unit.is_none();
        for index in 0..self.metrics.len() {
            let (labels, metric) = self.metrics[index];
            if lines_of(metric) > MANY_LINES {
                let labels_bytes = labels_bytes(self.sorted[labels.range()].iter().copied());
                let line_bytes = family.name.len() + labels_bytes + LINE_BYTES_MORE;
                self.reserve(lines_of(metric).saturating_mul(line_bytes))?;
            }
            text_is_exact &= self.metric(&family.name, labels, metric);
            self.check_size()?;
        }
        let text = span(start, self.out.len());
        let exact = if text_is_exact { None } else { Some(self.exact(family)?) };
        Ok(RenderedFamily { name, help, text, exact, kind: family.kind })
    }

    /// Writes the current family as protobuf, in the order of its lines.
    fn exact(&mut self, family: &Family<'_>) -> Result<Span, RenderError> {
        let start = self.out.len();
        let (name, help, unit) = (&family.name, family.help.as_deref(), family.unit.as_deref());
        write_header_fields(&mut self.out, FamilyHeader { name, help, kind: family.kind, unit });
        for index in 0..self.metrics.len() {
            let (labels, metric) = self.metrics[index];
            let labels = self.sorted[labels.range()].iter().copied();
            write_metric(&mut self.out, &mut self.scratch, family.kind, labels, self.families, metric);
            self.check_size()?;
        }
        Ok(span(start, self.out.len()))
    }

    fn check_size(&mut self) -> Result<(), RenderError> {
        if self.names.len() + self.out.len() > self.bytes_max {
            return Err(RenderError::TooLarge);
        }
        if self.out.len() >= self.next_bytes {
            self.next_bytes = self.out.len() + MEASURE_BYTES;
            self.reserve(0)?;
        }
        Ok(())
    }

    /// Reserves memory for the tables and lines as they are, and bytes beyond them for a moment.
    fn reserve(&mut self, more_bytes: usize) -> Result<(), OutOfMemory> {
        let sorting_bytes = self.metrics.len() * size_of::<(Span, &Metric)>() / 2;
        let bytes = self.sorted.len() * size_of::<(&str, &str)>()
            + self.metrics.len() * size_of::<(Span, &Metric)>()
            + sorting_bytes
            + self.out.len()
            + self.names.len()
            + self.scratch.len()
            + more_bytes;
        self.memory.grow(bytes.saturating_sub(self.reserved_bytes))?;
        self.reserved_bytes = self.reserved_bytes.max(bytes);
        Ok(())
    }

    fn push_name(&mut self, name: &str) -> Span {
        let start = self.names.len();
        self.names.push_str(name);
        span(start, self.names.len())
    }

    /// Merges the labels of a metric with those of the group.
    fn collect(&mut self, family: &Family<'_>, metric: &'f Metric) -> Result<(), RenderError> {
        let generated = match family.kind {
            MetricType::Histogram | MetricType::GaugeHistogram => Some("le"),
            MetricType::Summary => Some("quantile"),
            MetricType::Counter | MetricType::Gauge | MetricType::Untyped => None,
        };
        let start = self.sorted.len();
        let own: &'f [Label<'a>] = self.families.labels_of(metric);
        let own_bytes = labels_bytes(own.iter().map(|Label { name, value }| (name, value)));
        // Before anything is sorted or written, because both take long if long labels are repeated on many lines. Own labels may be
        // replaced, so they count only where that makes no difference.
        let line_bytes = family.name.len() + self.grouping_bytes.max(own_bytes);
        self.family_bytes = self.family_bytes.saturating_add(line_bytes.saturating_mul(lines_of(metric)));
        if (self.names.len() + self.out.len()).saturating_add(self.family_bytes) > self.bytes_max {
            return Err(RenderError::TooLarge);
        }
        for Label { name, value } in own {
            if name.starts_with("__") {
                let metric = family.name.to_string();
                return Err(Inconsistency::ReservedLabel { metric, label: name.to_string() }.into());
            }
            if !self.grouping.iter().any(|(grouped, _)| grouped == name) {
                self.sorted.push((name, value));
            }
        }
        self.sorted.extend(self.grouping.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        if !self.sorted[start..].iter().any(|(name, _)| *name == INSTANCE) {
            self.sorted.push((INSTANCE, ""));
        }
        let labels = &mut self.sorted[start..];
        labels.sort_unstable();
        if let Some(label) = generated.filter(|generated| labels.iter().any(|(name, _)| name == generated)) {
            return Err(Inconsistency::ExplicitLabel { metric: family.name.to_string(), label }.into());
        }
        if let Some(pair) = labels.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            let (metric, label) = (family.name.to_string(), pair[0].0.to_owned());
            return Err(Inconsistency::DuplicateLabel { metric, label }.into());
        }
        if self.may_quote
            && let Some((label, other)) = collision(&self.sorted[start..].iter().map(|(name, _)| *name))
        {
            let (label, other) = (label.to_owned(), other.to_owned());
            return Err(Inconsistency::EscapedLabels { metric: family.name.to_string(), label, other }.into());
        }
        self.metrics.push((span(start, self.sorted.len()), metric));
        if self.sorted.len() >= self.next_labels {
            self.next_labels = self.sorted.len() + MEASURE_LABELS;
            self.reserve(0)?;
        }
        Ok(())
    }

    /// Sorts the metrics in the official order (number of labels, then values) and rejects equal ones.
    fn sort(&mut self, family: &Family<'_>) -> Result<(), Inconsistency> {
        if self.metrics.len() < 2 {
            return Ok(());
        }
        let sorted = &self.sorted;
        let key = |labels: Span| {
            let labels = &sorted[labels.range()];
            // Names come last: they only matter for series with equal values.
            (labels.len(), labels.iter().map(|l| l.1), labels.iter().map(|l| l.0))
        };
        let compare = |a: Span, b: Span| {
            let ((a_len, a_values, a_names), (b_len, b_values, b_names)) = (key(a), key(b));
            a_len.cmp(&b_len).then_with(|| a_values.cmp(b_values)).then_with(|| a_names.cmp(b_names))
        };
        self.metrics.sort_by(|a, b| compare(a.0, b.0));
        match self.metrics.windows(2).find(|pair| compare(pair[0].0, pair[1].0).is_eq()) {
            None => Ok(()),
            Some(pair) => {
                let mut series = Vec::new();
                write_labels(&mut series, &sorted[pair[0].0.range()]);
                series.truncate(SHOWN_BYTES_MAX);
                let labels = String::from_utf8_lossy(&series).into_owned();
                Err(Inconsistency::DuplicateSeries { metric: family.name.to_string(), labels })
            }
        }
    }

    /// Rejects series that are equal for scrapers without UTF-8 support.
    fn check_escaped_series(&mut self, family: &Family<'_>) -> Result<(), RenderError> {
        if self.sorted.iter().all(|(name, _)| NameKind::Label.is_plain(name)) {
            return Ok(());
        }
        self.reserve(self.sorted.len() * ESCAPED_LABEL_BYTES + self.metrics.len() * ESCAPED_NAME_BYTES)?;
        let labels = |labels: &Span| self.sorted[labels.range()].iter();
        for scheme in SCHEMES {
            let mut series = HashSet::with_capacity(self.metrics.len());
            for (span, _) in &self.metrics {
                let mut escaped: Vec<_> = labels(span)
                    .map(|(name, value)| (escape(name, scheme, NameKind::Label), *value))
                    .collect();
                escaped.sort_unstable();
                if !series.insert(escaped) {
                    return Err(Inconsistency::EscapedSeries { metric: family.name.to_string() }.into());
                }
            }
        }
        Ok(())
    }

    /// Writes the lines of one metric. Returns whether they represent it exactly.
    fn metric(&mut self, name: &str, labels: Span, metric: &Metric) -> bool {
        let out = &mut self.out;
        let labels = &self.sorted[labels.range()];
        let line = if self.may_quote { quoting_line } else { line };
        let mut is_exact = metric.exact.is_empty();
        match &metric.value {
            Value::Single(value) => {
                line(out, name, "", labels, None, *value);
                is_exact &= !is_negative_zero(*value);
            }
            Value::Summary { count, sum, quantiles } => {
                for point in self.families.points_of(*quantiles) {
                    line(out, name, "", labels, Some(("quantile", point.at)), point.value);
                    is_exact &= is_exact_in_text(*point);
                }
                line(out, name, "_sum", labels, None, *sum);
                line(out, name, "_count", labels, None, *count as f64);
                is_exact &= !is_negative_zero(*sum) && *count <= EXACT_INTEGER_MAX;
            }
            Value::Histogram { count, sum, buckets } => {
                let mut has_inf = false;
                for point in self.families.points_of(*buckets) {
                    has_inf |= point.at == f64::INFINITY;
                    line(out, name, "_bucket", labels, Some(("le", point.at)), point.value);
                    is_exact &= is_exact_in_text(*point);
                }
                if !has_inf {
                    line(out, name, "_bucket", labels, Some(("le", f64::INFINITY)), *count);
                }
                line(out, name, "_sum", labels, None, *sum);
                line(out, name, "_count", labels, None, *count);
                is_exact &= has_inf && !is_negative_zero(*sum);
            }
        }
        is_exact
    }
}

/// The number of lines of a metric; of a histogram without the `+Inf` bucket, at least.
fn lines_of(metric: &Metric) -> usize {
    match &metric.value {
        Value::Single(_) => 1,
        Value::Summary { quantiles: points, .. } | Value::Histogram { buckets: points, .. } => {
            points.len() + 2
        }
    }
}

/// Up to this number, a float represents every integer.
const EXACT_INTEGER_MAX: u64 = 1 << 53;

/// Whether the value is negative zero, which text shows as zero.
fn is_negative_zero(value: f64) -> bool {
    value.to_bits() == (-0.0_f64).to_bits()
}

/// Whether text represents the bucket or quantile exactly. One at `NaN` is written but not parsed.
fn is_exact_in_text(point: Point) -> bool {
    !point.at.is_nan() && !is_negative_zero(point.at) && !is_negative_zero(point.value)
}

fn line(
    out: &mut Vec<u8>,
    name: &str,
    suffix: &str,
    labels: &[(&str, &str)],
    generated: Option<(&str, f64)>,
    value: f64,
) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(suffix.as_bytes());
    out.push(b'{');
    write_labels(out, labels);
    end_line(out, generated, value);
}

/// Appends the rest of a line after the sample's labels: the generated label and the value.
fn end_line(out: &mut Vec<u8>, generated: Option<(&str, f64)>, value: f64) {
    if let Some((name, at)) = generated {
        out.push(b',');
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"=\"");
        write_float(out, at);
        out.push(b'"');
    }
    out.extend_from_slice(b"} ");
    write_float(out, value);
    out.push(b'\n');
}

/// Like [`line`], for names that may need quotes.
fn quoting_line(
    out: &mut Vec<u8>,
    name: &str,
    suffix: &str,
    labels: &[(&str, &str)],
    generated: Option<(&str, f64)>,
    value: f64,
) {
    write_series_start(out, name, suffix);
    for (index, (name, value)) in labels.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_label(out, name, value);
    }
    end_line(out, generated, value);
}

/// Appends labels in the given order, separated by commas.
fn write_labels(out: &mut Vec<u8>, labels: &[(&str, &str)]) {
    for (index, (name, value)) in labels.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_plain_label(out, name, value);
    }
}

/// Appends the HELP line, if there is a text, and the TYPE line of a family.
pub fn write_header(out: &mut Vec<u8>, name: &str, kind: MetricType, help: Option<&str>) {
    if let Some(help) = help {
        out.extend_from_slice(b"# HELP ");
        write_metric_name(out, name);
        out.push(b' ');
        write_help(out, help);
        out.push(b'\n');
    }
    out.extend_from_slice(b"# TYPE ");
    write_metric_name(out, name);
    out.push(b' ');
    out.extend_from_slice(kind.text_name().as_bytes());
    out.push(b'\n');
}

/// A span of positions that are limited by `bytes_max` or by the size of a table.
fn span(start: usize, end: usize) -> Span {
    let narrow = |at| u32::try_from(at).expect("limited by bytes_max or by the body's length");
    Span { start: narrow(start), end: narrow(end) }
}
