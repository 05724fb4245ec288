//! Raw bytes against the HTTP side of the server, on both drivers: what a hostile, broken or slow client may send, and what
//! must come back.
//!
//! The server is started in-process with a service that answers like a gateway where it matters here: a push to
//! `/metrics/job/probe` reads the body and is 200, `/-/healthy` is 200. The other paths are for probes alone. `Server::start`
//! in `harness` is the only place that knows how a server comes to life.

mod ending;
mod framing;
mod harness;
mod limits;
