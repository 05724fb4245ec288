//! Network drivers: io_uring, epoll, and the fallback where io_uring is unavailable (containers forbid it, and old kernels
//! count its memory against `RLIMIT_MEMLOCK`).

use std::process::Command;

use crate::support::gateway::{Encoding, program, scrape};
use crate::support::seccomp::without_io_uring;
use crate::support::{Gateway, free_port, skip};

/// The driver that the gateway uses, according to its metrics.
fn driver(gateway: &Gateway) -> String {
    let seen = gateway.scrape();
    let mut info = seen.samples("sluicegate_runtime_info");
    info.next().expect("the gateway exposes its driver").label("driver").to_owned()
}

/// Panics unless the gateway serves pushes and scrapes.
fn check_serves(gateway: &Gateway) {
    // Larger than a socket buffer, in both directions.
    let body: String = (0..60_000).map(|n| format!("m{{n=\"{n}\"}} {n}\n")).collect();
    let mut connection = gateway.connect();
    for _ in 0..3 {
        let response = connection.request("PUT", "/metrics/job/a", &[], body.as_bytes()).expect("a response");
        assert_eq!(response.status, 200);
        assert_eq!(scrape(&mut connection, Encoding::Plain).samples("m").count(), 60_000);
        assert_eq!(scrape(&mut connection, Encoding::Gzip).samples("m").count(), 60_000);
    }
    for job in 0..50 {
        assert_eq!(gateway.put(&format!("/metrics/job/j{job}"), "n 1\n").status, 200);
    }
    assert_eq!(gateway.scrape().samples("n").count(), 50);
}

/// The driver in the log line that the gateway writes when it starts.
fn logged_driver(gateway: &Gateway) -> String {
    let log = gateway.log_with("driver=");
    let word = log.split("driver=").nth(1).and_then(|rest| rest.split_whitespace().next());
    word.unwrap_or_else(|| panic!("no driver in the log:\n{log}")).to_owned()
}

#[test]
fn epoll_serves_if_selected() {
    let gateway = Gateway::start(&["--runtime.driver=epoll"]);
    check_serves(&gateway);
    assert_eq!((driver(&gateway), logged_driver(&gateway)), ("epoll".to_owned(), "epoll".to_owned()));
}

#[test]
fn io_uring_serves_if_selected_and_by_default() {
    if skip::without_io_uring() {
        return;
    }
    for flag in ["--runtime.driver=io_uring", "--runtime.driver=auto"] {
        let gateway = Gateway::start(&[flag]);
        check_serves(&gateway);
        assert_eq!(
            (driver(&gateway), logged_driver(&gateway)),
            ("io_uring".to_owned(), "io_uring".to_owned())
        );
    }
}

#[test]
fn forbidden_io_uring_falls_back_to_epoll_with_a_log_line() {
    let gateway = without_io_uring(|| Gateway::start(&["--runtime.driver=auto"]));
    check_serves(&gateway);
    assert_eq!(driver(&gateway), "epoll");
    let log = gateway.log_with("driver=");
    assert!(log.lines().any(|line| line.contains("epoll") && line.contains("io_uring")), "{log}");
}

#[test]
fn the_start_fails_if_the_selected_io_uring_is_forbidden() {
    let output = without_io_uring(|| {
        Command::new(program())
            .arg(format!("--web.listen-address=127.0.0.1:{}", free_port()))
            .arg("--runtime.driver=io_uring")
            .output()
            .expect("the program starts")
    });
    assert!(!output.status.success());
    let log = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(log.contains("io_uring"), "{log}");
}

/// Old kernels count rings against `RLIMIT_MEMLOCK`: the small ring of a trial may fit where the real ones do not.
#[test]
fn serves_with_little_lockable_memory() {
    for kilobytes in [0, 8, 16, 64] {
        let limit = format!("ulimit -l {kilobytes}; exec \"$@\"");
        let gateway = Gateway::start_by(&["sh", "-c", &limit, "sh"], &["--runtime.driver=auto"]);
        check_serves(&gateway);
        // Either driver is right, depending on the kernel, but the gateway must know which one it uses.
        let driver = driver(&gateway);
        assert!(driver == "epoll" || driver == "io_uring", "{driver}");
        assert_eq!(logged_driver(&gateway), driver);
        if driver == "epoll" && skip::has_io_uring() {
            let log = gateway.log();
            assert!(
                log.lines().any(|line| line.contains("io_uring") && line.contains("epoll")),
                "the fallback is not logged with {kilobytes} KiB:\n{log}"
            );
        }
    }
}
