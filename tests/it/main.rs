//! Black-box tests: each starts the real program, or the HTTP layer on its own, on a loopback port.
//!
//! All of them share one process and run in parallel threads. A test that changes the state of its process (signal
//! handlers, open descriptors) runs in a child process of its own.

mod support;

mod drivers;
mod groups_api;
mod hostile_bodies;
mod http_framing;
mod http_limits;
mod official_import;
mod prometheus;
mod pushes;
mod races;
mod scrape_formats;
mod shutdown;
mod storage;
mod storage_command;
mod utf8_names;
