//! Connections, HTTP/1.1 and HTTP/2: from an accepted socket to a call of the [`connection::Service`], and back.
//!
//! * [`accept`] accepts connections on one core and drains them at shutdown.
//! * [`connection`] is the life of one connection over any `transport`; `bridge` connects hyper to the runtime, `targets` escapes what
//!   hyper does not accept in a request line.
//! * `tls` is a transport that encrypts over the bridge.
//! * `http2` serves connections whose clients negotiated HTTP/2, with a task and a deadline for each stream.
//! * `deadlines` enforces all timeouts with one sweep per core, which also samples how fast clients read (`read_rate`); [`limits`]
//!   bounds what a client can use, `slots` how many long responses are sent at a time; `room` closes waiting connections if there are too
//!   many.
//! * [`request_body`], [`response`], `response_body` and `produced` are for the handlers; `tracked_body` reports when a response is
//!   written.
//!
//! There is no HTTP/2 without TLS, as in the official program, no timer per connection or request, and no lock on the path of a request.

pub mod accept;
mod bridge;
pub mod connection;
mod deadlines;
mod head_memory;
mod http2;
pub mod limits;
pub(crate) mod metrics;
pub(crate) mod produced;
mod read_rate;
pub mod request_body;
pub mod response;
pub(crate) mod response_body;
mod room;
pub(crate) mod slots;
mod targets;
mod tls;
mod tracked_body;
mod transport;
mod waiting;
