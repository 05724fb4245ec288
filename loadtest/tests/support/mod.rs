//! A correct gateway, a proxy that makes it wrong, and a minimal HTTP server and client for both.

pub mod faulty_proxy;
pub mod http;
pub mod reference_gateway;
