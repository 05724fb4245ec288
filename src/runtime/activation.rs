//! Listening sockets that systemd passes to the program (`sd_listen_fds(3)`).

use std::env;
use std::os::fd::{OwnedFd, RawFd};
use std::process;

use super::socket;

/// The first descriptor that systemd passes.
pub(super) const FIRST_DESCRIPTOR: RawFd = 3;
/// How many descriptors are accepted.
const DESCRIPTORS_MAX: RawFd = 1024;

const PROCESS: &str = "LISTEN_PID";
const COUNT: &str = "LISTEN_FDS";
const NAMES: &str = "LISTEN_FDNAMES";

/// Takes over the descriptors that systemd passed to this process, and removes the variables that describe them. Must be called once,
/// before the program starts a thread or opens anything. Returns none if there are none, or if they are for another process. A
/// descriptor that is not open is missing in the result.
pub fn take() -> Vec<OwnedFd> {
    let number = |name| env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let is_for_us = number(PROCESS) == Some(process::id());
    let count = number(COUNT).and_then(|count| RawFd::try_from(count).ok()).unwrap_or(0);
    socket::remove_variables(&[PROCESS, COUNT, NAMES]);
    if !is_for_us {
        return Vec::new();
    }
    let numbers = FIRST_DESCRIPTOR..FIRST_DESCRIPTOR + count.min(DESCRIPTORS_MAX);
    numbers.filter_map(|number| socket::take_inherited(number).ok()).collect()
}
