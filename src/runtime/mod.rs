//! The only place that knows monoio, threads, sockets, clocks and signals.

pub mod net;
