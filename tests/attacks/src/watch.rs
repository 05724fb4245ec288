//! Ends a gateway that takes too much memory or too long, so that a run is bounded whatever a gateway does.

use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::MIB;
use crate::gateway::resident_bytes;

/// Time between two looks. A gateway hardly takes a gigabyte more in the meantime.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What a gateway may take during one attack.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Resident memory in bytes.
    pub memory: u64,
    /// The time from its start.
    pub time: Duration,
}

/// Watches one gateway.
pub struct Watch {
    process: OwnedFd,
    id: u32,
    bounds: Bounds,
    begin: Instant,
    over: AtomicBool,
    reason: OnceLock<String>,
}

impl Watch {
    /// A watch of the process with this number, which has just started.
    pub fn new(id: u32, bounds: Bounds) -> Result<Self> {
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw).context("the gateway has no number")?;
        let process = pidfd_open(pid, PidfdFlags::empty()).context("cannot watch the gateway")?;
        let (over, reason) = (AtomicBool::new(false), OnceLock::new());
        Ok(Self { process, id, bounds, begin: Instant::now(), over, reason })
    }

    /// Looks at the gateway until [`Watch::end`].
    pub fn run(&self) {
        while !self.over.load(Ordering::Relaxed) {
            let Bounds { memory, time } = self.bounds;
            let reason = if resident_bytes(self.id) > memory {
                Some(format!("killed at {} MiB", memory / MIB))
            } else if self.begin.elapsed() > time {
                Some(format!("killed after {} s", time.as_secs()))
            } else {
                None
            };
            if let Some(reason) = reason {
                // Set before the kill, so that the reason is known as soon as the process is gone.
                let _ = self.reason.set(reason);
                // If this fails, the process has ended by itself.
                let _ = pidfd_send_signal(&self.process, Signal::KILL);
                return;
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Ends the watch.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Why the gateway was killed, if it was.
    pub fn reason(&self) -> Option<&str> {
        self.reason.get().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn reason_of(bounds: Bounds) -> String {
        let mut child = Command::new("sleep").arg("600").spawn().expect("the program exists");
        let watch = Watch::new(child.id(), bounds).expect("the process runs");
        watch.run();
        let status = child.wait().expect("the process is ours");
        assert!(!status.success());
        watch.reason().expect("the watch has killed the process").to_owned()
    }

    #[test]
    fn a_gateway_beyond_a_bound_is_killed() {
        let (much, long) = (u64::MAX, Duration::from_secs(600));
        assert_eq!(reason_of(Bounds { memory: 0, time: long }), "killed at 0 MiB");
        assert_eq!(reason_of(Bounds { memory: much, time: Duration::ZERO }), "killed after 0 s");
    }
}
