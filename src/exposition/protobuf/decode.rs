//! Parses a body into families.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use prost::Message;

use super::encode::{as_integer, value_field, write_value};
use super::message::{self, Exemplar, Timestamp};
use super::native_histogram;
use super::schema;
use super::wire::{FieldValue, Fields, WireError};
use crate::exposition::consistency::Inconsistency;
use crate::exposition::lengths::{LengthLimits, TooLong};
use crate::exposition::memory::{Memory, OutOfMemory, Unlimited};
use crate::exposition::model::{Families, Family, Label, Metric, MetricType, Point, Span, Value};
use crate::exposition::names::{NameRules, is_push_time};
use crate::exposition::quote::quote;

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
/// The bytes are not such messages.
pub fn parse(body: &[u8], rules: NameRules) -> Result<Families<'_>, ProtobufError> {
    parse_with(body, rules, &[], LengthLimits::NONE, &mut Unlimited)
}

/// Parses a body of delimited messages that a client sent, and reserves what its families need from `memory` while it parses. A
/// compact body needs many times its size. The values of labels in `grouping` will be replaced, so they may be any bytes.
///
/// # Errors
/// Those of [`parse`], a name or text beyond [`LengthLimits::PUSH`], or the families do not fit into the memory.
pub fn parse_within<'a>(
    body: &'a [u8],
    rules: NameRules,
    grouping: &[(String, String)],
    memory: &mut dyn Memory,
) -> Result<Families<'a>, ProtobufError> {
    parse_with(body, rules, grouping, LengthLimits::PUSH, memory)
}

fn parse_with<'a>(
    body: &'a [u8],
    rules: NameRules,
    grouping: &[(String, String)],
    lengths: LengthLimits,
    memory: &mut dyn Memory,
) -> Result<Families<'a>, ProtobufError> {
    // Spans are 32 bits wide, and no table has more entries than the body has bytes.
    if u32::try_from(body.len()).is_err() {
        return Err(ProtobufError::new(1, MessageError::BodyTooLarge));
    }
    let mut decoder = Decoder::new(rules, grouping, lengths, memory);
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
    let mut decoder = Decoder::new(NameRules::Utf8, &[], LengthLimits::NONE, &mut memory);
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
    /// Labels whose values do not count.
    grouping: &'m [(String, String)],
    lengths: LengthLimits,
    tables: Families<'a>,
    by_name: HashMap<Cow<'a, str>, usize, foldhash::fast::RandomState>,
    /// What is wrong with each family. A later family with the same name may replace it.
    faults: Vec<Faults>,
    /// What is wrong with families whose names are invalid.
    unnamed: Faults,
    memory: &'m mut dyn Memory,
    /// The memory of texts that do not borrow from the body.
    copied_bytes: usize,
    /// What is reserved for the tables.
    reserved_bytes: usize,
    /// The number of entries from which on their size is compared again.
    next_measure: usize,
}

/// Why a family must be rejected.
#[derive(Default)]
struct Faults {
    /// Whether a metric has a timestamp. This error comes before all others.
    has_timestamp: bool,
    /// The first inconsistency.
    rejection: Option<Box<Inconsistency>>,
}

impl<'a, 'm> Decoder<'a, 'm> {
    fn new(
        rules: NameRules,
        grouping: &'m [(String, String)],
        lengths: LengthLimits,
        memory: &'m mut dyn Memory,
    ) -> Self {
        Self {
            rules,
            grouping,
            lengths,
            tables: Families::default(),
            by_name: HashMap::default(),
            faults: Vec::new(),
            unnamed: Faults::default(),
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
        let bytes = families.len() * (size_of::<Family<'_>>() + size_of::<Faults>())
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
        self.tables.has_timestamp =
            self.unnamed.has_timestamp || self.faults.iter().any(|faults| faults.has_timestamp);
        let faults = std::iter::once(self.unnamed).chain(self.faults);
        self.tables.rejection = faults.filter_map(|faults| faults.rejection).next();
        self.tables
    }

    fn family(&mut self, message: &'a [u8]) -> Result<(), MessageError> {
        let Header { name, help, unit, kind: kind_number } = Header::parse(message)?;
        self.lengths.check_name("metric name", name.len())?;
        self.lengths.check_text("HELP", help.as_deref().map_or(0, str::len))?;
        self.lengths.check_text("unit", unit.as_deref().map_or(0, str::len))?;
        let valid_name = str::from_utf8(name).ok().filter(|name| self.rules.allow_metric_name(name));
        let kind = kind_of(kind_number);
        let rejection = match (valid_name, kind) {
            (None, _) => Some(Inconsistency::MetricName(quote(name))),
            (_, None) => Some(Inconsistency::UnknownType { family: quote(name), number: kind_number as i32 }),
            _ => None,
        };
        let mut faults = Faults { has_timestamp: false, rejection: rejection.map(Box::new) };
        // Also the metrics of a family that is rejected must be valid messages.
        let kind = kind.unwrap_or(MetricType::Counter);
        let name = valid_name.unwrap_or_default();
        if let Some(Cow::Owned(text)) = &help {
            self.copied_bytes += text.capacity();
        }
        if let Some(Cow::Owned(text)) = &unit {
            self.copied_bytes += text.capacity();
        }
        let start = self.tables.metrics.len();
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next()? {
            let (4, FieldValue::Bytes(metric)) = (field.number, field.value) else { continue };
            let before = TableLengths::of(&self.tables);
            match self.metric(name, kind, metric, &mut faults.has_timestamp) {
                Ok(()) if faults.rejection.is_none() => {}
                Ok(()) => before.truncate(&mut self.tables),
                Err(MetricError::Inconsistent(reason)) => {
                    // An invalid message is worse, wherever it is.
                    schema::check_metric(metric)?;
                    before.truncate(&mut self.tables);
                    faults.rejection.get_or_insert(reason);
                }
                Err(MetricError::Message(error)) => return Err(error),
            }
        }
        if valid_name.is_none() {
            self.unnamed.has_timestamp |= faults.has_timestamp;
            self.unnamed.rejection = self.unnamed.rejection.take().or(faults.rejection);
            return Ok(());
        }
        if is_push_time(name) {
            // The gateway ignores it.
            faults.rejection = None;
        }
        let name = Cow::Borrowed(name);
        let metrics = span(start, self.tables.metrics.len());
        let family = Family { name: name.clone(), help, unit, kind, metrics };
        self.measure_now_and_then()?;
        match self.by_name.entry(name) {
            Entry::Vacant(entry) => {
                entry.insert(self.faults.len());
                self.tables.families.push(family);
                self.faults.push(faults);
            }
            Entry::Occupied(entry) => {
                self.tables.families[*entry.get()] = family;
                self.faults[*entry.get()] = faults;
            }
        }
        Ok(())
    }

    fn metric(
        &mut self,
        name: &str,
        kind: MetricType,
        message: &'a [u8],
        has_timestamp: &mut bool,
    ) -> Result<(), MetricError> {
        let labels_start = self.tables.labels.len();
        let mut partial = PartialValue { points_start: self.tables.points.len(), ..PartialValue::default() };
        let mut timestamp = None;
        let mut fields = Fields::new(message);
        let mut rejection = None;
        while let Some(field) = fields.next()? {
            match (field.number, field.value) {
                (1, FieldValue::Bytes(label)) => match self.label(name, label) {
                    Ok(label) => {
                        self.tables.labels.push(label);
                        self.measure_now_and_then()?;
                    }
                    Err(MetricError::Inconsistent(reason)) => rejection = Some(reason),
                    Err(error) => return Err(error),
                },
                (6, FieldValue::Varint(milliseconds)) => {
                    timestamp = Some(milliseconds as i64);
                    *has_timestamp = true;
                }
                (number, FieldValue::Bytes(value)) if number == u32::from(value_field(kind)) => {
                    partial.found = true;
                    self.value(kind, value, &mut partial)?;
                }
                // The value of another type is not used, but it must be a valid message.
                (number, FieldValue::Bytes(value)) => schema::check_field(number, value)?,
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
            match (field.number, field.value) {
                (1, FieldValue::Bytes(bytes)) => name = bytes,
                (2, FieldValue::Bytes(bytes)) => value = bytes,
                _ => {}
            }
        }
        self.lengths.check_name("label name", name.len())?;
        self.lengths.check_text("label value", value.len())?;
        let name = match str::from_utf8(name) {
            Ok(name) if self.rules.allow_label_name(name) => name,
            _ => {
                let (metric, label) = (metric.to_owned(), quote(name));
                return Err(Inconsistency::LabelName { metric, label }.into());
            }
        };
        match str::from_utf8(value) {
            Ok(value) => Ok(Label { name: Cow::Borrowed(name), value: Cow::Borrowed(value) }),
            Err(_) if self.grouping.iter().any(|(replaced, _)| replaced == name) => {
                Ok(Label { name: Cow::Borrowed(name), value: Cow::Borrowed("") })
            }
            Err(_) => {
                let (metric, label, value) = (metric.to_owned(), name.to_owned(), quote(value));
                Err(Inconsistency::LabelNotUtf8 { metric, label, value }.into())
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
            use FieldValue::{Bytes, Fixed64, Varint};
            match (kind, field.number, field.value) {
                (MetricType::Counter | MetricType::Gauge | MetricType::Untyped, 1, Fixed64(bits)) => {
                    partial.value = f64::from_bits(bits);
                }
                (MetricType::Gauge | MetricType::Untyped, ..) => {}
                (MetricType::Counter, 3, Bytes(created)) | (MetricType::Summary, 4, Bytes(created)) => {
                    partial.created(created)?;
                }
                (MetricType::Counter, number, value) => {
                    partial.needs_message |= number == 2 && matches!(value, Bytes(_));
                }
                (_, 1, Varint(count)) => partial.count = count,
                (_, 2, Fixed64(bits)) => partial.value = f64::from_bits(bits),
                (MetricType::Summary, 3, Bytes(quantile)) => {
                    let point = parse_quantile(quantile)?;
                    self.tables.points.push(point);
                    self.measure_now_and_then()?;
                }
                (MetricType::Summary, ..) => {}
                (_, 3, Bytes(bucket)) => {
                    let (point, needs_message) = parse_bucket(bucket)?;
                    self.tables.points.push(point);
                    self.measure_now_and_then()?;
                    partial.needs_message |= needs_message;
                }
                (_, 4, Fixed64(bits)) => partial.float_count = Some(f64::from_bits(bits)),
                (_, 15, Bytes(created)) => partial.created(created)?,
                // Including fields of another wire type, which copying the message removes.
                (_, number, _) => partial.needs_message |= matches!(number, 5..=16),
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
        let metric = match message::Metric::decode(metric) {
            Ok(metric) => metric,
            // Generated code rejects a known field of another wire type, which counts as unknown.
            Err(_) => message::Metric::decode(&*schema::known_fields(metric)?)?,
        };
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
    /// The number of the type. Enumerations have 32 bits; higher bits are ignored.
    kind: u32,
}

impl<'a> Header<'a> {
    fn parse(message: &'a [u8]) -> Result<Self, WireError> {
        let mut header = Header { name: b"", help: None, unit: None, kind: 0 };
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next()? {
            match (field.number, field.value) {
                (1, FieldValue::Bytes(name)) => header.name = name,
                // Repaired as in text, because invalid UTF-8 would break the scrape.
                (2, FieldValue::Bytes(help)) => header.help = Some(String::from_utf8_lossy(help)),
                (5, FieldValue::Bytes(unit)) => header.unit = Some(String::from_utf8_lossy(unit)),
                (3, FieldValue::Varint(kind)) => header.kind = kind as u32,
                _ => {}
            }
        }
        Ok(header)
    }
}

/// The type with this number.
fn kind_of(number: u32) -> Option<MetricType> {
    Some(match number {
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
            match (field.number, field.value) {
                (1, FieldValue::Varint(seconds)) => created.seconds = seconds as i64,
                (2, FieldValue::Varint(nanos)) => created.nanos = nanos as i32,
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
        match (field.number, field.value) {
            (1, FieldValue::Fixed64(bits)) => point.at = f64::from_bits(bits),
            (2, FieldValue::Fixed64(bits)) => point.value = f64::from_bits(bits),
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
        match (field.number, field.value) {
            (1, FieldValue::Varint(number)) => count = number,
            (2, FieldValue::Fixed64(bits)) => at = f64::from_bits(bits),
            (3, FieldValue::Bytes(_)) => needs_message = true,
            (4, FieldValue::Fixed64(bits)) => float_count = Some(f64::from_bits(bits)),
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
