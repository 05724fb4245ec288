//! Flags as typed, configuration as meant. A leaf: uses nothing of the server.
