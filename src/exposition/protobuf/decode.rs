//! Parses a body into families.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use prost::Message;

use super::encode::{as_integer, value_field, write_value};
use super::message::{self, Exemplar, Timestamp};
use super::native_histogram;
use super::wire::{Fields, WireError};
use crate::exposition::consistency::Inconsistency;
use crate::exposition::lengths::{LengthLimits, TooLong};
use crate::exposition::memory::{Memory, OutOfMemory, Unlimited};
use crate::exposition::model::{Families, Family, Label, Metric, MetricType, Point, Span, Value};
use crate::exposition::names::NameRules;

/// The largest metric, in bytes, that may need exact protobuf. Such metrics are decoded one by one, to many times their size.
const EXACT_METRIC_BYTES_MAX: usize = 1 << 20;
/// Up to this number, comparing label names one by one is cheaper than sorting them.
const FEW_LABELS: usize = 16;

/// Why a protobuf body was not parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// It is not valid.
    #[error("protobuf parsing error in message {message}: {reason}")]
    Invalid {
        /// The number of the message, starting at 1.
        message: usize,
        /// What is wrong.
        reason: MessageError,
    },
    /// Its metrics do not fit into the memory.
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
}

impl ProtobufError {
    fn new(message: usize, reason: MessageError) -> Self {
        match reason {
            MessageError::OutOfMemory(reason) => Self::OutOfMemory(reason),
            reason => Self::Invalid { message, reason },
        }
    }
}

/// Why a message cannot be parsed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say what is wrong")]
pub enum MessageError {
    #[error(transparent)]
    OutOfMemory(#[from] OutOfMemory),
    #[error("body of 4 GiB or more")]
    BodyTooLarge,
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("invalid metric name {0:?}")]
    MetricName(String),
    #[error("invalid label name {label:?} for metric {metric:?}")]
    LabelName { metric: String, label: String },
    #[error(transparent)]
    TooLong(#[from] TooLong),
    #[error(transparent)]
    Decode(#[from] prost::DecodeError),
}

/// Why a metric is not added to its family.
enum MetricError {
    /// The body cannot be parsed.
    Message(MessageError),
    /// The push must be rejected.
    Inconsistent(Box<Inconsistency>),
}

impl<E: Into<MessageError>> From<E> for MetricError {
    fn from(error: E) -> Self {
        Self::Message(error.into())
    }
}

impl From<Inconsistency> for MetricError {
    fn from(reason: Inconsistency) -> Self {
        Self::Inconsistent(Box::new(reason))
    }
}

/// Parses a body of delimited messages without limits on names and texts. Of two families with one name, the last one is used.
///
/// # Errors
/// The bytes are not such messages, or `rules` do not allow a name.
pub fn parse(body: &[u8], rules: NameRules) -> Result<Families<'_>, ProtobufError> {
    parse_with(body, rules, LengthLimits::NONE, &mut Unlimited)
}

/// Parses a body of delimited messages that a client sent, and reserves what its families need from `memory` while it parses. A
/// compact body needs many times its size.
///
/// # Errors
/// Those of [`parse`], a name or text beyond [`LengthLimits::PUSH`], or the families do not fit into the memory.
pub fn parse_within<'a>(
    body: &'a [u8],
    rules: NameRules,
    memory: &mut dyn Memory,
) -> Result<Families<'a>, ProtobufError> {
    parse_with(body, rules, LengthLimits::PUSH, memory)
}

fn parse_with<'a>(
    body: &'a [u8],
    rules: NameRules,
    lengths: LengthLimits,
    memory: &mut dyn Memory,
) -> Result<Families<'a>, ProtobufError> {
    // Spans are 32 bits wide, and no table has more entries than the body has bytes.
    if u32::try_from(body.len()).is_err() {
        return Err(ProtobufError::new(1, MessageError::BodyTooLarge));
    }
    let mut decoder = Decoder::new(rules, lengths, memory);
    let mut messages = Fields::new(body);
    let mut number = 0;
    while !messages.is_empty() {
        number += 1;
        let message = messages.delimited().map_err(MessageError::from);
        message
            .and_then(|message| decoder.family(message))
            .map_err(|reason| ProtobufError::new(number, reason))?;
    }
    decoder.reserve(0).map_err(|reason| ProtobufError::new(number, reason.into()))?;
    Ok(decoder.finish())
}

/// Parses one family that is not delimited. Any UTF-8 is allowed in names.
///
/// # Errors
/// The bytes are not such a message.
pub fn decode_family(message: &[u8]) -> Result<Families<'_>, ProtobufError> {
    let mut memory = Unlimited;
    let mut decoder = Decoder::new(NameRules::Utf8, LengthLimits::NONE, &mut memory);
    decoder.family(message).map_err(|reason| ProtobufError::new(1, reason))?;
    Ok(decoder.finish())
}

/// How many entries are added to the tables between two looks at their size.
const MEASURE_ENTRIES: usize = 1 << 10;
/// How much memory decoding a message of generated code takes, per byte of the message: two bytes can be a bucket.
const EXACT_MESSAGE_FACTOR: usize = 80;

/// The tables while they grow.
struct Decoder<'a, 'm> {
    rules: NameRules,
    lengths: LengthLimits,
    tables: Families<'a>,
    by_name: HashMap<Cow<'a, str>, usize, foldhash::fast::RandomState>,
    /// The first inconsistency of each family. A later family with the same name may replace it.
    rejections: Vec<Option<Box<Inconsistency>>>,
    memory: &'m mut dyn Memory,
    /// The memory of texts that do not borrow from the body.
    copied_bytes: usize,
    /// What is reserved for the tables.
    reserved_bytes: usize,
    /// The number of entries from which on their size is compared again.
    next_measure: usize,
}

impl<'a, 'm> Decoder<'a, 'm> {
    fn new(rules: NameRules, lengths: LengthLimits, memory: &'m mut dyn Memory) -> Self {
        Self {
            rules,
            lengths,
            tables: Families::default(),
            by_name: HashMap::default(),
            rejections: Vec::new(),
            memory,
            copied_bytes: 0,
            reserved_bytes: 0,
            next_measure: MEASURE_ENTRIES,
        }
    }

    #[inline]
    fn measure_now_and_then(&mut self) -> Result<(), OutOfMemory> {
        let Families { families, metrics, labels, points, .. } = &self.tables;
        let entries = families.len() + metrics.len() + labels.len() + points.len();
        if entries < self.next_measure {
            return Ok(());
        }
        self.next_measure = entries + MEASURE_ENTRIES;
        self.reserve(0)
    }

    /// Reserves memory for the tables as they are, and bytes beyond them for a moment.
    fn reserve(&mut self, more_bytes: usize) -> Result<(), OutOfMemory> {
        let Families { families, metrics, labels, points, exact, .. } = &self.tables;
        let bytes = families.len() * (size_of::<Family<'_>>() + size_of::<Option<Box<Inconsistency>>>())
            + self.by_name.capacity() * 2 * size_of::<(Cow<'_, str>, usize)>()
            + metrics.len() * size_of::<Metric>()
            + labels.len() * size_of::<Label<'_>>()
            + points.len() * size_of::<Point>()
            + exact.len()
            + self.copied_bytes
            + more_bytes;
        self.memory.grow(bytes.saturating_sub(self.reserved_bytes))?;
        self.reserved_bytes = self.reserved_bytes.max(bytes);
        Ok(())
    }

    fn finish(mut self) -> Families<'a> {
        self.tables.rejection = self.rejections.into_iter().flatten().next();
        self.tables
    }

    fn family(&mut self, message: &'a [u8]) -> Result<(), MessageError> {
        let Header { name, help, unit, kind } = Header::parse(message)?;
        self.lengths.check_name("metric name", name.len())?;
        self.lengths.check_text("HELP", help.as_deref().map_or(0, str::len))?;
        self.lengths.check_text("unit", unit.as_deref().map_or(0, str::len))?;
        let name = match str::from_utf8(name) {
            Ok(name) if self.rules.allow_metric_name(name) => Cow::Borrowed(name),
            _ => return Err(MessageError::MetricName(shown(name))),
        };
        if let Some(Cow::Owned(text)) = &help {
            self.copied_bytes += text.capacity();
        }
        if let Some(Cow::Owned(text)) = &unit {
            self.copied_bytes += text.capacity();
        }
        let start = self.tables.metrics.len();
        let mut rejection = None;
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next()? {
            if field.number != 4 {
                continue;
            }
            let before = TableLengths::of(&self.tables);
            match self.metric(&name, kind, field.value.bytes()?) {
                Ok(()) if rejection.is_none() => {}
                Ok(()) => before.truncate(&mut self.tables),
                Err(MetricError::Inconsistent(reason)) => {
                    before.truncate(&mut self.tables);
                    rejection.get_or_insert(reason);
                }
                Err(MetricError::Message(error)) => return Err(error),
            }
        }
        let metrics = span(start, self.tables.metrics.len());
        let family = Family { name: name.clone(), help, unit, kind, metrics };
        self.measure_now_and_then()?;
        match self.by_name.entry(name) {
            Entry::Vacant(entry) => {
                entry.insert(self.rejections.len());
                self.tables.families.push(family);
                self.rejections.push(rejection);
            }
            Entry::Occupied(entry) => {
                self.tables.families[*entry.get()] = family;
                self.rejections[*entry.get()] = rejection;
            }
        }
        Ok(())
    }

    fn metric(&mut self, name: &str, kind: MetricType, message: &'a [u8]) -> Result<(), MetricError> {
        let labels_start = self.tables.labels.len();
        let mut partial = PartialValue { points_start: self.tables.points.len(), ..PartialValue::default() };
        let mut timestamp = None;
        let mut fields = Fields::new(message);
        let mut rejection = None;
        while let Some(field) = fields.next()? {
            match field.number {
                1 => match self.label(name, field.value.bytes()?) {
                    Ok(label) => {
                        self.tables.labels.push(label);
                        self.measure_now_and_then()?;
                    }
                    Err(MetricError::Inconsistent(reason)) => rejection = Some(reason),
                    Err(error) => return Err(error),
                },
                6 => timestamp = Some(field.value.varint()? as i64),
                number if number == u32::from(value_field(kind)) => {
                    partial.found = true;
                    self.value(kind, field.value.bytes()?, &mut partial)?;
                }
                2..=5 | 7 => {
                    field.value.bytes()?;
                }
                _ => {}
            }
        }
        if let Some(reason) = rejection {
            return Err(MetricError::Inconsistent(reason));
        }
        if !partial.found {
            return Err(Inconsistency::WrongType { metric: name.to_owned(), kind }.into());
        }
        self.check_labels(name, labels_start)?;
        let labels = span(labels_start, self.tables.labels.len());
        let value = partial.value(kind, self.tables.points.len());
        let exact = match partial.created {
            _ if partial.needs_message => self.add_exact_message(name, kind, message)?,
            Some(created) => self.add_exact_created(name, kind, &value, created)?,
            None => Span::default(),
        };
        self.tables.metrics.push(Metric { labels, value, timestamp, exact });
        Ok(self.measure_now_and_then()?)
    }

    fn label(&self, metric: &str, message: &'a [u8]) -> Result<Label<'a>, MetricError> {
        let (mut name, mut value) = (&b""[..], &b""[..]);
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => name = field.value.bytes()?,
                2 => value = field.value.bytes()?,
                _ => {}
            }
        }
        self.lengths.check_name("label name", name.len())?;
        self.lengths.check_text("label value", value.len())?;
        let name = match str::from_utf8(name) {
            Ok(name) if self.rules.allow_label_name(name) => name,
            _ => {
                let (metric, label) = (shown(metric.as_bytes()), shown(name));
                return Err(MessageError::LabelName { metric, label }.into());
            }
        };
        match str::from_utf8(value) {
            Ok(value) => Ok(Label { name: Cow::Borrowed(name), value: Cow::Borrowed(value) }),
            Err(_) => {
                let (metric, label) = (metric.to_owned(), name.to_owned());
                Err(Inconsistency::LabelNotUtf8 { metric, label }.into())
            }
        }
    }

    fn check_labels(&self, metric: &str, start: usize) -> Result<(), MetricError> {
        let labels = &self.tables.labels[start..];
        let duplicate = if labels.len() <= FEW_LABELS {
            let is_duplicate =
                |(at, label): &(usize, &Label<'_>)| labels[..*at].iter().any(|l| l.name == label.name);
            labels.iter().enumerate().find(is_duplicate).map(|(_, label)| &label.name)
        } else {
            let mut names: Vec<_> = labels.iter().map(|label| &label.name).collect();
            names.sort_unstable();
            names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
        };
        match duplicate {
            None => Ok(()),
            Some(label) => {
                let (metric, label) = (metric.to_owned(), label.to_string());
                Err(Inconsistency::DuplicateLabel { metric, label }.into())
            }
        }
    }

    /// Parses the part of a value that text can represent. A second field is merged into the first, as in any protobuf.
    fn value(
        &mut self,
        kind: MetricType,
        message: &'a [u8],
        partial: &mut PartialValue,
    ) -> Result<(), MessageError> {
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next()? {
            match (kind, field.number) {
                (MetricType::Counter | MetricType::Gauge | MetricType::Untyped, 1) => {
                    partial.value = field.value.double()?;
                }
                (MetricType::Gauge | MetricType::Untyped, _) => {}
                (MetricType::Counter, 3) | (MetricType::Summary, 4) => {
                    partial.created(field.value.bytes()?)?;
                }
                (MetricType::Counter, number) => partial.needs_message |= number == 2,
                (_, 1) => partial.count = field.value.varint()?,
                (_, 2) => partial.value = field.value.double()?,
                (MetricType::Summary, 3) => {
                    let point = parse_quantile(field.value.bytes()?)?;
                    self.tables.points.push(point);
                    self.measure_now_and_then()?;
                }
                (MetricType::Summary, _) => {}
                (_, 3) => {
                    let (point, needs_message) = parse_bucket(field.value.bytes()?)?;
                    self.tables.points.push(point);
                    self.measure_now_and_then()?;
                    partial.needs_message |= needs_message;
                }
                (_, 4) => partial.float_count = Some(field.value.double()?),
                (_, 15) => partial.created(field.value.bytes()?)?,
                (_, number) => partial.needs_message |= matches!(number, 5..=16),
            }
        }
        partial.needs_message |= partial.float_count.is_some();
        if matches!(kind, MetricType::Histogram | MetricType::GaugeHistogram) {
            partial.needs_message |= exceeds_float(partial.count);
        }
        Ok(())
    }

    /// Adds exact protobuf for a value that text can represent except for its creation time. Clients for Go send one with
    /// nearly every metric, and decoding messages would double the time of parsing (`benches/protobuf.rs`).
    fn add_exact_created(
        &mut self,
        name: &str,
        kind: MetricType,
        value: &Value,
        created: Timestamp,
    ) -> Result<Span, MetricError> {
        let mut exact = std::mem::take(&mut self.tables.exact);
        let start = exact.len();
        write_value(&mut exact, kind, &self.tables, value, Some(created));
        self.tables.exact = exact;
        self.exact_since(name, start)
    }

    /// Adds exact protobuf for a value that text cannot represent: its known fields, in canonical order.
    fn add_exact_message(
        &mut self,
        name: &str,
        kind: MetricType,
        metric: &[u8],
    ) -> Result<Span, MetricError> {
        if metric.len() > EXACT_METRIC_BYTES_MAX {
            return Err(Inconsistency::MetricTooLarge { metric: name.to_owned() }.into());
        }
        self.reserve(metric.len() * EXACT_MESSAGE_FACTOR)?;
        let metric = message::Metric::decode(metric)?;
        let mut known = message::Metric::default();
        match kind {
            MetricType::Counter => known.counter = metric.counter,
            MetricType::Gauge => known.gauge = metric.gauge,
            MetricType::Summary => known.summary = metric.summary,
            MetricType::Untyped => known.untyped = metric.untyped,
            MetricType::Histogram | MetricType::GaugeHistogram => known.histogram = metric.histogram,
        }
        if !exemplars(&known).all(is_utf8) {
            return Err(Inconsistency::ExemplarNotUtf8 { metric: name.to_owned() }.into());
        }
        if let Some(histogram) =
            known.histogram.as_ref().filter(|histogram| native_histogram::is_native(histogram))
        {
            native_histogram::check(histogram)
                .map_err(|reason| Inconsistency::NativeHistogram { metric: name.to_owned(), reason })?;
        }
        let start = self.tables.exact.len();
        known.encode(&mut self.tables.exact).expect("a vector grows as needed");
        self.exact_since(name, start)
    }

    /// The span of the exact protobuf since `start`. Default values are written out, so it may be longer than the body.
    fn exact_since(&self, name: &str, start: usize) -> Result<Span, MetricError> {
        let end = self.tables.exact.len();
        match u32::try_from(end) {
            Ok(_) => Ok(span(start, end)),
            Err(_) => Err(Inconsistency::ExactTooLarge { metric: name.to_owned() }.into()),
        }
    }
}

/// The fields of a family apart from its metrics.
struct Header<'a> {
    name: &'a [u8],
    help: Option<Cow<'a, str>>,
    unit: Option<Cow<'a, str>>,
    kind: MetricType,
}

impl<'a> Header<'a> {
    fn parse(message: &'a [u8]) -> Result<Self, WireError> {
        let mut header = Header { name: b"", help: None, unit: None, kind: MetricType::Counter };
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => header.name = field.value.bytes()?,
                // Repaired as in text, because invalid UTF-8 would break the scrape.
                2 => header.help = Some(String::from_utf8_lossy(field.value.bytes()?)),
                5 => header.unit = Some(String::from_utf8_lossy(field.value.bytes()?)),
                // As the format requires, an unknown number is ignored.
                3 => header.kind = kind_of(field.value.varint()?).unwrap_or(header.kind),
                _ => {}
            }
        }
        Ok(header)
    }
}

/// The type with this number.
fn kind_of(number: u64) -> Option<MetricType> {
    // Enumerations have 32 bits; higher bits are ignored.
    Some(match number as u32 {
        0 => MetricType::Counter,
        1 => MetricType::Gauge,
        2 => MetricType::Summary,
        3 => MetricType::Untyped,
        4 => MetricType::Histogram,
        5 => MetricType::GaugeHistogram,
        _ => return None,
    })
}

/// A value while it is parsed.
#[derive(Default)]
struct PartialValue {
    found: bool,
    /// The value, or the sum of a summary or histogram.
    value: f64,
    count: u64,
    float_count: Option<f64>,
    points_start: usize,
    created: Option<Timestamp>,
    /// Whether text and a creation time cannot represent the value.
    needs_message: bool,
}

impl PartialValue {
    /// Parses a creation time. A second field is merged into the first.
    fn created(&mut self, message: &[u8]) -> Result<(), WireError> {
        let created = self.created.get_or_insert_default();
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => created.seconds = field.value.varint()? as i64,
                2 => created.nanos = field.value.varint()? as i32,
                _ => {}
            }
        }
        Ok(())
    }

    fn value(&self, kind: MetricType, points_end: usize) -> Value {
        let points = span(self.points_start, points_end);
        match kind {
            MetricType::Counter | MetricType::Gauge | MetricType::Untyped => Value::Single(self.value),
            MetricType::Summary => Value::Summary { count: self.count, sum: self.value, quantiles: points },
            MetricType::Histogram | MetricType::GaugeHistogram => Value::Histogram {
                count: effective_count(self.count, self.float_count),
                sum: self.value,
                buckets: points,
            },
        }
    }
}

fn parse_quantile(message: &[u8]) -> Result<Point, WireError> {
    let mut point = Point { at: 0.0, value: 0.0 };
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => point.at = field.value.double()?,
            2 => point.value = field.value.double()?,
            _ => {}
        }
    }
    Ok(point)
}

/// Parses a bucket. The flag says that text cannot represent all of it.
fn parse_bucket(message: &[u8]) -> Result<(Point, bool), WireError> {
    let (mut at, mut count, mut float_count) = (0.0, 0, None);
    let mut needs_message = false;
    let mut fields = Fields::new(message);
    while let Some(field) = fields.next()? {
        match field.number {
            1 => count = field.value.varint()?,
            2 => at = field.value.double()?,
            3 => needs_message = true,
            4 => float_count = Some(field.value.double()?),
            _ => {}
        }
    }
    needs_message |= float_count.is_some() || exceeds_float(count);
    Ok((Point { at, value: effective_count(count, float_count) }, needs_message))
}

/// The count of a bucket or histogram. A float count above 0 replaces the integer count. So does NaN, which can come from
/// text.
fn effective_count(count: u64, float_count: Option<f64>) -> f64 {
    float_count.filter(|float| *float > 0.0 || float.is_nan()).unwrap_or(count as f64)
}

/// Whether a float cannot represent the number.
fn exceeds_float(count: u64) -> bool {
    as_integer(count as f64) != Some(count)
}

fn exemplars(metric: &message::Metric) -> impl Iterator<Item = &Exemplar> {
    let counter = metric.counter.iter().filter_map(|counter| counter.exemplar.as_ref());
    let histogram = metric.histogram.iter().flat_map(|histogram| {
        histogram.bucket.iter().filter_map(|bucket| bucket.exemplar.as_ref()).chain(&histogram.exemplars)
    });
    counter.chain(histogram)
}

fn is_utf8(exemplar: &Exemplar) -> bool {
    exemplar
        .label
        .iter()
        .all(|label| str::from_utf8(label.name()).is_ok() && str::from_utf8(label.value()).is_ok())
}

/// Longer names are truncated in an error, which could otherwise be many times as long as the body.
const SHOWN_BYTES_MAX: usize = 1024;

/// A name for an error.
fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(&name[..name.len().min(SHOWN_BYTES_MAX)]).into_owned()
}

/// The lengths of the tables, to undo additions.
struct TableLengths {
    metrics: usize,
    labels: usize,
    points: usize,
    exact: usize,
}

impl TableLengths {
    fn of(tables: &Families<'_>) -> Self {
        Self {
            metrics: tables.metrics.len(),
            labels: tables.labels.len(),
            points: tables.points.len(),
            exact: tables.exact.len(),
        }
    }

    fn truncate(self, tables: &mut Families<'_>) {
        tables.metrics.truncate(self.metrics);
        tables.labels.truncate(self.labels);
        tables.points.truncate(self.points);
        tables.exact.truncate(self.exact);
    }
}

/// A span in a table. No table has more entries than the body has bytes.
fn span(start: usize, end: usize) -> Span {
    let narrow = |at| u32::try_from(at).expect("limited by the body's length");
    Span { start: narrow(start), end: narrow(end) }
}
