//! Persistence: acknowledged pushes survive a restart, however the process ended.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sluicegate::storage::engines::ENGINES;

use crate::support::gateway::Gateway;
use crate::support::http_client::Connection;
use crate::support::wait_for;

/// A new folder for one test.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("storage-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("a writable folder");
    path
}

fn flags(engine: &str, path: &Path) -> Vec<String> {
    vec![format!("--storage.backend={engine}"), format!("--storage.path={}", path.display())]
}

fn start(flags: &[String]) -> Gateway {
    Gateway::start(&flags.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The sample lines of a scrape, sorted, without the gateway's own metrics.
fn pushed(gateway: &Gateway) -> Vec<String> {
    let text = gateway.request("GET", "/metrics", &[], b"").text();
    let own = ["process_", "pushgateway_", "sluicegate_", "#"];
    let mut lines: Vec<String> =
        text.lines().filter(|line| !own.iter().any(|own| line.starts_with(own))).map(str::to_owned).collect();
    lines.sort();
    lines
}

#[test]
fn difference_16_acknowledged_pushes_survive_a_kill_and_a_stop() {
    for engine in ENGINES.iter().map(|engine| engine.name) {
        for durability in ["process", "disk"] {
            let path = folder(&format!("survive-{engine}-{durability}"));
            let mut flags = flags(engine, &path);
            flags.push(format!("--storage.durability={durability}"));
            let mut gateway = start(&flags);
            let histogram = "# HELP h of all\n# TYPE h histogram\nh_bucket{le=\"1\"} 2\nh_sum 3\nh_count 4\n";
            for (method, path, body, status) in [
                ("PUT", "/metrics/job/a", "m 1\n# TYPE c counter\nc{x=\"1\"} 1e+09\n", 200),
                ("POST", "/metrics/job/a", histogram, 200),
                ("PUT", "/metrics/job/b/zone/x", "m 2\n", 200),
                ("PUT", "/metrics/job/b/zone/y", "m 3\n", 200),
                ("DELETE", "/metrics/job/b/zone/y", "", 202),
                ("PUT", "/metrics/job/c", "# TYPE m counter\nm 2\n", 400),
                ("PUT", "/metrics/job/empty", "", 200),
                ("PUT", "/metrics/job/z", "z -0\n", 200),
            ] {
                let response = gateway.request(method, path, &[], body.as_bytes());
                assert_eq!(response.status, status, "{method} {path}: {}", response.text());
            }
            let before = pushed(&gateway);
            assert!(
                before
                    .iter()
                    .any(|line| line.starts_with("push_failure_time_seconds{instance=\"\",job=\"c\"}"))
            );
            for signal in ["KILL", "TERM", "KILL"] {
                match signal {
                    "KILL" => gateway.kill(),
                    _ => assert!(gateway.stop().success()),
                }
                gateway = start(&flags);
                assert_eq!(pushed(&gateway), before, "{engine}, {durability}, after {signal}");
            }
            // The restored state takes part in later pushes.
            assert_eq!(gateway.request("DELETE", "/metrics/job/a", &[], b"").status, 202);
            assert_eq!(gateway.request("PUT", "/metrics/job/c", &[], b"# TYPE m counter\nm 2\n").status, 400);
            assert_eq!(gateway.request("DELETE", "/metrics/job/b/zone/x", &[], b"").status, 202);
            assert_eq!(gateway.request("PUT", "/metrics/job/c", &[], b"# TYPE m counter\nm 2\n").status, 200);
        }
    }
}

/// How much an engine may write for 20 small changes of a large group.
fn small_changes_bytes_max(engine: &str, group_bytes: u64) -> u64 {
    match engine {
        // The changes, and frames around them.
        "snapshot" => 64 << 10,
        // sled keeps neighbours in one page, and writes the whole page after every few changes of one of them.
        "sled" => 6 * group_bytes,
        _ => panic!("measure how much {engine} writes"),
    }
}

/// Waits until the engine has finished what a large push began, such as the preparation of files.
fn wait_until_nothing_is_written(gateway: &Gateway) {
    let mut before = (gateway.written_bytes(), Instant::now());
    wait_for("the end of writing", Duration::from_secs(60), || {
        let now = gateway.written_bytes();
        if now != before.0 {
            before = (now, Instant::now());
        }
        (before.1.elapsed() > Duration::from_secs(1)).then_some(())
    });
}

/// A small change of a large group is a small write: a pushed family, and the time of a rejected push.
#[test]
fn a_small_change_of_a_large_group_writes_little() {
    const LARGE_BYTES: usize = 8 << 20;
    for engine in ENGINES.iter().map(|engine| engine.name) {
        let path = folder(&format!("patches-{engine}"));
        let mut gateway = start(&flags(engine, &path));
        let line = |number| format!("large{{x=\"{number}{}\"}} 1\n", "x".repeat(1000));
        let large: String = (0..LARGE_BYTES / 1000).map(line).collect();
        assert_eq!(gateway.post("/metrics/job/a", &large).status, 200);
        assert_eq!(gateway.put("/metrics/job/b", "# TYPE m gauge\nm 1\n").status, 200);
        wait_until_nothing_is_written(&gateway);
        let before = gateway.written_bytes();
        for number in 0..10 {
            assert_eq!(gateway.post("/metrics/job/a", &format!("# TYPE m gauge\nm {number}\n")).status, 200);
            assert_eq!(gateway.post("/metrics/job/a", "# TYPE m counter\nm 1\n").status, 400);
        }
        let written = gateway.written_bytes() - before;
        let written_max = small_changes_bytes_max(engine, LARGE_BYTES as u64);
        assert!(
            written <= written_max,
            "{engine}: {written} bytes for 20 small changes, {written_max} allowed"
        );
        let lines = pushed(&gateway);
        assert!(lines.iter().any(|line| line == "m{instance=\"\",job=\"a\"} 9"));
        for signal in ["KILL", "TERM"] {
            match signal {
                "KILL" => gateway.kill(),
                _ => assert!(gateway.stop().success()),
            }
            gateway = start(&flags(engine, &path));
            assert!(pushed(&gateway) == lines, "{engine}, after {signal}");
        }
    }
}

/// How much an engine may write for 2,000 pushes of a known shape with 64 numbers.
fn numbers_bytes_max(engine: &str) -> u64 {
    match engine {
        // 600 bytes for each, and the zeros of a segment. Records would have 4,500 bytes.
        "snapshot" => 5 << 20,
        // sled writes whole pages.
        "sled" => 2_000 * (64 << 10),
        _ => panic!("measure how much {engine} writes"),
    }
}

/// A push whose group has its shape writes its numbers, and the latest ones survive, whatever else happens to the group.
#[test]
fn pushes_of_a_known_shape_write_their_numbers() {
    let body = |first: u32| -> String {
        let line = |index| format!("known_shape_of_a_body{{index=\"{index:03}\"}} {}.5\n", first + index);
        (0..64).map(line).collect()
    };
    for engine in ENGINES.iter().map(|engine| engine.name) {
        let path = folder(&format!("numbers-{engine}"));
        let mut gateway = start(&flags(engine, &path));
        let put = |gateway: &Gateway, job: &str, first| {
            assert_eq!(gateway.put(&format!("/metrics/job/{job}"), &body(first)).status, 200);
        };
        for first in 0..4 {
            ["a", "b", "c"].into_iter().for_each(|job| put(&gateway, job, first));
        }
        wait_until_nothing_is_written(&gateway);
        let before = gateway.written_bytes();
        (0..1000).for_each(|first| ["a", "b"].into_iter().for_each(|job| put(&gateway, job, first)));
        let (written, written_max) = (gateway.written_bytes() - before, numbers_bytes_max(engine));
        assert!(written <= written_max, "{engine}: {written} bytes written, {written_max} allowed");
        // Another shape and the same one again, and a rejected push between two of them.
        assert_eq!(gateway.post("/metrics/job/b", "other 1\n").status, 200);
        (7..9).for_each(|first| put(&gateway, "b", first));
        put(&gateway, "c", 10);
        let contradiction = "# TYPE known_shape_of_a_body counter\nknown_shape_of_a_body 1\n";
        assert_eq!(gateway.post("/metrics/job/c", contradiction).status, 400);
        for (round, signal) in ["KILL", "TERM", "KILL"].into_iter().enumerate() {
            let before = pushed(&gateway);
            match signal {
                "KILL" => gateway.kill(),
                _ => assert!(gateway.stop().success()),
            }
            gateway = start(&flags(engine, &path));
            assert_eq!(pushed(&gateway), before, "{engine}, after {signal}");
            for first in 0..3 {
                put(&gateway, "a", 20 + 10 * round as u32 + first);
            }
        }
    }
}

#[test]
fn a_wipe_survives_a_kill() {
    for engine in ENGINES.iter().map(|engine| engine.name) {
        let path = folder(&format!("wipe-{engine}"));
        let mut flags = flags(engine, &path);
        flags.push("--web.enable-admin-api".to_owned());
        let mut gateway = start(&flags);
        for job in 0..20 {
            assert_eq!(gateway.request("PUT", &format!("/metrics/job/{job}"), &[], b"m 1\n").status, 200);
        }
        assert_eq!(gateway.request("PUT", "/api/v1/admin/wipe", &[], b"").status, 202);
        gateway.kill();
        assert_eq!(pushed(&start(&flags)), [""; 0]);
    }
}

#[test]
fn a_second_gateway_on_the_same_store_fails_to_start() {
    for engine in ENGINES.iter().map(|engine| engine.name) {
        let path = folder(&format!("one-{engine}"));
        let _first = start(&flags(engine, &path));
        let flags = flags(engine, &path);
        let (status, log) = Gateway::fails_to_start(&flags.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(status.code(), Some(1));
        assert!(log.contains("in use by another process"), "{log}");
    }
}

/// The gateway does not modify the file, and does not import it again after its groups were deleted.
#[test]
fn the_official_persistence_file_is_imported_once() {
    let path = folder("import");
    let file = path.join("store");
    let official = Path::new(env!("CARGO_MANIFEST_DIR")).join("backends/gob/testdata");
    let any = std::fs::read_dir(&official).expect("test data").filter_map(|file| Some(file.ok()?.path()));
    let source =
        any.into_iter().find(|path| path.to_string_lossy().contains("1.11.3")).expect("a file of 1.11.3");
    std::fs::copy(&source, &file).expect("a writable folder");
    let flags = [format!("--persistence.file={}", file.display())];
    let mut gateway = start(&flags);
    let before = pushed(&gateway);
    assert!(!before.is_empty());
    assert_eq!(
        std::fs::read(&file).expect("the file exists"),
        std::fs::read(&source).expect("the file exists")
    );
    gateway.kill();
    gateway = start(&flags);
    assert_eq!(pushed(&gateway), before);
    for line in before.iter().filter(|line| line.starts_with("push_time_seconds{")) {
        let labels = line.trim_start_matches("push_time_seconds{").split('}').next().expect("labels");
        let mut path = "/metrics".to_owned();
        let mut pairs: Vec<(&str, &str)> =
            labels.split(',').filter_map(|label| label.split_once('=')).collect();
        pairs.sort_by_key(|(name, _)| *name != "job");
        for (name, value) in pairs.iter().filter(|pair| **pair != ("instance", "\"\"")) {
            path.push_str(&format!("/{name}/{}", value.trim_matches('"')));
        }
        gateway.request("DELETE", &path, &[], b"");
    }
    gateway.request("PUT", "/metrics/job/own", &[], b"m 1\n");
    let after = pushed(&gateway);
    gateway.kill();
    gateway = start(&flags);
    assert_eq!(pushed(&gateway), after);
    // The official program seems to have run in between, so it is unclear which state is current.
    assert!(gateway.stop().success());
    std::thread::sleep(Duration::from_millis(20));
    std::fs::write(&file, std::fs::read(&source).expect("test data")).expect("a writable file");
    let (status, log) = Gateway::fails_to_start(&[&flags[0]]);
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("is newer than the store in"), "{log}");
}

#[test]
fn the_start_fails_if_the_persistence_file_is_invalid() {
    let path = folder("no-gob");
    let file = path.join("store");
    std::fs::write(&file, "not a gob").expect("a writable file");
    let (status, log) = Gateway::fails_to_start(&[&format!("--persistence.file={}", file.display())]);
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("not a persistence file"), "{log}");
    assert_eq!(std::fs::read(&file).expect("the file exists"), b"not a gob");
}

/// Starts a gateway that does not die of a signal when a limit on the size of files stops a write.
fn start_without_signal(flags: &[String]) -> Gateway {
    let wrapper = ["sh", "-c", "trap '' XFSZ; exec \"$@\"", "sh"];
    Gateway::start_by(&wrapper, &flags.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Waits until the health check says that storage has failed, and returns its text.
fn wait_until_unhealthy(gateway: &Gateway) -> String {
    wait_for("the health check to fail", Duration::from_secs(20), || {
        let health = gateway.get("/-/healthy");
        (health.status == 500).then(|| health.text())
    })
}

/// Waits until the gateway accepts a push again.
fn wait_until_accepted(gateway: &Gateway, path: &str, body: &str) {
    wait_for("storage to recover", Duration::from_secs(60), || {
        (gateway.put(path, body).status == 200).then_some(())
    });
    assert_eq!(gateway.get("/-/healthy").status, 200);
}

/// A limit on the size of files simulates a full disk. When there is space again, the gateway continues without a restart.
#[test]
fn difference_16_a_full_disk_rejects_writes_until_there_is_space() {
    for engine in ENGINES.iter().map(|engine| engine.name) {
        let path = folder(&format!("full-{engine}"));
        let flags = flags(engine, &path);
        let mut gateway = start_without_signal(&flags);
        assert_eq!(gateway.put("/metrics/job/kept", "m 1\n").status, 200);
        assert_eq!(gateway.put("/metrics/job/deleted", "m 1\n").status, 200);
        gateway.limit_file_bytes(Some(0));
        let failed = gateway.delete("/metrics/job/deleted");
        assert_eq!(failed.status, 503, "{}", failed.text());
        assert!(failed.text().contains("outcome unknown"), "{}", failed.text());
        let health = gateway.get("/-/healthy");
        assert_eq!(health.status, 500);
        assert!(health.text().contains("storage failed"), "{}", health.text());
        assert_eq!(gateway.put("/metrics/job/late", "m 1\n").status, 503);
        assert_eq!(gateway.delete("/metrics/job/kept").status, 503);
        let scrape = gateway.get("/metrics");
        assert_eq!(scrape.status, 200);
        assert!(scrape.text().contains("sluicegate_storage_failed 1"), "the metric shows the failure");

        gateway.limit_file_bytes(None);
        wait_until_accepted(&gateway, "/metrics/job/late", "m 2\n");
        assert!(gateway.get("/metrics").text().contains("sluicegate_storage_failed 0"));
        let before = pushed(&gateway);
        assert!(before.iter().any(|line| line.contains("job=\"kept\"")));
        assert!(!before.iter().any(|line| line.contains("job=\"deleted\"")), "memory has the delete");
        gateway.kill();
        let mut gateway = start(&flags);
        assert_eq!(pushed(&gateway), before, "{engine}");
        assert!(gateway.stop().success());
    }
}

#[test]
fn a_store_that_cannot_be_closed_is_an_exit_status() {
    for engine in ENGINES.iter().map(|engine| engine.name) {
        let path = folder(&format!("close-{engine}"));
        let mut gateway = start_without_signal(&flags(engine, &path));
        assert_eq!(gateway.put("/metrics/job/a", "m 1\n").status, 200);
        gateway.limit_file_bytes(Some(0));
        assert_eq!(gateway.stop().code(), Some(1), "{engine}: {}", gateway.log());
    }
}

/// Nobody pushes, so only the gateway's own check can find it.
#[test]
fn a_removed_folder_is_noticed_without_a_push() {
    for engine in ENGINES.iter().map(|engine| engine.name) {
        let path = folder(&format!("removed-{engine}"));
        let mut gateway = start(&flags(engine, &path));
        assert_eq!(gateway.put("/metrics/job/a", "m 1\n").status, 200);
        std::fs::remove_dir_all(&path).expect("the folder can be removed");
        let text = wait_until_unhealthy(&gateway);
        assert!(text.contains("removed, renamed or replaced"), "{text}");
        assert_eq!(gateway.put("/metrics/job/b", "m 1\n").status, 503);
        assert_eq!(gateway.get("/metrics").status, 200);
        assert_eq!(gateway.stop().code(), Some(1));
        assert!(!path.exists(), "the gateway does not begin a new store");
    }
}

#[test]
fn a_renamed_folder_is_noticed_and_used_again_when_it_is_back() {
    for engine in ENGINES.iter().map(|engine| engine.name) {
        let path = folder(&format!("renamed-{engine}"));
        let moved = path.with_extension("moved");
        let _ = std::fs::remove_dir_all(&moved);
        let mut gateway = start(&flags(engine, &path));
        assert_eq!(gateway.put("/metrics/job/a", "m 1\n").status, 200);
        std::fs::rename(&path, &moved).expect("the folder can be renamed");
        wait_until_unhealthy(&gateway);
        // A folder in its place is not the store.
        std::fs::create_dir(&path).expect("a folder can be created");
        assert_eq!(gateway.put("/metrics/job/b", "m 1\n").status, 503);
        std::fs::remove_dir_all(&path).expect("the folder can be removed");
        std::fs::rename(&moved, &path).expect("the folder can be renamed");
        wait_until_accepted(&gateway, "/metrics/job/b", "m 2\n");
        let before = pushed(&gateway);
        gateway.kill();
        assert_eq!(pushed(&start(&flags(engine, &path))), before);
    }
}

/// With durability `disk`, no push is acknowledged that is in deleted files.
#[test]
fn no_push_is_acknowledged_into_a_removed_folder() {
    for engine in ENGINES.iter().map(|engine| engine.name) {
        let path = folder(&format!("acknowledged-{engine}"));
        let mut flags = flags(engine, &path);
        flags.push("--storage.durability=disk".to_owned());
        let gateway = start(&flags);
        assert_eq!(gateway.put("/metrics/job/a", "m 1\n").status, 200);
        std::fs::remove_dir_all(&path).expect("the folder can be removed");
        assert_eq!(gateway.put("/metrics/job/b", "m 1\n").status, 503);
    }
}

/// Memory has what the file contained, so the gateway writes new files.
#[test]
fn a_missing_file_of_the_store_is_noticed_and_replaced() {
    let path = folder("missing");
    let flags = flags("snapshot", &path);
    let mut gateway = start(&flags);
    assert_eq!(gateway.put("/metrics/job/a", "m 1\n").status, 200);
    let log = std::fs::read_dir(&path).expect("a readable folder").flatten().map(|file| file.path());
    let log = log.into_iter().find(|file| file.to_string_lossy().contains("log-")).expect("a log segment");
    std::fs::remove_file(&log).expect("the file can be removed");
    wait_for("the line about the file", Duration::from_secs(20), || {
        let text = gateway.log();
        (text.contains("error persisting metrics") && text.contains("log-")).then_some(())
    });
    wait_until_accepted(&gateway, "/metrics/job/b", "m 1\n");
    let before = pushed(&gateway);
    gateway.kill();
    assert_eq!(pushed(&start(&flags)), before);
}

/// What is in the folder then may be a backup that somebody is putting back.
#[test]
fn a_store_without_its_manifest_does_not_recover_until_it_is_back() {
    let path = folder("manifest");
    let flags = flags("snapshot", &path);
    let mut gateway = start(&flags);
    assert_eq!(gateway.put("/metrics/job/a", "m 1\n").status, 200);
    let (manifest, away) = (path.join("manifest"), path.join("away"));
    std::fs::rename(&manifest, &away).expect("the file can be renamed");
    wait_until_unhealthy(&gateway);
    assert_eq!(gateway.put("/metrics/job/b", "m 1\n").status, 503);
    std::fs::rename(&away, &manifest).expect("the file can be renamed");
    wait_until_accepted(&gateway, "/metrics/job/b", "m 1\n");
    let before = pushed(&gateway);
    gateway.kill();
    assert_eq!(pushed(&start(&flags)), before);
}

/// The encoded record of a group with one push.
fn encoded(families: Vec<sluicegate_engine::record::Family<'_>>, push_seconds: f64) -> Vec<u8> {
    let record = sluicegate_engine::record::Record {
        revision: 0,
        push_seconds,
        failure_seconds: 0.0,
        created_seconds: push_seconds,
        expires_seconds: None,
        families,
    };
    let mut bytes = Vec::new();
    record.encode(&mut bytes).expect("a small record");
    bytes
}

/// A gateway never writes such a store. Of two contradicting groups, the one with the later push keeps only its push times.
#[test]
fn contradicting_groups_are_restored_in_the_order_of_their_push_times() {
    use sluicegate_engine::record::{Family, Kind};
    use sluicegate_engine::{Change, Durability, OpenOptions};

    let path = folder("contradict");
    {
        let store = (sluicegate_snapshot::ENGINE.open)(&path, OpenOptions::default()).expect("a new store");
        let (mut store, _) = store.read_all(std::num::NonZeroUsize::MIN, &|_, _| {}).expect("an empty store");
        let record = |kind, text: &'static str, push_seconds: f64| {
            let family =
                Family { name: "m", kind, help: None, push_seconds, text: text.as_bytes(), exact: None };
            encoded(vec![family], push_seconds)
        };
        let records = [
            ("job=\"late\"", record(Kind::Counter, "m{instance=\"\",job=\"late\"} 1\n", 30.0)),
            ("job=\"early\"", record(Kind::Gauge, "m{instance=\"\",job=\"early\",zone=\"x\"} 1\n", 10.0)),
            (
                "job=\"early\",zone=\"x\"",
                record(Kind::Gauge, "m{instance=\"\",job=\"early\",zone=\"x\"} 2\n", 20.0),
            ),
        ];
        let batch: Vec<_> = records.iter().map(|(key, record)| Change::Put { key, record }).collect();
        store.commit(&batch, Durability::Disk).expect("the engine commits");
        store.close().expect("the engine closes");
    }
    for _ in 0..2 {
        let mut gateway = start(&flags("snapshot", &path));
        let lines = pushed(&gateway);
        let of_m: Vec<&String> = lines.iter().filter(|line| line.starts_with("m{")).collect();
        assert_eq!(of_m, ["m{instance=\"\",job=\"early\",zone=\"x\"} 1"]);
        assert_eq!(lines.iter().filter(|line| line.starts_with("push_time_seconds{")).count(), 3);
        gateway.kill();
    }
}

/// Writes a store that takes a while to restore.
fn large_store(path: &Path, groups: u32) {
    use sluicegate_engine::record::{Family, Kind};
    use sluicegate_engine::{Change, Durability, OpenOptions};

    let store = (sluicegate_snapshot::ENGINE.open)(path, OpenOptions::default()).expect("a new store");
    let (mut store, _) = store.read_all(std::num::NonZeroUsize::MIN, &|_, _| {}).expect("an empty store");
    let names: Vec<String> = (0..10).map(|family| format!("m{family}")).collect();
    for first in (0..groups).step_by(10_000) {
        let records: Vec<(String, Vec<u8>)> = (first..groups.min(first + 10_000))
            .map(|group| {
                let texts: Vec<String> = names
                    .iter()
                    .map(|name| format!("{name}{{instance=\"{group}\",job=\"large\"}} 1\n"))
                    .collect();
                let family = |(name, text)| {
                    let (name, text): (&String, &String) = (name, text);
                    let kind = Kind::Gauge;
                    Family { name, kind, help: None, push_seconds: 10.0, text: text.as_bytes(), exact: None }
                };
                let record = encoded(names.iter().zip(&texts).map(family).collect(), 10.0);
                (format!("instance=\"{group}\",job=\"large\""), record)
            })
            .collect();
        let batch: Vec<_> = records.iter().map(|(key, record)| Change::Put { key, record }).collect();
        store.commit(&batch, Durability::Process).expect("the engine commits");
    }
    store.close().expect("the engine closes");
}

#[test]
fn difference_16_a_gateway_that_restores_is_healthy_but_not_ready() {
    const GROUPS: u32 = 200_000;
    let path = folder("ready");
    large_store(&path, GROUPS);
    let flags = flags("snapshot", &path);
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    // On a busy machine the restore may end before the test looks; then it starts the gateway again.
    for _ in 0..10 {
        let mut gateway = Gateway::begin(&flags);
        let mut connection = wait_for("the gateway to listen", Duration::from_secs(20), || {
            Connection::open(gateway.port()).ok()
        });
        let mut status_of = |method, path| connection.request(method, path, &[], b"").expect("a response");
        let [ready, healthy, push, scrape] = [
            status_of("GET", "/-/ready"),
            status_of("GET", "/-/healthy"),
            status_of("PUT", "/metrics/job/early"),
            status_of("GET", "/metrics"),
        ];
        if scrape.status == 200 {
            gateway.kill();
            continue;
        }
        assert_eq!([ready.status, healthy.status, push.status, scrape.status], [503, 200, 503, 503]);
        assert!(ready.text().starts_with("restoring: "), "{}", ready.text());
        wait_for("all groups", Duration::from_secs(60), || {
            let text = gateway.request("GET", "/-/ready", &[], b"");
            (text.status == 200).then_some(())
        });
        let text = gateway.request("GET", "/metrics", &[], b"").text();
        let count = |name: &str| text.lines().filter(|line| line.starts_with(name)).count() as u32;
        assert_eq!([count("push_time_seconds{"), count("m9{")], [GROUPS, GROUPS]);
        assert!(text.contains("sluicegate_storage_restore_seconds"));
        return;
    }
    panic!("the gateway was ready at the first request, ten times in a row");
}
