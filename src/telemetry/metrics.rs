//! The recorder behind the `metrics` facade.
//!
//! Code counts through handles (`metrics::counter!(names::HTTP_REQUESTS, …)`), which it keeps: to make one takes a lock and a
//! look-up, to use one takes some nanoseconds. Counters and summaries are split over a few slots, and each thread uses its own,
//! so that cores do not fight for a cache line; reading adds the slots up.
//!
//! Not for metrics that are pushed, and not for labels taken from clients: a series that was registered stays.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Label, Metadata, Recorder,
    SetRecorderError, SharedString, Unit,
};
use rustix::time::{ClockId, clock_gettime};

use super::names::{self, Description, OwnKind};
use super::summary::{SlidingSummary, Total};

/// A family with its series, ready to be written in any format.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnFamily {
    /// The name.
    pub name: &'static str,
    /// One sentence for people.
    pub help: &'static str,
    /// The kind; all values are of it.
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
    /// Of a counter or a gauge.
    Single(f64),
    /// Of a summary.
    Summary {
        /// Each quantile with its value over the last ten minutes; NaN when nothing was recorded in them.
        quantiles: Vec<(f64, f64)>,
        /// Of all values ever.
        sum: f64,
        /// Of all values ever.
        count: u64,
    },
}

/// All series of the gateway's own. Clones are the same registry.
#[derive(Debug, Clone, Default)]
pub struct Registry {
    series: Arc<Mutex<Series>>,
}

#[derive(Debug, Default)]
struct Series {
    counters: HashMap<Key, Arc<CounterCell>>,
    gauges: HashMap<Key, Arc<GaugeCell>>,
    summaries: HashMap<Key, Arc<SummaryCell>>,
}

/// Makes a registry the one behind the facade, for the whole process.
pub fn install() -> Result<Registry, SetRecorderError<Registry>> {
    let registry = Registry::default();
    metrics::set_global_recorder(registry.clone())?;
    Ok(registry)
}

impl Registry {
    /// Every series as it is now, sorted by family name, then by labels.
    pub fn gather(&self) -> Vec<OwnFamily> {
        self.gather_at(now_seconds())
    }

    /// A series that is always 1 and whose labels say something.
    pub fn set_info(&self, name: &'static str, labels: &[(&'static str, &str)]) {
        let labels: Vec<Label> =
            labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
        self.gauge(&Key::from_parts(name, labels)).set(1.0);
    }

    fn gather_at(&self, now_seconds: u64) -> Vec<OwnFamily> {
        let mut families = BTreeMap::new();
        {
            let series = lock(&self.series);
            for (key, cell) in &series.counters {
                add(&mut families, key, OwnValue::Single(cell.total() as f64));
            }
            for (key, cell) in &series.gauges {
                add(&mut families, key, OwnValue::Single(cell.get()));
            }
            for (key, cell) in &series.summaries {
                add(&mut families, key, cell.value(now_seconds));
            }
        }
        let mut families: Vec<OwnFamily> = families.into_values().collect();
        for family in &mut families {
            family.samples.sort_by(|a, b| a.labels.cmp(&b.labels));
        }
        families
    }

    fn counter(&self, key: &Key) -> Counter {
        let Some(_) = described(key, OwnKind::Counter) else { return Counter::noop() };
        lock(&self.series).counters.entry(canonical(key)).or_default().clone().into()
    }

    fn gauge(&self, key: &Key) -> Gauge {
        let Some(_) = described(key, OwnKind::Gauge) else { return Gauge::noop() };
        lock(&self.series).gauges.entry(canonical(key)).or_default().clone().into()
    }

    fn summary(&self, key: &Key) -> Histogram {
        let Some(description) = described(key, OwnKind::Summary) else { return Histogram::noop() };
        let new = || Arc::new(SummaryCell::new(description.resolution()));
        lock(&self.series).summaries.entry(canonical(key)).or_insert_with(new).clone().into()
    }
}

/// The description of a key's family, if it has one of this kind. Families have to be known before the first scrape, so there is
/// no counting under other names.
fn described(key: &Key, kind: OwnKind) -> Option<&'static Description> {
    let description = names::describe(key.name()).filter(|description| description.kind == kind);
    debug_assert!(description.is_some(), "{} is not described as a {kind:?}", key.name());
    description
}

/// The key with its labels sorted: the order in which code names them makes no other series.
fn canonical(key: &Key) -> Key {
    let (name, mut labels) = key.clone().into_parts();
    labels.sort();
    Key::from_parts(name, labels)
}

fn add(families: &mut BTreeMap<&'static str, OwnFamily>, key: &Key, value: OwnValue) {
    let Some(&Description { name, help, kind }) = names::describe(key.name()) else { return };
    let owned = |label: &Label| (Cow::Owned(label.key().to_owned()), Cow::Owned(label.value().to_owned()));
    let labels = key.labels().map(owned).collect();
    families
        .entry(name)
        .or_insert_with(|| OwnFamily { name, help, kind, samples: Vec::new() })
        .samples
        .push(OwnSample { labels, value });
}

/// Help and units are in [`names`], so what the facade can tell of them is not needed.
impl Recorder for Registry {
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

/// Over how many slots a series is split. More threads than slots share; that is slower, not wrong.
const SLOTS: usize = 16;

/// The slot of the calling thread.
fn slot() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SLOT: Cell<usize> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed) % SLOTS);
    }
    SLOT.with(Cell::get)
}

/// Alone on its cache lines; two, because processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Alone<T>(T);

/// Nothing that is guarded here is left half done by a panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds of a clock that never jumps. The coarse clock costs a quarter of the fine one, and windows are minutes long.
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

    /// Takes over a total that somebody else counts, if it is larger. Not for counters that are incremented as well.
    fn absolute(&self, value: u64) {
        self.slots[0].0.fetch_max(value, Ordering::Relaxed);
    }
}

/// The bits of a float. A gauge is set by one thread, or is rare, so it is not split.
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
}

impl SummaryCell {
    fn new(resolution: f64) -> Self {
        Self {
            resolution,
            slots: std::array::from_fn(|_| Alone(Mutex::new(SlidingSummary::new(resolution)))),
        }
    }

    fn record_at(&self, value: f64, now_seconds: u64) {
        lock(&self.slots[slot()].0).record(value, now_seconds);
    }

    fn value(&self, now_seconds: u64) -> OwnValue {
        let mut total = Total::new(self.resolution);
        for slot in &self.slots {
            total.add(&lock(&slot.0), now_seconds);
        }
        OwnValue::Summary { quantiles: total.quantiles(), sum: total.sum(), count: total.count() }
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

    fn label(name: &'static str, value: &'static str) -> (Cow<'static, str>, Cow<'static, str>) {
        (name.into(), value.into())
    }

    fn single(labels: Vec<(Cow<'static, str>, Cow<'static, str>)>, value: f64) -> OwnSample {
        OwnSample { labels, value: OwnValue::Single(value) }
    }

    #[test]
    fn families_and_series_come_sorted() {
        let registry = Registry::default();
        metrics::with_local_recorder(&registry, || {
            metrics::gauge!(names::SERIES, "core" => "1").set(7.0);
            metrics::gauge!(names::SERIES, "core" => "0").set(3.5);
            metrics::counter!(names::HTTP_REQUESTS, "method" => "put", "code" => "200", "handler" => "push")
                .increment(2);
            metrics::counter!(names::HTTP_REQUESTS, "code" => "200", "handler" => "push", "method" => "put")
                .increment(0);
        });
        let families = registry.gather();
        assert_eq!(
            families.iter().map(|family| family.name).collect::<Vec<_>>(),
            [names::HTTP_REQUESTS, names::SERIES]
        );
        assert_eq!(families[0].kind, OwnKind::Counter);
        assert_eq!(
            families[0].samples[0].labels,
            [label("code", "200"), label("handler", "push"), label("method", "put")]
        );
        assert_eq!(
            families[1].samples,
            [single(vec![label("core", "0")], 3.5), single(vec![label("core", "1")], 7.0)]
        );
    }

    #[test]
    fn threads_add_up() {
        let registry = Registry::default();
        let counter = registry.counter(&Key::from_name(names::SCRAPES_REFUSED));
        let gauge = registry.gauge(&Key::from_name(names::CONNECTIONS));
        let summary = registry.summary(&Key::from_name(names::SCRAPE_SIZE));
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
        let families = registry.gather();
        let expected = (2 * SLOTS * 100) as f64;
        assert_eq!(families[0].samples, [single(vec![], expected)]);
        let OwnValue::Summary { quantiles, sum, count } = &families[1].samples[0].value else {
            panic!("no summary")
        };
        assert_eq!(*quantiles, [(0.1, 9.0), (0.5, 49.0), (0.9, 89.0)]);
        assert_eq!((*sum, *count), (expected * 49.5, expected as u64));
        assert_eq!(families[2].samples, [single(vec![], expected)]);
    }

    #[test]
    fn a_quiet_summary_has_no_quantiles_but_keeps_its_sum() {
        let registry = Registry::default();
        registry.summary(&Key::from_name(names::SCRAPE_DURATION)).record(0.25);
        let families = registry.gather_at(now_seconds() + 720);
        let OwnValue::Summary { quantiles, sum, count } = &families[0].samples[0].value else {
            panic!("no summary")
        };
        assert!(quantiles.iter().all(|(_, value)| value.is_nan()));
        assert_eq!((*sum, *count), (0.25, 1));
    }

    #[test]
    fn a_total_from_elsewhere_never_falls() {
        let registry = Registry::default();
        let counter = registry.counter(&Key::from_name(names::SCRAPES_REFUSED));
        counter.absolute(5);
        counter.absolute(3);
        assert_eq!(registry.gather()[0].samples, [single(vec![], 5.0)]);
    }

    #[test]
    fn infos_are_one() {
        let registry = Registry::default();
        registry.set_info(names::RUNTIME_INFO, &[("driver", "epoll"), ("cores", "2")]);
        let families = registry.gather();
        assert_eq!(families[0].samples, [single(vec![label("cores", "2"), label("driver", "epoll")], 1.0)]);
    }

    #[test]
    #[should_panic(expected = "not described")]
    fn an_unknown_name_is_a_slip() {
        let _ = Registry::default().counter(&Key::from_name("sluicegate_nothing_total"));
    }
}
