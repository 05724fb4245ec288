//! From the snapshots of all cores to the body of a scrape.

pub mod collect;
pub mod merge;
pub(crate) mod metrics;
pub mod negotiate;
pub mod translate;
