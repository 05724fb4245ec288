//! Metrics of connections.

use crate::telemetry::OwnMetric;

use super::limits::{Connections, Handshake, Limits, Timeout};

const CONNECTIONS: OwnMetric = OwnMetric::gauge("sluicegate_connections", "Number of open connections.");
const CONNECTIONS_MAX: OwnMetric = OwnMetric::gauge(
    "sluicegate_connections_max",
    "Maximum number of open connections, as the flag or the limit of open files allows; +Inf without a limit.",
);
const ACCEPTED: OwnMetric =
    OwnMetric::counter("sluicegate_connections_accepted_total", "Total number of accepted connections.");
const REJECTED: OwnMetric = OwnMetric::counter(
    "sluicegate_connections_refused_total",
    "Total number of connections rejected because too many were open.",
);
const CLOSED_FOR_ROOM: OwnMetric = OwnMetric::counter(
    "sluicegate_connections_closed_for_room_total",
    "Total number of connections closed while they waited for the client, because too many were open.",
);
const TIMEOUTS: OwnMetric = OwnMetric::counter(
    "sluicegate_timeouts_total",
    "Total number of connections that exceeded a time limit, by phase: head, request or response.",
)
.with_labels(&["phase"]);
const HANDSHAKES: OwnMetric = OwnMetric::counter(
    "sluicegate_tls_handshakes_total",
    "Total number of TLS handshakes, by result: full, resumed, failed, not_tls or timeout.",
)
.with_labels(&["result"]);

pub(crate) const METRICS: &[OwnMetric] =
    &[CONNECTIONS, CONNECTIONS_MAX, ACCEPTED, REJECTED, CLOSED_FOR_ROOM, TIMEOUTS, HANDSHAKES];

/// Sets the metrics that do not change.
pub(crate) fn set_limits(limits: &Limits) {
    let max = limits.connections_max.map_or(f64::INFINITY, |max| max as f64);
    metrics::gauge!(CONNECTIONS_MAX.name).set(max);
}

/// Sets the metrics from the counts of all cores.
pub(crate) fn set(connections: &Connections) {
    metrics::gauge!(CONNECTIONS.name).set(connections.current() as f64);
    metrics::counter!(ACCEPTED.name).absolute(connections.accepted());
    metrics::counter!(REJECTED.name).absolute(connections.rejected());
    metrics::counter!(CLOSED_FOR_ROOM.name).absolute(connections.closed_for_room());
    for timeout in Timeout::ALL {
        metrics::counter!(TIMEOUTS.name, "phase" => timeout.name()).absolute(connections.timed_out(timeout));
    }
    for outcome in Handshake::ALL {
        metrics::counter!(HANDSHAKES.name, "result" => outcome.name())
            .absolute(connections.handshakes(outcome));
    }
}
