//! Metrics of the cores and their shards.

use crate::shard::Counts;
use crate::shard::registry::Registry;
use crate::telemetry::OwnMetric;

const GROUPS: OwnMetric =
    OwnMetric::gauge("sluicegate_groups", "Number of groups, by core.").with_labels(&["core"]);
const SERIES: OwnMetric =
    OwnMetric::gauge("sluicegate_series", "Number of series, including push times, by core.")
        .with_labels(&["core"]);
const SEGMENTS: OwnMetric =
    OwnMetric::gauge("sluicegate_segments", "Number of segments of rendered text, by core.")
        .with_labels(&["core"]);
const SEGMENT_BYTES: OwnMetric =
    OwnMetric::gauge("sluicegate_segment_bytes", "Size of the rendered text in bytes, by core.")
        .with_labels(&["core"]);
const MAILBOX_PUSHES: OwnMetric =
    OwnMetric::gauge("sluicegate_mailbox_pushes", "Number of pushes waiting for a core, by core.")
        .with_labels(&["core"]);

const STATE: OwnMetric =
    OwnMetric::gauge("sluicegate_state", "What all groups contain, for each quantity that a flag limits.")
        .with_labels(&["limit"]);
const STATE_MAX: OwnMetric =
    OwnMetric::gauge("sluicegate_state_max", "The limit of what all groups contain, by flag.")
        .with_labels(&["limit"]);

pub(crate) const METRICS: &[OwnMetric] =
    &[GROUPS, SERIES, SEGMENTS, SEGMENT_BYTES, MAILBOX_PUSHES, STATE, STATE_MAX];

/// Sets the gauges of one core from the counts of its shard and the number of pushes that wait for it.
pub(crate) fn set_gauges(core: usize, counts: &Counts, waiting_pushes: usize) {
    let core = core.to_string();
    metrics::gauge!(GROUPS.name, "core" => core.clone()).set(counts.groups as f64);
    metrics::gauge!(SERIES.name, "core" => core.clone()).set(counts.series as f64);
    metrics::gauge!(SEGMENTS.name, "core" => core.clone()).set(counts.segments as f64);
    metrics::gauge!(SEGMENT_BYTES.name, "core" => core.clone()).set(counts.bytes as f64);
    metrics::gauge!(MAILBOX_PUSHES.name, "core" => core).set(waiting_pushes as f64);
}

/// Sets the gauges of the limits on all groups. Without a limit, there is no series.
pub(crate) fn set_limit_gauges(registry: &Registry) {
    for (quantity, total, max) in registry.limited() {
        metrics::gauge!(STATE.name, "limit" => quantity.flag()).set(total as f64);
        metrics::gauge!(STATE_MAX.name, "limit" => quantity.flag()).set(max as f64);
    }
}
