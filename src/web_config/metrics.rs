//! Metrics of the web configuration file. They exist only if there is one.

use crate::runtime::now_seconds;
use crate::telemetry::OwnMetric;

const SUCCESSFUL: OwnMetric = OwnMetric::gauge(
    "sluicegate_web_config_reload_successful",
    "1 if the current content of the web configuration file and of the files that it names is in force, 0 if it is invalid.",
);
const SUCCESS_TIME: OwnMetric = OwnMetric::gauge(
    "sluicegate_web_config_reload_success_timestamp_seconds",
    "Unix time in seconds at which the web configuration was last read successfully after a change.",
);

pub(crate) const METRICS: &[OwnMetric] = &[SUCCESSFUL, SUCCESS_TIME];

pub(super) fn set_success() {
    metrics::gauge!(SUCCESSFUL.name).set(1.0);
    metrics::gauge!(SUCCESS_TIME.name).set(now_seconds());
}

pub(super) fn set_failure() {
    metrics::gauge!(SUCCESSFUL.name).set(0.0);
}
