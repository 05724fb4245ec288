//! The well-behaved clients: a hundred that push ten times a second, most of them on persistent connections, and one that
//! scrapes.

use std::collections::BTreeMap;
use std::io::{self, BufReader, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memchr::memmem;

use crate::http::{get, put, read_response};
use crate::stream::{Stream, Target};

/// Number of clients that push.
pub const CLIENTS: usize = 100;
/// One client in this many opens a connection for each push, as short-lived jobs do.
const NEWCOMER_EVERY: usize = 10;
/// Time between two pushes of one client.
const PUSH_EVERY: Duration = Duration::from_millis(100);
/// A client gives up a push or a scrape after this time. Prometheus waits as long by default.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A refused push (503) is tried again after this time.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// What all clients saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Time of each successful push, in microseconds.
    pub push_micros: Vec<u32>,
    /// Failed pushes by reason.
    pub push_failures: BTreeMap<String, u64>,
    /// Time of each successful scrape, in microseconds.
    pub scrape_micros: Vec<u32>,
    /// Failed scrapes by reason.
    pub scrape_failures: BTreeMap<String, u64>,
    /// Scrapes that lacked an acknowledged push.
    pub wrong_scrapes: Vec<String>,
}

/// The state that the clients share.
pub struct Victims {
    target: Target,
    scrape_every: Duration,
    /// The attack deletes groups of well-behaved clients.
    may_delete: bool,
    records: AtomicBool,
    over: AtomicBool,
    /// The last value of each client that was acknowledged; and 0 for the client that probes whether all is normal.
    acknowledged: Vec<AtomicU64>,
    seen: Mutex<Seen>,
}

impl Victims {
    pub fn new(target: Target, scrape_every: Duration, may_delete: bool) -> Self {
        Self {
            target,
            scrape_every,
            may_delete,
            records: AtomicBool::new(false),
            over: AtomicBool::new(false),
            acknowledged: (0..=CLIENTS).map(|_| AtomicU64::new(0)).collect(),
            seen: Mutex::new(Seen::default()),
        }
    }

    /// Starts or stops recording what the clients see.
    pub fn record(&self, records: bool) {
        self.records.store(records, Ordering::Relaxed);
    }

    /// Ends all clients.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// What the clients have seen; after their end.
    pub fn seen(self) -> Seen {
        self.seen.into_inner().expect("no client panics")
    }

    /// Runs one client until [`Victims::end`].
    pub fn push(&self, number: usize) {
        let mut client = Client::new(self.target.clone());
        let mut due = Instant::now() + PUSH_EVERY * number as u32 / CLIENTS as u32;
        let (mut micros, mut failures) = (Vec::new(), BTreeMap::<String, u64>::new());
        let (mut value, mut is_certain) = (0, true);
        while self.sleep_until(due) {
            // A push that is late because of its predecessor has waited since it was due.
            let begin = if due.elapsed() < PUSH_EVERY { Instant::now() } else { due };
            let records = self.records.load(Ordering::Relaxed);
            value += 1;
            if number.is_multiple_of(NEWCOMER_EVERY) {
                client.reader = None;
            }
            let result = client.exchange(&push_of(number, value), None);
            if result.is_err() {
                // The gateway may still apply this push, even after the next one.
                is_certain = false;
                self.acknowledged[number].store(0, Ordering::Release);
            } else if is_certain && result.as_ref().is_ok_and(|status| status / 100 == 2) {
                self.acknowledged[number].store(value, Ordering::Release);
            }
            if records {
                match result {
                    Ok(status) if status / 100 == 2 => micros.push(micros_since(begin)),
                    other => *failures.entry(reason(other)).or_default() += 1,
                }
            }
            due = (due + PUSH_EVERY).max(Instant::now() - TIMEOUT);
        }
        let mut seen = self.seen.lock().expect("no client panics");
        seen.push_micros.append(&mut micros);
        for (reason, count) in failures {
            *seen.push_failures.entry(reason).or_default() += count;
        }
    }

    /// Scrapes until [`Victims::end`].
    pub fn scrape(&self) {
        let mut client = Client::new(self.target.clone());
        let mut due = Instant::now();
        let mut body = Vec::new();
        while self.sleep_until(due) {
            due = Instant::now() + self.scrape_every;
            let records = self.records.load(Ordering::Relaxed);
            let before: Vec<u64> =
                self.acknowledged.iter().map(|value| value.load(Ordering::Acquire)).collect();
            let begin = Instant::now();
            body.clear();
            let result = client.exchange(&get("/metrics"), Some(&mut body));
            let micros = micros_since(begin);
            // The groups may be deleted as soon as nothing is recorded any more.
            if !records || !self.records.load(Ordering::Relaxed) {
                continue;
            }
            let mut seen = self.seen.lock().expect("no client panics");
            match result {
                Ok(200) => {
                    seen.scrape_micros.push(micros);
                    if let Err(problem) = check(&body, &before)
                        && !self.may_delete
                    {
                        seen.wrong_scrapes.push(problem);
                    }
                }
                other => *seen.scrape_failures.entry(reason(other)).or_default() += 1,
            }
        }
    }

    /// Waits; `false` at the end.
    fn sleep_until(&self, due: Instant) -> bool {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        !self.over.load(Ordering::Relaxed)
    }
}

/// A push of a small body, in which the value identifies the push.
pub fn push_of(number: usize, value: u64) -> Vec<u8> {
    let body = format!(
        "# TYPE wellbehaved_runs counter\n# HELP wellbehaved_runs Runs of a job.\nwellbehaved_runs {value}\n\
         # TYPE wellbehaved_seconds gauge\nwellbehaved_seconds{{phase=\"load\"}} 0.25\n\
         wellbehaved_seconds{{phase=\"run\"}} 12.5\n"
    );
    put(&format!("/metrics/job/wellbehaved/instance/{number}"), body)
}

/// Each client's last acknowledged push, or a later one, must be in the scrape, once.
fn check(body: &[u8], acknowledged: &[u64]) -> Result<(), String> {
    if body.last() != Some(&b'\n') {
        return Err("the scrape ends within a line".to_owned());
    }
    let mut values: Vec<Option<u64>> = vec![None; acknowledged.len()];
    for at in memmem::find_iter(body, b"\nwellbehaved_runs{") {
        let line = body[at + 1..].split(|byte| *byte == b'\n').next().unwrap_or_default();
        let (number, value) = parse_line(line).ok_or_else(|| String::from_utf8_lossy(line).into_owned())?;
        let place = values.get_mut(number).ok_or("an unknown client")?;
        if place.replace(value).is_some() {
            return Err(format!("client {number} appears twice"));
        }
    }
    for (number, (value, wanted)) in values.iter().zip(acknowledged).enumerate() {
        if *wanted > 0 && value.is_none_or(|value| value < *wanted) {
            return Err(format!("client {number}: {value:?} instead of {wanted} or more"));
        }
    }
    Ok(())
}

/// `wellbehaved_runs{instance="7",job="wellbehaved"} 12`
fn parse_line(line: &[u8]) -> Option<(usize, u64)> {
    let line = std::str::from_utf8(line).ok()?;
    let instance = line.split_once("instance=\"")?.1.split_once('"')?.0;
    let value: f64 = line.rsplit_once(' ')?.1.parse().ok()?;
    Some((instance.parse().ok()?, value as u64))
}

/// A persistent connection, opened again when the server has closed it.
struct Client {
    target: Target,
    reader: Option<BufReader<Stream>>,
}

impl Client {
    const fn new(target: Target) -> Self {
        Self { target, reader: None }
    }

    /// Sends a request and returns the status. A request on a connection that the server has closed in the meantime is sent
    /// again, as HTTP clients do; a refusal with 503 is tried once more after a while.
    fn exchange(&mut self, request: &[u8], mut body: Option<&mut Vec<u8>>) -> io::Result<u16> {
        let is_reused = self.reader.is_some();
        let status = match self.exchange_once(request, body.as_deref_mut()) {
            Err(error) if is_reused && error.kind() != io::ErrorKind::WouldBlock => {
                self.exchange_once(request, body.as_deref_mut())?
            }
            other => other?,
        };
        if status != 503 || body.is_some() {
            return Ok(status);
        }
        std::thread::sleep(RETRY_AFTER);
        self.exchange_once(request, body)
    }

    fn exchange_once(&mut self, request: &[u8], body: Option<&mut Vec<u8>>) -> io::Result<u16> {
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => BufReader::new(self.target.connect(TIMEOUT)?),
        };
        reader.get_mut().write_all(request)?;
        let response = read_response(&mut reader, b"", body)?;
        if !response.closes {
            self.reader = Some(reader);
        }
        Ok(response.status)
    }
}

fn micros_since(begin: Instant) -> u32 {
    u32::try_from(begin.elapsed().as_micros()).unwrap_or(u32::MAX)
}

fn reason(result: io::Result<u16>) -> String {
    match result {
        Ok(status) => status.to_string(),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => "timeout".to_owned(),
        Err(error) => error.kind().to_string(),
    }
}
