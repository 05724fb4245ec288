//! The implementation of the engine trait.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::num::NonZeroUsize;
use std::ops::{ControlFlow, Deref};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use sluicegate_engine::record::{apply_patches, is_numbers};
use sluicegate_engine::{
    CHANGED_ROUNDS_MAX, Change, Durability, Engine, EngineError, Groups, Lock, Receipt, Restored, Sink,
    Stats, UnreadStore,
};

use crate::generation::{self, Places};
use crate::guard::{damaged, guarded};
use crate::header::{self, Header, weight};
use crate::mark::{Known, Mark, error};
use crate::patches::{self, PatchedGroups, PatchesOfBatch, StoredPatch};

/// Values for which sled would make several files, so it need not be sized by the machine.
const CACHE_BYTES: u64 = 256 << 20;
/// The maximum size of the keys and records of one batch.
const BATCH_BYTES_MAX: u64 = 1 << 30;
/// How many threads sled keeps for its IO. It does not notice if none of them can be started, and waits for them forever.
const SLED_THREADS: usize = 7;
/// How long to wait for sled's own lock: sled releases its files a moment after it is dropped.
const SLED_LOCK_TIME: Duration = Duration::from_secs(10);

/// The keys and records in one of the batches of a new database.
const NEW_BATCH_BYTES: u64 = 16 << 20;

/// A store in its own folder: sled's files in `db`, and next to it the files `mark` and `lock`.
pub struct Sled {
    db: Database,
    places: Places,
    /// The folder of the database.
    path: PathBuf,
    header: Header,
    /// Complete after the first read.
    patched: PatchedGroups,
    mark: Mark,
    known: Known,
    /// Whether the last user closed the store.
    was_closed: bool,
    /// Deviations that opening found.
    warnings: Vec<String>,
    /// How long opening took, until the first read reports it.
    open_seconds: f64,
    restore_seconds: f64,
    /// The error of the first commit that failed.
    failure: Option<String>,
    /// sled's files of large values up to this number were synced.
    blobs_synced: i64,
    lock: Arc<Lock>,
}

impl Sled {
    /// Opens a store, or creates one. This writes: sled repairs its files when it opens them.
    ///
    /// # Errors
    /// Another process uses the store, it lacks what was acknowledged, or a later version wrote it.
    pub fn open(folder: &Path) -> Result<UnreadStore, EngineError> {
        fs::create_dir_all(folder).map_err(error(folder, "create the folder"))?;
        let lock = Lock::take(&folder.join("lock"))?;
        Self::open_locked(Places::new(folder), Arc::new(lock)).map(UnreadStore::new)
    }

    fn open_locked(places: Places, lock: Arc<Lock>) -> Result<Self, EngineError> {
        let started = Instant::now();
        places.finish_exchange()?;
        let Places { folder, db: path, mark: mark_path, .. } = places.clone();
        let mark = Mark::open(&mark_path)?;
        if mark.is_some() && !path.join("db").exists() {
            return Err(damaged(&path, "the database is missing, but the file mark exists"));
        }
        check_that_threads_start().map_err(error(&path, "start the threads of sled"))?;
        let db = open_database(&path)?;
        let header = guarded(&path, || db.get(header::KEY))?;
        let (header, mark, known) = match (header, mark) {
            (Some(header), Some((mark, known))) => (read_header(&path, &header)?, mark, known),
            (Some(header), None) => match read_header(&path, &header)? {
                // The process that created the store ended before it created the mark.
                header if header.sequence == 0 => (header, Mark::create(&mark_path)?, Known::default()),
                _ => return Err(damaged(&mark_path, "missing, but the database contains batches")),
            },
            (None, Some(_)) => return Err(damaged(&path, "the header record is missing")),
            (None, None) => {
                if guarded(&path, || db.first())?.is_some() {
                    return Err(damaged(&path, "this database was not written by sluicegate"));
                }
                let header = create(&db, &path)?;
                let mark = Mark::create(&mark_path)?;
                sync_folder(&folder)?;
                (header, mark, Known { closed: true, ..Known::default() })
            }
        };
        let warnings = compare(&path, header, known)?;
        let open_seconds = started.elapsed().as_secs_f64();
        Ok(Self {
            db: Database(Some(db)),
            places,
            path,
            header,
            patched: PatchedGroups::default(),
            mark,
            was_closed: known.closed,
            warnings,
            known: Known { acknowledged: header.sequence, ..known },
            open_seconds,
            restore_seconds: open_seconds,
            failure: None,
            blobs_synced: -1,
            lock,
        })
    }

    /// Writes the groups of the caller to a new database beside the old one, and puts it in its place.
    fn replace_database(&mut self, groups: &mut dyn Groups) -> Result<(), EngineError> {
        self.lock.check()?;
        if !self.places.mark.exists() {
            return Err(EngineError::Moved { file: self.places.mark.clone() });
        }
        // sled may have panicked, so this releases its files as far as it can.
        drop(self.db.0.take());
        let places = self.places.clone();
        places.finish_exchange()?;
        let sequence = self.header.sequence.max(self.known.acknowledged) + 1;
        let written = self.write_database(&places.new_db, sequence, groups);
        // A database whose folder is renamed does not find its files, so it is opened again.
        drop(self.db.0.take());
        if let Err(error) = written.and_then(|()| places.exchange()) {
            // The error of writing is the one to report.
            let _ = places.remove_unused();
            return Err(error);
        }
        let known = Known { acknowledged: sequence, on_disk: sequence, closed: false };
        drop(Mark::replace(&places.mark, known)?);
        sync_folder(&places.folder)?;
        *self = Self::open_locked(places, self.lock.clone())?;
        Ok(())
    }

    /// Writes all groups to a new database, which this uses then, as one batch with this number, and syncs it.
    fn write_database(
        &mut self,
        path: &Path,
        sequence: u64,
        groups: &mut dyn Groups,
    ) -> Result<(), EngineError> {
        check_that_threads_start().map_err(error(path, "start the threads of sled"))?;
        path.clone_into(&mut self.path);
        self.db = Database(Some(open_database(path)?));
        self.patched = PatchedGroups::default();
        self.header = Header { sequence, ..Header::default() };
        for _ in 0..CHANGED_ROUNDS_MAX {
            let mut keys = groups.changed();
            keys.sort_unstable();
            keys.dedup();
            if keys.is_empty() {
                break;
            }
            let (mut records, mut bytes) = (Vec::new(), 0);
            for key in keys {
                let mut record = Vec::new();
                let record = groups.record(&key, &mut record).then_some(record);
                bytes += (key.len() + record.as_ref().map_or(0, Vec::len)) as u64;
                records.push((key, record));
                if bytes >= NEW_BATCH_BYTES {
                    self.add_to_new(&std::mem::take(&mut records))?;
                    bytes = 0;
                }
            }
            self.add_to_new(&records)?;
        }
        guarded(path, || {
            self.db.insert(header::KEY, self.header.encode(self.patched.version()))?;
            self.db.flush()
        })?;
        generation::sync_all(path)
    }

    /// Writes groups to a new database.
    fn add_to_new(&mut self, records: &[(Arc<str>, Option<Vec<u8>>)]) -> Result<(), EngineError> {
        let changes: Vec<Change<'_>> =
            records.iter().map(|(key, record)| Change::of(key, record.as_deref())).collect();
        let sequence = self.header.sequence;
        self.header = guarded(&self.path, || {
            let Prepared { batch, header, .. } = self.prepare(&changes)?;
            self.db.apply_batch(batch)?;
            Ok(Header { sequence, ..header })
        })?;
        Ok(())
    }

    /// Translates a batch into one of sled's, with the header that results from it.
    fn prepare(&self, batch: &[Change<'_>]) -> sled::Result<Prepared> {
        let mut prepared = Prepared {
            batch: sled::Batch::default(),
            header: Header { sequence: self.header.sequence + 1, ..self.header },
            changed: HashMap::new(),
            patches: PatchesOfBatch::new(),
        };
        for (position, change) in batch.iter().enumerate() {
            match change {
                Change::Put { key, record } => {
                    let weight = weight(key.as_bytes(), record);
                    self.forget(key.as_bytes(), &mut prepared)?;
                    prepared.header.add(weight);
                    prepared.batch.insert(key.as_bytes(), *record);
                    prepared.changed.insert(key.as_bytes().to_vec(), Some(weight));
                }
                Change::Patch { key, patch } => {
                    let key = key.as_bytes();
                    let exists = match prepared.changed.get(key) {
                        Some(now) => now.is_some(),
                        None => self.db.contains_key(key)?,
                    };
                    if exists {
                        self.add_patch(key, position, patch, &mut prepared);
                    }
                }
                Change::Delete { key } => {
                    self.forget(key.as_bytes(), &mut prepared)?;
                    prepared.batch.remove(key.as_bytes());
                    prepared.changed.insert(key.as_bytes().to_vec(), None);
                }
            }
        }
        Ok(prepared)
    }

    /// Adds a patch of a group that exists to a batch.
    fn add_patch(&self, key: &[u8], position: usize, patch: &[u8], prepared: &mut Prepared) {
        let patches = prepared.patches.entry(key.to_vec()).or_default();
        let patch_key = patches::patch_key(key, prepared.header.sequence, position);
        let added =
            StoredPatch { weight: weight(&patch_key, patch), is_numbers: is_numbers(patch), key: patch_key };
        if added.is_numbers {
            let replaced = if patches.added.is_empty() {
                let stored = self.patched.last_numbers(key).filter(|_| !patches.cleared).cloned();
                patches.replaced = stored.as_ref().map(|stored| stored.key.clone());
                stored
            } else {
                patches.added.pop_if(|last| last.is_numbers)
            };
            if let Some(replaced) = replaced {
                prepared.header.subtract(replaced.weight);
                prepared.batch.remove(replaced.key);
            }
        }
        prepared.header.add(added.weight);
        prepared.batch.insert(added.key.as_slice(), patch);
        patches.added.push(added);
    }

    /// Removes the patches of a key from a batch and the database, and subtracts them and the record from the header.
    fn forget(&self, key: &[u8], prepared: &mut Prepared) -> sled::Result<()> {
        let now = match prepared.changed.get(key) {
            Some(now) => *now,
            None => self.db.get(key)?.map(|record| weight(key, &record)),
        };
        if let Some(weight) = now {
            prepared.header.subtract(weight);
        }
        let is_patched = self.patched.contains(key);
        if !is_patched && !prepared.patches.contains_key(key) {
            return Ok(());
        }
        let patches = prepared.patches.entry(key.to_vec()).or_default();
        for patch in patches.added.drain(..) {
            prepared.header.subtract(patch.weight);
            prepared.batch.remove(patch.key);
        }
        if is_patched && !patches.cleared {
            for patch in self.db.scan_prefix(patches::prefix(key)) {
                let (patch_key, patch) = patch?;
                if patches.replaced.as_deref() == Some(&*patch_key) {
                    continue;
                }
                prepared.header.subtract(weight(&patch_key, &patch));
                prepared.batch.remove(patch_key);
            }
        }
        patches.cleared = true;
        Ok(())
    }

    fn write(&mut self, batch: &[Change<'_>], durability: Durability) -> Result<(), EngineError> {
        let Prepared { batch: mut sleds, header, patches, .. } = guarded(&self.path, || self.prepare(batch))?;
        for (key, patches) in patches {
            if patches.cleared {
                self.patched.remove(&key);
            }
            patches.added.into_iter().for_each(|patch| self.patched.add(&key, patch));
        }
        sleds.insert(header::KEY, header.encode(self.patched.version()));
        guarded(&self.path, || {
            self.db.apply_batch(sleds)?;
            self.db.flush()
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
            // A sync of deleted files succeeds.
            self.lock.check()?;
        }
        Ok(())
    }

    /// Checks that the files of the store are still where they were.
    fn check_files(&self) -> Result<(), EngineError> {
        self.lock.check()?;
        let files = [self.path.join("db"), self.mark.path().to_owned()];
        match files.into_iter().find(|file| !file.exists()) {
            Some(file) => Err(EngineError::Moved { file }),
            None => Ok(()),
        }
    }

    /// A record after its patches.
    fn patched_record(&self, key: &[u8], record: &[u8]) -> Result<Vec<u8>, EngineError> {
        let patches = guarded(&self.path, || {
            self.db.scan_prefix(patches::prefix(key)).values().collect::<sled::Result<Vec<_>>>()
        })?;
        let patches: Vec<&[u8]> = patches.iter().map(|patch| &**patch).collect();
        let mut out = Vec::new();
        apply_patches(record, &patches, &mut out)
            .map_err(|error| damaged(&self.path, &format!("a group cannot be patched: {error}")))?;
        Ok(out)
    }

    /// Syncs sled's files to the disk, which sled's own flush does not do.
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
    fn read(
        &mut self,
        _threads: NonZeroUsize,
        sink: Sink<'_>,
    ) -> Result<ControlFlow<(), Restored>, EngineError> {
        self.refuse_if_failed()?;
        let started = Instant::now();
        let (mut found, mut groups, mut record_bytes) = (Header::default(), 0, 0);
        // The sink is called outside of `guarded`: its panics belong to the caller.
        let mut records = self.db.iter();
        while let Some((key, record)) = guarded(&self.path, || records.next().transpose())? {
            if *key == *header::KEY {
                continue;
            }
            // All patches come before all records.
            if patches::is_patch(&key) {
                let Some(group) = patches::group_of(&key) else {
                    return Err(damaged(&self.path, "the key of a patch is not valid"));
                };
                let weight = weight(&key, &record);
                self.patched
                    .add(group, StoredPatch { key: key.to_vec(), weight, is_numbers: is_numbers(&record) });
                found.add(weight);
                continue;
            }
            let Ok(text) = std::str::from_utf8(&key) else {
                return Err(damaged(&self.path, "a grouping key is not UTF-8"));
            };
            found.add(weight(&key, &record));
            let patched =
                self.patched.contains(&key).then(|| self.patched_record(&key, &record)).transpose()?;
            let record: &[u8] = patched.as_deref().unwrap_or(&record);
            groups += 1;
            record_bytes += (key.len() + record.len()) as u64;
            if sink(text, record).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        found.sequence = self.header.sequence;
        if found != self.header {
            let what = format!(
                "contains {} records instead of {}, or records that differ from the stored ones",
                found.records, self.header.records
            );
            return Err(damaged(&self.path, &what));
        }
        let open_seconds = std::mem::take(&mut self.open_seconds);
        self.restore_seconds = open_seconds + started.elapsed().as_secs_f64();
        Ok(ControlFlow::Continue(Restored {
            records: groups,
            record_bytes,
            sequence: found.sequence,
            closed: self.was_closed,
            warnings: self.warnings.clone(),
        }))
    }

    fn commit(&mut self, batch: &[Change<'_>], durability: Durability) -> Result<Receipt, EngineError> {
        self.refuse_if_failed()?;
        let bytes = batch.iter().map(Change::bytes).sum();
        if bytes > BATCH_BYTES_MAX {
            return Err(EngineError::TooLarge { bytes, bytes_max: BATCH_BYTES_MAX });
        }
        match self.write(batch, durability) {
            Ok(()) => Ok(Receipt { sequence: self.header.sequence }),
            Err(error) => {
                self.failure = Some(error.to_string());
                Err(error)
            }
        }
    }

    fn start_anew(&mut self, groups: &mut dyn Groups) -> Result<Receipt, EngineError> {
        // Until it has succeeded.
        self.failure.get_or_insert_with(|| "a new database is being written".to_owned());
        self.replace_database(groups)?;
        Ok(Receipt { sequence: self.header.sequence })
    }

    fn maintain(&mut self) -> Result<(), EngineError> {
        self.refuse_if_failed()?;
        self.check_files().inspect_err(|error| self.failure = Some(error.to_string()))
    }

    fn stats(&self) -> Stats {
        let bytes = match self.failure {
            None => guarded(&self.path, || self.db.size_on_disk()).unwrap_or(0),
            Some(_) => 0,
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
        guarded(&self.path, || self.db.flush())?;
        self.sync()?;
        self.known = Known { on_disk: self.header.sequence, closed: true, ..self.known };
        self.mark.write(self.known)?;
        self.mark.sync()
    }
}

/// An open database. Dropping it flushes, which may panic inside sled; that panic goes no further.
struct Database(Option<sled::Db>);

impl Deref for Database {
    type Target = sled::Db;

    fn deref(&self) -> &sled::Db {
        self.0.as_ref().expect("it is taken only by drop")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let db = self.0.take();
        let _ = catch_unwind(AssertUnwindSafe(|| drop(db)));
    }
}

/// A batch for sled.
struct Prepared {
    /// Without the header.
    batch: sled::Batch,
    /// The header after the batch.
    header: Header,
    /// The checksums of the records that the batch has changed so far; `None` if it deleted the record.
    changed: HashMap<Vec<u8>, Option<u128>>,
    patches: PatchesOfBatch,
}

/// Starts as many threads as sled does, all at once, and ends them.
fn check_that_threads_start() -> io::Result<()> {
    let gate = Mutex::new(());
    thread::scope(|scope| {
        let closed = gate.lock();
        let start = |_| thread::Builder::new().spawn_scoped(scope, || drop(gate.lock())).map(drop);
        let started = (0..SLED_THREADS).try_for_each(start);
        drop(closed);
        started
    })
}

/// Opens sled. The store is locked, so if sled's own lock is taken, threads of an engine that was just dropped hold it.
fn open_database(path: &Path) -> Result<sled::Db, EngineError> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        // No flush thread: each commit flushes.
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
        if !taken || started.elapsed() > SLED_LOCK_TIME {
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
        Some((1.., header)) => Ok(header),
        _ => Err(damaged(path, "the header record is not valid")),
    }
}

/// Writes the header into an empty database. From then on, an empty database is a damaged one.
fn create(db: &sled::Db, path: &Path) -> Result<Header, EngineError> {
    let header = Header::default();
    guarded(path, || {
        db.insert(header::KEY, header.encode(header::VERSION_WITHOUT_PATCHES))?;
        db.flush()
    })?;
    sync_files(path, -1)?;
    Ok(header)
}

/// Compares the database with what was acknowledged, and returns warnings.
fn compare(path: &Path, header: Header, known: Known) -> Result<Vec<String>, EngineError> {
    let (found, acknowledged) = (header.sequence, known.acknowledged);
    if found < known.on_disk || (known.closed && found < acknowledged) {
        let what = format!("ends with batch {found}, but batch {} was on the disk", known.on_disk);
        return Err(damaged(path, &what));
    }
    if found >= acknowledged {
        return Ok(Vec::new());
    }
    Ok(vec![format!(
        "{}: ends with batch {found}, but batch {acknowledged} was acknowledged. None of the missing batches was known to be on \
         the disk, so a power failure explains it; a crash of the gateway does not",
        path.display()
    )])
}

/// Syncs sled's log and its files of large values with a number above `after`. Returns the highest number.
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
            // sled has deleted it in the meantime.
            Err(source) if source.kind() == io::ErrorKind::NotFound => {}
            other => other.map_err(error(&entry.path(), "sync"))?,
        }
    }
    if highest > after {
        sync_folder(&blobs)?;
    }
    Ok(highest)
}

pub(crate) fn sync_folder(path: &Path) -> Result<(), EngineError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(error(path, "sync the folder"))
}
