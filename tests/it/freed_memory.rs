//! Memory that requests and groups no longer need returns to the operating system.

use std::time::Duration;

use sluicegate::storage::engines::ENGINES;

use crate::support::{Gateway, wait_for};

const PATIENCE: Duration = Duration::from_secs(60);
/// What may remain of the memory of deleted groups: partly used pages, tables that keep their size, and caches of connections.
const REMAINS_BYTES: u64 = 24 << 20;

/// What an engine may keep beyond that.
fn engine_bytes_max(engine: &str) -> u64 {
    match engine {
        "memory" => 0,
        // The buffer of a batch.
        "snapshot" => 32 << 20,
        // Pages in its cache.
        "sled" => 128 << 20,
        _ => panic!("measure how much {engine} keeps"),
    }
}

/// Waits until the gateway uses no more than this.
fn wait_until_at_most(gateway: &Gateway, bytes_max: u64, what: &str) {
    wait_for(&format!("at most {} MiB {what}", bytes_max >> 20), PATIENCE, || {
        (gateway.resident_bytes() <= bytes_max).then_some(())
    });
}

#[test]
fn deleted_large_groups_leave_no_memory_behind() {
    const GROUPS: usize = 100;
    const GROUP_BYTES: usize = 4 << 20;
    let line = |number| format!("large{{x=\"{number}{}\"}} 1\n", "x".repeat(4000));
    let push: String = (0..GROUP_BYTES / 4000).map(line).collect();
    for engine in ENGINES.iter().map(|engine| engine.name).chain(["memory"]) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = format!("--storage.path={}", folder.path().display());
        let backend = format!("--storage.backend={engine}");
        let store: &[&str] = if engine == "memory" { &[] } else { &[&backend, &path] };
        let gateway = Gateway::start(store);
        let before = gateway.resident_bytes();
        for group in 0..GROUPS {
            assert_eq!(gateway.put(&format!("/metrics/job/{group}"), &push).status, 200);
        }
        let full = gateway.resident_bytes();
        assert!(full > before + (GROUPS * GROUP_BYTES) as u64, "{engine}: {} MiB", full >> 20);
        for group in 0..GROUPS {
            assert_eq!(gateway.delete(&format!("/metrics/job/{group}")).status, 202);
        }
        let remains = REMAINS_BYTES + engine_bytes_max(engine);
        wait_until_at_most(&gateway, before + remains, &format!("with the engine {engine}"));
    }
}

#[test]
fn a_push_of_many_families_leaves_no_memory_behind() {
    const FAMILIES: u32 = 200_000;
    let gateway = Gateway::start(&[]);
    let before = gateway.resident_bytes();
    // In no order, so that what remains would lie between what is freed.
    let push: String =
        (0..FAMILIES).map(|number| format!("m{:08x} 1\n", number.wrapping_mul(2_654_435_761))).collect();
    assert_eq!(gateway.put("/metrics/job/many", &push).status, 200);
    assert_eq!(gateway.put("/metrics/job/other", "m 1\n").status, 200);
    let full = gateway.resident_bytes();
    assert!(full > before + 2 * REMAINS_BYTES, "{} MiB", full >> 20);
    assert_eq!(gateway.delete("/metrics/job/many").status, 202);
    wait_until_at_most(&gateway, before + REMAINS_BYTES, "after the push");
}
