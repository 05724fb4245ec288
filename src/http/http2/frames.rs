//! Follows the frames that a client sends: when a head begins and ends, and how much the client costs without asking for anything.
//!
//! Bytes pass through unchanged; h2 decodes them. What h2 itself refuses needs nothing here: too many small or empty DATA frames, too
//! many CONTINUATION frames, and streams that are reset before they are accepted.

/// What every client sends first; the rest of it is frames.
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEADER_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
/// The flag of HEADERS and CONTINUATION that ends a head.
const END_HEADERS: u8 = 0x4;

/// The credit of a new connection, and the most that it can have. A frame that carries neither a request nor a body costs credit.
const CREDIT_MAX: u32 = 1_000;
/// A reset is paid for with a request that was begun in vain.
const RESET_COST: u32 = 10;
/// Settings have to be acknowledged, and change the windows of all streams.
const SETTINGS_COST: u32 = 5;
/// What any other frame costs: window updates, pings, priorities, continuations, and unknown ones.
const FRAME_COST: u32 = 1;
/// Credit that returns with time.
const CREDIT_PER_SECOND: u64 = 100;
/// Credit for a response that was sent. Clients update two windows, and may reset the stream of a response of which they have enough.
const RESPONSE_CREDIT: u32 = 20;
/// Credit for bytes sent. Clients may update two windows for each frame that they receive.
const BYTES_PER_CREDIT: u64 = 512;

/// DATA frames with less than this are small: h2 needs about as much to hold one.
const SMALL_DATA_BYTES: usize = 256;
/// How many small DATA frames h2 may get before the streams read them. It ends a connection with a few hundred that were not read, which a
/// client that sends its body line by line must not cause.
const SMALL_FRAMES_PER_TURN: usize = 64;

/// The client sends too many frames that carry nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many frames without a request or a body")]
pub(super) struct TooManyFrames;

/// What some bytes contained.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scanned {
    /// How many bytes were followed; the rest must wait until the streams have read.
    pub bytes: usize,
    /// Bytes of bodies.
    pub body_bytes: usize,
    /// A head ended.
    pub is_head_complete: bool,
    /// A head needs further frames.
    pub is_head_continued: bool,
}

/// The frames of one connection.
#[derive(Debug)]
pub(super) struct Frames {
    preface_left: usize,
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    payload_left: usize,
    /// A head has begun and not ended.
    in_head: bool,
    last_stream: u32,
    credit: u32,
    /// When credit was last given for the time.
    credited_millis: u64,
    /// Sent bytes for which no credit was given yet.
    uncredited_bytes: u64,
}

impl Frames {
    pub(super) fn new(now_millis: u64) -> Self {
        Self {
            preface_left: PREFACE.len(),
            header: [0; HEADER_BYTES],
            header_bytes: 0,
            payload_left: 0,
            in_head: false,
            last_stream: 0,
            credit: CREDIT_MAX,
            credited_millis: now_millis,
            uncredited_bytes: 0,
        }
    }

    /// Whether a head has begun and not ended.
    pub(super) fn is_head_incomplete(&self) -> bool {
        self.in_head
    }

    /// The last stream of which something has arrived.
    pub(super) fn last_stream(&self) -> u32 {
        self.last_stream
    }

    /// A response was sent.
    pub(super) fn credit_response(&mut self) {
        self.add_credit(RESPONSE_CREDIT);
    }

    /// Bytes were sent.
    pub(super) fn credit_bytes(&mut self, count: usize) {
        self.uncredited_bytes += count as u64;
        self.add_credit(u32::try_from(self.uncredited_bytes / BYTES_PER_CREDIT).unwrap_or(CREDIT_MAX));
        self.uncredited_bytes %= BYTES_PER_CREDIT;
    }

    /// Follows bytes that arrived, up to the end of many small DATA frames.
    ///
    /// # Errors
    /// The client has no credit left.
    pub(super) fn scan(&mut self, all: &[u8], now_millis: u64) -> Result<Scanned, TooManyFrames> {
        self.credit_time(now_millis);
        let mut scanned = Scanned::default();
        let mut small_frames = 0;
        let mut bytes = all;
        skip(&mut bytes, &mut self.preface_left);
        while !bytes.is_empty() && small_frames < SMALL_FRAMES_PER_TURN {
            if self.header_bytes < HEADER_BYTES {
                let count = bytes.len().min(HEADER_BYTES - self.header_bytes);
                self.header[self.header_bytes..][..count].copy_from_slice(&bytes[..count]);
                self.header_bytes += count;
                bytes = &bytes[count..];
                if self.header_bytes < HEADER_BYTES {
                    break;
                }
                self.begin_frame()?;
                let is_small = self.header[3] == DATA && self.payload_left < SMALL_DATA_BYTES;
                small_frames += usize::from(is_small);
            }
            let count = skip(&mut bytes, &mut self.payload_left);
            if self.header[3] == DATA {
                scanned.body_bytes += count;
            }
            if self.payload_left == 0 {
                self.header_bytes = 0;
                self.end_frame(&mut scanned);
            }
        }
        scanned.bytes = all.len() - bytes.len();
        Ok(scanned)
    }

    fn begin_frame(&mut self) -> Result<(), TooManyFrames> {
        let [high, middle, low, kind, _, stream @ ..] = self.header;
        self.payload_left = u32::from_be_bytes([0, high, middle, low]) as usize;
        let cost = match kind {
            DATA => 0,
            HEADERS => {
                self.in_head = true;
                self.last_stream = self.last_stream.max(u32::from_be_bytes(stream) & (u32::MAX >> 1));
                0
            }
            RST_STREAM => RESET_COST,
            SETTINGS => SETTINGS_COST,
            _ => FRAME_COST,
        };
        self.credit = self.credit.checked_sub(cost).ok_or(TooManyFrames)?;
        Ok(())
    }

    fn end_frame(&mut self, scanned: &mut Scanned) {
        if !matches!(self.header[3], HEADERS | CONTINUATION) {
            return;
        }
        if self.header[4] & END_HEADERS == 0 {
            scanned.is_head_continued = true;
        } else {
            scanned.is_head_complete = true;
            scanned.is_head_continued = false;
            self.in_head = false;
        }
    }

    fn credit_time(&mut self, now_millis: u64) {
        let credit =
            now_millis.saturating_sub(self.credited_millis).saturating_mul(CREDIT_PER_SECOND) / 1_000;
        if credit > 0 {
            self.credited_millis = now_millis;
            self.add_credit(u32::try_from(credit).unwrap_or(CREDIT_MAX));
        }
    }

    fn add_credit(&mut self, credit: u32) {
        self.credit = self.credit.saturating_add(credit).min(CREDIT_MAX);
    }
}

/// Skips up to `left` bytes. Returns how many.
fn skip(bytes: &mut &[u8], left: &mut usize) -> usize {
    let count = bytes.len().min(*left);
    *bytes = &bytes[count..];
    *left -= count;
    count
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn connected() -> Frames {
        let mut frames = Frames::new(0);
        frames.scan(PREFACE, 0).expect("a preface costs nothing");
        frames
    }

    /// How many frames of this kind a client can send at once.
    fn count_allowed(kind: u8) -> usize {
        let (mut frames, bytes) = (connected(), frame(kind, 0, &[0; 8]));
        (0..).take_while(|_| frames.scan(&bytes, 0).is_ok()).count()
    }

    #[test]
    fn a_head_ends_with_its_last_frame() {
        let mut frames = connected();
        let first = frame(HEADERS, 0, b"abc");
        assert_eq!(frames.scan(&first[..11], 0), Ok(Scanned { bytes: 11, ..Scanned::default() }));
        assert!(frames.is_head_incomplete());
        let continued = Scanned { bytes: 1, is_head_continued: true, ..Scanned::default() };
        assert_eq!(frames.scan(&first[11..], 0), Ok(continued));
        assert!(frames.is_head_incomplete());
        let complete = Scanned { bytes: 10, is_head_complete: true, ..Scanned::default() };
        assert_eq!(frames.scan(&frame(CONTINUATION, END_HEADERS, b"d"), 0), Ok(complete));
        assert!(!frames.is_head_incomplete());
        let with_body = [frame(HEADERS, END_HEADERS, b""), frame(DATA, 0, b"12345")].concat();
        assert_eq!(frames.scan(&with_body, 0), Ok(Scanned { bytes: 23, body_bytes: 5, ..complete }));
        assert_eq!(frames.last_stream(), 1);
    }

    #[test]
    fn frames_that_carry_nothing_cost_credit() {
        for (kind, cost) in [(2, 1), (RST_STREAM, 10), (SETTINGS, 5), (6, 1), (8, 1), (9, 1), (200, 1)] {
            assert_eq!(count_allowed(kind), 1_000 / cost, "{kind}");
        }
        let mut frames = connected();
        for _ in 0..10_000 {
            frames.scan(&frame(HEADERS, END_HEADERS, b"abc"), 0).expect("a request costs nothing");
            frames.scan(&frame(DATA, 0, b"abc"), 0).expect("a body costs nothing");
        }
    }

    #[test]
    fn credit_returns_with_time_and_with_what_is_sent() {
        let mut frames = connected();
        frames.credit = 0;
        let mut credit_after = |now_millis| {
            frames.scan(b"", now_millis).expect("nothing costs nothing");
            frames.credit
        };
        assert_eq!((credit_after(9), credit_after(500), credit_after(505)), (0, 50, 50));
        assert_eq!(credit_after(1_000_000), 1_000);
        frames.credit = 0;
        frames.credit_response();
        frames.credit_bytes(1_000);
        frames.credit_bytes(24);
        assert_eq!(frames.credit, 22);
    }

    #[test]
    fn many_small_pieces_of_a_body_wait_for_their_turn() {
        let mut frames = connected();
        let piece = frame(DATA, 0, b"ab");
        let bytes = piece.repeat(100);
        let first = frames.scan(&bytes, 0).expect("a body costs nothing");
        assert_eq!((first.bytes, first.body_bytes), (64 * piece.len(), 128));
        assert_eq!(frames.scan(&bytes[first.bytes..], 0).map(|second| second.bytes), Ok(36 * piece.len()));
        let large = frame(DATA, 0, &[0; 256]).repeat(100);
        assert_eq!(frames.scan(&large, 0).map(|scanned| scanned.bytes), Ok(large.len()));
    }

    proptest! {
        #[test]
        fn the_cut_of_the_bytes_does_not_matter(
            kinds in prop::collection::vec((0..12_u8, any::<u8>(), 0..40_usize), 1..30),
            cuts in prop::collection::vec(1..50_usize, 1..10),
        ) {
            let mut bytes = PREFACE.to_vec();
            for (kind, flags, length) in kinds {
                bytes.extend_from_slice(&frame(kind, flags, &vec![0; length]));
            }
            let mut whole = Frames::new(0);
            let expected = whole.scan(&bytes, 0).expect("few frames");
            let mut pieces = Frames::new(0);
            let (mut body_bytes, mut rest, mut cuts) = (0, &bytes[..], cuts.iter().cycle());
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(rest.len().min(*cuts.next().expect("endless")));
                body_bytes += pieces.scan(piece, 0).expect("few frames").body_bytes;
                rest = after;
            }
            prop_assert_eq!(body_bytes, expected.body_bytes);
            prop_assert_eq!(pieces.is_head_incomplete(), whole.is_head_incomplete());
            prop_assert_eq!((pieces.credit, pieces.header_bytes), (whole.credit, 0));
        }
    }
}
