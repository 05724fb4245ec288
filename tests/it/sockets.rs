//! Sockets from systemd, Unix sockets, and notifications to the service manager.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sluicegate::runtime::threads::DriverInUse;

use crate::support::gateway::program;
use crate::support::http_server::on_both_drivers;
use crate::support::{child_process, wait_for};

const PATIENCE: Duration = Duration::from_secs(20);

/// A shell that makes stdin, and stdout if there are two, the descriptors 3 and 4, as systemd does, and becomes the program.
const ONE: &str = "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=a; exec \"$@\"";
const TWO: &str = "exec 3<&0 4<&1 </dev/null >/dev/null; export LISTEN_PID=$$ LISTEN_FDS=2; exec \"$@\"";
const NONE: &str = "exec \"$@\"";
const OF_ANOTHER_PROCESS: &str = "exec 3<&0 </dev/null; export LISTEN_PID=1 LISTEN_FDS=1; exec \"$@\"";

/// A gateway started by a shell script. Dropping it kills the process.
struct Started {
    child: Child,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Started {
    fn new(script: &str, flags: &[&str], stdin: Option<OwnedFd>, stdout: Option<OwnedFd>) -> Self {
        Self::with_variables(script, flags, stdin, stdout, &[])
    }

    fn with_variables(
        script: &str,
        flags: &[&str],
        stdin: Option<OwnedFd>,
        stdout: Option<OwnedFd>,
        variables: &[(&str, &Path)],
    ) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        let child = Command::new("sh")
            .args(["-c", script, "sh", &program()])
            .args(flags)
            .envs(variables.iter().copied())
            .stdin(stdin.map_or_else(Stdio::null, Stdio::from))
            .stdout(stdout.map_or_else(Stdio::null, Stdio::from))
            .stderr(File::create(&log).expect("a file"))
            .spawn()
            .expect("a shell");
        Self { child, log, _folder: folder }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("the log")
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("own child");
    }

    fn wait(&mut self) -> ExitStatus {
        wait_for("the gateway to exit", PATIENCE, || self.child.try_wait().expect("own child"))
    }

    fn stop(&mut self) -> String {
        self.signal(Signal::TERM);
        let status = self.wait();
        let log = self.log();
        assert!(status.success(), "{log}");
        log
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a request on a connection and returns the status line and the body.
fn exchange(mut stream: impl Read + Write, method: &str, path: &str, body: &str) -> (String, String) {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).expect("the gateway reads");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("a response");
    let (head, body) = response.split_once("\r\n\r\n").expect("a head");
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

fn check_serves<S: Read + Write>(connect: impl Fn() -> S) {
    // Larger than the buffers of a socket, in both directions.
    let push: String = (0..40_000).map(|n| format!("m{{n=\"{n}\"}} {n}\n")).collect();
    assert_eq!(exchange(connect(), "PUT", "/metrics/job/a", &push).0, "HTTP/1.1 200 OK");
    let (status, scrape) = exchange(connect(), "GET", "/metrics", "");
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert_eq!(scrape.matches("\nm{").count(), 40_000);
}

const fn name_of(driver: DriverInUse) -> &'static str {
    match driver {
        DriverInUse::IoUring => "io_uring",
        DriverInUse::Epoll => "epoll",
    }
}

/// Connects once the gateway listens.
fn connect_unix(path: &Path) -> UnixStream {
    wait_for("the gateway to listen", PATIENCE, || UnixStream::connect(path).ok())
}

#[test]
fn systemd_sockets_of_both_kinds_are_served_on_both_drivers() {
    on_both_drivers(|driver| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let unix = UnixListener::bind(&path).expect("a socket");
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = tcp.local_addr().expect("bound");
        let driver = format!("--runtime.driver={}", name_of(driver));
        let flags =
            ["--web.systemd-socket", &driver, "--runtime.cores=2", "--web.listen-address=127.0.0.1:1"];
        let mut gateway = Started::new(TWO, &flags, Some(tcp.into()), Some(unix.into()));
        check_serves(|| TcpStream::connect(address).expect("systemd listens"));
        check_serves(|| UnixStream::connect(&path).expect("systemd listens"));
        let log = gateway.stop();
        let first = log.find("msg=\"Listening on systemd activated listeners instead of port listeners.\"");
        let tcp = log.find(&format!("msg=\"Listening on\" address={address} "));
        let unix = log.find(&format!("msg=\"Listening on\" address={} ", path.display()));
        assert!(first.is_some() && first < tcp && tcp < unix, "{log}");
        assert!(path.exists(), "the file belongs to systemd");
    });
}

#[test]
fn connections_in_the_queue_of_systemd_are_not_lost() {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = tcp.local_addr().expect("bound");
    let early: Vec<_> = (0..20).map(|_| TcpStream::connect(address).expect("the queue")).collect();
    let _gateway = Started::new(ONE, &["--web.systemd-socket"], Some(tcp.into()), None);
    for stream in early {
        assert_eq!(exchange(stream, "GET", "/-/healthy", "").1, "OK");
    }
}

#[test]
fn difference_20_sockets_that_cannot_be_used_are_refused() {
    let udp = || OwnedFd::from(UdpSocket::bind("127.0.0.1:0").expect("a free port"));
    let tcp = || OwnedFd::from(TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let file = || OwnedFd::from(File::open("/dev/null").expect("a device"));
    let connected = || OwnedFd::from(UnixStream::pair().expect("a pair").0);
    let nothing = "no socket activation file descriptors found";
    for (script, stdin, stdout, expected) in [
        (NONE, None, None, nothing),
        (OF_ANOTHER_PROCESS, Some(tcp()), None, nothing),
        (ONE, Some(udp()), None, "descriptor 3 from systemd is a datagram socket"),
        (TWO, Some(tcp()), Some(udp()), "descriptor 4 from systemd is a datagram socket"),
        (ONE, Some(file()), None, "descriptor 3 from systemd is not a socket"),
        (ONE, Some(connected()), None, "descriptor 3 from systemd is a socket that does not listen"),
    ] {
        let mut gateway = Started::new(script, &["--web.systemd-socket"], stdin, stdout);
        let status = gateway.wait();
        assert_eq!(status.code(), Some(1));
        assert!(gateway.log().contains(expected), "{expected}: {}", gateway.log());
    }
    let mut gateway = Started::new(NONE, &["--web.listen-address=vsock://:9091"], None, None);
    assert_eq!(gateway.wait().code(), Some(1));
    assert!(gateway.log().contains("vsock is not supported"), "{}", gateway.log());
}

#[test]
fn the_variables_of_systemd_are_removed() {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let output = Command::new("sh")
        .args(["-c", ONE, "sh"])
        .arg(std::env::current_exe().expect("the path of the test binary"))
        .args(["--exact", "sockets::child_takes_descriptors", "--ignored", "--nocapture", "--test-threads=1"])
        .env("SLUICEGATE_TEST_CHILD", "1")
        .stdin(OwnedFd::from(tcp))
        .output()
        .expect("a process");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("taken: 1, then 0, variables: 0"), "{text}");
}

#[test]
#[ignore = "the_variables_of_systemd_are_removed runs it in a child process"]
fn child_takes_descriptors() {
    if !child_process::is_child() {
        return;
    }
    let taken = sluicegate::runtime::activation::take().len();
    let again = sluicegate::runtime::activation::take().len();
    let variables = std::env::vars().filter(|(name, _)| name.starts_with("LISTEN_")).count();
    println!("\ntaken: {taken}, then {again}, variables: {variables}");
}

#[test]
fn a_unix_socket_is_served_on_both_drivers_and_removed_at_the_end() {
    on_both_drivers(|driver| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let address = format!("--web.listen-address=unix:{}", path.display());
        let driver = format!("--runtime.driver={}", name_of(driver));
        let flags = [&address, driver.as_str(), "--runtime.cores=2"];
        let mut gateway = Started::new(NONE, &flags, None, None);
        check_serves(|| connect_unix(&path));
        assert_eq!(fs::metadata(&path).expect("the socket").permissions().mode() & 0o777, 0o660);
        let pushed = exchange(connect_unix(&path), "PUT", "/metrics/job/b", "# TYPE m counter\nm 1\n");
        assert_eq!(pushed.0, "HTTP/1.1 400 Bad Request");
        // A client that disconnects without reading the response.
        let mut rude = connect_unix(&path);
        rude.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("the gateway reads");
        drop(rude);
        // A second gateway on the path fails, and leaves the socket alone.
        let mut second = Started::new(NONE, &flags, None, None);
        assert_eq!(second.wait().code(), Some(1));
        assert!(second.log().contains("another program is already listening on it"), "{}", second.log());
        check_serves(|| connect_unix(&path));
        let log = gateway.stop();
        assert!(!path.exists());
        assert!(log.contains(&format!("msg=\"Listening on\" address={} ", path.display())), "{log}");
        assert!(log.contains(" method=PUT logged_source=@ err="), "{log}");

        // A killed gateway leaves its socket, and the next one replaces it.
        let mut killed = Started::new(NONE, &flags, None, None);
        connect_unix(&path);
        killed.signal(Signal::KILL);
        killed.wait();
        assert!(path.exists());
        let mut next = Started::new(NONE, &flags, None, None);
        check_serves(|| connect_unix(&path));
        next.stop();
        assert!(!path.exists());
    });
}

#[test]
fn many_clients_of_a_unix_socket_at_the_shutdown_get_their_responses() {
    on_both_drivers(|driver| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let address = format!("--web.listen-address=unix:{}", path.display());
        let driver = format!("--runtime.driver={}", name_of(driver));
        let mut gateway = Started::new(NONE, &[&address, &driver], None, None);
        assert_eq!(exchange(connect_unix(&path), "GET", "/-/healthy", "").1, "OK");
        let clients: Vec<_> =
            (0..50).map(|_| UnixStream::connect(&path).expect("the gateway listens")).collect();
        for mut client in &clients {
            client.write_all(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n").expect("the gateway reads");
        }
        gateway.stop();
        for mut client in clients {
            let mut response = String::new();
            client.read_to_string(&mut response).expect("a response");
            assert!(response.starts_with("HTTP/1.1 200 OK") && response.ends_with("OK"), "{response}");
        }
    });
}

/// Receives messages until one contains a line.
fn expect_message(socket: &UnixDatagram, line: &str) -> String {
    let mut seen = String::new();
    loop {
        let mut message = [0; 4096];
        let bytes =
            socket.recv(&mut message).unwrap_or_else(|error| panic!("no {line}, {error}, after:\n{seen}"));
        let text = String::from_utf8_lossy(&message[..bytes]).into_owned();
        if text.lines().any(|other| other == line) {
            return text;
        }
        seen.push_str(&text);
        seen.push('\n');
    }
}

#[test]
fn the_service_manager_is_told_of_the_start_reloads_and_the_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let (notify, path) = (folder.path().join("notify"), folder.path().join("socket"));
    let manager = UnixDatagram::bind(&notify).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("an option");
    let address = format!("--web.listen-address=unix:{}", path.display());
    let store = format!("--storage.path={}", folder.path().join("store").display());
    let flags = [address.as_str(), &store];
    let mut gateway = Started::with_variables(NONE, &flags, None, None, &[("NOTIFY_SOCKET", &notify)]);
    assert!(expect_message(&manager, "READY=1").contains("STATUS="));
    assert_eq!(exchange(connect_unix(&path), "GET", "/-/ready", "").1, "OK");
    gateway.signal(Signal::HUP);
    assert!(expect_message(&manager, "RELOADING=1").contains("MONOTONIC_USEC="));
    expect_message(&manager, "READY=1");
    gateway.signal(Signal::TERM);
    expect_message(&manager, "STOPPING=1");
    assert!(gateway.wait().success());
}

#[test]
fn the_service_manager_is_told_how_far_a_restore_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let (notify, path) = (folder.path().join("notify"), folder.path().join("socket"));
    let address = format!("--web.listen-address=unix:{}", path.display());
    let store = format!("--storage.path={}", folder.path().join("store").display());
    let flags = [address.as_str(), &store];
    let mut gateway = Started::new(NONE, &flags, None, None);
    let push: String = (0..40_000).map(|n| format!("m{{n=\"{n}\"}} {n}\n")).collect();
    wait_for("the gateway to be ready", PATIENCE, || {
        (exchange(connect_unix(&path), "GET", "/-/ready", "").1 == "OK").then_some(())
    });
    for job in 0..10 {
        let path_of_job = format!("/metrics/job/{job}");
        assert_eq!(exchange(connect_unix(&path), "PUT", &path_of_job, &push).0, "HTTP/1.1 200 OK");
    }
    gateway.stop();
    let manager = UnixDatagram::bind(&notify).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("an option");
    let _gateway = Started::with_variables(NONE, &flags, None, None, &[("NOTIFY_SOCKET", &notify)]);
    let progress = expect_message(&manager, "EXTEND_TIMEOUT_USEC=30000000");
    assert!(progress.starts_with("STATUS=Restoring: "), "{progress}");
    expect_message(&manager, "READY=1");
}
