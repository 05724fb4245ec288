//! Files in memory that fail, and that lose power: what was not synced may be there afterwards or not, in any mixture.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastrand::Rng;

use super::{Files, RawFile};

/// What a disk writes at once; a write of more may be torn between any two of these.
const SECTOR_BYTES: usize = 512;

/// A folder whose writing operations are counted, and of which one may fail.
#[derive(Clone)]
pub(crate) struct Faulty {
    world: Arc<Mutex<World>>,
}

/// When something goes wrong.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// The process ends in the middle of the operation with this number: it and all later ones fail.
    Death(u64),
    /// The operation with this number fails, the next ones succeed.
    Once(u64),
    /// Every such operation on a thread of this name panics.
    Panic(Operation, &'static str),
}

/// The operations that write.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Operation {
    Create,
    Rename,
    Remove,
    SyncFolder,
    Write,
    Sync,
}

struct World {
    contents: Vec<Content>,
    names: BTreeMap<String, usize>,
    names_on_disk: BTreeMap<String, usize>,
    /// Changes of names that were not synced, oldest first.
    renamings: Vec<Renaming>,
    operations: u64,
    panics: u64,
    fault: Option<Fault>,
    random: Rng,
}

#[derive(Default)]
struct Content {
    bytes: Vec<u8>,
    on_disk: Vec<u8>,
    /// Writes that were not synced, oldest first.
    writes: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone)]
enum Renaming {
    Create(String, usize),
    Rename(String, String),
    Remove(String),
}

impl Renaming {
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

fn write(bytes: &mut Vec<u8>, at: usize, piece: &[u8]) {
    if bytes.len() < at + piece.len() {
        bytes.resize(at + piece.len(), 0);
    }
    bytes[at..at + piece.len()].copy_from_slice(piece);
}

fn failed() -> io::Error {
    io::Error::other("made to fail")
}

/// How an operation goes.
enum Luck {
    Good,
    /// It fails, perhaps after it has done something.
    Bad,
    /// Nothing is left that could do it.
    Dead,
}

impl World {
    fn luck(&mut self, operation: Operation) -> Luck {
        self.operations += 1;
        match self.fault {
            Some(Fault::Panic(panicking, thread))
                if operation == panicking && std::thread::current().name() == Some(thread) =>
            {
                self.panics += 1;
                panic!("made to panic");
            }
            Some(Fault::Death(at)) if self.operations > at => Luck::Dead,
            Some(Fault::Death(at) | Fault::Once(at)) if self.operations == at => Luck::Bad,
            _ => Luck::Good,
        }
    }

    /// An operation that happens or not, even if it is said to have failed.
    fn happens(&mut self, operation: Operation) -> (bool, io::Result<()>) {
        match self.luck(operation) {
            Luck::Good => (true, Ok(())),
            Luck::Bad => (self.random.bool(), Err(failed())),
            Luck::Dead => (false, Err(failed())),
        }
    }

    fn rename(&mut self, renaming: Renaming) {
        renaming.apply(&mut self.names);
        self.renamings.push(renaming);
    }
}

impl Faulty {
    pub fn new(seed: u64) -> Self {
        Self::of(Vec::new(), BTreeMap::new(), seed)
    }

    fn of(contents: Vec<Content>, names: BTreeMap<String, usize>, seed: u64) -> Self {
        let world = World {
            contents,
            names_on_disk: names.clone(),
            names,
            renamings: Vec::new(),
            operations: 0,
            panics: 0,
            fault: None,
            random: Rng::with_seed(seed),
        };
        Self { world: Arc::new(Mutex::new(world)) }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_fault(&self, fault: Fault) {
        self.world().fault = Some(fault);
    }

    pub fn clear_fault(&self) {
        self.world().fault = None;
    }

    /// The number of operations that panicked.
    pub fn panics(&self) -> u64 {
        self.world().panics
    }

    /// How many operations there were.
    pub fn operations(&self) -> u64 {
        self.world().operations
    }

    /// What the next process finds if this one is killed now.
    pub fn after_kill(&self, seed: u64) -> Self {
        let world = self.world();
        let contents = world.contents.iter().map(|content| Content {
            bytes: content.bytes.clone(),
            on_disk: content.on_disk.clone(),
            writes: content.writes.clone(),
        });
        let next = Self::of(contents.collect(), world.names.clone(), seed);
        {
            let mut next = next.world();
            next.names_on_disk = world.names_on_disk.clone();
            next.renamings = world.renamings.clone();
        }
        next
    }

    /// What the next process finds if the power goes now.
    pub fn after_power_loss(&self, seed: u64) -> Self {
        let world = self.world();
        let mut random = Rng::with_seed(seed);
        let chance = [0.0, 0.3, 0.9, 1.0][random.usize(..4)];
        let contents = world.contents.iter().map(|content| {
            let mut bytes = content.on_disk.clone();
            for (at, piece) in &content.writes {
                let mut start = *at;
                while start < at + piece.len() {
                    let end = (start / SECTOR_BYTES + 1) * SECTOR_BYTES;
                    let end = end.min(at + piece.len());
                    if random.f64() < chance {
                        write(&mut bytes, start, &piece[start - at..end - at]);
                    }
                    start = end;
                }
            }
            Content { on_disk: bytes.clone(), bytes, writes: Vec::new() }
        });
        let contents = contents.collect();
        // A journal keeps the order of names; but nobody has promised one.
        let mut names = world.names_on_disk.clone();
        let until = random.usize(..=world.renamings.len());
        let any_chance = [1.0, 0.5][random.usize(..2)];
        for renaming in &world.renamings[..until] {
            if random.f64() < any_chance {
                renaming.apply(&mut names);
            }
        }
        Self::of(contents, names, seed)
    }
}

impl Files for Faulty {
    fn path(&self) -> &Path {
        Path::new("faulty")
    }

    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.world().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn RawFile>> {
        let content = *self.world().names.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(FaultyFile { world: self.world.clone(), content }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn RawFile>> {
        let mut world = self.world();
        let (happens, result) = world.happens(Operation::Create);
        let content = world.contents.len();
        if happens {
            world.contents.push(Content::default());
            world.rename(Renaming::Create(name.to_owned(), content));
        }
        result?;
        Ok(Arc::new(FaultyFile { world: self.world.clone(), content }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.world();
        let (happens, result) = world.happens(Operation::Rename);
        if happens {
            world.rename(Renaming::Rename(from.to_owned(), to.to_owned()));
        }
        result
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        let (happens, result) = world.happens(Operation::Remove);
        if happens {
            world.rename(Renaming::Remove(name.to_owned()));
        }
        result
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.world();
        let (happens, result) = world.happens(Operation::SyncFolder);
        if happens {
            world.renamings.clear();
            world.names_on_disk = world.names.clone();
        }
        result
    }
}

struct FaultyFile {
    world: Arc<Mutex<World>>,
    content: usize,
}

impl FaultyFile {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RawFile for FaultyFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.world().contents[self.content].bytes.len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<()> {
        let world = self.world();
        let content = &world.contents[self.content].bytes;
        let range = at as usize..at as usize + bytes.len();
        bytes.copy_from_slice(content.get(range).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut world = self.world();
        let (length, result) = match world.luck(Operation::Write) {
            Luck::Good => (bytes.len(), Ok(())),
            Luck::Bad => (world.random.usize(..=bytes.len()), Err(failed())),
            Luck::Dead => (0, Err(failed())),
        };
        let content = &mut world.contents[self.content];
        write(&mut content.bytes, at as usize, &bytes[..length]);
        content.writes.push((at as usize, bytes[..length].to_vec()));
        result
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.world();
        let luck = world.luck(Operation::Sync);
        let once = matches!(world.fault, Some(Fault::Once(_)));
        let content = &mut world.contents[self.content];
        match luck {
            Luck::Good => {
                for (at, piece) in std::mem::take(&mut content.writes) {
                    write(&mut content.on_disk, at, &piece);
                }
                Ok(())
            }
            Luck::Bad if once => {
                // What could not be written is forgotten: a later sync succeeds without it, and reads still find it.
                content.writes.clear();
                Err(failed())
            }
            Luck::Bad | Luck::Dead => Err(failed()),
        }
    }
}
