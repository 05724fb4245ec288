//! A body → families.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use prost::Message;

use super::encode::{value_field, whole, write_value};
use super::message::{self, Exemplar, Timestamp};
use super::native_histogram;
use super::wire::{Fields, WireError};
use crate::exposition::model::{Families, Family, Label, Metric, MetricType, Point, Span, Value};
use crate::exposition::names::NameRules;

/// Larger metrics which text cannot show are refused: they are decoded one by one, to many times their size.
const BEYOND_TEXT_BYTES_MAX: usize = 1 << 20;
/// Up to here comparing label names one by one is cheaper than sorting them.
const FEW_LABELS: usize = 16;

/// Why a body was refused, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtobufError {
    message: usize,
    reason: Cow<'static, str>,
}

impl fmt::Display for ProtobufError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "protobuf parsing error in message {}: {}", self.message, self.reason)
    }
}

impl std::error::Error for ProtobufError {}

/// Why a single message was not taken.
enum Problem {
    /// The body cannot be read.
    Unreadable(Cow<'static, str>),
    /// The push is to be refused.
    Refused(Box<str>),
}

impl From<WireError> for Problem {
    fn from(reason: WireError) -> Self {
        Self::Unreadable(Cow::Borrowed(reason))
    }
}

/// Parses a body of delimited messages. Of two families of one name the last counts.
///
/// # Errors
/// Bytes that are no such messages, and names that `rules` do not allow. On an error nothing of the body counts.
pub fn parse(body: &[u8], rules: NameRules) -> Result<Families<'_>, ProtobufError> {
    // Spans count in 32 bits, and there is never more than one thing to count per byte.
    if u32::try_from(body.len()).is_err() {
        return Err(ProtobufError { message: 1, reason: Cow::Borrowed("body of 4 GiB or more") });
    }
    let mut decoder = Decoder { rules, ..Decoder::default() };
    let mut messages = Fields::new(body);
    let mut number = 0;
    while !messages.is_empty() {
        number += 1;
        let message = messages.delimited().map_err(Cow::Borrowed);
        message
            .and_then(|message| decoder.family(message))
            .map_err(|reason| ProtobufError { message: number, reason })?;
    }
    Ok(decoder.finish())
}

/// Reads one family, not delimited, which the gateway itself encoded.
///
/// # Errors
/// Bytes that are no such message.
pub fn decode_family(message: &[u8]) -> Result<Families<'_>, ProtobufError> {
    let mut decoder = Decoder { rules: NameRules::Utf8, ..Decoder::default() };
    decoder.family(message).map_err(|reason| ProtobufError { message: 1, reason })?;
    Ok(decoder.finish())
}

/// The tables as they grow.
#[derive(Default)]
struct Decoder<'a> {
    rules: NameRules,
    tables: Families<'a>,
    by_name: HashMap<Cow<'a, str>, usize, foldhash::fast::RandomState>,
    /// For each family the first reason to refuse it. A later one of the same name may replace it.
    refusals: Vec<Option<Box<str>>>,
}

impl<'a> Decoder<'a> {
    fn finish(mut self) -> Families<'a> {
        self.tables.refusal = self.refusals.into_iter().flatten().next();
        self.tables
    }

    fn family(&mut self, message: &'a [u8]) -> Result<(), Cow<'static, str>> {
        let Head { name, help, unit, kind } = Head::read(message)?;
        let name = match str::from_utf8(name) {
            Ok(name) if self.rules.allow_metric_name(name) => Cow::Borrowed(name),
            _ => return Err(format!("invalid metric name {:?}", String::from_utf8_lossy(name)).into()),
        };
        let start = self.tables.metrics.len();
        let mut refusal = None;
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next()? {
            if field.number != 4 {
                continue;
            }
            let before = Sizes::of(&self.tables);
            match self.metric(&name, kind, field.value.bytes()?) {
                Ok(()) if refusal.is_none() => {}
                Ok(()) => before.cut(&mut self.tables),
                Err(Problem::Refused(reason)) => {
                    before.cut(&mut self.tables);
                    refusal.get_or_insert(reason);
                }
                Err(Problem::Unreadable(reason)) => return Err(reason),
            }
        }
        let metrics = span(start, self.tables.metrics.len());
        let family = Family { name: name.clone(), help, unit, kind, metrics };
        match self.by_name.entry(name) {
            Entry::Vacant(entry) => {
                entry.insert(self.refusals.len());
                self.tables.families.push(family);
                self.refusals.push(refusal);
            }
            Entry::Occupied(entry) => {
                self.tables.families[*entry.get()] = family;
                self.refusals[*entry.get()] = refusal;
            }
        }
        Ok(())
    }

    fn metric(&mut self, name: &str, kind: MetricType, message: &'a [u8]) -> Result<(), Problem> {
        let labels_start = self.tables.labels.len();
        let mut reading = Reading { points_start: self.tables.points.len(), ..Reading::default() };
        let mut timestamp = None;
        let mut fields = Fields::new(message);
        let mut refusal = None;
        while let Some(field) = fields.next()? {
            match field.number {
                1 => match self.label(name, field.value.bytes()?) {
                    Ok(label) => self.tables.labels.push(label),
                    Err(Problem::Refused(reason)) => refusal = Some(reason),
                    Err(unreadable) => return Err(unreadable),
                },
                6 => timestamp = Some(field.value.varint()? as i64),
                number if number == u32::from(value_field(kind)) => {
                    reading.found = true;
                    self.value(kind, field.value.bytes()?, &mut reading)?;
                }
                2..=5 | 7 => {
                    field.value.bytes()?;
                }
                _ => {}
            }
        }
        if let Some(reason) = refusal {
            return Err(Problem::Refused(reason));
        }
        if !reading.found {
            let kind = kind.text_name();
            return Err(Problem::Refused(format!("collected metric {name:?} is not a {kind}").into()));
        }
        self.check_labels(name, labels_start)?;
        let labels = span(labels_start, self.tables.labels.len());
        let value = reading.value(kind, self.tables.points.len());
        let beyond_text = match reading.created {
            _ if reading.needs_message => self.keep_message(name, kind, message)?,
            Some(created) => self.keep_created(name, kind, &value, created)?,
            None => Span::default(),
        };
        self.tables.metrics.push(Metric { labels, value, timestamp, beyond_text });
        Ok(())
    }

    fn label(&self, metric: &str, message: &'a [u8]) -> Result<Label<'a>, Problem> {
        let (mut name, mut value) = (&b""[..], &b""[..]);
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => name = field.value.bytes()?,
                2 => value = field.value.bytes()?,
                _ => {}
            }
        }
        let name = match str::from_utf8(name) {
            Ok(name) if self.rules.allow_label_name(name) => name,
            _ => {
                let name = String::from_utf8_lossy(name);
                let reason = format!("invalid label name {name:?} for metric {metric:?}");
                return Err(Problem::Unreadable(reason.into()));
            }
        };
        match str::from_utf8(value) {
            Ok(value) => Ok(Label { name: Cow::Borrowed(name), value: Cow::Borrowed(value) }),
            Err(_) => Err(Problem::Refused(
                format!("collected metric {metric:?} has a label named {name:?} whose value is not utf8")
                    .into(),
            )),
        }
    }

    fn check_labels(&self, metric: &str, start: usize) -> Result<(), Problem> {
        let labels = &self.tables.labels[start..];
        let twin = if labels.len() <= FEW_LABELS {
            let is_twin =
                |(at, label): &(usize, &Label<'_>)| labels[..*at].iter().any(|l| l.name == label.name);
            labels.iter().enumerate().find(is_twin).map(|(_, label)| &label.name)
        } else {
            let mut names: Vec<_> = labels.iter().map(|label| &label.name).collect();
            names.sort_unstable();
            names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
        };
        match twin {
            None => Ok(()),
            Some(name) => Err(Problem::Refused(
                format!("collected metric {metric:?} has two or more labels with the same name: {name}")
                    .into(),
            )),
        }
    }

    /// Reads a value as far as text shows it. A second one adds to the first, as protobuf has it.
    fn value(&mut self, kind: MetricType, message: &'a [u8], reading: &mut Reading) -> Result<(), WireError> {
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next()? {
            match (kind, field.number) {
                (MetricType::Counter | MetricType::Gauge | MetricType::Untyped, 1) => {
                    reading.value = field.value.double()?;
                }
                (MetricType::Gauge | MetricType::Untyped, _) => {}
                (MetricType::Counter, 3) | (MetricType::Summary, 4) => {
                    reading.created(field.value.bytes()?)?;
                }
                (MetricType::Counter, number) => reading.needs_message |= number == 2,
                (_, 1) => reading.count = field.value.varint()?,
                (_, 2) => reading.value = field.value.double()?,
                (MetricType::Summary, 3) => {
                    let point = read_quantile(field.value.bytes()?)?;
                    self.tables.points.push(point);
                }
                (MetricType::Summary, _) => {}
                (_, 3) => {
                    let (point, needs_message) = read_bucket(field.value.bytes()?)?;
                    self.tables.points.push(point);
                    reading.needs_message |= needs_message;
                }
                (_, 4) => reading.float_count = Some(field.value.double()?),
                (_, 15) => reading.created(field.value.bytes()?)?,
                (_, number) => reading.needs_message |= matches!(number, 5..=16),
            }
        }
        reading.needs_message |= reading.float_count.is_some();
        if matches!(kind, MetricType::Histogram | MetricType::GaugeHistogram) {
            reading.needs_message |= is_no_float(reading.count);
        }
        Ok(())
    }

    /// Keeps a value of which text says all but the time of creation: clients for Go send one with nearly every metric,
    /// and a detour through messages would double the time that parsing takes (`benches/protobuf.rs`).
    fn keep_created(
        &mut self,
        name: &str,
        kind: MetricType,
        value: &Value,
        created: Timestamp,
    ) -> Result<Span, Problem> {
        let mut kept = std::mem::take(&mut self.tables.beyond_text);
        let start = kept.len();
        write_value(&mut kept, kind, &self.tables, value, Some(created));
        self.tables.beyond_text = kept;
        self.kept_since(name, start)
    }

    /// Keeps a value as the gateway will show it where text does not suffice: what is known of it, in one spelling.
    fn keep_message(&mut self, name: &str, kind: MetricType, metric: &[u8]) -> Result<Span, Problem> {
        if metric.len() > BEYOND_TEXT_BYTES_MAX {
            return Err(refused(name, "a single metric is too large"));
        }
        let metric = message::Metric::decode(metric)
            .map_err(|problem| Problem::Unreadable(problem.to_string().into()))?;
        let mut shown = message::Metric::default();
        match kind {
            MetricType::Counter => shown.counter = metric.counter,
            MetricType::Gauge => shown.gauge = metric.gauge,
            MetricType::Summary => shown.summary = metric.summary,
            MetricType::Untyped => shown.untyped = metric.untyped,
            MetricType::Histogram | MetricType::GaugeHistogram => shown.histogram = metric.histogram,
        }
        if !exemplars(&shown).all(is_utf8) {
            return Err(refused(name, "an exemplar has a label that is not utf8"));
        }
        if let Some(histogram) =
            shown.histogram.as_ref().filter(|histogram| native_histogram::is_native(histogram))
        {
            native_histogram::check(histogram).map_err(|reason| refused(name, reason))?;
        }
        let start = self.tables.beyond_text.len();
        shown.encode(&mut self.tables.beyond_text).expect("a vector grows as needed");
        self.kept_since(name, start)
    }

    /// The span of what was kept last. With default values spelled out it may be longer than the body.
    fn kept_since(&self, name: &str, start: usize) -> Result<Span, Problem> {
        let end = self.tables.beyond_text.len();
        match u32::try_from(end) {
            Ok(_) => Ok(span(start, end)),
            Err(_) => Err(refused(name, "there is too much that text cannot show")),
        }
    }
}

fn refused(name: &str, reason: &str) -> Problem {
    Problem::Refused(format!("collected metric {name:?}: {reason}").into())
}

/// What stands around a family's metrics.
struct Head<'a> {
    name: &'a [u8],
    help: Option<Cow<'a, str>>,
    unit: Option<Cow<'a, str>>,
    kind: MetricType,
}

impl<'a> Head<'a> {
    fn read(message: &'a [u8]) -> Result<Self, WireError> {
        let mut head = Head { name: b"", help: None, unit: None, kind: MetricType::Counter };
        let mut fields = Fields::new(message);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => head.name = field.value.bytes()?,
                // Repaired, as in text: passed on, a broken text would break the scrape.
                2 => head.help = Some(String::from_utf8_lossy(field.value.bytes()?)),
                5 => head.unit = Some(String::from_utf8_lossy(field.value.bytes()?)),
                // The format says that an unknown number counts as no number.
                3 => head.kind = kind_of(field.value.varint()?).unwrap_or(head.kind),
                _ => {}
            }
        }
        Ok(head)
    }
}

/// The type of that number.
fn kind_of(number: u64) -> Option<MetricType> {
    // Enumerations have 32 bits, whatever was sent.
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

/// A value while it is read.
#[derive(Default)]
struct Reading {
    found: bool,
    /// Of a summary or histogram the sum.
    value: f64,
    count: u64,
    float_count: Option<f64>,
    points_start: usize,
    created: Option<Timestamp>,
    /// Whether there is more to it than text and a time of creation.
    needs_message: bool,
}

impl Reading {
    /// Reads a time of creation. A second one adds to the first.
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
                count: shown_count(self.count, self.float_count),
                sum: self.value,
                buckets: points,
            },
        }
    }
}

fn read_quantile(message: &[u8]) -> Result<Point, WireError> {
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

/// A bucket, and whether text cannot show all of it.
fn read_bucket(message: &[u8]) -> Result<(Point, bool), WireError> {
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
    needs_message |= float_count.is_some() || is_no_float(count);
    Ok((Point { at, value: shown_count(count, float_count) }, needs_message))
}

/// The float overrides the whole number if it is above zero. What is no number comes from text, which keeps it.
fn shown_count(count: u64, float_count: Option<f64>) -> f64 {
    float_count.filter(|float| *float > 0.0 || float.is_nan()).unwrap_or(count as f64)
}

/// Whether a float cannot hold the number.
fn is_no_float(count: u64) -> bool {
    whole(count as f64) != Some(count)
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

/// How long the tables are, to take back what was added.
struct Sizes {
    metrics: usize,
    labels: usize,
    points: usize,
    beyond_text: usize,
}

impl Sizes {
    fn of(tables: &Families<'_>) -> Self {
        Self {
            metrics: tables.metrics.len(),
            labels: tables.labels.len(),
            points: tables.points.len(),
            beyond_text: tables.beyond_text.len(),
        }
    }

    fn cut(self, tables: &mut Families<'_>) {
        tables.metrics.truncate(self.metrics);
        tables.labels.truncate(self.labels);
        tables.points.truncate(self.points);
        tables.beyond_text.truncate(self.beyond_text);
    }
}

/// A span in a table that has no more entries than the body has bytes.
fn span(start: usize, end: usize) -> Span {
    let narrow = |at| u32::try_from(at).expect("bounded by the body's length");
    Span { start: narrow(start), end: narrow(end) }
}
