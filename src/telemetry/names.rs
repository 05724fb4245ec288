//! Every metric of the gateway's own, described once.
//!
//! Names and help of `pushgateway_*`, `process_*` and the push times are those of the official program: dashboards and alerts
//! know them, and where a push adds series to such a family, its help stays. `sluicegate_*` are ours. A name that is missing here
//! is not recorded.

/// The kind of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Quantiles, sum and count.
    Summary,
}

/// What is known of a family before anything was recorded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Description {
    /// The name of the family.
    pub name: &'static str,
    /// One sentence for people.
    pub help: &'static str,
    /// The kind of the family.
    pub kind: OwnKind,
}

impl Description {
    /// The step in which the values of a summary are kept: nanoseconds where the name says seconds, else whole numbers.
    pub(super) fn resolution(&self) -> f64 {
        if self.name.ends_with("_seconds") { 1e-9 } else { 1.0 }
    }
}

/// When a group was last changed; one series per group, made where groups are kept.
pub const PUSH_TIME: &str = "push_time_seconds";
/// When a change of a group last failed; one series per group, made where groups are kept.
pub const PUSH_FAILURE_TIME: &str = "push_failure_time_seconds";

/// Labels tell of the build.
pub const BUILD_INFO: &str = "pushgateway_build_info";
/// Labels: `code`, `handler`, `method`.
pub const HTTP_REQUESTS: &str = "pushgateway_http_requests_total";
/// Label: `method`.
pub const HTTP_PUSH_DURATION: &str = "pushgateway_http_push_duration_seconds";
/// Label: `method`.
pub const HTTP_PUSH_SIZE: &str = "pushgateway_http_push_size_bytes";

/// Labels: `driver`, `cores`.
pub const RUNTIME_INFO: &str = "sluicegate_runtime_info";
/// Label: `core`.
pub const GROUPS: &str = "sluicegate_groups";
/// Label: `core`.
pub const SERIES: &str = "sluicegate_series";
/// Label: `core`.
pub const SEGMENTS: &str = "sluicegate_segments";
/// Label: `core`.
pub const SEGMENT_BYTES: &str = "sluicegate_segment_bytes";
/// Label: `core`.
pub const MAILBOX_PUSHES: &str = "sluicegate_mailbox_pushes";
/// Label: `reason`.
pub const PUSH_REFUSALS: &str = "sluicegate_push_refusals_total";
/// No labels.
pub const CONNECTIONS: &str = "sluicegate_connections";
/// No labels.
pub const CONNECTIONS_ACCEPTED: &str = "sluicegate_connections_accepted_total";
/// No labels.
pub const CONNECTIONS_REFUSED: &str = "sluicegate_connections_refused_total";
/// Label: `phase`.
pub const TIMEOUTS: &str = "sluicegate_timeouts_total";
/// No labels.
pub const SCRAPES: &str = "sluicegate_scrapes";
/// No labels.
pub const SCRAPES_REFUSED: &str = "sluicegate_scrapes_refused_total";
/// Label: `encoding`.
pub const SCRAPE_DURATION: &str = "sluicegate_scrape_duration_seconds";
/// Label: `encoding`.
pub const SCRAPE_SIZE: &str = "sluicegate_scrape_size_bytes";

/// Labels: `backend`, `durability`.
pub const STORAGE_INFO: &str = "sluicegate_storage_info";
/// No labels.
pub const STORAGE_COMMIT_DURATION: &str = "sluicegate_storage_commit_duration_seconds";
/// No labels.
pub const STORAGE_BATCH: &str = "sluicegate_storage_batch_changes";
/// No labels.
pub const STORAGE_QUEUE: &str = "sluicegate_storage_queue_changes";
/// No labels.
pub const STORAGE_QUEUE_BYTES: &str = "sluicegate_storage_queue_bytes";
/// No labels.
pub const STORAGE_LOG_BYTES: &str = "sluicegate_storage_log_bytes";
/// No labels.
pub const STORAGE_ARCHIVE_BYTES: &str = "sluicegate_storage_archive_bytes";
/// No labels.
pub const STORAGE_ARCHIVE_AGE: &str = "sluicegate_storage_archive_age_seconds";
/// No labels.
pub const STORAGE_RESTORE_SECONDS: &str = "sluicegate_storage_restore_seconds";
/// No labels.
pub const STORAGE_FAILED: &str = "sluicegate_storage_failed";
/// No labels.
pub const STORAGE_TROUBLE: &str = "sluicegate_storage_trouble";
/// No labels.
pub const STORAGE_CONTRADICTIONS: &str = "sluicegate_storage_contradictory_groups";

pub(super) const PROCESS_CPU: &str = "process_cpu_seconds_total";
pub(super) const PROCESS_MAX_FDS: &str = "process_max_fds";
pub(super) const PROCESS_NETWORK_RECEIVED: &str = "process_network_receive_bytes_total";
pub(super) const PROCESS_NETWORK_SENT: &str = "process_network_transmit_bytes_total";
pub(super) const PROCESS_OPEN_FDS: &str = "process_open_fds";
pub(super) const PROCESS_RESIDENT_MEMORY: &str = "process_resident_memory_bytes";
pub(super) const PROCESS_START_TIME: &str = "process_start_time_seconds";
pub(super) const PROCESS_VIRTUAL_MEMORY: &str = "process_virtual_memory_bytes";
pub(super) const PROCESS_VIRTUAL_MEMORY_MAX: &str = "process_virtual_memory_max_bytes";

/// All families of the gateway's own, sorted by name: also those that have no series yet, and both push times.
pub fn own_families() -> &'static [Description] {
    &FAMILIES
}

/// The description of one of them.
pub fn describe(name: &str) -> Option<&'static Description> {
    FAMILIES.binary_search_by(|family| family.name.cmp(name)).ok().map(|index| &FAMILIES[index])
}

const fn counter(name: &'static str, help: &'static str) -> Description {
    Description { name, help, kind: OwnKind::Counter }
}

const fn gauge(name: &'static str, help: &'static str) -> Description {
    Description { name, help, kind: OwnKind::Gauge }
}

const fn summary(name: &'static str, help: &'static str) -> Description {
    Description { name, help, kind: OwnKind::Summary }
}

const BUILD_INFO_HELP: &str = "A metric with a constant '1' value labeled by version, revision, branch, goversion from which \
                               pushgateway was built, and the goos and goarch for the build.";

static FAMILIES: [Description; 42] = [
    counter(PROCESS_CPU, "Total user and system CPU time spent in seconds."),
    gauge(PROCESS_MAX_FDS, "Maximum number of open file descriptors."),
    counter(PROCESS_NETWORK_RECEIVED, "Number of bytes received by the process over the network."),
    counter(PROCESS_NETWORK_SENT, "Number of bytes sent by the process over the network."),
    gauge(PROCESS_OPEN_FDS, "Number of open file descriptors."),
    gauge(PROCESS_RESIDENT_MEMORY, "Resident memory size in bytes."),
    gauge(PROCESS_START_TIME, "Start time of the process since unix epoch in seconds."),
    gauge(PROCESS_VIRTUAL_MEMORY, "Virtual memory size in bytes."),
    gauge(PROCESS_VIRTUAL_MEMORY_MAX, "Maximum amount of virtual memory available in bytes."),
    gauge(PUSH_FAILURE_TIME, "Last Unix time when changing this group in the Pushgateway failed."),
    gauge(PUSH_TIME, "Last Unix time when changing this group in the Pushgateway succeeded."),
    gauge(BUILD_INFO, BUILD_INFO_HELP),
    summary(HTTP_PUSH_DURATION, "HTTP request duration for pushes to the Pushgateway."),
    summary(HTTP_PUSH_SIZE, "HTTP request size for pushes to the Pushgateway."),
    counter(HTTP_REQUESTS, "Total HTTP requests processed by the Pushgateway, excluding scrapes."),
    gauge(CONNECTIONS, "Open connections."),
    counter(CONNECTIONS_ACCEPTED, "Connections accepted."),
    counter(CONNECTIONS_REFUSED, "Connections refused because too many were open."),
    gauge(GROUPS, "Groups held, by core."),
    gauge(MAILBOX_PUSHES, "Pushes that wait for a core."),
    counter(PUSH_REFUSALS, "Pushes refused, by reason."),
    gauge(RUNTIME_INFO, "Always 1; the labels tell what does the network IO, on how many cores."),
    summary(SCRAPE_DURATION, "Time from the request of a scrape to the end of its answer, by encoding."),
    summary(SCRAPE_SIZE, "Bytes of the answer to a scrape as sent, by encoding."),
    gauge(SCRAPES, "Scrapes being answered."),
    counter(SCRAPES_REFUSED, "Scrapes refused because too many were being answered."),
    gauge(SEGMENT_BYTES, "Bytes of rendered text held, by core."),
    gauge(SEGMENTS, "Segments of rendered text held, by core."),
    gauge(SERIES, "Series held, by core."),
    gauge(
        STORAGE_ARCHIVE_AGE,
        "Time since the archives, or the files of the database, were last written whole.",
    ),
    gauge(STORAGE_ARCHIVE_BYTES, "Bytes of the archives, or of the files of the database."),
    summary(STORAGE_BATCH, "Changes kept by one commit."),
    summary(STORAGE_COMMIT_DURATION, "Time in which the storage engine keeps a batch."),
    gauge(
        STORAGE_CONTRADICTIONS,
        "Groups that contradicted others when they were restored, and lost their metrics.",
    ),
    gauge(STORAGE_FAILED, "Whether a commit failed, so that nothing is taken in until a restart."),
    gauge(STORAGE_INFO, "Always 1; the labels tell which engine keeps groups, and what that survives."),
    gauge(STORAGE_LOG_BYTES, "Bytes that a restart reads beside the archives."),
    gauge(STORAGE_QUEUE_BYTES, "Bytes of the changes that wait for the storage engine."),
    gauge(STORAGE_QUEUE, "Changes that wait for the storage engine."),
    gauge(STORAGE_RESTORE_SECONDS, "How long the last restore took."),
    gauge(
        STORAGE_TROUBLE,
        "Whether the storage engine has trouble that does not touch commits, see the log.",
    ),
    counter(TIMEOUTS, "Connections that ran into a time limit, by phase: head, request, response."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_sorted_for_the_search() {
        assert!(own_families().is_sorted_by(|a, b| a.name < b.name), "{:#?}", own_families());
        assert_eq!(describe(HTTP_REQUESTS).map(|family| family.kind), Some(OwnKind::Counter));
        assert_eq!(describe("sluicegate_nothing"), None);
    }

    /// A counter whose name does not say so, or a help that would need escapes on the wire, is a slip.
    #[test]
    fn names_and_help_keep_the_customs() {
        for Description { name, help, kind } in own_families() {
            assert_eq!(name.ends_with("_total"), *kind == OwnKind::Counter, "{name}");
            assert!(name.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase()), "{name}");
            assert!(help.ends_with('.') && !help.contains(['\\', '\n']), "{name}");
        }
    }
}
