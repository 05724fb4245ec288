//! Black-box tests. Each starts the real program on a loopback port; the `http_…` and `shutdown` modules run the HTTP layer
//! in this process.
//!
//! All tests share one process and run in parallel threads. A test that changes or observes the state of its process (signal
//! handlers, open descriptors) runs in a child process, see `support::child_process`. A test that cannot run on a machine
//! reports that, see `support::skip`.

mod support;

mod access;
mod build_info;
mod connection_limits;
mod delete_groups;
mod differences;
mod drivers;
mod faults;
mod freed_memory;
mod groups_api;
mod healing;
mod helper_panics;
mod hostile_bodies;
mod http2;
mod http_framing;
mod http_limits;
mod limits_on_state;
mod log_format;
mod memory;
mod official_import;
mod pod;
mod prometheus;
mod pushes;
mod races;
mod routes;
mod scrape_formats;
mod shapes;
mod shutdown;
mod slow_readers;
mod sockets;
mod storage;
mod storage_command;
mod tls;
mod utf8_names;
mod web_config;
mod web_config_reload;
mod web_config_tls;
