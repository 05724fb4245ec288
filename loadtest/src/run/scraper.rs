//! The scrapers: a thread each, which scrapes at its interval, and reads what came when the load is over.
//!
//! To read an exposition takes longer than a good gateway needs to send it, so it would compete with the gateway that is measured.

use std::sync::atomic::Ordering;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::exposition::Reader;
use crate::flags::Encoding;
use crate::history::{Scrape, Scrapes};
use crate::http::{Answer, gunzip};
use crate::run::writers::{Shared, histogram};

/// Above this, a run's scrapes are read while it goes on.
const KEPT_BYTES_MAX: usize = 512 << 20;

/// What a scraper measured.
pub struct Measured {
    /// What it saw.
    pub scrapes: Scrapes,
    /// In microseconds, from when a scrape was due until its last byte.
    pub latency: Histogram<u64>,
    /// Bytes as they came.
    pub wire_bytes: u64,
    /// Scrapes that were not answered with 200.
    pub failed: u64,
}

/// Scrapes until `done` says so, and once more then: that one shows what all pushes left.
pub fn run(shared: &Shared<'_>, number: usize, check: bool, done: &dyn Fn() -> bool) -> Measured {
    let mut kept = Kept::new(shared);
    let mut client = shared.target.client();
    let path = format!("{}/metrics", shared.target.prefix);
    let gzip = match shared.load.scrape_encoding {
        Encoding::Gzip => true,
        Encoding::Plain => false,
        Encoding::Both => number.is_multiple_of(2),
    };
    let interval = shared.plan.scrape_interval.as_nanos() as u64;
    let mut measured =
        Measured { scrapes: Scrapes::default(), latency: histogram(), wire_bytes: 0, failed: 0 };
    // They do not all come at once.
    let mut due = 1 + interval * number as u64 / shared.plan.scrapers.max(1) as u64;
    let mut busy = false;
    loop {
        let last = done();
        let now = shared.now();
        if !last && due > now {
            leave(shared, &mut busy);
            std::thread::sleep(Duration::from_nanos((due - now).min(20_000_000)));
            continue;
        }
        if !enter(shared, &mut busy) {
            std::thread::sleep(Duration::from_millis(1));
            due = shared.now();
            continue;
        }
        let start = shared.now();
        match client.request("GET", &path, gzip) {
            Ok(answer) if answer.status == 200 => {
                let end = shared.now();
                if !last {
                    measured.latency.saturating_record((end - due) / 1000);
                }
                measured.wire_bytes += answer.wire_bytes as u64;
                shared.scrapes.fetch_add(1, Ordering::Relaxed);
                if check {
                    kept.keep(&answer, Scrape { start, end }, &mut measured);
                }
            }
            Ok(_) => measured.failed += 1,
            Err(_) if shared.dark.load(Ordering::SeqCst) => {}
            Err(_) => measured.failed += 1,
        }
        if last {
            break;
        }
        // A scraper skips what it could not do in time, as Prometheus does.
        due += interval;
        if due + interval < shared.now() {
            due = shared.now();
        }
    }
    leave(shared, &mut busy);
    kept.read(&mut measured);
    measured
}

/// Scrapes as they came.
struct Kept<'a> {
    reader: Reader<'a>,
    scrapes: Vec<(Scrape, bool, Vec<u8>)>,
    bytes: usize,
    bytes_max: usize,
    plain: Vec<u8>,
}

impl<'a> Kept<'a> {
    fn new(shared: &Shared<'a>) -> Self {
        let bytes_max = KEPT_BYTES_MAX / shared.plan.scrapers.max(1);
        Self {
            reader: Reader::new(shared.layout),
            scrapes: Vec::new(),
            bytes: 0,
            bytes_max,
            plain: Vec::new(),
        }
    }

    fn keep(&mut self, answer: &Answer<'_>, scrape: Scrape, measured: &mut Measured) {
        self.bytes += answer.body.len();
        self.scrapes.push((scrape, answer.gzip, answer.body.to_vec()));
        if self.bytes > self.bytes_max {
            self.read(measured);
        }
    }

    fn read(&mut self, measured: &mut Measured) {
        self.bytes = 0;
        for (scrape, gzip, body) in self.scrapes.drain(..) {
            let text = match gzip {
                false => Ok(&body),
                true => gunzip(&body, &mut self.plain).map(|()| &self.plain),
            };
            match text {
                Ok(text) => self.reader.read(text, scrape, &mut measured.scrapes),
                Err(_) => measured.failed += 1,
            }
        }
    }
}

fn enter(shared: &Shared<'_>, busy: &mut bool) -> bool {
    if !*busy {
        shared.busy.fetch_add(1, Ordering::SeqCst);
        *busy = true;
    }
    if shared.dark.load(Ordering::SeqCst) {
        leave(shared, busy);
    }
    *busy
}

fn leave(shared: &Shared<'_>, busy: &mut bool) {
    if *busy {
        shared.busy.fetch_sub(1, Ordering::SeqCst);
        *busy = false;
    }
}
