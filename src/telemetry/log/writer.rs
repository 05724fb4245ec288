//! The thread that writes log lines, so that a stderr that accepts nothing stops nobody else.
//!
//! A line waits in a bounded queue. If the queue is full, or writing fails, the line is dropped and counted, and the next line that
//! can be written is followed by one that says how many are missing.

use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::telemetry::faults;

/// How many lines may wait.
const LINES_MAX: usize = 4096;
/// How many bytes may wait, because lines contain what clients send.
const BYTES_MAX: usize = 4 << 20;
/// A pipe that is writable has room for this many bytes (PIPE_BUF of Linux).
const PIPE_BYTES: usize = 4096;

/// The queue to the thread. Clones share it.
#[derive(Clone)]
pub(super) struct Queue {
    messages: Sender<Message>,
    shared: Arc<Shared>,
}

enum Message {
    Line(String),
    /// Is dropped when all earlier lines are written.
    Flush {
        _done: Sender<()>,
    },
}

#[derive(Default)]
struct Shared {
    queued_bytes: AtomicUsize,
    dropped: AtomicU64,
}

impl Queue {
    /// Starts the thread. `write` writes one line; `dropped` formats the line that reports dropped ones.
    pub(super) fn start(
        write: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static,
        dropped: impl Fn(u64) -> String + Send + 'static,
    ) -> io::Result<Self> {
        let (messages, inbox) = bounded(LINES_MAX);
        let shared = Arc::new(Shared::default());
        let writer = Writer { shared: shared.clone(), write, dropped, reported: 0 };
        faults::spawn("log", move || writer.run(&inbox))?;
        Ok(Self { messages, shared })
    }

    /// Queues a line, including its LF. Never waits.
    pub(super) fn push(&self, line: String) {
        let bytes = line.len();
        let queued = self.shared.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        let sent = if queued.saturating_add(bytes) > BYTES_MAX {
            Err(TrySendError::Full(Message::Line(line)))
        } else {
            self.messages.try_send(Message::Line(line))
        };
        let Err(error) = sent else { return };
        self.shared.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        let is_written = match &error {
            // The thread panicked.
            TrySendError::Disconnected(Message::Line(line)) => write_what_fits(line),
            _ => false,
        };
        if !is_written {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until all lines that are queued now are written, but no longer than `duration`.
    pub(super) fn flush(&self, duration: Duration) {
        let deadline = Instant::now() + duration;
        let (tx, rx) = bounded(0);
        if self.messages.send_deadline(Message::Flush { _done: tx }, deadline).is_ok() {
            let _ = rx.recv_deadline(deadline);
        }
    }

    /// The number of dropped lines since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }
}

struct Writer<W, D> {
    shared: Arc<Shared>,
    write: W,
    dropped: D,
    /// How many dropped lines the log mentions so far.
    reported: u64,
}

impl<W: FnMut(&[u8]) -> io::Result<()>, D: Fn(u64) -> String> Writer<W, D> {
    fn run(mut self, inbox: &Receiver<Message>) {
        for message in inbox {
            let Message::Line(line) = message else { continue };
            let result = (self.write)(line.as_bytes());
            self.shared.queued_bytes.fetch_sub(line.len(), Ordering::Relaxed);
            match result {
                Ok(()) => self.report_dropped(),
                Err(_) => {
                    self.shared.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn report_dropped(&mut self) {
        let dropped = self.shared.dropped.load(Ordering::Relaxed);
        if dropped > self.reported && (self.write)((self.dropped)(dropped - self.reported).as_bytes()).is_ok()
        {
            self.reported = dropped;
        }
    }
}

/// Writes to stderr, without the lock of the standard library: others use that lock, and must not wait while this thread does.
pub(super) fn write_to_stderr(mut bytes: &[u8]) -> io::Result<()> {
    let stderr = io::stderr();
    while !bytes.is_empty() {
        match rustix::io::write(stderr.as_fd(), bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            // Another process that shares this stderr made it non-blocking.
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Writes as much of a line to stderr as is possible without waiting. Returns whether that is anything.
fn write_what_fits(line: &str) -> bool {
    let stderr = io::stderr();
    let is_writable = poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&Timespec::default()))
        .is_ok_and(|ready| ready > 0);
    let bytes = &line.as_bytes()[..line.len().min(PIPE_BYTES)];
    is_writable && rustix::io::write(stderr.as_fd(), bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A queue whose output waits for a result per line, and the lines that it was given.
    fn controlled() -> (Queue, mpsc::Sender<io::Result<()>>, mpsc::Receiver<String>) {
        let (results, next_result) = mpsc::channel();
        let (lines, written) = mpsc::channel();
        let write = move |line: &[u8]| {
            let _ = lines.send(String::from_utf8_lossy(line).into_owned());
            next_result.recv().unwrap_or(Ok(()))
        };
        let queue = Queue::start(write, |lines| format!("dropped {lines}\n")).expect("a thread");
        (queue, results, written)
    }

    #[test]
    fn a_blocked_output_drops_lines_and_reports_them_when_it_flows_again() {
        let (queue, results, written) = controlled();
        queue.push("first\n".to_owned());
        assert_eq!(written.recv_timeout(PATIENCE).expect("the thread writes"), "first\n");
        for _ in 0..LINES_MAX + 5 {
            queue.push("x\n".to_owned());
        }
        assert_eq!(queue.dropped(), 5);
        // Returns, although the output is blocked.
        queue.flush(Duration::from_millis(1));
        drop(results);
        assert_eq!(written.recv_timeout(PATIENCE).expect("the thread goes on"), "dropped 5\n");
        queue.flush(PATIENCE);
        assert_eq!(written.try_iter().count(), LINES_MAX);
        assert_eq!(queue.shared.queued_bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn the_bytes_that_wait_are_limited() {
        let (queue, _results, written) = controlled();
        queue.push("x".repeat(BYTES_MAX + 1));
        assert_eq!(queue.dropped(), 1);
        for _ in 0..10 {
            queue.push("x".repeat(BYTES_MAX / 4));
        }
        assert_eq!(queue.dropped(), 1 + 6);
        assert_eq!(written.recv_timeout(PATIENCE).expect("the thread writes").len(), BYTES_MAX / 4);
    }

    #[test]
    fn a_failing_output_drops_lines_until_it_recovers() {
        let (queue, results, written) = controlled();
        for line in ["lost\n", "also lost\n", "written\n"] {
            queue.push(line.to_owned());
        }
        results.send(Err(io::ErrorKind::StorageFull.into())).expect("the thread runs");
        results.send(Err(io::ErrorKind::BrokenPipe.into())).expect("the thread runs");
        drop(results);
        queue.flush(PATIENCE);
        assert_eq!(written.try_iter().last().as_deref(), Some("dropped 2\n"));
        assert_eq!(queue.dropped(), 2);
    }

    #[test]
    fn the_panic_of_the_thread_is_a_fault_and_later_lines_need_no_thread() {
        let queue = Queue::start(|_| panic!("on purpose"), |_| String::new()).expect("a thread");
        queue.push("x\n".to_owned());
        while !matches!(
            queue.messages.try_send(Message::Line(String::new())),
            Err(TrySendError::Disconnected(_))
        ) {
            std::thread::yield_now();
        }
        queue.push("written by the test's own thread\n".to_owned());
        assert_eq!(queue.dropped(), 0);
    }
}
