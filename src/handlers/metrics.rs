//! Metrics of the endpoints.

use crate::telemetry::OwnMetric;

const PUSH_REFUSALS: OwnMetric =
    OwnMetric::counter("sluicegate_push_refusals_total", "Total number of rejected pushes, by reason.")
        .with_labels(&["reason"]);

pub(crate) const METRICS: &[OwnMetric] = &[PUSH_REFUSALS];

/// Why a push was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PushRefusal {
    /// It contradicts the metrics of other groups, or itself.
    Inconsistent,
    /// Its grouping key must not be created.
    NotAdmitted,
    /// Too many pushes wait for the core.
    QueueFull,
    /// Its rendered lines exceed the limit.
    TooLarge,
}

impl PushRefusal {
    const ALL: [Self; 4] = [Self::Inconsistent, Self::NotAdmitted, Self::QueueFull, Self::TooLarge];

    /// The value of the label `reason`.
    const fn name(self) -> &'static str {
        match self {
            Self::Inconsistent => "inconsistent",
            Self::NotAdmitted => "not_admitted",
            Self::QueueFull => "queue_full",
            Self::TooLarge => "too_large",
        }
    }
}

/// Creates all series, so that rates are correct from the first rejected push on.
pub(crate) fn create_series() {
    for refusal in PushRefusal::ALL {
        let _ = metrics::counter!(PUSH_REFUSALS.name, "reason" => refusal.name());
    }
}

/// Counts a rejected push.
pub(super) fn count_refusal(refusal: PushRefusal) {
    metrics::counter!(PUSH_REFUSALS.name, "reason" => refusal.name()).increment(1);
}
