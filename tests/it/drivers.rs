//! The network IO on either driver, and where io_uring cannot be had: containers forbid it, old kernels count its memory.

use std::process::Command;
use std::thread;

use crate::support::gateway::{Encoding, is_official, program, scrape};
use crate::support::{Gateway, free_port};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// What does the network IO, by the gateway's own word.
fn driver(gateway: &Gateway) -> String {
    let seen = gateway.scrape();
    let mut info = seen.samples("sluicegate_runtime_info");
    info.next().expect("the gateway says what it runs on").label("driver").to_owned()
}

fn works(gateway: &Gateway) {
    // More than a socket buffer takes at once, in both directions.
    let body: String = (0..60_000).map(|n| format!("m{{n=\"{n}\"}} {n}\n")).collect();
    let mut connection = gateway.connect();
    for _ in 0..3 {
        let answer = connection.request("PUT", "/metrics/job/a", &[], body.as_bytes()).expect("an answer");
        assert_eq!(answer.status, 200);
        assert_eq!(scrape(&mut connection, Encoding::Plain).samples("m").count(), 60_000);
        assert_eq!(scrape(&mut connection, Encoding::Gzip).samples("m").count(), 60_000);
    }
    for job in 0..50 {
        assert_eq!(gateway.put(&format!("/metrics/job/j{job}"), "n 1\n").status, 200);
    }
    assert_eq!(gateway.scrape().samples("n").count(), 50);
}

/// Whether the machine lets anybody have a ring.
fn ring_can_be_had() -> bool {
    io_uring::IoUring::new(8).is_ok()
}

/// Runs something in a thread whose children cannot have a ring, as under the default profile of container engines.
fn without_io_uring<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("an architecture that seccomp knows");
    let forbidden = [(libc::SYS_io_uring_setup, Vec::new())].into();
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    let filter = SeccompFilter::new(forbidden, SeccompAction::Allow, refuse, arch).expect("a valid filter");
    let filter = BpfProgram::try_from(filter).expect("a valid filter");
    thread::scope(|scope| {
        let confined = scope.spawn(|| {
            seccompiler::apply_filter(&filter).expect("seccomp can be had");
            assert!(!ring_can_be_had(), "the filter works");
            run()
        });
        confined.join().expect("the confined thread")
    })
}

#[test]
fn epoll_serves_when_asked_for() {
    if is_official() {
        return;
    }
    let gateway = Gateway::start(&["--runtime.driver=epoll"]);
    works(&gateway);
    assert_eq!(driver(&gateway), "epoll");
    assert!(gateway.log().contains("epoll"), "{}", gateway.log());
}

#[test]
fn io_uring_serves_when_asked_for() {
    if is_official() {
        return;
    }
    if !ring_can_be_had() {
        println!("SKIPPED io_uring_serves_when_asked_for: this machine forbids io_uring");
        return;
    }
    for flag in ["--runtime.driver=io_uring", "--runtime.driver=auto"] {
        let gateway = Gateway::start(&[flag]);
        works(&gateway);
        assert_eq!(driver(&gateway), "io_uring");
        assert!(gateway.log().contains("io_uring"), "{}", gateway.log());
    }
}

#[test]
fn forbidden_io_uring_leads_to_epoll_and_a_line_in_the_log() {
    if is_official() {
        return;
    }
    let gateway = without_io_uring(|| Gateway::start(&["--runtime.driver=auto"]));
    works(&gateway);
    assert_eq!(driver(&gateway), "epoll");
    let log = gateway.log();
    assert!(log.lines().any(|line| line.contains("epoll") && line.contains("io_uring")), "{log}");
}

#[test]
fn forbidden_io_uring_that_was_asked_for_is_no_start() {
    if is_official() {
        return;
    }
    let output = without_io_uring(|| {
        Command::new(program())
            .arg(format!("--web.listen-address=127.0.0.1:{}", free_port()))
            .arg("--runtime.driver=io_uring")
            .output()
            .expect("the program starts")
    });
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(said.contains("io_uring"), "{said}");
}

/// The ring that a probe would try is tiny and fits under the limit, the real one may not.
#[test]
fn little_lockable_memory_is_no_obstacle() {
    if is_official() {
        return;
    }
    for kilobytes in [0, 8, 16, 64] {
        let limit = format!("ulimit -l {kilobytes}; exec \"$@\"");
        let gateway = Gateway::start_by(&["sh", "-c", &limit, "sh"], &["--runtime.driver=auto"]);
        works(&gateway);
        let log = gateway.log();
        assert!(log.contains("io_uring") || log.contains("epoll"), "{log}");
    }
}
