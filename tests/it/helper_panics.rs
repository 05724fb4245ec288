//! Panics in the helper threads of the real program: each shows in the health check, in metrics and in the log, what the thread was
//! doing ends with an error, and the gateway goes on.
//!
//! The panics come from the standard library: `support/failing_thread.c` lets one call to the operating system fail on one thread.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;
use sluicegate::storage::engines::ENGINES;

use crate::support::gateway::Gateway;
use crate::support::{preload, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);

/// Lets a call fail on a thread of the gateways that it starts.
struct FailingThread {
    folder: tempfile::TempDir,
}

impl FailingThread {
    /// `None` without a C compiler, which is reported as a skip.
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        preload::build("failing_thread", folder.path())?;
        Some(Self { folder })
    }

    /// The command that starts a gateway with the library.
    fn wrapper(&self) -> [String; 3] {
        let path = self.folder.path().display();
        let library = format!("LD_PRELOAD={path}/failing_thread.so");
        ["env".to_owned(), library, format!("FAILING_THREAD={path}/thread")]
    }

    fn start(&self, flags: &[&str]) -> Gateway {
        Gateway::start_by(&self.wrapper().each_ref().map(String::as_str), flags)
    }

    /// The flags of a store in the folder.
    fn store(&self, engine: &str) -> [String; 2] {
        let path = self.folder.path().join(format!("store-{engine}"));
        [format!("--storage.backend={engine}"), format!("--storage.path={}", path.display())]
    }

    /// Lets the next call of a thread with this name fail, which may contain `*`.
    fn fail(&self, thread: &str) {
        let (new, file) = (self.folder.path().join("new"), self.folder.path().join("thread"));
        fs::write(&new, thread).and_then(|()| fs::rename(&new, &file)).expect("a writable folder");
    }

    fn has_failed(&self) -> bool {
        !self.folder.path().join("thread").exists()
    }
}

fn own_value(gateway: &Gateway, name: &str) -> f64 {
    gateway.scrape().value(name, &[]).expect("the gateway's own metric").parse().expect("a number")
}

/// Waits until a panic of a thread, whose name begins like this, shows everywhere.
fn assert_shown(gateway: &Gateway, thread: &str) {
    let named = format!("thread {thread}");
    let text = wait_for("the panic in the health check", PATIENCE, || {
        let health = gateway.get("/-/healthy");
        (health.status == 500 && own_value(gateway, "sluicegate_healthy") == 0.0).then(|| health.text())
    });
    assert!(own_value(gateway, "sluicegate_helper_panics_total") >= 1.0, "{text}");
    wait_for("the panic in the log", PATIENCE, || {
        let log = gateway.log();
        log.lines()
            .any(|line| line.contains(&named) || line.contains(&format!("msg=panic thread={thread}")))
            .then_some(())
    });
}

/// A push that is prepared on a worker, and needs random numbers for a hash table there.
fn large_utf8_push() -> String {
    (0..20_000).map(|number| format!("{{\"large\",\"not.plain\"=\"{number:020}\"}} 1\n")).collect()
}

#[test]
fn a_push_whose_worker_panics_gets_an_error_and_the_worker_goes_on() {
    let Some(failing) = FailingThread::new() else { return };
    let mut gateway = failing.start(&["--push.enable-utf8-names", "--runtime.cores=1"]);
    failing.fail("worker-*");
    let push = large_utf8_push();
    let response = gateway.put("/metrics/job/a", &push);
    assert_eq!((response.status, response.text().trim()), (500, "internal error, see the log"));
    assert!(failing.has_failed());
    assert_shown(&gateway, "worker-0");
    assert!(gateway.get("/-/healthy").text().contains("thread worker-0 panicked"));
    assert_eq!(own_value(&gateway, "sluicegate_in_flight_bytes"), 0.0);
    assert_eq!(own_value(&gateway, "sluicegate_groups"), 0.0);
    // The only worker.
    assert_eq!(gateway.put("/metrics/job/a", &push).status, 200);
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn pushes_that_a_panicking_writer_held_get_an_error_and_the_store_recovers() {
    let Some(failing) = FailingThread::new() else { return };
    for engine in ENGINES.iter().map(|engine| engine.name) {
        let [backend, path] = &failing.store(engine);
        let mut gateway = failing.start(&[backend, path]);
        assert_eq!(gateway.put("/metrics/job/before", "m 1\n").status, 200);
        // Between two pushes the thread calls the clock, too. Then no push is in flight.
        wait_for("a panic while a push is in flight", PATIENCE, || {
            failing.fail("store");
            let response = gateway.put("/metrics/job/unknown", "m 1\n");
            assert!([200, 503].contains(&response.status), "{}", response.text());
            (response.status == 503 && response.text().contains("outcome unknown")).then_some(())
        });
        assert_shown(&gateway, "store");
        wait_for("the store to recover", PATIENCE, || {
            (gateway.put("/metrics/job/after", "m 1\n").status == 200).then_some(())
        });
        assert_eq!(own_value(&gateway, "sluicegate_storage_failed"), 0.0);
        gateway.kill();
        let gateway = failing.start(&[backend, path]);
        for job in ["before", "after"] {
            assert!(gateway.scrape().value("m", &[("instance", ""), ("job", job)]).is_some(), "{engine}");
        }
    }
}

#[test]
fn a_panic_while_the_store_is_opened_ends_the_start_with_an_error() {
    let Some(failing) = FailingThread::new() else { return };
    for engine in ENGINES.iter().map(|engine| engine.name) {
        failing.fail("store");
        let wrapper = failing.wrapper();
        let store = failing.store(engine);
        let (status, log) = Gateway::fails_to_start_by(
            &wrapper.each_ref().map(String::as_str),
            &store.each_ref().map(String::as_str),
        );
        assert_eq!(status.code(), Some(1), "{engine}: {log}");
        assert!(log.contains("msg=\"gateway failed\"") && log.contains("thread store panicked"), "{log}");
    }
}

/// Each engine starts threads on the thread that opens the store.
#[test]
fn an_engine_that_cannot_start_threads_ends_the_start_with_an_error() {
    let Some(failing) = FailingThread::new() else { return };
    for engine in ENGINES.iter().map(|engine| engine.name) {
        let wrapper = failing.wrapper();
        let mut wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        wrapper.push("FAILING_TO_START=store");
        let store = failing.store(engine);
        let (status, log) = Gateway::fails_to_start_by(&wrapper, &store.each_ref().map(String::as_str));
        assert_eq!(status.code(), Some(1), "{engine}: {log}");
        assert!(log.contains("start the thread"), "{engine}: {log}");
    }
}

#[test]
fn a_compaction_that_panics_is_tried_again_and_delays_no_push() {
    let Some(failing) = FailingThread::new() else { return };
    let [backend, path] = &failing.store("snapshot");
    let mut gateway = failing.start(&[backend, path, "--persistence.interval=1s"]);
    failing.fail("store-compact");
    wait_for("the panic", PATIENCE, || {
        assert_eq!(gateway.put("/metrics/job/a", "m 1\n").status, 200);
        failing.has_failed().then_some(())
    });
    wait_for("the background error", PATIENCE, || {
        (own_value(&gateway, "sluicegate_storage_background_error") == 1.0).then_some(())
    });
    assert_shown(&gateway, "store-compact");
    wait_for("the next compaction", PATIENCE, || {
        assert_eq!(gateway.put("/metrics/job/a", "m 2\n").status, 200);
        let is_compacted = own_value(&gateway, "sluicegate_storage_archive_bytes") > 0.0;
        (is_compacted && own_value(&gateway, "sluicegate_storage_background_error") == 0.0).then_some(())
    });
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn a_sync_thread_that_panics_fails_the_store_until_it_recovers() {
    let Some(failing) = FailingThread::new() else { return };
    let [backend, path] = &failing.store("snapshot");
    let mut gateway = failing.start(&[backend, path]);
    failing.fail("store-disk");
    // Acknowledged, because with this durability the sync comes later.
    assert_eq!(gateway.put("/metrics/job/a", "m 1\n").status, 200);
    assert_shown(&gateway, "store-disk");
    wait_for("the line about the store", PATIENCE, || {
        gateway.log().contains("a background thread of the engine has ended").then_some(())
    });
    wait_for("the store to recover", PATIENCE, || {
        (gateway.put("/metrics/job/b", "m 1\n").status == 200).then_some(())
    });
    gateway.kill();
    let gateway = failing.start(&[backend, path]);
    for job in ["a", "b"] {
        assert!(gateway.scrape().value("m", &[("instance", ""), ("job", job)]).is_some());
    }
}

#[test]
fn after_a_panic_of_the_log_thread_lines_are_still_written() {
    let Some(failing) = FailingThread::new() else { return };
    let mut gateway = failing.start(&[]);
    // After a line that could not be written, the thread writes one with the time.
    gateway.limit_file_bytes(Some(1));
    gateway.signal(Signal::HUP);
    wait_for("a dropped line", PATIENCE, || {
        (own_value(&gateway, "sluicegate_log_dropped_lines_total") > 0.0).then_some(())
    });
    failing.fail("log");
    gateway.limit_file_bytes(None);
    gateway.signal(Signal::HUP);
    assert_shown(&gateway, "log");
    assert!(gateway.get("/-/healthy").text().contains("thread log panicked"));
    let lines = |gateway: &Gateway| gateway.log().matches("SIGHUP ignored").count();
    let before = lines(&gateway);
    gateway.signal(Signal::HUP);
    wait_for("the next line", PATIENCE, || (lines(&gateway) > before).then_some(()));
    assert_eq!(gateway.put("/metrics/job/a", "m 1\n").status, 200);
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn after_a_panic_of_the_signal_thread_sigterm_ends_the_program_at_once() {
    let Some(failing) = FailingThread::new() else { return };
    let mut gateway = failing.start(&[]);
    failing.fail("signals");
    gateway.signal(Signal::HUP);
    assert_shown(&gateway, "signals");
    assert_eq!(gateway.put("/metrics/job/a", "m 1\n").status, 200);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&gateway.stop()), Some(Signal::TERM.as_raw()));
}

#[test]
fn a_panic_of_the_memory_thread_shows_until_a_restart() {
    let Some(failing) = FailingThread::new() else { return };
    let mut gateway = failing.start(&[]);
    failing.fail("memory");
    assert_shown(&gateway, "memory");
    gateway.log_with("a helper thread has ended; restart the gateway");
    assert_eq!(gateway.put("/metrics/job/a", "m 1\n").status, 200);
    assert_eq!(gateway.stop().code(), Some(0));
}
