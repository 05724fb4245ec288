//! Damaged files: the engine returns the exact state, or an older one with a warning where that is allowed, or an error with a
//! remedy. It never returns less without a warning, and never panics.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::{Durability, Engine, EngineError, Restored};

use super::{Plan, State, Subject, commit, open};

/// A store, its history, and how much of it damage may cost.
#[derive(Clone, Copy)]
pub struct Trials<'a> {
    /// The engine.
    pub subject: &'a dyn Subject,
    /// The folder of the store.
    pub folder: &'a Path,
    /// The state after every number of batches. The store contains the last.
    pub history: &'a [State],
    /// How many batches may be missing, with a warning.
    pub older_max: u64,
    /// The distance in bytes between two flips or cuts.
    pub step: usize,
    /// Whether opening writes, so that each trial needs its own copy.
    pub copy: bool,
}

/// How often each outcome occurred.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Outcomes {
    /// The exact state.
    pub exact: u64,
    /// An older state with a warning.
    pub older: u64,
    /// An error.
    pub refused: u64,
}

/// The states after 0, 1, … batches of a plan.
pub fn history(plan: Plan, batches: u64) -> Vec<State> {
    (0..=batches).map(|number| plan.state(number)).collect()
}

impl Trials<'_> {
    /// Flips bytes of every file that `which` selects, one at a time: first one bit, then all bits.
    pub fn flip_bytes(&self, which: impl Fn(&Path) -> bool) -> Outcomes {
        let mut outcomes = Outcomes::default();
        for file in files(self.folder).into_iter().filter(|file| which(file)) {
            for at in (0..self.length(&file)).step_by(self.step) {
                for mask in [1 << (at % 8), 0xff] {
                    let what = format!("byte {at} of {} xor {mask:#x}", file.display());
                    self.hurt(&file, &what, &mut outcomes, |bytes| {
                        bytes[at] ^= mask;
                    });
                }
            }
        }
        outcomes
    }

    /// Truncates every file that `which` selects, at each step.
    pub fn cut_files(&self, which: impl Fn(&Path) -> bool) -> Outcomes {
        let mut outcomes = Outcomes::default();
        for file in files(self.folder).into_iter().filter(|file| which(file)) {
            for at in (0..self.length(&file)).step_by(self.step) {
                let what = format!("{} cut at {at}", file.display());
                self.hurt(&file, &what, &mut outcomes, |bytes| bytes.truncate(at));
            }
        }
        outcomes
    }

    /// Removes every file that `which` selects, one at a time.
    pub fn remove_files(&self, which: impl Fn(&Path) -> bool) -> Outcomes {
        let mut outcomes = Outcomes::default();
        for file in files(self.folder).into_iter().filter(|file| which(file)) {
            let copy = copied(self.folder);
            fs::remove_file(copy.path().join(&file)).expect("a file can be removed");
            self.judge(copy.path(), &format!("{} removed", file.display()), &mut outcomes);
        }
        outcomes
    }

    fn length(&self, file: &Path) -> usize {
        fs::metadata(self.folder.join(file)).expect("a readable file").len() as usize
    }

    fn hurt(&self, file: &Path, what: &str, outcomes: &mut Outcomes, harm: impl FnOnce(&mut Vec<u8>)) {
        let copy = self.copy.then(|| copied(self.folder));
        let folder = copy.as_ref().map_or(self.folder, tempfile::TempDir::path);
        let path = folder.join(file);
        let whole = fs::read(&path).expect("a readable file");
        let mut bytes = whole.clone();
        harm(&mut bytes);
        overwrite(&path, &bytes);
        self.judge(folder, what, outcomes);
        if copy.is_none() {
            overwrite(&path, &whole);
        }
    }

    fn judge(&self, folder: &Path, what: &str, outcomes: &mut Outcomes) {
        let newest = self.history.len() as u64 - 1;
        match open(self.subject, folder) {
            Ok((engine, state, Restored { sequence, warnings, .. })) => {
                assert_eq!(
                    self.history.get(sequence as usize),
                    Some(&state),
                    "{what}: not a state of the history"
                );
                if sequence == newest {
                    outcomes.exact += 1;
                    return;
                }
                assert!(!warnings.is_empty(), "{what}: {sequence} of {newest} batches without a warning");
                assert!(newest - sequence <= self.older_max, "{what}: {sequence} of {newest}: {warnings:?}");
                outcomes.older += 1;
                if self.copy {
                    self.check_continues(engine, folder, &state, sequence, what);
                }
            }
            Err(EngineError::Damaged { file, what: reported, remedy }) => {
                assert!(file.starts_with(folder), "{what}: the error names {}", file.display());
                assert!(!reported.is_empty() && !remedy.is_empty(), "{what}: an error without a remedy");
                outcomes.refused += 1;
            }
            Err(EngineError::TooNew { .. }) => outcomes.refused += 1,
            Err(error) => panic!("{what}: {error:?}"),
        }
    }

    /// A store that opened with a warning accepts batches, and opens without a loss afterwards.
    fn check_continues(
        &self,
        mut engine: Box<dyn Engine>,
        folder: &Path,
        state: &State,
        sequence: u64,
        what: &str,
    ) {
        commit(engine.as_mut(), &[], Durability::Process).expect("the engine accepts a batch");
        drop(engine);
        let (_, again, restored) = open(self.subject, folder).expect("it opens again");
        assert_eq!(&again, state, "{what}: afterwards");
        assert_eq!(restored.sequence, sequence + 1, "{what}: afterwards");
    }
}

/// Overwrites a file in place. Some file systems sync a file that is truncated to zero first, which is slow.
fn overwrite(path: &Path, bytes: &[u8]) {
    let mut file = fs::OpenOptions::new().write(true).open(path).expect("a writable file");
    file.write_all(bytes).expect("a writable file");
    file.set_len(bytes.len() as u64).expect("a writable file");
}

/// All files below a folder, as relative paths.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let entry = entry.expect("a readable folder");
        let name = PathBuf::from(entry.file_name());
        if entry.file_type().expect("a known type").is_dir() {
            found.extend(files(&entry.path()).into_iter().map(|file| name.join(file)));
        } else {
            found.push(name);
        }
    }
    found.sort();
    found
}

fn copied(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a folder for a test");
    for file in files(folder) {
        let to = copy.path().join(&file);
        fs::create_dir_all(to.parent().expect("a file has a folder")).expect("a folder for a test");
        fs::copy(folder.join(&file), to).expect("a file can be copied");
    }
    copy
}
