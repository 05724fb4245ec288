//! The scrapers: a thread each, which scrapes at its interval and reads what comes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::exposition::Reader;
use crate::flags::Encoding;
use crate::history::{Scrape, Scrapes};
use crate::load::{Shared, histogram};

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
    let mut reader = Reader::new(shared.layout);
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
                    reader.read(&answer.body, Scrape { start, end }, &mut measured.scrapes);
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
    measured
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
