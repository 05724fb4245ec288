//! The recorder behind the `metrics` facade.
//!
//! Code counts through handles (`metrics::counter!(…)`) and keeps those it uses often: creating a handle takes a lock and a
//! look-up, using one takes a few nanoseconds. Counters and summaries are split over slots, and each thread uses its own, so that
//! cores do not contend for a cache line. Reading adds the slots up.
//!
//! Not for pushed metrics, and not for labels whose values clients choose: a registered series is never removed.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Label, Metadata,
    SetRecorderError, SharedString, Unit,
};
use rustix::time::{ClockId, clock_gettime};

use super::own_metric::{OwnKind, OwnMetric};
use super::summary::{SlidingSummary, Total, window_at};

/// A family with its series, ready to be written in any format.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnFamily {
    /// The name.
    pub name: &'static str,
    /// The HELP text.
    pub help: &'static str,
    /// The type; all values have it.
    pub kind: OwnKind,
    /// The series, sorted by labels; never empty.
    pub samples: Vec<OwnSample>,
}

/// One series.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnSample {
    /// Names and values, sorted by name.
    pub labels: Vec<(Cow<'static, str>, Cow<'static, str>)>,
    /// The value.
    pub value: OwnValue,
}

/// The value of a series.
#[derive(Debug, Clone, PartialEq)]
pub enum OwnValue {
    /// The value of a counter or a gauge.
    Single(f64),
    /// The value of a summary.
    Summary {
        /// Each quantile with its value over the last ten minutes; NaN if nothing was recorded in that time.
        quantiles: Vec<(f64, f64)>,
        /// The sum of all values since the start.
        sum: f64,
        /// The number of values since the start.
        count: u64,
    },
}

/// The recorder of the declared families. Clones share their series.
#[derive(Debug, Clone)]
pub struct Recorder {
    declared: Arc<BTreeMap<&'static str, OwnMetric>>,
    series: Arc<Mutex<Series>>,
}

#[derive(Debug, Default)]
struct Series {
    counters: HashMap<Key, Arc<CounterCell>>,
    gauges: HashMap<Key, Arc<GaugeCell>>,
    summaries: HashMap<Key, Arc<SummaryCell>>,
}

impl Recorder {
    /// Creates a recorder for these families. Handles of other families do nothing.
    pub fn new(declared: impl IntoIterator<Item = OwnMetric>) -> Self {
        let declared = declared.into_iter().map(|metric| (metric.name, metric)).collect();
        Self { declared: Arc::new(declared), series: Arc::default() }
    }

    /// Makes this the recorder behind the facade, for the whole process.
    ///
    /// # Errors
    /// If the process already has a recorder.
    pub fn install(&self) -> Result<(), SetRecorderError<Self>> {
        metrics::set_global_recorder(self.clone())
    }

    /// Sets a series whose value is always 1 and whose labels carry the information.
    pub fn set_info(&self, metric: OwnMetric, labels: &[(&'static str, &str)]) {
        let labels: Vec<Label> =
            labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
        self.gauge(&Key::from_parts(metric.name, labels)).set(1.0);
    }

    /// Returns every recorded series, sorted by family name, then by labels.
    pub(crate) fn gather(&self) -> Vec<OwnFamily> {
        self.gather_at(now_seconds())
    }

    fn gather_at(&self, now_seconds: u64) -> Vec<OwnFamily> {
        let mut families = BTreeMap::new();
        {
            let series = lock(&self.series);
            for (key, cell) in &series.counters {
                self.add(&mut families, key, OwnValue::Single(cell.total() as f64));
            }
            for (key, cell) in &series.gauges {
                self.add(&mut families, key, OwnValue::Single(cell.get()));
            }
            for (key, cell) in &series.summaries {
                self.add(&mut families, key, cell.value(now_seconds));
            }
        }
        let mut families: Vec<OwnFamily> = families.into_values().collect();
        for family in &mut families {
            family.samples.sort_by(|a, b| a.labels.cmp(&b.labels));
        }
        families
    }

    fn add(&self, families: &mut BTreeMap<&'static str, OwnFamily>, key: &Key, value: OwnValue) {
        let Some(&OwnMetric { name, help, kind, .. }) = self.declared.get(key.name()) else { return };
        // Most labels are constants, which are not copied.
        let parts = |label: &Label| {
            let (name, value) = label.clone().into_parts();
            (name.into(), value.into())
        };
        let labels = key.labels().map(parts).collect();
        families
            .entry(name)
            .or_insert_with(|| OwnFamily { name, help, kind, samples: Vec::new() })
            .samples
            .push(OwnSample { labels, value });
    }

    fn counter(&self, key: &Key) -> Counter {
        let Some((key, _)) = self.declared(key, OwnKind::Counter) else { return Counter::noop() };
        lock(&self.series).counters.entry(key).or_default().clone().into()
    }

    fn gauge(&self, key: &Key) -> Gauge {
        let Some((key, _)) = self.declared(key, OwnKind::Gauge) else { return Gauge::noop() };
        lock(&self.series).gauges.entry(key).or_default().clone().into()
    }

    fn summary(&self, key: &Key) -> Histogram {
        let Some((key, metric)) = self.declared(key, OwnKind::Summary) else { return Histogram::noop() };
        let new = || Arc::new(SummaryCell::new(metric.resolution()));
        lock(&self.series).summaries.entry(key).or_insert_with(new).clone().into()
    }

    /// The key with its labels sorted, so that their order in the code does not matter, and its declaration. `None` if the family
    /// is not declared: the name registry must know every family before the first push.
    fn declared(&self, key: &Key, kind: OwnKind) -> Option<(Key, &OwnMetric)> {
        let (name, mut labels) = key.clone().into_parts();
        labels.sort();
        let metric = self.declared.get(name.as_str()).filter(|metric| metric.kind == kind);
        debug_assert!(metric.is_some(), "{} is not declared as a {kind:?}", name.as_str());
        debug_assert!(
            metric.is_none_or(|metric| metric.labels.iter().copied().eq(labels.iter().map(Label::key))),
            "{} is declared with other labels than {labels:?}",
            name.as_str()
        );
        Some((Key::from_parts(name, labels), metric?))
    }
}

/// Declarations have the help and the type, so descriptions through the facade are ignored.
impl metrics::Recorder for Recorder {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        self.counter(key)
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        self.gauge(key)
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        self.summary(key)
    }
}

/// The number of slots of a series. With more threads than slots, some threads share one, which is slower but correct.
const SLOTS: usize = 16;

/// The slot of the calling thread.
fn slot() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SLOT: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed) % SLOTS);
    }
    SLOT.with(Cell::get)
}

/// A value with cache lines of its own: two, because processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Alone<T>(T);

/// Locks a mutex, also after a panic: every update under these mutexes is a single step.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds of a monotonic clock. The coarse clock costs a quarter of the fine one and is exact enough for windows of minutes.
fn now_seconds() -> u64 {
    clock_gettime(ClockId::MonotonicCoarse).tv_sec.unsigned_abs()
}

#[derive(Debug, Default)]
struct CounterCell {
    slots: [Alone<AtomicU64>; SLOTS],
}

impl CounterCell {
    fn total(&self) -> u64 {
        self.slots.iter().map(|slot| slot.0.load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    }
}

impl CounterFn for CounterCell {
    fn increment(&self, value: u64) {
        self.slots[slot()].0.fetch_add(value, Ordering::Relaxed);
    }

    /// Sets a total that is counted elsewhere, if it is larger than the present one. Not for counters that are also incremented.
    fn absolute(&self, value: u64) {
        self.slots[0].0.fetch_max(value, Ordering::Relaxed);
    }
}

/// The bits of a float. Gauges have no slots, because they are set by one thread or rarely.
#[derive(Debug, Default)]
struct GaugeCell(AtomicU64);

impl GaugeCell {
    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    fn add(&self, value: f64) {
        let sum = |bits| Some((f64::from_bits(bits) + value).to_bits());
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, sum).expect("the sum always exists");
    }
}

impl GaugeFn for GaugeCell {
    fn increment(&self, value: f64) {
        self.add(value);
    }

    fn decrement(&self, value: f64) {
        self.add(-value);
    }

    fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct SummaryCell {
    resolution: f64,
    slots: [Alone<Mutex<SlidingSummary>>; SLOTS],
    /// The last value that was computed.
    last: Mutex<Option<LastValue>>,
}

/// A value of a summary. It is the same as long as nothing is recorded and the windows are the same.
#[derive(Debug)]
struct LastValue {
    count: u64,
    window: u64,
    value: OwnValue,
}

impl SummaryCell {
    fn new(resolution: f64) -> Self {
        Self {
            resolution,
            slots: std::array::from_fn(|_| Alone(Mutex::new(SlidingSummary::new(resolution)))),
            last: Mutex::new(None),
        }
    }

    fn record_at(&self, value: f64, now_seconds: u64) {
        lock(&self.slots[slot()].0).record(value, now_seconds);
    }

    fn value(&self, now_seconds: u64) -> OwnValue {
        let mut last = lock(&self.last);
        let window = window_at(now_seconds);
        let count = self.slots.iter().map(|slot| lock(&slot.0).count()).sum();
        if let Some(last) = last.as_ref().filter(|last| (last.count, last.window) == (count, window)) {
            return last.value.clone();
        }
        let mut total = Total::new(self.resolution);
        for slot in &self.slots {
            total.add(&lock(&slot.0), now_seconds);
        }
        let count = total.count();
        let value = OwnValue::Summary { quantiles: total.quantiles(), sum: total.sum(), count };
        *last = Some(LastValue { count, window, value: value.clone() });
        value
    }
}

impl HistogramFn for SummaryCell {
    fn record(&self, value: f64) {
        self.record_at(value, now_seconds());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNTER: OwnMetric = OwnMetric::counter("a_total", "Help.");
    const LABELLED: OwnMetric = OwnMetric::counter("b_total", "Help.").with_labels(&["code", "method"]);
    const SUMMARY: OwnMetric = OwnMetric::summary("c_bytes", "Help.");
    const SECONDS: OwnMetric = OwnMetric::summary("d_seconds", "Help.");
    const GAUGE: OwnMetric = OwnMetric::gauge("e", "Help.");
    const PER_CORE: OwnMetric = OwnMetric::gauge("f", "Help.").with_labels(&["core"]);
    const INFO: OwnMetric = OwnMetric::gauge("g_info", "Help.").with_labels(&["cores", "driver"]);

    fn recorder() -> Recorder {
        Recorder::new([COUNTER, LABELLED, SUMMARY, SECONDS, GAUGE, PER_CORE, INFO])
    }

    fn label(name: &'static str, value: &'static str) -> (Cow<'static, str>, Cow<'static, str>) {
        (name.into(), value.into())
    }

    fn single(labels: Vec<(Cow<'static, str>, Cow<'static, str>)>, value: f64) -> OwnSample {
        OwnSample { labels, value: OwnValue::Single(value) }
    }

    #[test]
    fn sorts_families_series_and_labels() {
        let recorder = recorder();
        metrics::with_local_recorder(&recorder, || {
            metrics::gauge!(PER_CORE.name, "core" => "1").set(7.0);
            metrics::gauge!(PER_CORE.name, "core" => "0").set(3.5);
            metrics::counter!(LABELLED.name, "method" => "put", "code" => "200").increment(2);
            metrics::counter!(LABELLED.name, "code" => "200", "method" => "put").increment(0);
        });
        let families = recorder.gather();
        assert_eq!(
            families.iter().map(|family| family.name).collect::<Vec<_>>(),
            [LABELLED.name, PER_CORE.name]
        );
        assert_eq!(families[0].kind, OwnKind::Counter);
        assert_eq!(families[0].samples[0].labels, [label("code", "200"), label("method", "put")]);
        assert_eq!(
            families[1].samples,
            [single(vec![label("core", "0")], 3.5), single(vec![label("core", "1")], 7.0)]
        );
    }

    #[test]
    fn adds_up_the_values_of_all_threads() {
        let recorder = recorder();
        let counter = recorder.counter(&Key::from_name(COUNTER.name));
        let gauge = recorder.gauge(&Key::from_name(GAUGE.name));
        let summary = recorder.summary(&Key::from_name(SUMMARY.name));
        std::thread::scope(|scope| {
            for _ in 0..2 * SLOTS {
                scope.spawn(|| {
                    for value in 0..100 {
                        counter.increment(1);
                        gauge.increment(2.0);
                        gauge.decrement(1.0);
                        summary.record(f64::from(value));
                    }
                });
            }
        });
        let families = recorder.gather();
        let expected = (2 * SLOTS * 100) as f64;
        assert_eq!(families[0].samples, [single(vec![], expected)]);
        let OwnValue::Summary { quantiles, sum, count } = &families[1].samples[0].value else {
            panic!("not a summary")
        };
        assert_eq!(*quantiles, [(0.1, 9.0), (0.5, 49.0), (0.9, 89.0)]);
        assert_eq!((*sum, *count), (expected * 49.5, expected as u64));
        assert_eq!(families[2].samples, [single(vec![], expected)]);
    }

    #[test]
    fn a_summary_without_recent_values_keeps_its_sum() {
        let recorder = recorder();
        recorder.summary(&Key::from_name(SECONDS.name)).record(0.25);
        let families = recorder.gather_at(now_seconds() + 720);
        let OwnValue::Summary { quantiles, sum, count } = &families[0].samples[0].value else {
            panic!("not a summary")
        };
        assert!(quantiles.iter().all(|(_, value)| value.is_nan()));
        assert_eq!((*sum, *count), (0.25, 1));
    }

    #[test]
    fn a_summary_is_computed_again_when_something_was_recorded_and_when_a_window_ends() {
        let recorder = recorder();
        let summary = recorder.summary(&Key::from_name(SUMMARY.name));
        let now = now_seconds();
        let value = |now_seconds| match &recorder.gather_at(now_seconds)[0].samples[0].value {
            OwnValue::Summary { quantiles, sum, count } => (quantiles[1].1, *sum, *count),
            OwnValue::Single(_) => panic!("not a summary"),
        };
        summary.record(5.0);
        assert_eq!(value(now), (5.0, 5.0, 1));
        assert_eq!(value(now), (5.0, 5.0, 1));
        std::thread::scope(|scope| scope.spawn(|| summary.record(5.0)).join().expect("records"));
        assert_eq!(value(now), (5.0, 10.0, 2));
        let (median, sum, count) = value(now + 720);
        assert!(median.is_nan());
        assert_eq!((sum, count), (10.0, 2));
        assert_eq!(value(now), (5.0, 10.0, 2));
    }

    #[test]
    fn an_absolute_total_never_decreases() {
        let recorder = recorder();
        let counter = recorder.counter(&Key::from_name(COUNTER.name));
        counter.absolute(5);
        counter.absolute(3);
        assert_eq!(recorder.gather()[0].samples, [single(vec![], 5.0)]);
    }

    #[test]
    fn info_series_are_1() {
        let recorder = recorder();
        recorder.set_info(INFO, &[("driver", "epoll"), ("cores", "2")]);
        let families = recorder.gather();
        assert_eq!(families[0].samples, [single(vec![label("cores", "2"), label("driver", "epoll")], 1.0)]);
    }

    #[test]
    #[should_panic(expected = "not declared")]
    fn rejects_an_undeclared_name() {
        let _ = recorder().counter(&Key::from_name("other_total"));
    }

    #[test]
    #[should_panic(expected = "other labels")]
    fn rejects_undeclared_labels() {
        let _ = recorder().counter(&Key::from_parts(COUNTER.name, vec![Label::new("code", "200")]));
    }
}
