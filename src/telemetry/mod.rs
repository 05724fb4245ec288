//! The gateway's own metrics and logs. A leaf: uses nothing of the server.
