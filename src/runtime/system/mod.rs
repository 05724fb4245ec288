//! Calls of the operating system and the C library for which no crate has a safe function. The only module with `unsafe`.

pub(crate) mod allocator;
pub(crate) mod socket;
