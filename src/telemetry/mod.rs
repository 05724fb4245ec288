//! The gateway's own metrics and logs. A leaf: uses no other module of the server.
//!
//! Metrics are recorded and gathered here as numbers. How they are written in an exposition is not known here.

pub mod faults;
pub mod log;
mod own_metric;
mod process;
mod recorder;
mod summary;

pub use own_metric::{OwnKind, OwnMetric};
pub use process::METRICS as PROCESS_METRICS;
pub use recorder::{OwnFamily, OwnSample, OwnValue, Recorder};

/// Returns all families of the gateway's own with their current values: everything that was recorded,
/// `process_*`, faults and dropped log lines. They are
/// sorted by name, and their series by labels. Reads a few small files in `/proc`, at most once a second.
pub fn gather(recorder: &Recorder) -> Vec<OwnFamily> {
    let mut families = recorder.gather();
    families.extend(process::families());
    families.extend(faults::families());
    families.extend(log::families());
    families.sort_by_key(|family| family.name);
    families
}
