//! The gateway's own metrics and logs. A leaf: uses nothing of the server.
//!
//! Numbers only: how metrics are written on the wire is not known here.

pub mod http;
pub mod log;
pub mod metrics;
pub mod names;
mod process;
mod summary;

/// All metrics of the gateway's own as they are now: what was recorded, and what the kernel tells of the process. Sorted by family
/// name, then by labels. Reads a few small files of `/proc`.
pub fn gather(registry: &metrics::Registry) -> Vec<metrics::OwnFamily> {
    let mut families = registry.gather();
    families.extend(process::families());
    families.sort_by_key(|family| family.name);
    families
}
