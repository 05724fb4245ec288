//! Metrics of scrapes.

use crate::encoding::encode::Coding;
use crate::telemetry::OwnMetric;

const SCRAPES: OwnMetric = OwnMetric::gauge("sluicegate_scrapes", "Number of scrapes in progress.");
const REJECTED: OwnMetric = OwnMetric::counter(
    "sluicegate_scrapes_refused_total",
    "Total number of scrapes rejected because too many were in progress.",
);
const EVICTED: OwnMetric = OwnMetric::counter(
    "sluicegate_responses_evicted_total",
    "Total number of responses that were ended because the client read nothing and another one needed the slot, by kind: \
     scrape or groups.",
)
.with_labels(&["kind"]);
const DURATION: OwnMetric = OwnMetric::summary(
    "sluicegate_scrape_duration_seconds",
    "Duration of scrapes in seconds, from the request to the end of the response, by encoding.",
)
.with_labels(&["encoding"]);
const SIZE: OwnMetric = OwnMetric::summary(
    "sluicegate_scrape_size_bytes",
    "Size of the responses to scrapes in bytes, as sent, by encoding.",
)
.with_labels(&["encoding"]);

pub(crate) const METRICS: &[OwnMetric] = &[SCRAPES, REJECTED, EVICTED, DURATION, SIZE];

/// Creates all series, so that the first scrape does not add any.
pub(crate) fn create_series() {
    for coding in Coding::ALL {
        let _ = metrics::histogram!(DURATION.name, "encoding" => coding.name());
        let _ = metrics::histogram!(SIZE.name, "encoding" => coding.name());
    }
    let _ = metrics::counter!(REJECTED.name);
}

/// Sets the number of scrapes in progress.
pub(crate) fn set_in_progress(scrapes: usize) {
    metrics::gauge!(SCRAPES.name).set(scrapes as f64);
}

/// Sets how many responses of each kind have lost their slot.
pub(crate) fn set_evicted(scrapes: u64, groups: u64) {
    for (kind, evicted) in [("scrape", scrapes), ("groups", groups)] {
        metrics::counter!(EVICTED.name, "kind" => kind).absolute(evicted);
    }
}

/// Counts a scrape that was rejected because too many were in progress.
pub(crate) fn count_rejected() {
    metrics::counter!(REJECTED.name).increment(1);
}

/// Records the size of a response.
pub(crate) fn record_size(encoding: &'static str, bytes: u64) {
    metrics::histogram!(SIZE.name, "encoding" => encoding).record(bytes as f64);
}

/// Records the duration of a scrape.
pub(crate) fn record_duration(encoding: &'static str, seconds: f64) {
    metrics::histogram!(DURATION.name, "encoding" => encoding).record(seconds);
}
