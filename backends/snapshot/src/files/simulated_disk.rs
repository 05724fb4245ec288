//! A disk in memory whose operations fail on demand, and which can lose power: whatever was not synced is there afterwards or
//! not, in any mixture.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use fastrand::Rng;

use super::{FileSystem, RawFile};

/// The unit that a disk writes as a whole. A larger write may be torn between any two of these.
const SECTOR_BYTES: usize = 512;

/// A folder that counts the operations that write, and in which one can be made to fail.
#[derive(Clone)]
pub(crate) struct SimulatedDisk {
    state: Arc<Mutex<DiskState>>,
}

/// What fails, and when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// The process dies during the operation with this number: it and all later ones fail.
    Death(u64),
    /// The operation with this number fails, later ones succeed.
    Once(u64),
    /// Every such operation on a thread of this name panics.
    Panic(Operation, &'static str),
}

/// An operation that writes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Operation {
    Create,
    Rename,
    Remove,
    SyncFolder,
    Write,
    Sync,
}

struct DiskState {
    contents: Vec<Content>,
    /// Indexes into `contents`.
    names: BTreeMap<String, usize>,
    names_on_disk: BTreeMap<String, usize>,
    /// Changes of names that were not synced, oldest first.
    unsynced_names: Vec<NameChange>,
    operations: u64,
    panics: u64,
    fault: Option<Fault>,
    random: Rng,
}

#[derive(Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    on_disk: Vec<u8>,
    /// Writes that were not synced, oldest first.
    unsynced: Vec<UnsyncedWrite>,
}

#[derive(Clone)]
struct UnsyncedWrite {
    at: usize,
    bytes: Vec<u8>,
}

#[derive(Clone)]
enum NameChange {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Create(name, content) => {
                names.insert(name.clone(), *content);
            }
            Self::Rename(from, to) => {
                if let Some(content) = names.remove(from) {
                    names.insert(to.clone(), content);
                }
            }
            Self::Remove(name) => {
                names.remove(name);
            }
        }
    }
}

/// How an operation ends.
enum Outcome {
    Succeeds,
    /// It returns an error, and may have done something.
    Fails,
    /// The process is dead: nothing happens.
    Dead,
}

impl DiskState {
    fn outcome(&mut self, operation: Operation) -> Outcome {
        self.operations += 1;
        match self.fault {
            Some(Fault::Panic(panicking, thread))
                if operation == panicking && thread::current().name() == Some(thread) =>
            {
                self.panics += 1;
                panic!("injected panic");
            }
            Some(Fault::Death(at)) if self.operations > at => Outcome::Dead,
            Some(Fault::Death(at) | Fault::Once(at)) if self.operations == at => Outcome::Fails,
            _ => Outcome::Succeeds,
        }
    }

    /// Applies a change of names, unless it fails; one that fails may have been applied.
    fn change_names(&mut self, operation: Operation, change: NameChange) -> io::Result<()> {
        let outcome = self.outcome(operation);
        if self.is_done(&outcome) {
            change.apply(&mut self.names);
            self.unsynced_names.push(change);
        }
        outcome.result()
    }

    /// Whether an operation with this outcome does its work.
    fn is_done(&mut self, outcome: &Outcome) -> bool {
        match outcome {
            Outcome::Succeeds => true,
            Outcome::Fails => self.random.bool(),
            Outcome::Dead => false,
        }
    }
}

impl Outcome {
    fn result(self) -> io::Result<()> {
        match self {
            Self::Succeeds => Ok(()),
            Self::Fails | Self::Dead => Err(io::Error::other("injected error")),
        }
    }
}

impl SimulatedDisk {
    pub fn new(seed: u64) -> Self {
        Self::with_content(Vec::new(), BTreeMap::new(), seed)
    }

    /// A disk on which all of this is synced.
    fn with_content(contents: Vec<Content>, names: BTreeMap<String, usize>, seed: u64) -> Self {
        let state = DiskState {
            contents,
            names_on_disk: names.clone(),
            names,
            unsynced_names: Vec::new(),
            operations: 0,
            panics: 0,
            fault: None,
            random: Rng::with_seed(seed),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, DiskState> {
        lock(&self.state)
    }

    pub fn set_fault(&self, fault: Fault) {
        self.state().fault = Some(fault);
    }

    pub fn clear_fault(&self) {
        self.state().fault = None;
    }

    /// The number of operations so far.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// The number of operations that panicked.
    pub fn panics(&self) -> u64 {
        self.state().panics
    }

    /// The disk as the next process finds it if this one is killed now: everything written is there, synced or not.
    pub fn after_kill(&self, seed: u64) -> Self {
        let state = self.state();
        let next = Self::with_content(state.contents.clone(), state.names.clone(), seed);
        {
            let mut next = next.state();
            next.names_on_disk.clone_from(&state.names_on_disk);
            next.unsynced_names.clone_from(&state.unsynced_names);
        }
        next
    }

    /// The disk as the next process finds it if the power fails now: of what was not synced, any part may be missing.
    pub fn after_power_failure(&self, seed: u64) -> Self {
        let state = self.state();
        let mut random = Rng::with_seed(seed);
        let sector_chance = [0.0, 0.3, 0.9, 1.0][random.usize(..4)];
        let contents = state.contents.iter().map(|content| {
            let mut bytes = content.on_disk.clone();
            for write in &content.unsynced {
                write.apply_in_part(&mut bytes, || random.f64() < sector_chance);
            }
            Content { on_disk: bytes.clone(), bytes, unsynced: Vec::new() }
        });
        let contents = contents.collect();
        // File systems with a journal keep the order of changes, but nothing guarantees it.
        let mut names = state.names_on_disk.clone();
        let done = random.usize(..=state.unsynced_names.len());
        let name_chance = [1.0, 0.5][random.usize(..2)];
        for change in &state.unsynced_names[..done] {
            if random.f64() < name_chance {
                change.apply(&mut names);
            }
        }
        Self::with_content(contents, names, seed)
    }
}

fn lock(state: &Mutex<DiskState>) -> MutexGuard<'_, DiskState> {
    // Injected panics poison the mutex.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FileSystem for SimulatedDisk {
    fn path(&self) -> &Path {
        Path::new("simulated-disk")
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn RawFile>> {
        let content = *self.state().names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimulatedFile { state: self.state.clone(), content }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn RawFile>> {
        let mut state = self.state();
        let content = state.contents.len();
        state.contents.push(Content::default());
        state.change_names(Operation::Create, NameChange::Create(name.to_owned(), content))?;
        Ok(Arc::new(SimulatedFile { state: self.state.clone(), content }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let change = NameChange::Rename(from.to_owned(), to.to_owned());
        self.state().change_names(Operation::Rename, change)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.state().change_names(Operation::Remove, NameChange::Remove(name.to_owned()))
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state();
        let outcome = state.outcome(Operation::SyncFolder);
        if state.is_done(&outcome) {
            state.unsynced_names.clear();
            state.names_on_disk = state.names.clone();
        }
        outcome.result()
    }
}

struct SimulatedFile {
    state: Arc<Mutex<DiskState>>,
    /// Index in [`DiskState::contents`].
    content: usize,
}

impl RawFile for SimulatedFile {
    fn length(&self) -> io::Result<u64> {
        Ok(lock(&self.state).contents[self.content].bytes.len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        let state = lock(&self.state);
        let content = &state.contents[self.content].bytes;
        let range = at as usize..at as usize + bytes.len();
        bytes.copy_from_slice(content.get(range).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut state = lock(&self.state);
        let outcome = state.outcome(Operation::Write);
        let written = match outcome {
            Outcome::Succeeds => bytes.len(),
            Outcome::Fails => state.random.usize(..=bytes.len()),
            Outcome::Dead => 0,
        };
        let write = UnsyncedWrite { at: at as usize, bytes: bytes[..written].to_vec() };
        let content = &mut state.contents[self.content];
        write.apply(&mut content.bytes);
        content.unsynced.push(write);
        outcome.result()
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        let outcome = state.outcome(Operation::Sync);
        let process_survives = matches!(state.fault, Some(Fault::Once(_)));
        let content = &mut state.contents[self.content];
        match outcome {
            Outcome::Succeeds => {
                for write in content.unsynced.drain(..) {
                    write.apply(&mut content.on_disk);
                }
            }
            // As Linux does it: pages that could not be written are regarded as written. A later sync succeeds without them,
            // and reads still return them.
            Outcome::Fails if process_survives => content.unsynced.clear(),
            Outcome::Fails | Outcome::Dead => {}
        }
        outcome.result()
    }
}

impl UnsyncedWrite {
    fn apply(&self, content: &mut Vec<u8>) {
        overwrite(content, self.at, &self.bytes);
    }

    /// Applies the sectors for which `is_on_disk` returns true.
    fn apply_in_part(&self, content: &mut Vec<u8>, mut is_on_disk: impl FnMut() -> bool) {
        let write_end = self.at + self.bytes.len();
        let mut start = self.at;
        while start < write_end {
            let sector_end = (start / SECTOR_BYTES + 1) * SECTOR_BYTES;
            let end = sector_end.min(write_end);
            if is_on_disk() {
                overwrite(content, start, &self.bytes[start - self.at..end - self.at]);
            }
            start = end;
        }
    }
}

/// Overwrites a part of `content`, which grows if necessary.
fn overwrite(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = at + bytes.len();
    if content.len() < end {
        content.resize(end, 0);
    }
    content[at..end].copy_from_slice(bytes);
}
