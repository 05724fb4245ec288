//! A disk in memory whose operations fail on demand, and which can lose power: whatever was not synced is there afterwards or
//! not, in any mixture.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
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
    /// The operation with this number fails, and so does every later one of these.
    From(u64, &'static [Operation]),
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
    /// What reads return after a failed sync.
    after_failed_sync: FailedPages,
    /// The numbers of the operations after which the disk is copied.
    copied: Range<u64>,
    copies: Vec<(u64, DiskImage)>,
    random: Rng,
}

/// What becomes of pages that could not be written. In any case, later syncs succeed without them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum FailedPages {
    /// Reads still return them, until memory is short.
    Remain,
    /// Reads return what is on the disk.
    Dropped,
}

/// A copy of a disk at some time.
#[derive(Clone)]
pub(crate) struct DiskImage {
    contents: Vec<Content>,
    names: BTreeMap<String, usize>,
    names_on_disk: BTreeMap<String, usize>,
    unsynced_names: Vec<NameChange>,
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
    Rename(String, String, usize),
    Remove(String),
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            Self::Create(name, content) => {
                names.insert(name.clone(), *content);
            }
            Self::Rename(from, to, content) => {
                // If the creation of the file is lost, another file may have its old name.
                if names.get(from) == Some(content) {
                    names.remove(from);
                }
                names.insert(to.clone(), *content);
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
            Some(Fault::Death(at) | Fault::Once(at) | Fault::From(at, _)) if self.operations == at => {
                Outcome::Fails
            }
            Some(Fault::From(at, failing)) if self.operations > at && failing.contains(&operation) => {
                Outcome::Fails
            }
            _ => Outcome::Succeeds,
        }
    }

    /// Copies the disk, if this was asked for. Called after every operation.
    fn copy_if_asked(&mut self) {
        if self.copied.contains(&self.operations) {
            let image = self.image();
            self.copies.push((self.operations, image));
        }
    }

    fn image(&self) -> DiskImage {
        DiskImage {
            contents: self.contents.clone(),
            names: self.names.clone(),
            names_on_disk: self.names_on_disk.clone(),
            unsynced_names: self.unsynced_names.clone(),
        }
    }

    /// Applies a change of names, unless it fails; one that fails may have been applied.
    fn change_names(&mut self, operation: Operation, change: NameChange) -> io::Result<()> {
        let outcome = self.outcome(operation);
        if self.is_done(&outcome) {
            change.apply(&mut self.names);
            self.unsynced_names.push(change);
        }
        self.copy_if_asked();
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
            after_failed_sync: FailedPages::Remain,
            copied: 0..0,
            copies: Vec::new(),
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

    /// See [`DiskImage::after_kill`].
    pub fn after_kill(&self, seed: u64) -> Self {
        self.state().image().after_kill(seed)
    }

    /// See [`DiskImage::after_power_failure`].
    pub fn after_power_failure(&self, seed: u64) -> Self {
        self.state().image().after_power_failure(seed)
    }

    pub fn set_failed_pages(&self, pages: FailedPages) {
        self.state().after_failed_sync = pages;
    }

    /// Copies the disk after each of these operations, for [`SimulatedDisk::copies`].
    pub fn copy_after(&self, operations: Range<u64>) {
        self.state().copied = operations;
    }

    /// The copies, with the number of the last operation before each.
    pub fn copies(&self) -> Vec<(u64, DiskImage)> {
        std::mem::take(&mut self.state().copies)
    }
}

impl DiskImage {
    /// The disk as the next process finds it if this one is killed now: everything written is there, synced or not.
    pub fn after_kill(&self, seed: u64) -> SimulatedDisk {
        let next = SimulatedDisk::with_content(self.contents.clone(), self.names.clone(), seed);
        {
            let mut next = next.state();
            next.names_on_disk.clone_from(&self.names_on_disk);
            next.unsynced_names.clone_from(&self.unsynced_names);
        }
        next
    }

    /// The disk as the next process finds it if the power fails now: of what was not synced, any part may be missing.
    pub fn after_power_failure(&self, seed: u64) -> SimulatedDisk {
        let mut random = Rng::with_seed(seed);
        let sector_chance = [0.0, 0.3, 0.9, 1.0][random.usize(..4)];
        let contents = self.contents.iter().map(|content| {
            let mut bytes = content.on_disk.clone();
            for write in &content.unsynced {
                write.apply_in_part(&mut bytes, || random.f64() < sector_chance);
            }
            Content { on_disk: bytes.clone(), bytes, unsynced: Vec::new() }
        });
        let contents = contents.collect();
        // File systems with a journal keep the order of changes, but nothing guarantees it.
        let mut names = self.names_on_disk.clone();
        let done = random.usize(..=self.unsynced_names.len());
        let name_chance = [1.0, 0.5][random.usize(..2)];
        for change in &self.unsynced_names[..done] {
            if random.f64() < name_chance {
                change.apply(&mut names);
            }
        }
        SimulatedDisk::with_content(contents, names, seed)
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
        let mut state = self.state();
        let content = *state.names.get(from).ok_or(io::ErrorKind::NotFound)?;
        state.change_names(Operation::Rename, NameChange::Rename(from.to_owned(), to.to_owned(), content))
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
        state.copy_if_asked();
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
        state.copy_if_asked();
        outcome.result()
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        let outcome = state.outcome(Operation::Sync);
        let process_survives = matches!(state.fault, Some(Fault::Once(_) | Fault::From(..)));
        let pages = state.after_failed_sync;
        let content = &mut state.contents[self.content];
        match outcome {
            Outcome::Succeeds => {
                for write in content.unsynced.drain(..) {
                    write.apply(&mut content.on_disk);
                }
            }
            // As Linux does it: pages that could not be written are regarded as written.
            Outcome::Fails if process_survives => {
                content.unsynced.clear();
                if pages == FailedPages::Dropped {
                    // What has not been written to the disk reads as zeros.
                    let length = content.bytes.len();
                    content.bytes.clone_from(&content.on_disk);
                    content.bytes.resize(length, 0);
                }
            }
            Outcome::Fails | Outcome::Dead => {}
        }
        state.copy_if_asked();
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
