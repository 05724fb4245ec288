//! Metrics of the store.

use crate::telemetry::OwnMetric;

use super::store::Store;

pub(crate) const INFO: OwnMetric = OwnMetric::gauge(
    "sluicegate_storage_info",
    "A metric with a constant '1' value labeled by the storage engine and by what an acknowledged push survives.",
)
.with_labels(&["backend", "durability"]);
pub(super) const COMMIT_DURATION: OwnMetric = OwnMetric::summary(
    "sluicegate_storage_commit_duration_seconds",
    "Duration of the commits of the storage engine in seconds.",
);
pub(super) const BATCH_CHANGES: OwnMetric =
    OwnMetric::summary("sluicegate_storage_batch_changes", "Number of changes in a commit.");
const QUEUE_CHANGES: OwnMetric =
    OwnMetric::gauge("sluicegate_storage_queue_changes", "Number of changes waiting for the storage engine.");
const QUEUE_BYTES: OwnMetric = OwnMetric::gauge(
    "sluicegate_storage_queue_bytes",
    "Size of the changes waiting for the storage engine in bytes.",
);
const LOG_BYTES: OwnMetric = OwnMetric::gauge(
    "sluicegate_storage_log_bytes",
    "Size of the log that a restart reads in addition to the archives, in bytes.",
);
const ARCHIVE_BYTES: OwnMetric = OwnMetric::gauge(
    "sluicegate_storage_archive_bytes",
    "Size of the archives, or of the database files, in bytes.",
);
const ARCHIVE_AGE: OwnMetric = OwnMetric::gauge(
    "sluicegate_storage_archive_age_seconds",
    "Time since the archives, or the database files, were last written completely, in seconds.",
);
const RESTORE_SECONDS: OwnMetric =
    OwnMetric::gauge("sluicegate_storage_restore_seconds", "Duration of the last restore in seconds.");
const FAILED: OwnMetric = OwnMetric::gauge(
    "sluicegate_storage_failed",
    "1 if storage has failed and writes are rejected until it recovers, otherwise 0.",
);
const BACKGROUND_ERROR: OwnMetric = OwnMetric::gauge(
    "sluicegate_storage_background_error",
    "1 if the storage engine has a background error that does not affect commits (see the log), otherwise 0.",
);
const CONTRADICTORY_GROUPS: OwnMetric = OwnMetric::gauge(
    "sluicegate_storage_contradictory_groups",
    "Number of groups that contradicted others when they were restored, and lost their metrics.",
);

pub(crate) const METRICS: &[OwnMetric] = &[
    INFO,
    COMMIT_DURATION,
    BATCH_CHANGES,
    QUEUE_CHANGES,
    QUEUE_BYTES,
    LOG_BYTES,
    ARCHIVE_BYTES,
    ARCHIVE_AGE,
    RESTORE_SECONDS,
    FAILED,
    BACKGROUND_ERROR,
    CONTRADICTORY_GROUPS,
];

/// Sets the gauges from the store's own counts.
pub(crate) fn set_gauges(store: &Store) {
    let (stats, (changes, bytes)) = (store.stats(), store.queued());
    metrics::gauge!(QUEUE_CHANGES.name).set(changes as f64);
    metrics::gauge!(QUEUE_BYTES.name).set(bytes as f64);
    metrics::gauge!(LOG_BYTES.name).set(stats.log_bytes.unwrap_or_default() as f64);
    metrics::gauge!(ARCHIVE_BYTES.name).set(stats.archive_bytes as f64);
    if let Some(seconds) = stats.archive_age_seconds {
        metrics::gauge!(ARCHIVE_AGE.name).set(seconds);
    }
    metrics::gauge!(RESTORE_SECONDS.name).set(stats.restore_seconds);
    metrics::gauge!(FAILED.name).set(if store.is_ready() { 0.0 } else { 1.0 });
    metrics::gauge!(BACKGROUND_ERROR.name).set(if stats.background_error.is_some() { 1.0 } else { 0.0 });
    metrics::gauge!(CONTRADICTORY_GROUPS.name).set(store.contradictions() as f64);
}
