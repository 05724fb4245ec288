//! The two threads behind the one that commits: one syncs and zeroes, one merges the log into the archives.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sluicegate_backend::BackendError;

use crate::archiving::merge;
use crate::shared::{Shared, locked};

/// Ends and waits for its threads when it is dropped. What they were asked for before is done, unless they were stopped.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    disk: Worker<DiskWork>,
    archivist: Worker<Merge>,
    merging: Arc<Merging>,
}

enum DiskWork {
    /// Sync what is left behind.
    Sync,
    /// Sync everything that is written, soon: all that is written until then goes along.
    SyncSoon,
    /// Have a blank segment of that length ready.
    Prepare(u64),
}

struct Merge {
    last_segment: u64,
    below: u64,
}

/// After so long, what was committed for [`Durability::Process`](sluicegate_backend::Durability::Process) is synced.
const SYNC_INTERVAL: Duration = Duration::from_secs(1);

fn keep_disk(shared: &Shared, work: &mpsc::Receiver<DiskWork>) {
    let mut sync_at: Option<Instant> = None;
    loop {
        let next = match sync_at {
            Some(at) => work.recv_timeout(at.saturating_duration_since(Instant::now())),
            None => work.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let done = match next {
            Ok(DiskWork::Sync) => shared.sync(),
            Ok(DiskWork::SyncSoon) => {
                sync_at = Some(Instant::now() + SYNC_INTERVAL);
                Ok(())
            }
            Ok(DiskWork::Prepare(length)) => shared.prepare_blank(length),
            Err(RecvTimeoutError::Timeout) => {
                sync_at = None;
                shared.sync_written()
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        // A failed sync has poisoned the store. A blank that could not be made will be missed, and then told.
        drop(done);
    }
}

/// Whether a merge was asked for and is not done.
#[derive(Default)]
struct Merging {
    busy: Mutex<bool>,
    done: Condvar,
}

struct Worker<T> {
    /// `None` only while it is dropped.
    sender: Option<mpsc::Sender<T>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Worker<T> {
    fn start(
        name: &str,
        work: impl FnOnce(mpsc::Receiver<T>) + Send + 'static,
    ) -> Result<Self, BackendError> {
        let (sender, receiver) = mpsc::channel();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || work(receiver));
        let thread = thread.map_err(|source| BackendError::Io {
            file: name.into(),
            doing: "start a thread",
            source,
        })?;
        Ok(Self { sender: Some(sender), thread: Some(thread) })
    }

    fn send(&self, work: T) {
        // It ends only by a panic, and that is told when it is joined.
        let _ = self.sender.as_ref().map(|sender| sender.send(work));
    }
}

impl<T> Drop for Worker<T> {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl Workers {
    pub fn start(shared: &Arc<Shared>) -> Result<Self, BackendError> {
        let merging = Arc::new(Merging::default());
        let disk = {
            let shared = shared.clone();
            Worker::start("store-disk", move |work| keep_disk(&shared, &work))?
        };
        let archivist = {
            let (shared, merging) = (shared.clone(), merging.clone());
            Worker::start("store-archive", move |work| {
                for Merge { last_segment, below } in work {
                    merge(&shared, last_segment, below);
                    *locked(&merging.busy) = false;
                    merging.done.notify_all();
                }
            })?
        };
        Ok(Self { shared: shared.clone(), disk, archivist, merging })
    }

    pub fn sync(&self) {
        self.disk.send(DiskWork::Sync);
    }

    /// Has what is written synced before long, if that was not asked for already.
    pub fn sync_soon(&self) {
        if self.shared.ask_for_sync() {
            self.disk.send(DiskWork::SyncSoon);
        }
    }

    pub fn prepare(&self, length: u64) {
        self.disk.send(DiskWork::Prepare(length));
    }

    /// Asks for a merge, if none is under way.
    pub fn archive(&self, last_segment: u64, below: u64) {
        let mut busy = locked(&self.merging.busy);
        if !*busy {
            *busy = true;
            self.archivist.send(Merge { last_segment, below });
        }
    }

    pub fn wait_for_archive(&self) {
        let mut busy = locked(&self.merging.busy);
        while *busy {
            busy = self.merging.done.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets go of what was asked for.
    pub fn stop(&self) {
        self.shared.stopping.store(true, Ordering::Release);
    }
}
