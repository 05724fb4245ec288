//! Metrics of the endpoints.

use crate::telemetry::OwnMetric;

const REJECTIONS: OwnMetric =
    OwnMetric::counter("sluicegate_push_refusals_total", "Total number of rejected pushes, by reason.")
        .with_labels(&["reason"]);

const ACCESS_REJECTIONS: OwnMetric = OwnMetric::counter(
    "sluicegate_access_refusals_total",
    "Total number of requests that the web configuration file refused, by reason.",
)
.with_labels(&["reason"]);

const HEALTHY: OwnMetric =
    OwnMetric::gauge("sluicegate_healthy", "1 if `/-/healthy` returns 200, 0 if it returns 500.");

pub(crate) const METRICS: &[OwnMetric] = &[REJECTIONS, ACCESS_REJECTIONS, HEALTHY];

/// Shows the health check in scrapes.
pub(super) fn set_healthy(is_healthy: bool) {
    metrics::gauge!(HEALTHY.name).set(if is_healthy { 1.0 } else { 0.0 });
}

/// Why a push was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PushRejection {
    /// It contradicts the metrics of other groups, or itself.
    Inconsistent,
    /// Its group would have the same push times as another group.
    SamePushTimes,
    /// Too many pushes wait for the core.
    QueueFull,
    /// Its rendered lines exceed the limit.
    TooLarge,
    /// It would exceed a limit on everything that the gateway contains.
    OverLimit,
}

impl PushRejection {
    const ALL: [Self; 5] =
        [Self::Inconsistent, Self::SamePushTimes, Self::QueueFull, Self::TooLarge, Self::OverLimit];

    /// The value of the label `reason`.
    const fn name(self) -> &'static str {
        match self {
            Self::Inconsistent => "inconsistent",
            Self::SamePushTimes => "not_admitted",
            Self::QueueFull => "queue_full",
            Self::TooLarge => "too_large",
            Self::OverLimit => "over_limit",
        }
    }
}

/// Why the web configuration file refuses a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AccessRejection {
    /// There are more requests than the rate limit allows.
    RateLimit,
    /// Name or password are wrong or missing.
    Unauthorized,
    /// Too many passwords wait to be checked.
    Busy,
}

impl AccessRejection {
    const ALL: [Self; 3] = [Self::RateLimit, Self::Unauthorized, Self::Busy];

    /// The value of the label `reason`.
    const fn name(self) -> &'static str {
        match self {
            Self::RateLimit => "rate_limit",
            Self::Unauthorized => "unauthorized",
            Self::Busy => "busy",
        }
    }
}

/// Creates all series, so that rates are correct from the first rejected push on.
pub(crate) fn create_series() {
    for rejection in PushRejection::ALL {
        let _ = metrics::counter!(REJECTIONS.name, "reason" => rejection.name());
    }
    for rejection in AccessRejection::ALL {
        let _ = metrics::counter!(ACCESS_REJECTIONS.name, "reason" => rejection.name());
    }
}

/// Counts a rejected push.
pub(super) fn count_rejection(rejection: PushRejection) {
    metrics::counter!(REJECTIONS.name, "reason" => rejection.name()).increment(1);
}

/// Counts a request that the web configuration file refused.
pub(super) fn count_access_rejection(rejection: AccessRejection) {
    metrics::counter!(ACCESS_REJECTIONS.name, "reason" => rejection.name()).increment(1);
}
