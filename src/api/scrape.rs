//! Scrapes: what all cores handed over → the pieces of one answer.
//!
//! Nothing is parsed or formatted here but the headers of families. Large segments go as they are; what is small is copied
//! together, so that the socket gets long pieces and the compressor has something to work on.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, VARY};
use http::{Response, StatusCode};

use crate::exposition::labels::write_label;
use crate::exposition::model::MetricType;
use crate::exposition::number::write_float;
use crate::exposition::render::write_header;
use crate::shard::Handed;
use crate::shard::segments::Segment;
use crate::telemetry::metrics::{OwnFamily, OwnValue};
use crate::telemetry::names::OwnKind;

use super::answers::{Answer, busy};
use super::body::Body;

/// Shorter ranges are copied together.
const SMALL_BYTES: usize = 4 * 1024;
/// Copied units end when they are this long.
const UNIT_BYTES: usize = 32 * 1024;

const TEXT: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8; escaping=underscores");

/// A part of an exposition, as it is sent and compressed.
#[derive(Debug, Clone)]
pub enum Unit {
    /// A segment, shared with its shard.
    Segment(Arc<Segment>),
    /// Small ranges copied together.
    Copied(Bytes),
}

/// A segment's text as bytes that keep the segment alive.
struct SegmentText(Arc<Segment>);

impl AsRef<[u8]> for SegmentText {
    fn as_ref(&self) -> &[u8] {
        self.0.text()
    }
}

impl Unit {
    /// The text.
    pub fn text(&self) -> &[u8] {
        match self {
            Self::Segment(segment) => segment.text(),
            Self::Copied(bytes) => bytes,
        }
    }

    /// The text, to be sent.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Segment(segment) => Bytes::from_owner(SegmentText(segment)),
            Self::Copied(bytes) => bytes,
        }
    }
}

/// Merges what the cores handed over (each list sorted by name) with the gateway's own metrics.
///
/// Each family stands once, with one HELP and TYPE; families are sorted by name.
pub fn merge(cores: &[Vec<Handed>], own: &[OwnFamily]) -> Vec<Unit> {
    let mut merged = Merged { units: Vec::with_capacity(64), small: Vec::with_capacity(UNIT_BYTES) };
    let mut next = vec![0; cores.len()];
    let mut own = own.iter().peekable();
    loop {
        let pushed =
            cores.iter().zip(&next).filter_map(|(core, at)| Some(&*core.get(*at)?.shared.name)).min();
        let Some(name) =
            pushed.into_iter().chain(own.peek().map(|family| family.name)).min().map(str::to_owned)
        else {
            break;
        };
        let own_family = own.next_if(|family| family.name == name);
        let mut has_header = false;
        if let Some(family) = own_family {
            write_header(&mut merged.small, &name, kind_of(family.kind), Some(family.help));
            write_own(&mut merged.small, family);
            has_header = true;
        }
        for (core, at) in cores.iter().zip(&mut next) {
            let Some(handed) = core.get(*at).filter(|handed| *handed.shared.name == *name) else { continue };
            *at += 1;
            if !std::mem::replace(&mut has_header, true) {
                let help = handed.shared.help();
                write_header(&mut merged.small, &name, handed.kind, help.as_deref());
            }
            handed.text.segments().for_each(|segment| merged.add(segment));
        }
    }
    merged.end_small();
    merged.units
}

struct Merged {
    units: Vec<Unit>,
    small: Vec<u8>,
}

impl Merged {
    fn add(&mut self, segment: &Arc<Segment>) {
        if segment.text().len() < SMALL_BYTES {
            self.small.extend_from_slice(segment.text());
            if self.small.len() >= UNIT_BYTES {
                self.end_small();
            }
        } else {
            self.end_small();
            self.units.push(Unit::Segment(segment.clone()));
        }
    }

    fn end_small(&mut self) {
        if !self.small.is_empty() {
            let small = std::mem::replace(&mut self.small, Vec::with_capacity(SMALL_BYTES));
            self.units.push(Unit::Copied(small.into()));
        }
    }
}

/// The exposition's type of an own family.
pub fn kind_of(kind: OwnKind) -> MetricType {
    match kind {
        OwnKind::Counter => MetricType::Counter,
        OwnKind::Gauge => MetricType::Gauge,
        OwnKind::Summary => MetricType::Summary,
    }
}

/// Writes the lines of an own family.
fn write_own(out: &mut Vec<u8>, family: &OwnFamily) {
    for sample in &family.samples {
        let mut line = |suffix: &str, quantile: Option<f64>, value: f64| {
            out.extend_from_slice(family.name.as_bytes());
            out.extend_from_slice(suffix.as_bytes());
            let start = out.len();
            for (name, value) in &sample.labels {
                out.push(if out.len() == start { b'{' } else { b',' });
                write_label(out, name, value);
            }
            if let Some(quantile) = quantile {
                out.push(if out.len() == start { b'{' } else { b',' });
                out.extend_from_slice(b"quantile=\"");
                write_float(out, quantile);
                out.push(b'"');
            }
            if out.len() > start {
                out.push(b'}');
            }
            out.push(b' ');
            write_float(out, value);
            out.push(b'\n');
        };
        match &sample.value {
            OwnValue::Single(value) => line("", None, *value),
            OwnValue::Summary { quantiles, sum, count } => {
                for (quantile, value) in quantiles {
                    line("", Some(*quantile), *value);
                }
                line("_sum", None, *sum);
                line("_count", None, *count as f64);
            }
        }
    }
}

/// Whether to send gzip: it must have been asked for, and more than identity, which `*` stands for, too.
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut identity) = (0.0_f64, 0.0_f64);
    for value in headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()) {
        for part in value.split(',') {
            let (coding, parameters) = part.split_once(';').unwrap_or((part, ""));
            let quality =
                parameters.trim().strip_prefix("q=").map_or(1.0, |q| q.trim().parse().unwrap_or(0.0));
            let coding = coding.trim();
            if coding.eq_ignore_ascii_case("gzip") {
                gzip = gzip.max(quality);
            } else if coding == "*" || coding.eq_ignore_ascii_case("identity") {
                identity = identity.max(quality);
            }
        }
    }
    gzip > identity
}

/// The answer to a scrape: its pieces, compressed or not.
pub fn answer(pieces: impl IntoIterator<Item = Bytes>, is_gzip: bool) -> Answer {
    let mut answer = Response::new(Body::pieces(pieces));
    *answer.status_mut() = StatusCode::OK;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, TEXT);
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    if is_gzip {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    answer
}

/// 503: too many scrapes at one time.
pub fn too_many() -> Answer {
    busy("too many scrapes at one time, try again")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(value: &'static str) -> bool {
        accepts_gzip(&[(ACCEPT_ENCODING, HeaderValue::from_static(value))].into_iter().collect())
    }

    #[test]
    fn gzip_is_sent_only_when_asked_for_by_name() {
        assert!(accepts("gzip"));
        assert!(accepts("deflate, GZIP;q=0.5"));
        assert!(accepts("identity;q=0.5, gzip"));
        for value in ["identity", "*", "", "gzip;q=0", "br, zstd", "gzipped", "gzip, identity", "gzip, *"] {
            assert!(!accepts(value), "{value}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }
}
