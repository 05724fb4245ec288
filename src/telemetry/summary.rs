//! Quantiles over the last ten minutes.
//!
//! The ten minutes consist of five windows of two minutes. A value is added to the window of its time, and quantiles are computed
//! over the last five windows. They therefore cover the last eight to ten minutes, as in the official program. Sum and count
//! cover all values since the start.

use hdrhistogram::Histogram;

/// The quantiles of a summary.
pub(super) const QUANTILES: [f64; 3] = [0.1, 0.5, 0.9];

const WINDOWS: u64 = 5;
const WINDOW_SECONDS: u64 = 120;
/// The error of a quantile is at most one percent.
const SIGNIFICANT_DIGITS: u8 = 2;
/// Larger values count as this one, which limits a window to 20 KB: an hour in nanoseconds, or 4 TiB in bytes.
const STEPS_MAX: u64 = 1 << 42;

/// The values that one slot of a series recorded; [`Total`] merges the slots.
#[derive(Debug)]
pub(super) struct SlidingSummary {
    /// The step in which values are recorded: 1e-9 for seconds, 1 for bytes.
    resolution: f64,
    /// A ring: window `n` is at `n % WINDOWS`. Windows are allocated at their first value, because most are never used.
    windows: [Option<Window>; WINDOWS as usize],
    sum: f64,
    count: u64,
}

#[derive(Debug)]
struct Window {
    number: u64,
    values: Histogram<u32>,
}

impl SlidingSummary {
    pub(super) fn new(resolution: f64) -> Self {
        Self { resolution, windows: Default::default(), sum: 0.0, count: 0 }
    }

    /// The number of values since the start.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Records a value at a time in seconds since any fixed point.
    pub(super) fn record(&mut self, value: f64, now_seconds: u64) {
        self.sum += value;
        self.count += 1;
        let number = window_at(now_seconds);
        let slot = &mut self.windows[(number % WINDOWS) as usize];
        let window = slot.get_or_insert_with(|| Window { number, values: histogram() });
        if window.number != number {
            window.number = number;
            window.values.reset();
        }
        // The cast saturates: negative values and NaN become 0.
        let steps = ((value / self.resolution).round() as u64).min(STEPS_MAX);
        window.values.record(steps).expect("the histogram grows as far as STEPS_MAX");
    }
}

/// The number of the window at a time.
pub(super) fn window_at(now_seconds: u64) -> u64 {
    now_seconds / WINDOW_SECONDS
}

fn histogram() -> Histogram<u32> {
    let mut values = Histogram::new(SIGNIFICANT_DIGITS).expect("a valid number of digits");
    values.auto(true);
    values
}

/// The merged values of several slots.
pub(super) struct Total {
    resolution: f64,
    recent: Histogram<u32>,
    sum: f64,
    count: u64,
}

impl Total {
    pub(super) fn new(resolution: f64) -> Self {
        Self { resolution, recent: histogram(), sum: 0.0, count: 0 }
    }

    pub(super) fn add(&mut self, summary: &SlidingSummary, now_seconds: u64) {
        self.sum += summary.sum;
        self.count += summary.count;
        let now = window_at(now_seconds);
        for window in summary.windows.iter().flatten() {
            // A window may be newer than `now`, because the recording thread read the clock later.
            if window.number + WINDOWS > now {
                self.recent.add(&window.values).expect("a histogram that resizes holds every value");
            }
        }
    }

    /// Each quantile with its value; NaN if there are no recent values.
    pub(super) fn quantiles(&self) -> Vec<(f64, f64)> {
        QUANTILES.map(|quantile| (quantile, self.quantile(quantile))).to_vec()
    }

    fn quantile(&self, quantile: f64) -> f64 {
        if self.recent.is_empty() {
            return f64::NAN;
        }
        let steps = self.recent.value_at_quantile(quantile);
        // Dividing by a whole number gives the nearest float, multiplying by 1e-9 may not: 0.003, not 0.0030000000000000001.
        steps as f64 / (1.0 / self.resolution).round()
    }

    pub(super) fn sum(&self) -> f64 {
        self.sum
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn total(summaries: &[SlidingSummary], now_seconds: u64) -> Total {
        let mut total = Total::new(summaries[0].resolution);
        summaries.iter().for_each(|summary| total.add(summary, now_seconds));
        total
    }

    #[test]
    fn quantiles_drop_old_values_and_sums_keep_them() {
        let mut summary = SlidingSummary::new(1.0);
        summary.record(100.0, 0);
        summary.record(200.0, 130);
        let summaries = [summary];
        let at = |now| {
            let total = total(&summaries, now);
            (
                total.quantiles().iter().map(|(_, value)| *value).collect::<Vec<_>>(),
                total.sum(),
                total.count(),
            )
        };
        assert_eq!(at(130), (vec![100.0, 100.0, 200.0], 300.0, 2));
        assert_eq!(at(599), (vec![100.0, 100.0, 200.0], 300.0, 2));
        assert_eq!(at(600), (vec![200.0, 200.0, 200.0], 300.0, 2));
        let (quantiles, sum, count) = at(720);
        assert!(quantiles.iter().all(|value| value.is_nan()));
        assert_eq!((sum, count), (300.0, 2));
    }

    #[test]
    fn small_values_are_exact() {
        let mut summary = SlidingSummary::new(1e-9);
        summary.record(100e-9, 0);
        assert_eq!(total(&[summary], 0).quantiles(), [(0.1, 100e-9), (0.5, 100e-9), (0.9, 100e-9)]);
    }

    #[test]
    fn accepts_zero_negative_and_huge_values() {
        let mut summary = SlidingSummary::new(1e-9);
        for value in [0.0, -1.0, f64::MAX, 1e300] {
            summary.record(value, 0);
        }
        let total = total(&[summary], 0);
        assert_eq!(total.count(), 4);
        assert!(total.quantile(0.9) > 4000.0);
    }

    /// The reference implementation: keeps every value with its time, and sorts.
    #[derive(Debug, Default)]
    struct Reference(Vec<(u64, f64)>);

    impl Reference {
        fn quantile(&self, quantile: f64, now: u64) -> f64 {
            let oldest = (now / WINDOW_SECONDS).saturating_sub(WINDOWS - 1) * WINDOW_SECONDS;
            let mut recent: Vec<f64> =
                self.0.iter().filter(|(time, _)| *time >= oldest).map(|(_, v)| *v).collect();
            recent.sort_by(f64::total_cmp);
            let rank = (quantile * recent.len() as f64).ceil().max(1.0) as usize;
            recent.get(rank - 1).copied().unwrap_or(f64::NAN)
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_reference_implementation(
            steps in proptest::collection::vec((0_u64..200, 0_u64..5_000_000, 0_usize..3), 1..200),
            pause in 0_u64..900,
        ) {
            let mut summaries = [const { 1.0 }; 3].map(SlidingSummary::new);
            let mut reference = Reference::default();
            let mut now = 0;
            for (step, value, recorder) in steps {
                now += step;
                summaries[recorder].record(value as f64, now);
                reference.0.push((now, value as f64));
            }
            now += pause;
            let total = total(&summaries, now);
            prop_assert_eq!(total.count(), reference.0.len() as u64);
            prop_assert_eq!(total.sum(), reference.0.iter().map(|(_, value)| value).sum::<f64>());
            for (quantile, value) in total.quantiles() {
                let expected = reference.quantile(quantile, now);
                let near = (value - expected).abs() <= expected * 0.01;
                prop_assert!(near || (value.is_nan() && expected.is_nan()), "{quantile}: {value}, not {expected}");
            }
        }
    }
}
