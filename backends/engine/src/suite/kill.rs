//! A real SIGKILL, at any moment: what was acknowledged is there, and nobody sees half a batch.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Durability;

use super::{Plan, State, Subject, commit, open};

const FOLDER: &str = "SLUICEGATE_SUITE_FOLDER";
const PLAN: Plan = Plan { seed: 9, keys: 200, record_bytes_max: 3000 };
const KILLS: u64 = 20;

/// Lets a child commit as fast as it can, kills it, looks at what it left, and lets the next go on from there.
///
/// `module` is where the test `killed_child` stands, as `module_path!()` says it.
pub fn a_killed_process_loses_nothing_it_acknowledged(subject: &dyn Subject, module: &str) {
    let folder = tempfile::tempdir().expect("a folder for a test");
    let mut random = fastrand::Rng::with_seed(4);
    let (mut state, mut sequence) = (State::new(), 0);
    for _ in 0..KILLS {
        let acknowledged = sequence + killed_after(folder.path(), module, random.u64(1..150), sequence);
        if !subject.keeps() {
            let (_, state, _) = open(subject, folder.path()).expect("the store opens");
            assert!(state.is_empty());
            continue;
        }
        let (backend, found, restored) = open(subject, folder.path()).expect("the store opens after a kill");
        assert!(restored.warnings.len() <= 1, "a torn batch at the most: {:?}", restored.warnings);
        assert!(!restored.closed, "nobody closed it");
        assert!(
            (acknowledged..=acknowledged + 1).contains(&restored.sequence),
            "acknowledged {acknowledged} batches, found {}",
            restored.sequence
        );
        PLAN.advance(&mut state, sequence, restored.sequence);
        assert!(found == state, "not the state after {} batches", restored.sequence);
        sequence = restored.sequence;
        drop(backend);
    }
}

/// Starts a child and kills it after some acknowledged batches; returns how many there were in the end.
fn killed_after(folder: &Path, module: &str, batches: u64, first: u64) -> u64 {
    let name =
        module.split_once("::").map_or("killed_child".to_owned(), |(_, m)| format!("{m}::killed_child"));
    let mut child = Command::new(std::env::current_exe().expect("the test knows its program"))
        .args(["--exact", &name, "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the test starts itself");
    let mut lines = BufReader::new(child.stdout.take().expect("it was asked for")).lines();
    let mut last = first;
    let mut killed = false;
    while let Some(Ok(line)) = lines.next() {
        let Some(number) = line.split("acknowledged ").nth(1).and_then(|number| number.parse().ok()) else {
            continue;
        };
        last = number;
        if last >= first + batches && !killed {
            child.kill().expect("a child can be killed");
            killed = true;
        }
    }
    child.wait().expect("it has ended");
    assert!(killed, "the child ended by itself");
    last - first
}

/// Commits until it is killed. Does nothing when it is started as a test of its own.
pub fn killed_child(subject: &dyn Subject) {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let (mut backend, _, restored) = open(subject, Path::new(&folder)).expect("the store opens");
    let mut out = std::io::stdout();
    for number in restored.sequence + 1.. {
        let durability = if number % 50 == 0 { Durability::Disk } else { Durability::Process };
        let sequence = commit(backend.as_mut(), &PLAN.batch(number), durability).expect("a batch is kept");
        // One write: a line is there wholly or not.
        out.write_all(format!("acknowledged {sequence}\n").as_bytes()).expect("the parent reads");
        out.flush().expect("the parent reads");
    }
}
