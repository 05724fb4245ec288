//! A gateway process on a loopback port of its own.
//!
//! `SLUICEGATE_TEST_DRIVER=io_uring|epoll` runs the same tests on one driver of the network IO.
//! `SLUICEGATE_TEST_PROGRAM=prometheus-pushgateway` tries the tests against the official program.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::exposition::Exposition;
use super::http_client::{Connection, Response};
use super::{free_port, gunzip_one_member, wait_for};

/// A running gateway. Its process ends with this value.
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

    /// As `start`, by a program that is given the command to run as its arguments and becomes it (`exec`).
    pub fn start_by(wrapper: &[&str], flags: &[&str]) -> Self {
        let driver =
            std::env::var("SLUICEGATE_TEST_DRIVER").map(|driver| format!("--runtime.driver={driver}"));
        let mut all: Vec<&str> = flags.to_vec();
        if let Ok(driver) = &driver
            && !flags.iter().any(|flag| flag.starts_with("--runtime.driver"))
        {
            all.push(driver);
        }
        // Somebody else may take the port between our look and the gateway's bind.
        for _ in 0..3 {
            let mut gateway = Self::spawn(wrapper, &all);
            if gateway.becomes_ready() {
                return gateway;
            }
            eprintln!("the gateway did not get ready:\n{}", gateway.log());
        }
        panic!("the gateway does not start with {all:?}");
    }

    /// Starts the gateway and waits for nothing. Its port may be taken by somebody else before it listens.
    pub fn begin(flags: &[&str]) -> Self {
        Self::spawn(&[], flags)
    }

    fn spawn(wrapper: &[&str], flags: &[&str]) -> Self {
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
            // Nothing outside the test: official packages have a file by default.
            .args(
                (!flags.iter().any(|flag| flag.starts_with("--persistence.file=")))
                    .then_some("--persistence.file="),
            )
            .args(flags)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .spawn()
            .expect("the program starts");
        Self { port, child, log }
    }

    fn becomes_ready(&mut self) -> bool {
        wait_for("the gateway to be ready or to end", Duration::from_secs(20), || {
            if self.child.try_wait().expect("own child").is_some() {
                return Some(false);
            }
            let answer = Connection::open(self.port).ok()?.request("GET", "/-/ready", &[], b"").ok()?;
            (answer.status == 200).then_some(true)
        })
    }

    /// The port it listens on, at 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it has written to stdout and stderr.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).expect("the log file")).into_owned()
    }

    /// Asks it to stop (SIGTERM) and waits for the end.
    pub fn stop(&mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("own child");
        self.ended()
    }

    /// SIGKILL, which nobody can prepare for.
    pub fn kill(&mut self) {
        self.child.kill().expect("own child");
        self.ended();
    }

    /// Starts the gateway with flags with which it must end by itself; its status and its log.
    pub fn fails_to_start(flags: &[&str]) -> (ExitStatus, String) {
        let mut gateway = Self::spawn(&[], flags);
        (gateway.ended(), gateway.log())
    }

    /// Waits for the end of the process.
    pub fn ended(&mut self) -> ExitStatus {
        wait_for("the gateway to end", Duration::from_secs(20), || self.child.try_wait().expect("own child"))
    }

    /// A connection to keep.
    pub fn connect(&self) -> Connection {
        Connection::open(self.port).expect("the gateway accepts connections")
    }

    /// One request on a connection of its own.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        match self.connect().request(method, path, headers, body) {
            Ok(response) => response,
            Err(error) => panic!("{method} {path}: {error}\nlog of the gateway:\n{}", self.log()),
        }
    }

    /// GET.
    pub fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[], b"")
    }

    /// PUT: replaces the group.
    pub fn put(&self, path: &str, body: &str) -> Response {
        self.request("PUT", path, &[], body.as_bytes())
    }

    /// POST: replaces the families.
    pub fn post(&self, path: &str, body: &str) -> Response {
        self.request("POST", path, &[], body.as_bytes())
    }

    /// DELETE of a group.
    pub fn delete(&self, path: &str) -> Response {
        self.request("DELETE", path, &[], b"")
    }

    /// The exposition, plain.
    pub fn scrape(&self) -> Exposition {
        scrape(&mut self.connect(), Encoding::Plain)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Both fail only if the process has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            let _ = fs::remove_file(&self.log);
        }
    }
}

/// How a scrape is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Plain,
    /// As one gzip member.
    Gzip,
}

/// Scrapes on a connection that is kept. Panics unless the answer is a valid exposition.
pub fn scrape(connection: &mut Connection, encoding: Encoding) -> Exposition {
    let headers: &[_] = if encoding == Encoding::Gzip { &[("Accept-Encoding", "gzip")] } else { &[] };
    let answer = connection.request("GET", "/metrics", headers, b"").expect("an answer to a scrape");
    assert_eq!(answer.status, 200, "status of a scrape: {}", answer.text());
    let body = match encoding {
        Encoding::Plain => answer.body,
        Encoding::Gzip => {
            assert_eq!(answer.header("content-encoding"), Some("gzip"));
            gunzip_one_member(&answer.body)
        }
    };
    let text = String::from_utf8(body).expect("expositions are UTF-8");
    match Exposition::parse(&text) {
        Ok(exposition) => exposition,
        Err(problem) => panic!("invalid exposition: {problem}\n{text}"),
    }
}

/// The program under test.
pub fn program() -> String {
    std::env::var("SLUICEGATE_TEST_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_sluicegate").to_owned())
}

/// Whether the official program is under test, which does not keep all our promises.
pub fn is_official() -> bool {
    program().contains("pushgateway")
}
