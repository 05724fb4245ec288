//! Worker threads for jobs that would hold a core too long: compression, and large bodies.

use crossbeam_channel::{Receiver, Sender, unbounded};
use futures_channel::oneshot;

use crate::encoding::encode::PieceEncoder;
use crate::telemetry::faults;

/// The niceness of the workers relative to the cores, so that a push does not wait for the compression of a scrape.
const NICENESS: i32 = 10;

type Job = Box<dyn FnOnce(&mut PieceEncoder) + Send>;

/// A pool of threads, one per core. They end with the program. Clones share the pool.
#[derive(Debug, Clone)]
pub(crate) struct Workers {
    jobs: Sender<Job>,
}

impl Workers {
    /// Starts the threads.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub(crate) fn start(count: usize) -> std::io::Result<Self> {
        let (jobs, inbox) = unbounded();
        for index in 0..count {
            let inbox = inbox.clone();
            faults::spawn(&format!("worker-{index}"), move || run_jobs(&inbox))?;
        }
        Ok(Self { jobs })
    }

    /// Runs a job on one of the threads. Returns `None` if the job panicked; the thread survives. If the caller stops waiting before the
    /// job begins, it is dropped.
    ///
    /// The queue has no limit of its own: the caller holds a permit, or a reservation for the memory of the job.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut PieceEncoder) -> T + Send + 'static,
    ) -> Option<T> {
        self.run_while_wanted(|encoder, _| job(encoder)).await
    }

    /// Drops something large on one of the threads.
    pub(crate) fn drop(&self, large: impl Send + 'static) {
        let _ = self.jobs.send(Box::new(move |_| drop(large)));
    }

    /// The same as [`Self::run`] for a job that takes long, and can ask whether the caller still waits.
    pub(crate) async fn run_while_wanted<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut PieceEncoder, &dyn Fn() -> bool) -> T + Send + 'static,
    ) -> Option<T> {
        let (tx, rx) = oneshot::channel();
        let job: Job = Box::new(move |encoder| {
            let is_wanted = || !tx.is_canceled();
            if is_wanted() {
                let result = job(encoder, &is_wanted);
                let _ = tx.send(result);
            }
        });
        let _ = self.jobs.send(job);
        rx.await.ok()
    }
}

fn run_jobs(inbox: &Receiver<Job>) {
    // On Linux this applies to the calling thread only. Without permission, the workers run at normal priority.
    let _ = rustix::process::setpriority_process(None, NICENESS);
    let mut encoder = PieceEncoder::default();
    for job in inbox {
        if faults::contain(|| job(&mut encoder)).is_err() {
            encoder = PieceEncoder::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::time::Duration;

    #[test]
    fn a_panicking_job_returns_none_is_reported_and_the_thread_continues() {
        let workers = Workers::start(1).expect("the thread starts");
        let result = |job| {
            let mut running = std::pin::pin!(workers.run(job));
            loop {
                if let Some(result) = running.as_mut().now_or_never() {
                    return result;
                }
                std::thread::yield_now();
            }
        };
        assert_eq!(result((|_| panic!("on purpose")) as fn(&mut PieceEncoder) -> u32), None);
        assert_eq!(result(|_| 7), Some(7));
        assert!(faults::unhealthy().is_some(), "the health check reports the panic");
    }

    #[test]
    fn a_job_learns_that_nobody_waits_for_it() {
        let workers = Workers::start(1).expect("the thread starts");
        let (began, begin) = crossbeam_channel::bounded(1);
        let (ended, end) = crossbeam_channel::bounded(1);
        let mut running = Box::pin(workers.run_while_wanted(move |_, is_wanted| {
            let _ = began.send(is_wanted());
            while is_wanted() {
                std::thread::yield_now();
            }
            let _ = ended.send(());
        }));
        assert!(running.as_mut().now_or_never().is_none());
        assert_eq!(begin.recv(), Ok(true));
        drop(running);
        assert_eq!(end.recv_timeout(Duration::from_secs(60)), Ok(()));
    }
}
