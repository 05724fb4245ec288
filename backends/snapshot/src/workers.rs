//! The two threads behind the one that commits: one syncs and zeroes, one merges the log into the archives.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};

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
    Sync,
    /// Have a blank segment of that length ready.
    Prepare(u64),
}

struct Merge {
    last_segment: u64,
    below: u64,
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
    fn start(name: &str, work: impl Fn(T) + Send + 'static) -> Result<Self, BackendError> {
        let (sender, receiver) = mpsc::channel();
        let run = move || receiver.into_iter().for_each(work);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
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
            Worker::start("store-disk", move |work| {
                let done = match work {
                    DiskWork::Sync => shared.sync(),
                    DiskWork::Prepare(length) => shared.prepare_blank(length),
                };
                // A failed sync has poisoned the store. A blank that could not be made will be missed, and then told.
                drop(done);
            })?
        };
        let archivist = {
            let (shared, merging) = (shared.clone(), merging.clone());
            Worker::start("store-archive", move |Merge { last_segment, below }| {
                merge(&shared, last_segment, below);
                *locked(&merging.busy) = false;
                merging.done.notify_all();
            })?
        };
        Ok(Self { shared: shared.clone(), disk, archivist, merging })
    }

    pub fn sync(&self) {
        self.disk.send(DiskWork::Sync);
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
