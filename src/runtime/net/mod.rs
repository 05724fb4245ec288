//! Cores, sockets and HTTP/1.1: from a bound port to `Service::call` and back.
//!
//! In order of dependency; nothing here knows metrics, groups or routes:
//!
//! * [`shutdown`] — one handle that every core awaits; SIGTERM, SIGINT, or a call.
//! * [`limits`] — what a client may take: bytes, connections, time. What all cores have in common.
//! * [`cores`] — one pinned thread and one monoio runtime per core; io_uring or epoll, the same on all.
//! * [`listen`] — listeners which only one gateway at a time can have.
//! * `socket` — direct system calls on a socket whose descriptor a runtime owns. The one module with `unsafe`.
//! * `bridge` — hyper's reads and writes as operations of the ring.
//! * `watch` — the phase of each connection and the one sweep per core that enforces deadlines.
//! * [`body`] — request bodies with a bound and a deadline; the bodies of responses.
//! * [`http`] — the `Service` trait and the life of one connection.
//! * [`serve`] — accepting, the connection cap, draining at shutdown.
//!
//! What is absent: HTTP/2 (the official program offers it over TLS only), a timer per connection or request (see `watch`),
//! and locks on the path of a request.

pub mod body;
mod bridge;
pub mod cores;
pub mod http;
pub mod limits;
pub mod listen;
pub mod serve;
pub mod shutdown;
mod socket;
mod watch;
