//! Operational faults: a stderr or stdout that accepts nothing, signals, limits of the system.

use std::fs::{self, File};
use std::io::{Read as _, Write as _, pipe};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use sluicegate::runtime::threads::{Cores, DriverChoice};
use sluicegate::storage::engines::ENGINES;
use sluicegate::telemetry::log;
use tracing::level_filters::LevelFilter;

use crate::support::gateway::{Gateway, program};
use crate::support::{child_process, preload, wait_for};

const PATIENCE: Duration = Duration::from_secs(20);

/// A stderr that accepts nothing, because its buffer is full and nobody reads it, and its reader.
fn full_stderr() -> (UnixStream, UnixStream) {
    let (mut stderr, reader) = UnixStream::pair().expect("a pair");
    stderr.set_nonblocking(true).expect("an option");
    while stderr.write(&[b'\n'; 1024]).is_ok() {}
    stderr.set_nonblocking(false).expect("an option");
    (stderr, reader)
}

/// Makes the gateway log a line at level debug.
fn send_garbage(gateway: &Gateway) {
    let mut connection = TcpStream::connect(("127.0.0.1", gateway.port())).expect("the gateway listens");
    connection.set_read_timeout(Some(PATIENCE)).expect("an option");
    connection.write_all(b"garbage\r\n\r\n").expect("the gateway reads");
    let mut response = String::new();
    connection.read_to_string(&mut response).expect("the gateway responds and closes");
    assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
}

fn own_value(gateway: &Gateway, name: &str) -> f64 {
    gateway.scrape().value(name, &[]).expect("the gateway's own metric").parse().expect("a number")
}

#[test]
fn an_unread_stderr_stops_neither_requests_nor_the_shutdown() {
    let (stderr, mut reader) = full_stderr();
    let mut gateway = Gateway::start_with_stderr(&stderr.into(), &["--log.level=debug"]);
    for number in 0..50 {
        send_garbage(&gateway);
        assert_eq!(gateway.put(&format!("/metrics/job/{number}"), "m 1\n").status, 200);
    }
    assert_eq!(own_value(&gateway, "sluicegate_healthy"), 1.0);
    assert_eq!(gateway.stop().code(), Some(0));
    drop(gateway);
    let mut log = String::new();
    reader.read_to_string(&mut log).expect("the gateway has ended");
    assert_eq!(log.trim(), "", "the gateway did not write");
}

#[test]
fn a_second_signal_ends_the_program_even_if_stderr_is_unread() {
    let (stderr, _reader) = full_stderr();
    let mut gateway = Gateway::start_with_stderr(&stderr.into(), &[]);
    // An unfinished request keeps the drain waiting.
    let mut unfinished = TcpStream::connect(("127.0.0.1", gateway.port())).expect("the gateway listens");
    unfinished.set_read_timeout(Some(PATIENCE)).expect("an option");
    let head = b"PUT /metrics/job/a HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    unfinished.write_all(head).expect("the gateway reads");
    assert!(unfinished.read(&mut [0; 64]).expect("100 Continue") > 0);
    gateway.signal(Signal::TERM);
    wait_for("the port to close", PATIENCE, || {
        TcpStream::connect(("127.0.0.1", gateway.port())).is_err().then_some(())
    });
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.wait().code(), Some(1));
}

#[test]
fn a_stderr_that_cannot_be_written_drops_lines_and_counts_them() {
    let (reader, broken) = pipe().expect("a pipe");
    drop(reader);
    let full = File::options().write(true).open("/dev/full").expect("a device");
    for stderr in [broken.into(), full.into()] {
        let mut gateway = Gateway::start_with_stderr(&stderr, &[]);
        wait_for("a dropped line", PATIENCE, || {
            (own_value(&gateway, "sluicegate_log_dropped_lines_total") > 0.0).then_some(())
        });
        assert_eq!(gateway.get("/-/healthy").status, 200);
        assert_eq!(gateway.stop().code(), Some(0));
    }
}

#[test]
fn every_line_is_written_before_the_program_ends() {
    let mut gateway = Gateway::start(&[]);
    assert_eq!(gateway.stop().code(), Some(0));
    let log = gateway.log();
    assert!(log.contains("msg=\"Listening on\""), "{log}");
    assert!(log.trim_end().ends_with("msg=\"HTTP server stopped\""), "{log}");
}

#[test]
fn a_panic_on_a_core_is_logged_and_aborts_even_if_stderr_is_unread() {
    let test = "faults::child_panics_on_a_core";
    let output = child_process::command(test).stdout(Stdio::null()).output().expect("a process");
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.signal(), Some(Signal::ABORT.as_raw()), "{log}");
    assert!(log.contains("thread=core-0") && log.contains("error=\"on purpose\""), "{log}");
    assert!(log.contains("msg=\"a core panicked; aborting\""), "{log}");

    let (stderr, _reader) = full_stderr();
    let stderr = OwnedFd::from(stderr);
    let mut process =
        child_process::command(test).stdout(Stdio::null()).stderr(stderr).spawn().expect("a process");
    let status = wait_for("the process to end", PATIENCE, || process.try_wait().expect("own child"));
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()));
}

#[test]
#[ignore = "a_panic_on_a_core_is_logged_and_aborts_even_if_stderr_is_unread runs it in a child process"]
fn child_panics_on_a_core() {
    if !child_process::is_child() {
        return;
    }
    log::install(LevelFilter::INFO, log::Format::Logfmt).expect("the first one");
    let cores = Cores::start(1, DriverChoice::Epoll).expect("epoll works everywhere");
    cores.run(|_| async { panic!("on purpose") });
}

#[test]
fn sighup_does_not_end_the_gateway() {
    let gateway = Gateway::start(&[]);
    gateway.signal(Signal::HUP);
    wait_for("the line about SIGHUP", PATIENCE, || gateway.log().contains("SIGHUP ignored").then_some(()));
    assert_eq!(gateway.put("/metrics/job/a", "m 1\n").status, 200);
}

#[test]
fn a_limit_of_file_sizes_fails_the_store_and_not_the_gateway() {
    for engine in ENGINES.iter().map(|engine| engine.name) {
        let folder = tempfile::tempdir().expect("a folder");
        let backend = format!("--storage.backend={engine}");
        let path = format!("--storage.path={}", folder.path().display());
        let null = File::options().write(true).open("/dev/null").expect("a device");
        let mut gateway =
            Gateway::start_with_stderr(&null.into(), &[&backend, &path, "--storage.durability=disk"]);
        assert_eq!(gateway.put("/metrics/job/stored", "m 1\n").status, 200);
        gateway.limit_file_bytes(Some(1));
        wait_for("a push that the store rejects", PATIENCE, || {
            let status = gateway.put("/metrics/job/not-stored", "m 2\n").status;
            (status == 503).then_some(()).or_else(|| {
                assert_eq!(status, 200, "{engine}");
                None
            })
        });
        let health = gateway.get("/-/healthy");
        assert_eq!(health.status, 500, "{engine}");
        assert!(health.text().contains("storage failed"), "{engine}: {}", health.text());
        assert_eq!(own_value(&gateway, "sluicegate_healthy"), 0.0);
        assert!(gateway.stop().code().is_some(), "{engine}: ended by a signal");
    }
}

#[test]
fn a_gateway_that_cannot_open_its_store_does_not_say_that_it_listens() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = format!("--storage.path={}", folder.path().display());
    let [first, second, ..] = ENGINES else { return };
    let mut gateway = Gateway::start(&[&path, &format!("--storage.backend={}", first.name)]);
    assert_eq!(gateway.put("/metrics/job/a", "m 1\n").status, 200);
    gateway.stop();
    let (status, log) = Gateway::fails_to_start(&[&path, &format!("--storage.backend={}", second.name)]);
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("msg=\"gateway failed\""), "{log}");
    assert!(!log.contains("msg=\"Listening on\""), "{log}");
}

/// Runs the program with `--help` and this stdout. Returns its exit status and stderr.
fn help(stdout: impl Into<Stdio>) -> (Option<i32>, String) {
    let output = Command::new(program()).arg("--help").stdout(stdout).stderr(Stdio::piped()).output();
    let output = output.expect("the program starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn help_for_a_reader_that_left_is_no_error_and_a_full_disk_is() {
    let (reader, broken) = pipe().expect("a pipe");
    drop(reader);
    assert_eq!(help(broken), (Some(0), String::new()));
    let (status, error) = help(File::options().write(true).open("/dev/full").expect("a device"));
    assert_eq!(status, Some(1));
    assert!(error.starts_with("sluicegate: error: cannot write to stdout: "), "{error}");
}

/// A gateway whose clock is wrong by a number of seconds that can change.
struct WrongClock {
    folder: tempfile::TempDir,
}

impl WrongClock {
    /// `None` without a C compiler, which is reported as a skip.
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        preload::build("wrong_clock", folder.path())?;
        Some(Self { folder })
    }

    fn set(&self, seconds: i64) {
        let (new, file) = (self.folder.path().join("new"), self.folder.path().join("offset"));
        fs::write(&new, seconds.to_string()).and_then(|()| fs::rename(&new, &file)).expect("a file");
    }

    fn start(&self, flags: &[&str]) -> Gateway {
        let path = self.folder.path().display();
        let (library, offset) =
            (format!("LD_PRELOAD={path}/wrong_clock.so"), format!("WRONG_CLOCK={path}/offset"));
        Gateway::start_by(&["env", &library, &offset], flags)
    }
}

#[test]
fn a_clock_before_1970_or_after_9999_does_not_end_the_gateway() {
    let Some(clock) = WrongClock::new() else { return };
    for (seconds, date) in [(-3_000_000_000, "Thu, 01 Jan 1970 00:00:00 GMT"), (400_000_000_000, " 9999 ")] {
        clock.set(seconds);
        for engine in ENGINES.iter().map(|engine| engine.name).chain(["memory"]) {
            if engine == "sled" && seconds < 0 {
                // sled itself cannot open a store then; the gateway exits with its error.
                continue;
            }
            let folder = tempfile::tempdir().expect("a folder");
            let path = format!("--storage.path={}", folder.path().display());
            let backend = format!("--storage.backend={engine}");
            let flags: &[&str] = if engine == "memory" { &[] } else { &[&backend, &path] };
            for _ in 0..2 {
                let mut gateway = clock.start(flags);
                let response = gateway.put("/metrics/job/a", "m 1\n");
                assert_eq!(response.status, 200, "{}", response.text());
                assert!(response.header("date").is_some_and(|shown| shown.contains(date)), "{response:?}");
                for page in ["/", "/metrics", "/api/v1/metrics", "/api/v1/groups", "/-/healthy"] {
                    assert_eq!(gateway.get(page).status, 200, "{page}");
                }
                assert_eq!(gateway.stop().code(), Some(0), "{}", gateway.log());
            }
        }
    }
}

#[test]
fn push_times_follow_a_clock_that_was_corrected() {
    let Some(clock) = WrongClock::new() else { return };
    let engine = ENGINES[0].name;
    let folder = tempfile::tempdir().expect("a folder");
    let path = format!("--storage.path={}", folder.path().display());
    let flags = [&format!("--storage.backend={engine}"), path.as_str(), "--runtime.cores=1"];
    let time = |gateway: &Gateway, job: &str| -> f64 {
        assert_eq!(gateway.put(&format!("/metrics/job/{job}"), "m 1\n").status, 200);
        let scrape = gateway.scrape();
        let time = scrape.value("push_time_seconds", &[("instance", ""), ("job", job)]);
        time.expect("the group's push time").parse().expect("a number")
    };
    clock.set(1_000_000_000);
    let mut gateway = clock.start(&flags);
    let future = time(&gateway, "early");
    clock.set(0);
    let now = time(&gateway, "late");
    assert!(now < future - 999_000_000.0, "{now} {future}");
    gateway.stop();
    let gateway = clock.start(&flags);
    assert!(time(&gateway, "late") < future - 999_000_000.0);
    assert_eq!(time(&gateway, "early"), future);
    assert_eq!(gateway.delete("/metrics/job/early").status, 202);
    assert!(time(&gateway, "early") < future - 999_000_000.0);
}
