//! Families → the lines by which every scrape will show them.
//!
//! A push is rendered once, on the core that accepted it, with the labels of its grouping key put on. What can be
//! checked within one body is checked here; what other groups hold is the shard's business.

use std::fmt;

use bytes::Bytes;

use super::escape::{NameKind, SCHEMES, collision, escape};
use super::labels::{write_label, write_metric_name, write_plain_label, write_series_start};
use super::model::{Families, Family, Label, Metric, MetricType, Point, Span, Value};
use super::names::NameRules;
use super::number::write_float;
use super::protobuf::{Head, write_head, write_metric};

/// The label that every series has, empty where nobody gave it.
const INSTANCE: &str = "instance";
/// `a="",`: so many labels cannot be fewer bytes.
const MIN_LABEL_BYTES: usize = 5;

/// The lines of one body, all in one buffer.
#[derive(Debug, Clone, Default)]
pub struct Rendered {
    /// Names and help texts.
    words: String,
    /// Lines and protobuf.
    buffer: Bytes,
    families: Vec<RenderedFamily>,
}

/// One family of a [`Rendered`] body; its texts are ranges of the buffers.
#[derive(Debug, Clone)]
pub struct RenderedFamily {
    name: Span,
    help: Option<Span>,
    text: Span,
    exact: Option<Span>,
    /// The type, the same for all its lines.
    pub kind: MetricType,
}

impl Rendered {
    /// The families, names unique, in body order.
    pub fn families(&self) -> &[RenderedFamily] {
        &self.families
    }

    /// A family's name.
    pub fn name(&self, family: &RenderedFamily) -> &str {
        &self.words[family.name.range()]
    }

    /// A family's unescaped HELP text.
    pub fn help(&self, family: &RenderedFamily) -> Option<&str> {
        family.help.map(|span| &self.words[span.range()])
    }

    /// A family's lines, each ended by LF.
    pub fn text(&self, family: &RenderedFamily) -> &[u8] {
        &self.buffer[family.text.range()]
    }

    /// The family as a protobuf message (not delimited), where its lines would not give back the same data: parts that
    /// text cannot show, a negative zero, a histogram whose `+Inf` bucket was made. Read it with
    /// [`super::protobuf::decode_family`]; with type and HELP known, the lines suffice for all others.
    pub fn exact(&self, family: &RenderedFamily) -> Option<&[u8]> {
        family.exact.map(|span| &self.buffer[span.range()])
    }

    /// Keeps only the families for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(&str) -> bool) {
        let words = &self.words;
        self.families.retain(|family| keep(&words[family.name.range()]));
    }

    /// Bytes of it all.
    pub fn len(&self) -> usize {
        self.words.len() + self.buffer.len()
    }

    /// Whether there is nothing at all.
    pub fn is_empty(&self) -> bool {
        self.families.is_empty()
    }
}

/// Why a body contradicts itself or the rules of the exposition. The text is for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inconsistency {
    /// The push is refused, and the group gets a failure time.
    Refused(String),
    /// The lines would be longer than allowed: labels of the URL are repeated on each of them.
    TooLarge,
}

impl fmt::Display for Inconsistency {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(reason) => out.write_str(reason),
            Self::TooLarge => out.write_str("the pushed series with their grouping labels are too large"),
        }
    }
}

/// Renders the families of a body for one group.
///
/// `grouping` are the labels of the URL, sorted by name, names unique: they overwrite those of the body. `instance=""`
/// is added where a series has no `instance`. `rules` are those by which all names were let in. `bytes_max` bounds the result
/// (at most 4 GiB).
///
/// # Errors
/// The first contradiction found: what the parser found to be refused, timestamps, reserved label names, `le` or `quantile` where the type makes its own,
/// equal series, names that collide with the parts of a histogram or summary.
pub fn render(
    families: &Families<'_>,
    grouping: &[(String, String)],
    rules: NameRules,
    bytes_max: usize,
) -> Result<Rendered, Inconsistency> {
    if let Some(reason) = &families.refusal {
        return Err(Inconsistency::Refused(reason.to_string()));
    }
    check_suffixes(families)?;
    if rules == NameRules::Utf8 {
        check_escaped_names(families)?;
    }
    let mut lines = Lines {
        families,
        grouping,
        may_quote: rules == NameRules::Utf8,
        bytes_max: bytes_max.min(u32::MAX as usize),
        words: String::with_capacity(families.families.len() * 64),
        out: Vec::with_capacity(estimate(families, grouping)),
        sorted: Vec::new(),
        metrics: Vec::new(),
        scratch: Vec::new(),
    };
    let mut rendered = Vec::with_capacity(families.families.len());
    for family in &families.families {
        rendered.push(lines.family(family)?);
    }
    lines.out.shrink_to_fit();
    Ok(Rendered { words: lines.words, buffer: lines.out.into(), families: rendered })
}

/// A guess at the rendered size, so that typical bodies grow their buffer once at most.
fn estimate(families: &Families<'_>, grouping: &[(String, String)]) -> usize {
    let grouping: usize = grouping.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    let lines = families.metrics.len() + families.points.len();
    (lines * (grouping + 64)).min(1 << 20)
}

/// Refuses a body in which a name is also a part of one of its histograms or summaries.
fn check_suffixes(families: &Families<'_>) -> Result<(), Inconsistency> {
    use MetricType::{GaugeHistogram, Histogram, Summary};
    if !families.families.iter().any(|f| matches!(f.kind, Histogram | GaugeHistogram | Summary)) {
        return Ok(());
    }
    let kinds: std::collections::HashMap<&str, MetricType, foldhash::fast::RandomState> =
        families.families.iter().map(|family| (&*family.name, family.kind)).collect();
    for family in &families.families {
        if let Some((base, kind)) = super::names::split_part(&family.name).and_then(|(base, part)| {
            Some((base, *kinds.get(base)?)).filter(|(_, kind)| part.is_made_by(*kind))
        }) {
            return Err(Inconsistency::Refused(suffix_collision(&family.name, base, kind)));
        }
    }
    Ok(())
}

/// Refuses a body with names that some scrapers would see as one, or as a part of another.
fn check_escaped_names(families: &Families<'_>) -> Result<(), Inconsistency> {
    if families.families.iter().all(|family| NameKind::Metric.is_plain(&family.name)) {
        return Ok(());
    }
    for scheme in SCHEMES {
        let mut shown = std::collections::HashMap::with_capacity(families.families.len());
        for family in &families.families {
            if let Some(other) = shown.insert(escape(&family.name, scheme, NameKind::Metric), family) {
                return Err(Inconsistency::Refused(escaped_collision(&family.name, &other.name)));
            }
        }
        for (name, family) in &shown {
            let Some((base, part)) = super::names::split_part(name) else { continue };
            if let Some(other) = shown.get(base).filter(|other| part.is_made_by(other.kind)) {
                return Err(Inconsistency::Refused(suffix_collision(&family.name, &other.name, other.kind)));
            }
        }
    }
    Ok(())
}

/// The words for two names that become one where they are escaped.
pub fn escaped_collision(name: &str, other: &str) -> String {
    format!("the names {name:?} and {other:?} are one for scrapers that do not know UTF-8 names")
}

/// The words for a name that is also a part of a histogram or summary.
pub fn suffix_collision(name: &str, base: &str, kind: MetricType) -> String {
    format!(
        "collected metric named {name:?} collides with previously collected {} named {base:?}",
        kind.text_name()
    )
}

/// The state of one rendering. Scratch tables are kept between families.
struct Lines<'f, 'a> {
    families: &'f Families<'a>,
    grouping: &'f [(String, String)],
    /// Whether names may need quotes.
    may_quote: bool,
    bytes_max: usize,
    words: String,
    out: Vec<u8>,
    /// The merged labels of the metrics of one family, sorted by name within each metric.
    sorted: Vec<(&'f str, &'f str)>,
    /// The metrics of one family with their range in `sorted`.
    metrics: Vec<(Span, &'f Metric)>,
    scratch: Vec<u8>,
}

impl<'f, 'a> Lines<'f, 'a> {
    fn family(&mut self, family: &'f Family<'a>) -> Result<RenderedFamily, Inconsistency> {
        self.sorted.clear();
        self.metrics.clear();
        for metric in self.families.metrics_of(family) {
            self.collect(family, metric)?;
        }
        self.sort(family)?;
        if self.may_quote {
            self.check_escaped_series(family)?;
        }
        let name = self.word(&family.name);
        let help = family.help.as_ref().map(|help| self.word(help));
        let start = self.out.len();
        let mut text_says_all = family.unit.is_none();
        for index in 0..self.metrics.len() {
            let (labels, metric) = self.metrics[index];
            text_says_all &= self.metric(&family.name, labels, metric);
            self.check_size()?;
        }
        let text = span(start, self.out.len());
        let exact = if text_says_all { None } else { Some(self.exact(family)?) };
        Ok(RenderedFamily { name, help, text, exact, kind: family.kind })
    }

    /// Writes the family that was collected last as protobuf, in the order of its lines.
    fn exact(&mut self, family: &Family<'_>) -> Result<Span, Inconsistency> {
        let start = self.out.len();
        let (name, help, unit) = (&family.name, family.help.as_deref(), family.unit.as_deref());
        write_head(&mut self.out, Head { name, help, kind: family.kind, unit });
        for index in 0..self.metrics.len() {
            let (labels, metric) = self.metrics[index];
            let labels = self.sorted[labels.range()].iter().copied();
            write_metric(&mut self.out, &mut self.scratch, family.kind, labels, self.families, metric);
            self.check_size()?;
        }
        Ok(span(start, self.out.len()))
    }

    fn check_size(&self) -> Result<(), Inconsistency> {
        if self.words.len() + self.out.len() > self.bytes_max { Err(Inconsistency::TooLarge) } else { Ok(()) }
    }

    fn word(&mut self, word: &str) -> Span {
        let start = self.words.len();
        self.words.push_str(word);
        span(start, self.words.len())
    }

    /// Merges the labels of a metric with those of the group.
    fn collect(&mut self, family: &Family<'_>, metric: &'f Metric) -> Result<(), Inconsistency> {
        if metric.timestamp.is_some() {
            return Err(Inconsistency::Refused("pushed metrics must not have timestamps".into()));
        }
        if self.sorted.len() > self.bytes_max / MIN_LABEL_BYTES {
            return Err(Inconsistency::TooLarge);
        }
        let made = match family.kind {
            MetricType::Histogram | MetricType::GaugeHistogram => "le",
            MetricType::Summary => "quantile",
            MetricType::Counter | MetricType::Gauge | MetricType::Untyped => "",
        };
        let start = self.sorted.len();
        let own: &'f [Label<'a>] = self.families.labels_of(metric);
        for Label { name, value } in own {
            if name.starts_with("__") {
                return Err(Inconsistency::Refused(format!(
                    "metric {:?}: label name {name:?} is reserved for internal use",
                    family.name
                )));
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
        if !made.is_empty() && labels.iter().any(|(name, _)| *name == made) {
            return Err(Inconsistency::Refused(format!(
                "collected metric {:?} must not have an explicit {made:?} label",
                family.name
            )));
        }
        if let Some(pair) = labels.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(Inconsistency::Refused(format!(
                "collected metric {:?} has two or more labels with the same name: {}",
                family.name, pair[0].0
            )));
        }
        if self.may_quote
            && let Some((name, other)) = collision(&self.sorted[start..].iter().map(|(name, _)| *name))
        {
            return Err(Inconsistency::Refused(format!(
                "collected metric {:?} has labels that cannot be told apart: {}",
                family.name,
                escaped_collision(name, other)
            )));
        }
        self.metrics.push((span(start, self.sorted.len()), metric));
        Ok(())
    }

    /// Brings the metrics into the official order (number of labels, then values) and refuses equal ones.
    fn sort(&mut self, family: &Family<'_>) -> Result<(), Inconsistency> {
        if self.metrics.len() < 2 {
            return Ok(());
        }
        let sorted = &self.sorted;
        let key = |labels: Span| {
            let labels = &sorted[labels.range()];
            // Names come last: they only tell apart series of equal values.
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
                Err(Inconsistency::Refused(format!(
                    "collected metric {:?} {{ {} }} was collected before with the same name and label values",
                    family.name,
                    String::from_utf8_lossy(&series)
                )))
            }
        }
    }

    /// Refuses series that some scrapers would see as one.
    fn check_escaped_series(&self, family: &Family<'_>) -> Result<(), Inconsistency> {
        let labels = |labels: &Span| self.sorted[labels.range()].iter();
        if self.metrics.iter().all(|(span, _)| labels(span).all(|(name, _)| NameKind::Label.is_plain(name))) {
            return Ok(());
        }
        for scheme in SCHEMES {
            let mut series = std::collections::HashSet::with_capacity(self.metrics.len());
            for (span, _) in &self.metrics {
                let mut shown: Vec<_> = labels(span)
                    .map(|(name, value)| (escape(name, scheme, NameKind::Label), *value))
                    .collect();
                shown.sort_unstable();
                if !series.insert(shown) {
                    return Err(Inconsistency::Refused(format!(
                        "collected metric {:?} has series that are one for scrapers that do not know UTF-8 names",
                        family.name
                    )));
                }
            }
        }
        Ok(())
    }

    /// Writes the lines of one metric. Gives whether they say all there is to it.
    fn metric(&mut self, name: &str, labels: Span, metric: &Metric) -> bool {
        let out = &mut self.out;
        let labels = &self.sorted[labels.range()];
        let line = if self.may_quote { quoting_line } else { line };
        let mut says_all = metric.beyond_text.is_empty();
        match &metric.value {
            Value::Single(value) => {
                line(out, name, "", labels, None, *value);
                says_all &= !is_negative_zero(*value);
            }
            Value::Summary { count, sum, quantiles } => {
                for point in self.families.points_of(*quantiles) {
                    line(out, name, "", labels, Some(("quantile", point.at)), point.value);
                    says_all &= is_kept_by_text(*point);
                }
                line(out, name, "_sum", labels, None, *sum);
                line(out, name, "_count", labels, None, *count as f64);
                says_all &= !is_negative_zero(*sum) && *count <= WHOLE_FLOAT_MAX;
            }
            Value::Histogram { count, sum, buckets } => {
                let mut has_inf = false;
                for point in self.families.points_of(*buckets) {
                    has_inf |= point.at == f64::INFINITY;
                    line(out, name, "_bucket", labels, Some(("le", point.at)), point.value);
                    says_all &= is_kept_by_text(*point);
                }
                if !has_inf {
                    line(out, name, "_bucket", labels, Some(("le", f64::INFINITY)), *count);
                }
                line(out, name, "_sum", labels, None, *sum);
                line(out, name, "_count", labels, None, *count);
                says_all &= has_inf && !is_negative_zero(*sum);
            }
        }
        says_all
    }
}

/// Up to here every whole number is a float.
const WHOLE_FLOAT_MAX: u64 = 1 << 53;

/// Text shows it as zero.
fn is_negative_zero(value: f64) -> bool {
    value.to_bits() == (-0.0_f64).to_bits()
}

/// Whether text gives back the bucket or quantile. One at `NaN` is shown, but not read.
fn is_kept_by_text(point: Point) -> bool {
    !point.at.is_nan() && !is_negative_zero(point.at) && !is_negative_zero(point.value)
}

fn line(
    out: &mut Vec<u8>,
    name: &str,
    suffix: &str,
    labels: &[(&str, &str)],
    made: Option<(&str, f64)>,
    value: f64,
) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(suffix.as_bytes());
    out.push(b'{');
    write_labels(out, labels);
    end_line(out, made, value);
}

/// Appends what stands behind a sample's own labels.
fn end_line(out: &mut Vec<u8>, made: Option<(&str, f64)>, value: f64) {
    if let Some((name, at)) = made {
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

/// As [`line`], where names may need quotes.
fn quoting_line(
    out: &mut Vec<u8>,
    name: &str,
    suffix: &str,
    labels: &[(&str, &str)],
    made: Option<(&str, f64)>,
    value: f64,
) {
    write_series_start(out, name, suffix);
    for (index, (name, value)) in labels.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_label(out, name, value);
    }
    end_line(out, made, value);
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

/// Appends the two lines that stand before a family's samples. HELP only where there is one.
pub fn write_header(out: &mut Vec<u8>, name: &str, kind: MetricType, help: Option<&str>) {
    if let Some(help) = help {
        out.extend_from_slice(b"# HELP ");
        write_metric_name(out, name);
        out.push(b' ');
        super::labels::write_help(out, help);
        out.push(b'\n');
    }
    out.extend_from_slice(b"# TYPE ");
    write_metric_name(out, name);
    out.push(b' ');
    out.extend_from_slice(kind.text_name().as_bytes());
    out.push(b'\n');
}

/// A span from positions that were checked against `bytes_max` or the size of a table.
fn span(start: usize, end: usize) -> Span {
    let narrow = |at| u32::try_from(at).expect("bounded by bytes_max and by the body's length");
    Span { start: narrow(start), end: narrow(end) }
}
