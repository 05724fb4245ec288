//! A gateway that is right, a proxy that makes it wrong, and the HTTP between them.

pub mod http;
pub mod model;
pub mod proxy;
