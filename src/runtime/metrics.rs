//! Metrics of the memory for requests.

use super::budget::Budget;
use crate::telemetry::OwnMetric;

const IN_FLIGHT: OwnMetric = OwnMetric::gauge(
    "sluicegate_in_flight_bytes",
    "Memory of requests and responses in progress in bytes, as counted for --memory.in-flight-max.",
);
const IN_FLIGHT_MAX: OwnMetric = OwnMetric::gauge(
    "sluicegate_in_flight_max_bytes",
    "Maximum of sluicegate_in_flight_bytes, beyond which requests get 503; +Inf without a limit.",
);
const REJECTED: OwnMetric = OwnMetric::counter(
    "sluicegate_in_flight_refusals_total",
    "Total number of requests rejected because too much memory was in use by others.",
);

pub(crate) const METRICS: &[OwnMetric] = &[IN_FLIGHT, IN_FLIGHT_MAX, REJECTED];

/// Sets the metrics from the counts of all cores.
pub(crate) fn set(budget: &Budget) {
    metrics::gauge!(IN_FLIGHT.name).set(budget.in_flight() as f64);
    metrics::gauge!(IN_FLIGHT_MAX.name).set(budget.bytes_max().map_or(f64::INFINITY, |max| max as f64));
    metrics::counter!(REJECTED.name).absolute(budget.rejected());
}
