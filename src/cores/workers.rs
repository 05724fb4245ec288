//! Threads for what would hold a core too long: compression, and bodies of unusual size.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use futures_channel::oneshot;

use crate::encoding::encode::PieceEncoder;

/// How much less the workers are worth to the scheduler than the cores: a push must not wait for a scrape's compression.
const NICENESS: i32 = 10;

type Job = Box<dyn FnOnce(&mut PieceEncoder) + Send>;

/// A pool of threads, one per core. They end with the program.
#[derive(Clone)]
pub struct Workers {
    jobs: Sender<Job>,
}

impl Workers {
    /// Starts the threads.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub fn start(count: usize) -> std::io::Result<Self> {
        let (jobs, inbox) = channel();
        let inbox = Arc::new(Mutex::new(inbox));
        for index in 0..count {
            let inbox = inbox.clone();
            std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || work(&inbox))?;
        }
        Ok(Self { jobs })
    }

    /// Does something on one of the threads. `None` if it panicked; the thread goes on.
    pub async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut PieceEncoder) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, told) = oneshot::channel();
        let job: Job = Box::new(move |encoder| {
            let _ = answer.send(job(encoder));
        });
        let _ = self.jobs.send(job);
        told.await.ok()
    }
}

fn work(inbox: &Mutex<Receiver<Job>>) {
    // On Linux this is about the calling thread alone. Without the right to it the workers are merely not polite.
    let _ = rustix::process::setpriority_process(None, NICENESS);
    let mut encoder = PieceEncoder::default();
    loop {
        // The lock is held while waiting: the others wait for the lock instead.
        let job = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        if catch_unwind(AssertUnwindSafe(|| job(&mut encoder))).is_err() {
            tracing::error!("a worker's job panicked");
            encoder = PieceEncoder::default();
        }
    }
}
