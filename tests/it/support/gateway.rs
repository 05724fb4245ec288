//! A gateway process on its own loopback port.
//!
//! `SLUICEGATE_TEST_DRIVER=io_uring|epoll` selects the network driver for all tests that do not choose one.
//! `SLUICEGATE_TEST_PROGRAM=prometheus-pushgateway` runs the tests against the official program; `tests/README.md` lists the
//! modules that describe behaviour of both programs.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, prlimit};

use super::exposition::Exposition;
use super::http_client::{Connection, Response};
use super::{free_port, gunzip_one_member, wait_for};

/// A running gateway. Dropping it kills the process.
pub struct Gateway {
    port: u16,
    child: Child,
    log: PathBuf,
}

impl Gateway {
    /// Starts the gateway and waits until it is ready.
    pub fn start(flags: &[&str]) -> Self {
        Self::start_by(&[], flags)
    }

    /// Starts the gateway through a wrapper: a command that gets the gateway's command line as arguments and `exec`s it.
    pub fn start_by(wrapper: &[&str], flags: &[&str]) -> Self {
        Self::start_as(wrapper, flags, None)
    }

    /// Starts the gateway with another stderr; [`Self::log`] then has stdout only.
    pub fn start_with_stderr(stderr: &OwnedFd, flags: &[&str]) -> Self {
        Self::start_as(&[], flags, Some(stderr))
    }

    fn start_as(wrapper: &[&str], flags: &[&str], stderr: Option<&OwnedFd>) -> Self {
        let driver =
            std::env::var("SLUICEGATE_TEST_DRIVER").map(|driver| format!("--runtime.driver={driver}"));
        let mut all: Vec<&str> = flags.to_vec();
        if let Ok(driver) = &driver
            && !flags.iter().any(|flag| flag.starts_with("--runtime.driver"))
        {
            all.push(driver);
        }
        // Another process may take the port before the gateway binds it.
        for _ in 0..3 {
            let mut gateway = Self::spawn(wrapper, &all, stderr);
            if gateway.becomes_ready() {
                return gateway;
            }
            eprintln!("the gateway did not become ready:\n{}", gateway.log());
        }
        panic!("the gateway does not start with {all:?}");
    }

    /// Starts the gateway without waiting until it is ready. Another process may take its port before it listens.
    pub fn begin(flags: &[&str]) -> Self {
        Self::spawn(&[], flags, None)
    }

    fn spawn(wrapper: &[&str], flags: &[&str], stderr: Option<&OwnedFd>) -> Self {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let log = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("gateway-{}-{number}.log", std::process::id()));
        let file = File::create(&log).expect("a log file");
        let port = free_port();
        let program = program();
        let mut words = wrapper.iter().copied().chain([program.as_str()]);
        let child = Command::new(words.next().expect("at least the program"))
            .args(words)
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            // Distribution packages of the official program persist to a file by default.
            .args(
                (!flags.iter().any(|flag| flag.starts_with("--persistence.file=")))
                    .then_some("--persistence.file="),
            )
            .args(flags)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(stderr.map_or_else(|| file.into(), |other| other.try_clone().expect("a second handle")))
            .spawn()
            .expect("the program starts");
        Self { port, child, log }
    }

    fn becomes_ready(&mut self) -> bool {
        wait_for("the gateway to be ready or to exit", Duration::from_secs(20), || {
            if self.child.try_wait().expect("own child").is_some() {
                return Some(false);
            }
            let response = Connection::open(self.port).ok()?.request("GET", "/-/ready", &[], b"").ok()?;
            // With a web configuration file, the check may need a password, or be beyond the rate limit.
            (response.status != 503).then_some(true)
        })
    }

    /// The port on 127.0.0.1 that the gateway listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The most memory that the process has had so far, in bytes.
    pub fn peak_resident_bytes(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    /// The memory that the process has now, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    fn status_bytes(&self, field: &str) -> u64 {
        let status =
            fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("a running process");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the kernel reports it");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
        kib << 10
    }

    /// The gateway's process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The number of bytes that the gateway's system calls have written, to files and to connections.
    pub fn written_bytes(&self) -> u64 {
        let io = fs::read_to_string(format!("/proc/{}/io", self.child.id())).expect("own child");
        let written = io.lines().find_map(|line| line.strip_prefix("wchar: "));
        written.and_then(|bytes| bytes.parse().ok()).expect("Linux counts them")
    }

    /// The gateway's stdout and stderr so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).expect("the log file")).into_owned()
    }

    /// Everything logged so far, as soon as it contains a text. A thread of the gateway writes the log, so that a line may
    /// come after the response to the request that caused it.
    pub fn log_with(&self, text: &str) -> String {
        wait_for(text, Duration::from_secs(20), || Some(self.log()).filter(|log| log.contains(text)))
    }

    /// Sends SIGTERM and waits for the process to exit.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Limits the size of the files that the gateway writes from now on. A write beyond it fails, as on a full disk.
    pub fn limit_file_bytes(&self, bytes_max: Option<u64>) {
        // The soft limit; the hard one is inherited from this process.
        let mut limit = getrlimit(Resource::Fsize);
        limit.current = bytes_max.or(limit.maximum);
        prlimit(Some(self.pid()), Resource::Fsize, limit).expect("own child");
    }

    /// Takes all descriptors away that the gateway does not use yet, or gives them back.
    pub fn limit_new_descriptors(&self, are_limited: bool) {
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = if are_limited { Some(0) } else { limit.maximum };
        prlimit(Some(self.pid()), Resource::Nofile, limit).expect("own child");
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("own child");
    }

    /// Sends SIGKILL and waits for the process to exit.
    pub fn kill(&mut self) {
        self.child.kill().expect("own child");
        self.wait();
    }

    /// Starts the gateway with flags that make it exit. Returns its exit status and its log.
    pub fn fails_to_start(flags: &[&str]) -> (ExitStatus, String) {
        Self::fails_to_start_by(&[], flags)
    }

    /// Like [`Self::fails_to_start`], through a wrapper as in [`Self::start_by`].
    pub fn fails_to_start_by(wrapper: &[&str], flags: &[&str]) -> (ExitStatus, String) {
        let mut gateway = Self::spawn(wrapper, flags, None);
        (gateway.wait(), gateway.log())
    }

    /// Waits for the process to exit.
    pub fn wait(&mut self) -> ExitStatus {
        wait_for("the gateway to exit", Duration::from_secs(20), || self.child.try_wait().expect("own child"))
    }

    /// Opens a connection.
    pub fn connect(&self) -> Connection {
        Connection::open(self.port).expect("the gateway accepts connections")
    }

    /// Sends one request on a new connection. Panics with the gateway's log if there is no response.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        match self.connect().request(method, path, headers, body) {
            Ok(response) => response,
            Err(error) => panic!("{method} {path}: {error}\ngateway log:\n{}", self.log()),
        }
    }

    /// Sends GET.
    pub fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[], b"")
    }

    /// Sends PUT, which replaces the group.
    pub fn put(&self, path: &str, body: &str) -> Response {
        self.request("PUT", path, &[], body.as_bytes())
    }

    /// Sends POST, which replaces families of the group.
    pub fn post(&self, path: &str, body: &str) -> Response {
        self.request("POST", path, &[], body.as_bytes())
    }

    /// Sends DELETE, which removes the group.
    pub fn delete(&self, path: &str) -> Response {
        self.request("DELETE", path, &[], b"")
    }

    /// Scrapes without compression.
    pub fn scrape(&self) -> Exposition {
        scrape(&mut self.connect(), Encoding::Plain)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Both fail only if the process has already exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            let _ = fs::remove_file(&self.log);
        }
    }
}

/// The compression of a scrape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Plain,
    Gzip,
}

/// Scrapes on an open connection. Panics unless the response is a valid exposition.
pub fn scrape(connection: &mut Connection, encoding: Encoding) -> Exposition {
    let headers: &[_] = if encoding == Encoding::Gzip { &[("Accept-Encoding", "gzip")] } else { &[] };
    let response = connection.request("GET", "/metrics", headers, b"").expect("a scrape response");
    assert_eq!(response.status, 200, "status of a scrape: {}", response.text());
    let body = match encoding {
        Encoding::Plain => response.body,
        Encoding::Gzip => {
            assert_eq!(response.header("content-encoding"), Some("gzip"));
            gunzip_one_member(&response.body)
        }
    };
    let text = String::from_utf8(body)
        .unwrap_or_else(|error| panic!("the exposition is not UTF-8: {}", error.utf8_error()));
    match Exposition::parse(&text) {
        Ok(exposition) => exposition,
        Err(problem) => panic!("invalid exposition: {problem}\n{text}"),
    }
}

/// The program under test.
pub fn program() -> String {
    std::env::var("SLUICEGATE_TEST_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_sluicegate").to_owned())
}
