//! The engine as its user sees it.

use std::collections::HashMap;
use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use sluicegate_engine::{
    Change, Commit, Durability, Engine, EngineError, Lock, Receipt, Restored, Sink, Stats,
};

use crate::guard::{damaged, guarded};
use crate::header::{self, Header, weight};
use crate::mark::{Known, Mark, error};

/// Values for which sled would make several files, so it need not be sized by the machine.
const CACHE_BYTES: u64 = 256 << 20;
/// The most that the changes of one batch may weigh.
const BATCH_BYTES_MAX: u64 = 1 << 30;
/// sled lets go of its files a moment after it is dropped.
const PATIENCE: Duration = Duration::from_secs(10);

/// A store in a folder of its own: sled's files in `db`, and beside them `mark` and `lock`.
pub struct Sled {
    /// `None` only while it is dropped.
    db: Option<sled::Db>,
    path: PathBuf,
    header: Header,
    mark: Mark,
    known: Known,
    /// Whether the store had been closed, and what is to be said about how it was found.
    found: (bool, Vec<String>),
    restored: bool,
    /// Until the first restore, how long the opening took.
    restore_seconds: f64,
    failure: Option<String>,
    /// Files of large values up to this number are on the disk.
    blobs_synced: i64,
    _lock: Lock,
}

impl Sled {
    /// Opens a store, or makes a new one. sled repairs its files when it opens them: this writes.
    ///
    /// # Errors
    /// Another process has it, it is not what was acknowledged, or it was written by a later version.
    pub fn open(folder: &Path) -> Result<Self, EngineError> {
        let started = Instant::now();
        fs::create_dir_all(folder).map_err(error(folder, "make the folder"))?;
        let lock = Lock::take(&folder.join("lock"))?;
        let (path, mark_path) = (folder.join("db"), folder.join("mark"));
        let mark = Mark::open(&mark_path)?;
        if mark.is_some() && !path.join("db").exists() {
            return Err(damaged(&path, "missing, although there is a mark of it"));
        }
        let db = open_patiently(&path)?;
        let header = guarded(&path, || db.get(header::KEY))?;
        let (header, mark, known) = match (header, mark) {
            (Some(header), Some((mark, known))) => (read_header(&path, &header)?, mark, known),
            (Some(header), None) => match read_header(&path, &header)? {
                // The process that made it ended in between.
                header if header.sequence == 0 => (header, Mark::create(&mark_path)?, Known::default()),
                _ => return Err(damaged(&mark_path, "missing, although there are batches")),
            },
            (None, Some(_)) => return Err(damaged(&path, "came back without its header")),
            (None, None) => {
                if guarded(&path, || db.first())?.is_some() {
                    return Err(damaged(&path, "not a store of sluicegate"));
                }
                let header = make(&db, &path)?;
                let mark = Mark::create(&mark_path)?;
                sync_folder(folder)?;
                (header, mark, Known { closed: true, ..Known::default() })
            }
        };
        let warnings = compare(&path, header, known)?;
        Ok(Self {
            db: Some(db),
            path,
            header,
            mark,
            found: (known.closed, warnings),
            known: Known { acknowledged: header.sequence, ..known },
            restored: false,
            restore_seconds: started.elapsed().as_secs_f64(),
            failure: None,
            blobs_synced: -1,
            _lock: lock,
        })
    }

    /// Makes sled's batch of ours, and the header that fits it.
    fn prepare(&self, db: &sled::Db, batch: &[Change<'_>]) -> sled::Result<(sled::Batch, Header)> {
        let mut header = Header { sequence: self.header.sequence + 1, ..self.header };
        let mut sleds = sled::Batch::default();
        // What the batch has changed so far; sled does not know it yet.
        let mut changed: HashMap<Vec<u8>, Option<u128>> = HashMap::new();
        for change in batch {
            match change {
                Change::Put { key, record } => {
                    let weight = weight(key.as_bytes(), record);
                    forget(db, &changed, key.as_bytes(), &mut header)?;
                    header.add(weight);
                    sleds.insert(key.as_bytes(), *record);
                    changed.insert(key.as_bytes().to_vec(), Some(weight));
                }
                Change::Delete { key } => {
                    forget(db, &changed, key.as_bytes(), &mut header)?;
                    sleds.remove(key.as_bytes());
                    changed.insert(key.as_bytes().to_vec(), None);
                }
                Change::Wipe => {
                    (header.records, header.sum) = (0, 0);
                    for key in db.iter().keys().map(|key| key.map(|key| key.to_vec())) {
                        changed.insert(key?, None);
                    }
                    changed.remove(header::KEY);
                    for (key, weight) in &mut changed {
                        *weight = None;
                        sleds.remove(key.as_slice());
                    }
                }
            }
        }
        sleds.insert(header::KEY, header.encode());
        Ok((sleds, header))
    }

    fn write(&mut self, batch: &[Change<'_>], durability: Durability) -> Result<(), EngineError> {
        let Some(db) = &self.db else { return Err(EngineError::NotRestored) };
        let header = guarded(&self.path, || {
            let (sleds, header) = self.prepare(db, batch)?;
            db.apply_batch(sleds)?;
            db.flush()?;
            Ok(header)
        })?;
        self.header = header;
        self.known.acknowledged = header.sequence;
        self.known.closed = false;
        if durability == Durability::Disk {
            self.sync()?;
            self.known.on_disk = header.sequence;
        }
        self.mark.write(self.known)?;
        if durability == Durability::Disk {
            self.mark.sync()?;
        }
        Ok(())
    }

    /// Brings sled's files to the disk: its flush does not.
    fn sync(&mut self) -> Result<(), EngineError> {
        self.blobs_synced = sync_files(&self.path, self.blobs_synced)?;
        Ok(())
    }

    fn refuse_if_failed(&self) -> Result<(), EngineError> {
        match &self.failure {
            Some(why) => Err(EngineError::Failed { why: why.clone() }),
            None => Ok(()),
        }
    }
}

impl Engine for Sled {
    fn restore(&mut self, _: NonZeroUsize, sink: Sink<'_>) -> Result<Restored, EngineError> {
        self.refuse_if_failed()?;
        let Some(db) = &self.db else { return Err(EngineError::NotRestored) };
        let started = Instant::now();
        let (mut found, mut record_bytes) = (Header::default(), 0);
        // A panic of the sink is the caller's: it passes.
        let mut records = db.iter();
        while let Some((key, record)) = guarded(&self.path, || records.next().transpose())? {
            if *key == *header::KEY {
                continue;
            }
            let Ok(text) = std::str::from_utf8(&key) else {
                return Err(damaged(&self.path, "a grouping key is no text"));
            };
            found.add(weight(&key, &record));
            record_bytes += (key.len() + record.len()) as u64;
            sink(text, &record);
        }
        found.sequence = self.header.sequence;
        if found != self.header {
            let what = format!(
                "has {} records instead of {}, or others than those that were put in",
                found.records, self.header.records
            );
            return Err(damaged(&self.path, &what));
        }
        // The first begins with the opening.
        let before = if self.restored { 0.0 } else { self.restore_seconds };
        self.restore_seconds = before + started.elapsed().as_secs_f64();
        self.restored = true;
        Ok(Restored {
            records: found.records,
            record_bytes,
            sequence: found.sequence,
            closed: self.found.0,
            warnings: self.found.1.clone(),
        })
    }

    fn commit(&mut self, batch: &[Change<'_>], durability: Durability) -> Result<Commit, EngineError> {
        if !self.restored {
            return Err(EngineError::NotRestored);
        }
        self.refuse_if_failed()?;
        let bytes = batch.iter().map(bytes).sum();
        if bytes > BATCH_BYTES_MAX {
            return Err(EngineError::TooLarge { bytes, bytes_max: BATCH_BYTES_MAX });
        }
        match self.write(batch, durability) {
            Ok(()) => Ok(Commit::Kept(Receipt { sequence: self.header.sequence })),
            Err(error) => {
                self.failure = Some(error.to_string());
                Err(error)
            }
        }
    }

    fn stats(&self) -> Stats {
        let bytes = match (&self.db, &self.failure) {
            (Some(db), None) => guarded(&self.path, || db.size_on_disk()).unwrap_or(0),
            _ => 0,
        };
        Stats {
            archive_bytes: bytes,
            restore_seconds: self.restore_seconds,
            sequence: self.header.sequence,
            sequence_on_disk: self.known.on_disk,
            ..Stats::default()
        }
    }

    fn close(mut self: Box<Self>) -> Result<(), EngineError> {
        self.refuse_if_failed()?;
        if let Some(db) = &self.db {
            guarded(&self.path, || db.flush())?;
        }
        self.sync()?;
        self.known = Known { on_disk: self.header.sequence, closed: true, ..self.known };
        self.mark.write(self.known)?;
        self.mark.sync()
    }
}

impl Drop for Sled {
    fn drop(&mut self) {
        let db = self.db.take();
        // It flushes, and may panic while it does.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
    }
}

fn bytes(change: &Change<'_>) -> u64 {
    match change {
        Change::Put { key, record } => (key.len() + record.len()) as u64,
        Change::Delete { key } => key.len() as u64,
        Change::Wipe => 0,
    }
}

/// Takes what a key has now out of the header.
fn forget(
    db: &sled::Db,
    changed: &HashMap<Vec<u8>, Option<u128>>,
    key: &[u8],
    header: &mut Header,
) -> sled::Result<()> {
    let now = match changed.get(key) {
        Some(now) => *now,
        None => db.get(key)?.map(|record| weight(key, &record)),
    };
    if let Some(weight) = now {
        header.subtract(weight);
    }
    Ok(())
}

/// Opens sled. The lock is ours, so if sled's is taken, it is by threads of an engine that was just dropped.
fn open_patiently(path: &Path) -> Result<sled::Db, EngineError> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        // No thread of its own: each commit flushes.
        .flush_every_ms(None)
        .print_profile_on_drop(false);
    let started = Instant::now();
    loop {
        let mut taken = false;
        let opened = guarded(path, || {
            let opened = config.open();
            taken = opened.as_ref().is_err_and(|error| error.to_string().contains("could not acquire lock"));
            opened
        });
        if !taken || started.elapsed() > PATIENCE {
            return opened;
        }
        sleep(Duration::from_millis(5));
    }
}

fn read_header(path: &Path, bytes: &[u8]) -> Result<Header, EngineError> {
    match Header::decode(bytes) {
        Some((found, _)) if found > header::VERSION => {
            Err(EngineError::TooNew { file: path.to_owned(), found, known: header::VERSION })
        }
        Some((header::VERSION, header)) => Ok(header),
        _ => Err(damaged(path, "the header is none")),
    }
}

/// Puts a header into an empty database, so that it is never empty again.
fn make(db: &sled::Db, path: &Path) -> Result<Header, EngineError> {
    let header = Header::default();
    guarded(path, || {
        db.insert(header::KEY, header.encode())?;
        db.flush()
    })?;
    sync_files(path, -1)?;
    Ok(header)
}

/// Holds what is there against what was acknowledged.
fn compare(path: &Path, header: Header, known: Known) -> Result<Vec<String>, EngineError> {
    let (there, acknowledged) = (header.sequence, known.acknowledged);
    if there < known.on_disk || (known.closed && there < acknowledged) {
        let what = format!("came back with batch {there}, but batch {} was on the disk", known.on_disk);
        return Err(damaged(path, &what));
    }
    if there >= acknowledged {
        return Ok(Vec::new());
    }
    Ok(vec![format!(
        "{}: came back with batch {there}, but batch {acknowledged} was acknowledged. None of those that are missing was known \
         to be on the disk, so a loss of power explains it; the end of a process does not",
        path.display()
    )])
}

/// Syncs sled's log, and the files of large values with a number above `after`; returns the highest number.
fn sync_files(path: &Path, after: i64) -> Result<i64, EngineError> {
    let (log, blobs) = (path.join("db"), path.join("blobs"));
    File::open(&log).and_then(|file| file.sync_data()).map_err(error(&log, "sync"))?;
    let mut highest = after;
    for entry in fs::read_dir(&blobs).map_err(error(&blobs, "list"))? {
        let entry = entry.map_err(error(&blobs, "list"))?;
        let number = entry.file_name().to_str().and_then(|name| name.parse::<i64>().ok());
        let Some(number) = number.filter(|number| *number > after) else { continue };
        highest = highest.max(number);
        match File::open(entry.path()).and_then(|file| file.sync_all()) {
            // sled has let go of it meanwhile.
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {}
            other => other.map_err(error(&entry.path(), "sync"))?,
        }
    }
    if highest > after {
        sync_folder(&blobs)?;
    }
    Ok(highest)
}

fn sync_folder(path: &Path) -> Result<(), EngineError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(error(path, "sync the folder"))
}
