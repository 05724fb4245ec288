//! Messages to the service manager (`sd_notify(3)`), for units of `Type=notify` and `Type=notify-reload`.
//!
//! Without `NOTIFY_SOCKET` nothing is sent. A message that the manager does not accept within a second is lost.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

const VARIABLE: &str = "NOTIFY_SOCKET";
const TIMEOUT: Duration = Duration::from_secs(1);
/// By how much a report of progress extends the time that the manager allows for the start.
const EXTENSION: Duration = Duration::from_secs(30);

/// Whether [`ready`] was called.
static IS_READY: AtomicBool = AtomicBool::new(false);

/// Whether a service manager wants messages.
pub(crate) fn is_present() -> bool {
    env::var_os(VARIABLE).is_some_and(|path| !path.is_empty())
}

/// The gateway serves requests.
pub(crate) fn ready() {
    send("READY=1\nSTATUS=Serving requests");
    IS_READY.store(true, Ordering::Relaxed);
}

/// The start continues.
pub(crate) fn starting(status: &str) {
    send(&format!("STATUS={status}\nEXTEND_TIMEOUT_USEC={}", EXTENSION.as_micros()));
}

/// Requests a reload of the configuration. The manager waits until it has begun.
pub(crate) fn around_reload(request: impl Fn()) {
    if !IS_READY.load(Ordering::Relaxed) {
        return request();
    }
    let now = clock_gettime(ClockId::Monotonic);
    let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
    send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    request();
    send("READY=1");
}

/// The gateway drains.
pub(crate) fn stopping() {
    send("STOPPING=1\nSTATUS=Finishing requests");
}

fn send(message: &str) {
    let Some(path) = env::var_os(VARIABLE).filter(|path| !path.is_empty()) else { return };
    if let Err(error) = send_to(&path, message) {
        tracing::debug!(%error, "cannot notify the service manager");
    }
}

fn send_to(path: &OsStr, message: &str) -> io::Result<()> {
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(TIMEOUT))?;
    socket.send_to_addr(message.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_reach_paths_and_abstract_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("notify");
        let name = format!("sluicegate-test-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&name).expect("a name");
        for (socket, path) in [
            (UnixDatagram::bind(&path).expect("a socket"), path.clone().into_os_string()),
            (UnixDatagram::bind_addr(&abstract_address).expect("a socket"), format!("@{name}").into()),
        ] {
            send_to(&path, "READY=1").expect("the socket accepts it");
            let mut message = [0; 16];
            let bytes = socket.recv(&mut message).expect("a message");
            assert_eq!(&message[..bytes], b"READY=1");
        }
        assert!(send_to(OsStr::new("/nonexistent/socket"), "READY=1").is_err());
    }
}
