//! A store that fails for a while: the disk is full, descriptors run out. Writes continue by themselves, and nothing that was
//! acknowledged is lost.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::http_client::Connection;
use crate::support::{Gateway, skip, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);
/// How many pushes are stored before the trouble begins.
const GROUPS: usize = 20;
/// The size of the file system.
const DISK: &str = "32m";

/// How many lines of the log have a message.
fn logged(gateway: &Gateway, message: &str) -> usize {
    gateway.log().lines().filter(|line| line.contains(&format!("msg=\"{message}"))).count()
}

/// The jobs that have been acknowledged, from a scrape.
fn jobs(gateway: &Gateway) -> Vec<String> {
    let mut jobs: Vec<_> =
        gateway.scrape().samples("m").map(|sample| sample.label("job").to_owned()).collect();
    jobs.sort_unstable();
    jobs
}

/// Pushes to new groups until one is rejected. Returns the acknowledged jobs.
fn push_until_rejected(gateway: &Gateway, body: &str) -> Vec<String> {
    for number in 0..100_000 {
        let job = format!("filling-{number}");
        if gateway.put(&format!("/metrics/job/{job}"), body).status != 200 {
            return (0..number).map(|number| format!("filling-{number}")).collect();
        }
    }
    panic!("the disk does not fill up");
}

fn wait_until_accepted(gateway: &Gateway, job: &str) {
    wait_for("storage to recover", PATIENCE, || {
        (gateway.put(&format!("/metrics/job/{job}"), "m 1\n").status == 200).then_some(())
    });
}

/// The gateway has a small file system of its own, in a mount namespace that ends with it.
#[test]
fn a_disk_that_was_full_is_used_again() {
    if !rustix::process::getuid().is_root() {
        return skip::report("mount", "only root may mount a file system");
    }
    let folder = tempfile::tempdir().expect("a folder");
    let disk = folder.path().display().to_string();
    let mount = format!("mount -t tmpfs -o size={DISK} none \"$0\" && exec \"$@\"");
    let wrapper = ["unshare", "--mount", "sh", "-c", &mount, &disk];
    let path = format!("--storage.path={disk}/store");
    let mut gateway =
        Gateway::start_by(&wrapper, &["--storage.backend=snapshot", &path, "--storage.durability=disk"]);
    // The same folder, as the gateway sees it.
    let root = format!("/proc/{}/root{disk}", gateway.pid().as_raw_nonzero());
    let seen = |path: &str| PathBuf::from(format!("{root}/{path}"));
    let large = format!("m{{x=\"{}\"}} 1\n", "x".repeat(60_000));
    let mut expected = Vec::new();
    for round in 0..3 {
        let filler = seen("filler");
        // Leaves some room at first, so that the store itself fills the disk.
        let filled = fs::write(&filler, vec![0; 16 << 20]);
        assert!(round > 0 || filled.is_ok(), "{filled:?}");
        if round == 0 {
            expected = push_until_rejected(&gateway, &large);
            assert!(expected.len() > 1);
        } else {
            wait_for("a rejected push", PATIENCE, || {
                let status = gateway.put(&format!("/metrics/job/round-{round}"), &large).status;
                fs::write(seen("rest"), vec![0; 32 << 20]).expect_err("the disk is full");
                (status != 200).then_some(())
            });
        }
        let refused = gateway.put("/metrics/job/refused", "m 1\n");
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
        assert_eq!(gateway.get("/-/healthy").status, 500);
        assert!(gateway.get("/metrics").text().contains("sluicegate_storage_failed 1"));
        let _ = fs::remove_file(seen("rest"));
        fs::remove_file(&filler).expect("the file exists");
        let job = format!("after-{round}");
        wait_until_accepted(&gateway, &job);
        expected.push(job);
        assert_eq!(gateway.get("/-/healthy").status, 200);
        assert_eq!(logged(&gateway, "error persisting metrics"), round + 1, "once: {}", gateway.log());
        assert_eq!(logged(&gateway, "storage recovered"), round + 1, "once: {}", gateway.log());
    }
    let now = jobs(&gateway);
    assert!(expected.iter().all(|job| now.contains(job)), "{now:?}");
    // The file system goes with its last process, so a copy shows what a restart would find after a kill.
    gateway.signal(rustix::process::Signal::STOP);
    let copy = tempfile::tempdir().expect("a folder");
    copy_files(&seen("store"), copy.path());
    gateway.kill();
    let restarted = Gateway::start(&[&format!("--storage.path={}", copy.path().display())]);
    assert_eq!(jobs(&restarted), now);
}

fn copy_files(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("the store").map(|entry| entry.expect("a file")) {
        let target = to.join(entry.file_name());
        if entry.file_type().expect("its type").is_dir() {
            fs::create_dir(&target).expect("a folder");
            copy_files(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

#[test]
fn a_store_keeps_its_descriptors_when_connections_take_all_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = format!("--persistence.file={}", folder.path().join("data").display());
    let flags = [file.as_str(), "--persistence.interval=1s", "--runtime.cores=2"];
    let wrapper = ["sh", "-c", "ulimit -n 100; exec \"$@\"", "sh"];
    let mut gateway = Gateway::start_by(&wrapper, &flags);
    let mut kept = gateway.connect();
    let push = |connection: &mut Connection, job: &str| {
        connection
            .request("PUT", &format!("/metrics/job/{job}"), &[], b"m 1\n")
            .ok()
            .map(|response| response.status)
    };
    for number in 0..GROUPS {
        assert_eq!(push(&mut kept, &format!("before-{number}")), Some(200));
    }
    let idle: Vec<_> =
        (0..150).map(|_| TcpStream::connect(("127.0.0.1", gateway.port())).expect("it listens")).collect();
    // Time for a merge of the log, which opens files.
    std::thread::sleep(Duration::from_millis(2500));
    // The kept connection may be closed to make room, as its client had nothing to send. Then another one is accepted.
    let status = push(&mut kept, "during").or_else(|| push(&mut gateway.connect(), "during"));
    assert_eq!(status, Some(200));
    assert_eq!(gateway.get("/-/healthy").status, 200);
    drop(idle);
    let before = jobs(&gateway);
    assert_eq!(before.len(), GROUPS + 1);
    gateway.kill();
    let restarted = Gateway::start(&flags);
    assert_eq!(jobs(&restarted), before);
}
