//! Metrics of the memory for requests, and of delays on cores.

use super::budget::Budget;
use super::stalls::Stalls;
use crate::telemetry::OwnMetric;

const IN_FLIGHT: OwnMetric = OwnMetric::gauge(
    "sluicegate_in_flight_bytes",
    "Memory of requests and responses in progress in bytes, as counted for --memory.in-flight-max.",
);
const IN_FLIGHT_MAX: OwnMetric = OwnMetric::gauge(
    "sluicegate_in_flight_max_bytes",
    "Maximum of sluicegate_in_flight_bytes, beyond which requests are rejected; +Inf without a limit.",
);
const REJECTED: OwnMetric = OwnMetric::counter(
    "sluicegate_in_flight_refusals_total",
    "Total number of times that memory for a request or response did not fit into --memory.in-flight-max.",
);

const DELAY_MAX: OwnMetric = OwnMetric::gauge(
    "sluicegate_core_delay_max_seconds",
    "Longest time in the last minute for which a core kept a timer waiting in seconds, of one sample each 50 milliseconds, by core.",
)
.with_labels(&["core"]);
const STALLS: OwnMetric = OwnMetric::counter(
    "sluicegate_core_stalls_total",
    "Total number of times that a core kept a timer waiting for more than a second, by core.",
)
.with_labels(&["core"]);

pub(crate) const METRICS: &[OwnMetric] = &[IN_FLIGHT, IN_FLIGHT_MAX, REJECTED, DELAY_MAX, STALLS];

/// Shows the delays of all cores.
pub(crate) fn set_delays(stalls: &Stalls) {
    for (core, (delay_seconds, count)) in stalls.delays().enumerate() {
        let core = core.to_string();
        metrics::gauge!(DELAY_MAX.name, "core" => core.clone()).set(delay_seconds);
        metrics::counter!(STALLS.name, "core" => core).absolute(count);
    }
}

/// Sets the metrics from the counts of all cores.
pub(crate) fn set(budget: &Budget) {
    metrics::gauge!(IN_FLIGHT.name).set(budget.in_flight() as f64);
    metrics::gauge!(IN_FLIGHT_MAX.name).set(budget.bytes_max().map_or(f64::INFINITY, |max| max as f64));
    metrics::counter!(REJECTED.name).absolute(budget.rejected());
}
