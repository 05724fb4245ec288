//! The writers: many connections on one thread, driven by readiness.
//!
//! In an open loop, each request is due at a time that does not depend on earlier responses. Latency is measured from this
//! time, not from when a connection was free. Otherwise, a gateway that stalls would hide the requests that it delayed.

use std::io::{ErrorKind, Read, Write};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::alarm::Alarm;
use super::request::{self, Response, parse_response};
use super::shared::{ActivityMark, RunState, latency_histogram};
use crate::flags::Arrivals;
use crate::history::{NEVER, Operation, Outcome, Request};
use crate::scenario::{PlannedRequest, RequestGenerator, WriterRange};
use crate::schema::PushId;

const ALARM: Token = Token(usize::MAX);
const READ_BYTES: usize = 16 * 1024;
/// Longer responses to a push count as lost.
const RESPONSE_BYTES_MAX: usize = 1 << 20;
/// Longest wait of a poll.
const POLL_MAX: Duration = Duration::from_millis(20);
/// Wait of a poll while nothing can be sent: during a pause, or while the gateway does not listen.
const POLL_WHEN_BLOCKED: Duration = Duration::from_millis(1);
/// Time between two searches for requests that have timed out.
const TIMEOUT_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// What the writers of a thread measured.
pub struct WriterResult {
    /// By writer of this thread.
    pub requests: Vec<Vec<Request>>,
    /// Microseconds of PUT and POST.
    pub push: Histogram<u64>,
    /// Microseconds of DELETE.
    pub delete: Histogram<u64>,
    /// Requests that were due but not sent before the run ended.
    pub unsent: u64,
}

/// One connection and its requests. A connection has one request in flight at a time.
struct Writer {
    /// Number within the run.
    number: usize,
    stream: Option<TcpStream>,
    out: Vec<u8>,
    written: usize,
    response: Vec<u8>,
    in_flight: Option<InFlight>,
    requests: Vec<Request>,
}

struct InFlight {
    due: u64,
    new_connection: bool,
    /// The kernel took at least one byte.
    is_sent: bool,
}

impl Writer {
    fn new(number: usize) -> Self {
        Self {
            number,
            stream: None,
            out: Vec::new(),
            written: 0,
            response: Vec::new(),
            in_flight: None,
            requests: Vec::new(),
        }
    }
}

/// Runs the writers of one thread until the run is over and all responses have arrived or timed out.
pub fn run(state: &RunState<'_>, writers: WriterRange) -> Result<WriterResult> {
    let poll = Poll::new()?;
    let alarm = Alarm::new(&poll, ALARM)?;
    let thread = WriterThread {
        state,
        generator: RequestGenerator::new(state.plan, state.schema, state.load.seed, writers),
        writers: (writers.first..writers.first + writers.count).map(Writer::new).collect(),
        idle: (0..writers.count).rev().collect(),
        gap: state.plan.rate.map(|rate| 1e9 * writers.threads as f64 / rate),
        due: 0.0,
        result: WriterResult {
            requests: Vec::new(),
            push: latency_histogram(),
            delete: latency_histogram(),
            unsent: 0,
        },
        alarm,
        timeouts_checked: Instant::now(),
        buffer: vec![0; READ_BYTES],
    };
    thread.run(poll)
}

struct WriterThread<'a> {
    state: &'a RunState<'a>,
    generator: RequestGenerator,
    writers: Vec<Writer>,
    /// Indexes of writers without a request in flight.
    idle: Vec<usize>,
    /// Nanoseconds between requests in an open loop.
    gap: Option<f64>,
    /// When the next request of an open loop is due.
    due: f64,
    result: WriterResult,
    alarm: Alarm,
    timeouts_checked: Instant,
    buffer: Vec<u8>,
}

/// Why [`WriterThread::send_due_requests`] stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// All requests that are due were sent, or no writer is idle.
    AllDue,
    /// The gateway does not listen. The writer is idle again at once, so that trying further would never end.
    ConnectionFailed,
}

impl WriterThread<'_> {
    fn run(mut self, mut poll: Poll) -> Result<WriterResult> {
        let mut events = Events::with_capacity(1024);
        let mut mark = ActivityMark::new(self.state);
        loop {
            let is_over = self.state.is_over() || self.state.is_exhausted();
            let has_in_flight = self.idle.len() < self.writers.len();
            if is_over && !has_in_flight {
                break;
            }
            mark.set();
            let is_paused = self.state.writers_paused.load(Ordering::SeqCst);
            if is_paused {
                if !has_in_flight {
                    mark.clear();
                }
                // Time in which the gateway is down does not count as its latency.
                self.due = self.due.max(self.state.now() as f64);
            }
            let can_send = !is_paused && !is_over;
            let is_blocked =
                is_paused || (can_send && self.send_due_requests(&poll)? == Sent::ConnectionFailed);
            let timeout = if is_blocked { POLL_WHEN_BLOCKED } else { POLL_MAX };
            poll.poll(&mut events, Some(timeout))
                .or_else(|error| if error.kind() == ErrorKind::Interrupted { Ok(()) } else { Err(error) })?;
            for event in events.iter().filter(|event| event.token() != ALARM) {
                let is_readable = event.is_readable() || event.is_error() || event.is_read_closed();
                self.advance(event.token().0, is_readable);
            }
            self.check_timeouts();
        }
        drop(mark);
        if let Some(gap) = self.gap
            && !self.state.stop.load(Ordering::Relaxed)
        {
            let end = self.state.load.duration.as_nanos() as f64;
            self.result.unsent = ((end - self.due) / gap).max(0.0) as u64;
        }
        self.result.requests = self.writers.into_iter().map(|writer| writer.requests).collect();
        Ok(self.result)
    }

    /// Gives requests to idle writers until none is due.
    fn send_due_requests(&mut self, poll: &Poll) -> Result<Sent> {
        while let Some(at) = self.idle.last().copied() {
            let now = self.state.now();
            let due = if self.gap.is_some() { self.due } else { now as f64 };
            if due > now as f64 {
                self.alarm.set(due, now)?;
                break;
            }
            if !self.state.take_request() {
                break;
            }
            if let Some(gap) = self.gap {
                self.due += match self.state.load.arrivals {
                    Arrivals::Even => gap,
                    Arrivals::Poisson => -gap * (1.0 - self.generator.fraction()).ln(),
                };
            }
            self.idle.pop();
            let planned = self.generator.next(at);
            self.send(at, planned, due as u64, poll)?;
            if self.idle.last() == Some(&at) {
                return Ok(Sent::ConnectionFailed);
            }
        }
        Ok(Sent::AllDue)
    }

    fn send(&mut self, at: usize, planned: PlannedRequest, due: u64, poll: &Poll) -> Result<()> {
        let PlannedRequest { group, shape, operation, new_connection } = planned;
        let writer = &mut self.writers[at];
        let push = PushId::new(writer.number, writer.requests.len());
        request::render(&self.state.target, self.state.schema, &planned, push, &mut writer.out);
        writer.written = 0;
        writer.in_flight = Some(InFlight { due, new_connection, is_sent: false });
        writer.response.clear();
        writer.requests.push(Request {
            start: self.state.now(),
            end: NEVER,
            group,
            shape: shape as u16,
            operation,
            outcome: Outcome::NotSent,
        });
        if new_connection {
            writer.stream = None;
        }
        if writer.stream.is_some() {
            self.advance(at, false);
            return Ok(());
        }
        let Ok(stream) = TcpStream::connect(self.state.target.address) else {
            self.finish(at, None);
            return Ok(());
        };
        writer.stream = Some(stream);
        // A local connection is often established at once. Otherwise, the writable event sends the request.
        self.advance(at, false);
        self.register(at, new_connection, poll)
    }

    /// Registers a new connection for the events that it needs.
    fn register(&mut self, at: usize, new_connection: bool, poll: &Poll) -> Result<()> {
        let writer = &mut self.writers[at];
        let Some(stream) = &mut writer.stream else { return Ok(()) };
        let mut interest = Interest::READABLE;
        if !new_connection || writer.written < writer.out.len() {
            interest |= Interest::WRITABLE;
        }
        if !new_connection {
            let _ = stream.set_nodelay(true);
        }
        poll.registry().register(stream, Token(at), interest).map_err(Into::into)
    }

    /// Writes and reads as much as the connection of a writer allows.
    fn advance(&mut self, at: usize, is_readable: bool) {
        let Some(writer) = self.writers.get_mut(at) else { return };
        let Some(stream) = &mut writer.stream else { return };
        let Some(in_flight) = &mut writer.in_flight else {
            if is_readable && !is_still_open(stream) {
                writer.stream = None;
            }
            return;
        };
        while writer.written < writer.out.len() {
            match stream.write(&writer.out[writer.written..]) {
                Ok(bytes) => {
                    writer.written += bytes;
                    in_flight.is_sent = true;
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A response may have arrived, for example to a body that was too large.
                Err(_) if in_flight.is_sent => break,
                Err(_) => return self.finish(at, None),
            }
        }
        if is_readable {
            self.read_response(at);
        }
    }

    /// Reads what has arrived on the connection of a writer with a request in flight.
    fn read_response(&mut self, at: usize) {
        let writer = &mut self.writers[at];
        let Some(stream) = &mut writer.stream else { return };
        loop {
            match stream.read(&mut self.buffer) {
                Ok(0) => return self.finish(at, None),
                Ok(bytes) => {
                    writer.response.extend_from_slice(&self.buffer[..bytes]);
                    match parse_response(&writer.response) {
                        Ok(None) if writer.response.len() <= RESPONSE_BYTES_MAX => {}
                        Ok(None) | Err(_) => return self.finish(at, None),
                        Ok(response) => return self.finish(at, response),
                    }
                    // Another event follows when more arrives.
                    if bytes < self.buffer.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return self.finish(at, None),
            }
        }
    }

    /// Ends the request of a writer; without a response, it was lost or never sent.
    fn finish(&mut self, at: usize, response: Option<Response>) {
        let writer = &mut self.writers[at];
        let Some(in_flight) = writer.in_flight.take() else { return };
        let now = self.state.now();
        let request = writer.requests.last_mut().expect("the request was recorded when it was sent");
        request.outcome = match response {
            Some(response) => response.outcome,
            None if in_flight.is_sent => Outcome::Lost,
            None => Outcome::NotSent,
        };
        if response.is_some() {
            request.end = now;
        }
        match request.outcome {
            Outcome::Accepted | Outcome::Inconsistent | Outcome::Rejected => {
                let histogram = match request.operation {
                    Operation::Delete => &mut self.result.delete,
                    _ => &mut self.result.push,
                };
                histogram.saturating_record(now.saturating_sub(in_flight.due) / 1000);
                self.state.answered.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Unknown(_) | Outcome::Lost | Outcome::NotSent => {
                self.state.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
        if in_flight.new_connection || response.is_none_or(|response| response.closes) {
            writer.stream = None;
        }
        self.idle.push(at);
    }

    /// Ends requests that have waited too long for their response.
    fn check_timeouts(&mut self) {
        if self.timeouts_checked.elapsed() < TIMEOUT_CHECK_INTERVAL {
            return;
        }
        self.timeouts_checked = Instant::now();
        let timeout = self.state.load.timeout.as_nanos() as u64;
        let now = self.state.now();
        for at in 0..self.writers.len() {
            let Writer { in_flight, requests, .. } = &self.writers[at];
            let has_timed_out = requests.last().is_some_and(|request| now - request.start > timeout);
            if in_flight.is_some() && has_timed_out {
                self.finish(at, None);
            }
        }
    }
}

/// Whether an idle connection on which an event arrived is still open: data or an end without a request close it.
fn is_still_open(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 64];
    matches!(stream.read(&mut buffer), Err(error) if error.kind() == ErrorKind::WouldBlock)
}
