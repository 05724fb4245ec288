//! A store that fails for a while: the disk is full, descriptors run out. Writes continue by themselves, and nothing that was
//! acknowledged is lost.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use sluicegate::storage::engines::ENGINES;

use crate::support::http_client::Connection;
use crate::support::{Gateway, preload, skip, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);
/// How many pushes are stored before the trouble begins.
const GROUPS: usize = 20;
/// The size of the file system.
const DISK: &str = "64m";
/// How much of it is used up by others. The new files of a recovery are as large as all groups, which fit into the rest.
const FILLER_BYTES: usize = 40 << 20;

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

/// The jobs of all groups.
fn groups(gateway: &Gateway) -> Vec<String> {
    let scrape = gateway.scrape();
    let mut jobs: Vec<_> =
        scrape.samples("push_time_seconds").map(|sample| sample.label("job").to_owned()).collect();
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
        let filled = fs::write(&filler, vec![0; FILLER_BYTES]);
        assert!(round > 0 || filled.is_ok(), "{filled:?}");
        if round == 0 {
            expected = push_until_rejected(&gateway, &large);
            assert!(expected.len() > 1);
        } else {
            // Only the numbers of a known body would be stored, and there is room for many of them.
            let mut bodies = (0..).map(|number| large.replace("x=\"", &format!("x=\"{number}")));
            wait_for("a rejected push", PATIENCE, || {
                let body = bodies.next().expect("endless");
                let status = gateway.put(&format!("/metrics/job/round-{round}"), &body).status;
                fs::write(seen("rest"), vec![0; 64 << 20]).expect_err("the disk is full");
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
        wait_for("the line about the recovery", PATIENCE, || {
            (logged(&gateway, "storage recovered") > round).then_some(())
        });
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
    thread::sleep(Duration::from_millis(2500));
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

/// Files cannot be opened for a while. Commits of sled open files; those of snapshot do when a segment of the log is full.
#[test]
fn a_store_without_descriptors_recovers_when_there_are_some() {
    for engine in ENGINES.iter().map(|engine| engine.name) {
        let folder = tempfile::tempdir().expect("a folder");
        let backend = format!("--storage.backend={engine}");
        let path = format!("--storage.path={}", folder.path().join("store").display());
        let flags = [backend.as_str(), &path, "--storage.durability=disk", "--persistence.interval=1s"];
        let mut gateway = Gateway::start(&flags);
        let mut kept = gateway.connect();
        let mut get = |method: &str, path: &str, body: &str| {
            kept.request(method, path, &[], body.as_bytes()).expect("the connection stays")
        };
        assert_eq!(get("PUT", "/metrics/job/before", "m 1\n").status, 200);
        gateway.limit_new_descriptors(true);
        let large = format!("m{{x=\"{}\"}} 1\n", "x".repeat(60_000));
        let mut number = 0;
        while get("PUT", &format!("/metrics/job/large-{number}"), &large).status == 200 {
            number += 1;
            assert!(number < 10_000, "{engine} never opens a file");
        }
        let refused = get("PUT", "/metrics/job/refused", "m 1\n");
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{engine}");
        assert_eq!(get("GET", "/-/healthy", "").status, 500);
        assert!(get("GET", "/metrics", "").text().contains("job=\"before\""), "scrapes continue");
        gateway.limit_new_descriptors(false);
        wait_until_accepted(&gateway, "after");
        let now = jobs(&gateway);
        assert!(now.len() >= number + 2, "{engine}: {} of {number}", now.len());
        gateway.kill();
        assert_eq!(jobs(&Gateway::start(&flags)), now, "{engine}");
    }
}

/// Lets the syncs of the gateways fail that it starts.
struct FailingSync {
    folder: tempfile::TempDir,
}

/// How long syncs fail.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Failing {
    Once,
    UntilToldOtherwise,
}

impl FailingSync {
    /// `None` without a C compiler, which is reported as a skip.
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        preload::build("failing_sync", folder.path())?;
        Some(Self { folder })
    }

    fn wrapper(&self) -> [String; 3] {
        let path = self.folder.path().display();
        let library = format!("LD_PRELOAD={path}/failing_sync.so");
        ["env".to_owned(), library, format!("FAILING_SYNC={path}/fails")]
    }

    fn start(&self, flags: &[String]) -> Gateway {
        let wrapper = self.wrapper();
        let wrapper = wrapper.each_ref().map(String::as_str);
        Gateway::start_by(&wrapper, &flags.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn fail(&self, failing: Failing) {
        let content = if failing == Failing::Once { "once" } else { "always" };
        let (new, file) = (self.folder.path().join("new"), self.folder.path().join("fails"));
        fs::write(&new, content).and_then(|()| fs::rename(&new, &file)).expect("a writable folder");
    }

    fn end(&self) {
        let _ = fs::remove_file(self.folder.path().join("fails"));
    }

    fn has_failed_once(&self) -> bool {
        !self.folder.path().join("fails").exists()
    }
}

/// How many clients push at a time, each to groups of its own.
const CLIENTS: u64 = 3;
const GROUPS_PER_CLIENT: u64 = 5;

/// For each group, the number that was acknowledged last, and the last that was sent.
type Pushed = BTreeMap<String, (u64, u64)>;

/// Pushes increasing numbers to the groups of a client until the gateway is killed.
fn push_until_killed(port: u16, client: u64, pushed: &mut Pushed, acknowledged: &AtomicU64) {
    let Ok(mut connection) = Connection::open(port) else { return };
    let mut number = pushed.values().map(|(_, sent)| *sent).max().unwrap_or(0);
    // Some records are so large that segments of the log fill up.
    let padding = "x".repeat(20_000);
    loop {
        number += 1;
        let job = format!("client-{client}-{}", number % GROUPS_PER_CLIENT);
        let padding = if number.is_multiple_of(7) { padding.as_str() } else { "" };
        let body = format!("m {number}\n# {padding}\nn{{x=\"{padding}\"}} 1\n");
        let before = pushed.entry(job.clone()).or_insert((0, 0));
        before.1 = number;
        match connection.request("PUT", &format!("/metrics/job/{job}"), &[], body.as_bytes()) {
            Ok(response) if response.status == 200 => {
                before.0 = number;
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Ok(response) => {
                assert_eq!((response.status, response.header("retry-after")), (503, Some("1")));
                thread::yield_now();
            }
            Err(_) => return,
        }
    }
}

/// Checks that every group has the number that was acknowledged last, or one that was sent later.
fn check_pushed(gateway: &Gateway, pushed: &[Pushed], case: &str) {
    let scrape = gateway.scrape();
    for (job, (acknowledged, sent)) in pushed.iter().flatten() {
        let value = scrape.value("m", &[("instance", ""), ("job", job)]);
        let value: f64 = value.map_or(0.0, |value| value.parse().expect("a number"));
        assert!(
            (*acknowledged as f64..=*sent as f64).contains(&value),
            "{case}: {job} has {value}; {acknowledged} was acknowledged, {sent} was sent"
        );
    }
}

/// Syncs fail while clients push, once or for a while, and the gateway is killed before, during and after its recovery.
#[test]
fn failing_syncs_and_kills_under_load_lose_nothing() {
    let Some(failing) = FailingSync::new() else { return };
    // sled syncs nothing with durability `process`.
    for (engine, durability) in [("snapshot", "process"), ("snapshot", "disk"), ("sled", "disk")] {
        let path = failing.folder.path().join(format!("store-{engine}-{durability}"));
        let flags = [
            format!("--storage.backend={engine}"),
            format!("--storage.path={}", path.display()),
            format!("--storage.durability={durability}"),
            "--persistence.interval=1s".to_owned(),
        ];
        let mut pushed = vec![Pushed::new(); CLIENTS as usize];
        for round in 0..6 {
            let case = format!("{engine}, {durability}, round {round}");
            failing.end();
            let mut gateway = failing.start(&flags);
            check_pushed(&gateway, &pushed, &case);
            let acknowledged = AtomicU64::new(0);
            let wait_for_pushes = |count: u64| {
                let least = acknowledged.load(Ordering::Relaxed) + count;
                wait_for("pushes", PATIENCE, || {
                    (acknowledged.load(Ordering::Relaxed) >= least).then_some(())
                });
            };
            let port = gateway.port();
            thread::scope(|scope| {
                let acknowledged = &acknowledged;
                for (client, pushed) in (0..).zip(&mut pushed) {
                    scope.spawn(move || push_until_killed(port, client, pushed, acknowledged));
                }
                wait_for_pushes(20 + 10 * round);
                let kind = if round % 2 == 0 { Failing::Once } else { Failing::UntilToldOtherwise };
                failing.fail(kind);
                if kind == Failing::Once {
                    wait_for("a failed sync", PATIENCE, || failing.has_failed_once().then_some(()));
                } else {
                    wait_for("the failure", PATIENCE, || {
                        (gateway.get("/-/healthy").status == 500).then_some(())
                    });
                    assert!(gateway.get("/metrics").text().contains("sluicegate_storage_failed 1"));
                }
                if round < 2 {
                    // Killed while the store has failed, or recovers.
                    gateway.kill();
                    return;
                }
                failing.end();
                let ended = Instant::now();
                wait_for_pushes(1);
                eprintln!("{case}: accepted again after {:?}", ended.elapsed());
                wait_for_pushes(if round < 4 { 1 } else { 50 });
                gateway.kill();
            });
        }
        check_pushed(&failing.start(&flags), &pushed, engine);
    }
}

/// A start that cannot store what it imports fails, and the next one imports everything.
#[test]
fn an_import_that_cannot_be_stored_is_repeated() {
    let Some(failing) = FailingSync::new() else { return };
    let file = failing.folder.path().join("data");
    let official = Path::new(env!("CARGO_MANIFEST_DIR")).join("backends/gob/testdata/pushgateway-1.11.3.gob");
    fs::copy(official, &file).expect("a persistence file");
    let flags = [format!("--persistence.file={}", file.display())];
    failing.fail(Failing::UntilToldOtherwise);
    let wrapper = failing.wrapper();
    let (status, log) =
        Gateway::fails_to_start_by(&wrapper.each_ref().map(String::as_str), &[flags[0].as_str()]);
    assert_eq!(status.code(), Some(1), "{log}");
    failing.end();
    let mut gateway = failing.start(&flags);
    let now = groups(&gateway);
    assert!(!now.is_empty(), "{}", gateway.log());
    gateway.kill();
    assert_eq!(groups(&failing.start(&flags)), now);
}
