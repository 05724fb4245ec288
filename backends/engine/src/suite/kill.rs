//! A real SIGKILL at any moment: the store contains every acknowledged batch, and no part of one.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::Durability;

use super::{Plan, State, Subject, commit, open};

const FOLDER: &str = "SLUICEGATE_SUITE_FOLDER";
const PLAN: Plan = Plan { seed: 9, keys: 200, record_bytes_max: 3000 };
const KILLS: u64 = 20;

/// Lets a child commit as fast as it can, kills it, checks the store, and lets the next child continue.
///
/// `module` is the module of the test `killed_child`, from `module_path!()`.
pub fn a_killed_process_keeps_acknowledged_batches(subject: &dyn Subject, module: &str) {
    let folder = tempfile::tempdir().expect("a folder for a test");
    let mut random = fastrand::Rng::with_seed(4);
    let (mut state, mut sequence) = (State::new(), 0);
    for _ in 0..KILLS {
        let acknowledged = sequence + killed_after(folder.path(), module, random.u64(1..150), sequence);
        if !subject.is_persistent() {
            let (_, state, _) = open(subject, folder.path()).expect("the store opens");
            assert!(state.is_empty());
            continue;
        }
        let (engine, found, restored) = open(subject, folder.path()).expect("the store opens after a kill");
        assert!(restored.warnings.len() <= 1, "at most a torn batch: {:?}", restored.warnings);
        assert!(!restored.closed, "the child did not close the store");
        assert!(
            (acknowledged..=acknowledged + 1).contains(&restored.sequence),
            "acknowledged {acknowledged} batches, found {}",
            restored.sequence
        );
        PLAN.advance(&mut state, sequence, restored.sequence);
        assert!(found == state, "not the state after {} batches", restored.sequence);
        sequence = restored.sequence;
        drop(engine);
    }
}

/// Starts a child, kills it after some acknowledged batches, and returns how many it acknowledged in total.
fn killed_after(folder: &Path, module: &str, batches: u64, first: u64) -> u64 {
    let name =
        module.split_once("::").map_or("killed_child".to_owned(), |(_, m)| format!("{m}::killed_child"));
    let mut child = Command::new(std::env::current_exe().expect("the path of this program"))
        .args(["--exact", &name, "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let mut lines = BufReader::new(child.stdout.take().expect("stdout is piped")).lines();
    let mut last = first;
    let mut killed = false;
    while let Some(Ok(line)) = lines.next() {
        let Some(number) = line.split("acknowledged ").nth(1).and_then(|number| number.parse().ok()) else {
            continue;
        };
        last = number;
        if last >= first + batches && !killed {
            child.kill().expect("the child can be killed");
            killed = true;
        }
    }
    child.wait().expect("the child has ended");
    assert!(killed, "the child ended by itself");
    last - first
}

/// Commits until it is killed. Does nothing unless the parent test started it.
pub fn killed_child(subject: &dyn Subject) {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let (mut engine, _, restored) = open(subject, Path::new(&folder)).expect("the store opens");
    let mut out = std::io::stdout();
    for number in restored.sequence + 1.. {
        let durability = if number % 50 == 0 { Durability::Disk } else { Durability::Process };
        let sequence =
            commit(engine.as_mut(), &PLAN.batch(number), durability).expect("a batch is committed");
        // One write, so that the parent reads complete lines only.
        out.write_all(format!("acknowledged {sequence}\n").as_bytes()).expect("the parent reads");
        out.flush().expect("the parent reads");
    }
}
