//! From the snapshots of all cores to the body of a scrape.
//!
//! The pipeline: [`collect`] a snapshot from every core, [`merge`] the families (or [`translate`] them into another format), [`encode`]
//! what changed in [`blocks`], and send the pieces in [`chunks`]. [`negotiate`] chooses the format and the compression; the [`cache`] keeps
//! encoded pieces between scrapes, and [`bodies`] what can be sent again as a whole.

mod blocks;
mod bodies;
pub(crate) mod cache;
mod chunks;
pub(crate) mod collect;
pub(crate) mod encode;
pub mod merge;
pub(crate) mod metrics;
pub mod negotiate;
pub(crate) mod translate;
