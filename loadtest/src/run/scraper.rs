//! The scrapers: one thread each, which scrapes at its interval and reads the responses after the load has ended.
//!
//! Reading an exposition takes longer than a good gateway needs to send it, so it would compete for CPU with the gateway under
//! test.

use std::sync::atomic::Ordering;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::shared::{ActivityMark, RunState, latency_histogram};
use crate::exposition::ScrapeReader;
use crate::flags::ScrapeEncoding;
use crate::history::{Scrape, ScrapeLog};
use crate::http::{Response, gunzip};

/// Expositions that all scrapers of a run buffer; beyond this, a scraper reads them during the run.
const BUFFERED_BYTES_MAX: usize = 512 << 20;
/// Longest sleep between two scrapes, so that a scraper notices the end of the run.
const SLEEP_MAX: Duration = Duration::from_millis(20);

/// What a scraper measured.
pub struct ScraperResult {
    /// What it saw.
    pub log: ScrapeLog,
    /// Microseconds from when a scrape was due until its last byte.
    pub latency: Histogram<u64>,
    /// Bytes as received.
    pub wire_bytes: u64,
    /// Scrapes without a 200, and scrapes that could not be decompressed.
    pub failed: u64,
}

/// Scrapes until `is_done`, and then once more to see what all pushes left. With `check`, records what the scrapes show.
pub fn run(state: &RunState<'_>, number: usize, check: bool, is_done: &dyn Fn() -> bool) -> ScraperResult {
    let mut buffer = ScrapeBuffer::new(state);
    let mut client = state.target.client();
    let path = format!("{}/metrics", state.target.prefix);
    let gzip = match state.load.scrape_encoding {
        ScrapeEncoding::Gzip => true,
        ScrapeEncoding::Plain => false,
        ScrapeEncoding::Both => number.is_multiple_of(2),
    };
    let interval = state.plan.scrape_interval.as_nanos() as u64;
    let mut result =
        ScraperResult { log: ScrapeLog::default(), latency: latency_histogram(), wire_bytes: 0, failed: 0 };
    // The scrapers start at different times within the first interval.
    let mut due = 1 + interval * number as u64 / state.plan.scrapers.max(1) as u64;
    let mut mark = ActivityMark::new(state);
    loop {
        let is_last = is_done();
        let now = state.now();
        if !is_last && due > now {
            mark.clear();
            std::thread::sleep(Duration::from_nanos(due - now).min(SLEEP_MAX));
            continue;
        }
        mark.set();
        if state.scrapers_paused.load(Ordering::SeqCst) {
            mark.clear();
            std::thread::sleep(Duration::from_millis(1));
            due = state.now();
            continue;
        }
        let start = state.now();
        let response = if gzip { client.get_gzip(&path) } else { client.get(&path) };
        match response {
            Ok(response) if response.status == 200 => {
                let end = state.now();
                if !is_last {
                    result.latency.saturating_record((end - due) / 1000);
                }
                result.wire_bytes += response.wire_bytes as u64;
                state.scrapes.fetch_add(1, Ordering::Relaxed);
                if check {
                    buffer.add(&response, Scrape { start, end }, &mut result);
                }
            }
            Ok(_) => result.failed += 1,
            // The gateway has been killed.
            Err(_) if state.scrapers_paused.load(Ordering::SeqCst) => {}
            Err(_) => result.failed += 1,
        }
        if is_last {
            break;
        }
        // Like Prometheus, a scraper skips scrapes for which it had no time.
        due += interval;
        if due + interval < state.now() {
            due = state.now();
        }
    }
    drop(mark);
    buffer.read_all(&mut result);
    result
}

/// Responses that have not been read yet.
struct ScrapeBuffer<'a> {
    reader: ScrapeReader<'a>,
    scrapes: Vec<BufferedScrape>,
    bytes: usize,
    bytes_max: usize,
    plain: Vec<u8>,
}

struct BufferedScrape {
    scrape: Scrape,
    gzip: bool,
    body: Vec<u8>,
}

impl<'a> ScrapeBuffer<'a> {
    fn new(state: &RunState<'a>) -> Self {
        Self {
            reader: ScrapeReader::new(state.schema),
            scrapes: Vec::new(),
            bytes: 0,
            bytes_max: BUFFERED_BYTES_MAX / state.plan.scrapers.max(1),
            plain: Vec::new(),
        }
    }

    fn add(&mut self, response: &Response<'_>, scrape: Scrape, result: &mut ScraperResult) {
        self.bytes += response.body.len();
        self.scrapes.push(BufferedScrape { scrape, gzip: response.gzip, body: response.body.to_vec() });
        if self.bytes > self.bytes_max {
            self.read_all(result);
        }
    }

    fn read_all(&mut self, result: &mut ScraperResult) {
        self.bytes = 0;
        for BufferedScrape { scrape, gzip, body } in self.scrapes.drain(..) {
            let text = if gzip { gunzip(&body, &mut self.plain).map(|()| &self.plain) } else { Ok(&body) };
            match text {
                Ok(text) => self.reader.read(text, scrape, &mut result.log),
                Err(_) => result.failed += 1,
            }
        }
    }
}
