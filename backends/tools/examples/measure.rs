//! Measures commits with batches of several sizes, and reads after a close and after a kill.
//!
//! `cargo run --release -p sluicegate-store-tools --example measure -- ENGINE FOLDER [GROUPS]` — the engine is `snapshot` or
//! `sled`. The folder must not exist, and is removed at the end.

use std::hint::black_box;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use sluicegate_engine::record::{Family, Kind, Record};
use sluicegate_engine::{
    Change, Durability, Engine, EngineDescriptor, EngineError, OpenOptions, UnreadStore,
};

/// Groups per batch, and how many batches.
const COMMITS: [(usize, usize); 3] = [(1, 5_000), (100, 500), (10_000, 10)];

type Open = dyn Fn(&Path) -> Result<UnreadStore, EngineError>;

const ENGINES: [EngineDescriptor; 2] = [sluicegate_snapshot::ENGINE, sluicegate_sled::ENGINE];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: measure snapshot|sled FOLDER [GROUPS]";
    let name = arguments.next().ok_or(usage)?;
    let engine = ENGINES.iter().find(|engine| engine.name == name).ok_or(usage)?;
    let open = |folder: &Path| (engine.open)(folder, OpenOptions::default());
    let folder = arguments.next().ok_or(usage)?;
    let groups: usize = arguments.next().map_or(Ok(100_000), |groups| groups.parse())?;
    let folder = Path::new(&folder);
    if folder.exists() {
        return Err("the folder exists".into());
    }
    for durability in [Durability::Process, Durability::Disk] {
        for (size, count) in COMMITS {
            commits(&open, folder, durability, size, count)?;
            std::fs::remove_dir_all(folder)?;
        }
    }
    restores(&open, folder, groups)?;
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

/// A group of 18 series in 10 families, about 1 KB of lines.
fn record(number: usize) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let texts: Vec<(String, String)> = (0..10)
        .map(|family| {
            let name = format!("job_step_{family}_seconds");
            let line = format!("{name}{{instance=\"{number}\",job=\"nightly\",step=\"a\"}} 12.5\n");
            let lines = if family < 8 { line.replace("step=\"a\"", "step=\"b\"") + &line } else { line };
            (name, lines)
        })
        .collect();
    let families = texts.iter().map(|(name, text)| Family {
        name,
        kind: Kind::Gauge,
        help: Some("How long a step took."),
        push_seconds: 1.7e9,
        text: text.as_bytes(),
        exact: None,
    });
    let record = Record {
        revision: 1,
        push_seconds: 1.7e9,
        failure_seconds: 0.0,
        created_seconds: 1.7e9,
        expires_seconds: None,
        families: families.collect(),
    };
    let mut bytes = Vec::new();
    record.encode(&mut bytes)?;
    Ok(bytes)
}

fn key(number: usize) -> String {
    format!("instance=\"{number}\",job=\"nightly\"")
}

fn commits(
    open: &Open,
    folder: &Path,
    durability: Durability,
    size: usize,
    count: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let (mut engine, _) = open(folder)?.read_all(NonZeroUsize::MIN, &|_, _| ())?;
    let record = record(0)?;
    let keys: Vec<String> = (0..size * 4).map(key).collect();
    let mut worst = 0.0_f64;
    let started = Instant::now();
    for number in 0..count {
        let batch: Vec<Change<'_>> = keys[number % 4 * size..][..size]
            .iter()
            .map(|key| Change::Put { key, record: &record })
            .collect();
        let begun = Instant::now();
        engine.commit(&batch, durability)?;
        worst = worst.max(begun.elapsed().as_secs_f64());
    }
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{durability:?} batches of {size}: {:.0} groups/s, {:.0} MB/s, worst {:.1} ms",
        (size * count) as f64 / seconds,
        (size * count * record.len()) as f64 / seconds / 1e6,
        worst * 1e3
    );
    Ok(())
}

fn restores(open: &Open, folder: &Path, groups: usize) -> Result<(), Box<dyn std::error::Error>> {
    let (mut engine, _) = open(folder)?.read_all(NonZeroUsize::MIN, &|_, _| ())?;
    for from in (0..groups).step_by(1000) {
        put(engine.as_mut(), from..(from + 1000).min(groups))?;
    }
    drop(engine);
    restore(open, folder, "after a kill, filled once")?.close()?;
    let mut engine = restore(open, folder, "after a close")?;
    for from in (0..groups).step_by(10_000) {
        put(engine.as_mut(), from..(from + 500).min(groups))?;
    }
    drop(engine);
    let engine = restore(open, folder, "after a kill, a twentieth changed")?;
    let started = Instant::now();
    engine.close()?;
    println!("close: {:.3} s", started.elapsed().as_secs_f64());
    Ok(())
}

fn put(engine: &mut dyn Engine, numbers: std::ops::Range<usize>) -> Result<(), Box<dyn std::error::Error>> {
    let texts = numbers.map(|number| Ok((key(number), record(number)?)));
    let texts = texts.collect::<Result<Vec<_>, Box<dyn std::error::Error>>>()?;
    let batch: Vec<_> = texts.iter().map(|(key, record)| Change::Put { key, record }).collect();
    engine.commit(&batch, Durability::Process)?;
    Ok(())
}

fn restore(open: &Open, folder: &Path, what: &str) -> Result<Box<dyn Engine>, Box<dyn std::error::Error>> {
    let started = Instant::now();
    let store = open(folder)?;
    let opened = started.elapsed().as_secs_f64();
    let (threads, families) = (std::thread::available_parallelism()?, AtomicU64::new(0));
    let (engine, restored) = store.read_all(threads, &|key, record| {
        black_box(key);
        if let Ok(record) = Record::decode(record) {
            families.fetch_add(record.families.len() as u64, Ordering::Relaxed);
        }
    })?;
    println!(
        "{what}: {} groups, {:.0} MB and {} families in {:.3} s, {opened:.3} of them to open ({:?})",
        restored.records,
        restored.record_bytes as f64 / 1e6,
        families.into_inner(),
        started.elapsed().as_secs_f64(),
        engine.stats(),
    );
    Ok(engine)
}
