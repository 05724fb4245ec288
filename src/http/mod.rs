//! Connections and HTTP/1.1.

pub mod accept;
mod bridge;
pub mod connection;
mod deadlines;
pub mod limits;
pub(crate) mod metrics;
pub mod request_body;
pub mod response;
pub mod response_body;
