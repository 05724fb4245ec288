//! The writers: many connections on one thread, driven by readiness.
//!
//! In an open loop requests are due at times of their own. Latency counts from when a request was due, not from when a
//! connection was free for it; so a gateway that stalls cannot hide the requests that it kept from being sent.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use crate::flags::{Arrivals, Load};
use crate::gateway::Target;
use crate::history::{Answer, Ask, NEVER, Request};
use crate::http::{self, Length};
use crate::scenario::{Job, Plan, Workload};
use crate::schema::{Layout, Version};

/// What all threads of a run share.
pub struct Shared<'a> {
    /// Where to.
    pub target: Target,
    /// What bodies look like.
    pub layout: &'a Layout,
    /// The scenario.
    pub plan: &'a Plan,
    /// Further flags.
    pub load: &'a Load,
    /// Time 0 of the history.
    pub begin: Instant,
    /// Ends the run early.
    pub stop: &'a AtomicBool,
    /// Writers begin nothing new while the gateway is down, and until it was seen what it still has.
    pub paused: AtomicBool,
    /// Scrapers begin nothing new while the gateway is down.
    pub dark: AtomicBool,
    /// Threads that have something under way.
    pub busy: AtomicUsize,
    /// Requests that may still be sent.
    pub left: AtomicU64,
    /// Live counts for the progress bar: pushes answered, others, scrapes.
    pub pushes: AtomicU64,
    /// Requests that did not get an answer that was hoped for.
    pub errors: AtomicU64,
    /// Scrapes.
    pub scrapes: AtomicU64,
}

impl Shared<'_> {
    /// Nanoseconds since the run began; never 0, so that everything lies behind the beginning.
    pub fn now(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64 + 1
    }

    /// Whether the time of the run is over.
    pub fn over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.begin.elapsed() >= self.load.duration
    }
}

/// What a thread measured.
pub struct Measured {
    /// By writer of this thread.
    pub requests: Vec<Vec<Request>>,
    /// PUT and POST that were taken, in microseconds.
    pub push: Histogram<u64>,
    /// DELETE.
    pub delete: Histogram<u64>,
    /// Requests that were due but never sent, because the run was over.
    pub unsent: u64,
}

/// From 1 microsecond to 2 minutes, in three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 120_000_000, 3).expect("bounds that are fixed and right")
}

const TIMER: Token = Token(usize::MAX);
const READ_BYTES: usize = 16 * 1024;
/// What a gateway has to say to a push is far below this; a longer answer is none.
const ANSWER_BYTES_MAX: usize = 1 << 20;

struct Writer {
    /// Within the run.
    number: usize,
    stream: Option<TcpStream>,
    out: Vec<u8>,
    written: usize,
    answer: Vec<u8>,
    under_way: Option<UnderWay>,
    requests: Vec<Request>,
}

struct UnderWay {
    due: u64,
    fresh: bool,
    /// Whether any byte of it was handed over.
    sent: bool,
}

/// Runs the writers `first..first + count` until the run is over.
pub fn run(
    shared: &Shared<'_>,
    thread: usize,
    threads: usize,
    first: usize,
    count: usize,
) -> Result<Measured> {
    let mut poll = Poll::new()?;
    let timer = rustix::time::timerfd_create(
        TimerfdClockId::Monotonic,
        TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
    )?;
    poll.registry().register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)?;
    let writer = |number| Writer {
        number,
        stream: None,
        out: Vec::new(),
        written: 0,
        answer: Vec::new(),
        under_way: None,
        requests: Vec::new(),
    };
    let pusher = Pusher {
        shared,
        workload: Workload::new(shared.plan, shared.layout, shared.load.seed, thread, threads, count),
        writers: (first..first + count).map(writer).collect(),
        idle: (0..count).rev().collect(),
        gap: shared.plan.rate.map(|rate| 1e9 * threads as f64 / rate),
        due: 0.0,
        measured: Measured { requests: Vec::new(), push: histogram(), delete: histogram(), unsent: 0 },
        alarm: 0.0,
        counted: false,
        swept: Instant::now(),
        buffer: vec![0; READ_BYTES],
    };
    pusher.run(&mut poll, &timer)
}

struct Pusher<'a> {
    shared: &'a Shared<'a>,
    workload: Workload,
    writers: Vec<Writer>,
    idle: Vec<usize>,
    /// Nanoseconds between requests in an open loop.
    gap: Option<f64>,
    /// When the next one is due.
    due: f64,
    measured: Measured,
    /// For when the timer is set.
    alarm: f64,
    /// Whether `Shared::busy` counts this thread.
    counted: bool,
    swept: Instant,
    /// What is read goes here first.
    buffer: Vec<u8>,
}

impl Pusher<'_> {
    fn run(mut self, poll: &mut Poll, timer: &impl std::os::fd::AsFd) -> Result<Measured> {
        let mut events = Events::with_capacity(1024);
        loop {
            let over = self.shared.over() || self.shared.left.load(Ordering::Relaxed) == 0;
            let under_way = self.writers.len() - self.idle.len();
            if over && under_way == 0 {
                break;
            }
            let paused = self.enter(under_way);
            if paused {
                // Nobody could have sent anything; the time of the gateway's absence is not its latency.
                self.due = self.due.max(self.shared.now() as f64);
            }
            let nobody_listens = !paused && !over && self.send_what_is_due(poll, timer)?;
            // That need not be asked a million times a second.
            let patience = Duration::from_millis(if paused || nobody_listens { 1 } else { 20 });
            poll.poll(&mut events, Some(patience))
                .or_else(|error| if error.kind() == ErrorKind::Interrupted { Ok(()) } else { Err(error) })?;
            for event in &events {
                // The timer only wakes. It need not be read: each time that it is set and runs out is told.
                if event.token() != TIMER {
                    self.drive(
                        event.token().0,
                        event.is_readable() || event.is_error() || event.is_read_closed(),
                    );
                }
            }
            self.sweep();
        }
        self.enter(0);
        if self.counted {
            self.shared.busy.fetch_sub(1, Ordering::SeqCst);
        }
        if self.gap.is_some() && !self.shared.stop.load(Ordering::Relaxed) {
            let end = self.shared.load.duration.as_nanos() as f64;
            self.measured.unsent = ((end - self.due) / self.gap.unwrap_or(1.0)).max(0.0) as u64;
        }
        self.measured.requests = self.writers.into_iter().map(|writer| writer.requests).collect();
        Ok(self.measured)
    }

    /// Says whether this thread has something under way; returns whether it must not begin anything.
    fn enter(&mut self, under_way: usize) -> bool {
        let busy = &self.shared.busy;
        if !self.counted {
            busy.fetch_add(1, Ordering::SeqCst);
            self.counted = true;
        }
        let paused = self.shared.paused.load(Ordering::SeqCst);
        if paused && under_way == 0 {
            busy.fetch_sub(1, Ordering::SeqCst);
            self.counted = false;
        }
        paused
    }

    /// Gives idle writers what is due. True if nobody listens: then a writer is idle again at once, and this would never end.
    fn send_what_is_due(&mut self, poll: &Poll, timer: &impl std::os::fd::AsFd) -> Result<bool> {
        while let Some(at) = self.idle.last().copied() {
            let now = self.shared.now();
            let due = if self.gap.is_some() { self.due } else { now as f64 };
            if due > now as f64 {
                if due == self.alarm {
                    return Ok(false);
                }
                self.alarm = due;
                let wait = Duration::from_nanos((due - now as f64) as u64 + 1);
                let value =
                    Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
                let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
                rustix::time::timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)?;
                return Ok(false);
            }
            let one_less = |left: u64| left.checked_sub(1);
            if self.shared.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_err() {
                return Ok(false);
            }
            if let Some(gap) = self.gap {
                self.due += match self.shared.load.arrivals {
                    Arrivals::Even => gap,
                    Arrivals::Poisson => -gap * (1.0 - self.workload.chance()).ln(),
                };
            }
            self.idle.pop();
            let job = self.workload.next(self.writers[at].number, at);
            self.send(at, job, due as u64, poll)?;
            if self.idle.last() == Some(&at) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn send(&mut self, at: usize, job: Job, due: u64, poll: &Poll) -> Result<()> {
        let writer = &mut self.writers[at];
        let version = Version::new(writer.number, writer.requests.len());
        render(self.shared, &job, version, &mut writer.out);
        (writer.written, writer.under_way) = (0, Some(UnderWay { due, fresh: job.fresh, sent: false }));
        writer.answer.clear();
        writer.requests.push(Request {
            start: self.shared.now(),
            end: NEVER,
            group: job.group,
            shape: job.shape as u16,
            ask: job.ask,
            answer: Answer::NotSent,
        });
        if job.fresh {
            writer.stream = None;
        }
        if writer.stream.is_none() {
            match TcpStream::connect(self.shared.target.address) {
                Ok(stream) => writer.stream = Some(stream),
                Err(_) => {
                    self.finish(at, None);
                    return Ok(());
                }
            }
            // A connection within a machine often stands at once; if not, the event that says so writes.
            self.drive(at, false);
            return self.register(at, job.fresh, poll);
        }
        self.drive(at, false);
        Ok(())
    }

    /// Has a new connection watched.
    fn register(&mut self, at: usize, fresh: bool, poll: &Poll) -> Result<()> {
        let writer = &mut self.writers[at];
        let Some(stream) = &mut writer.stream else { return Ok(()) };
        let mut interest = Interest::READABLE;
        if !fresh || writer.written < writer.out.len() {
            interest |= Interest::WRITABLE;
        }
        if !fresh {
            let _ = stream.set_nodelay(true);
        }
        poll.registry().register(stream, Token(at), interest).map_err(Into::into)
    }

    /// Writes what can be written, reads what is there.
    fn drive(&mut self, at: usize, readable: bool) {
        let Some(writer) = self.writers.get_mut(at) else { return };
        let Some(stream) = &mut writer.stream else { return };
        let Some(under_way) = &mut writer.under_way else {
            // An idle connection has something to say: it is being closed.
            let mut buffer = [0; 64];
            if readable
                && !matches!(stream.read(&mut buffer), Err(error) if error.kind() == ErrorKind::WouldBlock)
            {
                writer.stream = None;
            }
            return;
        };
        while writer.written < writer.out.len() {
            match stream.write(&writer.out[writer.written..]) {
                Ok(sent) => {
                    writer.written += sent;
                    under_way.sent = true;
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // There may be an answer all the same, to a body that was too long.
                Err(_) if under_way.sent => break,
                Err(_) => return self.finish(at, None),
            }
        }
        if !readable {
            return;
        }
        let buffer = &mut self.buffer;
        loop {
            match stream.read(buffer) {
                Ok(0) => return self.finish(at, None),
                Ok(got) => {
                    writer.answer.extend_from_slice(&buffer[..got]);
                    match whole(&writer.answer) {
                        Ok(None) if writer.answer.len() <= ANSWER_BYTES_MAX => {}
                        Ok(Some((status, body, closes))) => {
                            let refused = status == 400
                                && writer.answer[body..].starts_with(b"pushed metrics are invalid");
                            return self.finish(at, Some((status, refused, closes)));
                        }
                        Ok(None) | Err(_) => return self.finish(at, None),
                    }
                    // Readiness is told anew when more comes.
                    if got < buffer.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.finish(at, None),
            }
        }
    }

    /// A request is over: with status, whether it is a refusal, whether the connection closes.
    fn finish(&mut self, at: usize, answer: Option<(u16, bool, bool)>) {
        let writer = &mut self.writers[at];
        let Some(under_way) = writer.under_way.take() else { return };
        let now = self.shared.now();
        let request = writer.requests.last_mut().expect("it was noted when it was sent");
        request.answer = match answer {
            Some((200..=299, ..)) => Answer::Done,
            Some((400, true, _)) => Answer::Refused,
            Some((400..=499, ..)) => Answer::Rejected,
            Some((status, ..)) => Answer::Unknown(status),
            None if under_way.sent => Answer::Lost,
            None => Answer::NotSent,
        };
        if answer.is_some() {
            request.end = now;
        }
        let microseconds = now.saturating_sub(under_way.due) / 1000;
        let histogram = match request.ask {
            Ask::Delete => &mut self.measured.delete,
            _ => &mut self.measured.push,
        };
        if matches!(request.answer, Answer::Done | Answer::Refused | Answer::Rejected) {
            histogram.saturating_record(microseconds);
            self.shared.pushes.fetch_add(1, Ordering::Relaxed);
        } else {
            self.shared.errors.fetch_add(1, Ordering::Relaxed);
        }
        if under_way.fresh || answer.is_none_or(|(_, _, closes)| closes) {
            writer.stream = None;
        }
        self.idle.push(at);
    }

    fn sweep(&mut self) {
        if self.swept.elapsed() < Duration::from_millis(500) {
            return;
        }
        self.swept = Instant::now();
        let patience = self.shared.load.timeout.as_nanos() as u64;
        let now = self.shared.now();
        for at in 0..self.writers.len() {
            let late = |writer: &Writer| {
                writer.requests.last().is_some_and(|request| now - request.start > patience)
            };
            if self.writers[at].under_way.is_some() && late(&self.writers[at]) {
                self.finish(at, None);
            }
        }
    }
}

/// Status, where the body begins and whether the connection closes, if the answer is whole.
fn whole(answer: &[u8]) -> Result<Option<(u16, usize, bool)>> {
    let Some(head) = http::head(answer)? else { return Ok(None) };
    let there = match head.length {
        Length::Known(bytes) => answer.len() >= head.bytes + bytes,
        Length::Chunked => http::chunks(&answer[head.bytes..], &mut Vec::new())?.is_some(),
        // What such an answer says stands in its head.
        Length::UntilClosed => true,
    };
    Ok(there.then_some((head.status, head.bytes, head.closes)))
}

/// The bytes of a request.
fn render(shared: &Shared<'_>, job: &Job, version: Version, out: &mut Vec<u8>) {
    let broken: &[u8] = match job.ask {
        Ask::Garbage => {
            [&b"lt_broken{ 1\n"[..], b"lt_broken 1", b"lt_broken one\n", b"# TYPE lt_broken what\n"]
                [version.0 as usize % 4]
        }
        Ask::Inconsistent => {
            [&b"lt_twice 1\nlt_twice 2\n"[..], b"lt_timed 1 1700000000000\n"][version.0 as usize % 2]
        }
        _ => b"",
    };
    let bytes = match job.ask {
        Ask::Delete => 0,
        _ => shared.layout.body_bytes(job.group, job.shape) + broken.len(),
    };
    let method = match job.ask {
        Ask::Delete => "DELETE",
        Ask::Post => "POST",
        Ask::Put => "PUT",
        Ask::Garbage | Ask::Inconsistent => ["PUT", "POST"][version.0 as usize / 4 % 2],
    };
    let (target, run) = (&shared.target, &shared.layout.run);
    out.clear();
    let written = write!(
        out,
        "{method} {}/metrics/job/loadtest/run/{run}/instance/{} HTTP/1.1\r\nHost: {}\r\nUser-Agent: sluicegate-loadtest\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {bytes}\r\n\r\n",
        target.prefix, job.group, target.host
    );
    written.expect("a vector takes everything");
    if job.ask != Ask::Delete {
        shared.layout.render(job.group, job.shape, version, out);
        out.extend_from_slice(broken);
    }
}
